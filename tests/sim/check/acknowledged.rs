//! No acknowledged message is lost: whoever was subscribed when it was published, and still was when that was
//! acknowledged, gets it, or its loss is reported.

use std::collections::{BTreeMap, BTreeSet};

use dunlin::{broker::DropReason, codec::QoS};

use super::{super::broker::Rules, Check, Client, Event, Facts};

/// Sessions by client and epoch.
type Session = (usize, u64);

/// Messages that may be under way inside the broker when it crashes.
const UNDER_WAY: u64 = 16;

pub(super) struct Acknowledged {
    /// Whether full queues drop messages.
    may_drop: bool,
    /// Reasons that a loss may be reported with.
    reasons: Vec<DropReason>,
    required: BTreeMap<Session, BTreeSet<usize>>,
    seen: BTreeMap<Session, BTreeSet<usize>>,
}

impl Acknowledged {
    pub(super) fn new(rules: &Rules) -> Acknowledged {
        Acknowledged {
            may_drop: rules.may_drop(),
            reasons: excuses(rules),
            required: BTreeMap::new(),
            seen: BTreeMap::new(),
        }
    }
}

/// Why a message that was accepted may be dropped.
pub(super) fn excuses(rules: &Rules) -> Vec<DropReason> {
    let mut reasons = vec![DropReason::Expired, DropReason::TooLarge, DropReason::StoreFull];
    if rules.may_drop() {
        reasons.push(DropReason::QueueFull);
    }
    reasons
}

impl Check for Acknowledged {
    fn name(&self) -> &'static str {
        "acknowledged"
    }

    fn event(&mut self, event: &Event, facts: &Facts) -> Result<(), String> {
        match event {
            Event::Accepted { message: number } => {
                let message = &facts.messages[*number];
                let (Some((sent, _)), Some((accepted, _))) = (message.sent, message.accepted) else {
                    return Err(format!("message {number} was accepted and never sent"));
                };
                // An empty payload has no name to know it by.
                if accepted != facts.step || message.is_denied || message.payload.is_empty() {
                    return Ok(());
                }
                for (client, known) in facts.clients.iter().enumerate() {
                    let is_owed = known.interests.iter().any(|interest| {
                        interest.qos > QoS::AtMostOnce
                            && !interest.is_shared()
                            && !(interest.no_local && client == message.publisher)
                            && interest.matches(&message.topic)
                            && interest.is_certain(sent, accepted)
                    });
                    if is_owed {
                        self.required.entry((client, known.epoch)).or_default().insert(*number);
                    }
                }
            }
            Event::Delivered(delivered) => {
                if let Some(message) = delivered.message {
                    let session = (delivered.client, facts.epochs[delivered.wire]);
                    self.seen.entry(session).or_default().insert(message);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, facts: &Facts, clients: &[Client]) -> Result<(), String> {
        for ((client, epoch), required) in &self.required {
            // What a session that has ended did not deliver is lost by the client's own will.
            if facts.clients[*client].epoch != *epoch {
                continue;
            }
            let seen = self.seen.get(&(*client, *epoch)).cloned().unwrap_or_default();
            let lost: Vec<&usize> = required.difference(&seen).collect();
            let id = &clients[*client].id;
            let reported = facts.dropped(id, &self.reasons);
            // What a full queue drops is counted when it is delivered to the others, which a crash may prevent.
            let uncounted = if self.may_drop { facts.crashes * UNDER_WAY } else { 0 };
            if lost.len() as u64 > reported + uncounted {
                return Err(format!("{id} never got {lost:?}, and {reported} are reported as dropped"));
            }
        }
        Ok(())
    }
}
