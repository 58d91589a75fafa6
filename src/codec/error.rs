//! Why bytes are not a packet, and the reason code to answer with.

use std::fmt;

use super::{PacketKind, PropertyId, ReasonCode, Version};

/// Bytes that the standard refuses: always the peer's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// Which packet; `None` if its type is none of the fifteen.
    pub packet: Option<PacketKind>,
    /// What is wrong.
    pub kind: DecodeErrorKind,
    /// The version that a broken CONNECT asked for, once known; `None` for other packets.
    pub version: Option<Version>,
}

/// What is wrong with a packet. Texts are names of fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeErrorKind {
    /// Packet type 0, or 15 before v5.
    ReservedPacketType(u8),
    /// Flags of the fixed header that are reserved. `[MQTT-2.1.3-1]`
    FixedHeaderFlags {
        /// The flags as they arrived.
        found: u8,
        /// The only ones that the packet type may have.
        required: u8,
    },
    /// Both QoS bits of a PUBLISH are set. `[MQTT-3.3.1-4]`
    PublishQoS,
    /// DUP on a PUBLISH of QoS 0. `[MQTT-3.3.1-2]`
    DupAtQoS0,
    /// The remaining length has more than four bytes, or more than it needs. `[MQTT-1.5.5-1]`
    RemainingLength,
    /// The packet is larger than the receiver takes.
    PacketTooLarge {
        /// The size of the packet.
        packet_bytes: u32,
        /// The receiver's limit.
        packet_bytes_max: u32,
    },
    /// The packet ends inside this field.
    Truncated(&'static str),
    /// The packet goes on after its last field.
    TrailingBytes,
    /// A variable byte integer inside the packet has more than four bytes, or more than it needs.
    VariableByteInteger(&'static str),
    /// A string is not UTF-8. `[MQTT-1.5.4-1]`
    Utf8(&'static str),
    /// A string has a null character. `[MQTT-1.5.4-2]`
    NulCharacter(&'static str),
    /// A packet identifier is zero. `[MQTT-2.2.1-3]`
    PacketIdZero,
    /// A topic name has no character. `[MQTT-4.7.3-1]`
    TopicNameEmpty(&'static str),
    /// A topic name has a wildcard character. `[MQTT-3.3.2-2]`
    TopicNameWildcard(&'static str),
    /// A v5 PUBLISH has neither a topic name nor a topic alias.
    TopicMissing,
    /// CONNECT is not MQTT's. `[MQTT-3.1.2-1]`
    ProtocolName,
    /// CONNECT asks for a version that we do not speak. `[MQTT-3.1.2-2]`
    UnsupportedVersion {
        /// The protocol level that it asks for.
        level: u8,
        /// The version whose CONNACK it most likely understands.
        connack: Version,
    },
    /// The reserved bit of the connect flags is set. `[MQTT-3.1.2-3]`
    ConnectFlagsReserved,
    /// Both bits of the will's QoS are set. `[MQTT-3.1.2-12]`
    WillQoS,
    /// Will QoS or will retain without a will. `[MQTT-3.1.2-11]`, `[MQTT-3.1.2-13]`
    WillFlagsWithoutWill,
    /// A password without a user name before v5. `[MQTT-3.1.1/3.1.2-22]`
    PasswordWithoutUserName,
    /// Reserved bits of the connect acknowledge flags are set. `[MQTT-3.2.2-1]`
    ConnAckFlagsReserved,
    /// Session present in a CONNACK that refuses. `[MQTT-3.2.2-6]`
    SessionPresentWithError,
    /// A code that this packet may not carry.
    Code(u8),
    /// An acknowledgement without any code.
    NoCodes,
    /// A property identifier that the standard does not know.
    PropertyUnknown(u32),
    /// A property that this packet may not have.
    PropertyNotAllowed(PropertyId),
    /// A property that stands more than once.
    PropertyRepeated(PropertyId),
    /// A property's value is zero, which it must not be.
    PropertyZero(PropertyId),
    /// A property's value is a number that has no meaning.
    PropertyValue(PropertyId, u8),
    /// Authentication data without a method.
    AuthenticationDataWithoutMethod,
    /// AUTH without a method.
    AuthenticationMethodMissing,
    /// SUBSCRIBE or UNSUBSCRIBE without a filter. `[MQTT-3.8.3-2]`, `[MQTT-3.10.3-2]`
    NoFilters,
    /// A topic filter has no character. `[MQTT-4.7.3-1]`
    FilterEmpty,
    /// Reserved bits of subscription options are set. `[MQTT-3.8.3-5]`
    SubscriptionOptionsReserved,
    /// Both QoS bits of subscription options are set.
    SubscriptionQoS,
    /// Retain handling is 3.
    RetainHandling,
    /// No Local on a shared subscription. `[MQTT-3.8.3-4]`
    NoLocalOnShared,
}

impl DecodeError {
    /// The reason code of v5 to refuse the packet with.
    ///
    /// A packet that cannot be read is malformed; one that can be read but says what it must not is a
    /// protocol error, unless the standard has a code of its own for it.
    pub fn reason_code(&self) -> ReasonCode {
        use DecodeErrorKind as Kind;
        match self.kind {
            Kind::ReservedPacketType(_)
            | Kind::FixedHeaderFlags { .. }
            | Kind::PublishQoS
            | Kind::DupAtQoS0
            | Kind::RemainingLength
            | Kind::Truncated(_)
            | Kind::TrailingBytes
            | Kind::VariableByteInteger(_)
            | Kind::Utf8(_)
            | Kind::NulCharacter(_)
            | Kind::ConnectFlagsReserved
            | Kind::WillQoS
            | Kind::ConnAckFlagsReserved
            | Kind::PropertyUnknown(_)
            | Kind::PropertyNotAllowed(_)
            | Kind::FilterEmpty
            // 0x90 is for names that are correctly formed and yet not accepted.
            | Kind::TopicNameEmpty(_)
            | Kind::TopicNameWildcard(_)
            | Kind::SubscriptionOptionsReserved => ReasonCode::MalformedPacket,

            Kind::PacketIdZero
            | Kind::TopicMissing
            | Kind::WillFlagsWithoutWill
            | Kind::PasswordWithoutUserName
            | Kind::SessionPresentWithError
            | Kind::Code(_)
            | Kind::NoCodes
            | Kind::PropertyRepeated(_)
            | Kind::PropertyValue(..)
            | Kind::AuthenticationDataWithoutMethod
            | Kind::AuthenticationMethodMissing
            | Kind::NoFilters
            | Kind::SubscriptionQoS
            | Kind::RetainHandling
            | Kind::NoLocalOnShared => ReasonCode::ProtocolError,

            Kind::PropertyZero(PropertyId::TopicAlias) => ReasonCode::TopicAliasInvalid,
            Kind::PropertyZero(_) => ReasonCode::ProtocolError,
            Kind::ProtocolName | Kind::UnsupportedVersion { .. } => ReasonCode::UnsupportedProtocolVersion,
            Kind::PacketTooLarge { .. } => ReasonCode::PacketTooLarge,
        }
    }

    /// The version whose CONNACK the sender of a refused CONNECT understands.
    ///
    /// `None` if it is not known to be an MQTT client at all, or if the packet is no CONNECT: then the
    /// connection is closed without an answer.
    pub fn connack_form(&self) -> Option<Version> {
        match self.kind {
            DecodeErrorKind::UnsupportedVersion { connack, .. } => Some(connack),
            _ => self.version,
        }
    }
}

impl std::error::Error for DecodeError {}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.packet {
            Some(packet) => write!(f, "{packet}: {}", self.kind),
            None => self.kind.fmt(f),
        }
    }
}

impl fmt::Display for DecodeErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use DecodeErrorKind as Kind;
        match self {
            Kind::ReservedPacketType(number) => write!(f, "packet type {number} is reserved"),
            Kind::FixedHeaderFlags { found, required } => {
                write!(f, "reserved flags are {found:04b}, must be {required:04b}")
            }
            Kind::PublishQoS => f.write_str("both QoS bits are set"),
            Kind::DupAtQoS0 => f.write_str("DUP is set at QoS 0"),
            Kind::RemainingLength => {
                f.write_str("remaining length is not in its shortest form of up to 4 bytes")
            }
            Kind::PacketTooLarge { packet_bytes, packet_bytes_max } => {
                write!(f, "packet has {packet_bytes} bytes, the limit is {packet_bytes_max}")
            }
            Kind::Truncated(field) => write!(f, "packet ends inside {field}"),
            Kind::TrailingBytes => f.write_str("packet goes on after its last field"),
            Kind::VariableByteInteger(field) => {
                write!(f, "{field} is not in its shortest form of up to 4 bytes")
            }
            Kind::Utf8(field) => write!(f, "{field} is not UTF-8"),
            Kind::NulCharacter(field) => write!(f, "{field} has a null character"),
            Kind::PacketIdZero => f.write_str("packet identifier is 0"),
            Kind::TopicNameEmpty(field) => write!(f, "{field} is empty"),
            Kind::TopicNameWildcard(field) => write!(f, "{field} has a wildcard character"),
            Kind::TopicMissing => f.write_str("neither topic name nor topic alias"),
            Kind::ProtocolName => f.write_str("protocol name is neither MQTT nor MQIsdp"),
            Kind::UnsupportedVersion { level, .. } => write!(f, "protocol level {level} is not supported"),
            Kind::ConnectFlagsReserved => f.write_str("reserved connect flag is set"),
            Kind::WillQoS => f.write_str("both bits of will QoS are set"),
            Kind::WillFlagsWithoutWill => f.write_str("will QoS or will retain without a will"),
            Kind::PasswordWithoutUserName => f.write_str("password without a user name"),
            Kind::ConnAckFlagsReserved => f.write_str("reserved connect acknowledge flags are set"),
            Kind::SessionPresentWithError => f.write_str("session present in a refusal"),
            Kind::Code(number) => write!(f, "code 0x{number:02X} is not for this packet"),
            Kind::NoCodes => f.write_str("no codes"),
            Kind::PropertyUnknown(number) => write!(f, "property 0x{number:02X} is unknown"),
            Kind::PropertyNotAllowed(id) => write!(f, "property {id} is not for this packet"),
            Kind::PropertyRepeated(id) => write!(f, "property {id} stands more than once"),
            Kind::PropertyZero(id) => write!(f, "property {id} is 0"),
            Kind::PropertyValue(id, value) => write!(f, "property {id} is {value}"),
            Kind::AuthenticationDataWithoutMethod => f.write_str("authentication data without a method"),
            Kind::AuthenticationMethodMissing => f.write_str("no authentication method"),
            Kind::NoFilters => f.write_str("no topic filter"),
            Kind::FilterEmpty => f.write_str("topic filter is empty"),
            Kind::SubscriptionOptionsReserved => f.write_str("reserved subscription options are set"),
            Kind::SubscriptionQoS => f.write_str("both QoS bits of a subscription are set"),
            Kind::RetainHandling => f.write_str("retain handling is 3"),
            Kind::NoLocalOnShared => f.write_str("No Local on a shared subscription"),
        }
    }
}
