//! Receive Maximum, both ways.

use dunlin::codec::{PacketKind, QoS, ReasonCode, Version};

use crate::world::{Got, Setup, World, both};

// [MQTT-3.3.4-9] [MQTT-4.9.0-1] [MQTT-4.9.0-2]
#[test]
fn no_more_are_sent_than_the_client_takes_and_each_acknowledgement_makes_room() {
    let world = World::new();
    let client = world.connect(Setup::v5("c").receive_maximum(3).manual());
    client.subscribe("t", QoS::ExactlyOnce);
    let publisher = world.connect(Setup::v5("p"));
    for (number, qos) in (0..8).zip([QoS::AtLeastOnce, QoS::ExactlyOnce].into_iter().cycle()) {
        publisher.publish("t", &number.to_string(), qos);
    }
    let sent = client.recv_messages();
    assert_eq!(sent.len(), 3);
    client.ack(PacketKind::PubRec, sent[1].id());
    client.expect_ack(PacketKind::PubRel, sent[1].id());
    client.expect_nothing();
    client.ack(PacketKind::PubComp, sent[1].id());
    client.expect_publish("t", "3");
    client.ack(PacketKind::PubAck, sent[0].id());
    client.expect_publish("t", "4");
    client.ack_with(PacketKind::PubRec, 4, ReasonCode::UnspecifiedError);
    client.expect_publish("t", "5");
    client.expect_nothing();
}

// [MQTT-3.3.4-10] [MQTT-4.9.0-3] [MQTT-3.3.4-8]
#[test]
fn other_packets_go_on_when_the_quota_is_used_up() {
    both(|version| {
        let world = World::limited(|limits| limits.inflight_messages_max = 1);
        let client = world.connect(Setup::new(version, "c").receive_maximum(1).manual());
        client.subscribe("t", QoS::AtLeastOnce);
        let publisher = world.connect(Setup::new(version, "p"));
        publisher.publish("t", "1", QoS::AtLeastOnce);
        publisher.publish("t", "2", QoS::AtLeastOnce);
        client.expect_publish("t", "1");
        publisher.publish("t", "0", QoS::AtMostOnce);
        client.expect_publish("t", "0");
        client.ping();
        client.expect(&Got::PingResp);
        let id = client.publish("u", "x", QoS::ExactlyOnce);
        assert!(matches!(client.recv(), Some(Got::Ack { kind: PacketKind::PubRec, .. })));
        client.ack(PacketKind::PubRel, id);
        client.expect_ack(PacketKind::PubComp, id);
        client.subscribe("v", QoS::AtMostOnce);
        client.unsubscribe("v");
        client.expect_nothing();
    });
}

#[test]
fn clients_that_cannot_say_what_they_take_get_the_brokers_own_window() {
    let world = World::limited(|limits| limits.inflight_messages_max = 2);
    let client = world.connect(Setup::new(Version::V311, "c").manual());
    client.subscribe("t", QoS::AtLeastOnce);
    let publisher = world.connect(Setup::v5("p"));
    for _ in 0..5 {
        publisher.publish("t", "x", QoS::AtLeastOnce);
    }
    let sent = client.recv_messages();
    assert_eq!(sent.len(), 2);
    client.ack(PacketKind::PubAck, sent[0].id());
    assert_eq!(client.recv_messages().len(), 1);
}

#[test]
fn a_session_resumed_with_a_smaller_receive_maximum_sends_no_more_than_that() {
    let world = World::new();
    let setup = |maximum| Setup::v5("c").resuming().expiry(100).receive_maximum(maximum).manual();
    let client = world.connect(setup(10));
    client.subscribe("t", QoS::ExactlyOnce);
    let publisher = world.connect(Setup::v5("p"));
    for number in 0..6 {
        publisher.publish("t", &number.to_string(), QoS::ExactlyOnce);
    }
    let ids: Vec<u16> = client.recv_messages().iter().map(|message| message.id()).collect();
    client.ack(PacketKind::PubRec, ids[0]);
    client.expect_ack(PacketKind::PubRel, ids[0]);
    client.drop_link();
    let client = world.connect(setup(2));
    client.expect_ack(PacketKind::PubRel, ids[0]);
    let mut seen = vec![ids[0]];
    client.ack(PacketKind::PubComp, ids[0]);
    // The harness checks that no more than two are unacknowledged.
    while let Some(got) = client.recv() {
        match got {
            Got::Publish(message) => {
                seen.push(message.id());
                client.ack(PacketKind::PubRec, message.id());
            }
            Got::Ack { kind: PacketKind::PubRel, id, .. } => client.ack(PacketKind::PubComp, id),
            other => panic!("unexpected {other:?}"),
        }
    }
    assert_eq!(seen, ids);
    world.assert_accounting();
}

// [MQTT-3.3.4-7] [MQTT-4.9.0-2]
#[test]
fn a_client_that_sends_more_than_the_broker_takes_is_closed() {
    let world = World::limited(|limits| limits.receive_maximum = 3);
    let client = world.connect(Setup::v5("c").manual());
    for id in 1..=3 {
        client.publish_as(id, "t", "x", QoS::ExactlyOnce, |_| {});
        assert!(matches!(client.recv(), Some(Got::Ack { kind: PacketKind::PubRec, .. })));
    }
    // The same again is not another one, QoS 0 does not count, and what is complete makes room.
    client.publish_as(2, "t", "x", QoS::ExactlyOnce, |publish| publish.dup = true);
    client.expect_ack(PacketKind::PubRec, 2);
    client.publish("t", "x", QoS::AtMostOnce);
    client.ack(PacketKind::PubRel, 1);
    client.expect_ack(PacketKind::PubComp, 1);
    client.publish_as(4, "t", "x", QoS::ExactlyOnce, |_| {});
    assert!(matches!(client.recv(), Some(Got::Ack { kind: PacketKind::PubRec, .. })));
    client.publish_as(5, "t", "x", QoS::AtLeastOnce, |_| {});
    client.expect_closed(ReasonCode::ReceiveMaximumExceeded);
}

#[test]
fn what_waits_for_the_store_counts_against_the_quota_of_its_publisher() {
    let world = World::limited(|limits| limits.receive_maximum = 2);
    world.connect(Setup::durable(Version::V5, "s")).subscribe("t", QoS::AtLeastOnce);
    let client = world.connect(Setup::v5("c"));
    world.hold_commits();
    client.publish("t", "x", QoS::AtLeastOnce);
    client.publish("t", "x", QoS::ExactlyOnce);
    client.expect_nothing();
    client.publish("t", "x", QoS::AtLeastOnce);
    world.commit();
    let got = client.recv_all();
    assert!(
        matches!(got.last(), Some(Got::Disconnect { code, .. }) if *code == ReasonCode::ReceiveMaximumExceeded as u8)
    );
}

#[test]
fn a_new_connection_has_its_whole_quota_though_messages_of_the_last_are_unreleased() {
    let world = World::limited(|limits| limits.receive_maximum = 2);
    let setup = || Setup::v5("c").resuming().expiry(100).manual();
    let client = world.connect(setup());
    for id in [1, 2] {
        client.publish_as(id, "t", "x", QoS::ExactlyOnce, |_| {});
    }
    client.drop_link();
    let client = world.connect(setup());
    for id in [3, 4] {
        client.publish_as(id, "t", "x", QoS::ExactlyOnce, |_| {});
        assert!(matches!(client.recv(), Some(Got::Ack { kind: PacketKind::PubRec, .. })));
    }
    for id in 1..=4 {
        client.ack(PacketKind::PubRel, id);
        client.expect_ack(PacketKind::PubComp, id);
    }
    world.assert_accounting();
}
