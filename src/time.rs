//! Time as the core knows it: a number that the shell passes in.

use std::time::Duration;

/// A moment: milliseconds since the Unix epoch, as told by the shell. It never goes backwards while the
/// broker runs, and it is comparable across restarts, so that expiry counts on while the broker is down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The moment this many milliseconds after the epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Timestamp(millis)
    }

    /// Milliseconds since the epoch.
    pub fn as_millis(self) -> u64 {
        self.0
    }

    /// This many seconds later.
    pub fn plus_secs(self, secs: u32) -> Self {
        Timestamp(self.0.saturating_add(u64::from(secs) * 1000))
    }

    /// This much later.
    pub fn plus(self, duration: Duration) -> Self {
        Timestamp(self.0.saturating_add(duration.as_millis() as u64))
    }

    /// Whole milliseconds from `earlier` to this moment; 0 if that is not earlier.
    pub fn millis_since(self, earlier: Timestamp) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}
