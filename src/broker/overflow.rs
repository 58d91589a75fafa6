//! What happens when there is no room: in the queue of a session, in all queues together, on the disk.
//!
//! A publisher's shard decides before it accepts a message (`check_room`, `verdict`); what is dropped is
//! counted by the shard of the session that loses it (`shed`, `drop_unnumbered`). With
//! [`Overflow::Backpressure`] acknowledgements wait here for room. Those of one connection keep their order;
//! PUBREL and PUBCOMP do not wait behind them, for what they answer makes room.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use crate::{
    codec::{QoS, ReasonCode},
    limits::{Limits, Overflow},
    message::Message,
    mutation::{self, Mutation},
    session::{Body, Fetch, Fetched, LinkId, Presence, Request, Session, SessionHandle, Shed, Wanted},
    time::Timestamp,
};

use super::{
    DropReason, Outputs, Shard, Timer,
    acknowledge::{AckDue, AckKind},
    publish::{Fault, Origin, for_publisher},
    router::{Target, has_room},
};

/// Acknowledgements of one link that wait for room in queues, in order.
#[derive(Debug)]
pub(super) struct Withholding {
    acks: VecDeque<Withheld>,
    /// When its timer is due.
    at: Timestamp,
}

#[derive(Debug)]
struct Withheld {
    due: AckDue,
    gate: Option<u64>,
    /// The sessions whose queues have to have room first.
    full: Vec<Arc<SessionHandle>>,
}

/// What becomes of a message for one target. The worst of several holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    /// It is queued.
    Take,
    /// It is queued, and its publisher waits.
    Withhold,
    /// It is dropped.
    Drop,
    /// It is not accepted at all, for this reason.
    Refuse(&'static str),
}

/// Time between two looks for room for what is withheld.
const WITHHELD_INTERVAL: Duration = Duration::from_millis(20);

/// Messages, and bytes, that a queue with backpressure may be over its limit, or as many as its limit if that
/// is more: publishers that come again on new connections must not fill it without end.
const SLACK_MESSAGES: usize = 65_536;
const SLACK_BYTES: usize = 64 * 1024 * 1024;

/// The ticket of messages that are fetched to be dropped: requests for messages to be sent have others.
pub(super) const SHED: u64 = 0;

/// Why a publisher, a session or a subscription is refused while the disk is full.
pub(super) const STORE_FULL: &str = "the disk of the broker is full";

/// In place of the number of a target: its queue has no room.
pub(super) const NO_ROOM: u64 = u64::MAX - 1;
/// In place of the number of a target: the disk has no room.
pub(super) const NO_DISK: u64 = u64::MAX - 2;

/// Why a target has no number, if it stands for a reason.
pub(super) fn given_up(number: u64) -> Option<DropReason> {
    match number {
        NO_ROOM => Some(DropReason::QueueFull),
        NO_DISK => Some(DropReason::StoreFull),
        _ => None,
    }
}

/// Whether the queue of a session is beyond its limits.
pub(super) fn is_over(session: &SessionHandle, limits: &Limits) -> bool {
    session.queued_messages() > limits.session_queue_messages_max
        || session.queued_bytes() > limits.session_queue_bytes_max
}

/// Whether a queue is so far beyond its limits that publishers do not wait for it any more.
fn is_swamped(messages: usize, messages_max: usize, bytes: usize, bytes_max: usize) -> bool {
    messages >= messages_max.saturating_add(messages_max.max(SLACK_MESSAGES))
        || bytes >= bytes_max.saturating_add(bytes_max.max(SLACK_BYTES))
}

fn verdict_of(policy: Overflow, is_swamped: bool, why: &'static str) -> Verdict {
    match policy {
        Overflow::Backpressure if is_swamped => Verdict::Refuse(why),
        Overflow::Backpressure => Verdict::Withhold,
        Overflow::Reject => Verdict::Refuse(why),
        // Its owner makes room.
        Overflow::DropOldest => Verdict::Take,
        Overflow::DropNewest => Verdict::Drop,
    }
}

impl Shard {
    /// Whether a client's message can be taken: what is acknowledged is not dropped afterwards, unless that
    /// is what was asked for.
    pub(super) fn check_room<'a>(
        &self,
        message: &Message,
        targets: impl Iterator<Item = &'a Target>,
        origin: Origin,
    ) -> Result<(), Fault> {
        let Origin::Client { received, .. } = origin else { return Ok(()) };
        if message.qos() == QoS::AtMostOnce {
            return Ok(());
        }
        let is_crowded = self.is_crowded(message);
        let mut needs_store = message.retain() || received.is_some();
        for target in targets.filter_map(|target| for_publisher(target, message)) {
            needs_store |= target.qos > QoS::AtMostOnce && target.session.is_durable();
            if let Verdict::Refuse(why) = self.verdict(target, message, is_crowded) {
                return Err(Fault { code: ReasonCode::QuotaExceeded, why });
            }
        }
        if needs_store && self.shared.is_store_full() {
            self.counters().store_refusals.add(1);
            return Err(Fault { code: ReasonCode::QuotaExceeded, why: STORE_FULL });
        }
        Ok(())
    }

    /// Whether all queues together have no room for one more message.
    pub(super) fn is_crowded(&self, message: &Message) -> bool {
        if mutation::is_on(Mutation::QueuesUnbounded) {
            return false;
        }
        let limits = &self.limits;
        self.shared.queued_messages() >= limits.queues_messages_max
            || self.shared.queued_bytes().saturating_add(message.size_bytes()) > limits.queues_bytes_max
    }

    /// What becomes of a QoS 1 or 2 message for a target.
    pub(super) fn verdict(&self, target: &Target, message: &Message, is_crowded: bool) -> Verdict {
        let limits = &self.limits;
        let session = &target.session;
        if target.qos == QoS::AtMostOnce {
            return Verdict::Take;
        }
        let mut verdict = Verdict::Take;
        let policy = limits.session_queue_overflow;
        // A session that ends with its connection refuses nobody: its connection is closed instead.
        let has_say = session.is_durable() || policy != Overflow::Reject;
        let has_room = || has_room(session, message, limits) || mutation::is_on(Mutation::QueueUnbounded);
        if has_say && !has_room() {
            let is_swamped = is_swamped(
                session.queued_messages(),
                limits.session_queue_messages_max,
                session.queued_bytes(),
                limits.session_queue_bytes_max,
            );
            verdict = verdict_of(policy, is_swamped, "the queue of a subscriber is full");
        }
        // Who can take it at once is not held up by those who cannot.
        if is_crowded && session.presence() != Presence::Ready {
            let is_swamped = is_swamped(
                self.shared.queued_messages(),
                limits.queues_messages_max,
                self.shared.queued_bytes(),
                limits.queues_bytes_max,
            );
            let why = "the queues of all subscribers together are full";
            verdict = verdict.max(verdict_of(limits.queues_overflow, is_swamped, why));
        }
        verdict
    }

    /// A delivery that was accepted and has no number, for this reason.
    pub(super) fn drop_unnumbered(
        &mut self,
        target: &Target,
        message: &Message,
        reason: DropReason,
        slot: Option<u32>,
        out: &mut Outputs,
    ) {
        let (share, topic) = (target.share.as_deref(), message.topic());
        self.trace_lost(&target.session.client_id, message, reason, out);
        match slot {
            Some(slot) => {
                self.count_drop(slot, topic, share, reason);
                self.log_drop(slot, topic, reason, out);
            }
            None => {
                self.count_drop_of(&target.session.client_id, share.unwrap_or_default(), topic, reason);
            }
        }
    }

    /// Drops the oldest messages of a session that were never sent, as far as limits ask for it.
    pub(super) fn shed(&mut self, slot: u32, out: &mut Outputs) {
        let mut wanted = Vec::new();
        while self.is_to_shed(slot) {
            match self.sessions[slot as usize].outbound.shed() {
                None => {
                    self.fetch_run(slot, out);
                    break;
                }
                Some(Shed::Here(number, outgoing)) => {
                    let body = Body::Here(outgoing);
                    self.settle_number(slot, number, &body);
                    self.report_body(slot, &body, DropReason::QueueFull, out);
                }
                // It is read first: it must be told what is dropped.
                Some(Shed::Stored(message)) => wanted.push((message.number, message.record)),
            }
        }
        if !wanted.is_empty() {
            let session = self.sessions[slot as usize].handle.id;
            out.fetches.push(Fetch { slot, session, ticket: SHED, wanted: Wanted::Messages(wanted) });
        }
    }

    /// The store has read messages that are to be dropped.
    pub(super) fn drop_shed(&mut self, slot: u32, fetched: Fetched, out: &mut Outputs) {
        for (number, outgoing) in fetched.found.into_messages() {
            let Some(stored) = self.sessions[slot as usize].outbound.take_shed(number) else { continue };
            let body = Body::Stored(stored);
            self.settle_number(slot, number, &body);
            match outgoing {
                Some(outgoing) => self.report_drop(slot, &outgoing, DropReason::QueueFull, out),
                None => self.report_body(slot, &body, DropReason::Lost, out),
            }
        }
    }

    /// Asks for the oldest messages of a session, if their references are in the store too.
    fn fetch_run(&mut self, slot: u32, out: &mut Outputs) {
        let Session { outbound, handle, .. } = &mut self.sessions[slot as usize];
        if let Some(Request { ticket, wanted }) = outbound.request_run() {
            out.fetches.push(Fetch { slot, session: handle.id, ticket, wanted });
        }
    }

    fn is_to_shed(&self, slot: u32) -> bool {
        let limits = &self.limits;
        let sheds = |policy| policy == Overflow::DropOldest;
        let Session { handle, outbound, .. } = &self.sessions[slot as usize];
        // What is on its way out counts no more.
        let (messages, bytes) = outbound.shedding();
        let is_over = handle.queued_messages() - messages > limits.session_queue_messages_max
            || handle.queued_bytes() - bytes > limits.session_queue_bytes_max;
        let are_over = self.shared.queued_messages() - messages > limits.queues_messages_max
            || self.shared.queued_bytes() - bytes > limits.queues_bytes_max;
        let is_due =
            (sheds(limits.session_queue_overflow) && is_over) || (sheds(limits.queues_overflow) && are_over);
        is_due && !mutation::is_on(Mutation::OldestKept)
    }

    fn are_queues_over(&self) -> bool {
        let limits = &self.limits;
        self.shared.queued_messages() > limits.queues_messages_max
            || self.shared.queued_bytes() > limits.queues_bytes_max
    }

    /// Answers a PUBLISH: at once, or when the queues that are full have room and all that was withheld
    /// before has left. `[MQTT-4.6.0-2]` `[MQTT-4.6.0-3]`
    pub(super) fn answer_publish(
        &mut self,
        now: Timestamp,
        id: LinkId,
        due: AckDue,
        gate: Option<u64>,
        full: Vec<Arc<SessionHandle>>,
        out: &mut Outputs,
    ) {
        if full.is_empty() && !self.withheld.contains_key(&id) {
            self.acknowledge(id, due, gate, out);
            return;
        }
        self.counters().acks_withheld.add(1);
        if due.kind == AckKind::PubAck {
            self.links[id.slot as usize].unacknowledged += 1;
        }
        let at = now.plus(WITHHELD_INTERVAL);
        let withholding = self.withheld.entry(id).or_insert_with(|| {
            self.timers.set(at, Timer::Withheld(id));
            Withholding { acks: VecDeque::new(), at }
        });
        withholding.acks.push_back(Withheld { due, gate, full });
    }

    /// Lets go what was withheld on a link, as far as there is room.
    pub(super) fn on_withheld_timer(&mut self, now: Timestamp, id: LinkId, out: &mut Outputs) {
        let Some(mut withholding) = self.withheld.remove(&id) else { return };
        while withholding.acks.front().is_some_and(|first| self.has_room_again(&first.full)) {
            let Some(Withheld { due, gate, .. }) = withholding.acks.pop_front() else { break };
            if due.kind == AckKind::PubAck {
                self.links[id.slot as usize].unacknowledged -= 1;
            }
            self.acknowledge(id, due, gate, out);
            // The connection may be read again.
            out.touch(id);
        }
        if !withholding.acks.is_empty() {
            withholding.at = now.plus(WITHHELD_INTERVAL);
            self.timers.set(withholding.at, Timer::Withheld(id));
            self.withheld.insert(id, withholding);
        }
    }

    /// Whether each of these queues has room, or is empty. All queues together count where publishers wait
    /// for them. That of a session that has ended is empty.
    fn has_room_again(&self, full: &[Arc<SessionHandle>]) -> bool {
        let limits = &self.limits;
        let are_crowded = limits.queues_overflow == Overflow::Backpressure && self.are_queues_over();
        full.iter()
            .all(|session| session.queued_messages() == 0 || !(are_crowded || is_over(session, limits)))
    }

    /// Acknowledgements that are withheld on a link.
    pub(super) fn withheld(&self, id: LinkId) -> usize {
        self.withheld.get(&id).map_or(0, |withholding| withholding.acks.len())
    }

    /// Whether a link is not read for all that is withheld on it. The Receive Maximum stops an MQTT 5 client.
    /// A client that owes acknowledgements of its own is read all the same: they may be what makes room.
    pub(super) fn is_held_off(&self, id: LinkId) -> bool {
        if !self.has_withheld_enough(id) {
            return false;
        }
        let Some(link) = self.link(id) else { return false };
        let owes = link.session.is_some_and(|slot| self.sessions[slot as usize].outbound.inflight() > 0);
        !link.settings.version.is_v5() && !owes
    }

    /// Whether as many acknowledgements are withheld on a link as it may wait for.
    pub(super) fn has_withheld_enough(&self, id: LinkId) -> bool {
        self.withheld(id) >= usize::from(self.limits.receive_maximum)
    }

    /// A link has ended: what was withheld on it is nobody's any more.
    pub(super) fn forget_withheld(&mut self, id: LinkId) {
        if let Some(withholding) = self.withheld.remove(&id) {
            self.timers.unset(withholding.at, Timer::Withheld(id));
        }
    }
}
