//! CONNECT as it should be.

use std::num::{NonZeroU16, NonZeroU32};

use dunlin::codec::{
    Connect, ConnectProperties, Packet, PayloadFormat, QoS, UserProperties, Version, Will, WillProperties,
};

use super::{ALL, Row, good, legal};

fn connect(version: Version) -> Connect<'static> {
    Connect {
        version,
        clean_start: true,
        keep_alive_secs: 60,
        client_id: "c",
        will: None,
        user_name: None,
        password: None,
        properties: ConnectProperties::default(),
    }
}

fn packet(connect: Connect<'static>) -> Packet<'static> {
    Packet::Connect(Box::new(connect))
}

fn will() -> Will<'static> {
    Will {
        qos: QoS::AtMostOnce,
        retain: false,
        topic: "w",
        payload: b"bye",
        properties: WillProperties::default(),
    }
}

fn with_properties(properties: ConnectProperties<'static>) -> Packet<'static> {
    packet(Connect { properties, ..connect(Version::V5) })
}

fn with_will_properties(properties: WillProperties<'static>) -> Packet<'static> {
    packet(Connect { will: Some(Will { properties, ..will() }), ..connect(Version::V5) })
}

pub(super) fn rows() -> Vec<Row> {
    let mut rows = before_v5();
    rows.extend(wills());
    rows.extend(v5());
    rows.extend(will_properties());
    rows
}

#[rustfmt::skip]
fn before_v5() -> Vec<Row> {
    let (v31, v311) = (connect(Version::V31), connect(Version::V311));
    vec![
        // A CONNECT names its version; what the connection was thought to speak does not matter.
        good("CONNECT of MQTT 3.1", ALL, "10[ ('MQIsdp') 03 02 003C ('c') ]", packet(v31.clone())),
        good("CONNECT of MQTT 3.1.1", ALL, "10[ ('MQTT') 04 02 003C ('c') ]", packet(v311.clone())),
        good("CONNECT without clean session", ALL, "10[ ('MQTT') 04 00 003C ('c') ]",
            packet(Connect { clean_start: false, ..v311.clone() })),
        good("CONNECT without keep alive", ALL, "10[ ('MQTT') 04 02 0000 ('c') ]",
            packet(Connect { keep_alive_secs: 0, ..v311.clone() })),
        good("CONNECT with the longest keep alive", ALL, "10[ ('MQTT') 04 02 FFFF ('c') ]",
            packet(Connect { keep_alive_secs: 65_535, ..v311.clone() })),
        good("CONNECT with an empty client identifier", ALL, "10[ ('MQTT') 04 02 003C () ]",
            packet(Connect { client_id: "", ..v311.clone() })),
        good("CONNECT with an empty client identifier and no clean session", ALL, "10[ ('MQTT') 04 00 003C () ]",
            packet(Connect { client_id: "", clean_start: false, ..v311.clone() })),
        good("CONNECT with a client identifier of 23 letters", ALL, "10[ ('MQTT') 04 02 003C ('0123456789abcdefghijABC') ]",
            packet(Connect { client_id: "0123456789abcdefghijABC", ..v311.clone() })),
        good("CONNECT with a client identifier outside ASCII", ALL, "10[ ('MQTT') 04 02 003C ('zähler/+#😀') ]",
            packet(Connect { client_id: "zähler/+#😀", ..v311.clone() })),
        good("CONNECT with a user name", ALL, "10[ ('MQTT') 04 82 003C ('c') ('u') ]",
            packet(Connect { user_name: Some("u"), ..v311.clone() })),
        good("CONNECT with user name and password", ALL, "10[ ('MQTT') 04 C2 003C ('c') ('u') ('p') ]",
            packet(Connect { user_name: Some("u"), password: Some(b"p"), ..v311.clone() })),
        good("CONNECT with empty user name and password", ALL, "10[ ('MQTT') 04 C2 003C ('c') () () ]",
            packet(Connect { user_name: Some(""), password: Some(b""), ..v311.clone() })),
        good("CONNECT with a binary password", ALL, "10[ ('MQTT') 04 C2 003C ('c') ('u') (00FFC080) ]",
            packet(Connect { user_name: Some("u"), password: Some(b"\x00\xFF\xC0\x80"), ..v311.clone() })),
        good("CONNECT of MQTT 3.1 with user name and password", ALL, "10[ ('MQIsdp') 03 C2 003C ('c') ('u') ('p') ]",
            packet(Connect { user_name: Some("u"), password: Some(b"p"), ..v31.clone() })),
        // MQTT 3.1: the remaining length takes precedence over the flags of user name and password.
        legal("CONNECT of MQTT 3.1 with the bit that later versions reserve", ALL, "10[ ('MQIsdp') 03 03 003C ('c') ]",
            packet(v31.clone()), "10[ ('MQIsdp') 03 02 003C ('c') ]"),
        legal("CONNECT of MQTT 3.1 whose flagged user name is missing", ALL, "10[ ('MQIsdp') 03 82 003C ('c') ]",
            packet(v31.clone()), "10[ ('MQIsdp') 03 02 003C ('c') ]"),
        legal("CONNECT of MQTT 3.1 whose flagged password is missing", ALL, "10[ ('MQIsdp') 03 C2 003C ('c') ('u') ]",
            packet(Connect { user_name: Some("u"), ..v31 }), "10[ ('MQIsdp') 03 82 003C ('c') ('u') ]"),
    ]
}

#[rustfmt::skip]
fn wills() -> Vec<Row> {
    let v311 = connect(Version::V311);
    vec![
        good("CONNECT with a will", ALL, "10[ ('MQTT') 04 06 003C ('c') ('w') ('bye') ]",
            packet(Connect { will: Some(will()), ..v311.clone() })),
        good("CONNECT with a will of QoS 1", ALL, "10[ ('MQTT') 04 0E 003C ('c') ('w') ('bye') ]",
            packet(Connect { will: Some(Will { qos: QoS::AtLeastOnce, ..will() }), ..v311.clone() })),
        good("CONNECT with a retained will of QoS 2", ALL, "10[ ('MQTT') 04 36 003C ('c') ('w') ('bye') ]",
            packet(Connect { will: Some(Will { qos: QoS::ExactlyOnce, retain: true, ..will() }), ..v311.clone() })),
        good("CONNECT with an empty will payload", ALL, "10[ ('MQTT') 04 06 003C ('c') ('w') () ]",
            packet(Connect { will: Some(Will { payload: b"", ..will() }), ..v311.clone() })),
        good("CONNECT with a binary will payload", ALL, "10[ ('MQTT') 04 06 003C ('c') ('w') (00FF) ]",
            packet(Connect { will: Some(Will { payload: b"\x00\xFF", ..will() }), ..v311.clone() })),
        // [MQTT-3.1.3-1] the order of the payload.
        good("CONNECT with will, user name and password", ALL, "10[ ('MQTT') 04 C6 003C ('c') ('w') ('bye') ('u') ('p') ]",
            packet(Connect { will: Some(will()), user_name: Some("u"), password: Some(b"p"), ..v311 })),
        good("CONNECT of MQTT 3.1 with a will", ALL, "10[ ('MQIsdp') 03 06 003C ('c') ('w') ('bye') ]",
            packet(Connect { will: Some(will()), ..connect(Version::V31) })),
        good("CONNECT of v5 with a will", ALL, "10[ ('MQTT') 05 06 003C [] ('c') [] ('w') ('bye') ]",
            with_will_properties(WillProperties::default())),
    ]
}

#[rustfmt::skip]
fn v5() -> Vec<Row> {
    let none = ConnectProperties::default();
    let method = ConnectProperties { authentication_method: Some("SCRAM"), ..none.clone() };
    vec![
        good("CONNECT of v5", ALL, "10[ ('MQTT') 05 02 003C [] ('c') ]", with_properties(none.clone())),
        good("CONNECT of v5 with a password but no user name", ALL, "10[ ('MQTT') 05 42 003C [] ('c') ('p') ]",
            packet(Connect { password: Some(b"p"), ..connect(Version::V5) })),
        good("CONNECT with session expiry", ALL, "10[ ('MQTT') 05 02 003C [11 00000E10] ('c') ]",
            with_properties(ConnectProperties { session_expiry_secs: Some(3600), ..none.clone() })),
        good("CONNECT with session expiry 0", ALL, "10[ ('MQTT') 05 02 003C [11 00000000] ('c') ]",
            with_properties(ConnectProperties { session_expiry_secs: Some(0), ..none.clone() })),
        good("CONNECT whose session never expires", ALL, "10[ ('MQTT') 05 02 003C [11 FFFFFFFF] ('c') ]",
            with_properties(ConnectProperties { session_expiry_secs: Some(u32::MAX), ..none.clone() })),
        good("CONNECT with receive maximum", ALL, "10[ ('MQTT') 05 02 003C [21 0001] ('c') ]",
            with_properties(ConnectProperties { receive_maximum: NonZeroU16::new(1), ..none.clone() })),
        good("CONNECT with maximum packet size", ALL, "10[ ('MQTT') 05 02 003C [27 00000400] ('c') ]",
            with_properties(ConnectProperties { packet_bytes_max: NonZeroU32::new(1024), ..none.clone() })),
        good("CONNECT with topic alias maximum", ALL, "10[ ('MQTT') 05 02 003C [22 000A] ('c') ]",
            with_properties(ConnectProperties { topic_alias_maximum: Some(10), ..none.clone() })),
        good("CONNECT with topic alias maximum 0", ALL, "10[ ('MQTT') 05 02 003C [22 0000] ('c') ]",
            with_properties(ConnectProperties { topic_alias_maximum: Some(0), ..none.clone() })),
        good("CONNECT that asks for response information", ALL, "10[ ('MQTT') 05 02 003C [19 01] ('c') ]",
            with_properties(ConnectProperties { request_response_information: Some(true), ..none.clone() })),
        good("CONNECT that wants no problem information", ALL, "10[ ('MQTT') 05 02 003C [17 00] ('c') ]",
            with_properties(ConnectProperties { request_problem_information: Some(false), ..none.clone() })),
        good("CONNECT with authentication method", ALL, "10[ ('MQTT') 05 02 003C [15('SCRAM')] ('c') ]",
            with_properties(method.clone())),
        good("CONNECT with authentication method and data", ALL, "10[ ('MQTT') 05 02 003C [15('SCRAM') 16(00FF)] ('c') ]",
            with_properties(ConnectProperties { authentication_data: Some(b"\x00\xFF"), ..method.clone() })),
        legal("CONNECT with authentication data before the method", ALL, "10[ ('MQTT') 05 02 003C [16() 15('SCRAM')] ('c') ]",
            with_properties(ConnectProperties { authentication_data: Some(b""), ..method }),
            "10[ ('MQTT') 05 02 003C [15('SCRAM') 16()] ('c') ]"),
        good("CONNECT with a user property", ALL, "10[ ('MQTT') 05 02 003C [26('k')('v')] ('c') ]",
            with_properties(ConnectProperties { user_properties: UserProperties::from_list(&[("k", "v")]), ..none.clone() })),
        good("CONNECT with an empty user property", ALL, "10[ ('MQTT') 05 02 003C [26()()] ('c') ]",
            with_properties(ConnectProperties { user_properties: UserProperties::from_list(&[("", "")]), ..none.clone() })),
        legal("CONNECT with user properties between the others", ALL,
            "10[ ('MQTT') 05 02 003C [26('k')('2') 11 00000001 26('k')('1') 15('m') 16(26) 26('')('€') 17 01] ('c') ]",
            with_properties(ConnectProperties {
                session_expiry_secs: Some(1),
                request_problem_information: Some(true),
                authentication_method: Some("m"),
                authentication_data: Some(b"\x26"),
                user_properties: UserProperties::from_list(&[("k", "2"), ("k", "1"), ("", "€")]),
                ..none.clone()
            }),
            "10[ ('MQTT') 05 02 003C [11 00000001 17 01 15('m') 16(26) 26('k')('2') 26('k')('1') 26('')('€')] ('c') ]"),
        good("CONNECT with properties of more than 127 bytes", ALL,
            "10[ ('MQTT') 05 02 003C [26('k')('0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789')] ('c') ]",
            with_properties(ConnectProperties {
                user_properties: UserProperties::from_list(&[("k", "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789")]),
                ..none
            })),
    ]
}

#[rustfmt::skip]
fn will_properties() -> Vec<Row> {
    let none = WillProperties::default();
    vec![
        good("will with delay", ALL, "10[ ('MQTT') 05 06 003C [] ('c') [18 0000000A] ('w') ('bye') ]",
            with_will_properties(WillProperties { delay_secs: Some(10), ..none.clone() })),
        good("will with payload format", ALL, "10[ ('MQTT') 05 06 003C [] ('c') [01 01] ('w') ('bye') ]",
            with_will_properties(WillProperties { payload_format: Some(PayloadFormat::Utf8), ..none.clone() })),
        good("will with message expiry", ALL, "10[ ('MQTT') 05 06 003C [] ('c') [02 00000000] ('w') ('bye') ]",
            with_will_properties(WillProperties { message_expiry_secs: Some(0), ..none.clone() })),
        good("will with content type", ALL, "10[ ('MQTT') 05 06 003C [] ('c') [03('text')] ('w') ('bye') ]",
            with_will_properties(WillProperties { content_type: Some("text"), ..none.clone() })),
        good("will with response topic and correlation data", ALL, "10[ ('MQTT') 05 06 003C [] ('c') [08('r') 09(00)] ('w') ('bye') ]",
            with_will_properties(WillProperties { response_topic: Some("r"), correlation_data: Some(b"\0"), ..none.clone() })),
        good("will with user properties in order", ALL, "10[ ('MQTT') 05 06 003C [] ('c') [26('b')('1') 26('a')('2')] ('w') ('bye') ]",
            with_will_properties(WillProperties { user_properties: UserProperties::from_list(&[("b", "1"), ("a", "2")]), ..none })),
    ]
}
