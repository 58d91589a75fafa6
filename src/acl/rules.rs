//! Rules that can be replaced while the broker runs.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::{Action, Authorize, Decision, Open, Policy, Principal, RuleId};

/// The [`Policy`] of the moment; without one, [`Open`] decides.
///
/// A decision is made by one policy as a whole, whatever is put in its place meanwhile.
#[derive(Debug)]
pub struct Rules {
    current: ArcSwapOption<Policy>,
}

impl Rules {
    /// Decides by this policy until another one takes its place.
    #[must_use]
    pub fn new(policy: Option<Arc<Policy>>) -> Self {
        Self { current: ArcSwapOption::new(policy) }
    }

    /// Decides by this policy from now on.
    pub fn replace(&self, policy: Option<Arc<Policy>>) {
        self.current.store(policy);
    }
}

impl Authorize for Rules {
    fn decide(&self, principal: &Principal, client_id: &str, action: Action, topic: &str) -> Decision {
        match &*self.current.load() {
            Some(policy) => policy.decide(principal, client_id, action, topic),
            None => Open.decide(principal, client_id, action, topic),
        }
    }

    fn limits_receiving(&self, principal: &Principal, client_id: &str) -> bool {
        match &*self.current.load() {
            Some(policy) => policy.limits_receiving(principal, client_id),
            None => Open.limits_receiving(principal, client_id),
        }
    }

    fn describe(&self, rule: RuleId) -> String {
        match &*self.current.load() {
            Some(policy) => policy.describe(rule),
            None => Open.describe(rule),
        }
    }
}
