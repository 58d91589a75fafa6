//! The store of a run: the real committer over a disk in memory, stepped by the virtual clock.
//!
//! It stands where the store's threads stand: it takes what was submitted when something is due, commits it in
//! one transaction, and tells of it a little later, for a disk takes its time.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use dunlin::{
    broker::{Batch, Op, Urgency},
    session::{Fetch, Fetched},
    store::{Committed, Committer, Condition, DiskOptions, Medium, Recovered, Trouble},
    time::Timestamp,
};

use super::medium::Disk;

/// What is not committed at once is so after this time, in milliseconds, as the store's threads do it.
const LAZY_MILLIS: u64 = 100;
/// The same for what only says that something is done with.
const SETTLED_MILLIS: u64 = 1000;
/// Time between two tries on a full disk.
const RETRY_MILLIS: u64 = 1000;

/// Hears of commits, and keeps what it hears until it is asked.
#[derive(Default)]
pub(crate) struct Observer(Mutex<Heard>);

#[derive(Default)]
struct Heard {
    commits: Vec<(u16, u64)>,
    condition: Option<Condition>,
}

impl Observer {
    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Committed for Observer {
    fn committed(&self, shard: u16, commit: u64) {
        self.lock().commits.push((shard, commit));
    }

    /// The run reads by itself: see [`Keeper::read`].
    fn fetched(&self, _: u16, _: Fetched) {}

    fn condition(&self, condition: Condition) {
        self.lock().condition = Some(condition);
    }
}

/// What a commit came to.
pub(crate) enum Step {
    /// These are told of it in a while, and these are to be read then.
    Done { commits: Vec<(u16, u64)>, fetches: Vec<(u16, Fetch)> },
    /// There is no room: again later.
    Full,
    /// The store keeps nothing more.
    Failed,
}

/// The store.
pub(crate) struct Keeper {
    committer: Committer,
    observer: Arc<Observer>,
    batches: Vec<(u16, Batch)>,
    fetches: Vec<(u16, Fetch)>,
    /// When the oldest change was submitted that may not be on disk.
    unsure_since: Option<u64>,
    due_at: Option<u64>,
    /// While a commit is not told, the next one waits.
    pub(crate) is_busy: bool,
    /// A transaction found no room and has to be written first.
    is_stuck: bool,
    /// Where the virtual clock starts.
    start: Instant,
}

impl Keeper {
    /// Opens the store.
    #[expect(clippy::disallowed_methods, reason = "a point to count from; nothing is measured")]
    pub(crate) fn open(disk: &Disk, options: DiskOptions, now: u64) -> Result<(Keeper, Recovered), String> {
        let medium: Arc<dyn Medium> = Arc::new(disk.clone());
        let opened = Committer::open(medium, options, Timestamp::from_millis(now));
        let (committer, recovered) = opened.map_err(|error| error.to_string())?;
        let observer = Arc::new(Observer::default());
        let shards: Arc<dyn Committed> = observer.clone();
        committer.attach(&shards);
        let keeper = Keeper {
            committer,
            observer,
            batches: Vec::new(),
            fetches: Vec::new(),
            unsure_since: None,
            due_at: Some(now),
            is_busy: false,
            is_stuck: false,
            start: Instant::now() - Duration::from_millis(now),
        };
        Ok((keeper, recovered))
    }

    fn instant(&self, now: u64) -> Instant {
        self.start + Duration::from_millis(now)
    }

    pub(crate) fn submit(&mut self, now: u64, shard: u16, batch: Batch) {
        let settles = |op: &Op| matches!(op, Op::Settle { .. } | Op::Unspill { .. });
        let delay = match batch.urgency {
            Urgency::Now => 0,
            Urgency::Within(window) => window.as_millis() as u64,
            Urgency::Lazy if batch.entries.iter().all(|entry| settles(&entry.op)) => SETTLED_MILLIS,
            Urgency::Lazy => LAZY_MILLIS,
        };
        self.unsure_since.get_or_insert(now);
        self.batches.push((shard, batch));
        self.wake_at(now + delay);
    }

    pub(crate) fn fetch(&mut self, now: u64, shard: u16, fetch: Fetch) {
        self.fetches.push((shard, fetch));
        self.wake_at(now);
    }

    fn wake_at(&mut self, at: u64) {
        self.due_at = Some(self.due_at.map_or(at, |due| due.min(at)));
    }

    /// When it is to be stepped next.
    pub(crate) fn due_at(&self) -> Option<u64> {
        self.due_at.filter(|_| !self.is_busy)
    }

    /// The moment from which on something may not be on disk.
    pub(crate) fn unsure_since(&self) -> Option<u64> {
        self.unsure_since
    }

    /// Commits what was submitted, and does what is due without.
    pub(crate) fn step(&mut self, now: u64) -> Step {
        self.due_at = None;
        if self.is_stuck
            && let Err(trouble) = self.committer.commit(self.instant(now))
        {
            return self.trouble(now, trouble);
        }
        self.is_stuck = false;
        let group = std::mem::take(&mut self.batches);
        self.committer.stage(group);
        if let Err(trouble) = self.committer.commit(self.instant(now)) {
            return self.trouble(now, trouble);
        }
        // The next commit of a transaction that failed is later than what came meanwhile.
        self.unsure_since = None;
        let commits = std::mem::take(&mut self.observer.lock().commits);
        match self.committer.maintain(self.instant(now)) {
            Ok(Some(at)) => {
                let millis = at.saturating_duration_since(self.start).as_millis() as u64;
                self.wake_at(millis.max(now + 1));
            }
            Ok(None) => {}
            Err(trouble) => drop(self.trouble(now, trouble)),
        }
        Step::Done { commits, fetches: std::mem::take(&mut self.fetches) }
    }

    fn trouble(&mut self, now: u64, trouble: Trouble) -> Step {
        match trouble {
            Trouble::Full => {
                self.is_stuck = true;
                self.wake_at(now + RETRY_MILLIS);
                Step::Full
            }
            Trouble::Failed => Step::Failed,
        }
    }

    /// Reads what a session wants; `None` while the database is closed for want of room.
    pub(crate) fn read(&self, fetch: &Fetch) -> Option<Fetched> {
        self.committer.fetch(fetch).ok()
    }

    /// What the store is able to do, if that is news.
    pub(crate) fn condition(&self) -> Option<Condition> {
        self.observer.lock().condition.take()
    }

    /// Ends in order.
    pub(crate) fn close(mut self, now: u64) -> Result<(), String> {
        let group = std::mem::take(&mut self.batches);
        self.committer.stage(group);
        self.committer
            .close(self.instant(now))
            .map_err(|trouble| format!("the store does not close: {trouble:?}"))
    }
}
