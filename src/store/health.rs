//! What the store is able to do, and who is told of it.

use std::sync::{
    Arc, Mutex, OnceLock, PoisonError, RwLock,
    atomic::{AtomicBool, Ordering},
};

use redb::Database;

use super::{Committed, Condition};

/// The condition of a store. Several threads change it; the shards hear of every change, in order.
#[derive(Default)]
pub(super) struct Health {
    shards: OnceLock<Arc<dyn Committed>>,
    is_full: AtomicBool,
    is_crowded: AtomicBool,
    failure: OnceLock<String>,
    told: Mutex<Option<Condition>>,
}

impl Health {
    /// From now on these are told.
    pub(super) fn attach(&self, shards: &Arc<dyn Committed>) {
        if self.shards.get().is_none() && self.shards.set(shards.clone()).is_ok() {
            self.tell();
        }
    }

    /// Who is told.
    pub(super) fn shards(&self) -> Option<&Arc<dyn Committed>> {
        self.shards.get()
    }

    pub(super) fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }

    pub(super) fn set_full(&self, is_full: bool) {
        self.is_full.store(is_full, Ordering::Relaxed);
        self.tell();
    }

    /// Notes whether too much waits, to be told by [`Health::tell`].
    pub(super) fn set_crowded(&self, is_crowded: bool) {
        self.is_crowded.store(is_crowded, Ordering::Relaxed);
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failure.get().is_some()
    }

    pub(super) fn fail(&self, why: String) {
        tracing::error!("the store has failed and keeps nothing more: {why}");
        // The first reason is the one that matters.
        let _ = self.failure.set(why);
        self.tell();
    }

    /// Tells the condition as it is, if that is news. What it is gets read behind the lock, so that of two
    /// threads that tell at once the last one tells the truth.
    pub(super) fn tell(&self) {
        let Some(shards) = self.shards.get() else { return };
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let condition = match self.failure.get() {
            Some(why) => Condition::Failed(why.clone()),
            None if self.is_full() => Condition::Full,
            None if self.is_crowded.load(Ordering::Relaxed) => Condition::Crowded,
            None => Condition::Ready,
        };
        if *told.get_or_insert(Condition::Ready) != condition {
            *told = Some(condition.clone());
            shards.condition(condition);
        }
    }
}

/// The database, which is exchanged when the disk was full, and gone once it has failed.
#[derive(Default)]
pub(super) struct Slot(RwLock<Option<Database>>);

impl Slot {
    pub(super) fn new(database: Database) -> Slot {
        Slot(RwLock::new(Some(database)))
    }

    /// Calls `f` with the database, if there is one.
    pub(super) fn with<T>(&self, f: impl FnOnce(&Database) -> T) -> Option<T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(f)
    }

    pub(super) fn is_open(&self) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Closes the database, if there is one.
    pub(super) fn close(&self) {
        drop(self.take());
    }

    pub(super) fn put(&self, database: Database) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(database);
    }

    /// Lets go of the database without closing it: after an error nobody knows what the disk has, and whatever
    /// closing writes could make it worse.
    pub(super) fn abandon(&self) {
        std::mem::forget(self.take());
    }

    /// Takes the database out.
    pub(super) fn take(&self) -> Option<Database> {
        self.0.write().unwrap_or_else(PoisonError::into_inner).take()
    }
}
