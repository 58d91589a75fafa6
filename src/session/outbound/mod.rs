//! The sender's half of QoS 1 and 2: what waits for a client, what is under way to it.

mod parking;
mod settled;
#[cfg(test)]
mod tests;

use std::{collections::VecDeque, num::NonZeroU32, sync::Arc};

use crate::{
    codec::{PacketId, QoS},
    message::Message,
    mutation::{self, Mutation},
};

use super::{
    RecordId, StoredMessage,
    parked::{Parked, SpilledRun},
    seldom::Seldom,
    tally::Tally,
};

use parking::Fetching;
pub use parking::{Answer, Request, Shed, Totals};
use settled::SettledAhead;

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
    /// Its record in the store, if it is there.
    pub record: Option<RecordId>,
}

/// A message of a session, wherever it is.
#[derive(Debug)]
pub enum Body {
    /// In memory.
    Here(Outgoing),
    /// In the store alone.
    Stored(StoredMessage),
}

/// QoS 1 and 2 messages of one session towards its client.
///
/// Every message has a number, ascending in the order in which the broker accepted them, and the number
/// alone determines its packet identifier, so that the two need no record of their own. Messages wait in
/// `queue` in the order of their numbers, those of an earlier connection in `again` in the order in which
/// they were sent; `window` has the state of every number from `base` on, without gaps, up to the last one
/// sent. The two orders differ where a message waited for the store and a later one did not.
///
/// A queue that is longer than what is kept in memory goes on in `parked`: see `parking`.
///
/// ```text
///   queue ──send──▶ AwaitPubAck ──PUBACK──▶ Settled
///     ▲        └──▶ AwaitPubRec ──PUBREC──▶ AwaitPubComp ──PUBCOMP──▶ Settled
///     └──resume── (both)  └──PUBREC ≥ 0x80──▶ Settled
/// ```
#[derive(Debug, Default)]
pub struct Outbound {
    again: Seldom<Again>,
    queue: VecDeque<Queued>,
    /// Bytes of the messages in `queue`.
    loaded: Tally,
    parked: Parked,
    /// Whether a run of them may have come to the middle.
    may_spill: bool,
    fetching: Option<Box<Fetching>>,
    /// Messages that are to be dropped, and are read from the store before.
    shedding: Seldom<StoredMessage>,
    shedding_bytes: usize,
    /// Counts requests to the store, so that a late answer is known for one.
    ticket: u64,
    window: VecDeque<Sending>,
    /// The number of the first entry of `window`.
    base: u64,
    /// Numbers below may have been sent before a crash: acknowledgements and drops are stored late, so that what
    /// is settled counts as waiting, and what was sent may stand behind it.
    perhaps_sent_below: u64,
    /// Numbers behind the window that are settled.
    settled_ahead: SettledAhead,
    /// Messages sent on this connection, or released, and not settled: the use of the client's Receive Maximum.
    inflight: usize,
    /// Counts PUBLISH sent and PUBREC received, for the order in which a new connection repeats them.
    step: u64,
}

/// A message that was sent and is to be sent again.
#[derive(Debug)]
struct Again {
    number: u64,
    body: Body,
}

/// A message that was never sent.
#[derive(Debug)]
struct Queued {
    number: u64,
    outgoing: Outgoing,
}

/// Whether a message was sent before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// Never: DUP is 0. `[MQTT-4.3.2-2]` `[MQTT-4.3.3-2]`
    First,
    /// Nobody knows, for the broker has ended without telling: DUP is 1, and it still expires. `[MQTT-3.3.1-1]`
    Perhaps,
    /// On an earlier connection: DUP is 1, and it does not expire any more. `[MQTT-3.3.1-1]` `[MQTT-4.3.3-7]`
    Again,
}

/// What a session leaves behind that ends.
#[derive(Debug)]
pub struct Left {
    /// Messages.
    pub bodies: Vec<Body>,
    /// More of them, whose references are in the store.
    pub spilled: Vec<SpilledRun>,
}

/// The state of one number in the window.
#[derive(Debug)]
enum Sending {
    /// Its message is not here: it waits in the queue, or has not reached the session yet.
    Reserved,
    /// QoS 1, sent.
    AwaitPubAck { step: u64, body: Body },
    /// QoS 2, sent.
    AwaitPubRec { step: u64, body: Body },
    /// QoS 2, received by the client, PUBREL sent.
    AwaitPubComp { step: u64 },
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
    /// They are not, and of the others so many are at most.
    UpTo(usize),
}

/// Distinct packet identifiers.
const PACKET_IDS: u64 = 65_535;

/// The capacity of an empty window or queue that is kept rather than given back, in entries.
const CAPACITY_KEPT: usize = 64;

impl Body {
    /// Its record in the store, if it is there.
    pub fn record(&self) -> Option<RecordId> {
        match self {
            Body::Here(outgoing) => outgoing.record,
            Body::Stored(stored) => Some(stored.record),
        }
    }

    /// Whether it is followed, as far as can be told without the store.
    pub fn may_be_followed(&self) -> bool {
        match self {
            Body::Here(outgoing) => outgoing.message.mark().is_some_and(|mark| !mark.is_sample()),
            Body::Stored(_) => true,
        }
    }

    /// What it counts against limits in bytes.
    pub fn size_bytes(&self) -> usize {
        match self {
            Body::Here(outgoing) => outgoing.message.size_bytes(),
            Body::Stored(stored) => stored.size_bytes as usize,
        }
    }

    /// QoS of the delivery.
    pub fn qos(&self) -> QoS {
        match self {
            Body::Here(outgoing) => outgoing.qos,
            Body::Stored(stored) => stored.qos,
        }
    }
}

impl Outbound {
    /// Takes a message of QoS 1 or 2 under a number of [`super::SessionHandle::reserve`]. Numbers may
    /// arrive out of order where several shards publish.
    pub fn enqueue(&mut self, number: u64, outgoing: Outgoing) {
        debug_assert!(number >= self.base, "number {number} is before the window at {}", self.base);
        self.loaded.add(outgoing.message.size_bytes());
        let queued = Queued { number, outgoing };
        match self.queue.back() {
            Some(last) if last.number > number => {
                let at = self.queue.partition_point(|queued| queued.number < number);
                self.queue.insert(at, queued);
            }
            Some(_) if mutation::is_on(Mutation::OrderSwapped) => self.queue.push_front(queued),
            Some(_) | None => self.queue.push_back(queued),
        }
    }

    /// The next message to send, if the client's Receive Maximum leaves room for one. `[MQTT-3.3.4-9]`
    pub fn head(&self, receive_maximum: u16) -> Option<(&Outgoing, Attempt)> {
        let window = usize::from(receive_maximum) + usize::from(mutation::is_on(Mutation::WindowTooLarge));
        if self.inflight >= window {
            return None;
        }
        match self.again.front() {
            Some(Again { body: Body::Here(outgoing), .. }) => return Some((outgoing, Attempt::Again)),
            Some(Again { body: Body::Stored(_), .. }) => return None,
            None => {}
        }
        let head = self.queue.front()?;
        let is_next = self.first_stored().is_none_or(|first| head.number < first);
        // An identifier is not used again before its last use is settled. [MQTT-2.2.1-4]
        let has_id = head.number - self.base < PACKET_IDS;
        let attempt = if head.number < self.perhaps_sent_below { Attempt::Perhaps } else { Attempt::First };
        (is_next && has_id).then_some((&head.outgoing, attempt))
    }

    /// Moves what [`Outbound::head`] tells of into the window: it is being sent. Returns it with its packet
    /// identifier.
    pub fn send(&mut self) -> Option<(PacketId, &Outgoing)> {
        let (number, outgoing) = match self.again.pop_front() {
            Some(Again { number, body: Body::Here(outgoing) }) => (number, outgoing),
            Some(stored) => {
                self.again.push_front(stored);
                return None;
            }
            None => self.pop_queue()?,
        };
        let sending = self.sent(Body::Here(outgoing));
        self.inflight += 1;
        match self.set(number, sending) {
            Sending::AwaitPubAck { body: Body::Here(outgoing), .. }
            | Sending::AwaitPubRec { body: Body::Here(outgoing), .. } => Some((packet_id(number), outgoing)),
            Sending::AwaitPubAck { .. }
            | Sending::AwaitPubRec { .. }
            | Sending::Reserved
            | Sending::AwaitPubComp { .. }
            | Sending::Settled => None,
        }
    }

    /// Takes the head out that was never sent. Returns it with its number.
    pub fn discard(&mut self) -> Option<(u64, Outgoing)> {
        let (number, outgoing) = self.pop_queue()?;
        self.settle(number);
        Some((number, outgoing))
    }

    /// PUBACK. Returns the number and the message that are settled by it.
    pub fn on_pub_ack(&mut self, id: PacketId) -> Result<(u64, Body), AckError> {
        let number = self.number(id)?;
        match self.replace(number, Sending::Settled) {
            Sending::AwaitPubAck { body, .. } => {
                self.settled();
                Ok((number, body))
            }
            other => Err(self.put_back(number, other)),
        }
    }

    /// PUBREC below 0x80: the client owns the message. Returns it the first time, `None` when the client
    /// repeats its PUBREC; PUBREL is due either way. `[MQTT-4.3.3-4]`
    pub fn on_pub_rec(&mut self, id: PacketId) -> Result<(u64, Option<Body>), AckError> {
        let number = self.number(id)?;
        let step = self.next_step();
        match self.replace(number, Sending::AwaitPubComp { step }) {
            Sending::AwaitPubRec { body, .. } => Ok((number, Some(body))),
            before @ Sending::AwaitPubComp { .. } => {
                self.set(number, before);
                Ok((number, None))
            }
            other => Err(self.put_back(number, other)),
        }
    }

    /// PUBREC of 0x80 or more: the message is settled. `[MQTT-4.4.0-2]`
    pub fn on_pub_rec_refused(&mut self, id: PacketId) -> Result<(u64, Body), AckError> {
        let number = self.number(id)?;
        match self.replace(number, Sending::Settled) {
            Sending::AwaitPubRec { body, .. } => {
                self.settled();
                Ok((number, body))
            }
            other => Err(self.put_back(number, other)),
        }
    }

    /// PUBCOMP. Returns the number that is settled by it.
    pub fn on_pub_comp(&mut self, id: PacketId) -> Result<u64, AckError> {
        let number = self.number(id)?;
        match self.replace(number, Sending::Settled) {
            Sending::AwaitPubComp { .. } => {
                self.settled();
                Ok(number)
            }
            other => Err(self.put_back(number, other)),
        }
    }

    /// A new connection: every PUBLISH that was sent and not acknowledged is due again, in the order in which
    /// it was sent and with its identifier. Returns the identifiers whose PUBREL is due again, in the order
    /// of their PUBRECs. `[MQTT-4.4.0-1]` `[MQTT-4.6.0-1]` `[MQTT-3.1.1/4.6.0-4]`
    pub fn resume(&mut self) -> Vec<PacketId> {
        self.take_back();
        if mutation::is_on(Mutation::InflightForgotten) {
            self.again.clear();
        }
        let releases = (self.base..).zip(&self.window).filter_map(|(number, sending)| match sending {
            Sending::AwaitPubComp { step } => Some((*step, packet_id(number))),
            Sending::Reserved
            | Sending::AwaitPubAck { .. }
            | Sending::AwaitPubRec { .. }
            | Sending::Settled => None,
        });
        let mut releases: Vec<_> = releases.collect();
        releases.sort();
        self.inflight = releases.len();
        releases.into_iter().map(|(_, id)| id).collect()
    }

    /// Moves what was sent and not acknowledged to `again`, in the order in which it was sent.
    fn take_back(&mut self) {
        let mut again = Vec::new();
        for (number, sending) in (self.base..).zip(&mut self.window) {
            match std::mem::replace(sending, Sending::Reserved) {
                Sending::AwaitPubAck { step, body } | Sending::AwaitPubRec { step, body } => {
                    again.push((step, Again { number, body }));
                }
                other @ (Sending::Reserved | Sending::AwaitPubComp { .. } | Sending::Settled) => {
                    *sending = other;
                }
            }
        }
        self.inflight -= again.len();
        again.sort_by_key(|(step, _)| *step);
        // What the last connection did not come to repeat was sent after all that it did.
        let unrepeated = std::mem::take(&mut self.again);
        self.again = again.into_iter().map(|(_, again)| again).chain(unrepeated).collect();
    }

    /// Counts what waits here in memory, in bytes, in totals of many sessions.
    pub fn count_in(&mut self, totals: &Totals) {
        self.loaded.count_in(&totals.loaded);
        self.parked.count_in(&totals.index);
    }

    /// All numbers from this one on were never sent.
    pub fn sent_below(&self) -> u64 {
        self.base + self.window.len() as u64
    }

    /// Numbers below this one may have been sent before a crash.
    pub fn perhaps_sent_below(&self) -> u64 {
        self.perhaps_sent_below
    }

    /// All numbers below this one are settled.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Messages sent and not settled.
    pub fn inflight(&self) -> usize {
        self.inflight
    }

    /// Messages that were sent, and wait for their PUBACK or PUBREC.
    pub fn unacknowledged(&self) -> usize {
        let is_sent =
            |sending: &&Sending| matches!(sending, Sending::AwaitPubAck { .. } | Sending::AwaitPubRec { .. });
        self.window.iter().filter(is_sent).count()
    }

    /// Messages that the client owns, and whose PUBCOMP is not here yet.
    pub fn unreleased(&self) -> usize {
        self.window.iter().filter(|sending| matches!(sending, Sending::AwaitPubComp { .. })).count()
    }

    /// Messages that wait to be sent.
    pub fn queued(&self) -> usize {
        self.again.len() + self.queue.len() + self.stored_parked() + self.shedding.len()
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
        // [MQTT-4.8.2-4] QoS 2 stays with the member that it was sent to.
        let is_lendable =
            |outgoing: &Outgoing| outgoing.qos < QoS::ExactlyOnce || mutation::is_on(Mutation::SharedTwice);
        let mut taken = Vec::new();
        if sent == TakeSent::Yes {
            for (number, sending) in (self.base..).zip(&mut self.window) {
                match std::mem::replace(sending, Sending::Settled) {
                    Sending::AwaitPubAck { body: Body::Here(outgoing), .. } if is_wanted(&outgoing) => {
                        self.inflight -= 1;
                        taken.push((number, outgoing));
                    }
                    other => *sending = other,
                }
            }
            for Again { number, body } in std::mem::take(&mut self.again) {
                match body {
                    Body::Here(outgoing) if is_lendable(&outgoing) && is_wanted(&outgoing) => {
                        taken.push((number, outgoing));
                    }
                    body => self.again.push_back(Again { number, body }),
                }
            }
        }
        let taken_max = match sent {
            TakeSent::Yes | TakeSent::No => usize::MAX,
            TakeSent::UpTo(max) => max,
        };
        for Queued { number, outgoing } in std::mem::take(&mut self.queue) {
            if taken.len() < taken_max && is_wanted(&outgoing) {
                self.loaded.sub(outgoing.message.size_bytes());
                taken.push((number, outgoing));
            } else {
                self.queue.push_back(Queued { number, outgoing });
            }
        }
        for (number, _) in &taken {
            self.settle(*number);
        }
        self.advance();
        taken
    }

    /// Gives back the room that is kept for the next message, where none waits: the session is idle.
    pub fn shrink(&mut self) {
        if self.window.is_empty() {
            self.window = VecDeque::new();
        }
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
    }

    /// Takes out everything that the client does not own: the session ends.
    pub fn take_all(&mut self) -> Left {
        let Outbound { again, queue, window, parked, fetching, shedding, .. } = std::mem::take(self);
        let sent = window.into_iter().filter_map(|sending| match sending {
            Sending::AwaitPubAck { body, .. } | Sending::AwaitPubRec { body, .. } => Some(body),
            Sending::Reserved | Sending::AwaitPubComp { .. } | Sending::Settled => None,
        });
        let queued = again.into_iter().map(|again| again.body);
        let queued = queued.chain(queue.into_iter().map(|queued| Body::Here(queued.outgoing)));
        let stored =
            fetching.into_iter().flat_map(|fetching| fetching.parked).chain(parked.iter()).chain(shedding);
        let spilled = parked.spilled().collect();
        Left { bodies: sent.chain(queued).chain(stored.map(Body::Stored)).collect(), spilled }
    }

    fn pop_queue(&mut self) -> Option<(u64, Outgoing)> {
        let Queued { number, outgoing } = self.queue.pop_front()?;
        self.loaded.sub(outgoing.message.size_bytes());
        Some((number, outgoing))
    }

    /// The state of a message that is being sent.
    fn sent(&mut self, body: Body) -> Sending {
        let step = self.next_step();
        match body.qos() {
            QoS::AtMostOnce | QoS::AtLeastOnce => Sending::AwaitPubAck { step, body },
            QoS::ExactlyOnce => Sending::AwaitPubRec { step, body },
        }
    }

    fn next_step(&mut self) -> u64 {
        self.step += 1;
        self.step
    }

    /// Puts a state at a number, widening the window to it.
    fn set(&mut self, number: u64, sending: Sending) -> &Sending {
        let slot = (number - self.base) as usize;
        while self.window.len() <= slot {
            let next = self.base + self.window.len() as u64;
            let is_settled = self.settled_ahead.contains(next);
            self.window.push_back(if is_settled { Sending::Settled } else { Sending::Reserved });
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
        let found = self.again.iter().position(|again| again.number == number);
        match found.and_then(|at| self.again.remove(at)) {
            Some(again) => {
                self.inflight += 1;
                self.sent(again.body)
            }
            None => before,
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
    fn put_back(&mut self, number: u64, sending: Sending) -> AckError {
        let error = match sending {
            Sending::Reserved | Sending::Settled => AckError::Unknown,
            Sending::AwaitPubAck { .. } | Sending::AwaitPubRec { .. } | Sending::AwaitPubComp { .. } => {
                AckError::WrongPacket
            }
        };
        self.set(number, sending);
        error
    }

    /// A number that is not in use any more, wherever it is.
    fn settle(&mut self, number: u64) {
        let end = self.base + self.window.len() as u64;
        if number >= end {
            self.settled_ahead.add(number);
        } else if number >= self.base {
            self.set(number, Sending::Settled);
        }
        self.advance();
    }

    fn advance(&mut self) {
        while matches!(self.window.front(), Some(Sending::Settled)) {
            self.window.pop_front();
            self.base += 1;
        }
        if self.window.is_empty() {
            self.base = self.settled_ahead.skip(self.base);
            if self.window.capacity() > CAPACITY_KEPT {
                self.window = VecDeque::new();
            }
        }
        if self.queue.is_empty() && self.queue.capacity() > CAPACITY_KEPT {
            self.queue = VecDeque::new();
        }
    }
}

/// The packet identifier of a number. `[MQTT-2.2.1-4]`
fn packet_id(number: u64) -> PacketId {
    let number = if mutation::is_on(Mutation::IdentifierReused) { number % 4 } else { number };
    PacketId::MIN.saturating_add((number % PACKET_IDS) as u16)
}
