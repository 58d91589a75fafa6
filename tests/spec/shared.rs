//! Shared subscriptions.

use dunlin::{
    broker::DropReason,
    codec::{PacketKind, QoS, ReasonCode, SubscriptionOptions, Version},
};

use crate::world::{Client, Setup, World, both};

const FILTER: &str = "$share/group/t/#";

fn member(world: &World, setup: Setup, qos: QoS) -> Client {
    let client = world.connect(setup);
    client.subscribe(FILTER, qos);
    client
}

#[test]
fn members_take_turns_and_each_message_goes_to_one() {
    both(|version| {
        let world = World::new();
        let members: Vec<Client> =
            ["a", "b", "c"].map(|id| member(&world, Setup::new(version, id), QoS::AtLeastOnce)).into();
        let direct = world.connect(Setup::new(version, "direct"));
        direct.subscribe("t/1", QoS::AtLeastOnce);
        let publisher = world.connect(Setup::new(version, "p"));
        for number in 0..9 {
            publisher.publish("t/1", &number.to_string(), QoS::AtLeastOnce);
        }
        for member in &members {
            assert_eq!(member.recv_payloads().len(), 3);
        }
        assert_eq!(direct.recv_payloads().len(), 9);
        world.assert_accounting();
    });
}

#[test]
fn groups_with_other_names_or_filters_each_get_the_message() {
    let world = World::new();
    let client = world.connect(Setup::v5("c"));
    for filter in ["$share/a/t", "$share/b/t", "$share/a/+", "t"] {
        client.subscribe(filter, QoS::AtMostOnce);
    }
    world.connect(Setup::v5("p")).publish("t", "x", QoS::AtMostOnce);
    assert_eq!(client.recv_payloads().len(), 4);
}

// [MQTT-4.8.2-3]
#[test]
fn delivery_keeps_to_the_granted_qos_of_the_member() {
    both(|version| {
        let world = World::new();
        for granted in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let client = member(&world, Setup::new(version, "c"), granted);
            let publisher = world.connect(Setup::new(version, "p"));
            for published in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
                publisher.publish("t/x", "x", published);
                assert_eq!(client.expect_publish("t/x", "x").qos, granted.min(published));
            }
        }
    });
}

#[test]
fn subscription_identifiers_and_retain_as_published_are_those_of_the_member() {
    let world = World::new();
    let client = world.connect(Setup::v5("c"));
    let options = SubscriptionOptions { retain_as_published: true, ..SubscriptionOptions::default() };
    client.subscribe_with(FILTER, options, 9);
    world.connect(Setup::v5("p")).retain("t/x", "x", QoS::AtMostOnce);
    let message = client.expect_publish("t/x", "x");
    assert_eq!((message.subscription_ids, message.retain), (vec![9], true));
}

#[test]
fn retained_messages_are_not_sent_for_shared_subscriptions() {
    both(|version| {
        let world = World::new();
        world.connect(Setup::new(version, "p")).retain("t/x", "x", QoS::AtLeastOnce);
        member(&world, Setup::new(version, "c"), QoS::AtLeastOnce).expect_nothing();
    });
}

#[test]
fn connected_members_are_preferred_to_those_that_are_away() {
    both(|version| {
        let world = World::new();
        let away = member(&world, Setup::durable(version, "away"), QoS::AtLeastOnce);
        let here = member(&world, Setup::durable(version, "here"), QoS::AtLeastOnce);
        away.drop_link();
        let publisher = world.connect(Setup::new(version, "p"));
        for number in 0..4 {
            publisher.publish("t/x", &number.to_string(), QoS::AtLeastOnce);
        }
        assert_eq!(here.recv_payloads(), ["0", "1", "2", "3"]);
        here.drop_link();
        publisher.publish("t/x", "kept", QoS::AtLeastOnce);
        publisher.publish("t/x", "lost", QoS::AtMostOnce);
        assert_eq!(world.queued_messages(), 1);
        assert_eq!(world.drops(DropReason::NoMember), 1);
        world.assert_accounting();
    });
}

#[test]
fn a_member_with_a_full_window_is_passed_over() {
    let world = World::new();
    let busy = Setup::v5("busy").receive_maximum(1).manual();
    let busy = member(&world, busy, QoS::AtLeastOnce);
    let ready = member(&world, Setup::v5("ready"), QoS::AtLeastOnce);
    let publisher = world.connect(Setup::v5("p"));
    for number in 0..10 {
        publisher.publish("t/x", &number.to_string(), QoS::AtLeastOnce);
    }
    assert_eq!(busy.recv_payloads().len(), 1);
    assert_eq!(ready.recv_payloads().len(), 9);
}

/// A member that got one message and has two that it has no room for, and another one that is away.
fn loaded(world: &World, setup: Setup, other: Setup, qos: QoS) -> (Client, Client) {
    let other = member(world, other, qos);
    other.drop_link();
    let loaded = member(world, setup.receive_maximum(1).manual(), qos);
    let publisher = world.connect(Setup::v5("publisher"));
    for payload in ["1", "2", "3"] {
        publisher.publish("t/x", payload, qos);
    }
    (loaded, other)
}

#[test]
fn what_a_member_has_not_been_sent_goes_to_another_when_it_disconnects() {
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let world = World::new();
        let (leaving, _) = loaded(&world, Setup::v5("a").expiry(100), Setup::v5("b").expiry(100), qos);
        leaving.expect_publish("t/x", "1");
        let (other, present) = world.connect_and(Setup::v5("b").resuming().expiry(100));
        assert!(present);
        other.expect_nothing();
        leaving.drop_link();
        assert_eq!(other.recv_payloads(), ["2", "3"], "what was sent stays for the member to come back");
        let again = world.connect(Setup::v5("a").resuming().expiry(100));
        assert!(again.expect_publish("t/x", "1").dup);
        again.expect_nothing();
        world.assert_accounting();
    }
}

#[test]
fn what_a_member_has_not_been_sent_goes_to_another_when_it_unsubscribes() {
    let world = World::new();
    let (leaving, _) =
        loaded(&world, Setup::v5("a").expiry(100), Setup::v5("b").expiry(100), QoS::AtLeastOnce);
    let first = leaving.expect_publish("t/x", "1");
    leaving.unsubscribe(FILTER);
    leaving.ack(PacketKind::PubAck, first.id());
    leaving.expect_nothing();
    let other = world.connect(Setup::v5("b").resuming().expiry(100));
    assert_eq!(other.recv_payloads(), ["2", "3"]);
    world.assert_accounting();
}

#[test]
fn what_a_member_has_not_acknowledged_goes_to_another_when_its_session_ends() {
    let world = World::new();
    let (leaving, _) = loaded(&world, Setup::v5("a"), Setup::v5("b").expiry(100), QoS::AtLeastOnce);
    leaving.expect_publish("t/x", "1");
    leaving.drop_link();
    let other = world.connect(Setup::v5("b").resuming().expiry(100));
    assert_eq!(other.recv_payloads(), ["1", "2", "3"]);
    world.assert_accounting();
}

// [MQTT-4.8.2-4]
#[test]
fn a_qos_2_message_that_was_sent_is_finished_with_its_member() {
    let world = World::new();
    let other = member(&world, Setup::v5("b").expiry(100), QoS::ExactlyOnce);
    other.drop_link();
    let first = member(&world, Setup::v5("a").expiry(100).manual(), QoS::ExactlyOnce);
    world.connect(Setup::v5("p")).publish("t/x", "x", QoS::ExactlyOnce);
    let id = first.expect_publish("t/x", "x").id();
    first.drop_link();
    let other = world.connect(Setup::v5("b").resuming().expiry(100));
    other.expect_nothing();
    let first = world.connect(Setup::v5("a").resuming().expiry(100).manual());
    assert_eq!(first.expect_publish("t/x", "x").id(), id);
    first.ack(PacketKind::PubRec, id);
    first.expect_ack(PacketKind::PubRel, id);
    first.ack(PacketKind::PubComp, id);
    other.expect_nothing();
    world.assert_accounting();
}

// [MQTT-4.8.2-5]
#[test]
fn a_qos_2_message_that_was_sent_goes_to_nobody_else_when_the_session_of_its_member_ends() {
    let world = World::new();
    let first = member(&world, Setup::v5("a").manual(), QoS::ExactlyOnce);
    world.connect(Setup::v5("p")).publish("t/x", "x", QoS::ExactlyOnce);
    first.expect_publish("t/x", "x");
    let other = member(&world, Setup::v5("b"), QoS::ExactlyOnce);
    first.drop_link();
    other.expect_nothing();
    world.assert_accounting();
}

// [MQTT-4.8.2-6] [MQTT-4.4.0-2]
#[test]
fn a_message_that_its_member_refuses_goes_to_nobody_else() {
    for (qos, kind) in [(QoS::AtLeastOnce, PacketKind::PubAck), (QoS::ExactlyOnce, PacketKind::PubRec)] {
        let world = World::new();
        let first = member(&world, Setup::v5("a").expiry(100).manual(), qos);
        world.connect(Setup::v5("p")).publish("t/x", "x", qos);
        let id = first.expect_publish("t/x", "x").id();
        let other = member(&world, Setup::v5("b"), qos);
        first.ack_with(kind, id, ReasonCode::UnspecifiedError);
        first.drop_link();
        other.expect_nothing();
        world.connect(Setup::v5("a").resuming().expiry(100)).expect_nothing();
        world.assert_accounting();
    }
}

// Given to a member before its packet identifier is known to be in use, a crash would give that identifier
// to another message, which the member would take for a repetition.
#[test]
fn a_qos_2_message_handed_to_a_durable_member_waits_for_the_commit() {
    let world = World::new();
    let (leaving, _) =
        loaded(&world, Setup::v5("a").expiry(100), Setup::v5("b").expiry(100), QoS::ExactlyOnce);
    let other = world.connect(Setup::v5("b").resuming().expiry(100));
    world.hold_commits();
    leaving.drop_link();
    other.expect_nothing();
    world.release_commits();
    assert_eq!(other.recv_payloads(), ["2", "3"]);
    world.assert_accounting();
}

// The publisher was told that the message is accepted: it must not end with the member it was meant for.
#[test]
fn a_message_on_its_way_to_a_member_whose_session_ends_goes_to_another() {
    both(|version| {
        let world = World::new();
        let leaving = member(&world, Setup::new(version, "a"), QoS::ExactlyOnce);
        let publisher = world.connect(Setup::durable(version, "p"));
        world.hold_commits();
        publisher.publish("t/x", "x", QoS::ExactlyOnce);
        let other = member(&world, Setup::new(version, "b"), QoS::ExactlyOnce);
        leaving.drop_link();
        world.release_commits();
        assert_eq!(other.recv_payloads(), ["x"]);
        assert_eq!(world.queued_messages(), 0);
    });
}

#[test]
fn the_last_member_takes_its_messages_with_it() {
    let world = World::new();
    let (leaving, other) = loaded(&world, Setup::v5("a"), Setup::v5("b"), QoS::AtLeastOnce);
    assert!(other.is_closed());
    leaving.drop_link();
    assert_eq!(world.drops(DropReason::NoMember), 3);
    assert_eq!(world.queued_messages(), 0);
    world.assert_accounting();
}

// [MQTT-4.8.2-1] [MQTT-4.8.2-2]
#[test]
fn what_looks_like_a_shared_filter_and_is_none_is_refused() {
    for filter in ["$share//t", "$share/a", "$share/a/", "$share/a+/t", "$share/#/t", "$share/"] {
        let world = World::new();
        let client = world.connect(Setup::v5("c"));
        client.send_subscribe(&[(filter, SubscriptionOptions::default())], 0);
        client.expect_closed(ReasonCode::TopicFilterInvalid);
    }
}

// [MQTT-3.8.3-4]
#[test]
fn no_local_on_a_shared_subscription_is_a_protocol_error() {
    let world = World::new();
    let client = world.connect(Setup::v5("c"));
    let options = SubscriptionOptions { no_local: true, ..SubscriptionOptions::default() };
    client.send_subscribe(&[(FILTER, options)], 0);
    client.expect_closed(ReasonCode::ProtocolError);
}

#[test]
fn a_member_with_room_is_preferred_to_one_with_a_full_queue() {
    let world = World::limited(|limits| limits.session_queue_messages_max = 2);
    for id in ["a", "b"] {
        member(&world, Setup::durable(Version::V311, id), QoS::AtLeastOnce).drop_link();
    }
    let publisher = world.connect(Setup::v5("p").manual());
    for number in 1..=4 {
        publisher.publish("t/x", "x", QoS::AtLeastOnce);
        publisher.expect_ack(PacketKind::PubAck, number);
    }
    publisher.publish("t/x", "x", QoS::AtLeastOnce);
    publisher.expect_code(PacketKind::PubAck, 5, ReasonCode::QuotaExceeded);
    assert_eq!(world.queued_messages(), 4);
    world.assert_accounting();
}

#[test]
fn a_long_queue_goes_to_another_member_in_portions() {
    let world = World::new();
    let publisher = world.connect(Setup::v5("p"));
    let away = world.connect(Setup::durable(Version::V5, "away").receive_maximum(1).manual());
    away.subscribe("$share/g/t", QoS::AtLeastOnce);
    let numbers: Vec<String> = (0..2500).map(|number| number.to_string()).collect();
    for number in &numbers {
        publisher.publish("t", number, QoS::AtLeastOnce);
    }
    let here = world.connect(Setup::durable(Version::V5, "here"));
    here.subscribe("$share/g/t", QoS::AtLeastOnce);
    away.drop_link();
    // All but the first, which was sent.
    let mut received = here.recv_payloads();
    assert_eq!(received.len(), 1024);
    world.advance_secs(1);
    received.extend(here.recv_payloads());
    assert_eq!(received, numbers[1..]);
    world.assert_accounting();
}
