//! The time, for back ends that compare it with what others have written.

#![expect(clippy::disallowed_methods, reason = "this is where the back ends' time comes from")]

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Tells the time to back ends, so that tests can tell them another one.
pub trait Clock: Send + Sync + 'static {
    /// Seconds since 1970 by the wall clock, as it is set now: a token is good or not by what everybody
    /// else calls the time.
    fn unix_secs(&self) -> u64;

    /// Now, by a clock that is never set: for how long something is remembered.
    fn instant(&self) -> Instant;
}

/// The clock of the system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn unix_secs(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
    }

    fn instant(&self) -> Instant {
        Instant::now()
    }
}

#[cfg(test)]
pub(crate) mod test {
    use std::{
        sync::atomic::{AtomicU64, Ordering},
        time::{Duration, Instant},
    };

    use super::Clock;

    /// A clock that stands still until it is told to go on.
    pub(crate) struct TestClock {
        start: Instant,
        start_secs: u64,
        passed_millis: AtomicU64,
    }

    impl TestClock {
        pub(crate) fn at(start_secs: u64) -> TestClock {
            TestClock { start: Instant::now(), start_secs, passed_millis: AtomicU64::new(0) }
        }

        pub(crate) fn pass(&self, time: Duration) {
            self.passed_millis.fetch_add(time.as_millis() as u64, Ordering::Relaxed);
        }

        fn passed(&self) -> Duration {
            Duration::from_millis(self.passed_millis.load(Ordering::Relaxed))
        }
    }

    impl Clock for TestClock {
        fn unix_secs(&self) -> u64 {
            self.start_secs + self.passed().as_secs()
        }

        fn instant(&self) -> Instant {
            self.start + self.passed()
        }
    }
}
