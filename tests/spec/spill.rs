//! Queues so long that not even the references to what waits in the store are kept in memory.

use std::time::Duration;

use dunlin::{
    broker::DropReason,
    codec::{QoS, Version},
    limits::{Limits, Overflow, Parking},
};

use crate::world::{Setup, World, both};

/// A broker that spills all references that it can, two at a time.
fn world(set: impl FnOnce(&mut Limits)) -> World {
    World::with(2, |shared| {
        let parking = Parking { messages_max: 3, bytes_max: 1000, spare_bytes_max: 0, ..Parking::default() };
        shared.parking = Some(Parking { index_bytes_max: 0, run_messages_max: 2, ..parking });
        set(&mut shared.limits);
    })
}

fn setup(version: Version) -> Setup {
    Setup::durable(version, "s")
}

/// Leaves a subscriber without connection, and publishes so many messages to it.
fn queue(world: &World, version: Version, count: usize) -> Vec<String> {
    let subscriber = world.connect(setup(version));
    subscriber.subscribe("t", QoS::ExactlyOnce);
    subscriber.drop_link();
    let publisher = world.connect(Setup::new(version, "p"));
    let texts: Vec<String> = (0..count).map(|number| number.to_string()).collect();
    for (number, text) in texts.iter().enumerate() {
        let qos = if number.is_multiple_of(3) { QoS::ExactlyOnce } else { QoS::AtLeastOnce };
        publisher.publish("t", text, qos);
    }
    texts
}

#[test]
fn a_spilled_queue_comes_in_order() {
    both(|version| {
        let world = world(|_| {});
        let texts = queue(&world, version, 60);
        assert_eq!(world.spilled(), 28, "all but the first run and the last");
        assert_eq!(world.connect(setup(version)).recv_payloads(), texts);
        assert_eq!((world.spilled(), world.queued_messages()), (0, 0));
        world.assert_accounting();
    });
}

#[test]
fn a_spilled_queue_survives_and_goes_on_where_it_was() {
    both(|version| {
        let world = world(|_| {});
        let texts = queue(&world, version, 60);
        world.crash(Duration::ZERO);
        world.assert_accounting();
        assert!(world.spilled() > 10, "the start spills as well");
        let client = world.connect(setup(version).receive_maximum(5).manual());
        let first = client.recv_payloads();
        world.crash(Duration::ZERO);
        world.assert_accounting();
        let messages = world.connect(setup(version).receive_maximum(5)).recv_messages();
        let resent = messages.iter().filter(|message| message.dup).count();
        assert!(resent >= first.len(), "{resent} of {} that may have been sent", first.len());
        let payloads: Vec<&String> = messages.iter().map(|message| &message.payload).collect();
        assert!(payloads.into_iter().eq(&texts), "each once, in order");
        world.assert_accounting();
    });
}

#[test]
fn the_oldest_of_a_spilled_queue_are_dropped_in_order() {
    both(|version| {
        let world = world(|limits| {
            limits.session_queue_messages_max = 10;
            limits.session_queue_overflow = Overflow::DropOldest;
        });
        let texts = queue(&world, version, 60);
        assert!(world.spilled() > 0);
        assert_eq!((world.queued_messages(), world.drops(DropReason::QueueFull)), (10, 50));
        assert_eq!(world.connect(setup(version)).recv_payloads(), texts[50..]);
        world.assert_accounting();
    });
}

#[test]
fn a_session_that_ends_leaves_nothing_of_a_spilled_queue() {
    both(|version| {
        let world = world(|_| {});
        queue(&world, version, 60);
        world.connect(Setup::new(version, "s")).expect_nothing();
        assert_eq!((world.spilled(), world.queued_messages()), (0, 0));
        assert_eq!(world.drops(DropReason::SessionEnded), 60);
        world.assert_accounting();
        world.crash(Duration::ZERO);
        world.assert_accounting();
    });
}
