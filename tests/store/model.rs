//! What a store must have: the same changes, applied to plain maps, and the comparison with what a store says
//! that it has.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use dunlin::{
    broker::{Entry, JournalTarget, Op},
    codec::QoS,
    message::Message,
    session::{
        Fetch, Fetched, Found, Outgoing, RecordId, SessionHandle, StoredMessage, StoredPresence,
        StoredSession, StoredSubscription, Wanted,
    },
    store::{Committed, Committer, Condition, Recovered},
};

/// Who is told.
#[derive(Default)]
pub(crate) struct Told {
    pub(crate) commits: Mutex<Vec<(u16, u64)>>,
    pub(crate) fetched: Mutex<Vec<Fetched>>,
    pub(crate) conditions: Mutex<Vec<Condition>>,
}

impl Told {
    /// The last commit that was told of, of whatever shard.
    pub(crate) fn newest_so_far(&self) -> u64 {
        self.commits.lock().unwrap().last().map_or(0, |(_, commit)| *commit)
    }

    pub(crate) fn newest(&self, shard: u16) -> u64 {
        let commits = self.commits.lock().unwrap();
        commits.iter().filter(|(of, _)| *of == shard).map(|(_, commit)| *commit).max().unwrap_or(0)
    }
}

impl Committed for Told {
    fn committed(&self, shard: u16, commit: u64) {
        self.commits.lock().unwrap().push((shard, commit));
    }

    fn fetched(&self, _: u16, fetched: Fetched) {
        self.fetched.lock().unwrap().push(fetched);
    }

    fn condition(&self, condition: Condition) {
        self.conditions.lock().unwrap().push(condition);
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) sessions: BTreeMap<u64, Session>,
    /// By topic: the record, and the message if there is one.
    pub(crate) retained: BTreeMap<String, (u64, Arc<Message>)>,
}

#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) handle: Arc<SessionHandle>,
    pub(crate) expiry_secs: u32,
    pub(crate) presence: StoredPresence,
    pub(crate) will: Option<String>,
    pub(crate) subscriptions: BTreeMap<String, StoredSubscription>,
    pub(crate) queued: BTreeMap<u64, Queued>,
    /// Settled without PUBREC: a power loss may bring them back.
    pub(crate) settled: BTreeMap<u64, Queued>,
    pub(crate) owned: BTreeSet<u64>,
    /// Owned until PUBCOMP: a power loss may bring that back, but never the message.
    pub(crate) completed: BTreeSet<u64>,
    pub(crate) unreleased: BTreeSet<u16>,
    /// Numbers of messages that are not in the journal yet.
    pub(crate) reserved: BTreeSet<u64>,
    pub(crate) next: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Queued {
    pub(crate) record: u64,
    pub(crate) message: Arc<Message>,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) ids: Vec<u32>,
    pub(crate) share: Option<String>,
}

impl Session {
    fn new(handle: Arc<SessionHandle>, presence: StoredPresence) -> Session {
        Session {
            handle,
            expiry_secs: 0,
            presence,
            will: None,
            subscriptions: BTreeMap::new(),
            queued: BTreeMap::new(),
            settled: BTreeMap::new(),
            owned: BTreeSet::new(),
            completed: BTreeSet::new(),
            unreleased: BTreeSet::new(),
            reserved: BTreeSet::new(),
            next: 0,
        }
    }

    /// All numbers below are settled.
    pub(crate) fn base(&self) -> u64 {
        let firsts = [self.queued.keys().next(), self.owned.first(), self.reserved.first()];
        firsts.into_iter().flatten().min().copied().unwrap_or(self.next)
    }
}

impl Model {
    pub(crate) fn apply(&mut self, entry: &Entry) {
        let record = entry.record.map_or(0, RecordId::get);
        match &entry.op {
            Op::PutSession { session, expiry_secs, will, presence } => {
                let known = Session::new(session.clone(), *presence);
                let known = self.sessions.entry(session.id).or_insert(known);
                known.will = will.as_ref().map(|will| will.message.topic().to_string());
                (known.expiry_secs, known.presence) = (*expiry_secs, *presence);
            }
            Op::EndSession { session, .. } => {
                self.sessions.remove(&session.id);
            }
            Op::PutSubscription { session, filter, subscription } => {
                if let Some(known) = self.sessions.get_mut(&session.id) {
                    known.subscriptions.insert(filter.as_str().to_owned(), *subscription);
                }
            }
            Op::RemoveSubscription { session, filter } => {
                if let Some(known) = self.sessions.get_mut(&session.id) {
                    known.subscriptions.remove(filter.as_str());
                }
            }
            Op::Append { message, retain, targets, received } => {
                self.append(record, message, targets);
                let old = self.retained.get(&**message.topic()).map_or(0, |(record, _)| *record);
                if *retain && record > old {
                    self.retained.insert(message.topic().to_string(), (record, message.clone()));
                }
                if let Some((session, packet_id)) = received
                    && let Some(known) = self.sessions.get_mut(&session.id)
                {
                    known.unreleased.insert(packet_id.get());
                }
            }
            Op::Release { session, packet_id } => {
                if let Some(known) = self.sessions.get_mut(&session.id) {
                    known.unreleased.remove(&packet_id.get());
                }
            }
            Op::Received { session, number, .. } => {
                if let Some(known) = self.sessions.get_mut(&session.id) {
                    known.queued.remove(number);
                    known.owned.insert(*number);
                }
            }
            // The driver passes nothing on.
            Op::Passed { .. } => {}
            Op::Settle { session, number, .. } => {
                if let Some(known) = self.sessions.get_mut(session) {
                    if let Some(queued) = known.queued.remove(number) {
                        known.settled.insert(*number, queued);
                    }
                    if known.owned.remove(number) {
                        known.completed.insert(*number);
                    }
                }
            }
            Op::Spill { .. } | Op::Unspill { .. } => {}
        }
    }

    fn append(&mut self, record: u64, message: &Arc<Message>, targets: &[JournalTarget]) {
        for target in targets {
            let Some(known) = self.sessions.get_mut(&target.session) else { continue };
            known.reserved.remove(&target.number);
            let ids = target.subscription_ids.iter().flat_map(|ids| ids.iter().map(|id| id.get()));
            let queued = Queued {
                record,
                message: message.clone(),
                qos: target.qos,
                retain: target.retain,
                ids: ids.collect(),
                share: target.share.as_deref().map(str::to_owned),
            };
            known.queued.insert(target.number, queued);
        }
    }

    /// After a stop in order nothing that was settled may come back.
    pub(crate) fn forget_settled(&mut self) {
        for session in self.sessions.values_mut() {
            session.settled.clear();
            session.completed.clear();
        }
    }

    /// Compares what a store has with what it must have. Returns the model to go on with: what was settled
    /// lazily may be back.
    pub(crate) fn check(&self, recovered: &Recovered, committer: &Committer) -> Result<Model, String> {
        let ids: Vec<u64> = recovered.sessions.iter().map(|session| session.id).collect();
        let expected: Vec<u64> = self.sessions.keys().copied().collect();
        if ids != expected {
            return Err(format!("sessions {ids:?} instead of {expected:?}"));
        }
        let mut adopted = Model { sessions: BTreeMap::new(), retained: self.retained.clone() };
        for stored in &recovered.sessions {
            let known = &self.sessions[&stored.id];
            let session = known
                .check(stored, committer)
                .map_err(|what| format!("session {} of {}: {what}", stored.id, stored.client_id))?;
            if recovered.next.get() <= stored.id {
                return Err(format!("session {} is not below {:?}", stored.id, recovered.next));
            }
            adopted.sessions.insert(stored.id, session);
        }
        self.check_retained(recovered)?;
        // Who could bring an older message than a removal is gone.
        adopted.retained.retain(|_, (_, message)| !message.payload().is_empty());
        let newest = adopted.sessions.values().flat_map(|session| session.queued.values());
        let newest =
            newest.map(|queued| queued.record).chain(adopted.retained.values().map(|(record, _)| *record));
        if let Some(newest) = newest.max().filter(|newest| *newest >= recovered.next.get()) {
            return Err(format!("record {newest} is not below {:?}", recovered.next));
        }
        Ok(adopted)
    }

    fn check_retained(&self, recovered: &Recovered) -> Result<(), String> {
        let found: BTreeMap<&str, &Message> =
            recovered.retained.iter().map(|message| (&**message.topic(), &**message)).collect();
        let expected: BTreeMap<&str, &Message> = self
            .retained
            .iter()
            .filter(|(_, (_, message))| !message.payload().is_empty())
            .map(|(topic, (_, message))| (topic.as_str(), &**message))
            .collect();
        if recovered.retained.len() != found.len() {
            return Err("a topic has two retained messages".to_owned());
        }
        for topic in found.keys().chain(expected.keys()) {
            let (found, expected) = (found.get(topic), expected.get(topic));
            if found != expected {
                let record = self.retained.get(*topic).map(|(record, _)| *record);
                let size = |message: Option<&&Message>| message.map(|message| message.size_bytes());
                let (found, expected) = (size(found), size(expected));
                return Err(format!(
                    "{topic} retains {found:?} instead of {expected:?} of record {record:?}"
                ));
            }
        }
        Ok(())
    }
}

impl Session {
    fn check(&self, stored: &StoredSession, committer: &Committer) -> Result<Session, String> {
        let will = stored.will.as_ref().map(|will| will.message.topic().to_string());
        let found = (&*stored.client_id, &stored.owner, stored.expiry_secs, stored.presence, &will);
        let expected = (
            &*self.handle.client_id,
            &self.handle.owner().cloned(),
            self.expiry_secs,
            self.presence,
            &self.will,
        );
        if found != expected {
            return Err(format!("{found:?} instead of {expected:?}"));
        }
        let subscriptions: BTreeMap<String, StoredSubscription> = stored
            .subscriptions
            .iter()
            .map(|(filter, options)| (filter.as_str().to_owned(), *options))
            .collect();
        if subscriptions != self.subscriptions || subscriptions.len() != stored.subscriptions.len() {
            return Err(format!("subscriptions {subscriptions:?} instead of {:?}", self.subscriptions));
        }
        let unreleased: BTreeSet<u16> = stored.unreleased.iter().map(|id| id.get()).collect();
        if unreleased != self.unreleased {
            return Err(format!("unreleased {unreleased:?} instead of {:?}", self.unreleased));
        }
        let owned: BTreeSet<u64> = stored.owned.iter().copied().collect();
        let lost: Vec<_> = self.owned.difference(&owned).collect();
        let foreign: Vec<_> = owned
            .iter()
            .filter(|number| !self.owned.contains(number) && !self.completed.contains(number))
            .collect();
        if !lost.is_empty() || !foreign.is_empty() {
            return Err(format!("owned: lost {lost:?}, foreign {foreign:?}"));
        }
        let queued = self.check_queue(stored, committer)?;
        let last = queued.keys().next_back().max(owned.last());
        if last.is_some_and(|last| stored.next_number <= *last) {
            return Err(format!("next number {} is not above {last:?}", stored.next_number));
        }
        let mut session = self.clone();
        (session.queued, session.owned) = (queued, owned);
        session.settled.clear();
        session.completed.clear();
        session.reserved.clear();
        session.next = stored.next_number;
        Ok(session)
    }

    fn check_queue(
        &self,
        stored: &StoredSession,
        committer: &Committer,
    ) -> Result<BTreeMap<u64, Queued>, String> {
        let messages = all_messages(stored, committer)?;
        let wanted: Vec<(u64, RecordId)> =
            messages.iter().map(|message| (message.number, message.record)).collect();
        if !wanted.is_sorted() {
            return Err(format!("messages out of order: {wanted:?}"));
        }
        let fetch = Fetch { slot: 7, session: stored.id, ticket: 9, wanted: Wanted::Messages(wanted) };
        let fetched = committer.fetch(&fetch).map_err(|error| error.to_string())?;
        let mut found: BTreeMap<u64, Outgoing> = BTreeMap::new();
        for (number, outgoing) in fetched.found.into_messages() {
            let outgoing = outgoing.ok_or(format!("message {number} is not there"))?;
            found.insert(number, outgoing);
        }
        for message in &messages {
            if found[&message.number].message.size_bytes() != message.size_bytes as usize {
                return Err(format!("message {} has another size", message.number));
            }
        }
        if messages.iter().map(|message| u64::from(message.size_bytes)).sum::<u64>()
            != stored.messages.size_bytes()
        {
            return Err("a run has another size".to_owned());
        }
        found.extend(stored.shared.iter().cloned());
        if found.len() != stored.messages.len() + stored.shared.len() {
            return Err("a number is there twice".to_owned());
        }
        let lost: Vec<_> = self.queued.keys().filter(|number| !found.contains_key(number)).collect();
        if !lost.is_empty() {
            return Err(format!("messages {lost:?} are lost"));
        }
        let mut queued = BTreeMap::new();
        for (number, outgoing) in found {
            let Some(expected) = self.queued.get(&number).or(self.settled.get(&number)) else {
                return Err(format!("message {number} is foreign, or was the client's already"));
            };
            expected.check(&outgoing).map_err(|what| format!("message {number}: {what}"))?;
            queued.insert(number, expected.clone());
        }
        Ok(queued)
    }
}

/// All that a session has parked, with what is spilled; nothing of that may have been sent.
pub(crate) fn all_messages(
    stored: &StoredSession,
    committer: &Committer,
) -> Result<Vec<StoredMessage>, String> {
    let mut messages: Vec<StoredMessage> = stored.messages.iter().collect();
    for run in stored.messages.spilled() {
        let before = stored.messages.ranges().filter(|(first, _)| *first < run.first);
        let before: u64 = before.map(|(first, end)| end - first).sum();
        let may_be_sent = match stored.presence {
            StoredPresence::Connected { receive_maximum } => before < u64::from(receive_maximum),
            StoredPresence::Detached { sent_below, .. } => run.first < sent_below,
        };
        if may_be_sent {
            return Err(format!("{run:?} is spilled, and may have been sent: {:?}", stored.presence));
        }
        let fetch = Fetch { slot: 7, session: stored.id, ticket: 8, wanted: Wanted::Run(run.first) };
        let fetched = committer.fetch(&fetch).map_err(|error| error.to_string())?;
        let Found::Run(_, found) = fetched.found else { return Err(format!("no run: {fetched:?}")) };
        if found.len() != run.count as usize {
            return Err(format!("{run:?} is {found:?}"));
        }
        messages.extend(found);
    }
    messages.sort_by_key(|message| message.number);
    Ok(messages)
}

impl Queued {
    fn check(&self, outgoing: &Outgoing) -> Result<(), String> {
        let ids: Vec<u32> =
            outgoing.subscription_ids.iter().flat_map(|ids| ids.iter().map(|id| id.get())).collect();
        let share = outgoing.share.as_deref().map(str::to_owned);
        let is_same = outgoing.message == self.message
            && (outgoing.qos, outgoing.retain) == (self.qos, self.retain)
            && (&ids, &share) == (&self.ids, &self.share)
            && outgoing.record == Some(RecordId::new(self.record));
        if is_same { Ok(()) } else { Err(format!("{outgoing:?} instead of {self:?}")) }
    }
}
