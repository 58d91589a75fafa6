//! The fixed header, before it matters which packet it is.

use dunlin::codec::{DecodeErrorKind as E, Delivery, Packet, Publish, PublishProperties};

use super::{ALL, Row, SINCE_V311, V3, V5, V31, V311, bad, good};

fn publish(topic: &'static str, payload: &'static [u8]) -> Packet<'static> {
    Packet::Publish(Publish {
        dup: false,
        delivery: Delivery::AtMostOnce,
        retain: false,
        topic,
        properties: PublishProperties::default(),
        payload,
    })
}

static ZEROS: [u8; 2_097_152] = [0; 2_097_152];

#[rustfmt::skip]
pub(super) fn rows() -> Vec<Row> {
    let flags = |found| E::FixedHeaderFlags { found, required: 0 };
    let flags2 = |found| E::FixedHeaderFlags { found, required: 2 };
    vec![
        // [MQTT-1.5.5-1] remaining lengths at the limits of their widths.
        good("remaining length 127 takes one byte", V3, "30 7F ('t') 00*124", publish("t", &ZEROS[..124])),
        good("remaining length 128 takes two bytes", V3, "30 8001 ('t') 00*125", publish("t", &ZEROS[..125])),
        good("remaining length 16,383 takes two bytes", V3, "30 FF7F ('t') 00*16380", publish("t", &ZEROS[..16_380])),
        good("remaining length 16,384 takes three bytes", V3, "30 808001 ('t') 00*16381", publish("t", &ZEROS[..16_381])),
        good("remaining length 2,097,151 takes three bytes", V311, "30 FFFF7F ('t') 00*2097148", publish("t", &ZEROS[..2_097_148])),
        good("remaining length 2,097,152 takes four bytes", V311, "30 80808001 ('t') 00*2097149", publish("t", &ZEROS[..2_097_149])),
        bad("remaining length of 0 in two bytes", ALL, "C0 8000", E::RemainingLength, 0x81),
        bad("remaining length of 0 in four bytes", ALL, "C0 80808000", E::RemainingLength, 0x81),
        bad("remaining length of 127 in two bytes", ALL, "30 FF00 ('t') 00*124", E::RemainingLength, 0x81),
        bad("remaining length of 2 in three bytes", ALL, "40 828000 0001", E::RemainingLength, 0x81),
        bad("remaining length of five bytes", ALL, "30 8080808001", E::RemainingLength, 0x81),
        bad("remaining length that never ends", ALL, "30 FFFFFFFF", E::RemainingLength, 0x81),

        bad("packet type 0", ALL, "00 00", E::ReservedPacketType(0), 0x81),
        bad("packet type 0 with flags", ALL, "0F 00", E::ReservedPacketType(0), 0x81),
        bad("AUTH is reserved before v5", V3, "F0 00", E::ReservedPacketType(15), 0x81),
        bad("AUTH with flags before v5", V3, "FF 00", E::ReservedPacketType(15), 0x81),

        // [MQTT-2.1.3-1] reserved flags, each bit of each type.
        bad("CONNECT with flags 0001", ALL, "11 00", flags(1), 0x81),
        bad("CONNECT with flags 0010", ALL, "12 00", flags(2), 0x81),
        bad("CONNECT with flags 1000", ALL, "18 00", flags(8), 0x81),
        bad("CONNACK with flags 0001", ALL, "21 02 00 00", flags(1), 0x81),
        bad("CONNACK with flags 1111", ALL, "2F 02 00 00", flags(15), 0x81),
        bad("PUBACK with flags 0001", ALL, "41 02 0001", flags(1), 0x81),
        bad("PUBACK with flags 0010", ALL, "42 02 0001", flags(2), 0x81),
        bad("PUBREC with flags 0010", ALL, "52 02 0001", flags(2), 0x81),
        bad("PUBREC with flags 1000", ALL, "58 02 0001", flags(8), 0x81),
        bad("PUBCOMP with flags 0010", ALL, "72 02 0001", flags(2), 0x81),
        bad("SUBACK with flags 0010", ALL, "92 03 0001 00", flags(2), 0x81),
        bad("UNSUBACK with flags 0010", ALL, "B2 02 0001", flags(2), 0x81),
        bad("PINGREQ with flags 0001", ALL, "C1 00", flags(1), 0x81),
        bad("PINGREQ with flags 1000", ALL, "C8 00", flags(8), 0x81),
        bad("PINGRESP with flags 0100", ALL, "D4 00", flags(4), 0x81),
        // [MQTT-3.14.1-1]
        bad("DISCONNECT with flags 0001", ALL, "E1 00", flags(1), 0x81),
        bad("DISCONNECT with flags 0010", ALL, "E2 00", flags(2), 0x81),
        // [MQTT-3.15.1-1]
        bad("AUTH with flags 0001", V5, "F1 00", flags(1), 0x81),
        // [MQTT-3.6.1-1]
        bad("PUBREL with flags 0000", ALL, "60 02 0001", flags2(0), 0x81),
        bad("PUBREL with flags 0011", ALL, "63 02 0001", flags2(3), 0x81),
        bad("PUBREL with flags 1010", SINCE_V311, "6A 02 0001", flags2(10), 0x81),
        // [MQTT-3.8.1-1]
        bad("SUBSCRIBE with flags 0000", ALL, "80 06 0001 ('a') 00", flags2(0), 0x81),
        bad("SUBSCRIBE with flags 0110", ALL, "86 06 0001 ('a') 00", flags2(6), 0x81),
        bad("SUBSCRIBE with flags 1010", SINCE_V311, "8A 06 0001 ('a') 00", flags2(10), 0x81),
        // [MQTT-3.10.1-1]
        bad("UNSUBSCRIBE with flags 0000", ALL, "A0 05 0001 ('a')", flags2(0), 0x81),
        bad("UNSUBSCRIBE with flags 0011", V31, "A3 05 0001 ('a')", flags2(3), 0x81),
        bad("UNSUBSCRIBE with flags 1010", SINCE_V311, "AA 05 0001 ('a')", flags2(10), 0x81),
        // [MQTT-3.3.1-4]
        bad("PUBLISH with QoS 3", ALL, "36 05 ('t') 0001", E::PublishQoS, 0x81),
        bad("PUBLISH with QoS 3 and all other flags", ALL, "3F 05 ('t') 0001", E::PublishQoS, 0x81),
        // [MQTT-3.3.1-2]
        bad("PUBLISH with DUP at QoS 0", ALL, "38 03 ('t')", E::DupAtQoS0, 0x81),
        bad("PUBLISH with DUP and RETAIN at QoS 0", ALL, "39 03 ('t')", E::DupAtQoS0, 0x81),
    ]
}
