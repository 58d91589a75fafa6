//! A rule as it was written.

use std::{fmt, sync::Arc};

use super::{
    Action, Principal,
    glob::Glob,
    pattern::{Certainty, Pattern, Values},
};
use crate::codec::QoS;

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) effect: Effect,
    pub(super) actions: Actions,
    pub(super) patterns: Vec<Pattern>,
    pub(super) limits: PublishLimits,
    /// Shared by the rules of a role.
    pub(super) audience: Arc<Audience>,
    /// The line on which it begins, from 1; in a token, its number.
    pub(super) line: u32,
}

/// What a rule that applies does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Allow,
    Deny,
}

/// A set of actions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Actions(u8);

impl Actions {
    pub(super) const NONE: Actions = Actions(0);
    pub(super) const PUBLISH: Actions = Actions(1);
    pub(super) const SUBSCRIBE: Actions = Actions(2);
    pub(super) const RECEIVE: Actions = Actions(4);
    pub(super) const ALL: Actions = Actions(7);

    pub(super) const fn with(self, other: Actions) -> Actions {
        Actions(self.0 | other.0)
    }

    pub(super) const fn meets(self, other: Actions) -> bool {
        self.0 & other.0 != 0
    }

    /// The actions of a rule that speak of this one: who may not subscribe to a topic does not receive it.
    pub(super) fn asked_by(action: Action) -> Actions {
        match action {
            Action::Publish { .. } => Actions::PUBLISH,
            Action::Subscribe { .. } => Actions::SUBSCRIBE,
            Action::Receive => Actions::SUBSCRIBE.with(Actions::RECEIVE),
        }
    }
}

/// Which PUBLISH a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PublishLimits {
    pub(super) qos_max: QoS,
    pub(super) retain: Retain,
}

/// Which RETAIN a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retain {
    Any,
    Set,
    Unset,
}

impl PublishLimits {
    pub(super) const NONE: PublishLimits = PublishLimits { qos_max: QoS::ExactlyOnce, retain: Retain::Any };

    pub(super) fn admit(self, action: Action) -> bool {
        match action {
            Action::Publish { qos, retain } => {
                let is_retain_admitted = match self.retain {
                    Retain::Any => true,
                    Retain::Set => retain,
                    Retain::Unset => !retain,
                };
                is_retain_admitted && qos <= self.qos_max
            }
            Action::Subscribe { .. } | Action::Receive => true,
        }
    }

    /// Whether it admits all that the other one admits.
    pub(super) fn cover(self, other: PublishLimits) -> bool {
        self.qos_max >= other.qos_max && (self.retain == Retain::Any || self.retain == other.retain)
    }
}

/// Whom a rule is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Audience {
    pub(super) whom: Whom,
    /// If not empty, the client identifier has to match one of these too.
    pub(super) clients: Vec<Glob>,
    /// The role that is given to these.
    pub(super) role: Option<Box<str>>,
}

/// Clients by what they have proved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Whom {
    #[default]
    Everybody,
    /// Those to whom one of these applies; none for a role that is not given to anybody.
    Any(Subjects),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Subjects {
    pub(super) users: Vec<Box<str>>,
    pub(super) groups: Vec<Box<str>>,
    pub(super) anonymous: bool,
}

impl Audience {
    /// Whether a client is meant, whose groups are known by `is_member`.
    pub(super) fn has(
        &self,
        principal: &Principal,
        client_id: &str,
        is_member: impl Fn(&str) -> bool,
    ) -> bool {
        let is_meant = match &self.whom {
            Whom::Everybody => true,
            Whom::Any(subjects) => {
                let is_user = match &principal.user {
                    Some(user) => subjects.users.iter().any(|name| **name == **user),
                    None => subjects.anonymous,
                };
                is_user || subjects.groups.iter().any(|group| is_member(group))
            }
        };
        is_meant && self.has_client(client_id)
    }

    pub(super) fn has_client(&self, client_id: &str) -> bool {
        self.clients.is_empty() || self.clients.iter().any(|glob| glob.matches(client_id))
    }

    /// Whether it is a role that nobody has.
    pub(super) fn is_nobody(&self) -> bool {
        matches!(&self.whom, Whom::Any(subjects) if *subjects == Subjects::default())
    }
}

impl Rule {
    /// Whether a pattern of it matches the topic, or covers the filter, in a way that counts.
    pub(super) fn matches(&self, topic: &str, values: &Values<'_>) -> bool {
        self.patterns.iter().any(|pattern| match pattern.matches(topic, values) {
            Some(Certainty::Known) => true,
            Some(Certainty::Assumed) => self.effect == Effect::Deny,
            None => false,
        })
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Effect::Allow => "allow",
            Effect::Deny => "deny",
        })
    }
}

impl fmt::Display for Actions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named =
            [("publish to", Self::PUBLISH), ("subscribe to", Self::SUBSCRIBE), ("receive", Self::RECEIVE)];
        let mut separator = "";
        for (name, action) in named {
            if self.meets(action) {
                write!(f, "{separator}{name}")?;
                separator = ", ";
            }
        }
        Ok(())
    }
}

impl fmt::Display for Rule {
    /// `deny publish to "secret/#" for everybody`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ", self.effect, self.actions)?;
        write_list(f, &self.patterns)?;
        match self.limits.retain {
            Retain::Any => {}
            Retain::Set => f.write_str(" with retain")?,
            Retain::Unset => f.write_str(" without retain")?,
        }
        if self.limits.qos_max < QoS::ExactlyOnce {
            write!(f, " up to QoS {}", self.limits.qos_max as u8)?;
        }
        write!(f, " for {}", self.audience)
    }
}

impl fmt::Display for Audience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(role) = &self.role {
            return write!(f, "role {role}");
        }
        match &self.whom {
            Whom::Everybody if self.clients.is_empty() => f.write_str("everybody"),
            Whom::Everybody => write_clients(f, &self.clients),
            Whom::Any(subjects) => {
                subjects.fmt(f)?;
                if !self.clients.is_empty() {
                    f.write_str(" as ")?;
                    write_clients(f, &self.clients)?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for Subjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (name, list) in [("user ", &self.users), ("group ", &self.groups)] {
            if !list.is_empty() {
                write!(f, "{separator}{name}")?;
                write_list(f, list)?;
                separator = ", ";
            }
        }
        if self.anonymous {
            write!(f, "{separator}anonymous clients")?;
        }
        Ok(())
    }
}

fn write_clients(f: &mut fmt::Formatter<'_>, clients: &[Glob]) -> fmt::Result {
    f.write_str("client ")?;
    write_list(f, &clients.iter().map(Glob::as_str).collect::<Vec<_>>())
}

/// Names of a list that are shown.
const SHOWN_MAX: usize = 4;

fn write_list(f: &mut fmt::Formatter<'_>, list: &[impl fmt::Display]) -> fmt::Result {
    for (index, entry) in list.iter().take(SHOWN_MAX).enumerate() {
        let separator = if index == 0 { "" } else { ", " };
        write!(f, "{separator}{entry}")?;
    }
    match list.len().saturating_sub(SHOWN_MAX) {
        0 => Ok(()),
        hidden => write!(f, " and {hidden} more"),
    }
}
