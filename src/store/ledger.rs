//! What the store knows of its log without reading it: who still needs which record, and what has changed
//! since the log was last folded into tables.
//!
//! Two things enter changes here: the committer, before it writes them, and recovery, as it reads them. So
//! what a restart makes of the log is what the running broker makes of it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use foldhash::fast::FixedState;
use hashbrown::{HashMap, hash_map};

use crate::{
    broker::{Entry, Op},
    codec::PacketId,
    message::Message,
    mutation::{self, Mutation},
    session::StoredSubscription,
    topic::TopicFilter,
};

use super::{
    counts::{Counts, Left},
    image::{self, Cursor},
    plan::{Fold, Plan, Puts},
    record,
    tables::META_FLOOR,
};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) counts: Counts,
    /// Records of the log that nobody needs.
    pub(super) dead: Vec<u64>,
    /// Above all records and sessions that were seen.
    pub(super) next: u64,
    /// Sessions that have changed, or have something that must be known to go on.
    accounts: HashMap<u64, Account, FixedState>,
    /// Those that have changed, in the order in which they did.
    changed: VecDeque<u64>,
    /// Retained messages of the log.
    retained: HashMap<Arc<str>, Fresh, FixedState>,
    /// Their topics, in the order in which they came.
    topics: VecDeque<Arc<str>>,
    /// Counts cycles that lie [`Aging::Yes`] apart.
    age: u64,
    /// `next` at the beginning of the last of these, the oldest first.
    marks: VecDeque<u64>,
    /// What is left of the current cycle.
    sessions_left: usize,
    topics_left: usize,
    /// Topics of removals that are old enough to be folded.
    removals_left: Vec<Arc<str>>,
    /// The log retains nothing below this record.
    floor: u64,
    /// Records of sessions in the log, which folding deletes.
    session_records: usize,
}

/// A session that has changed, or whose cursor is more than a base.
#[derive(Debug, Default)]
struct Account {
    base: u64,
    upto: u64,
    owned: BTreeSet<u64>,
    done: BTreeSet<u64>,
    /// Packet identifiers from the client, and the record that says so if it does not say so in vain.
    unreleased: BTreeMap<PacketId, Option<u64>>,
    fields: Option<Vec<u8>>,
    subscriptions: BTreeMap<TopicFilter, Option<StoredSubscription>>,
    /// The session's own records in the log, but for those of messages.
    records: Vec<u64>,
    has_ended: bool,
    is_moved: bool,
    is_queued: bool,
}

/// A retained message that is in the log and not in its table.
#[derive(Debug)]
struct Fresh {
    record: u64,
    message: Arc<Message>,
    age: u64,
}

/// Whether so much time has passed since the last cycle that no message is under way since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aging {
    /// It has.
    Yes,
    /// It has not.
    No,
    /// Nobody is left who could bring a message.
    Last,
}

/// A removal of a retained message leaves no row that would tell an older message from a newer one. So it stays
/// in the log until nobody brings an older one any more, and until the log has none that it would retain: so
/// many cycles.
const REMOVAL_AGE: u64 = 4;

impl Account {
    /// All numbers below are settled. Returns whether that makes what was known of some superfluous.
    fn raise(&mut self, base: u64) -> bool {
        if base <= self.base {
            return false;
        }
        self.base = base;
        let before = self.owned.len() + self.done.len();
        if before > 0 {
            self.owned = self.owned.split_off(&base);
            self.done = self.done.split_off(&base);
        }
        before > self.owned.len() + self.done.len()
    }

    fn is_needed(&self) -> bool {
        self.is_queued || !(self.owned.is_empty() && self.done.is_empty() && self.unreleased.is_empty())
    }

    fn cursor(&self) -> Cursor {
        Cursor {
            base: self.base,
            upto: self.upto,
            owned: self.owned.clone(),
            done: self.done.clone(),
            unreleased: self.unreleased.keys().copied().collect(),
        }
    }
}

impl Ledger {
    /// Enters one change, and writes what it puts into the log. Messages wait for [`Ledger::write`]:
    /// until the end of the group nobody knows which of them are still needed.
    pub(super) fn enter(&mut self, entry: &Entry, puts: &mut Puts) {
        let record = entry.record.map_or(0, |record| record.get());
        self.next = self.next.max(record + 1);
        match &entry.op {
            Op::PutSession { session, expiry_secs, will, presence } => {
                let mut fields = Vec::new();
                let will = will.as_deref();
                let owner = session.owner().map(|owner| &**owner);
                image::session_fields(&mut fields, &session.client_id, owner, *expiry_secs, *presence, will);
                puts.put(record, |out| record::put_session(out, session.id, &fields));
                self.put_session(record, session.id, fields);
            }
            Op::EndSession { session, records } => {
                puts.put(record, |out| record::end_session(out, session.id));
                for record in records {
                    self.release(record.get());
                }
                self.end_session(record, session.id);
            }
            Op::PutSubscription { session, filter, subscription } => {
                let text = filter.as_str();
                puts.put(record, |out| record::put_subscription(out, session.id, text, subscription));
                self.put_subscription(record, session.id, filter.clone(), Some(*subscription));
            }
            Op::RemoveSubscription { session, filter } => {
                puts.put(record, |out| record::remove_subscription(out, session.id, filter.as_str()));
                self.put_subscription(record, session.id, filter.clone(), None);
            }
            Op::Append { message, retain, targets, received } => {
                let needs = targets.len() + usize::from(*retain) + usize::from(received.is_some());
                self.counts.add_unwritten(record, needs as u32);
                if *retain {
                    self.retain(record, message.clone());
                }
                if let Some((session, packet_id)) = received {
                    self.arrive(record, session.id, *packet_id);
                }
            }
            Op::Release { session, packet_id } => {
                puts.put(record, |out| record::release(out, session.id, *packet_id));
                self.depart(record, session.id, *packet_id);
            }
            Op::Received { session, number, message } => {
                puts.put(record, |out| record::received(out, session.id, *number));
                self.own(record, session.id, *number);
                self.release(message.get());
            }
            Op::Passed { session, number, message, base } => {
                // If the message's record goes, nothing has to be kept of that.
                if self.release(message.get()) == Left::Needed {
                    puts.put(record, |out| record::passed(out, session.id, *number));
                    self.pass(record, session.id, *number);
                }
                self.raise(session.id, *base);
            }
            Op::Settle { session, number, message, base } => {
                let message = message.map(|message| message.get());
                self.settle(*session, *number, message, *base);
            }
            // They change nothing of what is needed: see `spill`.
            Op::Spill { .. } | Op::Unspill { .. } => {}
        }
    }

    /// Writes the message of a change if anybody needs it at the end of its group.
    pub(super) fn write(&mut self, entry: &Entry, puts: &mut Puts) {
        let (Some(record), Op::Append { message, retain, targets, received }) = (entry.record, &entry.op)
        else {
            return;
        };
        if self.counts.write(record.get()) {
            let received = received.as_ref().map(|(session, packet_id)| (session.id, *packet_id));
            puts.put(record.get(), |out| record::append(out, message, *retain, targets, received));
        }
    }

    /// One needs a record less.
    pub(super) fn release(&mut self, record: u64) -> Left {
        let left = self.counts.release(record);
        if left == Left::Dead && !mutation::is_on(Mutation::RecordLeft) {
            self.dead.push(record);
        }
        left
    }

    /// The session, which has changed.
    fn change(&mut self, session: u64) -> &mut Account {
        self.next = self.next.max(session + 1);
        let account = self.accounts.entry(session).or_default();
        if !account.is_queued {
            account.is_queued = true;
            self.changed.push_back(session);
        }
        account
    }

    /// The session, which has a record of its own in the log.
    fn change_by(&mut self, record: u64, session: u64) -> &mut Account {
        self.session_records += 1;
        let account = self.change(session);
        account.records.push(record);
        account
    }

    pub(super) fn put_session(&mut self, record: u64, session: u64, fields: Vec<u8>) {
        self.change_by(record, session).fields = Some(fields);
    }

    pub(super) fn end_session(&mut self, record: u64, session: u64) {
        self.change_by(record, session);
        self.end(session);
    }

    /// Ends a session without a record that says so.
    pub(super) fn end(&mut self, session: u64) {
        let account = self.change(session);
        account.has_ended = true;
        account.fields = None;
        account.subscriptions.clear();
        account.owned.clear();
        account.done.clear();
        for record in std::mem::take(&mut account.unreleased).into_values().flatten() {
            self.release(record);
        }
    }

    pub(super) fn put_subscription(
        &mut self,
        record: u64,
        session: u64,
        filter: TopicFilter,
        subscription: Option<StoredSubscription>,
    ) {
        self.change_by(record, session).subscriptions.insert(filter, subscription);
    }

    /// A QoS 2 message of a client is here.
    pub(super) fn arrive(&mut self, record: u64, session: u64, packet_id: PacketId) {
        let account = self.change(session);
        account.upto = account.upto.max(record);
        account.is_moved = true;
        if let Some(Some(older)) = account.unreleased.insert(packet_id, Some(record)) {
            self.release(older);
        }
    }

    /// A client has released a packet identifier.
    pub(super) fn depart(&mut self, record: u64, session: u64, packet_id: PacketId) {
        let account = self.change_by(record, session);
        account.upto = account.upto.max(record);
        account.is_moved = true;
        if let Some(Some(arrived)) = account.unreleased.remove(&packet_id) {
            self.release(arrived);
        }
    }

    /// A client owns a message.
    pub(super) fn own(&mut self, record: u64, session: u64, number: u64) {
        let account = self.change_by(record, session);
        account.upto = account.upto.max(record);
        account.is_moved = true;
        if number >= account.base {
            account.owned.insert(number);
        }
    }

    /// A number is settled, which a record says.
    pub(super) fn pass(&mut self, record: u64, session: u64, number: u64) {
        let account = self.change_by(record, session);
        account.upto = account.upto.max(record);
        account.is_moved = true;
        if number >= account.base {
            account.done.insert(number);
        }
    }

    fn raise(&mut self, session: u64, base: u64) {
        if let Some(account) = self.accounts.get_mut(&session)
            && account.raise(base)
        {
            self.change(session).is_moved = true;
        }
    }

    /// A number is settled. If its record goes, nothing has to be kept of that; otherwise a restart would
    /// find the target in the record, and must know that it is settled.
    fn settle(&mut self, session: u64, number: u64, message: Option<u64>, base: u64) {
        let is_remembered = message.is_none_or(|record| self.release(record) == Left::Needed);
        if is_remembered {
            let account = self.change(session);
            account.is_moved = true;
            account.raise(base);
            account.owned.remove(&number);
            if number >= account.base {
                account.done.insert(number);
            }
        } else {
            self.raise(session, base);
        }
    }

    /// A message is retained, or removes the one that is.
    pub(super) fn retain(&mut self, record: u64, message: Arc<Message>) {
        let age = self.age;
        let superseded = match self.retained.entry(message.topic().clone()) {
            hash_map::Entry::Vacant(vacant) => {
                self.topics.push_back(message.topic().clone());
                vacant.insert(Fresh { record, message, age });
                return;
            }
            hash_map::Entry::Occupied(fresh) if fresh.get().record > record => record,
            hash_map::Entry::Occupied(mut fresh) => {
                std::mem::replace(fresh.get_mut(), Fresh { record, message, age }).record
            }
        };
        self.release(superseded);
    }

    /// Whether a record of the log may retain its message, for recovery.
    pub(super) fn may_retain(&self, record: u64) -> bool {
        record >= self.floor
    }

    /// Nothing below this record is retained, for recovery.
    pub(super) fn set_floor(&mut self, floor: u64) {
        self.floor = floor;
        self.next = self.next.max(floor);
    }

    /// The record of the log that has the retained message of a topic, if the log has it.
    pub(super) fn retained_record(&self, topic: &str) -> Option<u64> {
        self.retained.get(topic).map(|fresh| fresh.record)
    }

    /// Forgets what the log has retained for a topic: the table has something newer. For recovery.
    pub(super) fn forget_retained(&mut self, topic: &str) {
        if let Some(fresh) = self.retained.remove(topic) {
            self.release(fresh.record);
        }
    }

    /// The retained messages of the log, for recovery: in no order.
    pub(super) fn retained(&self) -> impl Iterator<Item = &Arc<Message>> {
        self.retained.values().map(|fresh| &fresh.message)
    }

    /// Takes over a row of a cursor, for recovery.
    pub(super) fn open_account(&mut self, session: u64, cursor: &Cursor) {
        let account = self.accounts.entry(session).or_default();
        account.base = cursor.base;
        account.upto = cursor.upto;
        account.owned.clone_from(&cursor.owned);
        account.done.clone_from(&cursor.done);
        account.unreleased = cursor.unreleased.iter().map(|packet_id| (*packet_id, None)).collect();
    }

    /// Ends the sessions of all accounts that nobody has, for recovery.
    pub(super) fn end_strangers(&mut self, known: &HashMap<u64, usize, FixedState>) {
        let mut strangers: Vec<u64> =
            self.accounts.keys().filter(|session| !known.contains_key(*session)).copied().collect();
        strangers.sort_unstable();
        for session in strangers {
            self.end(session);
        }
    }

    /// How far a session has come, for recovery; `None` if it has no more than its row.
    pub(super) fn cursor(&self, session: u64) -> Option<Cursor> {
        self.accounts.get(&session).map(Account::cursor)
    }

    /// How much waits to be folded.
    pub(super) fn weight(&self) -> usize {
        self.changed.len() + self.topics.len() + self.session_records
    }

    /// Begins to fold all that waits for it now.
    pub(super) fn begin_fold(&mut self, aging: Aging) {
        match aging {
            Aging::No => {}
            Aging::Yes => {
                self.age += 1;
                self.marks.push_back(self.next);
                if self.marks.len() as u64 > REMOVAL_AGE {
                    self.marks.pop_front();
                }
            }
            Aging::Last => {
                self.age += REMOVAL_AGE;
                self.marks = (0..REMOVAL_AGE).map(|_| self.next).collect();
            }
        }
        self.sessions_left = self.changed.len();
        self.topics_left = self.topics.len();
    }

    /// Whether something of the current cycle is left.
    pub(super) fn is_folding(&self) -> bool {
        self.sessions_left > 0 || self.topics_left > 0 || !self.removals_left.is_empty()
    }

    /// Folds some of what is left of the current cycle.
    pub(super) fn fold(&mut self, plan: &mut Plan, items_max: usize) {
        let mut items = 0;
        while items < items_max && self.sessions_left > 0 {
            self.sessions_left -= 1;
            items += self.fold_session(plan);
        }
        while items < items_max && self.topics_left > 0 {
            self.topics_left -= 1;
            items += 1;
            self.fold_topic(plan);
        }
        if items < items_max && !self.removals_left.is_empty() {
            self.fold_removals(plan, items_max - items);
        }
    }

    fn fold_session(&mut self, plan: &mut Plan) -> usize {
        let Some(session) = self.changed.pop_front() else { return 0 };
        let Some(account) = self.accounts.get_mut(&session) else { return 0 };
        account.is_queued = false;
        let records = std::mem::take(&mut account.records);
        let subscriptions = std::mem::take(&mut account.subscriptions);
        let items = 1 + records.len() + subscriptions.len();
        self.session_records -= records.len();
        plan.dead.extend_from_slice(&records);
        if account.has_ended {
            self.accounts.remove(&session);
            plan.folds.push(Fold::Ended { session });
            return items;
        }
        let cursor = std::mem::take(&mut account.is_moved).then(|| account.cursor());
        let fields = account.fields.take();
        // From here on the cursor says what these records said.
        let arrived: Vec<u64> = account.unreleased.values_mut().filter_map(Option::take).collect();
        if !account.is_needed() {
            self.accounts.remove(&session);
        }
        for record in arrived {
            self.release(record);
        }
        plan.folds.push(Fold::Session { session, fields, subscriptions, cursor });
        items
    }

    fn fold_topic(&mut self, plan: &mut Plan) {
        let Some(topic) = self.topics.pop_front() else { return };
        let Some(fresh) = self.retained.get(&topic) else { return };
        if fresh.is_old_removal(self.age) {
            self.removals_left.push(topic);
        } else if fresh.is_removal() {
            self.topics.push_back(topic);
        } else {
            let (record, message) = (fresh.record, fresh.message.clone());
            self.retained.remove(&topic);
            self.release(record);
            plan.folds.push(Fold::Retained { topic, record, message: Some(message) });
        }
    }

    /// Folds removals that are old enough. A message that was retained earlier may still be in the log, for
    /// those who have it queued: with the removal gone, nothing but the floor says that it is not retained.
    fn fold_removals(&mut self, plan: &mut Plan, items_max: usize) {
        let left = self.removals_left.len();
        let removals = self.removals_left.split_off(left - items_max.min(left));
        let floor = if self.marks.len() as u64 == REMOVAL_AGE { self.marks[0] } else { 0 };
        let is_in_use =
            self.retained.values().any(|fresh| fresh.record < floor && !(fresh.is_old_removal(self.age)));
        for topic in removals {
            let Some(fresh) = self.retained.get(&topic) else { continue };
            if is_in_use || fresh.record >= floor || !fresh.is_old_removal(self.age) {
                self.topics.push_back(topic);
                continue;
            }
            let record = fresh.record;
            self.retained.remove(&topic);
            self.release(record);
            plan.folds.push(Fold::Retained { topic, record, message: None });
            if self.floor < floor {
                self.floor = floor;
                plan.marks.push((META_FLOOR, floor));
            }
        }
    }
}

impl Fresh {
    fn is_removal(&self) -> bool {
        self.message.payload().is_empty()
    }

    fn is_old_removal(&self, age: u64) -> bool {
        self.is_removal() && age >= self.age + REMOVAL_AGE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        codec::QoS,
        session::{RecordId, SessionHandle},
    };

    fn entry(record: Option<u64>, op: Op) -> Entry {
        Entry { record: record.map(RecordId::new), op }
    }

    fn target(session: &SessionHandle) -> crate::broker::JournalTarget {
        let qos = QoS::AtLeastOnce;
        crate::broker::JournalTarget {
            session: session.id,
            number: 7,
            qos,
            retain: false,
            subscription_ids: None,
            share: None,
        }
    }

    #[test]
    fn a_message_that_comes_too_late_for_a_session_leaves_nothing_of_it() {
        let [gone, here] = [1, 2].map(|id| Arc::new(SessionHandle::new(0, 0, id, "c".into())));
        let header = crate::message::Header {
            qos: QoS::AtLeastOnce,
            retain: false,
            expires_at: None,
            publisher: None,
        };
        let message = Arc::new(Message::new("t".into(), b"x", header));
        let targets = [target(&gone), target(&here)].into_iter().collect();
        let entries = [
            entry(Some(3), Op::EndSession { session: gone.clone(), records: Vec::new() }),
            entry(Some(4), Op::Append { message, retain: false, targets, received: None }),
        ];
        let mut ledger = Ledger::default();
        let mut plan = Plan::default();
        for entry in &entries {
            ledger.enter(entry, &mut plan.puts);
            ledger.write(entry, &mut plan.puts);
        }
        let mut fold = |ledger: &mut Ledger| {
            ledger.begin_fold(Aging::Yes);
            ledger.fold(&mut plan, 100);
        };
        fold(&mut ledger);
        let message = Some(RecordId::new(4));
        let op = Op::Settle { session: gone.id, number: 7, message, base: u64::MAX };
        ledger.enter(&entry(None, op), &mut Puts::default());
        fold(&mut ledger);
        assert!(ledger.accounts.is_empty(), "nobody would ever take it out: {:?}", ledger.accounts);
        assert_eq!(ledger.counts.needs(4), 1);
    }
}
