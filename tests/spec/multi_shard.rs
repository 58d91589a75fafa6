//! Publisher and subscriber on different shards: all is as on one.

use dunlin::codec::{PacketKind, QoS, ReasonCode};

use crate::world::{Client, Setup, World, both};

const SHARDS: usize = 3;
const ALL_QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

#[test]
fn a_message_reaches_subscribers_of_every_shard_in_order() {
    both(|version| {
        let world = World::with(SHARDS, |_| {});
        let clients: Vec<Client> = (0..SHARDS * 2)
            .map(|number| {
                let id = world.id_on(number % SHARDS, &format!("c{number}-"));
                let setup =
                    if number < SHARDS { Setup::durable(version, &id) } else { Setup::new(version, &id) };
                let client = world.connect(setup);
                client.subscribe("t", QoS::ExactlyOnce);
                client
            })
            .collect();
        let publisher = world.connect(Setup::new(version, &world.id_on(1, "p")));
        for qos in ALL_QOS {
            for number in 0..10 {
                publisher.publish("t", &number.to_string(), qos);
            }
            for client in &clients {
                assert!(
                    client
                        .recv_payloads()
                        .iter()
                        .map(String::as_str)
                        .eq("0123456789".split("").skip(1).take(10))
                );
            }
        }
        world.assert_accounting();
    });
}

// The publisher is told of the subscriber's full queue though it is another shard's.
#[test]
fn a_full_queue_of_another_shard_refuses_the_publisher() {
    let world = World::with(2, |shared| shared.limits.session_queue_messages_max = 1);
    let id = world.id_on(0, "s");
    world.connect(Setup::v5(&id).expiry(100)).subscribe("t", QoS::AtLeastOnce);
    world.connect(Setup::v5(&id).resuming().expiry(100)).drop_link();
    let publisher = world.connect(Setup::v5(&world.id_on(1, "p")).manual());
    publisher.publish("t", "x", QoS::AtLeastOnce);
    publisher.expect_ack(PacketKind::PubAck, 1);
    publisher.publish("t", "x", QoS::AtLeastOnce);
    publisher.expect_code(PacketKind::PubAck, 2, ReasonCode::QuotaExceeded);
    world.assert_accounting();
}

#[test]
fn acknowledgements_wait_for_the_commit_of_the_publishers_shard() {
    both(|version| {
        let world = World::with(2, |_| {});
        let subscriber = world.connect(Setup::durable(version, &world.id_on(0, "s")));
        subscriber.subscribe("t", QoS::ExactlyOnce);
        let publisher = world.connect(Setup::new(version, &world.id_on(1, "p")).manual());
        world.hold_commits();
        let id = publisher.publish("t", "1", QoS::AtLeastOnce);
        publisher.publish("t", "2", QoS::ExactlyOnce);
        world.commit_one(0);
        publisher.expect_nothing();
        assert_eq!(subscriber.recv_payloads(), ["1"]);
        world.commit_one(1);
        publisher.expect_ack(PacketKind::PubAck, id);
        subscriber.expect_nothing();
        world.commit_one(1);
        assert_eq!(subscriber.recv_payloads(), ["2"]);
        world.release_commits();
        world.assert_accounting();
    });
}

#[test]
fn a_message_under_way_to_a_session_that_ends_is_counted_and_forgotten() {
    both(|version| {
        for qos in ALL_QOS {
            let world = World::with(2, |_| {});
            let id = world.id_on(0, "s");
            let subscriber = world.connect(Setup::durable(version, &id));
            subscriber.subscribe("t", QoS::ExactlyOnce);
            let publisher = world.connect(Setup::new(version, &world.id_on(1, "p")));
            world.hold_forwards();
            publisher.publish("t", "x", qos);
            // Another session takes the place of the one that the message is for.
            let subscriber = world.connect(Setup::new(version, &id));
            subscriber.subscribe("t", QoS::ExactlyOnce);
            world.release_forwards();
            subscriber.expect_nothing();
            assert_eq!(world.queued_messages(), 0);
            world.assert_accounting();
        }
    });
}

#[test]
fn a_shared_subscription_spans_shards_and_hands_over_between_them() {
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let world = World::with(SHARDS, |_| {});
        let ids: Vec<String> = (0..SHARDS).map(|shard| world.id_on(shard, "m")).collect();
        let members: Vec<Client> = ids
            .iter()
            .map(|id| {
                let client = world.connect(Setup::v5(id).expiry(100).receive_maximum(1).manual());
                client.subscribe("$share/g/t", qos);
                client
            })
            .collect();
        let publisher = world.connect(Setup::v5("p"));
        for number in 0..9 {
            publisher.publish("t", &number.to_string(), qos);
        }
        let mut sent: Vec<String> = Vec::new();
        for member in &members {
            let messages = member.recv_messages();
            assert_eq!(messages.len(), 1);
            sent.push(messages[0].payload.clone());
        }
        // The first two leave; the third gets what they had not been sent.
        members[0].drop_link();
        members[1].drop_link();
        let last = &members[2];
        let mut id = 1;
        for _ in 0..20 {
            match qos {
                QoS::ExactlyOnce => {
                    last.ack(PacketKind::PubRec, id);
                    last.ack(PacketKind::PubComp, id);
                }
                QoS::AtMostOnce | QoS::AtLeastOnce => last.ack(PacketKind::PubAck, id),
            }
            match last.recv_messages().pop() {
                Some(message) => {
                    sent.push(message.payload.clone());
                    id = message.id();
                }
                None => break,
            }
        }
        sent.sort();
        assert_eq!(sent, (0..9).map(|number| number.to_string()).collect::<Vec<_>>());
        world.assert_accounting();
    }
}

#[test]
fn a_message_under_way_to_a_member_whose_session_ends_reaches_another_shard() {
    let world = World::with(2, |_| {});
    let first = world.connect(Setup::v5(&world.id_on(0, "a")));
    first.subscribe("$share/g/t", QoS::AtLeastOnce);
    let publisher = world.connect(Setup::v5(&world.id_on(1, "p")));
    world.hold_forwards();
    publisher.publish("t", "x", QoS::AtLeastOnce);
    let second = world.connect(Setup::v5(&world.id_on(1, "b")));
    second.subscribe("$share/g/t", QoS::AtLeastOnce);
    first.drop_link();
    world.release_forwards();
    assert_eq!(second.recv_payloads(), ["x"]);
    world.assert_accounting();
}

#[test]
fn a_retained_message_is_there_for_subscribers_of_every_shard() {
    both(|version| {
        let world = World::with(SHARDS, |_| {});
        world.connect(Setup::new(version, "p")).retain("t", "x", QoS::AtLeastOnce);
        for shard in 0..SHARDS {
            let client = world.connect(Setup::new(version, &world.id_on(shard, "c")));
            client.subscribe("t", QoS::AtLeastOnce);
            client.expect_publish("t", "x");
        }
    });
}

#[test]
fn an_identifier_is_taken_over_on_its_own_shard() {
    both(|version| {
        let world = World::with(SHARDS, |_| {});
        for shard in 0..SHARDS {
            let id = world.id_on(shard, "c");
            let old = world.connect(Setup::durable(version, &id));
            old.subscribe("t", QoS::AtLeastOnce);
            let (new, present) = world.connect_and(Setup::durable(version, &id));
            assert!(present);
            old.expect_closed(ReasonCode::SessionTakenOver);
            world.connect(Setup::new(version, "p")).publish("t", "x", QoS::AtLeastOnce);
            new.expect_publish("t", "x");
        }
        world.assert_accounting();
    });
}

#[test]
fn a_slow_client_of_another_shard_is_closed_and_its_publisher_goes_on() {
    both(|version| {
        let world = World::with(2, |shared| shared.limits.session_queue_messages_max = 3);
        let slow = world.connect(Setup::new(version, &world.id_on(0, "s")).manual());
        slow.subscribe("t", QoS::AtLeastOnce);
        let publisher = world.connect(Setup::new(version, &world.id_on(1, "p")).manual());
        for _ in 0..6 {
            publisher.publish("t", "x", QoS::AtLeastOnce);
            assert!(publisher.recv().is_some());
        }
        assert!(slow.is_closed());
        world.assert_accounting();
    });
}
