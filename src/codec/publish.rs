//! PUBLISH.

use std::num::NonZeroU16;

use super::property::PropertySet;
use super::wire::{Reader, fill_in_length, variable_byte_integer_len, write_string};
use super::{
    DecodeError, DecodeErrorKind, PACKET_BYTES_LIMIT, PacketId, PacketKind, QoS, SubscriptionIds,
    UserProperties, Version,
};

/// PUBLISH: a message on its way.
#[derive(Clone, Debug, PartialEq)]
pub struct Publish<'a> {
    /// The sender's flag for a redelivery; false at QoS 0. `[MQTT-3.3.1-2]`
    pub dup: bool,
    /// QoS and, above 0, the packet identifier.
    pub delivery: Delivery,
    /// RETAIN.
    pub retain: bool,
    /// The topic name, free of wildcards. Empty only in v5 with a topic alias.
    pub topic: &'a str,
    /// Properties; empty before v5.
    pub properties: PublishProperties<'a>,
    /// The application message.
    pub payload: &'a [u8],
}

/// QoS of a PUBLISH with its packet identifier where there is one. `[MQTT-2.2.1-2]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// QoS 0.
    AtMostOnce,
    /// QoS 1.
    AtLeastOnce(PacketId),
    /// QoS 2.
    ExactlyOnce(PacketId),
}

impl Delivery {
    /// The QoS alone.
    pub fn qos(self) -> QoS {
        match self {
            Delivery::AtMostOnce => QoS::AtMostOnce,
            Delivery::AtLeastOnce(_) => QoS::AtLeastOnce,
            Delivery::ExactlyOnce(_) => QoS::ExactlyOnce,
        }
    }

    /// The packet identifier, if the QoS has one.
    pub fn packet_id(self) -> Option<PacketId> {
        match self {
            Delivery::AtMostOnce => None,
            Delivery::AtLeastOnce(id) | Delivery::ExactlyOnce(id) => Some(id),
        }
    }
}

/// Payload Format Indicator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PayloadFormat {
    /// Unspecified bytes.
    Bytes = 0,
    /// UTF-8 text.
    Utf8 = 1,
}

/// Properties of PUBLISH.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PublishProperties<'a> {
    /// Payload Format Indicator.
    pub payload_format: Option<PayloadFormat>,
    /// Message Expiry Interval in seconds.
    pub message_expiry_secs: Option<u32>,
    /// Topic Alias.
    pub topic_alias: Option<NonZeroU16>,
    /// Response Topic: no wildcards.
    pub response_topic: Option<&'a str>,
    /// Correlation Data.
    pub correlation_data: Option<&'a [u8]>,
    /// Content Type.
    pub content_type: Option<&'a str>,
    /// Subscription Identifiers in order (server → client only; the broker refuses them from a client).
    pub subscription_ids: SubscriptionIds<'a>,
    /// User properties in order.
    pub user_properties: UserProperties<'a>,
}

/// Reads properties that [`PublishProperties::write_forwarded`] wrote.
pub fn decode_forwarded(raw: &[u8]) -> Result<PublishProperties<'_>, DecodeError> {
    PublishProperties::read_block(raw).map_err(|kind| DecodeError {
        packet: Some(PacketKind::Publish),
        kind,
        version: None,
    })
}

/// Refuses flags that no PUBLISH has.
#[inline]
pub(super) fn check_flags(flags: u8) -> Result<(), DecodeErrorKind> {
    match flags & 0b0110 {
        // [MQTT-3.3.1-2]
        0b0000 if flags & 0b1000 != 0 => Err(DecodeErrorKind::DupAtQoS0),
        // [MQTT-3.3.1-4]
        0b0110 => Err(DecodeErrorKind::PublishQoS),
        _ => Ok(()),
    }
}

/// The flags of the fixed header.
#[inline]
pub(super) fn flags(dup: bool, qos: QoS, retain: bool) -> u8 {
    // [MQTT-3.3.1-2] DUP says nothing at QoS 0, whatever the caller thinks.
    let dup = dup && qos != QoS::AtMostOnce;
    u8::from(dup) << 3 | (qos as u8) << 1 | u8::from(retain)
}

impl<'a> Publish<'a> {
    /// Expects flags that passed [`check_flags`].
    ///
    /// Always inline: a call would cost a third of the whole, for the result is large and would be copied.
    #[inline(always)]
    pub(super) fn decode(flags: u8, body: &'a [u8], version: Version) -> Result<Self, DecodeErrorKind> {
        let mut reader = Reader::new(body);
        let topic = reader.topic_name("topic name")?;
        let delivery = match flags & 0b0110 {
            0b0000 => Delivery::AtMostOnce,
            0b0010 => Delivery::AtLeastOnce(reader.packet_id()?),
            _ => Delivery::ExactlyOnce(reader.packet_id()?),
        };
        let properties_len = match version.is_v5() {
            true => reader.variable_byte_integer("property length")?,
            false => 0,
        };
        let publish = |properties, payload| Publish {
            dup: flags & 0b1000 != 0,
            delivery,
            retain: flags & 0b0001 != 0,
            topic,
            properties,
            payload,
        };
        // Apart, because sets of properties are large: those that are not there are not moved about.
        if properties_len == 0 {
            return match topic.is_empty() {
                true if version.is_v5() => Err(DecodeErrorKind::TopicMissing),
                true => Err(DecodeErrorKind::TopicNameEmpty("topic name")),
                false => Ok(publish(PublishProperties::default(), reader.rest())),
            };
        }
        let properties = PublishProperties::read_block(reader.bytes(properties_len as usize, "properties")?)?;
        if topic.is_empty() && properties.topic_alias.is_none() {
            return Err(DecodeErrorKind::TopicMissing);
        }
        Ok(publish(properties, reader.rest()))
    }

    /// Writes the whole packet if it has at most `packet_bytes_max`; false, with `out` as it was, if not.
    pub(super) fn encode_within(&self, version: Version, packet_bytes_max: u32, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        out.push(PacketKind::Publish.first_byte() | flags(self.dup, self.delivery.qos(), self.retain));
        let length_at = out.len();
        out.push(0);
        write_string(self.topic, out);
        if let Some(packet_id) = self.delivery.packet_id() {
            out.extend_from_slice(&packet_id.get().to_be_bytes());
        }
        if version.is_v5() {
            self.properties.write(out);
        }
        let remaining = out.len() - length_at - 1 + self.payload.len();
        let packet_bytes = 1 + variable_byte_integer_len(remaining) + remaining;
        if packet_bytes > packet_bytes_max.min(PACKET_BYTES_LIMIT) as usize {
            out.truncate(start);
            return false;
        }
        // Before the payload is there, so that making room for a longer length moves little.
        fill_in_length(out, length_at, remaining);
        out.extend_from_slice(self.payload);
        true
    }
}
