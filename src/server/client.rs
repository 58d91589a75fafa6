//! A client in the broker's own process: MQTT 5 over a pipe in memory.

use std::{
    collections::VecDeque,
    fmt,
    future::poll_fn,
    io,
    num::NonZeroU16,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use crate::{
    codec::{
        self, Ack, ConnAckReturn, Connect, ConnectProperties, DecodeError, Decoded, Delivery, Disconnect,
        PACKET_BYTES_LIMIT, Packet, PacketId, Publish, PublishProperties, QoS, ReasonCode, Subscribe,
        SubscribeFilters, SubscribeProperties, SubscriptionOptions, Unsubscribe, UnsubscribeFilters,
        UserProperties, Version,
    },
    topic::{TopicError, TopicFilter, TopicLimits, check_name},
};

/// Bytes that the pipe holds in each direction.
pub(super) const PIPE_BYTES: usize = 64 * 1024;

/// QoS 1 and 2 messages that wait for the program at most: the broker keeps what comes after them.
const RECEIVE_MAXIMUM: NonZeroU16 = NonZeroU16::MIN.saturating_add(255);

/// QoS 0 messages that wait for the program at most; further ones are thrown away.
const INBOX_MESSAGES_MAX: usize = 10_000;

/// Payload bytes of waiting messages above which QoS 0 messages are thrown away.
const INBOX_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Bytes read from the pipe at a time.
const READ_BYTES: usize = 8 * 1024;

/// Longest string that a packet can hold, in bytes.
const STRING_BYTES_MAX: usize = 65_535;

/// A client in the broker's own process. It speaks MQTT 5 through the same code as any other client, so
/// that limits, rules and order are the same; what it saves is the socket.
///
/// Its session ends with its connection: when the client is dropped, disconnected or taken over by another
/// one with the same identifier.
///
/// One client does one thing at a time. A program that publishes while it waits for messages uses two.
/// All methods may be given up (by `select!` or a timeout) and others called afterwards; what a
/// `publish` or `subscribe` that was given up has sent already takes effect nevertheless.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use dunlin::{Broker, Publication, QoS};
///
/// let broker = Broker::builder().no_listeners().start().await?;
/// let mut service = broker.client("service").await?;
/// service.subscribe("requests", QoS::AtLeastOnce).await?;
///
/// let mut asker = broker.client("asker").await?;
/// asker.subscribe("answers/1", QoS::AtLeastOnce).await?;
/// let mut question = Publication::new("requests", b"6 x 7");
/// question.qos = QoS::AtLeastOnce;
/// question.properties.response_topic = Some("answers/1");
/// asker.send(&question).await?;
///
/// let request = service.receive().await?;
/// let answer_to = request.response_topic.ok_or("nobody to answer to")?;
/// service.publish(&answer_to, b"42", QoS::AtLeastOnce).await?;
/// assert_eq!(asker.receive().await?.payload, b"42");
/// broker.stop().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Client {
    stream: DuplexStream,
    /// Received and not yet decoded.
    bytes: Vec<u8>,
    /// Encoded packets that the pipe has not taken.
    unsent: Vec<u8>,
    inbox: VecDeque<Incoming>,
    /// Payload bytes in the inbox.
    inbox_bytes: usize,
    next_id: u16,
    missed: u64,
    /// The largest packet that the broker takes.
    packet_bytes_max: u32,
    /// Set once the broker has closed the connection: with its reason, if it gave one.
    end: Option<Option<ReasonCode>>,
}

/// A message for [`Client::send`].
#[derive(Clone, Debug)]
pub struct Publication<'a> {
    /// The topic name.
    pub topic: &'a str,
    /// The payload.
    pub payload: &'a [u8],
    /// QoS; 0 by default.
    pub qos: QoS,
    /// Whether the broker keeps it for later subscribers; then an empty payload removes what it kept.
    pub retain: bool,
    /// All that MQTT 5 lets a message carry besides.
    pub properties: PublishProperties<'a>,
}

impl<'a> Publication<'a> {
    /// A message of QoS 0 that is not retained.
    #[must_use]
    pub fn new(topic: &'a str, payload: &'a [u8]) -> Self {
        let properties = PublishProperties::default();
        Publication { topic, payload, qos: QoS::AtMostOnce, retain: false, properties }
    }
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
    /// Content type.
    pub content_type: Option<String>,
    /// Where its publisher wants an answer to.
    pub response_topic: Option<String>,
    /// What its publisher wants to find in the answer again.
    pub correlation_data: Option<Vec<u8>>,
    /// User properties in order.
    pub user_properties: Vec<(String, String)>,
}

#[derive(Debug)]
struct Incoming {
    message: Delivered,
    /// PUBACK or PUBREC is sent when the program takes the message: so the broker sends no more than the
    /// program can take.
    unacknowledged: Delivery,
}

/// Why a [`Client`] cannot go on, or was refused.
#[derive(Debug)]
pub enum ClientError {
    /// The broker answered with this reason code. The client can go on.
    Refused(ReasonCode),
    /// This is no topic name, or no topic filter. Nothing was sent.
    Topic(TopicError),
    /// A string is longer than MQTT can express, or the packet larger than the broker takes. Nothing was sent.
    TooLarge,
    /// The broker closed the connection, for this reason if it gave one: it stops, say, or the client was
    /// taken over.
    Closed(Option<ReasonCode>),
    /// The broker sent what the client does not understand.
    Unexpected(String),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::Refused(code) => write!(f, "refused: {code}"),
            ClientError::Topic(error) => error.fmt(f),
            ClientError::TooLarge => write!(f, "larger than MQTT or the broker allows"),
            ClientError::Closed(Some(code)) => write!(f, "disconnected: {code}"),
            ClientError::Closed(None) => write!(f, "connection closed"),
            ClientError::Unexpected(what) => write!(f, "unexpected answer: {what}"),
        }
    }
}

impl std::error::Error for ClientError {}

impl From<DecodeError> for ClientError {
    fn from(error: DecodeError) -> Self {
        ClientError::Unexpected(error.to_string())
    }
}

impl From<TopicError> for ClientError {
    fn from(error: TopicError) -> Self {
        ClientError::Topic(error)
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

/// What becomes of a packet.
enum Heard {
    ConnAck(ConnAckReturn, u32),
    Answer(Answer),
    Message(Delivery, Delivered),
    Release(PacketId),
    Disconnect(ReasonCode),
}

impl Client {
    pub(super) async fn connect(stream: DuplexStream, client_id: &str) -> Result<Client, ClientError> {
        if client_id.len() > STRING_BYTES_MAX {
            return Err(ClientError::TooLarge);
        }
        let mut client = Client {
            stream,
            bytes: Vec::new(),
            unsent: Vec::new(),
            inbox: VecDeque::new(),
            inbox_bytes: 0,
            next_id: 0,
            missed: 0,
            packet_bytes_max: PACKET_BYTES_LIMIT,
            end: None,
        };
        let properties =
            ConnectProperties { receive_maximum: Some(RECEIVE_MAXIMUM), ..ConnectProperties::default() };
        client.write(&Packet::Connect(Box::new(Connect {
            version: Version::V5,
            clean_start: true,
            keep_alive_secs: 0,
            client_id,
            will: None,
            user_name: None,
            password: None,
            properties,
        })));
        match client.hear().await? {
            Heard::ConnAck(ConnAckReturn::V5(ReasonCode::Success), packet_bytes_max) => {
                client.packet_bytes_max = packet_bytes_max;
                Ok(client)
            }
            Heard::ConnAck(ConnAckReturn::V5(code), _) => Err(ClientError::Refused(code)),
            Heard::Disconnect(code) => Err(ClientError::Closed(Some(code))),
            Heard::ConnAck(ConnAckReturn::V3(_), _)
            | Heard::Answer(_)
            | Heard::Message(..)
            | Heard::Release(_) => Err(ClientError::Unexpected("no CONNACK".into())),
        }
    }

    /// Publishes a message. With QoS 1 and 2 it returns when the broker has taken it over.
    ///
    /// # Errors
    /// As of [`Client::send`].
    pub async fn publish(&mut self, topic: &str, payload: &[u8], qos: QoS) -> Result<(), ClientError> {
        self.send(&Publication { qos, ..Publication::new(topic, payload) }).await
    }

    /// Publishes a message that the broker keeps for later subscribers; an empty payload removes it.
    ///
    /// # Errors
    /// As of [`Client::send`].
    pub async fn publish_retained(
        &mut self,
        topic: &str,
        payload: &[u8],
        qos: QoS,
    ) -> Result<(), ClientError> {
        self.send(&Publication { qos, retain: true, ..Publication::new(topic, payload) }).await
    }

    /// Publishes a message with all that it may carry. With QoS 1 and 2 it returns when the broker has
    /// taken it over; with QoS 0 when it is on its way, whatever the broker thinks of it.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with the broker's reason, [`ClientError::Topic`] and
    /// [`ClientError::TooLarge`] for what is not sent at all, [`ClientError::Closed`].
    pub async fn send(&mut self, publication: &Publication<'_>) -> Result<(), ClientError> {
        let Publication { topic, payload, qos, retain, properties } = publication;
        check_name(topic, &LIMITS)?;
        check_properties(properties)?;
        let id = self.take_id();
        let delivery = match qos {
            QoS::AtMostOnce => Delivery::AtMostOnce,
            QoS::AtLeastOnce => Delivery::AtLeastOnce(id),
            QoS::ExactlyOnce => Delivery::ExactlyOnce(id),
        };
        let properties = properties.clone();
        let packet =
            Packet::Publish(Publish { dup: false, delivery, retain: *retain, topic, properties, payload });
        if !codec::encode_within(&packet, Version::V5, self.packet_bytes_max, &mut self.unsent) {
            return Err(ClientError::TooLarge);
        }
        match qos {
            QoS::AtMostOnce => self.flush().await,
            QoS::AtLeastOnce => check(&self.answer(AnswerKind::PubAck, id).await?),
            QoS::ExactlyOnce => {
                check(&self.answer(AnswerKind::PubRec, id).await?)?;
                check(&self.answer(AnswerKind::PubComp, id).await?)
            }
        }
    }

    /// Subscribes to a filter. Returns the granted QoS.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with the broker's reason, [`ClientError::Topic`] for what is no filter,
    /// [`ClientError::Closed`].
    pub async fn subscribe(&mut self, filter: &str, qos: QoS) -> Result<QoS, ClientError> {
        self.subscribe_with(filter, SubscriptionOptions { qos, ..SubscriptionOptions::default() }).await
    }

    /// Subscribes with all options: not to get its own messages, say, or none that are retained.
    ///
    /// # Errors
    /// As of [`Client::subscribe`].
    pub async fn subscribe_with(
        &mut self,
        filter: &str,
        options: SubscriptionOptions,
    ) -> Result<QoS, ClientError> {
        TopicFilter::parse(filter, &LIMITS)?;
        let packet_id = self.take_id();
        let filters = [(filter, options)];
        let filters = SubscribeFilters::from_list(&filters);
        let properties = SubscribeProperties::default();
        self.write(&Packet::Subscribe(Subscribe { packet_id, properties, filters }));
        let codes = self.answer(AnswerKind::SubAck, packet_id).await?;
        check(&codes)?;
        Ok(codes.first().copied().and_then(QoS::from_u8).unwrap_or_default())
    }

    /// Ends a subscription. It is no error if there is none.
    ///
    /// # Errors
    /// As of [`Client::subscribe`].
    pub async fn unsubscribe(&mut self, filter: &str) -> Result<(), ClientError> {
        TopicFilter::parse(filter, &LIMITS)?;
        let packet_id = self.take_id();
        let filters = [filter];
        let filters = UnsubscribeFilters::from_list(&filters);
        let user_properties = UserProperties::default();
        self.write(&Packet::Unsubscribe(Unsubscribe { packet_id, user_properties, filters }));
        check(&self.answer(AnswerKind::UnsubAck, packet_id).await?)
    }

    /// Waits for the next message. It may be given up and called again: nothing is lost by that.
    ///
    /// # Errors
    /// [`ClientError::Closed`], after the last message that had arrived before.
    pub async fn receive(&mut self) -> Result<Delivered, ClientError> {
        loop {
            if let Some(incoming) = self.inbox.pop_front() {
                self.inbox_bytes -= incoming.message.payload.len();
                match incoming.unacknowledged {
                    Delivery::AtMostOnce => {}
                    Delivery::AtLeastOnce(id) => self.write(&Packet::PubAck(Ack::success(id))),
                    Delivery::ExactlyOnce(id) => self.write(&Packet::PubRec(Ack::success(id))),
                }
                self.try_flush();
                return Ok(incoming.message);
            }
            // Nobody waits for an answer: it is one to a call that was given up.
            self.step().await?;
        }
    }

    /// QoS 0 messages that were thrown away since too many waited to be received.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// Disconnects in good order. Messages that have not been received are lost.
    ///
    /// # Errors
    /// [`ClientError::Closed`]: the connection was over already.
    pub async fn disconnect(mut self) -> Result<(), ClientError> {
        self.write(&Packet::Disconnect(Disconnect::new(ReasonCode::Success)));
        self.flush().await
    }

    fn take_id(&mut self) -> PacketId {
        self.next_id = self.next_id.checked_add(1).unwrap_or(1);
        PacketId::new(self.next_id).unwrap_or(PacketId::MIN)
    }

    /// Makes a packet due. What goes out with the next use of the pipe stays due if that is given up.
    fn write(&mut self, packet: &Packet<'_>) {
        codec::encode(packet, Version::V5, &mut self.unsent);
    }

    /// Sends all that is due, and takes in what comes meanwhile: the broker may read no more of us before
    /// we have read of it.
    async fn flush(&mut self) -> Result<(), ClientError> {
        while !self.unsent.is_empty() {
            while let Some(heard) = self.next_heard()? {
                // An answer is one to a call that was given up: what is being sent has none yet.
                self.act(heard)?;
            }
            poll_fn(|cx| self.poll_move(cx, Until::Sent)).await?;
        }
        Ok(())
    }

    /// Sends of what is due as much as the pipe takes at once. What is left goes with the next call, and an
    /// error shows then.
    fn try_flush(&mut self) {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let _: Poll<Result<(), ClientError>> = self.poll_move(&mut cx, Until::Sent);
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
        let heard = self.hear().await?;
        self.act(heard)
    }

    /// The next packet, however long it takes.
    async fn hear(&mut self) -> Result<Heard, ClientError> {
        loop {
            if let Some(heard) = self.next_heard()? {
                return Ok(heard);
            }
            poll_fn(|cx| self.poll_move(cx, Until::Received)).await?;
        }
    }

    /// Does what a packet asks. An answer is for the caller.
    fn act(&mut self, heard: Heard) -> Result<Option<Answer>, ClientError> {
        match heard {
            Heard::Answer(answer) => {
                if answer.kind == AnswerKind::PubRec && check(&answer.codes).is_ok() {
                    // Even if nobody waits for it: the identifier would stay in use.
                    self.write(&Packet::PubRel(Ack::success(answer.packet_id)));
                }
                return Ok(Some(answer));
            }
            Heard::Disconnect(code) => {
                self.end = Some(Some(code));
                return Err(ClientError::Closed(Some(code)));
            }
            Heard::Release(id) => self.write(&Packet::PubComp(Ack::success(id))),
            Heard::Message(delivery, message) => self.keep(delivery, message),
            Heard::ConnAck(..) => return Err(ClientError::Unexpected("a second CONNACK".into())),
        }
        Ok(None)
    }

    fn keep(&mut self, delivery: Delivery, message: Delivered) {
        let is_full = self.inbox.len() >= INBOX_MESSAGES_MAX || self.inbox_bytes >= INBOX_BYTES_MAX;
        if delivery == Delivery::AtMostOnce && is_full {
            self.missed += 1;
            return;
        }
        self.inbox_bytes += message.payload.len();
        self.inbox.push_back(Incoming { message, unacknowledged: delivery });
    }

    /// Decodes the next packet, if it has arrived.
    fn next_heard(&mut self) -> Result<Option<Heard>, ClientError> {
        let Decoded::Packet(packet, len) = codec::decode(&self.bytes, Version::V5, PACKET_BYTES_LIMIT)?
        else {
            return Ok(None);
        };
        let heard = heard(&packet)?;
        self.bytes.drain(..len);
        Ok(Some(heard))
    }

    /// Moves bytes either way until what is asked for has made progress.
    fn poll_move(&mut self, cx: &mut Context<'_>, until: Until) -> Poll<Result<(), ClientError>> {
        if let Some(reason) = self.end {
            return Poll::Ready(Err(ClientError::Closed(reason)));
        }
        while !self.unsent.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.unsent) {
                Poll::Ready(Ok(count)) => drop(self.unsent.drain(..count)),
                // If it failed, why it is over is still to be read.
                Poll::Ready(Err(_)) | Poll::Pending => break,
            }
        }
        if until == Until::Sent && self.unsent.is_empty() {
            return Poll::Ready(Ok(()));
        }
        match self.poll_read(cx) {
            Poll::Ready(Ok(0) | Err(_)) => {
                self.end = Some(None);
                Poll::Ready(Err(ClientError::Closed(None)))
            }
            Poll::Ready(Ok(_)) => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut buffer = [0; READ_BYTES];
        let mut buffer = ReadBuf::new(&mut buffer);
        let poll = Pin::new(&mut self.stream).poll_read(cx, &mut buffer);
        self.bytes.extend_from_slice(buffer.filled());
        poll.map_ok(|()| buffer.filled().len())
    }
}

/// What a move of bytes is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    Sent,
    Received,
}

/// The format's own limits: the broker's may be narrower, which it says itself.
const LIMITS: TopicLimits = TopicLimits { bytes_max: STRING_BYTES_MAX, levels_max: usize::MAX };

fn check_properties(properties: &PublishProperties<'_>) -> Result<(), ClientError> {
    let texts = [properties.content_type, properties.response_topic];
    let pairs = properties.user_properties.iter().flat_map(|(name, value)| [name, value]);
    let longest_text = texts.into_iter().flatten().chain(pairs).map(str::len).max();
    let longest = longest_text.max(properties.correlation_data.map(<[u8]>::len));
    if longest.is_some_and(|bytes| bytes > STRING_BYTES_MAX) { Err(ClientError::TooLarge) } else { Ok(()) }
}

fn check(codes: &[u8]) -> Result<(), ClientError> {
    let refused = codes.iter().find(|code| **code >= 0x80);
    match refused.map(|code| ReasonCode::from_u8(*code).unwrap_or(ReasonCode::UnspecifiedError)) {
        None => Ok(()),
        Some(code) => Err(ClientError::Refused(code)),
    }
}

fn heard(packet: &Packet<'_>) -> Result<Heard, ClientError> {
    let answer =
        |kind, packet_id, codes: &[u8]| Ok(Heard::Answer(Answer { kind, packet_id, codes: codes.into() }));
    match packet {
        Packet::ConnAck(ack) => {
            let packet_bytes_max = ack.properties.packet_bytes_max.map_or(PACKET_BYTES_LIMIT, u32::from);
            Ok(Heard::ConnAck(ack.code, packet_bytes_max))
        }
        Packet::Publish(publish) => Ok(Heard::Message(publish.delivery, delivered(publish))),
        Packet::PubAck(ack) => answer(AnswerKind::PubAck, ack.packet_id, &[ack.reason as u8]),
        Packet::PubRec(ack) => answer(AnswerKind::PubRec, ack.packet_id, &[ack.reason as u8]),
        Packet::PubComp(ack) => answer(AnswerKind::PubComp, ack.packet_id, &[ack.reason as u8]),
        Packet::SubAck(ack) => answer(AnswerKind::SubAck, ack.packet_id, ack.codes),
        Packet::UnsubAck(ack) => answer(AnswerKind::UnsubAck, ack.packet_id, ack.codes),
        Packet::PubRel(ack) => Ok(Heard::Release(ack.packet_id)),
        Packet::Disconnect(disconnect) => Ok(Heard::Disconnect(disconnect.reason)),
        Packet::Connect(_)
        | Packet::Subscribe(_)
        | Packet::Unsubscribe(_)
        | Packet::PingReq
        | Packet::PingResp
        | Packet::Auth(_) => Err(ClientError::Unexpected(packet.kind().name().into())),
    }
}

fn delivered(publish: &Publish<'_>) -> Delivered {
    let properties = &publish.properties;
    let user_properties = properties.user_properties.iter();
    Delivered {
        topic: publish.topic.into(),
        payload: publish.payload.into(),
        qos: publish.delivery.qos(),
        retain: publish.retain,
        content_type: properties.content_type.map(str::to_owned),
        response_topic: properties.response_topic.map(str::to_owned),
        correlation_data: properties.correlation_data.map(<[u8]>::to_vec),
        user_properties: user_properties.map(|(name, value)| (name.into(), value.into())).collect(),
    }
}
