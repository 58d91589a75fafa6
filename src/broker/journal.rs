//! What a shard asks the store to keep, and what waits for it.

use std::{
    collections::VecDeque,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use smallvec::SmallVec;

use crate::{
    codec::{PacketId, QoS},
    limits::Durability,
    message::Message,
    session::{RecordId, SessionHandle, StoredMessage, StoredPresence, StoredSubscription, StoredWill},
    topic::TopicFilter,
};

/// Where the identifiers of records and of durable sessions come from: each is given once, and a later one is
/// higher, across restarts too.
#[derive(Debug)]
pub struct Sequence(AtomicU64);

impl Sequence {
    /// Goes on from here: all identifiers below were given before.
    pub fn starting_at(next: RecordId) -> Sequence {
        Sequence(AtomicU64::new(next.get()))
    }

    /// The next identifier.
    pub fn next(&self) -> RecordId {
        RecordId::new(self.0.fetch_add(1, Ordering::Relaxed))
    }

    /// The identifier that comes next, without taking it.
    pub fn peek(&self) -> RecordId {
        RecordId::new(self.0.load(Ordering::Relaxed))
    }
}

/// One line of the journal.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The record that this change makes in the log; [`Op::Settle`] makes none, nor do [`Op::Spill`] and
    /// [`Op::Unspill`].
    pub record: Option<RecordId>,
    /// The change.
    pub op: Op,
}

/// One change to what survives a restart. Sessions are named by their handle; only durable ones appear.
#[derive(Clone, Debug)]
pub enum Op {
    /// A session begins or changes: everything but its subscriptions and messages.
    PutSession {
        /// The session.
        session: Arc<SessionHandle>,
        /// Session Expiry Interval in seconds.
        expiry_secs: u32,
        /// The will, if one is armed or delayed.
        will: Option<Arc<StoredWill>>,
        /// Whether it has a connection.
        presence: StoredPresence,
    },
    /// A session ends with all that it had.
    EndSession {
        /// The session.
        session: Arc<SessionHandle>,
        /// Records of the messages that it had and that are not settled, but for those in spilled runs.
        records: Vec<RecordId>,
    },
    /// A subscription begins or changes.
    PutSubscription {
        /// The session.
        session: Arc<SessionHandle>,
        /// The filter.
        filter: TopicFilter,
        /// Options, identifier, and whether retained messages are still due.
        subscription: StoredSubscription,
    },
    /// A subscription ends.
    RemoveSubscription {
        /// The session.
        session: Arc<SessionHandle>,
        /// The filter.
        filter: TopicFilter,
    },
    /// A message with all its durable targets, in one record: it reaches all of them or none.
    Append {
        /// The message.
        message: Arc<Message>,
        /// Whether it becomes the retained message of its topic, or with an empty payload removes it.
        retain: bool,
        /// Who has it queued.
        targets: Targets,
        /// The durable publisher and its packet identifier, if it was published with QoS 2: from here on
        /// the same identifier is the same message. `[MQTT-4.3.3-10]`
        received: Option<(Arc<SessionHandle>, PacketId)>,
    },
    /// PUBREL of a durable publisher: its packet identifier is free.
    Release {
        /// The publisher.
        session: Arc<SessionHandle>,
        /// The identifier.
        packet_id: PacketId,
    },
    /// PUBREC of a durable subscriber: it owns the message, only the identifier is still in use. The
    /// message must not be sent to it again.
    Received {
        /// The subscriber.
        session: Arc<SessionHandle>,
        /// Number of the message in the session.
        number: u64,
        /// Record of the message, which the session does not need any more.
        message: RecordId,
    },
    /// Another member of a shared subscription has a QoS 2 message that was queued for this session. It is settled
    /// here, in turn or not, and must be so after a crash too, or both would get it. `[MQTT-4.8.2-5]`
    Passed {
        /// The session that does not get it.
        session: Arc<SessionHandle>,
        /// Number of the message in the session.
        number: u64,
        /// Record of the message, which the session does not need any more.
        message: RecordId,
        /// All numbers of the session below this one are settled.
        base: u64,
    },
    /// A number is settled for one session, which may have ended. Nothing waits for it.
    Settle {
        /// The subscriber, by its identifier in the store.
        session: u64,
        /// Number of the message in the session.
        number: u64,
        /// Record of the message, if the session needed it until now.
        message: Option<RecordId>,
        /// All numbers of the session below this one are settled; `u64::MAX` if the session has ended.
        base: u64,
    },
    /// References to messages of a session are in the store alone from now on, until they are read back or
    /// the broker ends: a restart finds the messages themselves. Nothing waits for it.
    Spill {
        /// The subscriber.
        session: Arc<SessionHandle>,
        /// The messages of a run, whose numbers follow each other: at least one.
        messages: Vec<StoredMessage>,
    },
    /// Such a run need not be in the store any more. Nothing waits for it.
    Unspill {
        /// The subscriber.
        session: Arc<SessionHandle>,
        /// The number of its first message.
        first: u64,
        /// Why.
        cause: Unspill,
    },
}

/// Why a spilled run is not needed any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unspill {
    /// It was read.
    Read,
    /// The session has ended, and needs none of its messages any more.
    Ended,
}

/// The durable targets of a message: mostly one.
pub type Targets = SmallVec<[Target; 1]>;

/// One durable target of a message.
#[derive(Clone, Debug)]
pub struct Target {
    /// The session, by its identifier in the store: its handle is in use on several threads as it is.
    pub session: u64,
    /// Number of the message in the session: the base of its packet identifier.
    pub number: u64,
    /// QoS of the delivery.
    pub qos: QoS,
    /// RETAIN of the delivery.
    pub retain: bool,
    /// Subscription identifiers of the delivery.
    pub subscription_ids: Option<Arc<[NonZeroU32]>>,
    /// The shared filter that it came through, if so.
    pub share: Option<Arc<str>>,
}

/// Changes that are committed together.
#[derive(Debug)]
pub struct Batch {
    /// Counts the batches of a shard from 1.
    pub commit: u64,
    /// The changes in order.
    pub entries: Vec<Entry>,
    /// When it is to be committed.
    pub urgency: Urgency,
}

/// When a batch is to be committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Now: something waits for it.
    Now,
    /// Within this time: somebody was promised that no more is lost.
    Within(Duration),
    /// Some time: it rides along with another.
    Lazy,
}

/// Changes that room is made for before they come, at most.
const BATCH_GUESS_MAX: usize = 1024;

/// The shard's end of the journal: the open batch, and what waits for which commit.
#[derive(Debug)]
pub(crate) struct Journal<G> {
    entries: Vec<Entry>,
    /// Changes of the last batch: the next one is likely to have as many.
    last_len: usize,
    urgency: Urgency,
    open: u64,
    /// The newest commit that something waits for, or could.
    awaited: u64,
    committed: u64,
    gates: VecDeque<(u64, G)>,
}

impl<G> Journal<G> {
    pub(crate) fn new() -> Self {
        Journal {
            entries: Vec::new(),
            last_len: 0,
            urgency: Urgency::Lazy,
            open: 1,
            awaited: 0,
            committed: 0,
            gates: VecDeque::new(),
        }
    }

    /// Adds a change that nothing waits for.
    pub(crate) fn lazy(&mut self, record: Option<RecordId>, op: Op) {
        self.push(record, op);
    }

    /// Adds a change that nothing waits for, and that is to be committed now all the same: nobody is told of
    /// it, but somebody will notice if it is lost.
    pub(crate) fn soon(&mut self, record: RecordId, op: Op) {
        self.push(Some(record), op);
        self.urgency = Urgency::Now;
    }

    /// Adds a change that something waits for; returns the commit to wait for.
    pub(crate) fn gating(&mut self, record: RecordId, op: Op) -> u64 {
        self.push(Some(record), op);
        self.urgency = Urgency::Now;
        self.awaited = self.open;
        self.open
    }

    /// Adds a change under what its client was promised; returns the commit that its answer waits for, if
    /// it waits for any.
    pub(crate) fn promise(&mut self, record: RecordId, op: Op, durability: Durability) -> Option<u64> {
        match durability {
            Durability::Commit => return Some(self.gating(record, op)),
            Durability::Interval(window) => self.urgency = self.urgency.min(Urgency::Within(window)),
            Durability::None => {}
        }
        self.lazy(Some(record), op);
        None
    }

    fn push(&mut self, record: Option<RecordId>, op: Op) {
        if self.entries.capacity() == 0 {
            self.entries.reserve(self.last_len.min(BATCH_GUESS_MAX));
        }
        self.entries.push(Entry { record, op });
    }

    /// The newest commit that is done.
    pub(crate) fn committed(&self) -> u64 {
        self.committed
    }

    /// Batches that were handed over and are not committed.
    pub(crate) fn backlog(&self) -> u64 {
        self.open - 1 - self.committed
    }

    /// The commit of the newest gating change, if it is not done: all that was promised before waits for it
    /// at most. Changes that nothing waits for do not count, for the store may take its time with them.
    pub(crate) fn pending(&self) -> Option<u64> {
        (self.awaited > self.committed).then_some(self.awaited)
    }

    /// Keeps something until a commit is done. What waits passes in the order of these calls, so it may
    /// have to wait for a later commit than its own: returns that one.
    pub(crate) fn wait(&mut self, commit: u64, gate: G) -> u64 {
        let commit = self.gates.back().map_or(commit, |(last, _)| commit.max(*last));
        self.gates.push_back((commit, gate));
        commit
    }

    /// Takes note of a commit.
    pub(crate) fn commit(&mut self, commit: u64) {
        self.committed = self.committed.max(commit);
    }

    /// The next thing whose commit is done.
    pub(crate) fn pass(&mut self) -> Option<G> {
        let (commit, _) = self.gates.front()?;
        if *commit > self.committed {
            return None;
        }
        self.gates.pop_front().map(|(_, gate)| gate)
    }

    /// Closes the open batch, if anything is in it.
    pub(crate) fn take(&mut self) -> Option<Batch> {
        if self.entries.is_empty() {
            return None;
        }
        self.last_len = self.entries.len();
        let batch = Batch {
            commit: self.open,
            entries: std::mem::take(&mut self.entries),
            urgency: std::mem::replace(&mut self.urgency, Urgency::Lazy),
        };
        self.open += 1;
        Some(batch)
    }
}
