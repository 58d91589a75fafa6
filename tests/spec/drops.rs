//! The account of what was dropped, and the events that tell of it.

use std::time::Duration;

use dunlin::{
    broker::{DropReason, EVENT_TOPIC},
    codec::{QoS, Version},
};

use super::overflow::{away, drops_of};
use crate::world::{Client, Setup, World, both};

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
