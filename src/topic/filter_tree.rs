//! Which filters match a topic: the index of subscriptions.
//!
//! Filters without wildcards, which are nearly all in the field, stand in one hash table by their
//! whole text: they cost no nodes and are found in one look-up. The others are a tree of levels.

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::FixedState;

use super::filter::TopicFilter;
use super::level_tree::LevelTree;
use super::table::PartedTable;

/// One value per filter pattern (a filter without its `$share/name/`), found by pattern or by topic.
///
/// A publish visits the values of all patterns that match its topic. The order of the visits follows
/// from the patterns alone, so that two runs with the same input do the same.
#[derive(Debug, Clone)]
pub struct FilterTree<V> {
    hasher: FixedState,
    exact: PartedTable<Exact<V>>,
    wildcards: LevelTree<V>,
}

/// A pattern without wildcards.
#[derive(Debug, Clone)]
struct Exact<V> {
    pattern: Arc<str>,
    value: V,
}

impl<V> FilterTree<V> {
    /// An empty tree. The seed guards its tables against patterns chosen to collide; it has no
    /// influence on what is found, nor on the order.
    pub fn new(seed: u64) -> Self {
        Self {
            hasher: FixedState::with_seed(seed),
            exact: PartedTable::new(),
            wildcards: LevelTree::new(seed),
        }
    }

    /// Makes room for so many more patterns without wildcards, and with.
    pub fn reserve(&mut self, exact: usize, wildcards: usize) {
        self.exact.reserve(exact, |exact| self.hasher.hash_one(&*exact.pattern));
        self.wildcards.reserve(wildcards);
    }

    /// The number of patterns.
    pub fn len(&self) -> usize {
        self.exact.len() + self.wildcards.len()
    }

    /// Whether there is no pattern.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value of exactly this pattern, whatever else matches it.
    pub fn get(&self, pattern: &str) -> Option<&V> {
        if has_wildcards(pattern) { self.wildcards.get(pattern) } else { self.exact(pattern) }
    }

    /// The value of exactly this pattern, to change it.
    pub fn get_mut(&mut self, pattern: &str) -> Option<&mut V> {
        if has_wildcards(pattern) {
            return self.wildcards.get_mut(pattern);
        }
        let hash = self.hasher.hash_one(pattern);
        self.exact.find_mut(hash, |exact| *exact.pattern == *pattern).map(|exact| &mut exact.value)
    }

    /// The value of the filter's pattern; makes one if there is none.
    pub fn get_or_insert_with(&mut self, filter: &TopicFilter, make: impl FnOnce() -> V) -> &mut V {
        let pattern = filter.pattern();
        if filter.has_wildcards() {
            return self.wildcards.get_or_insert_with(pattern, make);
        }
        let hash = self.hasher.hash_one(pattern);
        let entry = self.exact.entry(
            hash,
            |exact| *exact.pattern == *pattern,
            |exact| self.hasher.hash_one(&*exact.pattern),
        );
        let exact = entry.or_insert_with(|| Exact { pattern: filter.shared_pattern(), value: make() });
        &mut exact.into_mut().value
    }

    /// Takes the value of the filter's pattern out, and all that only it needed.
    pub fn remove(&mut self, filter: &TopicFilter) -> Option<V> {
        let pattern = filter.pattern();
        if filter.has_wildcards() {
            return self.wildcards.remove(pattern);
        }
        let hash = self.hasher.hash_one(pattern);
        let removed = self.exact.remove(
            hash,
            |exact| *exact.pattern == *pattern,
            |exact| self.hasher.hash_one(&*exact.pattern),
        );
        removed.map(|exact| exact.value)
    }

    /// Calls `f` with the value of each pattern that matches a valid topic name: first the pattern
    /// that equals the topic, then those with wildcards.
    pub fn for_each_match(&self, topic: &str, mut f: impl FnMut(&V)) {
        if let Some(value) = self.exact(topic) {
            f(value);
        }
        self.wildcards.for_each_match(topic, f);
    }

    /// The nodes that patterns with wildcards take up, to see that none is left behind.
    #[cfg(test)]
    pub(super) fn nodes(&self) -> usize {
        self.wildcards.nodes()
    }

    fn exact(&self, pattern: &str) -> Option<&V> {
        let hash = self.hasher.hash_one(pattern);
        self.exact.find(hash, |exact| *exact.pattern == *pattern).map(|exact| &exact.value)
    }
}

fn has_wildcards(pattern: &str) -> bool {
    pattern.bytes().any(|byte| matches!(byte, b'+' | b'#'))
}
