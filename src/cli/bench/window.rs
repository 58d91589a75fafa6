//! How much may be under way: the identifiers of unacknowledged messages, and the messages that no subscriber
//! has got yet.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::Waker,
};

use crate::codec::PacketId;

/// A message between PUBLISH and its last acknowledgement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Slot {
    #[default]
    Free,
    /// Sent, with the time from which its acknowledgement is measured.
    Published { due_ns: u64 },
    /// PUBREL is sent, PUBCOMP is to come.
    Released { due_ns: u64 },
}

/// The messages of a publisher that are not yet acknowledged.
#[derive(Debug)]
pub(super) struct InFlight {
    /// By identifier less one; as many as may be under way.
    slots: Vec<Slot>,
    /// Identifiers that no message has.
    free: Vec<PacketId>,
}

impl InFlight {
    pub(super) fn new(messages_max: u16) -> Self {
        // From the end on, so that the lowest is the first to be used.
        let free = (1..=messages_max).rev().filter_map(PacketId::new).collect();
        Self { slots: vec![Slot::Free; usize::from(messages_max)], free }
    }

    pub(super) fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.free.len() == self.slots.len()
    }

    /// An identifier for a message that is now sent; `None` if the window is full.
    pub(super) fn publish(&mut self, due_ns: u64) -> Option<PacketId> {
        let packet_id = self.free.pop()?;
        *self.slot(packet_id)? = Slot::Published { due_ns };
        Some(packet_id)
    }

    /// PUBACK, or a PUBREC that refuses: the message is settled. `None` if nothing of that kind was under way.
    pub(super) fn settle(&mut self, packet_id: PacketId) -> Option<u64> {
        match self.slot(packet_id) {
            Some(&mut Slot::Published { due_ns }) => self.release(packet_id, due_ns),
            _ => None,
        }
    }

    /// PUBREC: the message is at the broker.
    pub(super) fn received(&mut self, packet_id: PacketId) -> Option<()> {
        match self.slot(packet_id) {
            Some(slot @ Slot::Published { .. }) => {
                if let Slot::Published { due_ns } = *slot {
                    *slot = Slot::Released { due_ns };
                }
                Some(())
            }
            _ => None,
        }
    }

    /// PUBCOMP: the message is settled.
    pub(super) fn complete(&mut self, packet_id: PacketId) -> Option<u64> {
        match self.slot(packet_id) {
            Some(&mut Slot::Released { due_ns }) => self.release(packet_id, due_ns),
            _ => None,
        }
    }

    fn release(&mut self, packet_id: PacketId, due_ns: u64) -> Option<u64> {
        *self.slot(packet_id)? = Slot::Free;
        self.free.push(packet_id);
        Some(due_ns)
    }

    fn slot(&mut self, packet_id: PacketId) -> Option<&mut Slot> {
        self.slots.get_mut(usize::from(packet_id.get()) - 1)
    }
}

/// What the subscribers got of a publisher, so that it sends no more than they take.
///
/// Without this a publisher of QoS 0 would measure how fast a broker throws away. The two sides may be on different
/// threads: the count is added to once for a run of messages, and the publisher is woken only if it waits.
#[derive(Debug, Default)]
pub(super) struct Flow {
    delivered: AtomicU64,
    waiting: Mutex<Option<Waker>>,
}

impl Flow {
    /// Deliveries so far, to all subscribers together.
    pub(super) fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Acquire)
    }

    /// Adds deliveries and wakes the publisher if it waits for them.
    pub(super) fn deliver(&self, count: u64) {
        self.delivered.fetch_add(count, Ordering::AcqRel);
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waker) = waiting {
            waker.wake();
        }
    }

    /// Wakes `waker` at the next delivery. Look at [`delivered`](Self::delivered) again after this.
    pub(super) fn wait(&self, waker: &Waker) {
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u16) -> PacketId {
        PacketId::new(number).unwrap()
    }

    #[test]
    fn identifiers_are_used_again_when_their_message_is_settled() {
        let mut window = InFlight::new(2);
        assert_eq!(
            (window.publish(5), window.publish(6), window.publish(7)),
            (Some(id(1)), Some(id(2)), None)
        );
        assert!(!window.has_room());
        assert_eq!(window.settle(id(1)), Some(5));
        assert_eq!(window.publish(8), Some(id(1)));
        assert_eq!((window.settle(id(2)), window.settle(id(1))), (Some(6), Some(8)));
        assert!(window.is_empty());
    }

    #[test]
    fn exactly_once_takes_its_steps_in_order() {
        let mut window = InFlight::new(1);
        assert_eq!(window.publish(5), Some(id(1)));
        assert_eq!(window.complete(id(1)), None);
        assert_eq!(window.received(id(1)), Some(()));
        assert_eq!((window.received(id(1)), window.settle(id(1))), (None, None));
        assert_eq!(window.complete(id(1)), Some(5));
        assert!(window.is_empty());
    }

    #[test]
    fn an_acknowledgement_of_nothing_is_noticed() {
        let mut window = InFlight::new(3);
        for number in [1, 3, 4, u16::MAX] {
            assert_eq!(window.settle(id(number)), None);
            assert_eq!(window.received(id(number)), None);
            assert_eq!(window.complete(id(number)), None);
        }
        assert!(window.is_empty());
    }
}
