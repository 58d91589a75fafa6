//! What outlives the process: how a session, its messages and its will look in the store.

use std::{num::NonZeroU64, sync::Arc};

use crate::{
    codec::{PacketId, QoS},
    message::Message,
    time::Timestamp,
    topic::TopicFilter,
};

use super::{Outgoing, Subscription, parked::Parked};

/// Names one record of the store's log, from 1 to 2^48 - 1. A later record has a higher one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId(NonZeroU64);

impl RecordId {
    /// The record with this number; 0 is taken for 1.
    pub fn new(number: u64) -> RecordId {
        RecordId(NonZeroU64::new(number).unwrap_or(NonZeroU64::MIN))
    }

    /// Its number.
    pub fn get(self) -> u64 {
        self.0.get()
    }
}

/// A subscription as the store has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredSubscription {
    /// The subscription.
    pub subscription: Subscription,
    /// Whether retained messages are still to be sent for it, other than those that are queued.
    pub has_replay: bool,
}

impl From<Subscription> for StoredSubscription {
    fn from(subscription: Subscription) -> Self {
        StoredSubscription { subscription, has_replay: false }
    }
}

/// Whether a stored session has a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredPresence {
    /// It has, or had one when the broker ended without telling.
    Connected {
        /// The client's Receive Maximum: as many of its first unsettled messages are taken for sent. Others may
        /// have been.
        receive_maximum: u16,
    },
    /// It has none.
    Detached {
        /// Since when.
        since: Timestamp,
        /// Messages with a number below were sent at least once.
        sent_below: u64,
        /// Messages with a number below may have been sent before a crash.
        perhaps_sent_below: u64,
    },
}

/// A will that waits for the connection to end.
#[derive(Debug)]
pub struct StoredWill {
    /// What is published.
    pub message: Message,
    /// Will Delay Interval in seconds.
    pub delay_secs: u32,
    /// Message Expiry Interval in seconds, counted from publication.
    pub message_expiry_secs: Option<u32>,
}

/// A session as the store has it.
#[derive(Debug)]
pub struct StoredSession {
    /// Its identifier in the store.
    pub id: u64,
    /// The client identifier.
    pub client_id: Arc<str>,
    /// The user whose session it is, if anybody's.
    pub owner: Option<Arc<str>>,
    /// Session Expiry Interval in seconds.
    pub expiry_secs: u32,
    /// Whether it had a connection when it was last written.
    pub presence: StoredPresence,
    /// The will, if one is armed or delayed.
    pub will: Option<Arc<StoredWill>>,
    /// Its subscriptions.
    pub subscriptions: Vec<(TopicFilter, StoredSubscription)>,
    /// The number of its next message: above all that it ever used and that may still matter.
    pub next_number: u64,
    /// QoS 1 and 2 messages for the client that are not settled, but for those of `shared`. What may have been
    /// sent is in memory.
    pub messages: Parked,
    /// Those that came through a shared subscription, with their numbers.
    pub shared: Vec<(u64, Outgoing)>,
    /// Numbers of QoS 2 messages that the client owns, and whose PUBCOMP is not here yet. In order.
    pub owned: Vec<u64>,
    /// Packet identifiers of QoS 2 messages from the client that await their PUBREL.
    pub unreleased: Vec<PacketId>,
}

/// A message of a session that is in the store and not in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredMessage {
    /// Its number in the session.
    pub number: u64,
    /// Where it is.
    pub record: RecordId,
    /// What it counts against limits, as [`Message::size_bytes`]; below 2^31.
    pub size_bytes: u32,
    /// QoS of the delivery, 1 or 2.
    pub qos: QoS,
}

/// What a session wants from the store.
#[derive(Debug)]
pub struct Fetch {
    /// The session's slot in its shard.
    pub slot: u32,
    /// The session's identifier in the store.
    pub session: u64,
    /// Names the request.
    pub ticket: u64,
    /// What it is.
    pub wanted: Wanted,
}

/// What may be wanted from the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Messages, in the order of their numbers: number and record of each.
    Messages(Vec<(u64, RecordId)>),
    /// The spilled run that begins with this number.
    Run(u64),
}

/// The answer to a [`Fetch`].
#[derive(Debug)]
pub struct Fetched {
    /// As in the request.
    pub slot: u32,
    /// As in the request.
    pub session: u64,
    /// As in the request.
    pub ticket: u64,
    /// What was wanted.
    pub found: Found,
}

/// What the store has of what was wanted.
#[derive(Debug)]
pub enum Found {
    /// The messages in the same order; `None` where the store has no such message or cannot read it.
    Messages(Vec<(u64, Option<Outgoing>)>),
    /// The run, and its messages; none if the store does not have it, since the session has ended.
    Run(u64, Vec<StoredMessage>),
}

impl Found {
    /// The messages that were wanted; none if it was a run.
    pub fn into_messages(self) -> Vec<(u64, Option<Outgoing>)> {
        match self {
            Found::Messages(messages) => messages,
            Found::Run(..) => Vec::new(),
        }
    }
}
