//! References to messages that wait in the store alone.

use std::collections::VecDeque;

use crate::codec::QoS;

use super::{RecordId, StoredMessage};

/// References to stored messages in the order of their numbers: 10 bytes each, where numbers follow each
/// other, as they nearly always do.
#[derive(Debug, Default)]
pub(super) struct Parked {
    /// In the order of their numbers; none is empty.
    runs: VecDeque<Run>,
    len: usize,
}

/// References whose numbers follow each other without a gap.
#[derive(Debug)]
struct Run {
    first: u64,
    references: VecDeque<Reference>,
}

/// Record (48 bits), QoS (1 bit) and size (31 bits) of a message.
#[derive(Clone, Copy, Debug)]
struct Reference([u16; 5]);

/// References of one run: what is allocated, and given back, at a time.
const RUN_MAX: usize = 1024;

impl Parked {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The lowest number.
    pub(super) fn first(&self) -> Option<u64> {
        self.runs.front().map(|run| run.first)
    }

    /// Adds a reference at the place of its number, which is nearly always the end.
    pub(super) fn insert(&mut self, message: StoredMessage) {
        let StoredMessage { number, .. } = message;
        self.len += 1;
        let at = self.runs.partition_point(|run| run.first <= number);
        if let Some(run) = at.checked_sub(1).and_then(|before| self.runs.get_mut(before)) {
            debug_assert!(number >= run.end(), "number {number} is parked twice");
            if run.end() == number && run.references.len() < RUN_MAX {
                run.references.push_back(Reference::new(&message));
                return;
            }
        }
        if let Some(run) = self.runs.get_mut(at)
            && run.first == number + 1
            && run.references.len() < RUN_MAX
        {
            run.references.push_front(Reference::new(&message));
            run.first = number;
            return;
        }
        self.runs.insert(at, Run { first: number, references: [Reference::new(&message)].into() });
    }

    /// The first message.
    pub(super) fn front(&self) -> Option<StoredMessage> {
        let run = self.runs.front()?;
        run.references.front().map(|reference| reference.message(run.first))
    }

    /// Takes the first message out.
    pub(super) fn pop_front(&mut self) -> Option<StoredMessage> {
        let run = self.runs.front_mut()?;
        let message = run.references.pop_front()?.message(run.first);
        run.first += 1;
        if run.references.is_empty() {
            self.runs.pop_front();
        }
        self.len -= 1;
        Some(message)
    }

    /// All messages in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = StoredMessage> {
        self.runs
            .iter()
            .flat_map(|run| (run.first..).zip(&run.references))
            .map(|(number, reference)| reference.message(number))
    }
}

impl Run {
    /// The number after the last one.
    fn end(&self) -> u64 {
        self.first + self.references.len() as u64
    }
}

impl Reference {
    fn new(message: &StoredMessage) -> Reference {
        let record = message.record.get();
        let is_qos_2 = u32::from(message.qos == QoS::ExactlyOnce);
        let size = message.size_bytes.min(u32::MAX >> 1) << 1 | is_qos_2;
        Reference([
            record as u16,
            (record >> 16) as u16,
            (record >> 32) as u16,
            size as u16,
            (size >> 16) as u16,
        ])
    }

    fn message(self, number: u64) -> StoredMessage {
        let Reference([a, b, c, d, e]) = self;
        let size = u32::from(d) | u32::from(e) << 16;
        StoredMessage {
            number,
            record: RecordId::new(u64::from(a) | u64::from(b) << 16 | u64::from(c) << 32),
            size_bytes: size >> 1,
            qos: if size & 1 == 1 { QoS::ExactlyOnce } else { QoS::AtLeastOnce },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn message(number: u64) -> StoredMessage {
        let qos = if number.is_multiple_of(3) { QoS::ExactlyOnce } else { QoS::AtLeastOnce };
        let record = RecordId::new((1 << 48) - 1 - number);
        StoredMessage { number, record, size_bytes: (number as u32).wrapping_mul(1_000_003) >> 2, qos }
    }

    proptest! {
        #[test]
        fn it_is_a_sorted_queue(steps in vec((0_u64..4000, any::<bool>()), 0..200)) {
            let (mut parked, mut model) = (Parked::default(), BTreeMap::new());
            for (number, is_pop) in steps {
                if is_pop {
                    prop_assert_eq!(parked.pop_front(), model.pop_first().map(|(_, message)| message));
                } else if model.insert(number, message(number)).is_none() {
                    parked.insert(message(number));
                }
                prop_assert_eq!(parked.len(), model.len());
                prop_assert_eq!(parked.first(), model.keys().next().copied());
                prop_assert_eq!(parked.front(), model.values().next().copied());
                prop_assert!(parked.iter().eq(model.values().copied()));
            }
        }
    }

    #[test]
    fn a_reference_costs_ten_bytes() {
        assert_eq!(size_of::<Reference>(), 10);
        let mut parked = Parked::default();
        (0..10_000).for_each(|number| parked.insert(message(number)));
        assert_eq!(parked.runs.len(), 10);
        (0..5000).rev().for_each(|number| parked.insert(message(20_000 + number)));
        assert_eq!(parked.runs.len(), 15);
        assert!(parked.iter().is_sorted_by_key(|message| message.number));
    }
}
