//! What one subscriber got of one publisher: how many, how many twice, how many behind a later one.

use std::{collections::VecDeque, ops::Range};

/// Gaps of a stream that are remembered. Beyond that the oldest is forgotten: a message that still comes of it
/// counts as late, and one that comes of it twice is not noticed.
const GAPS_MAX: usize = 1024;

/// The messages of one publisher as they reach one subscriber.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stream {
    /// One more than the highest number so far.
    next: u64,
    /// Messages that came at least once.
    pub(super) distinct: u64,
    /// Messages that came once more.
    pub(super) duplicates: u64,
    /// Messages that came behind a later one.
    pub(super) out_of_order: u64,
    /// Numbers below `next` that did not come, in order.
    gaps: VecDeque<Range<u64>>,
    /// Below this gaps were forgotten.
    forgotten_below: u64,
}

impl Stream {
    /// Takes the next message; returns how far the highest number has moved.
    #[inline]
    pub(super) fn take(&mut self, sequence: u64) -> u64 {
        if sequence == self.next {
            self.next += 1;
            self.distinct += 1;
            return 1;
        }
        self.take_unexpected(sequence)
    }

    #[cold]
    fn take_unexpected(&mut self, sequence: u64) -> u64 {
        if sequence > self.next {
            if self.gaps.len() == GAPS_MAX
                && let Some(oldest) = self.gaps.pop_front()
            {
                self.forgotten_below = oldest.end;
            }
            self.gaps.push_back(self.next..sequence);
            let moved = sequence.saturating_add(1) - self.next;
            self.next = sequence.saturating_add(1);
            self.distinct += 1;
            return moved;
        }
        if self.fill(sequence) || sequence < self.forgotten_below {
            self.distinct += 1;
            self.out_of_order += 1;
        } else {
            self.duplicates += 1;
        }
        0
    }

    /// Takes a number out of the gaps; false if it is in none.
    fn fill(&mut self, sequence: u64) -> bool {
        let at = self.gaps.partition_point(|gap| gap.end <= sequence);
        let Some(gap) = self.gaps.get_mut(at).filter(|gap| gap.start <= sequence) else { return false };
        let after = sequence + 1..gap.end;
        gap.end = sequence;
        let before_is_empty = gap.is_empty();
        match (before_is_empty, after.is_empty()) {
            (true, true) => {
                self.gaps.remove(at);
            }
            (true, false) => *gap = after,
            (false, true) => {}
            (false, false) => self.gaps.insert(at + 1, after),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn stream(numbers: &[u64]) -> (u64, u64, u64) {
        let mut stream = Stream::default();
        for &number in numbers {
            stream.take(number);
        }
        (stream.distinct, stream.duplicates, stream.out_of_order)
    }

    #[test]
    fn a_gap_alone_is_no_disorder() {
        assert_eq!(stream(&[0, 1, 2]), (3, 0, 0));
        assert_eq!(stream(&[0, 2, 3]), (3, 0, 0));
        assert_eq!(stream(&[0, 2, 1]), (3, 0, 1));
        assert_eq!(stream(&[0, 0, 1, 0]), (2, 2, 0));
        assert_eq!(stream(&[5, 2, 2, 0, 4, 3, 1, 1]), (6, 2, 5));
    }

    #[test]
    fn forgotten_gaps_still_count_what_comes_of_them() {
        let mut stream = Stream::default();
        let odd = (0..GAPS_MAX as u64 + 10).map(|number| 2 * number + 1);
        odd.for_each(|number| {
            stream.take(number);
        });
        assert_eq!(stream.gaps.len(), GAPS_MAX);
        stream.take(0);
        stream.take(2 * GAPS_MAX as u64);
        assert_eq!((stream.distinct, stream.duplicates), (GAPS_MAX as u64 + 12, 0));
        assert_eq!(stream.out_of_order, 2);
    }

    proptest! {
        /// The counts are those of a set that remembers all.
        #[test]
        fn counts_are_exact(numbers in prop::collection::vec(0_u64..60, 0..200)) {
            let mut seen = BTreeSet::new();
            let (mut duplicates, mut late, mut moved) = (0, 0, 0);
            let mut stream_of = Stream::default();
            for &number in &numbers {
                let highest = seen.last().copied();
                moved += stream_of.take(number);
                if !seen.insert(number) {
                    duplicates += 1;
                } else if highest.is_some_and(|highest| number < highest) {
                    late += 1;
                }
            }
            prop_assert_eq!(stream(&numbers), (seen.len() as u64, duplicates, late));
            prop_assert_eq!(moved, seen.last().map_or(0, |highest| highest + 1));
        }
    }
}
