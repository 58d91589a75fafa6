//! Why a connection could not be made or ended, in the words of the report.

use std::{collections::BTreeMap, fmt, io};

use crate::{
    cli::client::explain_io,
    codec::{ConnAckReturn, DecodeError, PacketKind, ReasonCode},
};

/// Different reasons that are counted by their own words; further ones are counted together.
const REASONS_MAX: usize = 32;

/// What went wrong with one connection.
#[derive(Debug)]
pub(super) enum Fault {
    /// The system's words.
    Io(String),
    /// TLS was refused by one of the sides.
    Tls(String),
    /// The answer to CONNECT.
    Refused(ConnAckReturn),
    /// The answer to SUBSCRIBE, as on the wire.
    SubscriptionRefused(u8),
    /// SUBACK grants less than was asked for.
    QoSReduced(u8),
    /// The broker allows less than the messages need.
    QoSUnsupported,
    RetainUnsupported,
    PacketTooLarge(u32),
    /// DISCONNECT came.
    Disconnected(ReasonCode),
    Closed,
    Malformed(DecodeError),
    /// A packet that has no place where it came.
    Unexpected(PacketKind),
    /// No answer to CONNECT in time.
    ConnectTimeout,
    /// No answer to PINGREQ in time.
    PingTimeout,
}

impl Fault {
    pub(super) fn io(error: &io::Error) -> Self {
        Self::Io(explain_io(error))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(words) => f.write_str(words),
            Self::Tls(words) => write!(f, "TLS: {words}"),
            Self::Refused(ConnAckReturn::V5(reason)) => write!(f, "CONNECT refused: {reason}"),
            Self::Refused(ConnAckReturn::V3(number)) => {
                write!(f, "CONNECT refused: {}", connack_name(*number))
            }
            Self::SubscriptionRefused(code) => match ReasonCode::from_u8(*code) {
                Some(reason) => write!(f, "SUBSCRIBE refused: {reason}"),
                None => write!(f, "SUBSCRIBE refused: 0x{code:02X}"),
            },
            Self::QoSReduced(qos) => write!(f, "SUBSCRIBE granted with QoS {qos} only"),
            Self::QoSUnsupported => f.write_str("the broker does not support this QoS"),
            Self::RetainUnsupported => f.write_str("the broker does not support retained messages"),
            Self::PacketTooLarge(max) => write!(f, "the broker takes packets of at most {max} bytes"),
            Self::Disconnected(reason) => write!(f, "DISCONNECT: {reason}"),
            Self::Closed => f.write_str("the broker closed the connection"),
            Self::Malformed(error) => write!(f, "the broker sent no MQTT: {error}"),
            Self::Unexpected(kind) => write!(f, "unexpected {kind}"),
            Self::ConnectTimeout => f.write_str("no CONNACK in time"),
            Self::PingTimeout => f.write_str("no PINGRESP in time"),
        }
    }
}

/// The names of MQTT 3.1.1, table 3.1.
fn connack_name(number: u8) -> &'static str {
    match number {
        1 => "unacceptable protocol version",
        2 => "identifier rejected",
        3 => "server unavailable",
        4 => "bad user name or password",
        5 => "not authorized",
        _ => "for an unknown reason",
    }
}

/// How often what was the reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(transparent)]
pub(super) struct Reasons(BTreeMap<String, u64>);

impl Reasons {
    pub(super) fn count(&mut self, reason: impl fmt::Display) {
        self.add(reason.to_string(), 1);
    }

    pub(super) fn merge(&mut self, other: Self) {
        for (reason, count) in other.0 {
            self.add(reason, count);
        }
    }

    pub(super) fn total(&self) -> u64 {
        self.0.values().sum()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(reason, &count)| (reason.as_str(), count))
    }

    fn add(&mut self, reason: String, count: u64) {
        let known = self.0.len() < REASONS_MAX || self.0.contains_key(&reason);
        let reason = if known { reason } else { "other reasons".into() };
        *self.0.entry(reason).or_default() += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_have_the_names_of_the_standard() {
        let texts = [
            (Fault::Refused(ConnAckReturn::V5(ReasonCode::NotAuthorized)), "CONNECT refused: Not authorized"),
            (Fault::Refused(ConnAckReturn::V3(4)), "CONNECT refused: bad user name or password"),
            (Fault::SubscriptionRefused(0x8F), "SUBSCRIBE refused: Topic Filter invalid"),
            (Fault::Disconnected(ReasonCode::ServerShuttingDown), "DISCONNECT: Server shutting down"),
        ];
        for (fault, text) in texts {
            assert_eq!(fault.to_string(), text);
        }
    }

    #[test]
    fn a_peer_that_invents_reasons_does_not_fill_the_report() {
        let mut reasons = Reasons::default();
        for number in 0..1000 {
            reasons.count(number);
        }
        assert_eq!(reasons.iter().count(), REASONS_MAX + 1);
        assert_eq!(reasons.total(), 1000);
    }
}
