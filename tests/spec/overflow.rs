//! What happens when there is no room in the queue of a session, or in all queues together: by policy.

use std::time::Duration;

use dunlin::{
    broker::{DropReason, Dropped},
    codec::{PacketKind, QoS, ReasonCode, Version},
    limits::{Durability, Limits, Overflow},
};

use super::full_disk::fill;
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
pub(super) fn ack_of(qos: QoS) -> PacketKind {
    if qos == QoS::AtLeastOnce { PacketKind::PubAck } else { PacketKind::PubRec }
}

/// A session with this subscription that is away.
pub(super) fn away(world: &World, version: Version, id: &str, filter: &str) {
    let client = world.connect(Setup::durable(version, id));
    client.subscribe(filter, QoS::ExactlyOnce);
    client.drop_link();
}

/// Publishes these payloads, each of which is acknowledged.
pub(super) fn publish_all(publisher: &Client, topic: &str, payloads: &[&str], qos: QoS) {
    for payload in payloads {
        let id = publisher.publish(topic, payload, qos);
        publisher.expect_ack(ack_of(qos), id);
    }
}

/// What a session gets when it comes back.
pub(super) fn fetch(world: &World, version: Version, id: &str) -> Vec<String> {
    world.connect(Setup::durable(version, id)).recv_payloads()
}

pub(super) fn drops_of(world: &World, client_id: &str) -> Vec<(String, DropReason, String, u64)> {
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
fn backpressure_ends_far_beyond_the_limit() {
    for which in BOTH {
        let world = World::limited(|limits| {
            set(limits, which, 1000, Overflow::Backpressure);
            match which {
                Which::Session => limits.session_queue_bytes_max = 1024,
                Which::All => limits.queues_bytes_max = 1024,
            }
        });
        away(&world, Version::V5, "s", "t");
        let publisher = world.connect(Setup::v5("p").manual());
        let payload = "x".repeat(15 << 20);
        let ids: Vec<u16> = (0..6).map(|_| publisher.publish("t", &payload, QoS::AtLeastOnce)).collect();
        assert_eq!(world.queued_messages(), 5);
        assert_eq!(fetch(&world, Version::V5, "s").len(), 5);
        world.advance(LOOK);
        for id in &ids[..5] {
            publisher.expect_ack(PacketKind::PubAck, *id);
        }
        publisher.expect_code(PacketKind::PubAck, ids[5], ReasonCode::QuotaExceeded);
        world.assert_accounting();
    }
}

// A refusal is an answer like any other: it waits behind what is withheld, and counts until it has left.
#[test]
fn refusals_behind_what_is_withheld_count_against_the_receive_maximum() {
    let world = World::limited(|limits| {
        set(limits, Which::Session, 1, Overflow::Backpressure);
        limits.receive_maximum = 3;
    });
    away(&world, Version::V5, "s", "t");
    let publisher = world.connect(Setup::v5("p").manual());
    publish_all(&publisher, "t", &["0"], QoS::AtLeastOnce);
    publisher.publish("t", "withheld", QoS::AtLeastOnce);
    fill(&world);
    for _ in 0..2 {
        publisher.publish("t", "refused", QoS::ExactlyOnce);
    }
    publisher.expect_nothing();
    publisher.publish("t", "too much", QoS::ExactlyOnce);
    publisher.expect_closed(ReasonCode::ReceiveMaximumExceeded);
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
    // Its own answers wait for nothing, so that it makes room at once.
    let subscriber = world.connect(Setup::durable(Version::V5, "s").durability(Durability::None));
    assert_eq!(subscriber.recv_payloads(), ["1", "2"]);
    world.advance(LOOK);
    publisher.expect_nothing();
    world.release_commits();
    publisher.expect_ack(PacketKind::PubAck, id);
    world.assert_accounting();
}
