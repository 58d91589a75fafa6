//! Where promises are kept.
//!
//! A shard hands over its journal in [`Batch`]es and holds back whatever depends on one until it hears that
//! it is committed. What a store does with a batch is its own affair; that it answers in order is not.

mod backup;
mod committer;
mod counts;
mod directory;
mod disk;
mod error;
mod fetch;
mod file_medium;
mod guard;
mod health;
mod image;
mod layout;
mod ledger;
mod local;
mod plan;
mod record;
mod recovery;
mod restore;
mod rewrite;
pub mod salvage;
mod shape;
mod spill;
mod stats;
mod tables;
mod wire;

use std::{io, sync::Arc};

pub use backup::{BackedUp, BackupError, Existing, Progress, TableInfo, backup, tables};
pub use committer::Committer;
pub use directory::{DataDirectory, DirectoryError, DirectoryErrorKind, control_socket, is_beside_database};
pub use disk::{Disk, DiskOptions};
pub use error::{OpenError, Trouble};
pub use file_medium::{FileMedium, is_damage, open_closed};
pub use guard::{Panicked, guarded, is_guarded};
pub use layout::Layout;
pub use local::{LocalError, LocalStore};
pub use restore::{RestoreError, Restored, restore};
#[doc(hidden)]
pub use rewrite::{StoredAs, page_items, rewritten};
pub use shape::{KeyShape, Shape, ValueShape};
pub use stats::CommitStats;
pub use tables::SCHEMA;

use crate::{
    broker::Batch,
    message::Message,
    session::{Fetch, Fetched, RecordId, StoredSession},
    time::Timestamp,
};

/// Keeps the journal of all shards.
pub trait Store: Send + Sync + 'static {
    /// Takes the next batch of a shard. A store that has not committed it when this returns says
    /// [`Submitted::Pending`] and tells `shards` later.
    fn submit(&self, shard: u16, batch: Batch, shards: &Arc<dyn Committed>) -> Submitted;

    /// Reads messages for a session, and gives them to `shards` later: after the commit of all batches
    /// submitted before, of whatever shard, and whether or not anything else waits for that.
    fn fetch(&self, shard: u16, fetch: Fetch, shards: &Arc<dyn Committed>);

    /// Notes that the broker is alive, so that after an end without notice it is known when that was.
    fn touch(&self, now: Timestamp);

    /// Commits what is open and closes the store: nothing is submitted any more. It may take seconds.
    fn close(&self, now: Timestamp);
}

/// Who wants to know of commits.
pub trait Committed: Send + Sync {
    /// All batches of a shard up to this one are committed. It is said of those that are wanted at once; of
    /// others, with the next of these.
    fn committed(&self, shard: u16, commit: u64);

    /// Messages that a session of a shard wanted.
    fn fetched(&self, shard: u16, fetched: Fetched);

    /// What the store is able to do has changed.
    fn condition(&self, condition: Condition);
}

/// What a store is able to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// All.
    Ready,
    /// Its disk is full, or nearly: no further messages, please. It recovers by itself.
    Full,
    /// More waits to be committed than may: publishers are to wait until it is [`Condition::Ready`].
    Crowded,
    /// It has failed and keeps nothing more: nothing that was submitted and not committed may be promised
    /// to anybody any more. Why, in words.
    Failed(String),
}

/// What became of a batch so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Submitted {
    /// It is committed, and so are all earlier ones of the shard.
    Committed(u64),
    /// The store will tell.
    Pending,
}

/// What a store had when it was opened.
#[derive(Debug)]
pub struct Recovered {
    /// Sessions, in the order of their identifiers.
    pub sessions: Vec<StoredSession>,
    /// Retained messages.
    pub retained: Vec<Arc<Message>>,
    /// The next record: above all that were ever given.
    pub next: RecordId,
}

/// Where a database lives: files in a data directory, or images in a test.
pub trait Medium: Send + Sync + 'static {
    /// Opens the database, or creates it if there is none. It is called again after the disk was full, when
    /// the database that was open before has been dropped.
    ///
    /// # Errors
    /// What redb says.
    fn open(&self, cache_bytes: usize) -> Result<redb::Database, redb::DatabaseError>;

    /// Whether there is room to go on: the reserve is there and as much again is free, or there is enough for
    /// [`make_reserve`](Medium::make_reserve) and as much again.
    fn has_room(&self) -> bool;

    /// Gives the reserve up, so that what is to be written can be, at least once.
    ///
    /// # Errors
    /// What the system says.
    fn release_reserve(&self) -> io::Result<()>;

    /// Makes the reserve again.
    ///
    /// # Errors
    /// What the system says; nothing of the reserve is left then.
    fn make_reserve(&self) -> io::Result<()>;
}

/// A store in memory: what is kept is kept by the sessions themselves, for as long as the broker runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory;

impl Store for Memory {
    fn submit(&self, _: u16, batch: Batch, _: &Arc<dyn Committed>) -> Submitted {
        Submitted::Committed(batch.commit)
    }

    /// Nothing is ever fetched: sessions keep their messages, see [`Shared::parking`](crate::broker::Shared).
    fn fetch(&self, _: u16, _: Fetch, _: &Arc<dyn Committed>) {}

    fn touch(&self, _: Timestamp) {}

    fn close(&self, _: Timestamp) {}
}
