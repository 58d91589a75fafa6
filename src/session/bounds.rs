//! What holds a connection back beyond the protocol: most have nothing of it.

use std::sync::Arc;

use crate::{
    acl::{Action, RuleId},
    allowance::Allowance,
    time::Timestamp,
};

/// Refusals that the log is told of for one connection, at most.
const TOLD_MAX: usize = 64;

/// What holds one connection back.
#[derive(Debug, Default)]
pub struct Bounds {
    /// Whether the rules may deny messages to the client.
    pub limits_receiving: bool,
    /// When the proof of who the client is ends, and its connection with it.
    pub ends: Option<Timestamp>,
    /// What may pass on this connection, and on others of its user or address: none but those with a limit.
    pub allowances: Vec<Arc<Allowance>>,
    /// Until when nothing is read, for more came than may.
    pub held_until: Option<Timestamp>,
    /// Until when nothing is sent, likewise.
    pub paced_until: Option<Timestamp>,
    /// The refusals that the log was told of.
    told: Vec<(Told, RuleId)>,
}

/// What was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// To publish.
    Publish,
    /// To subscribe.
    Subscribe,
    /// To receive.
    Receive,
}

impl Told {
    /// The kind of this action.
    pub fn of(action: Action) -> Told {
        match action {
            Action::Publish { .. } => Told::Publish,
            Action::Subscribe { .. } => Told::Subscribe,
            Action::Receive => Told::Receive,
        }
    }
}

impl Bounds {
    /// Milliseconds until a message from the client is within all rates.
    pub fn wait_in(&self, now: Timestamp, bytes: usize) -> u64 {
        self.allowances.iter().map(|allowance| allowance.wait_in(now, bytes)).max().unwrap_or(0)
    }

    /// Milliseconds until another message to the client is within all rates.
    pub fn wait_out(&self, now: Timestamp) -> u64 {
        self.allowances.iter().map(|allowance| allowance.wait_out(now)).max().unwrap_or(0)
    }

    /// True the first time that a rule refuses such a thing. A client must not be able to fill the log: beyond a
    /// number of different ones it is never true.
    pub fn is_news(&mut self, told: Told, rule: RuleId) -> bool {
        let is_news = self.told.len() < TOLD_MAX && !self.told.contains(&(told, rule));
        if is_news {
            self.told.push((told, rule));
        }
        is_news
    }
}
