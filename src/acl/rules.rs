//! Rules that can be replaced while the broker runs.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use arc_swap::ArcSwapOption;

use super::{Action, Authorize, Decision, Open, Policy, Principal, RuleId};

/// The [`Policy`] of the moment; without one, [`Open`] decides.
///
/// A decision is made by one policy as a whole, whatever is put in its place meanwhile.
#[derive(Debug)]
pub struct Rules {
    current: ArcSwapOption<Policy>,
    /// Whether there is one: to look there costs more than what [`Open`] decides.
    has_policy: AtomicBool,
}

impl Rules {
    /// Decides by this policy until another one takes its place.
    #[must_use]
    pub fn new(policy: Option<Arc<Policy>>) -> Self {
        Self { has_policy: AtomicBool::new(policy.is_some()), current: ArcSwapOption::new(policy) }
    }

    /// Decides by this policy from now on.
    pub fn replace(&self, policy: Option<Arc<Policy>>) {
        let has_policy = policy.is_some();
        self.current.store(policy);
        self.has_policy.store(has_policy, Ordering::Release);
    }

    /// Asks the policy of the moment, or [`Open`].
    fn ask<T>(&self, ask: impl FnOnce(&dyn Authorize) -> T) -> T {
        if !self.has_policy.load(Ordering::Acquire) {
            return ask(&Open);
        }
        match &*self.current.load() {
            Some(policy) => ask(&**policy),
            None => ask(&Open),
        }
    }
}

impl Authorize for Rules {
    fn decide(&self, principal: &Principal, client_id: &str, action: Action, topic: &str) -> Decision {
        self.ask(|rules| rules.decide(principal, client_id, action, topic))
    }

    fn limits_receiving(&self, principal: &Principal, client_id: &str) -> bool {
        self.ask(|rules| rules.limits_receiving(principal, client_id))
    }

    fn describe(&self, rule: RuleId) -> String {
        self.ask(|rules| rules.describe(rule))
    }
}
