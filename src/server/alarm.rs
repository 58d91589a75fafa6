//! The timer of a shard.

use std::{pin::Pin, time::Duration};

use tokio::time::{Instant, Sleep, sleep_until};

use crate::{net::Clock, time::Timestamp};

/// Wakes the main task of a shard when the next of its timers is due.
pub(super) struct Alarm {
    sleep: Pin<Box<Sleep>>,
    /// What it is set for.
    at: Option<Timestamp>,
}

/// When to look again if no timer is set.
const FAR_AWAY: Duration = Duration::from_secs(3600);

impl Alarm {
    /// An alarm that is not set.
    pub(super) fn new() -> Alarm {
        Alarm { sleep: Box::pin(sleep_until(Instant::now() + FAR_AWAY)), at: None }
    }

    /// Sets it for this moment, or for none.
    pub(super) fn set(&mut self, at: Option<Timestamp>, clock: &Clock) {
        if at != self.at {
            self.at = at;
            let far = Instant::now() + FAR_AWAY;
            self.sleep.as_mut().reset(at.map_or(far, |at| Instant::from_std(clock.instant(at))));
        }
    }

    /// Waits for the moment. It is not set any more then.
    pub(super) async fn rings(&mut self) {
        self.sleep.as_mut().await;
        self.at = None;
        // Otherwise it would ring at once, again and again, for as long as no other timer is set.
        self.sleep.as_mut().reset(Instant::now() + FAR_AWAY);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use super::*;

    /// Whether an alarm rings at this moment.
    fn is_ringing(alarm: &mut Alarm) -> bool {
        let rings = pin!(alarm.rings());
        rings.poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
    }

    #[test]
    fn it_rings_once_and_not_while_it_is_not_set() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let clock = Clock::start();
            let mut alarm = Alarm::new();
            assert!(!is_ringing(&mut alarm));
            alarm.set(Some(Timestamp::from_millis(0)), &clock);
            alarm.rings().await;
            alarm.set(None, &clock);
            assert!(!is_ringing(&mut alarm), "a shard without timers would never sleep");
            alarm.set(Some(Timestamp::from_millis(0)), &clock);
            alarm.rings().await;
        });
    }
}
