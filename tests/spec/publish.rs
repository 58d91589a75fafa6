//! PUBLISH at each QoS, both ways, and its acknowledgements.

use dunlin::codec::{PacketKind, QoS, ReasonCode, Version};

use crate::world::{Client, Got, Setup, World, all, both};

const ALL_QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

fn subscriber(world: &World, version: Version, qos: QoS) -> Client {
    let client = world.connect(Setup::durable(version, "s").manual());
    client.subscribe("t", qos);
    client
}

/// What PUBACK and PUBREC say when nobody subscribed.
fn nobody(version: Version) -> ReasonCode {
    if version.is_v5() { ReasonCode::NoMatchingSubscribers } else { ReasonCode::Success }
}

// [MQTT-2.2.1-2] [MQTT-2.2.2-1] [MQTT-3.3.2-1] [MQTT-3.1.1/2.3.1-5] [MQTT-3.1.1/3.3.2-1]
#[test]
fn a_publish_of_qos_0_has_no_packet_identifier_and_its_empty_properties_have_a_length() {
    all(|version| {
        let world = World::new();
        let client = subscriber(&world, version, QoS::ExactlyOnce);
        world.connect(Setup::new(version, "p")).publish("t", "x", QoS::AtMostOnce);
        let expected: &[u8] =
            if version.is_v5() { &[0x30, 5, 0, 1, b't', 0, b'x'] } else { &[0x30, 4, 0, 1, b't', b'x'] };
        assert_eq!(client.expect_publish("t", "x").frame, expected);
    });
}

// [MQTT-4.7.3-3] [MQTT-3.1.1/4.7.3-3] A longer one cannot be written.
#[test]
fn a_topic_name_has_up_to_65_535_bytes() {
    all(|version| {
        let world = World::new();
        let topic = "t".repeat(65_535);
        let client = world.connect(Setup::new(version, "c"));
        client.subscribe(&topic, QoS::AtLeastOnce);
        client.publish(&topic, "x", QoS::AtLeastOnce);
        client.expect_publish(&topic, "x");
    });
}

// [MQTT-3.3.4-1] [MQTT-2.2.1-2] [MQTT-2.2.1-5] [MQTT-4.3.2-4] [MQTT-4.3.3-8] [MQTT-4.3.3-11]
// [MQTT-3.4.2-1] [MQTT-3.5.2-1] [MQTT-3.7.2-1]
// [MQTT-3.1.1/3.3.4-1] [MQTT-3.1.1/2.3.1-5] [MQTT-3.1.1/2.3.1-6] [MQTT-3.1.1/4.3.2-2] [MQTT-3.1.1/4.3.3-2]
#[test]
fn a_publish_is_answered_as_its_qos_asks() {
    all(|version| {
        let world = World::new();
        let client = world.connect(Setup::new(version, "c").manual());
        client.publish("t", "x", QoS::AtMostOnce);
        client.expect_nothing();
        client.publish_as(11, "t", "x", QoS::AtLeastOnce, |_| {});
        client.expect_code(PacketKind::PubAck, 11, nobody(version));
        client.publish_as(65_535, "t", "x", QoS::ExactlyOnce, |_| {});
        // PUBREC leaves before the message does, and tells nothing of who gets it.
        client.expect_ack(PacketKind::PubRec, 65_535);
        client.ack(PacketKind::PubRel, 65_535);
        client.expect_ack(PacketKind::PubComp, 65_535);
        client.expect_nothing();
    });
}

// [MQTT-3.8.4-8] [MQTT-3.3.2-3] [MQTT-4.3.1-1] [MQTT-4.3.2-2] [MQTT-4.3.3-2] [MQTT-3.3.1-2] [MQTT-3.3.1-3]
// [MQTT-3.1.1/3.8.4-6] [MQTT-3.1.1/3.3.2-3] [MQTT-3.1.1/4.3.1-1] [MQTT-3.1.1/3.3.1-2] [MQTT-3.1.1/3.3.1-3]
// [MQTT-3.1.1/4.3.2-1] [MQTT-3.1.1/4.3.3-1]
#[test]
fn delivery_is_at_the_lower_qos_with_dup_0_and_the_same_topic() {
    all(|version| {
        for granted in ALL_QOS {
            let world = World::new();
            let client = subscriber(&world, version, granted);
            let publisher = world.connect(Setup::new(version, "p"));
            for published in ALL_QOS {
                // The publisher's DUP is not forwarded.
                publisher.publish_with("t", "x", published, |publish| {
                    publish.dup = published != QoS::AtMostOnce;
                });
                let message = client.expect_publish("t", "x");
                assert_eq!(message.qos, granted.min(published));
                assert!(!message.dup && !message.retain);
            }
        }
    });
}

// [MQTT-2.2.1-4] [MQTT-4.3.2-1] [MQTT-4.3.3-1] [MQTT-4.3.2-3] [MQTT-4.3.3-3] [MQTT-4.3.3-5]
// [MQTT-3.1.1/2.3.1-4] [MQTT-3.1.1/4.3.2-1] [MQTT-3.1.1/4.3.3-1]
#[test]
fn a_packet_identifier_is_not_used_again_before_its_message_is_settled() {
    both(|version| {
        let world = World::limited(|limits| limits.inflight_messages_max = 4);
        let client = world.connect(Setup::new(version, "s").receive_maximum(4).manual());
        client.subscribe("t", QoS::ExactlyOnce);
        let publisher = world.connect(Setup::new(version, "p"));
        // One that is never settled, and enough others to go through all identifiers twice.
        publisher.publish("t", "stuck", QoS::ExactlyOnce);
        let stuck = client.expect_publish("t", "stuck").id();
        client.ack(PacketKind::PubRec, stuck);
        client.expect_ack(PacketKind::PubRel, stuck);
        let mut delivered = 0;
        for _ in 0..65_600 {
            publisher.publish("t", "x", QoS::AtLeastOnce);
            publisher.recv_all();
            for message in client.recv_messages() {
                // The harness refuses an identifier that is in use on the connection.
                delivered += 1;
                client.ack(PacketKind::PubAck, message.id());
            }
        }
        assert_eq!(delivered, 65_534, "all identifiers but the one in use");
        client.ack(PacketKind::PubComp, stuck);
        assert_eq!(client.recv_messages().len(), 4, "it goes on when the identifier is free");
    });
}

// [MQTT-4.3.2-5] [MQTT-3.1.1/4.3.2-2]
#[test]
fn after_puback_the_same_identifier_is_a_new_message_whatever_dup_says() {
    all(|version| {
        let world = World::new();
        let client = subscriber(&world, version, QoS::AtLeastOnce);
        let publisher = world.connect(Setup::new(version, "p").manual());
        for dup in [false, true, true] {
            publisher.publish_as(5, "t", "x", QoS::AtLeastOnce, |publish| publish.dup = dup);
            publisher.expect_ack(PacketKind::PubAck, 5);
            client.expect_publish("t", "x");
        }
    });
}

// [MQTT-4.3.3-10] [MQTT-4.3.3-11] [MQTT-4.3.3-12] [MQTT-3.1.1/4.3.3-2]
#[test]
fn a_repeated_qos_2_publish_is_delivered_once_until_it_is_released() {
    all(|version| {
        let world = World::new();
        let client = subscriber(&world, version, QoS::AtLeastOnce);
        let connect = || world.connect(Setup::durable(version, "p").manual());
        let publisher = connect();
        let repeat = |publisher: &Client| {
            publisher.publish_as(5, "t", "x", QoS::ExactlyOnce, |publish| publish.dup = true);
            publisher.expect_ack(PacketKind::PubRec, 5);
        };
        repeat(&publisher);
        client.expect_publish("t", "x");
        repeat(&publisher);
        publisher.drop_link();
        let publisher = connect();
        repeat(&publisher);
        client.expect_nothing();
        publisher.ack(PacketKind::PubRel, 5);
        publisher.expect_ack(PacketKind::PubComp, 5);
        repeat(&publisher);
        client.expect_publish("t", "x");
        publisher.ack(PacketKind::PubRel, 5);
        publisher.drop_link();
        // PUBREL may be repeated too: its PUBCOMP was lost.
        let publisher = connect();
        publisher.ack(PacketKind::PubRel, 5);
        let code = if version.is_v5() { ReasonCode::PacketIdentifierNotFound } else { ReasonCode::Success };
        publisher.expect_code(PacketKind::PubComp, 5, code);
        client.expect_nothing();
        world.assert_accounting();
    });
}

// [MQTT-4.3.3-9]
#[test]
fn after_a_pubrec_that_refuses_the_identifier_is_free() {
    let world = World::new();
    let client = subscriber(&world, Version::V5, QoS::AtLeastOnce);
    let publisher = world.connect(Setup::v5("p").manual());
    publisher.publish_as(5, "$SYS/t", "x", QoS::ExactlyOnce, |_| {});
    publisher.expect_code(PacketKind::PubRec, 5, ReasonCode::NotAuthorized);
    publisher.publish_as(5, "t", "x", QoS::ExactlyOnce, |_| {});
    publisher.expect_ack(PacketKind::PubRec, 5);
    client.expect_publish("t", "x");
}

// [MQTT-4.3.3-4] [MQTT-4.3.3-6] [MQTT-3.6.2-1] [MQTT-3.1.1/4.3.3-1]
#[test]
fn a_pubrec_is_answered_by_pubrel_and_the_publish_is_not_sent_again() {
    all(|version| {
        let world = World::new();
        let client = subscriber(&world, version, QoS::ExactlyOnce);
        world.connect(Setup::new(version, "p")).publish("t", "x", QoS::ExactlyOnce);
        let id = client.expect_publish("t", "x").id();
        for _ in 0..2 {
            client.ack(PacketKind::PubRec, id);
            client.expect_ack(PacketKind::PubRel, id);
        }
        client.drop_link();
        let client = world.connect(Setup::durable(version, "s").manual());
        client.expect_ack(PacketKind::PubRel, id);
        client.expect_nothing();
        client.ack(PacketKind::PubComp, id);
        client.drop_link();
        world.connect(Setup::durable(version, "s").manual()).expect_nothing();
        world.assert_accounting();
    });
}

// [MQTT-4.4.0-2]
#[test]
fn an_acknowledgement_that_refuses_settles_the_message() {
    for (qos, kind) in [(QoS::AtLeastOnce, PacketKind::PubAck), (QoS::ExactlyOnce, PacketKind::PubRec)] {
        let world = World::new();
        let client = subscriber(&world, Version::V5, qos);
        world.connect(Setup::v5("p")).publish("t", "x", qos);
        let id = client.expect_publish("t", "x").id();
        client.ack_with(kind, id, ReasonCode::QuotaExceeded);
        client.expect_nothing();
        client.drop_link();
        world.connect(Setup::durable(Version::V5, "s")).expect_nothing();
        assert_eq!(world.queued_messages(), 0);
        world.assert_accounting();
    }
}

#[test]
fn acknowledgements_of_unknown_identifiers_are_answered_or_ignored() {
    all(|version| {
        let world = World::new();
        let client = world.connect(Setup::new(version, "c").manual());
        let code = if version.is_v5() { ReasonCode::PacketIdentifierNotFound } else { ReasonCode::Success };
        client.ack(PacketKind::PubAck, 9);
        client.ack(PacketKind::PubComp, 9);
        client.expect_nothing();
        client.ack(PacketKind::PubRec, 9);
        client.expect_code(PacketKind::PubRel, 9, code);
        client.ack(PacketKind::PubRel, 9);
        client.expect_code(PacketKind::PubComp, 9, code);
        client.expect_nothing();
    });
}

#[test]
fn an_acknowledgement_of_the_wrong_kind_is_a_protocol_error() {
    all(|version| {
        let cases = [
            (QoS::AtLeastOnce, PacketKind::PubRec),
            (QoS::AtLeastOnce, PacketKind::PubComp),
            (QoS::ExactlyOnce, PacketKind::PubAck),
            (QoS::ExactlyOnce, PacketKind::PubComp),
        ];
        for (qos, kind) in cases {
            let world = World::new();
            let client = subscriber(&world, version, qos);
            world.connect(Setup::new(version, "p")).publish("t", "x", qos);
            let id = client.expect_publish("t", "x").id();
            client.ack(kind, id);
            client.expect_closed(ReasonCode::ProtocolError);
            let client = world.connect(Setup::durable(version, "s").manual());
            assert_eq!(client.expect_publish("t", "x").id(), id, "nothing was settled by it");
            world.assert_accounting();
        }
    });
}

// [MQTT-3.1.1/3.3.5-2]
#[test]
fn a_publish_that_is_not_authorized_is_told_so_or_acknowledged_and_dropped() {
    all(|version| {
        let world = World::new();
        let watcher = world.connect(Setup::new(version, "w"));
        watcher.subscribe("$SYS/#", QoS::ExactlyOnce);
        let client = world.connect(Setup::new(version, "c").manual());
        let code = if version.is_v5() { ReasonCode::NotAuthorized } else { ReasonCode::Success };
        client.publish("$SYS/x", "x", QoS::AtMostOnce);
        let id = client.publish("$SYS/x", "x", QoS::AtLeastOnce);
        client.expect_code(PacketKind::PubAck, id, code);
        let id = client.publish("$SYS/x", "x", QoS::ExactlyOnce);
        client.expect_code(PacketKind::PubRec, id, code);
        client.ack(PacketKind::PubRel, id);
        assert!(matches!(client.recv(), Some(Got::Ack { kind: PacketKind::PubComp, .. })));
        client.expect_nothing();
        watcher.expect_nothing();
    });
}

#[test]
fn the_broker_publishes_where_clients_may_not() {
    let world = World::new();
    let client = world.connect(Setup::v5("c"));
    client.subscribe("$SYS/#", QoS::AtMostOnce);
    for message in dunlin::broker::sys::messages(&world.shared(), 5) {
        world.publish_own(message);
    }
    let uptime = client.recv_messages().into_iter().find(|message| message.topic == "$SYS/broker/uptime");
    assert_eq!(uptime.map(|message| message.payload), Some("5 seconds".into()));
}

// [MQTT-4.5.0-1] [MQTT-3.1.1/4.5.0-1]
#[test]
fn a_message_reaches_every_client_with_a_matching_subscription() {
    all(|version| {
        for qos in ALL_QOS {
            let world = World::new();
            let clients: Vec<Client> = (0..40)
                .map(|number| {
                    let client = world.connect(Setup::new(version, &format!("c{number}")));
                    client.subscribe(["a/b", "a/+", "+/b", "#", "a/#"][number % 5], qos);
                    client
                })
                .collect();
            clients[0].publish("a/b", "x", qos);
            for client in &clients {
                assert_eq!(client.recv_payloads(), ["x"]);
            }
            clients[0].publish("b/a", "x", qos);
            let reached = clients.iter().filter(|client| client.recv_payloads() == ["x"]).count();
            assert_eq!(reached, 8, "only # matches");
            world.assert_accounting();
        }
    });
}
