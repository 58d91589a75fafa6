//! The sender's half of QoS 1 and 2: what waits for a client, what is under way to it.

use std::{collections::VecDeque, num::NonZeroU32, sync::Arc};

use crate::{
    codec::{PacketId, QoS},
    message::Message,
};

/// One message for one client.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The message.
    pub message: Arc<Message>,
    /// The lower of the QoS published and granted. `[MQTT-3.8.4-8]`
    pub qos: QoS,
    /// RETAIN as the client will see it.
    pub retain: bool,
    /// Identifiers of the matching subscriptions that have one. `[MQTT-3.3.4-4]`
    pub subscription_ids: Option<Arc<[NonZeroU32]>>,
    /// The whole text of the shared filter through which it came, if so: if the client leaves, another
    /// member gets the message.
    pub share: Option<Arc<str>>,
}

/// QoS 1 and 2 messages of one session towards its client.
///
/// Every message has a number, ascending in the order in which the broker accepted them, and the number
/// alone determines its packet identifier, so that the two need no record of their own. Messages wait in
/// `queue`; `window` has the state of every number from `base` on, without gaps, up to the last one sent.
///
/// ```text
///   queue ──send──▶ AwaitPubAck ──PUBACK──▶ Settled
///     ▲        └──▶ AwaitPubRec ──PUBREC──▶ AwaitPubComp ──PUBCOMP──▶ Settled
///     └──resume── (both)  └──PUBREC ≥ 0x80──▶ Settled
/// ```
#[derive(Debug, Default)]
pub struct Outbound {
    queue: VecDeque<Queued>,
    window: VecDeque<Sending>,
    /// The number of the first entry of `window`.
    base: u64,
    /// Messages sent on this connection, or released, and not settled: the use of the client's Receive Maximum.
    inflight: usize,
}

/// A message that waits to be sent.
#[derive(Debug)]
struct Queued {
    number: u64,
    attempt: Attempt,
    outgoing: Outgoing,
}

/// Whether a message was sent before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// Never: DUP is 0. `[MQTT-4.3.2-2]` `[MQTT-4.3.3-2]`
    First,
    /// On an earlier connection: DUP is 1, and it does not expire any more. `[MQTT-3.3.1-1]` `[MQTT-4.3.3-7]`
    Again,
}

/// The state of one number in the window.
#[derive(Debug)]
enum Sending {
    /// Its message is not here: it waits in the queue, or has not reached the session yet.
    Reserved,
    /// QoS 1, sent.
    AwaitPubAck(Outgoing),
    /// QoS 2, sent.
    AwaitPubRec(Outgoing),
    /// QoS 2, received by the client, PUBREL sent.
    AwaitPubComp,
    /// Done with; the identifier is free.
    Settled,
}

/// Why an acknowledgement does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckError {
    /// The identifier is not in use.
    Unknown,
    /// The identifier is in use by a message that awaits another packet.
    WrongPacket,
}

/// Whether messages that were sent are taken back too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakeSent {
    /// They are: the session, or its subscription, ends.
    Yes,
    /// They are not: the client may come back for them.
    No,
}

/// Distinct packet identifiers.
const PACKET_IDS: u64 = 65_535;

/// The capacity of an empty window or queue that is kept rather than given back, in entries.
const CAPACITY_KEPT: usize = 64;

impl Outbound {
    /// Takes a message of QoS 1 or 2 under a number of [`super::SessionHandle::reserve`]. Numbers may
    /// arrive out of order where several shards publish.
    pub fn enqueue(&mut self, number: u64, outgoing: Outgoing) {
        debug_assert!(number >= self.base, "number {number} is before the window at {}", self.base);
        let queued = Queued { number, attempt: Attempt::First, outgoing };
        match self.queue.back() {
            Some(last) if last.number > number => {
                let at = self.queue.partition_point(|queued| queued.number < number);
                self.queue.insert(at, queued);
            }
            Some(_) | None => self.queue.push_back(queued),
        }
    }

    /// Gives a number back whose message will not come.
    pub fn cancel(&mut self, number: u64) {
        self.set(number, Sending::Settled);
        self.advance();
    }

    /// The next message to send, if the client's Receive Maximum leaves room for one. `[MQTT-3.3.4-9]`
    pub fn head(&self, receive_maximum: u16) -> Option<(&Outgoing, Attempt)> {
        if self.inflight >= usize::from(receive_maximum) {
            return None;
        }
        let head = self.queue.front()?;
        // An identifier is not used again before its last use is settled. [MQTT-2.2.1-4]
        (head.number - self.base < PACKET_IDS).then_some((&head.outgoing, head.attempt))
    }

    /// Moves the head of the queue into the window: it is being sent. Returns it with its packet identifier.
    pub fn send(&mut self) -> Option<(PacketId, &Outgoing)> {
        let Queued { number, outgoing, .. } = self.queue.pop_front()?;
        let sending = match outgoing.qos {
            QoS::AtMostOnce | QoS::AtLeastOnce => Sending::AwaitPubAck(outgoing),
            QoS::ExactlyOnce => Sending::AwaitPubRec(outgoing),
        };
        self.inflight += 1;
        match self.set(number, sending) {
            Sending::AwaitPubAck(outgoing) | Sending::AwaitPubRec(outgoing) => {
                Some((packet_id(number), outgoing))
            }
            Sending::Reserved | Sending::AwaitPubComp | Sending::Settled => None,
        }
    }

    /// Takes the head of the queue out, unsent. Returns it with its number.
    pub fn discard(&mut self) -> Option<(u64, Outgoing)> {
        let Queued { number, outgoing, .. } = self.queue.pop_front()?;
        self.set(number, Sending::Settled);
        self.advance();
        Some((number, outgoing))
    }

    /// PUBACK. Returns the number and the message that are settled by it.
    pub fn on_pub_ack(&mut self, id: PacketId) -> Result<(u64, Outgoing), AckError> {
        let number = self.number(id)?;
        match self.replace(number, Sending::Settled) {
            Sending::AwaitPubAck(outgoing) => {
                self.settled();
                Ok((number, outgoing))
            }
            other => Err(self.restore(number, other)),
        }
    }

    /// PUBREC below 0x80: the client owns the message. Returns it the first time, `None` when the client
    /// repeats its PUBREC; PUBREL is due either way. `[MQTT-4.3.3-4]`
    pub fn on_pub_rec(&mut self, id: PacketId) -> Result<(u64, Option<Outgoing>), AckError> {
        let number = self.number(id)?;
        match self.replace(number, Sending::AwaitPubComp) {
            Sending::AwaitPubRec(outgoing) => Ok((number, Some(outgoing))),
            Sending::AwaitPubComp => Ok((number, None)),
            other => Err(self.restore(number, other)),
        }
    }

    /// PUBREC of 0x80 or more: the message is settled. `[MQTT-4.4.0-2]`
    pub fn on_pub_rec_refused(&mut self, id: PacketId) -> Result<(u64, Outgoing), AckError> {
        let number = self.number(id)?;
        match self.replace(number, Sending::Settled) {
            Sending::AwaitPubRec(outgoing) => {
                self.settled();
                Ok((number, outgoing))
            }
            other => Err(self.restore(number, other)),
        }
    }

    /// PUBCOMP. Returns the number that is settled by it.
    pub fn on_pub_comp(&mut self, id: PacketId) -> Result<u64, AckError> {
        let number = self.number(id)?;
        match self.replace(number, Sending::Settled) {
            Sending::AwaitPubComp => {
                self.settled();
                Ok(number)
            }
            other => Err(self.restore(number, other)),
        }
    }

    /// A new connection: every PUBLISH that was sent and not acknowledged goes back to the queue, in its
    /// first order and with its identifier. Returns the identifiers whose PUBREL is due again.
    /// `[MQTT-4.4.0-1]` `[MQTT-4.6.0-1]`
    pub fn resume(&mut self) -> Vec<PacketId> {
        let mut releases = Vec::new();
        let mut again = VecDeque::new();
        for (number, sending) in (self.base..).zip(&mut self.window) {
            match std::mem::replace(sending, Sending::Reserved) {
                Sending::AwaitPubAck(outgoing) | Sending::AwaitPubRec(outgoing) => {
                    again.push_back(Queued { number, attempt: Attempt::Again, outgoing });
                }
                Sending::AwaitPubComp => {
                    releases.push(packet_id(number));
                    *sending = Sending::AwaitPubComp;
                }
                other @ (Sending::Reserved | Sending::Settled) => *sending = other,
            }
        }
        if !again.is_empty() {
            again.append(&mut self.queue);
            again.make_contiguous().sort_by_key(|queued| queued.number);
            self.queue = again;
        }
        self.inflight = releases.len();
        releases
    }

    /// Messages sent and not settled.
    pub fn inflight(&self) -> usize {
        self.inflight
    }

    /// Messages that were sent, and wait for their PUBACK or PUBREC.
    pub fn unacknowledged(&self) -> usize {
        let is_sent =
            |sending: &&Sending| matches!(sending, Sending::AwaitPubAck(_) | Sending::AwaitPubRec(_));
        self.window.iter().filter(is_sent).count()
    }

    /// Messages that the client owns, and whose PUBCOMP is not here yet.
    pub fn unreleased(&self) -> usize {
        self.window.iter().filter(|sending| matches!(sending, Sending::AwaitPubComp)).count()
    }

    /// Messages that wait to be sent.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Takes out every message that came through a shared subscription (all, or the one with this filter)
    /// and that another member may have: those not sent and, if `sent` says so, those of QoS 1 that were
    /// sent and not acknowledged. A QoS 2 message that was sent stays. `[MQTT-4.8.2-4]` `[MQTT-4.8.2-5]`
    pub fn take_shared(&mut self, sent: TakeSent, filter: Option<&str>) -> Vec<(u64, Outgoing)> {
        let is_wanted = |outgoing: &Outgoing| match (&outgoing.share, filter) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(share), Some(filter)) => **share == *filter,
        };
        let mut taken = Vec::new();
        if sent == TakeSent::Yes {
            for (number, sending) in (self.base..).zip(&mut self.window) {
                match std::mem::replace(sending, Sending::Settled) {
                    Sending::AwaitPubAck(outgoing) if is_wanted(&outgoing) => {
                        self.inflight -= 1;
                        taken.push((number, outgoing));
                    }
                    other => *sending = other,
                }
            }
        }
        for queued in std::mem::take(&mut self.queue) {
            let is_free = match (queued.attempt, queued.outgoing.qos) {
                (Attempt::First, _) => true,
                (Attempt::Again, QoS::ExactlyOnce) => false,
                (Attempt::Again, QoS::AtMostOnce | QoS::AtLeastOnce) => sent == TakeSent::Yes,
            };
            if is_free && is_wanted(&queued.outgoing) {
                self.set(queued.number, Sending::Settled);
                taken.push((queued.number, queued.outgoing));
            } else {
                self.queue.push_back(queued);
            }
        }
        self.advance();
        taken
    }

    /// Takes out everything that the client does not own: the session ends.
    pub fn take_all(&mut self) -> Vec<Outgoing> {
        let Outbound { queue, window, .. } = std::mem::take(self);
        let sent = window.into_iter().filter_map(|sending| match sending {
            Sending::AwaitPubAck(outgoing) | Sending::AwaitPubRec(outgoing) => Some(outgoing),
            Sending::Reserved | Sending::AwaitPubComp | Sending::Settled => None,
        });
        sent.chain(queue.into_iter().map(|queued| queued.outgoing)).collect()
    }

    /// Puts a state at a number, widening the window to it.
    fn set(&mut self, number: u64, sending: Sending) -> &Sending {
        let slot = (number - self.base) as usize;
        while self.window.len() <= slot {
            self.window.push_back(Sending::Reserved);
        }
        self.window[slot] = sending;
        &self.window[slot]
    }

    /// Takes the state at a number out for another. A message that waits to be sent again counts as sent:
    /// the client may acknowledge what it got on its last connection.
    fn replace(&mut self, number: u64, sending: Sending) -> Sending {
        let slot = (number - self.base) as usize;
        let before = std::mem::replace(&mut self.window[slot], sending);
        if !matches!(before, Sending::Reserved) {
            return before;
        }
        let found = self.queue.binary_search_by_key(&number, |queued| queued.number).ok();
        match found.and_then(|at| self.queue.get(at).map(|queued| (at, queued.attempt))) {
            Some((at, Attempt::Again)) => {
                let Some(queued) = self.queue.remove(at) else { return before };
                self.inflight += 1;
                match queued.outgoing.qos {
                    QoS::AtMostOnce | QoS::AtLeastOnce => Sending::AwaitPubAck(queued.outgoing),
                    QoS::ExactlyOnce => Sending::AwaitPubRec(queued.outgoing),
                }
            }
            Some((_, Attempt::First)) | None => before,
        }
    }

    fn number(&self, id: PacketId) -> Result<u64, AckError> {
        let offset = (u64::from(id.get()) - 1 + PACKET_IDS - self.base % PACKET_IDS) % PACKET_IDS;
        if (offset as usize) < self.window.len() { Ok(self.base + offset) } else { Err(AckError::Unknown) }
    }

    fn settled(&mut self) {
        self.inflight -= 1;
        self.advance();
    }

    /// Puts back what an acknowledgement found and tells why it does not fit.
    fn restore(&mut self, number: u64, sending: Sending) -> AckError {
        let error = match sending {
            Sending::Reserved | Sending::Settled => AckError::Unknown,
            Sending::AwaitPubAck(_) | Sending::AwaitPubRec(_) | Sending::AwaitPubComp => {
                AckError::WrongPacket
            }
        };
        self.set(number, sending);
        error
    }

    fn advance(&mut self) {
        while matches!(self.window.front(), Some(Sending::Settled)) {
            self.window.pop_front();
            self.base += 1;
        }
        if self.window.is_empty() && self.window.capacity() > CAPACITY_KEPT {
            self.window = VecDeque::new();
        }
        if self.queue.is_empty() && self.queue.capacity() > CAPACITY_KEPT {
            self.queue = VecDeque::new();
        }
    }
}

/// The packet identifier of a number. `[MQTT-2.2.1-4]`
fn packet_id(number: u64) -> PacketId {
    PacketId::MIN.saturating_add((number % PACKET_IDS) as u16)
}
