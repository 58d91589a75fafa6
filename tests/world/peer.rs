//! The client's end of one connection: what it received, and the rules that this has to obey.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use dunlin::{
    codec::{
        self, Ack, AckProperties, ConnAckReturn, Decoded, Delivery, PACKET_BYTES_LIMIT, Packet, PacketKind,
        Publish, QoS, ReasonCode, Version,
    },
    session::LinkId,
};

use super::Setup;

/// A packet that a client received.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Got {
    ConnAck { session_present: bool, code: u8, frame: Vec<u8> },
    Publish(GotMessage),
    Ack { kind: PacketKind, id: u16, code: u8, reason_string: Option<String> },
    SubAck { id: u16, codes: Vec<u8> },
    UnsubAck { id: u16, codes: Vec<u8> },
    PingResp,
    Disconnect { code: u8, reason_string: Option<String> },
    Auth { code: u8 },
}

/// A PUBLISH that a client received, its topic alias resolved.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct GotMessage {
    pub(crate) topic: String,
    pub(crate) payload: String,
    pub(crate) qos: QoS,
    pub(crate) id: Option<u16>,
    pub(crate) dup: bool,
    pub(crate) retain: bool,
    pub(crate) subscription_ids: Vec<u32>,
    pub(crate) expiry_secs: Option<u32>,
    /// The alias that was on the packet, and whether the topic was too.
    pub(crate) alias: Option<(u16, bool)>,
    pub(crate) frame: Vec<u8>,
}

/// One connection as its client sees it.
pub(super) struct Peer {
    pub(super) setup: Setup,
    pub(super) link: Option<(usize, LinkId)>,
    /// Bytes towards the broker that it has not read.
    pub(super) input: Vec<u8>,
    /// Bytes from the broker that are not a whole packet yet.
    pub(super) wire: Vec<u8>,
    pub(super) received: VecDeque<Got>,
    pub(super) is_closed: bool,
    /// It does not read.
    pub(super) is_stalled: bool,
    /// Its outbox was touched while it stalled.
    pub(super) is_dirty: bool,
    /// It answers PUBLISH, PUBREC and PUBREL by itself, and does not show the last two.
    pub(super) answers: bool,
    /// The last packet identifier that it used.
    pub(super) last_id: u16,
    aliases: BTreeMap<u16, String>,
    /// Identifiers of PUBLISH that it received and has not acknowledged to the end.
    inflight: BTreeMap<u16, QoS>,
    /// Identifiers of PUBLISH that it has acknowledged to the end, and not received yet.
    settled_early: BTreeSet<u16>,
    packets: usize,
    is_over: bool,
}

impl Peer {
    pub(super) fn new(setup: Setup) -> Peer {
        Peer {
            link: None,
            input: Vec::new(),
            wire: Vec::new(),
            received: VecDeque::new(),
            is_closed: false,
            is_stalled: false,
            is_dirty: false,
            answers: setup.answers,
            last_id: 0,
            aliases: BTreeMap::new(),
            inflight: BTreeMap::new(),
            settled_early: BTreeSet::new(),
            packets: 0,
            is_over: false,
            setup,
        }
    }

    /// Reads whole packets from the wire. Returns what the client answers by itself.
    pub(super) fn read_wire(&mut self) -> Vec<u8> {
        let version = self.setup.version;
        let wire = std::mem::take(&mut self.wire);
        let mut at = 0;
        let mut answers = Vec::new();
        loop {
            match codec::decode(&wire[at..], version, PACKET_BYTES_LIMIT) {
                Ok(Decoded::Packet(packet, taken)) => {
                    let frame = &wire[at..at + taken];
                    self.check(&packet, frame);
                    self.receive(&packet, frame, &mut answers);
                    at += taken;
                }
                Ok(Decoded::Incomplete(_)) => break,
                Err(error) => panic!("the broker sent what is no packet: {error}: {:02x?}", &wire[at..]),
            }
        }
        self.wire = wire[at..].to_vec();
        answers
    }

    /// What holds for every packet of a server.
    fn check(&mut self, packet: &Packet<'_>, frame: &[u8]) {
        let name = packet.kind().name();
        assert!(!self.is_over, "{name} after DISCONNECT or a CONNACK that refuses");
        let packet_bytes_max = self.setup.packet_bytes_max.unwrap_or(PACKET_BYTES_LIMIT);
        assert!(frame.len() <= packet_bytes_max as usize, "{name} of {} bytes is too large", frame.len());
        let is_conn_ack = packet.kind() == PacketKind::ConnAck;
        assert_eq!(is_conn_ack, self.packets == 0, "{name} is packet {}", self.packets);
        self.packets += 1;
        match packet {
            Packet::ConnAck(connack) => self.is_over = connack.code.number() != 0,
            Packet::Publish(publish) => self.check_publish(publish),
            Packet::Disconnect(disconnect) => {
                assert!(self.setup.version.is_v5(), "DISCONNECT to a client before MQTT 5");
                assert_eq!(disconnect.properties.session_expiry_secs, None);
                self.is_over = true;
            }
            Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
                self.check_properties(&ack.properties);
            }
            Packet::SubAck(ack) => self.check_properties(&ack.properties),
            Packet::UnsubAck(ack) => self.check_properties(&ack.properties),
            Packet::PingResp | Packet::Auth(_) => {}
            Packet::Connect(_) | Packet::Subscribe(_) | Packet::Unsubscribe(_) | Packet::PingReq => {
                panic!("a server does not send {name}")
            }
        }
    }

    fn check_properties(&self, properties: &AckProperties<'_>) {
        if self.setup.problem_information == Some(false) {
            assert_eq!(*properties, AckProperties::default(), "the client wants no problem information");
        }
    }

    fn check_publish(&mut self, publish: &Publish<'_>) {
        if let Some(alias) = publish.properties.topic_alias {
            let maximum = self.setup.alias_maximum.unwrap_or(0);
            assert!(alias.get() <= maximum, "topic alias {alias} of at most {maximum}");
            if !publish.topic.is_empty() {
                self.aliases.insert(alias.get(), publish.topic.into());
            }
            assert!(self.aliases.contains_key(&alias.get()), "topic alias {alias} has no topic");
        }
        let Some(id) = publish.delivery.packet_id() else { return };
        // The broker has written it before it read the acknowledgement, and has sent another one since.
        if self.settled_early.remove(&id.get()) {
            return;
        }
        let before = self.inflight.insert(id.get(), publish.delivery.qos());
        assert_eq!(before, None, "packet identifier {id} is in use on this connection");
        let said = self.setup.receive_maximum.filter(|_| self.setup.version.is_v5());
        let maximum = said.unwrap_or(u16::MAX);
        assert!(self.inflight.len() <= usize::from(maximum), "more PUBLISH than the Receive Maximum");
    }

    /// Takes note of what the broker reads of what the client sent. Returns the identifier of a message that ends
    /// with it, if the client has not received one.
    pub(super) fn note_read(&mut self, packet: &Packet<'_>) -> Option<u16> {
        let id = match packet {
            Packet::PubAck(ack) | Packet::PubComp(ack) => ack.packet_id.get(),
            Packet::PubRec(ack) if ack.reason.is_error() => ack.packet_id.get(),
            _ => return None,
        };
        self.inflight.remove(&id).is_none().then_some(id)
    }

    /// The broker has taken an acknowledgement of what it has written and the client has not received.
    pub(super) fn note_settled_early(&mut self, id: u16) {
        self.settled_early.insert(id);
    }

    fn receive(&mut self, packet: &Packet<'_>, frame: &[u8], answers: &mut Vec<u8>) {
        if self.answers {
            let answer = match packet {
                Packet::Publish(publish) => match publish.delivery {
                    Delivery::AtMostOnce => None,
                    Delivery::AtLeastOnce(id) => Some(Packet::PubAck(Ack::success(id))),
                    Delivery::ExactlyOnce(id) => Some(Packet::PubRec(Ack::success(id))),
                },
                Packet::PubRec(ack) if !ack.reason.is_error() => {
                    Some(Packet::PubRel(Ack::success(ack.packet_id)))
                }
                Packet::PubRel(ack) => Some(Packet::PubComp(Ack::success(ack.packet_id))),
                _ => None,
            };
            if let Some(answer) = answer {
                codec::encode(&answer, self.setup.version, answers);
                if !matches!(packet, Packet::Publish(_)) {
                    return;
                }
            }
        }
        self.received.push_back(self.got(packet, frame));
    }

    fn got(&self, packet: &Packet<'_>, frame: &[u8]) -> Got {
        let ack = |ack: &Ack<'_>| Got::Ack {
            kind: packet.kind(),
            id: ack.packet_id.get(),
            code: ack.reason as u8,
            reason_string: ack.properties.reason_string.map(Into::into),
        };
        match packet {
            Packet::ConnAck(connack) => {
                let is_v5 = matches!(connack.code, ConnAckReturn::V5(_));
                assert_eq!(is_v5, self.setup.version == Version::V5);
                Got::ConnAck {
                    session_present: connack.session_present,
                    code: connack.code.number(),
                    frame: frame.into(),
                }
            }
            Packet::Publish(publish) => Got::Publish(self.got_message(publish, frame)),
            Packet::PubAck(packet) | Packet::PubRec(packet) => ack(packet),
            Packet::PubRel(packet) | Packet::PubComp(packet) => ack(packet),
            Packet::SubAck(ack) => Got::SubAck { id: ack.packet_id.get(), codes: ack.codes.into() },
            Packet::UnsubAck(ack) => Got::UnsubAck { id: ack.packet_id.get(), codes: ack.codes.into() },
            Packet::PingResp => Got::PingResp,
            Packet::Disconnect(disconnect) => Got::Disconnect {
                code: disconnect.reason as u8,
                reason_string: disconnect.properties.reason_string.map(Into::into),
            },
            Packet::Auth(auth) => Got::Auth { code: auth.reason as u8 },
            other => unreachable!("{} was refused by the check", other.kind()),
        }
    }

    fn got_message(&self, publish: &Publish<'_>, frame: &[u8]) -> GotMessage {
        let properties = &publish.properties;
        let topic = match properties.topic_alias.filter(|_| publish.topic.is_empty()) {
            Some(alias) => self.aliases[&alias.get()].clone(),
            None => publish.topic.into(),
        };
        GotMessage {
            topic,
            payload: String::from_utf8_lossy(publish.payload).into(),
            qos: publish.delivery.qos(),
            id: publish.delivery.packet_id().map(|id| id.get()),
            dup: publish.dup,
            retain: publish.retain,
            subscription_ids: properties.subscription_ids.iter().map(|id| id.get()).collect(),
            expiry_secs: properties.message_expiry_secs,
            alias: properties.topic_alias.map(|alias| (alias.get(), !publish.topic.is_empty())),
            frame: frame.into(),
        }
    }
}

impl GotMessage {
    /// Its packet identifier.
    pub(crate) fn id(&self) -> u16 {
        self.id.expect("a PUBLISH above QoS 0 has a packet identifier")
    }

    /// Reads the whole packet, for what has no field here.
    pub(crate) fn with_packet<T>(&self, read: impl FnOnce(&Publish<'_>) -> T) -> T {
        match codec::decode(&self.frame, Version::V5, PACKET_BYTES_LIMIT) {
            Ok(Decoded::Packet(Packet::Publish(publish), _)) => read(&publish),
            other => panic!("the frame was a PUBLISH before: {other:?}"),
        }
    }
}

impl Got {
    /// An acknowledgement that says success and nothing else.
    pub(crate) fn ack(kind: PacketKind, id: u16) -> Got {
        Got::coded(kind, id, ReasonCode::Success)
    }

    /// An acknowledgement with a reason code and no reason string.
    pub(crate) fn coded(kind: PacketKind, id: u16, code: ReasonCode) -> Got {
        Got::Ack { kind, id, code: code as u8, reason_string: None }
    }
}
