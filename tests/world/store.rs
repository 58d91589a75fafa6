//! A model of the store: what the journal says must survive.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use dunlin::{
    broker::{Batch, Op, Shard},
    codec::PacketId,
    message::Message,
    session::SessionHandle,
    time::Timestamp,
    topic::{TopicFilter, TopicLimits},
};

/// What the journal adds up to.
#[derive(Default)]
pub(super) struct Store {
    /// Sessions by the address of their handle, which the entry keeps from being used again.
    sessions: BTreeMap<usize, Stored>,
    retained: BTreeMap<Arc<str>, Arc<Message>>,
}

struct Stored {
    handle: Arc<SessionHandle>,
    expiry_secs: u32,
    has_will: bool,
    filters: BTreeSet<String>,
    /// Numbers that are not settled.
    messages: BTreeSet<u64>,
    /// Packet identifiers of QoS 2 messages from the client that are not released.
    unreleased: BTreeSet<PacketId>,
}

impl Store {
    pub(super) fn apply(&mut self, batch: &Batch) {
        for entry in &batch.entries {
            self.apply_op(&entry.op);
        }
    }

    fn apply_op(&mut self, op: &Op) {
        match op {
            Op::PutSession { session, expiry_secs, will, .. } => {
                let stored = self.sessions.entry(key(session)).or_insert_with(|| Stored {
                    handle: session.clone(),
                    expiry_secs: 0,
                    has_will: false,
                    filters: BTreeSet::new(),
                    messages: BTreeSet::new(),
                    unreleased: BTreeSet::new(),
                });
                stored.expiry_secs = *expiry_secs;
                stored.has_will = will.is_some();
            }
            Op::EndSession { session, .. } => {
                let ended = self.sessions.remove(&key(session));
                assert!(ended.is_some(), "a session ends that the store does not know");
            }
            Op::PutSubscription { session, filter, .. } => {
                self.stored(session).filters.insert(filter.as_str().into());
            }
            Op::RemoveSubscription { session, filter } => {
                let was_there = self.stored(session).filters.remove(filter.as_str());
                assert!(was_there, "a subscription ends that the store does not know");
            }
            Op::Append { message, retain, targets, received } => {
                if *retain && message.payload().is_empty() {
                    self.retained.remove(message.topic());
                } else if *retain {
                    self.retained.insert(message.topic().clone(), message.clone());
                }
                for target in targets {
                    // The session may have ended since the publisher's shard looked.
                    if let Some(stored) = self.sessions.get_mut(&key(&target.session)) {
                        assert!(stored.messages.insert(target.number), "a number is used twice");
                    }
                }
                if let Some((session, packet_id)) = received {
                    let is_new = self.stored(session).unreleased.insert(*packet_id);
                    assert!(is_new, "a QoS 2 message is received twice");
                }
            }
            Op::Release { session, packet_id } => {
                let was_there = self.stored(session).unreleased.remove(packet_id);
                assert!(was_there, "a packet identifier is released that the store does not know");
            }
            Op::Received { session, number, .. } => {
                assert!(self.stored(session).messages.contains(number), "PUBREC for an unknown message");
            }
            Op::Settle { session, number, .. } => {
                // The session may have ended while the message was on its way.
                if let Some(stored) = self.sessions.get_mut(&key(session)) {
                    let was_there = stored.messages.remove(number);
                    assert!(was_there, "message {number} is settled that the store does not know");
                }
            }
        }
    }

    fn stored(&mut self, session: &Arc<SessionHandle>) -> &mut Stored {
        let name = session.client_id.clone();
        self.sessions
            .get_mut(&key(session))
            .unwrap_or_else(|| panic!("the store does not know the session of {name}"))
    }

    /// The store has what the shards would need after a restart, no more and no less.
    pub(super) fn assert_agrees(&self, shards: &[&Shard], now: Timestamp) {
        // Without what begins with `$`: the broker's own messages are made anew after a restart.
        let all = TopicFilter::parse("#", &TopicLimits::default()).expect("a filter");
        let mut retained = Vec::new();
        let shared = shards[0].shared();
        let mut from = Some(String::new());
        while let Some(start) = from {
            let push = |message: &Arc<Message>| retained.push(message.clone());
            from = shared.retained.for_each_matching(&all, &start, now, push);
        }
        let stored = self.retained.values().filter(|message| !message.is_expired(now));
        assert!(stored.eq(&retained), "retained messages: {:?} are stored of {retained:?}", self.retained);
        let mut known = 0;
        for session in shards.iter().flat_map(|shard| shard.sessions()) {
            let name = session.client_id();
            let Some(stored) = self.sessions.get(&key(&session.handle)) else {
                assert!(!session.handle.is_durable(), "the store does not know the session of {name}");
                assert_eq!(session.expiry_secs, 0, "a session outlives its connection and is not stored");
                continue;
            };
            known += 1;
            assert_eq!(stored.expiry_secs, session.expiry_secs, "expiry of {name}");
            assert_eq!(stored.has_will, session.will.is_some(), "will of {name}");
            let filters: BTreeSet<String> =
                session.subscriptions.keys().map(|filter| filter.as_str().into()).collect();
            assert_eq!(stored.filters, filters, "subscriptions of {name}");
            let outbound = &session.outbound;
            let messages = outbound.queued() + outbound.unacknowledged() + outbound.unreleased();
            assert_eq!(stored.messages.len(), messages, "messages of {name}");
            let unreleased: BTreeSet<PacketId> = session.inbound.unreleased().collect();
            assert_eq!(stored.unreleased, unreleased, "unreleased identifiers of {name}");
        }
        let names: Vec<_> = self.sessions.values().map(|stored| &stored.handle.client_id).collect();
        assert_eq!(known, self.sessions.len(), "the store has sessions that are gone, among {names:?}");
    }
}

fn key(session: &Arc<SessionHandle>) -> usize {
    Arc::as_ptr(session) as usize
}
