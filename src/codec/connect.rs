//! CONNECT and CONNACK.

use std::num::{NonZeroU16, NonZeroU32};

use super::property::PropertySet;
use super::reason::ReasonPlace;
use super::wire::{Reader, write_binary, write_string};
use super::{DecodeErrorKind, PayloadFormat, QoS, ReasonCode, UserProperties, Version};

/// Connect flags.
mod flag {
    pub(super) const RESERVED: u8 = 0x01;
    pub(super) const CLEAN_START: u8 = 0x02;
    pub(super) const WILL: u8 = 0x04;
    pub(super) const WILL_QOS: u8 = 0x18;
    pub(super) const WILL_RETAIN: u8 = 0x20;
    pub(super) const PASSWORD: u8 = 0x40;
    pub(super) const USER_NAME: u8 = 0x80;
}

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

impl Version {
    /// Protocol name and level of CONNECT.
    fn protocol(self) -> (&'static str, u8) {
        match self {
            Version::V31 => ("MQIsdp", 3),
            Version::V311 => ("MQTT", 4),
            Version::V5 => ("MQTT", 5),
        }
    }

    /// Reads protocol name and level.
    fn read(reader: &mut Reader<'_>) -> Result<Version, DecodeErrorKind> {
        let name = reader.binary("protocol name")?;
        if name != b"MQTT" && name != b"MQIsdp" {
            // [MQTT-3.1.2-1]
            return Err(DecodeErrorKind::ProtocolName);
        }
        let level = reader.u8("protocol level")?;
        match (name, level) {
            (b"MQIsdp", 3) => Ok(Version::V31),
            (b"MQTT", 4) => Ok(Version::V311),
            (b"MQTT", 5) => Ok(Version::V5),
            // [MQTT-3.1.2-2]
            _ => Err(DecodeErrorKind::UnsupportedVersion {
                level,
                connack: connack_form(level, reader.rest()),
            }),
        }
    }
}

/// Which CONNACK a client of a foreign protocol level understands, from the CONNECT after that level.
///
/// Levels above ours, and bridges that set a flag in theirs, mostly keep the shape of what they extend.
fn connack_form(level: u8, after_level: &[u8]) -> Version {
    let reads_as = |version| Connect::decode_after_level(Reader::new(after_level), version).is_ok();
    match level > 2 && reads_as(Version::V5) && !reads_as(Version::V311) {
        true => Version::V5,
        false => Version::V311,
    }
}

/// The version that a CONNECT with this body asks for, if it says so.
pub(super) fn version_asked(body: &[u8]) -> Option<Version> {
    Version::read(&mut Reader::new(body)).ok()
}

impl<'a> Connect<'a> {
    pub(super) fn decode(body: &'a [u8]) -> Result<Self, DecodeErrorKind> {
        let mut reader = Reader::new(body);
        let version = Version::read(&mut reader)?;
        Connect::decode_after_level(reader, version)
    }

    fn decode_after_level(mut reader: Reader<'a>, version: Version) -> Result<Self, DecodeErrorKind> {
        let flags = reader.u8("connect flags")?;
        check_flags(flags, version)?;
        let keep_alive_secs = reader.u16("keep alive")?;
        let properties = match version.is_v5() {
            true => ConnectProperties::read(&mut reader)?,
            false => ConnectProperties::default(),
        };
        if properties.authentication_data.is_some() && properties.authentication_method.is_none() {
            return Err(DecodeErrorKind::AuthenticationDataWithoutMethod);
        }
        // [MQTT-3.1.3-1] the payload has this order.
        let client_id = reader.string("client identifier")?;
        let will = match flags & flag::WILL != 0 {
            true => Some(Will::decode(flags, &mut reader, version)?),
            false => None,
        };
        // MQTT 3.1 lets the remaining length take precedence: user name and password may be missing
        // though they are flagged, for the sake of yet older clients.
        let missing = |reader: &Reader<'_>| version == Version::V31 && reader.is_empty();
        let user_name = match flags & flag::USER_NAME != 0 && !missing(&reader) {
            true => Some(reader.string("user name")?),
            false => None,
        };
        let password = match flags & flag::PASSWORD != 0 && !missing(&reader) {
            true => Some(reader.binary("password")?),
            false => None,
        };
        reader.finish()?;
        Ok(Connect {
            version,
            clean_start: flags & flag::CLEAN_START != 0,
            keep_alive_secs,
            client_id,
            will,
            user_name,
            password,
            properties,
        })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let (name, level) = self.version.protocol();
        write_string(name, out);
        out.push(level);
        out.push(self.flags());
        out.extend_from_slice(&self.keep_alive_secs.to_be_bytes());
        if self.version.is_v5() {
            self.properties.write(out);
        }
        write_string(self.client_id, out);
        if let Some(will) = &self.will {
            if self.version.is_v5() {
                will.properties.write(out);
            }
            write_string(will.topic, out);
            write_binary(will.payload, out);
        }
        if let Some(user_name) = self.user_name {
            write_string(user_name, out);
        }
        if let Some(password) = self.password {
            write_binary(password, out);
        }
    }

    fn flags(&self) -> u8 {
        let mut flags = 0;
        if self.clean_start {
            flags |= flag::CLEAN_START;
        }
        if let Some(will) = &self.will {
            flags |= flag::WILL | (will.qos as u8) << 3;
            if will.retain {
                flags |= flag::WILL_RETAIN;
            }
        }
        if self.password.is_some() {
            flags |= flag::PASSWORD;
        }
        if self.user_name.is_some() {
            flags |= flag::USER_NAME;
        }
        flags
    }
}

fn check_flags(flags: u8, version: Version) -> Result<(), DecodeErrorKind> {
    // [MQTT-3.1.2-3]; MQTT 3.1 says nothing of this bit.
    if flags & flag::RESERVED != 0 && version != Version::V31 {
        return Err(DecodeErrorKind::ConnectFlagsReserved);
    }
    // [MQTT-3.1.2-12]
    if flags & flag::WILL_QOS == flag::WILL_QOS {
        return Err(DecodeErrorKind::WillQoS);
    }
    // [MQTT-3.1.2-11], [MQTT-3.1.2-13]
    if flags & flag::WILL == 0 && flags & (flag::WILL_QOS | flag::WILL_RETAIN) != 0 {
        return Err(DecodeErrorKind::WillFlagsWithoutWill);
    }
    // [MQTT-3.1.1/3.1.2-22]; v5 allows it.
    if !version.is_v5() && flags & flag::PASSWORD != 0 && flags & flag::USER_NAME == 0 {
        return Err(DecodeErrorKind::PasswordWithoutUserName);
    }
    Ok(())
}

impl<'a> Will<'a> {
    /// Expects flags that passed [`check_flags`].
    fn decode(flags: u8, reader: &mut Reader<'a>, version: Version) -> Result<Self, DecodeErrorKind> {
        let properties = match version.is_v5() {
            true => WillProperties::read(reader)?,
            false => WillProperties::default(),
        };
        let topic = reader.topic_name("will topic")?;
        if topic.is_empty() {
            return Err(DecodeErrorKind::TopicNameEmpty("will topic"));
        }
        Ok(Will {
            qos: QoS::from_u8((flags & flag::WILL_QOS) >> 3).ok_or(DecodeErrorKind::WillQoS)?,
            retain: flags & flag::WILL_RETAIN != 0,
            topic,
            payload: reader.binary("will payload")?,
            properties,
        })
    }
}

impl<'a> ConnAck<'a> {
    pub(super) fn decode(body: &'a [u8], version: Version) -> Result<Self, DecodeErrorKind> {
        let mut reader = Reader::new(body);
        let flags = reader.u8("connect acknowledge flags")?;
        // [MQTT-3.2.2-1]
        if flags & !1 != 0 {
            return Err(DecodeErrorKind::ConnAckFlagsReserved);
        }
        let (code, properties) = match version.is_v5() {
            true => {
                let reason = reader.reason(ReasonPlace::ConnAck)?;
                (ConnAckReturn::V5(reason), ConnAckProperties::read(&mut reader)?)
            }
            false => {
                let number = reader.u8("return code")?;
                if number > 5 {
                    return Err(DecodeErrorKind::Code(number));
                }
                (ConnAckReturn::V3(number), ConnAckProperties::default())
            }
        };
        reader.finish()?;
        let session_present = flags & 1 != 0;
        // [MQTT-3.2.2-6], [MQTT-3.1.1/3.2.2-4]
        if session_present && code.number() != 0 {
            return Err(DecodeErrorKind::SessionPresentWithError);
        }
        Ok(ConnAck { session_present, code, properties })
    }

    pub(super) fn encode(&self, version: Version, out: &mut Vec<u8>) {
        out.push(u8::from(self.session_present));
        out.push(self.code.number());
        if version.is_v5() {
            self.properties.write(out);
        }
    }
}

impl ConnAckReturn {
    /// The number on the wire.
    pub fn number(self) -> u8 {
        match self {
            ConnAckReturn::V3(number) => number,
            ConnAckReturn::V5(reason) => reason as u8,
        }
    }
}
