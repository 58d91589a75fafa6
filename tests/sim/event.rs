//! What happens in a run, as checks hear of it.

use dunlin::codec::QoS;

use super::facts::Interest;

/// One thing that happened. Clients, connections and messages are named by their numbers.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// A client sends CONNECT.
    Connecting { client: usize, wire: usize, clean: bool },
    /// The broker has taken a CONNECT.
    Opened {
        client: usize,
        wire: usize,
        clean: bool,
        /// Whether the broker had a session of the client.
        present: bool,
        expiry_secs: u32,
        will: Option<Will>,
    },
    /// A client has received CONNACK.
    Connected { client: usize, wire: usize, present: bool },
    /// The broker has given a connection up, or has noticed that it is gone.
    Closed {
        client: usize,
        wire: usize,
        /// It has heard a DISCONNECT that revokes the will.
        is_revoked: bool,
    },
    /// A client has given a connection up, or has noticed that it is gone.
    Lost { client: usize, wire: usize },
    /// PUBLISH has left a client, for the first time or again.
    Sent { message: usize, is_again: bool },
    /// A publisher was told that its message is accepted.
    Accepted { message: usize },
    /// A publisher was told that its message is not.
    Refused { message: usize },
    /// SUBSCRIBE has left a client.
    Subscribing { client: usize, interest: Interest },
    /// A client was told what has become of that.
    Subscribed { client: usize, filter: String, is_granted: bool },
    /// UNSUBSCRIBE has left a client.
    Unsubscribing { client: usize, filter: String },
    /// A client was told that it is done.
    Unsubscribed { client: usize, filter: String },
    /// A client has received PUBLISH.
    Delivered(Delivered),
    /// A client has sent the last acknowledgement of a PUBLISH: its packet identifier is free.
    Freed { client: usize, wire: usize, id: u16 },
    /// The broker ended without notice.
    Crashed {
        /// The moment, in milliseconds, from which on nothing is certain to be on disk.
        unsure_since: u64,
    },
    /// The broker has started again.
    Started,
}

/// The will of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Will {
    pub(crate) message: usize,
    pub(crate) delay_secs: u32,
}

/// A PUBLISH as its client received it, its topic alias resolved.
#[derive(Clone, Debug)]
pub(crate) struct Delivered {
    pub(crate) client: usize,
    pub(crate) wire: usize,
    /// The message that its payload names.
    pub(crate) message: Option<usize>,
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) qos: QoS,
    pub(crate) id: Option<u16>,
    pub(crate) dup: bool,
    pub(crate) retain: bool,
    pub(crate) subscription_ids: Vec<u32>,
    pub(crate) expiry_secs: Option<u32>,
    /// The client has received it before, by its packet identifier, and drops it. `[MQTT-4.3.3-10]`
    pub(crate) is_repetition: bool,
}
