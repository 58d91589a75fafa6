//! A packet identifier means one message until that is done with, on one connection and across connections; and no
//! more are under way than the client's Receive Maximum. `[MQTT-2.2.1-3]` `[MQTT-3.3.4-9]`

use std::collections::{BTreeMap, BTreeSet};

use dunlin::codec::QoS;

use super::{Check, Event, Facts};

#[derive(Default)]
pub(super) struct Window {
    /// Identifiers under way on each connection.
    inflight: BTreeMap<usize, BTreeSet<u16>>,
    /// What each identifier means, by client and session.
    meanings: BTreeMap<(usize, u64, u16), (Vec<u8>, QoS)>,
    /// Connections below are those of a broker that is gone; what it has sent may still arrive.
    outlived: usize,
}

impl Check for Window {
    fn name(&self) -> &'static str {
        "window"
    }

    fn event(&mut self, event: &Event, facts: &Facts) -> Result<(), String> {
        match event {
            Event::Delivered(delivered) => {
                let Some(id) = delivered.id else { return Ok(()) };
                let inflight = self.inflight.entry(delivered.wire).or_default();
                if !inflight.insert(id) {
                    return Err(format!("packet identifier {id} is used twice at a time"));
                }
                let maximum = facts.clients[delivered.client].receive_maximum;
                if inflight.len() > maximum {
                    return Err(format!("{} messages are under way, of at most {maximum}", inflight.len()));
                }
                let key = (delivered.client, facts.epochs[delivered.wire], id);
                let meaning = (delivered.payload.clone(), delivered.qos);
                if delivered.wire < self.outlived && delivered.qos != QoS::ExactlyOnce {
                    return Ok(());
                }
                let before = self.meanings.insert(key, meaning.clone());
                if before.is_some_and(|before| before != meaning) {
                    return Err(format!("packet identifier {id} means another message before it is free"));
                }
            }
            Event::Freed { client, wire, id } => {
                self.inflight.entry(*wire).or_default().remove(id);
                self.meanings.remove(&(*client, facts.epochs[*wire], *id));
            }
            // A message of QoS 1 may be delivered before it is in the store: then its identifier is free.
            Event::Crashed { .. } => {
                self.meanings.retain(|_, (_, qos)| *qos == QoS::ExactlyOnce);
                self.outlived = facts.epochs.len();
            }
            _ => {}
        }
        Ok(())
    }
}
