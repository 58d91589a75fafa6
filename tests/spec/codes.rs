//! Reason codes: what the broker puts into a packet is one of those that the standard has for it.
//!
//! The tables are those of the standard, written down once more: the harness reads with the broker's own codec.

use std::sync::{Arc, atomic::Ordering};

use dunlin::{
    acl::{Action, Authorize, Decision, Principal, RuleId},
    codec::{PacketId, PacketKind, PayloadFormat, QoS, ReasonCode, SubscriptionOptions, Version},
};

use crate::world::{Client, Got, Setup, WillSetup, World};

const CONNACK: &[u8] = &[
    0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95, 0x97, 0x99,
    0x9A, 0x9B, 0x9C, 0x9D, 0x9F,
];
const PUBACK_AND_PUBREC: &[u8] = &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
const PUBREL_AND_PUBCOMP: &[u8] = &[0x00, 0x92];
const SUBACK: &[u8] = &[0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2];
const UNSUBACK: &[u8] = &[0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91];
/// Of those that a server may send.
const DISCONNECT: &[u8] = &[
    0x00, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97,
    0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2,
];

/// A broker that is easily asked for too much.
fn strict() -> World {
    World::limited(|limits| {
        limits.topic_levels_max = 2;
        limits.client_id_bytes_max = 10;
        limits.packet_bytes_max = 200;
        limits.session_queue_messages_max = 1;
        limits.session_subscriptions_max = 3;
        limits.packet_filters_max = 4;
        limits.receive_maximum = 1;
        limits.topic_alias_maximum = 1;
    })
}

/// The code of the next packet, which is of this kind.
fn code(client: &Client, expected: PacketKind) -> u8 {
    match client.recv() {
        Some(Got::Ack { kind, code, .. }) if kind == expected => code,
        Some(Got::Disconnect { code, .. }) if expected == PacketKind::Disconnect => code,
        Some(Got::ConnAck { code, .. }) if expected == PacketKind::ConnAck => code,
        other => panic!("expected {expected}, got {other:?}"),
    }
}

/// These codes, all of which may stand in the packet.
fn assert_codes(found: &[u8], expected: &[ReasonCode], table: &[u8]) {
    let expected: Vec<u8> = expected.iter().map(|code| *code as u8).collect();
    assert_eq!(found, expected);
    assert!(found.iter().all(|code| table.contains(code)), "{found:02X?} of {table:02X?}");
}

// [MQTT-3.4.2-1] [MQTT-3.5.2-1]
#[test]
fn puback_and_pubrec() {
    let cases = [(QoS::AtLeastOnce, PacketKind::PubAck), (QoS::ExactlyOnce, PacketKind::PubRec)];
    for (qos, kind) in cases {
        let world = strict();
        let full = world.connect(Setup::durable(Version::V5, "full"));
        full.subscribe("full", QoS::AtLeastOnce);
        full.drop_link();
        let client = world.connect(Setup::v5("c").manual());
        let publish = |topic: &str, format| {
            let id = client.publish_with(topic, "x", qos, |publish| {
                publish.properties.payload_format = format;
                publish.payload = if format.is_some() { &[0xFF] } else { b"x" };
            });
            let code = code(&client, kind);
            if kind == PacketKind::PubRec && code < 0x80 {
                client.ack(PacketKind::PubRel, id);
                client.expect_ack(PacketKind::PubComp, id);
            }
            code
        };
        let found = [
            publish("full", None),
            publish("full", None),
            publish("nobody", None),
            publish("$SYS/x", None),
            publish("a/b/c", None),
            publish("t", Some(PayloadFormat::Utf8)),
        ];
        let nobody =
            if qos == QoS::AtLeastOnce { ReasonCode::NoMatchingSubscribers } else { ReasonCode::Success };
        let expected = [
            ReasonCode::Success,
            ReasonCode::QuotaExceeded,
            nobody,
            ReasonCode::NotAuthorized,
            ReasonCode::TopicNameInvalid,
            ReasonCode::PayloadFormatInvalid,
        ];
        assert_codes(&found, &expected, PUBACK_AND_PUBREC);
    }
}

// [MQTT-3.6.2-1] [MQTT-3.7.2-1]
#[test]
fn pubrel_and_pubcomp() {
    let world = World::new();
    let client = world.connect(Setup::v5("c").manual());
    client.subscribe("t", QoS::ExactlyOnce);
    let id = client.publish("t", "x", QoS::ExactlyOnce);
    client.expect_ack(PacketKind::PubRec, id);
    let sent = client.expect_publish("t", "x").id();
    let mut found = Vec::new();
    for (kind, id, answer) in [
        (PacketKind::PubRec, sent, PacketKind::PubRel),
        (PacketKind::PubRec, sent + 1, PacketKind::PubRel),
        (PacketKind::PubRel, id, PacketKind::PubComp),
        (PacketKind::PubRel, id + 1, PacketKind::PubComp),
    ] {
        client.ack(kind, id);
        found.push(code(&client, answer));
    }
    let (success, unknown) = (ReasonCode::Success, ReasonCode::PacketIdentifierNotFound);
    assert_codes(&found, &[success, unknown, success, unknown], PUBREL_AND_PUBCOMP);
}

// [MQTT-3.9.3-2] [MQTT-3.11.3-2] [MQTT-3.8.4-7]
#[test]
fn suback_and_unsuback() {
    let world = World::with(1, |shared| {
        shared.limits = strict().shared().limits.clone();
        shared.authorize = Arc::new(NotSecret);
    });
    let client = world.connect(Setup::v5("c"));
    let options = |qos| SubscriptionOptions { qos, ..SubscriptionOptions::default() };
    client.send_subscribe(&[("secret", options(QoS::AtMostOnce)), ("a/b/c", options(QoS::AtMostOnce))], 0);
    let all = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce, QoS::ExactlyOnce].map(options);
    client.send_subscribe(&[("0", all[0]), ("1", all[1]), ("2", all[2]), ("3", all[3])], 0);
    client.send_unsubscribe(&["0", "3"]);
    let (mut granted, mut ended) = (Vec::new(), Vec::new());
    for got in client.recv_all() {
        match got {
            Got::SubAck { codes, .. } => granted.extend(codes),
            Got::UnsubAck { codes, .. } => ended.extend(codes),
            other => panic!("{other:?}"),
        }
    }
    let expected = [
        ReasonCode::NotAuthorized,
        ReasonCode::TopicFilterInvalid,
        ReasonCode::Success,
        ReasonCode::GrantedQoS1,
        ReasonCode::GrantedQoS2,
        ReasonCode::QuotaExceeded,
    ];
    assert_codes(&granted, &expected, SUBACK);
    assert_codes(&ended, &[ReasonCode::Success, ReasonCode::NoSubscriptionExisted], UNSUBACK);
}

/// Nobody subscribes to `secret`.
struct NotSecret;

impl Authorize for NotSecret {
    fn decide(&self, _: &Principal, _: &str, action: Action, topic: &str) -> Decision {
        match action {
            Action::Subscribe { .. } if topic == "secret" => Decision::Denied(RuleId::DEFAULT),
            Action::Publish { .. } | Action::Subscribe { .. } | Action::Receive => Decision::Allowed,
        }
    }
}

// [MQTT-3.2.2-8]
#[test]
fn connack() {
    let world = strict();
    let refused = |setup: Setup| code(&world.send_connect(setup), PacketKind::ConnAck);
    let raw = |change: fn(&mut Vec<u8>)| {
        let mut bytes = Setup::v5("c").encode();
        change(&mut bytes);
        let client = world.open();
        client.send_bytes(&bytes);
        code(&client, PacketKind::ConnAck)
    };
    let with_will = |topic| Setup::v5("c").will(WillSetup::new(topic, "x"));
    let found = [
        refused(Setup::v5("c")),
        // The reserved flag, and Will QoS without a will.
        raw(|bytes| bytes[9] |= 0x01),
        raw(|bytes| bytes[9] |= 0x08),
        raw(|bytes| bytes[8] = 6),
        refused(Setup::v5("a very long one")),
        refused(with_will("$SYS/x")),
        refused(with_will("a/b/c")),
        refused(Setup::v5("c").packet_max(10)),
        {
            world.shared().store_full.store(true, Ordering::Relaxed);
            refused(Setup::durable(Version::V5, "d"))
        },
    ];
    let expected = [
        ReasonCode::Success,
        ReasonCode::MalformedPacket,
        ReasonCode::ProtocolError,
        ReasonCode::UnsupportedProtocolVersion,
        ReasonCode::ClientIdentifierNotValid,
        ReasonCode::NotAuthorized,
        ReasonCode::TopicNameInvalid,
        ReasonCode::PacketTooLarge,
        ReasonCode::QuotaExceeded,
    ];
    assert_codes(&found, &expected, CONNACK);
}

/// How a client, or something else, makes the broker give its connection up.
type Ending = (ReasonCode, fn(&World, &Client));

const ENDINGS: &[Ending] = &[
    (ReasonCode::MalformedPacket, |_, client| client.send_bytes(&[0x00, 0])),
    (ReasonCode::ProtocolError, |_, client| client.send_bytes(&[0xD0, 0])),
    (ReasonCode::ProtocolError, |_, client| client.send_bytes(&[0x10, 7, 0, 4, b'M', b'Q', b'T', b'T', 9])),
    (ReasonCode::ServerShuttingDown, |world, _| world.stop()),
    (ReasonCode::KeepAliveTimeout, |world, _| world.advance_secs(15)),
    (ReasonCode::SessionTakenOver, |world, _| drop(world.connect(Setup::v5("c")))),
    (ReasonCode::TopicFilterInvalid, |_, client| {
        client.send_subscribe(&[("a#", SubscriptionOptions::default())], 0);
    }),
    (ReasonCode::TopicNameInvalid, |_, client| {
        client.publish("a/b/c", "x", QoS::AtMostOnce);
    }),
    (ReasonCode::ReceiveMaximumExceeded, |_, client| {
        for id in [1, 2] {
            client.publish_as(id, "t", "x", QoS::ExactlyOnce, |_| {});
        }
        client.recv();
    }),
    (ReasonCode::TopicAliasInvalid, |_, client| {
        client.publish_with("t", "x", QoS::AtMostOnce, |publish| {
            publish.properties.topic_alias = PacketId::new(2);
        });
    }),
    (ReasonCode::PacketTooLarge, |_, client| client.send_bytes(&[0x30, 0xFF, 0x01])),
    (ReasonCode::QuotaExceeded, |_, client| {
        client.send_unsubscribe(&["1", "2", "3", "4", "5"]);
    }),
    (ReasonCode::PayloadFormatInvalid, |_, client| {
        client.publish_with("t", "", QoS::AtMostOnce, |publish| {
            publish.properties.payload_format = Some(PayloadFormat::Utf8);
            publish.payload = &[0xFF];
        });
    }),
];

// [MQTT-3.14.2-1] [MQTT-4.13.2-1]
#[test]
fn disconnect() {
    let mut found = Vec::new();
    for (_, end) in ENDINGS {
        let world = strict();
        let client = world.connect(Setup::v5("c").keep_alive(10).manual());
        end(&world, &client);
        found.push(code(&client, PacketKind::Disconnect));
        client.expect_silently_closed();
    }
    let expected: Vec<ReasonCode> = ENDINGS.iter().map(|(code, _)| *code).collect();
    assert_codes(&found, &expected, DISCONNECT);
}
