//! QoS 2 means exactly once: no client is handed a message twice that was published and delivered with it.

use std::collections::{BTreeMap, BTreeSet};

use dunlin::codec::QoS;

use super::{Check, Event, Facts};

#[derive(Default)]
pub(super) struct ExactlyOnce {
    /// Client, session, message.
    seen: BTreeSet<(usize, u64, usize)>,
    /// The connection by which each client got a new session, until its client has heard so.
    unheard: BTreeMap<usize, usize>,
    /// Clients that took a new session for the one before, since the CONNACK that said so was lost and the next one
    /// says that there is a session. What they had sent before then (messages below this number) they send again,
    /// and the standard gives the broker no way to know it.
    misled: BTreeMap<usize, usize>,
}

impl ExactlyOnce {
    fn follow(&mut self, event: &Event, facts: &Facts) {
        match event {
            Event::Opened { client, wire, present: false, .. } => {
                self.unheard.insert(*client, *wire);
            }
            Event::Opened { client, wire, present: true, .. }
                if self.unheard.get(client).is_some_and(|unheard| unheard != wire) =>
            {
                self.unheard.remove(client);
                self.misled.insert(*client, facts.messages.len());
            }
            Event::Connected { client, wire, .. } if self.unheard.get(client) == Some(wire) => {
                self.unheard.remove(client);
            }
            _ => {}
        }
    }
}

impl Check for ExactlyOnce {
    fn name(&self) -> &'static str {
        "exactly_once"
    }

    fn event(&mut self, event: &Event, facts: &Facts) -> Result<(), String> {
        self.follow(event, facts);
        let Event::Delivered(delivered) = event else { return Ok(()) };
        let (Some(number), false) = (delivered.message, delivered.is_repetition) else { return Ok(()) };
        let message = &facts.messages[number];
        // A retained message comes once more with each subscription.
        if message.qos != QoS::ExactlyOnce || delivered.qos != QoS::ExactlyOnce || message.retain {
            return Ok(());
        }
        let is_misled = self.misled.get(&message.publisher).is_some_and(|before| number < *before);
        let session = facts.epochs[delivered.wire];
        let is_first = self.seen.insert((delivered.client, session, number));
        if !is_first && (!is_misled || !message.is_repeated) {
            return Err(format!("message {number} was delivered twice"));
        }
        Ok(())
    }
}
