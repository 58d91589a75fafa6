//! Bytes ↔ packets of MQTT 3.1, 3.1.1 and 5.
//!
//! Packets borrow from the buffer that they were decoded from. Decoding is strict: what a packet's own
//! bytes can break of the standard is refused here with the reason code that the standard wants, so that
//! nothing deeper validates again. Rules that need a connection's or a session's state are not here.
//!
//! Direction does not matter to the codec: all fifteen packet types are decoded and encoded, so that the
//! same code serves the broker, its clients and its tests.

mod ack;
mod connect;
mod control;
mod error;
mod frame;
mod property;
mod publish;
mod publish_head;
mod reason;
mod subscribe;
mod wire;

pub use ack::{Ack, AckProperties};
pub use connect::{
    ConnAck, ConnAckProperties, ConnAckReturn, Connect, ConnectProperties, Will, WillProperties,
};
pub use control::{Auth, AuthProperties, Disconnect, DisconnectProperties};
pub use error::{DecodeError, DecodeErrorKind};
pub use frame::{decode, encode, encode_within};
pub use property::{PropertyId, SubscriptionIds, UserProperties};
pub use publish::{Delivery, PayloadFormat, Publish, PublishProperties, decode_forwarded};
pub use publish_head::PublishHead;
pub use reason::ReasonCode;
pub use subscribe::{
    RetainHandling, SubAck, Subscribe, SubscribeFilters, SubscribeProperties, SubscriptionOptions, UnsubAck,
    Unsubscribe, UnsubscribeFilters,
};

use std::fmt;
use std::num::NonZeroU16;

/// A protocol version that a client may ask for in CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// MQTT 3.1: protocol name `MQIsdp`, level 3.
    V31,
    /// MQTT 3.1.1: protocol name `MQTT`, level 4.
    V311,
    /// MQTT 5: protocol name `MQTT`, level 5.
    V5,
}

impl Version {
    /// True for MQTT 5, whose packets have properties and reason codes.
    pub fn is_v5(self) -> bool {
        self == Version::V5
    }
}

/// Quality of service: how often a message may arrive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum QoS {
    /// QoS 0.
    #[default]
    AtMostOnce = 0,
    /// QoS 1.
    AtLeastOnce = 1,
    /// QoS 2.
    ExactlyOnce = 2,
}

impl QoS {
    /// The QoS with this number on the wire; `None` above 2.
    pub fn from_u8(value: u8) -> Option<QoS> {
        match value {
            0 => Some(QoS::AtMostOnce),
            1 => Some(QoS::AtLeastOnce),
            2 => Some(QoS::ExactlyOnce),
            _ => None,
        }
    }
}

/// A packet identifier, never zero. `[MQTT-2.2.1-3]`
pub type PacketId = NonZeroU16;

/// The largest packet that the format can express: 5 bytes of fixed header and 268,435,455 bytes.
pub const PACKET_BYTES_LIMIT: u32 = 268_435_460;

/// Any MQTT control packet, borrowed from its buffer.
#[derive(Clone, Debug, PartialEq)]
pub enum Packet<'a> {
    /// Client → server: opens the connection. Boxed, because it is rare and large.
    Connect(Box<Connect<'a>>),
    /// Server → client: answers CONNECT.
    ConnAck(Box<ConnAck<'a>>),
    /// A message, either way.
    Publish(Publish<'a>),
    /// QoS 1: the receiver owns the message.
    PubAck(Ack<'a>),
    /// QoS 2, step 2.
    PubRec(Ack<'a>),
    /// QoS 2, step 3.
    PubRel(Ack<'a>),
    /// QoS 2, step 4.
    PubComp(Ack<'a>),
    /// Client → server: asks for subscriptions.
    Subscribe(Subscribe<'a>),
    /// Server → client: answers SUBSCRIBE.
    SubAck(SubAck<'a>),
    /// Client → server: ends subscriptions.
    Unsubscribe(Unsubscribe<'a>),
    /// Server → client: answers UNSUBSCRIBE.
    UnsubAck(UnsubAck<'a>),
    /// Client → server: I am alive.
    PingReq,
    /// Server → client: answers PINGREQ.
    PingResp,
    /// Last packet of a connection.
    Disconnect(Disconnect<'a>),
    /// Enhanced authentication (MQTT 5 only).
    Auth(Auth<'a>),
}

impl Packet<'_> {
    /// Which of the fifteen it is.
    pub fn kind(&self) -> PacketKind {
        match self {
            Packet::Connect(_) => PacketKind::Connect,
            Packet::ConnAck(_) => PacketKind::ConnAck,
            Packet::Publish(_) => PacketKind::Publish,
            Packet::PubAck(_) => PacketKind::PubAck,
            Packet::PubRec(_) => PacketKind::PubRec,
            Packet::PubRel(_) => PacketKind::PubRel,
            Packet::PubComp(_) => PacketKind::PubComp,
            Packet::Subscribe(_) => PacketKind::Subscribe,
            Packet::SubAck(_) => PacketKind::SubAck,
            Packet::Unsubscribe(_) => PacketKind::Unsubscribe,
            Packet::UnsubAck(_) => PacketKind::UnsubAck,
            Packet::PingReq => PacketKind::PingReq,
            Packet::PingResp => PacketKind::PingResp,
            Packet::Disconnect(_) => PacketKind::Disconnect,
            Packet::Auth(_) => PacketKind::Auth,
        }
    }
}

/// The fifteen packet types with their numbers: table 2-1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names are the standard's own")]
pub enum PacketKind {
    Connect = 1,
    ConnAck = 2,
    Publish = 3,
    PubAck = 4,
    PubRec = 5,
    PubRel = 6,
    PubComp = 7,
    Subscribe = 8,
    SubAck = 9,
    Unsubscribe = 10,
    UnsubAck = 11,
    PingReq = 12,
    PingResp = 13,
    Disconnect = 14,
    Auth = 15,
}

impl PacketKind {
    /// All packet types, by number.
    pub const ALL: [PacketKind; 15] = [
        PacketKind::Connect,
        PacketKind::ConnAck,
        PacketKind::Publish,
        PacketKind::PubAck,
        PacketKind::PubRec,
        PacketKind::PubRel,
        PacketKind::PubComp,
        PacketKind::Subscribe,
        PacketKind::SubAck,
        PacketKind::Unsubscribe,
        PacketKind::UnsubAck,
        PacketKind::PingReq,
        PacketKind::PingResp,
        PacketKind::Disconnect,
        PacketKind::Auth,
    ];

    /// The packet type with this number, 1 to 15.
    pub fn from_u8(number: u8) -> Option<PacketKind> {
        PacketKind::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }

    /// The first byte of the packet; a PUBLISH has flags in addition.
    fn first_byte(self) -> u8 {
        (self as u8) << 4 | self.reserved_flags()
    }

    /// The flags that the fixed header has to have. `[MQTT-2.1.3-1]`
    fn reserved_flags(self) -> u8 {
        // [MQTT-3.6.1-1], [MQTT-3.8.1-1], [MQTT-3.10.1-1]
        match self {
            PacketKind::PubRel | PacketKind::Subscribe | PacketKind::Unsubscribe => 0b0010,
            _ => 0b0000,
        }
    }

    /// The standard's name, in capitals.
    pub fn name(self) -> &'static str {
        match self {
            PacketKind::Connect => "CONNECT",
            PacketKind::ConnAck => "CONNACK",
            PacketKind::Publish => "PUBLISH",
            PacketKind::PubAck => "PUBACK",
            PacketKind::PubRec => "PUBREC",
            PacketKind::PubRel => "PUBREL",
            PacketKind::PubComp => "PUBCOMP",
            PacketKind::Subscribe => "SUBSCRIBE",
            PacketKind::SubAck => "SUBACK",
            PacketKind::Unsubscribe => "UNSUBSCRIBE",
            PacketKind::UnsubAck => "UNSUBACK",
            PacketKind::PingReq => "PINGREQ",
            PacketKind::PingResp => "PINGRESP",
            PacketKind::Disconnect => "DISCONNECT",
            PacketKind::Auth => "AUTH",
        }
    }
}

impl fmt::Display for PacketKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What [`decode`] found at the start of a buffer.
#[derive(Clone, Debug, PartialEq)]
pub enum Decoded<'a> {
    /// A whole packet and the number of bytes that it took.
    Packet(Packet<'a>, usize),
    /// The packet is not complete; its total length in bytes, if the fixed header is complete.
    Incomplete(Option<usize>),
}
