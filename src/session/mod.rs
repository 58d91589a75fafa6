//! One session: all rules of MQTT that need no other session.
//!
//! A [`Session`] outlives its connections; a [`Link`] is one connection. Both are plain state: they do no
//! I/O and are told the time.

mod bounds;
mod handle;
mod inbound;
mod link;
mod outbound;
mod outbox;
mod parked;
mod seldom;
mod stored;
mod tally;
mod transient;

use std::{cell::Cell, collections::BTreeMap, num::NonZeroU32, sync::Arc};

pub use bounds::{Bounds, Told};
pub use handle::{Presence, SessionHandle};
pub use inbound::{Arrival, Inbound};
pub use link::{AliasError, Fit, Link, LinkId, LinkSettings};
pub use outbound::{
    AckError, Answer, Attempt, Body, Left, Outbound, Outgoing, Request, Shed, TakeSent, Totals,
};
pub use outbox::Outbox;
pub use parked::{Inserted, Parked, SpilledRun};
pub use seldom::Seldom;
pub use stored::{
    Fetch, Fetched, Found, RecordId, StoredMessage, StoredPresence, StoredSession, StoredSubscription,
    StoredWill, Wanted,
};
pub use transient::{Source, Transient};

use crate::{
    codec::{ReasonCode, SubscriptionOptions},
    mutation::{self, Mutation},
    time::Timestamp,
    topic::TopicFilter,
};

/// The state that the broker keeps for one client identifier.
#[derive(Debug)]
pub struct Session {
    /// What other threads know of it.
    pub handle: Arc<SessionHandle>,
    /// Its connection, or since when it has none.
    pub state: SessionState,
    /// Session Expiry Interval in seconds; 0 ends it with its connection, `u32::MAX` never.
    pub expiry_secs: u32,
    /// Its subscriptions by filter.
    pub subscriptions: BTreeMap<TopicFilter, Subscription>,
    /// QoS 1 and 2 messages for the client.
    pub outbound: Outbound,
    /// QoS 0 messages that wait for room in the outbox.
    pub transient: Transient,
    /// How many of the subscriptions are shared.
    pub shares: usize,
    /// Retained messages that new subscriptions are still to get, a filter each.
    pub replays: Seldom<Replay>,
    /// QoS 2 messages from the client.
    pub inbound: Inbound,
    /// The commit after which the last QoS 2 message from the client is delivered.
    pub deferred_until: u64,
    /// The will, until it is published or given up.
    pub will: Option<Arc<StoredWill>>,
    /// The timer of the session, if one runs: for its will or for its end, whichever comes first.
    pub timer: Option<Timestamp>,
    /// What the log was told of since the connection began, a bit for each [`Notice`].
    pub told: Cell<[u64; 2]>,
}

/// The retained messages of one new subscription, on their way.
///
/// They are read a few at a time, as there is room for them: however many there are, a session holds few.
/// What is read is the value of that moment, and what was published before is sent before, so that the last
/// value that a client gets of a topic is the newest.
#[derive(Debug)]
pub struct Replay {
    /// The filter.
    pub filter: TopicFilter,
    /// The subscription.
    pub subscription: Subscription,
    /// The topic to go on from.
    pub from: String,
    /// Whether the store knows that it is not over.
    pub is_stored: bool,
}

/// Something that the log is told of once a connection, and that is only counted from then on: a client
/// must not be able to fill the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A delivery was given up, for the reason with this number, below 32.
    Drop(usize),
    /// A PUBLISH was refused.
    PublishRefused(ReasonCode),
    /// A subscription was refused.
    SubscriptionRefused(ReasonCode),
}

/// Whether a session has a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// It has.
    Connected(LinkId),
    /// It has none since then.
    Detached(Timestamp),
}

/// One subscription of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// What was asked for; `qos` is the one granted.
    pub options: SubscriptionOptions,
    /// Its identifier, if it has one.
    pub id: Option<NonZeroU32>,
}

impl Session {
    /// A new session without connection.
    pub fn new(handle: Arc<SessionHandle>, now: Timestamp) -> Session {
        Session {
            handle,
            state: SessionState::Detached(now),
            expiry_secs: 0,
            subscriptions: BTreeMap::new(),
            outbound: Outbound::default(),
            transient: Transient::default(),
            shares: 0,
            replays: Seldom::default(),
            inbound: Inbound::default(),
            deferred_until: 0,
            will: None,
            timer: None,
            told: Cell::new([0; 2]),
        }
    }

    /// The client identifier.
    pub fn client_id(&self) -> &Arc<str> {
        &self.handle.client_id
    }

    /// True the first time on a connection that it is asked for a notice.
    pub fn is_news(&self, notice: Notice) -> bool {
        let bit = match notice {
            Notice::Drop(reason) => reason,
            Notice::PublishRefused(code) => 32 + usize::from(code as u8 % 48),
            Notice::SubscriptionRefused(code) => 80 + usize::from(code as u8 % 48),
        };
        let mut told = self.told.get();
        let word = &mut told[bit / 64];
        let is_news = *word & 1 << (bit % 64) == 0;
        *word |= 1 << (bit % 64);
        self.told.set(told);
        is_news
    }

    /// Its connection, if it has one.
    pub fn link(&self) -> Option<LinkId> {
        match self.state {
            SessionState::Connected(link) => Some(link),
            SessionState::Detached(_) => None,
        }
    }

    /// When the session ends by itself: the expiry interval after its connection. `None` while connected,
    /// and if never. `[MQTT-4.1.0-1]` `[MQTT-4.1.0-2]`
    pub fn ends_at(&self) -> Option<Timestamp> {
        match self.state {
            SessionState::Detached(_)
                if self.expiry_secs > 0 && mutation::is_on(Mutation::SessionImmortal) =>
            {
                None
            }
            SessionState::Detached(since) if self.expiry_secs != u32::MAX => {
                Some(since.plus_secs(self.expiry_secs))
            }
            SessionState::Detached(_) | SessionState::Connected(_) => None,
        }
    }

    /// When the will is due: after its delay, at the latest with the end of the session. `[MQTT-3.1.2-8]`
    pub fn will_at(&self) -> Option<Timestamp> {
        let (SessionState::Detached(since), Some(will)) = (self.state, &self.will) else { return None };
        let delayed = since.plus_secs(will.delay_secs);
        Some(self.ends_at().map_or(delayed, |end| end.min(delayed)))
    }

    /// The next moment at which something is due.
    pub fn due_at(&self) -> Option<Timestamp> {
        match (self.will_at(), self.ends_at()) {
            (Some(will), Some(end)) => Some(will.min(end)),
            (will, end) => will.or(end),
        }
    }
}
