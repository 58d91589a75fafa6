//! Messages of one publisher, topic and QoS come in the order in which they were sent. `[MQTT-4.6.0-5]`

use std::collections::{BTreeMap, BTreeSet};

use dunlin::codec::QoS;

use super::{
    super::{broker::Rules, event::Delivered},
    Check, Event, Facts,
};

#[derive(Default)]
pub(super) struct Order {
    /// Whether full queues drop messages.
    may_drop: bool,
    seen: BTreeSet<(usize, u64, usize)>,
    newest: BTreeMap<Stream, usize>,
}

/// What is in order.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Stream {
    client: usize,
    session: u64,
    publisher: usize,
    topic: String,
    published: QoS,
    delivered: QoS,
}

impl Order {
    pub(super) fn new(rules: &Rules) -> Order {
        Order { may_drop: rules.may_drop(), ..Order::default() }
    }
}

impl Check for Order {
    fn name(&self) -> &'static str {
        "order"
    }

    fn event(&mut self, event: &Event, facts: &Facts) -> Result<(), String> {
        let Event::Delivered(delivered) = event else { return Ok(()) };
        let Some(number) = delivered.message else { return Ok(()) };
        let session = facts.epochs[delivered.wire];
        let is_new = self.seen.insert((delivered.client, session, number));
        let message = &facts.messages[number];
        // Members of a shared subscription each get a part; retained messages come again; what was sent again has
        // its place where it was sent first or last.
        // After a crash nobody knows what was sent: one that was dropped instead, since it had expired or its queue was
        // full, comes now, marked as sent before.
        let may_be_dropped = message.expiry_secs.is_some() || self.may_drop;
        let is_revived = delivered.dup && facts.crashes > 0 && may_be_dropped;
        let is_exempt =
            is_revived || message.retain || message.is_repeated || is_shared(delivered, facts) || !is_new;
        if is_exempt || delivered.is_repetition {
            return Ok(());
        }
        let stream = Stream {
            client: delivered.client,
            session,
            publisher: message.publisher,
            topic: message.topic.clone(),
            published: message.qos,
            delivered: delivered.qos,
        };
        let newest = self.newest.insert(stream, number);
        match newest.filter(|newest| *newest > number) {
            Some(newest) => Err(format!("message {number} came after {newest}")),
            None => Ok(()),
        }
    }
}

/// Whether a delivery may have come through a shared subscription.
fn is_shared(delivered: &Delivered, facts: &Facts) -> bool {
    facts.clients[delivered.client].interests.iter().any(|interest| interest.is_shared())
}
