//! What happens when there is no room: by policy, in the queue of one session and in all together, and on the
//! disk. And what is told of what was dropped.

use std::{sync::atomic::Ordering, time::Duration};

use dunlin::{
    broker::{DropReason, Dropped, EVENT_TOPIC},
    codec::{PacketKind, QoS, ReasonCode, SubscriptionOptions, Version},
    limits::{Limits, Overflow},
};

use crate::world::{Client, Got, Setup, WillSetup, World, both};

const DROPPING: [Overflow; 2] = [Overflow::DropOldest, Overflow::DropNewest];
const LASTING: [QoS; 2] = [QoS::AtLeastOnce, QoS::ExactlyOnce];

/// Which limit is reached: that of one session, or that of all.
#[derive(Clone, Copy, Debug)]
enum Which {
    Session,
    All,
}

const BOTH: [Which; 2] = [Which::Session, Which::All];

/// A broker whose queues take so many messages.
fn world(which: Which, messages_max: usize, overflow: Overflow) -> World {
    World::limited(|limits| set(limits, which, messages_max, overflow))
}

fn set(limits: &mut Limits, which: Which, messages_max: usize, overflow: Overflow) {
    match which {
        Which::Session => {
            limits.session_queue_messages_max = messages_max;
            limits.session_queue_overflow = overflow;
        }
        Which::All => {
            limits.queues_messages_max = messages_max;
            limits.queues_overflow = overflow;
        }
    }
}

/// The acknowledgement that accepts a PUBLISH.
fn ack_of(qos: QoS) -> PacketKind {
    if qos == QoS::AtLeastOnce { PacketKind::PubAck } else { PacketKind::PubRec }
}

/// A session with this subscription that is away.
fn away(world: &World, version: Version, id: &str, filter: &str) {
    let client = world.connect(Setup::durable(version, id));
    client.subscribe(filter, QoS::ExactlyOnce);
    client.drop_link();
}

/// Publishes these payloads, each of which is acknowledged.
fn publish_all(publisher: &Client, topic: &str, payloads: &[&str], qos: QoS) {
    for payload in payloads {
        let id = publisher.publish(topic, payload, qos);
        publisher.expect_ack(ack_of(qos), id);
    }
}

/// What a session gets when it comes back.
fn fetch(world: &World, version: Version, id: &str) -> Vec<String> {
    world.connect(Setup::durable(version, id)).recv_payloads()
}

fn drops_of(world: &World, client_id: &str) -> Vec<(String, DropReason, String, u64)> {
    let drops = world.drop_account().into_iter().filter(|drop| *drop.client_id == *client_id);
    let line = |drop: Dropped| (drop.filter.to_string(), drop.reason, drop.topic.to_string(), drop.total);
    drops.map(line).collect()
}

#[test]
fn by_default_nothing_is_acknowledged_and_dropped() {
    let limits = Limits::default();
    assert_eq!((limits.session_queue_overflow, limits.queues_overflow), (Overflow::Reject, Overflow::Reject));
    for which in BOTH {
        let world = world(which, 2, Overflow::Reject);
        away(&world, Version::V5, "s", "t");
        let publisher = world.connect(Setup::v5("p").manual());
        publish_all(&publisher, "t", &["1", "2"], QoS::AtLeastOnce);
        let id = publisher.publish("t", "3", QoS::AtLeastOnce);
        publisher.expect_code(PacketKind::PubAck, id, ReasonCode::QuotaExceeded);
        assert_eq!(fetch(&world, Version::V5, "s"), ["1", "2"]);
        assert_eq!(world.drops(DropReason::QueueFull), 0);
        world.assert_accounting();
    }
}

#[test]
fn drop_oldest_keeps_the_newest_and_drop_newest_the_oldest() {
    both(|version| {
        for (overflow, kept) in DROPPING.into_iter().zip([["3", "4"], ["1", "2"]]) {
            for (which, qos) in BOTH.into_iter().flat_map(|which| LASTING.map(|qos| (which, qos))) {
                let world = world(which, 2, overflow);
                away(&world, version, "s", "t");
                let publisher = world.connect(Setup::new(version, "p").manual());
                publish_all(&publisher, "t", &["1", "2", "3", "4"], qos);
                assert_eq!(world.queued_messages(), 2);
                assert_eq!(fetch(&world, version, "s"), kept, "{which:?} {overflow:?}");
                assert_eq!(world.drops(DropReason::QueueFull), 2);
                assert_eq!(drops_of(&world, "s"), [("t".into(), DropReason::QueueFull, "t".into(), 2)]);
                world.assert_accounting();
            }
        }
    });
}

#[test]
fn a_message_is_dropped_for_the_session_that_has_no_room_alone() {
    for overflow in DROPPING {
        let world = world(Which::Session, 1, overflow);
        away(&world, Version::V5, "full", "t");
        let other = world.connect(Setup::v5("other"));
        other.subscribe("t", QoS::AtLeastOnce);
        let publisher = world.connect(Setup::v5("p").manual());
        publish_all(&publisher, "t", &["1", "2", "3"], QoS::AtLeastOnce);
        assert_eq!(other.recv_payloads(), ["1", "2", "3"]);
        assert_eq!(world.drops(DropReason::QueueFull), 2);
        world.assert_accounting();
    }
}

#[test]
fn what_was_sent_is_not_dropped_for_what_was_not() {
    for which in BOTH {
        let world = world(which, 3, Overflow::DropOldest);
        let subscriber = world.connect(Setup::durable(Version::V5, "s").receive_maximum(2).manual());
        subscriber.subscribe("t", QoS::AtLeastOnce);
        let publisher = world.connect(Setup::v5("p").manual());
        publish_all(&publisher, "t", &["1", "2", "3", "4", "5"], QoS::AtLeastOnce);
        let sent = subscriber.recv_messages();
        assert_eq!(sent.len(), 2);
        for message in &sent {
            subscriber.ack(PacketKind::PubAck, message.id());
        }
        assert_eq!(subscriber.recv_payloads(), ["5"]);
        assert_eq!(world.drops(DropReason::QueueFull), 2);
        world.assert_accounting();
    }
}

// A queue of which all was sent has nothing to drop: the new message is over the limit.
#[test]
fn the_newest_message_itself_is_not_the_oldest() {
    let world = world(Which::Session, 2, Overflow::DropOldest);
    let subscriber = world.connect(Setup::durable(Version::V5, "s").receive_maximum(2).manual());
    subscriber.subscribe("t", QoS::AtLeastOnce);
    let publisher = world.connect(Setup::v5("p").manual());
    publish_all(&publisher, "t", &["1", "2", "3"], QoS::AtLeastOnce);
    assert_eq!(world.drops(DropReason::QueueFull), 0);
    assert_eq!(world.queued_messages(), 3);
    publish_all(&publisher, "t", &["4"], QoS::AtLeastOnce);
    assert_eq!(world.drops(DropReason::QueueFull), 1);
    world.assert_accounting();
}

#[test]
fn a_session_that_ends_with_its_connection_is_subject_to_the_policy_instead_of_being_closed() {
    both(|version| {
        for (overflow, kept) in DROPPING.into_iter().zip([["3", "4"], ["1", "2"]]) {
            let world = World::limited(|limits| {
                set(limits, Which::Session, 2, overflow);
                limits.outbox_bytes_max = 1;
            });
            let subscriber = world.connect(Setup::new(version, "s"));
            subscriber.subscribe("t", QoS::AtLeastOnce);
            subscriber.stall();
            // Fills the outbox, so that what comes next waits in the queue.
            let publisher = world.connect(Setup::new(version, "p").manual());
            publisher.publish("t", "0", QoS::AtMostOnce);
            publish_all(&publisher, "t", &["1", "2", "3", "4"], QoS::AtLeastOnce);
            subscriber.unstall();
            assert_eq!(subscriber.recv_payloads()[1..], kept);
            assert!(!subscriber.is_closed());
            world.assert_accounting();
        }
    });
}

#[test]
fn limits_by_bytes_shed_as_many_messages_as_it_takes() {
    for which in BOTH {
        let world = World::limited(|limits| {
            set(limits, which, 1000, Overflow::DropOldest);
            match which {
                Which::Session => limits.session_queue_bytes_max = 1000,
                Which::All => limits.queues_bytes_max = 1000,
            }
        });
        away(&world, Version::V5, "s", "t");
        let publisher = world.connect(Setup::v5("p").manual());
        let (small, large) = ("s".repeat(100), "l".repeat(950));
        publish_all(&publisher, "t", &[&small, &small, &small, &large], QoS::AtLeastOnce);
        assert_eq!(fetch(&world, Version::V5, "s"), [large]);
        assert_eq!(world.drops(DropReason::QueueFull), 3);
        world.assert_accounting();
    }
}

#[test]
fn sessions_on_other_shards_drop_and_count_for_themselves() {
    for (overflow, kept) in DROPPING.into_iter().zip(["3", "1"]) {
        let world = World::with(3, |shared| set(&mut shared.limits, Which::Session, 1, overflow));
        let ids: Vec<String> = (0..3).map(|shard| world.id_on(shard, "s")).collect();
        for id in &ids {
            away(&world, Version::V5, id, "t/+");
        }
        let publisher = world.connect(Setup::v5(&world.id_on(0, "p")).manual());
        publish_all(&publisher, "t/x", &["1", "2", "3"], QoS::ExactlyOnce);
        for id in &ids {
            assert_eq!(drops_of(&world, id), [("t/+".into(), DropReason::QueueFull, "t/x".into(), 2)]);
            assert_eq!(fetch(&world, Version::V5, id), [kept]);
        }
        world.assert_accounting();
    }
}

#[test]
fn a_will_that_nobody_waits_for_is_dropped_where_a_client_would_have_to_wait() {
    for (overflow, kept) in
        [(Overflow::Backpressure, "1"), (Overflow::DropNewest, "1"), (Overflow::DropOldest, "w")]
    {
        let world = world(Which::Session, 1, overflow);
        away(&world, Version::V5, "s", "#");
        let publisher = world.connect(Setup::v5("p").manual());
        publish_all(&publisher, "t", &["1"], QoS::AtLeastOnce);
        world.connect(Setup::v5("c").will(WillSetup::new("w", "w").qos(QoS::AtLeastOnce))).drop_link();
        assert_eq!(fetch(&world, Version::V5, "s"), [kept], "{overflow:?}");
        assert_eq!(world.drops(DropReason::QueueFull), 1);
        world.assert_accounting();
    }
}

/// Time in which the broker looks again whether there is room.
const LOOK: Duration = Duration::from_millis(25);

#[test]
fn backpressure_withholds_the_acknowledgement_until_there_is_room() {
    both(|version| {
        for (which, qos) in BOTH.into_iter().flat_map(|which| LASTING.map(|qos| (which, qos))) {
            let world = world(which, 2, Overflow::Backpressure);
            away(&world, version, "s", "t");
            let publisher = world.connect(Setup::new(version, "p").manual());
            publish_all(&publisher, "t", &["1", "2"], qos);
            let third = publisher.publish("t", "3", qos);
            let fourth = publisher.publish("t", "4", qos);
            world.advance_secs(10);
            publisher.expect_nothing();
            assert_eq!(world.queued_messages(), 4);
            let subscriber = world.connect(Setup::durable(version, "s").manual());
            let messages = subscriber.recv_messages();
            assert_eq!(messages.len(), 4);
            subscriber.ack(ack_of(qos), messages[0].id());
            world.advance(LOOK);
            // Three are queued, one more than may.
            publisher.expect_nothing();
            subscriber.ack(ack_of(qos), messages[1].id());
            world.advance(LOOK);
            publisher.expect_ack(ack_of(qos), third);
            publisher.expect_ack(ack_of(qos), fourth);
            world.advance_secs(10);
            assert_eq!(world.drops(DropReason::QueueFull), 0);
            world.assert_accounting();
        }
    });
}

// [MQTT-4.6.0-2] [MQTT-4.6.0-3] [MQTT-3.1.1/4.6.0-2]
#[test]
fn what_is_published_elsewhere_is_acknowledged_behind_what_is_withheld() {
    both(|version| {
        let world = world(Which::Session, 1, Overflow::Backpressure);
        away(&world, version, "s", "t");
        let publisher = world.connect(Setup::new(version, "p").manual());
        publish_all(&publisher, "t", &["1"], QoS::AtLeastOnce);
        let first = publisher.publish("t", "2", QoS::AtLeastOnce);
        let second = publisher.publish("nobody", "x", QoS::ExactlyOnce);
        let third = publisher.publish("nobody", "x", QoS::AtLeastOnce);
        // The same QoS 2 message again, and others' packets, are heard and change nothing.
        publisher.publish_as(second, "nobody", "x", QoS::ExactlyOnce, |publish| publish.dup = true);
        publisher.ping();
        publisher.expect(&Got::PingResp);
        publisher.expect_nothing();
        assert_eq!(fetch(&world, version, "s"), ["1", "2"]);
        world.advance(LOOK);
        publisher.expect_ack(PacketKind::PubAck, first);
        publisher.expect_ack(PacketKind::PubRec, second);
        let code = if version.is_v5() { ReasonCode::NoMatchingSubscribers } else { ReasonCode::Success };
        publisher.expect(&Got::coded(PacketKind::PubAck, third, code));
        publisher.expect_ack(PacketKind::PubRec, second);
        publisher.expect_nothing();
        world.assert_accounting();
    });
}

#[test]
fn a_client_may_publish_to_its_own_full_queue_and_makes_room_itself() {
    both(|version| {
        for qos in LASTING {
            let world = World::limited(|limits| {
                set(limits, Which::Session, 1, Overflow::Backpressure);
                limits.receive_maximum = 2;
                limits.inflight_messages_max = 1;
            });
            let client = world.connect(Setup::durable(version, "c").receive_maximum(1));
            client.subscribe("t", qos);
            let ids: Vec<u16> = (0..2).map(|_| client.publish("t", "x", qos)).collect();
            world.advance_secs(1);
            let payloads = client.recv_payloads();
            assert_eq!(payloads, ["x", "x"], "{qos:?} {ids:?}");
            let id = client.publish("t", "y", qos);
            world.advance_secs(1);
            let got = client.recv_all();
            assert!(
                got.iter().any(|got| matches!(got, Got::Publish(message) if message.payload == "y")),
                "{id}"
            );
            assert_eq!(world.queued_messages(), 0);
            world.assert_accounting();
        }
    });
}

#[test]
fn a_withheld_publisher_is_stopped_by_its_receive_maximum_or_not_read_any_more() {
    both(|version| {
        let world = World::limited(|limits| {
            set(limits, Which::Session, 1, Overflow::Backpressure);
            limits.receive_maximum = 3;
        });
        away(&world, version, "s", "t");
        let publisher = world.connect(Setup::new(version, "p").keep_alive(10).manual());
        publish_all(&publisher, "t", &["0"], QoS::AtLeastOnce);
        let ids: Vec<u16> = (0..3).map(|_| publisher.publish("t", "x", QoS::AtLeastOnce)).collect();
        if version.is_v5() {
            publisher.publish("t", "too much", QoS::AtLeastOnce);
            publisher.expect_closed(ReasonCode::ReceiveMaximumExceeded);
        } else {
            publisher.publish("t", "waits in its socket", QoS::AtLeastOnce);
            assert!(!publisher.is_read());
            // That the broker does not read it is not the client's silence.
            world.advance_secs(60);
            publisher.expect_nothing();
            assert_eq!(world.queued_messages(), 4);
            world.connect(Setup::durable(version, "s"));
            world.advance(LOOK);
            assert!(publisher.is_read());
            world.advance(LOOK);
            ids.into_iter().for_each(|id| publisher.expect_ack(PacketKind::PubAck, id));
            publisher.expect_ack(PacketKind::PubAck, 5);
        }
        world.assert_accounting();
    });
}

// A client before MQTT 5 that is owed acknowledgements and owes some itself must not wait for itself: it is
// read, and what it publishes beyond what may wait is not acknowledged.
#[test]
fn a_client_that_has_to_acknowledge_is_read_however_much_is_withheld() {
    let world = World::limited(|limits| {
        set(limits, Which::Session, 1, Overflow::Backpressure);
        (limits.receive_maximum, limits.inflight_messages_max) = (2, 1);
    });
    let client = world.connect(Setup::durable(Version::V311, "c").manual());
    client.subscribe("t", QoS::AtLeastOnce);
    let ids: Vec<u16> = (0..5).map(|_| client.publish("t", "x", QoS::AtLeastOnce)).collect();
    assert!(client.is_read());
    let mut acknowledged = Vec::new();
    for _ in 0..10 {
        for got in client.recv_all() {
            match got {
                Got::Publish(message) => client.ack(PacketKind::PubAck, message.id()),
                Got::Ack { kind: PacketKind::PubAck, id, code: 0, .. } => acknowledged.push(id),
                other => panic!("got {other:?}"),
            }
        }
        world.advance(LOOK);
    }
    assert_eq!(acknowledged, ids[..3]);
    assert_eq!(world.queued_messages(), 0);
    world.assert_accounting();
}

#[test]
fn a_withheld_client_is_closed_for_its_silence_like_any_other() {
    let world = world(Which::Session, 1, Overflow::Backpressure);
    away(&world, Version::V5, "s", "t");
    let publisher = world.connect(Setup::v5("p").keep_alive(10).manual());
    publish_all(&publisher, "t", &["1"], QoS::AtLeastOnce);
    publisher.publish("t", "2", QoS::AtLeastOnce);
    world.advance_secs(16);
    publisher.expect_closed(ReasonCode::KeepAliveTimeout);
    world.assert_accounting();
}

#[test]
fn what_is_withheld_ends_with_its_connection() {
    both(|version| {
        let world = world(Which::Session, 1, Overflow::Backpressure);
        away(&world, version, "s", "t");
        let setup = Setup::durable(version, "p").manual();
        let publisher = world.connect(setup.clone());
        publish_all(&publisher, "t", &["1"], QoS::AtLeastOnce);
        publisher.publish("t", "2", QoS::AtLeastOnce);
        publisher.drop_link();
        world.assert_accounting();
        let publisher = world.connect(setup);
        assert_eq!(fetch(&world, version, "s"), ["1", "2"]);
        world.advance_secs(1);
        publisher.expect_nothing();
        world.assert_accounting();
    });
}

#[test]
fn what_is_withheld_for_a_session_that_ends_is_let_go() {
    let world = world(Which::Session, 1, Overflow::Backpressure);
    away(&world, Version::V5, "s", "t");
    let publisher = world.connect(Setup::v5("p").manual());
    publish_all(&publisher, "t", &["1"], QoS::AtLeastOnce);
    let id = publisher.publish("t", "2", QoS::AtLeastOnce);
    world.connect(Setup::v5("s")).disconnect();
    world.advance(LOOK);
    publisher.expect_ack(PacketKind::PubAck, id);
    world.assert_accounting();
}

#[test]
fn what_is_withheld_waits_for_the_store_too() {
    let world = world(Which::Session, 1, Overflow::Backpressure);
    away(&world, Version::V5, "s", "t");
    let publisher = world.connect(Setup::v5("p").manual());
    publish_all(&publisher, "t", &["1"], QoS::AtLeastOnce);
    world.hold_commits();
    let id = publisher.publish("t", "2", QoS::AtLeastOnce);
    let subscriber = world.send_connect(Setup::durable(Version::V5, "s"));
    world.advance(LOOK);
    publisher.expect_nothing();
    world.release_commits();
    assert_eq!(subscriber.recv_payloads(), ["1", "2"]);
    world.advance(LOOK);
    publisher.expect_ack(PacketKind::PubAck, id);
    world.assert_accounting();
}

/// A broker whose disk is full from here on.
fn fill(world: &World) {
    world.shared().store_full.store(true, Ordering::Relaxed);
}

#[test]
fn a_full_disk_refuses_what_needs_it_and_nothing_else() {
    both(|version| {
        let world = World::new();
        away(&world, version, "away", "kept/#");
        let durable = world.connect(Setup::durable(version, "durable").manual());
        let clean = world.connect(Setup::new(version, "clean").manual());
        let reader = world.connect(Setup::new(version, "reader"));
        reader.subscribe("#", QoS::ExactlyOnce);
        publish_all(&clean, "kept/0", &["before"], QoS::AtLeastOnce);
        fill(&world);
        let refused = [
            (&clean, "kept/1", QoS::AtLeastOnce, false),
            (&clean, "kept/2", QoS::ExactlyOnce, false),
            (&clean, "retained", QoS::AtLeastOnce, true),
            (&durable, "own", QoS::ExactlyOnce, false),
        ];
        for (client, topic, qos, retain) in refused {
            let id = client.publish_with(topic, "refused", qos, |publish| publish.retain = retain);
            if version.is_v5() {
                client.expect_code(ack_of(qos), id, ReasonCode::QuotaExceeded);
            }
            client.expect_nothing();
        }
        let taken = [(&clean, QoS::ExactlyOnce), (&clean, QoS::AtLeastOnce), (&durable, QoS::AtLeastOnce)];
        for (client, qos) in taken {
            publish_all(client, "passing", &["taken"], qos);
        }
        clean.publish("kept/3", "taken", QoS::AtMostOnce);
        assert_eq!(reader.recv_payloads(), ["before", "taken", "taken", "taken", "taken"]);
        // What is queued is delivered.
        assert_eq!(fetch(&world, version, "away"), ["before"]);
        // And when there is room again all goes on.
        world.shared().store_full.store(false, Ordering::Relaxed);
        publish_all(&clean, "kept/1", &["again"], QoS::AtLeastOnce);
        world.assert_accounting();
    });
}

#[test]
fn a_full_disk_takes_no_new_sessions_that_last_and_no_new_subscriptions_of_theirs() {
    both(|version| {
        let world = World::new();
        let known = world.connect(Setup::durable(version, "known"));
        known.subscribe("t", QoS::AtLeastOnce);
        fill(&world);
        let code = if version.is_v5() { 0x97 } else { 3 };
        let refused = world.send_connect(Setup::durable(version, "new"));
        assert!(matches!(refused.recv(), Some(Got::ConnAck { code: found, .. }) if found == code));
        refused.expect_silently_closed();
        // Who is known goes on, with the subscriptions that it has; who needs nothing kept is welcome.
        let known = world.connect(Setup::durable(version, "known"));
        known.subscribe("t", QoS::AtLeastOnce);
        let id = known.send_subscribe(&[("u", SubscriptionOptions::default())], 0);
        let refused = if version.is_v5() { 0x97 } else { 0x80 };
        known.expect(&Got::SubAck { id, codes: vec![refused] });
        known.unsubscribe("t");
        let clean = world.connect(Setup::new(version, "clean"));
        clean.subscribe("u", QoS::AtLeastOnce);
        world.assert_accounting();
    });
}

#[test]
fn a_will_that_the_full_disk_cannot_keep_is_dropped_and_counted() {
    let world = World::new();
    away(&world, Version::V5, "away", "w");
    let here = world.connect(Setup::v5("here"));
    here.subscribe("w", QoS::AtLeastOnce);
    let client = world.connect(Setup::v5("c").will(WillSetup::new("w", "x").qos(QoS::AtLeastOnce)));
    fill(&world);
    client.drop_link();
    assert_eq!(here.recv_payloads(), ["x"]);
    assert_eq!(drops_of(&world, "away"), [("w".into(), DropReason::StoreFull, "w".into(), 1)]);
    world.assert_accounting();
}

#[test]
fn drops_are_counted_by_client_filter_and_reason() {
    both(|version| {
        let world = World::limited(|limits| limits.outbox_bytes_max = 40);
        let client = world.connect(Setup::new(version, "c"));
        for filter in ["a/#", "a/b", "b"] {
            client.subscribe(filter, QoS::AtMostOnce);
        }
        let publisher = world.connect(Setup::new(version, "p"));
        client.stall();
        publisher.publish("b", &"x".repeat(50), QoS::AtMostOnce);
        for topic in ["a/b", "b", "a/c", "a/b"] {
            publisher.publish(topic, "lost", QoS::AtMostOnce);
        }
        client.unstall();
        // The first of its filters, in their order, is the one that counts.
        let mut drops = drops_of(&world, "c");
        drops.sort_by(|one, other| one.0.cmp(&other.0));
        let line = |filter: &str, topic: &str, total| {
            (filter.to_owned(), DropReason::OutboxFull, topic.to_owned(), total)
        };
        assert_eq!(drops, [line("a/#", "a/b", 3), line("b", "b", 1)]);
        world.assert_accounting();
    });
}

#[test]
fn the_account_of_drops_has_a_limit_and_counts_the_rest_together() {
    let world = World::new();
    let publisher = world.connect(Setup::v5("p"));
    for number in 0..4200 {
        let client = world.connect(Setup::durable(Version::V5, &format!("c{number}")));
        client.subscribe("t", QoS::AtMostOnce);
        client.drop_link();
    }
    publisher.publish("t", "x", QoS::AtMostOnce);
    let account = world.drop_account();
    assert_eq!(account.len(), 4097);
    assert_eq!(drops_of(&world, "others"), [("others".into(), DropReason::Offline, "t".into(), 104)]);
    // What an event has told of makes room for what is new.
    world.advance_secs(1);
    away(&world, Version::V5, "new", "u");
    world.connect(Setup::durable(Version::V5, "new")).subscribe("u", QoS::AtMostOnce);
    world.connect(Setup::durable(Version::V5, "new")).drop_link();
    for _ in 0..2 {
        publisher.publish("u", "x", QoS::AtMostOnce);
    }
    assert_eq!(drops_of(&world, "new"), [("u".into(), DropReason::Offline, "u".into(), 2)]);
    assert_eq!(drops_of(&world, "others"), [("others".into(), DropReason::Offline, "t".into(), 105)]);
    // What is too long to be kept takes nobody's place.
    away(&world, Version::V5, &"l".repeat(2000), "v");
    world.connect(Setup::durable(Version::V5, &"l".repeat(2000))).subscribe("v", QoS::AtMostOnce);
    world.connect(Setup::durable(Version::V5, &"l".repeat(2000))).drop_link();
    world.advance_secs(2);
    publisher.publish("v", "x", QoS::AtMostOnce);
    assert_eq!(drops_of(&world, "others"), [("others".into(), DropReason::Offline, "v".into(), 106)]);
    assert_eq!(world.drop_account().len(), 4097);
    world.assert_accounting();
}

/// The events that a client got since the last call.
fn events(client: &Client) -> Vec<serde_json::Value> {
    let messages = client.recv_messages().into_iter();
    let messages = messages.inspect(|message| assert!(message.topic == EVENT_TOPIC && !message.retain));
    messages.map(|message| serde_json::from_str(&message.payload).expect("an event is JSON")).collect()
}

#[test]
fn drops_are_told_once_a_second() {
    let world = World::new();
    let watcher = world.connect(Setup::v5("watcher"));
    watcher.subscribe("$SYS/broker/events/#", QoS::ExactlyOnce);
    away(&world, Version::V5, "quo\"ted", "t/+");
    let quoted = world.connect(Setup::durable(Version::V5, "quo\"ted"));
    quoted.subscribe("t/+", QoS::AtMostOnce);
    quoted.drop_link();
    let publisher = world.connect(Setup::v5("p"));
    for topic in ["t/1", "t/2", "t/3"] {
        publisher.publish(topic, "x", QoS::AtMostOnce);
    }
    assert_eq!(events(&watcher), [] as [serde_json::Value; 0]);
    world.advance(Duration::from_millis(999));
    assert_eq!(events(&watcher).len(), 0);
    world.advance(Duration::from_millis(1));
    let event = |topic: &str, count: u64, total: u64| {
        serde_json::json!({
            "client": "quo\"ted", "filter": "t/+", "topic": topic, "reason": "offline", "count": count, "total": total
        })
    };
    assert_eq!(events(&watcher), [event("t/3", 3, 3)]);
    publisher.publish("t/4", "x", QoS::AtMostOnce);
    world.advance_secs(1);
    assert_eq!(events(&watcher), [event("t/4", 1, 4)]);
    // With nothing to tell there is no timer.
    world.advance_secs(10);
    assert_eq!(events(&watcher).len(), 0);
    world.assert_accounting();
}

#[test]
fn an_event_that_is_dropped_is_not_told_by_another() {
    let world = World::new();
    let watcher = world.connect(Setup::durable(Version::V5, "watcher"));
    watcher.subscribe("$SYS/#", QoS::AtMostOnce);
    watcher.subscribe("t", QoS::AtMostOnce);
    watcher.drop_link();
    world.connect(Setup::v5("p")).publish("t", "x", QoS::AtMostOnce);
    world.advance_secs(60);
    // The message, and the event that told of it.
    assert_eq!(world.drops(DropReason::Offline), 2);
    world.assert_accounting();
}
