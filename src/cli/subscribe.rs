//! `dunlin sub`: prints messages until told to stop.
#![expect(clippy::disallowed_methods, reason = "waits by the clock before it connects again")]

use std::{
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

use clap::Args;
use time::OffsetDateTime;
use tokio::time as clock;

use super::{
    client::{
        Connection, Failure, QoS,
        link::{Event, Events, Message, Requests, Subscription},
        parse_filter, parse_qos,
        property::{Properties, Stage},
    },
    complain,
    format::Format,
};

/// The pause before a lost connection is made anew.
const RECONNECT_PAUSE: Duration = Duration::from_secs(1);

/// How long the broker may take to close the connection after our DISCONNECT.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
#[command(
    disable_help_flag = true,
    after_help = "\
Examples:
  dunlin sub -t 'sensors/#' -v                       Payloads with their topics
  dunlin sub -t 'sensors/#' -F json | jq .payload    An object for each message
  dunlin sub -t a -t b -C 1 -W 5                     One message, five seconds at most
  dunlin sub -t jobs -i worker -c -q 1               Keep the session while away
  dunlin sub -t '$share/workers/jobs' -q 1           Share the work with others

A connection that is lost is made anew. A message is acknowledged after it was printed.
Exit codes: 0 done, 1 failure or refusal, 2 usage, 27 timeout."
)]
pub(super) struct Arguments {
    /// A topic filter, with + and # as wildcards; repeatable
    #[arg(short, long, required = true, value_parser = parse_filter)]
    topic: Vec<String>,
    /// Quality of service: 0, 1 or 2
    #[arg(short, long, default_value = "0", value_parser = parse_qos)]
    qos: QoS,
    /// End after so many messages
    #[arg(short = 'C', long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Print the topic before the payload
    #[arg(short, long)]
    verbose: bool,
    /// Print no newline after a payload
    #[arg(short = 'N', long)]
    no_eol: bool,
    /// Leave out messages that were retained before
    #[arg(short = 'R', long)]
    no_retained: bool,
    /// Print what was retained as retained, even when it arrives as it is published (MQTT 5)
    #[arg(long)]
    retain_as_published: bool,
    /// End when the broker has acknowledged the subscriptions
    #[arg(short = 'E', long)]
    exit_after_subscribe: bool,
    /// `json` for one JSON object a line, or a text with fields such as '%t %q %p'
    #[arg(short = 'F', long, value_name = "FORMAT", value_parser = Format::parse, conflicts_with_all = ["verbose", "no_eol"])]
    format: Option<Format>,
    #[command(flatten)]
    connection: Connection,
}

pub(super) fn main(arguments: Arguments) -> ExitCode {
    let Arguments { topic, qos, retain_as_published, connection, .. } = arguments;
    let format = arguments.format;
    let format = format.unwrap_or(Format::Payload { topic: arguments.verbose, newline: !arguments.no_eol });
    connection.run(Stage::Subscribe, async |requests, events, properties| {
        let session = Session {
            subscription: Subscription { filters: topic, qos, retain_as_published },
            properties,
            format,
            no_retained: arguments.no_retained,
            exit_after_subscribe: arguments.exit_after_subscribe,
            remaining: arguments.count,
            requests,
        };
        session.drive(events).await
    })
}

struct Session {
    requests: Requests,
    subscription: Subscription,
    properties: Properties,
    format: Format,
    no_retained: bool,
    exit_after_subscribe: bool,
    /// Messages to print before the end.
    remaining: Option<u64>,
}

/// Whether the run goes on.
enum Next {
    More,
    Done,
}

impl Session {
    async fn drive(mut self, mut events: Events) -> Result<(), Failure> {
        let mut subscribed = false;
        loop {
            let next = match events.poll().await {
                Ok(Event::Connected { session_present }) => {
                    // A session that is still there has its subscriptions, and asking for them again would
                    // bring what is retained again.
                    if !(subscribed && session_present) {
                        self.requests.subscribe(&self.subscription, &self.properties)?;
                    }
                    Next::More
                }
                Ok(Event::Subscribed { refusals }) => {
                    subscribed = true;
                    self.subscribed(&refusals)?
                }
                Ok(Event::Message(message)) => self.message(&message)?,
                // Asked for from outside, by a signal or the timeout.
                Ok(Event::Disconnected) => return closed(&mut events).await,
                Ok(Event::Sent | Event::Acknowledged { .. } | Event::Other) => Next::More,
                // Who never got in has a wrong address or no right to be there; trying again would hide that.
                Err(failure) if !subscribed => return Err(failure),
                Err(failure) => {
                    complain(format_args!("{}; connecting again", failure.message));
                    clock::sleep(RECONNECT_PAUSE).await;
                    Next::More
                }
            };
            if let Next::Done = next {
                return self.leave(events).await;
            }
        }
    }

    fn subscribed(&self, refusals: &[Option<String>]) -> Result<Next, Failure> {
        let refused = self.subscription.filters.iter().zip(refusals);
        let refused = refused.filter_map(|(filter, refusal)| Some((filter, refusal.as_ref()?)));
        for (filter, reason) in refused.clone() {
            complain(format_args!("the broker refuses the subscription to {filter}: {reason}"));
        }
        if refused.count() == refusals.len() {
            return Err(Failure::new("no subscription was accepted"));
        }
        Ok(if self.exit_after_subscribe { Next::Done } else { Next::More })
    }

    /// Prints and acknowledges a message.
    fn message(&mut self, message: &Message) -> Result<Next, Failure> {
        let wanted = !(message.retain && self.no_retained);
        // rumqttc may hold more messages than were asked for; those stay unacknowledged, and so with the broker.
        if wanted && let Err(error) = self.print(message) {
            return match error.kind() {
                // The reader has seen enough, as with `head`.
                io::ErrorKind::BrokenPipe => Ok(Next::Done),
                _ => Err(Failure::new(format!("standard output: {error}"))),
            };
        }
        if message.qos > 0 {
            self.requests.acknowledge(message)?;
        }
        let remaining = self.remaining.as_mut().filter(|_| wanted);
        Ok(match remaining {
            Some(remaining) => {
                *remaining -= 1;
                if *remaining == 0 { Next::Done } else { Next::More }
            }
            None => Next::More,
        })
    }

    fn print(&self, message: &Message) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(&self.format.render(message, OffsetDateTime::now_utc()))?;
        stdout.flush()
    }

    /// Sends the last acknowledgements and says goodbye.
    async fn leave(&self, mut events: Events) -> Result<(), Failure> {
        self.requests.disconnect()?;
        closed(&mut events).await
    }
}

/// Waits until the broker has read all and closes.
async fn closed(events: &mut Events) -> Result<(), Failure> {
    let closed = async { while events.poll().await.is_ok() {} };
    let _ = clock::timeout(CLOSE_TIMEOUT, closed).await;
    Ok(())
}
