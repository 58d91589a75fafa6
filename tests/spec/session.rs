//! How long session state lives, what is in it, and what happens when a client connects twice.

use dunlin::codec::{PacketKind, QoS, ReasonCode, Version};

use crate::world::{Got, Setup, WillSetup, World, all, both};

// [MQTT-3.1.2-5] [MQTT-3.1.2-6] [MQTT-3.1.2-23] [MQTT-3.2.2-3] [MQTT-3.1.3-2] [MQTT-4.5.0-1]
// [MQTT-3.1.1/3.1.2-4] [MQTT-3.1.1/3.1.2-5] [MQTT-3.1.1/3.1.3-2] [MQTT-3.1.1/3.2.2-2] [MQTT-3.1.1/3.2.2-3]
// [MQTT-3.1.1/4.1.0-1] [MQTT-3.1.1/4.5.0-1]
#[test]
fn a_stored_session_goes_on_with_its_subscriptions_and_messages() {
    both(|version| {
        let world = World::new();
        let publisher = world.connect(Setup::new(version, "p"));
        let (client, present) = world.connect_and(Setup::durable(version, "c"));
        assert!(!present);
        client.subscribe("a/+", QoS::ExactlyOnce);
        client.disconnect();
        publisher.publish("a/b", "0", QoS::AtMostOnce);
        publisher.publish("a/b", "1", QoS::AtLeastOnce);
        publisher.publish("a/b", "2", QoS::ExactlyOnce);
        publisher.publish("other", "3", QoS::ExactlyOnce);
        let (client, present) = world.connect_and(Setup::durable(version, "c"));
        assert!(present);
        assert_eq!(client.recv_payloads(), ["1", "2"]);
        publisher.publish("a/b", "4", QoS::AtMostOnce);
        assert_eq!(client.recv_payloads(), ["4"]);
        // Another identifier is another session.
        let (other, present) = world.connect_and(Setup::durable(version, "other"));
        assert!(!present);
        other.expect_nothing();
        world.assert_accounting();
    });
}

// [MQTT-3.1.2-4] [MQTT-3.1.4-4] [MQTT-3.2.2-2]
// [MQTT-3.1.1/3.1.2-6] [MQTT-3.1.1/3.1.4-3] [MQTT-3.1.1/3.2.2-1]
#[test]
fn a_clean_start_throws_the_session_before_away() {
    both(|version| {
        let world = World::new();
        let publisher = world.connect(Setup::new(version, "p").manual());
        let client = world.connect(Setup::durable(version, "c"));
        client.subscribe("t", QoS::AtLeastOnce);
        // A QoS 2 message from the client that is not released belongs to the session too.
        let client = client.manual();
        client.publish_as(7, "u", "x", QoS::ExactlyOnce, |_| {});
        client.drop_link();
        publisher.publish("t", "1", QoS::AtLeastOnce);
        let (client, present) = world.connect_and(Setup::new(version, "c"));
        let client = client.manual();
        assert!(!present);
        publisher.publish("t", "2", QoS::AtLeastOnce);
        client.expect_nothing();
        client.subscribe("u", QoS::ExactlyOnce);
        client.publish_as(7, "u", "y", QoS::ExactlyOnce, |_| {});
        client.expect_ack(PacketKind::PubRec, 7);
        client.expect_publish("u", "y");
        world.assert_accounting();
        client.disconnect();
        // A clean session is never used again, whatever the next connection asks for.
        let (_, present) = world.connect_and(Setup::durable(version, "c"));
        assert!(!present);
        world.assert_accounting();
    });
}

// [MQTT-4.1.0-1] [MQTT-3.1.1/4.1.0-2]
#[test]
fn a_session_lasts_as_long_as_its_connection() {
    both(|version| {
        let world = World::new();
        let client = world.connect(Setup::durable(version, "c"));
        let fleeting = world.connect(Setup::new(version, "f"));
        client.subscribe("t", QoS::AtLeastOnce);
        fleeting.subscribe("t", QoS::AtLeastOnce);
        world.advance_secs(100_000);
        fleeting.publish("t", "x", QoS::AtLeastOnce);
        client.expect_publish("t", "x");
        fleeting.expect_publish("t", "x");
        fleeting.drop_link();
        assert!(!world.has_session("f"));
        assert!(world.has_session("c"));
    });
}

// [MQTT-4.1.0-2]
#[test]
fn a_session_ends_when_its_expiry_interval_has_passed() {
    let world = World::new();
    let client = world.connect(Setup::v5("c").expiry(10));
    client.subscribe("t", QoS::AtLeastOnce);
    client.disconnect();
    world.connect(Setup::v5("p")).publish("t", "x", QoS::AtLeastOnce);
    world.advance_secs(9);
    assert!(world.has_session("c"));
    world.advance_secs(1);
    assert!(!world.has_session("c"));
    assert_eq!(world.queued_messages(), 0);
    let (_, present) = world.connect_and(Setup::v5("c").resuming().expiry(10));
    assert!(!present);
    world.assert_accounting();
}

#[test]
fn reconnecting_in_time_stops_the_expiry() {
    let world = World::new();
    world.connect(Setup::v5("c").expiry(10)).disconnect();
    world.advance_secs(9);
    let (client, present) = world.connect_and(Setup::v5("c").resuming().expiry(10));
    assert!(present);
    world.advance_secs(100);
    assert!(world.has_session("c"));
    client.drop_link();
    world.advance_secs(10);
    assert!(!world.has_session("c"));
    world.assert_accounting();
}

#[test]
fn expiry_0xffffffff_is_for_ever() {
    let world = World::new();
    world.connect(Setup::v5("c").expiry(u32::MAX)).disconnect();
    world.connect(Setup::durable(Version::V311, "d")).disconnect();
    world.advance_secs(1_000_000);
    assert!(world.has_session("c") && world.has_session("d"));
    world.assert_accounting();
}

// A store that is not told would bring the session back after a restart.
#[test]
fn a_session_that_goes_on_without_expiry_ends_with_its_connection_in_the_store_too() {
    let world = World::new();
    let client = world.connect(Setup::v5("c").expiry(100));
    client.subscribe("t", QoS::AtLeastOnce);
    client.disconnect();
    let (client, present) = world.connect_and(Setup::v5("c").resuming());
    assert!(present);
    world.assert_accounting();
    client.disconnect();
    assert!(!world.has_session("c"));
    world.assert_accounting();
}

#[test]
fn disconnect_changes_the_expiry_interval() {
    let world = World::new();
    let connect = || world.connect(Setup::v5("c").resuming().expiry(100));
    connect().disconnect_with(ReasonCode::Success, Some(5));
    world.assert_accounting();
    world.advance_secs(5);
    assert!(!world.has_session("c"));
    connect().disconnect_with(ReasonCode::Success, Some(0));
    assert!(!world.has_session("c"));
    connect().disconnect_with(ReasonCode::Success, Some(500));
    world.advance_secs(499);
    assert!(world.has_session("c"));
    world.advance_secs(1);
    assert!(!world.has_session("c"));
    world.assert_accounting();
}

#[test]
fn an_expiry_interval_in_disconnect_after_none_in_connect_is_a_protocol_error() {
    let world = World::new();
    let client = world.connect(Setup::v5("c").will(WillSetup::new("w", "gone")));
    let watcher = world.connect(Setup::v5("w"));
    watcher.subscribe("w", QoS::AtMostOnce);
    client.disconnect_with(ReasonCode::Success, Some(5));
    client.expect_closed(ReasonCode::ProtocolError);
    watcher.expect_publish("w", "gone");
    assert!(!world.has_session("c"));
}

#[test]
fn a_longer_expiry_than_allowed_is_cut_and_the_client_told() {
    let world = World::limited(|limits| limits.session_expiry_secs_max = 60);
    let client = world.send_connect(Setup::v5("c").expiry(100));
    let Some(Got::ConnAck { frame, .. }) = client.recv() else { panic!("no CONNACK") };
    assert!(frame.windows(5).any(|bytes| bytes == [0x11, 0, 0, 0, 60]));
    client.disconnect_with(ReasonCode::Success, Some(100));
    world.advance_secs(59);
    assert!(world.has_session("c"));
    world.advance_secs(1);
    assert!(!world.has_session("c"));
}

// [MQTT-3.1.4-3] [MQTT-3.1.1/3.1.4-2] [MQTT-3.1.2-5]
#[test]
fn a_newer_connection_takes_over() {
    all(|version| {
        let world = World::new();
        let old = world.connect(Setup::durable(version, "c"));
        old.subscribe("t", QoS::AtLeastOnce);
        let (new, present) = world.connect_and(Setup::durable(version, "c"));
        assert_eq!(present, version != Version::V31, "MQTT 3.1 has no Session Present");
        old.expect_closed(ReasonCode::SessionTakenOver);
        world.connect(Setup::new(version, "p")).publish("t", "x", QoS::AtLeastOnce);
        new.expect_publish("t", "x");
        world.assert_accounting();
    });
}

#[test]
fn a_clean_session_does_not_survive_being_taken_over() {
    both(|version| {
        let world = World::new();
        let old = world.connect(Setup::new(version, "c"));
        old.subscribe("t", QoS::AtLeastOnce);
        let (new, present) = world.connect_and(Setup::durable(version, "c"));
        assert!(!present);
        old.expect_closed(ReasonCode::SessionTakenOver);
        world.connect(Setup::new(version, "p")).publish("t", "x", QoS::AtLeastOnce);
        new.expect_nothing();
        world.assert_accounting();
    });
}

#[test]
fn taking_over_with_a_clean_start_discards_the_session() {
    both(|version| {
        let world = World::new();
        let old = world.connect(Setup::durable(version, "c"));
        old.subscribe("t", QoS::AtLeastOnce);
        let (new, present) = world.connect_and(Setup::new(version, "c"));
        assert!(!present);
        old.expect_closed(ReasonCode::SessionTakenOver);
        world.connect(Setup::new(version, "p")).publish("t", "x", QoS::AtLeastOnce);
        new.expect_nothing();
        world.assert_accounting();
    });
}

#[test]
fn what_comes_late_from_a_connection_that_was_taken_over_is_ignored() {
    both(|version| {
        let world = World::new();
        let old = world.connect(Setup::durable(version, "c").manual());
        old.stall();
        let new = world.connect(Setup::durable(version, "c"));
        new.subscribe("t", QoS::AtLeastOnce);
        old.publish("t", "late", QoS::AtLeastOnce);
        old.ping();
        new.expect_nothing();
        old.unstall();
        old.expect_closed(ReasonCode::SessionTakenOver);
        new.ping();
        new.expect(&Got::PingResp);
        world.assert_accounting();
    });
}

// [MQTT-4.4.0-1] [MQTT-3.3.1-1] [MQTT-3.1.1/4.4.0-1] [MQTT-3.1.1/3.3.1-1] [MQTT-3.1.1/4.6.0-1]
// [MQTT-3.1.1/2.3.1-4]
// [MQTT-3.1.1/4.3.2-1]
#[test]
fn what_is_unacknowledged_is_sent_again_in_order_with_dup_and_the_same_identifiers() {
    both(|version| {
        let world = World::new();
        let client = world.connect(Setup::durable(version, "c").manual());
        client.subscribe("t", QoS::ExactlyOnce);
        let publisher = world.connect(Setup::new(version, "p"));
        for (payload, qos) in [
            ("1", QoS::AtLeastOnce),
            ("2", QoS::ExactlyOnce),
            ("3", QoS::ExactlyOnce),
            ("4", QoS::AtLeastOnce),
        ] {
            publisher.publish("t", payload, qos);
        }
        let sent = client.recv_messages();
        assert!(sent.iter().all(|message| !message.dup));
        client.ack(PacketKind::PubRec, sent[1].id());
        client.expect_ack(PacketKind::PubRel, sent[1].id());
        client.drop_link();
        publisher.publish("t", "5", QoS::AtLeastOnce);

        let client = world.connect(Setup::durable(version, "c").manual());
        client.expect_ack(PacketKind::PubRel, sent[1].id());
        let again = client.recv_messages();
        assert!(again.iter().map(|message| &message.payload).eq(["1", "3", "4", "5"]), "{again:?}");
        for (again, before) in again.iter().zip([&sent[0], &sent[2], &sent[3]]) {
            assert_eq!((&again.payload, again.id, again.qos), (&before.payload, before.id, before.qos));
            assert!(again.dup);
        }
        client.expect_nothing();
        client.ack(PacketKind::PubComp, sent[1].id());
        client.ack(PacketKind::PubAck, sent[0].id());
        client.ack(PacketKind::PubRec, sent[2].id());
        client.ack(PacketKind::PubAck, sent[3].id());
        client.expect_ack(PacketKind::PubRel, sent[2].id());
        client.ack(PacketKind::PubComp, sent[2].id());
        world.assert_accounting();
    });
}

#[test]
fn a_message_that_was_never_sent_comes_without_dup_behind_those_that_were() {
    both(|version| {
        let world = World::new();
        let client = world.connect(Setup::durable(version, "c").manual());
        client.subscribe("t", QoS::ExactlyOnce);
        let publisher = world.connect(Setup::new(version, "p"));
        publisher.publish("t", "1", QoS::AtLeastOnce);
        client.drop_link();
        publisher.publish("t", "2", QoS::AtLeastOnce);
        let client = world.connect(Setup::durable(version, "c").manual());
        assert!(client.expect_publish("t", "1").dup);
        assert!(!client.expect_publish("t", "2").dup);
        client.expect_nothing();
    });
}

// [MQTT-4.4.0-1]
#[test]
fn nothing_is_sent_again_while_the_connection_lasts() {
    both(|version| {
        let world = World::new();
        let client = world.connect(Setup::durable(version, "c").manual());
        client.subscribe("t", QoS::ExactlyOnce);
        let publisher = world.connect(Setup::new(version, "p"));
        publisher.publish("t", "1", QoS::AtLeastOnce);
        publisher.publish("t", "2", QoS::ExactlyOnce);
        assert_eq!(client.recv_payloads(), ["1", "2"]);
        world.advance_secs(10_000);
        client.expect_nothing();
    });
}

// [MQTT-4.6.0-1] in the order in which they were sent first, which a commit that took its time may have
// made another than the order in which the broker took them over.
#[test]
fn what_is_sent_again_keeps_the_order_of_its_first_sending() {
    both(|version| {
        let world = World::new();
        let client = world.connect(Setup::durable(version, "c").manual());
        client.subscribe("t", QoS::ExactlyOnce);
        let publisher = world.connect(Setup::new(version, "p").manual());
        world.hold_commits();
        publisher.publish("t", "waits", QoS::ExactlyOnce);
        publisher.publish("t", "does not", QoS::AtLeastOnce);
        world.release_commits();
        let before = client.recv_messages();
        assert_eq!(before[0].payload, "does not");
        client.drop_link();
        let client = world.connect(Setup::durable(version, "c").manual());
        let again: Vec<_> = client.recv_messages();
        let ids = |messages: &[crate::world::GotMessage]| {
            messages.iter().map(|message| (message.payload.clone(), message.id())).collect::<Vec<_>>()
        };
        assert_eq!(ids(&again), ids(&before));
    });
}

// [MQTT-4.6.0-4] [MQTT-3.1.1/4.6.0-4]
#[test]
fn pubrels_follow_the_order_of_the_pubrecs_also_when_they_are_sent_again() {
    both(|version| {
        let world = World::new();
        let client = world.connect(Setup::durable(version, "c").manual());
        client.subscribe("t", QoS::ExactlyOnce);
        let publisher = world.connect(Setup::new(version, "p"));
        for payload in ["1", "2", "3"] {
            publisher.publish("t", payload, QoS::ExactlyOnce);
        }
        let ids: Vec<u16> = client.recv_messages().iter().map(|message| message.id()).collect();
        let order = [ids[1], ids[2], ids[0]];
        for id in order {
            client.ack(PacketKind::PubRec, id);
        }
        order.iter().for_each(|id| client.expect_ack(PacketKind::PubRel, *id));
        client.drop_link();
        let client = world.connect(Setup::durable(version, "c").manual());
        order.iter().for_each(|id| client.expect_ack(PacketKind::PubRel, *id));
        client.expect_nothing();
    });
}

#[test]
fn an_acknowledgement_may_come_before_its_message_is_sent_again() {
    let world = World::new();
    let setup = |maximum| Setup::durable(Version::V5, "c").receive_maximum(maximum).manual();
    let client = world.connect(setup(3));
    client.subscribe("t", QoS::ExactlyOnce);
    let publisher = world.connect(Setup::v5("p"));
    for payload in ["1", "2", "3"] {
        publisher.publish("t", payload, QoS::AtLeastOnce);
    }
    let ids: Vec<u16> = client.recv_messages().iter().map(|message| message.id()).collect();
    client.drop_link();
    // One at a time now; the client still acknowledges what came on the last connection.
    let client = world.connect(setup(1));
    client.expect_publish("t", "1");
    ids.iter().rev().for_each(|id| client.ack(PacketKind::PubAck, *id));
    client.expect_nothing();
    assert_eq!(world.queued_messages(), 0);
    world.assert_accounting();
}
