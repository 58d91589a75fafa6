//! What an administrator may want to know of a shard, and have it do.

use std::sync::Arc;

use crate::{
    message::Message,
    session::{Link, LinkId, Session},
    time::Timestamp,
};

use super::{Cause, Gate, Outputs, Shard};

/// What becomes of a message that somebody other than a client publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Whether anybody gets it.
    pub is_matched: bool,
    /// Whether it waits for a commit: its ticket is in [`Outputs::kept`] when that is done. Otherwise nothing of it is
    /// kept, or nothing has to be.
    pub is_pending: bool,
}

impl Shard {
    /// Shows some sessions with their connections, those from a place on. Returns the place to go on from, if there
    /// may be more: what is asked for takes time that clients wait.
    pub fn survey(
        &self,
        from: usize,
        sessions_max: usize,
        mut look: impl FnMut(&Session, Option<&Link>),
    ) -> Option<usize> {
        let end = self.sessions.capacity();
        let upto = from.saturating_add(sessions_max).min(end);
        for session in (from..upto).filter_map(|slot| self.sessions.get(slot)) {
            look(session, session.link().and_then(|id| self.link(id)));
        }
        (upto < end).then_some(upto)
    }

    /// A session with its connection.
    pub fn client(&self, client_id: &str) -> Option<(&Session, Option<&Link>)> {
        let session = self.session(client_id)?;
        Some((session, session.link().and_then(|id| self.link(id))))
    }

    /// QoS 1 and 2 messages that a client was sent and has not acknowledged.
    pub fn in_flight(&self, session: &Session) -> usize {
        session.outbound.inflight()
    }

    /// Ends a session with all that it has, and its connection. Whether there was one.
    pub fn delete_session(
        &mut self,
        now: Timestamp,
        client_id: &str,
        why: &Arc<str>,
        out: &mut Outputs,
    ) -> bool {
        let Some(slot) = self.by_client.get(client_id).copied() else { return false };
        let link: Option<LinkId> = self.sessions[slot as usize].link();
        if let Some(id) = link {
            self.close(now, id, Cause::Kicked { why: why.clone() }, out);
        }
        // With its connection some sessions end by themselves.
        if self.by_client.get(client_id) == Some(&slot) {
            self.end_session(now, slot, out);
        }
        self.end_turn(now, out);
        true
    }

    /// Publishes a message for somebody who is no client, and whom no rule binds. It is kept as a client's is.
    pub fn publish_for(
        &mut self,
        now: Timestamp,
        message: Message,
        ticket: u64,
        out: &mut Outputs,
    ) -> Published {
        let published = match self.publish_own(now, message, out) {
            None => Published { is_matched: false, is_pending: false },
            Some((is_matched, gate)) => {
                let gate = gate.filter(|commit| *commit > self.journal.committed());
                if let Some(commit) = gate {
                    self.journal.wait(commit, Gate::Tell(ticket));
                }
                Published { is_matched, is_pending: gate.is_some() }
            }
        };
        self.end_turn(now, out);
        published
    }
}
