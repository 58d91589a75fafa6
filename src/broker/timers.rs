//! What is due when.

use std::collections::BTreeSet;

use crate::{session::LinkId, time::Timestamp};

/// What a timer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// Keep Alive of a connection.
    KeepAlive(LinkId),
    /// Will delay or expiry of the session in this slot.
    Session(u32),
    /// Retained messages that the session in this slot is still to get.
    Replay(u32),
    /// Acknowledgements of a connection that wait for room in a queue.
    Withheld(LinkId),
    /// The end of the proof of who a client is.
    Proof(LinkId),
    /// The end of a wait for a rate: the connection is read, or sent to, again.
    Pace(LinkId),
    /// Drops that are to be told.
    Drops,
    /// Messages of shared subscriptions that the session in this slot may still lend.
    Lend(u32),
    /// Retained messages that expired.
    Sweep,
}

/// Timers in the order in which they are due. Who sets one remembers when, to take it out again.
///
/// Keep Alive is lazy: a packet only notes its time, and the timer, when it fires, is set anew if the
/// client was heard meanwhile. So a timer is touched once per interval, not once per packet.
#[derive(Debug, Default)]
pub(crate) struct Timers(BTreeSet<(Timestamp, Timer)>);

impl Timers {
    pub(crate) fn set(&mut self, at: Timestamp, timer: Timer) {
        self.0.insert((at, timer));
    }

    pub(crate) fn unset(&mut self, at: Timestamp, timer: Timer) {
        self.0.remove(&(at, timer));
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// When the next timer is due.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.0.first().map(|(at, _)| *at)
    }

    /// Takes out the next timer that is due.
    pub(crate) fn pop(&mut self, now: Timestamp) -> Option<Timer> {
        let (at, _) = self.0.first()?;
        if *at > now {
            return None;
        }
        self.0.pop_first().map(|(_, timer)| timer)
    }
}
