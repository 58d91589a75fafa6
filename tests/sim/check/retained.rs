//! Retained = the last message that was published with RETAIN: a new subscriber gets it and nothing older, and the
//! last that any subscriber gets is the newest. `[MQTT-3.3.1-5]` `[MQTT-3.3.1-6]`

use std::collections::{BTreeMap, BTreeSet};

use dunlin::codec::QoS;

use super::{super::features::Feature, Check, Client, Event, Facts, Features};

/// The client that subscribes at the end of a run to learn what is retained.
pub(crate) const PROBE: &str = "probe";

pub(super) struct Retained {
    /// While the disk is full, a QoS 0 message removes what was retained and is not kept itself.
    may_vanish: bool,
    /// What was sent to each topic, in order.
    sent: BTreeMap<String, Vec<usize>>,
    /// The last that each session got of each topic.
    last: BTreeMap<(usize, u64, String), Option<usize>>,
    /// Where something was sent again.
    unsure: BTreeSet<(usize, u64, String)>,
}

impl Retained {
    pub(super) fn new(features: Features) -> Retained {
        Retained {
            may_vanish: features.has(Feature::DiskFull),
            sent: BTreeMap::new(),
            last: BTreeMap::new(),
            unsure: BTreeSet::new(),
        }
    }

    /// What may be retained: the last that was accepted, and what was sent later and nobody knows of.
    fn possible(&self, topic: &str, facts: &Facts) -> Vec<Option<usize>> {
        let mut possible = Vec::new();
        for number in self.sent.get(topic).into_iter().flatten().rev() {
            let message = &facts.messages[*number];
            // What was sent again and refused may have been accepted when it was sent first.
            if message.is_denied || (message.is_refused && !message.is_repeated) {
                continue;
            }
            let is_kept = !message.payload.is_empty();
            possible.push(is_kept.then_some(*number));
            let may_expire = message.expiry_secs.is_some();
            if may_expire || self.may_vanish && message.qos == QoS::AtMostOnce {
                possible.push(None);
            }
            // What was sent again counts from one of these times: what was sent between them may be later.
            if message.accepted.is_some() && !message.is_repeated {
                return possible;
            }
        }
        possible.push(None);
        possible
    }
}

impl Check for Retained {
    fn name(&self) -> &'static str {
        "retained"
    }

    fn event(&mut self, event: &Event, facts: &Facts) -> Result<(), String> {
        match event {
            Event::Sent { message: number, .. } => {
                let message = &facts.messages[*number];
                if message.retain {
                    // What is sent again may count as sent then.
                    self.sent.entry(message.topic.clone()).or_default().push(*number);
                }
            }
            Event::Delivered(delivered) if delivered.topic.starts_with("r/") => {
                let key = (delivered.client, facts.epochs[delivered.wire], delivered.topic.clone());
                // What is sent again may be older than what came since.
                if delivered.dup {
                    self.unsure.insert(key.clone());
                }
                self.last.insert(key, delivered.message);
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, facts: &Facts, clients: &[Client]) -> Result<(), String> {
        let Some(probe) = clients.iter().position(|client| client.id == PROBE) else { return Ok(()) };
        let epoch = facts.clients[probe].epoch;
        for topic in self.sent.keys() {
            let found = self.last.get(&(probe, epoch, topic.clone())).copied().flatten();
            let possible = self.possible(topic, facts);
            if !possible.contains(&found) {
                return Err(format!("{found:?} is retained on {topic}, not one of {possible:?}"));
            }
        }
        for ((client, epoch, topic), last) in &self.last {
            let known = &facts.clients[*client];
            let possible = self.possible(topic, facts);
            // With QoS 1 and 2 all the way the newest reaches everybody who is there for it.
            let is_sure = known.epoch == *epoch
                && !self.unsure.contains(&(*client, *epoch, topic.clone()))
                && possible.len() == 1
                && self.sent[topic].last().is_some_and(|number| {
                    let message = &facts.messages[*number];
                    let (Some((sent, _)), Some((accepted, _))) = (message.sent, message.accepted) else {
                        return false;
                    };
                    message.qos > QoS::AtMostOnce
                        && !message.is_repeated
                        && known.interests.iter().any(|interest| {
                            interest.matches(topic)
                                && interest.qos > QoS::AtMostOnce
                                && !interest.no_local
                                && interest.is_certain(sent, accepted)
                        })
                });
            if is_sure && facts.dropped.is_empty() && !possible.contains(last) {
                return Err(format!(
                    "the last that client {client} got of {topic} is {last:?}, not {possible:?}"
                ));
            }
        }
        Ok(())
    }
}
