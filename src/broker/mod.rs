//! The broker without its shell: shards that own sessions, stepped from outside.
//!
//! A [`Shard`] never waits, reads no clock and does no I/O. Its owner calls a method for whatever happens
//! (a packet, a closed socket, a commit, a timer that is due) and then sees to the [`Outputs`], to the
//! outboxes of the links that they name, and to [`Shard::take_batch`]. Several shards make one broker
//! through [`Shared`] and through the [`Forward`]s that they send each other.

mod access;
mod acknowledge;
mod connect;
mod counters;
mod deliver;
mod drops;
mod io;
mod journal;
mod overflow;
mod pace;
mod publish;
mod replay;
mod restore;
mod retaining;
mod router;
mod shared;
mod strain;
mod subscribe;
mod survey;
pub mod sys;
mod timers;
mod trace;

use std::{collections::BTreeMap, sync::Arc};

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use slab::Slab;

pub use connect::{Refusal, admit};
pub use counters::{Counter, Counters, DropReason};
pub use drops::{Dropped, Drops, EVENT_TOPIC};
pub use io::{Admission, Cause, Event, Forward, Misbehaviour, Outputs};
pub use journal::{Batch, Entry, Op, Sequence, Target as JournalTarget, Targets, Unspill, Urgency};
pub use router::{Group, Own, Route, Router, Target};
pub use shared::{RetainedStore, Retaining, Shared};
pub use strain::{Strain, StrainGauge};
pub use survey::Published;
pub use trace::{Sample, Step, StepKind, Tracing, Wanted};

use crate::{
    acl::Principal,
    codec::{Auth, DecodeError, Packet, PacketKind, ReasonCode},
    limits::{Durability, Limits},
    message::Message,
    session::{Fetched, Fit, Link, LinkId, Outbox, Session, SessionState, Totals},
    time::Timestamp,
};

use acknowledge::AckDue;
use journal::Journal;
use overflow::Withholding;
use pace::is_held;
use publish::Deferred;
use retaining::SWEEP_INTERVAL;
use router::RouteCache;
use timers::{Timer, Timers};

/// Owner of the sessions whose client identifier hashes to it, and of their connections.
pub struct Shard {
    index: u16,
    shared: Arc<Shared>,
    /// Limits as they are now.
    limits: Arc<Limits>,
    sessions: Slab<Session>,
    by_client: HashMap<Arc<str>, u32, FixedState>,
    links: Slab<Link>,
    /// Links so far: the generation of the next one.
    generation: u32,
    routes: RouteCache,
    journal: Journal<Gate>,
    timers: Timers,
    /// The commit after which the last QoS 2 message of any client is delivered.
    deferred_until: u64,
    /// Acknowledgements that wait for room in a queue, by their link. Beside the links, for there are few.
    withheld: BTreeMap<LinkId, Withholding>,
    drops: Drops,
    /// Links that are closed at the end of this turn: their queue overflowed, or they cannot be answered.
    doomed: Vec<(LinkId, Cause)>,
    /// What its sessions have in memory.
    totals: Totals,
    /// When another message is followed to know how long it takes.
    sample_at: Timestamp,
    /// Memory that is used again from message to message.
    numbers: Vec<u64>,
}

/// What waits for a commit.
#[derive(Debug)]
enum Gate {
    /// An acknowledgement.
    Ack(LinkId, AckDue),
    /// A QoS 2 message.
    Deliver(Box<Deferred>),
    /// What a link's outbox holds back.
    Release(LinkId),
    /// Somebody who waits with this ticket.
    Tell(u64),
}

impl Shard {
    /// The shard with this index of a broker.
    pub fn new(index: u16, shared: Arc<Shared>, now: Timestamp) -> Shard {
        let mut timers = Timers::default();
        if index == 0 {
            timers.set(now.plus(SWEEP_INTERVAL), Timer::Sweep);
        }
        Shard {
            index,
            sessions: Slab::new(),
            by_client: HashMap::with_hasher(FixedState::with_seed(shared.seed)),
            links: Slab::new(),
            generation: 0,
            routes: RouteCache::new(shared.seed),
            journal: Journal::new(),
            timers,
            deferred_until: 0,
            withheld: BTreeMap::new(),
            drops: Drops::new(shared.seed),
            doomed: Vec::new(),
            totals: Totals::default(),
            sample_at: now,
            numbers: Vec::new(),
            limits: Arc::new(shared.limits.clone()),
            shared,
        }
    }

    /// From now on these limits hold. What is beyond them already stays.
    pub fn set_limits(&mut self, limits: Arc<Limits>) {
        self.limits = limits;
    }

    /// What the shards share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The counters of this shard.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters[usize::from(self.index)]
    }

    /// A packet from a client. Late ones, of a connection that the broker has given up, are ignored.
    pub fn packet(&mut self, now: Timestamp, id: LinkId, packet: &Packet<'_>, out: &mut Outputs) {
        let Some(slot) = self.session_of(id) else { return };
        self.links[id.slot as usize].last_seen = now;
        self.counters().packets_received.add(1);
        let result = match packet {
            Packet::Publish(publish) => self.on_publish(now, id, slot, publish, out),
            Packet::PubAck(ack) => self.on_pub_ack(now, slot, ack, out),
            Packet::PubRec(ack) => self.on_pub_rec(now, id, slot, ack, out),
            Packet::PubRel(ack) => self.on_pub_rel(id, slot, ack, out),
            Packet::PubComp(ack) => self.on_pub_comp(now, slot, ack, out),
            Packet::Subscribe(subscribe) => self.on_subscribe(now, id, slot, subscribe, out),
            Packet::Unsubscribe(unsubscribe) => self.on_unsubscribe(now, id, slot, unsubscribe, out),
            Packet::PingReq => {
                // Who pings has had nothing else to say.
                self.sessions[slot as usize].outbound.shrink();
                self.write(id, &Packet::PingResp, out);
                Ok(())
            }
            Packet::Disconnect(disconnect) => self.on_disconnect(id, slot, disconnect),
            Packet::Connect(_) => Err(second_connect()),
            Packet::Auth(_) => {
                Err(misbehaved(ReasonCode::ProtocolError, "AUTH without an authentication method in CONNECT"))
            }
            Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => {
                Err(from_server_only())
            }
        };
        if let Err(cause) = result {
            self.close(now, id, cause, out);
        }
        self.end_turn(now, out);
    }

    /// Bytes from a client that are not a packet. `[MQTT-4.13.1-1]`
    pub fn malformed(&mut self, now: Timestamp, id: LinkId, error: DecodeError, out: &mut Outputs) {
        let cause = match error.packet {
            // [MQTT-3.1.0-2] Whatever is in it: DISCONNECT has no code for an unsupported version.
            Some(PacketKind::Connect) => second_connect(),
            // Whatever is in it, it must not come from a client.
            Some(PacketKind::ConnAck | PacketKind::SubAck | PacketKind::UnsubAck | PacketKind::PingResp) => {
                from_server_only()
            }
            _ => Cause::Malformed(error),
        };
        self.close(now, id, cause, out);
        self.end_turn(now, out);
    }

    /// The broker gives a connection up; the socket closes once its outbox is written.
    pub fn disconnect(&mut self, now: Timestamp, id: LinkId, cause: Cause, out: &mut Outputs) {
        self.close(now, id, cause, out);
        self.end_turn(now, out);
    }

    /// The socket is closed, by whomever. The link is no more.
    pub fn closed(&mut self, now: Timestamp, id: LinkId, cause: Cause, out: &mut Outputs) {
        if self.link(id).is_none() {
            return;
        }
        self.close(now, id, cause, out);
        self.links.remove(id.slot as usize);
        self.end_turn(now, out);
    }

    /// The socket took bytes from the outbox: there may be room for what waits in the session.
    pub fn drained(&mut self, now: Timestamp, id: LinkId, out: &mut Outputs) {
        if let Some(link) = self.link_mut(id) {
            link.last_drained = now;
        }
        if let Some(slot) = self.session_of(id) {
            self.pump(now, slot, out);
            self.end_turn(now, out);
        }
    }

    /// A packet of re-authentication for the client. `[MQTT-4.12.1-2]`
    pub fn authenticate(&mut self, now: Timestamp, id: LinkId, auth: &Auth<'_>, out: &mut Outputs) {
        if self.session_of(id).is_some() {
            self.write(id, &Packet::Auth(auth.clone()), out);
            self.end_turn(now, out);
        }
    }

    /// A client has authenticated anew: what it may do is decided for who it is now.
    pub fn set_principal(&mut self, now: Timestamp, id: LinkId, principal: Principal, out: &mut Outputs) {
        let Some(slot) = self.session_of(id) else { return };
        if let Some(link) = self.link_mut(id) {
            link.settings.principal = principal;
            self.bind_principal(id, slot);
            self.review_subscriptions(now, id, slot, out);
        }
    }

    /// A message from another shard.
    pub fn forwarded(&mut self, now: Timestamp, forward: &Forward, out: &mut Outputs) {
        let Forward { message, targets, numbers, record } = forward;
        self.deliver_all(now, message, targets, numbers, *record, out);
        self.end_turn(now, out);
    }

    /// The store has committed all batches up to this one.
    pub fn committed(&mut self, now: Timestamp, commit: u64, out: &mut Outputs) {
        self.journal.commit(commit);
        while let Some(gate) = self.journal.pass() {
            match gate {
                Gate::Ack(link, due) => self.write_ack_due(link, &due, out),
                Gate::Deliver(deferred) => self.deliver_deferred(now, *deferred, out),
                Gate::Tell(ticket) => out.kept.push(ticket),
                Gate::Release(id) => {
                    let committed = self.journal.committed();
                    if let Some(link) = self.link_mut(id) {
                        link.gated -= 1;
                        if link.outbox.release(committed) {
                            out.touch(id);
                        }
                    }
                }
            }
        }
        self.end_turn(now, out);
    }

    /// The store has read messages that a session wanted.
    pub fn fetched(&mut self, now: Timestamp, fetched: Fetched, out: &mut Outputs) {
        self.on_fetched(now, fetched, out);
        self.end_turn(now, out);
    }

    /// Sees to what is due.
    pub fn timeout(&mut self, now: Timestamp, out: &mut Outputs) {
        while let Some(timer) = self.timers.pop(now) {
            match timer {
                Timer::KeepAlive(id) => self.on_keep_alive_timer(now, id, out),
                Timer::Session(slot) => self.on_session_timer(now, slot, out),
                Timer::Replay(slot) => {
                    if self.sessions.contains(slot as usize) {
                        self.pump(now, slot, out);
                    }
                }
                Timer::Lend(slot) => self.on_lend_timer(now, slot, out),
                Timer::Withheld(id) => self.on_withheld_timer(now, id, out),
                Timer::Proof(id) => self.on_proof_timer(now, id, out),
                Timer::Pace(id) => self.on_pace_timer(now, id, out),
                Timer::Drops => self.tell_drops(now, out),
                Timer::Sweep => self.sweep_retained(now),
            }
        }
        self.end_turn(now, out);
    }

    /// When [`Shard::timeout`] is to be called next.
    pub fn next_timeout(&self) -> Option<Timestamp> {
        self.timers.next()
    }

    /// Publishes a message of the broker itself. It is neither refused nor kept by the store.
    pub fn publish(&mut self, now: Timestamp, message: Message, out: &mut Outputs) {
        self.publish_own(now, message, out);
        self.end_turn(now, out);
    }

    /// Gives up all connections: the broker stops.
    pub fn stop(&mut self, now: Timestamp, out: &mut Outputs) {
        let ids: Vec<LinkId> = self.links.iter().map(|(_, link)| link.id).collect();
        for id in ids {
            self.close(now, id, Cause::Stopping, out);
        }
        self.end_turn(now, out);
    }

    /// Takes the changes since the last call, for the store. Call it before the outputs are seen to, so
    /// that no other shard hears of a change before the store does.
    pub fn take_batch(&mut self) -> Option<Batch> {
        self.journal.take()
    }

    /// The outbox of a link, while the link is there.
    pub fn outbox(&mut self, id: LinkId) -> Option<&mut Outbox> {
        self.link_mut(id).map(|link| &mut link.outbox)
    }

    /// A link, while it is there.
    pub fn link(&self, id: LinkId) -> Option<&Link> {
        self.links.get(id.slot as usize).filter(|link| link.id == id)
    }

    /// A session by its client identifier.
    pub fn session(&self, client_id: &str) -> Option<&Session> {
        self.by_client.get(client_id).map(|slot| &self.sessions[*slot as usize])
    }

    /// All sessions of this shard.
    pub fn sessions(&self) -> impl Iterator<Item = &Session> {
        self.sessions.iter().map(|(_, session)| session)
    }

    /// Links that are there, those that only drain included.
    pub fn links(&self) -> usize {
        self.links.len()
    }

    /// Links whose Keep Alive timer runs.
    pub fn keep_alive_timers(&self) -> usize {
        self.links.iter().filter(|(_, link)| link.timer.is_some()).count()
    }

    /// Links with acknowledgements that wait for room in a queue: each has a timer.
    pub fn withholding_links(&self) -> usize {
        self.withheld.len()
    }

    /// Timers that run: of links, of sessions and the broker's own.
    pub fn timers(&self) -> usize {
        self.timers.len()
    }

    /// True while a link has a session: a packet of it will be heard.
    pub fn is_open(&self, id: LinkId) -> bool {
        self.session_of(id).is_some()
    }

    /// Whether to read from a link: not while more acknowledgements wait for the store, or more answers
    /// for the socket, than may.
    pub fn may_read(&self, id: LinkId) -> bool {
        let limits = &self.limits;
        self.link(id).is_none_or(|link| {
            let answers_max = limits.outbox_bytes_max;
            let is_stuffed = link.outbox.answers() >= answers_max && link.outbox.len() >= answers_max;
            link.gated <= u32::from(limits.receive_maximum)
                && !is_stuffed
                && !self.is_held_off(id)
                && !is_held(link)
        })
    }

    /// Puts a change into the journal that something waits for; returns the commit to wait for.
    fn journal_gating(&mut self, op: Op) -> u64 {
        self.journal.gating(self.shared.sequence.next(), op)
    }

    /// Puts a change into the journal that a connection asks for; returns the commit that its answer waits
    /// for, if its listener promises one.
    fn journal_for(&mut self, id: LinkId, op: Op) -> Option<u64> {
        let durability = self.durability_of(id);
        self.journal.promise(self.shared.sequence.next(), op, durability)
    }

    /// What the answers on a link promise. A link that is gone gets none, and its session keeps the most.
    fn durability_of(&self, id: LinkId) -> Durability {
        self.link(id).map_or(Durability::Commit, |link| link.settings.durability)
    }

    fn link_mut(&mut self, id: LinkId) -> Option<&mut Link> {
        self.links.get_mut(id.slot as usize).filter(|link| link.id == id)
    }

    /// The slot of the session of a link that is open.
    fn session_of(&self, id: LinkId) -> Option<u32> {
        self.link(id).and_then(|link| link.session)
    }

    fn link_of(&mut self, slot: u32) -> Option<&mut Link> {
        match self.sessions[slot as usize].state {
            SessionState::Connected(id) => self.link_mut(id),
            SessionState::Detached(_) => None,
        }
    }

    /// Writes a packet other than PUBLISH to a link. A client that does not take the answer that it is owed
    /// cannot be served.
    fn write(&mut self, id: LinkId, packet: &Packet<'_>, out: &mut Outputs) {
        let Some(link) = self.link_mut(id) else { return };
        match link.write(packet) {
            Fit::Written => out.touch(id),
            Fit::TooLarge => {
                let what = format!("a Maximum Packet Size below that of its {}", packet.kind());
                self.doomed.push((id, misbehaved(ReasonCode::PacketTooLarge, what)));
            }
        }
    }

    /// Closes what cannot go on. A session that ends with its connection loses nothing but what the standard
    /// lets it lose, and its publishers are not held up by it.
    fn end_turn(&mut self, now: Timestamp, out: &mut Outputs) {
        while let Some((id, cause)) = self.doomed.pop() {
            self.close(now, id, cause, out);
        }
        self.time_drops(now);
    }
}

impl Outputs {
    fn touch(&mut self, id: LinkId) {
        if self.touched.last() != Some(&id) {
            self.touched.push(id);
        }
    }
}

/// [MQTT-3.1.0-2]
fn second_connect() -> Cause {
    misbehaved(ReasonCode::ProtocolError, "a second CONNECT")
}

fn from_server_only() -> Cause {
    misbehaved(ReasonCode::ProtocolError, "a packet that only a server sends")
}

/// A cause that is the client's fault.
fn misbehaved(code: ReasonCode, what: impl Into<String>) -> Cause {
    Cause::Misbehaved(Misbehaviour { code, what: what.into() })
}
