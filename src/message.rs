//! An application message on its way from one publisher to any number of subscribers.

use std::{num::NonZeroU32, sync::Arc};

use crate::{
    codec::{Publish, QoS, Will},
    mutation::{self, Mutation},
    time::Timestamp,
};

/// An application message. It is built once and shared by all its deliveries: what differs between them
/// (QoS, DUP, RETAIN, packet identifier, topic alias, subscription identifiers) is not in it.
#[derive(Clone, Debug)]
pub struct Message {
    topic: Arc<str>,
    /// The v5 properties that are forwarded unchanged, as on the wire, and behind them the payload: one
    /// allocation, copied from as it stands. `[MQTT-3.3.2-4]` `[MQTT-3.3.2-15]` to `[MQTT-3.3.2-20]`
    body: Box<[u8]>,
    payload_at: usize,
    qos: QoS,
    retain: bool,
    mark: Option<Mark>,
    expires_at: Option<Timestamp>,
    publisher: Option<Arc<str>>,
}

/// By what a message is followed on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mark(NonZeroU32);

impl Mark {
    const SAMPLE: u32 = 1 << 31;

    /// The mark with this number, of which 30 bits count. A sample is followed for its times alone.
    pub fn new(number: u32, is_sample: bool) -> Mark {
        let bits = (number << 1 | 1) & !Mark::SAMPLE | if is_sample { Mark::SAMPLE } else { 0 };
        Mark(NonZeroU32::new(bits).unwrap_or(NonZeroU32::MIN))
    }

    /// Whether the message is followed for its times alone.
    pub fn is_sample(self) -> bool {
        self.0.get() & Mark::SAMPLE != 0
    }

    /// Its number.
    pub fn number(self) -> u32 {
        (self.0.get() & !Mark::SAMPLE) >> 1
    }
}

/// What a message is built from, other than its topic, properties and payload.
#[derive(Clone, Debug)]
pub struct Header {
    /// QoS at which it was published.
    pub qos: QoS,
    /// RETAIN as published.
    pub retain: bool,
    /// When it expires, if it does.
    pub expires_at: Option<Timestamp>,
    /// The client identifier of the publisher; `None` for the broker itself.
    pub publisher: Option<Arc<str>>,
}

impl Message {
    /// A message without properties.
    pub fn new(topic: Arc<str>, payload: &[u8], header: Header) -> Message {
        Message::build(topic, Vec::with_capacity(payload.len()), payload, header)
    }

    /// The message of a PUBLISH that arrived at `now`; `topic` is its topic name with any alias resolved.
    pub fn from_publish(
        publish: &Publish<'_>,
        topic: Arc<str>,
        publisher: Arc<str>,
        now: Timestamp,
    ) -> Message {
        let mut body = Vec::with_capacity(publish.payload.len());
        publish.properties.write_forwarded(&mut body);
        let header = Header {
            qos: publish.delivery.qos(),
            retain: publish.retain,
            expires_at: publish.properties.message_expiry_secs.map(|secs| now.plus_secs(secs)),
            publisher: Some(publisher),
        };
        Message::build(topic, body, publish.payload, header)
    }

    /// The message of a will. Its expiry starts to count when it is published, so it is not set here.
    pub fn from_will(will: &Will<'_>, publisher: Arc<str>) -> Message {
        let mut body = Vec::with_capacity(will.payload.len());
        will.properties.write_forwarded(&mut body);
        let header =
            Header { qos: will.qos, retain: will.retain, expires_at: None, publisher: Some(publisher) };
        Message::build(will.topic.into(), body, will.payload, header)
    }

    /// A message as the store had it; `properties` are those that are forwarded, as on the wire.
    pub fn from_stored(topic: Arc<str>, properties: &[u8], payload: &[u8], header: Header) -> Message {
        let mut body = Vec::with_capacity(properties.len() + payload.len());
        body.extend_from_slice(properties);
        Message::build(topic, body, payload, header)
    }

    fn build(topic: Arc<str>, mut body: Vec<u8>, payload: &[u8], header: Header) -> Message {
        let payload_at = body.len();
        body.extend_from_slice(payload);
        Message {
            topic,
            body: body.into_boxed_slice(),
            payload_at,
            qos: header.qos,
            retain: header.retain,
            mark: None,
            expires_at: header.expires_at,
            publisher: header.publisher,
        }
    }

    /// By what it is followed, if it is.
    pub fn mark(&self) -> Option<Mark> {
        self.mark
    }

    /// Has it followed.
    pub fn set_mark(&mut self, mark: Mark) {
        self.mark = Some(mark);
    }

    /// The same message, expiring at this moment.
    pub fn with_expiry(mut self, expires_at: Option<Timestamp>) -> Message {
        self.expires_at = expires_at;
        self
    }

    /// The topic name.
    pub fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    /// The forwarded v5 properties as on the wire, without a length.
    pub fn properties(&self) -> &[u8] {
        &self.body[..self.payload_at]
    }

    /// The payload.
    pub fn payload(&self) -> &[u8] {
        &self.body[self.payload_at..]
    }

    /// QoS at which it was published.
    pub fn qos(&self) -> QoS {
        self.qos
    }

    /// RETAIN as published.
    pub fn retain(&self) -> bool {
        self.retain
    }

    /// When it expires, if it does.
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.expires_at
    }

    /// The client identifier of the publisher; `None` for the broker itself.
    pub fn publisher(&self) -> Option<&Arc<str>> {
        self.publisher.as_ref()
    }

    /// True once its expiry interval has passed. An interval of 0 leaves the moment of its arrival.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at < now) && !mutation::is_on(Mutation::ExpiryIgnored)
    }

    /// What is left of its expiry interval in seconds, rounded up. `[MQTT-3.3.2-6]`
    pub fn expiry_secs_left(&self, now: Timestamp) -> Option<u32> {
        let at = self.expires_at?;
        Some(at.millis_since(now).div_ceil(1000).min(u64::from(u32::MAX)) as u32)
    }

    /// What it counts against limits in bytes: topic, properties and payload.
    pub fn size_bytes(&self) -> usize {
        self.topic.len() + self.body.len()
    }
}

/// Whether they are the same message. That one is followed makes no difference.
impl PartialEq for Message {
    fn eq(&self, other: &Message) -> bool {
        let head = |message: &Message| (message.payload_at, message.qos, message.retain, message.expires_at);
        (&self.topic, &self.body, &self.publisher, head(self))
            == (&other.topic, &other.body, &other.publisher, head(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(expires_at: Option<Timestamp>) -> Message {
        let header = Header { qos: QoS::AtLeastOnce, retain: false, expires_at, publisher: None };
        Message::new("a/b".into(), b"x", header)
    }

    #[test]
    fn a_mark_has_a_number_and_says_whether_it_is_a_sample() {
        for number in [0, 1, (1 << 30) - 1] {
            for is_sample in [false, true] {
                let mark = Mark::new(number, is_sample);
                assert_eq!((mark.number(), mark.is_sample()), (number, is_sample));
            }
        }
    }

    // [MQTT-3.3.2-6]
    #[test]
    fn expiry_counts_down_and_rounds_up() {
        let start = Timestamp::from_millis(10_000);
        let message = message(Some(start.plus_secs(3)));
        assert_eq!(message.expiry_secs_left(start), Some(3));
        assert_eq!(message.expiry_secs_left(Timestamp::from_millis(10_001)), Some(3));
        assert_eq!(message.expiry_secs_left(Timestamp::from_millis(11_000)), Some(2));
        assert!(!message.is_expired(Timestamp::from_millis(13_000)));
        assert!(message.is_expired(Timestamp::from_millis(13_001)));
        assert_eq!(message.expiry_secs_left(Timestamp::from_millis(14_000)), Some(0));
    }
}
