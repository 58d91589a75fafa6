//! References to messages that wait in the store alone.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::AtomicUsize},
};

use crate::codec::QoS;

use super::{RecordId, StoredMessage, seldom::Seldom, tally::Tally};

/// References to stored messages in the order of their numbers: 10 bytes each, where numbers follow each
/// other, as they nearly always do.
///
/// They are kept in runs. A whole run from the middle may be spilled: it goes to the store too, and leaves
/// its place only. Nothing ever comes into a spilled run or goes out of it, for its numbers follow each other
/// without a gap, and each is parked once until the run has been read back.
#[derive(Debug, Default)]
pub struct Parked {
    /// In the order of their numbers; none is empty.
    runs: Seldom<Run>,
    len: usize,
    /// Bytes of the references in memory.
    index: Tally,
}

/// References whose numbers follow each other without a gap.
#[derive(Debug)]
enum Run {
    /// In memory.
    Here { first: u64, references: VecDeque<Reference> },
    /// In the store.
    Spilled(SpilledRun),
}

/// A run of references that is in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SpilledRun {
    /// The number of its first message.
    pub first: u64,
    /// Its messages.
    pub count: u32,
    /// What they count against limits in bytes.
    pub size_bytes: u64,
}

/// What became of a reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// It is in a run that was there.
    Joined,
    /// It began a run: there may be one more that can be spilled.
    Begun,
    /// Its number was there already, and it is not.
    Twice,
}

/// Record (48 bits), QoS (1 bit) and size (31 bits) of a message.
#[derive(Clone, Copy, Debug)]
struct Reference([u16; 5]);

/// Short runs that are passed over in search of those that can be spilled: they are what numbers with gaps make,
/// and a row for each would cost more than it saves.
const PASSED_OVER_MAX: usize = 64;

impl Parked {
    /// Counts the bytes of references in memory in a total of many sessions.
    pub(crate) fn count_in(&mut self, total: &Arc<AtomicUsize>) {
        self.index.count_in(total);
    }

    /// Messages, with those of spilled runs.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of the references in memory.
    pub fn index_bytes(&self) -> usize {
        self.index.bytes()
    }

    /// What all messages count against limits in bytes.
    pub fn size_bytes(&self) -> u64 {
        let size = |run: &Run| match run {
            Run::Here { references, .. } => references.iter().map(|one| u64::from(one.size_bytes())).sum(),
            Run::Spilled(run) => run.size_bytes,
        };
        self.runs.iter().map(size).sum()
    }

    /// The lowest number.
    pub(super) fn first(&self) -> Option<u64> {
        self.runs.front().map(Run::first)
    }

    /// Ranges of numbers in order, each with the number after its last.
    pub fn ranges(&self) -> impl Iterator<Item = (u64, u64)> {
        self.runs.iter().map(|run| (run.first(), run.end()))
    }

    /// Adds a reference at the place of its number, which is nearly always the end. A run has so many of them
    /// at most.
    pub fn insert(&mut self, message: StoredMessage, run_max: usize) -> Inserted {
        let number = message.number;
        let is_last = self.runs.back().is_none_or(|run| run.first() <= number);
        let at =
            if is_last { self.runs.len() } else { self.runs.partition_point(|run| run.first() <= number) };
        let before = at.checked_sub(1).and_then(|before| self.runs.get(before));
        if before.is_some_and(|run| number < run.end()) {
            return Inserted::Twice;
        }
        self.len += 1;
        self.index.add(Reference::BYTES);
        if let Some(Run::Here { first, references }) = at.checked_sub(1).and_then(|at| self.runs.get_mut(at))
            && *first + references.len() as u64 == number
            && references.len() < run_max
        {
            references.push_back(Reference::new(&message));
            self.join(at, run_max);
            return Inserted::Joined;
        }
        if let Some(Run::Here { first, references }) = self.runs.get_mut(at)
            && *first == number + 1
            && references.len() < run_max
        {
            references.push_front(Reference::new(&message));
            *first = number;
            return Inserted::Joined;
        }
        self.runs.insert(at, Run::Here { first: number, references: [Reference::new(&message)].into() });
        Inserted::Begun
    }

    /// Makes one of two runs, if no number is missing between them any more.
    fn join(&mut self, at: usize, run_max: usize) {
        let (length, end) = (self.runs[at - 1].len(), self.runs[at - 1].end());
        let Some(Run::Here { first, references: next }) = self.runs.get_mut(at) else { return };
        if *first != end || length + next.len() > run_max {
            return;
        }
        let next = std::mem::take(next);
        self.runs.remove(at);
        if let Some(Run::Here { references, .. }) = self.runs.get_mut(at - 1) {
            references.extend(next);
        }
    }

    /// The first message, if it is in memory.
    pub(super) fn front(&self) -> Option<StoredMessage> {
        match self.runs.front()? {
            Run::Here { first, references } => references.front().map(|one| one.message(*first)),
            Run::Spilled(_) => None,
        }
    }

    /// The first run, if it is spilled.
    pub(super) fn front_spilled(&self) -> Option<SpilledRun> {
        match self.runs.front()? {
            Run::Here { .. } => None,
            Run::Spilled(run) => Some(*run),
        }
    }

    /// Takes the first message out, if it is in memory.
    pub(super) fn pop_front(&mut self) -> Option<StoredMessage> {
        let Run::Here { first, references } = self.runs.front_mut()? else { return None };
        let message = references.pop_front()?.message(*first);
        *first += 1;
        if references.is_empty() {
            self.runs.pop_front();
        }
        self.len -= 1;
        self.index.sub(Reference::BYTES);
        Some(message)
    }

    /// Takes the first message out, if it is in memory and this is true of it.
    pub(super) fn pop_front_if(
        &mut self,
        is_wanted: impl Fn(&StoredMessage) -> bool,
    ) -> Option<StoredMessage> {
        self.front().filter(is_wanted)?;
        self.pop_front()
    }

    /// All messages whose references are in memory, in order.
    pub fn iter(&self) -> impl Iterator<Item = StoredMessage> {
        self.runs.iter().flat_map(Run::messages)
    }

    /// All runs that are spilled, in order.
    pub fn spilled(&self) -> impl Iterator<Item = SpilledRun> {
        self.runs.iter().filter_map(|run| match run {
            Run::Here { .. } => None,
            Run::Spilled(run) => Some(*run),
        })
    }

    /// Takes the messages of runs out, the latest first, and hands them to `spilled`: they are in the store from
    /// now on. The first run stays, for it is needed soon, and the last, for it grows. Ends where earlier ones
    /// were spilled, or where `is_enough`, which is told the bytes that all sessions have in memory.
    pub(crate) fn spill(
        &mut self,
        run_max: usize,
        is_enough: impl Fn(Option<usize>) -> bool,
        mut spilled: impl FnMut(Vec<StoredMessage>),
    ) {
        let mut passed_over = 0;
        for at in (1..self.runs.len().saturating_sub(1)).rev() {
            let run = &self.runs[at];
            if matches!(run, Run::Spilled(_))
                || passed_over == PASSED_OVER_MAX
                || is_enough(self.index.total())
            {
                return;
            }
            if run.len() * 2 < run_max {
                passed_over += 1;
                continue;
            }
            let messages: Vec<StoredMessage> = run.messages().collect();
            let size_bytes = messages.iter().map(|message| u64::from(message.size_bytes)).sum();
            let place = SpilledRun { first: run.first(), count: messages.len() as u32, size_bytes };
            self.runs[at] = Run::Spilled(place);
            self.index.sub(messages.len() * Reference::BYTES);
            spilled(messages);
        }
    }

    /// Puts the messages of a spilled run back. Returns whether they are those of the run.
    pub(crate) fn put_back(&mut self, first: u64, messages: &[StoredMessage]) -> bool {
        let at = self.runs.partition_point(|run| run.first() < first);
        let Some(run) = self.runs.get_mut(at) else { return false };
        let is_all = matches!(run, Run::Spilled(spilled) if spilled.first == first)
            && run.len() == messages.len()
            && (first..).zip(messages).all(|(number, message)| message.number == number);
        if is_all {
            *run = Run::Here { first, references: messages.iter().map(Reference::new).collect() };
            self.index.add(messages.len() * Reference::BYTES);
        }
        is_all
    }

    /// Takes over a run that is in the store, behind all that is here.
    pub(crate) fn push_spilled(&mut self, run: SpilledRun) {
        debug_assert!(self.runs.back().is_none_or(|last| last.end() <= run.first));
        self.len += run.count as usize;
        self.runs.push_back(Run::Spilled(run));
    }

    /// Takes everything out, run by run.
    pub(crate) fn into_runs(self) -> impl Iterator<Item = Result<Vec<StoredMessage>, SpilledRun>> {
        self.runs.into_iter().map(|run| match run {
            Run::Here { .. } => Ok(run.messages().collect()),
            Run::Spilled(run) => Err(run),
        })
    }
}

impl Run {
    fn first(&self) -> u64 {
        match self {
            Run::Here { first, .. } | Run::Spilled(SpilledRun { first, .. }) => *first,
        }
    }

    fn len(&self) -> usize {
        match self {
            Run::Here { references, .. } => references.len(),
            Run::Spilled(run) => run.count as usize,
        }
    }

    /// The number after the last one.
    fn end(&self) -> u64 {
        self.first() + self.len() as u64
    }

    /// Its messages, if they are in memory.
    fn messages(&self) -> impl Iterator<Item = StoredMessage> {
        let (first, references) = match self {
            Run::Here { first, references } => (*first, Some(references)),
            Run::Spilled(run) => (run.first, None),
        };
        (first..).zip(references.into_iter().flatten()).map(|(number, reference)| reference.message(number))
    }
}

impl Reference {
    const BYTES: usize = size_of::<Reference>();

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

    fn size_bytes(self) -> u32 {
        let Reference([.., d, e]) = self;
        (u32::from(d) | u32::from(e) << 16) >> 1
    }

    fn message(self, number: u64) -> StoredMessage {
        let Reference([a, b, c, d, _]) = self;
        StoredMessage {
            number,
            record: RecordId::new(u64::from(a) | u64::from(b) << 16 | u64::from(c) << 32),
            size_bytes: self.size_bytes(),
            qos: if d & 1 == 1 { QoS::ExactlyOnce } else { QoS::AtLeastOnce },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::{collection::vec, prelude::*};

    use super::*;
    use std::sync::atomic::Ordering;

    const RUN_MAX: usize = 1024;

    fn message(number: u64) -> StoredMessage {
        let qos = if number.is_multiple_of(3) { QoS::ExactlyOnce } else { QoS::AtLeastOnce };
        let record = RecordId::new((1 << 48) - 1 - number);
        StoredMessage { number, record, size_bytes: (number as u32).wrapping_mul(1_000_003) >> 2, qos }
    }

    proptest! {
        #[test]
        fn it_is_a_sorted_queue(
            steps in vec((0_u64..200, 0..10), 0..300),
            run_max in prop_oneof![1_usize..5, Just(1024)],
        ) {
            let total = Arc::new(AtomicUsize::new(0));
            let (mut parked, mut model) = (Parked::default(), BTreeMap::new());
            parked.count_in(&total);
            // What is in the store, by the first number.
            let mut store: BTreeMap<u64, Vec<StoredMessage>> = BTreeMap::new();
            for (number, step) in steps {
                match step {
                    0..=2 => {
                        if let Some(run) = parked.front_spilled() {
                            prop_assert_eq!(parked.pop_front(), None);
                            let messages = store.remove(&run.first).unwrap();
                            prop_assert!(!parked.put_back(run.first, &messages[1..]));
                            prop_assert!(parked.put_back(run.first, &messages));
                            prop_assert!(!parked.put_back(run.first, &messages));
                        }
                        prop_assert_eq!(parked.pop_front(), model.pop_first().map(|(_, message)| message));
                    }
                    3..=4 => {
                        let (left, total) = (number as usize, total.clone());
                        parked.spill(run_max, |bytes| bytes.unwrap() <= left, |messages| {
                            assert!(total.load(Ordering::Relaxed) + messages.len() * 10 > left);
                            store.insert(messages[0].number, messages);
                        });
                    }
                    _ => {
                        let inserted = parked.insert(message(number), run_max);
                        let is_twice = model.insert(number, message(number)).is_some();
                        prop_assert_eq!(inserted == Inserted::Twice, is_twice);
                    }
                }
                prop_assert_eq!(parked.len(), model.len());
                prop_assert_eq!(parked.first(), model.keys().next().copied());
                let spilled = store.values().flatten().map(|message| message.number);
                let spilled: Vec<u64> = spilled.collect();
                let here = model.values().copied().filter(|message| !spilled.contains(&message.number));
                prop_assert!(parked.iter().eq(here));
                prop_assert_eq!(total.load(Ordering::Relaxed), (model.len() - spilled.len()) * 10);
                let size_bytes = model.values().map(|message| u64::from(message.size_bytes)).sum::<u64>();
                prop_assert_eq!(parked.size_bytes(), size_bytes);
                let numbers = parked.ranges().flat_map(|(first, end)| first..end);
                prop_assert!(numbers.eq(model.keys().copied()));
            }
            drop(parked);
            prop_assert_eq!(total.load(Ordering::Relaxed), 0);
        }
    }

    #[test]
    fn a_reference_costs_ten_bytes() {
        let mut parked = Parked::default();
        (0..10_240).for_each(|number| assert!(parked.insert(message(number), RUN_MAX) != Inserted::Twice));
        assert_eq!((parked.runs.len(), parked.index_bytes()), (10, 102_400));
        (0..5120)
            .rev()
            .for_each(|number| assert!(parked.insert(message(20_000 + number), RUN_MAX) != Inserted::Twice));
        assert_eq!(parked.runs.len(), 15);
        assert!(parked.iter().is_sorted_by_key(|message| message.number));
    }

    #[test]
    fn all_but_the_first_and_the_last_run_can_be_spilled() {
        let mut parked = Parked::default();
        (0..100_000).for_each(|number| assert!(parked.insert(message(number), RUN_MAX) != Inserted::Twice));
        let mut spilled = 0;
        parked.spill(RUN_MAX, |_| false, |_| spilled += 1);
        assert_eq!((spilled, parked.spilled().count()), (96, 96));
        assert_eq!(parked.index_bytes(), 10 * (1024 + 100_000 % 1024));
    }

    #[test]
    fn runs_that_come_from_two_sides_are_joined() {
        let mut parked = Parked::default();
        for pair in 0..500 {
            parked.insert(message(2 * pair + 1), RUN_MAX);
            parked.insert(message(2 * pair), RUN_MAX);
        }
        assert_eq!(parked.runs.len(), 1);
    }
}
