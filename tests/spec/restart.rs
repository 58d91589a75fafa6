//! What is left after the broker has ended without notice and started again: all that it had promised.

use std::time::Duration;

use dunlin::{
    codec::{PacketKind, QoS, RetainHandling, SubscriptionOptions, Version},
    limits::Parking,
};

use crate::world::{Got, Setup, WillSetup, World, both};

const NO_TIME: Duration = Duration::ZERO;

/// A broker of two shards that keeps next to nothing of a durable queue in memory.
fn world() -> World {
    World::with(2, |shared| {
        shared.parking =
            Some(Parking { messages_max: 3, bytes_max: 1000, spare_bytes_max: 0, ..Parking::default() })
    })
}

// [MQTT-4.1.0-1] [MQTT-3.1.1/4.1.0-1] [MQTT-3.2.2-3]
#[test]
fn sessions_and_their_subscriptions_survive_with_all_options() {
    both(|version| {
        let world = world();
        let client = world.connect(Setup::durable(version, "c"));
        let options = SubscriptionOptions {
            qos: QoS::AtLeastOnce,
            no_local: version.is_v5(),
            retain_as_published: version.is_v5(),
            retain_handling: RetainHandling::Send,
        };
        client.subscribe_with("a/+", options, if version.is_v5() { 300 } else { 0 });
        client.subscribe("gone", QoS::AtLeastOnce);
        client.unsubscribe("gone");
        world.crash(NO_TIME);
        assert!(client.is_closed());
        world.assert_accounting();
        let (client, present) = world.connect_and(Setup::durable(version, "c"));
        assert!(present);
        let publisher = world.connect(Setup::new(version, "p"));
        publisher.publish("gone", "0", QoS::AtLeastOnce);
        publisher.retain("a/b", "1", QoS::ExactlyOnce);
        let message = client.expect_publish("a/b", "1");
        assert_eq!(message.qos, QoS::AtLeastOnce);
        assert_eq!(message.retain, version.is_v5(), "Retain As Published");
        assert_eq!(message.subscription_ids, if version.is_v5() { vec![300] } else { vec![] });
        client.publish("a/own", "2", QoS::AtLeastOnce);
        assert_eq!(client.recv_payloads().len(), usize::from(!version.is_v5()), "No Local");
        world.assert_accounting();
    });
}

#[test]
fn a_session_that_ends_with_its_connection_leaves_nothing() {
    both(|version| {
        let world = world();
        world.connect(Setup::new(version, "c")).subscribe("t", QoS::AtLeastOnce);
        world.crash(NO_TIME);
        assert!(!world.has_session("c"));
        assert_eq!(world.shared().router.subscriptions(), 0);
        world.assert_accounting();
    });
}

// [MQTT-4.4.0-1] [MQTT-3.3.1-1] [MQTT-2.2.1-4] [MQTT-4.3.3-7] [MQTT-3.1.1/4.4.0-1]
#[test]
fn what_was_under_way_to_a_client_is_sent_again_with_its_identifiers() {
    both(|version| {
        let world = world();
        let publisher = world.connect(Setup::new(version, "p"));
        let client = world.connect(Setup::durable(version, "c").manual());
        client.subscribe("t", QoS::ExactlyOnce);
        publisher.publish("t", "acknowledged", QoS::AtLeastOnce);
        publisher.publish("t", "sent", QoS::AtLeastOnce);
        publisher.publish("t", "sent twice", QoS::ExactlyOnce);
        publisher.publish("t", "received", QoS::ExactlyOnce);
        publisher.publish("t", "completed", QoS::ExactlyOnce);
        let ids: Vec<u16> = client.recv_messages().iter().filter_map(|message| message.id).collect();
        client.ack(PacketKind::PubAck, ids[0]);
        client.ack(PacketKind::PubRec, ids[3]);
        client.ack(PacketKind::PubRec, ids[4]);
        client.recv_all();
        client.ack(PacketKind::PubComp, ids[4]);
        world.commit();
        world.release_commits();
        world.crash(NO_TIME);
        let (client, present) = world.connect_and(Setup::durable(version, "c").manual());
        assert!(present);
        client.expect_ack(PacketKind::PubRel, ids[3]);
        for (payload, id) in [("sent", ids[1]), ("sent twice", ids[2])] {
            let message = client.expect_publish("t", payload);
            assert_eq!((message.id, message.dup), (Some(id), true));
        }
        client.expect_nothing();
        client.ack(PacketKind::PubAck, ids[1]);
        client.ack(PacketKind::PubRec, ids[2]);
        client.expect_ack(PacketKind::PubRel, ids[2]);
        client.ack(PacketKind::PubComp, ids[2]);
        client.ack(PacketKind::PubComp, ids[3]);
        let publisher = world.connect(Setup::new(version, "p"));
        publisher.publish("t", "new", QoS::AtLeastOnce);
        let message = client.expect_publish("t", "new");
        assert!(!message.dup);
        client.ack(PacketKind::PubAck, message.id.expect("QoS 1 has an identifier"));
        world.assert_accounting();
        assert_eq!(world.queued_messages(), 0);
    });
}

// [MQTT-4.3.3-10] [MQTT-4.3.3-12]
#[test]
fn a_qos_2_message_whose_pubrec_was_lost_is_known_again() {
    both(|version| {
        let world = world();
        let reader = world.connect(Setup::durable(version, "reader"));
        reader.subscribe("t", QoS::ExactlyOnce);
        let client = world.connect(Setup::durable(version, "c").manual());
        client.publish_as(7, "t", "once", QoS::ExactlyOnce, |_| {});
        client.publish_as(8, "t", "released", QoS::ExactlyOnce, |_| {});
        client.ack(PacketKind::PubRel, 8);
        assert_eq!(reader.recv_payloads(), ["once", "released"]);
        world.crash(NO_TIME);
        let reader = world.connect(Setup::durable(version, "reader"));
        let client = world.connect(Setup::durable(version, "c").manual());
        client.publish_as(7, "t", "once", QoS::ExactlyOnce, |publish| publish.dup = true);
        client.expect_ack(PacketKind::PubRec, 7);
        client.ack(PacketKind::PubRel, 7);
        client.expect_ack(PacketKind::PubComp, 7);
        // Its identifier, and that of the one that was released before, are free.
        client.publish_as(7, "t", "another", QoS::ExactlyOnce, |_| {});
        client.publish_as(8, "t", "third", QoS::ExactlyOnce, |_| {});
        assert_eq!(reader.recv_payloads(), ["another", "third"]);
        world.assert_accounting();
    });
}

#[test]
fn nothing_is_acknowledged_that_a_crash_can_lose() {
    both(|version| {
        let world = world();
        let reader = world.connect(Setup::durable(version, "reader"));
        reader.subscribe("t", QoS::ExactlyOnce);
        reader.drop_link();
        let client = world.connect(Setup::durable(version, "c").manual());
        world.hold_commits();
        client.publish_as(7, "t", "1", QoS::AtLeastOnce, |_| {});
        client.publish_as(8, "t", "2", QoS::ExactlyOnce, |_| {});
        client.expect_nothing();
        world.crash(NO_TIME);
        world.release_commits();
        let reader = world.connect(Setup::durable(version, "reader"));
        reader.expect_nothing();
        world.assert_accounting();
    });
}

// [MQTT-3.1.2-23]
#[test]
fn session_expiry_counts_on_while_the_broker_is_down() {
    let world = world();
    let short = world.connect(Setup::v5("short").resuming().expiry(100));
    world.connect(Setup::v5("long").resuming().expiry(1000)).drop_link();
    world.connect(Setup::v5("ever").resuming().expiry(u32::MAX));
    world.advance_secs(50);
    short.drop_link();
    world.advance_secs(60);
    world.crash(Duration::from_secs(39));
    assert!(world.has_session("short"));
    world.advance_secs(1);
    assert!(!world.has_session("short"));
    world.crash(Duration::from_secs(1000));
    assert!(!world.has_session("long"));
    assert!(world.has_session("ever"));
    world.assert_accounting();
}

// [MQTT-3.3.2-5] [MQTT-3.3.2-6]
#[test]
fn message_expiry_counts_on_while_the_broker_is_down() {
    let world = world();
    let publisher = world.connect(Setup::v5("p"));
    let reader = world.connect(Setup::durable(Version::V5, "reader"));
    reader.subscribe("t", QoS::AtLeastOnce);
    reader.drop_link();
    for (payload, secs) in [("short", 10), ("long", 100)] {
        publisher.publish_with("t", payload, QoS::AtLeastOnce, |publish| {
            publish.properties.message_expiry_secs = Some(secs);
        });
        publisher.publish_with(&format!("r/{payload}"), payload, QoS::AtLeastOnce, |publish| {
            publish.retain = true;
            publish.properties.message_expiry_secs = Some(secs);
        });
    }
    world.crash(Duration::from_secs(20));
    let reader = world.connect(Setup::durable(Version::V5, "reader"));
    let message = reader.expect_publish("t", "long");
    assert_eq!((message.expiry_secs, message.dup), (Some(80), false));
    reader.subscribe("r/#", QoS::AtMostOnce);
    assert_eq!(reader.expect_publish("r/long", "long").expiry_secs, Some(80));
    reader.expect_nothing();
    world.assert_accounting();
}

// [MQTT-3.1.2-7] [MQTT-3.1.2-8] [MQTT-3.1.3-9]
#[test]
fn wills_are_published_after_a_crash_when_their_delay_is_over() {
    let world = world();
    let reader = world.connect(Setup::durable(Version::V5, "reader"));
    reader.subscribe("will/#", QoS::AtLeastOnce);
    let will = |topic, delay_secs| WillSetup {
        qos: QoS::AtLeastOnce,
        delay_secs: Some(delay_secs),
        ..WillSetup::new(topic, "gone")
    };
    let setup = |id: &str| Setup::durable(Version::V5, id);
    world.connect(setup("at-once").will(will("will/at-once", 0)));
    world.connect(setup("late").will(will("will/late", 100)));
    world.connect(setup("back").will(will("will/back", 100)));
    let started = world.connect(setup("started").will(will("will/started", 100)));
    let clean = world.connect(setup("clean").will(will("will/clean", 0)));
    clean.disconnect();
    world.advance_secs(60);
    started.drop_link();
    world.advance_secs(30);
    world.crash(Duration::from_secs(40));
    let reader = world.connect(setup("reader"));
    assert_eq!(
        reader.recv_messages().iter().map(|message| &*message.topic).collect::<Vec<_>>(),
        ["will/at-once"]
    );
    world.connect(setup("back"));
    world.advance_secs(30);
    reader.expect_publish("will/started", "gone");
    world.advance_secs(29);
    reader.expect_nothing();
    world.advance_secs(1);
    reader.expect_publish("will/late", "gone");
    world.crash(NO_TIME);
    let reader = world.connect(setup("reader"));
    world.advance_secs(1000);
    let anew = reader.recv_messages().iter().filter(|message| !message.dup).count();
    assert_eq!(anew, 0, "a will is published once");
    world.assert_accounting();
}

// [MQTT-3.3.1-5] [MQTT-3.3.1-6]
#[test]
fn retained_messages_survive_with_their_properties() {
    let world = world();
    let publisher = world.connect(Setup::v5("p"));
    publisher.retain("r/0", "old", QoS::ExactlyOnce);
    publisher.publish_with("r/0", "new", QoS::AtLeastOnce, |publish| {
        publish.retain = true;
        publish.properties.content_type = Some("text/plain");
    });
    publisher.retain("r/1", "removed", QoS::AtLeastOnce);
    publisher.retain("r/1", "", QoS::AtLeastOnce);
    world.crash(NO_TIME);
    let reader = world.connect(Setup::v5("reader"));
    reader.subscribe("r/#", QoS::ExactlyOnce);
    let message = reader.expect_publish("r/0", "new");
    assert_eq!((message.qos, message.retain), (QoS::AtLeastOnce, true));
    assert!(message.frame.windows(10).any(|window| window == b"text/plain"));
    reader.expect_nothing();
    world.assert_accounting();
}

#[test]
fn a_long_queue_comes_back_from_the_store_in_order_and_within_the_window() {
    both(|version| {
        let world = world();
        let publisher = world.connect(Setup::new(version, "p"));
        let client = world.connect(Setup::durable(version, "c"));
        client.subscribe("t", QoS::AtLeastOnce);
        client.drop_link();
        let numbers: Vec<String> = (0..50).map(|number| number.to_string()).collect();
        for number in &numbers[..40] {
            publisher.publish("t", number, QoS::AtLeastOnce);
        }
        world.crash(NO_TIME);
        let publisher = world.connect(Setup::new(version, "p"));
        for number in &numbers[40..] {
            publisher.publish("t", number, QoS::AtLeastOnce);
        }
        let setup = match version.is_v5() {
            true => Setup::durable(version, "c").receive_maximum(5),
            false => Setup::durable(version, "c"),
        };
        let client = world.connect(setup.manual());
        let mut received = Vec::new();
        while let Some(Got::Publish(message)) = client.recv() {
            assert!(!message.dup, "it was never sent");
            received.push(message.payload);
            client.ack(PacketKind::PubAck, message.id.expect("QoS 1 has an identifier"));
        }
        assert_eq!(received, numbers);
        world.assert_accounting();
        assert_eq!(world.queued_messages(), 0);
    });
}

// [MQTT-4.8.2-4]
#[test]
fn messages_of_a_shared_subscription_survive_and_may_go_to_another_member() {
    let world = world();
    let publisher = world.connect(Setup::v5("p"));
    for id in ["m0", "m1"] {
        let member = world.connect(Setup::durable(Version::V5, id));
        member.subscribe("$share/g/t", QoS::AtLeastOnce);
        member.drop_link();
    }
    for number in 0..10 {
        publisher.publish("t", &number.to_string(), QoS::AtLeastOnce);
    }
    world.crash(NO_TIME);
    let first = world.connect(Setup::durable(Version::V5, "m0"));
    let mut payloads = first.recv_payloads();
    // The other one ends: what was queued for it goes to the one that is there.
    world.connect(Setup::v5("m1")).disconnect();
    payloads.extend(first.recv_payloads());
    payloads.sort();
    assert_eq!(payloads, (0..10).map(|number| number.to_string()).collect::<Vec<_>>());
    world.assert_accounting();
}

// [MQTT-3.3.1-9] [MQTT-3.8.4-4]
#[test]
fn retained_messages_that_were_due_to_a_subscription_are_still_due() {
    let world = world();
    let publisher = world.connect(Setup::v5("p"));
    let topics: Vec<String> = (0..1500).map(|number| format!("r/{number:04}")).collect();
    for topic in &topics {
        publisher.retain(topic, "x", QoS::AtLeastOnce);
    }
    let setup = || Setup::durable(Version::V5, "c").receive_maximum(10).manual();
    let client = world.connect(setup());
    client.subscribe("r/#", QoS::AtLeastOnce);
    assert_eq!(client.recv_messages().len(), 10);
    world.crash(NO_TIME);
    let mut received = std::collections::BTreeSet::new();
    let mut resume = || {
        let client = world.connect(setup());
        while let Some(Got::Publish(message)) = client.recv() {
            client.ack(PacketKind::PubAck, message.id.expect("QoS 1 has an identifier"));
            received.insert(message.topic);
        }
        world.assert_accounting();
        received.len()
    };
    assert_eq!(resume(), topics.len());
    // Then it is over: nothing comes again.
    world.commit();
    world.release_commits();
    world.crash(NO_TIME);
    let client = world.connect(setup());
    client.expect_nothing();
    world.assert_accounting();
}
