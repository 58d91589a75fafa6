//! What the broker owes a client that sends these bytes, whatever they are.
//!
//! The bytes are judged by the functions that the broker decides with (the codec, `admit`, the parsers of
//! topics) and by the rules of one connection, written down a second time. What depends on others is left
//! open: which messages the client gets, and so whether an acknowledgement of it fits.

use std::{collections::BTreeSet, num::NonZeroU16};

use dunlin::{
    QoS,
    broker::{Shared, admit},
    codec::{
        self, ConnAckReturn, Connect, DecodeError, DecodeErrorKind, Decoded, Delivery, Disconnect,
        PACKET_BYTES_LIMIT, Packet, PacketKind, PayloadFormat, Publish, ReasonCode, Version,
    },
    topic::{TopicError, TopicFilter, check_name},
};

/// Below this Maximum Packet Size a client may not be able to take its CONNACK.
const CONNACK_BYTES_MAX: u32 = 1024;

/// What is owed.
pub(crate) struct Verdict {
    greeting: Greeting,
    answers: Vec<Answer>,
    ending: Ending,
    /// Whether the client acknowledges what it may not have got: that breaks the protocol if it has got
    /// something else with that packet identifier.
    may_misbehave: bool,
    /// Packets that were judged, the last one included. The broker hears no more of them.
    pub(crate) packets: usize,
}

/// A packet that answers one of the client's, with its packet identifier and number of codes.
type Answer = (PacketKind, u16, usize);

/// The answer to the first packet.
#[derive(Clone, Copy, PartialEq)]
enum Greeting {
    /// The connection is closed without a word.
    Nothing,
    /// CONNACK of this version with this code.
    ConnAck(Version, u8),
    /// That, or a refusal that may not fit either.
    IfItFits(Version),
}

/// How a connection ends.
#[derive(Clone, Copy, PartialEq)]
enum Ending {
    /// The client closes it.
    ByClient,
    /// The client says DISCONNECT, and the broker closes it without a word.
    Disconnect,
    /// The broker refuses it, or cannot tell what it is.
    Refused,
    /// The broker gives it up; a v5 client is told this reason.
    Closed(ReasonCode),
}

/// What the rules of a connection depend on.
struct Connection<'a> {
    shared: &'a Shared,
    version: Version,
    session_expiry_secs: u32,
    aliases: BTreeSet<NonZeroU16>,
}

impl Verdict {
    /// Judges all that a client sends on one connection.
    pub(crate) fn of(bytes: &[u8], shared: &Shared) -> Verdict {
        let mut verdict = Verdict {
            greeting: Greeting::Nothing,
            answers: Vec::new(),
            ending: Ending::Refused,
            may_misbehave: false,
            packets: 1,
        };
        match codec::decode(bytes, Version::V5, shared.limits.packet_bytes_max) {
            Ok(Decoded::Packet(Packet::Connect(connect), length)) => {
                verdict.greeting = greeting(&connect, shared);
                if verdict.is_accepted() {
                    verdict.judge(&bytes[length..], &mut Connection::new(&connect, shared));
                }
            }
            Ok(Decoded::Packet(..)) => {}
            Ok(Decoded::Incomplete(_)) => verdict.ending = Ending::ByClient,
            Err(error) => verdict.greeting = refusal(&error),
        }
        verdict
    }

    /// Whether the broker closes the connection though the client has not closed its side.
    pub(crate) fn is_ended_by_broker(&self) -> bool {
        self.ending != Ending::ByClient
    }

    /// Whether the client is let in, if it can be told.
    fn is_accepted(&self) -> bool {
        matches!(self.greeting, Greeting::ConnAck(_, 0) | Greeting::IfItFits(_))
    }

    /// Whether a client that was let in, and has received this, has to be sent more.
    pub(crate) fn is_more_due(&self, received: &[u8]) -> bool {
        let version = match self.greeting {
            Greeting::Nothing => return false,
            // What the client cannot take is not sent.
            Greeting::IfItFits(_) => return received.is_empty(),
            Greeting::ConnAck(version, _) => version,
        };
        let mut due = self.answers.clone();
        let mut packets = Packets { bytes: received, version };
        // Whatever is wrong with what is there is for `check`.
        let Ok(Some(_)) = packets.next() else { return true };
        while let Ok(Some(packet)) = packets.next() {
            if let Some(at) = due.iter().position(|answer| *answer == described(&packet)) {
                due.remove(at);
            }
        }
        !due.is_empty()
    }

    /// Judges what follows a CONNECT that is accepted.
    fn judge(&mut self, mut bytes: &[u8], connection: &mut Connection<'_>) {
        self.ending = Ending::ByClient;
        let packet_bytes_max = connection.shared.limits.packet_bytes_max;
        while !bytes.is_empty() {
            self.packets += 1;
            let ending = match codec::decode(bytes, connection.version, packet_bytes_max) {
                Ok(Decoded::Packet(packet, length)) => {
                    bytes = &bytes[length..];
                    self.may_misbehave |=
                        matches!(packet, Packet::PubAck(_) | Packet::PubRec(_) | Packet::PubComp(_));
                    self.answers.extend(answer(&packet, connection.version));
                    connection.ending(&packet)
                }
                Ok(Decoded::Incomplete(_)) => return,
                Err(error) => Some(Ending::Closed(closing_code(&error))),
            };
            if let Some(ending) = ending {
                self.ending = ending;
                return;
            }
        }
    }

    /// Checks all that the broker has sent on the connection.
    pub(crate) fn check(mut self, received: &[u8]) -> Result<(), String> {
        let (version, code) = match self.greeting {
            Greeting::Nothing if received.is_empty() => return Ok(()),
            Greeting::Nothing => return Err("an answer where there is none".into()),
            Greeting::IfItFits(_) if received.is_empty() => return Ok(()),
            Greeting::IfItFits(version) => (version, None),
            Greeting::ConnAck(version, code) => (version, Some(code)),
        };
        let mut packets = Packets { bytes: received, version };
        let found = match packets.next()? {
            Some(Packet::ConnAck(ack)) => ack.code,
            other => return Err(format!("{other:?} where CONNACK is due")),
        };
        if matches!(found, ConnAckReturn::V5(_)) != version.is_v5()
            || code.is_some_and(|code| found.number() != code)
        {
            return Err(format!("CONNACK {found:?} where {code:?} is due"));
        }
        let mut told = None;
        while let Some(packet) = packets.next()? {
            if told.is_some() || found.number() != 0 {
                return Err(format!("{packet:?} after the last packet"));
            }
            told = self.check_packet(&packet)?;
        }
        if found.number() == 0 { self.check_ending(told, version) } else { Ok(()) }
    }

    /// Checks a packet behind CONNACK. Returns the reason in DISCONNECT.
    fn check_packet(&mut self, packet: &Packet<'_>) -> Result<Option<ReasonCode>, String> {
        match packet {
            // What others publish, and PUBREL of a session that is gone on with.
            Packet::Publish(_) | Packet::PubRel(_) => return Ok(None),
            Packet::Disconnect(Disconnect { reason, .. }) => return Ok(Some(*reason)),
            _ => {}
        }
        let at = self.answers.iter().position(|answer| *answer == described(packet));
        let at = at.ok_or_else(|| format!("{packet:?}, which answers nothing"))?;
        self.answers.remove(at);
        Ok(None)
    }

    fn check_ending(&self, told: Option<ReasonCode>, version: Version) -> Result<(), String> {
        let has_answers = matches!(self.greeting, Greeting::ConnAck(..)) && self.ending == Ending::ByClient;
        if has_answers && told.is_none() && !self.answers.is_empty() && !self.may_misbehave {
            return Err(format!("no answer of {:?}", self.answers));
        }
        let due = match self.ending {
            // Before MQTT 5 the broker has no DISCONNECT.
            Ending::Closed(code) if version.is_v5() => Some(code),
            Ending::Closed(_) | Ending::ByClient | Ending::Disconnect | Ending::Refused => None,
        };
        let misbehaves = self.may_misbehave && told == Some(ReasonCode::ProtocolError);
        if told == due || (misbehaves && version.is_v5()) {
            return Ok(());
        }
        Err(format!("told {told:?} where {due:?} is due"))
    }
}

/// A packet as one that answers another.
fn described(packet: &Packet<'_>) -> Answer {
    match packet {
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubComp(ack) => {
            (packet.kind(), ack.packet_id.get(), 0)
        }
        Packet::SubAck(ack) => (PacketKind::SubAck, ack.packet_id.get(), ack.codes.len()),
        Packet::UnsubAck(ack) => (PacketKind::UnsubAck, ack.packet_id.get(), ack.codes.len()),
        other => (other.kind(), 0, 0),
    }
}

/// The packets in what was received.
struct Packets<'a> {
    bytes: &'a [u8],
    version: Version,
}

impl<'a> Packets<'a> {
    fn next(&mut self) -> Result<Option<Packet<'a>>, String> {
        match codec::decode(self.bytes, self.version, PACKET_BYTES_LIMIT) {
            Ok(Decoded::Packet(packet, length)) => {
                self.bytes = &self.bytes[length..];
                Ok(Some(packet))
            }
            Ok(Decoded::Incomplete(_)) if self.bytes.is_empty() => Ok(None),
            Ok(Decoded::Incomplete(_)) => Err(format!("the end within a packet: {:02x?}", self.bytes)),
            Err(error) => Err(format!("{error} in what the broker sent: {:02x?}", self.bytes)),
        }
    }
}

/// The answer to bytes that are no CONNECT. `[MQTT-3.1.2-1]` `[MQTT-3.1.2-2]` `[MQTT-3.1.4-1]`
fn refusal(error: &DecodeError) -> Greeting {
    match (error.kind, error.version) {
        (DecodeErrorKind::UnsupportedVersion { connack: Version::V5, .. }, _) => {
            Greeting::ConnAck(Version::V5, ReasonCode::UnsupportedProtocolVersion as u8)
        }
        // [MQTT-3.1.1/3.1.2-2]
        (DecodeErrorKind::UnsupportedVersion { connack, .. }, _) => Greeting::ConnAck(connack, 1),
        (_, Some(Version::V5)) => Greeting::ConnAck(Version::V5, error.reason_code() as u8),
        // [MQTT-3.1.1/3.1.4-1]
        (_, Some(Version::V31 | Version::V311) | None) => Greeting::Nothing,
    }
}

/// The answer to a CONNECT. The broker has no back end for enhanced authentication. `[MQTT-4.12.0-1]`
fn greeting(connect: &Connect<'_>, shared: &Shared) -> Greeting {
    let version = connect.version;
    if connect.properties.packet_bytes_max.is_some_and(|max| max.get() < CONNACK_BYTES_MAX) {
        return Greeting::IfItFits(version);
    }
    if let Err(refusal) = admit(connect, shared, &shared.limits) {
        return match refusal.conn_ack(version) {
            Some(Packet::ConnAck(ack)) => Greeting::ConnAck(version, ack.code.number()),
            Some(_) | None => Greeting::Nothing,
        };
    }
    match connect.properties.authentication_method {
        Some(_) => Greeting::ConnAck(version, ReasonCode::BadAuthenticationMethod as u8),
        None => Greeting::ConnAck(version, 0),
    }
}

/// The reason for which bytes that are no packet close a connection. `[MQTT-4.13.1-1]`
fn closing_code(error: &DecodeError) -> ReasonCode {
    match error.packet {
        // [MQTT-3.1.0-2] Whatever is in them, these have no place here.
        Some(
            PacketKind::Connect
            | PacketKind::ConnAck
            | PacketKind::SubAck
            | PacketKind::UnsubAck
            | PacketKind::PingResp,
        ) => ReasonCode::ProtocolError,
        _ => error.reason_code(),
    }
}

/// The packet that answers this one, if there is such a packet.
fn answer(packet: &Packet<'_>, version: Version) -> Option<Answer> {
    let codes = |count| if version.is_v5() { count } else { 0 };
    match packet {
        Packet::Publish(publish) => match publish.delivery {
            Delivery::AtMostOnce => None,
            Delivery::AtLeastOnce(id) => Some((PacketKind::PubAck, id.get(), 0)),
            Delivery::ExactlyOnce(id) => Some((PacketKind::PubRec, id.get(), 0)),
        },
        Packet::PubRel(ack) => Some((PacketKind::PubComp, ack.packet_id.get(), 0)),
        Packet::Subscribe(packet) => {
            Some((PacketKind::SubAck, packet.packet_id.get(), packet.filters.iter().count()))
        }
        Packet::Unsubscribe(packet) => {
            Some((PacketKind::UnsubAck, packet.packet_id.get(), codes(packet.filters.iter().count())))
        }
        Packet::PingReq => Some((PacketKind::PingResp, 0, 0)),
        _ => None,
    }
}

impl<'a> Connection<'a> {
    fn new(connect: &Connect<'_>, shared: &'a Shared) -> Connection<'a> {
        Connection {
            shared,
            version: connect.version,
            session_expiry_secs: connect.properties.session_expiry_secs.unwrap_or(0),
            aliases: BTreeSet::new(),
        }
    }

    /// How a packet ends the connection, if it does.
    fn ending(&mut self, packet: &Packet<'_>) -> Option<Ending> {
        let code = match packet {
            Packet::Publish(publish) => self.publish(publish)?,
            Packet::Subscribe(packet) => self.filters(packet.filters.iter().map(|(filter, _)| filter))?,
            Packet::Unsubscribe(packet) => self.filters(packet.filters.iter())?,
            Packet::Disconnect(packet) => match packet.properties.session_expiry_secs {
                Some(1..) if self.session_expiry_secs == 0 => ReasonCode::ProtocolError,
                Some(_) | None => return Some(Ending::Disconnect),
            },
            Packet::PubAck(_)
            | Packet::PubRec(_)
            | Packet::PubRel(_)
            | Packet::PubComp(_)
            | Packet::PingReq => return None,
            // [MQTT-3.1.0-2] [MQTT-4.12.0-7]
            Packet::Connect(_)
            | Packet::Auth(_)
            | Packet::ConnAck(_)
            | Packet::SubAck(_)
            | Packet::UnsubAck(_)
            | Packet::PingResp => ReasonCode::ProtocolError,
        };
        Some(Ending::Closed(code))
    }

    /// Why a PUBLISH closes the connection, if it does.
    fn publish(&mut self, publish: &Publish<'_>) -> Option<ReasonCode> {
        let properties = &publish.properties;
        if !properties.subscription_ids.is_empty() {
            return Some(ReasonCode::ProtocolError);
        }
        // Before MQTT 5, and at QoS 0, there is no answer that could refuse it.
        let is_fatal = !self.version.is_v5() || publish.delivery.qos() == QoS::AtMostOnce;
        let limits = self.shared.topic_limits();
        if !publish.topic.is_empty() && check_name(publish.topic, &limits).is_err() {
            return Some(ReasonCode::TopicNameInvalid).filter(|_| is_fatal);
        }
        match properties.topic_alias {
            Some(alias) if alias.get() > self.shared.limits.topic_alias_maximum => {
                return Some(ReasonCode::TopicAliasInvalid);
            }
            Some(alias) if publish.topic.is_empty() && !self.aliases.contains(&alias) => {
                return Some(ReasonCode::ProtocolError);
            }
            Some(alias) => drop(self.aliases.insert(alias)),
            None => {}
        }
        let is_text = properties.payload_format == Some(PayloadFormat::Utf8);
        let is_wrong = is_text && std::str::from_utf8(publish.payload).is_err();
        Some(ReasonCode::PayloadFormatInvalid).filter(|_| is_wrong && is_fatal)
    }

    /// Why topic filters close the connection, if they do.
    fn filters<'f>(&self, mut filters: impl Iterator<Item = &'f str>) -> Option<ReasonCode> {
        let is_none = |filter| match TopicFilter::parse(filter, &self.shared.topic_limits()) {
            Ok(_) | Err(TopicError::TooLong { .. } | TopicError::TooManyLevels { .. }) => false,
            Err(_) => true,
        };
        filters.any(is_none).then_some(ReasonCode::TopicFilterInvalid)
    }
}
