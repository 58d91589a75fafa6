//! The part of a queue that waits in the store alone, and how it comes back.
//!
//! What is parked has a reference in memory and nothing else. A session without connection parks all that it
//! can, one with a connection what is beyond the limits of [`Parking`]: it keeps some in any case, and more as
//! long as all sessions together keep little. Before a parked message can be sent it
//! is fetched: one request at a time, whose answer may come late, after the session has lost its connection.
//!
//! Messages of shared subscriptions are never parked, for another member may get them at any time.

use std::sync::{Arc, atomic::AtomicUsize};

use super::{
    super::{Fetched, Found, Inserted, SpilledRun, StoredMessage, StoredPresence, StoredSession, Wanted},
    Again, Body, Outbound, Outgoing, Sending,
};
use crate::{
    codec::QoS,
    limits::Parking,
    mutation::{self, Mutation},
};

/// What the sessions of a shard have in memory together, in bytes.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Messages that were never sent, in sessions that may park them.
    pub loaded: Arc<AtomicUsize>,
    /// References to messages that are parked.
    pub index: Arc<AtomicUsize>,
}

/// A request to the store that is not answered.
#[derive(Debug)]
pub(super) struct Fetching {
    ticket: u64,
    /// Messages that were parked, in the order of their numbers. The others are still in `again`.
    pub(super) parked: Vec<StoredMessage>,
}

/// A message that is to be dropped.
#[derive(Debug)]
pub enum Shed {
    /// It is in memory, and is settled.
    Here(u64, Outgoing),
    /// It is in the store. It stays queued until [`Outbound::take_shed`].
    Stored(StoredMessage),
}

/// A request to the store.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    /// Its name.
    pub ticket: u64,
    /// What is wanted.
    pub wanted: Wanted,
}

/// What an answer of the store has changed.
#[derive(Debug)]
pub enum Answer {
    /// Nothing: nobody waits for it any more.
    Ignored,
    /// Messages are in memory. The store does not have these: they are settled.
    Messages(Vec<(u64, Body)>),
    /// The run that begins with this number is in memory: the store need not have it any more.
    Run(u64),
    /// The store does not have the run, or has another.
    LostRun(SpilledRun),
}

/// Messages of `again` that are to be in memory before more are fetched.
const AGAIN_LOW: usize = 32;

impl Outbound {
    /// Takes a message of QoS 1 or 2 like [`Outbound::enqueue`], and parks it if enough are in memory or the
    /// session has no connection.
    pub fn enqueue_or_park(
        &mut self,
        number: u64,
        outgoing: Outgoing,
        parking: &Parking,
        is_connected: bool,
    ) {
        let is_beyond = !is_connected
            || self.stored_parked() > 0
            || (self.loaded.total().is_none_or(|total| total >= parking.spare_bytes_max)
                && (self.queue.len() >= parking.messages_max || self.loaded.bytes() > parking.bytes_max));
        match stored(number, &outgoing).filter(|_| is_beyond) {
            Some(stored) => self.park(stored, parking),
            None => self.enqueue(number, outgoing),
        }
    }

    fn park(&mut self, message: StoredMessage, parking: &Parking) {
        let inserted = self.parked.insert(message, parking.run_messages_max);
        debug_assert!(inserted != Inserted::Twice, "number {} is parked twice", message.number);
        self.may_spill |= inserted == Inserted::Begun;
    }

    /// Messages whose references are to go to the store, if those of all sessions are more than may be in
    /// memory: in runs.
    pub fn spill(&mut self, parking: &Parking) -> Vec<Vec<StoredMessage>> {
        let mut spilled = Vec::new();
        // What could be spilled and need not be will be when the next run begins.
        if std::mem::take(&mut self.may_spill) {
            let is_enough = |total: Option<usize>| total.is_none_or(|total| total <= parking.index_bytes_max);
            self.parked.spill(parking.run_messages_max, is_enough, |messages| spilled.push(messages));
        }
        spilled
    }

    /// Runs whose references are in the store.
    pub fn spilled(&self) -> impl Iterator<Item = SpilledRun> {
        self.parked.spilled()
    }

    /// The connection is gone: parks all that can be.
    pub fn park_all(&mut self, parking: &Parking) {
        self.take_back();
        for again in self.again.iter_mut() {
            if let Body::Here(outgoing) = &again.body
                && let Some(stored) = stored(again.number, outgoing)
            {
                again.body = Body::Stored(stored);
            }
        }
        for queued in std::mem::take(&mut self.queue) {
            match stored(queued.number, &queued.outgoing) {
                Some(stored) => {
                    self.loaded.sub(queued.outgoing.message.size_bytes());
                    self.park(stored, parking);
                }
                None => self.queue.push_back(queued),
            }
        }
        for message in self.fetching.take().into_iter().flat_map(|fetching| fetching.parked) {
            self.park(message, parking);
        }
    }

    /// What to fetch from the store, if anything is due. It must be answered by [`Outbound::fetched`].
    pub fn request(&mut self, parking: &Parking) -> Option<Request> {
        if self.fetching.is_some() {
            return None;
        }
        let is_stored = |again: &&Again| matches!(again.body, Body::Stored(_));
        let mut wanted = Vec::new();
        let mut parked = Vec::new();
        let mut bytes = 0;
        if let Some(first) = self.again.iter().take(AGAIN_LOW).position(|again| is_stored(&again)) {
            for again in self.again.iter().skip(first).filter(is_stored) {
                bytes += again.body.size_bytes();
                if wanted.len() >= parking.messages_max || (bytes > parking.bytes_max && !wanted.is_empty()) {
                    break;
                }
                wanted.extend(again.body.record().map(|record| (again.number, record)));
            }
        } else if let Some(first) = self.parked.first() {
            let loaded = self.queue.partition_point(|queued| queued.number < first);
            if loaded > parking.messages_max / 2
                || (loaded > 0 && self.loaded.bytes() > parking.bytes_max / 2)
            {
                return None;
            }
            while let Some(next) = self.parked.front() {
                bytes += next.size_bytes as usize;
                let is_enough = loaded + parked.len() >= parking.messages_max || bytes > parking.bytes_max;
                if is_enough && !parked.is_empty() {
                    break;
                }
                parked.extend(self.parked.pop_front());
                wanted.push((next.number, next.record));
            }
        }
        if wanted.is_empty() {
            return self.request_run();
        }
        Some(self.begin_fetching(Wanted::Messages(wanted), parked))
    }

    /// The references of the messages that come next, if they are spilled and nothing else is being fetched.
    pub fn request_run(&mut self) -> Option<Request> {
        let run = self.parked.front_spilled().filter(|_| self.fetching.is_none())?;
        Some(self.begin_fetching(Wanted::Run(run.first), Vec::new()))
    }

    fn begin_fetching(&mut self, wanted: Wanted, parked: Vec<StoredMessage>) -> Request {
        self.ticket += 1;
        self.fetching = Some(Box::new(Fetching { ticket: self.ticket, parked }));
        Request { ticket: self.ticket, wanted }
    }

    /// Whether a request is not answered: what is oldest may be on its way, and nothing is shed before it is here.
    pub fn is_fetching(&self) -> bool {
        self.fetching.is_some()
    }

    /// The answer to the last request; one to an earlier one is ignored.
    pub fn fetched(&mut self, fetched: Fetched) -> Answer {
        let Some(fetching) = self.fetching.take_if(|fetching| fetching.ticket == fetched.ticket) else {
            return Answer::Ignored;
        };
        match fetched.found {
            Found::Messages(found) => Answer::Messages(self.messages_fetched(&fetching, found)),
            Found::Run(first, messages) => match self.parked.front_spilled() {
                Some(_) if self.parked.put_back(first, &messages) => Answer::Run(first),
                Some(run) => {
                    // Without an end of the request there is no other: what waits is sent after a restart.
                    self.fetching = Some(fetching);
                    Answer::LostRun(run)
                }
                None => Answer::Ignored,
            },
        }
    }

    /// Returns the messages that the store does not have: they are settled.
    fn messages_fetched(
        &mut self,
        fetching: &Fetching,
        found: Vec<(u64, Option<Outgoing>)>,
    ) -> Vec<(u64, Body)> {
        let mut lost = Vec::new();
        for (number, outgoing) in found {
            if let Ok(at) = fetching.parked.binary_search_by_key(&number, |message| message.number) {
                match outgoing {
                    Some(outgoing) => self.enqueue(number, outgoing),
                    None => lost.push((number, Body::Stored(fetching.parked[at]))),
                }
                continue;
            }
            // It may have been acknowledged meanwhile.
            let Some(at) = self.again.iter().position(|again| again.number == number) else { continue };
            match outgoing {
                Some(outgoing) => self.again[at].body = Body::Here(outgoing),
                None => lost.extend(self.again.remove(at).map(|again| (number, again.body))),
            }
        }
        for (number, _) in &lost {
            self.settle(*number);
        }
        lost
    }

    /// Takes out the oldest message that was never sent, for want of room. The newest stays.
    pub fn shed(&mut self) -> Option<Shed> {
        if self.queue.len() + self.stored_parked() <= 1 {
            return None;
        }
        let loaded = self.queue.front().map(|queued| queued.number);
        if loaded.is_some_and(|number| self.parked.first().is_none_or(|parked| number < parked)) {
            let (number, outgoing) = self.pop_queue()?;
            self.settle(number);
            return Some(Shed::Here(number, outgoing));
        }
        let message = self.parked.pop_front()?;
        self.shedding.push_back(message);
        self.shedding_bytes += message.size_bytes as usize;
        Some(Shed::Stored(message))
    }

    /// Messages that [`Outbound::shed`] has taken out and that are not read yet, and their bytes.
    pub fn shedding(&self) -> (usize, usize) {
        (self.shedding.len(), self.shedding_bytes)
    }

    /// The store has read a message of [`Outbound::shed`]: it is settled.
    pub fn take_shed(&mut self, number: u64) -> Option<StoredMessage> {
        let at = self.shedding.iter().position(|message| message.number == number)?;
        let message = self.shedding.remove(at)?;
        self.shedding_bytes -= message.size_bytes as usize;
        self.settle(number);
        Some(message)
    }

    /// The lowest number of a message that is parked or being fetched: none above may be sent before it.
    pub(super) fn first_stored(&self) -> Option<u64> {
        let fetching = self.fetching.as_ref().and_then(|fetching| fetching.parked.first());
        match (fetching.map(|message| message.number), self.parked.first()) {
            (Some(fetching), Some(parked)) => Some(fetching.min(parked)),
            (fetching, parked) => fetching.or(parked),
        }
    }

    /// Messages that are parked or being fetched, but for those in `again`.
    pub(super) fn stored_parked(&self) -> usize {
        self.parked.len() + self.fetching.as_ref().map_or(0, |fetching| fetching.parked.len())
    }

    /// The state of a session that the store gives back.
    pub fn restore(session: &mut StoredSession) -> Outbound {
        let shared = std::mem::take(&mut session.shared);
        let messages = std::mem::take(&mut session.messages);
        // All numbers that are in use, as ranges.
        let mut live: Vec<(u64, u64)> = messages.ranges().collect();
        live.extend(shared.iter().map(|(number, _)| (*number, number + 1)));
        live.extend(session.owned.iter().map(|number| (*number, number + 1)));
        live.sort_unstable();
        let base = live.first().map_or(session.next_number, |(first, _)| *first);
        let mut outbound = Outbound { base, ..Outbound::default() };
        let mut next = base;
        for (first, end) in live.iter().copied().chain([(session.next_number, session.next_number)]) {
            if first > next {
                outbound.settled_ahead.add_range(next, first);
            }
            next = next.max(end);
        }
        let sent_below = match session.presence {
            StoredPresence::Detached { sent_below, perhaps_sent_below, .. } => {
                outbound.perhaps_sent_below = perhaps_sent_below;
                sent_below
            }
            StoredPresence::Connected { receive_maximum } => {
                let is_known = mutation::is_on(Mutation::CrashForgotten);
                outbound.perhaps_sent_below = if is_known { 0 } else { session.next_number };
                let nth = nth_number(&live, u64::from(receive_maximum));
                nth.unwrap_or(session.next_number)
            }
        };
        // Numbers are not always sent in their order, and who got a message of a shared subscription must
        // not see it go to another member.
        let is_connected = matches!(session.presence, StoredPresence::Connected { .. });
        for number in &session.owned {
            let step = outbound.next_step();
            outbound.set(*number, Sending::AwaitPubComp { step });
        }
        outbound.parked = messages;
        let mut again: Vec<(u64, Body)> = Vec::new();
        while let Some(message) = outbound.parked.pop_front_if(|message| message.number < sent_below) {
            again.push((message.number, Body::Stored(message)));
        }
        for (number, outgoing) in shared {
            if number < sent_below || is_connected {
                again.push((number, Body::Here(outgoing)));
            } else {
                outbound.enqueue(number, outgoing);
            }
        }
        again.sort_by_key(|(number, _)| *number);
        for (number, body) in again {
            outbound.set(number, Sending::Reserved);
            outbound.again.push_back(Again { number, body });
        }
        outbound.may_spill = true;
        outbound
    }
}

/// The number with this index of all that are in some ranges.
fn nth_number(ranges: &[(u64, u64)], mut index: u64) -> Option<u64> {
    for (first, end) in ranges {
        if index < end - first {
            return Some(first + index);
        }
        index -= end - first;
    }
    None
}

/// A reference to a message, if it may be parked.
fn stored(number: u64, outgoing: &Outgoing) -> Option<StoredMessage> {
    if outgoing.share.is_some() || outgoing.qos == QoS::AtMostOnce {
        return None;
    }
    let size_bytes = outgoing.message.size_bytes().min(i32::MAX as usize) as u32;
    outgoing.record.map(|record| StoredMessage { number, record, size_bytes, qos: outgoing.qos })
}
