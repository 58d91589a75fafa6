//! A hash table in parts, so that no insertion has to move all entries at once.
//!
//! One table of a million patterns takes 110 ms to grow, during which its shard serves nobody. A
//! part is 64 times smaller, and parts grow at different moments.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

const PARTS: usize = 64;

/// A set of entries with hashes and equality that the caller supplies.
#[derive(Debug, Clone)]
pub(super) struct PartedTable<T> {
    parts: Box<[HashTable<T>; PARTS]>,
}

impl<T> PartedTable<T> {
    pub(super) fn new() -> Self {
        Self { parts: Box::new([const { HashTable::new() }; PARTS]) }
    }

    pub(super) fn len(&self) -> usize {
        self.parts.iter().map(HashTable::len).sum()
    }

    /// Makes room for so many more entries.
    pub(super) fn reserve(&mut self, entries: usize, rehash: impl Fn(&T) -> u64) {
        for part in self.parts.iter_mut() {
            part.reserve(entries / PARTS, &rehash);
        }
    }

    pub(super) fn find(&self, hash: u64, equal: impl FnMut(&T) -> bool) -> Option<&T> {
        self.parts[part(hash)].find(hash, equal)
    }

    pub(super) fn find_mut(&mut self, hash: u64, equal: impl FnMut(&T) -> bool) -> Option<&mut T> {
        self.parts[part(hash)].find_mut(hash, equal)
    }

    pub(super) fn entry(
        &mut self,
        hash: u64,
        equal: impl FnMut(&T) -> bool,
        rehash: impl Fn(&T) -> u64,
    ) -> Entry<'_, T> {
        self.parts[part(hash)].entry(hash, equal, rehash)
    }

    /// Inserts what is known not to be there.
    pub(super) fn insert(&mut self, hash: u64, entry: T, rehash: impl Fn(&T) -> u64) {
        self.parts[part(hash)].insert_unique(hash, entry, rehash);
    }

    pub(super) fn remove(
        &mut self,
        hash: u64,
        equal: impl FnMut(&T) -> bool,
        rehash: impl Fn(&T) -> u64,
    ) -> Option<T> {
        let table = &mut self.parts[part(hash)];
        let (removed, _) = table.find_entry(hash, equal).ok()?.remove();
        // Memory goes back when a part is nearly empty: seldom enough to be cheap on average.
        if table.len() < table.capacity() / 8 {
            table.shrink_to(table.len() * 2, rehash);
        }
        Some(removed)
    }
}

/// Taken from bits that a table uses neither for the position (low) nor for its tags (the top seven).
fn part(hash: u64) -> usize {
    (hash >> 48) as usize % PARTS
}
