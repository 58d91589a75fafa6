//! How the store does.

use crate::histogram::Histogram;

/// Of a store's commits so far.
#[derive(Debug, Default)]
pub struct CommitStats {
    /// How long each took, in microseconds.
    pub latency_us: Histogram,
    /// Changes in each.
    pub operations: Histogram,
    /// Batches of shards in each.
    pub batches: Histogram,
}
