//! Why a decision is as it is.

use std::fmt;

use super::{
    Action, Decision, Policy, Principal,
    pattern::Values,
    policy::{deciding, is_closed, without_rule},
    rule::{Actions, Effect, Rule},
};

/// A decision and its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// What is decided.
    pub decision: Decision,
    /// The rule that decides, with its place, or what decides where none does.
    pub reason: String,
    /// If no rule allows it: those that come nearest, the nearest one first.
    pub nearest: Vec<NearMiss>,
}

/// A rule that would have allowed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NearMiss {
    /// The rule, with its place.
    pub rule: String,
    /// Why it does not apply.
    pub why: String,
}

/// Rules that are shown.
const NEAREST_MAX: usize = 3;

/// What keeps a rule from applying, the nearest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Miss {
    Limits,
    Value,
    Topic,
    Action,
    Audience,
}

impl Policy {
    /// Decides as [`Authorize::decide`](super::Authorize::decide) does, and says why.
    #[must_use]
    pub fn explain(
        &self,
        principal: &Principal,
        client_id: &str,
        action: Action,
        topic: &str,
    ) -> Explanation {
        let told =
            |decision, reason: &str| Explanation { decision, reason: reason.into(), nearest: Vec::new() };
        if is_closed(action, topic) {
            let decision = Decision::Denied(super::RuleId::DEFAULT);
            return told(decision, "nobody publishes to $SYS/… and $share/…, whatever rules say");
        }
        let policies = [principal.policy(), Some(self)];
        if let Some((policy, number)) = deciding(policies, principal, client_id, action, topic) {
            return told(policy.verdict(number, action), &policy.words(number));
        }
        let decision = without_rule(action);
        if decision == Decision::Allowed {
            return told(decision, "no rule speaks of it: what was subscribed to is received");
        }
        let asked = Asked { principal, client_id, action, topic };
        Explanation { nearest: self.nearest(&asked), ..told(decision, "no rule allows it") }
    }

    /// The decision as found by trying one rule after the other, with the description of the format in view. The
    /// index is tested against it.
    #[doc(hidden)]
    #[must_use]
    pub fn decide_slowly(
        &self,
        principal: &Principal,
        client_id: &str,
        action: Action,
        topic: &str,
    ) -> Decision {
        if is_closed(action, topic) {
            return Decision::Denied(super::RuleId::DEFAULT);
        }
        let asked = Asked { principal, client_id, action, topic };
        for policy in principal.policy().into_iter().chain([self]) {
            let applies = |rule: &Rule| policy.misses(rule, &asked).next().is_none();
            if let Some(number) = policy.rules.iter().position(applies) {
                return policy.verdict(number, action);
            }
        }
        without_rule(action)
    }

    /// Whether the principal is in a group, as the file or its back end says.
    fn is_member(&self, principal: &Principal, group: &str) -> bool {
        let listed = || {
            let members = self.groups.get(group);
            let user = principal.user.as_deref();
            members.is_some_and(|members| members.iter().any(|member| Some(&**member) == user))
        };
        let told = principal.details.as_ref();
        listed() || told.is_some_and(|details| details.groups.iter().any(|known| **known == *group))
    }

    fn misses<'a>(&'a self, rule: &'a Rule, asked: &'a Asked<'a>) -> impl Iterator<Item = Miss> + 'a {
        let Asked { principal, client_id, action, topic } = *asked;
        let values = Values::of(principal, client_id);
        let is_member = |group: &str| self.is_member(principal, group);
        let of_topic = match rule.matches(topic, &values) {
            true => None,
            false if rule.patterns.iter().any(|pattern| pattern.unusable(&values).is_some()) => {
                Some(Miss::Value)
            }
            false => Some(Miss::Topic),
        };
        let misses = [
            (!rule.limits.admit(action)).then_some(Miss::Limits),
            of_topic,
            (!rule.actions.meets(Actions::asked_by(action))).then_some(Miss::Action),
            (!rule.audience.has(principal, client_id, is_member)).then_some(Miss::Audience),
        ];
        misses.into_iter().flatten()
    }

    /// The allowing rules with the fewest and smallest reasons not to apply. Those that have neither the
    /// topic nor the client in common are no help.
    fn nearest(&self, asked: &Asked<'_>) -> Vec<NearMiss> {
        let mut near: Vec<(usize, Miss, usize)> = Vec::new();
        for (number, rule) in self.rules.iter().enumerate().filter(|(_, rule)| rule.effect == Effect::Allow) {
            let mut misses: Vec<Miss> = self.misses(rule, asked).collect();
            misses.sort_unstable();
            if let [.., worst] = misses[..]
                && !(misses.contains(&Miss::Topic) && misses.len() > 1)
            {
                near.push((misses.len(), worst, number));
            }
        }
        near.sort_unstable();
        near.truncate(NEAREST_MAX);
        let told = near.into_iter().map(|(_, _, number)| NearMiss {
            rule: self.words(number),
            why: self.why(&self.rules[number], asked),
        });
        told.collect()
    }

    fn why(&self, rule: &Rule, asked: &Asked<'_>) -> String {
        let reasons: Vec<String> = self.misses(rule, asked).map(|miss| asked.told(rule, miss)).collect();
        reasons.join(", and ")
    }
}

/// What is asked for.
#[derive(Clone, Copy)]
struct Asked<'a> {
    principal: &'a Principal,
    client_id: &'a str,
    action: Action,
    topic: &'a str,
}

impl Asked<'_> {
    fn told(&self, rule: &Rule, miss: Miss) -> String {
        match miss {
            Miss::Limits => "it is for a lower QoS, or another RETAIN".into(),
            Miss::Value => {
                let values = Values::of(self.principal, self.client_id);
                let piece = rule.patterns.iter().find_map(|pattern| pattern.unusable(&values));
                let piece = piece.map(ToString::to_string).unwrap_or_default();
                format!("{piece} has no value for this client that can be a part of a topic")
            }
            Miss::Topic => match self.action {
                Action::Subscribe { .. } => format!("it does not cover {:?}", self.topic),
                Action::Publish { .. } | Action::Receive => format!("it does not match {:?}", self.topic),
            },
            Miss::Action => match self.action {
                Action::Subscribe { .. } => "it is not about subscribing".into(),
                Action::Publish { .. } => "it is not about publishing".into(),
                Action::Receive => "it is not about receiving".into(),
            },
            Miss::Audience => {
                let user = self.principal.user.as_deref();
                let user = user.map_or("an anonymous client".into(), |user| format!("user {user}"));
                format!("{user} with the client identifier {:?} is not meant", self.client_id)
            }
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.decision {
            Decision::Allowed => f.write_str("allowed")?,
            Decision::AllowedUpTo(qos) => write!(f, "allowed up to QoS {}", qos as u8)?,
            Decision::Denied(_) => f.write_str("denied")?,
        }
        write!(f, ": {}", self.reason)?;
        for near in &self.nearest {
            write!(f, "\n  not by {}\n    as {}", near.rule, near.why)?;
        }
        Ok(())
    }
}
