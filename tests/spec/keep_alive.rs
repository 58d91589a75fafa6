//! Keep Alive and PINGREQ.

use std::{sync::atomic::Ordering, time::Duration};

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

// [MQTT-3.1.2-22] A client on a slow line that pings in time is not silent, however much waits for it.
#[test]
fn what_waits_for_a_slow_client_does_not_hide_its_signs_of_life() {
    all(|version| {
        let world = World::limited(|limits| limits.outbox_bytes_max = 1024);
        let client = world.connect(Setup::new(version, "c").keep_alive(2));
        client.subscribe("firmware", QoS::AtMostOnce);
        client.stall();
        world.connect(Setup::new(version, "p")).publish("firmware", &"x".repeat(10_000), QoS::AtMostOnce);
        for _ in 0..10 {
            world.advance(Duration::from_millis(1500));
            client.ping();
        }
        client.unstall();
        client.expect_publish("firmware", &"x".repeat(10_000));
        for _ in 0..10 {
            client.expect(&Got::PingResp);
        }
        client.expect_nothing();
        // The line that is dead is found out none the less.
        client.stall();
        world.advance(Duration::from_secs(4));
        client.unstall();
        client.expect_closed(ReasonCode::KeepAliveTimeout);
    });
}

// [MQTT-3.1.2-22] While the broker does not read from a client it cannot hear it: what its socket takes counts.
#[test]
fn a_client_that_the_broker_does_not_read_from_lives_while_its_socket_takes_something() {
    all(|version| {
        let world = World::limited(|limits| limits.outbox_bytes_max = 1024);
        let client = world.connect(Setup::new(version, "c").keep_alive(2));
        client.stall();
        for _ in 0..2000 {
            client.ping();
        }
        for _ in 0..5 {
            world.advance(Duration::from_millis(2000));
            client.read_some(10);
            assert!(!client.is_closed());
        }
        world.advance(Duration::from_millis(3001));
        client.unstall();
        assert!(client.is_closed());
    });
}

#[test]
fn a_client_that_is_not_read_since_the_store_is_behind_is_not_closed() {
    all(|version| {
        let world = World::new();
        let client = world.connect(Setup::new(version, "c").keep_alive(10));
        let set_crowded = |is| world.shared().store_crowded.store(is, Ordering::Relaxed);
        set_crowded(true);
        world.advance_secs(100);
        client.expect_nothing();
        set_crowded(false);
        world.advance_secs(16);
        client.expect_closed(ReasonCode::KeepAliveTimeout);
    });
}
