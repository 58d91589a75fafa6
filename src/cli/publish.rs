//! `dunlin pub`: publishes messages and ends when each has been delivered to the broker.
#![expect(
    clippy::disallowed_methods,
    reason = "reads standard input on a thread of its own, waits by the clock"
)]

use std::{
    cell::Cell,
    future, io,
    io::{BufRead, Read},
    path::PathBuf,
    process::ExitCode,
    thread,
    time::Duration,
};

use clap::Args;
use tokio::{sync::mpsc, time};

use super::client::{
    Connection, Failure, QoS,
    link::{Event, Events, Publication, Requests},
    parse_qos, parse_topic,
    property::Stage,
};

/// Lines of standard input that are read ahead.
const LINES_MAX: usize = 16;

/// How long the broker may take to close the connection after our DISCONNECT. It tells us that all was read;
/// a broker that never closes has still read all that it acknowledged.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
#[command(
    disable_help_flag = true,
    after_help = "\
Examples:
  dunlin pub -t sensors/1 -m 21.5
  dunlin pub -t sensors/1 -m 21.5 -q 1 -r            Retained, QoS 1
  dunlin pub -h broker.lan --cafile ca.pem -t a -f photo.jpg
  tail -f log | dunlin pub -t log -l                 A message for each line
  dunlin pub -t a -m '{}' -D content-type application/json -D user-property unit C

Exit codes: 0 all messages delivered (QoS 1 and 2: acknowledged), 1 failure or refusal, 2 usage, 27 timeout."
)]
pub(super) struct Arguments {
    /// The topic
    #[arg(short, long, value_parser = parse_topic)]
    topic: String,
    #[command(flatten)]
    source: Source,
    /// Quality of service: 0, 1 or 2
    #[arg(short, long, default_value = "0", value_parser = parse_qos)]
    qos: QoS,
    /// Retain the message
    #[arg(short, long)]
    retain: bool,
    #[command(flatten)]
    connection: Connection,
}

/// What is published.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Source {
    /// Publish this message
    #[arg(short, long, allow_hyphen_values = true)]
    message: Option<String>,
    /// Publish the content of this file
    #[arg(short, long)]
    file: Option<PathBuf>,
    /// Publish each line of standard input as a message
    #[arg(short = 'l', long)]
    stdin_line: bool,
    /// Publish all of standard input as one message
    #[arg(short, long)]
    stdin_file: bool,
    /// Publish an empty message
    #[arg(short, long)]
    null_message: bool,
}

pub(super) fn main(arguments: Arguments) -> ExitCode {
    let Arguments { topic, source, qos, retain, connection } = arguments;
    connection.run(Stage::Publish, async |requests, events, properties| {
        let how = Publication { topic, qos, retain, properties: properties.publish };
        let session = Session { requests, progress: Progress::default() };
        // The messages are fed beside the link and not between two of its steps: a step that is given up
        // half-way would lose what it was sending.
        tokio::select! {
            result = session.drive(events) => result,
            Err(failure) = session.feed(source, &how) => Err(failure),
        }
    })
}

struct Session {
    requests: Requests,
    progress: Progress,
}

/// How far the messages are.
#[derive(Default)]
struct Progress {
    fed: Cell<u64>,
    delivered: Cell<u64>,
    all_fed: Cell<bool>,
    refused: Cell<bool>,
}

impl Session {
    /// Queues all messages, then waits for ever: the link ends the run. Only a failure ends this.
    async fn feed(&self, source: Source, how: &Publication) -> Result<(), Failure> {
        let mut payloads = source.payloads()?;
        while let Some(payload) = payloads.recv().await {
            let payload = payload.map_err(|error| Failure::new(format!("standard input: {error}")))?;
            if self.progress.refused.get() {
                return future::pending().await;
            }
            self.progress.fed.set(self.progress.fed.get() + 1);
            self.requests.publish(how, payload).await?;
        }
        self.progress.all_fed.set(true);
        self.disconnect_when_delivered()?;
        future::pending().await
    }

    /// Keeps the link going until all is delivered and the connection closed.
    async fn drive(&self, mut events: Events) -> Result<(), Failure> {
        let mut refusal = None;
        loop {
            match events.poll().await? {
                Event::Sent | Event::Acknowledged { refusal: None } => {
                    self.progress.delivered.set(self.progress.delivered.get() + 1);
                    self.disconnect_when_delivered()?;
                }
                Event::Acknowledged { refusal: Some(reason) } => {
                    // The first refusal ends the run, but not without a DISCONNECT: the will stays unsent.
                    if refusal.is_none() {
                        refusal = Some(Failure::new(format!("the broker refuses the message: {reason}")));
                        self.progress.refused.set(true);
                        self.requests.disconnect()?;
                    }
                }
                Event::Disconnected => break,
                Event::Connected { .. } | Event::Subscribed { .. } | Event::Message(_) | Event::Other => {}
            }
        }
        // The end of the connection is what is waited for, so that it is no error.
        let closed = async { while events.poll().await.is_ok() {} };
        let _ = time::timeout(CLOSE_TIMEOUT, closed).await;
        refusal.map_or(Ok(()), Err)
    }

    fn disconnect_when_delivered(&self) -> Result<(), Failure> {
        let Progress { fed, delivered, all_fed, .. } = &self.progress;
        if all_fed.get() && delivered == fed { self.requests.disconnect() } else { Ok(()) }
    }
}

type Payloads = mpsc::Receiver<io::Result<Vec<u8>>>;

impl Source {
    /// The messages, one after the other.
    fn payloads(self) -> Result<Payloads, Failure> {
        let (sender, receiver) = mpsc::channel(LINES_MAX);
        if self.stdin_line {
            thread::spawn(move || {
                let mut stdin = io::stdin().lock();
                while let Some(line) = read_line(&mut stdin).transpose() {
                    if sender.blocking_send(line).is_err() {
                        break;
                    }
                }
            });
            return Ok(receiver);
        }
        let payload = match (self.file, self.message) {
            (Some(path), _) => std::fs::read(&path)
                .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?,
            (None, Some(message)) => message.into_bytes(),
            (None, None) if self.stdin_file => {
                let mut content = Vec::new();
                let read = io::stdin().read_to_end(&mut content);
                read.map_err(|error| Failure::new(format!("standard input: {error}")))?;
                content
            }
            (None, None) => Vec::new(),
        };
        sender.try_send(Ok(payload)).map_err(|error| Failure::new(error.to_string()))?;
        Ok(receiver)
    }
}

/// A line without its end. Lines are bytes: a payload need not be text.
fn read_line(reader: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    if reader.read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    Ok(Some(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bytes_and_the_last_needs_no_end() {
        let mut input: &[u8] = b"a\n\n\xff\nlast";
        let lines: Vec<Vec<u8>> = std::iter::from_fn(|| read_line(&mut input).unwrap()).collect();
        assert_eq!(lines, [&b"a"[..], b"", b"\xff", b"last"]);
    }
}
