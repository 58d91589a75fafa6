//! Each message for a shared subscription reaches a member, and with QoS 2 not a second one; none is lost when a
//! member leaves. `[MQTT-4.8.2-4]` `[MQTT-4.8.2-5]`

use std::collections::{BTreeMap, BTreeSet};

use dunlin::{broker::DropReason, codec::QoS};

use super::{super::broker::Rules, Check, Client, Event, Facts, acknowledged};

pub(super) struct SharedOnce {
    reasons: Vec<DropReason>,
    required: BTreeSet<usize>,
    /// Which clients got each message, and with what QoS.
    seen: BTreeMap<usize, BTreeSet<(usize, QoS)>>,
}

impl SharedOnce {
    pub(super) fn new(rules: &Rules) -> SharedOnce {
        let mut reasons = acknowledged::excuses(rules);
        reasons.extend([DropReason::NoMember, DropReason::SessionEnded]);
        SharedOnce { reasons, required: BTreeSet::new(), seen: BTreeMap::new() }
    }
}

impl Check for SharedOnce {
    fn name(&self) -> &'static str {
        "shared"
    }

    fn event(&mut self, event: &Event, facts: &Facts) -> Result<(), String> {
        match event {
            Event::Accepted { message: number } => {
                let message = &facts.messages[*number];
                let (Some((sent, _)), Some((accepted, _))) = (message.sent, message.accepted) else {
                    return Ok(());
                };
                let there = facts.clients.iter().filter(|known| !known.may_have_expired(facts.now));
                let has_member = there.flat_map(|known| &known.interests).any(|interest| {
                    interest.is_shared()
                        && interest.matches(&message.topic)
                        && interest.is_certain(sent, accepted)
                });
                if has_member && !message.is_denied {
                    self.required.insert(*number);
                }
            }
            Event::Delivered(delivered) => {
                let Some(number) = delivered.message else { return Ok(()) };
                let interests = &facts.clients[delivered.client].interests;
                if !interests.iter().any(|interest| interest.is_shared()) {
                    return Ok(());
                }
                let members = self.seen.entry(number).or_default();
                members.insert((delivered.client, delivered.qos));
                let once = members.iter().filter(|(_, qos)| *qos == QoS::ExactlyOnce).count();
                if once > 1 {
                    return Err(format!("message {number} was delivered to two members"));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, facts: &Facts, clients: &[Client]) -> Result<(), String> {
        let lost: Vec<&usize> =
            self.required.iter().filter(|number| !self.seen.contains_key(*number)).collect();
        let members = clients.iter().map(|client| client.id.as_str()).chain([""]);
        let reported: u64 = members.map(|id| facts.dropped(id, &self.reasons)).sum();
        if lost.len() as u64 > reported {
            return Err(format!("no member got {lost:?}, and {reported} are reported as dropped"));
        }
        Ok(())
    }
}
