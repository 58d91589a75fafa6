//! Rates of clients, users and addresses: who sends more is read more slowly, and refused where that would take too
//! long; who would get more waits for it, and loses QoS 0.

use crate::{
    codec::{Publish, ReasonCode},
    session::{Link, LinkId},
    time::Timestamp,
};

use super::{Outputs, Shard, Strain, Timer, publish::Fault};

/// The longest time in milliseconds for which a connection is not read because more came than may. A message
/// that would take longer is refused: a client that hears nothing for so long would take the broker for dead.
const HELD_MILLIS_MAX: u64 = 5_000;

impl Shard {
    /// Counts a PUBLISH against the rates of its client, and holds the connection if it is beyond them.
    pub(super) fn check_rate(
        &mut self,
        now: Timestamp,
        id: LinkId,
        publish: &Publish<'_>,
    ) -> Result<(), Fault> {
        if publish.delivery.packet_id().is_some() && self.shared.strain.level() == Strain::Messages {
            let why = "the broker has no memory left for more messages";
            return Err(Fault { code: ReasonCode::QuotaExceeded, why });
        }
        let Some(bounds) = self.links[id.slot as usize].bounds_if_any() else { return Ok(()) };
        if bounds.allowances.is_empty() {
            return Ok(());
        }
        let bytes = publish.topic.len() + publish.payload.len();
        let wait = bounds.wait_in(now, bytes);
        if wait > HELD_MILLIS_MAX {
            self.counters().rate_refusals.add(1);
            let code = match publish.delivery.packet_id() {
                Some(_) => ReasonCode::QuotaExceeded,
                None => ReasonCode::MessageRateTooHigh,
            };
            return Err(Fault { code, why: "more messages or bytes than the rate allows" });
        }
        for allowance in &bounds.allowances {
            allowance.charge_in(now, bytes);
        }
        if wait > 0 && bounds.held_until.is_none() {
            let until = Timestamp::from_millis(now.as_millis() + wait);
            bounds.held_until = Some(until);
            self.timers.set(until, Timer::Pace(id));
            self.counters().rate_holds.add(1);
        }
        Ok(())
    }

    /// Whether another message may go to a client now. If not, its time is set.
    pub(super) fn may_send(&mut self, now: Timestamp, id: LinkId) -> bool {
        let Some(bounds) = self.links[id.slot as usize].bounds_if_any() else { return true };
        if bounds.paced_until.is_some() {
            return false;
        }
        let wait = bounds.wait_out(now);
        if wait > 0 {
            let until = Timestamp::from_millis(now.as_millis() + wait);
            bounds.paced_until = Some(until);
            self.timers.set(until, Timer::Pace(id));
        }
        wait == 0
    }

    /// A message goes to a client.
    pub(super) fn charge_sent(&mut self, now: Timestamp, id: LinkId, bytes: usize) {
        if let Some(bounds) = self.links[id.slot as usize].bounds() {
            for allowance in &bounds.allowances {
                allowance.charge_out(now, bytes);
            }
        }
    }

    pub(super) fn on_pace_timer(&mut self, now: Timestamp, id: LinkId, out: &mut Outputs) {
        let Some(link) = self.link_mut(id) else { return };
        let slot = link.session;
        let Some(bounds) = link.bounds_if_any() else { return };
        let is_over = |until: &mut Timestamp| *until <= now;
        let (held, paced) = (bounds.held_until.take_if(is_over), bounds.paced_until.take_if(is_over));
        if held.is_some() {
            // Nothing could be heard of it meanwhile.
            link.last_seen = now;
            out.touch(id);
        }
        if let (Some(_), Some(slot)) = (paced, slot) {
            self.pump(now, slot, out);
        }
    }

    /// Whether a link is not read for the sake of a rate.
    pub(super) fn is_paced(&self, id: LinkId) -> bool {
        self.link(id).is_some_and(is_held)
    }

    /// A link has ended: its timers are nobody's any more.
    pub(super) fn forget_bounds(&mut self, id: LinkId) {
        let Some(bounds) = self.link_mut(id).and_then(Link::bounds_if_any) else { return };
        let (ends, held, paced) = (bounds.ends.take(), bounds.held_until.take(), bounds.paced_until.take());
        if let Some(at) = ends {
            self.timers.unset(at, Timer::Proof(id));
        }
        for at in [held, paced].into_iter().flatten() {
            self.timers.unset(at, Timer::Pace(id));
        }
    }
}

/// Whether a link is not read for the sake of a rate.
pub(super) fn is_held(link: &Link) -> bool {
    link.bounds().is_some_and(|bounds| bounds.held_until.is_some())
}
