//! QoS 2 means exactly once: no client is handed a message twice that was published and delivered with it.

use std::collections::BTreeSet;

use dunlin::codec::QoS;

use super::{Check, Event, Facts};

#[derive(Default)]
pub(super) struct ExactlyOnce {
    /// Client, session, message.
    seen: BTreeSet<(usize, u64, usize)>,
}

impl Check for ExactlyOnce {
    fn name(&self) -> &'static str {
        "exactly_once"
    }

    fn event(&mut self, event: &Event, facts: &Facts) -> Result<(), String> {
        let Event::Delivered(delivered) = event else { return Ok(()) };
        let (Some(number), false) = (delivered.message, delivered.is_repetition) else { return Ok(()) };
        let message = &facts.messages[number];
        // A retained message comes once more with each subscription.
        if message.qos != QoS::ExactlyOnce || delivered.qos != QoS::ExactlyOnce || message.retain {
            return Ok(());
        }
        let session = facts.epochs[delivered.wire];
        if !self.seen.insert((delivered.client, session, number)) {
            return Err(format!("message {number} was delivered twice"));
        }
        Ok(())
    }
}
