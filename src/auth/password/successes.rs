//! Passwords that were right a short while ago.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

/// What stands for a user, a password and the hash that it matched: a keyed hash of them.
pub(super) type Proof = [u8; 32];

/// Recent successes: a limited number, each for a limited time.
///
/// Invariant: `order` has exactly the keys of `until`, those that end first in front.
#[derive(Debug)]
pub(super) struct Successes {
    entries_max: usize,
    time: Duration,
    until: HashMap<Proof, Instant>,
    order: VecDeque<Proof>,
}

impl Successes {
    pub(super) fn new(entries_max: usize, time: Duration) -> Successes {
        Successes { entries_max, time, until: HashMap::new(), order: VecDeque::new() }
    }

    /// Whether this was right not long ago.
    pub(super) fn has(&self, now: Instant, proof: &Proof) -> bool {
        self.until.get(proof).is_some_and(|until| *until > now)
    }

    /// It is right now. One that is known already does not last longer by it: now and then a password is
    /// checked in earnest.
    pub(super) fn insert(&mut self, now: Instant, proof: Proof) {
        if self.entries_max == 0 || self.has(now, &proof) {
            return;
        }
        while let Some(first) = self.order.front() {
            let is_over = self.until.get(first).is_none_or(|until| *until <= now);
            if !is_over && self.until.len() < self.entries_max {
                break;
            }
            self.until.remove(first);
            self.order.pop_front();
        }
        self.until.insert(proof, now + self.time);
        self.order.push_back(proof);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// What is known was inserted within the time; as long as nothing is pushed out, all of that is known.
        #[test]
        fn successes_are_known_for_their_time(
            entries_max in 0..5_usize,
            steps in prop::collection::vec((0..6_u8, 0..5_u64), 0..100),
        ) {
            #[expect(clippy::disallowed_methods, reason = "the type has no other beginning")]
            let mut now = Instant::now();
            let time = Duration::from_secs(10);
            let mut successes = Successes::new(entries_max, time);
            let mut since: HashMap<u8, Instant> = HashMap::new();
            for (who, secs) in steps {
                now += Duration::from_secs(secs);
                let known: Vec<u8> = (0..6).filter(|who| successes.has(now, &[*who; 32])).collect();
                prop_assert!(known.iter().all(|who| now - since[who] < time));
                prop_assert!(known.len() <= entries_max);
                if !known.contains(&who) {
                    since.insert(who, now);
                }
                successes.insert(now, [who; 32]);
                prop_assert_eq!(successes.has(now, &[who; 32]), entries_max > 0);
                prop_assert_eq!(successes.until.len(), successes.order.len());
            }
        }
    }
}
