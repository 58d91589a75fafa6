//! RETAIN: what is kept, what is sent to whom, and with which flag.

use dunlin::codec::{PacketKind, QoS, RetainHandling, SubscriptionOptions};

use crate::world::{Got, Setup, World, all, both};

fn options(handling: RetainHandling) -> SubscriptionOptions {
    SubscriptionOptions { qos: QoS::ExactlyOnce, retain_handling: handling, ..SubscriptionOptions::default() }
}

// [MQTT-3.3.1-5] [MQTT-3.3.1-8] [MQTT-3.3.1-9]
// [MQTT-3.1.1/3.3.1-5] [MQTT-3.1.1/3.3.1-6] [MQTT-3.1.1/3.3.1-7] [MQTT-3.1.1/3.3.1-8] [MQTT-3.1.1/3.3.1-12]
#[test]
fn a_new_subscription_gets_the_last_retained_message_of_each_topic() {
    all(|version| {
        let world = World::new();
        let publisher = world.connect(Setup::new(version, "p"));
        publisher.retain("a/b", "old", QoS::ExactlyOnce);
        publisher.retain("a/b", "new", QoS::AtMostOnce);
        publisher.retain("a/c", "c", QoS::AtLeastOnce);
        publisher.publish("a/c", "not retained", QoS::AtLeastOnce);
        publisher.retain("b", "b", QoS::AtLeastOnce);
        let client = world.connect(Setup::new(version, "c"));
        client.subscribe("a/+", QoS::ExactlyOnce);
        let mut messages = client.recv_messages();
        messages.sort_by(|a, b| a.topic.cmp(&b.topic));
        let seen: Vec<_> = messages
            .iter()
            .map(|message| (&*message.topic, &*message.payload, message.qos, message.retain))
            .collect();
        assert_eq!(seen, [("a/b", "new", QoS::AtMostOnce, true), ("a/c", "c", QoS::AtLeastOnce, true)]);
        world.assert_accounting();
    });
}

// [MQTT-3.3.1-6] [MQTT-3.3.1-7] [MQTT-3.1.1/3.3.1-10] [MQTT-3.1.1/3.3.1-11]
#[test]
fn an_empty_payload_is_forwarded_and_removes_the_retained_message() {
    all(|version| {
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let world = World::new();
            let publisher = world.connect(Setup::new(version, "p"));
            let client = world.connect(Setup::new(version, "c"));
            client.subscribe("t", QoS::ExactlyOnce);
            publisher.retain("t", "x", qos);
            client.expect_publish("t", "x");
            publisher.retain("t", "", qos);
            assert!(!client.expect_publish("t", "").retain);
            publisher.retain("t", "", qos);
            client.expect_publish("t", "");
            let shared = world.shared();
            assert_eq!((shared.retained.messages(), shared.retained.bytes()), (0, 0));
            world.connect(Setup::new(version, "late")).subscribe("t", QoS::ExactlyOnce);
        }
    });
}

// [MQTT-3.1.1/3.1.2-7]
#[test]
fn retained_messages_outlive_the_session_of_their_publisher() {
    all(|version| {
        let world = World::new();
        let publisher = world.connect(Setup::new(version, "p"));
        publisher.retain("t", "x", QoS::AtLeastOnce);
        publisher.drop_link();
        assert!(!world.has_session("p"));
        let client = world.connect(Setup::new(version, "c"));
        client.subscribe("t", QoS::AtLeastOnce);
        client.expect_publish("t", "x");
    });
}

// [MQTT-3.3.1-12] [MQTT-3.3.1-13] [MQTT-3.1.1/3.3.1-9]
#[test]
fn retain_is_forwarded_only_as_published_and_only_if_asked_for() {
    let world = World::new();
    let publisher = world.connect(Setup::v5("p"));
    let plain = world.connect(Setup::v5("plain"));
    plain.subscribe("t", QoS::AtLeastOnce);
    let as_published = world.connect(Setup::v5("rap"));
    let options = SubscriptionOptions { retain_as_published: true, ..options(RetainHandling::Send) };
    as_published.subscribe_with("t", options, 0);
    let old = world.connect(Setup::new(dunlin::codec::Version::V311, "old"));
    old.subscribe("t", QoS::AtLeastOnce);
    for retain in [true, false] {
        publisher.publish_with("t", "x", QoS::AtLeastOnce, |publish| publish.retain = retain);
        assert!(!plain.expect_publish("t", "x").retain);
        assert!(!old.expect_publish("t", "x").retain);
        assert_eq!(as_published.expect_publish("t", "x").retain, retain);
    }
}

// [MQTT-3.3.1-9] [MQTT-3.3.1-10] [MQTT-3.3.1-11] [MQTT-3.8.4-4]
#[test]
fn retain_handling_decides_for_new_and_for_existing_subscriptions() {
    let cases = [
        (RetainHandling::Send, true, true),
        (RetainHandling::SendIfNew, true, false),
        (RetainHandling::DoNotSend, false, false),
    ];
    for (handling, if_new, if_existing) in cases {
        for retain_as_published in [false, true] {
            let world = World::new();
            world.connect(Setup::v5("p")).retain("t", "x", QoS::AtLeastOnce);
            let client = world.connect(Setup::v5("c"));
            for is_expected in [if_new, if_existing] {
                let options = SubscriptionOptions { retain_as_published, ..options(handling) };
                client.subscribe_with("t", options, 5);
                if is_expected {
                    let message = client.expect_publish("t", "x");
                    assert!(
                        message.retain,
                        "what a subscription brings is retained, however it is forwarded"
                    );
                    assert_eq!(message.subscription_ids, [5]);
                }
                client.expect_nothing();
            }
            client.unsubscribe("t");
            client.subscribe_with("t", options(handling), 0);
            assert_eq!(client.recv_messages().len(), usize::from(if_new), "it is new again");
        }
    }
}

#[test]
fn no_local_keeps_ones_own_retained_messages_back() {
    let world = World::new();
    let client = world.connect(Setup::v5("c"));
    client.retain("t", "mine", QoS::AtLeastOnce);
    world.connect(Setup::v5("p")).retain("u", "other", QoS::AtLeastOnce);
    client.recv_all();
    let options = SubscriptionOptions { no_local: true, ..options(RetainHandling::Send) };
    client.subscribe_with("#", options, 0);
    assert_eq!(client.recv_payloads(), ["other"]);
}

#[test]
fn a_retained_message_expires_and_is_swept() {
    let world = World::new();
    let publisher = world.connect(Setup::v5("p"));
    publisher.publish_with("t", "x", QoS::AtLeastOnce, |publish| {
        publish.retain = true;
        publish.properties.message_expiry_secs = Some(10);
    });
    let client = world.connect(Setup::v5("c"));
    world.advance_secs(4);
    client.subscribe("t", QoS::AtLeastOnce);
    assert_eq!(client.expect_publish("t", "x").expiry_secs, Some(6));
    world.advance_secs(7);
    client.subscribe("t", QoS::AtLeastOnce);
    client.expect_nothing();
    world.advance_secs(60);
    assert_eq!((world.shared().retained.messages(), world.shared().retained.bytes()), (0, 0));
}

#[test]
fn suback_comes_before_the_retained_messages() {
    both(|version| {
        let world = World::new();
        world.connect(Setup::new(version, "p")).retain("t", "x", QoS::AtMostOnce);
        let client = world.connect(Setup::durable(version, "c"));
        // `subscribe` expects SUBACK to be the next packet.
        client.subscribe("t", QoS::AtMostOnce);
        client.expect_publish("t", "x");
    });
}

// More than the outbox takes, with publishers going on: every topic's messages come in order, whatever
// waits where, and none is missing but what was given up and counted.
#[test]
fn no_old_message_follows_a_new_one_while_thousands_of_retained_ones_are_sent() {
    both(|version| {
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let world = World::limited(|limits| limits.outbox_bytes_max = 4096);
            let publisher = world.connect(Setup::new(version, "p"));
            let topics: Vec<String> = (0..3000).map(|number| format!("t/{number}")).collect();
            for topic in &topics {
                publisher.retain(topic, "0", qos);
            }
            let client = world.connect(Setup::new(version, "c"));
            client.stall();
            client.send_subscribe(&[("t/#", options(RetainHandling::Send))], 0);
            let mut live = 0;
            for round in 1..=3 {
                for topic in topics.iter().step_by(97) {
                    publisher.retain(topic, &round.to_string(), qos);
                    live += 1;
                }
                client.read_some(3000);
            }
            client.unstall();
            let messages = client.recv_messages();
            let dropped = world.drops(dunlin::broker::DropReason::OutboxFull) as usize;
            assert!(qos == QoS::AtMostOnce || dropped == 0);
            assert_eq!(messages.len() + dropped, topics.len() + live);
            let mut last = std::collections::BTreeMap::new();
            for message in &messages {
                let before = last.insert(message.topic.clone(), message.payload.clone());
                assert!(before.is_none_or(|before| before <= message.payload), "{}", message.topic);
            }
            assert_eq!(last.len(), topics.len());
            world.assert_accounting();
        }
    });
}

#[test]
fn a_retained_message_is_acknowledged_after_the_commit_that_keeps_it() {
    both(|version| {
        let world = World::new();
        let publisher = world.connect(Setup::new(version, "p").manual());
        world.hold_commits();
        let id = publisher.retain("t", "x", QoS::AtLeastOnce);
        publisher.expect_nothing();
        world.commit();
        let code = if version.is_v5() {
            dunlin::codec::ReasonCode::NoMatchingSubscribers
        } else {
            dunlin::codec::ReasonCode::Success
        };
        publisher.expect_code(PacketKind::PubAck, id, code);
    });
}

#[test]
fn retained_messages_that_have_expired_leave_the_store_too() {
    let world = World::new();
    let publisher = world.connect(Setup::v5("p"));
    for number in 0..3000 {
        publisher.publish_with(&format!("t/{number}"), "x", QoS::AtMostOnce, |publish| {
            publish.retain = true;
            publish.properties.message_expiry_secs = Some(1);
        });
    }
    publisher.retain("kept", "x", QoS::AtMostOnce);
    assert_eq!(world.stored_retained(), 3001);
    world.advance_secs(62);
    assert_eq!((world.stored_retained(), world.shared().retained.messages()), (1, 1));
    world.assert_accounting();
}

// A packet of a few bytes must not cost a record.
#[test]
fn the_store_does_not_hear_of_a_removal_of_nothing() {
    all(|version| {
        let world = World::new();
        let publisher = world.connect(Setup::new(version, "p"));
        let before = world.shared().sequence.peek();
        publisher.retain("t", "", QoS::AtMostOnce);
        publisher.retain("t", "", QoS::AtMostOnce);
        assert_eq!(world.shared().sequence.peek(), before);
        publisher.retain("t", "x", QoS::AtMostOnce);
        publisher.retain("t", "", QoS::AtMostOnce);
        publisher.retain("t", "", QoS::AtLeastOnce);
        assert_eq!(world.stored_retained(), 0);
        world.assert_accounting();
    });
}

// Each of them is copied to disk for a durable session: what one SUBSCRIBE sets off has a limit in bytes too.
#[test]
fn large_retained_messages_are_read_as_the_client_takes_them() {
    both(|version| {
        let world = World::limited(|limits| limits.inflight_messages_max = 1);
        let publisher = world.connect(Setup::new(version, "p"));
        let large = "x".repeat(1_000_000);
        for number in 0..20 {
            publisher.retain(&format!("t/{number}"), &large, QoS::AtLeastOnce);
        }
        let client = world.connect(Setup::durable(version, "c").receive_maximum(1).manual());
        client.send_subscribe(&[("t/#", options(RetainHandling::Send))], 0);
        let queued = world.shared().queued_bytes();
        assert!(queued < 8_000_000, "{queued} bytes are queued");
        let mut seen = 0;
        while let Some(got) = client.recv() {
            if let Got::Publish(message) = got {
                client.ack(PacketKind::PubAck, message.id.expect("QoS 1 has an identifier"));
                seen += 1;
            }
        }
        assert_eq!(seen, 20);
        world.assert_accounting();
    });
}
