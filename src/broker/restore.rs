//! What the store gives back when the broker starts.

use std::sync::Arc;

use crate::{
    session::{
        Inbound, Outbound, Replay, Session, SessionHandle, SessionState, StoredPresence, StoredSession,
    },
    time::Timestamp,
};

use super::Shard;

/// Sessions whose subscriptions go into the router at a time: shards that start together wait for each other.
const CHUNK: usize = 256;

impl Shard {
    /// Takes over sessions from the store. `lost_at` is when a connection was lost that the broker did not see
    /// the end of.
    ///
    /// Sessions of all shards must be restored before any shard is stepped: a will that is due goes to all
    /// of them.
    pub fn restore(&mut self, sessions: Vec<StoredSession>, lost_at: Timestamp) {
        self.sessions.reserve(sessions.len());
        self.by_client.reserve(sessions.len());
        let mut slots = Vec::with_capacity(CHUNK);
        for stored in sessions {
            slots.push(self.restore_session(stored, lost_at));
            if slots.len() == CHUNK {
                self.subscribe_restored(&slots);
                slots.clear();
            }
        }
        self.subscribe_restored(&slots);
    }

    fn subscribe_restored(&self, slots: &[u32]) {
        let sessions = slots.iter().map(|slot| &self.sessions[*slot as usize]);
        self.shared.router.subscribe_all(sessions.flat_map(|session| {
            let subscriptions = session.subscriptions.iter();
            subscriptions.map(|(filter, subscription)| (filter, &session.handle, *subscription))
        }));
    }

    fn restore_session(&mut self, mut stored: StoredSession, lost_at: Timestamp) -> u32 {
        let entry = self.sessions.vacant_entry();
        let slot = entry.key() as u32;
        let handle = Arc::new(SessionHandle::new(self.index, slot, stored.id, stored.client_id.clone()));
        let messages = stored.messages.len() + stored.shared.len();
        let bytes = stored.messages.size_bytes() as usize
            + stored.shared.iter().map(|(_, outgoing)| outgoing.message.size_bytes()).sum::<usize>();
        handle.restore(stored.next_number, messages, bytes);
        handle.set_owner(stored.owner.as_ref());
        let counters = &self.shared.counters[usize::from(self.index)];
        counters.queued_messages.add(messages as u64);
        counters.queued_bytes.add(bytes as u64);
        counters.deliveries_accepted.add(messages as u64);
        counters.sessions.add(1);
        let (since, was_connected) = match stored.presence {
            StoredPresence::Connected { .. } => (lost_at, true),
            StoredPresence::Detached { since, .. } => (since, false),
        };
        let replays = stored.subscriptions.iter().filter(|(_, stored)| stored.has_replay);
        let replays = replays
            .map(|(filter, stored)| Replay {
                filter: filter.clone(),
                subscription: stored.subscription,
                from: String::new(),
                is_stored: true,
            })
            .collect();
        let subscriptions = stored
            .subscriptions
            .iter()
            .map(|(filter, stored)| (filter.clone(), stored.subscription))
            .collect();
        let mut session = Session {
            state: SessionState::Detached(since),
            expiry_secs: stored.expiry_secs,
            outbound: Outbound::restore(&mut stored),
            inbound: Inbound::restore(&stored.unreleased),
            will: stored.will,
            shares: stored.subscriptions.iter().filter(|(filter, _)| filter.share_name().is_some()).count(),
            replays,
            subscriptions,
            ..Session::new(handle, since)
        };
        session.outbound.count_in(&self.totals);
        self.by_client.insert(session.client_id().clone(), slot);
        entry.insert(session);
        self.spill(slot);
        self.schedule(slot);
        if was_connected {
            // The next start must not take it for connected until then.
            self.journal_session_soon(slot);
        }
        slot
    }
}
