//! Retained messages as publishers change them, and as they expire.

use std::{sync::Arc, time::Duration};

use crate::{
    codec::{QoS, ReasonCode},
    message::{Header, Message},
    session::RecordId,
    time::Timestamp,
};

use super::{
    DropReason, Op, Retaining, Shard, Timer, journal,
    overflow::STORE_FULL,
    publish::{Fault, Origin},
};

/// Time between two looks for retained messages that have expired.
pub(super) const SWEEP_INTERVAL: Duration = Duration::from_secs(60);
/// So many of them are removed in one go,
const SWEEP_MESSAGES_MAX: usize = 1024;
/// and the next ones after this time.
const SWEEP_PAUSE: Duration = Duration::from_millis(100);

impl Shard {
    /// Retains a message that asks for it, if there is room.
    pub(super) fn retain(
        &mut self,
        message: &Arc<Message>,
        origin: Origin,
    ) -> Result<(Retaining, Option<RecordId>), Fault> {
        if !message.retain() {
            return Ok((Retaining::NotAsked, None));
        }
        // Only what nobody is promised comes here while the disk is full: it would wait in memory without end.
        let is_stored = message.publisher().is_some() && !message.payload().is_empty();
        let is_store_full = is_stored && self.shared.is_store_full();
        if !is_store_full && self.shared.retained.has_room(message, &self.limits) {
            let topic_limits = self.limits.topics();
            let record = self.shared.retained.update(message, &topic_limits, &self.shared.sequence);
            return Ok((record.map_or(Retaining::Vain, |_| Retaining::Done), record));
        }
        match origin {
            Origin::Client { .. } if message.qos() > QoS::AtMostOnce => Err(Fault {
                code: ReasonCode::QuotaExceeded,
                why: if is_store_full {
                    STORE_FULL
                } else {
                    "there are as many retained messages as there may be"
                },
            }),
            Origin::Client { .. } | Origin::Own | Origin::Member => {
                // [MQTT-3.3.1-5] the one before is superseded all the same.
                self.forget_retained(message);
                let publisher = message.publisher().cloned().unwrap_or_default();
                self.count_drop_of(&publisher, "", message.topic(), DropReason::RetainedFull);
                Ok((Retaining::Full, None))
            }
        }
    }

    /// Forgets the retained message of a topic, here and in the store.
    fn forget_retained(&mut self, superseded_by: &Message) {
        let topic = superseded_by.topic().clone();
        if let Some(record) = self.shared.retained.remove(&topic, &self.shared.sequence) {
            self.journal_removal(record, superseded_by);
        }
    }

    /// Removes retained messages that have expired, here and in the store, a few at a time.
    pub(super) fn sweep_retained(&mut self, now: Timestamp) {
        let swept = self.shared.retained.sweep(now, SWEEP_MESSAGES_MAX, &self.shared.sequence);
        let is_done = swept.len() < SWEEP_MESSAGES_MAX;
        for (record, message) in swept {
            self.journal_removal(record, &message);
        }
        let interval = if is_done { SWEEP_INTERVAL } else { SWEEP_PAUSE };
        self.timers.set(now.plus(interval), Timer::Sweep);
    }

    /// Tells the store that a topic has no retained message any more. What the broker tells of itself, and has
    /// no publisher, the store does not know.
    fn journal_removal(&mut self, record: RecordId, removed: &Message) {
        let Some(publisher) = removed.publisher().cloned() else { return };
        let header =
            Header { qos: QoS::AtMostOnce, retain: true, expires_at: None, publisher: Some(publisher) };
        let message = Arc::new(Message::new(removed.topic().clone(), b"", header));
        let op = Op::Append { message, retain: true, targets: journal::Targets::new(), received: None };
        self.journal.lazy(Some(record), op);
    }
}
