//! What happens when a limit is reached: who is refused, who is closed, what is dropped and counted.

use dunlin::{
    broker::DropReason,
    codec::{PacketKind, QoS, ReasonCode, SubscriptionOptions, Version},
};

use crate::world::{Got, Setup, WillSetup, World, both};

const PLAIN: SubscriptionOptions = SubscriptionOptions {
    qos: QoS::AtMostOnce,
    no_local: false,
    retain_as_published: false,
    retain_handling: dunlin::codec::RetainHandling::Send,
};

#[test]
fn a_full_durable_queue_refuses_the_publisher() {
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let kind = if qos == QoS::AtLeastOnce { PacketKind::PubAck } else { PacketKind::PubRec };
        let world = World::limited(|limits| limits.session_queue_messages_max = 2);
        let subscriber = world.connect(Setup::durable(Version::V5, "s"));
        subscriber.subscribe("t", qos);
        subscriber.drop_link();
        let publisher = world.connect(Setup::v5("p").manual());
        for _ in 0..2 {
            let id = publisher.publish("t", "kept", qos);
            publisher.expect_ack(kind, id);
        }
        let id = publisher.publish("t", "refused", qos);
        publisher.expect_code(kind, id, ReasonCode::QuotaExceeded);
        // MQTT 3 has no word for it: what is not acknowledged is the client's still.
        let old = world.connect(Setup::new(Version::V311, "old").manual());
        old.publish("t", "refused", qos);
        old.expect_nothing();
        let subscriber = world.connect(Setup::durable(Version::V5, "s"));
        assert_eq!(subscriber.recv_payloads(), ["kept", "kept"]);
        let id = publisher.publish("t", "again", qos);
        publisher.expect_ack(kind, id);
        assert_eq!(subscriber.recv_payloads(), ["again"]);
        world.assert_accounting();
    }
}

#[test]
fn a_full_durable_queue_is_full_by_bytes_too() {
    let world = World::limited(|limits| limits.session_queue_bytes_max = 100);
    world.connect(Setup::durable(Version::V5, "s")).subscribe("t", QoS::AtLeastOnce);
    world.connect(Setup::durable(Version::V5, "s")).drop_link();
    let publisher = world.connect(Setup::v5("p").manual());
    let id = publisher.publish("t", &"x".repeat(99), QoS::AtLeastOnce);
    publisher.expect_ack(PacketKind::PubAck, id);
    let id = publisher.publish("t", "", QoS::AtLeastOnce);
    publisher.expect_code(PacketKind::PubAck, id, ReasonCode::QuotaExceeded);
}

#[test]
fn all_queues_together_have_a_limit() {
    let world = World::limited(|limits| limits.queues_bytes_max = 100);
    for id in ["a", "b"] {
        let client = world.connect(Setup::durable(Version::V5, id));
        client.subscribe(id, QoS::AtLeastOnce);
        client.drop_link();
    }
    let publisher = world.connect(Setup::v5("p").manual());
    let id = publisher.publish("a", &"x".repeat(60), QoS::AtLeastOnce);
    publisher.expect_ack(PacketKind::PubAck, id);
    let id = publisher.publish("b", &"x".repeat(60), QoS::AtLeastOnce);
    publisher.expect_code(PacketKind::PubAck, id, ReasonCode::QuotaExceeded);
    publisher.publish("b", &"x".repeat(60), QoS::AtMostOnce);
    publisher.expect_nothing();
}

#[test]
fn ones_own_full_queue_does_not_refuse_what_no_local_keeps_out_of_it() {
    let world = World::limited(|limits| limits.session_queue_messages_max = 1);
    let client = world.connect(Setup::durable(Version::V5, "c").manual());
    let options = SubscriptionOptions { qos: QoS::AtLeastOnce, no_local: true, ..PLAIN };
    client.subscribe_with("t", options, 0);
    world.connect(Setup::v5("p")).publish("t", "x", QoS::AtLeastOnce);
    client.expect_publish("t", "x");
    let id = client.publish("t", "y", QoS::AtLeastOnce);
    client.expect_ack(PacketKind::PubAck, id);
    client.expect_nothing();
}

#[test]
fn a_will_that_a_full_queue_cannot_take_is_dropped_and_counted() {
    let world = World::limited(|limits| limits.session_queue_messages_max = 2);
    world.connect(Setup::durable(Version::V5, "s")).subscribe("w", QoS::AtLeastOnce);
    world.connect(Setup::durable(Version::V5, "s")).drop_link();
    for _ in 0..5 {
        world.connect(Setup::v5("c").will(WillSetup::new("w", "x").qos(QoS::AtLeastOnce))).drop_link();
    }
    assert_eq!(world.queued_messages(), 2);
    assert_eq!(world.drops(DropReason::QueueFull), 3);
    world.assert_accounting();
}

#[test]
fn a_slow_client_whose_session_ends_with_its_connection_is_closed_and_slows_nobody() {
    both(|version| {
        let world = World::limited(|limits| limits.session_queue_messages_max = 3);
        let slow = world.connect(Setup::new(version, "slow").manual());
        let quick = world.connect(Setup::new(version, "quick"));
        for client in [&slow, &quick] {
            client.subscribe("t", QoS::AtLeastOnce);
        }
        let publisher = world.connect(Setup::new(version, "p").manual());
        for _ in 0..5 {
            let id = publisher.publish("t", "x", QoS::AtLeastOnce);
            publisher.expect_ack(PacketKind::PubAck, id);
        }
        assert_eq!(quick.recv_payloads().len(), 5);
        for _ in 0..4 {
            slow.expect_publish("t", "x");
        }
        slow.expect_closed(ReasonCode::QuotaExceeded);
        world.assert_accounting();
    });
}

// [MQTT-3.3.4-10]
#[test]
fn a_full_outbox_drops_qos_0_and_lets_qos_1_wait() {
    both(|version| {
        let world = World::limited(|limits| limits.outbox_bytes_max = 100);
        let client = world.connect(Setup::new(version, "c"));
        client.subscribe("t", QoS::AtLeastOnce);
        let publisher = world.connect(Setup::new(version, "p"));
        client.stall();
        for number in 0..20 {
            publisher.publish("t", &format!("zero{number:02}"), QoS::AtMostOnce);
            publisher.publish("t", &format!("one{number:02}"), QoS::AtLeastOnce);
        }
        client.unstall();
        let payloads = client.recv_payloads();
        let ones = payloads.iter().filter(|payload| payload.starts_with("one"));
        assert!(ones.eq((0..20).map(|number| format!("one{number:02}")).collect::<Vec<_>>().iter()));
        let zeros = payloads.iter().filter(|payload| payload.starts_with("zero")).count() as u64;
        assert!(zeros > 0 && zeros < 20, "{zeros}");
        assert_eq!(world.drops(DropReason::OutboxFull), 20 - zeros);
        world.assert_accounting();
    });
}

#[test]
fn retained_messages_beyond_the_limit_are_refused_or_counted() {
    let world = World::limited(|limits| limits.retained_messages_max = 1);
    let publisher = world.connect(Setup::v5("p").manual());
    let id = publisher.retain("a", "x", QoS::AtLeastOnce);
    publisher.expect_code(PacketKind::PubAck, id, ReasonCode::NoMatchingSubscribers);
    let id = publisher.retain("b", "x", QoS::AtLeastOnce);
    publisher.expect_code(PacketKind::PubAck, id, ReasonCode::QuotaExceeded);
    publisher.retain("b", "x", QoS::AtMostOnce);
    assert_eq!(world.drops(DropReason::RetainedFull), 1);
    world.assert_accounting();
    // Another value for the same topic needs no room, and none at all makes some.
    let id = publisher.retain("a", "y", QoS::AtLeastOnce);
    publisher.expect_code(PacketKind::PubAck, id, ReasonCode::NoMatchingSubscribers);
    publisher.retain("a", "", QoS::AtMostOnce);
    let id = publisher.retain("b", "x", QoS::AtLeastOnce);
    publisher.expect_code(PacketKind::PubAck, id, ReasonCode::NoMatchingSubscribers);
    assert_eq!((world.shared().retained.messages(), world.shared().retained.bytes()), (1, 2));
    world.assert_accounting();
}

// [MQTT-3.1.3-8] [MQTT-3.1.1/3.1.3-9] [MQTT-3.1.4-2]
#[test]
fn client_identifiers_and_will_topics_have_limits() {
    let world = World::limited(|limits| {
        limits.client_id_bytes_max = 30;
        limits.topic_levels_max = 3;
    });
    let refused = |setup: Setup, v3: Option<u8>, v5: ReasonCode| {
        let version = setup.version;
        let client = world.send_connect(setup);
        let code = if version.is_v5() { Some(v5 as u8) } else { v3 };
        match (client.recv(), code) {
            (Some(Got::ConnAck { code: found, session_present: false, .. }), Some(code)) => {
                assert_eq!(found, code);
            }
            (None, None) => {}
            (got, _) => panic!("expected {code:?}, got {got:?}"),
        }
        client.expect_silently_closed();
    };
    both(|version| {
        refused(Setup::new(version, &"x".repeat(31)), Some(2), ReasonCode::ClientIdentifierNotValid);
        let will = WillSetup::new("a/b/c/d", "x");
        refused(Setup::new(version, "c").will(will), None, ReasonCode::TopicNameInvalid);
        let will = WillSetup::new("$SYS/x", "x");
        refused(Setup::new(version, "c").will(will), Some(5), ReasonCode::NotAuthorized);
    });
    world.assert_accounting();
}

#[test]
fn topics_beyond_a_limit_are_refused_with_their_own_code() {
    let world = World::limited(|limits| limits.topic_levels_max = 2);
    let client = world.connect(Setup::v5("c").manual());
    let id = client.publish("a/b/c", "x", QoS::AtLeastOnce);
    client.expect_code(PacketKind::PubAck, id, ReasonCode::TopicNameInvalid);
    let id = client.publish("a/b/c", "x", QoS::ExactlyOnce);
    client.expect_code(PacketKind::PubRec, id, ReasonCode::TopicNameInvalid);
    let id = client.send_subscribe(&[("a/b/#", PLAIN), ("a/#", PLAIN)], 0);
    client.expect(&Got::SubAck { id, codes: vec![ReasonCode::TopicFilterInvalid as u8, 0] });
    client.publish("a/b/c", "x", QoS::AtMostOnce);
    client.expect_closed(ReasonCode::TopicNameInvalid);

    let client = world.connect(Setup::new(Version::V311, "c"));
    let id = client.send_subscribe(&[("a/b/#", PLAIN), ("a/#", PLAIN)], 0);
    client.expect(&Got::SubAck { id, codes: vec![0x80, 0] });
    client.publish("a/b/c", "x", QoS::AtLeastOnce);
    client.expect_silently_closed();
}

#[test]
fn sessions_and_their_subscriptions_have_limits() {
    both(|version| {
        let world = World::limited(|limits| {
            limits.sessions_max = 2;
            limits.session_subscriptions_max = 1;
        });
        world.connect(Setup::durable(version, "a")).drop_link();
        let client = world.connect(Setup::new(version, "b"));
        let refused = world.send_connect(Setup::new(version, "c"));
        let code = if version.is_v5() { ReasonCode::QuotaExceeded as u8 } else { 3 };
        assert!(matches!(refused.recv(), Some(Got::ConnAck { code: found, .. }) if found == code));
        refused.expect_silently_closed();
        world.connect(Setup::durable(version, "a"));

        let id = client.send_subscribe(&[("a", PLAIN), ("b", PLAIN), ("a", PLAIN)], 0);
        let code = if version.is_v5() { ReasonCode::QuotaExceeded as u8 } else { 0x80 };
        client.expect(&Got::SubAck { id, codes: vec![0, code, 0] });
        world.assert_accounting();
    });
}

// A SUBSCRIBE sets off no more than there is room for, however many retained messages it matches and
// however often it names a filter.
#[test]
fn retained_messages_are_read_for_a_subscription_as_there_is_room() {
    let world = World::limited(|limits| limits.outbox_bytes_max = 4096);
    let publisher = world.connect(Setup::v5("p"));
    for number in 0..2000 {
        publisher
            .publish_with(&format!("r/{number:04}"), "x", QoS::AtMostOnce, |publish| publish.retain = true);
    }
    let client = world.connect(Setup::v5("c").manual());
    client.stall();
    let id = client.send_subscribe(&vec![("r/#", PLAIN); 500], 0);
    let waiting = world.waiting("c");
    assert!(waiting <= 256, "{waiting} messages wait in the session");
    client.unstall();
    client.expect(&Got::SubAck { id, codes: vec![0; 500] });
    for number in 0..2000 {
        client.expect_publish(&format!("r/{number:04}"), "x");
    }
    client.expect_nothing();
    world.assert_accounting();
}

#[test]
fn a_packet_has_so_many_filters_and_a_session_so_many_shares() {
    let world = World::limited(|limits| {
        limits.packet_filters_max = 2;
        limits.session_shares_max = 1;
    });
    let client = world.connect(Setup::v5("c"));
    let id = client.send_subscribe(&[("$share/g/a", PLAIN), ("$share/h/a", PLAIN)], 0);
    client.expect(&Got::SubAck { id, codes: vec![0, ReasonCode::QuotaExceeded as u8] });
    client.unsubscribe("$share/g/a");
    let id = client.send_subscribe(&[("$share/h/a", PLAIN)], 0);
    client.expect(&Got::SubAck { id, codes: vec![0] });
    client.send_subscribe(&[("a", PLAIN), ("b", PLAIN), ("c", PLAIN)], 0);
    client.expect_closed(ReasonCode::QuotaExceeded);
    world.assert_accounting();
}

// Those who read are served though the queues of those who do not are full.
#[test]
fn full_queues_do_not_hold_up_who_has_room() {
    let world = World::limited(|limits| limits.queues_bytes_max = 100);
    let slow = world.connect(Setup::v5("slow").manual());
    slow.subscribe("bulk", QoS::AtLeastOnce);
    let good = world.connect(Setup::v5("good"));
    good.subscribe("other", QoS::AtLeastOnce);
    let publisher = world.connect(Setup::v5("p").manual());
    let id = publisher.publish("bulk", &"x".repeat(90), QoS::AtLeastOnce);
    publisher.expect_ack(PacketKind::PubAck, id);
    world.advance(std::time::Duration::from_secs(1));
    let id = publisher.publish("other", &"x".repeat(90), QoS::AtLeastOnce);
    publisher.expect_ack(PacketKind::PubAck, id);
    good.expect_publish("other", &"x".repeat(90));
    let id = publisher.publish("nobody", &"x".repeat(90), QoS::AtLeastOnce);
    publisher.expect_code(PacketKind::PubAck, id, ReasonCode::NoMatchingSubscribers);
}

// [MQTT-3.3.1-5] What cannot be kept supersedes what was.
#[test]
fn a_retained_message_that_cannot_be_kept_leaves_no_old_one() {
    let world = World::limited(|limits| limits.retained_bytes_max = 4);
    let client = world.connect(Setup::v5("c"));
    client.publish_with("t", "old", QoS::AtMostOnce, |publish| publish.retain = true);
    assert_eq!(world.shared().retained.messages(), 1);
    client.publish_with("t", "much newer", QoS::AtMostOnce, |publish| publish.retain = true);
    assert_eq!((world.shared().retained.messages(), world.shared().retained.bytes()), (0, 0));
    world.assert_accounting();
}

// The name is in the record of each message that comes through the subscription.
#[test]
fn a_share_name_has_a_limit_so_that_small_messages_stay_small() {
    both(|version| {
        let world = World::new();
        let client = world.connect(Setup::durable(version, "c"));
        client.subscribe(&format!("$share/{}/t", "n".repeat(256)), QoS::AtLeastOnce);
        let filter = format!("$share/{}/t", "n".repeat(257));
        let id = client.send_subscribe(&[(&filter, SubscriptionOptions::default())], 0);
        let code = if version.is_v5() { ReasonCode::TopicFilterInvalid as u8 } else { 0x80 };
        client.expect(&Got::SubAck { id, codes: vec![code] });
        world.assert_accounting();
    });
}
