//! What goes on while the disk is full, and what is refused.

use std::sync::atomic::Ordering;

use dunlin::{
    broker::DropReason,
    codec::{QoS, ReasonCode, SubscriptionOptions, Version},
};

use super::overflow::{ack_of, away, drops_of, fetch, publish_all};
use crate::world::{Got, Setup, WillSetup, World, both};

/// A broker whose disk is full from here on.
pub(super) fn fill(world: &World) {
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

// It would wait in memory for as long as the disk is full, however much comes.
#[test]
fn nothing_is_retained_that_the_full_disk_cannot_keep() {
    both(|version| {
        let world = World::new();
        let reader = world.connect(Setup::new(version, "reader"));
        reader.subscribe("#", QoS::AtMostOnce);
        let client = world.connect(Setup::new(version, "c"));
        client.retain("t", "before", QoS::AtMostOnce);
        fill(&world);
        client.retain("t", "1", QoS::AtMostOnce);
        let before = world.shared().sequence.peek();
        for payload in ["2", "3", ""] {
            client.retain("t", payload, QoS::AtMostOnce);
        }
        assert_eq!(reader.recv_payloads(), ["before", "1", "2", "3", ""]);
        assert_eq!(world.shared().sequence.peek(), before, "changes wait for the disk");
        // The value before is not the last one any more. [MQTT-3.3.1-5]
        assert_eq!(world.stored_retained(), 0);
        assert_eq!(world.drops(DropReason::RetainedFull), 3);
        world.assert_accounting();
    });
}

// Nothing that a client can do again and again may add to what waits in memory for the disk.
#[test]
fn who_comes_again_and_again_while_the_disk_takes_nothing_is_refused_in_the_end() {
    both(|version| {
        let world = World::new();
        world.connect(Setup::durable(version, "c"));
        fill(&world);
        world.hold_commits();
        let before = world.shared().sequence.peek().get();
        for _ in 0..3000 {
            world.send_connect(Setup::durable(version, "c")).drop_link();
        }
        let records = world.shared().sequence.peek().get() - before;
        assert!(records < 3000, "{records} changes wait");
        let refused = world.send_connect(Setup::durable(version, "c"));
        let code = if version.is_v5() { ReasonCode::ServerUnavailable as u8 } else { 3 };
        assert!(matches!(refused.recv(), Some(Got::ConnAck { code: found, .. }) if found == code));
        // Who needs nothing kept is welcome.
        world.connect(Setup::new(version, "clean"));
        world.release_commits();
        world.connect(Setup::durable(version, "c"));
        world.assert_accounting();
    });
}
