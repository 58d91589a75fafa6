//! How the broker ends a connection.

use dunlin::{
    QoS,
    codec::{Connect, Delivery, Disconnect, Packet, ReasonCode, Version, Will, WillProperties},
};

use crate::{BOTH, Server, config, connect, id, peer::encoded, publish};

/// What no client may send: packet type 0.
const MALFORMED: [u8; 2] = [0, 0];

/// [MQTT-3.14.4-1] [MQTT-4.13.1-1] The reason reaches a client that goes on sending: a socket that is
/// closed while there is something to read resets the connection, and a reset throws away what was sent.
#[tokio::test]
async fn the_reason_arrives_even_if_the_client_keeps_sending() {
    let server = Server::start().await;
    for version in BOTH {
        let mut peer = server.client(version, "talkative").await;
        peer.send_bytes(&MALFORMED).await;
        let more = encoded(&publish("t", &[7; 10_000], Delivery::AtMostOnce), version);
        for _ in 0..50 {
            peer.send_bytes(&more).await;
        }
        peer.expect_closed(ReasonCode::MalformedPacket).await;
    }
}

/// What comes before the fault is heard, what comes behind it is not.
#[tokio::test]
async fn a_fault_ends_the_conversation_at_its_place() {
    let server = Server::start().await;
    let mut witness = server.client(Version::V5, "witness").await;
    witness.subscribe("#", QoS::AtMostOnce).await;
    for version in BOTH {
        let mut peer = server.client(version, "faulty").await;
        let before = encoded(&publish("before", b"x", Delivery::AtMostOnce), version);
        let behind = encoded(&publish("behind", b"x", Delivery::AtMostOnce), version);
        peer.send_bytes(&[&before[..], &MALFORMED, &behind].concat()).await;
        peer.expect_closed(ReasonCode::MalformedPacket).await;
        witness.expect_message("before", b"x").await;
        witness.ping().await;
    }
}

/// [MQTT-3.14.4-1] DISCONNECT is the last packet, whatever is published to the client meanwhile.
#[tokio::test]
async fn nothing_is_sent_after_disconnect() {
    let server = Server::start().await;
    let mut publisher = server.client(Version::V5, "publisher").await;
    for client_id in crate::ids_on_both_shards("subscriber") {
        let mut peer = server.client(Version::V5, &client_id).await;
        peer.subscribe("flood", QoS::AtMostOnce).await;
        let flood = encoded(&publish("flood", b"x", Delivery::AtMostOnce), Version::V5).repeat(200);
        publisher.send_bytes(&flood).await;
        peer.send_bytes(&MALFORMED).await;
        publisher.send_bytes(&flood).await;
        let is_disconnect = |packet: &Packet<'_>| match packet {
            Packet::Publish(_) => false,
            Packet::Disconnect(disconnect) => disconnect.reason == ReasonCode::MalformedPacket,
            other => panic!("{other:?}"),
        };
        while !peer.next(is_disconnect).await {}
        peer.expect_end().await;
    }
}

/// [MQTT-3.1.2-24] A packet above the limit is refused by its fixed header.
#[tokio::test]
async fn an_oversized_publish_is_refused_before_its_body_arrives() {
    let mut config = config();
    config.limits.packet_bytes_max = 2000;
    let server = Server::with(config).await;
    for version in BOTH {
        let mut peer = server.client(version, "large").await;
        let overhead = encoded(&publish("t", &[0; 200], Delivery::AtMostOnce), version).len() - 200;
        let largest = publish("t", &[1; 2000], Delivery::AtMostOnce);
        let Packet::Publish(mut largest) = largest else { unreachable!("publish makes PUBLISH") };
        largest.payload = &largest.payload[..2000 - overhead];
        let largest = encoded(&Packet::Publish(largest), version);
        assert_eq!(largest.len(), 2000);
        peer.send_bytes(&largest).await;
        peer.ping().await;
        peer.send_bytes(&[0x30, 0xce, 0x0f]).await;
        peer.expect_closed(ReasonCode::PacketTooLarge).await;
    }
}

/// [MQTT-3.14.4-2] After the client's DISCONNECT nothing is heard and the broker closes; the will is not
/// published. [MQTT-3.14.4-3]
#[tokio::test]
async fn a_disconnect_of_the_client_is_the_end() {
    let server = Server::start().await;
    let mut witness = server.client(Version::V5, "witness").await;
    witness.subscribe("#", QoS::AtMostOnce).await;
    for version in BOTH {
        let mut peer = server.open(version).await;
        peer.connect(&with_will(version, "leaving")).await;
        let mut bytes = encoded(&Packet::Disconnect(Disconnect::new(ReasonCode::Success)), version);
        bytes.extend(encoded(&publish("behind", b"x", Delivery::AtMostOnce), version));
        peer.send_bytes(&bytes).await;
        peer.expect_end().await;
        witness.ping().await;
    }
}

/// [MQTT-3.1.2-8] A connection that breaks publishes the will.
#[tokio::test]
async fn a_broken_connection_publishes_the_will() {
    let server = Server::start().await;
    let mut witness = server.client(Version::V5, "witness").await;
    witness.subscribe("#", QoS::AtMostOnce).await;
    for version in BOTH {
        let mut peer = server.open(version).await;
        peer.connect(&with_will(version, "breaking")).await;
        drop(peer);
        witness.expect_message("will", b"gone").await;
        // Inside a packet too.
        let mut peer = server.open(version).await;
        peer.connect(&with_will(version, "breaking")).await;
        peer.send_bytes(&encoded(&publish("t", b"x", Delivery::AtLeastOnce(id(1))), version)[..4]).await;
        drop(peer);
        witness.expect_message("will", b"gone").await;
    }
}

fn with_will(version: Version, client_id: &str) -> Connect<'_> {
    let properties = WillProperties::default();
    let will = Will { qos: QoS::AtMostOnce, retain: false, topic: "will", payload: b"gone", properties };
    Connect { will: Some(will), ..connect(version, client_id) }
}

/// [MQTT-3.1.1/3.14.4-3] A client that leaves with unread messages resets its connection, and writing to it
/// fails before its last words are read. They count nevertheless: no will after DISCONNECT.
#[tokio::test]
async fn a_disconnect_counts_though_the_client_has_not_read_all() {
    const ROUNDS: usize = 20;
    let mut config = config();
    config.sys_interval = std::time::Duration::from_millis(20);
    let server = Server::with(config).await;
    let mut witness = server.client(Version::V5, "witness").await;
    witness.subscribe("will", QoS::AtMostOnce).await;
    let mut publisher = server.client(Version::V5, "publisher").await;
    let will = Will {
        qos: QoS::AtMostOnce,
        retain: false,
        topic: "will",
        payload: b"gone",
        properties: WillProperties::default(),
    };
    for round in 0..ROUNDS {
        let client_id = format!("leaver-{round}");
        let mut leaver = server.open_narrow(Version::V311).await;
        leaver.connect(&Connect { will: Some(will.clone()), ..connect(Version::V311, &client_id) }).await;
        leaver.subscribe("flood", QoS::AtMostOnce).await;
        for _ in 0..50 {
            publisher.send(&publish("flood", &[7; 10_000], Delivery::AtMostOnce)).await;
        }
        publisher.ping().await;
        leaver.send(&Packet::Disconnect(Disconnect::new(ReasonCode::Success))).await;
        drop(leaver);
    }
    // The witness, the publisher and the reader of this value are left.
    crate::statistics::value(&server, "clients/connected", |value| value <= 3).await;
    publisher.send(&publish("will", b"none before", Delivery::AtMostOnce)).await;
    witness.expect_message("will", b"none before").await;
}
