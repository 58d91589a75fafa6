//! The standard's own tables, spelled out a second time in its own layout, against what the decoder lets
//! through: which property and which reason code stands in which packet, and what a string may be.

use dunlin::codec::{
    DecodeError, DecodeErrorKind as E, Decoded, PACKET_BYTES_LIMIT, PropertyId, ReasonCode, Version, decode,
};

use crate::vectors::bytes;

/// Table 2-4: identifier, a value in the notation of the table of packets, the packets that may have it.
const PROPERTIES: &[(u8, &str, &str)] = &[
    (0x01, "01", "PUBLISH WILL"),
    (0x02, "00000001", "PUBLISH WILL"),
    (0x03, "('a')", "PUBLISH WILL"),
    (0x08, "('a')", "PUBLISH WILL"),
    (0x09, "(00)", "PUBLISH WILL"),
    (0x0B, "01", "PUBLISH SUBSCRIBE"),
    (0x11, "00000001", "CONNECT CONNACK DISCONNECT"),
    (0x12, "('a')", "CONNACK"),
    (0x13, "0001", "CONNACK"),
    (0x15, "('m')", "CONNECT CONNACK AUTH"),
    (0x16, "(00)", "CONNECT CONNACK AUTH"),
    (0x17, "01", "CONNECT"),
    (0x18, "00000001", "WILL"),
    (0x19, "01", "CONNECT"),
    (0x1A, "('a')", "CONNACK"),
    (0x1C, "('a')", "CONNACK DISCONNECT"),
    (0x1F, "('a')", "CONNACK PUBACK PUBREC PUBREL PUBCOMP SUBACK UNSUBACK DISCONNECT AUTH"),
    (0x21, "0001", "CONNECT CONNACK"),
    (0x22, "0001", "CONNECT CONNACK"),
    (0x23, "0001", "PUBLISH"),
    (0x24, "01", "CONNACK"),
    (0x25, "01", "CONNACK"),
    (
        0x26,
        "('a')('b')",
        "CONNECT CONNACK PUBLISH WILL PUBACK PUBREC PUBREL PUBCOMP SUBSCRIBE SUBACK UNSUBSCRIBE UNSUBACK DISCONNECT AUTH",
    ),
    (0x27, "00000001", "CONNECT CONNACK"),
    (0x28, "01", "CONNACK"),
    (0x29, "01", "CONNACK"),
    (0x2A, "01", "CONNACK"),
];

/// Every place for properties, with `{}` where they stand.
const PLACES: &[(&str, &str)] = &[
    ("CONNECT", "10[ ('MQTT') 05 02 003C [{}] ('c') ]"),
    ("WILL", "10[ ('MQTT') 05 06 003C [] ('c') [{}] ('w') () ]"),
    ("CONNACK", "20[ 00 00 [{}] ]"),
    ("PUBLISH", "30[ ('t') [{}] 'p' ]"),
    ("PUBACK", "40[ 0001 00 [{}] ]"),
    ("PUBREC", "50[ 0001 00 [{}] ]"),
    ("PUBREL", "62[ 0001 00 [{}] ]"),
    ("PUBCOMP", "70[ 0001 00 [{}] ]"),
    ("SUBSCRIBE", "82[ 0001 [{}] ('a') 00 ]"),
    ("SUBACK", "90[ 0001 [{}] 00 ]"),
    ("UNSUBSCRIBE", "A2[ 0001 [{}] ('a') ]"),
    ("UNSUBACK", "B0[ 0001 [{}] 00 ]"),
    ("DISCONNECT", "E0[ 00 [{}] ]"),
    ("AUTH", "F0[ 18 [{}] ]"),
];

/// Table 2-6: reason code, the packets that may have it.
const REASON_CODES: &[(u8, &str)] = &[
    (0x00, "CONNACK PUBACK PUBREC PUBREL PUBCOMP SUBACK UNSUBACK AUTH DISCONNECT"),
    (0x01, "SUBACK"),
    (0x02, "SUBACK"),
    (0x04, "DISCONNECT"),
    (0x10, "PUBACK PUBREC"),
    (0x11, "UNSUBACK"),
    (0x18, "AUTH"),
    (0x19, "AUTH"),
    (0x80, "CONNACK PUBACK PUBREC SUBACK UNSUBACK DISCONNECT"),
    (0x81, "CONNACK DISCONNECT"),
    (0x82, "CONNACK DISCONNECT"),
    (0x83, "CONNACK PUBACK PUBREC SUBACK UNSUBACK DISCONNECT"),
    (0x84, "CONNACK"),
    (0x85, "CONNACK"),
    (0x86, "CONNACK"),
    (0x87, "CONNACK PUBACK PUBREC SUBACK UNSUBACK DISCONNECT"),
    (0x88, "CONNACK"),
    (0x89, "CONNACK DISCONNECT"),
    (0x8A, "CONNACK"),
    (0x8B, "DISCONNECT"),
    (0x8C, "CONNACK DISCONNECT"),
    (0x8D, "DISCONNECT"),
    (0x8E, "DISCONNECT"),
    (0x8F, "SUBACK UNSUBACK DISCONNECT"),
    (0x90, "CONNACK PUBACK PUBREC DISCONNECT"),
    (0x91, "PUBACK PUBREC SUBACK UNSUBACK"),
    (0x92, "PUBREL PUBCOMP"),
    (0x93, "DISCONNECT"),
    (0x94, "DISCONNECT"),
    (0x95, "CONNACK DISCONNECT"),
    (0x96, "DISCONNECT"),
    (0x97, "CONNACK PUBACK PUBREC SUBACK DISCONNECT"),
    (0x98, "DISCONNECT"),
    (0x99, "CONNACK PUBACK PUBREC DISCONNECT"),
    (0x9A, "CONNACK DISCONNECT"),
    (0x9B, "CONNACK DISCONNECT"),
    (0x9C, "CONNACK DISCONNECT"),
    (0x9D, "CONNACK DISCONNECT"),
    (0x9E, "SUBACK DISCONNECT"),
    (0x9F, "CONNACK DISCONNECT"),
    (0xA0, "DISCONNECT"),
    (0xA1, "SUBACK DISCONNECT"),
    (0xA2, "SUBACK DISCONNECT"),
];

/// Every packet with a reason code, with `{}` where it stands.
const REASON_PLACES: &[(&str, &str)] = &[
    ("CONNACK", "20[ 00 {} [] ]"),
    ("PUBACK", "40[ 0001 {} ]"),
    ("PUBREC", "50[ 0001 {} [] ]"),
    ("PUBREL", "62[ 0001 {} ]"),
    ("PUBCOMP", "70[ 0001 {} [] ]"),
    ("SUBACK", "90[ 0001 [] 00 {} ]"),
    ("UNSUBACK", "B0[ 0001 [] 00 {} ]"),
    ("DISCONNECT", "E0[ {} ]"),
    ("AUTH", "F0[ {} [15('m')] ]"),
];

fn lists(packets: &str, packet: &str) -> bool {
    packets.split(' ').any(|listed| listed == packet)
}

/// The error that these bytes are refused with as a packet of v5, if any.
fn refusal(notation: &str) -> Option<DecodeError> {
    let bytes = bytes(notation);
    match decode(&bytes, Version::V5, PACKET_BYTES_LIMIT) {
        Ok(Decoded::Packet(_, length)) if length == bytes.len() => None,
        Ok(other) => panic!("{notation}: {other:?}"),
        Err(error) => Some(error),
    }
}

/// The value of a property with its identifier, and with what it cannot be without in this packet.
fn property(place: &str, id: u8, value: &str) -> String {
    let method = if place == "AUTH" && id != 0x15 || lists("CONNECT CONNACK", place) && id == 0x16 {
        "15('m')"
    } else {
        ""
    };
    format!("{method} {id:02X} {value}")
}

#[test]
fn properties_stand_where_table_2_4_lets_them() {
    for &(id, value, packets) in PROPERTIES {
        let named = PropertyId::from_u32(u32::from(id)).unwrap();
        for &(place, template) in PLACES {
            let notation = template.replace("{}", &property(place, id, value));
            match refusal(&notation) {
                None => assert!(lists(packets, place), "{named} in {place}"),
                Some(error) => {
                    assert!(!lists(packets, place), "{named} in {place}: {error}");
                    assert_eq!(error.kind, E::PropertyNotAllowed(named));
                    assert_eq!(error.reason_code(), ReasonCode::MalformedPacket);
                }
            }
        }
    }
}

#[test]
fn properties_stand_once_but_for_the_two_lists() {
    for &(id, value, packets) in PROPERTIES {
        let named = PropertyId::from_u32(u32::from(id)).unwrap();
        for &(place, template) in PLACES {
            if !lists(packets, place) {
                continue;
            }
            let twice = format!("{} {id:02X} {value}", property(place, id, value));
            let error = refusal(&template.replace("{}", &twice));
            if id == 0x26 || id == 0x0B && place == "PUBLISH" {
                assert_eq!(error, None, "{named} in {place}");
            } else {
                let error = error.unwrap();
                assert_eq!(error.kind, E::PropertyRepeated(named), "{place}");
                assert_eq!(error.reason_code(), ReasonCode::ProtocolError);
            }
        }
    }
}

/// A value that ends early is refused, even where what follows the properties could stand in for it.
#[test]
fn property_values_end_with_their_block() {
    for &(id, value, packets) in PROPERTIES {
        for &(place, template) in PLACES {
            if !lists(packets, place) {
                continue;
            }
            let whole = bytes(&property(place, id, value));
            let prefix = whole.len() - bytes(value).len();
            for length in prefix..whole.len() {
                let cut: String = whole[..length].iter().map(|byte| format!("{byte:02X}")).collect();
                let error = refusal(&template.replace("{}", &cut)).unwrap();
                assert!(matches!(error.kind, E::Truncated(_)), "{place} {id:02X} {length}: {error}");
            }
        }
    }
}

#[test]
fn property_identifiers_that_do_not_exist_are_refused_everywhere() {
    for id in (0..=0x7F).filter(|id| PROPERTIES.iter().all(|(known, ..)| known != id)) {
        for &(_, template) in PLACES {
            let error = refusal(&template.replace("{}", &format!("{id:02X}"))).unwrap();
            assert_eq!(error.kind, E::PropertyUnknown(u32::from(id)));
        }
    }
}

#[test]
fn reason_codes_stand_where_table_2_6_lets_them() {
    for number in 0..=0xFF {
        let packets =
            REASON_CODES.iter().find(|(code, _)| *code == number).map_or("", |(_, packets)| packets);
        assert_eq!(ReasonCode::from_u8(number).is_some(), !packets.is_empty(), "{number:02X}");
        for &(place, template) in REASON_PLACES {
            match refusal(&template.replace("{}", &format!("{number:02X}"))) {
                None => assert!(lists(packets, place), "{number:02X} in {place}"),
                Some(error) => {
                    assert!(!lists(packets, place), "{number:02X} in {place}: {error}");
                    assert_eq!(error.kind, E::Code(number));
                    assert_eq!(error.reason_code(), ReasonCode::ProtocolError);
                }
            }
        }
    }
}

#[test]
fn reason_codes_know_their_numbers() {
    assert_eq!(ReasonCode::ALL.len(), REASON_CODES.len());
    for (&code, &(number, _)) in ReasonCode::ALL.iter().zip(REASON_CODES) {
        assert_eq!(code as u8, number);
        assert_eq!(ReasonCode::from_u8(number), Some(code));
        assert_eq!(code.is_error(), number >= 0x80);
    }
}

/// Every field that is a string, with `{}` where it stands.
const STRINGS: &[(&str, &str)] = &[
    ("client identifier", "10[ ('MQTT') 05 02 003C [] ({}) ]"),
    ("will topic", "10[ ('MQTT') 05 06 003C [] ('c') [] ({}) () ]"),
    ("user name", "10[ ('MQTT') 05 82 003C [] ('c') ({}) ]"),
    ("authentication method", "10[ ('MQTT') 05 02 003C [15({})] ('c') ]"),
    ("name of a user property", "10[ ('MQTT') 05 02 003C [26({})('v')] ('c') ]"),
    ("value of a user property", "30[ ('t') [26('k')({})] ]"),
    ("assigned client identifier", "20[ 0000 [12({})] ]"),
    ("response information", "20[ 0000 [1A({})] ]"),
    ("server reference", "20[ 0000 [1C({})] ]"),
    ("reason string", "40[ 0001 00 [1F({})] ]"),
    ("topic name", "30[ ({}) [] ]"),
    ("content type", "30[ ('t') [03({})] ]"),
    ("response topic", "30[ ('t') [08({})] ]"),
    ("topic filter", "82[ 0001 [] ({}) 00 ]"),
    ("topic filter", "A2[ 0001 [] ({}) ]"),
];

/// [MQTT-1.5.4-1], Unicode's table 3-7 at its edges, before and behind other characters.
#[test]
fn strings_are_well_formed_utf8_in_every_field() {
    let broken = [
        "80",
        "BF",
        "C0 80",
        "C1 BF",
        "C2",
        "C2 7F",
        "DF C0",
        "E0 80 80",
        "E0 9F BF",
        "E1 80",
        "ED A0 80",
        "ED BF BF",
        "EF BF",
        "F0 80 80 80",
        "F0 8F BF BF",
        "F1 80 80",
        "F4 90 80 80",
        "F5 80 80 80",
        "F8 88 80 80 80",
        "FE",
        "FF",
    ];
    for &(field, template) in STRINGS {
        for sequence in broken {
            for (before, after) in [("", ""), ("'abc'", ""), ("", "'abc'"), ("61*40", "'ü'")] {
                let error =
                    refusal(&template.replace("{}", &format!("{before} {sequence} {after}"))).unwrap();
                assert_eq!(error.kind, E::Utf8(field), "{sequence}");
                assert_eq!(error.reason_code(), ReasonCode::MalformedPacket);
            }
        }
    }
}

/// [MQTT-1.5.4-2]
#[test]
fn strings_have_no_null_character_in_any_field() {
    for &(field, template) in STRINGS {
        for text in ["00", "'a' 00", "00 'a'", "61*33 00 62*33", "'ü' 00"] {
            let error = refusal(&template.replace("{}", text)).unwrap();
            assert_eq!(error.kind, E::NulCharacter(field));
        }
    }
}

/// All other characters pass, also those that the standard discourages. [MQTT-1.5.4-3]
#[test]
fn strings_may_have_every_other_character() {
    let texts =
        ["01 1F 7F", "C280 C29F", "EFBBBF", "EFBFBE EFBFBF", "EFB790", "ED9FBF EE8080", "F0908080 F48FBFBF"];
    for &(field, template) in STRINGS {
        for text in texts {
            assert_eq!(refusal(&template.replace("{}", text)), None, "{text} in {field}");
        }
    }
}

/// [MQTT-4.7.0-1]
#[test]
fn topic_names_have_no_wildcard_and_other_strings_may() {
    for &(field, template) in STRINGS {
        let is_topic_name = matches!(field, "will topic" | "topic name" | "response topic");
        for text in ["'#'", "'+'", "'a/b/#'", "61*70 '+' 61*70"] {
            let error = refusal(&template.replace("{}", text)).map(|error| error.kind);
            assert_eq!(error, is_topic_name.then_some(E::TopicNameWildcard(field)), "{text} in {field}");
        }
    }
}
