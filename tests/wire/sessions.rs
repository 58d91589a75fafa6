//! Sessions that several connections have to do with.

use dunlin::{
    QoS,
    codec::{Connect, ConnectProperties, Delivery, Packet, ReasonCode, Version},
};

use crate::{BOTH, Server, connect, id, ids_on_both_shards, peer::encoded, publish};

/// [MQTT-3.1.4-3] The newer connection wins, whichever shard the session is on, and goes on with it.
#[tokio::test]
async fn a_newer_connection_takes_the_session_over() {
    let server = Server::start().await;
    for version in BOTH {
        for client_id in ids_on_both_shards("taken") {
            let keep = Connect {
                clean_start: false,
                properties: match version {
                    Version::V5 => {
                        ConnectProperties { session_expiry_secs: Some(60), ..ConnectProperties::default() }
                    }
                    Version::V31 | Version::V311 => ConnectProperties::default(),
                },
                ..connect(version, &client_id)
            };
            let mut older = server.open(version).await;
            // MQTT 5 finds the session that 3.1.1 has left.
            assert_eq!(older.connect(&keep).await, version == Version::V5);
            older.subscribe(&client_id, QoS::AtLeastOnce).await;
            let mut newer = server.open(version).await;
            assert!(newer.connect(&keep).await, "the session is there");
            older.expect_closed(ReasonCode::SessionTakenOver).await;
            newer.send(&publish(&client_id, b"x", Delivery::AtLeastOnce(id(2)))).await;
            newer.take_message(&client_id, b"x").await;
        }
    }
}

/// Many connect at once, from many tasks, and one message reaches them all.
#[tokio::test]
async fn two_thousand_clients_at_once_all_get_a_message() {
    const CLIENTS: usize = 2000;
    let server = Server::start().await;
    let address = server.address();
    let (ready, mut is_ready) = tokio::sync::mpsc::channel(CLIENTS);
    let tasks: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let ready = ready.clone();
            tokio::spawn(async move {
                let stream = tokio::net::TcpStream::connect(address).await.unwrap();
                let version = BOTH[number % 2];
                let mut peer = crate::Peer::new(stream, version);
                peer.connect(&connect(version, &format!("storm-{number}"))).await;
                peer.subscribe("storm/#", QoS::AtLeastOnce).await;
                ready.send(()).await.unwrap();
                peer.take_message("storm/all", b"hello").await;
                peer.ping().await;
            })
        })
        .collect();
    for _ in 0..CLIENTS {
        crate::within(is_ready.recv()).await.unwrap();
    }
    let mut publisher = server.client(Version::V5, "publisher").await;
    publisher.publish_acknowledged("storm/all", b"hello").await;
    for task in tasks {
        crate::within(task).await.unwrap();
    }
}

/// Who has seen an acknowledgement may tell others, and they find the message there: whatever a subscriber
/// asks for after that is answered behind it, though its session is on another shard.
#[tokio::test]
async fn an_acknowledged_message_is_ahead_of_what_its_subscriber_does_next() {
    let server = Server::start().await;
    let mut publisher = server.client(Version::V5, "publisher").await;
    let mut subscribers = Vec::new();
    for client_id in ids_on_both_shards("causal").take(8) {
        let mut peer = server.client(Version::V5, &client_id).await;
        peer.subscribe("cause", QoS::AtMostOnce).await;
        subscribers.push(peer);
    }
    for round in 0..200_u32 {
        publisher.publish_acknowledged("cause", &round.to_be_bytes()).await;
        for subscriber in &mut subscribers {
            subscriber.send(&Packet::PingReq).await;
        }
        for subscriber in &mut subscribers {
            subscriber.expect_message("cause", &round.to_be_bytes()).await;
            subscriber.expect(&Packet::PingResp).await;
        }
    }
}

/// One publisher's messages of one QoS reach a subscriber on any shard in their order. [MQTT-4.6.0-6]
#[tokio::test]
async fn messages_keep_their_order_across_shards() {
    const MESSAGES: u16 = 500;
    let server = Server::start().await;
    let mut publisher = server.client(Version::V5, "publisher").await;
    let mut subscribers = Vec::new();
    for client_id in ids_on_both_shards("ordered").take(8) {
        let mut peer = server.client(Version::V5, &client_id).await;
        peer.subscribe("order", QoS::AtLeastOnce).await;
        subscribers.push(peer);
    }
    let bytes: Vec<u8> = (1..=MESSAGES)
        .flat_map(|number| {
            encoded(&publish("order", &number.to_be_bytes(), Delivery::AtLeastOnce(id(number))), Version::V5)
        })
        .collect();
    publisher.send_bytes(&bytes).await;
    for subscriber in &mut subscribers {
        for number in 1..=MESSAGES {
            subscriber.take_message("order", &number.to_be_bytes()).await;
        }
    }
}
