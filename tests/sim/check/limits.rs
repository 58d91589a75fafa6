//! Every queue within its limit.

use dunlin::limits::Overflow;

use super::{super::broker::Rules, Broker, Check, Facts};

pub(super) struct Limited {
    rules: Rules,
}

/// Messages that a queue may be over its limit by while its publishers wait, as in the broker.
const SLACK_MESSAGES: usize = 65_536;
/// Bytes that an outbox may be over its limit by: the answers to what was read in one go.
const SLACK_BYTES: usize = 64 * 1024;

impl Limited {
    pub(super) fn new(rules: &Rules) -> Limited {
        Limited { rules: rules.clone() }
    }
}

impl Check for Limited {
    fn name(&self) -> &'static str {
        "limits"
    }

    fn look(&mut self, broker: &Broker, facts: &Facts) -> Result<(), String> {
        let limits = &self.rules.limits;
        // Several shards decide at the same time, and a shared subscription hands over what was accepted before.
        let under_way = facts.clients.len() * 12 + broker.forwards();
        for session in broker.shards().flat_map(|shard| shard.sessions()) {
            let queued = session.handle.queued_messages();
            // Publishers that are made to wait, and come again on new connections, may add so many.
            let slack = match limits.session_queue_overflow {
                Overflow::Backpressure => SLACK_MESSAGES,
                // What was sent is not dropped any more.
                Overflow::DropOldest => {
                    facts.clients.iter().map(|known| known.receive_maximum).max().unwrap_or(0)
                }
                Overflow::Reject | Overflow::DropNewest => 0,
            };
            let allowed = limits.session_queue_messages_max + slack;
            if queued > allowed.saturating_add(under_way) {
                return Err(format!(
                    "{queued} messages are queued for {}, of {allowed}",
                    session.client_id()
                ));
            }
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
        Ok(())
    }
}
