//! PUBLISH.

use std::num::NonZeroU16;

use super::{PacketId, QoS, SubscriptionIds, UserProperties};

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
