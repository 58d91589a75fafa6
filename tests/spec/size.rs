//! Maximum Packet Size, both ways.

use dunlin::{
    broker::DropReason,
    codec::{PacketKind, QoS, ReasonCode},
};

use crate::world::{Got, Setup, World, both};

/// The size in bytes of a v5 PUBLISH of QoS 1 to a topic of one character, without properties.
const PUBLISH_BYTES: usize = 2 + 3 + 2 + 1;

// [MQTT-3.1.2-24] [MQTT-3.1.2-25]
#[test]
fn a_message_too_large_for_the_client_counts_as_delivered_and_the_next_one_flows() {
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let world = World::new();
        let limit = 40;
        let client = world.connect(Setup::v5("c").receive_maximum(1).packet_max(limit).expiry(100));
        client.subscribe("t", qos);
        let publisher = world.connect(Setup::v5("p"));
        let head = if qos == QoS::AtMostOnce { PUBLISH_BYTES - 2 } else { PUBLISH_BYTES };
        let fits = "x".repeat(limit as usize - head);
        publisher.publish("t", &format!("{fits}y"), qos);
        publisher.publish("t", &fits, qos);
        publisher.publish("t", "small", qos);
        assert_eq!(client.recv_payloads(), [fits, "small".into()]);
        assert_eq!(world.drops(DropReason::TooLarge), 1);
        assert_eq!(world.queued_messages(), 0);
        world.assert_accounting();
    }
}

#[test]
fn a_message_too_large_for_one_client_reaches_the_others() {
    let world = World::new();
    let small = world.connect(Setup::v5("small").packet_max(40));
    let large = world.connect(Setup::v5("large"));
    for client in [&small, &large] {
        client.subscribe("t", QoS::AtLeastOnce);
    }
    world.connect(Setup::v5("p")).publish("t", &"x".repeat(100), QoS::AtLeastOnce);
    small.expect_nothing();
    assert_eq!(large.recv_payloads().len(), 1);
}

// The alias adds three bytes to the packet that announces it.
#[test]
fn a_message_that_fits_only_without_an_alias_is_sent_without_one() {
    let world = World::new();
    let limit = 40;
    let client = world.connect(Setup::v5("c").packet_max(limit).aliases(4));
    client.subscribe("t", QoS::AtLeastOnce);
    let publisher = world.connect(Setup::v5("p"));
    let fits = "x".repeat(limit as usize - PUBLISH_BYTES);
    publisher.publish("t", &fits, QoS::AtLeastOnce);
    assert_eq!(client.expect_publish("t", &fits).alias, None);
    publisher.publish("t", "a", QoS::AtLeastOnce);
    publisher.publish("t", "b", QoS::AtLeastOnce);
    let announced = client.expect_publish("t", "a").alias.expect("there is room for an alias");
    assert!(announced.1);
    assert_eq!(client.expect_publish("t", "b").alias, Some((announced.0, false)));
}

// [MQTT-3.4.2-2] [MQTT-3.4.2-3] [MQTT-3.5.2-2] [MQTT-3.5.2-3]
#[test]
fn an_acknowledgement_that_would_get_too_large_loses_its_reason_string() {
    let world = World::new();
    let with = |id: &str, limit: u32| world.connect(Setup::v5(id).packet_max(limit).manual());
    let (roomy, tight) = (with("roomy", 1000), with("tight", 33));
    for (qos, kind) in [(QoS::AtLeastOnce, PacketKind::PubAck), (QoS::ExactlyOnce, PacketKind::PubRec)] {
        for (client, has_reason) in [(&roomy, true), (&tight, false)] {
            client.publish_as(1, "$SYS/x", "", qos, |_| {});
            match client.recv() {
                Some(Got::Ack { kind: found, code, reason_string, .. }) => {
                    assert_eq!((found, code), (kind, ReasonCode::NotAuthorized as u8));
                    let length = reason_string.map(|reason| reason.len());
                    assert_eq!(length.is_some(), has_reason, "{length:?}");
                }
                other => panic!("expected {kind}, got {other:?}"),
            }
        }
    }
}

// [MQTT-3.14.2-3] [MQTT-3.14.2-4]
#[test]
fn a_disconnect_that_would_get_too_large_loses_its_reason_string() {
    for (limit, has_reason) in [(1000, true), (34, false)] {
        let world = World::new();
        let client = world.connect(Setup::v5("c").packet_max(limit));
        client.send_bytes(&Setup::v5("c").encode());
        match client.recv() {
            Some(Got::Disconnect { code, reason_string }) => {
                assert_eq!(code, ReasonCode::ProtocolError as u8);
                assert_eq!(reason_string.is_some(), has_reason);
            }
            other => panic!("expected DISCONNECT, got {other:?}"),
        }
    }
}

// [MQTT-3.9.2-1] [MQTT-3.9.2-2]
#[test]
fn a_suback_that_would_get_too_large_loses_its_reason_string() {
    let world = World::limited(|limits| limits.session_subscriptions_max = 0);
    // The harness refuses what is too large.
    for limit in [1000, 33] {
        let client = world.connect(Setup::v5("c").packet_max(limit));
        let filters = [("t", Default::default()); 8];
        let id = client.send_subscribe(&filters, 0);
        client.expect(&Got::SubAck { id, codes: vec![ReasonCode::QuotaExceeded as u8; 8] });
    }
}

#[test]
fn an_answer_that_the_client_does_not_take_closes_its_connection() {
    let world = World::new();
    let client = world.connect(Setup::v5("c").packet_max(34));
    let filters: Vec<String> = (0..40).map(|number| number.to_string()).collect();
    let filters: Vec<_> = filters.iter().map(|filter| (filter.as_str(), Default::default())).collect();
    client.send_subscribe(&filters, 0);
    client.expect_closed(ReasonCode::PacketTooLarge);
    world.assert_accounting();
}

// [MQTT-3.2.0-1] [MQTT-3.2.2-19] [MQTT-3.2.2-20]
#[test]
fn a_client_that_takes_no_conn_ack_is_refused() {
    let world = World::new();
    for limit in 1..16 {
        let client = world.send_connect(Setup::v5("c").packet_max(limit));
        let frame = vec![0x20, 3, 0, ReasonCode::PacketTooLarge as u8, 0];
        let expected = Got::ConnAck { session_present: false, code: ReasonCode::PacketTooLarge as u8, frame };
        assert_eq!(client.recv(), (limit >= 5).then_some(expected), "limit {limit}");
        client.expect_silently_closed();
    }
    assert!(!world.has_session("c"));
    world.assert_accounting();
}

#[test]
fn a_packet_over_the_brokers_limit_is_refused_before_its_body_has_come() {
    both(|version| {
        let world = World::limited(|limits| limits.packet_bytes_max = 100);
        let client = world.connect(Setup::new(version, "c"));
        client.publish("t", &"x".repeat(80), QoS::AtMostOnce);
        client.expect_nothing();
        client.send_bytes(&[0x30, 99]);
        client.expect_closed(ReasonCode::PacketTooLarge);
        world.assert_accounting();
    });
}

// [MQTT-3.15.2-2] [MQTT-3.15.2-3]
#[test]
fn an_auth_that_would_get_too_large_loses_its_reason_string() {
    let world = World::new();
    let client = world.connect(Setup::v5("c").packet_max(40));
    // The harness refuses what is too large.
    client.authenticate(&"x".repeat(100));
    client.expect(&Got::Auth { code: ReasonCode::ContinueAuthentication as u8 });
}
