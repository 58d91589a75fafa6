//! One connection: two pipes of bytes that are slow, break what they carry into pieces, and break.

use std::collections::VecDeque;

use dunlin::session::LinkId;

use super::rng::Rng;

/// Bytes under way to a client at most, as a socket has it.
const CAPACITY_BYTES: usize = 65_536;
/// The same where clients stop reading, so that the broker notices.
const CAPACITY_BYTES_SMALL: usize = 600;

/// How a network behaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manners {
    /// Time from end to end at most, in milliseconds.
    pub(crate) delay_max: u64,
    /// Whether what is sent arrives in pieces.
    pub(crate) fragments: bool,
    /// Whether little may be under way.
    pub(crate) is_narrow: bool,
}

/// One direction of a connection.
#[derive(Debug, Default)]
pub(crate) struct Pipe {
    /// Pieces, each with the moment at which it arrives.
    pieces: VecDeque<(u64, Vec<u8>)>,
    bytes: usize,
    /// The moment at which the end arrives.
    end: Option<u64>,
    /// Nothing arrives any more, not even the end.
    pub(crate) is_dead: bool,
}

/// What arrives at one end.
pub(crate) enum Arrival {
    Bytes(Vec<u8>),
    End,
    Nothing,
}

impl Pipe {
    /// Puts bytes in. Returns the moments at which something arrives.
    pub(crate) fn send(&mut self, now: u64, bytes: &[u8], manners: Manners, rng: &mut Rng) -> Vec<u64> {
        let mut moments = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() && !self.is_dead && self.end.is_none() {
            let is_cut = manners.fragments && rng.one_in(2);
            let count = if is_cut { 1 + rng.below(rest.len() as u64) as usize } else { rest.len() };
            let at = self.arrival(now, manners, rng);
            self.pieces.push_back((at, rest[..count].to_vec()));
            self.bytes += count;
            moments.push(at);
            rest = &rest[count..];
        }
        moments
    }

    /// Closes it behind what is in it. Returns the moment at which that arrives.
    pub(crate) fn finish(&mut self, now: u64, manners: Manners, rng: &mut Rng) -> Option<u64> {
        if self.is_dead || self.end.is_some() {
            return None;
        }
        let at = self.arrival(now, manners, rng);
        self.end = Some(at);
        Some(at)
    }

    /// Breaks it: what is under way is lost from some point on. Returns the moment at which that is noticed.
    pub(crate) fn cut(&mut self, now: u64, manners: Manners, rng: &mut Rng) -> Option<u64> {
        let kept = rng.below(self.pieces.len() as u64 + 1) as usize;
        self.bytes -= self.pieces.drain(kept..).map(|(_, piece)| piece.len()).sum::<usize>();
        self.finish(now, manners, rng)
    }

    /// A moment not before that of what was sent before.
    fn arrival(&self, now: u64, manners: Manners, rng: &mut Rng) -> u64 {
        let last = self.pieces.back().map_or(now, |(at, _)| *at);
        last.max(now + rng.below(manners.delay_max + 1))
    }

    /// Takes out what has arrived.
    pub(crate) fn receive(&mut self, now: u64) -> Arrival {
        if self.is_dead {
            return Arrival::Nothing;
        }
        let mut bytes = Vec::new();
        while self.pieces.front().is_some_and(|(at, _)| *at <= now)
            && let Some((_, piece)) = self.pieces.pop_front()
        {
            bytes.extend(piece);
        }
        self.bytes -= bytes.len();
        if !bytes.is_empty() {
            return Arrival::Bytes(bytes);
        }
        let is_over = self.pieces.is_empty() && self.end.is_some_and(|at| at <= now);
        if is_over { Arrival::End } else { Arrival::Nothing }
    }

    /// Bytes that may still be sent for now.
    pub(crate) fn room(&self, manners: Manners) -> usize {
        let capacity = if manners.is_narrow { CAPACITY_BYTES_SMALL } else { CAPACITY_BYTES };
        capacity.saturating_sub(self.bytes)
    }
}

/// What the broker has of a connection.
#[derive(Debug)]
pub(crate) enum Server {
    /// Bytes before the end of CONNECT.
    Greeting(Vec<u8>),
    /// A link, and bytes that it has not heard.
    Linked {
        shard: usize,
        link: LinkId,
        unheard: Vec<u8>,
    },
    Closed,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) client: usize,
    pub(crate) to_broker: Pipe,
    pub(crate) to_client: Pipe,
    pub(crate) server: Server,
    /// Bytes that the client has read and that are no whole packet yet.
    pub(crate) unread: Vec<u8>,
    /// What the broker heard last was a DISCONNECT that revokes the will.
    pub(crate) is_revoked: bool,
    /// The broker has given it up, and waits for its client to take what is left.
    pub(crate) is_doomed: bool,
    /// Whether the broker is to look again for room to write.
    pub(crate) writes: bool,
}

impl Wire {
    pub(crate) fn new(client: usize) -> Wire {
        Wire {
            client,
            to_broker: Pipe::default(),
            to_client: Pipe::default(),
            server: Server::Greeting(Vec::new()),
            unread: Vec::new(),
            is_revoked: false,
            is_doomed: false,
            writes: false,
        }
    }
}
