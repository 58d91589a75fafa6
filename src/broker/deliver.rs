//! From the router to the outbox: what a session gets, and when.

use std::{sync::Arc, time::Duration};

use crate::{
    codec::{Delivery, PacketId, QoS},
    limits::Overflow,
    message::Message,
    mutation::{self, Mutation},
    session::{
        Answer, Attempt, Body, Fetch, Fetched, Fit, Outgoing, Presence, RecordId, Request, Session, Source,
        TakeSent,
    },
    time::Timestamp,
    topic::TopicFilter,
};

use super::{
    Cause, DropReason, Event, Op, Outputs, Shard, StepKind, Strain, Timer, Unspill,
    overflow::{SHED, given_up, is_over},
    publish::for_publisher,
    replay::Progress,
    router::{Group, Target},
};

/// The part of its outbox that QoS 0 may fill when memory runs out.
const STRAINED: usize = 16;

impl Shard {
    /// Delivers a message to sessions of this shard.
    pub(super) fn deliver_all(
        &mut self,
        now: Timestamp,
        message: &Arc<Message>,
        targets: &[Target],
        numbers: &[u64],
        record: Option<RecordId>,
        out: &mut Outputs,
    ) {
        for (at, target) in targets.iter().enumerate() {
            if let Some(target) = for_publisher(target, message) {
                self.deliver(now, message, target, numbers.get(at).copied(), record, out);
            }
        }
    }

    fn deliver(
        &mut self,
        now: Timestamp,
        message: &Arc<Message>,
        target: &Target,
        number: Option<u64>,
        record: Option<RecordId>,
        out: &mut Outputs,
    ) {
        let slot = target.session.slot;
        let is_there =
            self.sessions.get(slot as usize).is_some_and(|session| session.handle.is(&target.session));
        let qos = message.qos().min(target.qos);
        if qos == QoS::AtMostOnce {
            self.counters().deliveries_accepted.add(1);
        } else if let Some(reason) = number.and_then(given_up) {
            self.drop_unnumbered(target, message, reason, is_there.then_some(slot), out);
            return;
        }
        if !is_there {
            if let Some(number) = number.filter(|_| qos > QoS::AtMostOnce) {
                self.settle(&target.session, message.size_bytes());
                if target.session.is_durable() && record.is_some() {
                    let session = target.session.id;
                    // All of its numbers are settled: the store has nothing to remember of this one.
                    let base = u64::MAX;
                    self.journal.lazy(None, Op::Settle { session, number, message: record, base });
                }
            }
            self.redirect(now, message, target, out);
            return;
        }
        let outgoing = Outgoing {
            message: message.clone(),
            qos,
            retain: message.retain() && target.retain_as_published,
            subscription_ids: target.subscription_ids.clone(),
            share: target.share.clone(),
            record: record.filter(|_| target.session.is_durable()),
        };
        match number.filter(|_| qos > QoS::AtMostOnce) {
            None => self.deliver_transient(now, slot, outgoing, out),
            Some(number) => self.enqueue(now, slot, number, outgoing, out),
        }
    }

    /// The session that a message was on its way to has ended: another member of a shared subscription gets
    /// it, if there is one.
    fn redirect(&mut self, now: Timestamp, message: &Arc<Message>, target: &Target, out: &mut Outputs) {
        let is_lasting = message.qos() > QoS::AtMostOnce;
        let member = target.share.as_deref().filter(|_| is_lasting).and_then(|share| {
            let group = self.shared.router.group(share, &self.limits.topics())?;
            group.pick(message, None, &self.limits)
        });
        match member {
            Some(member) => self.pass_on(now, message, &member, out),
            None => {
                let filter = target.share.as_deref().unwrap_or_default();
                let client_id = &target.session.client_id;
                self.trace_lost(client_id, message, DropReason::SessionEnded, out);
                self.count_drop_of(client_id, filter, message.topic(), DropReason::SessionEnded);
            }
        }
    }

    /// Queues a QoS 1 or 2 message under its number and sends what can be sent.
    pub(super) fn enqueue(
        &mut self,
        now: Timestamp,
        slot: u32,
        number: u64,
        outgoing: Outgoing,
        out: &mut Outputs,
    ) {
        self.trace(slot, &outgoing, StepKind::Queued, "", out);
        self.queue(slot, number, outgoing);
        self.pump(now, slot, out);
        self.shed(slot, out);
    }

    /// Queues a QoS 1 or 2 message under its number.
    pub(super) fn queue(&mut self, slot: u32, number: u64, outgoing: Outgoing) {
        let session = &mut self.sessions[slot as usize];
        match &self.shared.parking {
            Some(parking) => {
                let is_connected = session.link().is_some();
                session.outbound.enqueue_or_park(number, outgoing, parking, is_connected);
            }
            None => session.outbound.enqueue(number, outgoing),
        }
        self.spill(slot);
        let session = &self.sessions[slot as usize];
        let limits = &self.limits;
        let closes = limits.session_queue_overflow == Overflow::Reject && !session.handle.is_durable();
        if let Some(id) = session.link().filter(|_| closes && is_over(&session.handle, limits)) {
            self.doomed.push((id, Cause::TooSlow));
        }
    }

    /// Sends a QoS 0 message if there is room for it now.
    fn deliver_transient(&mut self, now: Timestamp, slot: u32, outgoing: Outgoing, out: &mut Outputs) {
        let outbox_bytes_max = self.limits.outbox_bytes_max;
        let session = &mut self.sessions[slot as usize];
        let Some(id) = session.link() else {
            let topic = outgoing.message.topic();
            self.count_drop(slot, topic, outgoing.share.as_deref(), DropReason::Offline);
            return;
        };
        let is_bounded = self.links[id.slot as usize].bounds().is_some();
        let may_send = !is_bounded || self.may_send(now, id);
        let session = &mut self.sessions[slot as usize];
        if !session.transient.is_empty() || !may_send {
            if session.transient.live_bytes() + outgoing.message.size_bytes() <= outbox_bytes_max {
                session.transient.push(Source::Live, outgoing);
            } else {
                self.report_drop(slot, &outgoing, DropReason::OutboxFull, out);
            }
            return;
        }
        let link = &mut self.links[id.slot as usize];
        let is_strained = self.shared.strain.level() >= Strain::Transient;
        let room = if is_strained { outbox_bytes_max / STRAINED } else { outbox_bytes_max };
        if link.outbox.len() >= room {
            session.handle.set_presence(Presence::Busy);
            self.report_drop(slot, &outgoing, DropReason::OutboxFull, out);
            return;
        }
        if is_bounded && !self.may_receive(id, slot, outgoing.message.topic(), out) {
            self.report_drop(slot, &outgoing, DropReason::MayNotReceive, out);
            return;
        }
        let link = &mut self.links[id.slot as usize];
        let fit = link.write_publish(&outgoing, Delivery::AtMostOnce, Attempt::First, now);
        out.touch(id);
        if is_bounded {
            self.charge_sent(now, id, outgoing.message.size_bytes());
        }
        self.count_sent(slot, &outgoing, fit, out);
    }

    /// Moves what waits in a session to its outbox, as far as the outbox and the client's Receive Maximum
    /// allow. QoS 0 does not wait for the Receive Maximum. `[MQTT-3.3.4-9]` `[MQTT-3.3.4-10]`
    pub(super) fn pump(&mut self, now: Timestamp, slot: u32, out: &mut Outputs) {
        let outbox_bytes_max = self.limits.outbox_bytes_max;
        let mut reads = 0;
        loop {
            let Some(link) = self.link_of(slot) else { return };
            let (id, receive_maximum) = (link.id, link.settings.receive_maximum);
            if link.outbox.len() >= outbox_bytes_max {
                self.sessions[slot as usize].handle.set_presence(Presence::Busy);
                return;
            }
            let is_bounded = link.bounds().is_some();
            if is_bounded && !self.may_send(now, id) {
                self.sessions[slot as usize].handle.set_presence(Presence::Busy);
                return;
            }
            let is_limited = is_bounded && self.is_receiving_limited(id);
            let session = &mut self.sessions[slot as usize];
            if let Some(outgoing) = session.transient.pop() {
                // [MQTT-3.3.2-5]
                if outgoing.message.is_expired(now) {
                    self.report_drop(slot, &outgoing, DropReason::Expired, out);
                    continue;
                }
                if is_limited && !self.may_receive(id, slot, outgoing.message.topic(), out) {
                    self.report_drop(slot, &outgoing, DropReason::MayNotReceive, out);
                    continue;
                }
                let link = &mut self.links[id.slot as usize];
                let fit = link.write_publish(&outgoing, Delivery::AtMostOnce, Attempt::First, now);
                out.touch(id);
                self.charge_sent(now, id, outgoing.message.size_bytes());
                self.count_sent(slot, &outgoing, fit, out);
                continue;
            }
            let Some((head, attempt)) = session.outbound.head(receive_maximum) else {
                if self.replay(now, slot, &mut reads) == Progress::Made {
                    continue;
                }
                self.fetch(slot, out);
                let Session { outbound, handle, .. } = &self.sessions[slot as usize];
                let is_full = outbound.inflight() >= usize::from(receive_maximum) || outbound.queued() > 0;
                handle.set_presence(if is_full { Presence::Busy } else { Presence::Ready });
                return;
            };
            // [MQTT-3.3.2-5] [MQTT-4.3.3-7]
            if attempt != Attempt::Again && head.message.is_expired(now) {
                self.discard(slot, DropReason::Expired, out);
                continue;
            }
            if attempt != Attempt::Again && is_limited {
                let topic = head.message.topic().clone();
                if !self.may_receive(id, slot, &topic, out) {
                    self.discard(slot, DropReason::MayNotReceive, out);
                    continue;
                }
            }
            self.send_head(now, slot, attempt, out);
        }
    }

    /// Asks the store for what a connected session needs next.
    fn fetch(&mut self, slot: u32, out: &mut Outputs) {
        let Some(parking) = &self.shared.parking else { return };
        let Session { outbound, handle, .. } = &mut self.sessions[slot as usize];
        if let Some(Request { ticket, wanted }) = outbound.request(parking) {
            out.fetches.push(Fetch { slot, session: handle.id, ticket, wanted });
        }
    }

    /// Hands references of a session over to the store if all sessions together have more than may be in memory.
    pub(super) fn spill(&mut self, slot: u32) {
        let Some(parking) = &self.shared.parking else { return };
        let Session { outbound, handle, .. } = &mut self.sessions[slot as usize];
        for messages in outbound.spill(parking) {
            self.journal.lazy(None, Op::Spill { session: handle.clone(), messages });
        }
    }

    /// What the store has read for a session.
    pub(super) fn on_fetched(&mut self, now: Timestamp, mut fetched: Fetched, out: &mut Outputs) {
        self.mark_fetched(&mut fetched);
        let slot = fetched.slot;
        let Some(session) = self.sessions.get_mut(slot as usize) else { return };
        if session.handle.id != fetched.session {
            return;
        }
        if fetched.ticket == SHED {
            return self.drop_shed(slot, fetched, out);
        }
        match session.outbound.fetched(fetched) {
            Answer::Ignored => {}
            Answer::Messages(lost) => {
                for (number, body) in lost {
                    self.settle_number(slot, number, &body);
                    self.report_body(slot, &body, DropReason::Lost, out);
                }
            }
            Answer::Run(first) => {
                let (session, cause) = (session.handle.clone(), Unspill::Read);
                self.journal.lazy(None, Op::Unspill { session, first, cause });
            }
            Answer::LostRun(run) => {
                let client_id = session.client_id().clone();
                out.events.push(Event::QueueUnreadable { client_id, messages: run.count as usize });
            }
        }
        self.pump(now, slot, out);
        // It may have waited for the run.
        self.shed(slot, out);
    }

    /// Drops the head of the queue.
    fn discard(&mut self, slot: u32, reason: DropReason, out: &mut Outputs) {
        if let Some((number, outgoing)) = self.sessions[slot as usize].outbound.discard() {
            let body = Body::Here(outgoing);
            self.settle_number(slot, number, &body);
            self.report_body(slot, &body, reason, out);
        }
    }

    /// Sends the head of the queue.
    fn send_head(&mut self, now: Timestamp, slot: u32, attempt: Attempt, out: &mut Outputs) {
        let session = &mut self.sessions[slot as usize];
        let Some(id) = session.link() else { return };
        let Some((packet_id, outgoing)) = session.outbound.send() else { return };
        let delivery = match outgoing.qos {
            QoS::AtMostOnce | QoS::AtLeastOnce => Delivery::AtLeastOnce(packet_id),
            QoS::ExactlyOnce => Delivery::ExactlyOnce(packet_id),
        };
        let (qos, payload_bytes) = (outgoing.qos, outgoing.message.payload().len());
        let size_bytes = outgoing.message.size_bytes();
        let followed = outgoing.message.mark().map(|_| outgoing.clone());
        let fit = self.links[id.slot as usize].write_publish(outgoing, delivery, attempt, now);
        out.touch(id);
        match fit {
            Fit::Written => {
                self.counters().sent(qos, payload_bytes);
                self.charge_sent(now, id, size_bytes);
                if let Some(outgoing) = followed {
                    let again = if attempt == Attempt::First { "" } else { ", again" };
                    let detail = format!("packet identifier {packet_id}{again}");
                    self.trace_sent(slot, &outgoing, detail.into(), out);
                }
            }
            Fit::TooLarge => self.give_up(slot, packet_id, qos, out),
        }
    }

    /// A message that is too large for the client counts as delivered. `[MQTT-3.1.2-25]`
    fn give_up(&mut self, slot: u32, packet_id: PacketId, qos: QoS, out: &mut Outputs) {
        let outbound = &mut self.sessions[slot as usize].outbound;
        let settled = match qos {
            QoS::AtMostOnce | QoS::AtLeastOnce => outbound.on_pub_ack(packet_id),
            QoS::ExactlyOnce => outbound.on_pub_rec_refused(packet_id),
        };
        if let Ok((number, body)) = settled {
            self.settle_number(slot, number, &body);
            self.report_body(slot, &body, DropReason::TooLarge, out);
        }
    }

    /// A QoS 0 message was written, or not.
    fn count_sent(&mut self, slot: u32, outgoing: &Outgoing, fit: Fit, out: &mut Outputs) {
        match fit {
            Fit::Written => {
                self.counters().sent(outgoing.qos, outgoing.message.payload().len());
                self.counters().deliveries_completed.add(1);
                self.trace_sent(slot, outgoing, "".into(), out);
            }
            Fit::TooLarge => self.report_drop(slot, outgoing, DropReason::TooLarge, out),
        }
    }

    /// Gives the messages that wait in a session for a shared subscription to another member that is
    /// connected, if there is one: the session has lost its connection, and nobody knows for how long.
    pub(super) fn lend_shared(&mut self, now: Timestamp, slot: u32, out: &mut Outputs) {
        let session = &self.sessions[slot as usize];
        let limits = self.limits.topics();
        let shares: Vec<TopicFilter> =
            session.subscriptions.keys().filter(|filter| filter.share_name().is_some()).cloned().collect();
        let mut left = LENT_MESSAGES_MAX;
        for share in shares {
            let group = self.shared.router.group(share.as_str(), &limits);
            if group.is_some_and(|group| group.has_connected_member()) {
                left -= self.hand_back(now, slot, TakeSent::UpTo(left), Some(share.as_str()), out);
            }
            if left == 0 {
                self.timers.set(now.plus(LEND_INTERVAL), Timer::Lend(slot));
                return;
            }
        }
    }

    /// Goes on to lend, if the session is still without connection.
    pub(super) fn on_lend_timer(&mut self, now: Timestamp, slot: u32, out: &mut Outputs) {
        if self.sessions.get(slot as usize).is_some_and(|session| session.link().is_none()) {
            self.lend_shared(now, slot, out);
        }
    }

    /// Gives messages of shared subscriptions (all, or the one with this filter) that a session will not
    /// deliver to other members, where there are any. Returns how many.
    pub(super) fn hand_back(
        &mut self,
        now: Timestamp,
        slot: u32,
        sent: TakeSent,
        filter: Option<&str>,
        out: &mut Outputs,
    ) -> usize {
        let session = &mut self.sessions[slot as usize];
        let handle = session.handle.clone();
        let limits = self.limits.topics();
        let mut known: Option<(Arc<str>, Option<Arc<Group>>)> = None;
        let taken = session.outbound.take_shared(sent, filter);
        let count = taken.len();
        for (number, outgoing) in taken {
            let Some(share) = &outgoing.share else { continue };
            let (_, group) = match known.take() {
                Some((text, group)) if text == *share => known.insert((text, group)),
                Some(_) | None => known.insert((share.clone(), self.shared.router.group(share, &limits))),
            };
            let pick = |except| {
                let group = group.as_ref()?;
                group.pick(&outgoing.message, except, &self.limits)
            };
            // A session that is still a member keeps what nobody else can have.
            let member = pick(Some(&*handle)).or_else(|| pick(None));
            let is_passed = member.is_some();
            let member = member.filter(|_| !mutation::is_on(Mutation::SharedLost));
            if let Some(member) = member {
                self.pass_on(now, &outgoing.message, &member, out);
            }
            // In the same batch as the record of the other member: it is queued for one of them always.
            let published = outgoing.message.qos();
            let body = Body::Here(outgoing);
            match sent {
                // The session ends, and all that it had with it.
                TakeSent::Yes => self.settle_number(slot, number, &body),
                TakeSent::No | TakeSent::UpTo(_) => self.settle_passed(slot, number, published, &body),
            }
            if !is_passed {
                self.report_body(slot, &body, DropReason::NoMember, out);
            }
        }
        count
    }
}

/// Messages that a session without connection hands to other members of its shared subscriptions at a time: each
/// is written anew, and its shard has others to serve.
const LENT_MESSAGES_MAX: usize = 1024;

/// Time between two such times.
const LEND_INTERVAL: Duration = Duration::from_millis(100);
