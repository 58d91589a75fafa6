//! Message expiry.

use dunlin::{
    broker::DropReason,
    codec::{PacketKind, QoS},
};

use crate::world::{Client, Setup, World};

fn publish(client: &Client, payload: &str, qos: QoS, secs: u32) -> u16 {
    client.publish_with("t", payload, qos, |publish| {
        publish.properties.message_expiry_secs = Some(secs);
    })
}

// [MQTT-3.3.2-5] [MQTT-3.3.2-6]
#[test]
fn a_message_that_waits_counts_down_and_is_deleted_when_its_time_has_passed() {
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let world = World::new();
        let setup = || Setup::v5("c").resuming().expiry(1000);
        let client = world.connect(setup());
        client.subscribe("t", qos);
        client.drop_link();
        let publisher = world.connect(Setup::v5("p"));
        publish(&publisher, "short", qos, 10);
        publish(&publisher, "long", qos, 60);
        publisher.publish("t", "ever", qos);
        world.advance_secs(25);
        let client = world.connect(setup());
        assert_eq!(client.expect_publish("t", "long").expiry_secs, Some(35));
        assert_eq!(client.expect_publish("t", "ever").expiry_secs, None);
        client.expect_nothing();
        assert_eq!(world.drops(DropReason::Expired), 1);
        assert_eq!(world.queued_messages(), 0);
        world.assert_accounting();
    }
}

#[test]
fn a_message_that_is_sent_at_once_keeps_its_interval() {
    let world = World::new();
    let client = world.connect(Setup::v5("c"));
    client.subscribe("t", QoS::AtMostOnce);
    publish(&world.connect(Setup::v5("p")), "x", QoS::AtMostOnce, 10);
    assert_eq!(client.expect_publish("t", "x").expiry_secs, Some(10));
}

#[test]
fn a_message_that_waits_for_the_window_expires_too() {
    let world = World::new();
    let client = world.connect(Setup::v5("c").receive_maximum(1).manual());
    client.subscribe("t", QoS::AtLeastOnce);
    let publisher = world.connect(Setup::v5("p"));
    publish(&publisher, "1", QoS::AtLeastOnce, 10);
    publish(&publisher, "2", QoS::AtLeastOnce, 10);
    publish(&publisher, "3", QoS::AtLeastOnce, 20);
    let id = client.expect_publish("t", "1").id();
    world.advance_secs(11);
    client.ack(PacketKind::PubAck, id);
    assert_eq!(client.expect_publish("t", "3").expiry_secs, Some(9));
    world.assert_accounting();
}

#[test]
fn a_qos_0_message_that_waits_behind_retained_ones_expires_too() {
    let world = World::limited(|limits| limits.outbox_bytes_max = 1000);
    let publisher = world.connect(Setup::v5("p"));
    for number in 0..100 {
        publisher.retain(&format!("r/{number}"), &"x".repeat(50), QoS::AtMostOnce);
    }
    let client = world.connect(Setup::v5("c"));
    client.stall();
    client.send_subscribe(&[("#", Default::default())], 0);
    publish(&publisher, "late", QoS::AtMostOnce, 10);
    publisher.publish("t", "ever", QoS::AtMostOnce);
    world.advance_secs(11);
    client.unstall();
    let payloads = client.recv_payloads();
    assert_eq!(payloads.len(), 101);
    assert_eq!(payloads.last().map(String::as_str), Some("ever"));
    assert_eq!(world.drops(DropReason::Expired), 1);
}

// [MQTT-4.3.3-7]
#[test]
fn a_message_that_was_sent_does_not_expire_any_more() {
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let world = World::new();
        let setup = || Setup::v5("c").resuming().expiry(1000).manual();
        let client = world.connect(setup());
        client.subscribe("t", qos);
        publish(&world.connect(Setup::v5("p")), "x", qos, 10);
        let id = client.expect_publish("t", "x").id();
        client.drop_link();
        world.advance_secs(100);
        let client = world.connect(setup());
        let again = client.expect_publish("t", "x");
        assert_eq!((again.id(), again.dup, again.expiry_secs), (id, true, Some(0)));
    }
}

// [MQTT-4.3.3-13]
#[test]
fn the_handshake_of_an_expired_qos_2_message_is_gone_through() {
    let world = World::new();
    let publisher = world.connect(Setup::v5("p").manual());
    let client = world.connect(Setup::v5("c").manual());
    client.subscribe("t", QoS::ExactlyOnce);
    let id = publish(&publisher, "x", QoS::ExactlyOnce, 1);
    publisher.expect_ack(PacketKind::PubRec, id);
    let sent = client.expect_publish("t", "x").id();
    world.advance_secs(100);
    publisher.ack(PacketKind::PubRel, id);
    publisher.expect_ack(PacketKind::PubComp, id);
    client.ack(PacketKind::PubRec, sent);
    client.expect_ack(PacketKind::PubRel, sent);
    client.ack(PacketKind::PubComp, sent);
    world.assert_accounting();
}
