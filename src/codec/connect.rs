//! CONNECT and CONNACK.

use std::num::{NonZeroU16, NonZeroU32};

use super::{PayloadFormat, QoS, ReasonCode, UserProperties, Version};

/// CONNECT: the first packet of a client.
#[derive(Clone, Debug, PartialEq)]
pub struct Connect<'a> {
    /// The protocol version that the client speaks.
    pub version: Version,
    /// Clean Start (v5) or Clean Session (v3).
    pub clean_start: bool,
    /// Keep Alive in seconds; 0 turns it off.
    pub keep_alive_secs: u16,
    /// The client identifier; empty asks the server to assign one.
    pub client_id: &'a str,
    /// The will, if the Will Flag is set.
    pub will: Option<Will<'a>>,
    /// The user name, if present.
    pub user_name: Option<&'a str>,
    /// The password, if present: binary data.
    pub password: Option<&'a [u8]>,
    /// Properties; empty before v5.
    pub properties: ConnectProperties<'a>,
}

/// Properties of CONNECT. Absent ones are `None`; the standard's defaults are applied by who uses them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConnectProperties<'a> {
    /// Session Expiry Interval in seconds; `u32::MAX` means never.
    pub session_expiry_secs: Option<u32>,
    /// How many unacknowledged QoS 1/2 PUBLISH the client takes at a time.
    pub receive_maximum: Option<NonZeroU16>,
    /// The largest packet in bytes that the client takes.
    pub packet_bytes_max: Option<NonZeroU32>,
    /// The highest topic alias that the client takes.
    pub topic_alias_maximum: Option<u16>,
    /// Request Response Information.
    pub request_response_information: Option<bool>,
    /// Request Problem Information.
    pub request_problem_information: Option<bool>,
    /// Method of enhanced authentication.
    pub authentication_method: Option<&'a str>,
    /// Data of enhanced authentication; only together with a method.
    pub authentication_data: Option<&'a [u8]>,
    /// User properties in order.
    pub user_properties: UserProperties<'a>,
}

/// The will inside CONNECT.
#[derive(Clone, Debug, PartialEq)]
pub struct Will<'a> {
    /// QoS at which the will is published.
    pub qos: QoS,
    /// Whether the will is published retained.
    pub retain: bool,
    /// Where the will is published: at least one character and no wildcard (checked by the decoder).
    pub topic: &'a str,
    /// What is published.
    pub payload: &'a [u8],
    /// Properties; empty before v5.
    pub properties: WillProperties<'a>,
}

/// Properties of the will.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WillProperties<'a> {
    /// Will Delay Interval in seconds.
    pub delay_secs: Option<u32>,
    /// Payload Format Indicator.
    pub payload_format: Option<PayloadFormat>,
    /// Message Expiry Interval in seconds.
    pub message_expiry_secs: Option<u32>,
    /// Content Type.
    pub content_type: Option<&'a str>,
    /// Response Topic.
    pub response_topic: Option<&'a str>,
    /// Correlation Data.
    pub correlation_data: Option<&'a [u8]>,
    /// User properties in order.
    pub user_properties: UserProperties<'a>,
}

/// CONNACK: the server's answer to CONNECT.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnAck<'a> {
    /// Whether the server had a session for this client.
    pub session_present: bool,
    /// The answer, in the version's own numbers.
    pub code: ConnAckReturn,
    /// Properties; empty before v5.
    pub properties: ConnAckProperties<'a>,
}

/// The answer inside CONNACK: the two versions number it differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnAckReturn {
    /// v3: 0 accepted, 1 unacceptable protocol version, 2 identifier rejected, 3 server unavailable,
    /// 4 bad user name or password, 5 not authorized.
    V3(u8),
    /// v5 reason code.
    V5(ReasonCode),
}

/// Properties of CONNACK.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConnAckProperties<'a> {
    /// Session Expiry Interval in seconds, if it differs from what the client asked for.
    pub session_expiry_secs: Option<u32>,
    /// How many unacknowledged QoS 1/2 PUBLISH the server takes at a time; absent means 65,535.
    pub receive_maximum: Option<NonZeroU16>,
    /// The highest QoS that the server supports (0 or 1); absent means 2.
    pub maximum_qos: Option<QoS>,
    /// Whether retained messages are supported; absent means yes.
    pub retain_available: Option<bool>,
    /// The largest packet in bytes that the server takes.
    pub packet_bytes_max: Option<NonZeroU32>,
    /// The client identifier that the server chose for a client that sent none.
    pub assigned_client_id: Option<&'a str>,
    /// The highest topic alias that the server takes.
    pub topic_alias_maximum: Option<u16>,
    /// Why, for people.
    pub reason_string: Option<&'a str>,
    /// Whether wildcard subscriptions are supported; absent means yes.
    pub wildcard_subscription_available: Option<bool>,
    /// Whether subscription identifiers are supported; absent means yes.
    pub subscription_ids_available: Option<bool>,
    /// Whether shared subscriptions are supported; absent means yes.
    pub shared_subscription_available: Option<bool>,
    /// Keep Alive in seconds that the client has to use.
    pub server_keep_alive_secs: Option<u16>,
    /// Basis for response topics.
    pub response_information: Option<&'a str>,
    /// Another server to use.
    pub server_reference: Option<&'a str>,
    /// Method of enhanced authentication.
    pub authentication_method: Option<&'a str>,
    /// Data of enhanced authentication.
    pub authentication_data: Option<&'a [u8]>,
    /// User properties in order.
    pub user_properties: UserProperties<'a>,
}
