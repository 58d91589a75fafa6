//! What a shard asks the store to keep, and what waits for it.

use std::{collections::VecDeque, num::NonZeroU32, sync::Arc};

use crate::{
    codec::{PacketId, QoS},
    message::Message,
    session::{SessionHandle, StoredWill, Subscription},
    topic::TopicFilter,
};

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
    },
    /// A session ends with all that it had.
    EndSession {
        /// The session.
        session: Arc<SessionHandle>,
    },
    /// A subscription begins or changes.
    PutSubscription {
        /// The session.
        session: Arc<SessionHandle>,
        /// The filter.
        filter: TopicFilter,
        /// Options and identifier.
        subscription: Subscription,
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
        targets: Vec<Target>,
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
    /// PUBREC of a durable subscriber: it owns the message, only the identifier is still in use.
    Received {
        /// The subscriber.
        session: Arc<SessionHandle>,
        /// Number of the message in the session.
        number: u64,
    },
    /// A message is settled for one session. Nothing waits for it.
    Settle {
        /// The subscriber.
        session: Arc<SessionHandle>,
        /// Number of the message in the session.
        number: u64,
    },
}

/// One durable target of a message.
#[derive(Clone, Debug)]
pub struct Target {
    /// The session.
    pub session: Arc<SessionHandle>,
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
    pub ops: Vec<Op>,
    /// Whether anything waits for this commit, or it may ride along with a later one.
    pub is_awaited: bool,
}

/// The shard's end of the journal: the open batch, and what waits for which commit.
#[derive(Debug)]
pub(crate) struct Journal<G> {
    ops: Vec<Op>,
    is_awaited: bool,
    open: u64,
    /// The newest commit that something waits for, or could.
    awaited: u64,
    committed: u64,
    gates: VecDeque<(u64, G)>,
}

impl<G> Journal<G> {
    pub(crate) fn new() -> Self {
        Journal {
            ops: Vec::new(),
            is_awaited: false,
            open: 1,
            awaited: 0,
            committed: 0,
            gates: VecDeque::new(),
        }
    }

    /// Adds a change that nothing waits for.
    pub(crate) fn lazy(&mut self, op: Op) {
        self.ops.push(op);
    }

    /// Adds a change that something waits for; returns the commit to wait for.
    pub(crate) fn gating(&mut self, op: Op) -> u64 {
        self.ops.push(op);
        self.is_awaited = true;
        self.awaited = self.open;
        self.open
    }

    /// The newest commit that is done.
    pub(crate) fn committed(&self) -> u64 {
        self.committed
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
        if self.ops.is_empty() {
            return None;
        }
        let batch = Batch {
            commit: self.open,
            ops: std::mem::take(&mut self.ops),
            is_awaited: std::mem::take(&mut self.is_awaited),
        };
        self.open += 1;
        Some(batch)
    }
}
