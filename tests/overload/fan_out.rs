//! One publisher, a thousand subscribers, some of whom do not read.

use dunlin::QoS;
use tokio::net::UnixStream;

use crate::{
    Broker, KIB, MIB, Peer, account, connect,
    flood::{self, TOPIC},
};

const HEALTHY: usize = 990;
const STALLED: usize = 10;

/// Larger than what the system buffers for a connection (208 KiB on Linux) and the outbox together, times
/// `COUNT`; small enough that the outbox of who reads has room for one.
const PAYLOAD_BYTES: usize = 32 * KIB;
const COUNT: u32 = 20;

/// All messages together are 640 KiB. To copy them for each subscriber would take 625 MiB.
const GROWTH_BYTES_MAX: usize = 48 * MIB;

fn qos_of(number: usize) -> QoS {
    if number.is_multiple_of(2) { QoS::AtMostOnce } else { QoS::AtLeastOnce }
}

async fn subscribers(broker: &Broker, name: &str, count: usize) -> Vec<Peer<UnixStream>> {
    let mut peers = Vec::new();
    for number in 0..count {
        let mut peer = broker.client(&connect(&format!("{name}-{number}"))).await;
        peer.subscribe(TOPIC, qos_of(number)).await;
        peers.push(peer);
    }
    peers
}

/// Those who read get every message in order, with QoS 0 too. Those who do not lose QoS 0, and that alone.
#[tokio::test]
async fn stalled_subscribers_cost_the_others_nothing() {
    let broker = Broker::start(&["limits.outbox_bytes_max=\"64 KiB\""]);
    let mut stalled = subscribers(&broker, "stalled", STALLED).await;
    let mut healthy = subscribers(&broker, "healthy", HEALTHY).await;
    let mut publisher = broker.client(&connect("publisher")).await;
    let before = broker.resident_bytes();
    for number in 0..COUNT {
        let accepted = flood::publish_window(&mut publisher, number..number + 1, PAYLOAD_BYTES).await;
        assert_eq!(accepted, [number]);
        for peer in &mut healthy {
            flood::take_all(peer, &accepted).await;
        }
    }
    broker.assert_grown_less(before, GROWTH_BYTES_MAX);
    let mut lost = 0;
    for (at, peer) in stalled.iter_mut().enumerate() {
        match qos_of(at) {
            QoS::AtMostOnce => {
                let numbers = flood::take_what_is_ready(peer).await;
                assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
                assert!(numbers.len() < COUNT as usize, "all have come: it did not stall");
                lost += u64::from(COUNT) - numbers.len() as u64;
            }
            QoS::AtLeastOnce | QoS::ExactlyOnce => {
                flood::take_all(peer, &(0..COUNT).collect::<Vec<_>>()).await;
                peer.ping().await;
            }
        }
    }
    for peer in &mut healthy {
        peer.ping().await;
    }
    let account = account::settled(&broker, |account| {
        account.dropped("outbox-full") == lost && account.value("store/messages/count") == 0
    })
    .await;
    assert_eq!(account.dropped_in_all(), lost, "{account:?}");
}
