//! What happened, line by line, for who has to find out why a seed fails.

use std::collections::VecDeque;

use super::{client::Client, event::Event, facts::Facts, world::START_MILLIS};

/// Lines that are kept.
const LINES_MAX: usize = 2000;

/// The last lines of a run; nothing is written unless somebody wants to read it.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    lines: Option<VecDeque<String>>,
}

impl Trace {
    pub(crate) fn on() -> Trace {
        Trace { lines: Some(VecDeque::new()) }
    }

    pub(crate) fn line(&mut self, now: u64, text: impl FnOnce() -> String) {
        let Some(lines) = &mut self.lines else { return };
        if lines.len() == LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(format!("{:>9} ms  {}", now - START_MILLIS, text()));
    }

    pub(crate) fn event(&mut self, now: u64, event: &Event, facts: &Facts, clients: &[Client]) {
        self.line(now, || describe(event, facts, clients));
    }

    /// The last lines.
    pub(crate) fn tail(&self, lines_max: usize) -> Vec<&str> {
        let lines = self.lines.iter().flatten();
        let skipped = self.lines.as_ref().map_or(0, VecDeque::len).saturating_sub(lines_max);
        lines.skip(skipped).map(String::as_str).collect()
    }
}

fn describe(event: &Event, facts: &Facts, clients: &[Client]) -> String {
    let name = |client: &usize| clients.get(*client).map_or("?", |client| client.id.as_str()).to_owned();
    let message = |message: usize| match facts.messages.get(message) {
        Some(what) => {
            let retain = if what.retain { ", RETAIN" } else { "" };
            format!("message {message} (QoS {}{retain}, {})", what.qos as u8, what.topic)
        }
        None => "a message without a name".into(),
    };
    match event {
        Event::Connecting { client, wire, clean } => {
            let clean = if *clean { ", wants a new session" } else { "" };
            format!("{}: CONNECT on connection {wire}{clean}", name(client))
        }
        Event::Opened { client, wire, present, will, .. } => {
            let session = if *present { "goes on with the session" } else { "makes a session" };
            let will = will.map_or(String::new(), |will| format!(", will {}", message(will.message)));
            format!("broker: {session} of {} on connection {wire}{will}", name(client))
        }
        Event::Connected { client, present, .. } => {
            format!("{}: CONNACK, session present {present}", name(client))
        }
        Event::Closed { client, wire, is_revoked } => {
            let will = if *is_revoked { ", its will is revoked" } else { "" };
            format!("broker: connection {wire} of {} is closed{will}", name(client))
        }
        Event::Lost { client, wire } => format!("{}: connection {wire} is gone", name(client)),
        Event::Sent { message: number, is_again } => {
            let publisher = facts.messages[*number].publisher;
            let again = if *is_again { " again" } else { "" };
            format!("{}: PUBLISH{again}: {}", name(&publisher), message(*number))
        }
        Event::Accepted { message: number } => format!("accepted: {}", message(*number)),
        Event::Refused { message: number } => format!("refused: {}", message(*number)),
        Event::Subscribing { client, interest } => {
            let options = format!("QoS {}, no local {}", interest.qos as u8, interest.no_local);
            format!("{}: SUBSCRIBE {} ({options}, id {:?})", name(client), interest.filter, interest.id)
        }
        Event::Subscribed { client, filter, is_granted } => {
            format!("{}: SUBACK {filter}, granted {is_granted}", name(client))
        }
        Event::Unsubscribing { client, filter } => format!("{}: UNSUBSCRIBE {filter}", name(client)),
        Event::Unsubscribed { client, filter } => format!("{}: UNSUBACK {filter}", name(client)),
        Event::Delivered(delivered) => {
            let what = match delivered.message {
                Some(number) => message(number),
                None => format!("{} bytes on {}", delivered.payload.len(), delivered.topic),
            };
            let flags = [
                (delivered.dup, " DUP"),
                (delivered.retain, " RETAIN"),
                (delivered.is_repetition, " dropped"),
            ];
            let flags: String = flags.iter().filter(|(is_set, _)| *is_set).map(|(_, flag)| *flag).collect();
            let id = delivered.id.map_or(String::new(), |id| format!(" id {id}"));
            let client = name(&delivered.client);
            format!("{client}: received with QoS {}{id}{flags}: {what}", delivered.qos as u8)
        }
        Event::Freed { client, id, .. } => format!("{}: done with id {id}", name(client)),
        Event::Crashed { .. } => "the broker ends without notice".into(),
        Event::Started => "the broker is there".into(),
    }
}
