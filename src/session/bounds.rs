//! What holds a connection back beyond the protocol: most have nothing of it.

use crate::{
    acl::{Action, RuleId},
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
