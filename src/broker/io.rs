//! What goes into a shard and what comes out of it, other than bytes.

use std::{fmt, sync::Arc};

use crate::{
    acl::{Action, Principal, RuleId},
    allowance::Allowance,
    codec::{Connect, DecodeError, ReasonCode},
    limits::Durability,
    message::Message,
    session::{Fetch, LinkId, RecordId},
};

use super::{DropReason, Sample, Step, router::Target};

/// A CONNECT that has been authenticated.
#[derive(Debug)]
pub struct Admission<'a> {
    /// The packet.
    pub connect: &'a Connect<'a>,
    /// The identifier that the broker chose, if the client sent none. `[MQTT-3.1.3-6]`
    pub assigned_client_id: Option<&'a str>,
    /// Who the client is taken to be.
    pub principal: Principal,
    /// Where it connects from, for logs.
    pub peer: Arc<str>,
    /// Whether the client is in this process: it cannot vanish without its connection being closed, so it
    /// needs no Keep Alive.
    pub is_local: bool,
    /// What the listener promises.
    pub durability: Durability,
    /// What may pass on the connection, and on others of its user or address.
    pub allowances: Vec<Arc<Allowance>>,
    /// Last data of an enhanced authentication, sent in CONNACK.
    pub authentication_data: Option<&'a [u8]>,
}

/// A message on its way to sessions of another shard.
#[derive(Debug)]
pub struct Forward {
    /// The message.
    pub message: Arc<Message>,
    /// Who gets it.
    pub targets: Arc<[Target]>,
    /// The number reserved for each target, in their order; meaningless where the delivery is of QoS 0.
    pub numbers: Vec<u64>,
    /// The record of the message in the store, if it is there for durable targets.
    pub record: Option<RecordId>,
}

impl Forward {
    /// What it weighs in bytes while it is on its way.
    pub fn weight(&self) -> usize {
        self.message.size_bytes()
            + self.targets.len() * size_of::<Target>()
            + self.numbers.len() * size_of::<u64>()
    }
}

/// What a shard wants done. The caller keeps it from call to call and takes out what it has seen to.
#[derive(Debug, Default)]
pub struct Outputs {
    /// Connections whose outbox has something new, or that are to be closed. May name one twice.
    pub touched: Vec<LinkId>,
    /// Messages for other shards, in order.
    pub forwards: Vec<(u16, Forward)>,
    /// What they weigh in bytes; the caller sets it back when it takes them.
    pub forwarded: usize,
    /// Messages that sessions want from the store.
    pub fetches: Vec<Fetch>,
    /// What happened, for the log.
    pub events: Vec<Event>,
    /// Tickets of messages that are committed.
    pub kept: Vec<u64>,
    /// What became of messages that are followed.
    pub steps: Vec<Step>,
    /// Moments of messages whose times are taken.
    pub samples: Vec<Sample>,
}

impl Outputs {
    /// Whether something was told of single messages.
    pub fn tells_of_messages(&self) -> bool {
        !self.samples.is_empty() || !self.steps.is_empty() || !self.kept.is_empty()
    }
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Cause {
    /// DISCONNECT from the client with this reason.
    Disconnect(ReasonCode),
    /// The client closed the connection without DISCONNECT.
    Eof,
    /// The socket failed.
    Io(String),
    /// Silence for 1.5 times Keep Alive. `[MQTT-3.1.2-22]`
    KeepAlive,
    /// The same client identifier connected again. `[MQTT-3.1.4-3]`
    TakenOver {
        /// Where the new connection comes from.
        by: Arc<str>,
    },
    /// The client's bytes are not a packet.
    Malformed(DecodeError),
    /// The client did what the protocol forbids.
    Misbehaved(Misbehaviour),
    /// The client reads more slowly than its queue grows.
    TooSlow,
    /// The broker stops.
    Stopping,
    /// Re-authentication failed. `[MQTT-4.12.1-2]`
    AuthenticationFailed(ReasonCode),
    /// The proof of who the client is has ended: a token has expired.
    ProofEnded,
    /// Somebody who may has ended the connection.
    Kicked {
        /// Why, in words for the log.
        why: Arc<str>,
    },
}

/// What a client did that the protocol forbids, or that a limit forbids and no packet can answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Misbehaviour {
    /// The reason code for DISCONNECT.
    pub code: ReasonCode,
    /// What it did.
    pub what: String,
}

/// Something worth a line in the log.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A client is connected.
    Connected {
        /// The client.
        client_id: Arc<str>,
        /// Its user name, if it has one.
        user: Option<Arc<str>>,
        /// Where from.
        peer: Arc<str>,
        /// Whether it went on with a stored session.
        session_present: bool,
        /// Keep Alive as agreed, in seconds.
        keep_alive_secs: u16,
        /// Session Expiry Interval as agreed, in seconds.
        expiry_secs: u32,
    },
    /// A connection is over.
    Disconnected {
        /// The client.
        client_id: Arc<str>,
        /// Where from.
        peer: Arc<str>,
        /// Why.
        cause: Cause,
    },
    /// A session ended.
    SessionEnded {
        /// The client.
        client_id: Arc<str>,
        /// QoS 1 and 2 messages that ended with it.
        undelivered: usize,
    },
    /// The first PUBLISH of a connection that was refused with this code; further ones are counted.
    PublishRefused {
        /// The publisher.
        client_id: Arc<str>,
        /// Where to.
        topic: Arc<str>,
        /// Why.
        code: ReasonCode,
        /// Why, in words.
        why: &'static str,
    },
    /// The first time on a connection that a rule refused such an action; further ones are counted.
    Denied {
        /// The client.
        client_id: Arc<str>,
        /// Its user name, if it has one.
        user: Option<Arc<str>>,
        /// What it wanted.
        action: Action,
        /// To or from where: a topic name, or a filter.
        topic: Box<str>,
        /// The rule that denied it.
        rule: RuleId,
    },
    /// The first subscription of a connection that was refused with this code; further ones are counted.
    SubscriptionRefused {
        /// The subscriber.
        client_id: Arc<str>,
        /// To what.
        filter: String,
        /// Why.
        code: ReasonCode,
    },
    /// The first delivery of a connection that was given up for this reason; further ones are counted.
    Dropped {
        /// Who did not get it.
        client_id: Arc<str>,
        /// The topic.
        topic: Arc<str>,
        /// Why.
        reason: DropReason,
    },
    /// The store does not have what it was given of a queue. The messages themselves are there, and are found
    /// when the broker starts again; until then the session is sent nothing that was queued behind.
    QueueUnreadable {
        /// Whose queue.
        client_id: Arc<str>,
        /// Messages that cannot be found.
        messages: usize,
    },
}

impl Cause {
    /// The reason code of the DISCONNECT that a v5 client gets; `None` if it gets none.
    pub fn disconnect_code(&self) -> Option<ReasonCode> {
        match self {
            Cause::Disconnect(_) | Cause::Eof | Cause::Io(_) => None,
            Cause::KeepAlive => Some(ReasonCode::KeepAliveTimeout),
            Cause::TakenOver { .. } => Some(ReasonCode::SessionTakenOver),
            Cause::Malformed(error) => Some(error.reason_code()),
            Cause::Misbehaved(misbehaviour) => Some(misbehaviour.code),
            Cause::TooSlow => Some(ReasonCode::QuotaExceeded),
            Cause::Stopping => Some(ReasonCode::ServerShuttingDown),
            Cause::AuthenticationFailed(code) => Some(*code),
            // The time that was authorized is over.
            Cause::ProofEnded => Some(ReasonCode::MaximumConnectTime),
            Cause::Kicked { .. } => Some(ReasonCode::AdministrativeAction),
        }
    }

    /// What the client is told: the log says more of others.
    pub fn told(&self) -> String {
        match self {
            Cause::TakenOver { .. } => "session taken over by a new connection".into(),
            Cause::Kicked { .. } => "disconnected by an administrator".into(),
            other => other.to_string(),
        }
    }

    /// Whether the client is at fault.
    pub fn is_misbehaviour(&self) -> bool {
        matches!(self, Cause::Malformed(_) | Cause::Misbehaved(_))
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Disconnect(ReasonCode::Success) => write!(f, "client disconnected"),
            Cause::Disconnect(code) => write!(f, "client disconnected: {code}"),
            Cause::Eof => write!(f, "connection closed by the client without DISCONNECT"),
            Cause::Io(error) => write!(f, "connection failed: {error}"),
            Cause::KeepAlive => write!(f, "nothing heard for 1.5 times the keep alive"),
            Cause::TakenOver { by } => write!(f, "session taken over by a new connection from {by}"),
            Cause::Malformed(error) => write!(f, "malformed packet: {error}"),
            Cause::Misbehaved(misbehaviour) => write!(f, "protocol error: {}", misbehaviour.what),
            Cause::TooSlow => write!(f, "client reads too slowly: its queue is full"),
            Cause::Stopping => write!(f, "the broker stops"),
            Cause::AuthenticationFailed(code) => write!(f, "re-authentication failed: {code}"),
            Cause::ProofEnded => write!(f, "the proof of who the client is has expired"),
            Cause::Kicked { why } => write!(f, "disconnected by an administrator: {why}"),
        }
    }
}
