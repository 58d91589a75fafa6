//! What a start makes of what it finds goes to the disk by itself.

use std::{fs, path::Path, thread, time::Instant};

use dunlin::{
    codec::Version,
    session::StoredPresence,
    store::{DiskOptions, LocalStore},
    time::Timestamp,
};

use super::{
    broker::{Broker, PATIENCE},
    client::{Connection, Who},
};

/// Whether the store in this file has a session, and all that it has are without connection.
fn is_detached(database: &Path, copy: &Path) -> bool {
    let _ = fs::remove_dir_all(copy);
    fs::create_dir_all(copy).unwrap();
    fs::copy(database, copy.join("dunlin.redb")).unwrap();
    // A copy of a file that is being written may be of no use: then the next one is.
    let opened = LocalStore::open(copy, DiskOptions::default(), Timestamp::from_millis(0));
    opened.is_ok_and(|(_, recovered, _)| {
        let mut presences = recovered.sessions.iter().map(|session| session.presence);
        !recovered.sessions.is_empty()
            && presences.all(|presence| matches!(presence, StoredPresence::Detached { .. }))
    })
}

// On a shard where nothing happens: `$SYS` is off. Otherwise a second crash takes the session for connected until then: it and its will would last anew.
#[test]
fn a_session_that_a_crash_has_parted_is_stored_so_without_any_client() {
    let mut broker = Broker::new("restarted", "shards = 1\nsys.interval_secs = 0");
    broker.start();
    let who = Who { id: "client".into(), version: Version::V5, socket: broker.socket() };
    let connection = Connection::open(&who, None).ok().unwrap();
    let copy = broker.data().with_file_name("copy");
    broker.kill();
    drop(connection);
    assert!(!is_detached(&broker.database(), &copy), "it was connected when the broker was killed");
    broker.start();
    let deadline = Instant::now() + PATIENCE;
    while !is_detached(&broker.database(), &copy) {
        assert!(Instant::now() < deadline, "the store does not know that the connection is gone");
        thread::yield_now();
    }
}
