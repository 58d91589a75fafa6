//! `dunlin bench`: puts load on a broker and measures what it does with it.
//!
//! Threads with a runtime of their own share the connections (`lane`). A connection is a state machine (`role`,
//! `publisher`, `subscriber`) that is stepped when its socket or its schedule has something for it: all packets of a
//! read are handled together, and all that is due is written together. What is counted on a thread stays on it
//! (`tally`) but for a few sums, by which the run is led from phase to phase (`run`).

mod account;
mod connection;
mod fault;
mod lane;
mod load;
mod options;
mod pacer;
mod payload;
mod publisher;
mod report;
mod role;
mod run;
mod schedule;
mod subscriber;
mod tally;
mod window;

use std::{
    hash::{BuildHasher, RandomState},
    process::ExitCode,
};

use clap::{Args, Subcommand};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use self::{
    load::{Connecting, Layout, Load, Mode, Pace, Pattern},
    options::{CLIENTS_MAX, Common, Messages, Times, nanoseconds, parse_rate, parse_secs},
    payload::{Content, Manner, Stamp},
    report::Report,
};
use super::{FAILURE, client::Failure, complain, print};
use crate::{
    codec::QoS,
    topic::{TopicFilter, TopicLimits, TopicName},
};

/// What a run measures if nothing is said.
const DURATION_SECS: f64 = 10.0;
/// What is connected at a time if nothing is said.
const CONNECT_AT_ONCE: u32 = 100;
/// Streams from a publisher to a subscriber that are accounted for.
const STREAMS_MAX: u64 = 10_000_000;
/// Files that a process has open besides its connections, with some to spare.
const OTHER_FILES: u64 = 64;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dunlin bench latency --rate 20000 --publishers 50    End-to-end latency at 20,000 messages a second
  dunlin bench latency -q 1 --layout fan-in            Throughput of QoS 1 from 50 publishers to one subscriber
  dunlin bench connect -n 5000 --rate 1000 --hold 10   1000 connections a second, held for 10 s
  dunlin bench pub -n 10 -t 'sensors/%i' --count 1000000
  dunlin bench sub -n 4 -t 'sensors/#' --json

Exit codes: 0 as it should be; 1 a message lost (QoS 1, 2), twice (QoS 2), out of order or refused, a connection \
failed or lost; 2 usage.")]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Publish, as fast as acknowledgements come or at a rate
    Pub(PubArguments),
    /// Subscribe and count what arrives
    Sub(SubArguments),
    /// Connect and stay
    Connect(ConnectArguments),
    /// Publish and subscribe: latency at a rate, or throughput; nothing lost, twice or out of order?
    Latency(LatencyArguments),
}

#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
struct PubArguments {
    /// Publishers
    #[arg(short = 'n', long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=CLIENTS_MAX))]
    clients: u32,
    /// The topic; %i stands for the number of the client
    #[arg(short, long, default_value = "bench/%i")]
    topic: String,
    /// Retain the messages
    #[arg(long)]
    retain: bool,
    #[command(flatten)]
    messages: Messages,
    #[command(flatten)]
    times: Times,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
struct SubArguments {
    /// Subscribers
    #[arg(short = 'n', long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=CLIENTS_MAX))]
    clients: u32,
    /// The topic filter; %i stands for the number of the client
    #[arg(short, long, default_value = "bench/%i")]
    topic: String,
    /// Quality of service: 0, 1 or 2
    #[arg(short, long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(..=2))]
    qos: u8,
    /// Seconds to measure [default: until Ctrl-C]
    #[arg(long, value_name = "SECS", value_parser = parse_secs)]
    duration: Option<f64>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
struct ConnectArguments {
    /// Connections
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=CLIENTS_MAX))]
    clients: u32,
    /// Connections a second; without it as many as --at-once allows
    #[arg(short, long, value_name = "PER_SEC", value_parser = parse_rate, conflicts_with = "at_once")]
    rate: Option<f64>,
    /// Connections in the making at a time
    #[arg(long, value_name = "N", visible_alias = "concurrency", default_value_t = CONNECT_AT_ONCE, value_parser = clap::value_parser!(u32).range(1..))]
    at_once: u32,
    /// Seconds that all stay connected
    #[arg(long, value_name = "SECS", default_value = "1", value_parser = parse_secs)]
    hold: f64,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
struct LatencyArguments {
    /// Who gets what from whom
    #[arg(long, default_value = "pairs")]
    layout: Layout,
    /// Publishers [default: 50; fan-out 1]
    #[arg(long, value_name = "N", visible_alias = "pubs", value_parser = clap::value_parser!(u32).range(1..=CLIENTS_MAX))]
    publishers: Option<u32>,
    /// Subscribers [default: 50; fan-in 1; pairs: as many as publishers]
    #[arg(short, long, value_name = "N", visible_alias = "subs", value_parser = clap::value_parser!(u32).range(1..=CLIENTS_MAX))]
    subscribers: Option<u32>,
    /// The topic; %i stands for the number of the publisher
    #[arg(short, long, default_value = "bench/%i")]
    topic: String,
    #[command(flatten)]
    messages: Messages,
    #[command(flatten)]
    times: Times,
    #[command(flatten)]
    common: Common,
}

/// Runs the command.
pub(super) fn main(arguments: Arguments) -> ExitCode {
    let planned = match arguments.command {
        Command::Pub(arguments) => arguments.plan(),
        Command::Sub(arguments) => arguments.plan(),
        Command::Connect(arguments) => arguments.plan(),
        Command::Latency(arguments) => arguments.plan(),
    };
    match planned.and_then(|(load, common)| measure(&load, &common)) {
        Ok(code) => code,
        Err(failure) => {
            complain(failure.message);
            failure.code.into()
        }
    }
}

/// Runs what was planned and tells what came of it.
fn measure(load: &Load, common: &Common) -> Result<ExitCode, Failure> {
    let broker = common.broker()?;
    raise_descriptor_limit(load.clients());
    let version = broker.target.version;
    let outcome = run::run(load.clone(), broker.target)?;
    let report = Report::new(load, version, broker.shown, broker.tls, &outcome);
    let text = if common.tool.json {
        let json = serde_json::to_string(&report);
        json.map_err(|error| Failure::new(error.to_string()))? + "\n"
    } else {
        report.text()
    };
    let printed = print(text);
    report.problems().iter().for_each(complain);
    Ok(if report.is_success() { printed } else { FAILURE.into() })
}

fn raise_descriptor_limit(clients: u32) {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let allowed = if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    let wanted = u64::from(clients) + OTHER_FILES;
    // None means no limit.
    if let Some(allowed) = allowed.filter(|&allowed| allowed < wanted) {
        complain(format_args!(
            "the system allows {allowed} open files, {wanted} are needed: see `ulimit -n`"
        ));
    }
}

/// What all plans begin with.
fn plan(mode: Mode, topic: &str, common: &Common, content_bytes: usize) -> Load {
    // Random, so that two runs are told apart even if they have the same seed.
    let random = RandomState::new();
    let run = random.hash_one(0) as u32;
    let seed = common.tool.seed.unwrap_or_else(|| random.hash_one(1) >> 16);
    Load {
        mode,
        publishers: 0,
        subscribers: 0,
        holders: 0,
        layout: Layout::Pairs,
        topic: Pattern::new(topic),
        id_prefix: common.id_prefix(run),
        content: Content::new(run, content_bytes, seed),
        manner: Manner { qos: QoS::AtMostOnce, retain: false },
        pace: Pace::Closed,
        messages_max: u64::MAX,
        window_messages_max: 1,
        warmup_ns: 0,
        duration_ns: u64::MAX,
        connecting: Connecting::AtOnce(CONNECT_AT_ONCE),
        seed,
        threads: 1,
    }
}

impl Load {
    fn with_messages(mut self, messages: &Messages, times: &Times) -> Self {
        self.manner.qos = messages.qos;
        if messages.rate > 0.0 {
            self.pace = Pace::Open { rate_per_sec: messages.rate, arrivals: messages.arrivals };
        }
        self.messages_max = messages.count.unwrap_or(u64::MAX);
        self.window_messages_max = messages.window;
        self.warmup_ns = nanoseconds(times.warmup);
        let default_secs = messages.count.is_none().then_some(DURATION_SECS);
        self.duration_ns = times.duration.or(default_secs).map_or(u64::MAX, nanoseconds);
        self
    }

    /// Shares the connections out and checks the topics.
    fn finish(mut self, common: Common) -> Result<(Self, Common), Failure> {
        self.threads = common.threads(self.clients());
        let limits = TopicLimits::default();
        let wrong = |error| Failure::usage(format!("--topic: {error}"));
        // The last has the longest number.
        if let Some(last) = self.publishers.checked_sub(1) {
            TopicName::parse(&self.topic(last), &limits).map_err(wrong)?;
        }
        if let Some(last) = self.subscribers.checked_sub(1) {
            TopicFilter::parse(&self.filter(last), &limits).map_err(wrong)?;
        }
        Ok((self, common))
    }
}

impl PubArguments {
    fn plan(self) -> Result<(Load, Common), Failure> {
        let load = plan(Mode::Pub, &self.topic, &self.common, self.messages.size as usize);
        let mut load = load.with_messages(&self.messages, &self.times);
        load.publishers = self.clients;
        load.manner.retain = self.retain;
        load.finish(self.common)
    }
}

impl SubArguments {
    fn plan(self) -> Result<(Load, Common), Failure> {
        let mut load = plan(Mode::Sub, &self.topic, &self.common, 0);
        load.subscribers = self.clients;
        load.manner.qos = QoS::from_u8(self.qos).unwrap_or_default();
        load.duration_ns = self.duration.map_or(u64::MAX, nanoseconds);
        load.finish(self.common)
    }
}

impl ConnectArguments {
    fn plan(self) -> Result<(Load, Common), Failure> {
        let mut load = plan(Mode::Connect, "", &self.common, 0);
        load.holders = self.clients;
        load.duration_ns = nanoseconds(self.hold);
        load.connecting = match self.rate {
            Some(rate) if rate > 0.0 => Connecting::Rate(rate),
            Some(_) | None => Connecting::AtOnce(self.at_once),
        };
        load.finish(self.common)
    }
}

impl LatencyArguments {
    fn plan(self) -> Result<(Load, Common), Failure> {
        let load = plan(Mode::Latency, &self.topic, &self.common, self.messages.size as usize);
        let mut load = load.with_messages(&self.messages, &self.times);
        load.layout = self.layout;
        let (publishers, subscribers) = match self.layout {
            Layout::Pairs => (50, self.publishers.or(self.subscribers).unwrap_or(50)),
            Layout::FanIn => (50, 1),
            Layout::FanOut => (1, 50),
        };
        load.subscribers = self.subscribers.unwrap_or(subscribers);
        load.publishers = match self.layout {
            Layout::Pairs => self.publishers.unwrap_or(load.subscribers),
            Layout::FanIn | Layout::FanOut => self.publishers.unwrap_or(publishers),
        };
        load.check()?;
        load.finish(self.common)
    }
}

impl Load {
    /// Refuses what could not be measured.
    fn check(&self) -> Result<(), Failure> {
        if self.content.len() < Stamp::BYTES {
            let bytes = Stamp::BYTES;
            return Err(Failure::usage(format!(
                "--size: a message that is accounted for has at least {bytes} bytes"
            )));
        }
        if self.layout == Layout::Pairs && self.publishers != self.subscribers {
            return Err(Failure::usage("pairs have as many publishers as subscribers"));
        }
        let needs_level = self.layout == Layout::FanIn || self.layout == Layout::Pairs && self.publishers > 1;
        if needs_level && !self.topic.has_level_of_number() {
            return Err(Failure::usage("--topic: %i must be a level of the topic, as in bench/%i"));
        }
        let streams = match self.layout {
            Layout::Pairs => u64::from(self.publishers),
            Layout::FanIn | Layout::FanOut => u64::from(self.publishers) * u64::from(self.subscribers),
        };
        if streams > STREAMS_MAX {
            return Err(Failure::usage(format!("publishers times subscribers is at most {STREAMS_MAX}")));
        }
        Ok(())
    }
}
