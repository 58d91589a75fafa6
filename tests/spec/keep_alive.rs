//! Keep Alive and PINGREQ.

use std::time::Duration;

use dunlin::codec::{QoS, ReasonCode};

use crate::world::{Got, Setup, WillSetup, World, all};

// [MQTT-3.12.4-1] [MQTT-3.1.1/3.12.4-1]
#[test]
fn a_pingreq_is_answered() {
    all(|version| {
        let world = World::new();
        let client = world.connect(Setup::new(version, "c"));
        client.ping();
        client.expect(&Got::PingResp);
        client.expect_nothing();
    });
}

// [MQTT-3.1.2-22] [MQTT-3.2.2-22] [MQTT-3.1.1/3.1.2-24]
#[test]
fn silence_for_one_and_a_half_times_keep_alive_closes_the_connection_as_if_it_had_failed() {
    all(|version| {
        let world = World::new();
        let watcher = world.connect(Setup::new(version, "w"));
        watcher.subscribe("w", QoS::AtMostOnce);
        let client = world.connect(Setup::new(version, "c").keep_alive(10).will(WillSetup::new("w", "gone")));
        world.advance(Duration::from_millis(14_999));
        client.expect_nothing();
        world.advance(Duration::from_millis(1));
        client.expect_closed(ReasonCode::KeepAliveTimeout);
        watcher.expect_publish("w", "gone");
        world.assert_accounting();
    });
}

#[test]
fn any_packet_counts_as_a_sign_of_life_and_what_the_broker_sends_does_not() {
    all(|version| {
        let world = World::new();
        let client = world.connect(Setup::new(version, "c").keep_alive(10));
        let publisher = world.connect(Setup::new(version, "p"));
        client.subscribe("t", QoS::AtMostOnce);
        for _ in 0..10 {
            world.advance_secs(14);
            client.publish("u", "x", QoS::AtMostOnce);
        }
        for _ in 0..2 {
            client.expect_nothing();
            world.advance_secs(7);
            publisher.publish("t", "x", QoS::AtMostOnce);
            client.expect_publish("t", "x");
        }
        world.advance_secs(1);
        client.expect_closed(ReasonCode::KeepAliveTimeout);
    });
}

#[test]
fn keep_alive_0_is_off() {
    all(|version| {
        let world = World::new();
        let client = world.connect(Setup::new(version, "c"));
        world.advance_secs(1_000_000);
        client.expect_nothing();
    });
}

// [MQTT-3.1.2-21] [MQTT-3.2.2-21]
#[test]
fn a_server_keep_alive_replaces_the_clients_own() {
    for asked in [0, 31, 65_535] {
        let world = World::limited(|limits| limits.keep_alive_secs_max = 30);
        let client = world.send_connect(Setup::v5("c").keep_alive(asked));
        let Some(Got::ConnAck { frame, .. }) = client.recv() else { panic!("no CONNACK") };
        assert!(frame.windows(3).any(|bytes| bytes == [0x13, 0, 30]), "asked for {asked}");
        world.advance_secs(44);
        client.expect_nothing();
        world.advance_secs(1);
        client.expect_closed(ReasonCode::KeepAliveTimeout);
    }
}
