//! The part of a queue that waits in the store alone, and how it comes back.
//!
//! What is parked has a reference in memory and nothing else. A session without connection parks all that it
//! can, one with a connection what is beyond the limits of [`Parking`]: it keeps some in any case, and more as
//! long as all sessions together keep little. Before a parked message can be sent it
//! is fetched: one request at a time, whose answer may come late, after the session has lost its connection.
//!
//! Messages of shared subscriptions are never parked, for another member may get them at any time.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::{
    super::{Fetched, RecordId, StoredMessage, StoredPresence, StoredSession},
    Again, Body, Outbound, Outgoing, Sending,
};
use crate::{codec::QoS, limits::Parking};

/// Bytes of one session's messages that wait in memory, counted in a total of many sessions too.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    bytes: usize,
    total: Option<Arc<AtomicUsize>>,
}

impl Loaded {
    pub(super) fn count_in(&mut self, total: &Arc<AtomicUsize>) {
        total.fetch_add(self.bytes, Ordering::Relaxed);
        self.total = Some(total.clone());
    }

    pub(super) fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
        if let Some(total) = &self.total {
            total.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    pub(super) fn sub(&mut self, bytes: usize) {
        self.bytes -= bytes;
        if let Some(total) = &self.total {
            total.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// Whether all sessions together have as much in memory as they may.
    fn is_crowded(&self, parking: &Parking) -> bool {
        self.total.as_ref().is_none_or(|total| total.load(Ordering::Relaxed) >= parking.spare_bytes_max)
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        self.sub(self.bytes);
    }
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
    /// Number and record of each message.
    pub wanted: Vec<(u64, RecordId)>,
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
            || (self.loaded.is_crowded(parking)
                && (self.queue.len() >= parking.messages_max || self.loaded.bytes > parking.bytes_max));
        match stored(number, &outgoing).filter(|_| is_beyond) {
            Some(stored) => self.parked.insert(stored),
            None => self.enqueue(number, outgoing),
        }
    }

    /// The connection is gone: parks all that can be.
    pub fn park_all(&mut self) {
        self.take_back();
        for again in &mut self.again {
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
                    self.parked.insert(stored);
                }
                None => self.queue.push_back(queued),
            }
        }
        for message in self.fetching.take().into_iter().flat_map(|fetching| fetching.parked) {
            self.parked.insert(message);
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
            if loaded > parking.messages_max / 2 || (loaded > 0 && self.loaded.bytes > parking.bytes_max / 2)
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
            return None;
        }
        self.ticket += 1;
        self.fetching = Some(Fetching { ticket: self.ticket, parked });
        Some(Request { ticket: self.ticket, wanted })
    }

    /// The answer to the last [`Outbound::request`]; one to an earlier one is ignored. Returns the messages
    /// that the store does not have: they are settled.
    pub fn fetched(&mut self, fetched: Fetched) -> Vec<(u64, Body)> {
        let Some(fetching) = self.fetching.take_if(|fetching| fetching.ticket == fetched.ticket) else {
            return Vec::new();
        };
        let mut lost = Vec::new();
        for (number, outgoing) in fetched.found {
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
        let mut live: Vec<u64> = messages.iter().map(|message| message.number).collect();
        live.extend(shared.iter().map(|(number, _)| *number));
        live.extend(&session.owned);
        live.sort_unstable();
        let mut outbound =
            Outbound { base: live.first().copied().unwrap_or(session.next_number), ..Outbound::default() };
        let mut next = outbound.base;
        for number in live.iter().copied().chain([session.next_number]) {
            if number > next {
                outbound.settled_ahead.insert(next, number);
            }
            next = next.max(number + 1);
        }
        let sent_below = match session.presence {
            StoredPresence::Detached { sent_below, .. } => sent_below,
            StoredPresence::Connected { receive_maximum } => {
                live.get(usize::from(receive_maximum)).copied().unwrap_or(session.next_number)
            }
        };
        // Numbers are not always sent in their order, and who got a message of a shared subscription must
        // not see it go to another member.
        let is_connected = matches!(session.presence, StoredPresence::Connected { .. });
        for number in &session.owned {
            let step = outbound.next_step();
            outbound.set(*number, Sending::AwaitPubComp { step });
        }
        let mut bodies: Vec<(u64, Body)> =
            messages.into_iter().map(|message| (message.number, Body::Stored(message))).collect();
        if !shared.is_empty() {
            bodies.extend(shared.into_iter().map(|(number, outgoing)| (number, Body::Here(outgoing))));
            bodies.sort_by_key(|(number, _)| *number);
        }
        for (number, body) in bodies {
            match body {
                body if number < sent_below || (is_connected && matches!(body, Body::Here(_))) => {
                    outbound.set(number, Sending::Reserved);
                    outbound.again.push_back(Again { number, body });
                }
                Body::Stored(message) => outbound.parked.insert(message),
                Body::Here(outgoing) => outbound.enqueue(number, outgoing),
            }
        }
        outbound
    }
}

/// A reference to a message, if it may be parked.
fn stored(number: u64, outgoing: &Outgoing) -> Option<StoredMessage> {
    if outgoing.share.is_some() || outgoing.qos == QoS::AtMostOnce {
        return None;
    }
    let size_bytes = outgoing.message.size_bytes().min(i32::MAX as usize) as u32;
    outgoing.record.map(|record| StoredMessage { number, record, size_bytes, qos: outgoing.qos })
}
