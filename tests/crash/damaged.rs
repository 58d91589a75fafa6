//! A file that is not what the broker wrote: it starts with what can be read, or says why it does not.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    os::unix::fs::{FileExt, PermissionsExt},
    path::Path,
    time::Instant,
};

use dunlin::codec::{Delivery, Packet, PacketId, PacketKind, Publish, PublishProperties, QoS, Version};

use super::{
    broker::{Broker, PATIENCE},
    client::{Connection, Got, Who},
};

const MESSAGES: u64 = 400;
const RETAINED: u64 = 20;
const SETTINGS: &str = "shards = 1\nlog.filter = \"info,dunlin::connection=warn\"";
/// Bytes of a page of the database.
const PAGE_BYTES: u64 = 4096;
/// Reads in a row that bring nothing, after which nothing more is expected.
const IDLE_READS: usize = 150;

fn open(broker: &Broker, id: &str) -> (Connection, bool) {
    let who = Who { id: id.into(), version: Version::V5, socket: broker.socket() };
    Connection::open(&who, None).ok().unwrap()
}

/// Reads until this was true of something, and all that came with it.
fn read_until(connection: &mut Connection, mut is_enough: impl FnMut(Got, &mut Connection) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    let mut is_done = false;
    while !is_done {
        for got in connection.read().ok().unwrap() {
            is_done |= is_enough(got, connection);
        }
        assert!(Instant::now() < deadline, "something is missing");
    }
}

/// The text of a message: it tells whether it is whole.
fn payload(number: u64) -> String {
    let body = format!("{number:06}-").repeat(100);
    format!("{number}:{body}")
}

/// What a client got of what was stored before.
#[derive(Default)]
struct Survivors {
    has_session: bool,
    queued: Vec<u64>,
    retained: BTreeSet<u64>,
    /// Messages that are not what they were.
    altered: usize,
}

impl Survivors {
    /// Takes a packet in, and acknowledges it. Returns the topic of a message.
    fn take(&mut self, got: Got, connection: &mut Connection) -> Option<String> {
        let Got::Publish { topic, payload: text, delivery } = got else { return None };
        if let Delivery::AtLeastOnce(id) = delivery {
            assert!(connection.ack(PacketKind::PubAck, id).is_ok());
        }
        let number = text.split(':').next().unwrap().parse().unwrap_or_default();
        self.altered += usize::from(text != payload(number));
        match topic.split('/').next() {
            Some("queue") => self.queued.push(number),
            Some("retained") => drop(self.retained.insert(number)),
            Some(_) | None => {}
        }
        Some(topic)
    }
}

fn publish(connection: &mut Connection, topic: &str, text: &str, retain: bool, id: PacketId) {
    let published = connection.send(&Packet::Publish(Publish {
        dup: false,
        delivery: Delivery::AtLeastOnce(id),
        retain,
        topic,
        properties: PublishProperties::default(),
        payload: text.as_bytes(),
    }));
    assert!(published.is_ok());
}

/// Messages for a session without connection, and retained ones: all of them are acknowledged.
fn fill(broker: &Broker) {
    let (mut subscriber, _) = open(broker, "subscriber");
    assert!(subscriber.subscribe("queue/#", QoS::AtLeastOnce).is_ok());
    read_until(&mut subscriber, |got, _| matches!(got, Got::SubAck));
    assert!(subscriber.disconnect().is_ok());
    let (mut publisher, _) = open(broker, "publisher");
    for number in 0..RETAINED {
        let id = PacketId::new(1 + number as u16).unwrap();
        publish(&mut publisher, &format!("retained/{number}"), &payload(number), true, id);
    }
    for number in 0..MESSAGES {
        let id = PacketId::new(1 + (RETAINED + number) as u16).unwrap();
        publish(&mut publisher, &format!("queue/{number}"), &payload(number), false, id);
    }
    let mut left = MESSAGES + RETAINED;
    read_until(&mut publisher, |got, _| {
        left -= u64::from(matches!(got, Got::Ack { kind: PacketKind::PubAck, .. }));
        left == 0
    });
    // A damaged page of the last commit before an unclean end cannot be told from a commit that the end cut short,
    // which nobody was promised: the broker rightly starts with the state before it. So there is one more.
    publish(&mut publisher, "retained/0", &payload(0), true, PacketId::MIN);
    read_until(&mut publisher, |got, _| matches!(got, Got::Ack { kind: PacketKind::PubAck, .. }));
    assert!(publisher.disconnect().is_ok());
}

/// What a client gets that may have the session still. New messages come too, as ever.
fn survivors(broker: &Broker) -> Survivors {
    let (mut subscriber, has_session) = open(broker, "subscriber");
    let mut survivors = Survivors { has_session, ..Survivors::default() };
    for filter in ["queue/#", "retained/#", "last"] {
        assert!(subscriber.subscribe(filter, QoS::AtLeastOnce).is_ok());
        read_until(&mut subscriber, |got, connection| {
            let is_suback = matches!(got, Got::SubAck);
            survivors.take(got, connection);
            is_suback
        });
    }
    let (mut publisher, _) = open(broker, "publisher");
    publish(&mut publisher, "last", &payload(0), false, PacketId::MIN);
    read_until(&mut subscriber, |got, connection| {
        survivors.take(got, connection).is_some_and(|topic| topic == "last")
    });
    // Retained messages may come later than new ones, and nobody knows how many are left.
    let mut idle_reads = 0;
    while idle_reads < IDLE_READS {
        idle_reads += 1;
        for got in subscriber.read().ok().unwrap() {
            survivors.take(got, &mut subscriber);
            idle_reads = 0;
        }
    }
    let queued = &survivors.queued;
    assert!(queued.is_sorted_by(|one, other| one < other), "in order, and each once: {queued:?}");
    survivors
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Stopped,
    Killed,
}

/// A broker that was filled and has ended.
fn filled(name: &str, end: End) -> Broker {
    let mut broker = Broker::new(name, SETTINGS);
    broker.start();
    fill(&broker);
    match end {
        End::Stopped => assert_eq!(broker.stop().code(), Some(0)),
        End::Killed => broker.kill(),
    }
    broker
}

/// It starts, has set the file aside as it was, and says so.
fn start_rescued(broker: &mut Broker) {
    let damaged = fs::read(broker.database()).unwrap();
    broker.start();
    // It listens before it is ready.
    drop(open(broker, "witness"));
    let names = broker.quarantine();
    let [file, report] = names.as_slice() else { panic!("{names:?} in quarantine") };
    assert!(fs::read(file).unwrap() == damaged, "the damaged file is kept as it was");
    let report = fs::read_to_string(report).unwrap();
    assert!(report.contains(&file.display().to_string()) || report.contains("redb"), "{report}");
    assert!(broker.log_tail().contains("the broker starts with what could be read"));
}

fn write_at(path: &Path, at: u64, bytes: &[u8]) {
    File::options().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
}

/// Where the middle of the message with this number is: one of the places is in use.
fn places_of(path: &Path, number: u64) -> Vec<u64> {
    let text = format!(":{}", format!("{number:06}-").repeat(50));
    let file = fs::read(path).unwrap();
    let found = file.windows(text.len()).enumerate().filter(|(_, window)| *window == text.as_bytes());
    found.map(|(at, _)| at as u64 + 1).collect()
}

#[test]
fn what_is_not_on_a_damaged_page_is_there_after_the_start() {
    for end in [End::Stopped, End::Killed] {
        for zeroes in [false, true] {
            let mut broker = filled("page", end);
            let path = broker.database();
            let places = places_of(&path, MESSAGES / 2);
            assert!(!places.is_empty());
            for at in places {
                if zeroes {
                    write_at(&path, at / PAGE_BYTES * PAGE_BYTES, &[0; PAGE_BYTES as usize]);
                } else {
                    // One bit of the text of one message: 0 becomes 2.
                    write_at(&path, at, b"2");
                }
            }
            start_rescued(&mut broker);
            let Survivors { has_session, queued, retained, altered } = survivors(&broker);
            assert!(has_session, "{end:?}: the session is lost");
            let lost: Vec<u64> = (0..MESSAGES).filter(|number| !queued.contains(number)).collect();
            assert!(lost.len() <= 8, "{end:?}: {lost:?} are lost with one page");
            assert!(retained.len() as u64 >= RETAINED - 8, "{end:?}: {retained:?} are retained");
            // A row with a flipped bit looks like one; the report says which pages are doubtful.
            assert!(altered <= usize::from(!zeroes), "{end:?}: {altered} messages are altered");
            assert_eq!(broker.stop().code(), Some(0));
            broker.start();
            drop(open(&broker, "witness"));
            assert_eq!(broker.quarantine().len(), 2, "what was rescued is whole");
        }
    }
}

#[test]
fn a_file_that_ends_too_early_is_rescued() {
    for end in [End::Stopped, End::Killed] {
        let mut broker = filled("short", end);
        let length = fs::metadata(broker.database()).unwrap().len();
        let file = File::options().write(true).open(broker.database()).unwrap();
        file.set_len(length / 2 + 1).unwrap();
        start_rescued(&mut broker);
        // What is left depends on where it was; it works in any case.
        assert_eq!(survivors(&broker).altered, 0);
    }
}

#[test]
fn a_file_that_is_no_database_is_set_aside() {
    for length in [0, 1, 100_000] {
        let mut broker = filled("empty", End::Stopped);
        fs::write(broker.database(), vec![0; length]).unwrap();
        start_rescued(&mut broker);
        let Survivors { has_session, queued, retained, .. } = survivors(&broker);
        assert!(!has_session && queued.is_empty() && retained.is_empty(), "after {length} zeros");
        assert_eq!(broker.stop().code(), Some(0));
    }
}

#[test]
fn a_directory_in_the_place_of_the_file_is_refused_in_words() {
    let mut broker = filled("directory", End::Stopped);
    fs::remove_file(broker.database()).unwrap();
    fs::create_dir(broker.database()).unwrap();
    let (code, log) = broker.start_in_vain(None);
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains(&broker.database().display().to_string()), "{log}");
    assert!(broker.database().is_dir() && broker.quarantine().is_empty());
}

#[test]
fn a_file_of_a_newer_release_is_refused_and_left_alone() {
    let mut broker = filled("newer", End::Stopped);
    let database = redb::Database::open(broker.database()).unwrap();
    let transaction = database.begin_write().unwrap();
    let meta = redb::TableDefinition::<&str, u64>::new("meta");
    transaction.open_table(meta).unwrap().insert("schema", 2).unwrap();
    transaction.commit().unwrap();
    drop(database);
    for _ in 0..2 {
        let (code, log) = broker.start_in_vain(None);
        assert_eq!(code, Some(1), "{log}");
        assert!(log.contains(&broker.database().display().to_string()), "{log}");
        assert!(log.contains("format 2") && log.contains("up to 1"), "{log}");
        assert!(broker.quarantine().is_empty(), "it is not damaged");
    }
    let database = redb::Database::open(broker.database()).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(meta).unwrap().insert("schema", 1).unwrap();
    transaction.commit().unwrap();
    drop(database);
    broker.start();
    let Survivors { has_session, queued, retained, altered } = survivors(&broker);
    assert_eq!((has_session, altered), (true, 0));
    assert!(queued.into_iter().eq(0..MESSAGES) && retained.into_iter().eq(0..RETAINED));
}

#[test]
fn a_directory_that_cannot_be_written_is_refused_in_words() {
    const NOBODY: u32 = 65_534;
    let mut broker = filled("readonly", End::Stopped);
    let directory = broker.data();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o555)).unwrap();
    // For root nothing is forbidden.
    let is_root = File::options().append(true).open(broker.database()).is_ok()
        && fs::write(directory.join("probe"), "").is_ok();
    let (code, log) = broker.start_in_vain(is_root.then_some(NOBODY));
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains(&directory.display().to_string()), "{log}");
    assert!(log.contains("cannot be written by this user"), "{log}");
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
}
