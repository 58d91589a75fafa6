//! Turns batches into transactions. It is stepped: its caller brings batches and the time, and decides when
//! to wait.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    broker::{Batch, Entry, Op, Unspill, Urgency},
    mutation::{self, Mutation},
    session::{Fetch, Fetched, StoredMessage},
    time::Timestamp,
};

use super::{
    DiskOptions, Medium, OpenError, Recovered, Trouble,
    error::is_full,
    fetch,
    health::{Health, Slot},
    ledger::{Aging, Ledger},
    plan::{Fold, Plan, Puts},
    recovery,
    spill::{self, EndedRuns},
    tables::{META_CLEAN, META_NEXT, SCHEMA},
};

/// What nobody needs any more is deleted after this time at the latest, if there was no other commit.
const DELETE_DELAY: Duration = Duration::from_secs(1);
/// So many of these are deleted at once.
const DEAD_MAX: usize = 65_536;
/// The log is folded into tables this often while there is something to fold.
const FOLD_INTERVAL: Duration = Duration::from_secs(5);
/// When this much waits to be folded, it is sooner.
const FOLD_WEIGHT: usize = 65_536;
/// But not sooner than this.
const FOLD_INTERVAL_MIN: Duration = Duration::from_millis(250);
/// What is folded with one commit, so that none takes long.
const FOLD_ITEMS: usize = 2048;
/// After this time without a commit redb saves what makes it open quickly after a crash.
const SAVE_DELAY: Duration = Duration::from_millis(250);
/// Time between two looks at how much room there is.
const ROOM_INTERVAL: Duration = Duration::from_millis(100);
/// On a full disk, time between two tries to make the database smaller.
const COMPACT_INTERVAL: Duration = Duration::from_secs(5);
/// Time between two tries to go on when there is no room.
pub(super) const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The writing half of a store. See [`Disk`](super::Disk), which runs it on a thread.
pub struct Committer {
    medium: Arc<dyn Medium>,
    cache_bytes: usize,
    database: Arc<Slot>,
    health: Arc<Health>,
    ledger: Ledger,
    ended: EndedRuns,
    /// What is to be committed next, until it is.
    plan: Option<Plan>,
    /// The buffers of the last transaction.
    spare: Puts,
    /// Whether a commit was made since redb saved what makes it open quickly.
    is_unsaved: bool,
    /// Whether the reserve was given up.
    is_reserve_spent: bool,
    /// Whether the database says of itself that the broker ended in order.
    says_clean: bool,
    has_folded: bool,
    committed_at: Option<Instant>,
    dead_since: Option<Instant>,
    changed_since: Option<Instant>,
    fold_began_at: Option<Instant>,
    aged_at: Option<Instant>,
    /// Whether something was deleted since the database was compacted.
    has_deleted: bool,
    compacted_at: Option<Instant>,
    room_at: Option<Instant>,
    /// Transactions so far.
    transactions: u64,
}

impl Committer {
    /// Opens the database and reads what it has.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(
        medium: Arc<dyn Medium>,
        options: DiskOptions,
        now: Timestamp,
    ) -> Result<(Committer, Recovered), OpenError> {
        // redb does not promise to survive whatever a damaged file says. Where a panic ends the process, its
        // message is what there is.
        let opened = catch_unwind(AssertUnwindSafe(|| open(&*medium, options, now)));
        let (database, found) = opened.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it cannot be read");
            Err(OpenError::Damaged(text.to_owned()))
        })?;
        // On a disk that is full when the broker starts there may be none; it is made as soon as there is room.
        let is_reserve_spent = medium.make_reserve().is_err() && !mutation::is_on(Mutation::ReserveForgotten);
        let mut committer = Committer {
            medium,
            cache_bytes: options.cache_bytes,
            database: Arc::new(Slot::new(database)),
            health: Arc::new(Health::default()),
            ledger: found.ledger,
            ended: EndedRuns::default(),
            plan: None,
            spare: Puts::default(),
            is_unsaved: true,
            is_reserve_spent,
            says_clean: true,
            has_folded: false,
            committed_at: None,
            dead_since: None,
            changed_since: None,
            fold_began_at: None,
            aged_at: None,
            has_deleted: false,
            compacted_at: None,
            room_at: None,
            transactions: 0,
        };
        if !found.expired.is_empty() {
            let folds = found.expired.into_iter();
            let folds =
                folds.map(|(topic, record)| Fold::Retained { topic, record, message: None }).collect();
            committer.plan = Some(Plan { folds, ..Plan::default() });
        }
        Ok((committer, found.recovered))
    }

    pub(super) fn database(&self) -> &Arc<Slot> {
        &self.database
    }

    pub(super) fn health(&self) -> &Arc<Health> {
        &self.health
    }

    /// Reads messages out of what is committed.
    ///
    /// # Errors
    /// What redb says.
    pub fn fetch(&self, wanted: &Fetch) -> Result<Fetched, redb::Error> {
        let fetched = self.database.with(|database| fetch::fetch(database, wanted));
        fetched.unwrap_or(Err(redb::Error::DatabaseClosed))
    }

    /// Transactions so far.
    pub fn transactions(&self) -> u64 {
        self.transactions
    }

    /// From now on these are told what is committed, and what the store is able to do.
    pub fn attach(&self, shards: &Arc<dyn super::Committed>) {
        self.health.attach(shards);
    }

    /// Makes the next transaction of some batches, with their shards. The one before must be committed.
    pub fn stage(&mut self, group: Vec<(u16, Batch)>) {
        let puts = std::mem::take(&mut self.spare);
        let mut plan = self.plan.take().unwrap_or(Plan { puts, ..Plan::default() });
        if self.ledger.is_folding() {
            // Folded before the group is entered: rows never have what its records say again.
            self.fold_into(&mut plan);
        }
        for (_, batch) in &group {
            for entry in &batch.entries {
                self.ledger.enter(entry, &mut plan.puts);
                self.enter_spilled(entry, &mut plan);
            }
        }
        // Before messages are written: one that nobody needs is not.
        self.ended.release(&self.database, &mut self.ledger, &mut plan);
        for (shard, batch) in group {
            for entry in &batch.entries {
                self.ledger.write(entry, &mut plan.puts);
            }
            // Nobody waits for the others, and a shard that is told wakes up for it.
            if batch.urgency != Urgency::Now {
                continue;
            }
            match plan.commits.iter_mut().find(|(other, _)| *other == shard) {
                Some((_, commit)) => *commit = batch.commit.max(*commit),
                None => plan.commits.push((shard, batch.commit)),
            }
        }
        if !plan.is_empty() {
            self.add_dead(&mut plan);
        }
        self.plan = Some(plan);
    }

    /// Enters references that go to the store, or need not be there any more.
    fn enter_spilled(&mut self, entry: &Entry, plan: &mut Plan) {
        match &entry.op {
            Op::Spill { session, messages } => {
                if let Some(StoredMessage { number, .. }) = messages.first() {
                    plan.spilled.insert((session.id, *number), Some(spill::encode(messages)));
                }
            }
            Op::Unspill { session, first, cause: Unspill::Read } => {
                plan.spilled.insert((session.id, *first), None);
            }
            Op::Unspill { session, first, cause: Unspill::Ended } => self.ended.push(session.id, *first),
            Op::PutSession { .. }
            | Op::EndSession { .. }
            | Op::PutSubscription { .. }
            | Op::RemoveSubscription { .. }
            | Op::Append { .. }
            | Op::Release { .. }
            | Op::Received { .. }
            | Op::Passed { .. }
            | Op::Settle { .. } => {}
        }
    }

    /// What nobody needs any more goes with any transaction that is made.
    fn add_dead(&mut self, plan: &mut Plan) {
        plan.dead.append(&mut self.ledger.dead);
        self.dead_since = None;
    }

    fn fold_into(&mut self, plan: &mut Plan) {
        self.ledger.fold(plan, FOLD_ITEMS);
        self.has_folded = true;
        if !plan.folds.is_empty() {
            plan.marks.push((META_NEXT, self.ledger.next));
        }
    }

    /// Commits what was staged and tells who waits for it. When it fails for want of room, it is to be
    /// called again later.
    ///
    /// # Errors
    /// See [`Trouble`]. Nothing was told then.
    pub fn commit(&mut self, now: Instant) -> Result<(), Trouble> {
        if self.health.has_failed() {
            return Err(Trouble::Failed);
        }
        self.check_room(now);
        let Some(mut plan) = self.plan.take() else { return Ok(()) };
        let result = if plan.is_empty() && !plan.quick_repair { Ok(()) } else { self.write(&mut plan, now) };
        match result {
            Ok(()) => {
                self.tell(&plan);
                if !plan.commits.is_empty() {
                    self.spare = plan.puts.into_empty();
                }
            }
            Err(_) => self.plan = Some(plan),
        }
        result
    }

    fn tell(&self, plan: &Plan) {
        let Some(shards) = self.health.shards() else { return };
        for (shard, commit) in &plan.commits {
            shards.committed(*shard, *commit);
        }
    }

    fn write(&mut self, plan: &mut Plan, now: Instant) -> Result<(), Trouble> {
        if self.says_clean {
            plan.marks.push((META_CLEAN, 0));
            self.says_clean = false;
        }
        plan.sort();
        if !self.database.is_open() {
            self.reopen()?;
        }
        let error = match self.try_write(plan) {
            Ok(()) => return self.written(plan, now),
            Err(error) => error,
        };
        self.make_room(&error)?;
        match self.try_write(plan) {
            Ok(()) => self.written(plan, now),
            Err(error) => {
                let trouble = self.trouble(&error);
                if trouble == Trouble::Full {
                    // Whatever failed once has made the handle useless.
                    self.database.close();
                }
                Err(trouble)
            }
        }
    }

    fn try_write(&self, plan: &Plan) -> Result<(), redb::Error> {
        self.database.with(|database| plan.write(database)).unwrap_or(Err(redb::Error::DatabaseClosed))
    }

    fn written(&mut self, plan: &Plan, now: Instant) -> Result<(), Trouble> {
        self.transactions += 1;
        self.has_deleted |= !plan.dead.is_empty();
        self.is_unsaved = !plan.quick_repair;
        self.committed_at = Some(now);
        Ok(())
    }

    /// After a write that failed for want of room: gives the reserve up and opens the database anew, for an
    /// error makes its handle useless, even for deletions.
    fn make_room(&mut self, error: &redb::Error) -> Result<(), Trouble> {
        let trouble = self.trouble(error);
        if trouble == Trouble::Failed {
            return Err(trouble);
        }
        self.database.close();
        if !self.is_reserve_spent {
            self.is_reserve_spent = true;
            if let Err(error) = self.medium.release_reserve() {
                tracing::warn!("the reserve cannot be given up: {error}");
            }
        }
        self.reopen()
    }

    fn reopen(&mut self) -> Result<(), Trouble> {
        match self.medium.open(self.cache_bytes) {
            Ok(database) => {
                self.database.put(database);
                Ok(())
            }
            Err(error) => Err(self.trouble(&error.into())),
        }
    }

    /// Judges an error, and tells. All but want of room is the end: nobody knows what the disk has.
    fn trouble(&mut self, error: &redb::Error) -> Trouble {
        if is_full(error) {
            if !self.health.is_full() {
                tracing::error!("the disk is full: no further messages are accepted that would need it");
            }
            self.health.set_full(true);
            return Trouble::Full;
        }
        self.database.abandon();
        self.health.fail(error.to_string());
        Trouble::Failed
    }

    fn check_room(&mut self, now: Instant) {
        let interval = if self.health.is_full() { RETRY_INTERVAL } else { ROOM_INTERVAL };
        if self.room_at.is_some_and(|at| now.saturating_duration_since(at) < interval) {
            return;
        }
        self.room_at = Some(now);
        if self.is_reserve_spent {
            self.is_reserve_spent = self.medium.make_reserve().is_err();
        }
        let mut is_full = self.is_reserve_spent || !self.medium.has_room();
        if is_full && self.health.is_full() && self.has_deleted && self.may_compact(now) {
            self.compact(now);
            is_full = self.is_reserve_spent || !self.medium.has_room();
        }
        if is_full != self.health.is_full() {
            if is_full {
                tracing::warn!(
                    "the disk is nearly full: no further messages are accepted that would need it"
                );
            } else {
                tracing::info!("the disk has room again");
            }
            self.health.set_full(is_full);
        }
    }

    fn may_compact(&self, now: Instant) -> bool {
        self.compacted_at.is_none_or(|at| now >= at + COMPACT_INTERVAL)
    }

    /// Gives what was deleted back to a disk that is full: the database keeps its free pages otherwise, and
    /// nobody could tell that there is room again.
    fn compact(&mut self, now: Instant) {
        self.compacted_at = Some(now);
        self.has_deleted = false;
        let Some(mut database) = self.database.take() else { return };
        tracing::info!("the disk is full: what was deleted is given back to it");
        match database.compact() {
            Ok(_) => self.database.put(database),
            Err(redb::CompactionError::Storage(error)) => {
                let error = redb::Error::from(error);
                // It may be of no use any more, and must not be closed if nobody knows what the disk has.
                if is_full(&error) {
                    drop(database);
                    // If that fails too, the next write tries again.
                    let _ = self.reopen();
                } else {
                    self.database.put(database);
                    self.trouble(&error);
                }
            }
            // The reader is at work: another time.
            Err(_) => {
                self.database.put(database);
                self.has_deleted = true;
            }
        }
    }

    /// Does what is due without any batch: deletes, folds, saves. Returns when it is to be called again.
    ///
    /// # Errors
    /// As [`Committer::commit`].
    pub fn maintain(&mut self, now: Instant) -> Result<Option<Instant>, Trouble> {
        if self.plan.is_some() {
            self.commit(now)?;
        }
        if self.health.is_full() {
            self.check_room(now);
        }
        self.begin_fold(now);
        let mut plan = Plan::default();
        if self.ledger.is_folding() && !std::mem::take(&mut self.has_folded) {
            self.fold_into(&mut plan);
            self.has_folded = false;
        }
        self.ended.release(&self.database, &mut self.ledger, &mut plan);
        let dead = self.ledger.dead.len();
        if dead > 0 {
            let since = *self.dead_since.get_or_insert(now);
            if now >= since + DELETE_DELAY || dead >= DEAD_MAX {
                self.add_dead(&mut plan);
            }
        }
        if plan.is_empty() && self.is_unsaved && self.committed_at.is_some_and(|at| now >= at + SAVE_DELAY) {
            plan.quick_repair = true;
        }
        if !plan.is_empty() {
            self.add_dead(&mut plan);
        }
        self.plan = Some(plan);
        self.commit(now)?;
        Ok(self.due_at(now))
    }

    fn begin_fold(&mut self, now: Instant) {
        let weight = self.ledger.weight();
        if self.ledger.is_folding() || weight == 0 {
            return;
        }
        let since = *self.changed_since.get_or_insert(now);
        let may_again = self.fold_began_at.is_none_or(|at| now >= at + FOLD_INTERVAL_MIN);
        if now >= since + FOLD_INTERVAL || weight >= FOLD_WEIGHT && may_again {
            let is_late = self.aged_at.is_none_or(|at| now >= at + FOLD_INTERVAL);
            let aging = if is_late { Aging::Yes } else { Aging::No };
            if is_late {
                self.aged_at = Some(now);
            }
            self.changed_since = None;
            self.fold_began_at = Some(now);
            self.ledger.begin_fold(aging);
        }
    }

    fn due_at(&self, now: Instant) -> Option<Instant> {
        if self.ledger.is_folding() || (!self.ended.is_empty() && self.database.is_open()) {
            return Some(now);
        }
        let deletion =
            self.dead_since.or((!self.ledger.dead.is_empty()).then_some(now)).map(|at| at + DELETE_DELAY);
        let fold =
            self.changed_since.or((self.ledger.weight() > 0).then_some(now)).map(|at| at + FOLD_INTERVAL);
        let save = self.committed_at.filter(|_| self.is_unsaved).map(|at| at + SAVE_DELAY);
        let room = self.health.is_full().then_some(now + RETRY_INTERVAL);
        [deletion, fold, save, room].into_iter().flatten().min()
    }

    /// Folds all that is in the log but messages, says that the broker ended in order, and closes the
    /// database.
    ///
    /// # Errors
    /// As [`Committer::commit`]. What was told stays kept.
    pub fn close(&mut self, now: Instant) -> Result<(), Trouble> {
        self.commit(now)?;
        // What is left of a cycle that has begun, and then all.
        self.fold_all(now)?;
        self.ledger.begin_fold(Aging::Last);
        self.fold_all(now)?;
        let marks = vec![(META_CLEAN, 1), (META_NEXT, self.ledger.next)];
        let mut plan = Plan { marks, quick_repair: true, ..Plan::default() };
        self.add_dead(&mut plan);
        self.says_clean = false;
        self.plan = Some(plan);
        self.commit(now)?;
        self.database.close();
        Ok(())
    }
}

impl Committer {
    fn fold_all(&mut self, now: Instant) -> Result<(), Trouble> {
        while self.ledger.is_folding() {
            let mut plan = Plan::default();
            self.fold_into(&mut plan);
            self.plan = Some(plan);
            self.commit(now)?;
        }
        Ok(())
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        // The reader may have been the first to meet the error.
        if self.health.has_failed() {
            self.database.abandon();
        }
    }
}

fn open(
    medium: &dyn Medium,
    options: DiskOptions,
    now: Timestamp,
) -> Result<(redb::Database, recovery::Found), OpenError> {
    let database = medium.open(options.cache_bytes).map_err(redb::Error::from)?;
    let found = recovery::prepare(&database)?;
    if found > SCHEMA {
        return Err(OpenError::Newer { found, known: SCHEMA });
    }
    let found = recovery::recover(&database, options, medium.has_room(), now)?;
    Ok((database, found))
}
