//! QoS 0 messages that wait for room in the outbox.

use super::{Outgoing, seldom::Seldom};

/// QoS 0 messages in order.
///
/// A new subscription may get more retained messages than the outbox takes at a time: they wait here, and
/// what is published meanwhile waits behind them, so that no old message arrives after a new one. At other
/// times this is empty.
#[derive(Debug, Default)]
pub struct Transient {
    queue: Seldom<(Source, Outgoing)>,
    live_bytes: usize,
}

/// Where a message comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The retained messages, which have their own limit.
    Retained,
    /// A publisher.
    Live,
}

impl Transient {
    /// True if nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Messages that wait.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Bytes of those that are not retained messages.
    pub fn live_bytes(&self) -> usize {
        self.live_bytes
    }

    /// Adds a message.
    pub fn push(&mut self, source: Source, outgoing: Outgoing) {
        if source == Source::Live {
            self.live_bytes += outgoing.message.size_bytes();
        }
        self.queue.push_back((source, outgoing));
    }

    /// Takes the first message out.
    pub fn pop(&mut self) -> Option<Outgoing> {
        let (source, outgoing) = self.queue.pop_front()?;
        if source == Source::Live {
            self.live_bytes -= outgoing.message.size_bytes();
        }
        Some(outgoing)
    }
}
