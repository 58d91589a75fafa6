//! A store that forgets nothing that is still wanted, and does nothing else.

use std::{collections::VecDeque, sync::Arc};

use dunlin::{
    QoS,
    broker::{Entry, Op},
    message::Message,
    session::{Fetch, Fetched, Found, Outgoing, RecordId, Wanted},
};

/// Messages by their record, each for one session.
#[derive(Default)]
pub(crate) struct Records {
    /// From record `first` on, without gaps.
    kept: VecDeque<Option<(Arc<Message>, QoS)>>,
    first: u64,
}

impl Records {
    /// Takes a change over; other than messages and their ends it concerns nobody here.
    pub(crate) fn apply(&mut self, entry: Entry) {
        match entry.op {
            Op::Append { message, targets, .. } => {
                let Some((record, target)) = entry.record.zip(targets.first()) else { return };
                self.put(record, (message, target.qos));
            }
            Op::Settle { message: Some(record), .. } => self.forget(record),
            Op::Spill { .. } | Op::Unspill { .. } => panic!("no bench queues so much that it is spilled"),
            Op::PutSession { .. }
            | Op::EndSession { .. }
            | Op::PutSubscription { .. }
            | Op::RemoveSubscription { .. }
            | Op::Release { .. }
            | Op::Received { .. }
            | Op::Passed { .. }
            | Op::Settle { message: None, .. } => {}
        }
    }

    fn put(&mut self, record: RecordId, message: (Arc<Message>, QoS)) {
        if self.kept.is_empty() {
            self.first = record.get();
        }
        let at = (record.get() - self.first) as usize;
        while self.kept.len() <= at {
            self.kept.push_back(None);
        }
        self.kept[at] = Some(message);
    }

    fn forget(&mut self, record: RecordId) {
        self.kept[(record.get() - self.first) as usize] = None;
        while let Some(None) = self.kept.front() {
            self.kept.pop_front();
            self.first += 1;
        }
    }

    /// What a session wants back.
    pub(crate) fn fetch(&self, fetch: Fetch) -> Fetched {
        let Fetch { slot, session, ticket, wanted } = fetch;
        let wanted = match wanted {
            Wanted::Messages(wanted) => wanted,
            Wanted::Run(_) => panic!("no bench queues so much that it is spilled"),
        };
        let found = wanted.into_iter().map(|(number, record)| {
            let kept = self.kept.get((record.get() - self.first) as usize).and_then(Option::as_ref);
            (number, kept.map(|(message, qos)| outgoing(message, *qos, record)))
        });
        Fetched { slot, session, ticket, found: Found::Messages(found.collect()) }
    }
}

fn outgoing(message: &Arc<Message>, qos: QoS, record: RecordId) -> Outgoing {
    let (message, record) = (message.clone(), Some(record));
    Outgoing { message, qos, retain: false, subscription_ids: None, share: None, record }
}
