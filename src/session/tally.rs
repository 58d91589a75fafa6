//! A number of bytes of one session, counted in a total of many.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Bytes of one session, which leave the total with it.
#[derive(Debug, Default)]
pub(super) struct Tally {
    bytes: usize,
    total: Option<Arc<AtomicUsize>>,
}

impl Tally {
    pub(super) fn count_in(&mut self, total: &Arc<AtomicUsize>) {
        total.fetch_add(self.bytes, Ordering::Relaxed);
        self.total = Some(total.clone());
    }

    pub(super) fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
        if let Some(total) = &self.total {
            total.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    pub(super) fn sub(&mut self, bytes: usize) {
        self.bytes -= bytes;
        if let Some(total) = &self.total {
            total.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// Bytes of this session.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of all sessions that are counted together; `None` if this one is not.
    pub(super) fn total(&self) -> Option<usize> {
        self.total.as_ref().map(|total| total.load(Ordering::Relaxed))
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.sub(self.bytes);
    }
}
