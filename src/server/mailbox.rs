//! How other threads reach a shard.

use std::{
    ops::Deref,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::Notify;

use crate::{broker::Forward, net::Socket, store::Committed};

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
    /// The broker stops.
    Stop,
}

/// Letters for one shard: taken out all at once, in order.
///
/// It is bounded by who fills it: a connection that reads looks at [`Mailbox::is_crowded`] of all shards
/// before each read, so that there are at most as many forwards beyond the limit as one read of each
/// connection makes; arrivals are bounded by the limit of handshakes.
#[derive(Default)]
pub(crate) struct Mailbox {
    letters: Mutex<Vec<Mail>>,
    len: AtomicUsize,
    notify: Notify,
}

/// Letters above which publishers stop to read.
const CROWDED: usize = 16_384;

impl Mailbox {
    pub(crate) fn post(&self, letters: impl IntoIterator<Item = Mail>) {
        let mut waiting = self.letters.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.extend(letters);
        self.len.store(waiting.len(), Ordering::Release);
        drop(waiting);
        self.notify.notify_one();
    }

    /// Takes all letters, leaving `empty` in their place. False if there were none.
    pub(crate) fn take(&self, empty: &mut Vec<Mail>) -> bool {
        if self.len.load(Ordering::Acquire) == 0 {
            return false;
        }
        let mut waiting = self.letters.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut *waiting, empty);
        self.len.store(0, Ordering::Release);
        true
    }

    pub(crate) fn is_crowded(&self) -> bool {
        self.len.load(Ordering::Relaxed) > CROWDED
    }

    /// Waits for a letter that is posted after the last one was taken.
    pub(crate) async fn wait(&self) {
        self.notify.notified().await;
    }
}

/// The mailboxes of all shards.
pub(crate) struct Mailboxes(Vec<Mailbox>);

impl Mailboxes {
    pub(crate) fn new(shards: usize) -> Mailboxes {
        Mailboxes((0..shards).map(|_| Mailbox::default()).collect())
    }
}

impl Deref for Mailboxes {
    type Target = [Mailbox];

    fn deref(&self) -> &[Mailbox] {
        &self.0
    }
}

impl Committed for Mailboxes {
    fn committed(&self, shard: u16, commit: u64) {
        self[usize::from(shard)].post([Mail::Committed(commit)]);
    }
}
