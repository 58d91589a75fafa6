//! Memory that runs out: what the broker takes on less of, first what costs least.

use std::sync::atomic::{AtomicU8, Ordering};

/// How much of its memory the broker has used. Each level does what those before it do too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Strain {
    /// There is enough.
    #[default]
    None,
    /// Nine tenths are used: new connections are refused.
    Connections,
    /// Nineteen twentieths are used: QoS 0 for clients that read slowly is dropped.
    Transient,
    /// All of it is used: QoS 1 and 2 are refused.
    Messages,
}

/// The level of now, for all threads.
#[derive(Debug, Default)]
pub struct StrainGauge(AtomicU8);

impl Strain {
    /// The level when so much of so much is used; without a budget there is always enough.
    #[must_use]
    pub fn of(used_bytes: usize, budget_bytes: usize) -> Strain {
        let used = used_bytes as u128;
        let is_over = |twentieths: u128| budget_bytes > 0 && used * 20 >= budget_bytes as u128 * twentieths;
        match () {
            () if is_over(20) => Strain::Messages,
            () if is_over(19) => Strain::Transient,
            () if is_over(18) => Strain::Connections,
            () => Strain::None,
        }
    }
}

impl StrainGauge {
    /// The level of now.
    pub fn level(&self) -> Strain {
        match self.0.load(Ordering::Relaxed) {
            0 => Strain::None,
            1 => Strain::Connections,
            2 => Strain::Transient,
            _ => Strain::Messages,
        }
    }

    /// From now on this is the level. Returns the one before.
    pub fn set(&self, strain: Strain) -> Strain {
        let before = self.level();
        self.0.store(strain as u8, Ordering::Relaxed);
        before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_begin_where_the_reference_says() {
        for (used, strain) in [
            (0, Strain::None),
            (899, Strain::None),
            (900, Strain::Connections),
            (949, Strain::Connections),
            (950, Strain::Transient),
            (999, Strain::Transient),
            (1000, Strain::Messages),
            (usize::MAX, Strain::Messages),
        ] {
            assert_eq!(Strain::of(used, 1000), strain, "{used}");
            let gauge = StrainGauge::default();
            gauge.set(strain);
            assert_eq!(gauge.level(), strain);
        }
        assert_eq!(Strain::of(usize::MAX, 0), Strain::None);
    }
}
