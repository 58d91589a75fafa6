//! Listeners: accepting, and how many may come in at a time.

use std::{
    cell::Cell,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{sync::OwnedSemaphorePermit, time::timeout};
use tracing::{debug, info, warn};

use crate::{
    audit::Record,
    config::{ClientIdentity, Config, Listener},
    guard::Stay,
    limits::Durability,
    net::{Acceptor, PreparedTransport, Socket, is_resource_exhaustion},
};

use super::{
    Common,
    cell::ShardCell,
    connection,
    handshake::{self, Failure},
    mailbox::Mail,
};

/// What is known of a listener once it is open.
pub(crate) struct Door {
    pub(crate) name: String,
    pub(crate) allow_anonymous: bool,
    pub(crate) client_identity: ClientIdentity,
    pub(crate) transport: PreparedTransport,
    pub(crate) durability: Durability,
    pub(crate) connections_max: usize,
    pub(crate) connections: AtomicUsize,
}

/// Counts one connection for as long as it is kept.
pub(crate) struct Entry {
    common: Arc<Common>,
    door: Arc<Door>,
    /// Those of its client, user and address.
    pub(super) stays: Vec<Stay>,
}

/// Time to wait when the system has no more file descriptors or memory for sockets.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

impl Door {
    pub(super) fn new(listener: &Listener, transport: PreparedTransport) -> Door {
        Door {
            name: listener.name.clone(),
            allow_anonymous: listener.allow_anonymous,
            client_identity: listener.client_identity,
            transport,
            durability: listener.durability,
            connections_max: listener.connections_max,
            connections: AtomicUsize::new(0),
        }
    }

    /// The door of clients in this process.
    pub(super) fn local(config: &Config) -> Door {
        Door {
            name: "in-process".into(),
            allow_anonymous: true,
            client_identity: ClientIdentity::None,
            transport: PreparedTransport::plain(),
            durability: config.durability,
            connections_max: config.limits.connections_max,
            connections: AtomicUsize::new(0),
        }
    }
}

impl Entry {
    /// Counts a connection in, if there is room for it in the broker and on its listener.
    fn new(common: &Arc<Common>, door: &Arc<Door>) -> Option<Entry> {
        let limit = common.limits.load().connections_max;
        if common.connections.fetch_add(1, Ordering::Relaxed) >= limit {
            common.connections.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        if door.connections.fetch_add(1, Ordering::Relaxed) >= door.connections_max {
            common.connections.fetch_sub(1, Ordering::Relaxed);
            door.connections.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Entry { common: common.clone(), door: door.clone(), stays: Vec::new() })
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.common.connections.fetch_sub(1, Ordering::Relaxed);
        self.door.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Accepts on one listener until the broker stops. A connection that is not past its CONNECT holds a
/// permit, so that a storm of them waits in the system's backlog rather than in our memory.
///
/// The permit is asked for when there is a connection to use it: if every acceptor took one along to wait
/// for its next connection, a small limit would be used up by listeners that nobody connects to.
pub(crate) async fn accept(cell: Rc<ShardCell>, door: Arc<Door>, acceptor: Acceptor) {
    loop {
        match acceptor.accept().await {
            Ok((socket, peer)) => {
                let Some(entry) = Entry::new(&cell.common, &door) else {
                    warn!(target: "dunlin::listener", listener = door.name, %peer, "refused: too many connections");
                    continue;
                };
                let Ok(permit) = cell.common.handshakes.clone().acquire_owned().await else { return };
                greet(&cell, socket, &door, entry, Some(permit));
            }
            Err(error) if is_resource_exhaustion(&error) => {
                warn!(target: "dunlin::listener", listener = door.name, "cannot accept: {error}");
                #[expect(
                    clippy::disallowed_methods,
                    reason = "nothing tells when descriptors are free again"
                )]
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
            }
            Err(error) => debug!(target: "dunlin::listener", listener = door.name, "cannot accept: {error}"),
        }
    }
}

/// Greets a client of this process.
pub(crate) fn greet_local(cell: &Rc<ShardCell>, socket: Socket) {
    let door = cell.common.local_door.clone();
    if let Some(entry) = Entry::new(&cell.common, &door) {
        greet(cell, socket, &door, entry, None);
    }
}

#[expect(clippy::disallowed_methods, reason = "the shell has tasks")]
fn greet(
    cell: &Rc<ShardCell>,
    socket: Socket,
    door: &Arc<Door>,
    entry: Entry,
    permit: Option<OwnedSemaphorePermit>,
) {
    let (cell, door) = (cell.clone(), door.clone());
    tokio::task::spawn_local(async move {
        let peer = Cell::new(*socket.peer());
        let name = door.name.clone();
        let limit = cell.common.limits.load().connect_timeout;
        let greeted =
            timeout(limit, cell.pace.paced(handshake::greet(&cell.common, socket, door, entry, &peer))).await;
        let peer = peer.get();
        match greeted {
            Ok(Ok(arrival)) => send_home(&cell, arrival),
            // A probe that goes away without a word, or a client that gave up.
            Ok(Err(failure @ (Failure::Io(_) | Failure::GaveUp))) => {
                debug!(target: "dunlin::listener", listener = name, %peer, "not connected: {failure}");
            }
            Ok(Err(failure)) => {
                cell.common.audit.write(|| {
                    Record::new(cell.clock().now(), "refused")
                        .with("peer", peer.to_string())
                        .with("listener", &*name)
                        .with("why", failure.to_string())
                });
                cell.look(|shard| shard.counters().connects_refused.add(1));
                cell.common.insight.refused(failure.word());
                let (now, client_id) = (cell.clock().now(), failure.client_id());
                cell.common.insight.tell_of(
                    now,
                    "refused",
                    client_id,
                    format!("{peer} on {name}: {failure}"),
                );
                info!(target: "dunlin::listener", listener = name, %peer, "not connected: {failure}");
            }
            Err(_) => {
                cell.look(|shard| shard.counters().connects_refused.add(1));
                cell.common.insight.refused("no-connect");
                info!(target: "dunlin::listener", listener = name, %peer, "not connected: no CONNECT in time");
            }
        }
        drop(permit);
    });
}

/// Brings a connection to the shard of its session.
fn send_home(cell: &Rc<ShardCell>, mut arrival: Box<handshake::Arrival>) {
    let home = cell.common.home(&arrival.client_id);
    if home == usize::from(cell.index) {
        connection::start(cell, *arrival);
    } else if arrival.stream.detach().is_ok() {
        cell.common.mailboxes[home].post([Mail::Arrival(arrival)]);
    }
}
