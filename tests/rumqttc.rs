//! A client that others wrote, in both versions, against the broker in this process.

#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

use std::{collections::BTreeMap, future::Future, time::Duration};

use dunlin::{Broker, net::LocalAddress};

/// What `future` gives, or a failure if it hangs.
async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("does not hang")
}

struct Server {
    broker: Broker,
    port: u16,
}

impl Server {
    async fn start() -> Server {
        let broker = Broker::builder().listen("127.0.0.1:0".parse().unwrap()).start().await.unwrap();
        let LocalAddress::Tcp(address) = broker.addresses()[0].1 else { unreachable!("listens on TCP") };
        Server { broker, port: address.port() }
    }

    /// A connected client. Also tells whether the broker had a session for it.
    async fn client<C: Client>(&self, setup: Setup) -> (C, bool) {
        let mut client = C::new(self.port, &setup);
        match client.seen().await {
            Seen::Connected(session_present) => (client, session_present),
            other => panic!("{other:?} where CONNACK was expected"),
        }
    }
}

/// How a client connects.
#[derive(Clone, Copy)]
struct Setup {
    client_id: &'static str,
    keeps_session: bool,
    has_will: bool,
}

fn named(client_id: &'static str) -> Setup {
    Setup { client_id, keeps_session: false, has_will: false }
}

const WILL_TOPIC: &str = "wills/mine";

/// Messages that are not acknowledged at a time.
const INFLIGHT: u16 = 20;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Message {
    topic: String,
    payload: Vec<u8>,
    qos: u8,
    retain: bool,
}

fn message(topic: &str, payload: &[u8], qos: u8, retain: bool) -> Message {
    Message { topic: topic.into(), payload: payload.into(), qos, retain }
}

/// Events that tests look at.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Connected(bool),
    Subscribed,
    Unsubscribed,
    Message(Message),
    /// PUBACK or PUBCOMP.
    Completed,
}

/// What both versions of the client can.
trait Client: Sized {
    fn new(port: u16, setup: &Setup) -> Self;
    async fn publish(&self, message: Message);
    async fn subscribe(&self, filter: &str, qos: u8);
    async fn unsubscribe(&self, filter: &str);
    async fn disconnect(&self);
    /// Drives the client by one event.
    async fn poll(&mut self) -> Result<Option<Seen>, String>;

    async fn try_seen(&mut self) -> Result<Seen, String> {
        within(async {
            loop {
                if let Some(seen) = self.poll().await? {
                    return Ok(seen);
                }
            }
        })
        .await
    }

    async fn seen(&mut self) -> Seen {
        self.try_seen().await.unwrap()
    }

    async fn expect(&mut self, expected: Seen) {
        assert_eq!(self.seen().await, expected);
    }

    /// Drives the client until it has seen all these, in whatever order; messages in theirs.
    async fn expect_messages(&mut self, messages: &[Message], completed: usize) {
        let mut received = Vec::new();
        let mut missing = completed;
        while received.len() < messages.len() || missing > 0 {
            match self.seen().await {
                Seen::Message(message) => received.push(message),
                Seen::Completed => missing -= 1,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(received, messages);
    }
}

mod v4 {
    use rumqttc::{AsyncClient, Event, EventLoop, LastWill, MqttOptions, Packet, QoS};

    use super::{Client, INFLIGHT, Message, Seen, Setup, WILL_TOPIC};

    pub(super) struct V4 {
        client: AsyncClient,
        events: EventLoop,
    }

    fn qos(qos: u8) -> QoS {
        rumqttc::qos(qos).unwrap()
    }

    impl Client for V4 {
        fn new(port: u16, setup: &Setup) -> V4 {
            let mut options = MqttOptions::new(setup.client_id, "127.0.0.1", port);
            options.set_clean_session(!setup.keeps_session).set_inflight(INFLIGHT);
            options.set_max_packet_size(1 << 20, 1 << 20);
            if setup.has_will {
                options.set_last_will(LastWill::new(WILL_TOPIC, "gone", QoS::AtLeastOnce, true));
            }
            let (client, events) = AsyncClient::new(options, 1000);
            V4 { client, events }
        }

        async fn publish(&self, message: Message) {
            let Message { topic, payload, qos, retain } = message;
            self.client.publish(topic, self::qos(qos), retain, payload).await.unwrap();
        }

        async fn subscribe(&self, filter: &str, qos: u8) {
            self.client.subscribe(filter, self::qos(qos)).await.unwrap();
        }

        async fn unsubscribe(&self, filter: &str) {
            self.client.unsubscribe(filter).await.unwrap();
        }

        async fn disconnect(&self) {
            self.client.disconnect().await.unwrap();
        }

        async fn poll(&mut self) -> Result<Option<Seen>, String> {
            Ok(match self.events.poll().await.map_err(|error| error.to_string())? {
                Event::Incoming(Packet::ConnAck(ack)) => Some(Seen::Connected(ack.session_present)),
                Event::Incoming(Packet::SubAck(_)) => Some(Seen::Subscribed),
                Event::Incoming(Packet::UnsubAck(_)) => Some(Seen::Unsubscribed),
                Event::Incoming(Packet::PubAck(_) | Packet::PubComp(_)) => Some(Seen::Completed),
                Event::Incoming(Packet::Publish(publish)) => Some(Seen::Message(Message {
                    topic: publish.topic,
                    payload: publish.payload.to_vec(),
                    qos: publish.qos as u8,
                    retain: publish.retain,
                })),
                Event::Incoming(_) | Event::Outgoing(_) => None,
            })
        }
    }
}

mod v5 {
    use rumqttc::v5::{
        AsyncClient, Event, EventLoop, MqttOptions,
        mqttbytes::{
            self, QoS,
            v5::{LastWill, Packet, PublishProperties},
        },
    };

    use super::{Client, INFLIGHT, Message, Seen, Setup, WILL_TOPIC};

    pub(super) struct V5 {
        pub(super) client: AsyncClient,
        events: EventLoop,
        /// Properties of the message that was seen last.
        pub(super) properties: Option<PublishProperties>,
    }

    fn qos(qos: u8) -> QoS {
        mqttbytes::qos(qos).unwrap()
    }

    impl Client for V5 {
        fn new(port: u16, setup: &Setup) -> V5 {
            let mut options = MqttOptions::new(setup.client_id, "127.0.0.1", port);
            options.set_clean_start(!setup.keeps_session).set_outgoing_inflight_upper_limit(INFLIGHT);
            options.set_session_expiry_interval(setup.keeps_session.then_some(60));
            if setup.has_will {
                options.set_last_will(LastWill::new(WILL_TOPIC, "gone", QoS::AtLeastOnce, true, None));
            }
            let (client, events) = AsyncClient::new(options, 1000);
            V5 { client, events, properties: None }
        }

        async fn publish(&self, message: Message) {
            let Message { topic, payload, qos, retain } = message;
            self.client.publish(topic, self::qos(qos), retain, payload).await.unwrap();
        }

        async fn subscribe(&self, filter: &str, qos: u8) {
            self.client.subscribe(filter, self::qos(qos)).await.unwrap();
        }

        async fn unsubscribe(&self, filter: &str) {
            self.client.unsubscribe(filter).await.unwrap();
        }

        async fn disconnect(&self) {
            self.client.disconnect().await.unwrap();
        }

        async fn poll(&mut self) -> Result<Option<Seen>, String> {
            Ok(match self.events.poll().await.map_err(|error| error.to_string())? {
                Event::Incoming(Packet::ConnAck(ack)) => Some(Seen::Connected(ack.session_present)),
                Event::Incoming(Packet::SubAck(_)) => Some(Seen::Subscribed),
                Event::Incoming(Packet::UnsubAck(_)) => Some(Seen::Unsubscribed),
                Event::Incoming(Packet::PubAck(_) | Packet::PubComp(_)) => Some(Seen::Completed),
                Event::Incoming(Packet::Publish(publish)) => {
                    self.properties = publish.properties;
                    Some(Seen::Message(Message {
                        topic: String::from_utf8(publish.topic.to_vec()).unwrap(),
                        payload: publish.payload.to_vec(),
                        qos: publish.qos as u8,
                        retain: publish.retain,
                    }))
                }
                Event::Incoming(_) | Event::Outgoing(_) => None,
            })
        }
    }
}

use v4::V4;
use v5::V5;

/// Each QoS of publishing against each of subscribing, more messages than may be in flight.
async fn every_qos<C: Client>() {
    let server = Server::start().await;
    for granted in 0..=2 {
        let (mut client, _) = server.client::<C>(named("both ways")).await;
        client.subscribe("qos/+", granted).await;
        client.expect(Seen::Subscribed).await;
        for qos in 0..=2 {
            let topic = format!("qos/{qos}");
            let sent: Vec<Message> =
                (0..100_u8).map(|number| message(&topic, &[number; 50], qos, false)).collect();
            for message in &sent {
                client.publish(message.clone()).await;
            }
            let expected: Vec<Message> =
                sent.into_iter().map(|message| Message { qos: qos.min(granted), ..message }).collect();
            client.expect_messages(&expected, if qos == 0 { 0 } else { 100 }).await;
        }
        client.unsubscribe("qos/+").await;
        client.expect(Seen::Unsubscribed).await;
        client.publish(message("qos/1", b"nobody", 1, false)).await;
        client.expect(Seen::Completed).await;
    }
    within(server.broker.stop()).await;
}

async fn retained<C: Client>() {
    let server = Server::start().await;
    let (mut publisher, _) = server.client::<C>(named("publisher")).await;
    for number in 0..3_u8 {
        publisher.publish(message(&format!("kept/{number}"), &[number], 1, true)).await;
        publisher.expect(Seen::Completed).await;
    }
    publisher.publish(message("kept/1", b"", 1, true)).await;
    publisher.expect(Seen::Completed).await;
    let (mut late, _) = server.client::<C>(named("late")).await;
    late.subscribe("kept/#", 1).await;
    let mut kept = BTreeMap::new();
    while kept.len() < 2 {
        match late.seen().await {
            Seen::Message(message) => {
                assert!(message.retain);
                kept.insert(message.topic, message.payload);
            }
            other => assert_eq!(other, Seen::Subscribed),
        }
    }
    assert_eq!(kept, BTreeMap::from([("kept/0".into(), vec![0]), ("kept/2".into(), vec![2])]));
}

async fn wills<C: Client>() {
    let server = Server::start().await;
    let (mut witness, _) = server.client::<C>(named("witness")).await;
    witness.subscribe(WILL_TOPIC, 1).await;
    witness.expect(Seen::Subscribed).await;
    let mortal = Setup { has_will: true, ..named("mortal") };
    // In good order, without a will.
    let (mut client, _) = server.client::<C>(mortal).await;
    client.disconnect().await;
    while client.try_seen().await.is_ok() {}
    // Without a word.
    let (client, _) = server.client::<C>(mortal).await;
    drop(client);
    witness.expect(Seen::Message(message(WILL_TOPIC, b"gone", 1, false))).await;
    let (mut late, _) = server.client::<C>(named("late")).await;
    late.subscribe(WILL_TOPIC, 0).await;
    late.expect(Seen::Subscribed).await;
    late.expect(Seen::Message(message(WILL_TOPIC, b"gone", 0, true))).await;
    // Had there been a first will, it would have come by now.
    witness.publish(message(WILL_TOPIC, b"end", 1, false)).await;
    witness.expect_messages(&[message(WILL_TOPIC, b"end", 1, false)], 1).await;
}

async fn persistent_sessions<C: Client>() {
    let server = Server::start().await;
    let kept = Setup { keeps_session: true, ..named("kept") };
    let (mut subscriber, session_present) = server.client::<C>(kept).await;
    assert!(!session_present);
    subscriber.subscribe("while/away", 2).await;
    subscriber.expect(Seen::Subscribed).await;
    drop(subscriber);
    let (mut publisher, _) = server.client::<C>(named("publisher")).await;
    let sent: Vec<Message> =
        (0..60_u8).map(|number| message("while/away", &[number], 1 + number % 2, false)).collect();
    for message in &sent {
        publisher.publish(message.clone()).await;
    }
    publisher.expect_messages(&[], sent.len()).await;
    let (mut subscriber, session_present) = server.client::<C>(kept).await;
    assert!(session_present);
    subscriber.expect_messages(&sent, 0).await;
    let (_, session_present) = server.client::<C>(named("kept")).await;
    assert!(!session_present, "a clean start forgets the session");
}

async fn takeover<C: Client>() -> String {
    let server = Server::start().await;
    let (mut older, _) = server.client::<C>(named("same")).await;
    let (mut newer, _) = server.client::<C>(named("same")).await;
    let error = older.try_seen().await.unwrap_err();
    newer.publish(message("t", b"x", 2, false)).await;
    newer.expect(Seen::Completed).await;
    error
}

#[tokio::test]
async fn every_qos_both_ways_v4() {
    every_qos::<V4>().await;
}

#[tokio::test]
async fn every_qos_both_ways_v5() {
    every_qos::<V5>().await;
}

#[tokio::test]
async fn retained_messages_v4() {
    retained::<V4>().await;
}

#[tokio::test]
async fn retained_messages_v5() {
    retained::<V5>().await;
}

#[tokio::test]
async fn wills_v4() {
    wills::<V4>().await;
}

#[tokio::test]
async fn wills_v5() {
    wills::<V5>().await;
}

#[tokio::test]
async fn persistent_sessions_v4() {
    persistent_sessions::<V4>().await;
}

#[tokio::test]
async fn persistent_sessions_v5() {
    persistent_sessions::<V5>().await;
}

#[tokio::test]
async fn a_newer_connection_takes_over_v4() {
    takeover::<V4>().await;
}

/// [MQTT-3.1.4-3]
#[tokio::test]
async fn a_newer_connection_takes_over_and_tells_v5() {
    let error = takeover::<V5>().await;
    assert!(error.contains("SessionTakenOver"), "{error}");
}

#[tokio::test]
async fn properties_arrive_v5() {
    use rumqttc::v5::mqttbytes::{QoS, v5::PublishProperties};

    let server = Server::start().await;
    let (mut client, _) = server.client::<V5>(named("properties")).await;
    client.subscribe("properties", 2).await;
    client.expect(Seen::Subscribed).await;
    let properties = PublishProperties {
        payload_format_indicator: Some(1),
        message_expiry_interval: Some(1000),
        response_topic: Some("answers".into()),
        correlation_data: Some(vec![1, 2, 3].into()),
        user_properties: vec![("a".into(), "1".into()), ("a".into(), "2".into())],
        content_type: Some("text/plain".into()),
        ..PublishProperties::default()
    };
    let sent = properties.clone();
    client.client.publish_with_properties("properties", QoS::ExactlyOnce, false, "x", sent).await.unwrap();
    client.expect_messages(&[message("properties", b"x", 2, false)], 1).await;
    assert_eq!(client.properties, Some(properties));
}
