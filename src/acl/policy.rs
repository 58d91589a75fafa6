//! Compiled rules.

use std::{collections::BTreeMap, fmt};

use super::{
    Action, Authorize, Decision, Principal, RuleId,
    directory::Directory,
    pattern::Values,
    rule::{Actions, Effect, Rule},
    tree::{Forest, NO_RULE, Question},
};
use crate::codec::QoS;

/// Rules of which the first one that matches decides. What none allows is denied.
///
/// It compares as what is written, and comes from a file ([`Policy::parse`]) or from the claim of a token
/// ([`Policy::from_claim`]). A principal that brings rules of its own, by
/// [`Details::policy`](super::Details::policy), is decided by them first.
pub struct Policy {
    pub(super) origin: Origin,
    pub(super) rules: Vec<Rule>,
    pub(super) groups: BTreeMap<Box<str>, Vec<Box<str>>>,
    directory: Directory,
    forest: Forest,
}

/// Where rules are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// In a file of this name.
    File(Box<str>),
    /// In the `acl` claim of a token.
    Claim,
}

/// A claim has fewer rules than this, and so do files: the numbers above are those of claims.
const CLAIM: u32 = 1 << 31;

impl Policy {
    /// Compiles rules, which are in their order.
    pub(super) fn compile(
        origin: Origin,
        rules: Vec<Rule>,
        groups: BTreeMap<Box<str>, Vec<Box<str>>>,
    ) -> Result<Self, String> {
        let mut forest = Forest::default();
        let directory = Directory::build(&rules, &groups, &mut forest)?;
        Ok(Self { origin, rules, groups, directory, forest })
    }

    /// How many rules there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there are no rules: everything is denied.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The first rule that decides.
    pub(super) fn first(
        &self,
        principal: &Principal,
        client_id: &str,
        action: Action,
        topic: &str,
    ) -> Option<usize> {
        let question = Question {
            rules: &self.rules,
            action,
            actions: Actions::asked_by(action),
            topic,
            values: Values::of(principal, client_id),
        };
        let mut best = NO_RULE;
        self.directory.visit(principal, client_id, |root| best = self.forest.first(root, &question, best));
        (best != NO_RULE).then_some(best as usize)
    }

    /// What a rule makes of an action.
    pub(super) fn verdict(&self, number: usize, action: Action) -> Decision {
        let rule = &self.rules[number];
        match (rule.effect, action) {
            (Effect::Deny, _) => Decision::Denied(self.id(number)),
            (Effect::Allow, Action::Subscribe { qos }) if rule.limits.qos_max < qos => {
                Decision::AllowedUpTo(rule.limits.qos_max)
            }
            (Effect::Allow, Action::Subscribe { .. } | Action::Publish { .. } | Action::Receive) => {
                Decision::Allowed
            }
        }
    }

    fn id(&self, number: usize) -> RuleId {
        let number = number as u32;
        match self.origin {
            Origin::File(_) => RuleId(number),
            Origin::Claim => RuleId(number | CLAIM),
        }
    }

    /// Whether a rule may deny a delivery to a client.
    pub(super) fn may_deny_receiving(&self, principal: &Principal, client_id: &str) -> bool {
        let mut may = false;
        self.directory.visit(principal, client_id, |root| may |= self.forest.denies_receiving(root));
        may
    }

    /// The place and the words of a rule: `acl.toml:17: deny publish to "secret/#" for everybody`.
    /// Rules that a format adds by itself have no line.
    pub(super) fn words(&self, number: usize) -> String {
        let rule = &self.rules[number];
        match &self.origin {
            Origin::File(name) if rule.line == 0 => format!("{name}: {rule}, where no line says otherwise"),
            Origin::File(name) => format!("{name}:{}: {rule}", rule.line),
            Origin::Claim => format!("rule {} of the client's token: {rule}", rule.line),
        }
    }
}

/// The deciding rule of a client's own rules, then of those of the broker.
pub(super) fn deciding<'a>(
    policies: [Option<&'a Policy>; 2],
    principal: &Principal,
    client_id: &str,
    action: Action,
    topic: &str,
) -> Option<(&'a Policy, usize)> {
    let of = |policy: &'a Policy| Some((policy, policy.first(principal, client_id, action, topic)?));
    policies.into_iter().flatten().find_map(of)
}

/// What decides where no rule does.
pub(super) fn without_rule(action: Action) -> Decision {
    match action {
        // The subscription was granted, or there would be nothing to receive.
        Action::Receive => Decision::Allowed,
        Action::Publish { .. } | Action::Subscribe { .. } => Decision::Denied(RuleId::DEFAULT),
    }
}

/// Whether nobody may publish there, whatever rules say.
pub(super) fn is_closed(action: Action, topic: &str) -> bool {
    match action {
        Action::Publish { .. } => {
            topic == "$SYS" || topic.starts_with("$SYS/") || topic.starts_with("$share/")
        }
        Action::Subscribe { .. } | Action::Receive => false,
    }
}

/// Decides by these policies alone.
pub(super) fn decide(
    policies: [Option<&Policy>; 2],
    principal: &Principal,
    client_id: &str,
    action: Action,
    topic: &str,
) -> Decision {
    if is_closed(action, topic) {
        return Decision::Denied(RuleId::DEFAULT);
    }
    match deciding(policies, principal, client_id, action, topic) {
        Some((policy, number)) => policy.verdict(number, action),
        None => without_rule(action),
    }
}

/// The words for a rule of a token, or for none.
pub(super) fn describe_foreign(rule: RuleId) -> String {
    match rule.0 {
        u32::MAX => "no rule allows it".into(),
        number if number >= CLAIM => format!("rule {} of the client's token", u64::from(number - CLAIM) + 1),
        _ => "a rule that is not there any more".into(),
    }
}

impl Authorize for Policy {
    fn decide(&self, principal: &Principal, client_id: &str, action: Action, topic: &str) -> Decision {
        decide([principal.policy(), Some(self)], principal, client_id, action, topic)
    }

    fn limits_receiving(&self, principal: &Principal, client_id: &str) -> bool {
        let policies = principal.policy().into_iter().chain([self]);
        policies.into_iter().any(|policy| policy.may_deny_receiving(principal, client_id))
    }

    fn describe(&self, rule: RuleId) -> String {
        match self.rules.get(rule.0 as usize) {
            Some(_) => self.words(rule.0 as usize),
            None => describe_foreign(rule),
        }
    }
}

impl PartialEq for Policy {
    fn eq(&self, other: &Self) -> bool {
        let Self { origin, rules, groups, directory: _, forest: _ } = self;
        (origin, rules, groups) == (&other.origin, &other.rules, &other.groups)
    }
}

impl Eq for Policy {}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy").field("origin", &self.origin).field("rules", &self.rules.len()).finish()
    }
}

/// The highest QoS, which limits nothing.
pub(super) const QOS_MAX: QoS = QoS::ExactlyOnce;
