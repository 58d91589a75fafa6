//! What threads other than its owner know of a session.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering},
};

use crate::limits::Durability;

/// The shared face of a session: where it lives, and what a publisher on another shard has to know before
/// it accepts a message for it. The owner shard alone touches the session itself.
#[derive(Debug)]
pub struct SessionHandle {
    /// The shard that owns the session.
    pub shard: u16,
    /// Its slot there. A slot is used again: compare handles by [`SessionHandle::is`], never slots.
    pub slot: u32,
    /// Its identifier in the store: no other session ever has it.
    pub id: u64,
    /// The client identifier.
    pub client_id: Arc<str>,
    /// See [`SessionHandle::owner`].
    owner: OnceLock<Arc<str>>,
    /// Whether the session outlives its connection, or one of its connections did, so that the store knows
    /// it, and what it is promised goes there first.
    durable: AtomicBool,
    /// Whether what it is sent with QoS 2 is on disk first, as the listener of its last connection promises.
    awaits_commit: AtomicBool,
    /// See [`Presence`].
    presence: AtomicU8,
    /// The number of the next QoS 1 or 2 message. Numbers start at 0 and become packet identifiers.
    next_number: AtomicU64,
    /// QoS 1 and 2 messages accepted for the session and not settled.
    queued_messages: AtomicUsize,
    /// Their bytes.
    queued_bytes: AtomicUsize,
}

/// Whether a session can take a message now. Shared subscriptions prefer who can.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Presence {
    /// Not connected.
    Offline = 0,
    /// Connected, but its window or its outbox is full.
    Busy = 1,
    /// Connected and able to take a message.
    Ready = 2,
}

impl SessionHandle {
    /// The handle of a new session.
    pub fn new(shard: u16, slot: u32, id: u64, client_id: Arc<str>) -> Self {
        SessionHandle {
            shard,
            slot,
            id,
            client_id,
            owner: OnceLock::new(),
            durable: AtomicBool::new(false),
            awaits_commit: AtomicBool::new(true),
            presence: AtomicU8::new(Presence::Offline as u8),
            next_number: AtomicU64::new(0),
            queued_messages: AtomicUsize::new(0),
            queued_bytes: AtomicUsize::new(0),
        }
    }

    /// Takes over what the store knows: how numbers go on, and what is queued.
    pub fn restore(&self, next_number: u64, queued_messages: usize, queued_bytes: usize) {
        self.next_number.store(next_number, Ordering::Relaxed);
        self.queued_messages.store(queued_messages, Ordering::Relaxed);
        self.queued_bytes.store(queued_bytes, Ordering::Relaxed);
        self.set_durable();
    }

    /// The user whose session it is: the first one, of those that had a name, whose client it was.
    pub fn owner(&self) -> Option<&Arc<str>> {
        self.owner.get()
    }

    /// Says whose session it is, unless it is somebody's already. Owner shard only.
    pub fn set_owner(&self, user: Option<&Arc<str>>) {
        if let Some(user) = user {
            self.owner.get_or_init(|| user.clone());
        }
    }

    /// True if both are the handle of one session.
    pub fn is(&self, other: &SessionHandle) -> bool {
        std::ptr::eq(self, other)
    }

    /// Whether the store knows the session.
    pub fn is_durable(&self) -> bool {
        self.durable.load(Ordering::Relaxed)
    }

    /// Says that the session is in the store from now on, until it ends. Owner only.
    pub fn set_durable(&self) {
        self.durable.store(true, Ordering::Relaxed);
    }

    /// Whether a QoS 2 message must be on disk before the session is sent it. After a crash its packet
    /// identifier would be given to another message, which the client would take for a repetition.
    pub fn awaits_commit(&self) -> bool {
        self.awaits_commit.load(Ordering::Relaxed)
    }

    /// Says what the connection of the session was promised. Owner only.
    pub fn set_durability(&self, durability: Durability) {
        self.awaits_commit.store(durability == Durability::Commit, Ordering::Relaxed);
    }

    /// Whether the session can take a message now.
    pub fn presence(&self) -> Presence {
        match self.presence.load(Ordering::Relaxed) {
            0 => Presence::Offline,
            1 => Presence::Busy,
            _ => Presence::Ready,
        }
    }

    /// Says whether the session can take a message now. Owner only.
    pub fn set_presence(&self, presence: Presence) {
        self.presence.store(presence as u8, Ordering::Relaxed);
    }

    /// Reserves the number of one QoS 1 or 2 message of this size. The message must reach
    /// [`super::Outbound::enqueue`] under that number, or the number be cancelled there.
    pub fn reserve(&self, size_bytes: usize) -> u64 {
        self.queued_messages.fetch_add(1, Ordering::Relaxed);
        self.queued_bytes.fetch_add(size_bytes, Ordering::Relaxed);
        self.next_number.fetch_add(1, Ordering::Relaxed)
    }

    /// Takes a settled message out of the account. Owner only.
    pub fn settle(&self, size_bytes: usize) {
        self.settle_all(1, size_bytes);
    }

    /// Takes so many settled messages out of the account. Owner only.
    pub fn settle_all(&self, messages: usize, size_bytes: usize) {
        self.queued_messages.fetch_sub(messages, Ordering::Relaxed);
        self.queued_bytes.fetch_sub(size_bytes, Ordering::Relaxed);
    }

    /// Messages accepted and not settled.
    pub fn queued_messages(&self) -> usize {
        self.queued_messages.load(Ordering::Relaxed)
    }

    /// Bytes of the messages accepted and not settled.
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes.load(Ordering::Relaxed)
    }
}
