//! Leaving a service alone that fails. Pure: the time is an argument.

use std::time::{Duration, Instant};

/// Counts failures in a row. After too many nobody asks for a while, then one does; if that succeeds, all do
/// again.
#[derive(Debug)]
pub(super) struct Breaker {
    failures_max: u32,
    open: Duration,
    /// After this long a request is over, whatever became of it.
    request_max: Duration,
    state: State,
    /// Changes with every change of state: what comes of requests from before says nothing.
    era: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// All ask; the last so many have failed.
    Closed { failures: u32 },
    /// Nobody asks until then.
    Open { until: Instant },
    /// One asks, since then.
    HalfOpen { since: Instant },
}

/// Leave to ask once.
#[derive(Debug)]
#[must_use]
pub(super) struct Leave {
    era: u64,
}

/// What a result has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    None,
    /// The first failure in a row.
    FirstFailure,
    /// From now on the service is left alone.
    Opened,
    /// From now on it is asked again.
    Closed,
}

impl Breaker {
    pub(super) fn new(failures_max: u32, open: Duration, request_max: Duration) -> Breaker {
        Breaker { failures_max, open, request_max, state: State::Closed { failures: 0 }, era: 0 }
    }

    /// Leave to ask, or `None` while the service is left alone.
    pub(super) fn ask(&mut self, now: Instant) -> Option<Leave> {
        match self.state {
            State::Closed { .. } => {}
            State::Open { until } if now < until => return None,
            // A probe that never came back does not keep others from asking.
            State::HalfOpen { since } if now < since + self.request_max => return None,
            State::Open { .. } | State::HalfOpen { .. } => self.enter(State::HalfOpen { since: now }),
        }
        Some(Leave { era: self.era })
    }

    pub(super) fn succeeded(&mut self, leave: &Leave) -> Change {
        match self.state {
            _ if leave.era != self.era => Change::None,
            State::Closed { .. } => {
                self.state = State::Closed { failures: 0 };
                Change::None
            }
            State::Open { .. } | State::HalfOpen { .. } => {
                self.enter(State::Closed { failures: 0 });
                Change::Closed
            }
        }
    }

    pub(super) fn failed(&mut self, leave: &Leave, now: Instant) -> Change {
        match self.state {
            _ if leave.era != self.era => Change::None,
            State::Closed { failures } if failures + 1 < self.failures_max => {
                self.state = State::Closed { failures: failures + 1 };
                if failures == 0 { Change::FirstFailure } else { Change::None }
            }
            State::Closed { .. } => {
                self.enter(State::Open { until: now + self.open });
                Change::Opened
            }
            State::Open { .. } | State::HalfOpen { .. } => {
                self.enter(State::Open { until: now + self.open });
                Change::None
            }
        }
    }

    /// The request was never made: the next one may be.
    pub(super) fn gave_up(&mut self, leave: &Leave, now: Instant) {
        if leave.era == self.era && matches!(self.state, State::HalfOpen { .. }) {
            self.enter(State::Open { until: now });
        }
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.era += 1;
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a moment to count from")]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::{Breaker, Change, Leave};

    const OPEN_SECS: u64 = 10;
    const REQUEST_SECS: u64 = 3;

    fn breaker() -> Breaker {
        Breaker::new(3, Duration::from_secs(OPEN_SECS), Duration::from_secs(REQUEST_SECS))
    }

    #[derive(Clone, Debug)]
    enum Event {
        Pass(u64),
        Ask,
        /// What comes of one of the requests that are out.
        Succeed(prop::sample::Index),
        Fail(prop::sample::Index),
        GiveUp(prop::sample::Index),
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![
            1 => (0..8_u64).prop_map(Event::Pass),
            3 => Just(Event::Ask),
            1 => any::<prop::sample::Index>().prop_map(Event::Succeed),
            3 => any::<prop::sample::Index>().prop_map(Event::Fail),
            1 => any::<prop::sample::Index>().prop_map(Event::GiveUp),
        ];
        prop::collection::vec(event, 0..120)
    }

    proptest! {
        #[test]
        fn an_open_breaker_lets_one_through_at_a_time_and_a_service_that_is_back_is_found(events in events()) {
            let start = Instant::now();
            let mut now = 0;
            let mut breaker = breaker();
            let mut out: Vec<Leave> = Vec::new();
            // When it opened, and when the last one was let through since.
            let mut opened: Option<u64> = None;
            let mut probed: Option<u64> = None;
            for event in events {
                let instant = start + Duration::from_secs(now);
                let change = match event {
                    Event::Pass(secs) => { now += secs; continue }
                    Event::Ask => {
                        if let Some(leave) = breaker.ask(instant) {
                            if let Some(at) = opened {
                                prop_assert!(now - at >= OPEN_SECS, "asked while open");
                                prop_assert!(probed.is_none_or(|at| now - at >= REQUEST_SECS), "two probes");
                                probed = Some(now);
                            }
                            out.push(leave);
                        }
                        continue;
                    }
                    Event::Succeed(_) | Event::Fail(_) | Event::GiveUp(_) if out.is_empty() => continue,
                    Event::Succeed(index) => breaker.succeeded(&out.remove(index.index(out.len()))),
                    Event::Fail(index) => {
                        let leave = out.remove(index.index(out.len()));
                        let is_probe = opened.is_some() && leave.era == breaker.era;
                        if is_probe {
                            (opened, probed) = (Some(now), None);
                        }
                        breaker.failed(&leave, instant)
                    }
                    Event::GiveUp(index) => {
                        let leave = out.remove(index.index(out.len()));
                        if leave.era == breaker.era {
                            probed = None;
                        }
                        breaker.gave_up(&leave, instant);
                        continue;
                    }
                };
                match change {
                    Change::Opened => { prop_assert!(opened.is_none()); (opened, probed) = (Some(now), None) }
                    Change::Closed => { prop_assert!(opened.is_some()); opened = None }
                    Change::None | Change::FirstFailure => {}
                }
            }
            // Whatever has happened: once the service answers again, it is asked again.
            let later = start + Duration::from_secs(now + OPEN_SECS + REQUEST_SECS);
            let leave = breaker.ask(later);
            prop_assert!(leave.is_some());
            if let Some(leave) = leave {
                breaker.succeeded(&leave);
            }
            prop_assert!(breaker.ask(later).is_some() && breaker.ask(later).is_some());
        }
    }

    #[test]
    fn only_failures_in_a_row_open_it() {
        let now = Instant::now();
        let mut breaker = breaker();
        for change in [Change::FirstFailure, Change::None, Change::Opened] {
            let leave = breaker.ask(now).unwrap();
            assert_eq!(breaker.failed(&leave, now), change);
        }
        assert!(breaker.ask(now).is_none());
        let mut breaker = self::breaker();
        for _ in 0..5 {
            for _ in 0..2 {
                let leave = breaker.ask(now).unwrap();
                breaker.failed(&leave, now);
            }
            let leave = breaker.ask(now).unwrap();
            assert_eq!(breaker.succeeded(&leave), Change::None);
        }
        assert!(breaker.ask(now).is_some());
    }
}
