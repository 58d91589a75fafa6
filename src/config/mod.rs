//! Configuration: what is written in a file, in the environment and on the command line, checked once and
//! handed to the broker as plain values.
//!
//! Nothing behind this module validates a setting again. A [`Config`] comes from [`Config::load`] (all
//! layers), [`Config::from_toml`] (one text) or [`Config::default`], and [`Config::to_toml`] writes it back so
//! that reading it gives an equal value.

pub mod auth;
mod check;
mod error;
mod layer;
mod load;
mod raw;
mod strict;
mod unit;

pub use crate::limits::{Durability, Limits, Overflow};
pub use auth::Auth;
pub use error::{ConfigErrors, Problem};
pub use load::{DEFAULT_FILE, Loaded, Overrides, Sources, Surroundings};

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    thread,
    time::Duration,
};

/// The default of [`Config::store_cache_bytes_max`].
const STORE_CACHE_BYTES_MAX: usize = 8 << 20;

/// The default of [`Config::store_index_bytes_max`].
const STORE_INDEX_BYTES_MAX: usize = 64 << 20;

/// The whole checked configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where clients connect; at least one.
    pub listeners: Vec<Listener>,
    /// Limits of the broker.
    pub limits: Limits,
    /// How the broker learns who clients are.
    pub auth: Auth,
    /// Threads that own sessions, at least 1.
    pub shards: usize,
    /// Directory of the durable store.
    pub data_dir: PathBuf,
    /// Where sessions and retained messages are kept.
    pub persistence: Persistence,
    /// Bytes of the durable store that are kept in memory.
    pub store_cache_bytes_max: usize,
    /// Bytes of the references by which sessions know what they have in the store alone.
    pub store_index_bytes_max: usize,
    /// What acknowledgements promise on listeners that do not say otherwise, and to clients in this process.
    pub durability: Durability,
    /// Time between updates of `$SYS/broker/…`; zero turns them off.
    pub sys_interval: Duration,
    /// Whether PUBLISH marked as UTF-8 text is checked to be such.
    pub check_payload_format: bool,
    /// How long a stop may take to drain connections.
    pub stop_timeout: Duration,
    /// Log output.
    pub log: Log,
}

/// Where sessions, their messages and retained messages are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// In the data directory: they survive a restart.
    Disk,
    /// In memory: they end with the process.
    Memory,
}

/// One place where clients connect.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// Name in logs and metrics.
    pub name: String,
    /// Where it listens.
    pub address: Address,
    /// What is spoken on the socket.
    pub transport: Transport,
    /// Whether clients that prove nothing about themselves may connect.
    pub allow_anonymous: bool,
    /// Names of the back ends that are asked who clients are, in this order. With none, what clients say of
    /// themselves is not looked at.
    pub auth: Vec<String>,
    /// What acknowledgements promise to those who connect here.
    pub durability: Durability,
    /// Connections at a time.
    pub connections_max: usize,
}

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A TCP address and port; port 0 takes any free one.
    Tcp(SocketAddr),
    /// A Unix socket at this path.
    Unix(PathBuf),
}

/// What a listener speaks on its sockets.
#[derive(Clone, Debug, PartialEq)]
pub enum Transport {
    /// MQTT at once.
    Plain,
    /// MQTT inside TLS.
    Tls(Tls),
    /// MQTT inside WebSocket.
    WebSocket(WebSocket),
    /// MQTT inside WebSocket inside TLS.
    SecureWebSocket(WebSocket, Tls),
}

/// TLS of one listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// PEM file: the server's certificate, then its chain.
    pub certificate: PathBuf,
    /// PEM file: the private key of the certificate.
    pub key: PathBuf,
    /// PEM file: authorities that sign client certificates.
    pub client_ca: Option<PathBuf>,
    /// Whether clients present a certificate; anything but `None` needs `client_ca`.
    pub client_certificate: ClientCertificate,
    /// The oldest TLS version that is spoken.
    pub version_min: TlsVersion,
}

/// Whether clients present a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificate {
    /// They are not asked.
    None,
    /// They may.
    Optional,
    /// They must.
    Required,
}

/// A TLS version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2.
    V12,
    /// TLS 1.3.
    V13,
}

/// WebSocket of one listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebSocket {
    /// The path of the URL, `/mqtt` by default; other paths get 404.
    pub path: String,
}

/// Log output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Directives as of `tracing_subscriber::EnvFilter`: `info`, `info,dunlin::net=debug`.
    pub filter: String,
    /// Shape of a line.
    pub format: LogFormat,
}

/// Shape of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people: colours on a terminal, none elsewhere.
    Auto,
    /// For people: always with colours.
    Pretty,
    /// One JSON object a line.
    Json,
}

impl Default for Config {
    /// Listens on the loopback addresses, port 1883, without authentication.
    fn default() -> Self {
        let limits = Limits::default();
        let listeners = [SocketAddr::from((Ipv4Addr::LOCALHOST, 1883)), (Ipv6Addr::LOCALHOST, 1883).into()]
            .map(|address| Listener::local(address, &limits));
        Self {
            listeners: listeners.into(),
            limits,
            auth: Auth::default(),
            shards: default_shards(),
            data_dir: Surroundings::of_process().data_dir(),
            persistence: Persistence::Disk,
            store_cache_bytes_max: STORE_CACHE_BYTES_MAX,
            store_index_bytes_max: STORE_INDEX_BYTES_MAX,
            durability: Durability::default(),
            sys_interval: Duration::from_secs(10),
            check_payload_format: true,
            stop_timeout: Duration::from_secs(10),
            log: Log::default(),
        }
    }
}

impl Listener {
    /// Plain MQTT on a TCP address, open to clients that prove nothing about themselves.
    fn local(address: SocketAddr, limits: &Limits) -> Self {
        Self {
            name: format!("tcp:{address}"),
            address: Address::Tcp(address),
            transport: Transport::Plain,
            allow_anonymous: true,
            auth: Vec::new(),
            durability: Durability::default(),
            connections_max: limits.connections_max,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { filter: "info".into(), format: LogFormat::Auto }
    }
}

/// Shards where nobody says how many: one core is left for the store and the system. More shards than cores would cost
/// more for each message, and take longer for it.
fn default_shards() -> usize {
    thread::available_parallelism().map_or(1, |cores| cores.get().saturating_sub(1).max(1))
}
