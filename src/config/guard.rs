//! The sections `[guard]` and `[audit]`: as written, and checked.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{
    allowance::Rates,
    guard::{GuardLimits, PartyLimits},
};

use super::{
    Audit,
    check::Checker,
    raw::{integer, size},
    unit::{Integer, Size},
};

/// Who is kept out, and how much each may take.
#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawGuard {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bans_file: Option<PathBuf>,
    pub(super) memory_bytes_max: Size,
    pub(super) client: RawParty,
    pub(super) user: RawParty,
    pub(super) address: RawParty,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawParty {
    /// A client identifier has one connection: there is no such key for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    connections_max: Option<Integer>,
    connects_per_minute_max: Integer,
    ban_secs: Integer,
    messages_in_per_sec_max: Integer,
    bytes_in_per_sec_max: Size,
    messages_out_per_sec_max: Integer,
    bytes_out_per_sec_max: Size,
    burst_secs: Integer,
}

/// Where what matters for security is written.
#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawAudit {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) file: Option<PathBuf>,
    pub(super) file_bytes_max: Size,
    pub(super) files_max: Integer,
    pub(super) journald: bool,
}

const COUNT_MAX: i64 = 1_000_000_000;
const BYTES_MAX: i64 = 1 << 44;
/// The default of `burst_secs`.
const BURST_SECS: u64 = 2;

impl Default for RawGuard {
    fn default() -> Self {
        let client = RawParty::of_client(&unlimited());
        let (user, address) = (RawParty::default(), RawParty::default());
        Self { bans_file: None, memory_bytes_max: Size(0), client, user, address }
    }
}

impl Default for RawParty {
    fn default() -> Self {
        Self::of_client(&unlimited())
    }
}

impl Default for RawAudit {
    fn default() -> Self {
        Self::from(&Audit::default())
    }
}

/// The limits of a party that nobody has limited.
pub(super) fn unlimited() -> PartyLimits {
    PartyLimits { rates: Rates { burst_secs: BURST_SECS, ..Rates::default() }, ..PartyLimits::default() }
}

/// The limits of all parties where nothing is written.
pub(super) fn no_limits() -> GuardLimits {
    GuardLimits { client: unlimited(), user: unlimited(), address: unlimited() }
}

impl From<&PartyLimits> for RawParty {
    fn from(limits: &PartyLimits) -> Self {
        let PartyLimits { connections_max, connects_per_minute_max, ban_secs, rates } = limits;
        Self {
            connections_max: Some(integer(*connections_max)),
            connects_per_minute_max: integer(*connects_per_minute_max),
            ban_secs: integer(*ban_secs),
            messages_in_per_sec_max: integer(rates.messages_in_per_sec),
            bytes_in_per_sec_max: size(rates.bytes_in_per_sec),
            messages_out_per_sec_max: integer(rates.messages_out_per_sec),
            bytes_out_per_sec_max: size(rates.bytes_out_per_sec),
            burst_secs: integer(rates.burst_secs),
        }
    }
}

impl RawParty {
    /// The same for a client identifier.
    pub(super) fn of_client(limits: &PartyLimits) -> Self {
        Self { connections_max: None, ..Self::from(limits) }
    }
}

impl From<&Audit> for RawAudit {
    fn from(audit: &Audit) -> Self {
        Self {
            file: audit.file.clone(),
            file_bytes_max: size(audit.file_bytes_max),
            files_max: integer(audit.files_max),
            journald: audit.journald,
        }
    }
}

impl Checker<'_> {
    pub(super) fn guard(&mut self, raw: &RawGuard) -> GuardLimits {
        if raw.client.connections_max.is_some() {
            self.refuse("guard.client.connections_max", "is no key: a client identifier has one connection");
        }
        GuardLimits {
            client: self.party("guard.client", &raw.client),
            user: self.party("guard.user", &raw.user),
            address: self.party("guard.address", &raw.address),
        }
    }

    fn party(&mut self, key: &str, raw: &RawParty) -> PartyLimits {
        // The name of a key is that of its field, once.
        macro_rules! check {
            ($how:ident, $field:ident, $range:expr) => {
                self.$how(&format!("{key}.{}", stringify!($field)), raw.$field, $range)
            };
        }
        PartyLimits {
            connections_max: self.number(
                &format!("{key}.connections_max"),
                raw.connections_max.unwrap_or(Integer(0)),
                0..=COUNT_MAX,
            ),
            connects_per_minute_max: check!(number, connects_per_minute_max, 0..=COUNT_MAX),
            ban_secs: check!(number, ban_secs, 0..=31_536_000),
            rates: Rates {
                messages_in_per_sec: check!(number, messages_in_per_sec_max, 0..=COUNT_MAX),
                bytes_in_per_sec: check!(bytes, bytes_in_per_sec_max, 0..=BYTES_MAX),
                messages_out_per_sec: check!(number, messages_out_per_sec_max, 0..=COUNT_MAX),
                bytes_out_per_sec: check!(bytes, bytes_out_per_sec_max, 0..=BYTES_MAX),
                burst_secs: check!(number, burst_secs, 1..=3600),
            },
        }
    }

    pub(super) fn memory(&mut self, raw: Size) -> usize {
        let bytes = self.bytes("guard.memory_bytes_max", raw, 0..=BYTES_MAX);
        if (1..MEMORY_BYTES_MIN).contains(&bytes) {
            let message = format!(
                "is less than the broker needs; allowed: 0 (no limit), or at least {MEMORY_BYTES_MIN}"
            );
            self.refuse("guard.memory_bytes_max", message);
        }
        bytes
    }

    pub(super) fn audit(&mut self, raw: &RawAudit) -> Audit {
        Audit {
            file: raw.file.clone(),
            file_bytes_max: self.bytes("audit.file_bytes_max", raw.file_bytes_max, 4096..=BYTES_MAX),
            files_max: self.number("audit.files_max", raw.files_max, 1..=1000),
            journald: raw.journald,
        }
    }
}

/// The least budget that leaves room for a broker that does something.
const MEMORY_BYTES_MIN: usize = 32 << 20;
