//! kill -9 at any moment, again and again.
//!
//! Publishers and subscribers of both versions go on with their sessions over all kills. At the end each
//! message that was acknowledged has come, a QoS 2 message has come once, each publisher's messages of one QoS
//! in order, and each will exactly where it was due.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use dunlin::codec::{QoS, Version};

use super::{
    broker::{Broker, PATIENCE},
    client::{Connection, Course, Publisher, Subscriber, Who, qos_of},
};

const ROUNDS: u64 = 50;
const PUBLISHERS: u64 = 3;

/// Pseudo-random numbers: moments of killing need no more.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

fn who(broker: &Broker, id: &str, version: Version) -> Who {
    Who { id: id.into(), version, socket: broker.socket() }
}

fn version_of(number: u64) -> Version {
    if number.is_multiple_of(2) { Version::V5 } else { Version::V311 }
}

/// Two clients with wills: one of them is connected when the broker is killed, the other has left in good order.
fn wills(broker: &Broker, round: u64) -> Connection {
    let open = |id: &str| {
        let topic = format!("will/{id}");
        let (connection, _) = Connection::open(&who(broker, id, Version::V5), Some(&topic)).ok().unwrap();
        connection
    };
    let stays = open(&format!("stays-{round}"));
    assert!(open(&format!("leaves-{round}")).disconnect().is_ok());
    // A later CONNACK of a session that is stored: what was before it is stored too.
    drop(open(&format!("witness-{round}")));
    stays
}

#[test]
fn nothing_acknowledged_is_lost_when_the_broker_is_killed() {
    let mut broker = Broker::new("killed", "shards = 2\nlog.filter = \"info,dunlin::connection=warn\"");
    let course = Arc::new(Course::default());
    let mut random = Random(u64::from(std::process::id()));
    let subscribers = [
        Subscriber::new(who(&broker, "exact", Version::V5), "p/#", QoS::ExactlyOnce, 0),
        Subscriber::new(who(&broker, "least", Version::V311), "p/#", QoS::AtLeastOnce, 0),
        Subscriber::new(who(&broker, "flaps", Version::V5), "p/+", QoS::ExactlyOnce, 40),
        Subscriber::new(who(&broker, "wills", Version::V5), "will/#", QoS::ExactlyOnce, 0),
    ];
    let publishers = (0..PUBLISHERS).map(|number| {
        Publisher::new(who(&broker, &format!("p{number}"), version_of(number)), &format!("p/{number}"))
    });
    let publishers: Vec<Publisher> = publishers.collect();
    broker.start();
    let count = subscribers.len();
    let subscribers = subscribers.map(|subscriber| {
        let course = course.clone();
        thread::spawn(move || subscriber.run(&course))
    });
    let deadline = Instant::now() + PATIENCE;
    while course.subscribed.load(Ordering::Relaxed) < count {
        assert!(Instant::now() < deadline, "not all are subscribed");
        thread::yield_now();
    }
    let publishers = publishers.into_iter().map(|publisher| {
        let course = course.clone();
        thread::spawn(move || publisher.run(&course))
    });
    let publishers: Vec<_> = publishers.collect();
    for round in 0..ROUNDS {
        let stays = wills(&broker, round);
        // The moment is what this is about: no condition to wait for.
        thread::sleep(Duration::from_micros(random.below(80_000)));
        broker.kill();
        drop(stays);
        broker.start();
    }
    course.is_ending.store(true, Ordering::Relaxed);
    let publishers = publishers.into_iter().map(|publisher| publisher.join().unwrap());
    let acknowledged: Vec<BTreeSet<u64>> =
        publishers.map(|publisher| publisher.acknowledged.into_iter().collect()).collect();
    // A subscriber ends when nothing has come for a moment after this.
    course.is_over.store(true, Ordering::Relaxed);
    let subscribers = subscribers.map(|subscriber| subscriber.join().unwrap());
    assert_eq!(broker.stop().code(), Some(0));
    let total: usize = acknowledged.iter().map(BTreeSet::len).sum();
    assert!(total as u64 > ROUNDS, "hardly anything was published: {total}");
    for (at, subscriber) in subscribers[..3].iter().enumerate() {
        check(at, &subscriber.received, &acknowledged);
    }
    check_wills(&subscribers[3].received);
}

fn check(at: usize, received: &[(String, String, QoS)], acknowledged: &[BTreeSet<u64>]) {
    let mut seen: BTreeSet<(&str, u64)> = BTreeSet::new();
    let mut newest: BTreeMap<(&str, QoS), u64> = BTreeMap::new();
    for (place, (topic, payload, qos)) in received.iter().enumerate() {
        let number: u64 = payload.parse().unwrap();
        let is_new = seen.insert((topic, number));
        assert!(is_new || *qos < QoS::ExactlyOnce, "subscriber {at} got {topic} {number} twice");
        if is_new {
            let before = newest.insert((topic, qos_of(number)), number);
            assert!(
                before.is_none_or(|before| before < number),
                "subscriber {at} got {topic} {number} after {before:?}, around {:?}",
                around(received, place)
            );
        }
    }
    for (publisher, acknowledged) in acknowledged.iter().enumerate() {
        let topic = format!("p/{publisher}");
        let lost: Vec<&u64> =
            acknowledged.iter().filter(|number| !seen.contains(&(&*topic, **number))).collect();
        assert!(lost.is_empty(), "subscriber {at} lost {lost:?} of {topic}");
    }
}

/// What came just before and after a message.
fn around(received: &[(String, String, QoS)], place: usize) -> Vec<String> {
    let range = place.saturating_sub(30)..(place + 30).min(received.len());
    received[range].iter().map(|(topic, payload, qos)| format!("{topic}:{payload}:{}", *qos as u8)).collect()
}

fn check_wills(received: &[(String, String, QoS)]) {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    received.iter().for_each(|(topic, ..)| *counts.entry(topic).or_default() += 1);
    for round in 0..ROUNDS {
        let count = |name: &str| counts.get(&*format!("will/{name}-{round}")).copied().unwrap_or(0);
        assert_eq!(count("stays"), 1, "wills of a client that was connected in round {round}");
        assert_eq!(count("leaves"), 0, "wills of a client that had left in round {round}");
        assert_eq!(count("witness"), 1, "wills of a client whose connection had failed in round {round}");
    }
}
