//! SUBSCRIBE, SUBACK, UNSUBSCRIBE and UNSUBACK.

use std::num::NonZeroU32;

use super::{AckProperties, PacketId, QoS, UserProperties};

/// SUBSCRIBE.
#[derive(Clone, Debug, PartialEq)]
pub struct Subscribe<'a> {
    /// Its identifier, repeated by SUBACK.
    pub packet_id: PacketId,
    /// Properties; empty before v5.
    pub properties: SubscribeProperties<'a>,
    /// The filters with their options: at least one. `[MQTT-3.8.3-2]`
    pub filters: SubscribeFilters<'a>,
}

/// Properties of SUBSCRIBE.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SubscribeProperties<'a> {
    /// Subscription Identifier, 1 to 268,435,455.
    pub subscription_id: Option<NonZeroU32>,
    /// User properties in order.
    pub user_properties: UserProperties<'a>,
}

/// Options of one subscription. Before v5 all but `qos` have their defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionOptions {
    /// The highest QoS that the subscriber wants.
    pub qos: QoS,
    /// Not the subscriber's own messages.
    pub no_local: bool,
    /// Forward RETAIN as it was published.
    pub retain_as_published: bool,
    /// When retained messages are sent.
    pub retain_handling: RetainHandling,
}

/// When retained messages are sent for a subscription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum RetainHandling {
    /// On every SUBSCRIBE. `[MQTT-3.3.1-9]`
    #[default]
    Send = 0,
    /// Only if the subscription is new. `[MQTT-3.3.1-10]`
    SendIfNew = 1,
    /// Never. `[MQTT-3.3.1-11]`
    DoNotSend = 2,
}

/// SUBACK.
#[derive(Clone, Debug, PartialEq)]
pub struct SubAck<'a> {
    /// The identifier of the SUBSCRIBE.
    pub packet_id: PacketId,
    /// Properties; empty before v5.
    pub properties: AckProperties<'a>,
    /// One code per filter, in order, as on the wire (v3: 0, 1, 2 or 0x80).
    pub codes: &'a [u8],
}

/// UNSUBSCRIBE.
#[derive(Clone, Debug, PartialEq)]
pub struct Unsubscribe<'a> {
    /// Its identifier, repeated by UNSUBACK.
    pub packet_id: PacketId,
    /// User properties in order; empty before v5.
    pub user_properties: UserProperties<'a>,
    /// The filters: at least one. `[MQTT-3.10.3-2]`
    pub filters: UnsubscribeFilters<'a>,
}

/// UNSUBACK.
#[derive(Clone, Debug, PartialEq)]
pub struct UnsubAck<'a> {
    /// The identifier of the UNSUBSCRIBE.
    pub packet_id: PacketId,
    /// Properties; empty before v5.
    pub properties: AckProperties<'a>,
    /// One code per filter, in order, as on the wire; empty before v5.
    pub codes: &'a [u8],
}
