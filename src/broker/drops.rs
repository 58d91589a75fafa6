//! Who lost what, and why: every delivery that is given up, by client, topic filter and reason.
//!
//! It is told once a second at most on [`EVENT_TOPIC`], and only while there is something to tell.

use std::{collections::BTreeMap, hash::BuildHasher, sync::Arc, time::Duration};

use foldhash::fast::FixedState;
use hashbrown::{HashMap, HashTable};
use serde::Serialize;

use crate::{
    codec::QoS,
    message::{Header, Message},
    mutation::{self, Mutation},
    session::{Body, Notice, Outgoing, SessionHandle, SpilledRun, Subscription},
    time::Timestamp,
    topic::TopicFilter,
};

use super::{DropReason, Event, Outputs, Shard, StepKind, Timer};

/// Where drops are told as they happen.
pub const EVENT_TOPIC: &str = "$SYS/broker/events/dropped";

/// What is dropped below this is counted and not told: to tell it would be dropped for the same reason, for ever.
const EVENTS: &str = "$SYS/broker/events/";

/// Combinations of client, filter and reason that one shard tells apart at a time. The rest is [`OTHERS`].
const DROP_KEYS_MAX: usize = 4096;

/// Entries that are looked at for one that may make room for another.
const EVICTION_TRIES: usize = 16;

/// The client and filter of what is not told apart any more.
const OTHERS: &str = "others";

/// Combinations of session and reason whose last drop is remembered, so that the next one costs little.
const RECENT_MAX: usize = 4096;

/// Longest text in bytes that is kept: a longer client identifier or filter is one of [`OTHERS`], and a longer
/// topic is not told.
const TEXT_BYTES_MAX: usize = 1024;

/// Subscriptions of a session among which that of a drop is looked for.
const FILTERS_TRIED_MAX: usize = 256;

/// Time from a drop to the event that tells of it, and so between two events of one kind.
const EVENT_INTERVAL: Duration = Duration::from_secs(1);

/// What one client did not get through one filter for one reason.
#[derive(Clone, Debug)]
pub struct Dropped {
    /// The client identifier; empty if there was no session, and `others` past the limit of the table.
    pub client_id: Arc<str>,
    /// The first of the session's filters that matches; empty if there is none.
    pub filter: Arc<str>,
    /// Why.
    pub reason: DropReason,
    /// The topic of the last one.
    pub topic: Arc<str>,
    /// How many since the start, or since it was last added to `others` for want of room.
    pub total: u64,
    /// When the last of them was told of, if any was: that is within a second.
    pub told_at: Option<Timestamp>,
    /// How many that no event has told of.
    untold: u64,
    /// Counts what was here before.
    generation: u32,
}

/// The account of one shard. It tells 4,096 combinations apart at a time.
#[derive(Debug)]
pub struct Drops {
    entries: Vec<Dropped>,
    /// Entries by client, filter and reason.
    index: HashTable<usize>,
    /// The last drop of a session for a reason: the next one is most often of the same topic.
    recent: HashMap<(u64, DropReason), Recent, FixedState>,
    /// The entry that was last looked at for room.
    hand: usize,
    /// Entries that an event is due for.
    untold: Vec<usize>,
    /// See [`DROP_KEYS_MAX`].
    keys_max: usize,
    /// Whether the timer for them runs.
    is_timed: bool,
    hasher: FixedState,
}

/// Where the last drop of its kind was counted.
#[derive(Debug)]
struct Recent {
    topic: Arc<str>,
    entry: usize,
    /// Of the entry: what is there now may be another.
    generation: u32,
}

/// An event, as it is written.
#[derive(Serialize)]
struct Told<'a> {
    client: &'a str,
    filter: &'a str,
    topic: &'a str,
    reason: &'a str,
    count: u64,
    total: u64,
}

impl Dropped {
    fn new(client_id: Arc<str>, filter: Arc<str>, reason: DropReason) -> Dropped {
        Dropped {
            client_id,
            filter,
            reason,
            topic: Arc::default(),
            total: 0,
            told_at: None,
            untold: 0,
            generation: 0,
        }
    }
}

impl Drops {
    pub(crate) fn new(seed: u64) -> Drops {
        Drops::with_room(DROP_KEYS_MAX, seed)
    }

    fn with_room(keys_max: usize, seed: u64) -> Drops {
        let hasher = FixedState::with_seed(seed);
        Drops {
            entries: Vec::new(),
            index: HashTable::new(),
            recent: HashMap::with_hasher(hasher.clone()),
            hand: 0,
            untold: Vec::new(),
            keys_max,
            is_timed: false,
            hasher,
        }
    }

    /// All that was dropped.
    pub fn iter(&self) -> impl Iterator<Item = &Dropped> {
        self.entries.iter()
    }

    /// Whether a timer runs to tell of drops.
    pub fn is_timed(&self) -> bool {
        self.is_timed
    }

    /// Counts a drop of a session that is not, or not only, that of a shared subscription.
    fn count(
        &mut self,
        session: &SessionHandle,
        subscriptions: &BTreeMap<TopicFilter, Subscription>,
        topic: &Arc<str>,
        reason: DropReason,
    ) {
        let key = (session.id, reason);
        if let Some(Recent { topic: known, entry, generation }) = self.recent.get(&key)
            && (Arc::ptr_eq(known, topic) || known == topic)
            && self.entries[*entry].generation == *generation
        {
            let at = *entry;
            return self.add(at, topic, 1);
        }
        let at = self.entry(&session.client_id, filter_of(subscriptions, topic), reason);
        if topic.len() <= TEXT_BYTES_MAX {
            if self.recent.len() >= RECENT_MAX {
                self.recent.clear();
            }
            let generation = self.entries[at].generation;
            self.recent.insert(key, Recent { topic: topic.clone(), entry: at, generation });
        }
        self.add(at, topic, 1);
    }

    /// Counts a drop under a filter that is known.
    fn count_under(&mut self, client_id: &Arc<str>, filter: &str, topic: &Arc<str>, reason: DropReason) {
        self.count_many(client_id, filter, topic, reason, 1);
    }

    fn count_many(
        &mut self,
        client_id: &Arc<str>,
        filter: &str,
        topic: &Arc<str>,
        reason: DropReason,
        count: u64,
    ) {
        let at = self.entry(client_id, filter, reason);
        self.add(at, topic, count);
    }

    fn add(&mut self, at: usize, topic: &Arc<str>, count: u64) {
        let entry = &mut self.entries[at];
        entry.total += count;
        if !Arc::ptr_eq(&entry.topic, topic) && topic.len() <= TEXT_BYTES_MAX {
            entry.topic = topic.clone();
        }
        if topic.starts_with(EVENTS) {
            return;
        }
        if entry.untold == 0 {
            self.untold.push(at);
        }
        entry.untold += count;
    }

    /// The entry of a combination. If there are as many as there may be, it takes the place of one that is told;
    /// if none is, it is one of the others.
    fn entry(&mut self, client_id: &Arc<str>, filter: &str, reason: DropReason) -> usize {
        if let Some(at) = self.find(client_id, filter, reason) {
            return at;
        }
        let is_short = client_id.len() <= TEXT_BYTES_MAX && filter.len() <= TEXT_BYTES_MAX;
        let entry = |filter: &str| Dropped::new(client_id.clone(), filter.into(), reason);
        if is_short && self.entries.len() < self.keys_max {
            return self.push(entry(filter));
        }
        match if is_short { self.evict() } else { None } {
            Some(at) => {
                let generation = self.entries[at].generation.wrapping_add(1);
                self.entries[at] = Dropped { generation, ..entry(filter) };
                self.enter(at);
                at
            }
            None => self.others(reason),
        }
    }

    /// The entry of what is not told apart, one for each reason.
    fn others(&mut self, reason: DropReason) -> usize {
        match self.find(OTHERS, OTHERS, reason) {
            Some(at) => at,
            None => self.push(Dropped::new(OTHERS.into(), OTHERS.into(), reason)),
        }
    }

    /// Folds an entry into the others, if there is one near that has nothing to tell. Its place is free then.
    fn evict(&mut self) -> Option<usize> {
        for _ in 0..EVICTION_TRIES {
            self.hand = (self.hand + 1) % self.entries.len().max(1);
            let entry = self.entries.get(self.hand)?;
            let is_others = *entry.client_id == *OTHERS && *entry.filter == *OTHERS;
            if entry.untold == 0 && !is_others {
                let (at, reason, total) = (self.hand, entry.reason, entry.total);
                let hash = self.hash(&entry.client_id, &entry.filter, reason);
                if let Ok(found) = self.index.find_entry(hash, |known| *known == at) {
                    found.remove();
                }
                let others = self.others(reason);
                self.entries[others].total += total;
                return Some(at);
            }
        }
        None
    }

    fn find(&self, client_id: &str, filter: &str, reason: DropReason) -> Option<usize> {
        let is_it = |at: &usize| {
            let entry = &self.entries[*at];
            entry.reason == reason && *entry.client_id == *client_id && *entry.filter == *filter
        };
        self.index.find(self.hash(client_id, filter, reason), is_it).copied()
    }

    fn push(&mut self, entry: Dropped) -> usize {
        let at = self.entries.len();
        self.entries.push(entry);
        self.enter(at);
        at
    }

    /// Puts an entry into the index.
    fn enter(&mut self, at: usize) {
        let entry = &self.entries[at];
        let hash = self.hash(&entry.client_id, &entry.filter, entry.reason);
        let Drops { entries, index, hasher, .. } = self;
        let rehash = |at: &usize| {
            let entry = &entries[*at];
            hasher.hash_one((&*entry.client_id, &*entry.filter, entry.reason))
        };
        index.insert_unique(hash, at, rehash);
    }

    fn hash(&self, client_id: &str, filter: &str, reason: DropReason) -> u64 {
        self.hasher.hash_one((client_id, filter, reason))
    }

    /// Whether a timer is to be set, which is then taken to run.
    fn wants_timer(&mut self) -> bool {
        let wants = !self.is_timed && !self.untold.is_empty();
        self.is_timed |= wants;
        wants
    }

    /// The payloads of the events that are due.
    fn take_events(&mut self, now: Timestamp) -> Vec<Vec<u8>> {
        self.is_timed = false;
        let untold = std::mem::take(&mut self.untold);
        let tell = |at: usize| {
            let entry = &mut self.entries[at];
            entry.told_at = Some(now);
            let told = Told {
                client: &entry.client_id,
                filter: &entry.filter,
                topic: &entry.topic,
                reason: entry.reason.name(),
                count: std::mem::take(&mut entry.untold),
                total: entry.total,
            };
            serde_json::to_vec(&told).unwrap_or_default()
        };
        untold.into_iter().map(tell).collect()
    }
}

/// The first of a session's filters that matches a topic. Those of shared subscriptions are left out: what
/// comes through them says so.
fn filter_of<'a>(subscriptions: &'a BTreeMap<TopicFilter, Subscription>, topic: &str) -> &'a str {
    let mut filters = subscriptions.keys().take(FILTERS_TRIED_MAX);
    match filters.find(|filter| filter.share_name().is_none() && filter.matches(topic)) {
        Some(filter) => filter.as_str(),
        None if subscriptions.len() > FILTERS_TRIED_MAX => OTHERS,
        None => "",
    }
}

impl Shard {
    /// What was dropped here since the start: the deliveries to sessions of this shard, and what its
    /// clients published for nobody.
    pub fn drops(&self) -> &Drops {
        &self.drops
    }

    /// Counts a delivery that is given up, and tells of the first of its kind on a connection.
    pub(super) fn report_drop(
        &mut self,
        slot: u32,
        outgoing: &Outgoing,
        reason: DropReason,
        out: &mut Outputs,
    ) {
        let topic = outgoing.message.topic();
        self.count_drop(slot, topic, outgoing.share.as_deref(), reason);
        self.log_drop(slot, topic, reason, out);
        self.trace(slot, outgoing, StepKind::Dropped, reason.name(), out);
    }

    /// As [`Shard::report_drop`]. Of a message that is in the store alone neither topic nor filter is known.
    pub(super) fn report_body(&mut self, slot: u32, body: &Body, reason: DropReason, out: &mut Outputs) {
        match body {
            Body::Here(outgoing) => self.report_drop(slot, outgoing, reason, out),
            Body::Stored(_) => {
                let client_id = self.sessions[slot as usize].client_id().clone();
                self.count_drop_of(&client_id, "", &Arc::from(""), reason);
                self.trace_body(slot, body, StepKind::Dropped, reason.name(), out);
            }
        }
    }

    /// Tells the log of the first drop of its kind on a connection.
    pub(super) fn log_drop(&self, slot: u32, topic: &Arc<str>, reason: DropReason, out: &mut Outputs) {
        let session = &self.sessions[slot as usize];
        if session.is_news(Notice::Drop(reason as usize)) {
            let (client_id, topic) = (session.client_id().clone(), topic.clone());
            out.events.push(Event::Dropped { client_id, topic, reason });
        }
    }

    /// Counts a delivery to a session that is given up.
    pub(super) fn count_drop(
        &mut self,
        slot: u32,
        topic: &Arc<str>,
        share: Option<&str>,
        reason: DropReason,
    ) {
        if mutation::is_on(Mutation::DropUncounted) {
            return;
        }
        self.counters().drop(reason, 1);
        let session = &self.sessions[slot as usize];
        match share {
            Some(share) => self.drops.count_under(&session.handle.client_id, share, topic, reason),
            None => self.drops.count(&session.handle, &session.subscriptions, topic, reason),
        }
    }

    /// Counts what is left of a session that has ended.
    pub(super) fn count_left(
        &mut self,
        session: &SessionHandle,
        subscriptions: &BTreeMap<TopicFilter, Subscription>,
        left: &Body,
    ) {
        let reason = DropReason::SessionEnded;
        self.counters().drop(reason, 1);
        let Body::Here(left) = left else {
            return self.drops.count_under(&session.client_id, "", &Arc::from(""), reason);
        };
        let topic = left.message.topic();
        match &left.share {
            Some(share) => self.drops.count_under(&session.client_id, share, topic, reason),
            None => self.drops.count(session, subscriptions, topic, reason),
        }
    }

    /// Counts what is left in the store of a session that has ended, and settles it.
    pub(super) fn count_left_spilled(&mut self, session: &SessionHandle, run: &SpilledRun) {
        let (reason, count) = (DropReason::SessionEnded, u64::from(run.count));
        session.settle_all(run.count as usize, run.size_bytes as usize);
        self.counters().queued_bytes.sub(run.size_bytes);
        self.counters().queued_messages.sub(count);
        self.counters().drop(reason, count);
        self.drops.count_many(&session.client_id, "", &Arc::from(""), reason, count);
    }

    /// Counts a drop that concerns no session here. `client_id` and `filter` are empty where there is none.
    pub(super) fn count_drop_of(
        &mut self,
        client_id: &Arc<str>,
        filter: &str,
        topic: &Arc<str>,
        reason: DropReason,
    ) {
        self.counters().drop(reason, 1);
        self.drops.count_under(client_id, filter, topic, reason);
    }

    /// Sets the timer that tells of drops, if there are any to tell of.
    pub(super) fn time_drops(&mut self, now: Timestamp) {
        if self.drops.wants_timer() {
            self.timers.set(now.plus(EVENT_INTERVAL), Timer::Drops);
        }
    }

    /// Tells of the drops since the last time.
    pub(super) fn tell_drops(&mut self, now: Timestamp, out: &mut Outputs) {
        let limits = self.limits.topics();
        let route = self.routes.route(&self.shared.router, EVENT_TOPIC, &limits);
        let has_audience = route.is_ok_and(|(_, route)| !route.shards.is_empty() || !route.groups.is_empty());
        let events = self.drops.take_events(now);
        for payload in events.into_iter().filter(|_| has_audience) {
            let header = Header { qos: QoS::AtMostOnce, retain: false, expires_at: None, publisher: None };
            self.publish_own(now, Message::new(EVENT_TOPIC.into(), &payload, header), out);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{codec::SubscriptionOptions, topic::TopicLimits};

    #[derive(Clone, Debug)]
    enum Step {
        Drop { client: usize, topic: usize, reason: DropReason },
        Tell,
    }

    fn step() -> impl Strategy<Value = Step> {
        let reason = prop_oneof![Just(DropReason::Offline), Just(DropReason::QueueFull)];
        prop_oneof![
            4 => (0..5_usize, 0..3_usize, reason)
                .prop_map(|(client, topic, reason)| Step::Drop { client, topic, reason }),
            1 => Just(Step::Tell),
        ]
    }

    proptest! {
        // However little room there is, no drop is lost, none is put down to another, and each is told once.
        #[test]
        fn every_drop_is_counted_where_it_belongs_or_among_the_others(
            keys_max in 1..12_usize,
            steps in prop::collection::vec(step(), 1..200),
        ) {
            let topics: [Arc<str>; 3] = ["a/x".into(), "b".into(), "a/y".into()];
            let filters = ["a/#", "b", "a/#"];
            let parse = |text| TopicFilter::parse(text, &TopicLimits::default()).unwrap();
            let subscription = Subscription { options: SubscriptionOptions::default(), id: None };
            let subscriptions = ["a/#", "b"].map(|text| (parse(text), subscription)).into();
            let session = |client: usize| SessionHandle::new(0, 0, client as u64, format!("c{client}").into());
            let sessions: Vec<SessionHandle> = (0..5).map(session).collect();
            let mut drops = Drops::with_room(keys_max, 7);
            let mut expected: BTreeMap<(String, &str, &str), u64> = BTreeMap::new();
            let mut told = 0;
            for step in steps {
                match step {
                    Step::Drop { client, topic, reason } => {
                        drops.count(&sessions[client], &subscriptions, &topics[topic], reason);
                        let key = (format!("c{client}"), filters[topic], reason.name());
                        *expected.entry(key).or_default() += 1;
                    }
                    Step::Tell => told += told_by(&mut drops),
                }
                prop_assert!(drops.entries.len() <= keys_max + DropReason::ALL.len());
            }
            told += told_by(&mut drops);
            let all = expected.values().sum::<u64>();
            prop_assert_eq!(told, all);
            prop_assert_eq!(drops.iter().map(|entry| entry.total).sum::<u64>(), all);
            for entry in drops.iter().filter(|entry| *entry.client_id != *OTHERS) {
                let key = (entry.client_id.to_string(), &*entry.filter, entry.reason.name());
                let limit = expected.remove(&key);
                prop_assert!(limit.is_some_and(|limit| entry.total <= limit), "{:?} of {:?}", entry, limit);
            }
        }
    }

    fn told_by(drops: &mut Drops) -> u64 {
        let counts = drops.take_events(Timestamp::default()).into_iter().map(|event| {
            let event: serde_json::Value = serde_json::from_slice(&event).unwrap();
            event["count"].as_u64().unwrap()
        });
        counts.sum()
    }
}
