//! Rates: how many messages and bytes may pass in a time, for one client or for all that share a user name or an
//! address.
//!
//! A meter is the generic cell rate algorithm in one word: the moment at which all that passed would have
//! passed at the agreed rate. It lies in the future where more passed than that, and how far says how long to
//! wait. Those that share a meter change it from several threads.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::time::Timestamp;

/// The rates that hold for one client, user or address; zero is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// PUBLISH from clients, in a second.
    pub messages_in_per_sec: u64,
    /// Their bytes: topics, properties and payloads.
    pub bytes_in_per_sec: u64,
    /// PUBLISH to clients, in a second.
    pub messages_out_per_sec: u64,
    /// Their bytes.
    pub bytes_out_per_sec: u64,
    /// How many seconds' worth may pass at once after a silence.
    pub burst_secs: u64,
}

/// What one client, user or address may let pass, and what it has.
#[derive(Debug, Default)]
pub struct Allowance {
    messages_in: Meter,
    bytes_in: Meter,
    messages_out: Meter,
    bytes_out: Meter,
}

/// One rate and its account.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    /// When all that passed would have passed at the rate, in nanoseconds since the epoch.
    paid_until: AtomicU64,
    /// Nanoseconds that one unit takes at the rate; 0 is no limit.
    unit_nanos: AtomicU64,
    /// Nanoseconds by which `paid_until` may be ahead.
    burst_nanos: AtomicU64,
}

const NANOS_PER_SEC: u64 = 1_000_000_000;
const NANOS_PER_MILLI: u64 = 1_000_000;

impl Rates {
    /// Whether nothing is limited.
    pub fn is_unlimited(&self) -> bool {
        let Rates { messages_in_per_sec, bytes_in_per_sec, messages_out_per_sec, bytes_out_per_sec, .. } =
            *self;
        messages_in_per_sec | bytes_in_per_sec | messages_out_per_sec | bytes_out_per_sec == 0
    }
}

impl Allowance {
    /// Nothing has passed yet.
    pub fn new(rates: &Rates) -> Allowance {
        let allowance = Allowance::default();
        allowance.set(rates);
        allowance
    }

    /// From now on these rates hold.
    pub fn set(&self, rates: &Rates) {
        self.messages_in.set(rates.messages_in_per_sec, rates.burst_secs);
        self.bytes_in.set(rates.bytes_in_per_sec, rates.burst_secs);
        self.messages_out.set(rates.messages_out_per_sec, rates.burst_secs);
        self.bytes_out.set(rates.bytes_out_per_sec, rates.burst_secs);
    }

    /// Milliseconds until a message from a client would be within the rates, and 0 if it is.
    pub fn wait_in(&self, now: Timestamp, bytes: usize) -> u64 {
        self.messages_in.wait(now, 1).max(self.bytes_in.wait(now, bytes as u64))
    }

    /// A message has come from a client.
    pub fn charge_in(&self, now: Timestamp, bytes: usize) {
        self.messages_in.charge(now, 1);
        self.bytes_in.charge(now, bytes as u64);
    }

    /// Milliseconds until another message to a client is within the rates, and 0 if it is.
    pub fn wait_out(&self, now: Timestamp) -> u64 {
        self.messages_out.wait(now, 0).max(self.bytes_out.wait(now, 0))
    }

    /// A message goes to a client.
    pub fn charge_out(&self, now: Timestamp, bytes: usize) {
        self.messages_out.charge(now, 1);
        self.bytes_out.charge(now, bytes as u64);
    }
}

impl Meter {
    fn set(&self, per_sec: u64, burst_secs: u64) {
        let unit_nanos = NANOS_PER_SEC.checked_div(per_sec).map_or(0, |nanos| nanos.max(1));
        self.unit_nanos.store(unit_nanos, Ordering::Relaxed);
        self.burst_nanos.store(burst_secs.saturating_mul(NANOS_PER_SEC), Ordering::Relaxed);
    }

    /// So many units in a minute, all of which may pass at once after a silence.
    pub(crate) fn set_per_minute(&self, per_minute: u64) {
        let unit_nanos = (60 * NANOS_PER_SEC).checked_div(per_minute).map_or(0, |nanos| nanos.max(1));
        self.unit_nanos.store(unit_nanos, Ordering::Relaxed);
        self.burst_nanos.store(60 * NANOS_PER_SEC, Ordering::Relaxed);
    }

    /// Whether nothing that passed counts any more.
    pub(crate) fn is_settled(&self, now: Timestamp) -> bool {
        self.paid_until.load(Ordering::Relaxed) <= now.as_millis().saturating_mul(NANOS_PER_MILLI)
    }

    /// Milliseconds until this many units more would be within the rate.
    pub(crate) fn wait(&self, now: Timestamp, units: u64) -> u64 {
        let unit_nanos = self.unit_nanos.load(Ordering::Relaxed);
        if unit_nanos == 0 {
            return 0;
        }
        let now = now.as_millis().saturating_mul(NANOS_PER_MILLI);
        let paid_until = self.paid_until.load(Ordering::Relaxed).max(now);
        let ahead = (paid_until - now).saturating_add(units.saturating_mul(unit_nanos));
        // Whoever is within the burst by less than a unit may send that unit.
        let burst = self.burst_nanos.load(Ordering::Relaxed).max(unit_nanos);
        ahead.saturating_sub(burst).div_ceil(NANOS_PER_MILLI)
    }

    pub(crate) fn charge(&self, now: Timestamp, units: u64) {
        let unit_nanos = self.unit_nanos.load(Ordering::Relaxed);
        if unit_nanos == 0 {
            return;
        }
        let now = now.as_millis().saturating_mul(NANOS_PER_MILLI);
        let cost = units.saturating_mul(unit_nanos);
        let pay = |paid_until: u64| Some(paid_until.max(now).saturating_add(cost));
        let _ = self.paid_until.fetch_update(Ordering::Relaxed, Ordering::Relaxed, pay);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rates(per_sec: u64, burst_secs: u64) -> Rates {
        Rates { messages_in_per_sec: per_sec, burst_secs, ..Rates::default() }
    }

    #[test]
    fn without_a_rate_nothing_waits() {
        let allowance = Allowance::new(&Rates::default());
        let now = Timestamp::from_millis(1);
        allowance.charge_in(now, usize::MAX);
        assert_eq!((allowance.wait_in(now, usize::MAX), allowance.wait_out(now)), (0, 0));
    }

    #[test]
    fn a_message_larger_than_the_burst_passes_when_its_bytes_are_paid() {
        let allowance = Allowance::new(&Rates { bytes_in_per_sec: 1000, burst_secs: 1, ..Rates::default() });
        assert_eq!(allowance.wait_in(Timestamp::from_millis(0), 3000), 2000);
    }

    proptest! {
        /// Whoever waits as told is never above the rate over any span, but for the burst; and never below it
        /// while it always has something to send.
        #[test]
        fn who_waits_as_told_keeps_the_rate(per_sec in 1..5000u64, burst_secs in 0..4u64, gaps in prop::collection::vec(0..500u64, 1..400)) {
            let allowance = Allowance::new(&rates(per_sec, burst_secs));
            let start = 1_000_000;
            let (mut now, mut sent, mut idle) = (start, 0u64, 0u64);
            for gap in gaps {
                now += gap;
                let wait = allowance.wait_in(Timestamp::from_millis(now), 0);
                idle += gap;
                now += wait;
                prop_assert_eq!(allowance.wait_in(Timestamp::from_millis(now), 0), 0);
                allowance.charge_in(Timestamp::from_millis(now), 0);
                sent += 1;
                let unit_nanos = (NANOS_PER_SEC / per_sec).max(1);
                let free = (burst_secs * NANOS_PER_SEC).max(unit_nanos) / unit_nanos;
                let earned = (now - start) * NANOS_PER_MILLI / unit_nanos;
                prop_assert!(sent <= free + earned + 1, "{} of {} and {}", sent, free, earned);
            }
            // At most a millisecond is lost by rounding each time.
            let owed = (now - start).saturating_sub(idle);
            let unit_nanos = (NANOS_PER_SEC / per_sec).max(1);
            prop_assert!(owed <= sent * unit_nanos / NANOS_PER_MILLI + sent + 1);
        }
    }
}
