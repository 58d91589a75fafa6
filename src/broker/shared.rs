//! What all shards share: the subscription index, retained messages, limits and counters.

use std::{
    collections::BTreeSet,
    ops::ControlFlow,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use crate::{
    acl::{Authorize, Open},
    limits::{Limits, Parking},
    message::Message,
    mutation::{self, Mutation},
    session::RecordId,
    time::Timestamp,
    topic::{RetainedTree, TopicFilter, TopicLimits, TopicName},
};

use super::{Counters, Router, StrainGauge, Tracing, journal::Sequence};

/// State that all shards of a broker share.
pub struct Shared {
    /// Limits at the start. They may change: each shard knows those of now.
    pub limits: Limits,
    /// Whether PUBLISH marked as UTF-8 text is checked to be such.
    pub check_payload_format: bool,
    /// Whether a session is for the user alone who had it first.
    pub bind_sessions: bool,
    /// Who may do what.
    pub authorize: Arc<dyn Authorize>,
    /// All subscriptions.
    pub router: Router,
    /// Retained messages.
    pub retained: RetainedStore,
    /// Identifiers of records and sessions in the store.
    pub sequence: Sequence,
    /// Whether what the store commits outlives the process. If not, no listener promises anything.
    pub is_lasting: bool,
    /// Set while the disk of the store has no room for more.
    pub store_full: AtomicBool,
    /// Set while so much waits to be committed that connections are not read.
    pub store_crowded: AtomicBool,
    /// Which messages are followed.
    pub tracing: Tracing,
    /// Whether memory runs out.
    pub strain: StrainGauge,
    /// How much of the queues of durable sessions is kept in memory; `None` if the store cannot give
    /// messages back.
    pub parking: Option<Parking>,
    /// Counters of each shard.
    pub counters: Vec<Counters>,
    /// Seed of the hash tables: random in production, fixed where a run has to repeat.
    pub seed: u64,
}

impl Shared {
    /// The shared state of a broker with this many shards.
    pub fn new(limits: Limits, shards: usize, seed: u64) -> Shared {
        Shared {
            limits,
            check_payload_format: true,
            bind_sessions: true,
            authorize: Arc::new(Open),
            router: Router::new(seed),
            retained: RetainedStore::default(),
            sequence: Sequence::starting_at(RecordId::new(1)),
            is_lasting: true,
            store_full: AtomicBool::new(false),
            store_crowded: AtomicBool::new(false),
            tracing: Tracing::default(),
            strain: StrainGauge::default(),
            parking: None,
            counters: (0..shards).map(|_| Counters::default()).collect(),
            seed,
        }
    }

    /// Limits of topic names and filters.
    pub fn topic_limits(&self) -> TopicLimits {
        self.limits.topics()
    }

    /// The sum of one counter over all shards.
    pub fn sum(&self, counter: impl Fn(&Counters) -> u64) -> u64 {
        self.counters.iter().map(counter).fold(0, u64::wrapping_add)
    }

    /// Bytes in the queues of all sessions.
    pub fn queued_bytes(&self) -> usize {
        self.sum(|counters| counters.queued_bytes.value()) as usize
    }

    /// Messages in the queues of all sessions.
    pub fn queued_messages(&self) -> usize {
        self.sum(|counters| counters.queued_messages.value()) as usize
    }

    /// Whether the disk of the store has no room for more.
    pub fn is_store_full(&self) -> bool {
        self.store_full.load(Ordering::Relaxed)
    }
}

/// The last retained message of each topic. `[MQTT-3.3.1-5]`
///
/// A publisher changes it before its message is routed, and a subscriber's filter is in the router before
/// this is read: the subscriber gets the newest message of a topic by one way or the other, and last.
#[derive(Debug, Default)]
pub struct RetainedStore {
    retained: RwLock<Retained>,
    messages: AtomicUsize,
    bytes: AtomicUsize,
}

/// Whether a message was retained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retaining {
    /// It does not ask for it. `[MQTT-3.3.1-8]`
    NotAsked,
    /// It was, or its empty payload removed the one that was. `[MQTT-3.3.1-6]` `[MQTT-3.3.1-7]`
    Done,
    /// Its payload is empty, and there was nothing to remove.
    Vain,
    /// There are too many retained messages, or too many bytes in them.
    Full,
}

#[derive(Debug, Default)]
struct Retained {
    tree: RetainedTree<Arc<Message>>,
    /// Topics of those that expire, the next one first.
    expiring: BTreeSet<(Timestamp, Arc<str>)>,
}

impl Retained {
    fn forget_expiry(&mut self, message: &Message) {
        if let Some(at) = message.expires_at() {
            self.expiring.remove(&(at, message.topic().clone()));
        }
    }
}

/// Retained topics that are looked at in one go.
const REPLAY_TOPICS: usize = 256;
/// Bytes of messages after which no more are looked at in one go.
const REPLAY_BYTES: usize = 1024 * 1024;

impl RetainedStore {
    /// Whether a message may be retained.
    pub fn has_room(&self, message: &Message, limits: &Limits) -> bool {
        let retained = self.retained.read().unwrap_or_else(PoisonError::into_inner);
        let replaced = retained.tree.get(message.topic()).map(|old| old.size_bytes());
        let messages = self.messages() + usize::from(replaced.is_none());
        let bytes = self.bytes() - replaced.unwrap_or(0) + message.size_bytes();
        message.payload().is_empty()
            || (messages <= limits.retained_messages_max && bytes <= limits.retained_bytes_max)
    }

    /// Retains a message, or with an empty payload removes the one of its topic. `[MQTT-3.3.1-5]`
    /// `[MQTT-3.3.1-6]` `[MQTT-3.3.1-7]` Returns the record that it is to have in the store: taken meanwhile,
    /// so that of two messages of one topic the store knows the later one by its higher record. `None` if there
    /// was nothing to remove, of which the store need not know: it would cost more than who asks for it.
    pub fn update(
        &self,
        message: &Arc<Message>,
        topic_limits: &TopicLimits,
        sequence: &Sequence,
    ) -> Option<RecordId> {
        let mut retained = self.retained.write().unwrap_or_else(PoisonError::into_inner);
        let was_there = self.replace(&mut retained, message, topic_limits);
        (was_there || !message.payload().is_empty()).then(|| sequence.next())
    }

    /// Retains a message that the store gives back, unless it has expired.
    pub fn restore(&self, message: &Arc<Message>, topic_limits: &TopicLimits, now: Timestamp) {
        if !message.is_expired(now) {
            let mut retained = self.retained.write().unwrap_or_else(PoisonError::into_inner);
            self.replace(&mut retained, message, topic_limits);
        }
    }

    /// Returns whether the topic had a message before.
    fn replace(&self, retained: &mut Retained, message: &Arc<Message>, topic_limits: &TopicLimits) -> bool {
        let old = if message.payload().is_empty() {
            retained.tree.remove(message.topic())
        } else {
            let is_stale =
                mutation::is_on(Mutation::RetainedStale) && retained.tree.get(message.topic()).is_some();
            let name = TopicName::parse(message.topic(), topic_limits).ok().filter(|_| !is_stale);
            let Some(name) = name else { return is_stale };
            retained.tree.insert(&name, message.clone())
        };
        let was_there = old.is_some();
        if let Some(old) = old {
            retained.forget_expiry(&old);
            self.forget(&old);
        }
        if !message.payload().is_empty() {
            self.messages.fetch_add(1, Ordering::Relaxed);
            self.bytes.fetch_add(message.size_bytes(), Ordering::Relaxed);
            if let Some(at) = message.expires_at() {
                retained.expiring.insert((at, message.topic().clone()));
            }
        }
        was_there
    }

    /// Calls `f` with some of the retained messages that a subscription gets, those from a text on. Returns
    /// the text to go on from if there may be more. It looks at a few topics at most, so that
    /// neither the lock nor the caller is held up by how many there are. No message is replaced meanwhile:
    /// a number that `f` reserves for an old one is lower than that of any that replaces it.
    pub fn for_each_matching(
        &self,
        filter: &TopicFilter,
        from: &str,
        now: Timestamp,
        mut f: impl FnMut(&Arc<Message>),
    ) -> Option<String> {
        let retained = self.retained.read().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = 0;
        retained.tree.for_each_match_from(filter, from, REPLAY_TOPICS, |_, message| {
            if !message.is_expired(now) {
                f(message);
                bytes += message.size_bytes();
            }
            if bytes < REPLAY_BYTES { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })
    }

    /// Forgets the retained message of a topic: it was superseded by one that cannot be kept. Returns the record
    /// that says so in the store, if there was one.
    pub fn remove(&self, topic: &str, sequence: &Sequence) -> Option<RecordId> {
        let mut retained = self.retained.write().unwrap_or_else(PoisonError::into_inner);
        let old = retained.tree.remove(topic)?;
        retained.forget_expiry(&old);
        self.forget(&old);
        Some(sequence.next())
    }

    /// Removes some of those that have expired. Returns them, each with the record that says so in the store.
    pub fn sweep(
        &self,
        now: Timestamp,
        messages_max: usize,
        sequence: &Sequence,
    ) -> Vec<(RecordId, Arc<Message>)> {
        let mut swept = Vec::new();
        let mut retained = self.retained.write().unwrap_or_else(PoisonError::into_inner);
        while swept.len() < messages_max && retained.expiring.first().is_some_and(|(at, _)| *at < now) {
            let Some((_, topic)) = retained.expiring.pop_first() else { break };
            if let Some(message) = retained.tree.remove(&topic) {
                self.forget(&message);
                swept.push((sequence.next(), message));
            }
        }
        swept
    }

    /// How many there are.
    pub fn messages(&self) -> usize {
        self.messages.load(Ordering::Relaxed)
    }

    /// Their bytes.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    fn forget(&self, message: &Message) {
        self.messages.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(message.size_bytes(), Ordering::Relaxed);
    }
}
