//! How other threads reach a shard.

use std::{
    ops::Deref,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use tokio::sync::Notify;

use crate::{
    broker::{Forward, Outputs, Shard},
    net::Socket,
    session::Fetched,
    time::Timestamp,
};

use super::handshake::Arrival;

/// Something for a shard.
pub(crate) enum Mail {
    /// A message for sessions of the shard.
    Forward(Forward),
    /// A connection whose session is on the shard.
    Arrival(Box<Arrival>),
    /// A client in the same process.
    Local(Socket),
    /// The store has committed all batches up to this one.
    Committed(u64),
    /// Messages that a session wanted from the store.
    Fetched(Box<Fetched>),
    /// Something that an administrator wants of the shard, or of what it knows. Rare: whoever asks waits for the answer
    /// before asking again.
    Step(Step),
    /// The broker stops.
    Stop,
}

/// A step of a shard that is told from outside.
pub(crate) type Step = Box<dyn FnOnce(&mut Shard, Timestamp, &mut Outputs) + Send>;

/// Letters for one shard: taken out all at once, in order.
///
/// It is bounded by who fills it: a connection looks at [`Mailbox::is_crowded`] of all shards before it
/// hears or reads on, and a turn ends when it has forwarded [`FORWARDED_MAX`], so that the limit is passed
/// by one turn of each connection at most; arrivals are bounded by the limit of handshakes.
#[derive(Default)]
pub(crate) struct Mailbox {
    letters: Mutex<Vec<Mail>>,
    len: AtomicUsize,
    /// What the letters weigh in bytes.
    weight: AtomicUsize,
    notify: Notify,
}

/// Bytes of letters above which publishers stop to read.
const CROWDED: usize = 32 * 1024 * 1024;

/// Bytes that one turn may forward before what it has forwarded is posted.
pub(crate) const FORWARDED_MAX: usize = 256 * 1024;

impl Mail {
    fn weight(&self) -> usize {
        match self {
            Mail::Forward(forward) => forward.weight(),
            Mail::Arrival(_)
            | Mail::Local(_)
            | Mail::Committed(_)
            | Mail::Fetched(_)
            | Mail::Step(_)
            | Mail::Stop => 0,
        }
    }
}

impl Mailbox {
    pub(crate) fn post(&self, letters: impl IntoIterator<Item = Mail>) {
        let mut waiting = self.letters.lock().unwrap_or_else(PoisonError::into_inner);
        let before = waiting.len();
        waiting.extend(letters);
        let weight: usize = waiting[before..].iter().map(Mail::weight).sum();
        self.weight.fetch_add(weight, Ordering::Relaxed);
        self.len.store(waiting.len(), Ordering::Release);
        drop(waiting);
        self.notify.notify_one();
    }

    /// Takes all letters, leaving `empty` in their place. False if there were none.
    fn take(&self, empty: &mut Vec<Mail>) -> bool {
        if self.len.load(Ordering::Acquire) == 0 {
            return false;
        }
        let mut waiting = self.letters.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut *waiting, empty);
        self.len.store(0, Ordering::Release);
        self.weight.store(0, Ordering::Relaxed);
        true
    }

    fn is_crowded(&self) -> bool {
        self.weight.load(Ordering::Relaxed) > CROWDED
    }

    /// Waits for a letter that is posted after the last one was taken.
    pub(crate) async fn wait(&self) {
        self.notify.notified().await;
    }
}

/// The mailboxes of all shards.
pub(crate) struct Mailboxes {
    boxes: Vec<Mailbox>,
    /// More waits in the store than may.
    is_store_crowded: AtomicBool,
    /// Connections that wait until nothing is crowded.
    parked: Mutex<Parked>,
}

/// Connections that wait, each once.
struct Parked {
    wakers: Vec<Waker>,
    /// Counts how often all were woken, from 1.
    round: u64,
}

impl Mailboxes {
    pub(crate) fn new(shards: usize) -> Mailboxes {
        Mailboxes {
            boxes: (0..shards).map(|_| Mailbox::default()).collect(),
            is_store_crowded: AtomicBool::new(false),
            parked: Mutex::new(Parked { wakers: Vec::new(), round: 1 }),
        }
    }

    /// Takes all letters of one shard, leaving `empty` in their place. False if there were none.
    pub(crate) fn take(&self, shard: u16, empty: &mut Vec<Mail>) -> bool {
        let mailbox = &self.boxes[usize::from(shard)];
        let was_crowded = mailbox.is_crowded();
        let was_full = mailbox.take(empty);
        if was_crowded {
            self.wake_parked();
        }
        was_full
    }

    /// Says whether connections are to wait for the store.
    pub(crate) fn set_store_crowded(&self, is_crowded: bool) {
        if self.is_store_crowded.swap(is_crowded, Ordering::Relaxed) && !is_crowded {
            self.wake_parked();
        }
    }

    fn wake_parked(&self) {
        let mut parked = self.parked.lock().unwrap_or_else(PoisonError::into_inner);
        parked.round += 1;
        let wakers = std::mem::take(&mut parked.wakers);
        drop(parked);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Ready while neither a mailbox nor the store is crowded. `parked_in` is the caller's: the round in which it last had to
    /// wait, 0 at first.
    pub(crate) fn poll_room(&self, parked_in: &mut u64, cx: &Context<'_>) -> Poll<()> {
        if !self.is_any_crowded() {
            return Poll::Ready(());
        }
        let mut parked = self.parked.lock().unwrap_or_else(PoisonError::into_inner);
        if *parked_in != parked.round {
            *parked_in = parked.round;
            parked.wakers.push(cx.waker().clone());
        }
        drop(parked);
        // Whoever emptied it in between may not have seen this waker.
        if self.is_any_crowded() { Poll::Pending } else { Poll::Ready(()) }
    }

    fn is_any_crowded(&self) -> bool {
        self.is_store_crowded.load(Ordering::Relaxed) || self.boxes.iter().any(Mailbox::is_crowded)
    }
}

impl Deref for Mailboxes {
    type Target = [Mailbox];

    fn deref(&self) -> &[Mailbox] {
        &self.boxes
    }
}
