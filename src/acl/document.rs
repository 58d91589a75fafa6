//! Our own shape of rules: a TOML file, or the claim of a token.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use serde_json::Value as Json;
use toml::de::DeTable;

use super::{
    Policy,
    glob::Glob,
    pattern::{Dialect, Pattern},
    policy::{Origin, QOS_MAX},
    problem::{PolicyErrors, line_and_column},
    rule::{Actions, Audience, Effect, PublishLimits, Retain, Rule, Subjects, Whom},
    value::{Item, Table, Value, of_toml_table},
};
use crate::codec::QoS;

/// Rules of a token at most, and their topics: each connection brings its own.
const CLAIM_RULES_MAX: usize = 256;
const CLAIM_TOPICS_MAX: usize = 1024;

const RULE_KEYS: &[&str] = &["allow", "deny", "topics", "qos_max", "retain"];
const AUDIENCE_KEYS: &[&str] = &["users", "groups", "clients", "anonymous"];

/// Reads a TOML file of this name.
pub(super) fn of_toml(name: &str, text: &str) -> Result<Policy, PolicyErrors> {
    let mut errors = PolicyErrors::default();
    let place = |at: usize| {
        let (line, column) = line_and_column(text, at);
        format!("{name}:{line}:{column}")
    };
    let (table, mut syntax) = DeTable::parse_recoverable(text);
    syntax.sort_by_key(|error| error.span().map(|span| span.start));
    for error in &syntax {
        errors.add(error.span().map_or_else(|| name.into(), |span| place(span.start)), error.message());
    }
    errors.or(())?;
    let mut reader = Reader { problems: Vec::new(), place: &place, rules: Vec::new() };
    let groups = reader.file(of_toml_table(table.into_inner()));
    let errors = reader.errors();
    let mut rules = reader.rules;
    // As they stand in the file, from top to bottom, in roles or not.
    rules.sort_by_key(|(at, _)| *at);
    let rules = Lines::new(text).number(rules);
    let groups = errors.or(groups)?;
    let policy = Policy::compile(Origin::File(name.into()), rules, groups);
    policy.map_err(|message| PolicyErrors::one(format!("{name}: {message}")))
}

/// Reads the claim of a token: a list of rules.
pub(super) fn of_claim(claim: &Json) -> Result<Policy, PolicyErrors> {
    let place = |at: usize| if at == 0 { "claim `acl`".into() } else { format!("claim `acl`: rule {at}") };
    let mut reader = Reader { problems: Vec::new(), place: &place, rules: Vec::new() };
    let everybody = Arc::new(Audience::default());
    match claim {
        Json::Array(list) if list.len() <= CLAIM_RULES_MAX => {
            for (index, rule) in list.iter().enumerate() {
                reader.rule(Item::of_json(rule, index + 1), Meant::Given(&everybody));
            }
        }
        Json::Array(list) => {
            reader.refuse(0, format!("has {} rules, at most {CLAIM_RULES_MAX} are taken", list.len()));
        }
        _ => reader
            .refuse(0, "is not a list of rules such as {\"allow\": [\"publish\"], \"topics\": [\"a/#\"]}"),
    }
    let topics: usize = reader.rules.iter().map(|(_, rule)| rule.patterns.len()).sum();
    if topics > CLAIM_TOPICS_MAX {
        reader.refuse(0, format!("has {topics} topics, at most {CLAIM_TOPICS_MAX} are taken"));
    }
    let errors = reader.errors();
    let numbered = reader.rules.into_iter().map(|(at, rule)| Rule { line: at as u32, ..rule }).collect();
    let rules = errors.or(numbered)?;
    let policy = Policy::compile(Origin::Claim, rules, BTreeMap::new());
    policy.map_err(|message| PolicyErrors::one(format!("claim `acl`: {message}")))
}

/// Finds the lines of rules whose offsets ascend, in one pass.
struct Lines<'a> {
    text: &'a str,
    at: usize,
    line: u32,
}

impl<'a> Lines<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, at: 0, line: 1 }
    }

    fn number(mut self, rules: Vec<(usize, Rule)>) -> Vec<Rule> {
        let numbered = rules.into_iter().map(|(at, rule)| {
            let passed = self.text.as_bytes().get(self.at..at).unwrap_or_default();
            self.line += passed.iter().filter(|byte| **byte == b'\n').count() as u32;
            self.at = at;
            Rule { line: self.line, ..rule }
        });
        numbered.collect()
    }
}

/// Reads values and remembers what is wrong with them.
struct Reader<'a> {
    /// Each with its place.
    problems: Vec<(usize, String)>,
    /// Words for a place.
    place: &'a dyn Fn(usize) -> String,
    /// Rules with their places.
    rules: Vec<(usize, Rule)>,
}

/// How it is known whom a rule is about.
#[derive(Clone, Copy)]
enum Meant<'a> {
    /// The rule says it.
    Written,
    /// It stands in a role, or in a token.
    Given(&'a Arc<Audience>),
}

impl Reader<'_> {
    fn refuse(&mut self, at: usize, message: impl std::fmt::Display) {
        self.problems.push((at, message.to_string()));
    }

    /// What is wrong, in the order of the text.
    fn errors(&mut self) -> PolicyErrors {
        let mut errors = PolicyErrors::default();
        self.problems.sort_by_key(|(at, _)| *at);
        self.problems.iter().for_each(|(at, message)| errors.add((self.place)(*at), message));
        errors
    }

    fn file(&mut self, table: Table<'_>) -> BTreeMap<Box<str>, Vec<Box<str>>> {
        let mut groups = BTreeMap::new();
        for (key, at, item) in table {
            match &*key {
                "groups" => {
                    for (name, _, members) in self.table("groups", item).unwrap_or_default() {
                        let members = self.texts(&name, members, Empty::Allowed);
                        groups.insert(name.into(), self.names(members));
                    }
                }
                "roles" => {
                    for (name, at, role) in self.table("roles", item).unwrap_or_default() {
                        self.role(&name, at, role);
                    }
                }
                "rules" => self.rules(item, Meant::Written),
                _ => self.refuse_key(at, &key, &["groups", "roles", "rules"]),
            }
        }
        groups
    }

    fn role(&mut self, name: &str, at: usize, item: Item<'_>) {
        let Some(table) = self.table(name, item) else { return };
        let (mut rules, mut rest) = (None, Vec::new());
        for entry in table {
            match &*entry.0 {
                "rules" => rules = Some(entry.2),
                _ => rest.push(entry),
            }
        }
        let mut audience = self.audience(&mut rest);
        for (key, at, _) in &rest {
            self.refuse_key(*at, key, &["rules", "users", "groups", "clients", "anonymous"]);
        }
        // A role without anybody is nobody's, where a rule without anybody is everybody's. That of some clients
        // is given to whoever they are.
        if matches!(audience.whom, Whom::Everybody) && audience.clients.is_empty() {
            audience.whom = Whom::Any(Subjects::default());
        }
        audience.role = Some(name.into());
        match rules {
            Some(rules) => self.rules(rules, Meant::Given(&Arc::new(audience))),
            None => self.refuse(at, format!("role {name:?} has no `rules`")),
        }
    }

    fn rules(&mut self, item: Item<'_>, meant: Meant<'_>) {
        match item.value {
            Value::List(rules) => {
                for rule in rules {
                    self.rule(rule, meant);
                }
            }
            _ => self.refuse(item.at, format!("`rules` is {}, not a list of rules", item.kind())),
        }
    }

    fn rule(&mut self, item: Item<'_>, meant: Meant<'_>) {
        let at = item.at;
        let Some(mut table) = self.table("a rule", item) else { return };
        let audience = match meant {
            Meant::Written => Arc::new(self.audience(&mut table)),
            Meant::Given(audience) => audience.clone(),
        };
        let mut effects = Vec::new();
        let mut patterns = None;
        let mut limits = Limits { qos_max: None, retain: None };
        for (key, key_at, item) in table {
            match &*key {
                "allow" => effects.push((Effect::Allow, self.actions(item))),
                "deny" => effects.push((Effect::Deny, self.actions(item))),
                "topics" => patterns = Some(self.patterns(item)),
                "qos_max" => limits.qos_max = self.qos(&item).map(|qos| (key_at, qos)),
                "retain" => limits.retain = self.retain(&item).map(|retain| (key_at, retain)),
                _ if matches!(meant, Meant::Given(_)) && AUDIENCE_KEYS.contains(&&*key) => {
                    self.refuse(
                        key_at,
                        format!("`{key}` does not belong here: it is known whom this rule is about"),
                    );
                }
                _ => self.refuse_key(key_at, &key, &[RULE_KEYS, AUDIENCE_KEYS].concat()),
            }
        }
        let Some(patterns) = patterns else { return self.refuse(at, "a rule without `topics`") };
        match effects[..] {
            [(effect, actions)] => {
                let limits = self.limits(effect, actions, &limits);
                self.rules.push((at, Rule { effect, actions, patterns, limits, audience, line: 0 }));
            }
            [] => self.refuse(at, "a rule has `allow` or `deny`, a list of actions; this one has neither"),
            _ => self.refuse(at, "a rule has `allow` or `deny`; this one has both: write two rules"),
        }
    }

    /// Takes whom a rule or a role is about out of a table.
    fn audience(&mut self, table: &mut Table<'_>) -> Audience {
        let mut subjects = Subjects::default();
        let mut clients = Vec::new();
        let is_ours = |key: &str| AUDIENCE_KEYS.contains(&key);
        let (ours, rest): (Table<'_>, _) =
            std::mem::take(table).into_iter().partition(|entry| is_ours(&entry.0));
        *table = rest;
        let is_everybody = ours.iter().all(|(key, ..)| key == "clients");
        for (key, _, item) in ours {
            let at = item.at;
            match &*key {
                "anonymous" => match item.value {
                    Value::Boolean(true) => subjects.anonymous = true,
                    _ => self.refuse(at, "`anonymous` is true, or is left out"),
                },
                "clients" => {
                    let texts = self.texts(&key, item, Empty::Refused);
                    clients = texts.into_iter().map(|(_, text)| Glob::new(&text)).collect();
                }
                _ => {
                    let texts = self.texts(&key, item, Empty::Refused);
                    let names = self.names(texts);
                    if key == "users" { subjects.users = names } else { subjects.groups = names }
                }
            }
        }
        let whom = if is_everybody { Whom::Everybody } else { Whom::Any(subjects) };
        Audience { whom, clients, role: None }
    }

    fn actions(&mut self, item: Item<'_>) -> Actions {
        let mut actions = Actions::NONE;
        for (at, action) in self.texts("allow or deny", item, Empty::Refused) {
            let known = match &*action {
                "publish" => Actions::PUBLISH,
                "subscribe" => Actions::SUBSCRIBE,
                "receive" => Actions::RECEIVE,
                "all" => Actions::ALL,
                _ => {
                    self.refuse(
                        at,
                        format!("{action:?} is no action; there are publish, subscribe, receive and all"),
                    );
                    Actions::NONE
                }
            };
            actions = actions.with(known);
        }
        actions
    }

    fn patterns(&mut self, item: Item<'_>) -> Vec<Pattern> {
        let mut patterns = Vec::new();
        for (at, text) in self.texts("topics", item, Empty::Refused) {
            match Pattern::parse(&text, Dialect::Own) {
                Ok(pattern) => patterns.push(pattern),
                Err(message) => self.refuse(at, message),
            }
        }
        patterns
    }

    fn qos(&mut self, item: &Item<'_>) -> Option<QoS> {
        let qos = match item.value {
            Value::Integer(number) => u8::try_from(number).ok().and_then(QoS::from_u8),
            _ => None,
        };
        if qos.is_none() {
            self.refuse(item.at, "`qos_max` is 0, 1 or 2");
        }
        qos
    }

    fn retain(&mut self, item: &Item<'_>) -> Option<Retain> {
        match &item.value {
            Value::Boolean(true) => Some(Retain::Set),
            Value::Boolean(false) => Some(Retain::Unset),
            Value::Text(text) if text == "any" => Some(Retain::Any),
            _ => {
                self.refuse(item.at, "`retain` is true, false or \"any\"");
                None
            }
        }
    }

    /// What of the limits belongs to a rule of this kind. What would have no effect, or another one than it looks
    /// like, is refused.
    fn limits(&mut self, effect: Effect, actions: Actions, limits: &Limits) -> PublishLimits {
        let no_effect = "has no effect: this rule is not about publishing";
        if let Some((at, _)) = limits.retain.filter(|_| !actions.meets(Actions::PUBLISH)) {
            self.refuse(at, format!("`retain` {no_effect}"));
        }
        if let Some((at, _)) =
            limits.qos_max.filter(|_| !actions.meets(Actions::PUBLISH.with(Actions::SUBSCRIBE)))
        {
            self.refuse(at, format!("`qos_max` {no_effect} or subscribing"));
        }
        let first = limits.qos_max.map(|(at, _)| at).into_iter().chain(limits.retain.map(|(at, _)| at)).min();
        if let Some(at) = first.filter(|_| effect == Effect::Deny && actions != Actions::PUBLISH) {
            self.refuse(
                at,
                "a denial with limits is for publishing alone: write deny = [\"publish\"], and another rule",
            );
        }
        PublishLimits {
            qos_max: limits.qos_max.map_or(QOS_MAX, |(_, qos)| qos),
            retain: limits.retain.map_or(Retain::Any, |(_, retain)| retain),
        }
    }

    /// Names of users and groups. A `*` would look like a pattern and be none.
    fn names(&mut self, texts: Vec<(usize, Cow<'_, str>)>) -> Vec<Box<str>> {
        for (at, text) in texts.iter().filter(|(_, text)| text.contains('*')) {
            self.refuse(
                *at,
                format!("{text:?} is taken as it is: users and groups have no patterns; use a group"),
            );
        }
        texts.into_iter().map(|(_, text)| text.into()).collect()
    }

    /// A list of texts, or a single one.
    fn texts<'a>(&mut self, key: &str, item: Item<'a>, empty: Empty) -> Vec<(usize, Cow<'a, str>)> {
        let Item { at, value } = item;
        let list = match value {
            Value::List(list) => list,
            value @ (Value::Text(_)
            | Value::Integer(_)
            | Value::Boolean(_)
            | Value::Table(_)
            | Value::Other) => {
                vec![Item { at, value }]
            }
        };
        if list.is_empty() && empty == Empty::Refused {
            self.refuse(
                at,
                format!(
                    "`{key}` is an empty list, which could mean all or nothing: leave the key or the rule out"
                ),
            );
        }
        let mut texts = Vec::with_capacity(list.len());
        for item in list {
            match item.value {
                Value::Text(text) if text.is_empty() => {
                    self.refuse(item.at, format!("`{key}` has an empty text"))
                }
                Value::Text(text) => texts.push((item.at, text)),
                _ => self.refuse(item.at, format!("`{key}` has {} where text belongs", item.kind())),
            }
        }
        texts
    }

    fn table<'a>(&mut self, name: &str, item: Item<'a>) -> Option<Table<'a>> {
        match item.value {
            Value::Table(table) => Some(table),
            _ => {
                self.refuse(item.at, format!("{name} is {}, not a table", item.kind()));
                None
            }
        }
    }

    fn refuse_key(&mut self, at: usize, key: &str, allowed: &[&str]) {
        self.refuse(at, format!("unknown key `{key}` (allowed: {})", allowed.join(", ")));
    }
}

/// Limits as written, with the places of their keys.
struct Limits {
    qos_max: Option<(usize, QoS)>,
    retain: Option<(usize, Retain)>,
}

/// Whether an empty list makes sense.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Empty {
    Allowed,
    Refused,
}
