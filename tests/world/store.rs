//! A model of the store: what the journal says must survive, and what it gives back.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use dunlin::{
    broker::{Entry, JournalTarget, Op, Shard, Unspill},
    codec::PacketId,
    message::Message,
    session::{
        Fetch, Fetched, Found, Outgoing, Parked, RecordId, SessionHandle, StoredMessage, StoredPresence,
        StoredSession, StoredSubscription, StoredWill, Wanted,
    },
    time::Timestamp,
    topic::{TopicFilter, TopicLimits},
};

/// Messages of a run at most that the store hands over.
const RUN_MAX: usize = 3;

/// All changes that were made, as they were made.
#[derive(Clone, Default)]
pub(super) struct Image {
    /// Changes by their record.
    log: BTreeMap<RecordId, Op>,
    /// Numbers that are settled, by session.
    settled: BTreeMap<u64, BTreeSet<u64>>,
    /// What is settled at least, by session.
    bases: BTreeMap<u64, u64>,
    /// Runs that are spilled, by session and first number.
    spilled: BTreeMap<(u64, u64), Vec<StoredMessage>>,
}

/// What the log adds up to.
#[derive(Default)]
pub(super) struct Recovered {
    pub(super) sessions: Vec<StoredSession>,
    pub(super) retained: BTreeMap<Arc<str>, Arc<Message>>,
    pub(super) next: u64,
}

struct Session {
    client_id: Arc<str>,
    owner: Option<Arc<str>>,
    expiry_secs: u32,
    will: Option<Arc<StoredWill>>,
    presence: StoredPresence,
    filters: BTreeMap<TopicFilter, StoredSubscription>,
    messages: BTreeMap<u64, (RecordId, Arc<Message>, JournalTarget)>,
    owned: BTreeSet<u64>,
    unreleased: BTreeSet<PacketId>,
}

impl Image {
    pub(super) fn apply(&mut self, entry: &Entry) {
        if let Op::Settle { session, number, base, .. } = &entry.op {
            let is_new = self.settled.entry(*session).or_default().insert(*number);
            assert!(is_new, "{number} of session {session} is settled twice");
            let known = self.bases.entry(*session).or_default();
            *known = (*known).max(*base);
            return;
        }
        if let Op::Passed { session, number, base, .. } = &entry.op {
            let is_new = self.settled.entry(session.id).or_default().insert(*number);
            assert!(is_new, "{number} of {} is passed on twice", session.client_id);
            let known = self.bases.entry(session.id).or_default();
            *known = (*known).max(*base);
            return;
        }
        if let Op::Spill { session, messages } = &entry.op {
            let first = messages[0].number;
            assert!((first..).zip(messages).all(|(number, message)| message.number == number));
            let before = self.spilled.insert((session.id, first), messages.clone());
            assert!(before.is_none(), "{first} of {} is spilled twice", session.client_id);
            return;
        }
        if let Op::Unspill { session, first, cause } = &entry.op {
            let messages = self.spilled.remove(&(session.id, *first));
            assert!(messages.is_some(), "{first} of {} is not spilled", session.client_id);
            assert_eq!(*cause == Unspill::Ended, self.has_ended(session.id), "why {first} is read back");
            return;
        }
        let record = entry.record.expect("all other changes make a record");
        let before = self.log.insert(record, entry.op.clone());
        assert!(before.is_none(), "record {record:?} is made twice");
    }

    /// What a broker that starts with this image gets. A session is named by its identifier alone.
    pub(super) fn recover(&self) -> Recovered {
        let mut sessions: BTreeMap<u64, Session> = BTreeMap::new();
        let mut recovered = Recovered { next: 1, ..Recovered::default() };
        let mut messages = Vec::new();
        for (record, op) in &self.log {
            recovered.next = record.get() + 1;
            match op {
                Op::PutSession { session, expiry_secs, will, presence } => {
                    recovered.next = recovered.next.max(session.id + 1);
                    put_session(&mut sessions, session, *expiry_secs, will.clone(), *presence);
                }
                Op::EndSession { session, .. } => {
                    let ended = sessions.remove(&session.id);
                    assert!(ended.is_some(), "a session ends that the store does not know");
                }
                Op::PutSubscription { session, filter, subscription } => {
                    let stored = known(&mut sessions, session);
                    stored.filters.insert(filter.clone(), *subscription);
                }
                Op::RemoveSubscription { session, filter } => {
                    let was_there = known(&mut sessions, session).filters.remove(filter);
                    assert!(was_there.is_some(), "a subscription ends that the store does not know");
                }
                Op::Append { message, retain, targets, received } => {
                    if *retain && message.payload().is_empty() {
                        recovered.retained.remove(message.topic());
                    } else if *retain {
                        recovered.retained.insert(message.topic().clone(), message.clone());
                    }
                    messages.extend(targets.iter().map(|target| (*record, message, target)));
                    if let Some((session, packet_id)) = received {
                        let is_new = known(&mut sessions, session).unreleased.insert(*packet_id);
                        assert!(is_new, "a QoS 2 message is received twice");
                    }
                }
                Op::Release { session, packet_id } => {
                    let was_there = known(&mut sessions, session).unreleased.remove(packet_id);
                    assert!(was_there, "a packet identifier is released that the store does not know");
                }
                Op::Received { session, number, .. } => {
                    known(&mut sessions, session).owned.insert(*number);
                }
                Op::Passed { .. } | Op::Settle { .. } | Op::Spill { .. } | Op::Unspill { .. } => {}
            }
        }
        // The session of a target may be made by a later record of another shard, or have ended before.
        for (record, message, target) in messages {
            if let Some(session) = sessions.get_mut(&target.session)
                && !self.is_settled(target.session, target.number)
                && !session.owned.contains(&target.number)
            {
                let before =
                    session.messages.insert(target.number, (record, message.clone(), target.clone()));
                assert!(before.is_none(), "a number is used twice");
            }
        }
        let sessions = sessions.into_iter().map(|(id, session)| self.stored(id, session));
        recovered.sessions = sessions.collect();
        recovered
    }

    fn stored(&self, id: u64, session: Session) -> StoredSession {
        let is_live = |number: &u64| !self.is_settled(id, *number);
        let owned: Vec<u64> = session.owned.into_iter().filter(is_live).collect();
        let numbers = session.messages.keys().chain(&owned);
        let base = self.bases.get(&id).copied().unwrap_or(0);
        let next_number = numbers.map(|number| number + 1).max().unwrap_or(0).max(base);
        let (mut messages, mut shared) = (Parked::default(), Vec::new());
        for (number, (record, message, target)) in session.messages {
            if target.share.is_some() {
                shared.push((number, outgoing(record, &message, &target)));
            } else {
                let size_bytes = message.size_bytes() as u32;
                messages.insert(StoredMessage { number, record, size_bytes, qos: target.qos }, RUN_MAX);
            }
        }
        StoredSession {
            id,
            client_id: session.client_id,
            owner: session.owner,
            expiry_secs: session.expiry_secs,
            presence: session.presence,
            will: session.will,
            subscriptions: session.filters.into_iter().collect(),
            next_number,
            messages,
            shared,
            owned,
            unreleased: session.unreleased.into_iter().collect(),
        }
    }

    fn is_settled(&self, session: u64, number: u64) -> bool {
        self.bases.get(&session).is_some_and(|base| number < *base)
            || self.settled.get(&session).is_some_and(|settled| settled.contains(&number))
    }

    fn has_ended(&self, id: u64) -> bool {
        self.log.values().any(|op| matches!(op, Op::EndSession { session, .. } if session.id == id))
    }

    /// Forgets what nobody can ask for after a restart, so that numbers may be used again as the broker does.
    pub(super) fn compact(&mut self) {
        let recovered = self.recover();
        let live: BTreeSet<(u64, u64)> = recovered
            .sessions
            .iter()
            .flat_map(|session| {
                let numbers = session.messages.iter().map(|message| message.number);
                let shared = session.shared.iter().map(|(number, _)| *number);
                numbers.chain(shared).chain(session.owned.iter().copied()).map(|number| (session.id, number))
            })
            .collect();
        for op in self.log.values_mut() {
            if let Op::Append { targets, .. } = op {
                targets.retain(|target| live.contains(&(target.session, target.number)));
            }
        }
        self.log.retain(|_, op| match op {
            Op::Received { session, number, .. } => live.contains(&(session.id, *number)),
            _ => true,
        });
        self.settled.clear();
        self.spilled.clear();
    }

    /// Answers a request for messages.
    pub(super) fn fetch(&self, fetch: Fetch) -> Fetched {
        let Fetch { slot, session, ticket, wanted } = fetch;
        let wanted = match wanted {
            Wanted::Messages(wanted) => wanted,
            Wanted::Run(first) => {
                let messages = self.spilled.get(&(session, first)).cloned();
                assert!(messages.is_some() || self.has_ended(session), "a run is wanted that is not there");
                let found = Found::Run(first, messages.unwrap_or_default());
                return Fetched { slot, session, ticket, found };
            }
        };
        let found = wanted.into_iter().map(|(number, record)| {
            let Some(Op::Append { message, targets, .. }) = self.log.get(&record) else {
                panic!("a message is wanted that the store does not know");
            };
            let is_wanted = |target: &&JournalTarget| (target.session, target.number) == (session, number);
            let target = targets.iter().find(is_wanted).expect("the message is for the session");
            (number, Some(outgoing(record, message, target)))
        });
        Fetched { slot, session, ticket, found: Found::Messages(found.collect()) }
    }

    /// The store has what the shards would need after a restart, no more and no less.
    pub(super) fn assert_agrees(&self, shards: &[&Shard], now: Timestamp) {
        let recovered = self.recover();
        // Without what begins with `$`: the broker's own messages are made anew after a restart.
        let all = TopicFilter::parse("#", &TopicLimits::default()).expect("a filter");
        let mut retained = Vec::new();
        let shared = shards[0].shared();
        let mut from = Some(String::new());
        while let Some(start) = from {
            let push = |message: &Arc<Message>| retained.push(message.clone());
            from = shared.retained.for_each_matching(&all, &start, now, push);
        }
        let is_told = |message: &&Arc<Message>| !message.is_expired(now) && !message.topic().starts_with('$');
        let stored = recovered.retained.values().filter(is_told);
        assert!(stored.eq(&retained), "retained messages: {:?} of {retained:?}", recovered.retained);
        let mut stored: BTreeMap<u64, StoredSession> =
            recovered.sessions.into_iter().map(|session| (session.id, session)).collect();
        let mut spilled = self.spilled.clone();
        for session in shards.iter().flat_map(|shard| shard.sessions()) {
            let name = session.client_id();
            let Some(stored) = stored.remove(&session.handle.id) else {
                assert!(!session.handle.is_durable(), "the store does not know the session of {name}");
                assert_eq!(session.expiry_secs, 0, "a session outlives its connection and is not stored");
                continue;
            };
            assert_eq!(stored.expiry_secs, session.expiry_secs, "expiry of {name}");
            assert_eq!(stored.will.is_some(), session.will.is_some(), "will of {name}");
            assert!(stored.subscriptions.iter().map(|(filter, _)| filter).eq(session.subscriptions.keys()));
            let outbound = &session.outbound;
            for run in outbound.spilled() {
                let messages =
                    spilled.remove(&(session.handle.id, run.first)).expect("a run is in the store");
                assert_eq!(messages.len(), run.count as usize);
                let size_bytes = messages.iter().map(|message| u64::from(message.size_bytes));
                assert_eq!(size_bytes.sum::<u64>(), run.size_bytes);
            }
            let messages = stored.messages.len() + stored.shared.len();
            assert_eq!(messages, outbound.queued() + outbound.unacknowledged(), "messages of {name}");
            assert_eq!(stored.owned.len(), outbound.unreleased(), "messages that {name} owns");
            assert!(stored.unreleased.iter().copied().eq(session.inbound.unreleased()));
        }
        let names: Vec<_> = stored.values().map(|stored| &stored.client_id).collect();
        assert!(names.is_empty(), "the store has sessions that are gone: {names:?}");
        assert!(spilled.is_empty(), "the store has runs that are in memory: {spilled:?}");
    }
}

fn put_session(
    sessions: &mut BTreeMap<u64, Session>,
    handle: &SessionHandle,
    expiry_secs: u32,
    will: Option<Arc<StoredWill>>,
    presence: StoredPresence,
) {
    let session = sessions.entry(handle.id).or_insert_with(|| Session {
        client_id: handle.client_id.clone(),
        owner: handle.owner().cloned(),
        expiry_secs,
        will: None,
        presence,
        filters: BTreeMap::new(),
        messages: BTreeMap::new(),
        owned: BTreeSet::new(),
        unreleased: BTreeSet::new(),
    });
    session.expiry_secs = expiry_secs;
    session.will = will;
    session.owner = handle.owner().cloned();
    session.presence = presence;
}

fn known<'a>(sessions: &'a mut BTreeMap<u64, Session>, session: &SessionHandle) -> &'a mut Session {
    let name = &session.client_id;
    sessions.get_mut(&session.id).unwrap_or_else(|| panic!("the store does not know the session of {name}"))
}

fn outgoing(record: RecordId, message: &Arc<Message>, target: &JournalTarget) -> Outgoing {
    Outgoing {
        message: message.clone(),
        qos: target.qos,
        retain: target.retain,
        subscription_ids: target.subscription_ids.clone(),
        share: target.share.clone(),
        record: Some(record),
    }
}
