//! CONNECT and CONNACK.

use dunlin::codec::{self, ConnAckReturn, Decoded, PACKET_BYTES_LIMIT, Packet, QoS, ReasonCode, Version};

use crate::world::{Client, Got, Setup, WillSetup, World, all, both};

/// The CONNACK that a client received, which accepted it.
fn conn_ack<T>(client: &Client, read: impl FnOnce(&codec::ConnAck<'_>) -> T) -> T {
    let Some(Got::ConnAck { code: 0, frame, .. }) = client.recv() else { panic!("no CONNACK that accepts") };
    match codec::decode(&frame, client.version(), PACKET_BYTES_LIMIT) {
        Ok(Decoded::Packet(Packet::ConnAck(packet), _)) => read(&packet),
        other => panic!("the frame was a CONNACK before: {other:?}"),
    }
}

/// Sends bytes as the first of a connection and returns the code of the CONNACK, if there is one, of a
/// connection that is closed behind it.
fn refused(bytes: &[u8]) -> Option<u8> {
    let world = World::new();
    let client = world.open();
    client.send_bytes(bytes);
    let code = match client.recv() {
        Some(Got::ConnAck { session_present: false, code, .. }) => Some(code),
        None => None,
        other => panic!("expected a CONNACK that refuses, got {other:?}"),
    };
    client.expect_silently_closed();
    world.assert_accounting();
    code
}

/// A CONNECT of these parts.
fn connect_bytes(name: &[u8], level: u8, flags: u8, rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x10, (name.len() + 6 + rest.len()) as u8, 0, name.len() as u8];
    bytes.extend_from_slice(name);
    bytes.extend_from_slice(&[level, flags, 0, 60]);
    bytes.extend_from_slice(rest);
    bytes
}

// [MQTT-3.1.4-5] [MQTT-3.2.0-1] [MQTT-3.2.0-2] [MQTT-3.2.2-1] [MQTT-3.2.2-8] [MQTT-2.2.2-1]
// [MQTT-3.1.1/3.1.4-4] [MQTT-3.1.1/3.2.0-1]
#[test]
fn an_accepted_connect_is_answered_by_one_conn_ack_before_anything_else() {
    all(|version| {
        let world = World::new();
        world.connect(Setup::new(version, "p")).retain("t", "x", QoS::AtMostOnce);
        let client = world.send_connect(Setup::new(version, "c"));
        match client.recv() {
            Some(Got::ConnAck { session_present: false, code: 0, frame }) => {
                assert_eq!(frame[2], 0, "bits 7 to 1 are reserved");
                if !version.is_v5() {
                    assert_eq!(frame, [0x20, 2, 0, 0]);
                }
            }
            other => panic!("expected CONNACK, got {other:?}"),
        }
        client.subscribe("t", QoS::AtMostOnce);
        client.expect_publish("t", "x");
        client.expect_nothing();
    });
}

// [MQTT-3.2.2-9]
#[test]
fn conn_ack_tells_what_the_broker_can_do() {
    let world = World::limited(|limits| {
        limits.receive_maximum = 7;
        limits.packet_bytes_max = 1000;
        limits.topic_alias_maximum = 5;
    });
    let client = world.send_connect(Setup::v5("c"));
    conn_ack(&client, |packet| {
        let properties = &packet.properties;
        assert_eq!(packet.code, ConnAckReturn::V5(ReasonCode::Success));
        assert_eq!(properties.receive_maximum.map(|maximum| maximum.get()), Some(7));
        assert_eq!(properties.packet_bytes_max.map(|maximum| maximum.get()), Some(1000));
        assert_eq!(properties.topic_alias_maximum, Some(5));
        // QoS 2 is the highest there is.
        assert_eq!(properties.maximum_qos, None);
        for available in [
            properties.retain_available,
            properties.wildcard_subscription_available,
            properties.subscription_ids_available,
            properties.shared_subscription_available,
        ] {
            assert_ne!(available, Some(false));
        }
        assert_eq!(properties.assigned_client_id, None);
        assert_eq!(properties.authentication_method, None);
        assert_eq!(properties.session_expiry_secs, None);
        assert_eq!(properties.server_keep_alive_secs, None);
    });
}

// [MQTT-3.1.0-2] [MQTT-4.13.1-1] [MQTT-3.1.1/3.1.0-2] [MQTT-3.1.1/4.8.0-1]
#[test]
fn a_second_connect_is_a_protocol_error() {
    all(|version| {
        let world = World::new();
        let client = world.connect(Setup::new(version, "c"));
        client.send_bytes(&Setup::new(version, "c").encode());
        client.expect_closed(ReasonCode::ProtocolError);
        assert!(!world.has_session("c"));
    });
}

// [MQTT-3.1.0-2] [MQTT-3.14.2-1] the codes for what is wrong in it are not for DISCONNECT.
#[test]
fn a_second_connect_is_a_protocol_error_even_if_the_first_would_be_refused() {
    for (name, level) in [(&b"MQTX"[..], 4), (b"MQTT", 9)] {
        let world = World::new();
        let client = world.connect(Setup::v5("c"));
        client.send_bytes(&connect_bytes(name, level, 2, &[0, 1, b'c']));
        client.expect_closed(ReasonCode::ProtocolError);
    }
}

// [MQTT-3.1.0-1] [MQTT-3.1.1/3.1.0-1]
#[test]
fn anything_but_connect_first_closes_the_connection_without_an_answer() {
    for bytes in [&[0xC0, 0][..], &[0x30, 4, 0, 1, b't', b'x'], &[0xE0, 0], &[0x20, 2, 0, 0]] {
        assert_eq!(refused(bytes), None);
    }
}

// [MQTT-3.1.2-1] [MQTT-3.1.1/3.1.2-1]
#[test]
fn a_foreign_protocol_name_closes_the_connection() {
    for name in [&b"MQTX"[..], b"mqtt", b"MQT", b"HTTP", b""] {
        assert_eq!(refused(&connect_bytes(name, 4, 2, &[0, 1, b'c'])), None);
    }
}

// [MQTT-3.1.2-2] [MQTT-3.2.2-7] [MQTT-4.13.2-1] [MQTT-3.1.1/3.1.2-2] [MQTT-3.1.1/3.2.2-5]
#[test]
fn an_unsupported_protocol_version_is_told_so_in_the_form_that_it_reads() {
    assert_eq!(refused(&connect_bytes(b"MQTT", 3, 2, &[0, 1, b'c'])), Some(1));
    assert_eq!(refused(&connect_bytes(b"MQTT", 6, 2, &[0, 1, b'c'])), Some(1));
    let world = World::new();
    let client = world.open();
    client.send_bytes(&connect_bytes(b"MQTT", 6, 2, &[0, 0, 1, b'c']));
    let code = ReasonCode::UnsupportedProtocolVersion as u8;
    assert!(matches!(client.recv(), Some(Got::ConnAck { code: found, .. }) if found == code));
    client.expect_silently_closed();
}

// [MQTT-3.1.2-3] [MQTT-3.1.4-1] [MQTT-3.1.1/3.1.2-3] [MQTT-3.1.1/3.1.4-1] [MQTT-3.1.1/3.2.2-6]
#[test]
fn a_connect_that_breaks_the_format_is_refused() {
    // The reserved flag, Will QoS 3, Will QoS without will, Will Retain without will, bytes left over.
    let flags_and_rest: [(u8, &[u8]); 5] = [
        (0x03, &[0, 1, b'c']),
        (0x1E, &[0, 1, b'c', 0, 1, b'w', 0, 0]),
        (0x0A, &[0, 1, b'c']),
        (0x22, &[0, 1, b'c']),
        (0x02, &[0, 1, b'c', 0]),
    ];
    for (flags, rest) in flags_and_rest {
        assert_eq!(refused(&connect_bytes(b"MQTT", 4, flags, rest)), None, "{flags:02x}");
        let with_properties = [&[0], rest].concat();
        let code = refused(&connect_bytes(b"MQTT", 5, flags, &with_properties));
        let expected = [ReasonCode::MalformedPacket as u8, ReasonCode::ProtocolError as u8];
        assert!(code.is_none_or(|code| expected.contains(&code)), "{flags:02x}: {code:?}");
    }
    // A password without a user name is for MQTT 5 alone. [MQTT-3.1.1/3.1.2-22]
    assert_eq!(refused(&connect_bytes(b"MQTT", 4, 0x42, &[0, 1, b'c', 0, 1, b'p'])), None);
}

// [MQTT-3.1.4-6] [MQTT-3.2.2-7] [MQTT-3.1.1/3.1.4-5]
#[test]
fn what_follows_a_refused_connect_is_not_processed() {
    both(|version| {
        let world = World::limited(|limits| limits.client_id_bytes_max = 4);
        let watcher = world.connect(Setup::new(version, "w"));
        watcher.subscribe("#", QoS::AtMostOnce);
        let mut bytes = Setup::new(version, "too long").encode();
        let client = world.open();
        let properties: &[u8] = if version.is_v5() { &[0] } else { &[] };
        bytes.extend_from_slice(&[0x30, 4 + properties.len() as u8, 0, 1, b't']);
        bytes.extend_from_slice(properties);
        bytes.push(b'x');
        client.send_bytes(&bytes);
        assert!(matches!(client.recv(), Some(Got::ConnAck { code, .. }) if code != 0));
        client.expect_silently_closed();
        watcher.expect_nothing();
    });
}

// [MQTT-3.1.3-5] [MQTT-3.1.1/3.1.3-5]
#[test]
fn identifiers_of_1_to_23_letters_and_digits_are_accepted() {
    all(|version| {
        let world = World::new();
        let alphabet = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
        for length in 1..=23 {
            for start in [0, 13, 62 - length] {
                world.connect(Setup::new(version, &alphabet[start..start + length]));
            }
        }
        // And what no version forbids.
        world.connect(Setup::new(version, "a/+#$ é 汉 and well beyond 23 bytes"));
    });
}

// [MQTT-3.1.3-6] [MQTT-3.1.3-7] [MQTT-3.2.2-16] [MQTT-3.1.1/3.1.3-6]
#[test]
fn a_client_without_identifier_gets_one_of_its_own() {
    both(|version| {
        let world = World::new();
        let connect = || {
            let client = world.send_connect(Setup::new(version, ""));
            let assigned =
                conn_ack(&client, |packet| packet.properties.assigned_client_id.map(str::to_owned));
            assert_eq!(assigned.is_some(), version.is_v5());
            (client, assigned)
        };
        let ((first, first_id), (second, second_id)) = (connect(), connect());
        first.expect_nothing();
        second.expect_nothing();
        assert!(!version.is_v5() || first_id != second_id);
        let id = first_id.unwrap_or_else(|| "assigned-1".into());
        assert!(world.has_session(&id));
        // From then on it is as if the client had sent it.
        world.connect(Setup::new(version, &id));
        first.expect_closed(ReasonCode::SessionTakenOver);
        second.expect_nothing();
    });
}

// [MQTT-3.1.1/3.1.3-7] [MQTT-3.1.1/3.1.3-8] [MQTT-3.2.2-6] [MQTT-3.1.1/3.2.2-4]
#[test]
fn an_empty_identifier_for_a_session_that_lasts_is_refused_before_mqtt_5() {
    let world = World::new();
    for setup in [Setup::durable(Version::V311, ""), Setup::new(Version::V31, "")] {
        let client = world.send_connect(setup);
        client.expect(&Got::ConnAck { session_present: false, code: 2, frame: vec![0x20, 2, 0, 2] });
        client.expect_silently_closed();
    }
    let client = world.send_connect(Setup::durable(Version::V5, ""));
    let id = conn_ack(&client, |packet| packet.properties.assigned_client_id.map(str::to_owned));
    client.drop_link();
    let id = id.expect("MQTT 5 tells the identifier");
    assert!(world.connect_and(Setup::durable(Version::V5, &id)).1, "its session can be gone on with");
}

// [MQTT-3.1.2-28]
#[test]
fn response_information_comes_only_when_asked_for() {
    let world = World::new();
    for (asked, expected) in [(None, false), (Some(false), false), (Some(true), true)] {
        let setup = Setup { response_information: asked, ..Setup::v5("a/b") };
        let client = world.send_connect(setup);
        let information =
            conn_ack(&client, |packet| packet.properties.response_information.map(str::to_owned));
        assert_eq!(information, expected.then(|| "response/a%2Fb".into()));
    }
}

// [MQTT-3.2.2-12] [MQTT-3.2.2-13]
#[test]
fn a_will_of_any_qos_may_be_retained() {
    all(|version| {
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let world = World::new();
            let will = WillSetup { retain: true, ..WillSetup::new("w", "x").qos(qos) };
            world.connect(Setup::new(version, "c").will(will)).drop_link();
            let subscriber = world.connect(Setup::new(version, "s"));
            subscriber.subscribe("w", QoS::ExactlyOnce);
            assert_eq!(subscriber.expect_publish("w", "x").qos, qos);
        }
    });
}

// [MQTT-4.12.0-6]
#[test]
fn without_an_authentication_method_there_is_no_auth() {
    let world = World::new();
    let client = world.send_connect(Setup::v5("c"));
    assert_eq!(conn_ack(&client, |packet| packet.properties.authentication_method.map(str::to_owned)), None);
    // [MQTT-4.12.0-7]
    let properties = codec::AuthProperties { method: Some("x"), ..Default::default() };
    client.send(&Packet::Auth(codec::Auth { reason: ReasonCode::ReAuthenticate, properties }));
    client.expect_closed(ReasonCode::ProtocolError);
}

// [MQTT-4.12.0-5]
#[test]
fn conn_ack_repeats_the_authentication_method() {
    let world = World::new();
    let client = world.send_connect(Setup { authentication_method: Some("SCRAM"), ..Setup::v5("c") });
    let method = conn_ack(&client, |packet| packet.properties.authentication_method.map(str::to_owned));
    assert_eq!(method.as_deref(), Some("SCRAM"));
}
