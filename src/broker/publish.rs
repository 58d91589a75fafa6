//! What a PUBLISH sets off: checks, retaining, routing, and the journal record that makes it durable.

use std::sync::Arc;

use smallvec::{SmallVec, smallvec};

use crate::{
    acl::{Action, Decision},
    codec::{Delivery, PacketId, PayloadFormat, Publish, QoS, ReasonCode},
    limits::Durability,
    message::Message,
    mutation::{self, Mutation},
    session::{AliasError, Arrival, LinkId, Notice, RecordId, SessionHandle},
    time::Timestamp,
};

use super::{
    Cause, DropReason, Event, Forward, Gate, Op, Outputs, Retaining, Shard,
    acknowledge::{AckDue, AckKind},
    journal, misbehaved,
    overflow::{NO_DISK, NO_ROOM, Verdict},
    router::{Member, Own, Route, Target},
};

/// Those of one message: most go to one shard.
type Shares = SmallVec<[Share; 1]>;

/// Sessions of one shard that get a message, with the number reserved for each.
#[derive(Debug)]
pub(super) struct Share {
    shard: u16,
    targets: Arc<[Target]>,
    numbers: Vec<u64>,
    /// The record of the message in the store, if it is there.
    record: Option<RecordId>,
}

/// A message whose delivery waits for a commit.
#[derive(Debug)]
pub(super) struct Deferred {
    message: Arc<Message>,
    shares: Shares,
}

/// Why a PUBLISH is not accepted.
pub(super) struct Fault {
    pub(super) code: ReasonCode,
    pub(super) why: &'static str,
}

/// Who publishes.
#[derive(Clone, Copy)]
pub(super) enum Origin {
    /// A client, which can be refused: the slot of its session, the identifier that makes a QoS 2 message
    /// of a durable session known again, and what its acknowledgement promises.
    Client { slot: u32, received: Option<PacketId>, durability: Durability },
    /// A will or the broker itself. There is nobody to refuse, and nothing waits.
    Own,
    /// A member of a shared subscription that cannot have the message any more. It was accepted once.
    Member,
}

/// What became of a message.
struct Accepted {
    /// Whether anybody gets it.
    is_matched: bool,
    /// The commit that its acknowledgement waits for.
    gate: Option<u64>,
    /// The sessions whose queues are to have room before that.
    full: Vec<Arc<SessionHandle>>,
    /// What is delivered behind the acknowledgement, and the commit that this waits for.
    shares: Shares,
    deferral: Option<u64>,
}

/// What the targets of a message ask for.
#[derive(Default)]
struct Booking {
    /// Those that the store has to know.
    durable: journal::Targets,
    /// Whether one of them is promised that a QoS 2 message is on disk before it comes.
    awaits_commit: bool,
    /// The sessions whose queues the publisher has to wait for.
    full: Vec<Arc<SessionHandle>>,
}

/// A message in the journal, if it is there.
#[derive(Default)]
struct Journaled {
    record: Option<RecordId>,
    /// The commit that its acknowledgement waits for.
    gate: Option<u64>,
    /// The commit that its delivery waits for if it is of QoS 2. It is another where the publisher is promised
    /// less than a subscriber.
    delivery_gate: Option<u64>,
}

/// The number of a target that gets nothing, or nothing that has a number.
const NO_NUMBER: u64 = u64::MAX;

impl Shard {
    pub(super) fn on_publish(
        &mut self,
        now: Timestamp,
        id: LinkId,
        slot: u32,
        publish: &Publish<'_>,
        out: &mut Outputs,
    ) -> Result<(), Cause> {
        self.counters().received(publish.delivery.qos(), publish.payload.len());
        self.links[id.slot as usize].received += 1;
        self.check_quota(id, slot, publish)?;
        let (topic, route) = match self.resolve(id, publish)? {
            Ok(resolved) => resolved,
            Err(fault) => return self.refuse(now, id, publish, &publish.topic.into(), &fault, out),
        };
        if let Err(fault) = self.check_rate(now, id, publish) {
            return self.refuse(now, id, publish, &topic, &fault, out);
        }
        if publish.delivery != Delivery::AtMostOnce && self.has_withheld_enough(id) {
            // Before MQTT 5 nothing but this stops a client that is read for its own acknowledgements.
            let why = "more PUBLISH than may wait for room in a queue";
            let fault = Fault { code: ReasonCode::QuotaExceeded, why };
            return self.refuse(now, id, publish, &topic, &fault, out);
        }
        if let Delivery::ExactlyOnce(packet_id) = publish.delivery
            && self.sessions[slot as usize].inbound.is_unreleased(packet_id)
            && !mutation::is_on(Mutation::RepetitionAccepted)
        {
            // [MQTT-4.3.3-10] the same message again. Its first PUBREC may still wait for the store.
            let session = &mut self.sessions[slot as usize];
            session.inbound.receive(packet_id);
            let handle = session.handle.clone();
            let gate = self.pending_of(id, &handle);
            let due = AckDue::new(AckKind::PubRec, packet_id);
            self.answer_publish(now, id, due, gate, Vec::new(), out);
            return Ok(());
        }
        if let Err(fault) = self.check_publish(id, slot, publish, &topic, out) {
            return self.refuse(now, id, publish, &topic, &fault, out);
        }
        let session = &self.sessions[slot as usize];
        let publisher = session.client_id().clone();
        let is_durable = session.handle.is_durable();
        let received = publish.delivery.packet_id();
        let received = received.filter(|_| is_durable && publish.delivery.qos() == QoS::ExactlyOnce);
        let mut message = Message::from_publish(publish, topic.clone(), publisher, now);
        self.mark(now, &mut message, &route);
        let message = Arc::new(message);
        let durability = self.durability_of(id);
        match self.accept(now, &message, route, Origin::Client { slot, received, durability }, out) {
            Ok(mut accepted) => {
                self.acknowledge_publish(now, id, slot, publish.delivery, &mut accepted, out);
                self.deliver_behind_ack(now, slot, &message, accepted, out);
                Ok(())
            }
            Err(fault) => self.refuse(now, id, publish, &topic, &fault, out),
        }
    }

    /// Publishes a will or a message of the broker itself.
    /// Returns whether anybody gets it, and the commit after which it is kept; nothing if it cannot be published.
    pub(super) fn publish_own(
        &mut self,
        now: Timestamp,
        mut message: Message,
        out: &mut Outputs,
    ) -> Option<(bool, Option<u64>)> {
        let limits = self.limits.topics();
        let (_, route) = self.routes.route(&self.shared.router, message.topic(), &limits).ok()?;
        if message.publisher().is_some() {
            self.mark(now, &mut message, &route);
        }
        let accepted = self.accept(now, &Arc::new(message), route, Origin::Own, out).ok()?;
        Some((accepted.is_matched, accepted.gate))
    }

    /// The client's use of our Receive Maximum, and what a client must not put into a PUBLISH.
    fn check_quota(&self, id: LinkId, slot: u32, publish: &Publish<'_>) -> Result<(), Cause> {
        let link = &self.links[id.slot as usize];
        if !publish.properties.subscription_ids.is_empty() {
            // [MQTT-3.3.4-6]
            return Err(misbehaved(
                ReasonCode::ProtocolError,
                "a Subscription Identifier in PUBLISH from a client",
            ));
        }
        let Some(packet_id) = publish.delivery.packet_id() else { return Ok(()) };
        let inbound = &self.sessions[slot as usize].inbound;
        let used = (inbound.counted() + link.unacknowledged as usize).max(self.withheld(id));
        let is_new = publish.delivery.qos() == QoS::AtLeastOnce || !inbound.is_unreleased(packet_id);
        if link.settings.version.is_v5() && is_new && used >= usize::from(self.limits.receive_maximum) {
            // [MQTT-3.3.4-7]
            return Err(misbehaved(
                ReasonCode::ReceiveMaximumExceeded,
                "more PUBLISH than the Receive Maximum",
            ));
        }
        Ok(())
    }

    /// The topic name, whether it is written out or an alias, with its route.
    #[expect(clippy::type_complexity, reason = "the inner error is answered, the outer one closes")]
    fn resolve(
        &mut self,
        id: LinkId,
        publish: &Publish<'_>,
    ) -> Result<Result<(Arc<str>, Arc<Route>), Fault>, Cause> {
        let limits = self.limits.topics();
        let alias_fault = |error| match error {
            AliasError::TooHigh => {
                misbehaved(ReasonCode::TopicAliasInvalid, "a Topic Alias above the Topic Alias Maximum")
            }
            AliasError::Unset => misbehaved(ReasonCode::ProtocolError, "a Topic Alias that was not set"),
        };
        let alias = publish.properties.topic_alias;
        let link = &mut self.links[id.slot as usize];
        let resolved = match alias.filter(|_| publish.topic.is_empty()) {
            Some(alias) => {
                let topic = link.alias(alias).map_err(alias_fault)?;
                self.routes.route(&self.shared.router, &topic, &limits)
            }
            None => {
                let resolved = self.routes.route(&self.shared.router, publish.topic, &limits);
                if let (Some(alias), Ok((topic, _))) = (alias, &resolved) {
                    link.set_alias(alias, topic.clone()).map_err(alias_fault)?;
                }
                resolved
            }
        };
        Ok(resolved
            .map_err(|_| Fault { code: ReasonCode::TopicNameInvalid, why: "the topic name exceeds a limit" }))
    }

    fn check_publish(
        &mut self,
        id: LinkId,
        slot: u32,
        publish: &Publish<'_>,
        topic: &str,
        out: &mut Outputs,
    ) -> Result<(), Fault> {
        let is_text = publish.properties.payload_format == Some(PayloadFormat::Utf8);
        if is_text && self.shared.check_payload_format && std::str::from_utf8(publish.payload).is_err() {
            return Err(Fault {
                code: ReasonCode::PayloadFormatInvalid,
                why: "the payload is not UTF-8 text",
            });
        }
        let action = Action::Publish { qos: publish.delivery.qos(), retain: publish.retain };
        match self.decide(id, slot, action, topic, out) {
            Decision::Allowed | Decision::AllowedUpTo(_) => Ok(()),
            Decision::Denied(_) if mutation::is_on(Mutation::DeniedAccepted) => Ok(()),
            Decision::Denied(_) => {
                Err(Fault { code: ReasonCode::NotAuthorized, why: "not authorized to publish" })
            }
        }
    }

    /// Answers a PUBLISH that is not accepted, as its version and QoS allow.
    fn refuse(
        &mut self,
        now: Timestamp,
        id: LinkId,
        publish: &Publish<'_>,
        topic: &Arc<str>,
        fault: &Fault,
        out: &mut Outputs,
    ) -> Result<(), Cause> {
        let Fault { code, why } = *fault;
        self.counters().publishes_refused.add(1);
        let link = &self.links[id.slot as usize];
        let is_v5 = link.settings.version.is_v5();
        if let Some(slot) = link.session {
            let session = &self.sessions[slot as usize];
            self.trace_refused(Some(session.client_id()), topic, publish.delivery.qos(), fault, out);
            if code != ReasonCode::NotAuthorized && session.is_news(Notice::PublishRefused(code)) {
                let (client_id, topic) = (session.client_id().clone(), topic.clone());
                out.events.push(Event::PublishRefused { client_id, topic, code, why });
            }
        }
        let is_fatal = match code {
            ReasonCode::NotAuthorized | ReasonCode::QuotaExceeded => false,
            _ => !is_v5 || publish.delivery == Delivery::AtMostOnce,
        };
        if is_fatal {
            return Err(misbehaved(code, why));
        }
        // [MQTT-4.3.3-9] the identifier of a QoS 2 message that is refused is free again.
        let (kind, packet_id) = match publish.delivery {
            Delivery::AtMostOnce => return Ok(()),
            Delivery::AtLeastOnce(packet_id) => (AckKind::PubAck, packet_id),
            Delivery::ExactlyOnce(packet_id) => (AckKind::PubRec, packet_id),
        };
        let due = if is_v5 {
            AckDue { kind, packet_id, reason: code, why }
        } else if code == ReasonCode::NotAuthorized {
            // [MQTT-3.1.1/3.3.5-2] an unauthorised message is acknowledged like any other, and dropped.
            let publisher = link.session.map(|slot| self.sessions[slot as usize].client_id().clone());
            self.count_drop_of(&publisher.unwrap_or_default(), "", topic, DropReason::NotAuthorized);
            AckDue::new(kind, packet_id)
        } else {
            // Not acknowledged, so that the client keeps it and sends it again.
            return Ok(());
        };
        self.answer_publish(now, id, due, None, Vec::new(), out);
        Ok(())
    }

    fn acknowledge_publish(
        &mut self,
        now: Timestamp,
        id: LinkId,
        slot: u32,
        delivery: Delivery,
        accepted: &mut Accepted,
        out: &mut Outputs,
    ) {
        let (kind, packet_id, reason) = match delivery {
            Delivery::AtMostOnce => return,
            Delivery::AtLeastOnce(packet_id) if accepted.is_matched => {
                (AckKind::PubAck, packet_id, ReasonCode::Success)
            }
            Delivery::AtLeastOnce(packet_id) => {
                (AckKind::PubAck, packet_id, ReasonCode::NoMatchingSubscribers)
            }
            Delivery::ExactlyOnce(packet_id) => {
                let arrival = self.sessions[slot as usize].inbound.receive(packet_id);
                let is_sane = arrival == Arrival::New || mutation::is_on(Mutation::RepetitionAccepted);
                debug_assert!(is_sane, "a repeated message is not accepted twice");
                // Nothing of subscribers: the message may be delivered later, and to others.
                (AckKind::PubRec, packet_id, ReasonCode::Success)
            }
        };
        let due = AckDue { reason, ..AckDue::new(kind, packet_id) };
        self.answer_publish(now, id, due, accepted.gate, std::mem::take(&mut accepted.full), out);
    }

    /// Takes a message over: retains it, chooses who gets it, writes it to the journal where that is due,
    /// and delivers it.
    fn accept(
        &mut self,
        now: Timestamp,
        message: &Arc<Message>,
        mut route: Arc<Route>,
        origin: Origin,
        out: &mut Outputs,
    ) -> Result<Accepted, Fault> {
        let mut picks = route.pick(message, &self.limits);
        let targets = route.shards.iter().chain(&picks.members).flat_map(|(_, targets)| targets.iter());
        self.check_room(message, targets, origin)?;
        let (retaining, retained) = self.retain(message, origin)?;
        if message.retain() {
            // Who has subscribed meanwhile, on another shard, may have read the message before this one.
            if let Ok((_, fresh)) =
                self.routes.route(&self.shared.router, message.topic(), &self.limits.topics())
                && !Arc::ptr_eq(&fresh, &route)
            {
                picks = fresh.pick(message, &self.limits);
                route = fresh;
            }
        }
        let shares = || route.shards.iter().chain(&picks.members);
        let is_matched = !route.shards.is_empty() || !picks.members.is_empty();
        self.count_missed(message, picks.missed);
        self.trace_accepted(message, &route, is_matched, out);
        if message.qos() == QoS::AtMostOnce {
            for (shard, targets) in shares() {
                self.dispatch(
                    now,
                    message,
                    Share { shard: *shard, targets: targets.clone(), numbers: Vec::new(), record: None },
                    out,
                );
            }
            // What the broker tells of itself is not kept: it has no publisher, unlike a will.
            if retaining == Retaining::Done && message.publisher().is_some() {
                let message = message.clone();
                let record = Some(retained.unwrap_or_else(|| self.shared.sequence.next()));
                let op =
                    Op::Append { message, retain: true, targets: journal::Targets::new(), received: None };
                self.journal.lazy(record, op);
            }
            return Ok(Accepted {
                is_matched,
                gate: None,
                full: Vec::new(),
                shares: Shares::new(),
                deferral: None,
            });
        }
        let mut booking = Booking::default();
        let mut shares: Shares = shares()
            .map(|(shard, targets)| self.reserve(message, *shard, targets, origin, &mut booking))
            .collect();
        let full = std::mem::take(&mut booking.full);
        let Journaled { record, gate, delivery_gate } =
            self.journal_message(message, retained, booking, retaining, origin);
        self.trace_stored(message, record);
        if record.is_some() {
            shares.iter_mut().for_each(|share| share.record = record);
        }
        let deferral = self.deferral(message, delivery_gate, origin);
        if message.qos() == QoS::ExactlyOnce && matches!(origin, Origin::Client { .. }) {
            return Ok(Accepted { is_matched, gate, full, shares, deferral });
        }
        self.dispatch_at(now, message, shares, deferral, out);
        Ok(Accepted { is_matched, gate, full, shares: Shares::new(), deferral: None })
    }

    /// Delivers a QoS 2 message of a client: PUBREC leaves before what it sets off.
    fn deliver_behind_ack(
        &mut self,
        now: Timestamp,
        slot: u32,
        message: &Arc<Message>,
        accepted: Accepted,
        out: &mut Outputs,
    ) {
        if let Some(commit) = self.dispatch_at(now, message, accepted.shares, accepted.deferral, out) {
            self.sessions[slot as usize].deferred_until = commit;
        }
    }

    /// Delivers a message at once or after a commit. Returns the commit that it waits for.
    fn dispatch_at(
        &mut self,
        now: Timestamp,
        message: &Arc<Message>,
        shares: Shares,
        deferral: Option<u64>,
        out: &mut Outputs,
    ) -> Option<u64> {
        match deferral {
            Some(commit) => {
                let deferred = Box::new(Deferred { message: message.clone(), shares });
                let commit = self.journal.wait(commit, Gate::Deliver(deferred));
                self.deferred_until = commit;
                Some(commit)
            }
            None => {
                shares.into_iter().for_each(|share| self.dispatch(now, message, share, out));
                None
            }
        }
    }

    /// The commit that the delivery of a message waits for. A QoS 2 message must not arrive before it is
    /// known to have been received: after a crash in between, the publisher would send it again as a new
    /// one. Nor may it overtake an earlier one of its publisher that waits. `[MQTT-4.6.0-5]`
    fn deferral(&self, message: &Message, gate: Option<u64>, origin: Origin) -> Option<u64> {
        if message.qos() != QoS::ExactlyOnce {
            return None;
        }
        let earlier = match origin {
            Origin::Client { slot, .. } => Some(self.sessions[slot as usize].deferred_until),
            Origin::Own | Origin::Member => None,
        };
        gate.max(earlier.filter(|commit| *commit > self.journal.committed()))
    }

    /// Counts the shared subscriptions whose copy of a message nobody can have.
    fn count_missed(&mut self, message: &Message, missed: u64) {
        self.counters().deliveries_accepted.add(missed);
        for _ in 0..missed {
            self.count_drop_of(&Arc::default(), "", message.topic(), DropReason::NoMember);
        }
    }

    /// Reserves a number for each target whose delivery is of QoS 1 or 2, unless it is dropped for want of
    /// room. Where the publisher would have to be refused it was, in `check_room`: if a queue has become full
    /// since, by another shard, it takes this message too rather than drop what is acknowledged.
    fn reserve(
        &mut self,
        message: &Message,
        shard: u16,
        targets: &Arc<[Target]>,
        origin: Origin,
        booking: &mut Booking,
    ) -> Share {
        let is_crowded = !matches!(origin, Origin::Member) && self.is_crowded(message);
        let mut numbers = if shard == self.index { std::mem::take(&mut self.numbers) } else { Vec::new() };
        numbers.clear();
        for target in targets.iter() {
            let target = for_publisher(target, message);
            let Some(target) = target.filter(|target| target.qos > QoS::AtMostOnce) else {
                numbers.push(NO_NUMBER);
                continue;
            };
            self.counters().deliveries_accepted.add(1);
            match (self.verdict(target, message, is_crowded), origin) {
                (_, Origin::Own) if target.session.is_durable() && self.shared.is_store_full() => {
                    numbers.push(NO_DISK);
                    continue;
                }
                (Verdict::Drop, Origin::Client { .. })
                | (Verdict::Drop | Verdict::Withhold | Verdict::Refuse(_), Origin::Own) => {
                    numbers.push(NO_ROOM);
                    continue;
                }
                (Verdict::Withhold, Origin::Client { .. }) => booking.full.push(target.session.clone()),
                (Verdict::Take | Verdict::Refuse(_), Origin::Client { .. } | Origin::Own)
                | (_, Origin::Member) => {}
            }
            let number = target.session.reserve(message.size_bytes());
            self.counters().queued_bytes.add(message.size_bytes() as u64);
            self.counters().queued_messages.add(1);
            numbers.push(number);
            if target.session.is_durable() {
                let qos = message.qos().min(target.qos);
                booking.awaits_commit |= qos == QoS::ExactlyOnce && target.session.awaits_commit();
                booking.durable.push(journal::Target {
                    session: target.session.id,
                    number,
                    qos,
                    retain: message.retain() && target.retain_as_published,
                    subscription_ids: target.subscription_ids.clone(),
                    share: target.share.clone(),
                });
            }
        }
        Share { shard, targets: targets.clone(), numbers, record: None }
    }

    /// Writes a QoS 1 or 2 message to the journal if anything of it must survive.
    fn journal_message(
        &mut self,
        message: &Arc<Message>,
        retained: Option<RecordId>,
        booking: Booking,
        retaining: Retaining,
        origin: Origin,
    ) -> Journaled {
        let (received, durability) = match origin {
            Origin::Client { slot, received, durability } => {
                let session = &self.sessions[slot as usize].handle;
                (received.map(|id| (session.clone(), id)), durability)
            }
            Origin::Own | Origin::Member => (None, Durability::Commit),
        };
        let retain = retaining == Retaining::Done && message.publisher().is_some();
        let Booking { durable: targets, awaits_commit, .. } = booking;
        if targets.is_empty() && received.is_none() && !retain {
            return Journaled::default();
        }
        let record = retained.unwrap_or_else(|| self.shared.sequence.next());
        let message = message.clone();
        let op = Op::Append { message, retain, targets, received };
        if awaits_commit && durability != Durability::Commit {
            let gate = self.journal.gating(record, op);
            return Journaled { record: Some(record), gate: None, delivery_gate: Some(gate) };
        }
        let gate = self.journal.promise(record, op, durability);
        Journaled { record: Some(record), gate, delivery_gate: gate }
    }

    /// Delivers here, or sends to the shard that does.
    pub(super) fn dispatch(
        &mut self,
        now: Timestamp,
        message: &Arc<Message>,
        share: Share,
        out: &mut Outputs,
    ) {
        if share.shard == self.index {
            self.deliver_all(now, message, &share.targets, &share.numbers, share.record, out);
            if share.numbers.capacity() > self.numbers.capacity() {
                self.numbers = share.numbers;
            }
        } else {
            let Share { shard, targets, numbers, record } = share;
            let forward = Forward { message: message.clone(), targets, numbers, record };
            out.forwarded += forward.weight();
            out.forwards.push((shard, forward));
        }
    }

    /// The commit of a QoS 2 message is done.
    pub(super) fn deliver_deferred(&mut self, now: Timestamp, deferred: Deferred, out: &mut Outputs) {
        for share in deferred.shares {
            self.dispatch(now, &deferred.message, share, out);
        }
    }

    /// Gives a message that a member of a shared subscription cannot have any more to another one, if
    /// there is one: in one journal record with its end for the member that leaves.
    pub(super) fn pass_on(
        &mut self,
        now: Timestamp,
        message: &Arc<Message>,
        member: &Member,
        out: &mut Outputs,
    ) {
        let Some(shard) = member.first().map(|target| target.session.shard) else { return };
        let mut booking = Booking::default();
        let mut share = self.reserve(message, shard, member, Origin::Member, &mut booking);
        let durable = booking.durable;
        self.counters().deliveries_handed_over.add(1);
        if durable.is_empty() {
            self.dispatch(now, message, share, out);
            return;
        }
        let record = self.shared.sequence.next();
        share.record = Some(record);
        let is_qos_2 = durable.iter().any(|target| target.qos == QoS::ExactlyOnce);
        let op = Op::Append { message: message.clone(), retain: false, targets: durable, received: None };
        if is_qos_2 {
            // Its packet identifier must be known for its own before the client sees it: given to another
            // message after a crash, the client would take that one for a repetition.
            let commit = self.journal.gating(record, op);
            let deferred = Box::new(Deferred { message: message.clone(), shares: smallvec![share] });
            self.journal.wait(commit, Gate::Deliver(deferred));
        } else {
            self.journal.lazy(Some(record), op);
            self.dispatch(now, message, share, out);
        }
    }
}

/// What a target gets of a message, which may be its own. `[MQTT-3.8.3-3]`
pub(super) fn for_publisher<'a>(target: &'a Target, message: &Message) -> Option<&'a Target> {
    let is_own = || message.publisher() == Some(&target.session.client_id);
    match &target.own {
        Own::Same => Some(target),
        Own::Nothing => {
            if is_own() && !mutation::is_on(Mutation::NoLocalIgnored) {
                None
            } else {
                Some(target)
            }
        }
        Own::Reduced(reduced) => Some(if is_own() { &**reduced } else { target }),
    }
}
