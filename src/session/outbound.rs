//! The sender's half of QoS 1 and 2: what waits for a client, what is under way to it.

use std::{collections::VecDeque, num::NonZeroU32, sync::Arc};

use crate::{
    codec::{PacketId, QoS},
    message::Message,
};

use super::RecordId;

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

/// QoS 1 and 2 messages of one session towards its client.
///
/// Every message has a number, ascending in the order in which the broker accepted them, and the number
/// alone determines its packet identifier, so that the two need no record of their own. Messages wait in
/// `queue` in the order of their numbers, those of an earlier connection in `again` in the order in which
/// they were sent; `window` has the state of every number from `base` on, without gaps, up to the last one
/// sent. The two orders differ where a message waited for the store and a later one did not.
///
/// ```text
///   queue ──send──▶ AwaitPubAck ──PUBACK──▶ Settled
///     ▲        └──▶ AwaitPubRec ──PUBREC──▶ AwaitPubComp ──PUBCOMP──▶ Settled
///     └──resume── (both)  └──PUBREC ≥ 0x80──▶ Settled
/// ```
#[derive(Debug, Default)]
pub struct Outbound {
    again: VecDeque<Queued>,
    queue: VecDeque<Queued>,
    window: VecDeque<Sending>,
    /// The number of the first entry of `window`.
    base: u64,
    /// Messages sent on this connection, or released, and not settled: the use of the client's Receive Maximum.
    inflight: usize,
    /// Counts PUBLISH sent and PUBREC received, for the order in which a new connection repeats them.
    step: u64,
}

/// A message that waits to be sent.
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
    /// On an earlier connection: DUP is 1, and it does not expire any more. `[MQTT-3.3.1-1]` `[MQTT-4.3.3-7]`
    Again,
}

/// The state of one number in the window.
#[derive(Debug)]
enum Sending {
    /// Its message is not here: it waits in the queue, or has not reached the session yet.
    Reserved,
    /// QoS 1, sent.
    AwaitPubAck { step: u64, outgoing: Outgoing },
    /// QoS 2, sent.
    AwaitPubRec { step: u64, outgoing: Outgoing },
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
        let queued = Queued { number, outgoing };
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
        if let Some(head) = self.again.front() {
            return Some((&head.outgoing, Attempt::Again));
        }
        let head = self.queue.front()?;
        // An identifier is not used again before its last use is settled. [MQTT-2.2.1-4]
        (head.number - self.base < PACKET_IDS).then_some((&head.outgoing, Attempt::First))
    }

    /// Moves the head of the queue into the window: it is being sent. Returns it with its packet identifier.
    pub fn send(&mut self) -> Option<(PacketId, &Outgoing)> {
        let Queued { number, outgoing } = self.again.pop_front().or_else(|| self.queue.pop_front())?;
        let sending = self.sent(outgoing);
        self.inflight += 1;
        match self.set(number, sending) {
            Sending::AwaitPubAck { outgoing, .. } | Sending::AwaitPubRec { outgoing, .. } => {
                Some((packet_id(number), outgoing))
            }
            Sending::Reserved | Sending::AwaitPubComp { .. } | Sending::Settled => None,
        }
    }

    /// Takes the head out that was never sent. Returns it with its number.
    pub fn discard(&mut self) -> Option<(u64, Outgoing)> {
        let Queued { number, outgoing } = self.queue.pop_front()?;
        self.set(number, Sending::Settled);
        self.advance();
        Some((number, outgoing))
    }

    /// Takes the oldest message out that was never sent, for want of room. The newest stays.
    pub fn shed(&mut self) -> Option<(u64, Outgoing)> {
        if self.queue.len() > 1 { self.discard() } else { None }
    }

    /// PUBACK. Returns the number and the message that are settled by it.
    pub fn on_pub_ack(&mut self, id: PacketId) -> Result<(u64, Outgoing), AckError> {
        let number = self.number(id)?;
        match self.replace(number, Sending::Settled) {
            Sending::AwaitPubAck { outgoing, .. } => {
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
        let step = self.next_step();
        match self.replace(number, Sending::AwaitPubComp { step }) {
            Sending::AwaitPubRec { outgoing, .. } => Ok((number, Some(outgoing))),
            before @ Sending::AwaitPubComp { .. } => {
                self.set(number, before);
                Ok((number, None))
            }
            other => Err(self.restore(number, other)),
        }
    }

    /// PUBREC of 0x80 or more: the message is settled. `[MQTT-4.4.0-2]`
    pub fn on_pub_rec_refused(&mut self, id: PacketId) -> Result<(u64, Outgoing), AckError> {
        let number = self.number(id)?;
        match self.replace(number, Sending::Settled) {
            Sending::AwaitPubRec { outgoing, .. } => {
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
            Sending::AwaitPubComp { .. } => {
                self.settled();
                Ok(number)
            }
            other => Err(self.restore(number, other)),
        }
    }

    /// A new connection: every PUBLISH that was sent and not acknowledged is due again, in the order in which
    /// it was sent and with its identifier. Returns the identifiers whose PUBREL is due again, in the order
    /// of their PUBRECs. `[MQTT-4.4.0-1]` `[MQTT-4.6.0-1]` `[MQTT-3.1.1/4.6.0-4]`
    pub fn resume(&mut self) -> Vec<PacketId> {
        let mut releases = Vec::new();
        let mut again = Vec::new();
        for (number, sending) in (self.base..).zip(&mut self.window) {
            match std::mem::replace(sending, Sending::Reserved) {
                Sending::AwaitPubAck { step, outgoing } | Sending::AwaitPubRec { step, outgoing } => {
                    again.push((step, Queued { number, outgoing }));
                }
                Sending::AwaitPubComp { step } => {
                    releases.push((step, packet_id(number)));
                    *sending = Sending::AwaitPubComp { step };
                }
                other @ (Sending::Reserved | Sending::Settled) => *sending = other,
            }
        }
        again.sort_by_key(|(step, _)| *step);
        releases.sort();
        // What the last connection did not come to repeat was sent after all that it did.
        let unrepeated = std::mem::take(&mut self.again);
        self.again = again.into_iter().map(|(_, queued)| queued).chain(unrepeated).collect();
        self.inflight = releases.len();
        releases.into_iter().map(|(_, id)| id).collect()
    }

    /// All numbers from this one on were never sent.
    pub fn sent_below(&self) -> u64 {
        self.base + self.window.len() as u64
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
        self.again.len() + self.queue.len()
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
                    Sending::AwaitPubAck { outgoing, .. } if is_wanted(&outgoing) => {
                        self.inflight -= 1;
                        taken.push((number, outgoing));
                    }
                    other => *sending = other,
                }
            }
            let is_free = |outgoing: &Outgoing| outgoing.qos < QoS::ExactlyOnce && is_wanted(outgoing);
            taken.extend(split_off(&mut self.again, is_free));
        }
        taken.extend(split_off(&mut self.queue, is_wanted));
        for (number, _) in &taken {
            self.set(*number, Sending::Settled);
        }
        self.advance();
        taken
    }

    /// Takes out everything that the client does not own: the session ends.
    pub fn take_all(&mut self) -> Vec<Outgoing> {
        let Outbound { again, queue, window, .. } = std::mem::take(self);
        let sent = window.into_iter().filter_map(|sending| match sending {
            Sending::AwaitPubAck { outgoing, .. } | Sending::AwaitPubRec { outgoing, .. } => Some(outgoing),
            Sending::Reserved | Sending::AwaitPubComp { .. } | Sending::Settled => None,
        });
        sent.chain(again.into_iter().chain(queue).map(|queued| queued.outgoing)).collect()
    }

    /// The state of a message that is being sent.
    fn sent(&mut self, outgoing: Outgoing) -> Sending {
        let step = self.next_step();
        match outgoing.qos {
            QoS::AtMostOnce | QoS::AtLeastOnce => Sending::AwaitPubAck { step, outgoing },
            QoS::ExactlyOnce => Sending::AwaitPubRec { step, outgoing },
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
        let found = self.again.iter().position(|queued| queued.number == number);
        match found.and_then(|at| self.again.remove(at)) {
            Some(queued) => {
                self.inflight += 1;
                self.sent(queued.outgoing)
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
    fn restore(&mut self, number: u64, sending: Sending) -> AckError {
        let error = match sending {
            Sending::Reserved | Sending::Settled => AckError::Unknown,
            Sending::AwaitPubAck { .. } | Sending::AwaitPubRec { .. } | Sending::AwaitPubComp { .. } => {
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

/// Takes the messages out of a queue that are wanted, with their numbers.
fn split_off(queue: &mut VecDeque<Queued>, is_wanted: impl Fn(&Outgoing) -> bool) -> Vec<(u64, Outgoing)> {
    let (wanted, rest): (VecDeque<Queued>, _) =
        std::mem::take(queue).into_iter().partition(|queued| is_wanted(&queued.outgoing));
    *queue = rest;
    wanted.into_iter().map(|queued| (queued.number, queued.outgoing)).collect()
}

/// The packet identifier of a number. `[MQTT-2.2.1-4]`
fn packet_id(number: u64) -> PacketId {
    PacketId::MIN.saturating_add((number % PACKET_IDS) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Header;

    fn outgoing(qos: QoS) -> Outgoing {
        let header = Header { qos, retain: false, expires_at: None, publisher: None };
        let message = Arc::new(Message::new("t".into(), b"", header));
        Outgoing { message, qos, retain: false, subscription_ids: None, share: None, record: None }
    }

    fn id(value: u16) -> PacketId {
        PacketId::new(value).unwrap()
    }

    /// What each acknowledgement does in each state: `ok` settles or goes on, `?` is unknown, `!` is wrong.
    fn row(make: impl Fn() -> Outbound) -> String {
        let name = |result: Result<(), AckError>| match result {
            Ok(()) => "ok",
            Err(AckError::Unknown) => "?",
            Err(AckError::WrongPacket) => "!",
        };
        let results = [
            name(make().on_pub_ack(id(1)).map(drop)),
            name(make().on_pub_rec(id(1)).map(drop)),
            name(make().on_pub_rec_refused(id(1)).map(drop)),
            name(make().on_pub_comp(id(1)).map(drop)),
        ];
        results.join(" ")
    }

    fn sent(qos: QoS) -> Outbound {
        let mut outbound = Outbound::default();
        outbound.enqueue(0, outgoing(qos));
        outbound.send();
        outbound
    }

    fn resumed(mut outbound: Outbound) -> Outbound {
        outbound.resume();
        outbound
    }

    fn received() -> Outbound {
        let mut outbound = sent(QoS::ExactlyOnce);
        outbound.on_pub_rec(id(1)).unwrap();
        outbound
    }

    fn settled() -> Outbound {
        let mut outbound = received();
        outbound.on_pub_comp(id(1)).unwrap();
        outbound
    }

    // [MQTT-4.3.2-3] [MQTT-4.3.3-3] [MQTT-4.3.3-5] [MQTT-4.4.0-2]
    #[test]
    fn every_acknowledgement_in_every_state() {
        let waiting = || {
            let mut outbound = Outbound::default();
            outbound.enqueue(0, outgoing(QoS::AtLeastOnce));
            outbound
        };
        //                                          PUBACK PUBREC refused PUBCOMP
        assert_eq!(row(Outbound::default), "? ? ? ?");
        assert_eq!(row(waiting), "? ? ? ?");
        assert_eq!(row(|| sent(QoS::AtLeastOnce)), "ok ! ! !");
        assert_eq!(row(|| sent(QoS::ExactlyOnce)), "! ok ok !");
        assert_eq!(row(received), "! ok ! ok");
        assert_eq!(row(settled), "? ? ? ?");
        assert_eq!(row(|| resumed(sent(QoS::AtLeastOnce))), "ok ! ! !");
        assert_eq!(row(|| resumed(sent(QoS::ExactlyOnce))), "! ok ok !");
        assert_eq!(row(|| resumed(received())), "! ok ! ok");
    }

    #[test]
    fn an_acknowledgement_that_does_not_fit_changes_nothing() {
        for make in [|| sent(QoS::AtLeastOnce), || sent(QoS::ExactlyOnce), received] {
            let state = |outbound: &Outbound| format!("{} {:?}", outbound.inflight, outbound.window);
            let mut outbound = make();
            let before = state(&outbound);
            for wrong in [2, 65_535] {
                assert_eq!(outbound.on_pub_ack(id(wrong)).map(drop), Err(AckError::Unknown));
                assert_eq!(outbound.on_pub_comp(id(wrong)).map(drop), Err(AckError::Unknown));
            }
            for acknowledge in [Outbound::on_pub_ack, Outbound::on_pub_rec_refused] {
                if acknowledge(&mut make(), id(1)).is_err() {
                    assert_eq!(acknowledge(&mut outbound, id(1)).map(drop), Err(AckError::WrongPacket));
                }
            }
            assert_eq!(state(&outbound), before);
        }
    }

    // [MQTT-2.2.1-4]
    #[test]
    fn identifiers_go_round_and_skip_none() {
        let mut outbound = Outbound::default();
        for number in 0..140_000 {
            outbound.enqueue(number, outgoing(QoS::AtLeastOnce));
            let (packet_id, _) = outbound.send().unwrap();
            assert_eq!(u64::from(packet_id.get()), 1 + number % 65_535);
            outbound.on_pub_ack(packet_id).unwrap();
        }
        assert_eq!((outbound.inflight(), outbound.window.len(), outbound.base), (0, 0, 140_000));
    }

    #[test]
    fn numbers_that_come_late_keep_their_place() {
        let mut outbound = Outbound::default();
        for number in [1, 3, 0, 2] {
            outbound.enqueue(number, outgoing(QoS::AtLeastOnce));
        }
        let ids: Vec<u16> = std::iter::from_fn(|| outbound.send().map(|(id, _)| id.get())).collect();
        assert_eq!(ids, [1, 2, 3, 4]);
        outbound.cancel(4);
        outbound.enqueue(5, outgoing(QoS::AtLeastOnce));
        assert_eq!(outbound.send().map(|(id, _)| id.get()), Some(6));
    }
}
