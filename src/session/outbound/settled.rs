//! Numbers that were settled out of turn.

use std::collections::BTreeMap;

/// Numbers behind the window that are settled: ranges by their start, with the number after their end. Few sessions
/// ever have one.
#[derive(Debug, Default)]
#[expect(clippy::box_collection, reason = "it takes a word where there is none, as nearly everywhere")]
pub(super) struct SettledAhead(Option<Box<BTreeMap<u64, u64>>>);

impl SettledAhead {
    /// Adds the numbers from `start` to before `end`.
    pub(super) fn add_range(&mut self, start: u64, end: u64) {
        self.0.get_or_insert_default().insert(start, end);
    }

    /// Adds a number.
    pub(super) fn add(&mut self, number: u64) {
        let ranges = self.0.get_or_insert_default();
        let mut start = number;
        if let Some((before, end)) = ranges.range(..=number).next_back()
            && *end == number
        {
            start = *before;
        }
        let end = ranges.remove(&(number + 1)).unwrap_or(number + 1);
        ranges.insert(start, end);
    }

    /// Whether a number is settled. Numbers are asked for in order: what is before this one is forgotten.
    pub(super) fn contains(&mut self, number: u64) -> bool {
        let Some(ranges) = &mut self.0 else { return false };
        while let Some(range) = ranges.first_entry() {
            if number < *range.key() {
                return false;
            }
            if number < *range.get() {
                return true;
            }
            range.remove();
        }
        self.0 = None;
        false
    }

    /// The first number from this one on that is not settled; what is before it is forgotten.
    pub(super) fn skip(&mut self, mut number: u64) -> u64 {
        let Some(ranges) = &mut self.0 else { return number };
        while let Some(range) = ranges.first_entry()
            && *range.key() <= number
        {
            number = number.max(range.remove());
        }
        if ranges.is_empty() {
            self.0 = None;
        }
        number
    }
}
