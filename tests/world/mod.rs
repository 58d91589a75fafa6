//! A whole broker in one thread: real shards, a virtual clock, a model store, and clients that speak bytes.
//!
//! Nothing here waits or sleeps. Every call runs the world until nothing more happens: batches go to the
//! store and are committed (unless commits are held), forwards reach their shards (unless they are held),
//! outboxes are read (unless a client stalls). Only links that a shard named in its outputs are read, as in
//! the shell: a link that was forgotten there shows as a missing packet.
//!
//! Each client checks whatever it receives against rules that hold always: see `peer.rs`.

#![allow(dead_code, reason = "each test crate uses its part of the harness")]

mod client;
mod input;
mod peer;
mod setup;
mod store;

use std::{
    cell::RefCell,
    collections::{BTreeSet, VecDeque},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use dunlin::{
    broker::{Batch, Cause, DropReason, Dropped, Event, Forward, Outputs, Sequence, Shard, Shared, Urgency},
    codec::Version,
    limits::Limits,
    message::Message,
    session::{Fetch, LinkId, RecordId, Session},
    time::Timestamp,
};

pub(crate) use client::Client;
pub(crate) use peer::{Got, GotMessage};
pub(crate) use setup::{Setup, WillSetup};

use peer::Peer;
use store::Image;

/// Runs a test for MQTT 3.1.1 and for MQTT 5.
pub(crate) fn both(test: impl Fn(Version)) {
    [Version::V311, Version::V5].into_iter().for_each(test);
}

/// Runs a test for MQTT 3.1, 3.1.1 and 5.
pub(crate) fn all(test: impl Fn(Version)) {
    [Version::V31, Version::V311, Version::V5].into_iter().for_each(test);
}

/// A broker with its clients. A clone is another handle to the same one.
#[derive(Clone)]
pub(crate) struct World(Rc<RefCell<Inner>>);

/// What [`World`] and [`Client`] share.
pub(crate) struct Inner {
    now: Timestamp,
    shared: Arc<Shared>,
    nodes: Vec<Node>,
    peers: Vec<Peer>,
    forwards: VecDeque<(u16, Forward)>,
    /// What the shards have handed over, and of that what is committed.
    journaled: Image,
    durable: Image,
    fetches: VecDeque<(usize, Fetch)>,
    events: Vec<Event>,
    /// How soon the batches of the store were to be committed.
    urgencies: Vec<Urgency>,
    holds_commits: bool,
    holds_forwards: bool,
    assigned_ids: u32,
}

struct Node {
    shard: Shard,
    out: Outputs,
    /// Batches that the store has and has not committed.
    uncommitted: VecDeque<Batch>,
    touched: BTreeSet<LinkId>,
}

impl Node {
    fn new(index: usize, shared: &Arc<Shared>, now: Timestamp) -> Node {
        Node {
            shard: Shard::new(index as u16, shared.clone(), now),
            out: Outputs::default(),
            uncommitted: VecDeque::new(),
            touched: BTreeSet::new(),
        }
    }
}

/// Where the virtual clock starts: any moment will do but zero, which would hide a missing one.
const START_MILLIS: u64 = 1_700_000_000_000;

impl World {
    /// A broker of one shard with default limits.
    pub(crate) fn new() -> World {
        World::with(1, |_| {})
    }

    /// A broker of so many shards whose shared state is changed before it starts.
    pub(crate) fn with(shards: usize, change: impl FnOnce(&mut Shared)) -> World {
        let now = Timestamp::from_millis(START_MILLIS);
        let mut shared = Shared::new(Limits::default(), shards, 7);
        change(&mut shared);
        let shared = Arc::new(shared);
        World(Rc::new(RefCell::new(Inner {
            now,
            nodes: (0..shards).map(|index| Node::new(index, &shared, now)).collect(),
            shared,
            peers: Vec::new(),
            forwards: VecDeque::new(),
            journaled: Image::default(),
            durable: Image::default(),
            fetches: VecDeque::new(),
            events: Vec::new(),
            urgencies: Vec::new(),
            holds_commits: false,
            holds_forwards: false,
            assigned_ids: 0,
        })))
    }

    /// A broker of one shard with other limits.
    pub(crate) fn limited(change: impl FnOnce(&mut Limits)) -> World {
        World::with(1, |shared| change(&mut shared.limits))
    }

    /// Opens a connection and sends nothing.
    pub(crate) fn open(&self) -> Client {
        let mut inner = self.0.borrow_mut();
        inner.peers.push(Peer::new(Setup::v5("raw")));
        Client::new(self.clone(), inner.peers.len() - 1)
    }

    /// Opens a connection and sends CONNECT; what comes back is for the test to receive.
    pub(crate) fn send_connect(&self, setup: Setup) -> Client {
        let bytes = setup.encode();
        let peer = {
            let mut inner = self.0.borrow_mut();
            inner.peers.push(Peer::new(setup));
            inner.peers.len() - 1
        };
        let client = Client::new(self.clone(), peer);
        client.send_bytes(&bytes);
        client
    }

    /// Connects and receives a CONNACK that accepts.
    pub(crate) fn connect(&self, setup: Setup) -> Client {
        self.connect_and(setup).0
    }

    /// Connects and receives a CONNACK that accepts; tells whether a session was present.
    pub(crate) fn connect_and(&self, setup: Setup) -> (Client, bool) {
        let client = self.send_connect(setup);
        match client.recv() {
            Some(Got::ConnAck { session_present, code: 0, .. }) => (client, session_present),
            other => panic!("expected a CONNACK that accepts, got {other:?}"),
        }
    }

    /// Lets time pass, and every timer fire at its moment.
    pub(crate) fn advance(&self, duration: Duration) {
        let mut inner = self.0.borrow_mut();
        let target = inner.now.plus(duration);
        loop {
            let next = inner.nodes.iter().filter_map(|node| node.shard.next_timeout()).min();
            let Some(at) = next.filter(|at| *at <= target) else { break };
            inner.now = at.max(inner.now);
            let now = inner.now;
            for node in &mut inner.nodes {
                node.shard.timeout(now, &mut node.out);
            }
            inner.settle();
        }
        inner.now = target;
        inner.settle();
    }

    /// As [`World::advance`], in seconds.
    pub(crate) fn advance_secs(&self, secs: u64) {
        self.advance(Duration::from_secs(secs));
    }

    /// The store commits nothing until [`World::commit`].
    pub(crate) fn hold_commits(&self) {
        self.0.borrow_mut().holds_commits = true;
    }

    /// The store commits all that it was given so far, and holds what comes after.
    pub(crate) fn commit(&self) {
        let mut inner = self.0.borrow_mut();
        inner.collect();
        for index in 0..inner.nodes.len() {
            let newest = inner.nodes[index].uncommitted.back().map(|batch| batch.commit);
            if let Some(commit) = newest {
                inner.commit(index, commit);
            }
        }
        inner.settle();
    }

    /// The store commits the oldest batch of one shard alone. False if there is none.
    pub(crate) fn commit_one(&self, shard: usize) -> bool {
        let mut inner = self.0.borrow_mut();
        inner.collect();
        let oldest = inner.nodes[shard].uncommitted.front().map(|batch| batch.commit);
        if let Some(commit) = oldest {
            inner.commit(shard, commit);
        }
        inner.settle();
        oldest.is_some()
    }

    /// The store commits at once again.
    pub(crate) fn release_commits(&self) {
        self.0.borrow_mut().holds_commits = false;
        self.commit();
    }

    /// Messages between shards stay under way until [`World::release_forwards`].
    pub(crate) fn hold_forwards(&self) {
        self.0.borrow_mut().holds_forwards = true;
    }

    /// Messages between shards arrive at once again.
    pub(crate) fn release_forwards(&self) {
        let mut inner = self.0.borrow_mut();
        inner.holds_forwards = false;
        inner.settle();
    }

    /// The broker ends without notice, and starts again after some time with what the store had committed.
    pub(crate) fn crash(&self, downtime: Duration) {
        let mut inner = self.0.borrow_mut();
        inner.collect();
        let lost_at = inner.now;
        inner.now = inner.now.plus(downtime);
        inner.restart(lost_at);
    }

    /// Publishes as the broker itself does.
    pub(crate) fn publish_own(&self, message: Message) {
        let mut inner = self.0.borrow_mut();
        let now = inner.now;
        let node = &mut inner.nodes[0];
        node.shard.publish(now, message, &mut node.out);
        inner.settle();
    }

    /// Steps every shard.
    pub(crate) fn step(&self, step: impl Fn(&mut Shard, Timestamp, &mut Outputs)) {
        let mut inner = self.0.borrow_mut();
        let Inner { nodes, now, .. } = &mut *inner;
        for node in nodes {
            step(&mut node.shard, *now, &mut node.out);
        }
        inner.settle();
    }

    /// Stops the broker.
    pub(crate) fn stop(&self) {
        let mut inner = self.0.borrow_mut();
        let Inner { nodes, now, .. } = &mut *inner;
        for node in nodes {
            node.shard.stop(*now, &mut node.out);
        }
        inner.settle();
    }

    /// A client identifier that begins with `base` and lives on this shard.
    pub(crate) fn id_on(&self, shard: usize, base: &str) -> String {
        let shards = self.0.borrow().nodes.len();
        let mut ids = (0..).map(|suffix| format!("{base}{suffix}"));
        ids.find(|id| shard_of(id, shards) == shard).expect("some suffix hashes to every shard")
    }

    /// What happened since the last call.
    pub(crate) fn events(&self) -> Vec<Event> {
        std::mem::take(&mut self.0.borrow_mut().events)
    }

    /// How soon the batches since the last call were to be committed.
    pub(crate) fn urgencies(&self) -> Vec<Urgency> {
        std::mem::take(&mut self.0.borrow_mut().urgencies)
    }

    /// Deliveries given up for this reason.
    pub(crate) fn drops(&self, reason: DropReason) -> u64 {
        self.0.borrow().shared.sum(|counters| counters.drops[reason as usize].value())
    }

    /// The account of drops of all shards.
    pub(crate) fn drop_account(&self) -> Vec<Dropped> {
        self.0.borrow().nodes.iter().flat_map(|node| node.shard.drops().iter().cloned()).collect()
    }

    /// The state that the shards share.
    pub(crate) fn shared(&self) -> Arc<Shared> {
        self.0.borrow().shared.clone()
    }

    /// The clients that have a session.
    pub(crate) fn client_ids(&self) -> Vec<String> {
        let inner = self.0.borrow();
        let sessions = inner.nodes.iter().flat_map(|node| node.shard.sessions());
        sessions.map(|session| session.handle.client_id.to_string()).collect()
    }

    /// Messages that wait in a session to be sent.
    pub(crate) fn waiting(&self, client_id: &str) -> usize {
        self.with_session(client_id, |session| session.transient.len() + session.outbound.queued())
            .unwrap_or(0)
    }

    /// Retained messages that the store has, expired ones included.
    pub(crate) fn stored_retained(&self) -> usize {
        self.0.borrow().journaled.recover().retained.len()
    }

    /// Runs of references that sessions have in the store.
    pub(crate) fn spilled(&self) -> usize {
        let inner = self.0.borrow();
        let sessions = inner.nodes.iter().flat_map(|node| node.shard.sessions());
        sessions.map(|session| session.outbound.spilled().count()).sum()
    }

    /// Whether the broker has a session for this client.
    pub(crate) fn has_session(&self, client_id: &str) -> bool {
        self.with_session(client_id, |_| ()).is_some()
    }

    /// What `look` finds in the session of this client, if there is one.
    pub(crate) fn with_session<T>(&self, client_id: &str, look: impl FnOnce(&Session) -> T) -> Option<T> {
        let inner = self.0.borrow();
        inner.nodes.iter().find_map(|node| node.shard.session(client_id)).map(look)
    }

    /// Messages in the queues of all sessions, by the counters.
    pub(crate) fn queued_messages(&self) -> u64 {
        self.shared().sum(|counters| counters.queued_messages.value())
    }

    /// Checks what must hold whenever nothing is under way: the counters of queues say what is in the
    /// queues, the store has what the shards have, and nothing is left of what is gone.
    pub(crate) fn assert_accounting(&self) {
        let inner = self.0.borrow();
        assert!(inner.forwards.is_empty(), "forwards are under way");
        let shards: Vec<&Shard> = inner.nodes.iter().map(|node| &node.shard).collect();
        inner.journaled.assert_agrees(&shards, inner.now);
        let sum = |counter: fn(&dunlin::broker::Counters) -> u64| inner.shared.sum(counter);
        let sessions = || shards.iter().flat_map(|shard| shard.sessions());
        let queued: usize = sessions().map(|session| session.handle.queued_messages()).sum();
        let queued_bytes: usize = sessions().map(|session| session.handle.queued_bytes()).sum();
        assert_eq!(sum(|counters| counters.queued_messages.value()), queued as u64, "messages in queues");
        assert_eq!(sum(|counters| counters.queued_bytes.value()), queued_bytes as u64, "bytes in queues");
        for session in sessions() {
            let (handle, outbound) = (&session.handle, &session.outbound);
            let waiting = outbound.queued() + outbound.unacknowledged();
            assert_eq!(handle.queued_messages(), waiting, "messages of {}", handle.client_id);
            if waiting == 0 {
                assert_eq!(handle.queued_bytes(), 0, "bytes of {}", handle.client_id);
            }
        }
        assert_eq!(sum(|counters| counters.sessions.value()), sessions().count() as u64, "sessions");
        let connected = sessions().filter(|session| session.link().is_some()).count();
        assert_eq!(sum(|counters| counters.connections.value()), connected as u64, "connections");
        let links: usize = shards.iter().map(|shard| shard.links()).sum();
        let open = inner.peers.iter().filter(|peer| peer.link.is_some()).count();
        assert_eq!(links, open, "links");
        let timers: usize = shards.iter().map(|shard| shard.timers()).sum();
        let link_timers = shards.iter().map(|shard| shard.keep_alive_timers()).sum::<usize>();
        let session_timers = sessions().filter(|session| session.timer.is_some()).count();
        let withheld_timers = shards.iter().map(|shard| shard.withholding_links()).sum::<usize>();
        let event_timers = shards.iter().filter(|shard| shard.drops().is_timed()).count();
        let expected = link_timers + session_timers + withheld_timers + event_timers + 1;
        assert_eq!(timers, expected, "timers: links, sessions, what is withheld, drops and the sweep");
        inner.assert_nothing_lost(&shards);
        let subscriptions: usize = sessions().map(|session| session.subscriptions.len()).sum();
        assert_eq!(inner.shared.router.subscriptions(), subscriptions, "subscriptions");
    }
}

/// Whatever a test did, nothing may have been lost on the way. It holds with commits and forwards under way too.
impl Drop for Inner {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.assert_nothing_lost(&self.nodes.iter().map(|node| &node.shard).collect::<Vec<_>>());
        }
    }
}

impl Inner {
    /// Every delivery that was accepted is one of: acknowledged by its client (or written, at QoS 0), queued,
    /// or dropped with a reason, of which expiry is one. And every drop is in the account of drops.
    fn assert_nothing_lost(&self, shards: &[&Shard]) {
        let sum = |counter: fn(&dunlin::broker::Counters) -> u64| self.shared.sum(counter);
        let accepted = sum(|counters| counters.deliveries_accepted.value());
        let handed_over = sum(|counters| counters.deliveries_handed_over.value());
        let completed = sum(|counters| counters.deliveries_completed.value());
        let queued = sum(|counters| counters.queued_messages.value());
        let transient = shards.iter().flat_map(|shard| shard.sessions());
        let transient = transient.map(|session| session.transient.len() as u64).sum::<u64>();
        let mut dropped = 0;
        for reason in DropReason::ALL {
            let count = self.shared.sum(|counters| counters.drops[reason as usize].value());
            let entries = shards.iter().flat_map(|shard| shard.drops().iter());
            let told = entries.filter(|entry| entry.reason == reason).map(|entry| entry.total).sum::<u64>();
            assert_eq!(told, count, "drops for {}", reason.name());
            dropped += if reason.ends_delivery() { count } else { 0 };
        }
        assert_eq!(
            accepted,
            handed_over + completed + queued + transient + dropped,
            "accepted = {handed_over} handed over + {completed} completed + {queued} and {transient} queued + \
             {dropped} dropped"
        );
    }
}

/// The shard of a client: any hash will do that is the same in every run.
fn shard_of(client_id: &str, shards: usize) -> usize {
    let hash = client_id.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    });
    (hash >> 32) as usize % shards
}

impl Inner {
    /// Makes all shards anew from what is committed.
    fn restart(&mut self, lost_at: Timestamp) {
        for peer in &mut self.peers {
            peer.link = None;
            peer.is_closed = true;
            peer.input.clear();
            peer.wire.clear();
        }
        self.durable.compact();
        self.journaled = self.durable.clone();
        self.fetches.clear();
        self.forwards.clear();
        let recovered = self.durable.recover();
        let old = &self.shared;
        let mut shared = Shared::new(old.limits.clone(), self.nodes.len(), old.seed);
        shared.check_payload_format = old.check_payload_format;
        shared.bind_sessions = old.bind_sessions;
        shared.authorize = old.authorize.clone();
        shared.parking = old.parking;
        shared.sequence = Sequence::starting_at(RecordId::new(recovered.next));
        for message in recovered.retained.values() {
            shared.retained.restore(message, &shared.topic_limits(), self.now);
        }
        self.shared = Arc::new(shared);
        for (index, node) in self.nodes.iter_mut().enumerate() {
            *node = Node::new(index, &self.shared, self.now);
        }
        for session in recovered.sessions {
            let index = shard_of(&session.client_id, self.nodes.len());
            self.nodes[index].shard.restore(vec![session], lost_at);
        }
        for node in &mut self.nodes {
            node.shard.timeout(self.now, &mut node.out);
        }
        self.settle();
    }

    /// Runs until nothing more happens.
    fn settle(&mut self) {
        loop {
            let mut is_busy = self.collect();
            is_busy |= self.commit_awaited();
            is_busy |= self.answer_fetches();
            is_busy |= self.forward();
            is_busy |= self.drain();
            is_busy |= (0..self.peers.len()).fold(false, |busy, peer| self.read_input(peer) | busy);
            if !is_busy {
                return;
            }
        }
    }

    /// Takes what the shards put out. The store comes first, as the shell has to do it.
    fn collect(&mut self) -> bool {
        let mut is_busy = false;
        for (index, node) in self.nodes.iter_mut().enumerate() {
            if let Some(batch) = node.shard.take_batch() {
                batch.entries.iter().for_each(|entry| self.journaled.apply(entry));
                self.urgencies.push(batch.urgency);
                node.uncommitted.push_back(batch);
                is_busy = true;
            }
            self.fetches.extend(node.out.fetches.drain(..).map(|fetch| (index, fetch)));
            is_busy |= !node.out.forwards.is_empty();
            self.forwards.extend(node.out.forwards.drain(..));
            self.events.append(&mut node.out.events);
            node.touched.extend(node.out.touched.drain(..));
        }
        is_busy
    }

    /// Commits all that something waits for, with what is before it. What nobody waits for stays open: it
    /// may wait for ever in a store that has nothing else to do.
    fn commit_awaited(&mut self) -> bool {
        let mut is_busy = false;
        for index in 0..self.nodes.len() {
            let uncommitted = &self.nodes[index].uncommitted;
            let is_fetched = !self.fetches.is_empty();
            let awaited = uncommitted.iter().rev().find(|batch| is_fetched || batch.urgency == Urgency::Now);
            if let Some(commit) = awaited.map(|batch| batch.commit).filter(|_| !self.holds_commits) {
                self.commit(index, commit);
                is_busy = true;
            }
        }
        is_busy
    }

    fn commit(&mut self, index: usize, commit: u64) {
        let node = &mut self.nodes[index];
        while let Some(batch) = node.uncommitted.pop_front_if(|batch| batch.commit <= commit) {
            batch.entries.iter().for_each(|entry| self.durable.apply(entry));
        }
        node.shard.committed(self.now, commit, &mut node.out);
    }

    /// Messages are read back once all that was handed over is committed.
    fn answer_fetches(&mut self) -> bool {
        if self.nodes.iter().any(|node| !node.uncommitted.is_empty()) {
            return false;
        }
        let Some((index, fetch)) = self.fetches.pop_front() else { return false };
        let fetched = self.durable.fetch(fetch);
        let node = &mut self.nodes[index];
        node.shard.fetched(self.now, fetched, &mut node.out);
        true
    }

    fn forward(&mut self) -> bool {
        if self.holds_forwards {
            return false;
        }
        let Some((shard, forward)) = self.forwards.pop_front() else { return false };
        let node = &mut self.nodes[usize::from(shard)];
        node.shard.forwarded(self.now, &forward, &mut node.out);
        true
    }

    /// Moves bytes from the outboxes that were touched to their clients.
    fn drain(&mut self) -> bool {
        let mut is_busy = false;
        for index in 0..self.nodes.len() {
            for link in std::mem::take(&mut self.nodes[index].touched) {
                let peer = self.peers.iter().position(|peer| peer.link == Some((index, link)));
                let Some(peer) = peer else { continue };
                if self.peers[peer].is_stalled {
                    self.peers[peer].is_dirty = true;
                    continue;
                }
                is_busy |= self.drain_peer(peer, usize::MAX);
            }
        }
        is_busy
    }

    /// Moves up to `bytes_max` bytes from the outbox of a link to its client, and what the client answers
    /// by itself back.
    fn drain_peer(&mut self, peer: usize, bytes_max: usize) -> bool {
        let Some((index, link)) = self.peers[peer].link else { return false };
        let node = &mut self.nodes[index];
        let Some(outbox) = node.shard.outbox(link) else { return false };
        let mut taken = 0;
        while taken < bytes_max && outbox.ready() > 0 {
            let chunk = outbox.chunk();
            let count = chunk.len().min(bytes_max - taken);
            self.peers[peer].wire.extend_from_slice(&chunk[..count]);
            outbox.advance(count);
            taken += count;
        }
        let is_over = outbox.is_finished() && outbox.is_empty();
        if taken > 0 {
            node.shard.drained(self.now, link, &mut node.out);
        }
        if is_over {
            node.shard.closed(self.now, link, Cause::Eof, &mut node.out);
            self.peers[peer].link = None;
            self.peers[peer].is_closed = true;
        }
        let answers = self.peers[peer].read_wire();
        if !self.peers[peer].is_closed {
            self.peers[peer].input.extend(answers);
        }
        taken > 0 || is_over
    }
}
