//! How many still need each record of the log.

use foldhash::fast::FixedState;
use hashbrown::HashMap;

/// Records of one chunk. Small, so that a single old record among millions that are gone costs little.
const CHUNK_RECORDS: u64 = 16;

/// The slot of a record that the current group brings, and that is not in the log.
const UNWRITTEN: u8 = 0x80;
/// The slot of a record whose count is in `many`.
const MANY: u8 = 0x7f;

/// Counts of the records of messages. A record without a count is gone.
#[derive(Debug, Default)]
pub(super) struct Counts {
    chunks: HashMap<u64, [u8; CHUNK_RECORDS as usize], FixedState>,
    many: HashMap<u64, u32, FixedState>,
}

/// What became of a record that one needs less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// Others need it.
    Needed,
    /// Nobody does, and it is in the log.
    Dead,
    /// Nobody does, and it is not in the log.
    Nothing,
}

impl Counts {
    /// A record of the current group that so many need.
    pub(super) fn add_unwritten(&mut self, record: u64, needs: u32) {
        self.set(record, needs, UNWRITTEN);
    }

    /// A record of the log that so many need.
    pub(super) fn add_written(&mut self, record: u64, needs: u32) {
        if needs > 0 {
            self.set(record, needs, 0);
        }
    }

    fn set(&mut self, record: u64, needs: u32, mark: u8) {
        let chunk = self.chunks.entry(record / CHUNK_RECORDS).or_default();
        let slot = &mut chunk[(record % CHUNK_RECORDS) as usize];
        if needs < u32::from(MANY) {
            *slot = mark | needs as u8;
        } else {
            *slot = mark | MANY;
            self.many.insert(record, needs);
        }
    }

    /// One needs it less.
    pub(super) fn release(&mut self, record: u64) -> Left {
        let at = record / CHUNK_RECORDS;
        let Some(chunk) = self.chunks.get_mut(&at) else { return Left::Nothing };
        let slot = &mut chunk[(record % CHUNK_RECORDS) as usize];
        match *slot & !UNWRITTEN {
            0 => return Left::Nothing,
            MANY => {
                let Some(count) = self.many.get_mut(&record) else { return Left::Nothing };
                *count -= 1;
                if *count >= u32::from(MANY) {
                    return Left::Needed;
                }
                self.many.remove(&record);
                *slot = *slot & UNWRITTEN | (MANY - 1);
                return Left::Needed;
            }
            count => *slot = *slot & UNWRITTEN | (count - 1),
        }
        match *slot {
            UNWRITTEN => Left::Nothing,
            0 => {
                if *chunk == [0; CHUNK_RECORDS as usize] {
                    self.chunks.remove(&at);
                }
                Left::Dead
            }
            _ => Left::Needed,
        }
    }

    /// The end of the group that brought a record: whether it goes into the log.
    pub(super) fn write(&mut self, record: u64) -> bool {
        let at = record / CHUNK_RECORDS;
        let Some(chunk) = self.chunks.get_mut(&at) else { return false };
        let slot = &mut chunk[(record % CHUNK_RECORDS) as usize];
        let is_needed = *slot & !UNWRITTEN != 0;
        *slot &= !UNWRITTEN;
        if !is_needed && *chunk == [0; CHUNK_RECORDS as usize] {
            self.chunks.remove(&at);
        }
        is_needed
    }

    /// How many need a record.
    #[cfg(test)]
    pub(super) fn needs(&self, record: u64) -> u32 {
        let Some(chunk) = self.chunks.get(&(record / CHUNK_RECORDS)) else { return 0 };
        match chunk[(record % CHUNK_RECORDS) as usize] & !UNWRITTEN {
            MANY => self.many[&record],
            count => u32::from(count),
        }
    }

    /// Whether anybody needs anything.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        // A model that has a number for each record.
        #[test]
        fn counts_are_exact(steps in proptest::collection::vec((1u64..40, 0u32..200, 0u8..4), 1..200)) {
            let mut counts = Counts::default();
            let mut model: BTreeMap<u64, u32> = BTreeMap::new();
            for (record, needs, step) in steps {
                if step == 0 && !model.contains_key(&record) {
                    counts.add_unwritten(record, needs);
                    prop_assert_eq!(counts.write(record), needs > 0);
                    model.insert(record, needs);
                    model.retain(|_, needs| *needs > 0);
                } else {
                    for _ in 0..needs {
                        let before = model.get(&record).copied().unwrap_or(0);
                        let expected = match before {
                            0 => Left::Nothing,
                            1 => Left::Dead,
                            _ => Left::Needed,
                        };
                        prop_assert_eq!(counts.release(record), expected);
                        model.insert(record, before.saturating_sub(1));
                        model.retain(|_, needs| *needs > 0);
                    }
                }
                for record in 1..40 {
                    prop_assert_eq!(counts.needs(record), model.get(&record).copied().unwrap_or(0));
                }
                prop_assert_eq!(counts.is_empty(), model.is_empty());
            }
        }
    }

    #[test]
    fn what_nobody_needs_before_it_is_written_is_left_out() {
        let mut counts = Counts::default();
        counts.add_unwritten(5, 2);
        assert_eq!(counts.release(5), Left::Needed);
        assert_eq!(counts.release(5), Left::Nothing);
        assert!(!counts.write(5));
        assert!(counts.is_empty());
    }
}
