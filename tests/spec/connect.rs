//! CONNECT and CONNACK.

use dunlin::codec::QoS;

use crate::world::{Setup, World, both};

// [MQTT-3.3.4-1]
#[test]
fn smoke() {
    both(|version| {
        let world = World::new();
        let subscriber = world.connect(Setup::new(version, "s"));
        let publisher = world.connect(Setup::durable(version, "p"));
        subscriber.subscribe("a/+", QoS::ExactlyOnce);
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            publisher.publish("a/b", "x", qos);
            subscriber.expect_publish("a/b", "x");
        }
        subscriber.expect_nothing();
        world.assert_accounting();
        subscriber.disconnect();
        publisher.disconnect();
        world.assert_accounting();
    });
}
