//! The clock of the shell.

#![expect(clippy::disallowed_methods, reason = "this is where the core's time comes from")]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::time::Timestamp;

/// Tells the time to the core: the wall clock when the broker started and a monotonic clock since, so that
/// a step of the wall clock neither expires a session nor keeps one.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
    started_at: Duration,
}

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Clock {
        let started_at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Clock { started: Instant::now(), started_at }
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        self.tick().0
    }

    /// Now, and the same in microseconds since the start.
    pub fn tick(&self) -> (Timestamp, u64) {
        let elapsed = self.started.elapsed();
        let now = Timestamp::from_millis((self.started_at + elapsed).as_millis() as u64);
        (now, elapsed.as_micros() as u64)
    }

    /// Time since the start.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// The moment as an instant of the monotonic clock, for a timer.
    pub fn instant(&self, at: Timestamp) -> Instant {
        // A millisecond later, so that the timer never fires before the moment that it is for.
        let since_start = u128::from(at.as_millis() + 1).saturating_sub(self.started_at.as_millis());
        self.started + Duration::from_millis(since_start.min(u128::from(u32::MAX) * 1000) as u64)
    }
}
