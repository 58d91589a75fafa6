//! Distributions that are counted while the broker runs: how long things take, how large they are.

use std::sync::atomic::{AtomicU64, Ordering};

/// Buckets with a bound; what is above the last is in one more.
pub const BOUNDS: usize = 50;

/// How often values of each size came. Two buckets for each power of two: a quantile is right within half of itself.
/// Any thread may count and any may look; none waits.
#[derive(Debug)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS + 1],
    sum: AtomicU64,
}

/// What a histogram had at some moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    buckets: [u64; BOUNDS + 1],
    /// The sum of all values.
    pub sum: u64,
}

/// The largest value of a bucket: 1, 2, 3, 4, 6, 8, 12, 16 … 33,554,432.
#[must_use]
pub fn bound(bucket: usize) -> u64 {
    match (bucket / 2, bucket % 2) {
        (0, 0) => 1,
        (0, _) => 2,
        (power, 0) => 3 << (power - 1),
        (power, _) => 2 << power,
    }
}

/// The bucket of a value.
fn bucket_of(value: u64) -> usize {
    let below = value.saturating_sub(1);
    if below < 2 {
        return below as usize;
    }
    let power = below.ilog2();
    let is_upper_half = (below >> (power - 1)) & 1;
    (power as usize * 2 + is_upper_half as usize).min(BOUNDS)
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { buckets: [const { AtomicU64::new(0) }; BOUNDS + 1], sum: AtomicU64::new(0) }
    }
}

impl Histogram {
    /// Counts a value.
    pub fn record(&self, value: u64) {
        self.buckets[bucket_of(value)].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// What was counted so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let buckets = std::array::from_fn(|at| self.buckets[at].load(Ordering::Relaxed));
        Counts { buckets, sum: self.sum.load(Ordering::Relaxed) }
    }
}

impl Default for Counts {
    fn default() -> Self {
        Counts { buckets: [0; BOUNDS + 1], sum: 0 }
    }
}

impl Counts {
    /// What was counted since an earlier moment.
    #[must_use]
    pub fn since(&self, earlier: &Counts) -> Counts {
        let buckets = std::array::from_fn(|at| self.buckets[at].saturating_sub(earlier.buckets[at]));
        Counts { buckets, sum: self.sum.saturating_sub(earlier.sum) }
    }

    /// How many values there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// How many values there are up to each bound.
    pub fn cumulative(&self) -> impl Iterator<Item = (u64, u64)> {
        let counts = self.buckets[..BOUNDS].iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        });
        (0..BOUNDS).map(bound).zip(counts)
    }

    /// The value that this part of all, from 0 to 1, does not exceed: taken to be spread evenly in its bucket. 0 if
    /// there is none.
    #[must_use]
    pub fn quantile(&self, part: f64) -> u64 {
        let rank = (self.count() as f64 * part).ceil().max(1.0) as u64;
        let mut below = 0;
        for (at, count) in self.buckets.iter().enumerate() {
            if below + count >= rank && *count > 0 {
                let low = if at == 0 { 0 } else { bound(at - 1) };
                let high = if at == BOUNDS { low } else { bound(at) };
                return low + (high - low) * (rank - below) / count;
            }
            below += count;
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_value_is_in_the_bucket_that_its_bounds_say(value in 0..1_u64 << 30) {
            let bucket = bucket_of(value);
            prop_assert!(bucket == BOUNDS || value <= bound(bucket));
            prop_assert!(bucket == 0 || value > bound(bucket - 1));
        }

        #[test]
        fn a_quantile_is_right_within_half_of_itself(
            values in prop::collection::vec(1..10_000_000_u64, 1..300),
            part in 0.0..=1.0_f64,
        ) {
            let histogram = Histogram::default();
            values.iter().for_each(|value| histogram.record(*value));
            let mut sorted = values.clone();
            sorted.sort_unstable();
            let rank = ((values.len() as f64 * part).ceil() as usize).max(1);
            let exact = sorted[rank - 1] as f64;
            let found = histogram.counts().quantile(part) as f64;
            prop_assert!(found >= exact / 1.6 && found <= exact * 1.6 + 1.0, "{} for {}", found, exact);
            prop_assert_eq!(histogram.counts().count(), values.len() as u64);
            prop_assert_eq!(histogram.counts().sum, values.iter().sum::<u64>());
        }
    }

    #[test]
    fn what_was_counted_before_can_be_taken_away() {
        let histogram = Histogram::default();
        histogram.record(1_000_000);
        let before = histogram.counts();
        histogram.record(10);
        let since = histogram.counts().since(&before);
        assert_eq!((since.count(), since.sum), (1, 10));
        assert!(since.quantile(0.99) <= 12);
        assert_eq!(Counts::default().quantile(0.5), 0);
    }
}
