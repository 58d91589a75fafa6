//! Which topics match a filter: the index of retained messages.
//!
//! One ordered map, not a trie: a topic costs its key and nothing for its levels, depth costs no
//! stack, and what is removed is gone. In the order of the texts every subtree `a/…` is one run, so a
//! wildcard look-up walks the map and, at each topic that does not match, seeks to the next one that
//! could: it passes over a subtree in one step, however large it is.

use std::collections::{BTreeMap, btree_map};
use std::ops::{Bound, ControlFlow};

use super::filter::TopicFilter;
use super::name::TopicName;
use super::{is_reserved, split_level};

/// One value per topic name, found by name or by filter.
#[derive(Debug, Clone)]
pub struct RetainedTree<V> {
    topics: BTreeMap<TopicName, V>,
}

impl<V> RetainedTree<V> {
    /// An empty tree, which owns no memory.
    pub fn new() -> Self {
        Self { topics: BTreeMap::new() }
    }

    /// Sets the value of a topic; returns the one it had.
    pub fn insert(&mut self, topic: &TopicName, value: V) -> Option<V> {
        self.topics.insert(topic.clone(), value)
    }

    /// Takes the value of a topic out.
    pub fn remove(&mut self, topic: &str) -> Option<V> {
        self.topics.remove(topic)
    }

    /// The value of a topic.
    pub fn get(&self, topic: &str) -> Option<&V> {
        self.topics.get(topic)
    }

    /// The number of topics.
    pub fn len(&self) -> usize {
        self.topics.len()
    }

    /// Whether there is no topic.
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// Calls `f` with each topic that the pattern of the filter matches, in the order of their texts.
    pub fn for_each_match(&self, filter: &TopicFilter, mut f: impl FnMut(&str, &V)) {
        let left = self.for_each_match_from(filter, "", usize::MAX, |topic, value| {
            f(topic, value);
            ControlFlow::Continue(())
        });
        debug_assert!(left.is_none(), "nothing stops before the end");
    }

    /// Like [`RetainedTree::for_each_match`], but begins at the text `from` and looks at `topics_max` topics
    /// at most, and at none after `f` breaks off. Returns the text to go on from, if there may be more.
    pub fn for_each_match_from(
        &self,
        filter: &TopicFilter,
        from: &str,
        topics_max: usize,
        mut f: impl FnMut(&str, &V) -> ControlFlow<()>,
    ) -> Option<String> {
        let pattern = filter.pattern();
        if !filter.has_wildcards() {
            if let Some(value) = self.get(pattern).filter(|_| from <= pattern) {
                // There is no other, whether it breaks off or not.
                let _ = f(pattern, value);
            }
            return None;
        }
        let mut start = String::from(literal_prefix(pattern).max(from));
        let mut run = self.run_from(&start);
        let mut passed_over = 0;
        let mut looked_at = 0;
        while let Some((topic, value)) = run.next() {
            if looked_at == topics_max {
                return Some(topic.as_str().max(start.as_str()).to_owned());
            }
            looked_at += 1;
            if topic.as_str() < start.as_str() {
                passed_over += 1;
                if passed_over == PASSED_OVER_MAX {
                    run = self.run_from(&start);
                }
                continue;
            }
            let next = match compare(pattern, topic.as_str()) {
                Step::Match => {
                    if f(topic.as_str(), value).is_break() {
                        // No topic has this character: it is the next text of all.
                        return Some(format!("{topic}\0", topic = topic.as_str()));
                    }
                    continue;
                }
                Step::Next => continue,
                Step::Seek(head, tail) => [head, tail],
                Step::SeekBeyond(subtree) => [subtree, AFTER_SEPARATOR],
                Step::End => return None,
            };
            start.clear();
            start.extend(next);
            passed_over = 0;
        }
        None
    }

    fn run_from(&self, start: &str) -> btree_map::Range<'_, TopicName, V> {
        self.topics.range::<str, _>((Bound::Included(start), Bound::Unbounded))
    }
}

impl<V> Default for RetainedTree<V> {
    fn default() -> Self {
        Self::new()
    }
}

/// The character after the separator: `a` + this is beyond every `a/…`.
const AFTER_SEPARATOR: &str = "0";

/// How many topics are passed over one by one before a seek, which costs as much as several of them.
const PASSED_OVER_MAX: usize = 4;

/// Where to go on after a topic; nothing that matches is passed over.
enum Step<'a> {
    /// The topic matches; go on with the next one.
    Match,
    /// It does not match, but the next one may.
    Next,
    /// The next that may match is at or after these two texts in a row.
    Seek(&'a str, &'a str),
    /// The next that may match is beyond the subtree of this text.
    SeekBeyond(&'a str),
    /// No later topic matches.
    End,
}

/// The levels before the first wildcard, without the last separator: `a/#` matches `a` too.
fn literal_prefix(pattern: &str) -> &str {
    let wildcard_at = pattern.find(['+', '#']).unwrap_or(pattern.len());
    &pattern[..wildcard_at.saturating_sub(1)]
}

/// Holds a topic against a pattern, level by level.
fn compare<'a>(pattern: &'a str, topic: &'a str) -> Step<'a> {
    // [MQTT-4.7.2-1] the reserved names are one run, which begins at "$".
    if is_reserved(topic) && pattern.starts_with(['+', '#']) {
        return Step::Seek("%", "");
    }
    // The topic up to the end of the last level that a `+` stood for: when the rest cannot match
    // any more, the next candidate has another text in that level.
    let mut turn: Option<&str> = None;
    let beyond = |turn: Option<&'a str>| turn.map_or(Step::End, Step::SeekBeyond);
    let mut pattern_rest = Some(pattern);
    let mut topic_rest = Some(topic);
    loop {
        let Some(expected) = pattern_rest else {
            return match topic_rest {
                None => Step::Match,
                Some(_) => beyond(turn),
            };
        };
        let (expected_level, expected_rest) = split_level(expected);
        if expected_level == "#" {
            return Step::Match;
        }
        let Some(remaining) = topic_rest else {
            // Names such as `a-b` stand between `a` and `a/…`, so there is no seeking to its subtree.
            return Step::Next;
        };
        let head = &topic[..topic.len() - remaining.len()];
        let (level, rest) = split_level(remaining);
        if expected_level == "+" {
            turn = Some(&topic[..head.len() + level.len()]);
        } else if level != expected_level {
            return if remaining < expected_level {
                Step::Seek(head, expected_level)
            } else if remaining.strip_prefix(expected_level).is_some_and(|tail| tail < "/") {
                Step::Seek(&topic[..head.len() + expected_level.len()], "/")
            } else {
                beyond(turn)
            };
        }
        pattern_rest = expected_rest;
        topic_rest = rest;
    }
}
