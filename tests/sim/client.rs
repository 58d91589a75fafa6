//! A client that knows the standard: its end of the protocol, and what it remembers from connection to connection.
//!
//! It does what a client may do and nothing else, so whatever the broker holds against it is the broker's fault.
//! What it decides to do stands in `script`.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    num::{NonZeroU16, NonZeroU32},
};

use dunlin::{
    codec::{
        self, Ack, ConnAck, ConnAckReturn, Connect, ConnectProperties, Decoded, Delivery, PACKET_BYTES_LIMIT,
        Packet, PacketId, PacketKind, Publish, PublishProperties, QoS, ReasonCode, Version,
    },
    limits::Durability,
};

use super::{
    broker::FORBIDDEN,
    event::{Delivered, Event},
    facts::{Interest, Message},
};

/// What a client is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// It sees all wills.
    Observer,
    /// It publishes, subscribes, and changes its mind.
    Peer,
    /// It is a member of the shared subscription.
    Member,
}

/// Where its connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Offline,
    Connecting { wire: usize, clean: bool },
    Online { wire: usize },
}

/// A message on its way to the broker.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    pub(crate) id: PacketId,
    pub(crate) message: usize,
    pub(crate) is_received: bool,
    /// PUBREL is sent.
    pub(crate) is_released: bool,
}

/// A request that is not answered.
#[derive(Clone, Debug)]
pub(crate) enum Awaited {
    Subscribe { filter: String, qos: QoS },
    Unsubscribe { filter: String },
}

/// One client identifier.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) number: usize,
    pub(crate) id: String,
    pub(crate) version: Version,
    pub(crate) role: Role,
    pub(crate) durability: Durability,
    pub(crate) expiry_secs: u32,
    pub(crate) receive_maximum: Option<NonZeroU16>,
    pub(crate) alias_maximum: u16,
    pub(crate) packet_bytes_max: Option<NonZeroU32>,
    pub(crate) keep_alive_secs: u16,
    pub(crate) phase: Phase,
    /// It asked for a new session and was not answered: it asks again.
    pub(crate) must_clean: bool,
    /// Queues or the disk may be full.
    pub(crate) may_be_refused: bool,
    /// It may not subscribe to everything.
    pub(crate) is_deaf: bool,
    /// It does not read.
    pub(crate) is_stalled: bool,
    /// Acknowledgements are sent when it comes to them.
    pub(crate) is_late: bool,
    pub(crate) outgoing: Vec<Outgoing>,
    pub(crate) awaited: BTreeMap<PacketId, Awaited>,
    pub(crate) due: VecDeque<(PacketKind, PacketId)>,
    /// PUBLISH that it may have under way.
    pub(crate) window: usize,
    /// Aliases that the broker takes, and those that it knows.
    pub(crate) alias_out_maximum: u16,
    pub(crate) aliases_out: BTreeMap<String, NonZeroU16>,
    last_id: u16,
    /// Its session ends with its connection.
    is_transient: bool,
    /// Identifiers of QoS 2 messages that it owns.
    owned: BTreeSet<PacketId>,
    /// Identifiers of all that came with QoS 2 in this session.
    received: BTreeSet<PacketId>,
    aliases_in: BTreeMap<NonZeroU16, String>,
}

/// What a client sends, and what happens.
#[derive(Default)]
pub(crate) struct Turn {
    pub(crate) bytes: Vec<u8>,
    pub(crate) events: Vec<Event>,
    /// It closes the connection.
    pub(crate) closes: bool,
}

/// Unacknowledged messages of a client at most, where the broker allows more.
const WINDOW: usize = 10;

impl Client {
    pub(crate) fn new(number: usize, id: String, version: Version, role: Role) -> Client {
        Client {
            number,
            id,
            version,
            role,
            durability: Durability::Commit,
            expiry_secs: 0,
            receive_maximum: None,
            alias_maximum: 0,
            packet_bytes_max: None,
            keep_alive_secs: 0,
            phase: Phase::Offline,
            must_clean: false,
            may_be_refused: false,
            is_deaf: false,
            is_stalled: false,
            is_late: false,
            outgoing: Vec::new(),
            awaited: BTreeMap::new(),
            due: VecDeque::new(),
            window: WINDOW,
            alias_out_maximum: 0,
            aliases_out: BTreeMap::new(),
            last_id: 0,
            is_transient: false,
            owned: BTreeSet::new(),
            received: BTreeSet::new(),
            aliases_in: BTreeMap::new(),
        }
    }

    /// Its connection, once it has one.
    pub(crate) fn wire(&self) -> Option<usize> {
        match self.phase {
            Phase::Offline => None,
            Phase::Connecting { wire, .. } | Phase::Online { wire } => Some(wire),
        }
    }

    pub(crate) fn is_online(&self) -> bool {
        matches!(self.phase, Phase::Online { .. })
    }

    /// The Session Expiry Interval of a connection, as the version has it.
    pub(crate) fn expiry_of(&self, clean: bool) -> u32 {
        match self.version {
            Version::V5 => self.expiry_secs,
            Version::V31 | Version::V311 if clean => 0,
            Version::V31 | Version::V311 => u32::MAX,
        }
    }

    fn encode(&self, packet: &Packet<'_>, turn: &mut Turn) {
        codec::encode(packet, self.version, &mut turn.bytes);
    }

    /// A packet identifier that is not in use.
    fn next_id(&mut self) -> PacketId {
        loop {
            self.last_id = self.last_id % 60 + 1;
            let Some(id) = PacketId::new(self.last_id) else { continue };
            if !self.awaited.contains_key(&id) && self.outgoing.iter().all(|outgoing| outgoing.id != id) {
                return id;
            }
        }
    }

    /// Begins a connection.
    pub(crate) fn connect(
        &mut self,
        wire: usize,
        clean: bool,
        will: Option<(&Message, u32)>,
        turn: &mut Turn,
    ) {
        self.phase = Phase::Connecting { wire, clean };
        self.must_clean |= clean;
        self.is_transient = self.expiry_of(clean) == 0;
        let is_v5 = self.version.is_v5();
        let will = will.map(|(message, delay_secs)| codec::Will {
            qos: message.qos,
            retain: false,
            topic: &message.topic,
            payload: &message.payload,
            properties: codec::WillProperties {
                delay_secs: (is_v5 && delay_secs > 0).then_some(delay_secs),
                ..codec::WillProperties::default()
            },
        });
        let properties = match is_v5 {
            true => ConnectProperties {
                session_expiry_secs: Some(self.expiry_secs).filter(|secs| *secs > 0),
                receive_maximum: self.receive_maximum,
                packet_bytes_max: self.packet_bytes_max,
                topic_alias_maximum: Some(self.alias_maximum).filter(|maximum| *maximum > 0),
                ..ConnectProperties::default()
            },
            false => ConnectProperties::default(),
        };
        let connect = Connect {
            version: self.version,
            clean_start: clean,
            keep_alive_secs: self.keep_alive_secs,
            client_id: &self.id,
            will,
            user_name: None,
            password: None,
            properties,
        };
        self.encode(&Packet::Connect(Box::new(connect)), turn);
        turn.events.push(Event::Connecting { client: self.number, wire, clean });
    }

    /// Its connection is gone.
    pub(crate) fn lose(&mut self) -> Option<Event> {
        let wire = self.wire()?;
        // It knows that its session has ended with the connection.
        if self.is_transient {
            self.outgoing.clear();
            self.owned.clear();
            self.received.clear();
        }
        self.phase = Phase::Offline;
        self.is_stalled = false;
        self.due.clear();
        self.awaited.clear();
        self.aliases_in.clear();
        self.aliases_out.clear();
        Some(Event::Lost { client: self.number, wire })
    }

    /// Publishes a message for the first time.
    pub(crate) fn publish(&mut self, message: usize, what: &Message, turn: &mut Turn) {
        let id = (what.qos > QoS::AtMostOnce).then(|| self.next_id());
        if let Some(id) = id {
            self.outgoing.push(Outgoing { id, message, is_received: false, is_released: false });
        }
        self.send(id, what, false, turn);
        turn.events.push(Event::Sent { message, is_again: false });
    }

    fn send(&mut self, id: Option<PacketId>, what: &Message, dup: bool, turn: &mut Turn) {
        let delivery = match (what.qos, id) {
            (QoS::AtLeastOnce, Some(id)) => Delivery::AtLeastOnce(id),
            (QoS::ExactlyOnce, Some(id)) => Delivery::ExactlyOnce(id),
            _ => Delivery::AtMostOnce,
        };
        let mut properties =
            PublishProperties { message_expiry_secs: what.expiry_secs, ..Default::default() };
        let mut topic = what.topic.as_str();
        if !self.version.is_v5() {
            properties = PublishProperties::default();
        } else if self.alias_out_maximum > 0 {
            let known = self.aliases_out.get(topic).copied();
            if known.is_some() {
                properties.topic_alias = known;
                topic = "";
            } else if self.aliases_out.len() < usize::from(self.alias_out_maximum)
                && let Some(alias) = NonZeroU16::new(self.aliases_out.len() as u16 + 1)
            {
                properties.topic_alias = Some(alias);
                self.aliases_out.insert(topic.into(), alias);
            }
        }
        let publish =
            Publish { dup, delivery, retain: what.retain, topic, properties, payload: &what.payload };
        self.encode(&Packet::Publish(publish), turn);
    }

    /// Subscribes to one filter.
    pub(crate) fn subscribe(&mut self, interest: Interest, turn: &mut Turn) {
        let id = self.next_id();
        let options = codec::SubscriptionOptions {
            qos: interest.qos,
            no_local: interest.no_local,
            retain_as_published: interest.retain_as_published,
            retain_handling: interest.handling,
        };
        let filters = [(interest.filter.as_str(), options)];
        let packet = Packet::Subscribe(codec::Subscribe {
            packet_id: id,
            properties: codec::SubscribeProperties {
                subscription_id: interest.id.and_then(NonZeroU32::new),
                ..codec::SubscribeProperties::default()
            },
            filters: codec::SubscribeFilters::from_list(&filters),
        });
        self.encode(&packet, turn);
        self.awaited.insert(id, Awaited::Subscribe { filter: interest.filter.clone(), qos: interest.qos });
        turn.events.push(Event::Subscribing { client: self.number, interest });
    }

    /// Unsubscribes from one filter.
    pub(crate) fn unsubscribe(&mut self, filter: &str, turn: &mut Turn) {
        let id = self.next_id();
        let filters = [filter];
        let packet = Packet::Unsubscribe(codec::Unsubscribe {
            packet_id: id,
            user_properties: codec::UserProperties::default(),
            filters: codec::UnsubscribeFilters::from_list(&filters),
        });
        self.encode(&packet, turn);
        self.awaited.insert(id, Awaited::Unsubscribe { filter: filter.into() });
        turn.events.push(Event::Unsubscribing { client: self.number, filter: filter.into() });
    }

    pub(crate) fn ping(&self, turn: &mut Turn) {
        self.encode(&Packet::PingReq, turn);
    }

    /// Says good-bye: with `ReasonCode::Success` its will is revoked.
    pub(crate) fn disconnect(&self, reason: ReasonCode, turn: &mut Turn) {
        let packet = codec::Disconnect { reason, properties: codec::DisconnectProperties::default() };
        self.encode(&Packet::Disconnect(packet), turn);
    }

    /// Sends the PUBRELs that are due.
    pub(crate) fn release(&mut self, turn: &mut Turn) {
        for at in 0..self.outgoing.len() {
            let outgoing = &mut self.outgoing[at];
            if outgoing.is_received && !std::mem::replace(&mut outgoing.is_released, true) {
                let id = outgoing.id;
                self.encode(&Packet::PubRel(Ack::success(id)), turn);
            }
        }
    }

    /// Sends an acknowledgement that is due.
    pub(crate) fn acknowledge(&mut self, at: usize, turn: &mut Turn) {
        let Some((kind, id)) = self.due.remove(at) else { return };
        let ack = Ack::success(id);
        self.encode(
            &match kind {
                PacketKind::PubRec => Packet::PubRec(ack),
                PacketKind::PubComp => Packet::PubComp(ack),
                _ => Packet::PubAck(ack),
            },
            turn,
        );
        if kind != PacketKind::PubRec
            && let Some(wire) = self.wire()
        {
            turn.events.push(Event::Freed { client: self.number, wire, id: id.get() });
        }
    }

    /// Reads a packet. Returns the bytes that it took, none if it is not complete.
    ///
    /// # Errors
    /// What the broker has done that it must not.
    pub(crate) fn read(
        &mut self,
        bytes: &[u8],
        messages: &[Message],
        turn: &mut Turn,
    ) -> Result<usize, String> {
        let (packet, taken) = match codec::decode(bytes, self.version, PACKET_BYTES_LIMIT) {
            Ok(Decoded::Packet(packet, taken)) => (packet, taken),
            Ok(Decoded::Incomplete(_)) => return Ok(0),
            Err(error) => return Err(format!("{} got what is no packet: {error}", self.id)),
        };
        if self.packet_bytes_max.is_some_and(|maximum| self.version.is_v5() && taken > maximum.get() as usize)
        {
            return Err(format!("{} got {} of {taken} bytes", self.id, packet.kind()));
        }
        self.hear(&packet, messages, turn)
            .map_err(|what| format!("{} got {}: {what}", self.id, packet.kind()))?;
        while !self.is_late && !self.due.is_empty() {
            self.acknowledge(0, turn);
        }
        Ok(taken)
    }

    fn hear(&mut self, packet: &Packet<'_>, messages: &[Message], turn: &mut Turn) -> Result<(), String> {
        let is_conn_ack = matches!(packet, Packet::ConnAck(_));
        if is_conn_ack != matches!(self.phase, Phase::Connecting { .. }) {
            return Err("CONNACK comes once, and first".into());
        }
        match packet {
            Packet::ConnAck(connack) => self.on_conn_ack(connack, messages, turn),
            Packet::Publish(publish) => self.on_publish(publish, messages.len(), turn),
            Packet::PubAck(ack) | Packet::PubRec(ack) => {
                self.on_first_ack(packet.kind(), ack, messages, turn)
            }
            Packet::PubComp(ack) => self.on_pub_comp(ack.packet_id),
            Packet::PubRel(ack) => {
                self.owned.remove(&ack.packet_id);
                self.due.push_back((PacketKind::PubComp, ack.packet_id));
                // It comes again until PUBCOMP has arrived, but never for what was never sent.
                if self.received.contains(&ack.packet_id) {
                    Ok(())
                } else {
                    Err(format!("{} was never sent with QoS 2", ack.packet_id))
                }
            }
            Packet::SubAck(ack) => self.on_sub_ack(ack.packet_id, ack.codes, turn),
            Packet::UnsubAck(ack) => match self.awaited.remove(&ack.packet_id) {
                Some(Awaited::Unsubscribe { filter }) => {
                    turn.events.push(Event::Unsubscribed { client: self.number, filter });
                    Ok(())
                }
                other => Err(format!("it answers {other:?}")),
            },
            Packet::PingResp => Ok(()),
            Packet::Disconnect(disconnect) => {
                turn.closes = true;
                self.judge(disconnect.reason)
            }
            Packet::Connect(_)
            | Packet::Subscribe(_)
            | Packet::Unsubscribe(_)
            | Packet::PingReq
            | Packet::Auth(_) => Err("a broker does not send it".into()),
        }
    }

    /// What a broker may hold against a client that keeps to the standard.
    fn judge(&self, reason: ReasonCode) -> Result<(), String> {
        match reason {
            ReasonCode::SessionTakenOver
            | ReasonCode::ServerShuttingDown
            | ReasonCode::QuotaExceeded
            | ReasonCode::KeepAliveTimeout => Ok(()),
            other => Err(format!("{other:?}")),
        }
    }

    fn on_conn_ack(
        &mut self,
        connack: &ConnAck<'_>,
        messages: &[Message],
        turn: &mut Turn,
    ) -> Result<(), String> {
        let Phase::Connecting { wire, clean } = self.phase else { return Err("out of place".into()) };
        match connack.code {
            ConnAckReturn::V3(0) | ConnAckReturn::V5(ReasonCode::Success) => {}
            // The disk is full.
            ConnAckReturn::V3(3)
            | ConnAckReturn::V5(ReasonCode::QuotaExceeded | ReasonCode::ServerUnavailable) => {
                turn.closes = true;
                return Ok(());
            }
            other => return Err(format!("{other:?}")),
        }
        let present = connack.session_present;
        if clean && present {
            return Err("a session is present that was not wanted".into());
        }
        self.phase = Phase::Online { wire };
        self.must_clean = false;
        let properties = &connack.properties;
        self.alias_out_maximum = properties.topic_alias_maximum.unwrap_or(0);
        self.window = properties.receive_maximum.map_or(WINDOW, |maximum| WINDOW.min(maximum.get().into()));
        turn.events.push(Event::Connected { client: self.number, wire, present });
        if present {
            self.resend(messages, turn);
        } else {
            self.outgoing.clear();
            self.owned.clear();
            self.received.clear();
        }
        Ok(())
    }

    /// Goes on with what was under way. `[MQTT-4.4.0-1]`
    fn resend(&mut self, messages: &[Message], turn: &mut Turn) {
        for outgoing in &mut self.outgoing {
            outgoing.is_released = outgoing.is_received;
        }
        for outgoing in self.outgoing.clone() {
            if outgoing.is_received {
                self.encode(&Packet::PubRel(Ack::success(outgoing.id)), turn);
            } else {
                self.send(Some(outgoing.id), &messages[outgoing.message], true, turn);
                turn.events.push(Event::Sent { message: outgoing.message, is_again: true });
            }
        }
    }

    fn on_first_ack(
        &mut self,
        kind: PacketKind,
        ack: &Ack<'_>,
        messages: &[Message],
        turn: &mut Turn,
    ) -> Result<(), String> {
        let Some(at) = self.outgoing.iter().position(|outgoing| outgoing.id == ack.packet_id) else {
            return Err(format!("{} is not in use", ack.packet_id));
        };
        let message = self.outgoing[at].message;
        let what = &messages[message];
        if (kind == PacketKind::PubRec) != (what.qos == QoS::ExactlyOnce) {
            return Err(format!("it answers QoS {:?}", what.qos));
        }
        if ack.reason.is_error() {
            let is_expected = match ack.reason {
                ReasonCode::NotAuthorized => what.is_denied,
                ReasonCode::QuotaExceeded => self.may_be_refused,
                _ => false,
            };
            if !is_expected {
                return Err(format!("{:?}", ack.reason));
            }
            self.outgoing.remove(at);
            turn.events.push(Event::Refused { message });
            return Ok(());
        }
        turn.events.push(Event::Accepted { message });
        if kind == PacketKind::PubAck {
            self.outgoing.remove(at);
        } else {
            self.outgoing[at].is_received = true;
            if !self.is_late {
                self.release(turn);
            }
        }
        Ok(())
    }

    fn on_pub_comp(&mut self, id: PacketId) -> Result<(), String> {
        // One that is not in use answers a PUBREL that was sent again.
        let Some(at) = self.outgoing.iter().position(|outgoing| outgoing.id == id) else { return Ok(()) };
        if !self.outgoing[at].is_released {
            return Err(format!("{id} was not released"));
        }
        self.outgoing.remove(at);
        Ok(())
    }

    fn on_sub_ack(&mut self, id: PacketId, codes: &[u8], turn: &mut Turn) -> Result<(), String> {
        let Some(Awaited::Subscribe { filter, qos }) = self.awaited.remove(&id) else {
            return Err("nobody asked".into());
        };
        let is_granted = match codes {
            [code] if *code == qos as u8 && !(self.is_deaf && filter == FORBIDDEN) => true,
            [0x80 | 0x87] if self.is_deaf && filter == FORBIDDEN => false,
            [0x80 | 0x97] if self.may_be_refused => false,
            other => return Err(format!("{other:?} for QoS {qos:?}")),
        };
        turn.events.push(Event::Subscribed { client: self.number, filter, is_granted });
        Ok(())
    }

    fn on_publish(&mut self, publish: &Publish<'_>, messages: usize, turn: &mut Turn) -> Result<(), String> {
        let Phase::Online { wire } = self.phase else { return Err("out of place".into()) };
        let topic = match publish.properties.topic_alias {
            Some(alias) if alias.get() > self.alias_maximum => return Err(format!("alias {alias}")),
            Some(alias) if publish.topic.is_empty() => {
                self.aliases_in.get(&alias).cloned().ok_or(format!("alias {alias} has no topic"))?
            }
            Some(alias) => {
                self.aliases_in.insert(alias, publish.topic.into());
                publish.topic.into()
            }
            None => publish.topic.into(),
        };
        let is_repetition = match publish.delivery {
            Delivery::AtMostOnce => false,
            Delivery::AtLeastOnce(id) => {
                self.due.push_back((PacketKind::PubAck, id));
                false
            }
            Delivery::ExactlyOnce(id) => {
                self.due.push_back((PacketKind::PubRec, id));
                self.received.insert(id);
                !self.owned.insert(id)
            }
        };
        let message = name_of(publish.payload).filter(|message| *message < messages);
        turn.events.push(Event::Delivered(Delivered {
            client: self.number,
            wire,
            message,
            topic,
            payload: publish.payload.to_vec(),
            qos: publish.delivery.qos(),
            id: publish.delivery.packet_id().map(PacketId::get),
            dup: publish.dup,
            retain: publish.retain,
            subscription_ids: publish.properties.subscription_ids.iter().map(|id| id.get()).collect(),
            expiry_secs: publish.properties.message_expiry_secs,
            is_repetition,
        }));
        Ok(())
    }
}

/// The payload of a message: its number, and what makes it long.
pub(crate) fn payload_of(message: usize, bytes: usize) -> Vec<u8> {
    let mut payload = format!("{message}|").into_bytes();
    let pattern = (message % 251) as u8;
    payload.resize(payload.len().max(bytes), pattern);
    payload
}

/// The message that a payload names.
fn name_of(payload: &[u8]) -> Option<usize> {
    let end = payload.iter().position(|byte| *byte == b'|')?;
    std::str::from_utf8(&payload[..end]).ok()?.parse().ok()
}
