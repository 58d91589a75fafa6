//! UNSUBSCRIBE and UNSUBACK.

use dunlin::codec::{PacketKind, QoS, ReasonCode};

use crate::world::{Got, Setup, World, all};

// [MQTT-3.10.4-4] [MQTT-3.10.4-5] [MQTT-3.10.4-6] [MQTT-3.11.3-1] [MQTT-3.11.3-2] [MQTT-2.2.1-6]
// [MQTT-3.1.1/3.10.4-4] [MQTT-3.1.1/3.10.4-5] [MQTT-3.1.1/3.10.4-6] [MQTT-3.1.1/2.3.1-7]
#[test]
fn one_unsuback_answers_all_filters_also_those_that_were_not_there() {
    all(|version| {
        let world = World::new();
        let client = world.connect(Setup::durable(version, "c"));
        for filter in ["a", "b/#", "c"] {
            client.subscribe(filter, QoS::AtMostOnce);
        }
        let id = client.send_unsubscribe(&["a", "none", "b/#", "a"]);
        let absent = ReasonCode::NoSubscriptionExisted as u8;
        let codes = if version.is_v5() { vec![0, absent, 0, absent] } else { vec![] };
        client.expect(&Got::UnsubAck { id, codes });
        client.expect_nothing();
        let publisher = world.connect(Setup::new(version, "p"));
        ["a", "b/x", "c"].iter().for_each(|topic| {
            publisher.publish(topic, topic, QoS::AtMostOnce);
        });
        assert_eq!(client.recv_payloads(), ["c"]);
        world.assert_accounting();
    });
}

// [MQTT-3.10.4-1] [MQTT-3.1.1/3.10.4-1]
#[test]
fn filters_are_compared_character_by_character() {
    all(|version| {
        let world = World::new();
        let client = world.connect(Setup::new(version, "c"));
        for filter in ["a/+", "a/b", "a/#", "$share/g/a/b"] {
            client.subscribe(filter, QoS::AtMostOnce);
        }
        client.send_unsubscribe(&["+/b", "#", "A/b", "a/b/", "$share/h/a/b"]);
        assert!(matches!(client.recv(), Some(Got::UnsubAck { .. })));
        assert_eq!(world.shared().router.subscriptions(), 4);
        client.unsubscribe("a/b");
        assert_eq!(world.shared().router.subscriptions(), 3);
    });
}

// [MQTT-3.10.4-2] [MQTT-3.10.4-3] [MQTT-3.1.1/3.10.4-2] [MQTT-3.1.1/3.10.4-3]
#[test]
fn deliveries_that_have_begun_are_finished_and_new_ones_do_not_begin() {
    all(|version| {
        let world = World::new();
        let client = world.connect(Setup::durable(version, "c").manual());
        client.subscribe("t", QoS::ExactlyOnce);
        let publisher = world.connect(Setup::new(version, "p"));
        publisher.publish("t", "1", QoS::AtLeastOnce);
        publisher.publish("t", "2", QoS::ExactlyOnce);
        let first = client.expect_publish("t", "1").id();
        let second = client.expect_publish("t", "2").id();
        client.unsubscribe("t");
        publisher.publish("t", "3", QoS::AtLeastOnce);
        client.expect_nothing();
        client.drop_link();
        let client = world.connect(Setup::durable(version, "c").manual());
        assert_eq!(client.expect_publish("t", "1").id(), first);
        assert_eq!(client.expect_publish("t", "2").id(), second);
        client.ack(PacketKind::PubAck, first);
        client.ack(PacketKind::PubRec, second);
        client.expect_ack(PacketKind::PubRel, second);
        client.ack(PacketKind::PubComp, second);
        client.expect_nothing();
        world.assert_accounting();
    });
}
