//! SUBSCRIBE and SUBACK: which messages a subscription brings, and how.

use dunlin::codec::{QoS, ReasonCode, RetainHandling, SubscriptionOptions};

use crate::world::{Client, Got, Setup, World, all, both};

const fn options(qos: QoS) -> SubscriptionOptions {
    SubscriptionOptions {
        qos,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Send,
    }
}

/// Whether a subscription to `filter` brings a message on `topic`.
fn brings(filter: &str, topic: &str) -> bool {
    let world = World::new();
    let client = world.connect(Setup::v5("c"));
    client.subscribe(filter, QoS::AtMostOnce);
    world.connect(Setup::v5("p")).publish(topic, "x", QoS::AtMostOnce);
    !client.recv_messages().is_empty()
}

// [MQTT-3.8.4-1] [MQTT-3.8.4-2] [MQTT-3.8.4-5] [MQTT-3.8.4-6] [MQTT-3.8.4-7] [MQTT-3.9.3-1] [MQTT-3.9.3-2]
// [MQTT-2.2.1-6] [MQTT-3.2.2-10]
// [MQTT-3.1.1/3.8.4-1] [MQTT-3.1.1/3.8.4-2] [MQTT-3.1.1/3.8.4-4] [MQTT-3.1.1/3.8.4-5] [MQTT-3.1.1/3.9.3-1]
// [MQTT-3.1.1/3.9.3-2] [MQTT-3.1.1/2.3.1-7]
#[test]
fn one_suback_answers_all_filters_in_their_order() {
    all(|version| {
        let world = World::limited(|limits| limits.topic_levels_max = 2);
        let client = world.connect(Setup::new(version, "c"));
        let requests = [
            ("a", options(QoS::ExactlyOnce)),
            ("a/b/c", options(QoS::AtMostOnce)),
            ("b/#", options(QoS::AtMostOnce)),
            ("+/c", options(QoS::AtLeastOnce)),
        ];
        let id = client.send_subscribe(&requests, 0);
        let failure = if version.is_v5() { ReasonCode::TopicFilterInvalid as u8 } else { 0x80 };
        client.expect(&Got::SubAck { id, codes: vec![2, failure, 0, 1] });
        client.expect_nothing();
        let publisher = world.connect(Setup::new(version, "p"));
        for topic in ["a", "b", "b/x", "x/c", "a/b"] {
            publisher.publish(topic, topic, QoS::AtMostOnce);
        }
        assert_eq!(client.recv_payloads(), ["a", "b", "b/x", "x/c"]);
        world.assert_accounting();
    });
}

// [MQTT-3.8.4-3] [MQTT-3.8.4-4] [MQTT-3.1.1/3.8.4-3]
#[test]
fn the_same_filter_again_replaces_the_subscription_and_interrupts_nothing() {
    all(|version| {
        let world = World::new();
        let publisher = world.connect(Setup::new(version, "p"));
        publisher.retain("t", "retained", QoS::AtLeastOnce);
        let client = world.connect(Setup::durable(version, "c").manual());
        client.subscribe("t", QoS::AtLeastOnce);
        client.expect_publish("t", "retained");
        publisher.publish("t", "1", QoS::AtLeastOnce);
        let first = client.expect_publish("t", "1");
        client.subscribe("t", QoS::AtMostOnce);
        assert_eq!(client.expect_publish("t", "retained").qos, QoS::AtMostOnce);
        publisher.publish("t", "2", QoS::AtLeastOnce);
        assert_eq!(client.expect_publish("t", "2").qos, QoS::AtMostOnce, "one copy, of the new QoS");
        client.expect_nothing();
        client.drop_link();
        let client = world.connect(Setup::durable(version, "c").manual());
        let again: Vec<_> =
            client.recv_messages().into_iter().map(|message| (message.id, message.payload)).collect();
        assert!(again.contains(&(first.id, "1".into())), "what was under way is not lost: {again:?}");
        world.assert_accounting();
    });
}

// [MQTT-3.3.4-2] [MQTT-3.3.4-3] [MQTT-3.3.4-4] [MQTT-3.3.4-5] [MQTT-3.1.1/3.3.5-1]
#[test]
fn overlapping_subscriptions_bring_one_message_of_the_highest_qos_with_all_identifiers() {
    all(|version| {
        let world = World::new();
        let client = world.connect(Setup::new(version, "c"));
        let ids = if version.is_v5() { [7, 0, 3] } else { [0, 0, 0] };
        client.subscribe_with("a/b", options(QoS::AtMostOnce), ids[0]);
        client.subscribe_with("a/+", options(QoS::ExactlyOnce), ids[1]);
        client.subscribe_with("#", options(QoS::AtLeastOnce), ids[2]);
        world.connect(Setup::new(version, "p")).publish("a/b", "x", QoS::ExactlyOnce);
        let mut message = client.expect_publish("a/b", "x");
        message.subscription_ids.sort_unstable();
        assert_eq!(message.qos, QoS::ExactlyOnce);
        assert_eq!(message.subscription_ids, if version.is_v5() { vec![3, 7] } else { vec![] });
        client.expect_nothing();
    });
}

// [MQTT-3.8.3-3]
#[test]
fn no_local_keeps_ones_own_messages_away_and_no_others() {
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let world = World::new();
        let client = world.connect(Setup::v5("c"));
        client.subscribe_with("t", SubscriptionOptions { no_local: true, ..options(qos) }, 0);
        let other = world.connect(Setup::v5("o"));
        other.publish("t", "theirs", qos);
        client.publish("t", "mine", qos);
        assert_eq!(client.recv_payloads(), ["theirs"]);
        assert_eq!(world.queued_messages(), 0);
        world.assert_accounting();
    }
}

// What a client gets of its own messages is what its other subscriptions say.
#[test]
fn overlapping_subscriptions_with_mixed_options_are_merged_for_each_publisher() {
    let world = World::new();
    let client = world.connect(Setup::v5("c"));
    let local =
        SubscriptionOptions { no_local: true, retain_as_published: true, ..options(QoS::ExactlyOnce) };
    client.subscribe_with("t", local, 1);
    client.subscribe_with("+", options(QoS::AtLeastOnce), 2);
    let other = world.connect(Setup::v5("o"));
    other.retain("t", "theirs", QoS::ExactlyOnce);
    let message = client.expect_publish("t", "theirs");
    assert_eq!((message.qos, message.retain, message.subscription_ids.len()), (QoS::ExactlyOnce, true, 2));
    client.retain("t", "mine", QoS::ExactlyOnce);
    let message = client.recv_messages().pop().expect("the other subscription brings it");
    assert_eq!((message.qos, message.retain, message.subscription_ids), (QoS::AtLeastOnce, false, vec![2]));
    world.assert_accounting();
}

// [MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-4.7.2-1] [MQTT-4.7.3-4] [MQTT-3.1.1/4.7.2-1] [MQTT-3.1.1/4.7.3-4]
#[test]
fn filters_match_as_the_standard_says() {
    let matching = [
        ("a/b", "a/b"),
        ("a/#", "a"),
        ("a/#", "a/b/c"),
        ("#", "a/b"),
        ("+/b", "a/b"),
        ("+/+", "/b"),
        ("/+", "/b"),
        ("a/+/c", "a//c"),
        ("a/", "a/"),
        ("$SYS/#", "$SYS"),
        ("$x/+", "$x/y"),
        ("é", "é"),
        ("a b", "a b"),
        ("/", "/"),
        ("+/", "a/"),
        ("$share", "$share"),
    ];
    let others = [
        ("a/b", "a/b/"),
        ("a", "A"),
        ("a/+", "a"),
        ("+", "/b"),
        ("+", "a/b"),
        ("#", "$x"),
        ("+/x", "$x/x"),
        ("+", "$x"),
        ("a/#", "ab"),
        ("a", "a/"),
        ("/a", "a"),
        ("\u{e9}", "e\u{301}"),
        ("a/+/c", "a/b/c/d"),
    ];
    for (filter, topic) in matching.into_iter().filter(|(_, topic)| !topic.starts_with("$SYS")) {
        assert!(brings(filter, topic), "{filter} {topic}");
    }
    for (filter, topic) in others {
        assert!(!brings(filter, topic), "{filter} {topic}");
    }
}

// [MQTT-3.1.1/3.8.3-2]
#[test]
fn a_filter_that_is_none_closes_the_connection_and_nothing_is_subscribed() {
    all(|version| {
        for filter in ["a#", "a/#/b", "a+", "+a/b", "#/", "##"] {
            let world = World::new();
            let client = world.connect(Setup::durable(version, "c"));
            client.send_subscribe(&[("t", options(QoS::AtMostOnce)), (filter, options(QoS::AtMostOnce))], 0);
            client.expect_closed(ReasonCode::TopicFilterInvalid);
            assert_eq!(world.shared().router.subscriptions(), 0);
            world.assert_accounting();
        }
    });
}

#[test]
fn many_subscribers_of_one_filter_come_and_go() {
    both(|version| {
        let world = World::new();
        let clients: Vec<Client> = (0..100)
            .map(|number| {
                let client = world.connect(Setup::new(version, &format!("c{number}")));
                client.subscribe("t", QoS::AtMostOnce);
                client
            })
            .collect();
        let publisher = world.connect(Setup::new(version, "p"));
        for left in (0..100).rev() {
            clients[left].unsubscribe("t");
            publisher.publish("t", "x", QoS::AtMostOnce);
            for (number, client) in clients.iter().enumerate() {
                assert_eq!(client.recv_messages().len(), usize::from(number < left));
            }
        }
        world.assert_accounting();
    });
}
