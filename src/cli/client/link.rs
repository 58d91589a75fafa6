//! rumqttc behind one face: it has one set of types for MQTT 3.1.1 and another for MQTT 5.

use std::{fmt::Debug, rc::Rc, time::Duration};

use rumqttc::{
    NetworkOptions, Outgoing, Transport,
    v5::{
        self,
        mqttbytes::v5::{
            Filter, LastWill, PubAckReason, PubRecReason, PublishProperties, SubscribeReasonCode,
        },
    },
};

use super::{
    Connection, Failure, PACKET_BYTES_MAX, QoS, Version, bracketed, explain_io, property::Properties,
    tls::Tunnel,
};

/// Requests that wait for the event loop. More than the ten packets that rumqttc reads at a time, so that
/// acknowledging all of them never has to wait.
const REQUESTS_MAX: usize = 64;

/// QoS 1 and 2 messages on their way at a time. rumqttc allocates a slot for each.
const INFLIGHT_MAX: u16 = 100;

const CONNECT_TIMEOUT_SECS: u64 = 10;

/// What is sent through.
#[derive(Clone)]
pub(in crate::cli) enum Requests {
    V4(rumqttc::AsyncClient),
    V5(v5::AsyncClient),
}

/// What comes back, as long as it is polled; polling is also what sends.
pub(in crate::cli) struct Events {
    source: Source,
    tunnel: Option<Rc<Tunnel>>,
    peer: String,
    debug: bool,
}

enum Source {
    V4(Box<rumqttc::EventLoop>),
    V5(Box<v5::EventLoop>),
}

/// What happened.
#[derive(Debug)]
pub(in crate::cli) enum Event {
    Connected {
        session_present: bool,
    },
    /// A QoS 0 message has left.
    Sent,
    /// The handshake of a QoS 1 or 2 message is complete, or was refused.
    Acknowledged {
        refusal: Option<String>,
    },
    /// For each filter, why it was refused, if it was.
    Subscribed {
        refusals: Vec<Option<String>>,
    },
    Message(Message),
    /// Our DISCONNECT has left.
    Disconnected,
    /// Nothing that a command waits for.
    Other,
}

/// A message that arrived; with what acknowledges it.
#[derive(Debug)]
pub(in crate::cli) struct Message {
    pub(in crate::cli) topic: String,
    pub(in crate::cli) payload: Vec<u8>,
    pub(in crate::cli) qos: u8,
    pub(in crate::cli) retain: bool,
    pub(in crate::cli) packet_id: u16,
    pub(in crate::cli) properties: PublishProperties,
    original: Original,
}

#[derive(Debug)]
enum Original {
    V4(Box<rumqttc::Publish>),
    V5(Box<v5::mqttbytes::v5::Publish>),
}

#[cfg(test)]
impl Message {
    /// A message of MQTT 5 with packet id 7.
    pub(in crate::cli) fn of_parts(
        topic: &str,
        payload: &[u8],
        qos: u8,
        properties: PublishProperties,
    ) -> Self {
        let original = v5::mqttbytes::v5::Publish::default();
        Self {
            topic: topic.into(),
            payload: payload.into(),
            qos,
            retain: false,
            packet_id: 7,
            properties,
            original: Original::V5(Box::new(original)),
        }
    }
}

/// Makes both ends of a link. Nothing is sent before the events are polled.
pub(super) fn open(
    connection: &Connection,
    tunnel: Option<Rc<Tunnel>>,
    properties: &Properties,
) -> (Requests, Events) {
    let socket = tunnel.as_ref().map(|tunnel| tunnel.socket().to_string_lossy().into_owned());
    let (host, transport) = match socket.or_else(|| connection.unix.clone()) {
        Some(path) => (path, Transport::unix()),
        None => (bracketed(&connection.host), Transport::tcp()),
    };
    let (requests, source) = match connection.version() {
        Version::V4 => {
            let (client, events) =
                rumqttc::AsyncClient::new(options_v4(connection, host, transport), REQUESTS_MAX);
            let mut events = Box::new(events);
            events.set_network_options(network_options());
            (Requests::V4(client), Source::V4(events))
        }
        Version::V5 => {
            let options = options_v5(connection, host, transport, properties);
            let (client, events) = v5::AsyncClient::new(options, REQUESTS_MAX);
            (Requests::V5(client), Source::V5(Box::new(events)))
        }
    };
    (requests, Events { source, tunnel, peer: connection.peer(), debug: connection.debug })
}

fn network_options() -> NetworkOptions {
    let mut options = NetworkOptions::new();
    options.set_tcp_nodelay(true);
    options.set_connection_timeout(CONNECT_TIMEOUT_SECS);
    options
}

fn options_v4(connection: &Connection, host: String, transport: Transport) -> rumqttc::MqttOptions {
    let mut options = rumqttc::MqttOptions::new(&connection.id, host, connection.port());
    let packet_bytes_max = PACKET_BYTES_MAX as usize;
    options
        .set_transport(transport)
        .set_keep_alive(Duration::from_secs(connection.keepalive.into()))
        .set_clean_session(!connection.disable_clean_session)
        .set_max_packet_size(packet_bytes_max, packet_bytes_max)
        .set_inflight(INFLIGHT_MAX)
        .set_manual_acks(true);
    if let Some(username) = &connection.username {
        options.set_credentials(username, connection.password.as_deref().unwrap_or_default());
    }
    if let Some(topic) = &connection.will.will_topic {
        let will = &connection.will;
        let payload = will.will_payload.as_str();
        options.set_last_will(rumqttc::LastWill::new(topic, payload, will.will_qos.v4(), will.will_retain));
    }
    options
}

fn options_v5(
    connection: &Connection,
    host: String,
    transport: Transport,
    properties: &Properties,
) -> v5::MqttOptions {
    let mut options = v5::MqttOptions::new(&connection.id, host, connection.port());
    let mut connect = properties.connect.clone().unwrap_or_default();
    connect.max_packet_size.get_or_insert(PACKET_BYTES_MAX);
    // A session that shall be kept and whose end nobody named is kept as mosquitto's clients keep it.
    let kept = connection.disable_clean_session.then_some(u32::MAX);
    connect.session_expiry_interval =
        connection.session_expiry_interval.or(connect.session_expiry_interval).or(kept);
    options
        .set_connect_properties(connect)
        .set_transport(transport)
        .set_keep_alive(Duration::from_secs(connection.keepalive.into()))
        .set_clean_start(!connection.disable_clean_session)
        .set_connection_timeout(CONNECT_TIMEOUT_SECS)
        .set_network_options(network_options())
        .set_outgoing_inflight_upper_limit(INFLIGHT_MAX)
        .set_manual_acks(true);
    if let Some(username) = &connection.username {
        options.set_credentials(username, connection.password.as_deref().unwrap_or_default());
    }
    if let Some(topic) = &connection.will.will_topic {
        let will = &connection.will;
        let (payload, qos) = (will.will_payload.as_str(), will.will_qos.v5());
        options.set_last_will(LastWill::new(topic, payload, qos, will.will_retain, properties.will.clone()));
    }
    options
}

impl QoS {
    fn v4(self) -> rumqttc::QoS {
        match self {
            Self::AtMostOnce => rumqttc::QoS::AtMostOnce,
            Self::AtLeastOnce => rumqttc::QoS::AtLeastOnce,
            Self::ExactlyOnce => rumqttc::QoS::ExactlyOnce,
        }
    }

    fn v5(self) -> v5::mqttbytes::QoS {
        match self {
            Self::AtMostOnce => v5::mqttbytes::QoS::AtMostOnce,
            Self::AtLeastOnce => v5::mqttbytes::QoS::AtLeastOnce,
            Self::ExactlyOnce => v5::mqttbytes::QoS::ExactlyOnce,
        }
    }
}

/// How a message is published; all messages of one run are published in the same way.
pub(in crate::cli) struct Publication {
    pub(in crate::cli) topic: String,
    pub(in crate::cli) qos: QoS,
    pub(in crate::cli) retain: bool,
    pub(in crate::cli) properties: Option<PublishProperties>,
}

/// What is subscribed to.
pub(in crate::cli) struct Subscription {
    pub(in crate::cli) filters: Vec<String>,
    pub(in crate::cli) qos: QoS,
    pub(in crate::cli) retain_as_published: bool,
}

impl Requests {
    /// Queues a message; waits while many are queued.
    pub(in crate::cli) async fn publish(&self, how: &Publication, payload: Vec<u8>) -> Result<(), Failure> {
        let topic = how.topic.as_str();
        match self {
            Self::V4(client) => requested(client.publish(topic, how.qos.v4(), how.retain, payload).await),
            Self::V5(client) => {
                let properties = how.properties.clone().unwrap_or_default();
                let sent =
                    client.publish_with_properties(topic, how.qos.v5(), how.retain, payload, properties);
                requested(sent.await)
            }
        }
    }

    pub(in crate::cli) fn subscribe(
        &self,
        what: &Subscription,
        properties: &Properties,
    ) -> Result<(), Failure> {
        match self {
            Self::V4(client) => {
                let filter = |path: &String| rumqttc::SubscribeFilter::new(path.clone(), what.qos.v4());
                requested(client.try_subscribe_many(what.filters.iter().map(filter)))
            }
            Self::V5(client) => {
                let filters = what.filters.iter().map(|path| Filter {
                    preserve_retain: what.retain_as_published,
                    ..Filter::new(path.clone(), what.qos.v5())
                });
                match properties.subscribe.clone() {
                    Some(properties) => {
                        requested(client.try_subscribe_many_with_properties(filters, properties))
                    }
                    None => requested(client.try_subscribe_many(filters)),
                }
            }
        }
    }

    /// Acknowledges a message. rumqttc would do so before anybody has seen it.
    pub(in crate::cli) fn acknowledge(&self, message: &Message) -> Result<(), Failure> {
        match (self, &message.original) {
            (Self::V4(client), Original::V4(publish)) => requested(client.try_ack(publish)),
            (Self::V5(client), Original::V5(publish)) => requested(client.try_ack(publish)),
            (Self::V4(_), Original::V5(_)) | (Self::V5(_), Original::V4(_)) => Ok(()),
        }
    }

    pub(in crate::cli) fn disconnect(&self) -> Result<(), Failure> {
        match self {
            Self::V4(client) => requested(client.try_disconnect()),
            Self::V5(client) => requested(client.try_disconnect()),
        }
    }
}

fn requested<E>(result: Result<(), E>) -> Result<(), Failure> {
    result.map_err(|_| Failure::new("the request could not be queued"))
}

impl Events {
    /// Waits for what happens next. After an error, polling connects anew.
    pub(in crate::cli) async fn poll(&mut self) -> Result<Event, Failure> {
        let event = match &mut self.source {
            Source::V4(events) => match events.poll().await {
                Ok(event) => {
                    trace(self.debug, &event);
                    Ok(from_v4(event))
                }
                Err(error) => Err(explain_v4(error)),
            },
            Source::V5(events) => match events.poll().await {
                Ok(event) => {
                    trace(self.debug, &event);
                    Ok(from_v5(event))
                }
                Err(error) => Err(explain_v5(error)),
            },
        };
        event.map_err(|error| {
            let of_tunnel = self.tunnel.as_ref().and_then(|tunnel| tunnel.take_error());
            Failure::new(format!("{}: {}", self.peer, of_tunnel.unwrap_or(error)))
        })
    }
}

fn trace(debug: bool, event: &impl Debug) {
    if debug {
        eprintln!("{event:?}");
    }
}

fn from_v4(event: rumqttc::Event) -> Event {
    use rumqttc::{Packet, SubscribeReasonCode};
    let packet = match event {
        rumqttc::Event::Outgoing(outgoing) => return from_outgoing(&outgoing),
        rumqttc::Event::Incoming(packet) => packet,
    };
    match packet {
        Packet::ConnAck(connack) => Event::Connected { session_present: connack.session_present },
        Packet::PubAck(_) | Packet::PubComp(_) => Event::Acknowledged { refusal: None },
        Packet::SubAck(suback) => {
            let refusal = |code: &SubscribeReasonCode| match code {
                SubscribeReasonCode::Success(_) => None,
                SubscribeReasonCode::Failure => Some("refused".into()),
            };
            Event::Subscribed { refusals: suback.return_codes.iter().map(refusal).collect() }
        }
        Packet::Publish(publish) => Event::Message(Message {
            topic: publish.topic.clone(),
            payload: publish.payload.to_vec(),
            qos: publish.qos as u8,
            retain: publish.retain,
            packet_id: publish.pkid,
            properties: PublishProperties::default(),
            original: Original::V4(Box::new(publish)),
        }),
        _ => Event::Other,
    }
}

fn from_v5(event: v5::Event) -> Event {
    use v5::mqttbytes::v5::Packet;
    let packet = match event {
        v5::Event::Outgoing(outgoing) => return from_outgoing(&outgoing),
        v5::Event::Incoming(packet) => packet,
    };
    match packet {
        Packet::ConnAck(connack) => Event::Connected { session_present: connack.session_present },
        Packet::PubAck(puback) => {
            let is_fine =
                matches!(puback.reason, PubAckReason::Success | PubAckReason::NoMatchingSubscribers);
            let text = puback.properties.and_then(|properties| properties.reason_string);
            Event::Acknowledged { refusal: (!is_fine).then(|| reason(&puback.reason, text)) }
        }
        // A PUBREC that refuses ends the handshake; another one goes on to PUBCOMP.
        Packet::PubRec(pubrec) => match pubrec.reason {
            PubRecReason::Success | PubRecReason::NoMatchingSubscribers => Event::Other,
            refused => {
                let text = pubrec.properties.and_then(|properties| properties.reason_string);
                Event::Acknowledged { refusal: Some(reason(&refused, text)) }
            }
        },
        Packet::PubComp(_) => Event::Acknowledged { refusal: None },
        Packet::SubAck(suback) => {
            let text = suback.properties.and_then(|properties| properties.reason_string);
            let refusal = |code: &SubscribeReasonCode| match code {
                SubscribeReasonCode::Success(_) => None,
                refused => Some(reason(refused, text.clone())),
            };
            Event::Subscribed { refusals: suback.return_codes.iter().map(refusal).collect() }
        }
        Packet::Publish(publish) => Event::Message(Message {
            topic: String::from_utf8_lossy(&publish.topic).into_owned(),
            payload: publish.payload.to_vec(),
            qos: publish.qos as u8,
            retain: publish.retain,
            packet_id: publish.pkid,
            properties: publish.properties.clone().unwrap_or_default(),
            original: Original::V5(Box::new(publish)),
        }),
        _ => Event::Other,
    }
}

fn from_outgoing(outgoing: &Outgoing) -> Event {
    match outgoing {
        Outgoing::Publish(0) => Event::Sent,
        Outgoing::Disconnect => Event::Disconnected,
        _ => Event::Other,
    }
}

/// A reason code, and what the broker says about it.
fn reason(code: &impl Debug, text: Option<String>) -> String {
    let words = words(&format!("{code:?}"));
    match text {
        Some(text) => format!("{words} ({text})"),
        None => words,
    }
}

/// The words of a name in camel case: `NotAuthorized` is "not authorized".
fn words(name: &str) -> String {
    let mut words = String::new();
    for (index, letter) in name.char_indices() {
        if letter.is_uppercase() && index > 0 {
            words.push(' ');
        }
        words.extend(letter.to_lowercase());
    }
    words
}

fn explain_v4(error: rumqttc::ConnectionError) -> String {
    use rumqttc::{ConnectionError, StateError};
    match error {
        ConnectionError::Io(error) => explain_io(&error),
        ConnectionError::ConnectionRefused(code) => format!("the broker refuses: {}", reason(&code, None)),
        ConnectionError::NetworkTimeout | ConnectionError::FlushTimeout => "no answer in time".into(),
        ConnectionError::MqttState(StateError::ConnectionAborted) => CLOSED.into(),
        ConnectionError::MqttState(StateError::Io(error)) => explain_io(&error),
        other => other.to_string(),
    }
}

fn explain_v5(error: v5::ConnectionError) -> String {
    use v5::{ConnectionError, StateError};
    match error {
        ConnectionError::Io(error) => explain_io(&error),
        ConnectionError::ConnectionRefused(code) => format!("the broker refuses: {}", reason(&code, None)),
        ConnectionError::Timeout(_) => "no answer in time".into(),
        ConnectionError::MqttState(StateError::ConnectionAborted) => CLOSED.into(),
        ConnectionError::MqttState(StateError::Io(error)) => explain_io(&error),
        ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, reason_string }) => {
            format!("the broker disconnects: {}", reason(&reason_code, reason_string))
        }
        other => other.to_string(),
    }
}

const CLOSED: &str = "the broker closed the connection";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_read_as_words() {
        assert_eq!(reason(&PubAckReason::NotAuthorized, None), "not authorized");
        assert_eq!(reason(&PubRecReason::QuotaExceeded, Some("later".into())), "quota exceeded (later)");
    }
}
