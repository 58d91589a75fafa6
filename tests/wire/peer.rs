//! The other end of a connection: sends packets or bytes, and says exactly what it expects to get.

use std::io;

use dunlin::{
    QoS,
    codec::{
        self, ConnAckReturn, Connect, Decoded, Delivery, Disconnect, PACKET_BYTES_LIMIT, Packet, ReasonCode,
        SubscriptionOptions, Version,
    },
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::{at_most, id, publish, subscribe, success, within};

/// One end of a connection to the broker.
pub(crate) struct Peer<S> {
    pub(crate) stream: S,
    pub(crate) version: Version,
    /// What was received and not yet looked at.
    received: Vec<u8>,
}

/// The packet as bytes.
pub(crate) fn encoded(packet: &Packet<'_>, version: Version) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec::encode(packet, version, &mut bytes);
    bytes
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    pub(crate) fn new(stream: S, version: Version) -> Self {
        Peer { stream, version, received: Vec::new() }
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        within(async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        })
        .await
        .unwrap();
    }

    pub(crate) async fn send(&mut self, packet: &Packet<'_>) {
        self.send_bytes(&encoded(packet, self.version)).await;
    }

    /// Reads what the socket has. False at the end of the stream.
    async fn read(&mut self) -> io::Result<bool> {
        Ok(within(self.stream.read_buf(&mut self.received)).await? > 0)
    }

    /// Hands the next packet to `look`.
    pub(crate) async fn next<R>(&mut self, look: impl FnOnce(&Packet<'_>) -> R) -> R {
        loop {
            match codec::decode(&self.received, self.version, PACKET_BYTES_LIMIT).unwrap() {
                Decoded::Packet(packet, length) => {
                    let result = look(&packet);
                    self.received.drain(..length);
                    return result;
                }
                Decoded::Incomplete(_) => assert!(
                    self.read().await.unwrap(),
                    "the connection ended where a packet was expected, after {:?}",
                    self.received
                ),
            }
        }
    }

    /// As [`Peer::next`]; `None` at the end of the connection.
    pub(crate) async fn next_or_end<R>(&mut self, look: impl FnOnce(&Packet<'_>) -> R) -> Option<R> {
        while let Decoded::Incomplete(_) =
            codec::decode(&self.received, self.version, PACKET_BYTES_LIMIT).unwrap()
        {
            let is_open = match self.read().await {
                // Who still writes to a broker that has closed its side is told so.
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => false,
                read => read.unwrap(),
            };
            if !is_open {
                assert!(self.received.is_empty(), "{:?} before the end", self.received);
                return None;
            }
        }
        Some(self.next(look).await)
    }

    /// The next packet is this one.
    #[track_caller]
    pub(crate) fn expect(&mut self, expected: &Packet<'_>) -> impl Future<Output = ()> {
        let here = std::panic::Location::caller();
        self.next(move |packet| assert_eq!(packet, expected, "at {here}"))
    }

    /// The next packet is a DISCONNECT with this reason, and after it the connection ends.
    pub(crate) async fn expect_disconnect(&mut self, reason: ReasonCode) {
        self.next(|packet| match packet {
            Packet::Disconnect(Disconnect { reason: found, .. }) => assert_eq!(*found, reason),
            other => panic!("{other:?} where DISCONNECT {reason} was expected"),
        })
        .await;
        self.expect_end().await;
    }

    /// Nothing more comes, and the connection ends in good order: not by a reset.
    pub(crate) async fn expect_end(&mut self) {
        while self.read().await.expect("the connection ends without a reset") {}
        assert!(self.received.is_empty(), "{:?} before the end", self.received);
    }

    /// The broker gives the connection up: with this reason in v5, without a word before.
    pub(crate) async fn expect_closed(&mut self, reason: ReasonCode) {
        match self.version {
            Version::V5 => self.expect_disconnect(reason).await,
            Version::V31 | Version::V311 => self.expect_end().await,
        }
    }

    /// The connection ends, in whatever way.
    pub(crate) async fn expect_gone(&mut self) {
        while let Ok(true) = self.read().await {}
    }

    /// Sends CONNECT, which the broker accepts. Returns whether it had a session.
    pub(crate) async fn connect(&mut self, connect: &Connect<'_>) -> bool {
        self.send(&Packet::Connect(Box::new(connect.clone()))).await;
        let (session_present, code) = self.conn_ack().await;
        assert_eq!(code, 0, "CONNECT of {} is accepted", connect.client_id);
        session_present
    }

    /// The next packet is a CONNACK. Returns Session Present and the code in the version's own numbers.
    pub(crate) async fn conn_ack(&mut self) -> (bool, u8) {
        let is_v5 = self.version.is_v5();
        self.next(|packet| match packet {
            Packet::ConnAck(ack) => match ack.code {
                ConnAckReturn::V5(code) if is_v5 => (ack.session_present, code as u8),
                ConnAckReturn::V3(code) if !is_v5 => (ack.session_present, code),
                other => panic!("{other:?} is of the other version"),
            },
            other => panic!("{other:?} where CONNACK was expected"),
        })
        .await
    }

    /// Subscribes with packet identifier 1; the broker grants what is asked for.
    pub(crate) async fn subscribe(&mut self, filter: &str, qos: QoS) {
        let code = self.subscribe_with(filter, at_most(qos)).await;
        assert_eq!(code, qos as u8, "{filter} is granted");
    }

    /// Subscribes with packet identifier 1. Returns the code in SUBACK.
    pub(crate) async fn subscribe_with(&mut self, filter: &str, options: SubscriptionOptions) -> u8 {
        self.send(&subscribe(id(1), &[(filter, options)])).await;
        self.next(|packet| match packet {
            Packet::SubAck(ack) => {
                assert_eq!((ack.packet_id, ack.codes.len()), (id(1), 1));
                ack.codes[0]
            }
            other => panic!("{other:?} where SUBACK was expected"),
        })
        .await
    }

    /// The next packet is a PUBLISH with this topic and payload. Returns its delivery.
    pub(crate) async fn expect_message(&mut self, topic: &str, payload: &[u8]) -> Delivery {
        self.next(|packet| match packet {
            Packet::Publish(publish) => {
                assert_eq!(publish.topic, topic);
                assert!(publish.payload == payload, "{:?} is not {payload:?}", publish.payload);
                publish.delivery
            }
            other => panic!("{other:?} where a message for {topic} was expected"),
        })
        .await
    }

    /// All that was sent before has been heard.
    pub(crate) async fn ping(&mut self) {
        self.send(&Packet::PingReq).await;
        self.expect(&Packet::PingResp).await;
    }

    /// Publishes with QoS 1 and packet identifier 1, and waits for PUBACK.
    pub(crate) async fn publish_acknowledged(&mut self, topic: &str, payload: &[u8]) {
        self.send(&publish(topic, payload, Delivery::AtLeastOnce(id(1)))).await;
        self.next(|packet| assert!(matches!(packet, Packet::PubAck(_)), "{packet:?}")).await;
    }

    /// Takes a QoS 1 message and acknowledges it.
    pub(crate) async fn take_message(&mut self, topic: &str, payload: &[u8]) {
        match self.expect_message(topic, payload).await {
            Delivery::AtMostOnce => {}
            Delivery::AtLeastOnce(id) => self.send(&Packet::PubAck(success(id))).await,
            Delivery::ExactlyOnce(id) => {
                self.send(&Packet::PubRec(success(id))).await;
                self.expect(&Packet::PubRel(success(id))).await;
                self.send(&Packet::PubComp(success(id))).await;
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    /// The next bytes, as many as this.
    pub(crate) async fn take_bytes(&mut self, count: usize) -> Vec<u8> {
        while self.received.len() < count {
            assert!(self.read().await.unwrap(), "the connection ended after {:?}", self.received);
        }
        self.received.drain(..count).collect()
    }
}
