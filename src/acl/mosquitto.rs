//! Rules in the format of mosquitto's `acl_file`.
//!
//! A client has the topics of its user's section, or those before all sections if it is anonymous, and then
//! the patterns, which are for all. Among either, denials come first. Whoever may not read a topic may
//! nevertheless subscribe to it: the deliveries are decided, one by one.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Policy,
    pattern::{Dialect, Pattern},
    policy::Origin,
    problem::PolicyErrors,
    rule::{Actions, Audience, Effect, PublishLimits, Rule, Subjects, Whom},
};

/// Reads a file of this name.
pub(super) fn of_mosquitto(name: &str, text: &str) -> Result<Policy, PolicyErrors> {
    let mut errors = PolicyErrors::default();
    let mut reader = Reader::new();
    for (index, line) in text.lines().enumerate() {
        let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
        if let Err(message) = reader.line(number, line) {
            errors.add(format_args!("{name}:{number}"), message);
        }
    }
    let rules = errors.or(reader.finish())?;
    let policy = Policy::compile(Origin::File(name.into()), rules, BTreeMap::new());
    policy.map_err(|message| PolicyErrors::one(format!("{name}: {message}")))
}

/// Whether a text looks like such a file: its first line that says something does.
pub(super) fn is_mosquitto(text: &str) -> bool {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let first = lines.next().and_then(|line| line.split_once([' ', '\t']));
    first.is_some_and(|(word, rest)| {
        matches!(word, "topic" | "user" | "pattern") && !rest.trim_start().starts_with('=')
    })
}

struct Reader {
    /// Whom topics are for, from the last `user` on.
    section: Arc<Audience>,
    everybody: Arc<Audience>,
    topics: Sorted,
    patterns: Sorted,
}

/// Denials come before the rest, wherever they are written.
#[derive(Default)]
struct Sorted {
    denials: Vec<Rule>,
    others: Vec<Rule>,
}

impl Sorted {
    fn push(&mut self, rule: Rule) {
        match rule.effect {
            Effect::Deny => self.denials.push(rule),
            Effect::Allow => self.others.push(rule),
        }
    }

    fn into_rules(self) -> impl Iterator<Item = Rule> {
        self.denials.into_iter().chain(self.others)
    }
}

impl Reader {
    fn new() -> Self {
        let anonymous = Subjects { anonymous: true, ..Subjects::default() };
        Self {
            section: Arc::new(Audience { whom: Whom::Any(anonymous), ..Audience::default() }),
            everybody: Arc::new(Audience::default()),
            topics: Sorted::default(),
            patterns: Sorted::default(),
        }
    }

    fn line(&mut self, number: u32, line: &str) -> Result<(), String> {
        let line = line.trim_end();
        if line.is_empty() || line.starts_with('#') {
            return Ok(());
        }
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let rest = rest.trim_start_matches(' ');
        match word {
            "user" if rest.is_empty() => Err("`user` without a name".into()),
            "user" => {
                let subjects = Subjects { users: vec![rest.into()], ..Subjects::default() };
                self.section = Arc::new(Audience { whom: Whom::Any(subjects), ..Audience::default() });
                Ok(())
            }
            "topic" => {
                let rule = parse_rule(number, rest, Dialect::Plain, &self.section)?;
                self.topics.push(rule);
                Ok(())
            }
            "pattern" => {
                let rule = parse_rule(number, rest, Dialect::Mosquitto, &self.everybody)?;
                self.patterns.push(rule);
                Ok(())
            }
            _ => Err(format!("{word:?} begins no rule; lines begin with topic, user or pattern")),
        }
    }

    fn finish(self) -> Vec<Rule> {
        let last = |effect, actions| Rule {
            effect,
            actions,
            patterns: vec![Pattern::everything()],
            limits: PublishLimits::NONE,
            audience: self.everybody.clone(),
            line: 0,
        };
        let last = [last(Effect::Deny, Actions::RECEIVE), last(Effect::Allow, Actions::SUBSCRIBE)];
        self.topics.into_rules().chain(self.patterns.into_rules()).chain(last).collect()
    }
}

/// Reads what follows `topic` or `pattern`.
fn parse_rule(line: u32, text: &str, dialect: Dialect, audience: &Arc<Audience>) -> Result<Rule, String> {
    // What is not followed by a topic is one itself.
    let (access, topic) = match text.split_once(' ') {
        Some((access, topic)) => (access, topic.trim_start_matches(' ')),
        None => ("readwrite", text),
    };
    if topic.is_empty() {
        return Err("a topic is missing".into());
    }
    let published_and_read = Actions::PUBLISH.with(Actions::RECEIVE);
    let (effect, actions) = match access {
        "read" => (Effect::Allow, Actions::RECEIVE),
        "write" => (Effect::Allow, Actions::PUBLISH),
        "readwrite" => (Effect::Allow, published_and_read),
        "deny" => (Effect::Deny, published_and_read),
        _ => return Err(format!("{access:?} is no access; there are read, write, readwrite and deny")),
    };
    let patterns = vec![Pattern::parse(topic, dialect)?];
    Ok(Rule { effect, actions, patterns, limits: PublishLimits::NONE, audience: audience.clone(), line })
}
