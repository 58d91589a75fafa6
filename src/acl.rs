//! Who a client is and what it may do.
//!
//! This is the seam that authentication fills and authorisation is asked through. The rules themselves are
//! an [`Authorize`] given to the broker.

use std::sync::Arc;

/// Whom the broker takes a client to be, once authenticated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Principal {
    /// The user name that was proved, `None` for an anonymous client.
    pub user: Option<Arc<str>>,
}

/// What a client wants to do with a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Publish to a topic name, also by its will.
    Publish,
    /// Subscribe to a topic filter (the pattern of a shared one).
    Subscribe,
}

/// Whether an action is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is.
    Allowed,
    /// It is not.
    Denied,
}

/// Rules that decide. They are asked for every PUBLISH and every filter of a SUBSCRIBE, on the thread that
/// owns the session: an implementation answers from memory and never waits.
pub trait Authorize: Send + Sync {
    /// Decides one action of one client.
    fn decide(&self, principal: &Principal, client_id: &str, action: Action, topic: &str) -> Decision;
}

/// The rules of a broker without rules: everything but publishing to `$SYS`, which is the broker's own, and
/// below `$share`, where nobody could ever subscribe.
#[derive(Clone, Copy, Debug, Default)]
pub struct Open;

impl Authorize for Open {
    fn decide(&self, _: &Principal, _: &str, action: Action, topic: &str) -> Decision {
        let is_taken = topic == "$SYS" || topic.starts_with("$SYS/") || topic.starts_with("$share/");
        match action {
            Action::Publish if is_taken => Decision::Denied,
            Action::Publish | Action::Subscribe => Decision::Allowed,
        }
    }
}
