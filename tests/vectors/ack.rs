//! PUBACK, PUBREC, PUBREL and PUBCOMP.

use std::num::NonZeroU16;

use dunlin::codec::{
    Ack, AckProperties, DecodeErrorKind as E, Packet, PropertyId as P, ReasonCode, UserProperties,
};

use super::{ALL, Row, V3, V5, V31, bad, good, legal};

fn success(packet_id: u16) -> Ack<'static> {
    Ack::success(NonZeroU16::new(packet_id).unwrap())
}

fn ack(packet_id: u16, reason: ReasonCode) -> Ack<'static> {
    Ack { reason, ..success(packet_id) }
}

fn because(packet_id: u16, reason: ReasonCode, reason_string: &'static str) -> Ack<'static> {
    let properties = AckProperties { reason_string: Some(reason_string), ..AckProperties::default() };
    Ack { properties, ..ack(packet_id, reason) }
}

pub(super) fn rows() -> Vec<Row> {
    let mut rows = right();
    rows.extend(broken());
    rows
}

#[rustfmt::skip]
fn right() -> Vec<Row> {
    use ReasonCode as R;
    let user_properties = UserProperties::from_list(&[("k", "v"), ("k", "w")]);
    vec![
        good("PUBACK", ALL, "40 02 0001", Packet::PubAck(success(1))),
        good("PUBREC", ALL, "50 02 FFFF", Packet::PubRec(success(65_535))),
        good("PUBREL", ALL, "62 02 0100", Packet::PubRel(success(256))),
        good("PUBCOMP", ALL, "70 02 00FF", Packet::PubComp(success(255))),
        // MQTT 3.1 repeats PUBREL with DUP.
        legal("PUBREL of MQTT 3.1 with DUP", V31, "6A 02 0001", Packet::PubRel(success(1)), "62 02 0001"),
        good("PUBACK with a reason code alone", V5, "40 03 0001 10", Packet::PubAck(ack(1, R::NoMatchingSubscribers))),
        good("PUBREC with a reason code alone", V5, "50 03 0001 97", Packet::PubRec(ack(1, R::QuotaExceeded))),
        good("PUBREL with a reason code alone", V5, "62 03 0001 92", Packet::PubRel(ack(1, R::PacketIdentifierNotFound))),
        good("PUBCOMP with a reason code alone", V5, "70 03 0001 92", Packet::PubComp(ack(1, R::PacketIdentifierNotFound))),
        legal("PUBACK that spells success out", V5, "40 03 0001 00", Packet::PubAck(success(1)), "40 02 0001"),
        legal("PUBACK that spells out that it has no properties", V5, "40 04 0001 00 00", Packet::PubAck(success(1)), "40 02 0001"),
        legal("PUBREC with a reason code and no properties", V5, "50 04 0001 80 00", Packet::PubRec(ack(1, R::UnspecifiedError)), "50 03 0001 80"),
        legal("PUBREL that spells out that it has no properties", V5, "62 04 0001 00 00", Packet::PubRel(success(1)), "62 02 0001"),
        legal("PUBCOMP that spells success out", V5, "70 03 0001 00", Packet::PubComp(success(1)), "70 02 0001"),
        good("PUBACK with a reason string", V5, "40[ 0001 87 [1F('no')] ]", Packet::PubAck(because(1, R::NotAuthorized, "no"))),
        good("PUBREC with a reason string", V5, "50[ 0001 90 [1F('no')] ]", Packet::PubRec(because(1, R::TopicNameInvalid, "no"))),
        good("PUBREL with a reason string and success", V5, "62[ 0001 00 [1F('')] ]", Packet::PubRel(because(1, R::Success, ""))),
        good("PUBCOMP with a reason string", V5, "70[ 0001 92 [1F('no')] ]", Packet::PubComp(because(1, R::PacketIdentifierNotFound, "no"))),
        good("PUBACK with user properties", V5, "40[ 0001 00 [26('k')('v') 26('k')('w')] ]",
            Packet::PubAck(Ack { properties: AckProperties { user_properties, ..AckProperties::default() }, ..success(1) })),
        legal("PUBACK with the reason string between user properties", V5, "40[ 0001 99 [26('k')('v') 1F('no') 26('k')('w')] ]",
            Packet::PubAck(Ack { properties: AckProperties { reason_string: Some("no"), user_properties }, ..ack(1, R::PayloadFormatInvalid) }),
            "40[ 0001 99 [1F('no') 26('k')('v') 26('k')('w')] ]"),
    ]
}

#[rustfmt::skip]
fn broken() -> Vec<Row> {
    let id = E::Truncated("packet identifier");
    vec![
        bad("PUBACK without a body", ALL, "40 00", id, 0x81),
        bad("PUBREC with half a packet identifier", ALL, "50 01 00", id, 0x81),
        bad("PUBREL without a body", ALL, "62 00", id, 0x81),
        bad("PUBCOMP with half a packet identifier", ALL, "70 01 00", id, 0x81),
        // [MQTT-2.2.1-3]
        bad("PUBACK with packet identifier 0", ALL, "40 02 0000", E::PacketIdZero, 0x82),
        bad("PUBREC with packet identifier 0", ALL, "50 02 0000", E::PacketIdZero, 0x82),
        bad("PUBREL with packet identifier 0", ALL, "62 02 0000", E::PacketIdZero, 0x82),
        bad("PUBCOMP with packet identifier 0", ALL, "70 02 0000", E::PacketIdZero, 0x82),
        bad("PUBACK before v5 with a reason code", V3, "40 03 0001 00", E::TrailingBytes, 0x81),
        bad("PUBREC before v5 with a reason code", V3, "50 03 0001 00", E::TrailingBytes, 0x81),
        bad("PUBREL before v5 with properties", V3, "62 04 0001 00 00", E::TrailingBytes, 0x81),
        bad("PUBCOMP before v5 with more behind it", V3, "70 03 0001 92", E::TrailingBytes, 0x81),
        // [MQTT-3.4.2-1], [MQTT-3.5.2-1], [MQTT-3.6.2-1], [MQTT-3.7.2-1]
        bad("PUBACK with a granted QoS", V5, "40 03 0001 01", E::Code(0x01), 0x82),
        bad("PUBACK with the reason code of PUBREL", V5, "40 03 0001 92", E::Code(0x92), 0x82),
        bad("PUBACK with a reason code that does not exist", V5, "40 03 0001 FF", E::Code(0xFF), 0x82),
        bad("PUBREC with the reason code of DISCONNECT", V5, "50 03 0001 8E", E::Code(0x8E), 0x82),
        bad("PUBREL with the reason code of PUBACK", V5, "62 03 0001 10", E::Code(0x10), 0x82),
        bad("PUBCOMP with the reason code of PUBREC", V5, "70 03 0001 80", E::Code(0x80), 0x82),
        bad("PUBACK with more behind its properties", V5, "40 05 0001 00 00 00", E::TrailingBytes, 0x81),
        bad("PUBREL with properties longer than the packet", V5, "62 04 0001 00 01", E::Truncated("properties"), 0x81),
        bad("PUBREC with a reason string cut off", V5, "50[ 0001 00 [1F 0002 'n'] ]", E::Truncated("reason string"), 0x81),
        bad("PUBACK with two reason strings", V5, "40[ 0001 00 [1F('a') 1F('b')] ]", E::PropertyRepeated(P::ReasonString), 0x82),
        bad("PUBCOMP with a reason string that is not UTF-8", V5, "70[ 0001 00 [1F(FF)] ]", E::Utf8("reason string"), 0x81),
        bad("PUBACK with a topic alias", V5, "40[ 0001 00 [23 0001] ]", E::PropertyNotAllowed(P::TopicAlias), 0x81),
        bad("PUBREL with server reference", V5, "62[ 0001 00 [1C('a')] ]", E::PropertyNotAllowed(P::ServerReference), 0x81),
    ]
}
