//! Retained messages on their way to a new subscription.

use std::sync::Arc;

use crate::{
    codec::QoS,
    session::{Outgoing, RecordId, Replay, SessionHandle, Source, Subscription},
    time::Timestamp,
};

use super::{Op, Shard, Timer, journal};

/// QoS 1 and 2 messages that wait in a session while further retained messages are read for it.
const QUEUED_MAX: usize = 1024;
/// Their bytes. A durable session has a copy of each in the store.
const QUEUED_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Reads in a row for one session before others have their turn.
const READS_MAX: usize = 256;

/// Whether a session goes on to get retained messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Some were read, or the end of a filter was.
    Made,
    /// None are due, or not now.
    None,
}

impl Shard {
    /// Reads some retained messages for a session that has room for them. `[MQTT-3.3.1-9]` `[MQTT-3.8.4-4]` `reads` counts how often in this
    /// turn: past a limit the session goes on in a turn of its own.
    pub(super) fn replay(&mut self, now: Timestamp, slot: u32, reads: &mut usize) -> Progress {
        let session = &mut self.sessions[slot as usize];
        if session.outbound.queued() >= QUEUED_MAX || session.handle.queued_bytes() >= QUEUED_BYTES_MAX {
            return Progress::None;
        }
        let Some(replay) = session.replays.front_mut() else { return Progress::None };
        *reads += 1;
        if *reads > READS_MAX {
            self.timers.set(now, Timer::Replay(slot));
            return Progress::None;
        }
        let Subscription { options, id } = replay.subscription;
        let handle = session.handle.clone();
        let mut found = Vec::new();
        let mut over = None;
        let next = self.shared.retained.for_each_matching(&replay.filter, &replay.from, now, |message| {
            let is_own = message.publisher().is_some_and(|publisher| *publisher == handle.client_id);
            // [MQTT-3.8.3-3]
            if !(options.no_local && is_own) {
                let qos = message.qos().min(options.qos);
                let number = (qos > QoS::AtMostOnce).then(|| handle.reserve(message.size_bytes()));
                found.push((message.clone(), qos, number));
            }
        });
        match next {
            Some(next) => replay.from = next,
            None => over = session.replays.pop_front().filter(|replay| replay.is_stored),
        }
        self.counters().deliveries_accepted.add(found.len() as u64);
        let mut gate = None;
        for (message, qos, number) in found {
            let subscription_ids = id.map(|id| [id].into());
            let outgoing =
                Outgoing { message, qos, retain: true, subscription_ids, share: None, record: None };
            gate = gate.max(self.replay_message(slot, number, outgoing));
        }
        if let Some(Replay { filter, subscription, .. }) = over {
            // If this is lost, they are all sent once more.
            let op = Op::PutSubscription { session: handle, filter, subscription: subscription.into() };
            self.journal.lazy(Some(self.shared.sequence.next()), op);
        }
        if let Some(link) = self.sessions[slot as usize].link() {
            self.hold(link, gate);
        }
        Progress::Made
    }

    /// Returns the commit that its delivery waits for, if it waits for any.
    fn replay_message(&mut self, slot: u32, number: Option<u64>, mut outgoing: Outgoing) -> Option<u64> {
        let session = &mut self.sessions[slot as usize];
        let Some(number) = number else {
            session.transient.push(Source::Retained, outgoing);
            return None;
        };
        let handle = session.handle.clone();
        self.counters().queued_bytes.add(outgoing.message.size_bytes() as u64);
        self.counters().queued_messages.add(1);
        let mut gate = None;
        if handle.is_durable() {
            let record = self.shared.sequence.next();
            gate = self.journal_replay(record, &handle, number, &outgoing);
            outgoing.record = Some(record);
        }
        self.queue(slot, number, outgoing);
        gate
    }

    /// The packet identifier of a QoS 2 message must be known for its own before the client sees it: given to
    /// another message after a crash, the client would take that one for a repetition.
    fn journal_replay(
        &mut self,
        record: RecordId,
        session: &Arc<SessionHandle>,
        number: u64,
        outgoing: &Outgoing,
    ) -> Option<u64> {
        let target = journal::Target {
            session: session.id,
            number,
            qos: outgoing.qos,
            retain: true,
            subscription_ids: outgoing.subscription_ids.clone(),
            share: None,
        };
        let message = outgoing.message.clone();
        let op = Op::Append { message, retain: false, targets: [target].into(), received: None };
        if outgoing.qos == QoS::ExactlyOnce && session.awaits_commit() {
            return Some(self.journal.gating(record, op));
        }
        self.journal.lazy(Some(record), op);
        None
    }
}
