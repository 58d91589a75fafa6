//! Queues that most sessions never use.

use std::{
    collections::{VecDeque, vec_deque},
    ops::{Deref, DerefMut},
};

/// A queue that is empty most of the time, and then takes a word: with many sessions that is what counts.
///
/// What changes a part of it takes memory even if it is empty; what takes from its front, or all, does not, and gives
/// it back with the last.
#[derive(Debug)]
#[expect(clippy::box_collection, reason = "a queue takes four words")]
pub struct Seldom<T>(Option<Box<VecDeque<T>>>);

impl<T> Seldom<T> {
    /// Takes the first out.
    pub fn pop_front(&mut self) -> Option<T> {
        let queue = self.0.as_mut()?;
        let first = queue.pop_front();
        if queue.is_empty() {
            self.0 = None;
        }
        first
    }

    /// The first, to be changed.
    pub fn front_mut(&mut self) -> Option<&mut T> {
        self.0.as_mut()?.front_mut()
    }

    /// The last, to be changed.
    pub fn back_mut(&mut self) -> Option<&mut T> {
        self.0.as_mut()?.back_mut()
    }

    /// All, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut().flat_map(|queue| queue.iter_mut())
    }

    /// Keeps those of which this is true.
    pub fn retain(&mut self, is_kept: impl FnMut(&T) -> bool) {
        if let Some(queue) = &mut self.0 {
            queue.retain(is_kept);
            if queue.is_empty() {
                self.0 = None;
            }
        }
    }

    /// Takes one out.
    pub fn remove(&mut self, at: usize) -> Option<T> {
        let queue = self.0.as_mut()?;
        let removed = queue.remove(at);
        if queue.is_empty() {
            self.0 = None;
        }
        removed
    }
}

impl<T> Default for Seldom<T> {
    fn default() -> Self {
        Seldom(None)
    }
}

impl<T: 'static> Deref for Seldom<T> {
    type Target = VecDeque<T>;

    fn deref(&self) -> &VecDeque<T> {
        self.0.as_deref().unwrap_or(const { &VecDeque::new() })
    }
}

impl<T: 'static> DerefMut for Seldom<T> {
    fn deref_mut(&mut self) -> &mut VecDeque<T> {
        self.0.get_or_insert_default()
    }
}

impl<T> IntoIterator for Seldom<T> {
    type Item = T;
    type IntoIter = vec_deque::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.map(|queue| *queue).unwrap_or_default().into_iter()
    }
}

impl<T> FromIterator<T> for Seldom<T> {
    fn from_iter<I: IntoIterator<Item = T>>(iter: I) -> Self {
        let queue: VecDeque<T> = iter.into_iter().collect();
        Seldom((!queue.is_empty()).then(|| Box::new(queue)))
    }
}

impl<T> Extend<T> for Seldom<T> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, iter: I) {
        let mut iter = iter.into_iter().peekable();
        if iter.peek().is_some() {
            self.0.get_or_insert_default().extend(iter);
        }
    }
}
