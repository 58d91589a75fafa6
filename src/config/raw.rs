//! The configuration as written: keys and types, nothing resolved. What the keys mean is documented in
//! `config/dunlin.toml`; which values are allowed is the business of [`super::check`].

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{
    Address, ClientIdentity, Config, Durability, Limits, Log, LogFormat, Overflow, Persistence,
    ProxyProtocol, Transport,
    acl::RawAcl,
    auth::RawAuth,
    guard::{RawAudit, RawGuard, RawParty},
    tls::RawTls,
    unit::{Integer, Size},
};

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) data_dir: Option<PathBuf>,
    pub(super) persistence: RawPersistence,
    pub(super) durability: RawDurability,
    pub(super) durability_interval_ms: Integer,
    pub(super) shards: Integer,
    pub(super) store: RawStore,
    pub(super) sys: RawSys,
    pub(super) publish: RawPublish,
    pub(super) acl: RawAcl,
    pub(super) stop: RawStop,
    pub(super) log: RawLog,
    pub(super) limits: RawLimits,
    pub(super) guard: RawGuard,
    pub(super) audit: RawAudit,
    pub(super) auth: RawAuth,
    pub(super) listeners: Vec<RawListener>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawPersistence {
    Disk,
    Memory,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawStore {
    pub(super) cache_bytes_max: Size,
    pub(super) index_bytes_max: Size,
}

/// The level; its window is a key of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawDurability {
    #[default]
    Commit,
    Interval,
    None,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawSys {
    pub(super) interval_secs: Integer,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawPublish {
    pub(super) check_payload_format: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawStop {
    pub(super) timeout_secs: Integer,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawLog {
    pub(super) filter: String,
    pub(super) format: RawLogFormat,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawLogFormat {
    Auto,
    Pretty,
    Json,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawLimits {
    pub(super) connections_max: Integer,
    pub(super) handshakes_max: Integer,
    pub(super) connect_timeout_secs: Integer,
    pub(super) packet_bytes_max: Size,
    pub(super) client_id_bytes_max: Size,
    pub(super) topic_bytes_max: Size,
    pub(super) topic_levels_max: Integer,
    pub(super) receive_maximum: Integer,
    pub(super) inflight_messages_max: Integer,
    pub(super) topic_alias_maximum: Integer,
    pub(super) topic_alias_out_maximum: Integer,
    pub(super) keep_alive_secs_max: Integer,
    pub(super) session_expiry_secs_max: Integer,
    pub(super) sessions_max: Integer,
    pub(super) session_subscriptions_max: Integer,
    pub(super) session_shares_max: Integer,
    pub(super) packet_filters_max: Integer,
    pub(super) session_queue_messages_max: Integer,
    pub(super) session_queue_bytes_max: Size,
    pub(super) session_queue_overflow: RawOverflow,
    pub(super) queues_messages_max: Integer,
    pub(super) queues_bytes_max: Size,
    pub(super) queues_overflow: RawOverflow,
    pub(super) outbox_bytes_max: Size,
    pub(super) retained_messages_max: Integer,
    pub(super) retained_bytes_max: Size,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawOverflow {
    Reject,
    DropOldest,
    DropNewest,
    Backpressure,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawListener {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    pub(super) kind: Kind,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) path: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) allow_anonymous: Option<bool>,
    /// The chain of this listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) auth: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) connections_max: Option<Integer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) durability: Option<RawDurability>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) durability_interval_ms: Option<Integer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) websocket_path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) allowed_origins: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) proxy_protocol: Option<ProxyProtocol>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) trusted_proxies: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) client_identity: Option<ClientIdentity>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tls: Option<RawTls>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    #[default]
    Tcp,
    Tls,
    Ws,
    Wss,
    Unix,
}

impl Kind {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Ws => "ws",
            Self::Wss => "wss",
            Self::Unix => "unix",
        }
    }
}

/// The defaults. Listeners are written as little as possible: what a loopback address allows must not stick
/// to a listener whose address a later layer changes.
impl Default for RawConfig {
    fn default() -> Self {
        let listener =
            |address: &str| RawListener { address: Some(address.into()), ..RawListener::default() };
        Self {
            data_dir: None,
            persistence: RawPersistence::Disk,
            durability: RawDurability::default(),
            durability_interval_ms: DURABILITY_INTERVAL_MS,
            shards: Integer(0),
            store: RawStore::default(),
            sys: RawSys::default(),
            publish: RawPublish::default(),
            acl: RawAcl::default(),
            stop: RawStop::default(),
            log: RawLog::default(),
            limits: RawLimits::default(),
            guard: RawGuard::default(),
            audit: RawAudit::default(),
            auth: RawAuth::default(),
            listeners: vec![listener("127.0.0.1:1883"), listener("[::1]:1883")],
        }
    }
}

impl Default for RawStore {
    fn default() -> Self {
        Self {
            cache_bytes_max: size(super::STORE_CACHE_BYTES_MAX),
            index_bytes_max: size(super::STORE_INDEX_BYTES_MAX),
        }
    }
}

impl Default for RawSys {
    fn default() -> Self {
        Self { interval_secs: Integer(10) }
    }
}

impl Default for RawPublish {
    fn default() -> Self {
        Self { check_payload_format: true }
    }
}

impl Default for RawStop {
    fn default() -> Self {
        Self { timeout_secs: Integer(10) }
    }
}

impl Default for RawLog {
    fn default() -> Self {
        Self::from(&Log::default())
    }
}

impl Default for RawLimits {
    fn default() -> Self {
        Self::from(&Limits::default())
    }
}

/// The window of `durability = "interval"` where none is written.
pub(super) const DURABILITY_INTERVAL_MS: Integer = Integer(100);

impl From<Durability> for RawDurability {
    fn from(durability: Durability) -> Self {
        match durability {
            Durability::Commit => Self::Commit,
            Durability::Interval(_) => Self::Interval,
            Durability::None => Self::None,
        }
    }
}

impl From<Overflow> for RawOverflow {
    fn from(overflow: Overflow) -> Self {
        match overflow {
            Overflow::Reject => Self::Reject,
            Overflow::DropOldest => Self::DropOldest,
            Overflow::DropNewest => Self::DropNewest,
            Overflow::Backpressure => Self::Backpressure,
        }
    }
}

impl From<RawOverflow> for Overflow {
    fn from(overflow: RawOverflow) -> Self {
        match overflow {
            RawOverflow::Reject => Self::Reject,
            RawOverflow::DropOldest => Self::DropOldest,
            RawOverflow::DropNewest => Self::DropNewest,
            RawOverflow::Backpressure => Self::Backpressure,
        }
    }
}

fn interval_ms(durability: Durability) -> Option<Integer> {
    match durability {
        Durability::Interval(window) => Some(integer(window.as_millis())),
        Durability::Commit | Durability::None => None,
    }
}

/// An integer as TOML can hold it; the checked values come from there, so that they always fit.
pub(super) fn integer(value: impl TryInto<i64>) -> Integer {
    Integer(value.try_into().unwrap_or(i64::MAX))
}

pub(super) fn size(value: impl TryInto<i64>) -> Size {
    Size(integer(value).0)
}

impl From<&Config> for RawConfig {
    fn from(config: &Config) -> Self {
        Self {
            data_dir: Some(config.data_dir.clone()),
            persistence: match config.persistence {
                Persistence::Disk => RawPersistence::Disk,
                Persistence::Memory => RawPersistence::Memory,
            },
            store: RawStore {
                cache_bytes_max: size(config.store_cache_bytes_max),
                index_bytes_max: size(config.store_index_bytes_max),
            },
            durability: config.durability.into(),
            durability_interval_ms: interval_ms(config.durability).unwrap_or(DURABILITY_INTERVAL_MS),
            shards: integer(config.shards),
            sys: RawSys { interval_secs: integer(config.sys_interval.as_secs()) },
            publish: RawPublish { check_payload_format: config.check_payload_format },
            acl: RawAcl::from(config.acl.as_ref()),
            stop: RawStop { timeout_secs: integer(config.stop_timeout.as_secs()) },
            log: RawLog::from(&config.log),
            limits: RawLimits::from(&config.limits),
            guard: RawGuard {
                bans_file: Some(config.bans_file.clone()),
                memory_bytes_max: size(config.memory_bytes_max),
                client: RawParty::of_client(&config.guard.client),
                user: (&config.guard.user).into(),
                address: (&config.guard.address).into(),
            },
            audit: RawAudit::from(&config.audit),
            auth: RawAuth::from(&config.auth),
            listeners: config.listeners.iter().map(RawListener::from).collect(),
        }
    }
}

impl From<&Log> for RawLog {
    fn from(log: &Log) -> Self {
        let format = match log.format {
            LogFormat::Auto => RawLogFormat::Auto,
            LogFormat::Pretty => RawLogFormat::Pretty,
            LogFormat::Json => RawLogFormat::Json,
        };
        Self { filter: log.filter.clone(), format }
    }
}

impl From<&Limits> for RawLimits {
    fn from(limits: &Limits) -> Self {
        Self {
            connections_max: integer(limits.connections_max),
            handshakes_max: integer(limits.handshakes_max),
            connect_timeout_secs: integer(limits.connect_timeout.as_secs()),
            packet_bytes_max: size(limits.packet_bytes_max),
            client_id_bytes_max: size(limits.client_id_bytes_max),
            topic_bytes_max: size(limits.topic_bytes_max),
            topic_levels_max: integer(limits.topic_levels_max),
            receive_maximum: integer(limits.receive_maximum),
            inflight_messages_max: integer(limits.inflight_messages_max),
            topic_alias_maximum: integer(limits.topic_alias_maximum),
            topic_alias_out_maximum: integer(limits.topic_alias_out_maximum),
            keep_alive_secs_max: integer(limits.keep_alive_secs_max),
            session_expiry_secs_max: integer(limits.session_expiry_secs_max),
            sessions_max: integer(limits.sessions_max),
            session_subscriptions_max: integer(limits.session_subscriptions_max),
            session_shares_max: integer(limits.session_shares_max),
            packet_filters_max: integer(limits.packet_filters_max),
            session_queue_messages_max: integer(limits.session_queue_messages_max),
            session_queue_bytes_max: size(limits.session_queue_bytes_max),
            session_queue_overflow: limits.session_queue_overflow.into(),
            queues_messages_max: integer(limits.queues_messages_max),
            queues_bytes_max: size(limits.queues_bytes_max),
            queues_overflow: limits.queues_overflow.into(),
            outbox_bytes_max: size(limits.outbox_bytes_max),
            retained_messages_max: integer(limits.retained_messages_max),
            retained_bytes_max: size(limits.retained_bytes_max),
        }
    }
}

impl From<&super::Listener> for RawListener {
    fn from(listener: &super::Listener) -> Self {
        let (kind, websocket_path, tls) = match &listener.transport {
            Transport::Plain => (Kind::Tcp, None, None),
            Transport::Tls(tls) => (Kind::Tls, None, Some(tls)),
            Transport::WebSocket(socket) => (Kind::Ws, Some(socket), None),
            Transport::SecureWebSocket(socket, tls) => (Kind::Wss, Some(socket), Some(tls)),
        };
        let (kind, address, path) = match &listener.address {
            Address::Tcp(address) => (kind, Some(address.to_string()), None),
            Address::Unix(path) => (Kind::Unix, None, Some(path.clone())),
        };
        Self {
            name: Some(listener.name.clone()),
            kind,
            address,
            path,
            allow_anonymous: Some(listener.allow_anonymous),
            auth: Some(listener.auth.clone()),
            connections_max: Some(integer(listener.connections_max)),
            durability: Some(listener.durability.into()),
            durability_interval_ms: interval_ms(listener.durability),
            websocket_path: websocket_path.map(|socket| socket.path.clone()),
            allowed_origins: websocket_path.and_then(|socket| socket.allowed_origins.clone()),
            proxy_protocol: Some(listener.proxies.protocol),
            trusted_proxies: listener.proxies.trusted.iter().map(ToString::to_string).collect(),
            client_identity: Some(listener.client_identity),
            tls: tls.map(RawTls::from),
        }
    }
}
