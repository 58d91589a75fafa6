//! DISCONNECT, both ways.

use dunlin::codec::{self, Packet, QoS, ReasonCode, Version};

use crate::world::{Setup, World, all, both};

// [MQTT-3.14.4-1] [MQTT-3.14.4-2] [MQTT-3.1.1/3.14.4-1] [MQTT-3.1.1/3.14.4-2]
#[test]
fn after_disconnect_nothing_is_sent_or_heard_and_the_connection_is_closed() {
    all(|version| {
        let world = World::new();
        let watcher = world.connect(Setup::new(version, "w"));
        watcher.subscribe("#", QoS::AtMostOnce);
        let client = world.connect(Setup::new(version, "c"));
        client.subscribe("t", QoS::AtMostOnce);
        let mut bytes = vec![0xE0, 0];
        codec::encode(&Packet::PingReq, version, &mut bytes);
        client.send_bytes(&bytes);
        client.expect_silently_closed();
        watcher.publish("t", "x", QoS::AtMostOnce);
        client.expect_silently_closed();
        world.assert_accounting();
    });
}

// [MQTT-3.14.4-1] [MQTT-3.14.0-1] [MQTT-3.14.2-1] [MQTT-3.14.2-2]
#[test]
fn what_is_queued_leaves_before_the_disconnect_of_the_broker_and_nothing_after_it() {
    both(|version| {
        let world = World::new();
        let client = world.connect(Setup::new(version, "c"));
        client.subscribe("t", QoS::AtMostOnce);
        client.stall();
        let publisher = world.connect(Setup::new(version, "p"));
        publisher.publish("t", "1", QoS::AtMostOnce);
        // A packet that only a server sends.
        client.send_bytes(&[0xD0, 0]);
        publisher.publish("t", "2", QoS::AtMostOnce);
        client.unstall();
        client.expect_publish("t", "1");
        client.expect_closed(ReasonCode::ProtocolError);
        world.assert_accounting();
    });
}

#[test]
fn packets_that_only_a_server_sends_are_a_protocol_error() {
    all(|version| {
        let connack: &[u8] = if version.is_v5() { &[0x20, 3, 0, 0, 0] } else { &[0x20, 2, 0, 0] };
        let suback: &[u8] = if version.is_v5() { &[0x90, 4, 0, 1, 0, 0] } else { &[0x90, 3, 0, 1, 0] };
        let unsuback: &[u8] = if version.is_v5() { &[0xB0, 4, 0, 1, 0, 0] } else { &[0xB0, 2, 0, 1] };
        for bytes in [connack, suback, unsuback, &[0xD0, 0]] {
            let world = World::new();
            let client = world.connect(Setup::new(version, "c"));
            client.send_bytes(bytes);
            client.expect_closed(ReasonCode::ProtocolError);
        }
    });
}

#[test]
fn a_broker_that_stops_says_so() {
    let world = World::new();
    let client = world.connect(Setup::v5("c").expiry(100));
    let old = world.connect(Setup::durable(Version::V311, "d"));
    world.stop();
    client.expect_closed(ReasonCode::ServerShuttingDown);
    old.expect_silently_closed();
    assert!(world.has_session("c") && world.has_session("d"));
    world.assert_accounting();
}

// [MQTT-4.13.2-1]
#[test]
fn a_client_that_gives_an_error_as_its_reason_is_closed_like_any_other() {
    let world = World::new();
    let client = world.connect(Setup::v5("c").expiry(100));
    client.disconnect_with(ReasonCode::ImplementationSpecificError, None);
    client.expect_silently_closed();
    assert!(world.has_session("c"));
}
