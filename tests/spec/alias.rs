//! Topic aliases, both ways.

use std::num::NonZeroU16;

use dunlin::codec::{PacketKind, QoS, ReasonCode};

use crate::world::{Client, Setup, World};

fn publish(client: &Client, topic: &str, payload: &str, alias: u16, qos: QoS) -> u16 {
    client.publish_with(topic, payload, qos, |publish| {
        publish.properties.topic_alias = NonZeroU16::new(alias);
    })
}

fn world() -> (World, Client, Client) {
    let world = World::limited(|limits| limits.topic_alias_maximum = 3);
    let client = world.connect(Setup::v5("s"));
    client.subscribe("#", QoS::AtLeastOnce);
    let publisher = world.connect(Setup::v5("p"));
    (world, client, publisher)
}

// [MQTT-3.3.2-10] [MQTT-3.3.2-12]
#[test]
fn every_alias_up_to_the_maximum_is_accepted_and_can_be_set_anew() {
    let (_world, client, publisher) = world();
    for alias in 1..=3 {
        publish(&publisher, &format!("t/{alias}"), "set", alias, QoS::AtMostOnce);
        publish(&publisher, "", "used", alias, QoS::AtLeastOnce);
        client.expect_publish(&format!("t/{alias}"), "set");
        client.expect_publish(&format!("t/{alias}"), "used");
    }
    publish(&publisher, "other", "set", 2, QoS::AtMostOnce);
    publish(&publisher, "", "used", 2, QoS::AtMostOnce);
    client.expect_publish("other", "set");
    client.expect_publish("other", "used");
    client.expect_nothing();
}

// [MQTT-3.3.2-9] [MQTT-3.2.2-17]
#[test]
fn an_alias_above_the_maximum_closes_the_connection() {
    for topic in ["t", ""] {
        let (_world, client, publisher) = world();
        publish(&publisher, topic, "x", 4, QoS::AtMostOnce);
        publisher.expect_closed(ReasonCode::TopicAliasInvalid);
        client.expect_nothing();
    }
}

// [MQTT-3.2.2-18]
#[test]
fn no_alias_is_accepted_where_none_was_offered() {
    let world = World::limited(|limits| limits.topic_alias_maximum = 0);
    let client = world.connect(Setup::v5("c"));
    publish(&client, "t", "x", 1, QoS::AtMostOnce);
    client.expect_closed(ReasonCode::TopicAliasInvalid);
}

// [MQTT-3.3.2-8]
#[test]
fn alias_0_closes_the_connection() {
    let (_world, _client, publisher) = world();
    publisher.send_bytes(&[0x30, 7, 0, 1, b't', 3, 0x23, 0, 0]);
    publisher.expect_closed(ReasonCode::TopicAliasInvalid);
}

#[test]
fn an_alias_without_a_topic_closes_the_connection() {
    let (_world, _client, publisher) = world();
    publish(&publisher, "", "x", 1, QoS::AtMostOnce);
    publisher.expect_closed(ReasonCode::ProtocolError);
}

// [MQTT-3.3.2-7]
#[test]
fn aliases_end_with_the_connection() {
    let world = World::new();
    let setup = || Setup::v5("c").resuming().expiry(100).aliases(5);
    let client = world.connect(setup());
    client.subscribe("t", QoS::AtLeastOnce);
    publish(&client, "t", "x", 1, QoS::AtMostOnce);
    assert_eq!(client.expect_publish("t", "x").alias, Some((1, true)));
    client.drop_link();
    let client = world.connect(setup());
    // The harness forgets the aliases of the connection before, so that the topic has to be there again.
    world.connect(Setup::v5("p")).publish("t", "y", QoS::AtMostOnce);
    assert_eq!(client.expect_publish("t", "y").alias, Some((1, true)));
    publish(&client, "", "x", 1, QoS::AtMostOnce);
    client.expect_closed(ReasonCode::ProtocolError);
}

// [MQTT-3.1.2-26] [MQTT-3.1.2-27] [MQTT-3.3.2-11]
#[test]
fn aliases_towards_a_client_stay_within_its_maximum() {
    for maximum in [0, 1, 3, 65_535] {
        let world = World::new();
        let client = world.connect(Setup::v5("c").aliases(maximum));
        let plain = world.connect(Setup::v5("plain"));
        for client in [&client, &plain] {
            client.subscribe("#", QoS::AtMostOnce);
        }
        let publisher = world.connect(Setup::v5("p"));
        // Few topics often, then more than there are aliases: the harness resolves and checks each.
        for round in 0..100 {
            let topic = format!("t/{}", (round * round) % 7 + (round / 50) * 30);
            publisher.publish(&topic, &topic, QoS::AtMostOnce);
            let message = client.expect_publish(&topic, &topic);
            assert_eq!(message.alias.is_some(), maximum > 0);
            assert_eq!(plain.expect_publish(&topic, &topic).alias, None);
        }
    }
}

#[test]
fn a_topic_that_is_not_allowed_can_have_an_alias_and_stays_not_allowed() {
    let (_world, _client, publisher) = world();
    publish(&publisher, "$SYS/x", "x", 1, QoS::AtMostOnce);
    let id = publish(&publisher, "", "x", 1, QoS::AtLeastOnce);
    publisher.expect_code(PacketKind::PubAck, id, ReasonCode::NotAuthorized);
}
