//! The store on disk: the threads round a [`Committer`].

#![expect(
    clippy::disallowed_methods,
    reason = "the committer is told the time, and threads are started, here"
)]

use std::{
    collections::VecDeque,
    fmt, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{
    broker::{Batch, Op, Urgency},
    session::{Fetch, StoredMessage},
    time::Timestamp,
};

use super::{
    BackedUp, BackupError, CommitStats, Committed, Committer, Existing, Medium, OpenError, Progress,
    Recovered, Store, Submitted, Trouble, backup,
    committer::RETRY_INTERVAL,
    fetch,
    health::{Health, Slot},
};

/// Changes of one transaction at most, but for those of a single batch.
const GROUP_OPS_MAX: usize = 8192;
/// Their bytes.
const GROUP_BYTES_MAX: usize = 8 * MIB;
/// Changes that may wait to be committed before publishers have to wait.
const BACKLOG_OPS_MAX: usize = 65_536;
/// Their bytes.
const BACKLOG_BYTES_MAX: usize = 64 * MIB;
/// A message that nothing waits for is committed within this time.
const LAZY_DELAY: Duration = Duration::from_millis(100);
/// What only says that something is done with is entered within this time.
const SETTLED_DELAY: Duration = Duration::from_secs(1);

const MIB: usize = 1024 * 1024;

/// How a store is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskOptions {
    /// Pages of the database that are kept in memory, in bytes.
    pub cache_bytes: usize,
    /// References to messages that are kept in memory when the database is opened, in bytes: those of long
    /// queues beyond go back to it.
    pub index_bytes_max: usize,
    /// Messages whose references go there at a time.
    pub run_messages_max: usize,
}

impl Default for DiskOptions {
    fn default() -> DiskOptions {
        DiskOptions { cache_bytes: 8 * MIB, index_bytes_max: 64 * MIB, run_messages_max: 1024 }
    }
}

/// A store in a database on disk.
///
/// ```text
///  shards ──submit──▶ queue ──swap──▶ store-committer ──commit──▶ redb
///         ──fetch───▶   │                   │ after the commit
///         ◀─committed───┼───────────────────┤
///         ◀─fetched─────┴── store-reader ◀──┘
/// ```
pub struct Disk {
    inbox: Arc<Inbox>,
    database: Arc<Slot>,
    /// Whether all that was submitted is committed and the database closed.
    is_closed: Arc<AtomicBool>,
    health: Arc<Health>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").finish_non_exhaustive()
    }
}

/// What shards have handed over. It is bounded by what shards do when they hear [`super::Condition::Crowded`].
#[derive(Default)]
struct Inbox {
    queue: Mutex<Queue>,
    is_work_due: Condvar,
    stats: CommitStats,
}

#[derive(Default)]
struct Queue {
    batches: Vec<(u16, Batch, Size)>,
    fetches: Vec<(u16, Fetch)>,
    /// When the first of them is due.
    due_at: Option<Instant>,
    /// What is not committed, here or in the committer.
    backlog: Size,
    is_crowded: bool,
    is_closing: bool,
}

/// What was taken out of the inbox at a time.
struct Taken {
    batches: Vec<(u16, Batch, Size)>,
    fetches: Vec<(u16, Fetch)>,
    is_closing: bool,
}

#[derive(Clone, Copy, Default)]
struct Size {
    ops: usize,
    bytes: usize,
}

impl Disk {
    /// Opens a store and starts its threads.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(
        medium: Arc<dyn Medium>,
        options: DiskOptions,
        now: Timestamp,
    ) -> Result<(Disk, Recovered), OpenError> {
        let (committer, recovered) = Committer::open(medium, options, now)?;
        let health = committer.health().clone();
        let inbox = Arc::new(Inbox::default());
        // Unbounded: sessions have one fetch under way each.
        let (fetches, to_read) = mpsc::channel();
        let kept = committer.database().clone();
        let (database, told) = (kept.clone(), health.clone());
        let reader = spawn("store-reader", move || {
            // Its sessions would wait for ever.
            if catch_unwind(AssertUnwindSafe(|| read(&database, &told, &to_read))).is_err() {
                told.fail("the thread that reads has panicked".to_owned());
            }
        });
        let reader = reader.map_err(OpenError::Io)?;
        let (theirs, told) = (inbox.clone(), health.clone());
        let is_closed = Arc::new(AtomicBool::new(false));
        let closed = is_closed.clone();
        let writer = spawn("store-committer", move || {
            let run = || Worker { inbox: theirs, committer, fetches }.run();
            match catch_unwind(AssertUnwindSafe(run)) {
                Ok(Ok(())) => closed.store(true, Ordering::Release),
                Ok(Err(_)) => {
                    tracing::warn!(
                        "the store could not be closed in order; nothing that was promised is lost"
                    );
                }
                Err(_) => told.fail("the thread that commits has panicked".to_owned()),
            }
        });
        let writer = writer.map_err(OpenError::Io)?;
        let threads = Mutex::new(vec![writer, reader]);
        Ok((Disk { inbox, database: kept, is_closed, health, threads }, recovered))
    }

    /// Copies what is committed to a file, as it is at this moment. The store goes on meanwhile, and grows.
    ///
    /// # Errors
    /// Why there is no copy.
    pub fn backup(
        &self,
        to: &Path,
        existing: Existing,
        progress: impl FnMut(Progress),
    ) -> Result<BackedUp, BackupError> {
        let copied = self.database.with(|database| backup(database, to, existing, progress));
        copied.unwrap_or_else(|| Err(redb::Error::DatabaseClosed.into()))
    }

    /// How commits do.
    pub fn stats(&self) -> &CommitStats {
        &self.inbox.stats
    }

    /// Whether the store is closed and all that it was given is kept. It is not if it has failed, or if its disk
    /// was full to the end.
    pub fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// Commits all that was submitted, folds the log, and closes the database. Nothing is kept from then on.
    pub fn close(&self) {
        self.inbox.lock().is_closing = true;
        self.inbox.is_work_due.notify_one();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // A panic was told where it happened.
            let _ = thread.join();
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.close();
    }
}

impl Store for Disk {
    fn submit(&self, shard: u16, batch: Batch, shards: &Arc<dyn Committed>) -> Submitted {
        self.health.attach(shards);
        if self.health.has_failed() {
            return Submitted::Pending;
        }
        let size = Size::of(&batch);
        let delay = match batch.urgency {
            Urgency::Now => None,
            Urgency::Within(delay) => Some(delay),
            Urgency::Lazy if size.bytes > 0 => Some(LAZY_DELAY),
            Urgency::Lazy => Some(SETTLED_DELAY),
        };
        let now = Instant::now();
        let mut queue = self.inbox.lock();
        queue.batches.push((shard, batch, size));
        queue.backlog.ops += size.ops;
        queue.backlog.bytes += size.bytes;
        // What makes a group waits for nothing.
        let is_group = queue.backlog.ops >= GROUP_OPS_MAX || queue.backlog.bytes >= GROUP_BYTES_MAX;
        let due_at = now + delay.filter(|_| !is_group).unwrap_or_default();
        let is_news = !queue.is_crowded
            && (queue.backlog.ops > BACKLOG_OPS_MAX || queue.backlog.bytes > BACKLOG_BYTES_MAX);
        if is_news {
            queue.is_crowded = true;
            self.health.set_crowded(true);
        }
        self.inbox.wake(queue, due_at);
        if is_news {
            self.health.tell();
        }
        Submitted::Pending
    }

    fn fetch(&self, shard: u16, fetch: Fetch, shards: &Arc<dyn Committed>) {
        self.health.attach(shards);
        let mut queue = self.inbox.lock();
        queue.fetches.push((shard, fetch));
        self.inbox.wake(queue, Instant::now());
    }

    /// Needs nothing: see [`super::LocalStore`].
    fn touch(&self, _: Timestamp) {}

    fn close(&self, _: Timestamp) {
        Disk::close(self);
    }
}

impl Size {
    /// The size of a batch. One that only settles has no bytes.
    fn of(batch: &Batch) -> Size {
        const ENTRY_BYTES: usize = 64;
        let bytes = batch.entries.iter().map(|entry| match &entry.op {
            Op::Settle { .. } | Op::Unspill { .. } => 0,
            Op::Spill { messages, .. } => messages.len() * size_of::<StoredMessage>(),
            Op::Append { message, targets, .. } => {
                let shares = targets.iter().filter_map(|target| target.share.as_deref()).map(str::len);
                let ids = targets.iter().filter_map(|target| target.subscription_ids.as_deref());
                let ids: usize = ids.map(size_of_val).sum();
                message.size_bytes() + (1 + targets.len()) * ENTRY_BYTES + shares.sum::<usize>() + ids
            }
            Op::PutSession { session, will, .. } => {
                let will = will.as_ref().map_or(0, |will| will.message.size_bytes());
                ENTRY_BYTES + session.client_id.len() + will
            }
            Op::PutSubscription { filter, .. } | Op::RemoveSubscription { filter, .. } => {
                ENTRY_BYTES + filter.as_str().len()
            }
            Op::EndSession { records, .. } => ENTRY_BYTES + size_of_val(records.as_slice()),
            Op::Release { .. } | Op::Received { .. } | Op::Passed { .. } => ENTRY_BYTES,
        });
        Size { ops: batch.entries.len(), bytes: bytes.sum() }
    }
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the committer if it would sleep for too long.
    fn wake(&self, mut queue: MutexGuard<'_, Queue>, due_at: Instant) {
        if queue.due_at.is_none_or(|at| due_at < at) {
            queue.due_at = Some(due_at);
            drop(queue);
            self.is_work_due.notify_one();
        }
    }

    /// Waits until something is due, and takes all there is.
    fn take(&self, wake_at: Option<Instant>) -> Taken {
        let mut queue = self.lock();
        loop {
            let now = Instant::now();
            let due_at = [queue.due_at, wake_at].into_iter().flatten().min();
            if queue.is_closing || due_at.is_some_and(|at| at <= now) {
                break;
            }
            queue = match due_at {
                Some(at) => {
                    let waited = self.is_work_due.wait_timeout(queue, at - now);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.is_work_due.wait(queue).unwrap_or_else(PoisonError::into_inner),
            };
        }
        queue.due_at = None;
        Taken {
            batches: std::mem::take(&mut queue.batches),
            fetches: std::mem::take(&mut queue.fetches),
            is_closing: queue.is_closing,
        }
    }

    /// Takes what is committed out of the backlog.
    fn settle(&self, size: Size, health: &Health) {
        let mut queue = self.lock();
        queue.backlog.ops -= size.ops;
        queue.backlog.bytes -= size.bytes;
        let is_news = queue.is_crowded
            && queue.backlog.ops < BACKLOG_OPS_MAX / 2
            && queue.backlog.bytes < BACKLOG_BYTES_MAX / 2;
        if is_news {
            queue.is_crowded = false;
            health.set_crowded(false);
        }
        drop(queue);
        if is_news {
            health.tell();
        }
    }

    /// Waits before the next try. Returns whether the store is to close.
    fn pause(&self) -> bool {
        let queue = self.lock();
        if queue.is_closing {
            return true;
        }
        let waited = self.is_work_due.wait_timeout_while(queue, RETRY_INTERVAL, |queue| !queue.is_closing);
        waited.unwrap_or_else(PoisonError::into_inner).0.is_closing
    }
}

/// The thread that commits.
struct Worker {
    inbox: Arc<Inbox>,
    committer: Committer,
    fetches: mpsc::Sender<(u16, Fetch)>,
}

impl Worker {
    /// Runs until the store is closed. It fails if that is not in order.
    fn run(mut self) -> Result<(), Trouble> {
        let mut wake_at = None;
        loop {
            let taken = self.inbox.take(wake_at);
            self.commit_all(taken.batches)?;
            for fetch in taken.fetches {
                // The reader ends after this thread.
                let _ = self.fetches.send(fetch);
            }
            wake_at = self.insist(|committer| committer.maintain(Instant::now()))?;
            if taken.is_closing {
                break;
            }
        }
        // Nothing comes any more: who submits has been stopped before.
        let batches = self.inbox.take(None).batches;
        self.commit_all(batches)?;
        self.committer.close(Instant::now())
    }

    fn commit_all(&mut self, batches: Vec<(u16, Batch, Size)>) -> Result<(), Trouble> {
        let mut group = Vec::new();
        let mut size = Size::default();
        let mut batches = batches.into_iter().peekable();
        while let Some((shard, batch, batch_size)) = batches.next() {
            group.push((shard, batch));
            size.ops += batch_size.ops;
            size.bytes += batch_size.bytes;
            let is_full = batches.peek().is_none_or(|(_, _, next)| {
                size.ops + next.ops > GROUP_OPS_MAX || size.bytes + next.bytes > GROUP_BYTES_MAX
            });
            if is_full {
                let (began, batches) = (Instant::now(), group.len());
                self.committer.stage(std::mem::take(&mut group));
                self.insist(|committer| committer.commit(Instant::now()))?;
                let stats = &self.inbox.stats;
                stats.latency_us.record(began.elapsed().as_micros() as u64);
                stats.operations.record(size.ops as u64);
                stats.batches.record(batches as u64);
                self.inbox.settle(std::mem::take(&mut size), self.committer.health());
            }
        }
        Ok(())
    }

    /// Tries until there is room, or the store fails or is to close.
    fn insist<T>(
        &mut self,
        mut step: impl FnMut(&mut Committer) -> Result<T, Trouble>,
    ) -> Result<T, Trouble> {
        loop {
            match step(&mut self.committer) {
                Err(Trouble::Full) if !self.inbox.pause() => {}
                Err(Trouble::Full) => return step(&mut self.committer),
                result => return result,
            }
        }
    }
}

/// The thread that reads. While the database is opened anew after the disk was full, it waits for it: what
/// it cannot read now is not missing.
fn read(database: &Slot, health: &Health, fetches: &mpsc::Receiver<(u16, Fetch)>) {
    const REOPEN_INTERVAL: Duration = Duration::from_millis(50);
    let mut waiting = VecDeque::new();
    loop {
        if waiting.is_empty() {
            match fetches.recv() {
                Ok(fetch) => waiting.push_back(fetch),
                Err(mpsc::RecvError) => return,
            }
        }
        let (Some((shard, wanted)), Some(shards)) = (waiting.front(), health.shards()) else { return };
        match database.with(|database| fetch::fetch(database, wanted)) {
            Some(Ok(fetched)) => {
                shards.fetched(*shard, fetched);
                waiting.pop_front();
            }
            None | Some(Err(redb::Error::PreviousIo | redb::Error::DatabaseClosed)) => {
                match fetches.recv_timeout(REOPEN_INTERVAL) {
                    Ok(fetch) => waiting.push_back(fetch),
                    Err(mpsc::RecvTimeoutError::Timeout) => {}
                    Err(mpsc::RecvTimeoutError::Disconnected) => return,
                }
            }
            Some(Err(error)) => {
                health.fail(format!("a message cannot be read: {error}"));
                return;
            }
        }
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(run)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        broker::Entry,
        codec::QoS,
        message::{Header, Message},
        session::{RecordId, SessionHandle, StoredPresence, StoredWill},
    };

    // What a transaction and the backlog hold at most is counted by it.
    #[test]
    fn the_size_of_a_session_has_its_will() {
        let header = Header { qos: QoS::AtMostOnce, retain: false, expires_at: None, publisher: None };
        let message = Message::new("will".into(), &[0; 60_000], header);
        let op = Op::PutSession {
            session: Arc::new(SessionHandle::new(0, 0, 1, "c".into())),
            expiry_secs: 1,
            will: Some(Arc::new(StoredWill { message, delay_secs: 0, message_expiry_secs: None })),
            presence: StoredPresence::Connected { receive_maximum: 1 },
        };
        let entry = Entry { record: Some(RecordId::new(2)), op };
        let batch = Batch { commit: 1, entries: vec![entry], urgency: Urgency::Now };
        assert!(Size::of(&batch).bytes > 60_000);
    }
}
