//! What the store costs a message: `cargo bench --bench store`.
//!
//! One shard hands over groups of QoS 1 messages for one durable session, and they are acknowledged: before the
//! group is committed, so that they are never written, or some groups later, so that they are written and deleted.

#![expect(clippy::disallowed_methods, reason = "the committer is told the time")]

use std::{hint::black_box, sync::Arc, time::Instant};

use divan::{Bencher, counter::ItemsCount};
use dunlin::{
    QoS,
    broker::{Batch, Entry, JournalTarget, Op, Sequence, Urgency},
    message::{Header, Message},
    session::{RecordId, SessionHandle, StoredPresence},
    store::{Committer, DataDirectory, DiskOptions, FileMedium},
    time::Timestamp,
};

fn main() {
    divan::main();
}

const PAYLOAD_BYTES: usize = 200;
/// Messages of one commit.
const GROUP: usize = 1000;

/// A store in a directory of its own, with one session.
struct Store {
    committer: Committer,
    sequence: Sequence,
    session: Arc<SessionHandle>,
    commit: u64,
    /// Messages that are not acknowledged, in order: number and record.
    unsettled: std::collections::VecDeque<(u64, RecordId)>,
}

impl Store {
    fn new(name: &str) -> Store {
        let path = std::env::temp_dir().join(format!("dunlin-bench-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        let directory = Arc::new(DataDirectory::open(&path).expect("the directory is new"));
        let medium = Arc::new(FileMedium::new(directory));
        let now = Timestamp::from_millis(1);
        let (committer, recovered) =
            Committer::open(medium, DiskOptions::default(), now).expect("the store is new");
        let sequence = Sequence::starting_at(recovered.next);
        let id = sequence.next().get();
        let session = Arc::new(SessionHandle::new(0, 0, id, "client".into()));
        let mut store = Store { committer, sequence, session, commit: 0, unsettled: Default::default() };
        let op = Op::PutSession {
            session: store.session.clone(),
            expiry_secs: u32::MAX,
            will: None,
            presence: StoredPresence::Connected { receive_maximum: 1000 },
        };
        let record = Some(store.sequence.next());
        store.group(vec![Entry { record, op }]);
        store
    }

    fn append(&mut self) -> Entry {
        let header = Header { qos: QoS::AtLeastOnce, retain: false, expires_at: None, publisher: None };
        let message = Arc::new(Message::new("sensors/1/temperature".into(), &[7; PAYLOAD_BYTES], header));
        let (number, record) = (self.session.reserve(PAYLOAD_BYTES), self.sequence.next());
        self.unsettled.push_back((number, record));
        let target = JournalTarget {
            session: self.session.id,
            number,
            qos: QoS::AtLeastOnce,
            retain: false,
            subscription_ids: None,
            share: None,
        };
        let op = Op::Append { message, retain: false, targets: [target].into(), received: None };
        Entry { record: Some(record), op }
    }

    fn settle(&mut self) -> Option<Entry> {
        let (number, record) = self.unsettled.pop_front()?;
        let op = Op::Settle { session: self.session.id, number, message: Some(record), base: number + 1 };
        Some(Entry { record: None, op })
    }

    fn group(&mut self, entries: Vec<Entry>) {
        self.commit += 1;
        self.committer.stage(vec![(0, Batch { commit: self.commit, entries, urgency: Urgency::Now })]);
        self.committer.commit(Instant::now()).expect("the disk takes it");
    }
}

/// Messages that are acknowledged so many groups after their own.
fn cost(bencher: Bencher<'_, '_>, name: &str, groups_behind: usize) {
    let mut store = Store::new(name);
    bencher.counter(ItemsCount::new(GROUP)).bench_local(|| {
        let mut entries: Vec<Entry> = (0..GROUP).map(|_| store.append()).collect();
        while store.unsettled.len() > groups_behind * GROUP {
            entries.extend(store.settle());
        }
        store.group(black_box(entries));
    });
}

/// Nothing is written.
#[divan::bench]
fn acknowledged_at_once(bencher: Bencher<'_, '_>) {
    cost(bencher, "elided", 0);
}

/// Each is written, flushed and deleted.
#[divan::bench]
fn acknowledged_later(bencher: Bencher<'_, '_>) {
    cost(bencher, "written", 20);
}

/// A commit of one message: what a lone publisher waits for.
#[divan::bench]
fn one_message(bencher: Bencher<'_, '_>) {
    let mut store = Store::new("one");
    bencher.bench_local(|| {
        let entry = store.append();
        store.group(vec![entry]);
    });
}
