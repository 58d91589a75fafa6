//! From the first byte to CONNACK.

use std::time::Duration;

use dunlin::{
    QoS,
    codec::{
        Delivery, Packet, ReasonCode, RetainHandling, SubscriptionOptions, Unsubscribe, UnsubscribeFilters,
        UserProperties, Version,
    },
};
use tokio::io::AsyncWriteExt;

use crate::{
    BOTH, PATIENCE, Server, at_most, config, connect, id, peer::encoded, publish, subscribe, success, within,
};

/// [MQTT-3.1.0-1] Whatever comes first and is not CONNECT closes the connection, without a word.
#[tokio::test]
async fn a_first_packet_other_than_connect_closes_the_connection() {
    let server = Server::start().await;
    let filters = [("t", at_most(QoS::AtMostOnce))];
    for version in BOTH {
        let others = [
            Packet::PingReq,
            publish("t", b"x", Delivery::AtMostOnce),
            Packet::PubAck(success(id(1))),
            subscribe(id(1), &filters),
        ];
        for first in &others {
            let mut peer = server.open(version).await;
            let mut bytes = encoded(first, version);
            bytes.extend(encoded(&Packet::Connect(Box::new(connect(version, "late"))), version));
            peer.send_bytes(&bytes).await;
            peer.expect_end().await;
        }
    }
    // Nor does what belongs to another protocol get an answer.
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x16\x03\x01\x00\xa5\x01", b"\x00\x00", b"\xff\xff"] {
        let mut peer = server.open(Version::V5).await;
        peer.send_bytes(bytes).await;
        peer.expect_end().await;
    }
}

/// A conversation whose packets and answers are known to the byte.
fn conversation(version: Version) -> (Vec<Packet<'static>>, Vec<u8>) {
    const FILTERS: &[(&str, SubscriptionOptions)] = &[(
        "split/+",
        SubscriptionOptions {
            qos: QoS::AtMostOnce,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Send,
        },
    )];
    let filters = UnsubscribeFilters::from_list(&["split/+"]);
    let user_properties = UserProperties::default();
    let packets = vec![
        subscribe(id(1), FILTERS),
        publish("split/a", b"zero", Delivery::AtMostOnce),
        publish("split/b", b"one", Delivery::AtLeastOnce(id(2))),
        publish("split/c", b"two", Delivery::ExactlyOnce(id(3))),
        Packet::PubRel(success(id(3))),
        Packet::Unsubscribe(Unsubscribe { packet_id: id(4), user_properties, filters }),
        Packet::PingReq,
    ];
    let (none, sub_ack, unsub_ack): (&[u8], &[u8], &[u8]) = match version {
        Version::V5 => (&[0], &[0x90, 4, 0, 1, 0, 0], &[0xb0, 4, 0, 4, 0, 0]),
        Version::V31 | Version::V311 => (&[], &[0x90, 3, 0, 1, 0], &[0xb0, 2, 0, 4]),
    };
    let message = |topic: &[u8], payload: &[u8]| {
        let mut bytes =
            vec![0x30, (2 + topic.len() + none.len() + payload.len()) as u8, 0, topic.len() as u8];
        bytes.extend([topic, none, payload].concat());
        bytes
    };
    let answers = [
        sub_ack,
        &message(b"split/a", b"zero"),
        &message(b"split/b", b"one"),
        &[0x40, 2, 0, 2],
        &[0x50, 2, 0, 3],
        &message(b"split/c", b"two"),
        &[0x70, 2, 0, 3],
        unsub_ack,
        &[0xd0, 0],
    ];
    (packets, answers.concat())
}

/// Wherever a write ends, the same packets are heard.
///
/// The first part leaves behind a PINGREQ in one segment: its answer tells that the broker has read the
/// part, so that the rest is another read for certain.
#[tokio::test]
async fn packets_may_be_split_and_merged_at_every_byte() {
    let server = Server::start().await;
    for version in BOTH {
        let (packets, answers) = conversation(version);
        let bytes: Vec<u8> = packets.iter().flat_map(|packet| encoded(packet, version)).collect();
        let mut peer = server.client(version, "splitter").await;
        for cut in 0..=bytes.len() {
            let (head, tail) = bytes.split_at(cut);
            peer.send_bytes(&[&[0xc0, 0], head].concat()).await;
            peer.expect(&Packet::PingResp).await;
            peer.send_bytes(tail).await;
            assert_eq!(peer.take_bytes(answers.len()).await, answers, "cut at {cut}");
        }
    }
}

#[tokio::test]
async fn a_connection_may_come_byte_by_byte() {
    let server = Server::start().await;
    for version in BOTH {
        let (packets, answers) = conversation(version);
        let mut bytes = encoded(&Packet::Connect(Box::new(connect(version, "drip"))), version);
        bytes.extend(packets.iter().flat_map(|packet| encoded(packet, version)));
        let mut peer = server.open(version).await;
        for byte in &bytes {
            peer.send_bytes(&[*byte]).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(peer.conn_ack().await, (false, 0));
        assert_eq!(peer.take_bytes(answers.len()).await, answers);
    }
}

/// All in one segment: CONNACK is the first answer, and the rest follows in order. [MQTT-3.1.4-5]
#[tokio::test]
async fn what_is_pipelined_behind_connect_is_heard_after_connack() {
    let server = Server::start().await;
    for version in BOTH {
        for client_id in crate::ids_on_both_shards("pipelined") {
            let (packets, answers) = conversation(version);
            let mut bytes = encoded(&Packet::Connect(Box::new(connect(version, &client_id))), version);
            bytes.extend(packets.iter().flat_map(|packet| encoded(packet, version)));
            let mut peer = server.open(version).await;
            peer.send_bytes(&bytes).await;
            assert_eq!(peer.conn_ack().await, (false, 0));
            assert_eq!(peer.take_bytes(answers.len()).await, answers, "{client_id}");
        }
    }
}

/// [MQTT-3.1.4-6] Nothing behind a refused CONNECT is processed.
#[tokio::test]
async fn what_is_pipelined_behind_a_refused_connect_is_not_heard() {
    let mut config = config();
    config.limits.client_id_bytes_max = 10;
    let server = Server::with(config).await;
    let mut witness = server.client(Version::V5, "witness").await;
    witness.subscribe("#", QoS::AtMostOnce).await;
    for (version, code) in [(Version::V311, 2), (Version::V5, 0x85)] {
        let mut bytes =
            encoded(&Packet::Connect(Box::new(connect(version, "longer than ten bytes"))), version);
        bytes.extend(encoded(&publish("leaked", b"x", Delivery::AtMostOnce), version));
        bytes.extend(encoded(&Packet::PingReq, version));
        let mut peer = server.open(version).await;
        peer.send_bytes(&bytes).await;
        assert_eq!(peer.conn_ack().await, (false, code));
        peer.expect_end().await;
    }
    witness.ping().await;
}

/// [MQTT-3.1.4-1] Neither silence nor half a CONNECT keeps a connection for longer than the time limit.
#[tokio::test]
async fn a_connection_without_a_whole_connect_is_closed_in_time() {
    let mut config = config();
    config.limits.connect_timeout = Duration::from_millis(200);
    let server = Server::with(config).await;
    let whole = encoded(&Packet::Connect(Box::new(connect(Version::V5, "half"))), Version::V5);
    for length in [0, 1, 2, whole.len() / 2, whole.len() - 1] {
        let mut peer = server.open(Version::V5).await;
        peer.send_bytes(&whole[..length]).await;
        peer.expect_gone().await;
    }
    // Whoever drips on for ever is no better off.
    let mut peer = server.open(Version::V5).await;
    peer.stream.write_all(&[0x10, 0xff, 0x7f]).await.unwrap();
    let dripping = async {
        while peer.stream.write_all(&[0]).await.is_ok() {
            tokio::task::yield_now().await
        }
    };
    within(dripping).await;
}

/// A CONNECT that is too large is refused by its fixed header.
#[tokio::test]
async fn an_oversized_connect_is_refused_before_its_body_arrives() {
    let mut config = config();
    config.limits.packet_bytes_max = 1000;
    config.limits.connect_timeout = PATIENCE * 10;
    let server = Server::with(config).await;
    let mut peer = server.open(Version::V5).await;
    peer.send_bytes(&[0x10, 0xe8, 0x07]).await;
    peer.expect_end().await;
    // Of the largest size it is waited for.
    let mut peer = server.open(Version::V5).await;
    let id = "i".repeat(1000 - 3 - 13);
    let bytes = encoded(&Packet::Connect(Box::new(connect(Version::V5, &id))), Version::V5);
    assert_eq!(bytes.len(), 1000);
    peer.send_bytes(&bytes).await;
    assert_eq!(peer.conn_ack().await, (false, 0));
}

/// [MQTT-3.1.2-1] [MQTT-3.1.2-2] What a CONNECT that asks for something else is answered.
#[tokio::test]
async fn a_foreign_protocol_is_answered_in_its_own_form() {
    let server = Server::start().await;
    let table: [(&str, &[u8], &[u8]); 9] = [
        ("another name", b"\x10\x0c\x00\x04MQTX\x04\x02\x00\x00\x00\x00", b""),
        ("an empty name", b"\x10\x08\x00\x00\x04\x02\x00\x00\x00\x00", b""),
        ("3.1 name, 3.1.1 level", b"\x10\x0e\x00\x06MQIsdp\x04\x02\x00\x00\x00\x00", b"\x20\x02\x00\x01"),
        (
            "level 6 in the form of 3.1.1",
            b"\x10\x0c\x00\x04MQTT\x06\x02\x00\x00\x00\x00",
            b"\x20\x02\x00\x01",
        ),
        (
            "level 6 in the form of 5",
            b"\x10\x0d\x00\x04MQTT\x06\x02\x00\x00\x00\x00\x00",
            b"\x20\x03\x00\x84\x00",
        ),
        (
            "5 with a reserved flag",
            b"\x10\x0d\x00\x04MQTT\x05\x03\x00\x00\x00\x00\x00",
            b"\x20\x03\x00\x81\x00",
        ),
        ("5 that ends too soon", b"\x10\x0b\x00\x04MQTT\x05\x02\x00\x00\x00", b"\x20\x03\x00\x81\x00"),
        (
            "5 with Receive Maximum 0",
            b"\x10\x10\x00\x04MQTT\x05\x02\x00\x00\x03\x21\x00\x00\x00\x00",
            b"\x20\x03\x00\x82\x00",
        ),
        // [MQTT-3.1.1/3.1.2-3]
        ("3.1.1 with a reserved flag", b"\x10\x0c\x00\x04MQTT\x04\x03\x00\x00\x00\x00", b""),
    ];
    for (what, sent, answer) in table {
        let mut peer = server.open(Version::V5).await;
        peer.send_bytes(sent).await;
        assert_eq!(peer.take_bytes(answer.len()).await, answer, "{what}");
        peer.expect_end().await;
    }
}

/// [MQTT-3.1.0-2] A second CONNECT is a protocol error, as are packets that only servers send.
#[tokio::test]
async fn packets_that_a_client_must_not_send_close_the_connection() {
    let server = Server::start().await;
    for version in BOTH {
        let bytes = [
            encoded(&Packet::Connect(Box::new(connect(version, "twice"))), version),
            encoded(&Packet::PingResp, version),
            match version {
                Version::V5 => vec![0x20, 3, 0, 0, 0],
                Version::V31 | Version::V311 => vec![0x20, 2, 0, 0],
            },
        ];
        for bytes in bytes {
            let mut peer = server.client(version, "twice").await;
            peer.send_bytes(&bytes).await;
            peer.expect_closed(ReasonCode::ProtocolError).await;
        }
    }
}
