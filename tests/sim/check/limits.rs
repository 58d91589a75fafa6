//! Every queue within its limit.

use std::collections::{BTreeMap, BTreeSet};

use dunlin::{
    codec::QoS,
    limits::{Limits, Overflow},
    session::Session,
};

use super::{super::broker::Rules, Broker, Check, Event, Facts};

pub(super) struct Limited {
    rules: Rules,
    /// PUBLISH packets that their senders had no answer to: each may have been queued though there was no room.
    unanswered: BTreeMap<usize, usize>,
    /// Sessions that were connected since all queues together were last within their limit: whoever can take a
    /// message at once gets it.
    excused: BTreeSet<String>,
    /// What is left of what each session had when the broker started: of what was freed before a crash, some may be
    /// there again.
    restored: BTreeMap<String, usize>,
    has_started: bool,
}

/// Bytes that an outbox may be over its limit by: the answers to what was read in one go.
const SLACK_BYTES: usize = 64 * 1024;

impl Limited {
    pub(super) fn new(rules: &Rules) -> Limited {
        Limited {
            rules: rules.clone(),
            unanswered: BTreeMap::new(),
            excused: BTreeSet::new(),
            restored: BTreeMap::new(),
            has_started: false,
        }
    }

    /// Takes note of what is left in the queues since the last start.
    fn count_restored(&mut self, broker: &Broker) {
        let now = broker.shards().flat_map(|shard| shard.sessions());
        let now = now.map(|session| (session.client_id().to_string(), session.handle.queued_messages()));
        if std::mem::take(&mut self.has_started) {
            self.restored = now.collect();
            return;
        }
        for (client_id, queued) in now {
            self.restored.entry(client_id).and_modify(|restored| *restored = queued.min(*restored));
        }
    }

    fn restored(&self, session: &Session) -> usize {
        self.restored.get(&**session.client_id()).copied().unwrap_or(0)
    }

    /// Messages that queues may be over their limit by while publishers wait, as this policy has it.
    fn withheld(&self, overflow: Overflow) -> usize {
        match overflow {
            Overflow::Backpressure => self.unanswered.values().sum(),
            Overflow::Reject | Overflow::DropOldest | Overflow::DropNewest => 0,
        }
    }

    /// The queue of one session.
    fn check_queue(&self, session: &Session, facts: &Facts) -> Result<(), String> {
        let limits = &self.rules.limits;
        let queued = session.handle.queued_messages();
        // What would be dropped first is being read, and more comes meanwhile.
        if limits.session_queue_overflow == Overflow::DropOldest && session.outbound.is_fetching() {
            return Ok(());
        }
        let (shedding, _) = session.outbound.shedding();
        let allowed = limits.session_queue_messages_max.max(self.restored(session))
            + self.withheld(limits.session_queue_overflow)
            + kept(session, limits.session_queue_overflow)
            + shedding
            + extra(session, limits, facts);
        match queued > allowed {
            true => Err(format!("{queued} messages are queued for {}, of {allowed}", session.client_id())),
            false => Ok(()),
        }
    }

    /// The queues of all sessions together.
    fn check_queues(&mut self, broker: &Broker, facts: &Facts) -> Result<(), String> {
        let limits = &self.rules.limits;
        if broker.shared.queued_messages() < limits.queues_messages_max {
            self.excused.clear();
        }
        self.excused.extend(broker.links.values().map(|joined| joined.client_id.clone()));
        let (mut queued, mut restored) = (0, 0);
        // Each of them may be queued for everybody.
        let mut allowed = self.withheld(limits.queues_overflow) * facts.clients.len();
        let sessions = broker.shards().flat_map(|shard| shard.sessions());
        for session in sessions.filter(|session| !self.excused.contains(&**session.client_id())) {
            if limits.queues_overflow == Overflow::DropOldest && session.outbound.is_fetching() {
                return Ok(());
            }
            queued += session.handle.queued_messages();
            restored += self.restored(session);
            allowed += session.outbound.shedding().0
                + kept(session, limits.queues_overflow)
                + extra(session, limits, facts);
        }
        allowed += limits.queues_messages_max.max(restored);
        match queued > allowed {
            true => Err(format!("{queued} messages are queued for all who are away, of {allowed}")),
            false => Ok(()),
        }
    }
}

/// What is not dropped to make room: what was sent, what is still on its way to the session, and the newest.
fn kept(session: &Session, overflow: Overflow) -> usize {
    let outbound = &session.outbound;
    let arrived = outbound.queued() + outbound.unacknowledged();
    let under_way = session.handle.queued_messages().saturating_sub(arrived);
    match overflow {
        Overflow::DropOldest => (outbound.sent_below() - outbound.base()) as usize + under_way + 1,
        Overflow::Reject | Overflow::DropNewest | Overflow::Backpressure => 0,
    }
}

/// What else may be in a queue.
fn extra(session: &Session, limits: &Limits, facts: &Facts) -> usize {
    // Retained messages, one of each client at most, come whether there is room or not.
    let replayed = facts.clients.len();
    // A shared subscription hands over what was accepted before, to whoever is left.
    let members = || facts.clients.iter().filter(|known| known.is_member);
    match members().any(|member| *member.id == **session.client_id()) {
        true => replayed + members().count() * limits.session_queue_messages_max,
        false => replayed,
    }
}

impl Check for Limited {
    fn name(&self) -> &'static str {
        "limits"
    }

    fn event(&mut self, event: &Event, facts: &Facts) -> Result<(), String> {
        match event {
            Event::Sent { message, .. } if facts.messages[*message].qos > QoS::AtMostOnce => {
                *self.unanswered.entry(*message).or_default() += 1;
            }
            Event::Accepted { message } | Event::Refused { message } => {
                if let Some(unanswered) = self.unanswered.get_mut(message) {
                    *unanswered = unanswered.saturating_sub(1);
                }
            }
            Event::Opened { client, .. } => drop(self.excused.insert(facts.clients[*client].id.clone())),
            Event::Started => self.has_started = true,
            _ => {}
        }
        Ok(())
    }

    fn look(&mut self, broker: &Broker, facts: &Facts) -> Result<(), String> {
        self.count_restored(broker);
        let limits = &self.rules.limits;
        for session in broker.shards().flat_map(|shard| shard.sessions()) {
            self.check_queue(session, facts)?;
        }
        for ((shard, link), joined) in &broker.links {
            let bytes = broker.nodes[*shard].shard.link(*link).map_or(0, |link| link.outbox.len());
            if bytes > limits.outbox_bytes_max + SLACK_BYTES {
                return Err(format!("{bytes} bytes wait for the socket of {}", joined.client_id));
            }
        }
        if broker.shared.retained.messages() > limits.retained_messages_max {
            return Err("too many messages are retained".into());
        }
        self.check_queues(broker, facts)
    }
}
