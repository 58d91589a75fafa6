//! Answers that are remembered, up to a number of them and for a time. Pure: the time is an argument.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// What an answer is remembered by: a keyed hash of the question.
pub(super) type Key = [u8; 32];

/// Answers by their questions. When there are too many, the one goes that was remembered first.
#[derive(Debug)]
pub(super) struct Cache<T> {
    entries_max: usize,
    entries: BTreeMap<Key, Entry<T>>,
    /// The questions in the order in which they were asked.
    order: BTreeMap<u64, Key>,
    next: u64,
}

#[derive(Debug)]
struct Entry<T> {
    answer: T,
    place: u64,
    lifetime: Lifetime,
}

/// How long an answer counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lifetime {
    /// Until then it counts.
    pub(super) fresh_until: Instant,
    /// Until then it counts if no newer one can be had.
    pub(super) stale_until: Instant,
}

/// What is remembered of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found<T> {
    /// The answer.
    Fresh(T),
    /// An answer for want of a newer one.
    Stale(T),
    Nothing,
}

impl Lifetime {
    /// Of an answer that is given now and ends after `ends_after` by itself.
    pub(super) fn new(
        now: Instant,
        fresh: Duration,
        stale: Duration,
        ends_after: Option<Duration>,
    ) -> Lifetime {
        let fresh = ends_after.map_or(fresh, |end| fresh.min(end));
        let stale = fresh.saturating_add(stale);
        let stale = ends_after.map_or(stale, |end| stale.min(end));
        Lifetime { fresh_until: now + fresh, stale_until: now + stale }
    }
}

impl<T: Clone> Cache<T> {
    pub(super) fn new(entries_max: usize) -> Cache<T> {
        Cache { entries_max, entries: BTreeMap::new(), order: BTreeMap::new(), next: 0 }
    }

    pub(super) fn find(&mut self, key: &Key, now: Instant) -> Found<T> {
        let Some(entry) = self.entries.get(key) else { return Found::Nothing };
        if now < entry.lifetime.fresh_until {
            return Found::Fresh(entry.answer.clone());
        }
        if now < entry.lifetime.stale_until {
            return Found::Stale(entry.answer.clone());
        }
        self.forget(key);
        Found::Nothing
    }

    /// Remembers an answer in place of an earlier one.
    pub(super) fn remember(&mut self, key: Key, answer: T, lifetime: Lifetime, now: Instant) {
        self.forget(&key);
        if self.entries_max == 0 || lifetime.stale_until <= now {
            return;
        }
        while self.entries.len() >= self.entries_max {
            let Some((_, oldest)) = self.order.pop_first() else { break };
            self.entries.remove(&oldest);
        }
        self.order.insert(self.next, key);
        self.entries.insert(key, Entry { answer, place: self.next, lifetime });
        self.next += 1;
    }

    fn forget(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.order.remove(&entry.place);
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a moment to count from")]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::{Cache, Found, Key, Lifetime};

    fn key(number: u8) -> Key {
        [number; 32]
    }

    #[derive(Clone, Debug)]
    enum Event {
        Pass(u64),
        Find(u8),
        Remember { key: u8, answer: u32, fresh: u64, stale: u64, ends_after: Option<u64> },
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let remember = (0..8_u8, any::<u32>(), 0..20_u64, 0..20_u64, prop::option::of(0..30_u64)).prop_map(
            |(key, answer, fresh, stale, ends_after)| Event::Remember {
                key,
                answer,
                fresh,
                stale,
                ends_after,
            },
        );
        let event = prop_oneof![(0..8_u64).prop_map(Event::Pass), (0..8_u8).prop_map(Event::Find), remember];
        prop::collection::vec(event, 0..100)
    }

    proptest! {
        /// Against a list that is searched from its start.
        #[test]
        fn finds_the_last_answer_that_still_counts_and_never_more_than_allowed(events in events()) {
            let start = Instant::now();
            let mut now = 0;
            let mut cache = Cache::new(5);
            let mut all: Vec<(u8, u32, u64, u64)> = Vec::new();
            for event in events {
                let instant = start + Duration::from_secs(now);
                match event {
                    Event::Pass(secs) => now += secs,
                    Event::Remember { key: number, answer, fresh, stale, ends_after } => {
                        let secs = Duration::from_secs;
                        let lifetime = Lifetime::new(instant, secs(fresh), secs(stale), ends_after.map(secs));
                        cache.remember(key(number), answer, lifetime, instant);
                        let end = ends_after.unwrap_or(u64::MAX);
                        let fresh = fresh.min(end);
                        all.retain(|(other, ..)| *other != number);
                        if (fresh + stale).min(end) > 0 {
                            if all.len() == 5 {
                                all.remove(0);
                            }
                            all.push((number, answer, now + fresh, now + (fresh + stale).min(end)));
                        }
                    }
                    Event::Find(number) => {
                        let expected = all.iter().find(|(other, ..)| *other == number);
                        match (cache.find(&key(number), instant), expected) {
                            (Found::Fresh(found), Some((_, answer, fresh, _))) => {
                                prop_assert!(found == *answer && now < *fresh);
                            }
                            (Found::Stale(found), Some((_, answer, fresh, stale))) => {
                                prop_assert!(found == *answer && now >= *fresh && now < *stale);
                            }
                            (Found::Nothing, Some((_, _, _, stale))) => prop_assert!(now >= *stale),
                            (found, None) => prop_assert_eq!(found, Found::Nothing),
                        }
                        all.retain(|(other, _, _, stale)| *other != number || now < *stale);
                    }
                }
                prop_assert!(cache.entries.len() <= 5);
                prop_assert_eq!(cache.entries.len(), cache.order.len());
            }
        }
    }
}
