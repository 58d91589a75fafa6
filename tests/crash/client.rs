//! Clients that keep their half of every session, and go on with it on each new connection.

use std::{
    collections::BTreeSet,
    io::{ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use dunlin::codec::{
    self, Ack, AckProperties, Connect, ConnectProperties, Decoded, Delivery, Disconnect,
    DisconnectProperties, PACKET_BYTES_LIMIT, Packet, PacketId, PacketKind, Publish, PublishProperties, QoS,
    ReasonCode, Subscribe, SubscribeFilters, SubscribeProperties, SubscriptionOptions, Version, Will,
    WillProperties,
};

use super::broker::PATIENCE;

/// How long a read waits for bytes.
const READ_TIMEOUT: Duration = Duration::from_millis(2);

/// Reads in a row that bring nothing, after which nothing more is expected.
const IDLE_READS: usize = 250;

/// What a packet of the broker says, as far as these clients care.
pub(crate) enum Got {
    ConnAck { session_present: bool },
    Publish { topic: String, payload: String, delivery: Delivery },
    Ack { kind: PacketKind, id: PacketId, reason: ReasonCode },
    SubAck,
}

/// One connection. After an error it is of no use any more.
pub(crate) struct Connection {
    stream: UnixStream,
    version: Version,
    input: Vec<u8>,
    /// What came together with CONNACK.
    early: Vec<Got>,
}

/// The connection is gone.
pub(crate) struct Gone;

impl Connection {
    /// Connects, once the broker is there. Returns whether the session was present.
    pub(crate) fn open(who: &Who, will: Option<&str>) -> Result<(Connection, bool), Gone> {
        let stream = UnixStream::connect(&who.socket).map_err(|_| Gone)?;
        stream.set_read_timeout(Some(READ_TIMEOUT)).unwrap();
        let mut connection =
            Connection { stream, version: who.version, input: Vec::new(), early: Vec::new() };
        let properties = ConnectProperties {
            session_expiry_secs: who.version.is_v5().then_some(u32::MAX),
            ..ConnectProperties::default()
        };
        let will = will.map(|topic| Will {
            qos: QoS::ExactlyOnce,
            retain: false,
            topic,
            payload: b"1",
            properties: WillProperties::default(),
        });
        connection.send(&Packet::Connect(Box::new(Connect {
            version: who.version,
            clean_start: false,
            keep_alive_secs: 0,
            client_id: &who.id,
            will,
            user_name: None,
            password: None,
            properties,
        })))?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "no CONNACK for {}", who.id);
            let mut got = connection.read()?;
            if got.is_empty() {
                continue;
            }
            connection.early = got.split_off(1);
            match got.pop() {
                Some(Got::ConnAck { session_present }) => return Ok((connection, session_present)),
                _ => panic!("something before CONNACK"),
            }
        }
    }

    pub(crate) fn send(&mut self, packet: &Packet<'_>) -> Result<(), Gone> {
        let mut bytes = Vec::new();
        codec::encode(packet, self.version, &mut bytes);
        self.stream.write_all(&bytes).map_err(|_| Gone)
    }

    pub(crate) fn ack(&mut self, kind: PacketKind, packet_id: PacketId) -> Result<(), Gone> {
        let ack = Ack { packet_id, reason: ReasonCode::Success, properties: AckProperties::default() };
        self.send(&match kind {
            PacketKind::PubAck => Packet::PubAck(ack),
            PacketKind::PubRec => Packet::PubRec(ack),
            PacketKind::PubRel => Packet::PubRel(ack),
            _ => Packet::PubComp(ack),
        })
    }

    /// What has arrived; nothing if nothing did for a moment.
    pub(crate) fn read(&mut self) -> Result<Vec<Got>, Gone> {
        let mut got = std::mem::take(&mut self.early);
        if !got.is_empty() {
            return Ok(got);
        }
        let mut chunk = [0; 16 * 1024];
        match self.stream.read(&mut chunk) {
            Ok(0) => return Err(Gone),
            Ok(count) => self.input.extend_from_slice(&chunk[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return Err(Gone),
        }
        let mut at = 0;
        loop {
            match codec::decode(&self.input[at..], self.version, PACKET_BYTES_LIMIT) {
                Ok(Decoded::Packet(packet, taken)) => {
                    at += taken;
                    got.push(understood(&packet));
                }
                Ok(Decoded::Incomplete(_)) => break,
                Err(error) => panic!("the broker sent what is no packet: {error}"),
            }
        }
        self.input.drain(..at);
        Ok(got)
    }

    /// Publishes with QoS 1.
    pub(crate) fn publish(&mut self, id: PacketId, topic: &str, payload: &[u8]) -> Result<(), Gone> {
        let properties = PublishProperties::default();
        let delivery = Delivery::AtLeastOnce(id);
        self.send(&Packet::Publish(Publish {
            dup: false,
            delivery,
            retain: false,
            topic,
            properties,
            payload,
        }))
    }

    /// Subscribes; SUBACK is for the caller to read.
    pub(crate) fn subscribe(&mut self, filter: &str, qos: QoS) -> Result<(), Gone> {
        let options = SubscriptionOptions { qos, ..SubscriptionOptions::default() };
        self.send(&Packet::Subscribe(Subscribe {
            packet_id: PacketId::MIN,
            properties: SubscribeProperties::default(),
            filters: SubscribeFilters::from_list(&[(filter, options)]),
        }))
    }

    /// Ends the session's connection as it should be, and waits for the broker to close it.
    pub(crate) fn disconnect(mut self) -> Result<(), Gone> {
        let properties = DisconnectProperties::default();
        self.send(&Packet::Disconnect(Disconnect { reason: ReasonCode::Success, properties }))?;
        while self.read().is_ok() {}
        Ok(())
    }
}

fn understood(packet: &Packet<'_>) -> Got {
    match packet {
        Packet::ConnAck(connack) => {
            assert_eq!(connack.code.number(), 0, "refused");
            Got::ConnAck { session_present: connack.session_present }
        }
        Packet::Publish(publish) => Got::Publish {
            topic: publish.topic.into(),
            payload: String::from_utf8_lossy(publish.payload).into(),
            delivery: publish.delivery,
        },
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            Got::Ack { kind: packet.kind(), id: ack.packet_id, reason: ack.reason }
        }
        Packet::SubAck(suback) => {
            assert!(suback.codes.iter().all(|code| *code <= 2), "{packet:?}");
            Got::SubAck
        }
        other => panic!("unexpected {other:?}"),
    }
}

/// Who a client is, and where its broker.
#[derive(Clone)]
pub(crate) struct Who {
    pub(crate) id: String,
    pub(crate) version: Version,
    pub(crate) socket: PathBuf,
}

/// What a test and its clients tell each other.
#[derive(Default)]
pub(crate) struct Course {
    /// Subscribers whose subscription is acknowledged.
    pub(crate) subscribed: AtomicUsize,
    /// Publishers send nothing new.
    pub(crate) is_ending: AtomicBool,
    /// Subscribers end.
    pub(crate) is_over: AtomicBool,
}

/// Publishes numbers to one topic, QoS 1 and 2 in turn, as fast as its window allows.
pub(crate) struct Publisher {
    who: Who,
    topic: String,
    next: u64,
    inflight: Vec<Inflight>,
    /// Numbers that were acknowledged: by PUBACK or by PUBREC.
    pub(crate) acknowledged: Vec<u64>,
    connections: usize,
}

struct Inflight {
    id: PacketId,
    number: u64,
    is_received: bool,
}

const WINDOW: usize = 20;

/// QoS 1 and 2 in turn, a few at a time.
pub(crate) fn qos_of(number: u64) -> QoS {
    if (number / 4).is_multiple_of(2) { QoS::AtLeastOnce } else { QoS::ExactlyOnce }
}

impl Publisher {
    pub(crate) fn new(who: Who, topic: &str) -> Publisher {
        let topic = topic.into();
        Publisher { who, topic, next: 0, inflight: Vec::new(), acknowledged: Vec::new(), connections: 0 }
    }

    /// Publishes until the end, over all connections that this takes.
    pub(crate) fn run(mut self, course: &Arc<Course>) -> Publisher {
        let deadline = Instant::now() + 4 * PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "{} waits for {:?}", self.who.id, self.inflight.len());
            if let Ok(()) = self.connection(course) {
                return self;
            }
        }
    }

    fn connection(&mut self, course: &Course) -> Result<(), Gone> {
        let (mut connection, session_present) = Connection::open(&self.who, None)?;
        assert!(session_present || self.connections == 0, "the session of {} is lost", self.who.id);
        self.connections += 1;
        for at in 0..self.inflight.len() {
            let Inflight { id, number, is_received } = self.inflight[at];
            match is_received {
                true => connection.ack(PacketKind::PubRel, id)?,
                false => self.publish(&mut connection, id, number, true)?,
            }
        }
        loop {
            let is_ending = course.is_ending.load(Ordering::Relaxed);
            while !is_ending && self.inflight.len() < WINDOW {
                let number = self.next;
                let id = PacketId::MIN.saturating_add((number % 60_000) as u16);
                self.next += 1;
                self.inflight.push(Inflight { id, number, is_received: false });
                self.publish(&mut connection, id, number, false)?;
            }
            if is_ending && self.inflight.is_empty() {
                return connection.disconnect();
            }
            for got in connection.read()? {
                self.hear(&mut connection, &got)?;
            }
        }
    }

    fn publish(&self, connection: &mut Connection, id: PacketId, number: u64, dup: bool) -> Result<(), Gone> {
        let delivery = match qos_of(number) {
            QoS::ExactlyOnce => Delivery::ExactlyOnce(id),
            _ => Delivery::AtLeastOnce(id),
        };
        let payload = number.to_string();
        let (topic, properties) = (&*self.topic, PublishProperties::default());
        let payload = payload.as_bytes();
        connection.send(&Packet::Publish(Publish { dup, delivery, retain: true, topic, properties, payload }))
    }

    fn hear(&mut self, connection: &mut Connection, got: &Got) -> Result<(), Gone> {
        let Got::Ack { kind, id, reason } = got else { panic!("a publisher got something else") };
        // An identifier may be unknown where its end was lost; any other refusal is none to expect.
        let is_known = !reason.is_error() || *reason == ReasonCode::PacketIdentifierNotFound;
        assert!(is_known, "{kind} with {reason:?}");
        let Some(at) = self.inflight.iter().position(|inflight| inflight.id == *id) else { return Ok(()) };
        match kind {
            PacketKind::PubAck => self.acknowledged.push(self.inflight.remove(at).number),
            PacketKind::PubRec => {
                if !std::mem::replace(&mut self.inflight[at].is_received, true) {
                    self.acknowledged.push(self.inflight[at].number);
                }
                connection.ack(PacketKind::PubRel, *id)?;
            }
            _ => drop(self.inflight.remove(at)),
        }
        Ok(())
    }
}

/// Takes in all messages of a filter, and acknowledges them.
pub(crate) struct Subscriber {
    who: Who,
    filter: String,
    qos: QoS,
    /// Packets after which it drops its connection by itself; 0 for never.
    flap: usize,
    is_subscribed: bool,
    unreleased: BTreeSet<PacketId>,
    /// Topic, payload and QoS of what it got, in order; a QoS 2 message once.
    pub(crate) received: Vec<(String, String, QoS)>,
}

impl Subscriber {
    pub(crate) fn new(who: Who, filter: &str, qos: QoS, flap: usize) -> Subscriber {
        let (filter, unreleased) = (filter.into(), BTreeSet::new());
        Subscriber { who, filter, qos, flap, is_subscribed: false, unreleased, received: Vec::new() }
    }

    pub(crate) fn run(mut self, course: &Arc<Course>) -> Subscriber {
        while self.connection(course).is_err() {}
        self
    }

    fn connection(&mut self, course: &Course) -> Result<(), Gone> {
        let (mut connection, session_present) = Connection::open(&self.who, None)?;
        assert!(session_present || !self.is_subscribed, "the session of {} is lost", self.who.id);
        if !self.is_subscribed {
            connection.subscribe(&self.filter, self.qos)?;
        }
        let (mut packets, mut idle) = (0, 0);
        loop {
            let got = connection.read()?;
            idle = if got.is_empty() { idle + 1 } else { 0 };
            if idle >= IDLE_READS && course.is_over.load(Ordering::Relaxed) {
                return connection.disconnect();
            }
            for got in got {
                packets += 1;
                self.hear(&mut connection, got, course)?;
            }
            if self.flap > 0 && packets > self.flap && !course.is_over.load(Ordering::Relaxed) {
                return Err(Gone);
            }
        }
    }

    fn hear(&mut self, connection: &mut Connection, got: Got, course: &Course) -> Result<(), Gone> {
        match got {
            Got::SubAck => {
                self.is_subscribed = true;
                course.subscribed.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Got::Publish { topic, payload, delivery } => {
                let is_new = match delivery {
                    Delivery::ExactlyOnce(id) => self.unreleased.insert(id),
                    Delivery::AtMostOnce | Delivery::AtLeastOnce(_) => true,
                };
                if is_new {
                    self.received.push((topic, payload, delivery.qos()));
                }
                match delivery {
                    Delivery::AtMostOnce => Ok(()),
                    Delivery::AtLeastOnce(id) => connection.ack(PacketKind::PubAck, id),
                    Delivery::ExactlyOnce(id) => connection.ack(PacketKind::PubRec, id),
                }
            }
            Got::Ack { kind: PacketKind::PubRel, id, .. } => {
                self.unreleased.remove(&id);
                connection.ack(PacketKind::PubComp, id)
            }
            Got::Ack { .. } | Got::ConnAck { .. } => panic!("a subscriber got something else"),
        }
    }
}
