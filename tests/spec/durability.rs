//! What acknowledgements wait for, by what the listener promises.

use std::time::Duration;

use dunlin::{
    broker::Urgency,
    codec::{self, Decoded, PACKET_BYTES_LIMIT, Packet, PacketKind, QoS, Version},
    limits::Durability,
};

use crate::world::{Client, Got, Setup, World, all, both};

const WINDOW: Duration = Duration::from_millis(250);
const RELAXED: [Durability; 2] = [Durability::Interval(WINDOW), Durability::None];

/// What CONNACK says of durability.
fn told(client: &Client) -> Option<String> {
    let Some(Got::ConnAck { code: 0, frame, .. }) = client.recv() else { panic!("no CONNACK that accepts") };
    match codec::decode(&frame, client.version(), PACKET_BYTES_LIMIT) {
        Ok(Decoded::Packet(Packet::ConnAck(packet), _)) => {
            let mut told = packet.properties.user_properties.iter();
            told.find(|(name, _)| *name == "durability").map(|(_, value)| value.to_owned())
        }
        other => panic!("the frame was a CONNACK before: {other:?}"),
    }
}

#[test]
fn conn_ack_tells_what_acknowledgements_promise() {
    let world = World::new();
    let levels = [
        (Durability::Commit, "commit"),
        (Durability::Interval(Duration::from_millis(100)), "interval 100 ms"),
        (Durability::None, "none"),
    ];
    for (durability, text) in levels {
        let client = world.send_connect(Setup::v5("c").durability(durability));
        assert_eq!(told(&client).as_deref(), Some(text));
        // MQTT 3 has no place for it.
        let client = world.send_connect(Setup::new(Version::V311, "c").durability(durability));
        assert_eq!(told(&client), None);
    }
}

#[test]
fn a_store_that_does_not_outlive_the_process_promises_nothing() {
    let world = World::with(1, |shared| shared.is_lasting = false);
    let client = world.send_connect(Setup::v5("c"));
    assert_eq!(told(&client).as_deref(), Some("none"));
}

// [MQTT-3.2.2-20]
#[test]
fn conn_ack_leaves_out_what_does_not_fit() {
    let world = World::new();
    let mut sizes = (10..100).filter_map(|bytes_max| {
        let client = world.send_connect(Setup::v5("c").packet_max(bytes_max));
        let is_accepted = !client.is_closed();
        is_accepted.then(|| told(&client).is_some())
    });
    // From some size on the client can be told that it is connected, from some larger one on the rest.
    assert_eq!(sizes.next(), Some(false));
    let rest: Vec<bool> = sizes.collect();
    assert!(rest.is_sorted() && rest.last() == Some(&true), "{rest:?}");
}

// Request Problem Information does not concern CONNACK. [MQTT-3.1.2-29]
#[test]
fn conn_ack_tells_it_without_problem_information_too() {
    let world = World::new();
    let setup = Setup { problem_information: Some(false), ..Setup::v5("c") };
    assert_eq!(told(&world.send_connect(setup)).as_deref(), Some("commit"));
}

/// Whatever a client is owed when nothing is committed: the answers that do not wait.
fn answers_without_commit(version: Version, durability: Durability) -> (World, Vec<PacketKind>) {
    let world = World::new();
    let other = world.connect(Setup::durable(version, "other"));
    other.subscribe("q/#", QoS::ExactlyOnce);
    world.commit();
    world.hold_commits();
    let client = world.send_connect(Setup::durable(version, "c").durability(durability).manual());
    client.send_subscribe(&[("t", Default::default())], 0);
    client.send_unsubscribe(&["t"]);
    client.publish("q/1", "x", QoS::AtLeastOnce);
    let id = client.publish("q/2", "x", QoS::ExactlyOnce);
    client.ack(PacketKind::PubRel, id);
    let kinds = client.recv_all().into_iter().map(|got| match got {
        Got::ConnAck { .. } => PacketKind::ConnAck,
        Got::SubAck { .. } => PacketKind::SubAck,
        Got::UnsubAck { .. } => PacketKind::UnsubAck,
        Got::Ack { kind, .. } => kind,
        other => panic!("got {other:?}"),
    });
    let kinds = kinds.collect();
    (world, kinds)
}

#[test]
fn with_commit_no_answer_comes_before_the_commit() {
    all(|version| assert_eq!(answers_without_commit(version, Durability::Commit).1, []));
}

#[test]
fn with_less_no_answer_waits_for_the_store() {
    let kinds = [
        PacketKind::ConnAck,
        PacketKind::SubAck,
        PacketKind::UnsubAck,
        PacketKind::PubAck,
        PacketKind::PubRec,
        PacketKind::PubComp,
    ];
    all(|version| {
        for durability in RELAXED {
            assert_eq!(answers_without_commit(version, durability).1, kinds, "{durability}");
        }
    });
}

#[test]
fn the_store_is_told_how_long_it_may_take() {
    both(|version| {
        let levels = [
            (Durability::Commit, Urgency::Now),
            (Durability::Interval(WINDOW), Urgency::Within(WINDOW)),
            (Durability::None, Urgency::Lazy),
        ];
        for (durability, urgency) in levels {
            let world = World::new();
            let subscriber = world.connect(Setup::durable(version, "s").durability(durability));
            subscriber.subscribe("t", QoS::ExactlyOnce);
            subscriber.drop_link();
            world.urgencies();
            let client = world.connect(Setup::durable(version, "c").durability(durability).manual());
            client.publish("t", "x", QoS::AtLeastOnce);
            client.publish("t", "x", QoS::ExactlyOnce);
            let told = world.urgencies();
            assert_eq!(told.iter().min(), Some(&urgency), "{durability}");
        }
    });
}

// A QoS 2 message waits for the commit of what makes it known again; where nothing is promised it does not.
#[test]
fn with_less_a_qos_2_message_and_its_pubrel_leave_at_once() {
    both(|version| {
        for durability in RELAXED {
            let world = World::new();
            let subscriber = world.connect(Setup::durable(version, "s").durability(durability).manual());
            subscriber.subscribe("t", QoS::ExactlyOnce);
            let publisher = world.connect(Setup::durable(version, "p").durability(durability));
            world.hold_commits();
            // Something that somebody else waits for.
            world.send_connect(Setup::durable(version, "strict"));
            publisher.publish("t", "x", QoS::ExactlyOnce);
            let id = subscriber.expect_publish("t", "x").id();
            subscriber.ack(PacketKind::PubRec, id);
            subscriber.expect_ack(PacketKind::PubRel, id);
            // A repetition is answered like the first.
            subscriber.ack(PacketKind::PubRec, id);
            subscriber.expect_ack(PacketKind::PubRel, id);
            subscriber.ack(PacketKind::PubComp, id);
            world.release_commits();
            world.assert_accounting();
        }
    });
}

// Whoever publishes: a packet identifier that a crash makes the broker forget would be given to another message,
// and the client would take that one for a repetition.
#[test]
fn a_subscriber_that_is_promised_the_commit_is_sent_no_qos_2_message_before_it() {
    both(|version| {
        for is_away in [false, true] {
            let world = World::new();
            let strict = world.connect(Setup::durable(version, "strict"));
            strict.subscribe("t", QoS::ExactlyOnce);
            let lax = world.connect(Setup::new(version, "lax"));
            lax.subscribe("u", QoS::ExactlyOnce);
            if is_away {
                strict.drop_link();
            }
            let setup = Setup::durable(version, "p").durability(Durability::None);
            let publisher = world.connect(setup.manual());
            world.hold_commits();
            let first = publisher.publish("t", "1", QoS::ExactlyOnce);
            let second = publisher.publish("u", "2", QoS::ExactlyOnce);
            publisher.expect_ack(PacketKind::PubRec, first);
            publisher.expect_ack(PacketKind::PubRec, second);
            let strict = if is_away { world.send_connect(Setup::durable(version, "strict")) } else { strict };
            assert_eq!(strict.recv_payloads(), [] as [&str; 0]);
            // What its publisher sent later is not delivered earlier. [MQTT-4.6.0-5]
            lax.expect_nothing();
            world.release_commits();
            assert_eq!(strict.recv_payloads(), ["1"]);
            assert_eq!(lax.recv_payloads(), ["2"]);
            world.assert_accounting();
        }
    });
}

#[test]
fn each_connection_has_what_its_own_listener_promises() {
    both(|version| {
        let world = World::new();
        world.connect(Setup::durable(version, "s")).subscribe("t", QoS::AtLeastOnce);
        let strict = world.connect(Setup::new(version, "strict").manual());
        let relaxed = world.connect(Setup::new(version, "relaxed").durability(Durability::None).manual());
        world.hold_commits();
        let first = strict.publish("t", "strict", QoS::AtLeastOnce);
        let second = relaxed.publish("t", "relaxed", QoS::AtLeastOnce);
        strict.expect_nothing();
        relaxed.expect_ack(PacketKind::PubAck, second);
        world.release_commits();
        strict.expect_ack(PacketKind::PubAck, first);
    });
}

// A commit that the session owes from before is not skipped by a connection that promises more: CONNACK waits
// for all that came before it.
#[test]
fn a_stricter_connection_waits_for_what_a_laxer_one_left_open() {
    both(|version| {
        let world = World::new();
        world.connect(Setup::durable(version, "s")).subscribe("t", QoS::ExactlyOnce);
        world.connect(Setup::durable(version, "c")).drop_link();
        world.commit();
        world.hold_commits();
        let lax = world.connect(Setup::durable(version, "c").durability(Durability::None).manual());
        let id = lax.publish("t", "x", QoS::ExactlyOnce);
        lax.expect_ack(PacketKind::PubRec, id);
        lax.drop_link();
        let strict = world.send_connect(Setup::durable(version, "c").manual());
        strict.publish_as(id, "t", "x", QoS::ExactlyOnce, |publish| publish.dup = true);
        strict.expect_nothing();
        world.release_commits();
        assert!(matches!(strict.recv(), Some(Got::ConnAck { code: 0, session_present: true, .. })));
        strict.expect_ack(PacketKind::PubRec, id);
        assert_eq!(world.waiting("s"), 0);
    });
}
