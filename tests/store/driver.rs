//! Random batches of a few shards and sessions, in an order in which a broker may submit them.

use std::{num::NonZeroU32, sync::Arc};

use dunlin::{
    broker::{Batch, Entry, JournalTarget, Op, Sequence, Urgency},
    codec::{PacketId, QoS, RetainHandling, SubscriptionOptions},
    message::{Header, Message},
    session::{RecordId, SessionHandle, StoredPresence, StoredSubscription, StoredWill, Subscription},
    time::Timestamp,
    topic::{TopicFilter, TopicLimits},
};

use crate::{
    model::{Model, Session},
    rng::Rng,
};

pub(crate) const SHARDS: u16 = 2;
const SESSIONS_MAX: usize = 5;

pub(crate) fn message(topic: &str, payload: &[u8], qos: QoS) -> Message {
    let header = Header { qos, retain: false, expires_at: None, publisher: Some("publisher".into()) };
    Message::new(topic.into(), payload, header)
}

pub(crate) fn filter(text: &str) -> TopicFilter {
    TopicFilter::parse(text, &TopicLimits::default()).unwrap()
}

pub(crate) struct Driver {
    pub(crate) model: Model,
    pub(crate) sequence: Sequence,
    pub(crate) rng: Rng,
    commits: [u64; SHARDS as usize],
    /// Batches that a slow shard has not submitted yet.
    held: Vec<(u16, Entry)>,
}

impl Driver {
    pub(crate) fn new(seed: u64) -> Driver {
        Driver {
            model: Model::default(),
            sequence: Sequence::starting_at(RecordId::new(1)),
            rng: Rng::new(seed),
            commits: [0; SHARDS as usize],
            held: Vec::new(),
        }
    }

    /// Goes on after a restart.
    pub(crate) fn resume(&mut self, model: Model, next: RecordId) {
        self.model = model;
        self.sequence = Sequence::starting_at(next);
        self.held.clear();
        self.commits = [0; SHARDS as usize];
    }

    pub(crate) fn commit(&self, shard: u16) -> u64 {
        self.commits[usize::from(shard)]
    }

    /// The next group, which the model has already.
    pub(crate) fn group(&mut self) -> Vec<(u16, Batch)> {
        let mut group = Vec::new();
        // A shard may be late by a turn, never by the time it takes to fold the log twice.
        for (shard, entry) in std::mem::take(&mut self.held) {
            self.submit(&mut group, shard, entry);
        }
        for _ in 0..=self.rng.below(6) {
            self.step(&mut group);
        }
        group
    }

    pub(crate) fn submit(&mut self, group: &mut Vec<(u16, Batch)>, shard: u16, entry: Entry) {
        if let Op::Append { targets, .. } = &entry.op {
            // Who is not there any more has it settled for it.
            for target in targets.iter().filter(|target| !self.model.sessions.contains_key(&target.session)) {
                let message = entry.record;
                let session = target.session;
                let op = Op::Settle { session, number: target.number, message, base: u64::MAX };
                self.held.push((shard, Entry { record: None, op }));
            }
        }
        self.model.apply(&entry);
        self.commits[usize::from(shard)] += 1;
        let commit = self.commits[usize::from(shard)];
        group.push((shard, Batch { commit, entries: vec![entry], urgency: Urgency::Now }));
    }

    fn session(&mut self) -> Option<Session> {
        let ids: Vec<u64> = self.model.sessions.keys().copied().collect();
        let id = self.rng.pick(&ids)?;
        Some(self.model.sessions[id].clone())
    }

    fn put(&mut self, group: &mut Vec<(u16, Batch)>, handle: Arc<SessionHandle>, next: u64) {
        let presence = if self.rng.one_in(2) {
            StoredPresence::Connected { receive_maximum: self.rng.below(100) as u16 }
        } else {
            let since = Timestamp::from_millis(self.rng.below(1000));
            StoredPresence::Detached {
                since,
                sent_below: self.rng.below(next + 1),
                perhaps_sent_below: self.rng.below(next + 1),
            }
        };
        let will = self.rng.one_in(3).then(|| {
            let expiry = self.rng.one_in(2).then_some(30);
            let topic = format!("will/{}", self.rng.below(9));
            let message = message(&topic, b"gone", QoS::AtLeastOnce);
            Arc::new(StoredWill { message, delay_secs: 5, message_expiry_secs: expiry })
        });
        let expiry_secs = self.rng.below(1000) as u32;
        let shard = handle.shard;
        let op = Op::PutSession { session: handle, expiry_secs, will, presence };
        let record = Some(self.sequence.next());
        self.submit(group, shard, Entry { record, op });
    }

    fn step(&mut self, group: &mut Vec<(u16, Batch)>) {
        let session = self.session();
        let Some(session) = session.filter(|_| !self.rng.one_in(20)) else {
            if self.model.sessions.len() < SESSIONS_MAX {
                let id = self.sequence.next().get();
                let shard = (id % u64::from(SHARDS)) as u16;
                let handle = Arc::new(SessionHandle::new(shard, 1, id, format!("client {id}").into()));
                handle.set_owner(id.is_multiple_of(2).then(|| format!("user {id}").into()).as_ref());
                self.put(group, handle, 0);
            }
            return;
        };
        let shard = session.handle.shard;
        let op = match self.rng.below(20) {
            0 => return self.put(group, session.handle, session.next),
            1 if self.rng.one_in(3) => {
                let records = session.queued.values().map(|queued| RecordId::new(queued.record)).collect();
                Op::EndSession { session: session.handle, records }
            }
            2 => self.put_subscription(&session),
            3 => {
                let filters: Vec<&String> = session.subscriptions.keys().collect();
                let Some(text) = self.rng.pick(&filters) else { return };
                Op::RemoveSubscription { session: session.handle.clone(), filter: filter(text) }
            }
            4..=9 => return self.append(group),
            10 => {
                let ids: Vec<u16> = session.unreleased.iter().copied().collect();
                let Some(id) = self.rng.pick(&ids) else { return };
                Op::Release { session: session.handle, packet_id: PacketId::new(*id).unwrap() }
            }
            _ => return self.acknowledge(group, &session),
        };
        let record = Some(self.sequence.next());
        self.submit(group, shard, Entry { record, op });
    }

    fn put_subscription(&mut self, session: &Session) -> Op {
        let texts = ["a/+", "b/#", "$share/g/c", "d"];
        let text = texts[self.rng.below(4) as usize];
        let options = SubscriptionOptions {
            qos: QoS::from_u8(self.rng.below(3) as u8).unwrap(),
            no_local: self.rng.one_in(2),
            retain_as_published: self.rng.one_in(2),
            retain_handling: RetainHandling::SendIfNew,
        };
        let subscription = Subscription { options, id: NonZeroU32::new(self.rng.below(3) as u32) };
        let stored = StoredSubscription { subscription, has_replay: self.rng.one_in(3) };
        Op::PutSubscription { session: session.handle.clone(), filter: filter(text), subscription: stored }
    }

    fn append(&mut self, group: &mut Vec<(u16, Batch)>) {
        let record = self.sequence.next();
        let publisher = self.session().filter(|_| self.rng.one_in(3));
        let mut targets = Vec::new();
        for id in self.model.sessions.keys().copied().collect::<Vec<_>>() {
            if self.rng.one_in(2) {
                continue;
            }
            let known = self.model.sessions.get_mut(&id).unwrap();
            let number = known.next;
            known.next += 1;
            known.reserved.insert(number);
            let ids = self.rng.one_in(3).then(|| Arc::from([NonZeroU32::MIN, NonZeroU32::MAX]));
            targets.push(JournalTarget {
                session: known.handle.id,
                number,
                qos: if self.rng.one_in(2) { QoS::ExactlyOnce } else { QoS::AtLeastOnce },
                retain: self.rng.one_in(2),
                subscription_ids: ids,
                share: self.rng.one_in(8).then(|| "$share/g/c".into()),
            });
        }
        let retain = self.rng.one_in(3);
        let received = publisher.and_then(|publisher| {
            let id = 1 + self.rng.below(4) as u16;
            let is_new = !publisher.unreleased.contains(&id);
            is_new.then(|| (publisher.handle.clone(), PacketId::new(id).unwrap()))
        });
        let length = match self.rng.below(40) {
            0 => 200_000,
            1 => 65_536 - 64 + self.rng.below(3) as usize - 60,
            _ => self.rng.below(60) as usize,
        };
        let payload = if self.rng.one_in(6) { Vec::new() } else { vec![self.rng.next() as u8; length] };
        let topic = format!("topic/{}", self.rng.below(4));
        let message = Arc::new(message(&topic, &payload, QoS::ExactlyOnce));
        // A publisher's own shard has its batches in order; others may be late with theirs.
        let may_wait = received.is_none();
        let shard = received.as_ref().map_or(self.rng.below(2) as u16, |(handle, _)| handle.shard);
        let entry = Entry {
            record: Some(record),
            op: Op::Append { message, retain, targets: targets.into(), received },
        };
        if may_wait && self.rng.one_in(4) {
            self.held.push((shard, entry));
        } else {
            self.submit(group, shard, entry);
        }
    }

    fn acknowledge(&mut self, group: &mut Vec<(u16, Batch)>, session: &Session) {
        let numbers: Vec<u64> = session.queued.keys().chain(&session.owned).copied().collect();
        // Most clients acknowledge in order.
        let first = numbers.iter().min().copied();
        let number = if self.rng.one_in(4) { self.rng.pick(&numbers).copied() } else { first };
        let Some(number) = number else { return };
        let handle = session.handle.clone();
        let queued = session.queued.get(&number);
        let is_received = queued.is_some_and(|queued| queued.qos == QoS::ExactlyOnce) && !self.rng.one_in(8);
        let message = queued.map(|queued| RecordId::new(queued.record));
        let entry = match message {
            Some(message) if is_received => {
                let op = Op::Received { session: handle, number, message };
                Entry { record: Some(self.sequence.next()), op }
            }
            _ => {
                let mut after = session.clone();
                after.queued.remove(&number);
                after.owned.remove(&number);
                let op = Op::Settle { session: handle.id, number, message, base: after.base() };
                Entry { record: None, op }
            }
        };
        self.submit(group, session.handle.shard, entry);
    }
}
