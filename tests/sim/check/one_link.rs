//! One connection per client identifier: a new one takes the session from the one before. `[MQTT-3.1.4-3]`

use std::collections::BTreeMap;

use dunlin::session::SessionState;

use super::{Broker, Check, Facts};

pub(super) struct OneLink;

impl Check for OneLink {
    fn name(&self) -> &'static str {
        "one_link"
    }

    fn look(&mut self, broker: &Broker, _: &Facts) -> Result<(), String> {
        let mut open: BTreeMap<&str, usize> = BTreeMap::new();
        for ((shard, link), joined) in &broker.links {
            let is_open = broker.nodes[*shard].shard.is_open(*link);
            *open.entry(&joined.client_id).or_default() += usize::from(is_open);
        }
        if let Some((client_id, count)) = open.iter().find(|(_, count)| **count > 1) {
            return Err(format!("{client_id} has {count} connections"));
        }
        for session in broker.shards().flat_map(|shard| shard.sessions()) {
            let is_connected = matches!(session.state, SessionState::Connected(_));
            let count = open.get(session.client_id().as_ref()).copied().unwrap_or(0);
            if is_connected != (count == 1) {
                return Err(format!(
                    "{} has {count} connections, its session says {is_connected}",
                    session.client_id()
                ));
            }
        }
        Ok(())
    }
}
