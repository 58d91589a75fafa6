//! Operations on the two indexes over topics against lists that are searched level by level.
//!
//! The input is a sequence of operations: a byte that says which one and how long its text is, then the text,
//! in which low bytes stand for what topics are made of. A text that is no name or filter is passed over.

use std::{collections::BTreeMap, ops::ControlFlow};

use dunlin::topic::{FilterTree, RetainedTree, TopicFilter, TopicLimits, TopicName};

/// What bytes below its length stand for: few characters, so that levels meet each other.
const ALPHABET: [&str; 16] =
    ["/", "a", "+", "#", "b", "$", "//", "/+", "/#", "é", ".", "0", "aa", "$share/g/", "%", "$SYS"];

/// Operations of one input.
const OPERATIONS_MAX: usize = 500;

/// Both indexes, and what they should hold.
struct Indexes {
    limits: TopicLimits,
    filters: FilterTree<u32>,
    patterns: BTreeMap<String, u32>,
    retained: RetainedTree<u32>,
    names: BTreeMap<String, u32>,
}

/// Checks one input.
pub(crate) fn run(input: &[u8]) {
    let Some((seed, mut rest)) = input.split_first() else { return };
    let mut indexes = Indexes {
        limits: TopicLimits { levels_max: 12, ..TopicLimits::default() },
        filters: FilterTree::new(u64::from(*seed)),
        patterns: BTreeMap::new(),
        retained: RetainedTree::new(),
        names: BTreeMap::new(),
    };
    for number in 0..OPERATIONS_MAX as u32 {
        let Some((operation, tail)) = rest.split_first() else { break };
        let (bytes, tail) = tail.split_at(tail.len().min(usize::from(operation >> 3)));
        rest = tail;
        indexes.step(operation & 7, &text(bytes), number);
    }
    indexes.clear();
}

fn text(bytes: &[u8]) -> String {
    let bytes = bytes.iter().flat_map(|byte| match ALPHABET.get(usize::from(*byte)) {
        Some(text) => text.as_bytes(),
        None => std::slice::from_ref(byte),
    });
    String::from_utf8_lossy(&bytes.copied().collect::<Vec<_>>()).into_owned()
}

impl Indexes {
    fn step(&mut self, operation: u8, text: &str, number: u32) {
        if operation < 4 {
            let Ok(filter) = TopicFilter::parse(text, &self.limits) else { return };
            match operation {
                0 => self.put_filter(&filter, number),
                1 => self.remove_filter(&filter),
                2 => self.look_up(&filter),
                _ => self.look_up_in_pages(&filter, number),
            }
        } else {
            let Ok(name) = TopicName::parse(text, &self.limits) else { return };
            match operation {
                4 | 5 => {
                    let before = self.retained.insert(&name, number);
                    assert_eq!(before, self.names.insert(text.to_owned(), number), "insert {text:?}");
                }
                6 => assert_eq!(self.retained.remove(text), self.names.remove(text), "remove {text:?}"),
                _ => self.route(text),
            }
        }
        assert_eq!(self.filters.len(), self.patterns.len());
        assert_eq!(self.retained.len(), self.names.len());
    }

    fn put_filter(&mut self, filter: &TopicFilter, number: u32) {
        let pattern = filter.pattern();
        let known = *self.patterns.entry(pattern.to_owned()).or_insert(number);
        assert_eq!(*self.filters.get_or_insert_with(filter, || number), known, "insert {pattern:?}");
        assert_eq!(self.filters.get_mut(pattern).copied(), Some(known), "change {pattern:?}");
    }

    fn remove_filter(&mut self, filter: &TopicFilter) {
        let pattern = filter.pattern();
        assert_eq!(self.filters.remove(filter), self.patterns.remove(pattern), "remove {pattern:?}");
        assert_eq!(self.filters.get(pattern), None);
    }

    /// Which filters match a topic.
    fn route(&self, topic: &str) {
        assert_eq!(self.retained.get(topic), self.names.get(topic), "look up {topic:?}");
        let mut found = Vec::new();
        self.filters.for_each_match(topic, |number| found.push(*number));
        found.sort_unstable();
        let expected = self.patterns.iter().filter(|(pattern, _)| matches(pattern, topic));
        let mut expected: Vec<u32> = expected.map(|(_, number)| *number).collect();
        expected.sort_unstable();
        assert_eq!(found, expected, "filters of {topic:?} among {:?}", self.patterns);
    }

    /// Which topics match a filter.
    fn look_up(&self, filter: &TopicFilter) {
        let pattern = filter.pattern();
        assert_eq!(self.filters.get(pattern), self.patterns.get(pattern), "look up {pattern:?}");
        let mut found = Vec::new();
        self.retained.for_each_match(filter, |topic, number| found.push((topic.to_owned(), *number)));
        assert_eq!(found, self.matching(pattern), "topics of {pattern:?} among {:?}", self.names);
        for name in self.names.keys() {
            assert_eq!(filter.matches(name), matches(pattern, name), "{pattern:?} and {name:?}");
        }
    }

    /// The same, some topics at a time, and with a pause after some of those that match.
    fn look_up_in_pages(&self, filter: &TopicFilter, number: u32) {
        let topics_max = 1 + number as usize % 5;
        let mut found = Vec::new();
        let mut from = Some(String::new());
        let mut pages = 0;
        while let Some(start) = from {
            from = self.retained.for_each_match_from(filter, &start, topics_max, |topic, number| {
                found.push((topic.to_owned(), *number));
                if number % 3 == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            assert!(from.as_ref().is_none_or(|from| *from > start), "{from:?} is not beyond {start:?}");
            pages += 1;
            assert!(pages <= 2 * self.names.len() + 2, "{pages} pages of {} topics", self.names.len());
        }
        let pattern = filter.pattern();
        assert_eq!(found, self.matching(pattern), "topics of {pattern:?} among {:?}", self.names);
    }

    fn matching(&self, pattern: &str) -> Vec<(String, u32)> {
        let names = self.names.iter().filter(|(name, _)| matches(pattern, name));
        names.map(|(name, number)| (name.clone(), *number)).collect()
    }

    /// Everything can be taken out, and nothing is left then.
    fn clear(&mut self) {
        for (pattern, number) in std::mem::take(&mut self.patterns) {
            // By way of a shared filter, for the pattern of one may itself look like a shared filter.
            let filter = TopicFilter::parse(&format!("$share/g/{pattern}"), &self.limits);
            let filter = filter.expect("its pattern was that of a filter before");
            assert_eq!(self.filters.remove(&filter), Some(number), "remove {pattern:?}");
        }
        for (name, number) in std::mem::take(&mut self.names) {
            assert_eq!(self.retained.remove(&name), Some(number), "remove {name:?}");
        }
        assert!(self.filters.is_empty() && self.retained.is_empty());
    }
}

/// Whether a pattern matches a topic, as the standard says it.
fn matches(pattern: &str, topic: &str) -> bool {
    // [MQTT-4.7.2-1]
    if topic.starts_with('$') && pattern.starts_with(['+', '#']) {
        return false;
    }
    let pattern: Vec<&str> = pattern.split('/').collect();
    let topic: Vec<&str> = topic.split('/').collect();
    levels_match(&pattern, &topic)
}

fn levels_match(pattern: &[&str], topic: &[&str]) -> bool {
    match (pattern, topic) {
        // It stands for its parent too.
        (["#"], _) | ([], []) => true,
        ([expected, pattern @ ..], [level, topic @ ..]) => {
            (*expected == "+" || expected == level) && levels_match(pattern, topic)
        }
        ([_, ..], []) | ([], [_, ..]) => false,
    }
}
