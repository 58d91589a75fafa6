//! Clients that do not read, and clients that are not there any more.

use std::{collections::VecDeque, time::Duration};

use dunlin::{
    QoS,
    codec::{Connect, ConnectProperties, Delivery, Packet, ReasonCode, Version},
};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::{
    BOTH, Peer, Server, config, connect, id, ids_on_both_shards, peer::encoded, publish, success, within,
};

/// Publishes to all who want `flood` while `witness` gets every message of it; QoS of the messages is 1,
/// so that the witness misses none and the publisher is no faster than the broker.
async fn flood(
    publisher: &mut Peer<TcpStream>,
    witness: &mut Peer<TcpStream>,
    count: u32,
    payload_bytes: usize,
) {
    let mut payload = vec![0; payload_bytes];
    for number in 0..count {
        payload[..4].copy_from_slice(&number.to_be_bytes());
        publisher.publish_acknowledged("flood", &payload).await;
        witness.take_message("flood", &payload).await;
    }
}

/// What QoS 0 loses is counted under `$SYS`, and what is not lost keeps its order.
#[tokio::test]
async fn a_client_that_does_not_read_loses_qos_0_and_delays_nobody() {
    const COUNT: u32 = 2000;
    const PAYLOAD_BYTES: usize = 10_000;
    let mut config = config();
    config.limits.outbox_bytes_max = 64 * 1024;
    config.sys_interval = Duration::from_millis(50);
    let server = Server::with(config).await;
    for version in BOTH {
        let mut witness = server.client(Version::V5, "witness").await;
        witness.subscribe("flood", QoS::AtLeastOnce).await;
        let mut publisher = server.client(Version::V5, "publisher").await;
        let mut slow = server.open_narrow(version).await;
        slow.connect(&connect(version, "slow")).await;
        slow.subscribe("flood", QoS::AtMostOnce).await;
        flood(&mut publisher, &mut witness, COUNT, PAYLOAD_BYTES).await;
        slow.send(&Packet::PingReq).await;
        let mut numbers = Vec::new();
        let number_of = |packet: &Packet<'_>| match packet {
            Packet::Publish(publish) => {
                Some(u32::from_be_bytes([0, 1, 2, 3].map(|index| publish.payload[index])))
            }
            Packet::PingResp => None,
            other => panic!("{other:?}"),
        };
        while let Some(number) = slow.next(number_of).await {
            numbers.push(number);
        }
        assert!(numbers.is_sorted() && numbers.len() < COUNT as usize, "{} messages", numbers.len());
        assert!(numbers.starts_with(&[0, 1, 2]));
        let lost = u64::from(COUNT) - numbers.len() as u64;
        crate::statistics::value(&server, "publish/messages/dropped/outbox-full", |value| value >= lost)
            .await;
        // Nothing is lost any more once the client reads.
        publisher.publish_acknowledged("flood", b"after").await;
        slow.expect_message("flood", b"after").await;
        witness.take_message("flood", b"after").await;
    }
}

/// QoS 1 and 2 wait in the session until the client reads again, and arrive in order.
#[tokio::test]
async fn what_is_acknowledged_waits_for_a_client_that_does_not_read() {
    const COUNT: u32 = 1000;
    const PAYLOAD_BYTES: usize = 10_000;
    let mut config = config();
    config.limits.outbox_bytes_max = 64 * 1024;
    let server = Server::with(config).await;
    let qualities = [QoS::AtLeastOnce, QoS::ExactlyOnce];
    for (version, qos) in BOTH.into_iter().zip(qualities) {
        let mut witness = server.client(Version::V5, "witness").await;
        witness.subscribe("flood", QoS::AtLeastOnce).await;
        let mut publisher = server.client(Version::V5, "publisher").await;
        let mut slow = server.open_narrow(version).await;
        slow.connect(&connect(version, "slow")).await;
        slow.subscribe("flood", qos).await;
        flood(&mut publisher, &mut witness, COUNT, PAYLOAD_BYTES).await;
        let mut payload = vec![0; PAYLOAD_BYTES];
        let mut unreleased = VecDeque::new();
        for number in 0..COUNT {
            payload[..4].copy_from_slice(&number.to_be_bytes());
            match slow.expect_message("flood", &payload).await {
                Delivery::AtMostOnce => assert_eq!(qos, QoS::AtMostOnce),
                Delivery::AtLeastOnce(id) => slow.send(&Packet::PubAck(success(id))).await,
                Delivery::ExactlyOnce(id) => unreleased.push_back(id),
            }
        }
        for id in &unreleased {
            slow.send(&Packet::PubRec(success(*id))).await;
        }
        for id in unreleased {
            slow.expect(&Packet::PubRel(success(id))).await;
        }
        slow.ping().await;
    }
}

/// A client that asks and never listens to the answers is not read from any more. That shows by what
/// follows: it is silent to the broker, and ends by its Keep Alive however much it sends.
#[tokio::test]
async fn a_client_that_only_asks_is_not_heard_any_more() {
    let mut config = config();
    config.limits.outbox_bytes_max = 1024;
    let server = Server::with(config).await;
    let ask = async |version, asker| {
        let mut asking = server.open_narrow(version).await;
        asking.connect(&Connect { keep_alive_secs: 1, ..connect(version, asker) }).await;
        let pings = encoded(&Packet::PingReq, version).repeat(4096);
        let sending = async {
            let mut sent: usize = 0;
            while let Ok(count) = asking.stream.write(&pings).await {
                sent += count;
                assert!(sent < 256 * 1024 * 1024, "the broker goes on reading");
            }
        };
        within(sending).await;
        server.client(version, &format!("other than the {asker}")).await.ping().await;
    };
    tokio::join!(ask(Version::V311, "asker of 3.1.1"), ask(Version::V5, "asker of 5"));
}

/// [MQTT-3.1.2-22] A peer that is gone without a word is found out by its Keep Alive, and its will told.
#[tokio::test]
async fn a_half_open_connection_ends_by_keep_alive() {
    let server = Server::start().await;
    let mut witness = server.client(Version::V5, "witness").await;
    witness.subscribe("#", QoS::AtMostOnce).await;
    for version in BOTH {
        let will = dunlin::codec::Will {
            qos: QoS::AtMostOnce,
            retain: false,
            topic: "will",
            payload: b"gone",
            properties: dunlin::codec::WillProperties::default(),
        };
        let mut silent = server.open(version).await;
        silent.connect(&Connect { keep_alive_secs: 1, will: Some(will), ..connect(version, "silent") }).await;
        silent.expect_closed(ReasonCode::KeepAliveTimeout).await;
        witness.expect_message("will", b"gone").await;
    }
}

/// A client may have left a connection behind that it does not read. The new one does not wait for it.
#[tokio::test]
async fn a_takeover_does_not_wait_for_the_old_connection() {
    let mut config = config();
    config.limits.outbox_bytes_max = 64 * 1024;
    let server = Server::with(config).await;
    let mut publisher = server.client(Version::V5, "publisher").await;
    for client_id in ids_on_both_shards("left").take(6) {
        let keep = Connect {
            clean_start: false,
            properties: ConnectProperties { session_expiry_secs: Some(60), ..ConnectProperties::default() },
            ..connect(Version::V5, &client_id)
        };
        let mut older = server.open_narrow(Version::V5).await;
        older.connect(&keep).await;
        older.subscribe(&client_id, QoS::AtLeastOnce).await;
        let payload = [7; 60_000];
        for number in 1..=100 {
            publisher.send(&publish(&client_id, &payload, Delivery::AtLeastOnce(id(number)))).await;
            publisher.next(|packet| assert!(matches!(packet, Packet::PubAck(_)), "{packet:?}")).await;
        }
        let mut newer = server.open(Version::V5).await;
        assert!(newer.connect(&keep).await);
        for _ in 0..100 {
            newer.take_message(&client_id, &payload).await;
        }
        newer.ping().await;
    }
}
