//! Nobody gets what it did not subscribe to, may not have, or asked not to get; and what it gets is what was
//! published.

use dunlin::codec::{QoS, RetainHandling};

use super::{
    super::{
        event::Delivered,
        facts::{Interest, Message},
    },
    Check, Event, Facts,
};

pub(super) struct Subscribed;

impl Check for Subscribed {
    fn name(&self) -> &'static str {
        "subscribed"
    }

    fn event(&mut self, event: &Event, facts: &Facts) -> Result<(), String> {
        let Event::Delivered(delivered) = event else { return Ok(()) };
        let epoch = facts.epochs[delivered.wire];
        let message = facts.message(delivered);
        let possible: Vec<&Interest> = facts.clients[delivered.client]
            .interests
            .iter()
            .filter(|interest| interest.epoch == epoch && interest.matches(&delivered.topic))
            .filter(|interest| message.is_none_or(|message| interest.is_possible(message)))
            .collect();
        if possible.is_empty() {
            return Err(format!("nobody subscribed to {}", delivered.topic));
        }
        let Some(message) = message else { return Ok(()) };
        whole(delivered, message)?;
        fitting(delivered, message, &possible)
    }
}

/// A message is what was published.
fn whole(delivered: &Delivered, message: &Message) -> Result<(), String> {
    if delivered.topic != message.topic || delivered.payload != message.payload {
        return Err(format!("message {:?} is altered", delivered.message));
    }
    if message.is_denied {
        return Err("its publisher may not publish it".into());
    }
    if delivered.retain && !message.retain {
        return Err("RETAIN is set".into());
    }
    if delivered.dup && delivered.qos == QoS::AtMostOnce {
        return Err("DUP is set at QoS 0".into());
    }
    Ok(())
}

/// A delivery is one that these subscriptions ask for.
fn fitting(delivered: &Delivered, message: &Message, possible: &[&Interest]) -> Result<(), String> {
    let qos_max = possible.iter().map(|interest| interest.qos).max().unwrap_or(QoS::AtMostOnce);
    if delivered.qos > qos_max.min(message.qos) {
        return Err(format!(
            "QoS {:?} of {:?} granted and {:?} published",
            delivered.qos, qos_max, message.qos
        ));
    }
    let is_own = message.publisher == delivered.client;
    if is_own && possible.iter().all(|interest| interest.no_local) {
        return Err("it comes back to its publisher".into());
    }
    if delivered.retain
        && possible
            .iter()
            .all(|interest| interest.handling == RetainHandling::DoNotSend && !interest.retain_as_published)
    {
        return Err("no subscription wants retained messages".into());
    }
    let ids = &delivered.subscription_ids;
    let unknown = ids.iter().find(|id| possible.iter().all(|interest| interest.id != Some(**id)));
    if let Some(id) = unknown {
        return Err(format!("subscription identifier {id} belongs to no subscription"));
    }
    // With one subscription that cannot be another one, it is clear which identifier has to be there.
    if let [only] = possible
        && only.id.is_some_and(|id| *ids != [id])
    {
        return Err(format!("subscription identifiers are {ids:?} in place of {:?}", only.id));
    }
    Ok(())
}
