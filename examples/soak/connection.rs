//! One connection of a client: packets over TCP, as they come. What a session remembers is its owner's.

use std::time::Duration;

use dunlin::codec::{
    self, Ack, AckProperties, Connect, ConnectProperties, Decoded, Delivery, Disconnect,
    DisconnectProperties, PACKET_BYTES_LIMIT, Packet, PacketId, PacketKind, Publish, PublishProperties, QoS,
    ReasonCode, Subscribe, SubscribeFilters, SubscribeProperties, SubscriptionOptions, Unsubscribe,
    UnsubscribeFilters, Version, Will, WillProperties,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};

/// How long anything may take that has to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Seconds of Keep Alive. Half of it without a word, and a client pings.
const KEEP_ALIVE_SECS: u16 = 30;

/// What a packet of the broker says, as far as these clients care.
#[derive(Debug)]
pub(crate) enum Got {
    Publish { topic: String, payload: Vec<u8>, delivery: Delivery, retain: bool },
    Ack { kind: PacketKind, id: PacketId, reason: ReasonCode },
    SubAck,
    UnsubAck,
    PingResp,
}

/// The connection is gone, and why.
#[derive(Debug)]
pub(crate) struct Gone(pub(crate) String);

impl From<std::io::Error> for Gone {
    fn from(error: std::io::Error) -> Gone {
        Gone(error.to_string())
    }
}

/// How much of a session the broker keeps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Keeps {
    /// It ends with its connection.
    Nothing,
    /// It outlives its connection by so many seconds, which MQTT 3.1.1 cannot say: there it is for ever.
    Secs(u32),
}

/// Who a client is.
#[derive(Clone, Debug)]
pub(crate) struct Who {
    pub(crate) id: String,
    pub(crate) version: Version,
    pub(crate) keeps: Keeps,
    pub(crate) port: u16,
}

/// A will that says a number.
#[derive(Clone, Debug)]
pub(crate) struct WillOf {
    pub(crate) topic: String,
    pub(crate) number: u64,
    pub(crate) qos: QoS,
    pub(crate) delay_secs: u32,
}

/// One connection. After an error it is of no use any more.
pub(crate) struct Connection {
    stream: TcpStream,
    version: Version,
    input: Vec<u8>,
    /// Packets that are not written yet: those that answer one read leave in one write.
    output: Vec<u8>,
    spoke: Instant,
    pub(crate) session_present: bool,
}

impl Connection {
    /// Connects.
    pub(crate) async fn open(who: &Who, will: Option<&WillOf>) -> Result<Connection, Gone> {
        match timeout(PATIENCE, Connection::try_open(who, will)).await {
            Ok(result) => result,
            Err(_) => Err(Gone("no CONNACK came".into())),
        }
    }

    async fn try_open(who: &Who, will: Option<&WillOf>) -> Result<Connection, Gone> {
        let stream = TcpStream::connect(("127.0.0.1", who.port)).await?;
        stream.set_nodelay(true)?;
        let (input, output) = (Vec::new(), Vec::new());
        let version = who.version;
        let mut connection =
            Connection { stream, version, input, output, spoke: Instant::now(), session_present: false };
        let number = will.map_or(String::new(), |will| will.number.to_string());
        let will = will.map(|will| Will {
            qos: will.qos,
            retain: false,
            topic: &will.topic,
            payload: number.as_bytes(),
            properties: WillProperties {
                delay_secs: version.is_v5().then_some(will.delay_secs),
                ..WillProperties::default()
            },
        });
        let expiry = match who.keeps {
            Keeps::Nothing => None,
            Keeps::Secs(secs) => version.is_v5().then_some(secs),
        };
        connection.send(&Packet::Connect(Box::new(Connect {
            version,
            clean_start: who.keeps == Keeps::Nothing,
            keep_alive_secs: KEEP_ALIVE_SECS,
            client_id: &who.id,
            will,
            user_name: None,
            password: None,
            properties: ConnectProperties { session_expiry_secs: expiry, ..ConnectProperties::default() },
        })));
        connection.flush().await?;
        loop {
            if let Some(session_present) = connection.take_connack()? {
                connection.session_present = session_present;
                return Ok(connection);
            }
            connection.fill().await?;
        }
    }

    /// CONNACK, if it is there. Packets that follow it stay where they are.
    fn take_connack(&mut self) -> Result<Option<bool>, Gone> {
        let (present, taken) = match codec::decode(&self.input, self.version, PACKET_BYTES_LIMIT) {
            Ok(Decoded::Incomplete(_)) => return Ok(None),
            Ok(Decoded::Packet(Packet::ConnAck(ack), taken)) if ack.code.number() == 0 => {
                (ack.session_present, taken)
            }
            Ok(Decoded::Packet(packet, _)) => {
                return Err(Gone(format!("{packet:?} where CONNACK was expected")));
            }
            Err(error) => return Err(Gone(format!("what came is no packet: {error}"))),
        };
        self.input.drain(..taken);
        Ok(Some(present))
    }

    /// Puts a packet into the buffer that [`Connection::flush`] writes.
    fn send(&mut self, packet: &Packet<'_>) {
        codec::encode(packet, self.version, &mut self.output);
    }

    /// Writes what was sent. Not to be cancelled.
    pub(crate) async fn flush(&mut self) -> Result<(), Gone> {
        if !self.output.is_empty() {
            self.stream.write_all(&self.output).await?;
            self.output.clear();
            self.spoke = Instant::now();
        }
        Ok(())
    }

    async fn fill(&mut self) -> Result<(), Gone> {
        self.input.reserve(16 * 1024);
        match self.stream.read_buf(&mut self.input).await? {
            0 => Err(Gone("the broker closed the connection".into())),
            _ => Ok(()),
        }
    }

    /// What has arrived: nothing if nothing did until then. Writes first what was sent.
    pub(crate) async fn read(&mut self, until: Instant) -> Result<Vec<Got>, Gone> {
        if self.spoke.elapsed() > Duration::from_secs(u64::from(KEEP_ALIVE_SECS / 2)) {
            self.send(&Packet::PingReq);
        }
        self.flush().await?;
        // CONNACK may have brought some along.
        let got = self.take_packets()?;
        if !got.is_empty() {
            return Ok(got);
        }
        match timeout_at(until, self.fill()).await {
            Err(_) => Ok(Vec::new()),
            Ok(filled) => {
                filled?;
                self.take_packets()
            }
        }
    }

    fn take_packets(&mut self) -> Result<Vec<Got>, Gone> {
        let (mut got, mut at) = (Vec::new(), 0);
        loop {
            match codec::decode(&self.input[at..], self.version, PACKET_BYTES_LIMIT) {
                Ok(Decoded::Packet(packet, taken)) => {
                    at += taken;
                    got.push(understood(&packet)?);
                }
                Ok(Decoded::Incomplete(_)) => break,
                Err(error) => return Err(Gone(format!("what came is no packet: {error}"))),
            }
        }
        self.input.drain(..at);
        Ok(got)
    }

    pub(crate) fn publish(&mut self, topic: &str, payload: &[u8], delivery: Delivery, marks: Marks) {
        self.send(&Packet::Publish(Publish {
            dup: marks == Marks::Again,
            delivery,
            retain: marks == Marks::Retained,
            topic,
            properties: PublishProperties::default(),
            payload,
        }));
    }

    pub(crate) fn ack(&mut self, kind: PacketKind, packet_id: PacketId) {
        let ack = Ack { packet_id, reason: ReasonCode::Success, properties: AckProperties::default() };
        self.send(&match kind {
            PacketKind::PubAck => Packet::PubAck(ack),
            PacketKind::PubRec => Packet::PubRec(ack),
            PacketKind::PubRel => Packet::PubRel(ack),
            _ => Packet::PubComp(ack),
        });
    }

    pub(crate) fn subscribe(&mut self, filter: &str, qos: QoS) {
        let options = SubscriptionOptions { qos, ..SubscriptionOptions::default() };
        self.send(&Packet::Subscribe(Subscribe {
            packet_id: SUBSCRIBING,
            properties: SubscribeProperties::default(),
            filters: SubscribeFilters::from_list(&[(filter, options)]),
        }));
    }

    pub(crate) fn unsubscribe(&mut self, filter: &str) {
        self.send(&Packet::Unsubscribe(Unsubscribe {
            packet_id: SUBSCRIBING,
            user_properties: Default::default(),
            filters: UnsubscribeFilters::from_list(&[filter]),
        }));
    }

    /// Takes leave, and waits for the broker to close the connection.
    pub(crate) async fn disconnect(mut self, reason: ReasonCode) -> Result<(), Gone> {
        self.send(&Packet::Disconnect(Disconnect { reason, properties: DisconnectProperties::default() }));
        self.flush().await?;
        self.expect_close().await
    }

    /// Waits for the broker to close the connection. What comes until then is nobody's any more.
    pub(crate) async fn expect_close(mut self) -> Result<(), Gone> {
        let closed = async {
            loop {
                self.input.clear();
                if self.fill().await.is_err() {
                    return;
                }
            }
        };
        timeout(PATIENCE, closed).await.map_err(|_| Gone("the broker does not close a connection".into()))
    }
}

/// What a PUBLISH says of itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Marks {
    None,
    Retained,
    /// It was sent before.
    Again,
}

/// SUBSCRIBE and UNSUBSCRIBE have an identifier that no PUBLISH of these clients takes.
const SUBSCRIBING: PacketId = PacketId::MAX;

fn understood(packet: &Packet<'_>) -> Result<Got, Gone> {
    Ok(match packet {
        Packet::Publish(publish) => Got::Publish {
            topic: publish.topic.into(),
            payload: publish.payload.into(),
            delivery: publish.delivery,
            retain: publish.retain,
        },
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            Got::Ack { kind: packet.kind(), id: ack.packet_id, reason: ack.reason }
        }
        Packet::SubAck(ack) if ack.codes.iter().all(|code| *code <= 2) => Got::SubAck,
        Packet::UnsubAck(_) => Got::UnsubAck,
        Packet::PingResp => Got::PingResp,
        other => return Err(Gone(format!("unexpected {other:?}"))),
    })
}
