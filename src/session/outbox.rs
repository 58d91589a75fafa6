//! Bytes that wait for a socket.

use std::{collections::VecDeque, io::IoSlice, sync::Arc};

use crate::{
    codec::{PublishHead, Version},
    message::Message,
};

use super::seldom::Seldom;

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
    held: Seldom<Held>,
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
        let is_copied = payload.len() < SHARED_PAYLOAD_BYTES;
        let run = self.run();
        let before = run.len();
        // At once: written piece by piece, the first packet of a run would grow it five times.
        run.reserve(head.frame_len(version) - if is_copied { 0 } else { payload.len() });
        head.write(version, run);
        if is_copied {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        codec::{Delivery, QoS},
        message::Header,
    };

    #[derive(Clone, Debug)]
    enum Step {
        Write(Vec<u8>),
        Publish(usize),
        Hold,
        Release,
        Take(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => prop::collection::vec(any::<u8>(), 0..40).prop_map(Step::Write),
            2 => prop_oneof![0..100_usize, 4000..5000_usize].prop_map(Step::Publish),
            1 => Just(Step::Hold),
            1 => Just(Step::Release),
            3 => (0..6000_usize).prop_map(Step::Take),
        ]
    }

    fn publish(payload_bytes: usize, outbox: &mut Outbox, expected: &mut Vec<u8>) {
        let header = Header { qos: QoS::AtMostOnce, retain: false, expires_at: None, publisher: None };
        let message = Arc::new(Message::new("t".into(), &vec![7; payload_bytes], header));
        let head = PublishHead {
            dup: false,
            retain: false,
            delivery: Delivery::AtMostOnce,
            topic: "t",
            forwarded: &[],
            message_expiry_secs: None,
            topic_alias: None,
            subscription_ids: &[],
            payload_len: payload_bytes,
        };
        outbox.write_publish(&head, Version::V311, &message);
        head.write(Version::V311, expected);
        expected.extend_from_slice(message.payload());
    }

    proptest! {
        // All that was written comes out, in order, and nothing before its commit.
        #[test]
        fn bytes_come_out_as_they_went_in(steps in prop::collection::vec(step(), 1..60)) {
            let mut outbox = Outbox::default();
            let (mut written, mut taken) = (Vec::new(), Vec::new());
            // Where the bytes behind each commit begin.
            let mut holds: Vec<(u64, usize)> = Vec::new();
            let (mut newest, mut committed) = (0, 0);
            for step in steps {
                match step {
                    Step::Write(bytes) => {
                        outbox.write(|run| {
                            run.extend_from_slice(&bytes);
                            true
                        });
                        written.extend_from_slice(&bytes);
                    }
                    Step::Publish(bytes) => publish(bytes, &mut outbox, &mut written),
                    Step::Hold => {
                        newest += 1;
                        outbox.hold(newest);
                        holds.push((newest, written.len()));
                    }
                    Step::Release if committed < newest => {
                        committed += 1;
                        outbox.release(committed);
                    }
                    Step::Release => {}
                    Step::Take(mut count) => {
                        while count > 0 && outbox.ready() > 0 {
                            let chunk = outbox.chunk();
                            let length = chunk.len().min(count);
                            taken.extend_from_slice(&chunk[..length]);
                            outbox.advance(length);
                            count -= length.max(1);
                        }
                    }
                }
                let held_from = holds.iter().find(|(commit, _)| *commit > committed);
                let free = held_from.map_or(written.len(), |(_, from)| *from);
                prop_assert_eq!(taken.len() + outbox.ready(), free);
                prop_assert_eq!(taken.len() + outbox.len(), written.len());
                prop_assert_eq!(&taken[..], &written[..taken.len()]);
            }
        }
    }
}
