//! The order of messages and of acknowledgements.

use dunlin::codec::{PacketKind, QoS};

use crate::world::{Got, Setup, World, all, both};

const ALL_QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

// [MQTT-4.6.0-5] [MQTT-4.6.0-6] [MQTT-3.1.1/4.6.0-5] [MQTT-3.1.1/4.6.0-6]
#[test]
fn messages_of_a_publisher_on_a_topic_and_qos_come_in_order() {
    all(|version| {
        for qos in ALL_QOS {
            let world = World::new();
            let client = world.connect(Setup::durable(version, "c").receive_maximum(3));
            client.subscribe("t/#", qos);
            let publisher = world.connect(Setup::durable(version, "p"));
            let payloads: Vec<String> = (0..50).map(|number| format!("{number:02}")).collect();
            for (number, payload) in payloads.iter().enumerate() {
                if number == 20 && qos > QoS::AtMostOnce {
                    client.drop_link();
                }
                publisher.publish("t/1", payload, qos);
            }
            let mut seen = client.recv_payloads();
            if client.is_closed() {
                seen.extend(world.connect(Setup::durable(version, "c").receive_maximum(3)).recv_payloads());
            }
            assert_eq!(seen, payloads);
            world.assert_accounting();
        }
    });
}

// [MQTT-4.6.0-2] [MQTT-4.6.0-3] [MQTT-3.1.1/4.6.0-2] [MQTT-3.1.1/4.6.0-3]
#[test]
fn acknowledgements_come_in_the_order_of_the_messages() {
    all(|version| {
        let world = World::new();
        let client = world.connect(Setup::new(version, "c").manual());
        let ids = [5, 3, 9, 1];
        for id in ids {
            client.publish_as(id, "t", "x", QoS::AtLeastOnce, |_| {});
            client.publish_as(id + 100, "t", "x", QoS::ExactlyOnce, |_| {});
        }
        let acks = |kind: PacketKind| {
            move |got: &Got| match got {
                Got::Ack { kind: found, id, .. } if *found == kind => Some(*id),
                _ => None,
            }
        };
        let got = client.recv_all();
        assert!(got.iter().filter_map(acks(PacketKind::PubAck)).eq(ids));
        assert!(got.iter().filter_map(acks(PacketKind::PubRec)).eq(ids.map(|id| id + 100)));
        for id in ids {
            client.ack(PacketKind::PubRel, id + 100);
        }
        assert!(client.recv_all().iter().filter_map(acks(PacketKind::PubComp)).eq(ids.map(|id| id + 100)));
    });
}

// [MQTT-3.1.1/4.6.0-4] [MQTT-4.6.0-4]
#[test]
fn pubrels_come_in_the_order_of_the_pubrecs() {
    both(|version| {
        let world = World::new();
        let client = world.connect(Setup::durable(version, "c").manual());
        client.subscribe("t", QoS::ExactlyOnce);
        let publisher = world.connect(Setup::new(version, "p"));
        for _ in 0..4 {
            publisher.publish("t", "x", QoS::ExactlyOnce);
        }
        let ids: Vec<u16> = client.recv_messages().iter().map(|message| message.id()).collect();
        world.hold_commits();
        let order = [ids[2], ids[0], ids[3], ids[1]];
        order.iter().for_each(|id| client.ack(PacketKind::PubRec, *id));
        client.expect_nothing();
        world.commit();
        order.iter().for_each(|id| client.expect_ack(PacketKind::PubRel, *id));
    });
}
