//! The will: when it is published, how, and when not.

use dunlin::codec::{PacketKind, QoS, ReasonCode};

use crate::world::{Client, Setup, WillSetup, World, all, both};

const WILL: fn() -> WillSetup = || WillSetup::new("w", "gone");

fn watcher(world: &World, version: dunlin::codec::Version) -> Client {
    let client = world.connect(Setup::new(version, "watcher"));
    client.subscribe("#", QoS::ExactlyOnce);
    client
}

// [MQTT-3.1.2-7] [MQTT-3.1.2-8] [MQTT-3.1.2-10] [MQTT-3.1.1/3.1.2-8] [MQTT-3.1.1/3.1.2-10]
#[test]
fn a_connection_that_fails_publishes_its_will_once() {
    all(|version| {
        let world = World::new();
        let watcher = watcher(&world, version);
        let client = world.connect(Setup::durable(version, "c").will(WILL()));
        watcher.expect_nothing();
        client.drop_link();
        watcher.expect_publish("w", "gone");
        // The next connection of the session has no will.
        world.connect(Setup::durable(version, "c")).drop_link();
        watcher.expect_nothing();
        world.assert_accounting();
    });
}

// [MQTT-3.14.4-3] [MQTT-3.1.1/3.14.4-3] [MQTT-3.1.2-10]
// [MQTT-3.1.2-8] [MQTT-3.1.1/3.1.2-8] [MQTT-3.1.1/3.1.2-10]
#[test]
fn a_normal_disconnect_discards_the_will() {
    all(|version| {
        let world = World::new();
        let watcher = watcher(&world, version);
        for setup in [Setup::new(version, "c"), Setup::durable(version, "c")] {
            let client = world.connect(setup.will(WILL()));
            client.disconnect();
            client.expect_silently_closed();
            world.advance_secs(10_000);
            watcher.expect_nothing();
            world.assert_accounting();
        }
    });
}

#[test]
fn any_other_disconnect_publishes_the_will() {
    for reason in [ReasonCode::DisconnectWithWill, ReasonCode::UnspecifiedError] {
        let world = World::new();
        let watcher = watcher(&world, dunlin::codec::Version::V5);
        world.connect(Setup::v5("c").will(WILL())).disconnect_with(reason, None);
        watcher.expect_publish("w", "gone");
    }
}

#[test]
fn a_protocol_error_and_bytes_that_are_no_packet_publish_the_will() {
    all(|version| {
        for bytes in [&[0xD0, 0][..], &[0x00, 0]] {
            let world = World::new();
            let watcher = watcher(&world, version);
            world.connect(Setup::new(version, "c").will(WILL())).send_bytes(bytes);
            watcher.expect_publish("w", "gone");
        }
    });
}

// [MQTT-3.1.1/3.1.2-12]
#[test]
fn without_a_will_nothing_is_published() {
    all(|version| {
        let world = World::new();
        let watcher = watcher(&world, version);
        world.connect(Setup::new(version, "c")).drop_link();
        watcher.expect_nothing();
    });
}

// [MQTT-3.1.2-14] [MQTT-3.1.2-15] [MQTT-3.1.1/3.1.2-16] [MQTT-3.1.1/3.1.2-17]
#[test]
fn the_will_is_published_at_its_qos_and_retained_if_it_says_so() {
    all(|version| {
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            for retain in [false, true] {
                let world = World::new();
                let watcher = watcher(&world, version);
                let will = WillSetup { retain, ..WILL().qos(qos) };
                world.connect(Setup::new(version, "c").will(will)).drop_link();
                assert_eq!(watcher.expect_publish("w", "gone").qos, qos);
                assert_eq!(world.shared().retained.messages(), usize::from(retain));
                world.assert_accounting();
                let late = world.connect(Setup::new(version, "late"));
                late.subscribe("w", QoS::ExactlyOnce);
                if retain {
                    assert!(late.expect_publish("w", "gone").retain);
                }
                late.expect_nothing();
            }
        }
    });
}

// [MQTT-3.1.3-10]
#[test]
fn user_properties_of_the_will_keep_their_order() {
    let world = World::new();
    let watcher = watcher(&world, dunlin::codec::Version::V5);
    let user_properties = vec![("b", "1"), ("a", "2"), ("b", "3"), ("a", "1")];
    let will = WillSetup { user_properties: user_properties.clone(), ..WILL() };
    world.connect(Setup::v5("c").will(will)).drop_link();
    watcher.expect_publish("w", "gone").with_packet(|publish| {
        assert_eq!(publish.properties.user_properties.iter().collect::<Vec<_>>(), user_properties);
    });
}

#[test]
fn the_message_expiry_of_a_will_counts_from_its_publication() {
    let world = World::new();
    let watcher = watcher(&world, dunlin::codec::Version::V5);
    let will = WillSetup { message_expiry_secs: Some(7), ..WILL().delay(50) };
    world.connect(Setup::v5("c").expiry(100).will(will)).drop_link();
    world.advance_secs(50);
    assert_eq!(watcher.expect_publish("w", "gone").expiry_secs, Some(7));
}

// [MQTT-3.1.2-8]
#[test]
fn a_will_waits_for_its_delay() {
    let world = World::new();
    let watcher = watcher(&world, dunlin::codec::Version::V5);
    world.connect(Setup::v5("c").expiry(100).will(WILL().delay(10))).drop_link();
    world.advance_secs(9);
    watcher.expect_nothing();
    world.advance_secs(1);
    watcher.expect_publish("w", "gone");
    assert!(world.has_session("c"));
    world.assert_accounting();
    world.advance_secs(1000);
    watcher.expect_nothing();
    world.assert_accounting();
}

// [MQTT-3.1.2-8]
#[test]
fn a_will_does_not_wait_longer_than_its_session_lasts() {
    for (expiry, due) in [(0, 0), (5, 5)] {
        let world = World::new();
        let watcher = watcher(&world, dunlin::codec::Version::V5);
        world.connect(Setup::v5("c").expiry(expiry).will(WILL().delay(10))).drop_link();
        if due > 0 {
            world.advance_secs(due - 1);
            watcher.expect_nothing();
            world.advance_secs(1);
        }
        watcher.expect_publish("w", "gone");
        world.advance_secs(100);
        watcher.expect_nothing();
        world.assert_accounting();
    }
}

// [MQTT-3.1.3-9]
// [MQTT-3.1.2-8]
#[test]
fn reconnecting_within_the_delay_keeps_the_will_back() {
    let world = World::new();
    let watcher = watcher(&world, dunlin::codec::Version::V5);
    let setup = || Setup::v5("c").resuming().expiry(100);
    world.connect(setup().will(WILL().delay(10))).drop_link();
    world.advance_secs(9);
    let client = world.connect(setup());
    world.advance_secs(1000);
    watcher.expect_nothing();
    client.drop_link();
    world.advance_secs(1000);
    watcher.expect_nothing();
    world.assert_accounting();
}

#[test]
fn a_clean_start_within_the_delay_ends_the_session_and_so_publishes_the_will() {
    let world = World::new();
    let watcher = watcher(&world, dunlin::codec::Version::V5);
    world.connect(Setup::v5("c").expiry(100).will(WILL().delay(10))).drop_link();
    world.connect(Setup::v5("c"));
    watcher.expect_publish("w", "gone");
    world.advance_secs(1000);
    watcher.expect_nothing();
    world.assert_accounting();
}

#[test]
fn taking_over_publishes_a_will_without_delay_and_keeps_a_delayed_one_back() {
    both(|version| {
        let world = World::new();
        let watcher = watcher(&world, version);
        world.connect(Setup::durable(version, "c").will(WILL()));
        world.connect(Setup::durable(version, "c").will(WillSetup::new("w", "second").delay(10)));
        watcher.expect_publish("w", "gone");
        let delayed = version.is_v5();
        world.connect(Setup::durable(version, "c"));
        if !delayed {
            watcher.expect_publish("w", "second");
        }
        world.advance_secs(100);
        watcher.expect_nothing();
        world.assert_accounting();
    });
}

#[test]
fn a_broker_that_stops_publishes_wills() {
    both(|version| {
        let world = World::new();
        let subscriber = world.connect(Setup::durable(version, "watcher"));
        subscriber.subscribe("#", QoS::AtLeastOnce);
        let client = world.connect(Setup::new(version, "c").will(WILL().qos(QoS::AtLeastOnce)));
        world.stop();
        client.expect_closed(ReasonCode::ServerShuttingDown);
        assert!(subscriber.is_closed());
        assert_eq!(world.queued_messages(), 1, "the will is kept for a subscriber whose session lasts");
        world.assert_accounting();
    });
}

#[test]
fn a_qos_2_will_for_a_durable_session_is_delivered_after_its_commit() {
    both(|version| {
        let world = World::new();
        let durable = world.connect(Setup::durable(version, "d").manual());
        durable.subscribe("w", QoS::ExactlyOnce);
        let client = world.connect(Setup::new(version, "c").will(WILL().qos(QoS::ExactlyOnce)));
        world.hold_commits();
        client.drop_link();
        durable.expect_nothing();
        world.release_commits();
        let id = durable.expect_publish("w", "gone").id();
        durable.ack(PacketKind::PubRec, id);
        durable.expect_ack(PacketKind::PubRel, id);
        durable.ack(PacketKind::PubComp, id);
        world.assert_accounting();
    });
}
