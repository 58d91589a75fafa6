//! The index of rules by the topics that they are about: trees of levels.
//!
//! There is a tree for each subject (a user, a group, a role, everybody). All nodes stand in one list, and
//! children with a literal level in one hash table by (parent, level): a node with a hundred thousand children
//! is as cheap to pass as one with a single child.
//!
//! Invariants:
//! - The rules of a node ascend, and `least` of a node is the lowest number at or below it, so that a search
//!   for the first rule passes over what cannot be first.
//! - A search allocates nothing. It recurses once per level of a rule, of which the limits of topics allow
//!   two hundred.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use super::{
    Action,
    pattern::{Certainty, Level, Pattern, Template, Values},
    rule::{Actions, Effect, Rule},
};

/// Entries of rules in all trees together: a rule with ten topics for ten users has a hundred.
pub(super) const ENTRIES_MAX: usize = 4_000_000;

/// The number of no rule, above all others.
pub(super) const NO_RULE: u32 = u32::MAX;

/// One tree per root.
#[derive(Default)]
pub(super) struct Forest {
    nodes: Vec<Node>,
    literals: HashTable<Literal>,
    hasher: FixedState,
    roots: Vec<Root>,
    entries: usize,
}

/// A tree of the forest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RootId(u32);

struct Root {
    node: u32,
    /// Rules for every topic there is.
    everything: Vec<u32>,
    /// Whether a rule here may keep a delivery from a client.
    denies_receiving: Verdict,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Never,
    Perhaps,
}

struct Node {
    /// The lowest rule at or below this node.
    least: u32,
    /// Rules with a pattern that ends here, and with one that ends with a `#` below.
    ends: Vec<u32>,
    hashes: Vec<u32>,
    plus: Option<u32>,
    has_literals: bool,
    templates: Vec<Branch>,
}

struct Branch {
    template: Template,
    node: u32,
    /// Whether there is a denial below, for which a placeholder without a value counts as `+`.
    has_denials: bool,
}

struct Literal {
    parent: u32,
    level: Box<str>,
    node: u32,
}

/// What is asked for.
pub(super) struct Question<'a> {
    pub(super) rules: &'a [Rule],
    pub(super) action: Action,
    pub(super) actions: Actions,
    pub(super) topic: &'a str,
    pub(super) values: Values<'a>,
}

impl Forest {
    pub(super) fn add_root(&mut self) -> RootId {
        let node = self.add_node();
        self.roots.push(Root { node, everything: Vec::new(), denies_receiving: Verdict::Never });
        RootId(self.roots.len() as u32 - 1)
    }

    /// Adds a rule, whose number is above those of the rules before.
    pub(super) fn insert(&mut self, root: RootId, number: u32, rule: &Rule) -> Result<(), String> {
        self.entries += rule.patterns.len();
        if self.entries > ENTRIES_MAX {
            return Err(format!(
                "the rules have more than {ENTRIES_MAX} entries (topics times users and groups); give roles, or use \
                 placeholders"
            ));
        }
        let receiving = Actions::asked_by(Action::Receive);
        if rule.effect == Effect::Deny && rule.actions.meets(receiving) {
            self.roots[root.0 as usize].denies_receiving = Verdict::Perhaps;
        }
        rule.patterns.iter().for_each(|pattern| self.insert_pattern(root, number, rule.effect, pattern));
        Ok(())
    }

    fn insert_pattern(&mut self, root: RootId, number: u32, effect: Effect, pattern: &Pattern) {
        let mut node = self.roots[root.0 as usize].node;
        for level in pattern.levels() {
            let place = &mut self.nodes[node as usize];
            place.least = place.least.min(number);
            node = match level {
                Level::Everything => return self.roots[root.0 as usize].everything.push(number),
                Level::Hash => return place.hashes.push(number),
                Level::Plus => self.plus_child(node),
                Level::Literal(text) => self.literal_child(node, text),
                Level::Template(template) => self.template_child(node, template, effect),
            };
        }
        let place = &mut self.nodes[node as usize];
        place.least = place.least.min(number);
        place.ends.push(number);
    }

    fn add_node(&mut self) -> u32 {
        let node = Node {
            least: NO_RULE,
            ends: Vec::new(),
            hashes: Vec::new(),
            plus: None,
            has_literals: false,
            templates: Vec::new(),
        };
        self.nodes.push(node);
        self.nodes.len() as u32 - 1
    }

    fn plus_child(&mut self, parent: u32) -> u32 {
        if let Some(child) = self.nodes[parent as usize].plus {
            return child;
        }
        let child = self.add_node();
        self.nodes[parent as usize].plus = Some(child);
        child
    }

    fn literal_child(&mut self, parent: u32, level: &str) -> u32 {
        if let Some(child) = self.find_literal(parent, level) {
            return child;
        }
        let child = self.add_node();
        self.nodes[parent as usize].has_literals = true;
        let hash = self.hasher.hash_one((parent, level));
        let literal = Literal { parent, level: level.into(), node: child };
        let hasher = &self.hasher;
        self.literals.insert_unique(hash, literal, |other| hasher.hash_one((other.parent, &*other.level)));
        child
    }

    fn template_child(&mut self, parent: u32, template: &Template, effect: Effect) -> u32 {
        let is_denial = effect == Effect::Deny;
        let known =
            self.nodes[parent as usize].templates.iter_mut().find(|branch| branch.template == *template);
        if let Some(branch) = known {
            branch.has_denials |= is_denial;
            return branch.node;
        }
        let node = self.add_node();
        let branch = Branch { template: template.clone(), node, has_denials: is_denial };
        self.nodes[parent as usize].templates.push(branch);
        node
    }

    fn find_literal(&self, parent: u32, level: &str) -> Option<u32> {
        let hash = self.hasher.hash_one((parent, level));
        let found = self.literals.find(hash, |literal| literal.parent == parent && *literal.level == *level);
        found.map(|literal| literal.node)
    }

    /// Whether a rule of this tree may deny a delivery.
    pub(super) fn denies_receiving(&self, root: RootId) -> bool {
        self.roots[root.0 as usize].denies_receiving == Verdict::Perhaps
    }

    /// The first rule below `before` that decides, else `before`.
    pub(super) fn first(&self, root: RootId, question: &Question<'_>, before: u32) -> u32 {
        let mut search = Search { forest: self, question, best: before };
        search.start(&self.roots[root.0 as usize]);
        search.best
    }
}

struct Search<'a> {
    forest: &'a Forest,
    question: &'a Question<'a>,
    /// The first rule so far.
    best: u32,
}

impl<'a> Search<'a> {
    fn start(&mut self, root: &'a Root) {
        self.consider(&root.everything, Certainty::Known);
        let topic = self.question.topic;
        if !topic.starts_with('$') {
            return self.walk(root.node, Some(topic), Certainty::Known);
        }
        // [MQTT-4.7.2-1] wildcards in the first level do not match a name that begins with $.
        let node = &self.forest.nodes[root.node as usize];
        let (level, rest) = split_level(topic);
        self.walk_literal(root.node, level, rest, Certainty::Known);
        for branch in node.templates.iter().filter(|branch| branch.template.reaches_reserved()) {
            self.walk_template(branch, level, rest, Certainty::Known);
        }
    }

    /// Looks at a node and all below it, for what is left of the topic.
    fn walk(&mut self, id: u32, rest: Option<&str>, certainty: Certainty) {
        let node = &self.forest.nodes[id as usize];
        if node.least >= self.best {
            return;
        }
        // `a/#` matches `a` as well, so this does not ask whether the topic has more levels.
        self.consider(&node.hashes, certainty);
        let Some(rest) = rest else { return self.consider(&node.ends, certainty) };
        let (level, rest) = split_level(rest);
        // Only `#` covers a `#` of the filter that is asked for.
        if level == "#" {
            return;
        }
        if node.has_literals {
            self.walk_literal(id, level, rest, certainty);
        }
        for branch in &node.templates {
            self.walk_template(branch, level, rest, certainty);
        }
        if let Some(plus) = node.plus {
            self.walk(plus, rest, certainty);
        }
    }

    fn walk_literal(&mut self, parent: u32, level: &str, rest: Option<&str>, certainty: Certainty) {
        if let Some(node) = self.forest.find_literal(parent, level) {
            self.walk(node, rest, certainty);
        }
    }

    fn walk_template(&mut self, branch: &'a Branch, level: &str, rest: Option<&str>, certainty: Certainty) {
        let values = &self.question.values;
        if branch.template.matches(level, values) {
            self.walk(branch.node, rest, certainty);
        } else if branch.has_denials && branch.template.unusable(values).is_some() {
            self.walk(branch.node, rest, Certainty::Assumed);
        }
    }

    /// Takes the first of these rules that decides, if it comes before what was found so far.
    fn consider(&mut self, rules: &[u32], certainty: Certainty) {
        let known = rules.iter().take_while(|number| **number < self.best);
        let mut deciding = known.filter(|number| {
            let rule = &self.question.rules[**number as usize];
            self.question.is_decided_by(rule)
                && (certainty == Certainty::Known || rule.effect == Effect::Deny)
        });
        if let Some(number) = deciding.next() {
            self.best = *number;
        }
    }
}

impl Question<'_> {
    /// Whether a rule whose topics match decides this.
    fn is_decided_by(&self, rule: &Rule) -> bool {
        rule.actions.meets(self.actions)
            && rule.limits.admit(self.action)
            && rule.audience.has_client(self.values.client_id)
    }
}

/// Splits off the first level; `None` as the rest says that it was the last one.
fn split_level(text: &str) -> (&str, Option<&str>) {
    match text.bytes().position(|byte| byte == b'/') {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    }
}
