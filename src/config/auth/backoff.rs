//! How long an address waits that fails to authenticate again and again.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::{check::Checker, raw::integer, unit::Integer};

/// How failed attempts of an address are held off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Failures that an address may have before it waits; 0 lets nobody wait.
    pub failures_max: u32,
    /// Failures are forgotten when none has come for this long.
    pub window: Duration,
    /// The first time to wait; it doubles with each failure that follows.
    pub wait_min: Duration,
    /// The longest time to wait.
    pub wait_max: Duration,
    /// Addresses that are remembered; beyond, those are forgotten whose last failure is the oldest.
    pub addresses_max: usize,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            failures_max: 10,
            window: Duration::from_secs(300),
            wait_min: Duration::from_secs(1),
            wait_max: Duration::from_secs(60),
            addresses_max: 100_000,
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawBackoff {
    failures_max: Integer,
    window_secs: Integer,
    wait_secs_min: Integer,
    wait_secs_max: Integer,
    addresses_max: Integer,
}

impl Checker<'_> {
    pub(super) fn backoff(&mut self, raw: &RawBackoff) -> Backoff {
        let key = |name: &str| format!("auth.backoff.{name}");
        let backoff = Backoff {
            failures_max: self.number(&key("failures_max"), raw.failures_max, 0..=1_000_000),
            window: self.seconds(&key("window_secs"), raw.window_secs, 1..=86_400),
            wait_min: self.seconds(&key("wait_secs_min"), raw.wait_secs_min, 1..=86_400),
            wait_max: self.seconds(&key("wait_secs_max"), raw.wait_secs_max, 1..=86_400),
            addresses_max: self.number(&key("addresses_max"), raw.addresses_max, 1..=10_000_000),
        };
        if backoff.wait_max < backoff.wait_min {
            self.refuse(&key("wait_secs_max"), "is less than wait_secs_min");
        }
        backoff
    }
}

impl Default for RawBackoff {
    fn default() -> Self {
        Self::from(&Backoff::default())
    }
}

impl From<&Backoff> for RawBackoff {
    fn from(backoff: &Backoff) -> Self {
        Self {
            failures_max: integer(backoff.failures_max),
            window_secs: integer(backoff.window.as_secs()),
            wait_secs_min: integer(backoff.wait_min.as_secs()),
            wait_secs_max: integer(backoff.wait_max.as_secs()),
            addresses_max: integer(backoff.addresses_max),
        }
    }
}
