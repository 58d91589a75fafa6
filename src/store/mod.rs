//! Where promises are kept.
//!
//! A shard hands over its journal in [`Batch`]es and holds back whatever depends on one until it hears that
//! it is committed. What a store does with a batch is its own affair; that it answers in order is not.

use std::sync::Arc;

use crate::broker::Batch;

/// Keeps the journal of all shards.
pub trait Store: Send + Sync + 'static {
    /// Takes the next batch of a shard. A store that has not committed it when this returns says
    /// [`Submitted::Pending`] and tells `shards` later.
    fn submit(&self, shard: u16, batch: Batch, shards: &Arc<dyn Committed>) -> Submitted;
}

/// Who wants to know of commits.
pub trait Committed: Send + Sync {
    /// All batches of a shard up to this one are committed.
    fn committed(&self, shard: u16, commit: u64);
}

/// What became of a batch so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Submitted {
    /// It is committed, and so are all earlier ones of the shard.
    Committed(u64),
    /// The store will tell.
    Pending,
}

/// A store in memory: what is kept is kept by the sessions themselves, for as long as the broker runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory;

impl Store for Memory {
    fn submit(&self, _: u16, batch: Batch, _: &Arc<dyn Committed>) -> Submitted {
        Submitted::Committed(batch.commit)
    }
}
