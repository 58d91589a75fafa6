//! Messages that say their number, and what becomes of them.

use dunlin::codec::{Delivery, Packet, ReasonCode};
use tokio::net::UnixStream;

use crate::{Peer, id, publish, success};

/// Where all of them go.
pub(crate) const TOPIC: &str = "flood";

/// Packet identifiers of one window.
pub(crate) const WINDOW: u32 = 16;

/// What a client was sent.
pub(crate) struct Taken {
    pub(crate) number: u32,
    pub(crate) delivery: Delivery,
}

/// A payload that begins with its number.
pub(crate) fn payload(number: u32, bytes: usize) -> Vec<u8> {
    let mut payload = vec![7; bytes];
    payload[..4].copy_from_slice(&number.to_be_bytes());
    payload
}

/// Publishes a window of numbers with QoS 1. Returns those that the broker accepted; it refused the others.
pub(crate) async fn publish_window(
    publisher: &mut Peer<UnixStream>,
    numbers: std::ops::Range<u32>,
    payload_bytes: usize,
) -> Vec<u32> {
    let mut bytes = Vec::new();
    for (packet_id, number) in (1..).zip(numbers.clone()) {
        let payload = payload(number, payload_bytes);
        let packet = publish(TOPIC, &payload, Delivery::AtLeastOnce(id(packet_id)));
        dunlin::codec::encode(&packet, publisher.version, &mut bytes);
    }
    publisher.send_bytes(&bytes).await;
    let mut accepted = Vec::new();
    for (packet_id, number) in (1..).zip(numbers) {
        let reason = publisher.next(|packet| match packet {
            Packet::PubAck(ack) if ack.packet_id == id(packet_id) => ack.reason,
            other => panic!("{other:?} where PUBACK {packet_id} was expected"),
        });
        match reason.await {
            ReasonCode::Success => accepted.push(number),
            ReasonCode::QuotaExceeded => {}
            other => panic!("{number} is answered with {other}"),
        }
    }
    accepted
}

/// Takes the next message, and acknowledges it. `None` if a PINGRESP comes instead.
pub(crate) async fn take(peer: &mut Peer<UnixStream>) -> Option<Taken> {
    let taken = peer.next(|packet| match packet {
        Packet::Publish(publish) => {
            let number = u32::from_be_bytes([0, 1, 2, 3].map(|at| publish.payload[at]));
            Some(Taken { number, delivery: publish.delivery })
        }
        Packet::PingResp => None,
        other => panic!("{other:?} where a message was expected"),
    });
    let taken = taken.await?;
    if let Delivery::AtLeastOnce(id) = taken.delivery {
        peer.send(&Packet::PubAck(success(id))).await;
    }
    Some(taken)
}

/// Takes all that the broker has ready for a client, up to the answer to a PINGREQ. Returns the numbers.
pub(crate) async fn take_what_is_ready(peer: &mut Peer<UnixStream>) -> Vec<u32> {
    peer.send(&Packet::PingReq).await;
    let mut numbers = Vec::new();
    while let Some(taken) = take(peer).await {
        numbers.push(taken.number);
    }
    numbers
}

/// Takes these numbers in this order.
pub(crate) async fn take_all(peer: &mut Peer<UnixStream>, expected: &[u32]) {
    for number in expected {
        let taken = take(peer).await.map(|taken| taken.number);
        assert_eq!(taken, Some(*number), "each accepted message comes once, in order");
    }
}
