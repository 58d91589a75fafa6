//! A client in the broker's own process: MQTT 5 over a pipe in memory.

use std::{
    collections::{BTreeSet, VecDeque},
    fmt, io,
    num::NonZeroU16,
};

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::codec::{
    self, Ack, AckProperties, ConnAckReturn, Connect, ConnectProperties, DecodeError, Decoded, Delivery,
    Disconnect, DisconnectProperties, PACKET_BYTES_LIMIT, Packet, PacketId, Publish, PublishProperties, QoS,
    ReasonCode, Subscribe, SubscribeFilters, SubscribeProperties, SubscriptionOptions, Unsubscribe,
    UnsubscribeFilters, UserProperties, Version,
};

/// Bytes that the pipe holds in each direction.
pub(super) const PIPE_BYTES: usize = 64 * 1024;

/// QoS 1 and 2 messages that the client takes before the program has received them.
const RECEIVE_MAXIMUM: NonZeroU16 = NonZeroU16::MIN.saturating_add(255);

/// QoS 0 messages that are kept until the program receives them.
const INBOX_MAX: usize = 10_000;

/// A client in the broker's own process. It speaks MQTT 5 through the same code as any other client, so
/// that limits, rules and order are the same; what it saves is the socket.
///
/// One client does one thing at a time. A program that publishes while it waits for messages uses two.
#[derive(Debug)]
pub struct Client {
    stream: DuplexStream,
    bytes: Vec<u8>,
    /// Encoded packets that the pipe has not taken.
    unsent: Vec<u8>,
    inbox: VecDeque<Incoming>,
    /// QoS 2 messages received and not yet released.
    unreleased: BTreeSet<PacketId>,
    next_id: u16,
    missed: u64,
}

/// A message that a [`Client`] received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// The topic name.
    pub topic: String,
    /// The payload.
    pub payload: Vec<u8>,
    /// QoS of the delivery.
    pub qos: QoS,
    /// RETAIN: a message that was there before the subscription.
    pub retain: bool,
    /// User properties in order.
    pub user_properties: Vec<(String, String)>,
}

#[derive(Debug)]
struct Incoming {
    message: Delivered,
    /// PUBACK is sent when the program has the message.
    unacknowledged: Option<PacketId>,
}

/// Why a [`Client`] cannot go on, or was refused.
#[derive(Debug)]
pub enum ClientError {
    /// The broker answered with this reason code.
    Refused(ReasonCode),
    /// The broker closed the connection: it stops, or the client was taken over.
    Closed(Option<ReasonCode>),
    /// The pipe broke.
    Io(io::Error),
    /// The broker sent what the client does not understand.
    Unexpected(String),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::Refused(code) => write!(f, "refused: {code}"),
            ClientError::Closed(Some(code)) => write!(f, "disconnected: {code}"),
            ClientError::Closed(None) => write!(f, "connection closed"),
            ClientError::Io(error) => write!(f, "connection failed: {error}"),
            ClientError::Unexpected(what) => write!(f, "unexpected answer: {what}"),
        }
    }
}

impl std::error::Error for ClientError {}

impl From<io::Error> for ClientError {
    fn from(error: io::Error) -> Self {
        ClientError::Io(error)
    }
}

impl From<DecodeError> for ClientError {
    fn from(error: DecodeError) -> Self {
        ClientError::Unexpected(error.to_string())
    }
}

/// What an answer of the broker says.
struct Answer {
    kind: AnswerKind,
    packet_id: PacketId,
    codes: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AnswerKind {
    PubAck,
    PubRec,
    PubComp,
    SubAck,
    UnsubAck,
}

impl Client {
    pub(super) async fn connect(stream: DuplexStream, client_id: &str) -> Result<Client, ClientError> {
        let mut client = Client {
            stream,
            bytes: Vec::new(),
            unsent: Vec::new(),
            inbox: VecDeque::new(),
            unreleased: BTreeSet::new(),
            next_id: 0,
            missed: 0,
        };
        let properties =
            ConnectProperties { receive_maximum: Some(RECEIVE_MAXIMUM), ..ConnectProperties::default() };
        let connect = Connect {
            version: Version::V5,
            clean_start: true,
            keep_alive_secs: 0,
            client_id,
            will: None,
            user_name: None,
            password: None,
            properties,
        };
        client.send(&Packet::Connect(Box::new(connect))).await?;
        let code = client
            .read(|packet| match packet {
                Packet::ConnAck(ack) => Ok(ack.code),
                other => Err(unexpected(other)),
            })
            .await??;
        match code {
            ConnAckReturn::V5(ReasonCode::Success) => Ok(client),
            ConnAckReturn::V5(code) => Err(ClientError::Refused(code)),
            ConnAckReturn::V3(code) => Err(ClientError::Unexpected(format!("CONNACK of version 3: {code}"))),
        }
    }

    /// Publishes a message. With QoS 1 and 2 it returns when the broker has taken it over.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with the broker's reason, or the connection is over.
    pub async fn publish(&mut self, topic: &str, payload: &[u8], qos: QoS) -> Result<(), ClientError> {
        self.publish_message(topic, payload, qos, false).await
    }

    /// Publishes a message that the broker keeps for later subscribers; an empty payload removes it.
    ///
    /// # Errors
    /// As of [`Client::publish`].
    pub async fn publish_retained(
        &mut self,
        topic: &str,
        payload: &[u8],
        qos: QoS,
    ) -> Result<(), ClientError> {
        self.publish_message(topic, payload, qos, true).await
    }

    async fn publish_message(
        &mut self,
        topic: &str,
        payload: &[u8],
        qos: QoS,
        retain: bool,
    ) -> Result<(), ClientError> {
        let id = self.take_id();
        let delivery = match qos {
            QoS::AtMostOnce => Delivery::AtMostOnce,
            QoS::AtLeastOnce => Delivery::AtLeastOnce(id),
            QoS::ExactlyOnce => Delivery::ExactlyOnce(id),
        };
        let properties = PublishProperties::default();
        self.send(&Packet::Publish(Publish { dup: false, delivery, retain, topic, properties, payload }))
            .await?;
        match qos {
            QoS::AtMostOnce => Ok(()),
            QoS::AtLeastOnce => self.answer(AnswerKind::PubAck, id).await.and_then(|codes| check(&codes)),
            QoS::ExactlyOnce => {
                check(&self.answer(AnswerKind::PubRec, id).await?)?;
                self.send(&Packet::PubRel(success(id))).await?;
                self.answer(AnswerKind::PubComp, id).await.and_then(|codes| check(&codes))
            }
        }
    }

    /// Subscribes to a filter. Returns the granted QoS.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with the broker's reason, or the connection is over.
    pub async fn subscribe(&mut self, filter: &str, qos: QoS) -> Result<QoS, ClientError> {
        let packet_id = self.take_id();
        let options = SubscriptionOptions { qos, ..SubscriptionOptions::default() };
        let filters = [(filter, options)];
        let filters = SubscribeFilters::from_list(&filters);
        let properties = SubscribeProperties::default();
        self.send(&Packet::Subscribe(Subscribe { packet_id, properties, filters })).await?;
        let codes = self.answer(AnswerKind::SubAck, packet_id).await?;
        check(&codes)?;
        Ok(codes.first().copied().and_then(QoS::from_u8).unwrap_or_default())
    }

    /// Ends a subscription.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with the broker's reason, or the connection is over.
    pub async fn unsubscribe(&mut self, filter: &str) -> Result<(), ClientError> {
        let packet_id = self.take_id();
        let filters = [filter];
        let filters = UnsubscribeFilters::from_list(&filters);
        let user_properties = UserProperties::default();
        self.send(&Packet::Unsubscribe(Unsubscribe { packet_id, user_properties, filters })).await?;
        self.answer(AnswerKind::UnsubAck, packet_id).await.and_then(|codes| check(&codes))
    }

    /// Waits for the next message. It may be given up and called again: nothing is lost by that.
    ///
    /// # Errors
    /// The connection is over.
    pub async fn receive(&mut self) -> Result<Delivered, ClientError> {
        loop {
            if let Some(id) = self.inbox.front_mut().and_then(|incoming| incoming.unacknowledged.take()) {
                codec::encode(&Packet::PubAck(success(id)), Version::V5, &mut self.unsent);
            }
            self.flush().await?;
            if let Some(incoming) = self.inbox.pop_front() {
                return Ok(incoming.message);
            }
            if let Some(answer) = self.step().await? {
                return Err(ClientError::Unexpected(format!("{:?} that nothing waits for", answer.kind)));
            }
        }
    }

    /// QoS 0 messages that were thrown away since too many waited to be received.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// Disconnects in good order.
    ///
    /// # Errors
    /// The connection is over already.
    pub async fn disconnect(mut self) -> Result<(), ClientError> {
        let properties = DisconnectProperties::default();
        self.send(&Packet::Disconnect(Disconnect { reason: ReasonCode::Success, properties })).await
    }

    fn take_id(&mut self) -> PacketId {
        self.next_id = self.next_id.checked_add(1).unwrap_or(1);
        PacketId::new(self.next_id).unwrap_or(PacketId::MIN)
    }

    async fn send(&mut self, packet: &Packet<'_>) -> Result<(), ClientError> {
        codec::encode(packet, Version::V5, &mut self.unsent);
        self.flush().await
    }

    /// Sends what is due. If the caller gives up meanwhile, the rest stays due.
    async fn flush(&mut self) -> Result<(), ClientError> {
        while !self.unsent.is_empty() {
            let count = self.stream.write(&self.unsent).await?;
            self.unsent.drain(..count);
        }
        Ok(())
    }

    /// Waits for the answer to a packet; messages that come before it are kept.
    async fn answer(&mut self, kind: AnswerKind, packet_id: PacketId) -> Result<Vec<u8>, ClientError> {
        loop {
            if let Some(answer) = self.step().await?
                && answer.kind == kind
                && answer.packet_id == packet_id
            {
                return Ok(answer.codes);
            }
        }
    }

    /// Reads one packet and does what it asks.
    async fn step(&mut self) -> Result<Option<Answer>, ClientError> {
        enum Read {
            Answer(Answer),
            Publish(Delivery, Delivered),
            Release(PacketId),
            Disconnect(ReasonCode),
        }
        let answer =
            |kind, packet_id, codes: &[u8]| Read::Answer(Answer { kind, packet_id, codes: codes.into() });
        let read = self
            .read(|packet| match packet {
                Packet::Publish(publish) => Ok(Read::Publish(publish.delivery, delivered(publish))),
                Packet::PubAck(ack) => Ok(answer(AnswerKind::PubAck, ack.packet_id, &[ack.reason as u8])),
                Packet::PubRec(ack) => Ok(answer(AnswerKind::PubRec, ack.packet_id, &[ack.reason as u8])),
                Packet::PubComp(ack) => Ok(answer(AnswerKind::PubComp, ack.packet_id, &[ack.reason as u8])),
                Packet::SubAck(ack) => Ok(answer(AnswerKind::SubAck, ack.packet_id, ack.codes)),
                Packet::UnsubAck(ack) => Ok(answer(AnswerKind::UnsubAck, ack.packet_id, ack.codes)),
                Packet::PubRel(ack) => Ok(Read::Release(ack.packet_id)),
                Packet::Disconnect(disconnect) => Ok(Read::Disconnect(disconnect.reason)),
                other => Err(unexpected(other)),
            })
            .await??;
        match read {
            Read::Answer(answer) => return Ok(Some(answer)),
            Read::Disconnect(code) => return Err(ClientError::Closed(Some(code))),
            Read::Release(id) => {
                self.unreleased.remove(&id);
                self.send(&Packet::PubComp(success(id))).await?;
            }
            Read::Publish(delivery, message) => self.take(delivery, message).await?,
        }
        Ok(None)
    }

    async fn take(&mut self, delivery: Delivery, message: Delivered) -> Result<(), ClientError> {
        match delivery {
            Delivery::AtMostOnce if self.inbox.len() >= INBOX_MAX => self.missed += 1,
            Delivery::AtMostOnce => self.inbox.push_back(Incoming { message, unacknowledged: None }),
            Delivery::AtLeastOnce(id) => self.inbox.push_back(Incoming { message, unacknowledged: Some(id) }),
            Delivery::ExactlyOnce(id) => {
                if self.unreleased.insert(id) {
                    self.inbox.push_back(Incoming { message, unacknowledged: None });
                }
                self.send(&Packet::PubRec(success(id))).await?;
            }
        }
        Ok(())
    }

    /// Reads the next packet and hands it to `look`.
    async fn read<R>(&mut self, look: impl FnOnce(&Packet<'_>) -> R) -> Result<R, ClientError> {
        loop {
            if let Decoded::Packet(packet, len) = codec::decode(&self.bytes, Version::V5, PACKET_BYTES_LIMIT)?
            {
                let result = look(&packet);
                self.bytes.drain(..len);
                return Ok(result);
            }
            if self.stream.read_buf(&mut self.bytes).await? == 0 {
                return Err(ClientError::Closed(None));
            }
        }
    }
}

fn success(packet_id: PacketId) -> Ack<'static> {
    Ack { packet_id, reason: ReasonCode::Success, properties: AckProperties::default() }
}

fn check(codes: &[u8]) -> Result<(), ClientError> {
    let refused = codes.iter().find(|code| **code >= 0x80);
    match refused.map(|code| ReasonCode::from_u8(*code).unwrap_or(ReasonCode::UnspecifiedError)) {
        None => Ok(()),
        Some(code) => Err(ClientError::Refused(code)),
    }
}

fn unexpected(packet: &Packet<'_>) -> ClientError {
    match packet {
        Packet::Disconnect(disconnect) => ClientError::Closed(Some(disconnect.reason)),
        other => ClientError::Unexpected(format!("{other:?}")),
    }
}

fn delivered(publish: &Publish<'_>) -> Delivered {
    Delivered {
        topic: publish.topic.into(),
        payload: publish.payload.into(),
        qos: publish.delivery.qos(),
        retain: publish.retain,
        user_properties: publish
            .properties
            .user_properties
            .iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect(),
    }
}
