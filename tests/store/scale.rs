//! What the store costs at size: figures for `docs/storage.md`, by
//! `cargo test --release --test store -- --ignored --nocapture`.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use dunlin::{
    broker::{Batch, Entry, Op, Urgency},
    codec::QoS,
    session::{RecordId, SessionHandle, StoredPresence, Subscription},
    store::{Committed, Committer, Disk as Store, DiskOptions, Medium, Recovered, Store as _},
    time::Timestamp,
};

use crate::{
    driver::{filter, message},
    model::Told,
    power::start,
    rules::{append, put, settle, target},
};

const CACHE_BYTES: usize = 64 << 20;
const OPTIONS: DiskOptions =
    DiskOptions { cache_bytes: CACHE_BYTES, index_bytes_max: 64 << 20, run_messages_max: 1024 };

/// A file that is never short of room.
pub(crate) struct File(pub(crate) PathBuf);

impl File {
    fn medium(name: &str) -> Arc<dyn Medium> {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = std::fs::remove_file(&path);
        Arc::new(File(path))
    }
}

impl Medium for File {
    fn open(&self, cache_bytes: usize) -> Result<redb::Database, redb::DatabaseError> {
        redb::Database::builder().set_cache_size(cache_bytes).create(&self.0)
    }
    fn has_room(&self) -> bool {
        true
    }
    fn release_reserve(&self) -> io::Result<()> {
        Ok(())
    }
    fn make_reserve(&self) -> io::Result<()> {
        Ok(())
    }
}

/// User and system time of this process, and of the thread that commits if there is one.
fn cpu() -> [Duration; 2] {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let stats = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("stat")).ok());
    let writer = stats.filter(|stat| stat.contains("(store-committe")).last().unwrap_or_default();
    [std::fs::read_to_string("/proc/self/stat").unwrap(), writer].map(|stat| {
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).map_or(0, |field| field.parse::<u64>().unwrap());
        Duration::from_millis((ticks(11) + ticks(12)) * 10)
    })
}

fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

struct Feed {
    committer: Committer,
    record: u64,
    now: Instant,
}

impl Feed {
    fn open(medium: &Arc<dyn Medium>) -> (Feed, Recovered) {
        let (committer, recovered) = Committer::open(medium.clone(), OPTIONS, Timestamp::default()).unwrap();
        (Feed { committer, record: recovered.next.get(), now: start() }, recovered)
    }

    fn commit(&mut self, ops: impl Iterator<Item = Op>) {
        let entries = ops.map(|op| {
            self.record += 1;
            Entry { record: Some(RecordId::new(self.record)), op }
        });
        let batch = Batch { commit: 1, entries: entries.collect(), urgency: Urgency::Now };
        self.committer.stage(vec![(0, batch)]);
        self.now += Duration::from_millis(300);
        self.committer.commit(self.now).unwrap();
        self.committer.maintain(self.now).unwrap();
    }
}

#[test]
#[ignore = "it takes a minute and prints figures"]
fn a_million_sessions_two_million_subscriptions_a_million_retained() {
    let medium = File::medium("sessions.redb");
    let (mut feed, _) = Feed::open(&medium);
    let subscription = Subscription { options: Default::default(), id: None };
    let began = start();
    for chunk in 0..500u64 {
        let sessions = (0..2000u64).map(|n| {
            let n = chunk * 2000 + n;
            Arc::new(SessionHandle::new(0, 0, (1 << 30) + n, format!("client-{n:07}").into()))
        });
        let sessions: Vec<_> = sessions.collect();
        feed.commit(sessions.iter().flat_map(|session| {
            let filter = |n: u64| filter(&format!("site/{n}/{}/+/state", session.client_id));
            let of = |filter| Op::PutSubscription {
                session: session.clone(),
                filter,
                subscription: subscription.into(),
            };
            let away = Op::PutSession {
                session: session.clone(),
                expiry_secs: u32::MAX,
                will: None,
                presence: StoredPresence::Detached {
                    since: Timestamp::default(),
                    sent_below: 0,
                    perhaps_sent_below: 0,
                },
            };
            [away, of(filter(0)), of(filter(1))]
        }));
        feed.commit((0..2000u64).map(|n| {
            let topic = format!("site/{}/device/{}/state", n % 1000, chunk * 2000 + n);
            let message = Arc::new(message(&topic, &[b'x'; 40], QoS::AtLeastOnce));
            Op::Append { message, retain: true, targets: dunlin::broker::Targets::new(), received: None }
        }));
    }
    eprintln!("written in {:?}, {} transactions", began.elapsed(), feed.committer.transactions());
    feed.committer.close(feed.now).unwrap();
    drop(feed);
    let before = resident_mib();
    let (began, cpu_began) = (start(), cpu()[0]);
    let (_, recovered) = Feed::open(&medium);
    eprintln!(
        "opened in {:?}, {:?} CPU: {} sessions, {} retained; {} MiB before, {} after",
        began.elapsed(),
        cpu()[0] - cpu_began,
        recovered.sessions.len(),
        recovered.retained.len(),
        before,
        resident_mib()
    );
}

#[test]
#[ignore = "it takes a minute and prints figures"]
fn a_million_queued_messages() {
    let medium = File::medium("queued.redb");
    let (mut feed, _) = Feed::open(&medium);
    let session = Arc::new(SessionHandle::new(0, 0, 1, "client".into()));
    feed.commit([put(&session)].into_iter());
    let before = resident_mib();
    let began = start();
    for chunk in 0..200u64 {
        feed.commit((0..5000u64).map(|n| {
            let targets = vec![target(&session, chunk * 5000 + n, QoS::AtLeastOnce)];
            append(message("site/device/state", &[b'x'; 200], QoS::AtLeastOnce), targets)
        }));
    }
    eprintln!("written in {:?}; {} MiB before, {} after", began.elapsed(), before, resident_mib());
    // No close: as after kill -9.
    std::mem::forget(feed.committer);
    let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join("queued-copy.redb");
    std::fs::copy(Path::new(env!("CARGO_TARGET_TMPDIR")).join("queued.redb"), &copy).unwrap();
    let medium: Arc<dyn Medium> = Arc::new(File(copy));
    let (began, cpu_began) = (start(), cpu()[0]);
    let (_, recovered) = Feed::open(&medium);
    let cpu = cpu()[0] - cpu_began;
    eprintln!(
        "opened in {:?}, {cpu:?} CPU: {} messages",
        began.elapsed(),
        recovered.sessions[0].messages.len()
    );
}

#[test]
#[ignore = "it takes a minute and prints figures"]
fn a_million_messages_through_the_threads() {
    const MESSAGES: u64 = 1_000_000;
    const BATCH: u64 = 100;
    const WINDOW: u64 = 10_000;
    // Acknowledged before the commit, after it, or never.
    for delay in [Some(0), Some(2 * WINDOW / BATCH), None] {
        let (store, recovered) =
            Store::open(File::medium("flow.redb"), DiskOptions::default(), Timestamp::default()).unwrap();
        let told = Arc::new(Told::default());
        let shards: Arc<dyn Committed> = told.clone();
        let session = Arc::new(SessionHandle::new(0, 0, 1, "client".into()));
        let mut record = recovered.next.get() + 1;
        let mut submit = |commit, ops: Vec<Op>| {
            let entries = ops.into_iter().map(|op| {
                let record = match op {
                    Op::Settle { .. } | Op::Spill { .. } | Op::Unspill { .. } => None,
                    _ => {
                        record += 1;
                        Some(RecordId::new(record))
                    }
                };
                Entry { record, op }
            });
            let entries = entries.collect();
            store.submit(0, Batch { commit, entries, urgency: Urgency::Now }, &shards);
        };
        submit(1, vec![put(&session)]);
        let first = recovered.next.get() + 3;
        let text = Arc::new(message("site/device/state", &[b'x'; 200], QoS::AtLeastOnce));
        let (began, cpu_began) = (start(), cpu()[1]);
        for batch in 0..MESSAGES / BATCH {
            let numbers = batch * BATCH..(batch + 1) * BATCH;
            let mut ops: Vec<Op> = numbers
                .map(|number| Op::Append {
                    message: text.clone(),
                    retain: false,
                    targets: [target(&session, number, QoS::AtLeastOnce)].into(),
                    received: None,
                })
                .collect();
            if let Some(settled) = delay.and_then(|delay| batch.checked_sub(delay)) {
                let numbers = settled * BATCH..(settled + 1) * BATCH;
                ops.extend(numbers.map(|number| settle(&session, number, first + number, number + 1)));
            }
            submit(batch + 2, ops);
            while (batch + 1) * BATCH > WINDOW + told.newest_so_far() * BATCH {
                std::thread::yield_now();
            }
        }
        let (wall, cpu) = (began.elapsed(), cpu()[1] - cpu_began);
        store.close();
        let length =
            std::fs::metadata(Path::new(env!("CARGO_TARGET_TMPDIR")).join("flow.redb")).unwrap().len();
        eprintln!(
            "settled after {delay:?} batches: {:.2} us a message, {:.2} us CPU to commit it, file {} MiB",
            wall.as_secs_f64() * 1e6 / MESSAGES as f64,
            cpu.as_secs_f64() * 1e6 / MESSAGES as f64,
            length >> 20
        );
    }
}
