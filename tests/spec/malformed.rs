//! Bytes that are no packet, or one that the standard forbids: the connection is closed, and a v5 client
//! told why.

use dunlin::codec::{PacketKind, QoS, ReasonCode, Version};

use crate::world::{Setup, World, all};

const MALFORMED: ReasonCode = ReasonCode::MalformedPacket;
const PROTOCOL: ReasonCode = ReasonCode::ProtocolError;

/// Each of these closes a connection of this version, with this code.
fn closes(version: Version, cases: &[(&[u8], ReasonCode)]) {
    for (bytes, code) in cases {
        let world = World::new();
        let watcher = world.connect(Setup::new(version, "w"));
        watcher.subscribe("#", QoS::AtMostOnce);
        let client = world.connect(Setup::new(version, "c"));
        client.send_bytes(bytes);
        if version.is_v5() {
            match client.recv() {
                Some(crate::world::Got::Disconnect { code: found, .. }) => {
                    assert_eq!(found, *code as u8, "{bytes:02x?}");
                }
                other => panic!("expected DISCONNECT for {bytes:02x?}, got {other:?}"),
            }
        }
        assert!(client.is_closed(), "{bytes:02x?}");
        client.expect_silently_closed();
        watcher.expect_nothing();
        world.assert_accounting();
    }
}

// [MQTT-2.1.3-1] [MQTT-3.6.1-1] [MQTT-3.8.1-1] [MQTT-3.10.1-1] [MQTT-3.14.1-1] [MQTT-3.15.1-1]
// [MQTT-4.13.1-1]
// [MQTT-3.1.1/2.2.2-1] [MQTT-3.1.1/2.2.2-2] [MQTT-3.1.1/3.6.1-1] [MQTT-3.1.1/3.8.1-1] [MQTT-3.1.1/3.10.1-1]
// [MQTT-3.1.1/3.14.1-1] [MQTT-3.1.1/4.8.0-1]
#[test]
fn reserved_flags_of_the_fixed_header_are_what_the_table_says() {
    let packets: [(u8, &[u8], &[u8]); 8] = [
        (0x40, &[0, 1], &[0, 1]),
        (0x50, &[0, 1], &[0, 1]),
        (0x62, &[0, 1], &[0, 1]),
        (0x70, &[0, 1], &[0, 1]),
        (0x82, &[0, 1, 0, 1, b't', 0], &[0, 1, 0, 0, 1, b't', 0]),
        (0xA2, &[0, 1, 0, 1, b't'], &[0, 1, 0, 0, 1, b't']),
        (0xC0, &[], &[]),
        (0xE0, &[], &[]),
    ];
    for (first, v3, v5) in packets {
        for flags in (0..16).filter(|flags| *flags != first & 0x0F) {
            for (version, body) in [(Version::V311, v3), (Version::V5, v5)] {
                let bytes = [&[first & 0xF0 | flags, body.len() as u8], body].concat();
                closes(version, &[(&bytes, MALFORMED)]);
            }
        }
    }
    closes(Version::V5, &[(&[0xF1, 0], MALFORMED)]);
}

#[test]
fn packet_types_that_do_not_exist_close_the_connection() {
    all(|version| closes(version, &[(&[0x00, 0], MALFORMED)]));
    closes(Version::V311, &[(&[0xF0, 0], MALFORMED)]);
}

// [MQTT-3.3.1-2] [MQTT-3.3.1-4] [MQTT-3.1.1/3.3.1-2] [MQTT-3.1.1/3.3.1-4]
#[test]
fn publish_has_no_qos_3_and_no_dup_at_qos_0() {
    closes(Version::V311, &[(&[0x36, 5, 0, 1, b't', 0, 1], MALFORMED), (&[0x38, 3, 0, 1, b't'], MALFORMED)]);
    closes(
        Version::V5,
        &[(&[0x36, 6, 0, 1, b't', 0, 1, 0], MALFORMED), (&[0x38, 4, 0, 1, b't', 0], MALFORMED)],
    );
}

// [MQTT-1.5.4-1] [MQTT-1.5.4-2] [MQTT-3.3.2-1] [MQTT-3.8.3-1] [MQTT-3.10.3-1] [MQTT-4.7.3-2] [MQTT-4.7.3-3]
// [MQTT-3.1.1/1.5.3-1] [MQTT-3.1.1/1.5.3-2] [MQTT-3.1.1/3.3.2-1] [MQTT-3.1.1/4.7.3-2] [MQTT-3.1.1/4.7.3-3]
// [MQTT-3.1.1/3.8.3-1] [MQTT-3.1.1/3.10.3-1]
#[test]
fn strings_are_utf_8_without_surrogates_and_without_null() {
    // Not UTF-8, an overlong form, a surrogate, beyond U+10FFFF, cut short, U+0000.
    let bad: [&[u8]; 6] =
        [&[0xFF], &[0xC0, 0xAF], &[0xED, 0xA0, 0x80], &[0xF4, 0x90, 0x80, 0x80], &[0xC3], &[0]];
    for text in bad {
        let string = [&[0, text.len() as u8], text].concat();
        for version in [Version::V311, Version::V5] {
            let none: &[u8] = if version.is_v5() { &[0] } else { &[] };
            let publish = [&string[..], none].concat();
            let subscribe = [&[0, 1], none, &string, &[0]].concat();
            let unsubscribe = [&[0, 1], none, &string].concat();
            for (first, body) in [(0x30, publish), (0x82, subscribe), (0xA2, unsubscribe)] {
                let bytes = [&[first, body.len() as u8], &body[..]].concat();
                closes(version, &[(&bytes, MALFORMED)]);
            }
        }
    }
}

// [MQTT-1.5.7-1] [MQTT-3.3.2-13] [MQTT-3.3.2-19]
#[test]
fn strings_in_properties_obey_the_same_rules() {
    let bad: [&[u8]; 3] = [&[0, 1, 0xFF], &[0, 3, 0xED, 0xA0, 0x80], &[0, 1, 0]];
    for string in bad {
        let name = [&[0x26], string, &[0, 1, b'v']].concat();
        let value = [&[0x26, 0, 1, b'n'], string].concat();
        let response_topic = [&[0x08], string].concat();
        let content_type = [&[0x03], string].concat();
        for property in [name, value, response_topic, content_type] {
            let body = [&[0, 1, b't', property.len() as u8], &property[..]].concat();
            closes(Version::V5, &[(&[&[0x30, body.len() as u8], &body[..]].concat(), MALFORMED)]);
        }
    }
}

// [MQTT-1.5.4-3] [MQTT-3.1.1/1.5.3-3]
#[test]
fn a_byte_order_mark_is_a_character_like_any_other() {
    all(|version| {
        let world = World::new();
        let client = world.connect(Setup::new(version, "c"));
        client.subscribe("\u{feff}t", QoS::AtMostOnce);
        client.publish("t", "without", QoS::AtMostOnce);
        client.publish("\u{feff}t", "with", QoS::AtMostOnce);
        client.expect_publish("\u{feff}t", "with");
        client.expect_nothing();
    });
}

// [MQTT-1.5.5-1]
#[test]
fn lengths_take_their_shortest_form() {
    all(|version| {
        closes(
            version,
            &[
                (&[0xC0, 0x80, 0x00], MALFORMED),
                (&[0xC0, 0x80, 0x80, 0x80, 0x80], MALFORMED),
                (&[0x30, 0xFF, 0xFF, 0xFF, 0xFF], MALFORMED),
            ],
        );
    });
    closes(Version::V5, &[(&[0x30, 5, 0, 1, b't', 0x80, 0x00], MALFORMED)]);
}

// [MQTT-2.2.2-1]
#[test]
fn a_missing_property_length_is_malformed() {
    closes(Version::V5, &[(&[0x30, 3, 0, 1, b't'], MALFORMED), (&[0x82, 2, 0, 1], MALFORMED)]);
}

// [MQTT-2.2.1-3] [MQTT-3.1.1/2.3.1-1]
#[test]
fn packet_identifier_0_is_refused() {
    closes(
        Version::V311,
        &[
            (&[0x32, 5, 0, 1, b't', 0, 0], PROTOCOL),
            (&[0x82, 6, 0, 0, 0, 1, b't', 0], PROTOCOL),
            (&[0xA2, 5, 0, 0, 0, 1, b't'], PROTOCOL),
        ],
    );
    closes(
        Version::V5,
        &[
            (&[0x34, 6, 0, 1, b't', 0, 0, 0], PROTOCOL),
            (&[0x82, 7, 0, 0, 0, 0, 1, b't', 0], PROTOCOL),
            (&[0xA2, 6, 0, 0, 0, 0, 1, b't'], PROTOCOL),
        ],
    );
}

// [MQTT-3.3.2-2] [MQTT-4.7.0-1] [MQTT-4.7.3-1] [MQTT-3.3.2-14]
// [MQTT-3.1.1/3.3.2-2] [MQTT-3.1.1/4.7.1-1] [MQTT-3.1.1/4.7.3-1]
#[test]
fn topic_names_have_a_character_and_no_wildcard() {
    let invalid = ReasonCode::MalformedPacket;
    closes(
        Version::V311,
        &[
            (&[0x30, 3, 0, 1, b'+'], invalid),
            (&[0x30, 5, 0, 3, b'a', b'/', b'#'], invalid),
            (&[0x30, 2, 0, 0], invalid),
            (&[0x82, 5, 0, 1, 0, 0, 0], invalid),
            (&[0xA2, 4, 0, 1, 0, 0], invalid),
        ],
    );
    closes(
        Version::V5,
        &[
            (&[0x30, 4, 0, 1, b'#', 0], invalid),
            (&[0x30, 6, 0, 3, b'a', b'/', b'+', 0], invalid),
            (&[0x30, 3, 0, 0, 0], PROTOCOL),
            (&[0x30, 8, 0, 1, b't', 4, 0x08, 0, 1, b'#'], invalid),
            (&[0x82, 6, 0, 1, 0, 0, 0, 0], MALFORMED),
        ],
    );
}

// [MQTT-3.8.3-2] [MQTT-3.10.3-2] [MQTT-3.1.1/3.8.3-3] [MQTT-3.1.1/3.10.3-2]
#[test]
fn subscribe_and_unsubscribe_have_a_filter() {
    closes(Version::V311, &[(&[0x82, 2, 0, 1], PROTOCOL), (&[0xA2, 2, 0, 1], PROTOCOL)]);
    closes(Version::V5, &[(&[0x82, 3, 0, 1, 0], PROTOCOL), (&[0xA2, 3, 0, 1, 0], PROTOCOL)]);
}

// [MQTT-3.8.3-5] [MQTT-3.1.1/3.8.3-4]
#[test]
fn reserved_subscription_options_are_malformed() {
    for bits in [0x03, 0x04, 0x08, 0x10, 0x40, 0x80, 0xFC] {
        closes(Version::V311, &[(&[0x82, 6, 0, 1, 0, 1, b't', bits], MALFORMED)]);
    }
    for (bits, code) in
        [(0x40, MALFORMED), (0x80, MALFORMED), (0xC1, MALFORMED), (0x03, PROTOCOL), (0x30, PROTOCOL)]
    {
        closes(Version::V5, &[(&[0x82, 7, 0, 1, 0, 0, 1, b't', bits], code)]);
    }
}

// [MQTT-3.4.2-1] [MQTT-3.5.2-1] [MQTT-3.6.2-1] [MQTT-3.7.2-1] [MQTT-3.14.2-1] [MQTT-3.15.2-1]
#[test]
fn a_reason_code_that_its_packet_does_not_have_is_refused() {
    for (first, code) in [(0x40, 0x92), (0x50, 0x01), (0x62, 0x80), (0x70, 0x10), (0x40, 0xFF)] {
        closes(Version::V5, &[(&[first, 3, 0, 1, code], PROTOCOL)]);
    }
    closes(Version::V5, &[(&[0xE0, 1, 0x01], PROTOCOL), (&[0xF0, 2, 0x80, 0], PROTOCOL)]);
}

// [MQTT-3.3.4-6]
#[test]
fn a_subscription_identifier_in_publish_is_a_protocol_error() {
    closes(Version::V5, &[(&[0x30, 6, 0, 1, b't', 2, 0x0B, 1], PROTOCOL)]);
}

#[test]
fn repeated_and_foreign_properties_are_refused() {
    closes(
        Version::V5,
        &[
            (&[0x30, 8, 0, 1, b't', 4, 0x01, 0, 0x01, 0], PROTOCOL),
            (&[0x30, 6, 0, 1, b't', 2, 0x17, 0], MALFORMED),
            (&[0x30, 6, 0, 1, b't', 2, 0x7F, 0], MALFORMED),
            (&[0x30, 6, 0, 1, b't', 2, 0x01, 2], PROTOCOL),
            (&[0x82, 9, 0, 1, 2, 0x0B, 0, 0, 1, b't', 0], PROTOCOL),
        ],
    );
}

#[test]
fn bytes_left_over_and_fields_cut_short_are_malformed() {
    all(|version| {
        closes(
            version,
            &[(&[0xC0, 1, 0], MALFORMED), (&[0x40, 1, 0], MALFORMED), (&[0x30, 3, 0, 9, b't'], MALFORMED)],
        );
    });
}

// Packets may come in any pieces.
#[test]
fn packets_that_come_byte_by_byte_are_heard() {
    all(|version| {
        let world = World::new();
        let watcher = world.connect(Setup::new(version, "w"));
        watcher.subscribe("t", QoS::ExactlyOnce);
        let client = world.open();
        for byte in Setup::new(version, "c").encode() {
            client.send_bytes(&[byte]);
        }
        assert!(matches!(client.recv(), Some(crate::world::Got::ConnAck { code: 0, .. })));
        let publish: &[u8] = if version.is_v5() {
            &[0x32, 7, 0, 1, b't', 0, 9, 0, b'x']
        } else {
            &[0x32, 6, 0, 1, b't', 0, 9, b'x']
        };
        for byte in publish {
            client.send_bytes(&[*byte]);
        }
        client.expect_ack(PacketKind::PubAck, 9);
        watcher.expect_publish("t", "x");
    });
}
