//! PINGREQ, PINGRESP, DISCONNECT and AUTH.

use super::property::PropertySet;
use super::reason::ReasonPlace;
use super::wire::Reader;
use super::{DecodeErrorKind, ReasonCode, UserProperties, Version};

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

impl<'a> Disconnect<'a> {
    /// A DISCONNECT that has nothing more to say.
    pub fn new(reason: ReasonCode) -> Self {
        Disconnect { reason, properties: DisconnectProperties::default() }
    }

    pub(super) fn decode(body: &'a [u8], version: Version) -> Result<Self, DecodeErrorKind> {
        let mut reader = Reader::new(body);
        let mut disconnect = Disconnect::new(ReasonCode::Success);
        // In v5 a normal disconnection may leave out the reason code, and any may leave out an empty
        // property block.
        if version.is_v5() && !reader.is_empty() {
            disconnect.reason = reader.reason(ReasonPlace::Disconnect)?;
            if !reader.is_empty() {
                disconnect.properties = DisconnectProperties::read(&mut reader)?;
            }
        }
        reader.finish()?;
        Ok(disconnect)
    }

    pub(super) fn encode(&self, version: Version, out: &mut Vec<u8>) {
        if version.is_v5() {
            // Always in full: common clients fail on a DISCONNECT without a property length.
            out.push(self.reason as u8);
            self.properties.write(out);
        }
    }
}

impl<'a> Auth<'a> {
    pub(super) fn decode(body: &'a [u8]) -> Result<Self, DecodeErrorKind> {
        let mut reader = Reader::new(body);
        let mut auth = Auth { reason: ReasonCode::Success, properties: AuthProperties::default() };
        if reader.is_empty() {
            return Ok(auth);
        }
        auth.reason = reader.reason(ReasonPlace::Auth)?;
        if !reader.is_empty() {
            auth.properties = AuthProperties::read(&mut reader)?;
        }
        reader.finish()?;
        // The method may be missing only where the short form says the same: success without properties.
        let short = auth.reason == ReasonCode::Success && auth.properties == AuthProperties::default();
        if auth.properties.method.is_none() && !short {
            return Err(DecodeErrorKind::AuthenticationMethodMissing);
        }
        Ok(auth)
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.reason as u8);
        self.properties.write(out);
    }
}
