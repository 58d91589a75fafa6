//! What `dunlin pub` and `dunlin sub` have in common: the options of a connection, with the letters that
//! users of mosquitto's clients know, and how a run ends.
#![expect(clippy::disallowed_methods, reason = "a client command is all shell: it waits by the clock")]

pub(super) mod link;
pub(super) mod property;
pub(super) mod tls;

use std::{
    future::{self, Future},
    io,
    path::PathBuf,
    pin::pin,
    process::ExitCode,
    rc::Rc,
    time::Duration,
};

use clap::{ArgAction, Args};
use tokio::{runtime, signal::unix, time};

use self::{
    link::{Events, Requests},
    property::{Properties, PropertyArguments},
    tls::Tunnel,
};
use super::{FAILURE, USAGE, complain};

/// The exit code when `-W` ends a run, as with mosquitto's clients.
const TIMED_OUT: u8 = 27;

/// How long saying goodbye may take when a run ends early.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);

/// The largest packet of the standard; rumqttc would take only 10 KiB.
const PACKET_BYTES_MAX: u32 = 268_435_460;

/// How to connect.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connection")]
pub(super) struct Connection {
    /// Host name or address of the broker
    #[arg(short = 'h', long, default_value = "localhost")]
    host: String,
    /// Port [default: 1883, with TLS 8883]
    #[arg(short, long)]
    port: Option<u16>,
    /// Connect to this Unix socket instead
    #[arg(long, value_name = "PATH", conflicts_with_all = ["host", "port"])]
    unix: Option<String>,
    /// Version of MQTT: 5 or 3.1.1
    #[arg(short = 'V', long, value_name = "VERSION", default_value = "5", value_parser = parse_version)]
    protocol_version: Version,
    /// Client identifier; without it the broker assigns one
    #[arg(short, long, default_value = "")]
    id: String,
    /// Keep the session after disconnecting; needs an identifier, with MQTT 5 see also -x
    #[arg(short = 'c', long, requires = "id")]
    disable_clean_session: bool,
    /// Seconds that the session outlives the connection (MQTT 5)
    #[arg(short = 'x', long, value_name = "SECS")]
    session_expiry_interval: Option<u32>,
    /// Keep alive in seconds
    #[arg(short, long, value_name = "SECS", default_value_t = 60, value_parser = clap::value_parser!(u16).range(5..))]
    keepalive: u16,
    /// User name
    #[arg(short, long)]
    username: Option<String>,
    /// Password; other users of this machine may see it in the list of processes
    #[arg(short = 'P', long, requires = "username")]
    password: Option<String>,
    /// Give up after so many seconds, with exit code 27
    #[arg(short = 'W', long, value_name = "SECS")]
    timeout: Option<u64>,
    /// Tell on standard error what is sent and received
    #[arg(short, long)]
    debug: bool,
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
    #[command(flatten)]
    tls: tls::Security,
    #[command(flatten)]
    will: Will,
    #[command(flatten)]
    properties: PropertyArguments,
}

/// The message that the broker publishes when this client vanishes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Will")]
struct Will {
    /// Topic of the will
    #[arg(long, value_parser = parse_topic)]
    will_topic: Option<String>,
    /// Payload of the will
    #[arg(long, requires = "will_topic", default_value = "", hide_default_value = true)]
    will_payload: String,
    /// QoS of the will
    #[arg(long, value_name = "QOS", requires = "will_topic", default_value = "0", value_parser = parse_qos)]
    will_qos: QoS,
    /// Retain the will
    #[arg(long, requires = "will_topic")]
    will_retain: bool,
}

/// A version of MQTT that this client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V4,
    V5,
}

/// A quality of service.
#[expect(clippy::enum_variant_names, reason = "these are the names of the standard")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QoS {
    AtMostOnce,
    AtLeastOnce,
    ExactlyOnce,
}

/// Why a run did not succeed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) message: String,
    pub(super) code: u8,
}

/// What ends a run early.
enum End {
    Timeout,
    Signal,
}

impl End {
    /// Ending by a signal is how a subscriber ends, and no failure.
    fn into_result(self) -> Result<(), Failure> {
        match self {
            Self::Timeout => Err(Failure { message: "timed out".into(), code: TIMED_OUT }),
            Self::Signal => Ok(()),
        }
    }
}

impl Failure {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: FAILURE }
    }

    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: USAGE }
    }
}

impl Connection {
    pub(super) fn version(&self) -> Version {
        self.protocol_version
    }

    /// Makes the runtime, the tunnel if TLS is wanted, and the link, and lets `session` use it.
    pub(super) fn run<S>(
        &self,
        defaults: property::Stage,
        session: impl FnOnce(Requests, Events, Properties) -> S,
    ) -> ExitCode
    where
        S: Future<Output = Result<(), Failure>>,
    {
        match self.try_run(defaults, session) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                complain(failure.message);
                failure.code.into()
            }
        }
    }

    fn try_run<S>(
        &self,
        defaults: property::Stage,
        session: impl FnOnce(Requests, Events, Properties) -> S,
    ) -> Result<(), Failure>
    where
        S: Future<Output = Result<(), Failure>>,
    {
        let properties = self.properties.parse(defaults).map_err(Failure::usage)?;
        let needs_v5 = !properties.is_empty() || self.session_expiry_interval.is_some();
        if self.protocol_version == Version::V4 && needs_v5 {
            return Err(Failure::usage("properties and -x need MQTT 5 (-V 5)"));
        }
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failure::new(error.to_string()))?;
        runtime.block_on(async {
            let tunnel = self.tls.tunnel(&self.host, self.port()).map_err(Failure::usage)?.map(Rc::new);
            let (requests, events) = link::open(self, tunnel.clone(), &properties);
            let mut carrying = pin!(Tunnel::run(tunnel.as_deref()));
            let mut session = pin!(session(requests.clone(), events, properties));
            let end = tokio::select! {
                result = &mut session => return result,
                () = &mut carrying => return Err(Failure::new("the TLS tunnel ended")),
                end = self.end() => end?,
            };
            // Going without a DISCONNECT would make the broker publish the will.
            requests.disconnect()?;
            let left = time::timeout(LEAVE_TIMEOUT, async {
                tokio::select! {
                    _ = &mut session => {}
                    () = &mut carrying => {}
                }
            });
            let _ = left.await;
            end.into_result()
        })
    }

    /// Waits for what ends a run early.
    async fn end(&self) -> Result<End, Failure> {
        let catch = |kind| unix::signal(kind).map_err(|error| Failure::new(format!("signals: {error}")));
        let mut interrupt = catch(unix::SignalKind::interrupt())?;
        let mut terminate = catch(unix::SignalKind::terminate())?;
        let timeout = async {
            match self.timeout {
                Some(secs) => time::sleep(Duration::from_secs(secs)).await,
                None => future::pending().await,
            }
        };
        Ok(tokio::select! {
            _ = interrupt.recv() => End::Signal,
            _ = terminate.recv() => End::Signal,
            () = timeout => End::Timeout,
        })
    }

    fn port(&self) -> u16 {
        self.port.unwrap_or(if self.tls.wanted() { 8883 } else { 1883 })
    }

    /// The broker as messages name it.
    fn peer(&self) -> String {
        match &self.unix {
            Some(path) => path.clone(),
            None => format!("{}:{}", bracketed(&self.host), self.port()),
        }
    }
}

/// An IPv6 address before a port needs brackets.
pub(super) fn bracketed(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.into() }
}

pub(super) fn parse_version(text: &str) -> Result<Version, String> {
    match text.to_ascii_lowercase().as_str() {
        "5" | "v5" | "mqttv5" => Ok(Version::V5),
        "311" | "3.1.1" | "4" | "v311" | "mqttv311" => Ok(Version::V4),
        _ => {
            Err("allowed: 5, mqttv5, 311, 3.1.1, mqttv311 (the broker speaks 3.1 too, this client does not)"
                .into())
        }
    }
}

pub(super) fn parse_qos(text: &str) -> Result<QoS, String> {
    match text {
        "0" => Ok(QoS::AtMostOnce),
        "1" => Ok(QoS::AtLeastOnce),
        "2" => Ok(QoS::ExactlyOnce),
        _ => Err("allowed: 0, 1, 2".into()),
    }
}

/// rumqttc drops a request with a bad topic, and says nothing that a user could read.
pub(super) fn parse_topic(text: &str) -> Result<String, String> {
    match text {
        "" => Err("a topic has at least one character".into()),
        _ if text.len() > 65_535 => Err("a topic has at most 65535 bytes".into()),
        _ if text.contains(['+', '#']) => Err("+ and # are for subscriptions".into()),
        _ => Ok(text.into()),
    }
}

/// The topics that a subscriber names, checked as rumqttc will check them.
pub(super) fn parse_filter(text: &str) -> Result<String, String> {
    if text.len() > 65_535 {
        return Err("a filter has at most 65535 bytes".into());
    }
    if rumqttc::valid_filter(text) {
        Ok(text.into())
    } else {
        Err("+ stands alone between slashes, # alone after the last one".into())
    }
}

/// The system's words without the number that Rust puts behind them.
pub(super) fn explain_io(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.into(),
        None => text,
    }
}

/// The file of an option, in the words of the user.
fn read(option: &str, path: &PathBuf) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("{option} {}: {}", path.display(), explain_io(&error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_have_the_names_of_mosquitto() {
        for text in ["5", "mqttv5", "V5"] {
            assert_eq!(parse_version(text), Ok(Version::V5), "{text}");
        }
        for text in ["311", "mqttv311", "3.1.1"] {
            assert_eq!(parse_version(text), Ok(Version::V4), "{text}");
        }
        assert!(parse_version("mqttv31").is_err());
    }

    #[test]
    fn topics_and_filters_are_told_apart() {
        assert!(parse_topic("a/b").is_ok() && parse_filter("a/b").is_ok());
        for filter in ["#", "a/#", "+/b", "$share/g/a/+"] {
            assert!(parse_topic(filter).is_err() && parse_filter(filter).is_ok(), "{filter}");
        }
        for bad in ["", "a#", "#/a", "a+/b"] {
            assert!(parse_filter(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_bare_ipv6_addresses_get_brackets() {
        for (host, expected) in
            [("::1", "[::1]"), ("[::1]", "[::1]"), ("127.0.0.1", "127.0.0.1"), ("host", "host")]
        {
            assert_eq!(bracketed(host), expected);
        }
    }
}
