//! Every limit of the broker by name, with its unit.

use std::{fmt, time::Duration};

use crate::topic::TopicLimits;

/// Limits of the broker. All are per broker unless their name says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time, over all listeners.
    pub connections_max: usize,
    /// Connections at a time that are not past CONNECT.
    pub handshakes_max: usize,
    /// Time from accept to a complete CONNECT.
    pub connect_timeout: Duration,
    /// Largest packet in bytes that is accepted from a client.
    pub packet_bytes_max: u32,
    /// Longest client identifier in bytes.
    pub client_id_bytes_max: usize,
    /// Longest topic name or filter in bytes.
    pub topic_bytes_max: usize,
    /// Most levels of a topic name or filter.
    pub topic_levels_max: usize,
    /// Unacknowledged QoS 1/2 PUBLISH that a client may have towards the broker.
    pub receive_maximum: u16,
    /// Unacknowledged QoS 1/2 PUBLISH towards a client that does not say what it takes (MQTT 3).
    pub inflight_messages_max: u16,
    /// Highest topic alias that is accepted from a client.
    pub topic_alias_maximum: u16,
    /// Topic aliases that the broker uses towards a client at most.
    pub topic_alias_out_maximum: u16,
    /// Longest Keep Alive in seconds; MQTT 5 clients that ask for more, or for none, are told this one.
    pub keep_alive_secs_max: u16,
    /// Longest Session Expiry Interval in seconds; `u32::MAX` means no limit.
    pub session_expiry_secs_max: u32,
    /// Sessions, connected or not.
    pub sessions_max: usize,
    /// Subscriptions of one session.
    pub session_subscriptions_max: usize,
    /// Shared subscriptions of one session: each gets a copy of its own of what it matches.
    pub session_shares_max: usize,
    /// Filters in one SUBSCRIBE or UNSUBSCRIBE.
    pub packet_filters_max: usize,
    /// Messages in the queue of one session.
    pub session_queue_messages_max: usize,
    /// Bytes in the queue of one session.
    pub session_queue_bytes_max: usize,
    /// What happens to a message that is beyond these.
    pub session_queue_overflow: Overflow,
    /// Messages in the queues of all sessions.
    pub queues_messages_max: usize,
    /// Bytes in the queues of all sessions.
    pub queues_bytes_max: usize,
    /// What happens to a message that is beyond these.
    pub queues_overflow: Overflow,
    /// Unsent bytes of one connection.
    pub outbox_bytes_max: usize,
    /// Retained messages.
    pub retained_messages_max: usize,
    /// Bytes of all retained messages.
    pub retained_bytes_max: usize,
}

/// How much of the queue of a durable session is kept in memory. What is beyond waits in the store alone, and
/// of an offline session everything does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parking {
    /// Messages that wait to be sent, of one session, in any case.
    pub messages_max: usize,
    /// Their bytes.
    pub bytes_max: usize,
    /// Sessions of one shard keep more than that as long as they keep fewer bytes than this together.
    pub spare_bytes_max: usize,
    /// Bytes of the references by which sessions of one shard know what they have in the store alone. When
    /// they are more, those from the middle of long queues go to the store too.
    pub index_bytes_max: usize,
    /// Messages whose references go there, and come back, at a time.
    pub run_messages_max: usize,
}

/// What happens to a QoS 1 or 2 message for a session when there is no room in the queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// Its publisher is refused, and nobody gets it: nothing that is acknowledged is lost. Where the session
    /// ends with its connection, that connection is closed instead if its own queue is full.
    #[default]
    Reject,
    /// It is queued, and the oldest messages of the session that were never sent are dropped.
    DropOldest,
    /// It is dropped for that session.
    DropNewest,
    /// It is queued, and its publisher gets its acknowledgement when there is room again.
    Backpressure,
}

/// What a listener promises with its acknowledgements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// What is acknowledged is on disk.
    #[default]
    Commit,
    /// It is on disk within this time: a crash of the machine may take what was acknowledged since.
    Interval(Duration),
    /// It is on disk some time.
    None,
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Durability::Commit => f.write_str("commit"),
            Durability::Interval(window) => write!(f, "interval {} ms", window.as_millis()),
            Durability::None => f.write_str("none"),
        }
    }
}

impl Limits {
    /// Those of topic names and filters.
    pub fn topics(&self) -> TopicLimits {
        TopicLimits { bytes_max: self.topic_bytes_max, levels_max: self.topic_levels_max }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections_max: 100_000,
            handshakes_max: 1024,
            connect_timeout: Duration::from_secs(10),
            packet_bytes_max: 16 * MIB as u32,
            client_id_bytes_max: 65_535,
            topic_bytes_max: 65_535,
            topic_levels_max: 200,
            receive_maximum: 1024,
            inflight_messages_max: 1024,
            topic_alias_maximum: 10,
            topic_alias_out_maximum: 16,
            keep_alive_secs_max: 65_535,
            session_expiry_secs_max: u32::MAX,
            sessions_max: 1_000_000,
            session_subscriptions_max: 100_000,
            session_shares_max: 1024,
            packet_filters_max: 10_000,
            session_queue_messages_max: 1_000_000,
            session_queue_bytes_max: 256 * MIB,
            session_queue_overflow: Overflow::Reject,
            queues_messages_max: 10_000_000,
            queues_bytes_max: 1024 * MIB,
            queues_overflow: Overflow::Reject,
            outbox_bytes_max: 4 * MIB,
            retained_messages_max: 1_000_000,
            retained_bytes_max: 1024 * MIB,
        }
    }
}

impl Default for Parking {
    fn default() -> Self {
        Parking {
            messages_max: 512,
            bytes_max: MIB,
            spare_bytes_max: 32 * MIB,
            index_bytes_max: 64 * MIB,
            run_messages_max: 1024,
        }
    }
}

const MIB: usize = 1024 * 1024;
