//! What is allowed in rules and yet hardly meant.

use std::{collections::BTreeSet, fmt};

use super::{
    Action, Policy,
    rule::{Actions, Audience, Effect, Rule, Subjects, Whom},
};

/// Something odd about rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lint {
    /// Where: `acl.toml:17`.
    pub place: String,
    /// What is odd.
    pub message: String,
}

impl fmt::Display for Lint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// Rules that are compared with each other: each with each takes its time.
const COMPARED_RULES_MAX: usize = 5000;

impl Policy {
    /// What looks like a mistake: rules that can never decide, roles that nobody has, rules about what is never
    /// allowed.
    #[must_use]
    pub fn lints(&self) -> Vec<Lint> {
        let mut lints = Vec::new();
        let mut roles = BTreeSet::new();
        // The rules that a format adds by itself have no line.
        let written = || self.rules.iter().enumerate().filter(|(_, rule)| rule.line > 0);
        for (number, rule) in written() {
            let place = self.place(number);
            if rule.audience.is_nobody() {
                let role = rule.audience.role.as_deref().unwrap_or_default();
                if roles.insert(role) {
                    let message = format!(
                        "role {role} is given to nobody: it needs `users`, `groups`, `clients` or `anonymous`"
                    );
                    lints.push(Lint { place, message });
                }
                continue;
            }
            if rule.effect == Effect::Allow && rule.actions == Actions::PUBLISH {
                for closed in rule.patterns.iter().filter(|pattern| pattern.is_below("$SYS")) {
                    let message = format!("nobody can publish to {closed}, whatever rules say");
                    lints.push(Lint { place: place.clone(), message });
                }
            }
            let earlier = self.rules[..number].iter().take(COMPARED_RULES_MAX);
            if let Some(first) =
                earlier.filter(|_| number < COMPARED_RULES_MAX).position(|first| self.hides(first, rule))
            {
                let message =
                    format!("never decides, for all that it is about {} decides before", self.words(first));
                lints.push(Lint { place, message });
            }
        }
        lints.extend(self.unknown_groups());
        lints
    }

    fn place(&self, number: usize) -> String {
        let words = self.words(number);
        words.split_once(": ").map_or(words.clone(), |(place, _)| place.to_owned())
    }

    /// Whether an earlier rule decides all that a later one is about.
    fn hides(&self, first: &Rule, later: &Rule) -> bool {
        let actions = [
            Action::Publish { qos: later.limits.qos_max, retain: false },
            Action::Subscribe { qos: later.limits.qos_max },
            Action::Receive,
        ];
        let mut asked =
            actions.map(Actions::asked_by).into_iter().filter(|asked| later.actions.meets(*asked));
        // Where a placeholder has no value, a denial goes further than the same topics elsewhere.
        let may_differ = first.effect != later.effect && later.effect == Effect::Deny;
        let covers = |wide: &super::pattern::Pattern, narrow: &super::pattern::Pattern| {
            wide.covers(narrow) && !(may_differ && narrow.has_placeholder())
        };
        asked.all(|asked| first.actions.meets(asked))
            && (!later.actions.meets(Actions::PUBLISH) || first.limits.cover(later.limits))
            && self.includes(&first.audience, &later.audience)
            && later.patterns.iter().all(|narrow| first.patterns.iter().any(|wide| covers(wide, narrow)))
    }

    fn includes(&self, wide: &Audience, narrow: &Audience) -> bool {
        let clients = wide.clients.is_empty()
            || (!narrow.clients.is_empty()
                && narrow.clients.iter().all(|narrow| wide.clients.iter().any(|wide| wide.covers(narrow))));
        let whom = match (&wide.whom, &narrow.whom) {
            (Whom::Everybody, _) => true,
            (Whom::Any(_), Whom::Everybody) => false,
            (Whom::Any(wide), Whom::Any(narrow)) => self.includes_subjects(wide, narrow),
        };
        clients && whom
    }

    fn includes_subjects(&self, wide: &Subjects, narrow: &Subjects) -> bool {
        let is_member = |user: &str, group: &str| {
            self.groups.get(group).is_some_and(|members| members.iter().any(|member| **member == *user))
        };
        let has_user = |user: &str| {
            wide.users.iter().any(|known| **known == *user)
                || wide.groups.iter().any(|group| is_member(user, group))
        };
        narrow.users.iter().all(|user| has_user(user))
            && narrow.groups.iter().all(|group| wide.groups.contains(group))
            && (wide.anonymous || !narrow.anonymous)
    }

    /// Groups that the file has no members for. Tokens and back ends may put clients there; a typing error may
    /// be the reason, too.
    fn unknown_groups(&self) -> Vec<Lint> {
        let mut told = BTreeSet::new();
        let mut lints = Vec::new();
        for (number, rule) in self.rules.iter().enumerate() {
            let Whom::Any(subjects) = &rule.audience.whom else { continue };
            let unknown = subjects.groups.iter().filter(|group| !self.groups.contains_key(*group));
            for group in unknown.filter(|group| !self.groups.is_empty() && told.insert((*group).clone())) {
                let message = format!(
                    "group {group} is not in [groups]: write `{group} = []` there if it is back ends and tokens that \
                     put clients into it"
                );
                lints.push(Lint { place: self.place(number), message });
            }
        }
        lints
    }
}
