//! What a connection of the run is for, and what it knows of the run: its phase and its clock.
#![expect(clippy::disallowed_methods, reason = "a load generator is all shell: it reads the clock")]

use std::{task::Waker, time::Instant};

use super::{connection::Target, fault::Fault, load::Load, tally::Tally, window::Flow};
use crate::codec::Packet;

/// What all threads share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) load: Load,
    pub(super) target: Target,
    pub(super) clock: Clock,
    /// By publisher, if it waits for its subscribers.
    pub(super) flows: Vec<Flow>,
}

/// The time of the run: nanoseconds since it began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    #[inline]
    pub(super) fn now_ns(self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// How far the run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Connecting,
    /// Messages are sent and counted.
    Running(Interval),
    /// Nothing new is sent; what is under way arrives. Messages that were due at `end_ns` should have been sent.
    Draining {
        end_ns: u64,
    },
    /// Connections are closed.
    Closing,
}

/// When messages are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interval {
    pub(super) start_ns: u64,
    /// Messages that are due from here on are measured.
    pub(super) measured_ns: u64,
    pub(super) end_ns: u64,
}

/// What a role knows of the moment.
pub(super) struct Moment<'a> {
    pub(super) now_ns: u64,
    pub(super) phase: Phase,
    pub(super) measured_ns: u64,
    pub(super) tally: &'a mut Tally,
    pub(super) waker: &'a Waker,
}

/// What a connection does once it is there.
pub(super) trait Role {
    /// Takes a packet and answers it.
    fn take(
        &mut self,
        packet: &Packet<'_>,
        output: &mut Vec<u8>,
        moment: &mut Moment<'_>,
    ) -> Result<(), Fault>;

    /// Comes behind all packets of a read.
    fn end_of_read(&mut self) {}

    /// Adds what is to be sent now, and says when there will be more.
    fn fill(&mut self, output: &mut Vec<u8>, moment: &mut Moment<'_>) -> Next;

    /// Whether it takes part in the run from now on.
    fn is_ready(&self) -> Ready;

    /// Hands in its results.
    fn finish(self, tally: &mut Tally);
}

/// When a role has something to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    At(u64),
    /// When something arrives, the socket takes more, or the phase changes.
    Event,
    /// Never: the connection is to be closed.
    Leave,
}

/// Whether a connection has all that it needs for the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ready {
    Yes,
    NotYet,
}

/// A connection that does nothing.
pub(super) struct Holder;

impl Role for Holder {
    fn take(&mut self, packet: &Packet<'_>, _: &mut Vec<u8>, _: &mut Moment<'_>) -> Result<(), Fault> {
        Err(Fault::Unexpected(packet.kind()))
    }

    fn fill(&mut self, _: &mut Vec<u8>, moment: &mut Moment<'_>) -> Next {
        if moment.phase == Phase::Closing { Next::Leave } else { Next::Event }
    }

    fn is_ready(&self) -> Ready {
        Ready::Yes
    }

    fn finish(self, _: &mut Tally) {}
}
