//! A subscriber that stops reading while a publisher goes on, and another subscriber that reads on.

use dunlin::{
    QoS,
    codec::{Connect, ConnectProperties, Packet},
};
use tokio::net::UnixStream;

use crate::{
    Broker, KIB, MIB, Peer, account, connect,
    flood::{self, TOPIC, WINDOW},
};

const PAYLOAD_BYTES: usize = 32 * KIB;

/// 64 MiB, many times what any limit here allows to be kept.
const COUNT: u32 = 2048;

/// What the limits allow is 4 MiB at most; the rest is for what an allocator and a cache of the store take.
const GROWTH_BYTES_MAX: usize = 32 * MIB;

const SETTINGS: [&str; 2] =
    ["limits.outbox_bytes_max=\"64 KiB\"", "limits.session_queue_bytes_max=\"4 MiB\""];

/// A publisher, a subscriber that will not read, and one that does.
struct Scene {
    broker: Broker,
    publisher: Peer<UnixStream>,
    stalled: Peer<UnixStream>,
    witness: Peer<UnixStream>,
    resident_bytes: usize,
}

impl Scene {
    async fn new(stalled: &Connect<'_>, qos: QoS) -> Scene {
        let broker = Broker::start(&SETTINGS);
        let publisher = broker.client(&connect("publisher")).await;
        let mut stalled = broker.client(stalled).await;
        stalled.subscribe(TOPIC, qos).await;
        let mut witness = broker.client(&connect("witness")).await;
        witness.subscribe(TOPIC, QoS::AtLeastOnce).await;
        let resident_bytes = broker.resident_bytes();
        Scene { broker, publisher, stalled, witness, resident_bytes }
    }

    /// Publishes all numbers; the witness gets what is accepted, and is still there. Returns the numbers accepted.
    async fn flood(&mut self) -> Vec<u32> {
        let mut accepted = Vec::new();
        for first in (0..COUNT).step_by(WINDOW as usize) {
            let numbers = first..first + WINDOW;
            let window = flood::publish_window(&mut self.publisher, numbers, PAYLOAD_BYTES).await;
            flood::take_all(&mut self.witness, &window).await;
            accepted.extend(window);
        }
        self.broker.assert_grown_less(self.resident_bytes, GROWTH_BYTES_MAX);
        self.witness.ping().await;
        accepted
    }

    /// One more message reaches both of them.
    async fn go_on(&mut self) {
        let accepted = flood::publish_window(&mut self.publisher, COUNT..COUNT + 1, PAYLOAD_BYTES).await;
        flood::take_all(&mut self.stalled, &accepted).await;
        flood::take_all(&mut self.witness, &accepted).await;
        assert_eq!(accepted, [COUNT]);
    }
}

/// QoS 0 is dropped, each message counted, and nobody is refused.
#[tokio::test]
async fn a_stalled_subscriber_loses_qos_0_that_is_counted() {
    let mut scene = Scene::new(&connect("stalled"), QoS::AtMostOnce).await;
    assert_eq!(scene.flood().await.len(), COUNT as usize);
    let numbers = flood::take_what_is_ready(&mut scene.stalled).await;
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    let lost = u64::from(COUNT) - numbers.len() as u64;
    assert!(lost > u64::from(COUNT) / 2, "only {lost} are lost: it did not stall");
    scene.go_on().await;
    let account = account::settled(&scene.broker, |account| account.dropped("outbox-full") == lost).await;
    assert_eq!(account.dropped_in_all(), lost, "{account:?}");
}

/// What a session that lasts cannot take is refused to the publisher, and reaches nobody. What is accepted reaches
/// all.
#[tokio::test]
async fn a_stalled_session_has_publishers_refused_and_loses_nothing() {
    let properties = ConnectProperties { session_expiry_secs: Some(600), ..ConnectProperties::default() };
    let stalled = Connect { properties, ..connect("stalled") };
    let mut scene = Scene::new(&stalled, QoS::AtLeastOnce).await;
    let accepted = scene.flood().await;
    assert!(!accepted.is_empty() && accepted.len() < COUNT as usize / 2, "{} accepted", accepted.len());
    flood::take_all(&mut scene.stalled, &accepted).await;
    scene.stalled.ping().await;
    scene.go_on().await;
    let refused = u64::from(COUNT) - accepted.len() as u64;
    let account = account::settled(&scene.broker, |account| {
        account.value("publish/messages/refused") == refused && account.value("store/messages/count") == 0
    })
    .await;
    assert_eq!(account.dropped_in_all(), 0, "{account:?}");
}

/// A session that ends with its connection holds nobody up: it is closed, and what it loses by that is counted.
#[tokio::test]
async fn a_stalled_connection_is_closed_and_refuses_nobody() {
    let mut scene = Scene::new(&connect("stalled"), QoS::AtLeastOnce).await;
    assert_eq!(scene.flood().await.len(), COUNT as usize);
    let number_of = |packet: &Packet<'_>| match packet {
        Packet::Publish(publish) => Some(u32::from_be_bytes([0, 1, 2, 3].map(|at| publish.payload[at]))),
        Packet::Disconnect(_) => None,
        other => panic!("{other:?} where a message or the end was expected"),
    };
    let mut numbers = Vec::new();
    while let Some(Some(number)) = scene.stalled.next_or_end(number_of).await {
        numbers.push(number);
    }
    assert!((0..).zip(&numbers).all(|(expected, number)| expected == *number), "{numbers:?}");
    // None was acknowledged: all that it was owed ended with it.
    let account = account::settled(&scene.broker, |account| account.dropped("session-ended") > 0).await;
    let lost = account.dropped("session-ended");
    assert_eq!(account.dropped_in_all(), lost, "{account:?}");
    let queue_messages = (4 * MIB / PAYLOAD_BYTES) as u64;
    assert!((numbers.len() as u64..=queue_messages + 1).contains(&lost), "{lost} of {}", numbers.len());
    assert_eq!(account.value("publish/messages/refused"), 0, "{account:?}");
}
