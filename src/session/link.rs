//! One connection of a session, as the core sees it.

use std::{collections::VecDeque, num::NonZeroU16, sync::Arc};

use crate::{
    acl::Principal,
    codec::{self, AckProperties, Delivery, Packet, PublishHead, Version},
    limits::Durability,
    time::Timestamp,
};

use super::{Attempt, Bounds, Outbox, Outgoing};

/// Names one connection. A slot is used again, a generation never: what comes late for an old
/// connection is recognised and ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId {
    /// Slot in the shard's table.
    pub slot: u32,
    /// Counts the connections of the shard.
    pub generation: u32,
}

/// What a client said of itself in CONNECT, and what was found out of it before.
#[derive(Clone, Debug)]
pub struct LinkSettings {
    /// The protocol version.
    pub version: Version,
    /// Who the client is taken to be.
    pub principal: Principal,
    /// Where it connects from, for logs.
    pub peer: Arc<str>,
    /// Unacknowledged QoS 1/2 PUBLISH that it takes.
    pub receive_maximum: u16,
    /// The largest packet in bytes that it takes.
    pub packet_bytes_max: u32,
    /// The highest topic alias that it takes and we use.
    pub alias_out_maximum: u16,
    /// The highest topic alias that it may use.
    pub alias_in_maximum: u16,
    /// Whether it wants reason strings and user properties. `[MQTT-3.1.2-29]`
    pub problem_information: bool,
    /// Keep Alive in seconds as agreed; 0 is off.
    pub keep_alive_secs: u16,
    /// What acknowledgements promise: that of its listener, as far as the store can keep it.
    pub durability: Durability,
}

/// One connection: what is queued for its socket, and what lasts as long as it does.
#[derive(Debug)]
pub struct Link {
    /// Its name.
    pub id: LinkId,
    /// The slot of its session; `None` once the two have parted and only the outbox has to drain.
    pub session: Option<u32>,
    /// What was agreed when it began.
    pub settings: LinkSettings,
    /// Bytes for the socket.
    pub outbox: Outbox,
    /// When its last packet came.
    pub last_seen: Timestamp,
    /// QoS 1 PUBLISH accepted and not yet acknowledged, for they wait for the store.
    pub unacknowledged: u32,
    /// Everything of this connection that waits for the store.
    pub gated: u32,
    /// When its socket last took bytes.
    pub last_drained: Timestamp,
    /// The newest commit that an acknowledgement of this connection waits for: later ones queue behind it.
    pub ack_gate: u64,
    /// Since when it is there.
    pub connected_at: Timestamp,
    /// PUBLISH from the client so far.
    pub received: u64,
    /// PUBLISH to the client so far.
    pub sent: u64,
    /// The Keep Alive timer, if it runs.
    pub timer: Option<Timestamp>,
    /// Topic aliases of both sides, once there are any.
    aliases: Option<Box<Aliases>>,
    /// What holds it back, once anything does.
    bounds: Option<Box<Bounds>>,
}

/// Why a topic alias of the client is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AliasError {
    /// Above the maximum that we gave.
    TooHigh,
    /// Used before it was set.
    Unset,
}

/// Whether a packet fitted the client's Maximum Packet Size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// It was written.
    Written,
    /// It was not: the client does not take packets of this size. `[MQTT-3.1.2-24]`
    TooLarge,
}

impl Link {
    /// A connection that has just been accepted.
    pub fn new(id: LinkId, session: u32, settings: LinkSettings, now: Timestamp) -> Link {
        Link {
            id,
            session: Some(session),
            settings,
            outbox: Outbox::default(),
            last_seen: now,
            unacknowledged: 0,
            gated: 0,
            last_drained: now,
            connected_at: now,
            received: 0,
            sent: 0,
            ack_gate: 0,
            timer: None,
            aliases: None,
            bounds: None,
        }
    }

    /// What holds it back, if anything does.
    pub fn bounds(&self) -> Option<&Bounds> {
        self.bounds.as_deref()
    }

    /// The same, to be changed.
    pub fn bounds_if_any(&mut self) -> Option<&mut Bounds> {
        self.bounds.as_deref_mut()
    }

    /// The same, begun if there is nothing yet.
    pub fn bounds_mut(&mut self) -> &mut Bounds {
        self.bounds.get_or_insert_default()
    }

    /// Sets an alias of the client to a topic. `[MQTT-3.3.2-12]`
    pub fn set_alias(&mut self, alias: NonZeroU16, topic: Arc<str>) -> Result<(), AliasError> {
        if alias.get() > self.settings.alias_in_maximum {
            return Err(AliasError::TooHigh);
        }
        let slot = usize::from(alias.get()) - 1;
        let incoming = &mut self.aliases.get_or_insert_default().incoming;
        if incoming.len() <= slot {
            incoming.resize(slot + 1, None);
        }
        incoming[slot] = Some(topic);
        Ok(())
    }

    /// The topic of an alias of the client.
    pub fn alias(&self, alias: NonZeroU16) -> Result<Arc<str>, AliasError> {
        if alias.get() > self.settings.alias_in_maximum {
            return Err(AliasError::TooHigh);
        }
        let incoming = self.aliases.as_ref().map_or(&[][..], |aliases| &aliases.incoming);
        incoming.get(usize::from(alias.get()) - 1).cloned().flatten().ok_or(AliasError::Unset)
    }

    /// Writes any packet but PUBLISH, trimmed to what the client takes and wants.
    pub fn write(&mut self, packet: &Packet<'_>) -> Fit {
        let trimmed =
            if self.settings.problem_information { None } else { without_problem_information(packet) };
        let packet = trimmed.as_ref().unwrap_or(packet);
        let Link { outbox, settings, .. } = self;
        let is_written = outbox
            .write(|bytes| codec::encode_within(packet, settings.version, settings.packet_bytes_max, bytes));
        if is_written { Fit::Written } else { Fit::TooLarge }
    }

    /// Writes a PUBLISH.
    pub fn write_publish(
        &mut self,
        outgoing: &Outgoing,
        delivery: Delivery,
        attempt: Attempt,
        now: Timestamp,
    ) -> Fit {
        let Link { outbox, settings, aliases, sent, .. } = self;
        let message = &outgoing.message;
        let mut head = PublishHead {
            dup: attempt != Attempt::First,
            retain: outgoing.retain,
            delivery,
            topic: message.topic(),
            forwarded: message.properties(),
            message_expiry_secs: message.expiry_secs_left(now),
            topic_alias: None,
            subscription_ids: outgoing.subscription_ids.as_deref().unwrap_or_default(),
            payload_len: message.payload().len(),
        };
        if settings.version.is_v5() && settings.alias_out_maximum > 0 {
            let aliases = aliases.get_or_insert_default();
            let (alias, is_known) = aliases.assign(message.topic(), settings.alias_out_maximum);
            head.topic_alias = Some(alias);
            if is_known {
                head.topic = "";
            }
        }
        let is_too_large =
            |head: &PublishHead<'_>| head.frame_len(settings.version) > settings.packet_bytes_max as usize;
        // To announce an alias takes three bytes, for want of which no message is dropped. An alias that
        // was not announced must not be used: forget it.
        if let Some(aliases) = aliases
            && let Some(alias) = head.topic_alias.filter(|_| !head.topic.is_empty() && is_too_large(&head))
        {
            aliases.forget(alias);
            head.topic_alias = None;
        }
        if is_too_large(&head) {
            return Fit::TooLarge;
        }
        outbox.write_publish(&head, settings.version, message);
        *sent += 1;
        Fit::Written
    }
}

/// The packet without reason string and user properties, if it may have them only for a client that asked
/// for problem information.
fn without_problem_information<'a>(packet: &Packet<'a>) -> Option<Packet<'a>> {
    let mut packet = packet.clone();
    match &mut packet {
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            ack.properties = AckProperties::default();
        }
        Packet::SubAck(ack) => ack.properties = AckProperties::default(),
        Packet::UnsubAck(ack) => ack.properties = AckProperties::default(),
        Packet::Auth(auth) => {
            auth.properties.reason_string = None;
            auth.properties.user_properties = Default::default();
        }
        Packet::Connect(_)
        | Packet::ConnAck(_)
        | Packet::Publish(_)
        | Packet::Subscribe(_)
        | Packet::Unsubscribe(_)
        | Packet::PingReq
        | Packet::PingResp
        | Packet::Disconnect(_) => return None,
    }
    Some(packet)
}

/// Topic aliases of one connection.
#[derive(Debug, Default)]
struct Aliases {
    /// Topics of the client, by their aliases.
    incoming: Vec<Option<Arc<str>>>,
    /// Alias and topic that we use, the most recently used last. Short, so that a scan beats a map.
    outgoing: VecDeque<(NonZeroU16, Arc<str>)>,
}

impl Aliases {
    /// Our alias for a topic, and whether the client knows it already. The least recently used one of `maximum` is
    /// given to a new topic. `[MQTT-3.1.2-26]`
    fn assign(&mut self, topic: &Arc<str>, maximum: u16) -> (NonZeroU16, bool) {
        let known = self.outgoing.iter().position(|(_, known)| Arc::ptr_eq(known, topic) || known == topic);
        let found = known.and_then(|at| self.outgoing.remove(at));
        if let Some((alias, known)) = found {
            self.outgoing.push_back((alias, known));
            return (alias, true);
        }
        let unused = NonZeroU16::MIN.saturating_add(self.outgoing.len() as u16);
        let alias = if unused.get() <= maximum {
            unused
        } else {
            self.outgoing.pop_front().map_or(NonZeroU16::MIN, |(alias, _)| alias)
        };
        self.outgoing.push_back((alias, topic.clone()));
        (alias, false)
    }

    /// Takes back the alias that was just assigned. Its number stays in use, for a topic that none has.
    fn forget(&mut self, alias: NonZeroU16) {
        if let Some((last, topic)) = self.outgoing.back_mut()
            && *last == alias
        {
            *topic = "".into();
        }
    }
}
