//! The state machines of a session as tables: every state with every event, and what comes of it.
//!
//! Each cell is a broker of its own that is brought into the state by what clients do, and then gets the event.
//! The tables are snapshots, to be read when they change: `INSTA_UPDATE=always cargo test --test spec states`
//! writes them anew.

mod inbound;
mod outbound;
mod presence;

use dunlin::{
    codec::{QoS, Version},
    session::Session,
};

use crate::{
    table::table,
    world::{Client, Got, Setup, World},
};

/// The client whose session it is about.
const CLIENT: &str = "c";

/// A broker in some state.
struct Scene {
    world: World,
    /// The connection of the client, or its last one.
    client: Client,
    /// How it connects again.
    setup: Setup,
    /// Gets what is published to all.
    watcher: Option<Client>,
    /// Messages that were published to the client.
    messages: Vec<QoS>,
    /// Whether commits wait for the event.
    holds_commits: bool,
}

/// Clean Start, or Clean Session.
#[derive(Clone, Copy, PartialEq)]
enum Clean {
    Yes,
    No,
}

/// A state: its name, and how a broker gets there. `None` if the version has no such state.
type State = (&'static str, fn(Version) -> Option<Scene>);

/// An event: its name, when it can happen, and what it does.
type Event = (&'static str, When, fn(&mut Scene));

#[derive(Clone, Copy, PartialEq)]
enum When {
    Always,
    /// The client is connected.
    Connected,
    /// The client is connected, and speaks MQTT 5.
    ConnectedV5,
    /// The client is connected, and a message waits for the one before it.
    Behind,
    /// There is a store to start again from.
    Stored,
    /// A commit is held.
    Uncommitted,
}

impl Scene {
    /// A broker to which the client has connected.
    fn new(world: World, setup: Setup) -> Scene {
        let client = world.connect(setup.clone());
        Scene { world, client, setup, watcher: None, messages: Vec::new(), holds_commits: false }
    }

    fn can_happen(&self, when: When) -> bool {
        match when {
            When::Always => true,
            When::Connected => !self.client.is_closed(),
            When::ConnectedV5 => !self.client.is_closed() && self.setup.version.is_v5(),
            When::Behind => !self.client.is_closed() && self.messages.len() > 1,
            When::Stored => self.world.shared().parking.is_some(),
            When::Uncommitted => self.holds_commits,
        }
    }

    fn hold_commits(&mut self) {
        self.world.hold_commits();
        self.holds_commits = true;
    }

    /// The client connects again, and goes on with its session if it may.
    fn connect(&mut self, clean: Clean) {
        let setup = Setup { clean: clean == Clean::Yes, ..self.setup.clone() };
        self.client = self.world.send_connect(setup);
    }

    /// Forgets what was received on the way to the state.
    fn forget(&self) {
        self.client.recv_all();
        if let Some(watcher) = &self.watcher {
            watcher.recv_all();
        }
    }
}

/// The table of all states and events. `describe` tells the state in which an event leaves the session.
fn table_of(states: &[State], events: &[Event], describe: impl Fn(&Scene) -> String) -> String {
    let state_names: Vec<_> = states.iter().map(|(name, _)| *name).collect();
    let event_names: Vec<_> = events.iter().map(|(name, ..)| *name).collect();
    table(&state_names, &event_names, |state, event, version| {
        let mut scene = states[state].1(version)?;
        let (_, when, happen) = events[event];
        if !scene.can_happen(when) {
            return None;
        }
        scene.forget();
        let (before, was_closed) = (scene.client.clone(), scene.client.is_closed());
        happen(&mut scene);
        let mut parts = if was_closed { Vec::new() } else { shown(&before) };
        if !scene.client.is(&before) {
            parts.extend(shown(&scene.client).into_iter().map(|part| format!("new: {part}")));
        }
        if let Some(watcher) = &scene.watcher {
            parts
                .extend(watcher.recv_payloads().into_iter().map(|payload| format!("others get '{payload}'")));
        }
        if parts.is_empty() {
            parts.push("nothing".into());
        }
        Some(format!("{} → {}", parts.join(", "), describe(&scene)))
    })
}

/// The packets that a connection received, and whether it is closed.
fn shown(client: &Client) -> Vec<String> {
    let mut parts: Vec<String> = client.recv_all().iter().map(packet).collect();
    if client.is_closed() {
        parts.push("closed".into());
    }
    parts
}

fn packet(got: &Got) -> String {
    match got {
        Got::ConnAck { session_present, code, .. } => {
            let present = if *session_present { " with the session" } else { "" };
            format!("CONNACK 0x{code:02X}{present}")
        }
        Got::Publish(message) => {
            let dup = if message.dup { " DUP" } else { "" };
            format!("PUBLISH {}{dup} QoS {}", message.id.unwrap_or(0), message.qos as u8)
        }
        Got::Ack { kind, id, code, .. } => format!("{} {id} 0x{code:02X}", kind.name()),
        Got::SubAck { codes, .. } => format!("SUBACK {codes:02X?}"),
        Got::UnsubAck { .. } => "UNSUBACK".into(),
        Got::PingResp => "PINGRESP".into(),
        Got::Disconnect { code, .. } => format!("DISCONNECT 0x{code:02X}"),
        Got::Auth { code } => format!("AUTH 0x{code:02X}"),
    }
}

fn presence(session: &Session) -> &'static str {
    if session.link().is_some() { "connected" } else { "offline" }
}
