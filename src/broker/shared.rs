//! What all shards share: the subscription index, retained messages, limits and counters.

use std::sync::{
    Arc, PoisonError, RwLock,
    atomic::{AtomicUsize, Ordering},
};

use crate::{
    acl::{Authorize, Open},
    limits::Limits,
    message::Message,
    time::Timestamp,
    topic::{RetainedTree, TopicFilter, TopicLimits, TopicName},
};

use super::{Counters, Router};

/// State that all shards of a broker share.
pub struct Shared {
    /// Limits.
    pub limits: Limits,
    /// Whether PUBLISH marked as UTF-8 text is checked to be such.
    pub check_payload_format: bool,
    /// Who may do what.
    pub authorize: Arc<dyn Authorize>,
    /// All subscriptions.
    pub router: Router,
    /// Retained messages.
    pub retained: RetainedStore,
    /// Sessions of all shards.
    pub sessions: AtomicUsize,
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
            authorize: Arc::new(Open),
            router: Router::new(seed),
            retained: RetainedStore::default(),
            sessions: AtomicUsize::new(0),
            counters: (0..shards).map(|_| Counters::default()).collect(),
            seed,
        }
    }

    /// Limits of topic names and filters.
    pub fn topic_limits(&self) -> TopicLimits {
        TopicLimits { bytes_max: self.limits.topic_bytes_max, levels_max: self.limits.topic_levels_max }
    }

    /// The sum of one counter over all shards.
    pub fn sum(&self, counter: impl Fn(&Counters) -> u64) -> u64 {
        self.counters.iter().map(counter).fold(0, u64::wrapping_add)
    }

    /// Bytes in the queues of all sessions.
    pub fn queued_bytes(&self) -> usize {
        self.sum(|counters| counters.queued_bytes.value()) as usize
    }
}

/// The last retained message of each topic. `[MQTT-3.3.1-5]`
///
/// A publisher changes it before its message is routed, and a subscriber's filter is in the router before
/// this is read: whichever comes first, the subscriber never gets an old message after a new one.
#[derive(Debug, Default)]
pub struct RetainedStore {
    tree: RwLock<RetainedTree<Arc<Message>>>,
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
    /// There are too many retained messages, or too many bytes in them.
    Full,
}

impl RetainedStore {
    /// Whether a message may be retained.
    pub fn has_room(&self, message: &Message, limits: &Limits) -> bool {
        let tree = self.tree.read().unwrap_or_else(PoisonError::into_inner);
        let replaced = tree.get(message.topic()).map(|old| old.size_bytes());
        let messages = self.messages.load(Ordering::Relaxed) + usize::from(replaced.is_none());
        let bytes = self.bytes.load(Ordering::Relaxed) - replaced.unwrap_or(0) + message.size_bytes();
        message.payload().is_empty()
            || (messages <= limits.retained_messages_max && bytes <= limits.retained_bytes_max)
    }

    /// Retains a message, or with an empty payload removes the one of its topic.
    pub fn update(&self, message: &Arc<Message>, topic_limits: &TopicLimits) {
        let mut tree = self.tree.write().unwrap_or_else(PoisonError::into_inner);
        let old = if message.payload().is_empty() {
            tree.remove(message.topic())
        } else {
            let Ok(name) = TopicName::parse(message.topic(), topic_limits) else { return };
            self.messages.fetch_add(1, Ordering::Relaxed);
            self.bytes.fetch_add(message.size_bytes(), Ordering::Relaxed);
            tree.insert(&name, message.clone())
        };
        if let Some(old) = old {
            self.forget(&old);
        }
    }

    /// Calls `f` with each retained message that a subscription gets. No message is replaced meanwhile: a
    /// number that `f` reserves for an old one is lower than that of any that replaces it.
    pub fn for_each_matching(&self, filter: &TopicFilter, now: Timestamp, mut f: impl FnMut(&Arc<Message>)) {
        let tree = self.tree.read().unwrap_or_else(PoisonError::into_inner);
        tree.for_each_match(filter, |_, message: &Arc<Message>| {
            if !message.is_expired(now) {
                f(message);
            }
        });
    }

    /// Removes what has expired.
    pub fn sweep(&self, now: Timestamp) {
        let mut tree = self.tree.write().unwrap_or_else(PoisonError::into_inner);
        tree.retain(|message| {
            let is_kept = !message.is_expired(now);
            if !is_kept {
                self.forget(message);
            }
            is_kept
        });
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
