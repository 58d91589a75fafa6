//! What clients may do: the rules are asked here, and their changes take effect here.
//!
//! A message that a client may not receive is dropped where it would be sent, so that a new rule holds for what
//! waits in queues too.

use std::sync::Arc;

use crate::{
    acl::{Action, Authorize, Decision, Principal, RuleId},
    session::{LinkId, Told},
    time::Timestamp,
    topic::TopicFilter,
};

use super::{Cause, Event, Outputs, Shard, Timer};

impl Shard {
    /// Asks the rules on behalf of a connected client. Who is denied is told to the log once for each rule.
    pub(super) fn decide(
        &mut self,
        id: LinkId,
        slot: u32,
        action: Action,
        topic: &str,
        out: &mut Outputs,
    ) -> Decision {
        let principal = &self.links[id.slot as usize].settings.principal;
        let client_id = &self.sessions[slot as usize].handle.client_id;
        let decision = self.shared.authorize.decide(principal, client_id, action, topic);
        if let Decision::Denied(rule) = decision {
            self.tell_denied(id, slot, action, topic, rule, out);
        }
        decision
    }

    fn tell_denied(
        &mut self,
        id: LinkId,
        slot: u32,
        action: Action,
        topic: &str,
        rule: RuleId,
        out: &mut Outputs,
    ) {
        let counters = self.counters();
        match action {
            Action::Publish { .. } => counters.denied_publishes.add(1),
            Action::Subscribe { .. } => counters.denied_subscriptions.add(1),
            Action::Receive => counters.denied_deliveries.add(1),
        }
        let link = &mut self.links[id.slot as usize];
        if link.bounds_mut().is_news(Told::of(action), rule) {
            let user = link.settings.principal.user.clone();
            let client_id = self.sessions[slot as usize].client_id().clone();
            out.events.push(Event::Denied { client_id, user, action, topic: topic.into(), rule });
        }
    }

    /// Whether a message may be sent to a client. Rules that deny nobody a message are not asked.
    pub(super) fn may_receive(&mut self, id: LinkId, slot: u32, topic: &str, out: &mut Outputs) -> bool {
        !self.is_receiving_limited(id)
            || !matches!(self.decide(id, slot, Action::Receive, topic, out), Decision::Denied(_))
    }

    /// Whether the rules may deny messages to a client.
    pub(super) fn is_receiving_limited(&self, id: LinkId) -> bool {
        self.links[id.slot as usize].bounds().is_some_and(|bounds| bounds.limits_receiving)
    }

    /// Who a client is has been decided: what follows from that for its connection. A proof that ends takes the
    /// connection with it.
    pub(super) fn bind_principal(&mut self, id: LinkId, slot: u32) {
        let client_id = &self.sessions[slot as usize].handle.client_id;
        let link = &mut self.links[id.slot as usize];
        let principal = &link.settings.principal;
        let limits_receiving = self.shared.authorize.limits_receiving(principal, client_id);
        let ends = principal.details.as_ref().and_then(|details| details.expires_at_secs);
        let ends = ends.map(|secs| Timestamp::from_millis(secs.saturating_mul(1000)));
        if !limits_receiving && ends.is_none() && link.bounds().is_none() {
            return;
        }
        let bounds = link.bounds_mut();
        bounds.limits_receiving = limits_receiving;
        let before = std::mem::replace(&mut bounds.ends, ends);
        if let Some(at) = before {
            self.timers.unset(at, Timer::Proof(id));
        }
        if let Some(at) = ends {
            self.timers.set(at, Timer::Proof(id));
        }
    }

    /// The proof of who a client is has ended.
    pub(super) fn on_proof_timer(&mut self, now: Timestamp, id: LinkId, out: &mut Outputs) {
        if let Some(bounds) = self.link_mut(id).and_then(|link| link.bounds_if_any()) {
            bounds.ends = None;
            self.close(now, id, Cause::ProofEnded, out);
        }
    }

    /// The rules have changed: subscriptions that are not allowed any more end, as by UNSUBSCRIBE.
    pub fn rules_changed(&mut self, now: Timestamp, out: &mut Outputs) {
        let ids: Vec<(LinkId, u32)> =
            self.links.iter().filter_map(|(_, link)| Some((link.id, link.session?))).collect();
        for (id, slot) in ids {
            self.bind_principal(id, slot);
            self.review_will(id, slot, out);
            self.review_subscriptions(now, id, slot, out);
        }
        self.end_turn(now, out);
    }

    /// A will that is not allowed any more is not published.
    fn review_will(&mut self, id: LinkId, slot: u32, out: &mut Outputs) {
        let Some(will) = self.sessions[slot as usize].will.clone() else { return };
        let action = Action::Publish { qos: will.message.qos(), retain: will.message.retain() };
        if let Decision::Denied(_) = self.decide(id, slot, action, will.message.topic(), out) {
            let session = &mut self.sessions[slot as usize];
            session.will = None;
            if session.handle.is_durable() {
                self.journal_session_soon(slot);
            }
        }
    }

    /// Ends the subscriptions of a connected client that its rules do not allow: they may have changed since it
    /// subscribed, and so may who it is.
    pub(super) fn review_subscriptions(&mut self, now: Timestamp, id: LinkId, slot: u32, out: &mut Outputs) {
        let session = &self.sessions[slot as usize];
        let principal = &self.links[id.slot as usize].settings.principal;
        let (denied, lowered) = reviewed(self, &*self.shared.authorize, principal, session.client_id(), slot);
        let mut gate = None;
        for (filter, subscription) in lowered {
            self.lower_subscription(id, slot, &filter, subscription);
        }
        for (filter, action, rule) in denied {
            self.tell_denied(id, slot, action, filter.pattern(), rule, out);
            self.unsubscribe(now, id, slot, filter, &mut gate, out);
        }
        self.hold(id, gate);
    }

    /// Subscriptions of connected clients that other rules would not allow: client identifier and filter.
    pub fn unallowed(&self, rules: &dyn Authorize) -> Vec<(String, String)> {
        let links = self.links.iter().filter_map(|(_, link)| Some((link, link.session?)));
        let mut found = Vec::new();
        for (link, slot) in links {
            let client_id = self.sessions[slot as usize].client_id();
            let (denied, _) = reviewed(self, rules, &link.settings.principal, client_id, slot);
            found.extend(denied.into_iter().map(|(filter, ..)| (client_id.to_string(), filter.to_string())));
        }
        found
    }

    /// Ends the connection of a client, if it has one.
    pub fn kick(&mut self, now: Timestamp, client_id: &str, cause: Cause, out: &mut Outputs) -> bool {
        let link = self.link_of_client(client_id);
        if let Some(id) = link {
            self.close(now, id, cause, out);
            self.end_turn(now, out);
        }
        link.is_some()
    }

    /// The connection of a client, if it has one.
    pub fn link_of_client(&self, client_id: &str) -> Option<LinkId> {
        self.by_client.get(client_id).and_then(|slot| self.sessions[*slot as usize].link())
    }

    /// Connected clients that a condition holds for: client identifier, principal, and where from.
    pub fn clients(&self, mut is_wanted: impl FnMut(&str, &Principal, &str) -> bool) -> Vec<Arc<str>> {
        let links = self.links.iter().filter_map(|(_, link)| Some((link, link.session?)));
        let wanted = links.filter_map(|(link, slot)| {
            let client_id = self.sessions[slot as usize].client_id();
            is_wanted(client_id, &link.settings.principal, &link.settings.peer).then(|| client_id.clone())
        });
        wanted.collect()
    }
}

type Denied = Vec<(TopicFilter, Action, RuleId)>;
type Lowered = Vec<(TopicFilter, crate::session::Subscription)>;

/// The subscriptions of a session that are not allowed, and those that are with a lower QoS.
fn reviewed(
    shard: &Shard,
    rules: &dyn Authorize,
    principal: &Principal,
    client_id: &str,
    slot: u32,
) -> (Denied, Lowered) {
    let (mut denied, mut lowered) = (Vec::new(), Vec::new());
    for (filter, subscription) in &shard.sessions[slot as usize].subscriptions {
        let action = Action::Subscribe { qos: subscription.options.qos };
        match rules.decide(principal, client_id, action, filter.pattern()) {
            Decision::Allowed => {}
            Decision::AllowedUpTo(qos) if qos >= subscription.options.qos => {}
            Decision::AllowedUpTo(qos) => {
                let mut subscription = *subscription;
                subscription.options.qos = qos;
                lowered.push((filter.clone(), subscription));
            }
            Decision::Denied(rule) => denied.push((filter.clone(), action, rule)),
        }
    }
    (denied, lowered)
}
