//! Who a client is and what it may do.
//!
//! This is the seam that authentication fills and authorisation is asked through. The rules themselves are
//! an [`Authorize`] given to the broker: [`Open`] where there are none, else [`Rules`], which hold a [`Policy`].
//! `docs/acl.md` says how rules are written and what they mean.

mod directory;
mod document;
mod explain;
mod format;
mod glob;
mod lint;
mod mosquitto;
mod pattern;
mod policy;
mod problem;
mod rule;
mod rules;
mod tree;
mod value;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

pub use explain::{Explanation, NearMiss};
pub use format::Format;
pub use lint::Lint;
pub use policy::Policy;
pub use problem::PolicyErrors;
pub use rules::Rules;

use crate::codec::QoS;

/// Whom the broker takes a client to be, once authenticated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Principal {
    /// The user name that was proved, `None` for an anonymous client.
    pub user: Option<Arc<str>>,
    /// What else is known of the client; most have nothing.
    pub details: Option<Arc<Details>>,
}

/// What a back end knows of a client besides its user name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// Groups that the user is in, besides those that the access rules say.
    pub groups: Vec<Arc<str>>,
    /// Values for placeholders of access rules, by their names: `cert:cn`, `jwt:tenant`.
    pub attributes: BTreeMap<Box<str>, Box<str>>,
    /// When the proof ends, in seconds since 1970: the connection ends with it.
    pub expires_at_secs: Option<u64>,
    /// Rules that the client brings itself, such as the `acl` claim of its token. They decide before those of the
    /// broker. Without rules of the broker they are all there is: what they do not allow is denied.
    pub policy: Option<Arc<Policy>>,
}

/// What a client wants to do with a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Publish to a topic name, also by its will.
    Publish {
        /// Of the PUBLISH, or the will.
        qos: QoS,
        /// RETAIN.
        retain: bool,
    },
    /// Subscribe to a topic filter (the pattern of a shared one).
    Subscribe {
        /// What the client asks for.
        qos: QoS,
    },
    /// Get a message with this topic name by a subscription that was granted.
    Receive,
}

/// Whether an action is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is.
    Allowed,
    /// A subscription is, with no higher QoS than this.
    AllowedUpTo(QoS),
    /// It is not, by this rule.
    Denied(RuleId),
}

/// A rule of an [`Authorize`], for [`Authorize::describe`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId(pub u32);

impl RuleId {
    /// No rule: nothing allows it.
    pub const DEFAULT: RuleId = RuleId(u32::MAX);
}

/// Rules that decide. They are asked for every PUBLISH and every filter of a SUBSCRIBE, on the thread that
/// owns the session: an implementation answers from memory and never waits.
pub trait Authorize: Send + Sync {
    /// Decides one action of one client.
    fn decide(&self, principal: &Principal, client_id: &str, action: Action, topic: &str) -> Decision;

    /// Whether [`Action::Receive`] may be denied to this client: if not, deliveries are not asked about.
    fn limits_receiving(&self, principal: &Principal, client_id: &str) -> bool {
        let _ = (principal, client_id);
        false
    }

    /// The rule in words: where it is written and what it says.
    fn describe(&self, rule: RuleId) -> String {
        let _ = rule;
        "no rule allows it".into()
    }
}

impl Principal {
    /// A client that has proved this user name, and of whom nothing else is known.
    #[must_use]
    pub fn named(user: &str) -> Principal {
        Principal { user: Some(user.into()), details: None }
    }

    /// The rules that the client brings itself.
    fn policy(&self) -> Option<&Policy> {
        self.details.as_ref()?.policy.as_deref()
    }
}

/// The rules of a broker without rules: everything but publishing to `$SYS`, which is the broker's own, and
/// below `$share`, where nobody could ever subscribe. A client that brings rules of its own has those.
#[derive(Clone, Copy, Debug, Default)]
pub struct Open;

impl Authorize for Open {
    fn decide(&self, principal: &Principal, client_id: &str, action: Action, topic: &str) -> Decision {
        match principal.policy() {
            Some(policy) => policy::decide([Some(policy), None], principal, client_id, action, topic),
            None if policy::is_closed(action, topic) => Decision::Denied(RuleId::DEFAULT),
            None => Decision::Allowed,
        }
    }

    fn limits_receiving(&self, principal: &Principal, client_id: &str) -> bool {
        principal.policy().is_some_and(|policy| policy.may_deny_receiving(principal, client_id))
    }

    fn describe(&self, rule: RuleId) -> String {
        policy::describe_foreign(rule)
    }
}
