//! No message is delivered after it has expired, and what is left of its life is told. `[MQTT-3.3.2-5]`
//! `[MQTT-3.3.2-6]`

use super::{super::features::Feature, Check, Event, Facts, Features};

pub(super) struct Expired {
    /// Bytes may be under way to a client for so long, in milliseconds.
    under_way_millis: u64,
}

impl Expired {
    pub(super) fn new(features: Features) -> Expired {
        // A client that does not read reads later.
        Expired { under_way_millis: if features.has(Feature::Stalls) { 300_000 } else { 3000 } }
    }
}

impl Check for Expired {
    fn name(&self) -> &'static str {
        "expired"
    }

    fn event(&mut self, event: &Event, facts: &Facts) -> Result<(), String> {
        let Event::Delivered(delivered) = event else { return Ok(()) };
        let Some(message) = facts.message(delivered) else { return Ok(()) };
        let (Some(expiry_secs), Some((_, sent_at))) = (message.expiry_secs, message.sent) else {
            if delivered.expiry_secs.is_some() {
                return Err("a message that does not expire has an expiry".into());
            }
            return Ok(());
        };
        if delivered.expiry_secs.is_some_and(|left| left > expiry_secs) {
            return Err(format!("{:?} s are left of {expiry_secs}", delivered.expiry_secs));
        }
        // A message that was sent again may have been accepted then.
        // One whose delivery had begun is sent again, whenever that is. [MQTT-4.4.0-1]
        let is_exempt = message.is_repeated || delivered.dup;
        let age = facts.now.millis_since(sent_at);
        if !is_exempt && age > u64::from(expiry_secs) * 1000 + self.under_way_millis {
            return Err(format!("a message of {expiry_secs} s came after {age} ms"));
        }
        Ok(())
    }
}
