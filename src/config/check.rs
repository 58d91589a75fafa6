//! From the configuration as written to the checked one: ranges, combinations, defaults that depend on other
//! values, and the rule that nothing is open to the world by accident.

use std::{collections::BTreeMap, net::SocketAddr, ops::RangeInclusive, path::PathBuf, time::Duration};

use ::config::{Value, ValueKind};

use super::{
    Address, Auth, ClientCertificate, Config, Durability, Limits, Listener, Log, LogFormat, Persistence, Tls,
    TlsVersion, Transport, WebSocket,
    error::ConfigErrors,
    raw::{
        self, Kind, RawConfig, RawDurability, RawLimits, RawListener, RawLog, RawLogFormat, RawPersistence,
        RawTls,
    },
    unit::{Integer, Size},
};

/// The largest packet that the standard can express: 268,435,455 bytes behind a header of five.
const PACKET_BYTES_MAX: i64 = 268_435_460;
const COUNT_MAX: i64 = 1_000_000_000;
const BYTES_MAX: i64 = 1 << 44;
/// With less every look-up would read from the disk.
const CACHE_BYTES_MIN: i64 = 1 << 20;
/// With less the queues of a few sessions would go to the disk and back.
const INDEX_BYTES_MIN: i64 = 1 << 20;

/// Checks values and remembers what is wrong. A wrong value is replaced by one that lets the check go on.
pub(super) struct Checker<'a> {
    /// The merged layers, which know where each value was written.
    pub(super) merged: &'a Value,
    pub(super) errors: &'a mut ConfigErrors,
}

/// The ways in which clients of a listener can prove who they are.
struct Proofs {
    has_back_ends: bool,
    certificates: ClientCertificate,
}

/// What a listener takes over where it says nothing itself.
struct Inherited<'a> {
    durability: RawDurability,
    window: Duration,
    limits: &'a Limits,
    auth: &'a Auth,
}

fn durability(level: RawDurability, window: Duration) -> Durability {
    match level {
        RawDurability::Commit => Durability::Commit,
        RawDurability::Interval => Durability::Interval(window),
        RawDurability::None => Durability::None,
    }
}

impl Checker<'_> {
    pub(super) fn config(&mut self, raw: RawConfig, default_shards: usize, data_dir: PathBuf) -> Config {
        let limits = self.limits(&raw.limits);
        let shards = self.number("shards", raw.shards, 0..=1024);
        let window = self.window("durability_interval_ms", raw.durability_interval_ms);
        let durability = durability(raw.durability, window);
        let auth = self.auth(raw.auth);
        let inherited = Inherited { durability: raw.durability, window, limits: &limits, auth: &auth };
        let listeners = self.listeners(&raw.listeners, &inherited);
        self.refuse_unused_backends(&auth, &raw.listeners);
        Config {
            listeners,
            auth,
            durability,
            limits,
            shards: if shards == 0 { default_shards } else { shards },
            data_dir: raw.data_dir.unwrap_or(data_dir),
            persistence: match raw.persistence {
                RawPersistence::Disk => Persistence::Disk,
                RawPersistence::Memory => Persistence::Memory,
            },
            store_cache_bytes_max: self.bytes(
                "store.cache_bytes_max",
                raw.store.cache_bytes_max,
                CACHE_BYTES_MIN..=BYTES_MAX,
            ),
            store_index_bytes_max: self.bytes(
                "store.index_bytes_max",
                raw.store.index_bytes_max,
                INDEX_BYTES_MIN..=BYTES_MAX,
            ),
            sys_interval: self.seconds("sys.interval_secs", raw.sys.interval_secs, 0..=86_400),
            check_payload_format: raw.publish.check_payload_format,
            stop_timeout: self.seconds("stop.timeout_secs", raw.stop.timeout_secs, 0..=3600),
            log: self.log(raw.log),
        }
    }

    fn limits(&mut self, raw: &RawLimits) -> Limits {
        // The name of a key is that of its field, once.
        macro_rules! check {
            ($how:ident, $field:ident, $range:expr) => {
                self.$how(concat!("limits.", stringify!($field)), raw.$field, $range)
            };
        }
        Limits {
            connections_max: check!(number, connections_max, 1..=COUNT_MAX),
            handshakes_max: check!(number, handshakes_max, 1..=COUNT_MAX),
            connect_timeout: check!(seconds, connect_timeout_secs, 1..=3600),
            packet_bytes_max: check!(bytes, packet_bytes_max, 64..=PACKET_BYTES_MAX),
            // [MQTT-3.1.3-5] a server takes client identifiers of 23 bytes.
            client_id_bytes_max: check!(bytes, client_id_bytes_max, 23..=65_535),
            topic_bytes_max: check!(bytes, topic_bytes_max, 1..=65_535),
            topic_levels_max: check!(number, topic_levels_max, 1..=65_536),
            receive_maximum: check!(number, receive_maximum, 1..=65_535),
            inflight_messages_max: check!(number, inflight_messages_max, 1..=65_535),
            topic_alias_maximum: check!(number, topic_alias_maximum, 0..=65_535),
            topic_alias_out_maximum: check!(number, topic_alias_out_maximum, 0..=65_535),
            keep_alive_secs_max: check!(number, keep_alive_secs_max, 1..=65_535),
            session_expiry_secs_max: check!(number, session_expiry_secs_max, 0..=u32::MAX.into()),
            sessions_max: check!(number, sessions_max, 1..=COUNT_MAX),
            session_subscriptions_max: check!(number, session_subscriptions_max, 1..=COUNT_MAX),
            session_shares_max: check!(number, session_shares_max, 0..=COUNT_MAX),
            packet_filters_max: check!(number, packet_filters_max, 1..=COUNT_MAX),
            session_queue_messages_max: check!(number, session_queue_messages_max, 1..=COUNT_MAX),
            session_queue_bytes_max: check!(bytes, session_queue_bytes_max, 1024..=BYTES_MAX),
            session_queue_overflow: raw.session_queue_overflow.into(),
            queues_messages_max: check!(number, queues_messages_max, 1..=COUNT_MAX),
            queues_overflow: raw.queues_overflow.into(),
            queues_bytes_max: check!(bytes, queues_bytes_max, 1024..=BYTES_MAX),
            outbox_bytes_max: check!(bytes, outbox_bytes_max, 1024..=BYTES_MAX),
            retained_messages_max: check!(number, retained_messages_max, 0..=COUNT_MAX),
            retained_bytes_max: check!(bytes, retained_bytes_max, 0..=BYTES_MAX),
        }
    }

    fn log(&mut self, raw: RawLog) -> Log {
        const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
        // A bare word is a module to the filter, so that a mistyped level would switch all logs off.
        let plain = |part: &&str| !part.contains(['=', '[']) && !part.is_empty();
        let mut words = raw.filter.split(',').map(str::trim).filter(plain);
        let unknown = words.find(|word| !LEVELS.contains(&word.to_ascii_lowercase().as_str()));
        if let Some(word) = unknown {
            let allowed = LEVELS.join(", ");
            self.refuse("log.filter", format!("`{word}` is no level; allowed: {allowed}, or `module=level`"));
        } else if let Err(error) = tracing_subscriber::EnvFilter::try_new(&raw.filter) {
            self.refuse("log.filter", format!("{error}; write a level, or `info,dunlin::net=debug`"));
        }
        let format = match raw.format {
            RawLogFormat::Auto => LogFormat::Auto,
            RawLogFormat::Pretty => LogFormat::Pretty,
            RawLogFormat::Json => LogFormat::Json,
        };
        Log { filter: raw.filter, format }
    }

    fn listeners(&mut self, raw: &[RawListener], inherited: &Inherited<'_>) -> Vec<Listener> {
        if raw.is_empty() {
            self.refuse("listeners", "is empty; at least one listener is needed");
        }
        let checked = raw.iter().enumerate();
        let mut listeners: Vec<Listener> = checked
            .filter_map(|(index, raw)| self.listener(&format!("listeners[{index}]"), raw, inherited))
            .collect();
        self.refuse_overlaps(raw);
        name_listeners(&mut listeners);
        self.refuse_equal_names(raw);
        listeners
    }

    fn listener(&mut self, key: &str, raw: &RawListener, inherited: &Inherited<'_>) -> Option<Listener> {
        self.refuse_foreign_keys(key, raw);
        let durability = self.durability(key, raw, inherited);
        let address = self.address(key, raw);
        let tls = match raw.kind {
            Kind::Tls | Kind::Wss => self.tls(key, raw.kind, raw.tls.as_ref()).map(Some),
            Kind::Tcp | Kind::Ws | Kind::Unix => Some(None),
        };
        let web_socket = self.web_socket(key, raw);
        let connections_max = match raw.connections_max {
            Some(count) => self.number(&format!("{key}.connections_max"), count, 1..=COUNT_MAX),
            None => inherited.limits.connections_max,
        };
        let (address, tls) = (address?, tls?);
        let auth = self.listener_chain(key, raw, inherited.auth);
        let proofs = Proofs {
            has_back_ends: !auth.is_empty(),
            certificates: tls.as_ref().map_or(ClientCertificate::None, |tls| tls.client_certificate),
        };
        let allow_anonymous = self.allow_anonymous(key, raw.allow_anonymous, &address, &proofs);
        let transport = match (raw.kind, tls) {
            (Kind::Ws | Kind::Wss, Some(tls)) => Transport::SecureWebSocket(web_socket, tls),
            (Kind::Ws | Kind::Wss, None) => Transport::WebSocket(web_socket),
            (Kind::Tcp | Kind::Tls | Kind::Unix, Some(tls)) => Transport::Tls(tls),
            (Kind::Tcp | Kind::Tls | Kind::Unix, None) => Transport::Plain,
        };
        let name = raw.name.clone().unwrap_or_else(|| default_name(raw.kind, &address));
        Some(Listener { name, address, transport, allow_anonymous, auth, durability, connections_max })
    }

    /// What a listener promises: what is written there, else what is written for all.
    fn durability(&mut self, key: &str, raw: &RawListener, inherited: &Inherited<'_>) -> Durability {
        let level = raw.durability.unwrap_or(inherited.durability);
        let key = format!("{key}.durability_interval_ms");
        let window = match raw.durability_interval_ms {
            Some(millis) if level == RawDurability::Interval => self.window(&key, millis),
            Some(_) => {
                self.refuse(&key, "has no effect: set durability to \"interval\"");
                inherited.window
            }
            None => inherited.window,
        };
        durability(level, window)
    }

    fn window(&mut self, key: &str, millis: Integer) -> Duration {
        Duration::from_millis(self.number(key, millis, 1..=60_000))
    }

    /// Keys that mean nothing to this kind are mistakes, and must not be taken in silence.
    fn refuse_foreign_keys(&mut self, key: &str, raw: &RawListener) {
        // Without its kind nothing can be said about the rest.
        if self.errors.has(&format!("{key}.kind")) {
            return;
        }
        let kind = raw.kind;
        let (unix, web_socket, tls) = match kind {
            Kind::Tcp => (false, false, false),
            Kind::Tls => (false, false, true),
            Kind::Ws => (false, true, false),
            Kind::Wss => (false, true, true),
            Kind::Unix => (true, false, false),
        };
        let foreign = [
            ("address", raw.address.is_some() && unix, "a Unix socket has a `path`"),
            ("path", raw.path.is_some() && !unix, "`path` is for kind = \"unix\", others have an `address`"),
            (
                "websocket_path",
                raw.websocket_path.is_some() && !web_socket,
                "it is for kind = \"ws\" or \"wss\"",
            ),
            ("tls", raw.tls.is_some() && !tls, "it is for kind = \"tls\" or \"wss\""),
        ];
        for (name, is_foreign, why) in foreign {
            if is_foreign {
                let message = format!("does not belong to a listener of kind \"{}\": {why}", kind.name());
                self.refuse(&format!("{key}.{name}"), message);
            }
        }
        if raw.name.as_deref().is_some_and(|name| name.trim().is_empty()) {
            self.refuse(&format!("{key}.name"), "is empty");
        }
    }

    fn address(&mut self, key: &str, raw: &RawListener) -> Option<Address> {
        const EXAMPLE: &str =
            "an IP address and a port such as \"127.0.0.1:1883\", \"[::1]:1883\" or \"0.0.0.0:1883\"";
        match (raw.kind, &raw.path, &raw.address) {
            (Kind::Unix, Some(path), _) => return Some(Address::Unix(path.clone())),
            (Kind::Unix, None, _) => self.refuse(&format!("{key}.path"), "is missing; it names the socket"),
            (_, _, Some(address)) => match address.parse() {
                Ok(address) => return Some(Address::Tcp(address)),
                Err(_) => {
                    self.refuse(
                        &format!("{key}.address"),
                        format!("\"{address}\" is not allowed; write {EXAMPLE}"),
                    );
                }
            },
            (_, _, None) => self.refuse(&format!("{key}.address"), format!("is missing; write {EXAMPLE}")),
        }
        None
    }

    fn tls(&mut self, key: &str, kind: Kind, raw: Option<&RawTls>) -> Option<Tls> {
        let Some(raw) = raw else {
            let message = format!("a listener of kind \"{}\" needs `certificate` and `key`", kind.name());
            self.refuse(&format!("{key}.tls"), message);
            return None;
        };
        if raw.certificate.is_none() {
            self.refuse(&format!("{key}.tls.certificate"), "is missing; it names a PEM file with the chain");
        }
        if raw.key.is_none() {
            self.refuse(&format!("{key}.tls.key"), "is missing; it names a PEM file with the private key");
        }
        let client_certificate = match raw.client_certificate {
            raw::ClientCertificate::None => ClientCertificate::None,
            raw::ClientCertificate::Optional => ClientCertificate::Optional,
            raw::ClientCertificate::Required => ClientCertificate::Required,
        };
        match (client_certificate, &raw.client_ca) {
            (ClientCertificate::None, Some(_)) => self.refuse(
                &format!("{key}.tls.client_ca"),
                "has no effect: set client_certificate to \"optional\" or \"required\"",
            ),
            (ClientCertificate::Optional | ClientCertificate::Required, None) => self.refuse(
                &format!("{key}.tls.client_certificate"),
                "needs `client_ca`, a PEM file with the authorities that sign client certificates",
            ),
            _ => {}
        }
        Some(Tls {
            certificate: raw.certificate.clone()?,
            key: raw.key.clone()?,
            client_ca: raw.client_ca.clone(),
            client_certificate,
            version_min: match raw.version_min {
                raw::TlsVersion::V12 => TlsVersion::V12,
                raw::TlsVersion::V13 => TlsVersion::V13,
            },
        })
    }

    fn web_socket(&mut self, key: &str, raw: &RawListener) -> WebSocket {
        let path = raw.websocket_path.clone().unwrap_or_else(|| "/mqtt".into());
        if !path.starts_with('/') || path.contains(['?', '#']) || !path.chars().all(|c| c.is_ascii_graphic())
        {
            let message = format!("\"{path}\" is not allowed; it is the path of a URL such as \"/mqtt\"");
            self.refuse(&format!("{key}.websocket_path"), message);
        }
        WebSocket { path }
    }

    /// Who may connect without proof: where back ends are asked nobody, else on this machine anyone, elsewhere
    /// nobody. Otherwise if it is written.
    fn allow_anonymous(
        &mut self,
        key: &str,
        written: Option<bool>,
        address: &Address,
        proofs: &Proofs,
    ) -> bool {
        let key = format!("{key}.allow_anonymous");
        match (written, proofs.certificates) {
            (Some(true), _) => return true,
            (Some(false) | None, _) if proofs.has_back_ends => {}
            (Some(false), ClientCertificate::None) => self.refuse(
                &key,
                "is false, but clients have no way to prove who they are: set tls.client_certificate, or `auth` \
                 and a back end in [auth.backends]",
            ),
            (Some(false), _) | (None, ClientCertificate::Required) => {}
            (None, _) if is_local(address) => return true,
            (None, _) => self.refuse(
                &key,
                "must be set: clients of other machines could connect here without authentication; write \
                 allow_anonymous = true (or --allow-anonymous) if that is meant, or use a password file \
                 (--password-file) or tls.client_certificate = \"required\"",
            ),
        }
        false
    }

    /// No two listeners on one port of one address; the wildcard address has all addresses of its family.
    fn refuse_overlaps(&mut self, raw: &[RawListener]) {
        let mut paths: BTreeMap<&PathBuf, usize> = BTreeMap::new();
        let mut addresses: Vec<(usize, SocketAddr)> = Vec::new();
        for (index, raw) in raw.iter().enumerate() {
            if let Some(path) = raw.path.as_ref().filter(|_| raw.kind == Kind::Unix)
                && let Some(first) = paths.insert(path, index)
            {
                self.refuse(
                    &format!("listeners[{index}].path"),
                    format!("is the path of listeners[{first}] too"),
                );
            }
            let Some(address) = raw.address.as_ref().and_then(|text| text.parse::<SocketAddr>().ok()) else {
                continue;
            };
            if let Some((first, _)) = addresses.iter().find(|(_, other)| overlap(*other, address)) {
                let message = format!("{address} is already taken by listeners[{first}]");
                self.refuse(&format!("listeners[{index}].address"), message);
            }
            addresses.push((index, address));
        }
    }

    fn refuse_equal_names(&mut self, raw: &[RawListener]) {
        let mut names: BTreeMap<&str, usize> = BTreeMap::new();
        for (index, raw) in raw.iter().enumerate() {
            if let Some(name) = &raw.name
                && let Some(first) = names.insert(name, index)
            {
                self.refuse(
                    &format!("listeners[{index}].name"),
                    format!("\"{name}\" is listeners[{first}] too"),
                );
            }
        }
    }

    pub(super) fn number<T: TryFrom<i64> + Default>(
        &mut self,
        key: &str,
        value: Integer,
        range: RangeInclusive<i64>,
    ) -> T {
        let (min, max) = (*range.start(), *range.end());
        self.in_range(key, value.0, &range, || format!("{value} is out of range; allowed: {min} to {max}"))
    }

    pub(super) fn bytes<T: TryFrom<i64> + Default>(
        &mut self,
        key: &str,
        value: Size,
        range: RangeInclusive<i64>,
    ) -> T {
        let (min, max) = (Size(*range.start()), Size(*range.end()));
        self.in_range(key, value.0, &range, || {
            format!("{value} is out of range; allowed: {min} to {max} (bytes)")
        })
    }

    pub(super) fn seconds(&mut self, key: &str, value: Integer, range: RangeInclusive<i64>) -> Duration {
        Duration::from_secs(self.number(key, value, range))
    }

    /// A value that is in range but does not fit its type (on a small machine) is out of range too.
    fn in_range<T: TryFrom<i64> + Default>(
        &mut self,
        key: &str,
        value: i64,
        range: &RangeInclusive<i64>,
        message: impl FnOnce() -> String,
    ) -> T {
        let fitting = T::try_from(value).ok().filter(|_| range.contains(&value));
        fitting.unwrap_or_else(|| {
            self.refuse(key, message());
            T::default()
        })
    }

    pub(super) fn refuse(&mut self, key: &str, message: impl Into<String>) {
        self.refuse_because_of(key, key, message);
    }

    /// Refuses a key for what is written, or not, at another one.
    pub(super) fn refuse_because_of(&mut self, cause: &str, key: &str, message: impl Into<String>) {
        let place = place(self.merged, cause).unwrap_or("configuration").to_owned();
        self.errors.of_key(&place, key, message);
    }
}

/// Where the value of a key, or the innermost of what surrounds it, was written.
fn place<'a>(merged: &'a Value, key: &str) -> Option<&'a str> {
    let dotted = key.replace('[', ".").replace(']', "");
    let mut value = merged;
    let mut place = None;
    for part in dotted.split('.') {
        let inner = match &value.kind {
            ValueKind::Table(table) => table.get(part),
            ValueKind::Array(array) => part.parse::<usize>().ok().and_then(|index| array.get(index)),
            _ => None,
        };
        let Some(inner) = inner else { break };
        value = inner;
        // A merged table was written in several places and knows none; one of its entries will do.
        let entry = || match &inner.kind {
            ValueKind::Table(table) => table.values().find_map(Value::origin),
            _ => None,
        };
        place = inner.origin().or_else(entry).or(place);
    }
    place
}

fn is_local(address: &Address) -> bool {
    match address {
        Address::Tcp(address) => address.ip().to_canonical().is_loopback(),
        Address::Unix(_) => true,
    }
}

/// Port 0 takes any free port, so that it never collides. An IPv6 wildcard does not take IPv4.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let same_family = one.is_ipv4() == other.is_ipv4();
    let same_ip = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port() && one.port() != 0 && same_family && same_ip
}

fn default_name(kind: Kind, address: &Address) -> String {
    match address {
        Address::Tcp(address) => format!("{}:{address}", kind.name()),
        Address::Unix(path) => format!("{}:{}", kind.name(), path.display()),
    }
}

/// Names are unique: several listeners on port 0 would have the same default one.
fn name_listeners(listeners: &mut [Listener]) {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for listener in listeners {
        let count = seen.entry(listener.name.clone()).or_default();
        *count += 1;
        if *count > 1 {
            listener.name = format!("{}#{count}", listener.name);
        }
    }
}
