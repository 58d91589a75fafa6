//! What a shard counts. Written by its own thread alone, read by whoever wants to know.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::codec::QoS;

/// Counters of one shard.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections accepted (CONNACK 0) since the start.
    pub connects: Counter,
    /// Connections now.
    pub connections: Counter,
    /// Sessions now, connected or not.
    pub sessions: Counter,
    /// Connections closed for what the client did wrong.
    pub misbehaved: Counter,
    /// Packets received of any type.
    pub packets_received: Counter,
    /// PUBLISH received by QoS.
    pub publishes_received: [Counter; 3],
    /// PUBLISH sent by QoS, repetitions included.
    pub publishes_sent: [Counter; 3],
    /// Payload bytes of PUBLISH received.
    pub publish_bytes_received: Counter,
    /// Payload bytes of PUBLISH sent.
    pub publish_bytes_sent: Counter,
    /// Bytes read from sockets.
    pub bytes_received: Counter,
    /// Bytes written to sockets.
    pub bytes_sent: Counter,
    /// PUBLISH refused with a reason code, or not acknowledged where the version has none.
    pub publishes_refused: Counter,
    /// Filters of SUBSCRIBE refused with a reason code.
    pub subscriptions_refused: Counter,
    /// PUBLISH that a rule denied.
    pub denied_publishes: Counter,
    /// Subscriptions that a rule denied.
    pub denied_subscriptions: Counter,
    /// Deliveries that a rule denied.
    pub denied_deliveries: Counter,
    /// PUBLISH refused for coming faster than a rate allows.
    pub rate_refusals: Counter,
    /// Times that a connection was not read for a while for that.
    pub rate_holds: Counter,
    /// Connections that ended before CONNECT was accepted: refused, malformed, or none in time.
    pub connects_refused: Counter,
    /// Acknowledgements with an identifier that was not in use.
    pub acks_unknown: Counter,
    /// Bytes that this shard queued for sessions, less those that it took from queues. A session's owner is
    /// not always who queues for it, so only the sum over all shards, wrapping, says anything.
    pub queued_bytes: Counter,
    /// Messages, likewise.
    pub queued_messages: Counter,
    /// Deliveries that the broker took on: a message for one session. Each ends in one of the counters below,
    /// in a drop that [`DropReason::ends_delivery`], or is still queued. Counted by who takes it on and by who
    /// ends it, so only sums over all shards say anything. What the store had at the start is taken on then.
    pub deliveries_accepted: Counter,
    /// Deliveries that were acknowledged by the client (PUBACK or PUBREC), or of QoS 0 and written.
    pub deliveries_completed: Counter,
    /// Deliveries of a shared subscription that were taken from one member and accepted for another.
    pub deliveries_handed_over: Counter,
    /// Acknowledgements held back until a queue had room.
    pub acks_withheld: Counter,
    /// PUBLISH, connections and subscriptions refused for want of room on the disk.
    pub store_refusals: Counter,
    /// Deliveries given up, by [`DropReason`].
    pub drops: [Counter; DropReason::ALL.len()],
}

/// Why a delivery was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum DropReason {
    /// QoS 0, and the connection has more unsent bytes than it may.
    OutboxFull,
    /// QoS 0, and the session has no connection.
    Offline,
    /// The queue is full, and the publisher could not be refused or need not be.
    QueueFull,
    /// The message expired before it was sent. `[MQTT-3.3.2-5]`
    Expired,
    /// The packet is larger than the client takes. `[MQTT-3.1.2-25]`
    TooLarge,
    /// The session ended before the message was delivered.
    SessionEnded,
    /// No member of the shared subscription can have it.
    NoMember,
    /// The client may not publish to the topic, and its version has no way to be told.
    NotAuthorized,
    /// There are as many retained messages as there may be, or the disk is full; it was delivered but not kept.
    RetainedFull,
    /// The store cannot give it back: its file is damaged.
    Lost,
    /// The disk is full, and the publisher could not be refused.
    StoreFull,
    /// A rule denies the subscriber the message.
    MayNotReceive,
}

impl DropReason {
    /// All reasons, in the order of their numbers.
    pub const ALL: [DropReason; 12] = [
        DropReason::OutboxFull,
        DropReason::Offline,
        DropReason::QueueFull,
        DropReason::Expired,
        DropReason::TooLarge,
        DropReason::SessionEnded,
        DropReason::NoMember,
        DropReason::NotAuthorized,
        DropReason::RetainedFull,
        DropReason::Lost,
        DropReason::StoreFull,
        DropReason::MayNotReceive,
    ];

    /// Its name in logs, metrics and `$SYS`.
    pub fn name(self) -> &'static str {
        match self {
            DropReason::OutboxFull => "outbox-full",
            DropReason::Offline => "offline",
            DropReason::QueueFull => "queue-full",
            DropReason::Expired => "expired",
            DropReason::TooLarge => "too-large",
            DropReason::SessionEnded => "session-ended",
            DropReason::NoMember => "no-member",
            DropReason::NotAuthorized => "not-authorized",
            DropReason::RetainedFull => "retained-full",
            DropReason::Lost => "lost",
            DropReason::StoreFull => "store-full",
            DropReason::MayNotReceive => "may-not-receive",
        }
    }

    /// Whether a delivery that was accepted ends so. Otherwise there was none.
    pub fn ends_delivery(self) -> bool {
        match self {
            DropReason::OutboxFull
            | DropReason::Offline
            | DropReason::QueueFull
            | DropReason::Expired
            | DropReason::TooLarge
            | DropReason::SessionEnded
            | DropReason::NoMember
            | DropReason::Lost
            | DropReason::StoreFull
            | DropReason::MayNotReceive => true,
            DropReason::NotAuthorized | DropReason::RetainedFull => false,
        }
    }
}

/// A number that one thread changes and others may read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Its value.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Adds to it. Only the owner may: it is not an atomic addition, which would cost ten times as much.
    pub fn add(&self, count: u64) {
        self.0.store(self.value().wrapping_add(count), Ordering::Relaxed);
    }

    /// Takes from it. Only the owner may.
    pub fn sub(&self, count: u64) {
        self.0.store(self.value().wrapping_sub(count), Ordering::Relaxed);
    }
}

impl Counters {
    /// Counts deliveries that are given up.
    pub fn drop(&self, reason: DropReason, count: u64) {
        self.drops[reason as usize].add(count);
    }

    /// Counts a PUBLISH received.
    pub fn received(&self, qos: QoS, payload_bytes: usize) {
        self.publishes_received[qos as usize].add(1);
        self.publish_bytes_received.add(payload_bytes as u64);
    }

    /// Counts a PUBLISH sent.
    pub fn sent(&self, qos: QoS, payload_bytes: usize) {
        self.publishes_sent[qos as usize].add(1);
        self.publish_bytes_sent.add(payload_bytes as u64);
    }
}
