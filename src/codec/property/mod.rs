//! Properties of MQTT 5: reading, writing, and which packet may hold which.
//!
//! Two tables say it all: the one of identifiers here, with the wire type of each, and the one of packets
//! in `table.rs`, with the field that each property fills in each packet.

mod list;
mod table;

pub use list::{SubscriptionIds, UserProperties};

use std::fmt;
use std::num::{NonZeroU16, NonZeroU32};

use super::wire::{Reader, write_binary, write_length_prefixed, write_string, write_variable_byte_integer};
use super::{DecodeErrorKind, PayloadFormat, QoS};

/// How the value of a property looks on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WireType {
    Byte,
    TwoBytes,
    FourBytes,
    VariableByteInteger,
    Binary,
    String,
    StringPair,
}

/// Makes the enumeration of identifiers and its look-ups from one table.
macro_rules! property_ids {
    ($( $number:literal $id:ident $wire:ident $name:literal, )*) => {
        /// A property's identifier: table 2-4 of the standard.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        #[allow(missing_docs, reason = "the names are the standard's own")]
        pub enum PropertyId {
            $( $id = $number, )*
        }

        impl PropertyId {
            /// All properties, by identifier.
            pub const ALL: &[PropertyId] = &[$( PropertyId::$id, )*];

            /// The property with this identifier; `None` if the standard has none.
            pub fn from_u32(number: u32) -> Option<PropertyId> {
                match number {
                    $( $number => Some(PropertyId::$id), )*
                    _ => None,
                }
            }

            /// The standard's name, in lower case where it stands in a sentence.
            pub fn name(self) -> &'static str {
                match self {
                    $( PropertyId::$id => $name, )*
                }
            }

            fn wire_type(self) -> WireType {
                match self {
                    $( PropertyId::$id => WireType::$wire, )*
                }
            }
        }
    };
}

property_ids! {
    0x01 PayloadFormat                Byte                "payload format indicator",
    0x02 MessageExpiry                FourBytes           "message expiry interval",
    0x03 ContentType                  String              "content type",
    0x08 ResponseTopic                String              "response topic",
    0x09 CorrelationData              Binary              "correlation data",
    0x0B SubscriptionIdentifier       VariableByteInteger "subscription identifier",
    0x11 SessionExpiry                FourBytes           "session expiry interval",
    0x12 AssignedClientIdentifier     String              "assigned client identifier",
    0x13 ServerKeepAlive              TwoBytes            "server keep alive",
    0x15 AuthenticationMethod         String              "authentication method",
    0x16 AuthenticationData           Binary              "authentication data",
    0x17 RequestProblemInformation    Byte                "request problem information",
    0x18 WillDelay                    FourBytes           "will delay interval",
    0x19 RequestResponseInformation   Byte                "request response information",
    0x1A ResponseInformation          String              "response information",
    0x1C ServerReference              String              "server reference",
    0x1F ReasonString                 String              "reason string",
    0x21 ReceiveMaximum               TwoBytes            "receive maximum",
    0x22 TopicAliasMaximum            TwoBytes            "topic alias maximum",
    0x23 TopicAlias                   TwoBytes            "topic alias",
    0x24 MaximumQoS                   Byte                "maximum QoS",
    0x25 RetainAvailable              Byte                "retain available",
    0x26 UserProperty                 StringPair          "user property",
    0x27 MaximumPacketSize            FourBytes           "maximum packet size",
    0x28 WildcardSubscriptionAvailable Byte               "wildcard subscription available",
    0x29 SubscriptionIdentifierAvailable Byte             "subscription identifier available",
    0x2A SharedSubscriptionAvailable  Byte                "shared subscription available",
}

impl fmt::Display for PropertyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl PropertyId {
    #[inline]
    fn read(block: &mut Reader<'_>) -> Result<PropertyId, DecodeErrorKind> {
        let number = block.variable_byte_integer("property identifier")?;
        PropertyId::from_u32(number).ok_or(DecodeErrorKind::PropertyUnknown(number))
    }

    /// Identifiers are variable byte integers, but all that exist take one byte.
    #[inline]
    fn write(self, out: &mut Vec<u8>) {
        out.push(self as u8);
    }
}

/// The properties of one packet, or of the will.
pub(super) trait PropertySet<'a>: Default {
    /// Reads the value of one property; `here` starts with its identifier.
    fn read_one(
        &mut self,
        id: PropertyId,
        here: &'a [u8],
        block: &mut Reader<'a>,
    ) -> Result<(), DecodeErrorKind>;

    /// Appends all properties that are present.
    fn write_all(&self, out: &mut Vec<u8>);

    /// Reads the property length and so many bytes of properties.
    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeErrorKind> {
        let length = reader.variable_byte_integer("property length")?;
        Self::read_block(reader.bytes(length as usize, "properties")?)
    }

    /// Reads properties to the end of `block`.
    fn read_block(block: &'a [u8]) -> Result<Self, DecodeErrorKind> {
        let mut properties = Self::default();
        let mut block = Reader::new(block);
        while !block.is_empty() {
            let here = block.rest();
            let id = PropertyId::read(&mut block)?;
            properties.read_one(id, here, &mut block)?;
        }
        Ok(properties)
    }

    /// Appends the property length and the properties.
    fn write(&self, out: &mut Vec<u8>) {
        write_length_prefixed(out, |out| self.write_all(out));
    }
}

/// A field of a [`PropertySet`]: an optional value, or a list of values.
trait Field<'a> {
    /// Reads one more value for this field; `here` starts with the property's identifier.
    fn read_value(
        &mut self,
        id: PropertyId,
        here: &'a [u8],
        block: &mut Reader<'a>,
    ) -> Result<(), DecodeErrorKind>;

    /// Appends identifier and value, if there is a value.
    fn write_value(&self, id: PropertyId, out: &mut Vec<u8>);
}

impl<'a, T: Value<'a>> Field<'a> for Option<T> {
    #[inline]
    fn read_value(
        &mut self,
        id: PropertyId,
        _here: &'a [u8],
        block: &mut Reader<'a>,
    ) -> Result<(), DecodeErrorKind> {
        if self.is_some() {
            return Err(DecodeErrorKind::PropertyRepeated(id));
        }
        *self = Some(T::read(id, block)?);
        Ok(())
    }

    #[inline]
    fn write_value(&self, id: PropertyId, out: &mut Vec<u8>) {
        if let Some(value) = self {
            id.write(out);
            value.write(id, out);
        }
    }
}

/// The value of a property that stands at most once.
trait Value<'a>: Sized {
    fn read(id: PropertyId, block: &mut Reader<'a>) -> Result<Self, DecodeErrorKind>;
    fn write(&self, id: PropertyId, out: &mut Vec<u8>);
}

impl Value<'_> for bool {
    fn read(id: PropertyId, block: &mut Reader<'_>) -> Result<Self, DecodeErrorKind> {
        match block.u8(id.name())? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(DecodeErrorKind::PropertyValue(id, other)),
        }
    }

    fn write(&self, _id: PropertyId, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
}

impl Value<'_> for PayloadFormat {
    fn read(id: PropertyId, block: &mut Reader<'_>) -> Result<Self, DecodeErrorKind> {
        match block.u8(id.name())? {
            0 => Ok(PayloadFormat::Bytes),
            1 => Ok(PayloadFormat::Utf8),
            other => Err(DecodeErrorKind::PropertyValue(id, other)),
        }
    }

    fn write(&self, _id: PropertyId, out: &mut Vec<u8>) {
        out.push(*self as u8);
    }
}

/// Maximum QoS, which is never said to be 2: that is what its absence means.
impl Value<'_> for QoS {
    fn read(id: PropertyId, block: &mut Reader<'_>) -> Result<Self, DecodeErrorKind> {
        match block.u8(id.name())? {
            0 => Ok(QoS::AtMostOnce),
            1 => Ok(QoS::AtLeastOnce),
            other => Err(DecodeErrorKind::PropertyValue(id, other)),
        }
    }

    fn write(&self, _id: PropertyId, out: &mut Vec<u8>) {
        out.push(*self as u8);
    }
}

impl Value<'_> for u16 {
    fn read(id: PropertyId, block: &mut Reader<'_>) -> Result<Self, DecodeErrorKind> {
        block.u16(id.name())
    }

    fn write(&self, _id: PropertyId, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_be_bytes());
    }
}

impl Value<'_> for u32 {
    fn read(id: PropertyId, block: &mut Reader<'_>) -> Result<Self, DecodeErrorKind> {
        block.u32(id.name())
    }

    fn write(&self, _id: PropertyId, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_be_bytes());
    }
}

impl Value<'_> for NonZeroU16 {
    fn read(id: PropertyId, block: &mut Reader<'_>) -> Result<Self, DecodeErrorKind> {
        NonZeroU16::new(block.u16(id.name())?).ok_or(DecodeErrorKind::PropertyZero(id))
    }

    fn write(&self, _id: PropertyId, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.get().to_be_bytes());
    }
}

/// Maximum Packet Size has four bytes, Subscription Identifier is a variable byte integer.
impl Value<'_> for NonZeroU32 {
    fn read(id: PropertyId, block: &mut Reader<'_>) -> Result<Self, DecodeErrorKind> {
        let value = match id.wire_type() {
            WireType::VariableByteInteger => block.variable_byte_integer(id.name())?,
            _ => block.u32(id.name())?,
        };
        NonZeroU32::new(value).ok_or(DecodeErrorKind::PropertyZero(id))
    }

    fn write(&self, id: PropertyId, out: &mut Vec<u8>) {
        match id.wire_type() {
            WireType::VariableByteInteger => write_variable_byte_integer(self.get() as usize, out),
            _ => out.extend_from_slice(&self.get().to_be_bytes()),
        }
    }
}

impl<'a> Value<'a> for &'a str {
    fn read(id: PropertyId, block: &mut Reader<'a>) -> Result<Self, DecodeErrorKind> {
        if id != PropertyId::ResponseTopic {
            return block.string(id.name());
        }
        // [MQTT-3.3.2-14] a response topic is a topic name.
        let topic = block.topic_name(id.name())?;
        if topic.is_empty() { Err(DecodeErrorKind::TopicNameEmpty(id.name())) } else { Ok(topic) }
    }

    fn write(&self, _id: PropertyId, out: &mut Vec<u8>) {
        write_string(self, out);
    }
}

impl<'a> Value<'a> for &'a [u8] {
    fn read(id: PropertyId, block: &mut Reader<'a>) -> Result<Self, DecodeErrorKind> {
        block.binary(id.name())
    }

    fn write(&self, _id: PropertyId, out: &mut Vec<u8>) {
        write_binary(self, out);
    }
}
