//! A session lasts as long as it was agreed, no longer, and over a crash once its CONNACK has left.
//! `[MQTT-3.1.2-4]` `[MQTT-3.1.2-5]` `[MQTT-3.1.2-23]`

use std::collections::BTreeMap;

use super::{Check, Event, Facts};

/// What the broker must know of a client.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Session {
    /// It has none, and that went to the store at this moment.
    None { noted_at: u64 },
    /// Nobody can tell.
    Unsure,
    /// It has one with this expiry interval, whose connection ended at some moment between these two; when that went
    /// to the store, and whether the client ever knew.
    Detached { expiry_secs: u32, earliest: u64, latest: u64, noted_at: u64, is_known: bool },
    /// It has one with a connection, and its client knows since then.
    Attached { expiry_secs: u32, known_at: Option<u64> },
}

#[derive(Default)]
pub(super) struct Sessions {
    sessions: BTreeMap<usize, Session>,
    crashed_at: Option<u64>,
}

impl Session {
    /// Whether it must, or must not, be there at a moment; `None` if nobody can tell.
    fn is_there(self, now: u64) -> Option<bool> {
        match self {
            Session::None { .. } => Some(false),
            Session::Unsure => None,
            Session::Attached { expiry_secs, .. } => Some(expiry_secs > 0),
            Session::Detached { expiry_secs: u32::MAX, .. } => Some(true),
            Session::Detached { expiry_secs, earliest, latest, .. } => {
                let lasts = u64::from(expiry_secs) * 1000;
                if now < earliest + lasts {
                    Some(true)
                } else if now > latest + lasts {
                    Some(false)
                } else {
                    None
                }
            }
        }
    }
}

impl Check for Sessions {
    fn name(&self) -> &'static str {
        "sessions"
    }

    fn event(&mut self, event: &Event, facts: &Facts) -> Result<(), String> {
        let now = facts.now.as_millis();
        match event {
            Event::Opened { client, clean, present, expiry_secs, .. } => {
                let before = self.sessions.get(client).copied().unwrap_or(Session::None { noted_at: 0 });
                let expected = if *clean { Some(false) } else { before.is_there(now) };
                let after = Session::Attached { expiry_secs: *expiry_secs, known_at: None };
                self.sessions.insert(*client, after);
                if expected.is_some_and(|expected| expected != *present) {
                    return Err(format!(
                        "session present is {present} for client {client}, it was {before:?}"
                    ));
                }
            }
            Event::Connected { client, .. } => {
                if let Some(Session::Attached { known_at, .. }) = self.sessions.get_mut(client) {
                    known_at.get_or_insert(now);
                }
            }
            Event::Closed { client, .. } => {
                let before = self.sessions.get(client).copied();
                let after = match before {
                    Some(Session::Attached { expiry_secs: 0, .. }) => Session::None { noted_at: now },
                    Some(Session::Attached { expiry_secs, known_at }) => {
                        let is_known = known_at.is_some();
                        Session::Detached { expiry_secs, earliest: now, latest: now, noted_at: now, is_known }
                    }
                    _ => return Ok(()),
                };
                self.sessions.insert(*client, after);
            }
            // What a crash has made of connections goes to the store when the broker starts.
            Event::Started => {
                for session in self.sessions.values_mut() {
                    if let Session::Detached { noted_at, .. } = session
                        && self.crashed_at == Some(*noted_at)
                    {
                        *noted_at = now;
                    }
                }
            }
            Event::Crashed { unsure_since } => {
                self.crashed_at = Some(now);
                self.sessions
                    .values_mut()
                    .for_each(|session| *session = after_crash(*session, *unsure_since, now));
            }
            _ => {}
        }
        Ok(())
    }
}

fn after_crash(session: Session, unsure_since: u64, now: u64) -> Session {
    match session {
        Session::None { noted_at } if noted_at < unsure_since => session,
        // What is not on disk yet may be an end, too.
        Session::None { .. } | Session::Unsure => Session::Unsure,
        Session::Attached { known_at: None, .. } => Session::Unsure,
        Session::Attached { expiry_secs: 0, .. } => Session::None { noted_at: now },
        Session::Attached { expiry_secs, .. } => {
            Session::Detached { expiry_secs, earliest: now, latest: now, noted_at: now, is_known: true }
        }
        Session::Detached { noted_at, is_known: false, .. } if noted_at >= unsure_since => Session::Unsure,
        Session::Detached { expiry_secs, earliest, noted_at, is_known, .. } if noted_at >= unsure_since => {
            Session::Detached { expiry_secs, earliest, latest: now, noted_at: now, is_known }
        }
        detached @ Session::Detached { .. } => detached,
    }
}
