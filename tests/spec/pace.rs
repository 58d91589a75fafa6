//! Rates of clients, users and addresses.

use std::sync::Arc;

use dunlin::{
    allowance::{Allowance, Rates},
    broker::{DropReason, Strain},
    codec::{PacketKind, QoS, ReasonCode, Version},
};

use crate::world::{Setup, World, all, both};

fn allowance(change: impl FnOnce(&mut Rates)) -> Arc<Allowance> {
    let mut rates = Rates { burst_secs: 1, ..Rates::default() };
    change(&mut rates);
    Arc::new(Allowance::new(&rates))
}

#[test]
fn who_sends_more_than_may_is_read_later_and_loses_nothing() {
    all(|version| {
        let world = World::new();
        let subscriber = world.connect(Setup::new(version, "s"));
        subscriber.subscribe("t", QoS::AtMostOnce);
        let rate = allowance(|rates| rates.messages_in_per_sec = 10);
        let publisher = world.connect(Setup::new(version, "p").allowance(&rate).keep_alive(2));
        for number in 0..30 {
            publisher.publish("t", &number.to_string(), QoS::AtMostOnce);
        }
        let first = subscriber.recv_payloads().len();
        assert!((10..=11).contains(&first), "{first} at once, the burst of one second");
        assert!(!publisher.is_read());
        world.advance_secs(1);
        let second = subscriber.recv_payloads().len();
        assert!((9..=11).contains(&second), "{second} in the next second");
        world.advance_secs(3);
        assert_eq!(first + second + subscriber.recv_payloads().len(), 30);
        assert!(!publisher.is_closed(), "what is not read is not silence");
        world.assert_accounting();
    });
}

#[test]
fn a_message_that_would_have_to_wait_too_long_is_refused() {
    both(|version| {
        let world = World::new();
        let rate = allowance(|rates| rates.bytes_in_per_sec = 100);
        world.connect(Setup::new(version, "s")).subscribe("t", QoS::AtMostOnce);
        let client = world.connect(Setup::new(version, "c").allowance(&rate).manual());
        let id = client.publish("t", &"x".repeat(1000), QoS::AtLeastOnce);
        if version.is_v5() {
            client.expect_code(PacketKind::PubAck, id, ReasonCode::QuotaExceeded);
        } else {
            client.expect_nothing();
        }
        let id = client.publish("t", "small", QoS::AtLeastOnce);
        client.expect_ack(PacketKind::PubAck, id);
        client.publish("t", &"x".repeat(1000), QoS::AtMostOnce);
        match version {
            Version::V5 => client.expect_closed(ReasonCode::MessageRateTooHigh),
            Version::V31 | Version::V311 => client.expect_silently_closed(),
        }
        world.assert_accounting();
    });
}

#[test]
fn connections_that_share_an_allowance_share_its_rate() {
    let world = World::with(2, |_| {});
    let rate = allowance(|rates| rates.messages_in_per_sec = 10);
    let clients = ["a", "b"].map(|id| {
        let id = world.id_on(usize::from(id == "b"), id);
        world.connect(Setup::v5(&id).allowance(&rate))
    });
    let subscriber = world.connect(Setup::v5("s"));
    subscriber.subscribe("t", QoS::AtMostOnce);
    for _ in 0..20 {
        clients.iter().for_each(|client| {
            client.publish("t", "x", QoS::AtMostOnce);
        });
    }
    let first = subscriber.recv_payloads().len();
    assert!((10..=13).contains(&first), "{first}");
}

#[test]
fn who_gets_more_than_may_waits_for_it_in_order() {
    all(|version| {
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let world = World::new();
            let rate = allowance(|rates| rates.messages_out_per_sec = 10);
            let subscriber = world.connect(Setup::new(version, "s").allowance(&rate));
            subscriber.subscribe("t", qos);
            let publisher = world.connect(Setup::new(version, "p"));
            let payloads: Vec<String> = (0..30).map(|number: u32| number.to_string()).collect();
            for payload in &payloads {
                publisher.publish("t", payload, qos);
            }
            let mut got = subscriber.recv_payloads();
            assert!((10..=11).contains(&got.len()), "{}", got.len());
            world.advance_secs(3);
            got.extend(subscriber.recv_payloads());
            assert_eq!(got, payloads);
            world.assert_accounting();
        }
    });
}

#[test]
fn a_connection_that_ends_while_it_is_held_leaves_no_timer() {
    let world = World::new();
    let rate = allowance(|rates| {
        rates.messages_in_per_sec = 1;
        rates.messages_out_per_sec = 1;
    });
    let client = world.connect(Setup::v5("c").allowance(&rate));
    client.subscribe("t", QoS::AtMostOnce);
    for _ in 0..5 {
        client.publish("t", "x", QoS::AtMostOnce);
    }
    client.drop_link();
    world.step(|shard, _, _| {
        assert!(
            shard
                .next_timeout()
                .is_none_or(|at| at.as_millis() % 60_000 == 0 || shard.session("c").is_none())
        )
    });
    world.advance_secs(60);
    world.assert_accounting();
}

#[test]
fn a_broker_without_memory_takes_on_less_step_by_step() {
    both(|version| {
        let world = World::limited(|limits| limits.outbox_bytes_max = 16 * 1024);
        let slow = world.connect(Setup::new(version, "slow"));
        slow.subscribe("t", QoS::AtMostOnce);
        let client = world.connect(Setup::new(version, "c").manual());
        world.connect(Setup::new(version, "w")).subscribe("u", QoS::AtLeastOnce);
        world.shared().strain.set(Strain::Transient);
        slow.stall();
        for _ in 0..100 {
            client.publish("t", &"x".repeat(100), QoS::AtMostOnce);
        }
        let dropped = world.drops(DropReason::OutboxFull);
        assert!((80..95).contains(&dropped), "{dropped} of what is for a slow client");
        let id = client.publish("u", "x", QoS::AtLeastOnce);
        client.expect_ack(PacketKind::PubAck, id);
        world.shared().strain.set(Strain::Messages);
        let id = client.publish("u", "x", QoS::AtLeastOnce);
        if version.is_v5() {
            client.expect_code(PacketKind::PubAck, id, ReasonCode::QuotaExceeded);
        } else {
            client.expect_nothing();
        }
        world.shared().strain.set(Strain::None);
        let id = client.publish("u", "x", QoS::AtLeastOnce);
        client.expect_ack(PacketKind::PubAck, id);
        world.assert_accounting();
    });
}
