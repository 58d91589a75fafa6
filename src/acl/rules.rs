//! Rules that can be replaced while the broker runs.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::{Action, Authorize, Decision, Policy, Principal, RuleId};

/// The [`Policy`] of the moment.
///
/// A decision is made by one policy as a whole, whatever is put in its place meanwhile. What was granted by an
/// earlier one stays granted; [`Action::Receive`] is decided by the current one.
#[derive(Debug)]
pub struct Rules {
    current: ArcSwap<Policy>,
}

impl Rules {
    /// Decides by this policy until another one takes its place.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self { current: ArcSwap::from_pointee(policy) }
    }

    /// Decides by this policy from now on.
    pub fn replace(&self, policy: Policy) {
        self.current.store(Arc::new(policy));
    }

    /// The policy of the moment.
    #[must_use]
    pub fn current(&self) -> Arc<Policy> {
        self.current.load_full()
    }
}

impl Authorize for Rules {
    fn decide(&self, principal: &Principal, client_id: &str, action: Action, topic: &str) -> Decision {
        self.current.load().decide(principal, client_id, action, topic)
    }

    fn limits_receiving(&self, principal: &Principal, client_id: &str) -> bool {
        self.current.load().limits_receiving(principal, client_id)
    }

    fn describe(&self, rule: RuleId) -> String {
        self.current.load().describe(rule)
    }
}
