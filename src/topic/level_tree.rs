//! The filters that have wildcards, as a tree of levels.
//!
//! All nodes stand in one hash table by (parent, level), and lead to each other only by that look-up:
//! a node with a hundred thousand children is as cheap to pass as one with a single child, removal
//! gives memory back, and nothing recurses, however deep a topic is.
//!
//! Invariants:
//! - A node has a value or children; removal prunes at once.
//! - A node's number is never used again, so what is left of a removed node could not be mistaken
//!   for part of another.
//! - The table is looked up, never walked: the order of matches does not depend on hashes.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use super::filter_tree::shrink;
use super::{is_reserved, split_level};

/// One value per pattern with wildcards.
#[derive(Debug, Clone)]
pub(super) struct LevelTree<V> {
    hasher: FixedState,
    nodes: HashTable<Node<V>>,
    root: Children,
    /// The number of the next node. Counting up a `u64` does not end.
    next_id: u64,
    len: usize,
}

/// One level of a pattern; all patterns that are equal up to here share it.
#[derive(Debug, Clone)]
struct Node<V> {
    id: u64,
    parent: u64,
    /// `+` and `#` are levels like others here: no topic has them.
    level: Box<str>,
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

/// Where a node stands: under which parent, for which level.
type Place<'a> = (u64, &'a str);

/// The number of the root, which is no node of the table.
const ROOT: u64 = 0;

impl<V> LevelTree<V> {
    pub(super) fn new(seed: u64) -> Self {
        let hasher = FixedState::with_seed(seed);
        Self { hasher, nodes: HashTable::new(), root: Children::default(), next_id: ROOT + 1, len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[cfg(test)]
    pub(super) fn nodes(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn get(&self, pattern: &str) -> Option<&V> {
        self.node(self.place(pattern)?)?.value.as_ref()
    }

    pub(super) fn get_mut(&mut self, pattern: &str) -> Option<&mut V> {
        self.node_mut(self.place(pattern)?)?.value.as_mut()
    }

    pub(super) fn get_or_insert_with(&mut self, pattern: &str, make: impl FnOnce() -> V) -> &mut V {
        let mut above: Option<Place<'_>> = None;
        let mut parent = ROOT;
        for level in pattern.split('/') {
            let place = (parent, level);
            parent = match self.node(place) {
                Some(node) => node.id,
                None => self.insert_node(above, place),
            };
            above = Some(place);
        }
        let hash = above.map(|place| hash(&self.hasher, place));
        let node = hash
            .zip(above)
            .and_then(|(hash, place)| self.nodes.find_mut(hash, |node| node.stands_at(place)))
            .expect("the loop found or inserted the node of each level, and a pattern has one at least");
        node.value.get_or_insert_with(|| {
            self.len += 1;
            make()
        })
    }

    pub(super) fn remove(&mut self, pattern: &str) -> Option<V> {
        let mut places = Vec::new();
        let mut parent = ROOT;
        for level in pattern.split('/') {
            let place = (parent, level);
            parent = self.node(place)?.id;
            places.push(place);
        }
        let value = self.node_mut(*places.last()?)?.value.take()?;
        self.len -= 1;
        self.prune(&places);
        Some(value)
    }

    /// Removes the nodes that have neither a value nor children, from the last place upwards.
    fn prune(&mut self, places: &[Place<'_>]) {
        for (depth, &place) in places.iter().enumerate().rev() {
            let found = self.nodes.find_entry(hash(&self.hasher, place), |node| node.stands_at(place));
            match found {
                Ok(entry) if entry.get().is_bare() => drop(entry.remove()),
                Ok(_) | Err(_) => break,
            }
            let above = depth.checked_sub(1).map(|depth| places[depth]);
            self.children_mut(above).remove(place.1);
        }
        let hasher = &self.hasher;
        shrink(&mut self.nodes, |node| hash(hasher, node.place()));
    }

    /// Calls `f` with the value of each pattern that matches a valid topic name. At each level those
    /// that end in `#` come first, then those with the level itself, then those with `+`.
    pub(super) fn for_each_match(&self, topic: &str, mut f: impl FnMut(&V)) {
        // [MQTT-4.7.2-1] wildcards in the first level do not match a name that begins with $.
        let root = Children {
            has_plus: self.root.has_plus && !is_reserved(topic),
            has_hash: self.root.has_hash && !is_reserved(topic),
            ..self.root
        };
        // A branch waits here while another is followed: at most one for each level of the topic.
        let mut waiting: Vec<(&Node<V>, Option<&str>)> = Vec::new();
        let mut branch = self.step(ROOT, root, Some(topic), &mut waiting, &mut f);
        while let Some((node, rest)) = branch.or_else(|| waiting.pop()) {
            if rest.is_none()
                && let Some(value) = &node.value
            {
                f(value);
            }
            branch = self.step(node.id, node.children, rest, &mut waiting, &mut f);
        }
    }

    /// Visits the `#` below a node and takes one level off the topic; returns the branch to follow.
    fn step<'a, 't>(
        &'a self,
        id: u64,
        children: Children,
        rest: Option<&'t str>,
        waiting: &mut Vec<(&'a Node<V>, Option<&'t str>)>,
        f: &mut impl FnMut(&V),
    ) -> Option<(&'a Node<V>, Option<&'t str>)> {
        // `a/#` matches `a` as well, so this does not ask whether the topic has more levels.
        if children.has_hash
            && let Some(value) = self.node((id, "#")).and_then(|node| node.value.as_ref())
        {
            f(value);
        }
        let (level, rest) = split_level(rest?);
        let literal = if children.literals > 0 { self.node((id, level)) } else { None };
        let plus = if children.has_plus { self.node((id, "+")) } else { None };
        match (literal, plus) {
            (Some(literal), Some(plus)) => {
                waiting.push((plus, rest));
                Some((literal, rest))
            }
            (Some(only), None) | (None, Some(only)) => Some((only, rest)),
            (None, None) => None,
        }
    }

    /// Where the last level of a pattern stands, if the levels before it are there.
    fn place<'p>(&self, pattern: &'p str) -> Option<Place<'p>> {
        let mut parent = ROOT;
        let mut remaining = pattern;
        loop {
            match split_level(remaining) {
                (level, Some(rest)) => {
                    parent = self.node((parent, level))?.id;
                    remaining = rest;
                }
                (level, None) => return Some((parent, level)),
            }
        }
    }

    fn node(&self, place: Place<'_>) -> Option<&Node<V>> {
        self.nodes.find(hash(&self.hasher, place), |node| node.stands_at(place))
    }

    fn node_mut(&mut self, place: Place<'_>) -> Option<&mut Node<V>> {
        self.nodes.find_mut(hash(&self.hasher, place), |node| node.stands_at(place))
    }

    fn children_mut(&mut self, place: Option<Place<'_>>) -> &mut Children {
        match place {
            None => &mut self.root,
            Some(place) => {
                let node = self.node_mut(place);
                &mut node.expect("a node is pruned only when it has no children left").children
            }
        }
    }

    fn insert_node(&mut self, above: Option<Place<'_>>, place: Place<'_>) -> u64 {
        let (parent, level) = place;
        self.children_mut(above).add(level);
        let id = self.next_id;
        self.next_id += 1;
        let node = Node { id, parent, level: level.into(), children: Children::default(), value: None };
        let hasher = &self.hasher;
        self.nodes.insert_unique(hash(hasher, place), node, |node| hash(hasher, node.place()));
        id
    }
}

impl<V> Node<V> {
    fn place(&self) -> Place<'_> {
        (self.parent, &self.level)
    }

    fn stands_at(&self, place: Place<'_>) -> bool {
        self.place() == place
    }

    fn is_bare(&self) -> bool {
        self.value.is_none() && self.children.is_empty()
    }
}

impl Children {
    fn add(&mut self, level: &str) {
        match level {
            "+" => self.has_plus = true,
            "#" => self.has_hash = true,
            _ => self.literals += 1,
        }
    }

    fn remove(&mut self, level: &str) {
        match level {
            "+" => self.has_plus = false,
            "#" => self.has_hash = false,
            _ => self.literals -= 1,
        }
    }

    fn is_empty(self) -> bool {
        self.literals == 0 && !self.has_plus && !self.has_hash
    }
}

fn hash(hasher: &FixedState, place: Place<'_>) -> u64 {
    hasher.hash_one(place)
}
