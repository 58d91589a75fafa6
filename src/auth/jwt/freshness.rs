//! When keys are fetched, and which are used meanwhile. Pure: the time is an argument.
//!
//! Keys are fetched again before they are too old, so that nobody waits for that and a key that its issuer
//! has withdrawn is not used for longer than `refresh`. While they cannot be fetched they are used for
//! `stale_max` more. No two attempts are closer than `retry`, whatever tokens clients show.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// The settings.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) refresh: Duration,
    pub(super) stale_max: Duration,
    pub(super) retry: Duration,
    /// After this long an attempt is over, whatever became of it.
    pub(super) attempt_max: Duration,
}

/// What is fetched, and how that stands.
#[derive(Debug)]
pub(super) struct Freshness<T> {
    terms: Terms,
    current: Option<(Arc<T>, Instant)>,
    attempt: Attempt,
}

#[derive(Clone, Copy, Debug)]
enum Attempt {
    Never,
    RunningSince(Instant),
    EndedAt(Instant),
}

/// What somebody needs.
#[derive(Debug)]
pub(super) enum Need<'a, T> {
    /// What is good now.
    Good,
    /// Something newer than this, which did not serve.
    Newer(&'a Arc<T>),
}

/// What to do for somebody in need.
#[derive(Debug)]
pub(super) enum Plan<T> {
    /// Take this.
    Use(Arc<T>),
    /// Take this, and begin to fetch for others.
    UseAndFetch(Arc<T>),
    /// Begin to fetch, and ask again when that is over.
    Fetch,
    /// Ask again when the attempt under way is over.
    Wait,
    /// There is nothing.
    Unavailable,
}

impl<T> Freshness<T> {
    pub(super) fn new(terms: Terms) -> Freshness<T> {
        Freshness { terms, current: None, attempt: Attempt::Never }
    }

    /// Decides; with a plan that fetches, an attempt runs from now on.
    pub(super) fn plan(&mut self, need: &Need<'_, T>, now: Instant) -> Plan<T> {
        let plan = self.consider(need, now);
        if matches!(plan, Plan::Fetch | Plan::UseAndFetch(_)) {
            self.attempt = Attempt::RunningSince(now);
        }
        plan
    }

    fn consider(&self, need: &Need<'_, T>, now: Instant) -> Plan<T> {
        let attempt = self.or_attempt(now);
        let Some((current, fetched_at)) = &self.current else {
            return attempt.unwrap_or(Plan::Unavailable);
        };
        let age = now.saturating_duration_since(*fetched_at);
        if age >= self.terms.refresh.saturating_add(self.terms.stale_max) {
            return attempt.unwrap_or(Plan::Unavailable);
        }
        let is_due = match need {
            Need::Good => age >= self.terms.refresh,
            Need::Newer(tried) => Arc::ptr_eq(tried, current) || age >= self.terms.refresh,
        };
        match attempt {
            Some(plan) if is_due => plan,
            Some(Plan::Fetch) if age >= self.terms.refresh / 4 * 3 => Plan::UseAndFetch(current.clone()),
            _ => Plan::Use(current.clone()),
        }
    }

    /// To begin an attempt or to wait for one; `None` if the last one was too short a time ago.
    fn or_attempt(&self, now: Instant) -> Option<Plan<T>> {
        let since = |then: Instant| now.saturating_duration_since(then);
        match self.attempt {
            Attempt::RunningSince(start) if since(start) < self.terms.attempt_max => Some(Plan::Wait),
            Attempt::EndedAt(end) if since(end) < self.terms.retry => None,
            Attempt::Never | Attempt::RunningSince(_) | Attempt::EndedAt(_) => Some(Plan::Fetch),
        }
    }

    /// An attempt is over. Returns what was used before.
    pub(super) fn ended(&mut self, fetched: Option<Arc<T>>, now: Instant) -> Option<Arc<T>> {
        self.attempt = Attempt::EndedAt(now);
        let before = self.current.as_ref().map(|(current, _)| current.clone());
        if let Some(fetched) = fetched {
            self.current = Some((fetched, now));
        }
        before
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a moment to count from")]
mod tests {
    use std::{
        sync::Arc,
        time::{Duration, Instant},
    };

    use proptest::prelude::*;

    use super::{Freshness, Need, Plan, Terms};

    const TERMS: Terms = Terms {
        refresh: Duration::from_secs(100),
        stale_max: Duration::from_secs(200),
        retry: Duration::from_secs(10),
        attempt_max: Duration::from_secs(5),
    };

    #[derive(Clone, Debug)]
    enum Event {
        Pass(u64),
        Good,
        Newer,
        Fetched,
        Failed,
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![
            (0..60_u64).prop_map(Event::Pass),
            Just(Event::Good),
            Just(Event::Newer),
            Just(Event::Fetched),
            Just(Event::Failed),
        ];
        prop::collection::vec(event, 0..60)
    }

    proptest! {
        #[test]
        fn attempts_are_apart_and_nothing_too_old_is_used(events in events()) {
            let start = Instant::now();
            let secs = |now: Instant| now.duration_since(start).as_secs();
            let mut now = start;
            let mut freshness = Freshness::new(TERMS);
            let mut running = None;
            let mut ended = None;
            for event in events {
                let need = match event {
                    Event::Pass(secs) => { now += Duration::from_secs(secs); continue }
                    Event::Fetched | Event::Failed if running.is_none() => continue,
                    Event::Fetched | Event::Failed => {
                        let fetched = matches!(event, Event::Fetched).then(|| Arc::new(secs(now)));
                        freshness.ended(fetched, now);
                        (running, ended) = (None, Some(secs(now)));
                        continue;
                    }
                    Event::Good | Event::Newer => event,
                };
                let last = freshness.current.as_ref().map(|(current, _)| current.clone());
                let need = match (&need, &last) {
                    (Event::Newer, Some(last)) => Need::Newer(last),
                    _ => Need::Good,
                };
                let plan = freshness.plan(&need, now);
                if let Plan::Fetch | Plan::UseAndFetch(_) = &plan {
                    prop_assert!(running.is_none_or(|since| secs(now) - since >= 5), "two attempts at a time");
                    prop_assert!(running.is_some() || ended.is_none_or(|end| secs(now) - end >= 10), "too soon");
                    running = Some(secs(now));
                }
                match plan {
                    Plan::Use(at) | Plan::UseAndFetch(at) => prop_assert!(secs(now) - *at < 300, "too old"),
                    Plan::Wait => prop_assert!(running.is_some()),
                    Plan::Unavailable => {
                        prop_assert!(last.is_none_or(|at| secs(now) - *at >= 300));
                        prop_assert!(ended.is_some_and(|end| secs(now) - end < 10));
                    }
                    Plan::Fetch => {}
                }
            }
        }
    }

    #[test]
    fn what_is_past_its_refresh_is_used_only_if_it_cannot_be_fetched() {
        let start = Instant::now();
        let at = |secs| start + Duration::from_secs(secs);
        let mut freshness = Freshness::new(TERMS);
        assert!(matches!(freshness.plan(&Need::Good, at(0)), Plan::Fetch));
        assert!(matches!(freshness.plan(&Need::Good, at(0)), Plan::Wait));
        freshness.ended(Some(Arc::new(1)), at(1));
        assert!(matches!(freshness.plan(&Need::Good, at(75)), Plan::Use(_)));
        assert!(matches!(freshness.plan(&Need::Good, at(80)), Plan::UseAndFetch(_)));
        freshness.ended(None, at(82));
        assert!(matches!(freshness.plan(&Need::Good, at(90)), Plan::Use(_)));
        assert!(matches!(freshness.plan(&Need::Good, at(101)), Plan::Fetch));
        freshness.ended(None, at(103));
        assert!(matches!(freshness.plan(&Need::Good, at(104)), Plan::Use(_)));
        assert!(matches!(freshness.plan(&Need::Good, at(301)), Plan::Fetch));
        freshness.ended(None, at(302));
        assert!(matches!(freshness.plan(&Need::Good, at(303)), Plan::Unavailable));
    }
}
