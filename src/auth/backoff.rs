//! Who fails to authenticate again and again waits longer and longer.
//!
//! Time is an argument. Invariants: no more sources are remembered than the limit says; who has not failed
//! more often than is allowed never waits; while a source waits no attempt of it is judged, and after the
//! wait one attempt at a time is.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use crate::{config::auth::Backoff as Settings, net::Peer};

/// Where attempts come from, as far as they are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Source {
    /// One address.
    V4(Ipv4Addr),
    /// The first 64 bits of an address: who has one address has 2^64 of them.
    V6(u64),
    /// A user of this machine, as far as the system tells which.
    Local(Option<u32>),
}

impl Source {
    /// `None` for clients in this process: their code need not guess.
    pub(super) fn of(peer: &Peer) -> Option<Source> {
        match peer {
            Peer::Tcp(address) => Some(match address.ip().to_canonical() {
                IpAddr::V4(address) => Source::V4(address),
                IpAddr::V6(address) => Source::V6((u128::from(address) >> 64) as u64),
            }),
            Peer::Unix { uid, .. } => Some(Source::Local(*uid)),
            Peer::Memory => None,
        }
    }
}

/// What is remembered of failures.
#[derive(Debug)]
pub(super) struct Backoff {
    settings: Settings,
    sources: HashMap<Source, Failures>,
    /// Sources in the order of their last failure.
    by_age: BTreeMap<u64, Source>,
    next_age: u64,
}

#[derive(Debug)]
struct Failures {
    count: u32,
    /// When they are forgotten.
    forgotten_at: Instant,
    /// The end of the wait. There is one as soon as there are too many failures.
    waits_until: Option<Instant>,
    /// The key in `by_age`.
    age: u64,
}

/// Time that an attempt after a wait has the field to itself. It is over earlier if the attempt fails.
const ATTEMPT_TIME: Duration = Duration::from_secs(5);

impl Backoff {
    pub(super) fn new(settings: Settings) -> Backoff {
        Backoff { settings, sources: HashMap::new(), by_age: BTreeMap::new(), next_age: 0 }
    }

    /// Follows other settings from now on; what has failed is still known.
    pub(super) fn set(&mut self, settings: Settings) {
        self.settings = settings;
        self.shrink();
    }

    /// Asks whether an attempt may be judged now. An error says how long the source still waits.
    pub(super) fn admit(&mut self, now: Instant, source: Source) -> Result<(), Duration> {
        if self.settings.failures_max == 0 {
            return Ok(());
        }
        let Some(failures) = self.sources.get_mut(&source) else { return Ok(()) };
        if failures.forgotten_at <= now {
            self.forget(source);
            return Ok(());
        }
        match &mut failures.waits_until {
            None => Ok(()),
            Some(until) if *until > now => Err(*until - now),
            // Others of the same source wait for the outcome, or many guesses could be made at once.
            Some(until) => {
                *until = now + ATTEMPT_TIME;
                Ok(())
            }
        }
    }

    /// An attempt has failed. Returns how long its source waits now, if it does.
    pub(super) fn fail(&mut self, now: Instant, source: Source) -> Option<Duration> {
        let settings = &self.settings;
        if settings.failures_max == 0 {
            return None;
        }
        let known = self.sources.get(&source).filter(|failures| failures.forgotten_at > now);
        let count = known.map_or(1, |failures| failures.count.saturating_add(1));
        let wait = count.checked_sub(settings.failures_max).map(|beyond| {
            let factor = 1_u32.checked_shl(beyond).unwrap_or(u32::MAX);
            settings.wait_min.saturating_mul(factor).min(settings.wait_max)
        });
        let age = self.next_age;
        self.next_age += 1;
        let failures = Failures {
            count,
            forgotten_at: now + wait.unwrap_or_default() + settings.window,
            waits_until: wait.map(|wait| now + wait),
            age,
        };
        if let Some(old) = self.sources.insert(source, failures) {
            self.by_age.remove(&old.age);
        }
        self.by_age.insert(age, source);
        self.shrink();
        wait
    }

    /// An attempt has succeeded: the source is not one that guesses.
    pub(super) fn forget(&mut self, source: Source) {
        if let Some(failures) = self.sources.remove(&source) {
            self.by_age.remove(&failures.age);
        }
    }

    /// Forgets the oldest until there is room.
    fn shrink(&mut self) {
        while self.sources.len() > self.settings.addresses_max {
            let Some((_, source)) = self.by_age.pop_first() else { return };
            self.sources.remove(&source);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::prelude::*;

    use super::*;

    fn settings() -> Settings {
        Settings {
            failures_max: 3,
            window: Duration::from_secs(100),
            wait_min: Duration::from_secs(2),
            wait_max: Duration::from_secs(10),
            addresses_max: 4,
        }
    }

    /// An arbitrary moment, from which the tests count.
    #[expect(clippy::disallowed_methods, reason = "the type has no other beginning")]
    fn start() -> Instant {
        Instant::now()
    }

    const ONE: Source = Source::V6(1);

    #[test]
    fn waits_double_up_to_the_longest_and_a_success_forgives() {
        let (mut backoff, now) = (Backoff::new(settings()), start());
        let waits: Vec<_> = (0..7).map(|_| backoff.fail(now, ONE).map(|wait| wait.as_secs())).collect();
        assert_eq!(waits, [None, None, Some(2), Some(4), Some(8), Some(10), Some(10)]);
        assert_eq!(backoff.admit(now, ONE), Err(Duration::from_secs(10)));
        backoff.forget(ONE);
        assert_eq!(backoff.admit(now, ONE), Ok(()));
        assert_eq!(backoff.fail(now, ONE), None);
    }

    #[test]
    fn one_attempt_at_a_time_is_judged_after_a_wait() {
        let (mut backoff, now) = (Backoff::new(settings()), start());
        for _ in 0..3 {
            backoff.fail(now, ONE);
        }
        let later = now + Duration::from_secs(2);
        assert_eq!(backoff.admit(later, ONE), Ok(()));
        assert_eq!(backoff.admit(later, ONE), Err(ATTEMPT_TIME));
        assert_eq!(backoff.fail(later, ONE), Some(Duration::from_secs(4)));
    }

    #[test]
    fn failures_are_forgotten_after_the_window_and_none_are_counted_when_switched_off() {
        let (mut backoff, now) = (Backoff::new(settings()), start());
        backoff.fail(now, ONE);
        backoff.fail(now, ONE);
        assert_eq!(backoff.fail(now + Duration::from_secs(100), ONE), None);
        let mut off = Backoff::new(Settings { failures_max: 0, ..settings() });
        assert!((0..100).all(|_| off.fail(now, ONE).is_none() && off.admit(now, ONE).is_ok()));
    }

    #[test]
    fn addresses_count_together_that_belong_to_one_network() {
        let source = |address: &str| {
            let address: IpAddr = address.parse().unwrap();
            Source::of(&Peer::Tcp(SocketAddr::new(address, 1)))
        };
        assert_eq!(source("2001:db8::1"), source("2001:db8::ffff:1"));
        assert_ne!(source("2001:db8::1"), source("2001:db8:0:1::1"));
        assert_ne!(source("10.0.0.1"), source("10.0.0.2"));
        assert_eq!(source("::ffff:10.0.0.1"), source("10.0.0.1"));
        assert_eq!(Source::of(&Peer::Memory), None);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Attempt,
        Success,
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = (u64, Step)> {
        let step = prop_oneof![
            6 => Just(Step::Attempt),
            1 => Just(Step::Success),
            3 => (0..130_u64).prop_map(Step::Wait),
        ];
        (0..6_u64, step)
    }

    proptest! {
        /// Whatever happens: the table is bounded, few failures are free, and nobody waits longer than the
        /// longest wait.
        #[test]
        fn the_rules_hold_in_any_order(steps in prop::collection::vec(step(), 0..200)) {
            let mut backoff = Backoff::new(settings());
            let mut now = start();
            let mut in_a_row: HashMap<u64, u32> = HashMap::new();
            for (who, step) in steps {
                let source = Source::V6(who);
                match step {
                    Step::Attempt => match backoff.admit(now, source) {
                        Ok(()) => {
                            let failures = in_a_row.entry(who).or_default();
                            *failures += 1;
                            let wait = backoff.fail(now, source);
                            prop_assert!(*failures >= 3 || wait.is_none());
                            prop_assert!(wait.is_none_or(|wait| wait >= settings().wait_min));
                        }
                        Err(wait) => {
                            prop_assert!(in_a_row.get(&who).is_some_and(|failures| *failures >= 3));
                            prop_assert!(wait <= settings().wait_max.max(ATTEMPT_TIME));
                        }
                    },
                    Step::Success => {
                        if backoff.admit(now, source).is_ok() {
                            backoff.forget(source);
                            in_a_row.remove(&who);
                        }
                    }
                    Step::Wait(secs) => now += Duration::from_secs(secs),
                }
                prop_assert!(backoff.sources.len() <= settings().addresses_max);
                prop_assert_eq!(backoff.sources.len(), backoff.by_age.len());
            }
        }
    }
}
