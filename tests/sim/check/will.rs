//! A will is published at most once, never after DISCONNECT with reason code 0x00, and always otherwise, unless its
//! session goes on before its delay has passed. `[MQTT-3.1.2-8]` `[MQTT-3.1.2-10]` `[MQTT-3.1.3-9]`

use std::collections::{BTreeMap, BTreeSet};

use dunlin::{broker::DropReason, codec::QoS};

use super::{
    super::{broker::Rules, event::Will},
    Check, Client, Event, Facts, acknowledged,
};

/// What has to become of a will.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// Its connection is there, and its client knows or does not.
    Armed { expiry_secs: u32, delay_secs: u32, is_known: bool },
    /// Its connection is not. It is published at this moment unless the session goes on before.
    Pending { due_at: u64 },
    /// It must have been published.
    Published,
    /// It must not be.
    Revoked,
    /// Nobody can tell.
    Unsure,
}

pub(super) struct Wills {
    reasons: Vec<DropReason>,
    /// By message: the client, the fate, and since when it is that.
    fates: BTreeMap<usize, (usize, Fate, u64)>,
    crashed_at: Option<u64>,
    /// Since when the observer is subscribed to them.
    observed_since: Option<u64>,
    /// What the observer has received, and whether it was marked as sent before.
    seen: BTreeMap<usize, usize>,
}

impl Wills {
    pub(super) fn new(rules: &Rules) -> Wills {
        // A will cannot be refused: where there is no room for it, it is dropped, whatever the policy.
        let mut reasons = acknowledged::excuses(rules);
        reasons.push(DropReason::QueueFull);
        reasons.dedup();
        Wills {
            reasons,
            fates: BTreeMap::new(),
            crashed_at: None,
            observed_since: None,
            seen: BTreeMap::new(),
        }
    }

    fn set(&mut self, message: usize, client: usize, fate: Fate, now: u64) {
        self.fates.insert(message, (client, fate, now));
    }

    /// A new connection of a client: what waits is given up, or was published.
    fn on_opened(&mut self, client: usize, present: bool, now: u64) {
        for (owner, fate, since) in self.fates.values_mut().filter(|(owner, ..)| *owner == client) {
            let Fate::Pending { due_at } = *fate else { continue };
            debug_assert_eq!(*owner, client);
            // At the very moment, either may come first.
            *fate = match present {
                _ if now == due_at => Fate::Unsure,
                true if now < due_at => Fate::Revoked,
                true | false => Fate::Published,
            };
            *since = due_at.min(now);
        }
    }

    fn on_closed(&mut self, client: usize, is_revoked: bool, now: u64) {
        for (_, fate, since) in self.fates.values_mut().filter(|(owner, ..)| *owner == client) {
            let Fate::Armed { expiry_secs, delay_secs, .. } = *fate else { continue };
            *fate = match is_revoked {
                true => Fate::Revoked,
                false => Fate::Pending { due_at: now + u64::from(expiry_secs.min(delay_secs)) * 1000 },
            };
            *since = now;
        }
    }

    fn on_crash(&mut self, unsure_since: u64, now: u64) {
        self.crashed_at = Some(now);
        for (_, fate, since) in self.fates.values_mut() {
            let was_armed = matches!(fate, Fate::Armed { .. });
            *fate = match *fate {
                Fate::Armed { expiry_secs, delay_secs, is_known: true } if expiry_secs > 0 => {
                    Fate::Pending { due_at: now + u64::from(expiry_secs.min(delay_secs)) * 1000 }
                }
                // Nothing of it is on disk, or nobody knows.
                Fate::Armed { .. } => Fate::Unsure,
                Fate::Pending { due_at }
                    if *since >= unsure_since || (due_at <= now && due_at >= unsure_since) =>
                {
                    Fate::Unsure
                }
                Fate::Published | Fate::Revoked if *since >= unsure_since => Fate::Unsure,
                other => other,
            };
            if was_armed {
                *since = now;
            }
        }
    }
}

impl Check for Wills {
    fn name(&self) -> &'static str {
        "will"
    }

    fn event(&mut self, event: &Event, facts: &Facts) -> Result<(), String> {
        let now = facts.now.as_millis();
        match event {
            Event::Opened { client, present, expiry_secs, will, .. } => {
                self.on_opened(*client, *present, now);
                if let Some(Will { message, delay_secs }) = *will {
                    let armed = Fate::Armed { expiry_secs: *expiry_secs, delay_secs, is_known: false };
                    self.set(message, *client, armed, now);
                }
            }
            Event::Connected { client, .. } => {
                for (_, fate, _) in self.fates.values_mut().filter(|(owner, ..)| owner == client) {
                    if let Fate::Armed { is_known, .. } = fate {
                        *is_known = true;
                    }
                }
            }
            Event::Closed { client, is_revoked, .. } => self.on_closed(*client, *is_revoked, now),
            Event::Subscribed { client: 0, is_granted: true, .. } => {
                self.observed_since.get_or_insert(now);
            }
            // What a crash has made of connections is on disk only some time after the start.
            Event::Started => {
                for (_, fate, since) in self.fates.values_mut() {
                    if matches!(fate, Fate::Pending { .. }) && self.crashed_at == Some(*since) {
                        *since = now;
                    }
                }
            }
            Event::Crashed { unsure_since } => self.on_crash(*unsure_since, now),
            Event::Delivered(delivered) if delivered.client == 0 && !delivered.is_repetition => {
                let Some(message) = delivered.message.filter(|message| self.fates.contains_key(message))
                else {
                    return Ok(());
                };
                let count = self.seen.entry(message).or_default();
                *count += usize::from(!delivered.dup);
                let is_sure = facts.crashes == 0 || facts.messages[message].qos == QoS::ExactlyOnce;
                if *count > 1 && is_sure {
                    return Err(format!("will {message} is published twice"));
                }
                if self.fates[&message].1 == Fate::Revoked {
                    return Err(format!("will {message} is published though it was revoked"));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, facts: &Facts, clients: &[Client]) -> Result<(), String> {
        let now = facts.now.as_millis();
        let mut missing = BTreeSet::new();
        let Some(observed_since) = self.observed_since else { return Ok(()) };
        for (message, (client, fate, since)) in &self.fates {
            let is_due = match fate {
                Fate::Published => *since > observed_since,
                Fate::Pending { due_at } => *due_at < now && *due_at > observed_since,
                Fate::Armed { .. } | Fate::Revoked | Fate::Unsure => false,
            };
            // At QoS 0 nobody is promised anything.
            if is_due && facts.messages[*message].qos > QoS::AtMostOnce && !self.seen.contains_key(message) {
                missing.insert((*message, *client));
            }
        }
        let reported = facts.dropped(&clients[0].id, &self.reasons);
        if missing.len() as u64 > reported {
            return Err(format!(
                "wills {missing:?} were never published, {reported} are reported as dropped"
            ));
        }
        Ok(())
    }
}
