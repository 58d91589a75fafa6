//! PINGREQ, PINGRESP, DISCONNECT and AUTH.

use super::{ReasonCode, UserProperties};

/// DISCONNECT: the last packet of a connection.
#[derive(Clone, Debug, PartialEq)]
pub struct Disconnect<'a> {
    /// Why; normal disconnection before v5.
    pub reason: ReasonCode,
    /// Properties; empty before v5.
    pub properties: DisconnectProperties<'a>,
}

/// Properties of DISCONNECT.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DisconnectProperties<'a> {
    /// A new Session Expiry Interval in seconds (client → server only).
    pub session_expiry_secs: Option<u32>,
    /// Why, for people.
    pub reason_string: Option<&'a str>,
    /// Another server to use (server → client only).
    pub server_reference: Option<&'a str>,
    /// User properties in order.
    pub user_properties: UserProperties<'a>,
}

/// AUTH: a step of enhanced authentication (v5 only).
#[derive(Clone, Debug, PartialEq)]
pub struct Auth<'a> {
    /// Success, continue authentication or re-authenticate.
    pub reason: ReasonCode,
    /// Properties.
    pub properties: AuthProperties<'a>,
}

/// Properties of AUTH.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AuthProperties<'a> {
    /// The method of CONNECT, repeated. `[MQTT-4.12.0-5]`
    pub method: Option<&'a str>,
    /// What the method wants to say.
    pub data: Option<&'a [u8]>,
    /// Why, for people.
    pub reason_string: Option<&'a str>,
    /// User properties in order.
    pub user_properties: UserProperties<'a>,
}
