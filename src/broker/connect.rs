//! How connections begin and end, and what that does to sessions and wills.

use std::{
    num::{NonZeroU16, NonZeroU32},
    sync::{Arc, atomic::Ordering},
};

use crate::{
    acl::{Action, Decision, Principal},
    codec::{
        self, Ack, AckProperties, ConnAck, ConnAckProperties, ConnAckReturn, Connect, Disconnect,
        DisconnectProperties, PACKET_BYTES_LIMIT, Packet, PayloadFormat, ReasonCode, UserProperties, Version,
        Will,
    },
    limits::{Durability, Limits},
    message::Message,
    mutation::{self, Mutation},
    session::{
        Body, Fit, Left, Link, LinkId, LinkSettings, Presence, Session, SessionHandle, SessionState,
        SpilledRun, StoredPresence, StoredWill, TakeSent,
    },
    time::Timestamp,
    topic,
};

use super::{
    Admission, Cause, DropReason, Event, Gate, Op, Outputs, Shard, Shared, Timer, Unspill, misbehaved,
    overflow::STORE_FULL,
};

/// A CONNECT that is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reason code for CONNACK.
    pub code: ReasonCode,
    /// Why, in words.
    pub why: String,
}

impl Refusal {
    /// A refusal.
    pub fn new(code: ReasonCode, why: impl Into<String>) -> Refusal {
        Refusal { code, why: why.into() }
    }

    /// The CONNACK for it. `None` where the version has no code that fits: the connection is closed
    /// without one. `[MQTT-3.1.1/3.2.2-6]`
    pub fn conn_ack(&self, version: Version) -> Option<Packet<'_>> {
        let (code, properties) = if version.is_v5() {
            let reason_string = Some(self.why.as_str());
            (
                ConnAckReturn::V5(self.code),
                ConnAckProperties { reason_string, ..ConnAckProperties::default() },
            )
        } else {
            let code = match self.code {
                ReasonCode::UnsupportedProtocolVersion => 1,
                ReasonCode::ClientIdentifierNotValid => 2,
                ReasonCode::ServerUnavailable
                | ReasonCode::ServerBusy
                | ReasonCode::QuotaExceeded
                | ReasonCode::ConnectionRateExceeded => 3,
                ReasonCode::BadUserNameOrPassword => 4,
                ReasonCode::NotAuthorized | ReasonCode::Banned => 5,
                _ => return None,
            };
            (ConnAckReturn::V3(code), ConnAckProperties::default())
        };
        // [MQTT-3.2.2-6]
        Some(Packet::ConnAck(Box::new(ConnAck { session_present: false, code, properties })))
    }
}

/// Checks a CONNECT against limits and rules that need no session. It is asked before the connection is
/// authenticated, so that who has no chance costs no password check.
pub fn admit(connect: &Connect<'_>, shared: &Shared, limits: &Limits) -> Result<(), Refusal> {
    if connect.client_id.is_empty() && !may_be_assigned(connect) {
        // [MQTT-3.1.1/3.1.3-8]
        let why = "an empty client identifier needs a clean session";
        return Err(Refusal::new(ReasonCode::ClientIdentifierNotValid, why));
    }
    if connect.client_id.len() > limits.client_id_bytes_max {
        let why = format!("the client identifier is longer than {} bytes", limits.client_id_bytes_max);
        return Err(Refusal::new(ReasonCode::ClientIdentifierNotValid, why));
    }
    if let Some(will) = &connect.will {
        if let Err(error) = topic::check_name(will.topic, &limits.topics()) {
            return Err(Refusal::new(ReasonCode::TopicNameInvalid, format!("will topic: {error}")));
        }
        let is_text = will.properties.payload_format == Some(PayloadFormat::Utf8);
        if is_text && shared.check_payload_format && std::str::from_utf8(will.payload).is_err() {
            return Err(Refusal::new(ReasonCode::PayloadFormatInvalid, "the will is not UTF-8 text"));
        }
    }
    Ok(())
}

/// Whether the broker may choose an identifier for a client that sent none.
fn may_be_assigned(connect: &Connect<'_>) -> bool {
    match connect.version {
        Version::V31 => false,
        Version::V311 => connect.clean_start,
        Version::V5 => true,
    }
}

/// Batches that wait for a full disk, above which no session that lasts gets a connection: each connection adds
/// to what waits.
const STUCK_BATCHES_MAX: u64 = 1024;

/// Why a user does not get a session.
const OF_ANOTHER_USER: &str = "the session of this client identifier belongs to another user";

/// What a connection asks of its session.
struct Terms {
    expiry_secs: u32,
    keep_alive_secs: u16,
    durability: Durability,
}

impl Terms {
    fn new(admission: &Admission<'_>, shared: &Shared, limits: &Limits) -> Terms {
        let connect = admission.connect;
        let asked = match connect.version {
            Version::V5 => connect.properties.session_expiry_secs.unwrap_or(0),
            // [MQTT-3.1.1/3.1.2-6]
            Version::V31 | Version::V311 if connect.clean_start => 0,
            Version::V31 | Version::V311 => u32::MAX,
        };
        // Who cannot be told of another Keep Alive keeps its own. [MQTT-3.2.2-22]
        let is_free = admission.is_local || !connect.version.is_v5();
        let keep_alive_secs = match (connect.keep_alive_secs, limits.keep_alive_secs_max) {
            (asked, _) if is_free => asked,
            (0, u16::MAX) => 0,
            (0, max) => max,
            (asked, max) => asked.min(max),
        };
        let durability = if shared.is_lasting { admission.durability } else { Durability::None };
        Terms { expiry_secs: asked.min(limits.session_expiry_secs_max), keep_alive_secs, durability }
    }
}

impl Shard {
    /// A client connects: its CONNECT was checked by [`admit`] and authenticated. Takes over the
    /// connection that the client may have already, and answers with CONNACK.
    pub fn connect(
        &mut self,
        now: Timestamp,
        admission: &Admission<'_>,
        out: &mut Outputs,
    ) -> Result<LinkId, Refusal> {
        let connect = admission.connect;
        let client_id: Arc<str> = admission.assigned_client_id.unwrap_or(connect.client_id).into();
        let terms = Terms::new(admission, &self.shared, &self.limits);
        self.check_will(&client_id, &admission.principal, connect.will.as_ref())?;
        self.check_conn_ack(admission, &terms)?;
        let known = self.by_client.get(&client_id).copied();
        self.check_owner(known, &admission.principal)?;
        self.check_store(known.filter(|_| !connect.clean_start), &terms)?;
        if known.is_none() && self.shared.sum(|counters| counters.sessions.value()) >= self.sessions_max() {
            return Err(Refusal::new(ReasonCode::QuotaExceeded, "the broker has as many sessions as it may"));
        }
        if let Some(old) = known.and_then(|slot| self.sessions[slot as usize].link())
            && !mutation::is_on(Mutation::TakeoverForgotten)
        {
            // [MQTT-3.1.4-3] [MQTT-3.1.1/3.1.4-2]
            self.close(now, old, Cause::TakenOver { by: admission.peer.clone() }, out);
        }
        let (slot, session_present, mut gate) = self.session_for(now, &client_id, connect.clean_start, out);
        let id = self.attach(now, slot, admission, &terms, out);
        if terms.durability != Durability::Commit {
            gate = None;
        }
        if self.sessions[slot as usize].handle.is_durable() {
            let op = self.put_session(slot);
            gate = self.journal_for(id, op);
        }
        if let Some(commit) = gate {
            // [MQTT-3.2.0-1] nothing leaves before CONNACK, which waits for the store.
            self.journal.wait(commit, Gate::Release(id));
            let link = &mut self.links[id.slot as usize];
            link.gated += 1;
            link.outbox.hold(commit);
        }
        self.write_conn_ack(id, admission, session_present, &terms);
        if !admission.allowances.is_empty() {
            self.links[id.slot as usize].bounds_mut().allowances.clone_from(&admission.allowances);
        }
        self.bind_principal(id, slot);
        self.review_subscriptions(now, id, slot, out);
        out.events.push(Event::Connected {
            client_id,
            user: admission.principal.user.clone(),
            peer: admission.peer.clone(),
            session_present,
            keep_alive_secs: terms.keep_alive_secs,
            expiry_secs: terms.expiry_secs,
        });
        self.resume(now, id, slot, out);
        self.end_turn(now, out);
        Ok(id)
    }

    /// Whether the session is the user's. Who becomes another user on the same connection has proved to be both. To resume it would show what is for another user, to discard it would lose
    /// that, and to take its connection over would cut the other off.
    fn check_owner(&self, known: Option<u32>, principal: &Principal) -> Result<(), Refusal> {
        let owner = known.and_then(|slot| self.sessions[slot as usize].handle.owner());
        if self.shared.bind_sessions && owner.is_some() && owner != principal.user.as_ref() {
            return Err(Refusal::new(ReasonCode::NotAuthorized, OF_ANOTHER_USER));
        }
        Ok(())
    }

    /// Whether the store has room for what it would have to keep of a session that it does not know yet.
    fn check_store(&self, known: Option<u32>, terms: &Terms) -> Result<(), Refusal> {
        let is_stored = known.is_some_and(|slot| self.sessions[slot as usize].handle.is_durable());
        if terms.expiry_secs > 0 && !is_stored && self.shared.is_store_full() {
            self.counters().store_refusals.add(1);
            return Err(Refusal::new(ReasonCode::QuotaExceeded, STORE_FULL));
        }
        // Not even the reserve is left. It would wait for its CONNACK in vain, and come again and again.
        let is_durable = terms.expiry_secs > 0 || is_stored;
        if is_durable && self.shared.is_store_full() && self.journal.backlog() > STUCK_BATCHES_MAX {
            self.counters().store_refusals.add(1);
            return Err(Refusal::new(ReasonCode::ServerUnavailable, STORE_FULL));
        }
        Ok(())
    }

    /// Tells the client that it is connected, and what acknowledgements promise if it takes a packet of
    /// that size. `[MQTT-3.2.2-20]`
    fn write_conn_ack(
        &mut self,
        id: LinkId,
        admission: &Admission<'_>,
        session_present: bool,
        terms: &Terms,
    ) {
        let durability = terms.durability.to_string();
        let told = [("durability", durability.as_str())];
        let link = &mut self.links[id.slot as usize];
        for told in [&told[..], &[]] {
            let fit = with_conn_ack(admission, &self.limits, session_present, terms, told, |packet| {
                link.write(packet)
            });
            if fit == Fit::Written {
                return;
            }
        }
    }

    fn sessions_max(&self) -> u64 {
        self.limits.sessions_max as u64
    }

    fn check_will(
        &self,
        client_id: &str,
        principal: &Principal,
        will: Option<&Will<'_>>,
    ) -> Result<(), Refusal> {
        let Some(will) = will else { return Ok(()) };
        let action = Action::Publish { qos: will.qos, retain: will.retain };
        match self.shared.authorize.decide(principal, client_id, action, will.topic) {
            Decision::Allowed | Decision::AllowedUpTo(_) => Ok(()),
            Decision::Denied(_) => {
                Err(Refusal::new(ReasonCode::NotAuthorized, "not authorized to publish the will"))
            }
        }
    }

    /// Whether the client takes a packet of the size of its CONNACK. If not, it could be told nothing at all.
    fn check_conn_ack(&self, admission: &Admission<'_>, terms: &Terms) -> Result<(), Refusal> {
        let connect = admission.connect;
        let Some(packet_bytes_max) = connect.properties.packet_bytes_max else { return Ok(()) };
        let fits = with_conn_ack(admission, &self.limits, false, terms, &[], |packet| {
            codec::encode_within(packet, connect.version, packet_bytes_max.get(), &mut Vec::new())
        });
        if fits {
            return Ok(());
        }
        Err(Refusal::new(ReasonCode::PacketTooLarge, "Maximum Packet Size is below that of CONNACK"))
    }

    /// The session that a CONNECT goes on with: the stored one, or a new one. With it comes whether it was
    /// stored, and the commit that forgets the one before. `[MQTT-3.1.2-4]` to `[MQTT-3.1.2-6]`
    fn session_for(
        &mut self,
        now: Timestamp,
        client_id: &Arc<str>,
        clean_start: bool,
        out: &mut Outputs,
    ) -> (u32, bool, Option<u64>) {
        let mut gate = None;
        match self.by_client.get(client_id).copied() {
            Some(slot) if !clean_start => return (slot, true, None),
            Some(slot) => gate = self.end_session(now, slot, out),
            None => {}
        }
        let entry = self.sessions.vacant_entry();
        let slot = entry.key() as u32;
        let handle = Arc::new(SessionHandle::new(
            self.index,
            slot,
            self.shared.sequence.next().get(),
            client_id.clone(),
        ));
        // A message of the client's session before may still wait, and must not be overtaken.
        let session =
            entry.insert(Session { deferred_until: self.deferred_until, ..Session::new(handle, now) });
        session.outbound.count_in(&self.totals);
        self.by_client.insert(client_id.clone(), slot);
        self.counters().sessions.add(1);
        (slot, false, gate)
    }

    /// Joins a session with a new link.
    fn attach(
        &mut self,
        now: Timestamp,
        slot: u32,
        admission: &Admission<'_>,
        terms: &Terms,
        out: &mut Outputs,
    ) -> LinkId {
        let connect = admission.connect;
        let limits = &self.limits;
        let properties = &connect.properties;
        let settings = LinkSettings {
            version: connect.version,
            principal: admission.principal.clone(),
            peer: admission.peer.clone(),
            receive_maximum: match connect.version {
                Version::V31 | Version::V311 => limits.inflight_messages_max,
                Version::V5 => properties.receive_maximum.map_or(u16::MAX, NonZeroU16::get),
            },
            packet_bytes_max: properties.packet_bytes_max.map_or(PACKET_BYTES_LIMIT, NonZeroU32::get),
            alias_out_maximum: properties
                .topic_alias_maximum
                .unwrap_or(0)
                .min(limits.topic_alias_out_maximum),
            alias_in_maximum: limits.topic_alias_maximum,
            problem_information: properties.request_problem_information.unwrap_or(true),
            keep_alive_secs: terms.keep_alive_secs,
            durability: terms.durability,
        };
        self.generation = self.generation.wrapping_add(1);
        let entry = self.links.vacant_entry();
        let id = LinkId { slot: entry.key() as u32, generation: self.generation };
        entry.insert(Link::new(id, slot, settings, now));
        let session = &mut self.sessions[slot as usize];
        session.state = SessionState::Connected(id);
        session.expiry_secs = terms.expiry_secs;
        session.handle.set_durability(terms.durability);
        session.handle.set_owner(admission.principal.user.as_ref());
        // Never back to false: what the store knows of a session has to be ended there too.
        if terms.expiry_secs > 0 {
            session.handle.set_durable();
        }
        // [MQTT-3.1.3-9] the will of the connection before is not sent any more.
        session.will = connect.will.as_ref().map(|will| {
            Arc::new(StoredWill {
                message: Message::from_will(will, session.handle.client_id.clone()),
                delay_secs: will.properties.delay_secs.unwrap_or(0),
                message_expiry_secs: will.properties.message_expiry_secs,
            })
        });
        session.inbound.attach();
        session.told.set([0; 2]);
        self.schedule(slot);
        self.set_keep_alive(id, now);
        self.counters().connects.add(1);
        self.counters().connections.add(1);
        out.touch(id);
        id
    }

    /// Goes on where the last connection stopped. `[MQTT-4.4.0-1]`
    fn resume(&mut self, now: Timestamp, id: LinkId, slot: u32, out: &mut Outputs) {
        for packet_id in self.sessions[slot as usize].outbound.resume() {
            let ack = Ack { packet_id, reason: ReasonCode::Success, properties: AckProperties::default() };
            self.write(id, &Packet::PubRel(ack), out);
        }
        self.pump(now, slot, out);
    }

    /// DISCONNECT from the client.
    pub(super) fn on_disconnect(
        &mut self,
        id: LinkId,
        slot: u32,
        disconnect: &Disconnect<'_>,
    ) -> Result<(), Cause> {
        let version = self.links[id.slot as usize].settings.version;
        let expiry_max = self.limits.session_expiry_secs_max;
        let session = &mut self.sessions[slot as usize];
        if let Some(expiry_secs) = disconnect.properties.session_expiry_secs {
            if session.expiry_secs == 0 && expiry_secs > 0 {
                let what = "a Session Expiry Interval in DISCONNECT after none in CONNECT";
                return Err(misbehaved(ReasonCode::ProtocolError, what));
            }
            session.expiry_secs = expiry_secs.min(expiry_max);
        }
        // [MQTT-3.14.4-3] [MQTT-3.1.1/3.14.4-3]
        let is_revoked = !version.is_v5() || disconnect.reason == ReasonCode::Success;
        if is_revoked && !mutation::is_on(Mutation::WillNotRevoked) {
            session.will = None;
        }
        Err(Cause::Disconnect(disconnect.reason))
    }

    /// Parts a link from its session, tells a v5 client why, and lets the socket close once that is sent.
    pub(super) fn close(&mut self, now: Timestamp, id: LinkId, cause: Cause, out: &mut Outputs) {
        let Some(link) = self.link_mut(id) else { return };
        let Some(slot) = link.session.take() else { return };
        if let Some(code) = cause.disconnect_code()
            && link.settings.version.is_v5()
        {
            // [MQTT-3.14.2-2] no Session Expiry Interval from a server.
            let reason_string = cause.told();
            let properties = DisconnectProperties {
                reason_string: Some(&reason_string),
                ..DisconnectProperties::default()
            };
            let _: Fit = link.write(&Packet::Disconnect(Disconnect { reason: code, properties }));
        }
        link.outbox.finish();
        let timer = link.timer.take();
        let peer = link.settings.peer.clone();
        self.forget_bounds(id);
        if let Some(at) = timer.filter(|_| !mutation::is_on(Mutation::TimerLeft)) {
            self.timers.unset(at, Timer::KeepAlive(id));
        }
        self.forget_withheld(id);
        out.touch(id);
        self.counters().connections.sub(1);
        if cause.is_misbehaviour() {
            self.counters().misbehaved.add(1);
        }
        let client_id = self.sessions[slot as usize].client_id().clone();
        out.events.push(Event::Disconnected { client_id, peer, cause });
        self.detach(now, slot, out);
    }

    /// A session is without connection from now on.
    fn detach(&mut self, now: Timestamp, slot: u32, out: &mut Outputs) {
        let session = &mut self.sessions[slot as usize];
        session.state = SessionState::Detached(now);
        session.handle.set_presence(Presence::Offline);
        let mut lost = std::mem::take(&mut session.transient);
        let is_over = session.expiry_secs == 0;
        while let Some(outgoing) = lost.pop() {
            self.count_drop(slot, outgoing.message.topic(), outgoing.share.as_deref(), DropReason::Offline);
        }
        if is_over {
            self.end_session(now, slot, out);
            return;
        }
        if self.sessions[slot as usize].handle.is_durable() {
            self.journal_session_soon(slot);
        }
        self.lend_shared(now, slot, out);
        let session = &mut self.sessions[slot as usize];
        if let Some(parking) = self.shared.parking.as_ref().filter(|_| session.handle.is_durable()) {
            session.outbound.park_all(parking);
            self.spill(slot);
            // What waited for an answer of the store waits in vain: there will be none.
            self.shed(slot, out);
        }
        self.on_session_due(now, slot, out);
    }

    /// The timer of a session.
    pub(super) fn on_session_timer(&mut self, now: Timestamp, slot: u32, out: &mut Outputs) {
        let Some(session) = self.sessions.get_mut(slot as usize) else { return };
        session.timer = None;
        self.on_session_due(now, slot, out);
    }

    /// Publishes the will and ends the session if they are due, and sets the timer for what is next.
    fn on_session_due(&mut self, now: Timestamp, slot: u32, out: &mut Outputs) {
        let session = &mut self.sessions[slot as usize];
        if session.ends_at().is_some_and(|at| at <= now) {
            self.end_session(now, slot, out);
            return;
        }
        if session.will_at().is_some_and(|at| at <= now) {
            // [MQTT-3.1.2-10]
            let will = session.will.take();
            let is_durable = session.handle.is_durable();
            self.publish_will(now, will, out);
            if is_durable {
                self.journal_session_soon(slot);
            }
        }
        self.schedule(slot);
    }

    /// Ends a session with all that it has. Returns the commit that forgets it, if the store knows it.
    pub(super) fn end_session(&mut self, now: Timestamp, slot: u32, out: &mut Outputs) -> Option<u64> {
        let session = &mut self.sessions[slot as usize];
        if let Some(at) = session.timer.take() {
            self.timers.unset(at, Timer::Session(slot));
        }
        let handle = session.handle.clone();
        handle.set_presence(Presence::Offline);
        let will = session.will.take();
        let subscriptions = std::mem::take(&mut session.subscriptions);
        for filter in subscriptions.keys() {
            self.shared.router.unsubscribe(filter, &handle);
        }
        self.hand_back(now, slot, TakeSent::Yes, None, out);
        let mut session = self.sessions.remove(slot as usize);
        self.by_client.remove(&handle.client_id);
        let Left { bodies, spilled } = session.outbound.take_all();
        for body in &bodies {
            self.settle(&handle, body.size_bytes());
            self.count_left(&handle, &subscriptions, body);
        }
        for run in &spilled {
            self.count_left_spilled(&handle, run);
        }
        let records = bodies.iter().filter_map(Body::record).collect();
        let undelivered = bodies.len() + spilled.iter().map(|run| run.count as usize).sum::<usize>();
        self.counters().sessions.sub(1);
        out.events.push(Event::SessionEnded { client_id: handle.client_id.clone(), undelivered });
        let gate = (handle.is_durable() && !mutation::is_on(Mutation::EndNotStored))
            .then(|| self.journal_gating(Op::EndSession { session: handle.clone(), records }));
        for SpilledRun { first, .. } in spilled {
            let (session, cause) = (handle.clone(), Unspill::Ended);
            self.journal.lazy(None, Op::Unspill { session, first, cause });
        }
        self.publish_will(now, will, out);
        gate
    }

    fn publish_will(&mut self, now: Timestamp, will: Option<Arc<StoredWill>>, out: &mut Outputs) {
        let Some(will) = will.filter(|_| !mutation::is_on(Mutation::WillLost)) else { return };
        // [MQTT-3.1.2-14] [MQTT-3.1.2-15] RETAIN is in the message.
        let expires_at = will.message_expiry_secs.map(|secs| now.plus_secs(secs));
        if mutation::is_on(Mutation::WillTwice) {
            self.publish_own(now, will.message.clone().with_expiry(expires_at), out);
        }
        self.publish_own(now, will.message.clone().with_expiry(expires_at), out);
    }

    /// Sets the timer of a session for what is due next.
    pub(super) fn schedule(&mut self, slot: u32) {
        let session = &mut self.sessions[slot as usize];
        if let Some(at) = session.timer.take() {
            self.timers.unset(at, Timer::Session(slot));
        }
        session.timer = session.due_at();
        if let Some(at) = session.timer {
            self.timers.set(at, Timer::Session(slot));
        }
    }

    pub(super) fn journal_session_soon(&mut self, slot: u32) {
        let op = self.put_session(slot);
        self.journal.soon(self.shared.sequence.next(), op);
    }

    fn put_session(&self, slot: u32) -> Op {
        let session = &self.sessions[slot as usize];
        Op::PutSession {
            session: session.handle.clone(),
            expiry_secs: session.expiry_secs,
            will: session.will.clone(),
            presence: match session.state {
                SessionState::Connected(id) => StoredPresence::Connected {
                    receive_maximum: self.link(id).map_or(0, |link| link.settings.receive_maximum),
                },
                SessionState::Detached(since) => StoredPresence::Detached {
                    since,
                    sent_below: session.outbound.sent_below(),
                    perhaps_sent_below: session.outbound.perhaps_sent_below(),
                },
            },
        }
    }

    fn set_keep_alive(&mut self, id: LinkId, heard: Timestamp) {
        let link = &mut self.links[id.slot as usize];
        link.timer = keep_alive_end(link.settings.keep_alive_secs, heard);
        if let Some(at) = link.timer {
            self.timers.set(at, Timer::KeepAlive(id));
        }
    }

    /// The Keep Alive timer of a link: the client may have been heard meanwhile. While the broker does not
    /// read from it, it is heard by what its socket takes.
    pub(super) fn on_keep_alive_timer(&mut self, now: Timestamp, id: LinkId, out: &mut Outputs) {
        let (may_read, is_held_off) = (self.may_read(id), self.is_held_off(id) || self.is_paced(id));
        let is_store_crowded = self.shared.store_crowded.load(Ordering::Relaxed);
        let Some(link) = self.link_mut(id) else { return };
        link.timer = None;
        if is_held_off || is_store_crowded {
            // Nothing leaves for it either while its acknowledgements are withheld, or the store is behind.
            link.last_seen = now;
        } else if !may_read {
            link.last_seen = link.last_seen.max(link.last_drained);
        }
        let last_seen = link.last_seen;
        if keep_alive_end(link.settings.keep_alive_secs, last_seen).is_some_and(|at| at <= now) {
            // [MQTT-3.1.2-22] [MQTT-3.1.1/3.1.2-24]
            self.close(now, id, Cause::KeepAlive, out);
        } else {
            self.set_keep_alive(id, last_seen);
        }
    }
}

/// Calls `f` with the CONNACK that accepts a client, and that tells a v5 one `told`. What is left out has its
/// default: every feature of the standard is available.
fn with_conn_ack<T>(
    admission: &Admission<'_>,
    limits: &Limits,
    session_present: bool,
    terms: &Terms,
    told: &[(&str, &str)],
    f: impl FnOnce(&Packet<'_>) -> T,
) -> T {
    let connect = admission.connect;
    if !connect.version.is_v5() {
        // MQTT 3.1 has no Session Present: the byte is reserved.
        let session_present = session_present && connect.version != Version::V31;
        let (code, properties) = (ConnAckReturn::V3(0), ConnAckProperties::default());
        return f(&Packet::ConnAck(Box::new(ConnAck { session_present, code, properties })));
    }
    let asked = &connect.properties;
    let client_id = admission.assigned_client_id.unwrap_or(connect.client_id);
    let response_information =
        asked.request_response_information.unwrap_or(false).then(|| response_information(client_id));
    let properties = ConnAckProperties {
        session_expiry_secs: Some(terms.expiry_secs)
            .filter(|agreed| *agreed != asked.session_expiry_secs.unwrap_or(0)),
        receive_maximum: NonZeroU16::new(limits.receive_maximum).filter(|maximum| *maximum < NonZeroU16::MAX),
        packet_bytes_max: NonZeroU32::new(limits.packet_bytes_max),
        assigned_client_id: admission.assigned_client_id,
        topic_alias_maximum: Some(limits.topic_alias_maximum).filter(|maximum| *maximum > 0),
        server_keep_alive_secs: Some(terms.keep_alive_secs)
            .filter(|agreed| *agreed != connect.keep_alive_secs),
        response_information: response_information.as_deref(),
        user_properties: UserProperties::from_list(told),
        authentication_method: asked.authentication_method,
        authentication_data: admission.authentication_data,
        ..ConnAckProperties::default()
    };
    let code = ConnAckReturn::V5(ReasonCode::Success);
    f(&Packet::ConnAck(Box::new(ConnAck { session_present, code, properties })))
}

/// When silence since `heard` has lasted 1.5 times Keep Alive.
fn keep_alive_end(keep_alive_secs: u16, heard: Timestamp) -> Option<Timestamp> {
    (keep_alive_secs > 0)
        .then(|| Timestamp::from_millis(heard.as_millis() + u64::from(keep_alive_secs) * 1500))
}

/// The topic prefix that a client may use for responses to it: its identifier, made fit for a topic level.
fn response_information(client_id: &str) -> String {
    let mut topic = String::from("response/");
    for character in client_id.chars() {
        match character {
            '/' | '+' | '#' | '%' => topic.push_str(&format!("%{:02X}", character as u32)),
            other => topic.push(other),
        }
    }
    topic.truncate(topic.floor_char_boundary(60_000));
    topic
}
