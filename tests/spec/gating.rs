//! What is promised waits for the store; what needs no promise does not.

use dunlin::codec::{Packet, PacketKind, QoS, ReasonCode};

use crate::world::{Got, Setup, World, both};

/// A world whose durable subscriber takes everything, with commits held from then on.
fn with_durable_subscriber(version: dunlin::codec::Version) -> World {
    let world = World::new();
    let subscriber = world.connect(Setup::durable(version, "durable"));
    subscriber.subscribe("#", QoS::ExactlyOnce);
    subscriber.disconnect();
    world.hold_commits();
    world
}

// [MQTT-4.3.2-4] [MQTT-4.3.3-8] [MQTT-3.1.1/4.3.2-2] [MQTT-3.1.1/4.3.3-2]
#[test]
fn acknowledgements_of_what_a_durable_session_gets_wait_for_the_commit() {
    both(|version| {
        let world = with_durable_subscriber(version);
        let publisher = world.connect(Setup::new(version, "p").manual());
        let first = publisher.publish("t", "1", QoS::AtLeastOnce);
        let second = publisher.publish("t", "2", QoS::ExactlyOnce);
        publisher.expect_nothing();
        world.commit();
        publisher.expect_ack(PacketKind::PubAck, first);
        publisher.expect_ack(PacketKind::PubRec, second);
        publisher.expect_nothing();
    });
}

#[test]
fn pubcomp_of_a_durable_publisher_waits_for_the_commit() {
    both(|version| {
        let world = World::new();
        let publisher = world.connect(Setup::durable(version, "p").manual());
        let id = publisher.publish("t", "1", QoS::ExactlyOnce);
        assert!(matches!(publisher.recv(), Some(Got::Ack { kind: PacketKind::PubRec, .. })));
        world.hold_commits();
        publisher.ack(PacketKind::PubRel, id);
        publisher.expect_nothing();
        world.commit();
        publisher.expect_ack(PacketKind::PubComp, id);
    });
}

// [MQTT-4.3.3-4]
#[test]
fn pubrel_to_a_durable_subscriber_waits_for_the_commit() {
    both(|version| {
        let world = World::new();
        let subscriber = world.connect(Setup::durable(version, "s").manual());
        subscriber.subscribe("t", QoS::ExactlyOnce);
        world.connect(Setup::new(version, "p")).publish("t", "1", QoS::ExactlyOnce);
        let id = subscriber.expect_publish("t", "1").id();
        world.hold_commits();
        subscriber.ack(PacketKind::PubRec, id);
        subscriber.expect_nothing();
        world.commit();
        subscriber.expect_ack(PacketKind::PubRel, id);
        subscriber.ack(PacketKind::PubComp, id);
        world.release_commits();
        world.assert_accounting();
    });
}

#[test]
fn conn_ack_of_a_durable_session_waits_for_the_commit() {
    both(|version| {
        let world = World::new();
        world.hold_commits();
        let client = world.send_connect(Setup::durable(version, "c"));
        client.expect_nothing();
        world.commit();
        assert!(matches!(client.recv(), Some(Got::ConnAck { code: 0, .. })));
    });
}

// A clean start is a promise too: the session before must not come back after a crash.
#[test]
fn conn_ack_of_a_clean_start_waits_until_the_session_before_is_forgotten() {
    both(|version| {
        let world = World::new();
        world.connect(Setup::durable(version, "c")).drop_link();
        world.hold_commits();
        let client = world.send_connect(Setup::new(version, "c"));
        client.expect_nothing();
        world.commit();
        assert!(matches!(client.recv(), Some(Got::ConnAck { code: 0, session_present: false, .. })));
    });
}

#[test]
fn suback_and_unsuback_of_a_durable_session_wait_and_keep_their_place() {
    both(|version| {
        let world = World::new();
        let client = world.connect(Setup::durable(version, "c"));
        let options = Default::default();
        world.hold_commits();
        let subscribe = client.send_subscribe(&[("t", options)], 0);
        let unsubscribe = client.send_unsubscribe(&["t"]);
        client.ping();
        client.expect_nothing();
        world.commit();
        client.expect(&Got::SubAck { id: subscribe, codes: vec![0] });
        let codes = if version.is_v5() { vec![0] } else { Vec::new() };
        client.expect(&Got::UnsubAck { id: unsubscribe, codes });
        client.expect(&Got::PingResp);
    });
}

#[test]
fn sessions_that_end_with_their_connection_and_qos_0_never_wait() {
    both(|version| {
        let world = World::new();
        let durable = world.connect(Setup::durable(version, "d"));
        world.hold_commits();
        let client = world.connect(Setup::new(version, "c").manual());
        client.subscribe("t", QoS::ExactlyOnce);
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            client.publish("t", "x", qos);
            if qos == QoS::ExactlyOnce {
                client.expect_ack(PacketKind::PubRec, 3);
            }
            client.expect_publish("t", "x");
            if qos == QoS::AtLeastOnce {
                client.expect_ack(PacketKind::PubAck, 2);
            }
        }
        client.ack(PacketKind::PubRel, 3);
        client.expect_ack(PacketKind::PubComp, 3);
        client.unsubscribe("t");
        durable.publish("t", "x", QoS::AtMostOnce);
        durable.publish("t", "x", QoS::AtLeastOnce);
        assert!(matches!(durable.recv(), Some(Got::Ack { kind: PacketKind::PubAck, .. })));
        client.expect_nothing();
    });
}

// Unrelated commits that are open do not hold up what a clean session repeats.
#[test]
fn repetitions_of_a_clean_session_do_not_wait_for_others() {
    both(|version| {
        let world = World::new();
        let client = world.connect(Setup::new(version, "c").manual());
        let id = client.publish("t", "x", QoS::ExactlyOnce);
        client.recv();
        world.hold_commits();
        world.send_connect(Setup::durable(version, "d"));
        client.publish_as(id, "t", "x", QoS::ExactlyOnce, |publish| publish.dup = true);
        client.expect_ack(PacketKind::PubRec, id);
        client.ack(PacketKind::PubRel, id);
        client.expect_ack(PacketKind::PubComp, id);
        client.ack(PacketKind::PubRel, id);
        let code = if version.is_v5() { ReasonCode::PacketIdentifierNotFound } else { ReasonCode::Success };
        client.expect_code(PacketKind::PubComp, id, code);
    });
}

// What nobody waits for, the store may leave open for as long as it likes.
#[test]
fn a_repeated_qos_2_message_does_not_wait_for_changes_that_nobody_awaits() {
    both(|version| {
        let world = World::new();
        let subscriber = world.connect(Setup::durable(version, "s"));
        subscriber.subscribe("t", QoS::AtLeastOnce);
        let publisher = world.connect(Setup::durable(version, "p").manual());
        let id = publisher.publish("t", "x", QoS::ExactlyOnce);
        publisher.expect_ack(PacketKind::PubRec, id);
        // The subscriber's PUBACK left an open change behind.
        subscriber.expect_publish("t", "x");
        publisher.publish_as(id, "t", "x", QoS::ExactlyOnce, |publish| publish.dup = true);
        publisher.expect_ack(PacketKind::PubRec, id);
        subscriber.expect_nothing();
        subscriber.disconnect();
        publisher.ack(PacketKind::PubRel, 99);
        let code = if version.is_v5() { ReasonCode::PacketIdentifierNotFound } else { ReasonCode::Success };
        publisher.expect_code(PacketKind::PubComp, 99, code);
    });
}

// [MQTT-4.6.0-5] [MQTT-3.1.1/4.6.0-2] [MQTT-3.1.1/4.6.0-3]
#[test]
fn acknowledgements_leave_in_order_though_only_the_first_waits() {
    both(|version| {
        for (qos, kind) in [(QoS::AtLeastOnce, PacketKind::PubAck), (QoS::ExactlyOnce, PacketKind::PubRec)] {
            let world = with_durable_subscriber(version);
            let publisher = world.connect(Setup::new(version, "p").manual());
            let first = publisher.publish("t", "1", qos);
            // `$SYS` is not for the subscriber of `#`, and nobody else is there: this one needs no commit.
            let second = publisher.publish("$other", "2", qos);
            publisher.expect_nothing();
            world.commit();
            publisher.expect_ack(kind, first);
            let is_told = version.is_v5() && qos == QoS::AtLeastOnce;
            let code = if is_told { ReasonCode::NoMatchingSubscribers } else { ReasonCode::Success };
            publisher.expect_code(kind, second, code);
        }
    });
}

#[test]
fn a_link_that_dies_with_gated_output_leaves_nothing_behind() {
    both(|version| {
        let world = with_durable_subscriber(version);
        let publisher = world.connect(Setup::new(version, "p").manual());
        publisher.publish("t", "1", QoS::AtLeastOnce);
        publisher.publish("t", "2", QoS::ExactlyOnce);
        publisher.drop_link();
        let half_open = world.send_connect(Setup::durable(version, "half"));
        half_open.drop_link();
        world.release_commits();
        let subscriber = world.connect(Setup::durable(version, "durable"));
        assert_eq!(subscriber.recv_payloads(), ["1", "2"]);
        world.assert_accounting();
    });
}

#[test]
fn what_closes_a_link_comes_behind_the_conn_ack_that_waits() {
    let world = World::new();
    world.hold_commits();
    let client = world.send_connect(Setup::v5("c").expiry(100));
    client.send(&Packet::PingResp);
    client.ping();
    assert_eq!(client.recv(), None);
    world.commit();
    assert!(matches!(client.recv(), Some(Got::ConnAck { code: 0, .. })));
    client.expect_closed(ReasonCode::ProtocolError);
    world.release_commits();
    world.assert_accounting();
}

#[test]
fn a_qos_2_message_is_delivered_only_once_it_is_known_to_be_received() {
    both(|version| {
        let world = World::new();
        let subscriber = world.connect(Setup::new(version, "s"));
        subscriber.subscribe("t", QoS::ExactlyOnce);
        let publisher = world.connect(Setup::durable(version, "p").manual());
        world.hold_commits();
        let id = publisher.publish("t", "x", QoS::ExactlyOnce);
        publisher.publish("t", "y", QoS::AtLeastOnce);
        assert_eq!(subscriber.recv_payloads(), ["y"]);
        // The connection dies, and the client repeats its message on the next one.
        publisher.drop_link();
        let publisher = world.send_connect(Setup::durable(version, "p").manual());
        publisher.publish_as(id, "t", "x", QoS::ExactlyOnce, |publish| publish.dup = true);
        world.commit();
        assert!(matches!(
            publisher.recv(),
            Some(Got::ConnAck { session_present: true, .. }) | Some(Got::ConnAck { .. })
        ));
        publisher.expect_ack(PacketKind::PubRec, id);
        assert_eq!(subscriber.recv_payloads(), ["x"]);
        world.release_commits();
        world.assert_accounting();
    });
}

// [MQTT-4.6.0-5] [MQTT-4.6.0-6] [MQTT-3.1.1/4.6.0-5] [MQTT-3.1.1/4.6.0-6]
#[test]
fn a_qos_2_message_that_needs_no_commit_does_not_overtake_one_that_does() {
    both(|version| {
        let world = World::new();
        let durable = world.connect(Setup::durable(version, "d"));
        durable.subscribe("t", QoS::ExactlyOnce);
        let subscriber = world.connect(Setup::new(version, "s"));
        subscriber.subscribe("t", QoS::ExactlyOnce);
        let publisher = world.connect(Setup::new(version, "p").manual());
        world.hold_commits();
        publisher.publish("t", "1", QoS::ExactlyOnce);
        durable.send_unsubscribe(&["t"]);
        publisher.publish("t", "2", QoS::ExactlyOnce);
        world.release_commits();
        assert_eq!(subscriber.recv_payloads(), ["1", "2"]);
        world.assert_accounting();
    });
}

#[test]
fn a_clean_session_does_not_overtake_what_the_one_before_it_left() {
    both(|version| {
        let world = with_durable_subscriber(version);
        let subscriber = world.connect(Setup::new(version, "s"));
        subscriber.subscribe("+", QoS::ExactlyOnce);
        let publisher = world.connect(Setup::new(version, "p").manual());
        publisher.publish("t", "1", QoS::ExactlyOnce);
        world.send_connect(Setup::durable(version, "durable")).send_unsubscribe(&["#"]);
        publisher.drop_link();
        let publisher = world.connect(Setup::new(version, "p").manual());
        publisher.publish("t", "2", QoS::ExactlyOnce);
        world.release_commits();
        assert_eq!(subscriber.recv_payloads(), ["1", "2"]);
    });
}

#[test]
fn a_publisher_with_too_much_that_waits_for_the_store_is_not_read_any_more() {
    let world = World::limited(|limits| limits.receive_maximum = 4);
    let version = dunlin::codec::Version::V311;
    world.connect(Setup::durable(version, "s")).subscribe("t", QoS::AtLeastOnce);
    world.hold_commits();
    let publisher = world.connect(Setup::new(version, "p"));
    for _ in 0..10 {
        publisher.publish("t", "x", QoS::AtLeastOnce);
    }
    assert!(!publisher.is_read());
    assert_eq!(world.queued_messages(), 0);
    world.release_commits();
    assert!(publisher.is_read());
    assert_eq!(publisher.recv_all().len(), 10);
    world.assert_accounting();
}
