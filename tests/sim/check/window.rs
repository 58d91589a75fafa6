//! A packet identifier means one message until that is done with, on one connection and across connections; and no
//! more are under way than the client's Receive Maximum. `[MQTT-2.2.1-3]` `[MQTT-3.3.4-9]`

use std::collections::{BTreeMap, BTreeSet};

use dunlin::codec::QoS;

use super::{super::event::Delivered, Check, Event, Facts};

#[derive(Default)]
pub(super) struct Window {
    /// Identifiers under way on each connection.
    inflight: BTreeMap<usize, BTreeSet<u16>>,
    /// What each identifier means, by client and session.
    meanings: BTreeMap<(usize, u64, u16), Meaning>,
    /// Connections below are those of a broker that is gone; what it has sent may still arrive.
    outlived: usize,
}

/// What an identifier means.
struct Meaning {
    payload: Vec<u8>,
    qos: QoS,
    /// Whether the broker must know of it: a message of QoS 1 may be delivered before it is in the store, and a
    /// crash makes its identifier free.
    is_kept: bool,
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
                let is_outlived = delivered.wire < self.outlived;
                let is_kept = !is_outlived || delivered.qos == QoS::ExactlyOnce;
                let meaning = Meaning { payload: delivered.payload.clone(), qos: delivered.qos, is_kept };
                let Some(before) = self.meanings.insert(key, meaning) else { return Ok(()) };
                let is_same = before.payload == delivered.payload && before.qos == delivered.qos;
                if before.is_kept && is_kept && !is_same {
                    return Err(format!("packet identifier {id} means another message before it is free"));
                }
                // What the publisher sent again after a crash is a new message. [MQTT-3.3.1-1]
                let is_new = !before.is_kept && is_published_again(delivered, facts);
                if is_same && !is_outlived && !delivered.dup && !is_new {
                    return Err(format!("packet identifier {id} is repeated without DUP"));
                }
            }
            Event::Freed { client, wire, id } => {
                self.inflight.entry(*wire).or_default().remove(id);
                self.meanings.remove(&(*client, facts.epochs[*wire], *id));
            }
            Event::Crashed { .. } => {
                for meaning in self.meanings.values_mut() {
                    meaning.is_kept &= meaning.qos == QoS::ExactlyOnce;
                }
                self.outlived = facts.epochs.len();
            }
            _ => {}
        }
        Ok(())
    }
}

/// Whether the publisher has sent the message more than once.
fn is_published_again(delivered: &Delivered, facts: &Facts) -> bool {
    delivered.message.is_none_or(|number| facts.messages[number].is_repeated)
}
