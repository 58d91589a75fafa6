//! When messages are due: a schedule that does not depend on how fast the broker answers.
//!
//! A generator that waits for answers before it sends again asks less of a slow broker, and leaves the waiting
//! out of what it measures. So the times are fixed beforehand, and latency counts from them.

/// How the gaps between two arrivals are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Arrivals {
    /// Independent arrivals, as from many clients that know nothing of each other
    Poisson,
    /// Equal gaps
    Constant,
}

impl Arrivals {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Poisson => "poisson",
            Self::Constant => "constant",
        }
    }
}

/// The due times of one sender, in nanoseconds from the start, without end.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    gap_ns: f64,
    arrivals: Arrivals,
    random: Random,
    /// The time of the next arrival. Kept as a fraction, so that rounding does not change the rate.
    next_ns: f64,
}

impl Schedule {
    /// The part of sender `index` of `senders` in `rate_per_sec` arrivals.
    ///
    /// Equal gaps begin at different times, so that the senders together have equal gaps too.
    pub(super) fn new(arrivals: Arrivals, rate_per_sec: f64, index: u32, senders: u32, seed: u64) -> Self {
        let gap_ns = 1e9 * f64::from(senders) / rate_per_sec;
        let mut random = Random::new(seed ^ u64::from(index).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let next_ns = match arrivals {
            Arrivals::Poisson => random.exponential() * gap_ns,
            Arrivals::Constant => gap_ns * f64::from(index) / f64::from(senders),
        };
        Self { gap_ns, arrivals, random, next_ns }
    }

    /// When the next arrival is due.
    pub(super) fn due_ns(&self) -> u64 {
        self.next_ns as u64
    }

    /// Goes on to the arrival after this one.
    pub(super) fn advance(&mut self) {
        self.next_ns += match self.arrivals {
            Arrivals::Poisson => self.random.exponential() * self.gap_ns,
            Arrivals::Constant => self.gap_ns,
        };
    }

    /// How many arrivals from the next one on are due before `end_ns`, at most `count_max`.
    pub(super) fn count_before(&self, end_ns: u64, count_max: u64) -> u64 {
        let mut rest = self.clone();
        let mut count = 0;
        while count < count_max && rest.due_ns() < end_ns {
            count += 1;
            rest.advance();
        }
        count
    }
}

/// SplitMix64: small, fast, and the same everywhere for a seed.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Exponentially distributed with mean 1.
    fn exponential(&mut self) -> f64 {
        // 53 bits, and never 0, of which there is no logarithm.
        let uniform = ((self.next_u64() >> 11) + 1) as f64 / (1_u64 << 53) as f64;
        -uniform.ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(mut schedule: Schedule, count: usize) -> Vec<u64> {
        let mut times = Vec::with_capacity(count);
        for _ in 0..count {
            times.push(schedule.due_ns());
            schedule.advance();
        }
        times
    }

    #[test]
    fn constant_arrivals_of_all_senders_have_equal_gaps() {
        let mut all: Vec<u64> = (0..4)
            .flat_map(|index| times(Schedule::new(Arrivals::Constant, 1000.0, index, 4, 1), 100))
            .collect();
        all.sort_unstable();
        assert_eq!(all[..3], [0, 1_000_000, 2_000_000]);
        assert!(all.windows(2).all(|pair| pair[1] - pair[0] == 1_000_000));
    }

    #[test]
    fn poisson_arrivals_keep_the_rate_and_spread_as_far_as_the_mean() {
        let times = times(Schedule::new(Arrivals::Poisson, 1000.0, 3, 4, 7), 20_000);
        let gaps: Vec<f64> = times.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let deviation = (gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64).sqrt();
        assert!((mean / 4e6 - 1.0).abs() < 0.03, "{mean}");
        assert!((deviation / mean - 1.0).abs() < 0.05, "{deviation}");
    }

    #[test]
    fn a_seed_repeats_a_schedule_and_senders_differ() {
        let of = |index, seed| times(Schedule::new(Arrivals::Poisson, 10.0, index, 2, seed), 50);
        assert_eq!(of(0, 5), of(0, 5));
        assert_ne!(of(0, 5), of(1, 5));
        assert_ne!(of(0, 5), of(0, 6));
    }

    #[test]
    fn what_is_left_of_a_schedule_is_counted() {
        let mut schedule = Schedule::new(Arrivals::Constant, 1000.0, 0, 1, 0);
        assert_eq!(schedule.count_before(10_000_000, u64::MAX), 10);
        schedule.advance();
        assert_eq!(schedule.count_before(10_000_000, u64::MAX), 9);
        assert_eq!(schedule.count_before(10_000_000, 4), 4);
    }
}
