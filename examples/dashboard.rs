//! A dashboard in the terminal: a table of topics with their last message, updated in place.
//!
//! ```sh
//! cargo run --example dashboard -- [HOST [PORT [FILTER…]]]
//! ```
//!
//! Without filters it watches `sensors/#`, which is where the example `sensor` publishes. `'$SYS/#'` shows what
//! the broker tells of itself.

use std::{collections::BTreeMap, env, error::Error, io, io::Write, time::Duration};

use rumqttc::v5::{
    AsyncClient, Event, EventLoop, Incoming, MqttOptions,
    mqttbytes::{
        QoS,
        v5::{Filter, Publish},
    },
};
use tokio::time::interval;

/// Time between two looks at whether there is something new to draw.
const FRAME: Duration = Duration::from_millis(200);

/// Time between two attempts to connect.
const RETRY: Duration = Duration::from_secs(2);

/// Topics that are shown; others are counted only.
const ROWS_MAX: usize = 40;

/// Characters of a topic and of a message that are shown.
const TOPIC_WIDTH: usize = 32;
const MESSAGE_WIDTH: usize = 64;

struct Table {
    status: String,
    /// Topics with their last message and how many there were.
    rows: BTreeMap<String, (String, u64)>,
    hidden: u64,
    is_changed: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let host = arguments.next().unwrap_or_else(|| "127.0.0.1".into());
    let port = arguments.next().map_or(Ok(1883), |port| port.parse())?;
    let mut filters: Vec<String> = arguments.collect();
    if filters.is_empty() {
        filters.push("sensors/#".into());
    }
    let mut options = MqttOptions::new(format!("dashboard-{}", std::process::id()), host, port);
    options.set_outgoing_inflight_upper_limit(10);
    let (client, mut events) = AsyncClient::new(options, 10);
    let mut table = Table { rows: BTreeMap::new(), hidden: 0, status: "connecting".into(), is_changed: true };

    let (changes, mut changed) = tokio::sync::mpsc::channel(100);
    let listen = async {
        loop {
            let change = listen(&mut events, &client, &filters).await;
            if changes.send(change).await.is_err() {
                return;
            }
        }
    };
    let show = async {
        let mut frames = interval(FRAME);
        loop {
            tokio::select! {
                Some(change) = changed.recv() => table.apply(change),
                _ = frames.tick() => table.draw()?,
                _ = tokio::signal::ctrl_c() => return io::Result::Ok(()),
            }
        }
    };
    tokio::select! {
        () = listen => Ok(()),
        result = show => Ok(result?),
    }
}

/// Something to show.
enum Change {
    Message(Publish),
    Status(String),
}

/// Waits for something to show. Connects again when the connection is lost.
async fn listen(events: &mut EventLoop, client: &AsyncClient, filters: &[String]) -> Change {
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Incoming::Publish(publish))) => return Change::Message(publish),
            Ok(Event::Incoming(Incoming::ConnAck(_))) => {
                let wanted = filters.iter().map(|filter| Filter::new(filter, QoS::AtLeastOnce));
                let status = match client.try_subscribe_many(wanted) {
                    Ok(()) => format!("connected, watching {}", filters.join(" ")),
                    Err(error) => format!("cannot subscribe: {error}"),
                };
                return Change::Status(status);
            }
            Ok(Event::Incoming(_) | Event::Outgoing(_)) => {}
            Err(error) => {
                let mut retry = interval(RETRY);
                retry.tick().await;
                retry.tick().await;
                return Change::Status(format!("{error}; trying again"));
            }
        }
    }
}

impl Table {
    fn apply(&mut self, change: Change) {
        self.is_changed = true;
        match change {
            Change::Status(status) => self.status = status,
            Change::Message(publish) => {
                let topic = String::from_utf8_lossy(&publish.topic).into_owned();
                if self.rows.len() >= ROWS_MAX && !self.rows.contains_key(&topic) {
                    self.hidden += 1;
                    return;
                }
                let (message, count) = self.rows.entry(topic).or_default();
                *message = printable(&publish.payload, MESSAGE_WIDTH);
                *count += 1;
            }
        }
    }

    /// Draws over what was drawn before.
    fn draw(&mut self) -> io::Result<()> {
        if !std::mem::take(&mut self.is_changed) {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        // Home, then each line clears what it replaces, and the rest of the screen at the end.
        write!(out, "\x1b[H\x1b[7m {:<100}\x1b[0m\x1b[K\r\n", printable(self.status.as_bytes(), 100))?;
        for (topic, (message, count)) in &self.rows {
            let topic = printable(topic.as_bytes(), TOPIC_WIDTH);
            write!(out, "{topic:<TOPIC_WIDTH$} {count:>8}  {message}\x1b[K\r\n")?;
        }
        write!(out, "{} topics, {} messages of others\x1b[J", self.rows.len(), self.hidden)?;
        out.flush()
    }
}

/// What a terminal can show of `bytes`: no control characters, so that no message moves the cursor.
fn printable(bytes: &[u8], width: usize) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().take(width).map(|c| if c.is_control() { '·' } else { c }).collect()
}
