//! The filters that have wildcards, as a tree of levels.
//!
//! A node is the levels that its patterns share up to where they part: a pattern costs two nodes at
//! most, however many levels it has. All nodes stand in one hash table by (parent, first level), and
//! lead to each other only by that look-up: a node with a hundred thousand children is as cheap to
//! pass as one with a single child, removal gives memory back, and nothing recurses.
//!
//! Invariants:
//! - A node has a value or children; removal prunes at once. It may leave a node with a single child
//!   and no value, which it does not join with its child: a later pattern would part them again.
//! - A node's number is never used again, so what is left of a removed node could not be mistaken
//!   for part of another.
//! - The table is looked up, never walked: the order of matches depends neither on hashes nor on the
//!   order in which patterns came.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;

use super::table::PartedTable;
use super::{is_reserved, split_level};

/// One value per pattern with wildcards.
#[derive(Debug, Clone)]
pub(super) struct LevelTree<V> {
    hasher: FixedState,
    nodes: PartedTable<Node<V>>,
    root: Children,
    /// The number of the next node. Counting up a `u64` does not end.
    next_id: u64,
    len: usize,
}

/// One or more levels that follow each other in every pattern that comes through here.
#[derive(Debug, Clone)]
struct Node<V> {
    id: u64,
    parent: u64,
    /// As in a pattern: `+` and `#` are levels like others here, for no topic has them.
    levels: Box<str>,
    children: Children,
    /// That of the pattern that ends here.
    value: Option<V>,
}

/// What is below a node. It spares the look-up of a child that is not there.
#[derive(Debug, Clone, Copy, Default)]
struct Children {
    literals: u32,
    has_plus: bool,
    has_hash: bool,
}

/// Where a node stands: under which parent, for which first level.
type Place<'a> = (u64, &'a str);

/// A node whose first level matches, and what of the topic comes after that level.
#[derive(Debug)]
struct Branch<'n, 't, V> {
    node: &'n Node<V>,
    /// The further levels of the node, if it has more than the first.
    levels: Option<&'n str>,
    rest: Option<&'t str>,
}

/// The number of the root, which is no node of the table.
const ROOT: u64 = 0;

impl<V> LevelTree<V> {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            hasher: FixedState::with_seed(seed),
            nodes: PartedTable::new(),
            root: Children::default(),
            next_id: ROOT + 1,
            len: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Makes room for so many more patterns, which mostly take a node each.
    pub(super) fn reserve(&mut self, patterns: usize) {
        let hasher = &self.hasher;
        self.nodes.reserve(patterns, |node| node.hash(hasher));
    }

    #[cfg(test)]
    pub(super) fn nodes(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn get(&self, pattern: &str) -> Option<&V> {
        let path = self.path(pattern)?;
        self.node(*path.last()?)?.value.as_ref()
    }

    pub(super) fn get_mut(&mut self, pattern: &str) -> Option<&mut V> {
        let path = self.path(pattern)?;
        self.node_mut(*path.last()?)?.value.as_mut()
    }

    pub(super) fn get_or_insert_with(&mut self, pattern: &str, make: impl FnOnce() -> V) -> &mut V {
        let place = self.make_place(pattern);
        let hash = self.hash(place);
        let node = self.nodes.find_mut(hash, |node| node.stands_at(place));
        let node = node.expect("the node of this pattern was found or inserted just now");
        node.value.get_or_insert_with(|| {
            self.len += 1;
            make()
        })
    }

    pub(super) fn remove(&mut self, pattern: &str) -> Option<V> {
        let path = self.path(pattern)?;
        let value = self.node_mut(*path.last()?)?.value.take()?;
        self.len -= 1;
        self.prune(&path);
        Some(value)
    }

    /// Calls `f` with the value of each pattern that matches a valid topic name. Of patterns that part
    /// at a level, the one with `#` comes first, then those with the level itself, then those with `+`.
    pub(super) fn for_each_match(&self, topic: &str, mut f: impl FnMut(&V)) {
        // [MQTT-4.7.2-1] wildcards in the first level do not match a name that begins with $.
        let root = Children {
            has_plus: self.root.has_plus && !is_reserved(topic),
            has_hash: self.root.has_hash && !is_reserved(topic),
            ..self.root
        };
        // A branch waits here while another is followed: at most one for each level of the topic.
        let mut waiting = Vec::new();
        let mut branch = self.step(ROOT, root, Some(topic), &mut waiting, &mut f);
        while let Some(Branch { node, levels, rest }) = branch.or_else(|| waiting.pop()) {
            branch = None;
            let Some(rest) = match_levels(levels, rest) else {
                continue;
            };
            if let (None, Some(value)) = (rest, &node.value) {
                f(value);
            }
            branch = self.step(node.id, node.children, rest, &mut waiting, &mut f);
        }
    }

    /// Visits the `#` below a node and finds its children for the next level of the topic; returns
    /// the branch to follow at once.
    fn step<'n, 't>(
        &'n self,
        id: u64,
        children: Children,
        rest: Option<&'t str>,
        waiting: &mut Vec<Branch<'n, 't, V>>,
        f: &mut impl FnMut(&V),
    ) -> Option<Branch<'n, 't, V>> {
        // `a/#` matches `a` as well, so this does not ask whether the topic has more levels.
        if children.has_hash
            && let Some(value) = self.node((id, "#")).and_then(|node| node.value.as_ref())
        {
            f(value);
        }
        let (level, rest) = split_level(rest?);
        let child = |first_level: &str| {
            let node = self.node((id, first_level))?;
            Some(Branch { node, levels: node.levels.get(first_level.len() + 1..), rest })
        };
        let literal = if children.literals > 0 { child(level) } else { None };
        let plus = if children.has_plus { child("+") } else { None };
        if literal.is_none() {
            return plus;
        }
        waiting.extend(plus);
        literal
    }

    /// The places from the root to the node where a pattern ends, if there is one.
    fn path<'p>(&self, pattern: &'p str) -> Option<Vec<Place<'p>>> {
        let mut path = Vec::new();
        let mut parent = ROOT;
        let mut rest = pattern;
        loop {
            let place = (parent, split_level(rest).0);
            let node = self.node(place)?;
            path.push(place);
            rest = rest.strip_prefix(&*node.levels)?;
            if rest.is_empty() {
                return Some(path);
            }
            rest = rest.strip_prefix('/')?;
            parent = node.id;
        }
    }

    /// The place of the node where a pattern ends, after making it if there was none.
    fn make_place<'p>(&mut self, pattern: &'p str) -> Place<'p> {
        let mut above = None;
        let mut parent = ROOT;
        let mut rest = pattern;
        loop {
            let place = (parent, split_level(rest).0);
            let Some(node) = self.node(place) else {
                self.children_mut(above).add(place.1);
                self.insert_node(parent, rest, Children::default());
                return place;
            };
            let shared = shared_levels(rest, &node.levels);
            parent = if shared.len() < node.levels.len() { self.split_node(place, shared) } else { node.id };
            if shared.len() == rest.len() {
                return place;
            }
            rest = &rest[shared.len() + 1..];
            above = Some(place);
        }
    }

    /// Puts a new node before one, for the first of its levels; returns its number. The old node
    /// keeps its own number, so that its children still find it.
    fn split_node(&mut self, place: Place<'_>, first_levels: &str) -> u64 {
        let hash = self.hash(place);
        let hasher = &self.hasher;
        let removed = self.nodes.remove(hash, |node| node.stands_at(place), |node| node.hash(hasher));
        let mut below = removed.expect("the caller found the node at this place");
        below.levels = below.levels[first_levels.len() + 1..].into();
        let mut children = Children::default();
        children.add(split_level(&below.levels).0);
        let above_id = self.insert_node(place.0, first_levels, children);
        below.parent = above_id;
        let hasher = &self.hasher;
        self.nodes.insert(below.hash(hasher), below, |node| node.hash(hasher));
        above_id
    }

    fn insert_node(&mut self, parent: u64, levels: &str, children: Children) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let node = Node { id, parent, levels: levels.into(), children, value: None };
        let hasher = &self.hasher;
        self.nodes.insert(node.hash(hasher), node, |node| node.hash(hasher));
        id
    }

    /// Removes the nodes that have neither a value nor children, from the end of a path upwards.
    fn prune(&mut self, path: &[Place<'_>]) {
        for (depth, &place) in path.iter().enumerate().rev() {
            let hash = self.hash(place);
            let hasher = &self.hasher;
            let is_bare_here = |node: &Node<V>| node.stands_at(place) && node.is_bare();
            if self.nodes.remove(hash, is_bare_here, |node| node.hash(hasher)).is_none() {
                return;
            }
            let above = depth.checked_sub(1).map(|depth| path[depth]);
            self.children_mut(above).remove(place.1);
        }
    }

    fn node(&self, place: Place<'_>) -> Option<&Node<V>> {
        self.nodes.find(self.hash(place), |node| node.stands_at(place))
    }

    fn node_mut(&mut self, place: Place<'_>) -> Option<&mut Node<V>> {
        self.nodes.find_mut(self.hash(place), |node| node.stands_at(place))
    }

    fn children_mut(&mut self, place: Option<Place<'_>>) -> &mut Children {
        match place {
            None => &mut self.root,
            Some(place) => {
                let node = self.node_mut(place);
                &mut node.expect("a node with children is never removed").children
            }
        }
    }

    fn hash(&self, place: Place<'_>) -> u64 {
        self.hasher.hash_one(place)
    }
}

impl<V> Node<V> {
    fn hash(&self, hasher: &FixedState) -> u64 {
        let place: Place<'_> = (self.parent, split_level(&self.levels).0);
        hasher.hash_one(place)
    }

    fn stands_at(&self, (parent, first_level): Place<'_>) -> bool {
        self.parent == parent
            && self
                .levels
                .strip_prefix(first_level)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    fn is_bare(&self) -> bool {
        self.value.is_none() && self.children.is_empty()
    }
}

impl Children {
    fn add(&mut self, first_level: &str) {
        match first_level {
            "+" => self.has_plus = true,
            "#" => self.has_hash = true,
            _ => self.literals += 1,
        }
    }

    fn remove(&mut self, first_level: &str) {
        match first_level {
            "+" => self.has_plus = false,
            "#" => self.has_hash = false,
            _ => self.literals -= 1,
        }
    }

    fn is_empty(self) -> bool {
        self.literals == 0 && !self.has_plus && !self.has_hash
    }
}

/// Matches levels of a pattern against the beginning of a topic; what the topic has beyond is the
/// result, which is `Some(None)` where nothing is left.
fn match_levels<'t>(mut levels: Option<&str>, mut topic: Option<&'t str>) -> Option<Option<&'t str>> {
    while let Some(text) = levels {
        let (level, further) = split_level(text);
        if level == "#" {
            return Some(None);
        }
        let (topic_level, rest) = split_level(topic?);
        if level != "+" && level != topic_level {
            return None;
        }
        (levels, topic) = (further, rest);
    }
    Some(topic)
}

/// The levels that two texts have in common at their beginning. They have the first one in common.
fn shared_levels<'a>(one: &'a str, other: &str) -> &'a str {
    let equal = one.split('/').zip(other.split('/')).take_while(|(a, b)| a == b);
    let bytes: usize = equal.map(|(level, _)| level.len() + 1).sum();
    &one[..bytes - 1]
}
