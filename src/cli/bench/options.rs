//! The options of the four commands, and what follows from them.

use std::{net::ToSocketAddrs, path::PathBuf, str::FromStr, sync::Arc, thread};

use clap::{ArgAction, Args};
use rustls::client::Resumption;

use super::{
    connection::{Address, Target},
    report::Tls,
};
use crate::{
    cli::client::{self, Failure, bracketed, explain_io, parse_version, tls},
    codec::{QoS, Version},
};

/// Connections of a run; more have no ports on one address.
pub(super) const CLIENTS_MAX: i64 = 1_000_000;
/// A payload with its topic fits into the largest packet that the format can express.
const PAYLOAD_BYTES_MAX: u64 = 268_000_000;
const THREADS_MAX: i64 = 1024;
/// A year: what is longer is a mistake.
const SECS_MAX: f64 = 31_536_000.0;
const RATE_PER_SEC_MAX: f64 = 1e9;

/// How to connect, and how to report.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connection")]
pub(super) struct Common {
    /// Host name or address of the broker
    #[arg(short = 'h', long, default_value = "localhost", conflicts_with = "url")]
    host: String,
    /// Port [default: 1883, with TLS 8883]
    #[arg(short, long, conflicts_with = "url")]
    port: Option<u16>,
    /// Connect to this Unix socket instead
    #[arg(long, value_name = "PATH", conflicts_with_all = ["host", "port", "url"])]
    unix: Option<PathBuf>,
    /// The broker as mqtt://[USER[:PASSWORD]@]HOST[:PORT], or mqtts:// for TLS
    #[arg(long)]
    url: Option<Url>,
    /// Version of MQTT: 5 or 3.1.1
    #[arg(short = 'V', long, visible_alias = "mqtt", value_name = "VERSION", default_value = "5", value_parser = parse_version)]
    protocol_version: client::Version,
    /// What client identifiers begin with [default: bench- and a random number]
    #[arg(short, long, value_name = "PREFIX")]
    id: Option<String>,
    /// Keep alive in seconds; 0 turns it off
    #[arg(short, long, value_name = "SECS", default_value_t = 60)]
    keepalive: u16,
    /// User name
    #[arg(short, long)]
    username: Option<String>,
    /// Password; other users of this machine may see it in the list of processes
    #[arg(short = 'P', long, requires = "username")]
    password: Option<String>,
    #[command(flatten)]
    security: tls::Security,
    #[command(flatten)]
    pub(super) tool: ToolOptions,
}

/// How this program works.
#[derive(Debug, Args)]
#[command(next_help_heading = "Program")]
pub(super) struct ToolOptions {
    /// Threads that share the connections [default: as many as there are processors]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=THREADS_MAX))]
    threads: Option<u32>,
    /// Repeats the schedule and the payloads of another run
    #[arg(long)]
    pub(super) seed: Option<u64>,
    /// Print one JSON object instead of a text
    #[arg(long)]
    pub(super) json: bool,
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
}

/// How messages are sent.
#[derive(Debug, Args)]
#[command(next_help_heading = "Messages")]
pub(super) struct Messages {
    /// Quality of service: 0, 1 or 2
    #[arg(short, long, default_value = "0", value_parser = parse_qos)]
    pub(super) qos: QoS,
    /// Payload in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = clap::value_parser!(u64).range(..=PAYLOAD_BYTES_MAX))]
    pub(super) size: u64,
    /// Messages a second of all publishers together; 0 for as many as the window allows
    #[arg(short, long, value_name = "PER_SEC", default_value = "0", value_parser = parse_rate)]
    pub(super) rate: f64,
    /// How messages are spread in time, if there is a rate
    #[arg(long, value_name = "HOW", default_value = "poisson")]
    pub(super) arrivals: super::schedule::Arrivals,
    /// End after so many messages of all publishers together
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) count: Option<u64>,
    /// Messages of a publisher that may be under way
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..), visible_alias = "inflight")]
    pub(super) window: u16,
}

/// How long it takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Time")]
pub(super) struct Times {
    /// Seconds to measure [default: 10, or until --count messages are sent]
    #[arg(long, value_name = "SECS", value_parser = parse_secs)]
    pub(super) duration: Option<f64>,
    /// Seconds before that are not measured
    #[arg(long, value_name = "SECS", default_value = "0", value_parser = parse_secs)]
    pub(super) warmup: f64,
}

/// Where a URL leads.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Url {
    tls: bool,
    user_name: Option<String>,
    password: Option<String>,
    host: String,
    port: Option<u16>,
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").ok_or("it begins with mqtt:// or mqtts://")?;
        let tls = match scheme {
            "mqtt" => false,
            "mqtts" => true,
            _ => return Err(format!("`{scheme}` is not supported: allowed are mqtt and mqtts")),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#', '%']) {
            return Err(
                "nothing may follow the port, and no character be escaped with %: use -u and -P".into()
            );
        }
        let (user, place) = rest.rsplit_once('@').map_or((None, rest), |(user, place)| (Some(user), place));
        let (user_name, password) = match user.map(|user| user.split_once(':').ok_or(user)) {
            None => (None, None),
            Some(Ok((name, password))) => (Some(name.to_owned()), Some(password.to_owned())),
            Some(Err(name)) => (Some(name.to_owned()), None),
        };
        // The colons of an IPv6 address are in brackets.
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => {
                (host, Some(port.parse().map_err(|_| format!("`{port}` is no port"))?))
            }
            Some(_) | None => (place, None),
        };
        if host.is_empty() {
            return Err("the host is missing".into());
        }
        Ok(Self { tls, user_name, password, host: host.to_owned(), port })
    }
}

/// A broker that was looked up, with what the report says of it.
pub(super) struct Broker {
    pub(super) target: Target,
    pub(super) shown: String,
    pub(super) tls: Tls,
}

impl Common {
    /// Looks up the host and reads the certificates.
    pub(super) fn broker(&self) -> Result<Broker, Failure> {
        let url = self.url.as_ref();
        let host = url.map_or(&self.host, |url| &url.host);
        let wants_tls = self.security.wanted() || url.is_some_and(|url| url.tls);
        let port = url.map_or(self.port, |url| url.port).unwrap_or(if wants_tls { 8883 } else { 1883 });
        let tls = if wants_tls {
            let mut config = self.security.config().map_err(Failure::usage)?;
            // Clients that come for the first time have no session to resume, and resuming costs the broker less.
            config.resumption = Resumption::disabled();
            Some((Arc::new(config), tls::server_name(host).map_err(Failure::usage)?))
        } else {
            self.security.check_unused().map_err(Failure::usage)?;
            None
        };
        let (address, shown) = match &self.unix {
            Some(path) => (Address::Unix(path.clone()), path.display().to_string()),
            None => lookup(host, port)?,
        };
        let shown_tls = if tls.is_some() { Tls::On } else { Tls::Off };
        let version = match self.protocol_version {
            client::Version::V4 => Version::V311,
            client::Version::V5 => Version::V5,
        };
        let target = Target {
            address,
            tls,
            version,
            keep_alive_secs: self.keepalive,
            user_name: self.username.clone().or_else(|| url.and_then(|url| url.user_name.clone())),
            password: self.password.clone().or_else(|| url.and_then(|url| url.password.clone())),
        };
        for text in [&target.user_name, &target.password, &self.id].into_iter().flatten() {
            if text.len() > ID_BYTES_MAX {
                return Err(Failure::usage(format!(
                    "user name, password and -i have at most {ID_BYTES_MAX} bytes"
                )));
            }
        }
        // [MQTT-3.1.1/3.1.2-22] before MQTT 5 a password needs a user name, which URL and options see to.
        Ok(Broker { target, shown, tls: shown_tls })
    }

    pub(super) fn id_prefix(&self, run: u32) -> String {
        self.id.clone().unwrap_or_else(|| format!("bench-{run:08x}-"))
    }

    /// No more threads than connections.
    pub(super) fn threads(&self, clients: u32) -> u32 {
        let processors = thread::available_parallelism().map_or(1, |count| count.get() as u32);
        self.tool.threads.unwrap_or(processors).clamp(1, clients.max(1))
    }
}

/// A length field can tell 65,535; a number is added to identifiers.
const ID_BYTES_MAX: usize = 65_000;

fn lookup(host: &str, port: u16) -> Result<(Address, String), Failure> {
    let shown = format!("{}:{port}", bracketed(host));
    let failure = |words: String| Failure::new(format!("{shown}: {words}"));
    let addresses: Arc<[_]> = shown.to_socket_addrs().map_err(|error| failure(explain_io(&error)))?.collect();
    if addresses.is_empty() {
        return Err(failure("the host has no address".into()));
    }
    Ok((Address::Tcp(addresses), shown))
}

fn parse_qos(text: &str) -> Result<QoS, String> {
    text.parse().ok().and_then(QoS::from_u8).ok_or_else(|| "allowed: 0, 1, 2".into())
}

pub(super) fn parse_rate(text: &str) -> Result<f64, String> {
    parse_number(text, RATE_PER_SEC_MAX)
}

pub(super) fn parse_secs(text: &str) -> Result<f64, String> {
    parse_number(text, SECS_MAX)
}

fn parse_number(text: &str, max: f64) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| (0.0..=max).contains(number));
    number.ok_or_else(|| format!("allowed: 0 to {max}, with a fraction or without"))
}

/// Seconds as the run's clock counts.
pub(super) fn nanoseconds(secs: f64) -> u64 {
    (secs * 1e9) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_host_port_and_user() {
        let parse = |text: &str| {
            let url: Url = text.parse().unwrap();
            (url.tls, url.user_name.unwrap_or_default(), url.password.unwrap_or_default(), url.host, url.port)
        };
        let none = String::new;
        assert_eq!(parse("mqtt://a"), (false, none(), none(), "a".into(), None));
        assert_eq!(parse("mqtts://u:p:q@a:1/"), (true, "u".into(), "p:q".into(), "a".into(), Some(1)));
        assert_eq!(parse("mqtt://u@[::1]:2"), (false, "u".into(), none(), "[::1]".into(), Some(2)));
        assert_eq!(parse("mqtt://[::1]"), (false, none(), none(), "[::1]".into(), None));
        for wrong in
            ["a:1883", "http://a", "mqtt://", "mqtt://:1", "mqtt://a:x", "mqtt://a/b", "mqtt://u%40@a"]
        {
            assert!(wrong.parse::<Url>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn numbers_have_limits() {
        assert_eq!(parse_secs("0.5"), Ok(0.5));
        for wrong in ["-1", "nan", "inf", "1e99", "x"] {
            assert!(parse_secs(wrong).is_err() && parse_rate(wrong).is_err(), "{wrong}");
        }
    }
}
