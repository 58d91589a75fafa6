//! Bytes that wait for a socket.

use std::{collections::VecDeque, io::IoSlice, sync::Arc};

use crate::{
    codec::{PublishHead, Version},
    message::Message,
};

/// Packets that wait for a socket, in order. Empty, it owns no memory beyond its own.
///
/// Small packets are gathered into one run of bytes. A large payload is not copied: its segment refers to
/// the message, which all its receivers share. What waits for the store is held apart with all that comes
/// behind it, and joins when its commit is told.
#[derive(Debug, Default)]
pub struct Outbox {
    segments: VecDeque<Segment>,
    /// Bytes of the first segment that are written already.
    written: usize,
    /// Bytes in `segments` that are not written.
    len: usize,
    held: VecDeque<Held>,
    /// Bytes other than of PUBLISH that were written since it was last empty.
    answers: usize,
    /// True once nothing more may be written: the socket closes when all is sent. `[MQTT-3.14.4-1]`
    is_finished: bool,
}

#[derive(Debug)]
enum Segment {
    Bytes(Vec<u8>),
    Payload(Arc<Message>),
}

/// Bytes behind a commit.
#[derive(Debug)]
struct Held {
    commit: u64,
    segments: VecDeque<Segment>,
    len: usize,
}

/// Payloads from this size in bytes on are shared rather than copied.
const SHARED_PAYLOAD_BYTES: usize = 4096;

/// A run of bytes is closed at this size, so that what is written can be given back.
const RUN_BYTES: usize = 64 * 1024;

impl Segment {
    fn as_bytes(&self) -> &[u8] {
        match self {
            Segment::Bytes(bytes) => bytes,
            Segment::Payload(message) => message.payload(),
        }
    }
}

impl Outbox {
    /// Bytes that wait, held ones included.
    pub fn len(&self) -> usize {
        self.len + self.held.iter().map(|held| held.len).sum::<usize>()
    }

    /// True if nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0 && self.held.is_empty()
    }

    /// Bytes of answers among those that wait, at most.
    pub fn answers(&self) -> usize {
        self.answers
    }

    /// Bytes that may be written to the socket now.
    pub fn ready(&self) -> usize {
        self.len
    }

    /// True if the socket is to be closed once all is written.
    pub fn is_finished(&self) -> bool {
        self.is_finished
    }

    /// Lets nothing more in.
    pub fn finish(&mut self) {
        self.is_finished = true;
    }

    /// What is written from here on waits for this commit.
    pub fn hold(&mut self, commit: u64) {
        match self.held.back() {
            Some(last) if last.commit >= commit => {}
            Some(_) | None => self.held.push_back(Held { commit, segments: VecDeque::new(), len: 0 }),
        }
    }

    /// Sets free what waited for commits up to this one. True if there is more to write now.
    pub fn release(&mut self, committed: u64) -> bool {
        let before = self.len;
        while self.held.front().is_some_and(|held| held.commit <= committed) {
            if let Some(mut held) = self.held.pop_front() {
                self.segments.append(&mut held.segments);
                self.len += held.len;
            }
        }
        self.len > before
    }

    /// Drops what waits for a commit: its connection is gone before it.
    pub fn drop_held(&mut self) {
        self.held.clear();
    }

    /// Appends what `encode` writes; it tells whether it did. Nothing is appended to a finished outbox.
    pub fn write(&mut self, encode: impl FnOnce(&mut Vec<u8>) -> bool) -> bool {
        if self.is_finished {
            return true;
        }
        let run = self.run();
        let before = run.len();
        let is_written = encode(run);
        let added = run.len() - before;
        self.answers += added;
        self.grow(added);
        is_written
    }

    /// Appends a PUBLISH.
    pub fn write_publish(&mut self, head: &PublishHead<'_>, version: Version, message: &Arc<Message>) {
        if self.is_finished {
            return;
        }
        let payload = message.payload();
        let run = self.run();
        let before = run.len();
        head.write(version, run);
        if payload.len() < SHARED_PAYLOAD_BYTES {
            run.extend_from_slice(payload);
            let added = run.len() - before;
            self.grow(added);
        } else {
            let added = run.len() - before + payload.len();
            self.tail().push_back(Segment::Payload(message.clone()));
            self.grow(added);
        }
    }

    /// What to write to the socket next.
    pub fn chunk(&self) -> &[u8] {
        self.segments.front().map_or(&[], |first| &first.as_bytes()[self.written..])
    }

    /// Fills `slices` with what to write next; returns how many are filled.
    pub fn chunks<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (slice, segment) in slices.iter_mut().zip(&self.segments) {
            let skip = if filled == 0 { self.written } else { 0 };
            *slice = IoSlice::new(&segment.as_bytes()[skip..]);
            filled += 1;
        }
        filled
    }

    /// True if more than one chunk waits.
    pub fn is_scattered(&self) -> bool {
        self.segments.len() > 1
    }

    /// Takes note of bytes that the socket took.
    pub fn advance(&mut self, mut count: usize) {
        debug_assert!(count <= self.len, "the socket cannot take more than it was given");
        self.len -= count;
        while let Some(first) = self.segments.front() {
            let left = first.as_bytes().len() - self.written;
            if count < left {
                self.written += count;
                return;
            }
            count -= left;
            self.written = 0;
            self.segments.pop_front();
        }
        self.segments = VecDeque::new();
        self.answers = self.held.iter().map(|held| held.len).sum();
    }

    /// The segments that a new packet joins.
    fn tail(&mut self) -> &mut VecDeque<Segment> {
        match self.held.back_mut() {
            Some(held) => &mut held.segments,
            None => &mut self.segments,
        }
    }

    /// The run of bytes that a new packet joins.
    fn run(&mut self) -> &mut Vec<u8> {
        let tail = self.tail();
        let is_open = matches!(tail.back(), Some(Segment::Bytes(bytes)) if bytes.len() < RUN_BYTES);
        if !is_open {
            tail.push_back(Segment::Bytes(Vec::new()));
        }
        match tail.back_mut() {
            Some(Segment::Bytes(bytes)) => bytes,
            Some(Segment::Payload(_)) | None => unreachable!("the last segment was just made a run of bytes"),
        }
    }

    fn grow(&mut self, added: usize) {
        match self.held.back_mut() {
            Some(held) => held.len += added,
            None => self.len += added,
        }
    }
}
