//! Whole packets: the fixed header, and the way from it to each packet's own module.

use super::connect::version_asked;
use super::publish::check_flags;
use super::reason::ReasonPlace;
use super::wire::{Reader, VariableByteInteger, variable_byte_integer, write_length_prefixed};
use super::{
    Ack, AckProperties, Auth, ConnAck, Connect, DecodeError, DecodeErrorKind, Decoded, Disconnect,
    PACKET_BYTES_LIMIT, Packet, PacketKind, Publish, SubAck, Subscribe, UnsubAck, Unsubscribe,
    UserProperties, Version,
};

/// Decodes the packet at the start of `buffer`, which may hold less or more than one packet.
///
/// CONNECT says its own version; all others are read as packets of `version`. The fixed header is judged
/// as soon as its bytes are there, so that a wrong or too large packet is refused before its body arrives.
/// Nothing is allocated but the box of CONNECT and CONNACK.
#[inline]
pub fn decode<'a>(
    buffer: &'a [u8],
    version: Version,
    packet_bytes_max: u32,
) -> Result<Decoded<'a>, DecodeError> {
    let Some((&first, after_first)) = buffer.split_first() else {
        return Ok(Decoded::Incomplete(None));
    };
    let kind = packet_kind(first, version)?;
    let error = |error| DecodeError { packet: Some(kind), kind: error, version: None };
    let (remaining, width) = match variable_byte_integer(after_first) {
        VariableByteInteger::Value(value, width) => (value, width),
        VariableByteInteger::Incomplete => return Ok(Decoded::Incomplete(None)),
        VariableByteInteger::Invalid => return Err(error(DecodeErrorKind::RemainingLength)),
    };
    let length = 1 + width + remaining as usize;
    if length > packet_bytes_max as usize {
        return Err(error(DecodeErrorKind::PacketTooLarge { packet_bytes: length as u32, packet_bytes_max }));
    }
    let Some(body) = buffer.get(1 + width..length) else {
        return Ok(Decoded::Incomplete(Some(length)));
    };
    // By itself, because it is the most frequent by far.
    if kind == PacketKind::Publish {
        let publish = Publish::decode(first & 0x0F, body, version).map_err(error)?;
        return Ok(Decoded::Packet(Packet::Publish(publish), length));
    }
    match decode_body(kind, body, version) {
        Ok(packet) => Ok(Decoded::Packet(packet, length)),
        Err(kind_of_error) => Err(DecodeError {
            version: if kind == PacketKind::Connect { version_asked(body) } else { None },
            ..error(kind_of_error)
        }),
    }
}

/// The packet type in the first byte, if the flags beside it are right.
#[inline]
fn packet_kind(first: u8, version: Version) -> Result<PacketKind, DecodeError> {
    let number = first >> 4;
    let flags = first & 0x0F;
    let kind = match PacketKind::from_u8(number) {
        Some(kind) if kind != PacketKind::Auth || version.is_v5() => kind,
        _ => {
            let kind = DecodeErrorKind::ReservedPacketType(number);
            return Err(DecodeError { packet: None, kind, version: None });
        }
    };
    let checked = match kind {
        PacketKind::Publish => check_flags(flags),
        _ => check_reserved_flags(kind, flags, version),
    };
    checked.map_err(|error| DecodeError { packet: Some(kind), kind: error, version: None })?;
    Ok(kind)
}

/// [MQTT-2.1.3-1]
fn check_reserved_flags(kind: PacketKind, flags: u8, version: Version) -> Result<(), DecodeErrorKind> {
    let required = kind.reserved_flags();
    // In MQTT 3.1 the packets that are of QoS 1 by definition may be repeated with DUP.
    let ignored = if version == Version::V31 && required == 0b0010 { 0b1000 } else { 0 };
    if flags & !ignored != required {
        return Err(DecodeErrorKind::FixedHeaderFlags { found: flags, required });
    }
    Ok(())
}

fn decode_body<'a>(
    kind: PacketKind,
    body: &'a [u8],
    version: Version,
) -> Result<Packet<'a>, DecodeErrorKind> {
    Ok(match kind {
        PacketKind::Connect => Packet::Connect(Box::new(Connect::decode(body)?)),
        PacketKind::ConnAck => Packet::ConnAck(Box::new(ConnAck::decode(body, version)?)),
        PacketKind::Publish => unreachable!("PUBLISH was decoded by the caller, who has its flags"),
        PacketKind::PubAck => Packet::PubAck(Ack::decode(body, version, ReasonPlace::PubAckOrRec)?),
        PacketKind::PubRec => Packet::PubRec(Ack::decode(body, version, ReasonPlace::PubAckOrRec)?),
        PacketKind::PubRel => Packet::PubRel(Ack::decode(body, version, ReasonPlace::PubRelOrComp)?),
        PacketKind::PubComp => Packet::PubComp(Ack::decode(body, version, ReasonPlace::PubRelOrComp)?),
        PacketKind::Subscribe => Packet::Subscribe(Subscribe::decode(body, version)?),
        PacketKind::SubAck => Packet::SubAck(SubAck::decode(body, version)?),
        PacketKind::Unsubscribe => Packet::Unsubscribe(Unsubscribe::decode(body, version)?),
        PacketKind::UnsubAck => Packet::UnsubAck(UnsubAck::decode(body, version)?),
        PacketKind::PingReq => Reader::new(body).finish().map(|()| Packet::PingReq)?,
        PacketKind::PingResp => Reader::new(body).finish().map(|()| Packet::PingResp)?,
        PacketKind::Disconnect => Packet::Disconnect(Disconnect::decode(body, version)?),
        PacketKind::Auth => Packet::Auth(Auth::decode(body)?),
    })
}

/// Appends `packet` to `out`. CONNECT is written in its own version; before v5 reason codes and
/// properties are left out.
///
/// # Panics
/// If a string or binary field has more than 65,535 bytes or the packet more than [`PACKET_BYTES_LIMIT`]:
/// who makes a packet from input of any length checks it first. What was decoded can be encoded.
pub fn encode(packet: &Packet<'_>, version: Version, out: &mut Vec<u8>) {
    if let Packet::Publish(publish) = packet {
        let fits = publish.encode_within(version, PACKET_BYTES_LIMIT, out);
        assert!(
            fits,
            "PUBLISH is larger than the format can express: senders check sizes before they encode"
        );
        return;
    }
    out.push(packet.kind().first_byte());
    write_length_prefixed(out, |out| match packet {
        Packet::Publish(_) => unreachable!("PUBLISH was encoded above, with its flags"),
        Packet::Connect(connect) => connect.encode(out),
        Packet::ConnAck(connack) => connack.encode(version, out),
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            ack.encode(version, out);
        }
        Packet::Subscribe(subscribe) => subscribe.encode(version, out),
        Packet::SubAck(suback) => suback.encode(version, out),
        Packet::Unsubscribe(unsubscribe) => unsubscribe.encode(version, out),
        Packet::UnsubAck(unsuback) => unsuback.encode(version, out),
        Packet::PingReq | Packet::PingResp => {}
        Packet::Disconnect(disconnect) => disconnect.encode(version, out),
        Packet::Auth(auth) => auth.encode(out),
    });
}

/// As [`encode`], for a receiver that takes packets of at most `packet_bytes_max`.
///
/// An answer that is larger loses its user properties, and if that is not enough its reason string too.
/// Returns false, with `out` as it was, if the packet is still too large. What others put into a packet
/// (PUBLISH, and what clients send) is never left out.
pub fn encode_within(
    packet: &Packet<'_>,
    version: Version,
    packet_bytes_max: u32,
    out: &mut Vec<u8>,
) -> bool {
    // [MQTT-3.2.2-19], [MQTT-3.2.2-20], [MQTT-3.4.2-2], [MQTT-3.4.2-3] and their like.
    encode_if_fits(packet, version, packet_bytes_max, out)
        || without(packet, Optional::UserProperties)
            .is_some_and(|packet| encode_if_fits(&packet, version, packet_bytes_max, out))
        || without(packet, Optional::UserPropertiesAndReasonString)
            .is_some_and(|packet| encode_if_fits(&packet, version, packet_bytes_max, out))
}

fn encode_if_fits(packet: &Packet<'_>, version: Version, packet_bytes_max: u32, out: &mut Vec<u8>) -> bool {
    if let Packet::Publish(publish) = packet {
        return publish.encode_within(version, packet_bytes_max, out);
    }
    let before = out.len();
    encode(packet, version, out);
    let fits = out.len() - before <= packet_bytes_max as usize;
    if !fits {
        out.truncate(before);
    }
    fits
}

/// What an answer can do without.
#[derive(Clone, Copy, PartialEq)]
enum Optional {
    UserProperties,
    UserPropertiesAndReasonString,
}

/// The packet without these, if it is an answer of ours.
fn without<'a>(packet: &Packet<'a>, optional: Optional) -> Option<Packet<'a>> {
    let mut packet = packet.clone();
    let (user_properties, reason_string) = match &mut packet {
        Packet::ConnAck(connack) => {
            (&mut connack.properties.user_properties, &mut connack.properties.reason_string)
        }
        Packet::PubAck(Ack { properties, .. })
        | Packet::PubRec(Ack { properties, .. })
        | Packet::PubRel(Ack { properties, .. })
        | Packet::PubComp(Ack { properties, .. })
        | Packet::SubAck(SubAck { properties, .. })
        | Packet::UnsubAck(UnsubAck { properties, .. }) => {
            let AckProperties { user_properties, reason_string } = properties;
            (user_properties, reason_string)
        }
        Packet::Disconnect(Disconnect { properties, .. }) => {
            (&mut properties.user_properties, &mut properties.reason_string)
        }
        Packet::Auth(Auth { properties, .. }) => {
            (&mut properties.user_properties, &mut properties.reason_string)
        }
        Packet::Connect(_)
        | Packet::Publish(_)
        | Packet::Subscribe(_)
        | Packet::Unsubscribe(_)
        | Packet::PingReq
        | Packet::PingResp => return None,
    };
    *user_properties = UserProperties::default();
    if optional == Optional::UserPropertiesAndReasonString {
        *reason_string = None;
    }
    Some(packet)
}
