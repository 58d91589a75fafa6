//! What goes into the log and what leaves it, step by step and with the threads.

use std::{
    num::NonZeroU32,
    sync::{Arc, Condvar, Mutex},
    time::{Duration, Instant},
};

use dunlin::{
    broker::{Batch, Entry, JournalTarget, Op, Targets, Urgency},
    codec::{PacketId, QoS},
    message::Message,
    session::{
        Fetch, Fetched, Found, Outgoing, RecordId, SessionHandle, StoredMessage, StoredPresence,
        Subscription, Wanted,
    },
    store::{
        Committed, Committer, Condition, Disk as Store, DiskOptions, Medium, OpenError, Recovered, SCHEMA,
        Store as _, Submitted,
    },
    time::Timestamp,
};
use redb::{ReadableDatabase, ReadableTableMetadata, TableDefinition};

use crate::{
    driver::{filter, message},
    medium::Disk,
    model::Told,
    power::start,
};

const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const CACHE_BYTES: usize = 1 << 20;
const OPTIONS: DiskOptions =
    DiskOptions { cache_bytes: CACHE_BYTES, index_bytes_max: 1 << 20, run_messages_max: 1024 };

/// A committer that is stepped, with a clock of its own.
pub(crate) struct Bench {
    pub(crate) disk: Disk,
    pub(crate) committer: Committer,
    pub(crate) shards: Arc<Told>,
    pub(crate) now: Instant,
    record: u64,
    commit: u64,
}

pub(crate) fn open(disk: &Disk, now: u64) -> (Committer, Recovered) {
    let medium: Arc<dyn Medium> = Arc::new(disk.clone());
    Committer::open(medium, OPTIONS, Timestamp::from_millis(now)).unwrap()
}

impl Bench {
    pub(crate) fn new() -> Bench {
        let disk = Disk::default();
        let (committer, recovered) = open(&disk, 0);
        Bench::on(disk, committer, recovered.next)
    }

    fn on(disk: Disk, committer: Committer, next: RecordId) -> Bench {
        let shards = Arc::new(Told::default());
        let attached: Arc<dyn Committed> = shards.clone();
        committer.attach(&attached);
        Bench { disk, committer, shards, now: start(), record: next.get(), commit: 0 }
    }

    /// Stops without closing, and starts again.
    pub(crate) fn restart(self) -> (Bench, Recovered) {
        self.restart_at(0)
    }

    fn restart_at(self, now: u64) -> (Bench, Recovered) {
        let Bench { disk, committer, .. } = self;
        drop(committer);
        let (committer, recovered) = open(&disk, now);
        let next = recovered.next;
        (Bench::on(disk, committer, next), recovered)
    }

    pub(crate) fn record(&mut self) -> RecordId {
        self.record += 1;
        RecordId::new(self.record - 1)
    }

    /// The record that the next change gets.
    pub(crate) fn next_record(&self) -> RecordId {
        RecordId::new(self.record)
    }

    /// Stops without closing.
    pub(crate) fn into_disk(self) -> Disk {
        drop(self.committer);
        self.disk
    }

    pub(crate) fn batch(&mut self, ops: Vec<Op>) -> Batch {
        let mut entries = Vec::new();
        for op in ops {
            let makes_none = matches!(op, Op::Settle { .. } | Op::Spill { .. } | Op::Unspill { .. });
            let record = if makes_none { None } else { Some(self.record()) };
            entries.push(Entry { record, op });
        }
        self.commit += 1;
        Batch { commit: self.commit, entries, urgency: Urgency::Now }
    }

    pub(crate) fn commit(&mut self, ops: Vec<Op>) {
        let batch = self.batch(ops);
        self.committer.stage(vec![(0, batch)]);
        self.committer.commit(self.now).unwrap();
        assert_eq!(self.shards.newest(0), self.commit);
    }

    pub(crate) fn pass(&mut self, secs: u64) {
        for _ in 0..secs * 10 {
            self.now += Duration::from_millis(100);
            self.committer.maintain(self.now).unwrap();
        }
    }

    pub(crate) fn session(&mut self, client_id: &str) -> Arc<SessionHandle> {
        let id = self.record().get();
        let session = Arc::new(SessionHandle::new(0, 3, id, client_id.into()));
        let op = put(&session);
        self.commit(vec![op]);
        session
    }

    /// Rows of the log.
    pub(crate) fn log_rows(self) -> (u64, Bench) {
        let Bench { disk, committer, shards, now, record, commit } = self;
        drop(committer);
        let database = disk.open(CACHE_BYTES).unwrap();
        let rows = database.begin_read().unwrap().open_table(LOG).unwrap().len().unwrap();
        drop(database);
        let (committer, _) = open(&disk, 0);
        let attached: Arc<dyn Committed> = shards.clone();
        committer.attach(&attached);
        (rows, Bench { disk, committer, shards, now, record, commit })
    }
}

pub(crate) fn put(session: &Arc<SessionHandle>) -> Op {
    Op::PutSession {
        session: session.clone(),
        expiry_secs: 60,
        will: None,
        presence: StoredPresence::Connected { receive_maximum: 10 },
    }
}

pub(crate) fn target(session: &Arc<SessionHandle>, number: u64, qos: QoS) -> JournalTarget {
    JournalTarget {
        session: session.id,
        number,
        qos,
        retain: false,
        subscription_ids: Some(Arc::from([NonZeroU32::MIN])),
        share: None,
    }
}

pub(crate) fn append(message: Message, targets: Vec<JournalTarget>) -> Op {
    Op::Append { message: Arc::new(message), retain: false, targets: targets.into(), received: None }
}

fn retain(topic: &str, payload: &[u8], targets: Vec<JournalTarget>) -> Op {
    let message = Arc::new(message(topic, payload, QoS::AtLeastOnce));
    Op::Append { message, retain: true, targets: targets.into(), received: None }
}

pub(crate) fn settle(session: &Arc<SessionHandle>, number: u64, message: u64, base: u64) -> Op {
    Op::Settle { session: session.id, number, message: Some(RecordId::new(message)), base }
}

fn text(length: usize) -> Message {
    message("t", &vec![b'x'; length], QoS::AtLeastOnce)
}

fn retained(recovered: &Recovered) -> Vec<(&str, &[u8])> {
    recovered.retained.iter().map(|message| (&**message.topic(), message.payload())).collect()
}

#[test]
fn what_all_targets_have_before_the_commit_is_not_written() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    let before = bench.committer.transactions();
    let record = bench.record;
    let ops =
        vec![append(text(10), vec![target(&session, 0, QoS::AtLeastOnce)]), settle(&session, 0, record, 1)];
    bench.commit(ops);
    assert_eq!(bench.committer.transactions(), before, "nothing was left to commit");
    bench.commit(vec![append(text(10), vec![target(&session, 1, QoS::AtLeastOnce)])]);
    assert_eq!(bench.committer.transactions(), before + 1);
}

#[test]
fn nothing_is_left_in_the_log_when_all_is_settled_and_folded() {
    let mut bench = Bench::new();
    let sessions = [bench.session("a"), bench.session("b")];
    for number in 0..50 {
        let targets = sessions.iter().map(|session| target(session, number, QoS::AtLeastOnce)).collect();
        let record = bench.record;
        bench.commit(vec![append(text(number as usize * 4000), targets)]);
        bench.commit(vec![settle(&sessions[0], number, record, number + 1)]);
        bench.commit(vec![settle(&sessions[1], number, record, number + 1)]);
    }
    bench.commit(vec![retain("r", b"kept", Vec::new())]);
    bench.pass(20);
    let (rows, bench) = bench.log_rows();
    assert_eq!(rows, 0);
    let (_, recovered) = bench.restart();
    assert_eq!(recovered.sessions.len(), 2);
    assert_eq!(retained(&recovered), [("r", &b"kept"[..])]);
}

#[test]
fn a_record_as_long_as_its_parts_comes_back_whole() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    // Round the lengths at which a record becomes one part more.
    let lengths: Vec<usize> = (65_300..65_480).step_by(7).chain(130_850..130_960).chain([1 << 20]).collect();
    for (number, length) in lengths.iter().enumerate() {
        let targets = vec![target(&session, number as u64, QoS::AtLeastOnce)];
        bench.commit(vec![append(text(*length), targets)]);
    }
    let (bench, recovered) = bench.restart();
    let wanted: Vec<(u64, RecordId)> =
        recovered.sessions[0].messages.iter().map(|stored| (stored.number, stored.record)).collect();
    let wanted = Wanted::Messages(wanted);
    let fetch = Fetch { slot: 3, session: session.id, ticket: 4, wanted };
    let fetched = bench.committer.fetch(&fetch).unwrap();
    let found = fetched.found.into_messages();
    let found: Vec<usize> =
        found.iter().map(|(_, found)| found.as_ref().unwrap().message.payload().len()).collect();
    assert_eq!(found, lengths);
}

#[test]
fn a_fetch_finds_what_is_there_and_nothing_else() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    let record = bench.record();
    let mut target = target(&session, 5, QoS::ExactlyOnce);
    (target.retain, target.share) = (true, Some("$share/g/t".into()));
    let op = append(text(3), vec![target]);
    bench.committer.stage(vec![(
        0,
        Batch { commit: 9, entries: vec![Entry { record: Some(record), op }], urgency: Urgency::Now },
    )]);
    bench.committer.commit(bench.now).unwrap();
    let own = RecordId::new(1);
    let wanted = Wanted::Messages(vec![(5, record), (6, record), (5, RecordId::new(1000)), (5, own)]);
    let fetch = Fetch { slot: 3, session: session.id, ticket: 4, wanted };
    let Fetched { slot, session: id, ticket, found } = bench.committer.fetch(&fetch).unwrap();
    let found = found.into_messages();
    assert_eq!((slot, id, ticket, found.len()), (3, session.id, 4, 4));
    let Outgoing { message, qos, retain, subscription_ids, share, record: of } = found[0].1.clone().unwrap();
    assert_eq!(*message, text(3));
    assert_eq!(
        (qos, retain, share.as_deref(), of),
        (QoS::ExactlyOnce, true, Some("$share/g/t"), Some(record))
    );
    assert_eq!(subscription_ids.as_deref(), Some(&[NonZeroU32::MIN][..]));
    assert!(found[1..].iter().all(|(_, outgoing)| outgoing.is_none()));
}

#[test]
fn of_two_sessions_of_one_client_the_later_one_is_the_clients() {
    let mut bench = Bench::new();
    let (older, newer) = (bench.session("a"), bench.session("a"));
    let targets = vec![target(&older, 0, QoS::AtLeastOnce), target(&newer, 0, QoS::AtLeastOnce)];
    bench.commit(vec![append(text(1), targets)]);
    for _ in 0..2 {
        let (mut again, recovered) = bench.restart();
        let found: Vec<(u64, usize)> =
            recovered.sessions.iter().map(|session| (session.id, session.messages.len())).collect();
        assert_eq!(found, [(newer.id, 1)]);
        // Folded or not, it stays so.
        again.pass(20);
        bench = again;
    }
}

#[test]
fn an_exactly_once_message_that_the_client_owns_stays_owned_until_it_is_complete() {
    let mut bench = Bench::new();
    let sessions = [bench.session("a"), bench.session("b")];
    let record = bench.record;
    let targets = sessions.iter().map(|session| target(session, 0, QoS::ExactlyOnce)).collect();
    bench.commit(vec![append(text(1), targets)]);
    let message = RecordId::new(record);
    bench.commit(vec![Op::Received { session: sessions[0].clone(), number: 0, message }]);
    for fold in [false, true] {
        let (mut again, recovered) = bench.restart();
        assert_eq!(
            (recovered.sessions[0].owned.as_slice(), recovered.sessions[0].messages.len()),
            (&[0][..], 0)
        );
        assert_eq!((recovered.sessions[1].owned.len(), recovered.sessions[1].messages.len()), (0, 1));
        assert_eq!(recovered.sessions[0].next_number, 1);
        if fold {
            again.pass(6);
        }
        bench = again;
    }
    bench.commit(vec![Op::Settle { session: sessions[0].id, number: 0, message: None, base: 1 }]);
    bench.pass(6);
    let (_, recovered) = bench.restart();
    assert_eq!((recovered.sessions[0].owned.len(), recovered.sessions[0].messages.len()), (0, 0));
}

// The first number is open, so the base does not tell; and another session keeps the record.
#[test]
fn a_message_that_went_to_another_member_does_not_come_back() {
    let mut bench = Bench::new();
    let sessions = [bench.session("a"), bench.session("b")];
    let targets =
        |number| sessions.iter().map(|session| target(session, number, QoS::ExactlyOnce)).collect::<Vec<_>>();
    bench.commit(vec![append(text(1), targets(0))]);
    let message = RecordId::new(bench.record);
    bench.commit(vec![append(text(2), targets(1))]);
    bench.commit(vec![Op::Passed { session: sessions[0].clone(), number: 1, message, base: 0 }]);
    for _ in 0..3 {
        let (mut again, recovered) = bench.restart();
        let numbers = |at: usize| -> Vec<u64> {
            recovered.sessions[at].messages.iter().map(|message| message.number).collect()
        };
        assert_eq!((numbers(0), numbers(1)), (vec![0], vec![0, 1]));
        assert!(recovered.sessions[0].owned.is_empty(), "its client does not have it");
        assert_eq!(recovered.sessions[0].next_number, 2);
        // Folded or not, it stays so.
        again.pass(6);
        bench = again;
    }
}

#[test]
fn a_packet_identifier_is_taken_until_it_is_released() {
    let mut bench = Bench::new();
    let publisher = bench.session("a");
    let other = bench.session("b");
    let id = PacketId::new(7).unwrap();
    for fold in [false, true] {
        let received = Some((publisher.clone(), id));
        // Somebody else needs the record for longer than the publisher does.
        let targets = vec![target(&other, u64::from(fold), QoS::AtLeastOnce)];
        bench.commit(vec![Op::Append {
            message: Arc::new(text(1)),
            retain: false,
            targets: targets.into(),
            received,
        }]);
        if fold {
            bench.pass(6);
        }
        let (mut again, recovered) = bench.restart();
        assert_eq!(recovered.sessions[0].unreleased, [id]);
        again.commit(vec![Op::Release { session: publisher.clone(), packet_id: id }]);
        if fold {
            again.pass(6);
        }
        let (again, recovered) = again.restart();
        assert_eq!(recovered.sessions[0].unreleased, []);
        bench = again;
    }
}

#[test]
fn a_removed_message_does_not_come_back_out_of_a_record_that_others_need() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    bench.commit(vec![retain("r", b"old", vec![target(&session, 0, QoS::AtLeastOnce)])]);
    bench.commit(vec![retain("r", b"", Vec::new())]);
    for secs in [0, 6, 30] {
        bench.pass(secs);
        let (again, recovered) = bench.restart();
        assert_eq!(retained(&recovered), []);
        assert_eq!(recovered.sessions[0].messages.len(), 1);
        bench = again;
    }
    bench.commit(vec![retain("r", b"new", Vec::new())]);
    bench.pass(30);
    let (_, recovered) = bench.restart();
    assert_eq!(retained(&recovered), [("r", &b"new"[..])]);
}

#[test]
fn an_older_message_that_comes_late_does_not_replace_a_newer_one() {
    for wait in [0, 6] {
        for newer_payload in [&b"newer"[..], b""] {
            let mut bench = Bench::new();
            let (older, newer) = (bench.record(), bench.record());
            let commit = |bench: &mut Bench, record, payload: &[u8]| {
                let entries = vec![Entry { record: Some(record), op: retain("r", payload, Vec::new()) }];
                let batch = Batch { commit: 1, entries, urgency: Urgency::Now };
                bench.committer.stage(vec![(0, batch)]);
                bench.committer.commit(bench.now).unwrap();
            };
            commit(&mut bench, newer, newer_payload);
            bench.pass(wait);
            commit(&mut bench, older, b"older");
            for secs in [0, 6, 30] {
                // Folded first where it is not read back first.
                bench.pass(secs);
                let (again, recovered) = bench.restart();
                let found = retained(&recovered).first().map(|(_, payload)| payload.to_vec());
                assert_eq!(found.unwrap_or_default(), newer_payload);
                bench = again;
            }
        }
    }
}

#[test]
fn an_older_message_is_not_folded_over_a_newer_one() {
    let mut bench = Bench::new();
    let older = bench.record();
    bench.commit(vec![retain("r", b"newer", Vec::new())]);
    bench.pass(6);
    let entries = vec![Entry { record: Some(older), op: retain("r", b"older", Vec::new()) }];
    bench.committer.stage(vec![(0, Batch { commit: 2, entries, urgency: Urgency::Now })]);
    bench.committer.commit(bench.now).unwrap();
    bench.pass(6);
    let (_, recovered) = bench.restart();
    assert_eq!(retained(&recovered), [("r", &b"newer"[..])]);
}

#[test]
fn what_is_settled_stays_settled_once_it_is_folded() {
    let mut bench = Bench::new();
    let sessions = [bench.session("a"), bench.session("b")];
    let first = bench.record;
    for number in 0..4 {
        let targets = sessions.iter().map(|session| target(session, number, QoS::AtLeastOnce)).collect();
        bench.commit(vec![append(text(1), targets)]);
    }
    // In order, and out of order.
    for (number, base) in [(0, 1), (2, 1)] {
        bench.commit(vec![settle(&sessions[0], number, first + number, base)]);
    }
    bench.pass(6);
    for _ in 0..2 {
        let (again, recovered) = bench.restart();
        let numbers = |at: usize| -> Vec<u64> {
            recovered.sessions[at].messages.iter().map(|message| message.number).collect()
        };
        assert_eq!((numbers(0), numbers(1)), (vec![1, 3], vec![0, 1, 2, 3]));
        bench = again;
    }
}

// [MQTT-3.3.2-5]
#[test]
fn a_retained_message_expires_while_the_broker_is_down() {
    let mut bench = Bench::new();
    let message = message("r", b"x", QoS::AtLeastOnce).with_expiry(Some(Timestamp::from_millis(1000)));
    let op = Op::Append { message: Arc::new(message), retain: true, targets: Targets::new(), received: None };
    bench.commit(vec![op]);
    bench.pass(6);
    let (bench, recovered) = bench.restart_at(1000);
    assert_eq!(recovered.retained.len(), 1);
    let (mut bench, recovered) = bench.restart_at(1001);
    assert_eq!(recovered.retained.len(), 0);
    bench.pass(1);
    let (_, recovered) = bench.restart_at(0);
    assert_eq!(recovered.retained.len(), 0, "its row is gone");
}

#[test]
fn a_session_that_ends_takes_all_with_it() {
    let mut bench = Bench::new();
    let (session, other) = (bench.session("a"), bench.session("b"));
    let subscription = Subscription { options: Default::default(), id: None };
    for filters in [["a", "b"], ["c", "d"]] {
        for text in filters {
            let op = Op::PutSubscription {
                session: session.clone(),
                filter: filter(text),
                subscription: subscription.into(),
            };
            let same = Op::PutSubscription {
                session: other.clone(),
                filter: filter(text),
                subscription: subscription.into(),
            };
            bench.commit(vec![op, same]);
        }
        bench.pass(6);
    }
    let record = bench.record;
    bench.commit(vec![append(text(1), vec![target(&session, 0, QoS::AtLeastOnce)])]);
    bench.commit(vec![Op::EndSession { session, records: vec![RecordId::new(record)] }]);
    bench.pass(10);
    let (rows, bench) = bench.log_rows();
    assert_eq!(rows, 0);
    let (_, recovered) = bench.restart();
    let found: Vec<(u64, usize)> =
        recovered.sessions.iter().map(|session| (session.id, session.subscriptions.len())).collect();
    assert_eq!(found, [(other.id, 4)]);
}

#[test]
fn a_store_of_a_newer_release_is_refused_in_words() {
    let bench = Bench::new();
    let Bench { disk, committer, .. } = bench;
    drop(committer);
    let database = disk.open(CACHE_BYTES).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(META).unwrap().insert("schema", SCHEMA + 1).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let medium: Arc<dyn Medium> = Arc::new(disk);
    let error = Committer::open(medium, OPTIONS, Timestamp::default()).err().unwrap();
    assert!(matches!(error, OpenError::Newer { found, known } if (found, known) == (SCHEMA + 1, SCHEMA)));
    assert_eq!(
        error.to_string(),
        "the store has format 2, written by a newer release: this one knows formats up to 1"
    );
}

/// Commits, and what was fetched.
type Mail = (Vec<(u16, u64)>, Vec<Fetched>);

/// Shards that can be waited for.
#[derive(Default)]
struct Mailbox {
    told: Mutex<Mail>,
    news: Condvar,
}

impl Committed for Mailbox {
    fn committed(&self, shard: u16, commit: u64) {
        self.told.lock().unwrap().0.push((shard, commit));
        self.news.notify_all();
    }

    fn fetched(&self, _: u16, fetched: Fetched) {
        self.told.lock().unwrap().1.push(fetched);
        self.news.notify_all();
    }

    fn condition(&self, condition: Condition) {
        panic!("{condition:?}");
    }
}

impl Mailbox {
    fn wait<T>(&self, mut ready: impl FnMut(&Mail) -> Option<T>) -> T {
        const DEADLINE: Duration = Duration::from_secs(30);
        let told = self.told.lock().unwrap();
        let is_waiting = |told: &mut _| ready(told).is_none();
        let (told, waited) = self.news.wait_timeout_while(told, DEADLINE, is_waiting).unwrap();
        assert!(!waited.timed_out(), "nothing came");
        ready(&told).unwrap()
    }
}

#[test]
fn the_threads_commit_read_and_close() {
    let disk = Disk::default();
    let medium: Arc<dyn Medium> = Arc::new(disk.clone());
    let (store, recovered) = Store::open(medium, DiskOptions::default(), Timestamp::default()).unwrap();
    let mailbox = Arc::new(Mailbox::default());
    let shards: Arc<dyn Committed> = mailbox.clone();
    let session = Arc::new(SessionHandle::new(0, 3, 1, "a".into()));
    let mut record = recovered.next.get() + 1;
    for commit in 1..=100 {
        let op = match commit {
            1 => put(&session),
            _ => append(text(10), vec![target(&session, commit - 2, QoS::AtLeastOnce)]),
        };
        let entries = vec![Entry { record: Some(RecordId::new(record)), op }];
        record += 1;
        let urgency = match commit % 3 {
            // Nobody is told of the others alone.
            _ if commit == 100 => Urgency::Now,
            0 => Urgency::Now,
            1 => Urgency::Within(Duration::from_millis(5)),
            _ => Urgency::Lazy,
        };
        assert_eq!(store.submit(1, Batch { commit, entries, urgency }, &shards), Submitted::Pending);
    }
    // It reads what was submitted before, whether or not anything else waits for that.
    let wanted = Wanted::Messages(vec![(98, RecordId::new(record - 1))]);
    store.fetch(1, Fetch { slot: 3, session: 1, ticket: 8, wanted }, &shards);
    let found = mailbox.wait(|(_, fetched)| match &fetched.first()?.found {
        Found::Messages(found) => Some(found[0].1.clone()),
        Found::Run(..) => None,
    });
    assert_eq!(*found.unwrap().message, text(10));
    mailbox.wait(|(commits, _)| commits.contains(&(1, 100)).then_some(()));
    store.close();
    store.close();
    let (_, recovered) = open(&disk, 0);
    let expected: Vec<StoredMessage> = (0..99)
        .map(|number| StoredMessage {
            number,
            record: RecordId::new(number + 3),
            size_bytes: 11,
            qos: QoS::AtLeastOnce,
        })
        .collect();
    assert!(recovered.sessions[0].messages.iter().eq(expected));
    assert_eq!(recovered.sessions[0].next_number, 99);
}
