//! Properties of PUBLISH, and problem information.

use dunlin::codec::{PacketKind, PayloadFormat, QoS, ReasonCode, UserProperties, Version};

use crate::world::{Got, Setup, World};

// [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-18] [MQTT-3.3.2-20]
#[test]
fn what_a_publisher_says_of_its_message_is_forwarded_unchanged() {
    let world = World::new();
    const USER_PROPERTIES: &[(&str, &str)] = &[("b", "1"), ("", ""), ("a", "2"), ("b", "1"), ("ä", "汉")];
    let setup = || Setup::v5("c").resuming().expiry(100);
    let client = world.connect(setup());
    client.subscribe("t", QoS::ExactlyOnce);
    let publisher = world.connect(Setup::v5("p"));
    let publish = |qos| {
        publisher.publish_with("t", "x", qos, |publish| {
            publish.retain = true;
            publish.properties.payload_format = Some(PayloadFormat::Utf8);
            publish.properties.content_type = Some("text/plain");
            publish.properties.response_topic = Some("r/é");
            publish.properties.correlation_data = Some(&[0, 255]);
            publish.properties.user_properties = UserProperties::from_list(USER_PROPERTIES);
        });
    };
    let expect = |client: &crate::world::Client| {
        client.expect_publish("t", "x").with_packet(|publish| {
            let properties = &publish.properties;
            assert_eq!(properties.payload_format, Some(PayloadFormat::Utf8));
            assert_eq!(properties.content_type, Some("text/plain"));
            assert_eq!(properties.response_topic, Some("r/é"));
            assert_eq!(properties.correlation_data, Some(&[0, 255][..]));
            assert_eq!(properties.user_properties.iter().collect::<Vec<_>>(), USER_PROPERTIES);
            assert_eq!(properties.topic_alias, None);
        });
    };
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        publish(qos);
        expect(&client);
    }
    // Also when it has waited in a session, and as a retained message.
    client.drop_link();
    publish(QoS::AtLeastOnce);
    let client = world.connect(setup());
    expect(&client);
    client.subscribe("t", QoS::AtMostOnce);
    expect(&client);
    // A client before MQTT 5 gets the message without them.
    let old = world.connect(Setup::new(Version::V311, "old"));
    old.subscribe("t", QoS::AtMostOnce);
    old.expect_publish("t", "x");
}

#[test]
fn a_payload_that_is_not_the_text_that_it_says_is_refused() {
    let world = World::new();
    let client = world.connect(Setup::v5("c").manual());
    for (qos, kind) in [(QoS::AtLeastOnce, PacketKind::PubAck), (QoS::ExactlyOnce, PacketKind::PubRec)] {
        let id = client.publish_with("t", "", qos, |publish| {
            publish.payload = &[0xFF];
            publish.properties.payload_format = Some(PayloadFormat::Utf8);
        });
        client.expect_code(kind, id, ReasonCode::PayloadFormatInvalid);
    }
    let unchecked = World::with(1, |shared| shared.check_payload_format = false);
    let client = unchecked.connect(Setup::v5("c").manual());
    let id = client.publish_with("t", "", QoS::AtLeastOnce, |publish| {
        publish.payload = &[0xFF];
        publish.properties.payload_format = Some(PayloadFormat::Utf8);
    });
    client.expect_code(PacketKind::PubAck, id, ReasonCode::NoMatchingSubscribers);
}

// [MQTT-3.1.2-29]
#[test]
fn a_client_that_wants_no_problem_information_gets_none_but_where_it_is_allowed() {
    let world = World::new();
    for (wanted, has_reason) in [(None, true), (Some(true), true), (Some(false), false)] {
        let client = world.connect(Setup { problem_information: wanted, ..Setup::v5("c").manual() });
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
            client.publish("$SYS/x", "x", qos);
            match client.recv() {
                Some(Got::Ack { reason_string, .. }) => assert_eq!(reason_string.is_some(), has_reason),
                other => panic!("expected an acknowledgement, got {other:?}"),
            }
        }
        client.subscribe("t", QoS::AtMostOnce);
        client.publish_with("t", "x", QoS::AtMostOnce, |publish| {
            publish.properties.user_properties = UserProperties::from_list(&[("a", "b")]);
        });
        client.expect_publish("t", "x").with_packet(|publish| {
            assert!(!publish.properties.user_properties.is_empty());
        });
        client.send_bytes(&[0xD0, 0]);
        assert!(matches!(client.recv(), Some(Got::Disconnect { reason_string: Some(_), .. })));
    }
}

// [MQTT-3.6.2-2] [MQTT-3.6.2-3] [MQTT-3.7.2-2] [MQTT-3.7.2-3] [MQTT-3.9.2-1] [MQTT-3.9.2-2] [MQTT-3.11.2-1]
// [MQTT-3.11.2-2]
#[test]
fn pubrel_pubcomp_suback_and_unsuback_are_as_small_as_can_be() {
    let world = World::new();
    // The packet that is the largest of all here, SUBACK, has six bytes with one code.
    let client = world.connect(Setup::v5("c").packet_max(30).manual());
    client.ack(PacketKind::PubRec, 1);
    client.expect(&Got::coded(PacketKind::PubRel, 1, ReasonCode::PacketIdentifierNotFound));
    client.ack(PacketKind::PubRel, 1);
    client.expect(&Got::coded(PacketKind::PubComp, 1, ReasonCode::PacketIdentifierNotFound));
    let filters = vec![("t", Default::default()); 30 - 5];
    let id = client.send_subscribe(&filters, 0);
    client.expect(&Got::SubAck { id, codes: vec![0; 25] });
    let id = client.send_unsubscribe(&["t"]);
    client.expect(&Got::UnsubAck { id, codes: vec![0] });
}
