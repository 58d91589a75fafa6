//! From an accepted socket to an authenticated CONNECT.

use std::{cell::Cell, fmt, io, num::NonZeroU32, sync::Arc};

use tokio::io::AsyncReadExt;

use crate::{
    acl::Principal,
    allowance::Allowance,
    audit::Record,
    auth::{Certificate, Credentials, Denial, Exchange, Step, jwt::token::Token},
    broker::{Refusal, Strain, admit},
    codec::{
        self, Auth, AuthProperties, ConnAck, ConnAckProperties, ConnAckReturn, Connect, DecodeError, Decoded,
        PACKET_BYTES_LIMIT, Packet, ReasonCode, Version,
    },
    config::ClientIdentity,
    guard::{self, Stay, Turned},
    net::{Peer, Stream, UpgradeError},
};

use super::{
    Common,
    listen::{Door, Entry},
};

/// A client that is let in, on its way to the shard of its session.
pub(crate) struct Arrival {
    pub(crate) stream: Stream,
    /// What was read from it: CONNECT and whatever the client has sent behind it.
    pub(crate) bytes: Vec<u8>,
    pub(crate) client_id: Box<str>,
    pub(crate) is_assigned: bool,
    pub(crate) principal: Principal,
    pub(crate) authentication_data: Option<Vec<u8>>,
    pub(crate) door: Arc<Door>,
    pub(crate) entry: Entry,
    /// What may pass on the connection.
    pub(crate) allowances: Vec<Arc<Allowance>>,
}

/// Why a socket does not become a client.
pub(crate) enum Failure {
    /// TLS or WebSocket failed.
    Upgrade(UpgradeError),
    /// Its address is banned, or has as much as it may.
    Turned(Turned),
    /// The connection broke or was closed before CONNECT was complete.
    Io(io::Error),
    /// The first bytes are no CONNECT.
    Malformed(DecodeError),
    /// The first packet is no CONNECT. `[MQTT-3.1.0-1]`
    NotConnect,
    /// The client sent DISCONNECT instead of the next AUTH. `[MQTT-3.1.2-30]`
    GaveUp,
    /// CONNECT is refused.
    Refused { client_id: Box<str>, refusal: Refusal },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Upgrade(error) => error.fmt(f),
            Failure::Turned(turned) => f.write_str(&turned.why),
            Failure::Io(error) => write!(f, "connection lost before CONNECT: {error}"),
            Failure::Malformed(error) => error.fmt(f),
            Failure::GaveUp => write!(f, "disconnected while it authenticated"),
            Failure::NotConnect => write!(f, "the first packet is not CONNECT"),
            Failure::Refused { client_id, refusal } => {
                write!(f, "client '{client_id}': {} ({})", refusal.why, refusal.code)
            }
        }
    }
}

impl Failure {
    /// The kind of it, in a word.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Failure::Upgrade(_) => "upgrade",
            Failure::Turned(_) => "turned-away",
            Failure::Io(_) | Failure::GaveUp => "gave-up",
            Failure::Malformed(_) | Failure::NotConnect => "malformed",
            Failure::Refused { refusal, .. } => match refusal.code {
                ReasonCode::BadUserNameOrPassword => "bad-credentials",
                ReasonCode::NotAuthorized => "not-authorized",
                ReasonCode::Banned => "banned",
                ReasonCode::ConnectionRateExceeded => "rate",
                ReasonCode::QuotaExceeded => "quota",
                ReasonCode::ServerBusy | ReasonCode::ServerUnavailable => "busy",
                _ => "other",
            },
        }
    }

    /// The client, if it has said who it is.
    pub(crate) fn client_id(&self) -> Option<&str> {
        match self {
            Failure::Refused { client_id, .. } => Some(client_id),
            _ => None,
        }
    }
}

/// The largest CONNECT in bytes: all its fields at their longest but for some room for user properties.
/// It is the only packet that a client may send before the broker knows who it is.
const CONNECT_BYTES_MAX: u32 = 512 * 1024;

/// The largest AUTH in bytes during the handshake.
const AUTH_BYTES_MAX: u32 = 128 * 1024;

/// Characters of a user name in the log.
const LOGGED_CHARS_MAX: usize = 128;

/// Bytes read at a time.
const READ_BYTES: usize = 2048;

/// Does what comes before the session: PROXY, TLS, WebSocket, CONNECT, authentication. The caller sets the time
/// limit, and gets to know in `peer` who it is that a proxy connects for. `[MQTT-3.1.4-1]` `[MQTT-3.1.4-2]`
pub(crate) async fn greet(
    common: &Common,
    socket: crate::net::Socket,
    door: Arc<Door>,
    mut entry: Entry,
    peer: &Cell<Peer>,
) -> Result<Box<Arrival>, Failure> {
    let socket = crate::net::introduce(socket, &door.transport).await.map_err(Failure::Upgrade)?;
    peer.set(*socket.peer());
    // Nothing is said to who is not wanted at all.
    let at = common.guard.arrive(common.clock.now(), socket.peer().ip()).map_err(Failure::Turned)?;
    let mut stream = crate::net::upgrade(socket, &door.transport, common.packet_bytes_max())
        .await
        .map_err(Failure::Upgrade)?;
    peer.set(*stream.peer());
    let mut bytes = Vec::new();
    let result = admit_client(common, &mut stream, &mut bytes, &door, at).await;
    match result {
        Ok(Admitted { client_id, is_assigned, principal, authentication_data, guarded }) => {
            entry.stays = guarded.stays;
            Ok(Box::new(Arrival {
                stream,
                bytes,
                client_id,
                is_assigned,
                principal,
                authentication_data,
                door,
                entry,
                allowances: guarded.allowances,
            }))
        }
        Err(failure) => {
            super::connection::linger(&mut stream).await;
            Err(failure)
        }
    }
}

struct Admitted {
    client_id: Box<str>,
    is_assigned: bool,
    principal: Principal,
    authentication_data: Option<Vec<u8>>,
    guarded: guard::Admitted,
}

async fn admit_client(
    common: &Common,
    stream: &mut Stream,
    bytes: &mut Vec<u8>,
    door: &Door,
    at: Option<Stay>,
) -> Result<Admitted, Failure> {
    let len = match read_packet(stream, bytes, Version::V5, CONNECT_BYTES_MAX.min(common.packet_bytes_max()))
        .await
    {
        Ok(len) => len,
        Err(Failure::Malformed(error)) => {
            if let Some((packet, version)) = malformed_conn_ack(&error) {
                send(stream, &packet, version, PACKET_BYTES_LIMIT).await;
            }
            return Err(Failure::Malformed(error));
        }
        Err(failure) => return Err(failure),
    };
    let auth = bytes.split_off(len);
    let connect_bytes = std::mem::replace(bytes, auth);
    let Ok(Decoded::Packet(Packet::Connect(connect), _)) =
        codec::decode(&connect_bytes, Version::V5, common.packet_bytes_max())
    else {
        return Err(Failure::NotConnect);
    };
    let result = authenticate(common, stream, bytes, &connect, door, at).await;
    if let Err(Failure::Refused { refusal, .. }) = &result {
        let _: io::Result<()> = super::connection::send(stream, &self::refusal(&connect, refusal)).await;
    }
    // What came behind CONNECT stays behind it.
    let rest = std::mem::replace(bytes, connect_bytes);
    bytes.extend_from_slice(&rest);
    result
}

/// Checks CONNECT and lets the back ends decide who the client is.
async fn authenticate(
    common: &Common,
    stream: &mut Stream,
    bytes: &mut Vec<u8>,
    connect: &Connect<'_>,
    door: &Door,
    at: Option<Stay>,
) -> Result<Admitted, Failure> {
    let is_assigned = connect.client_id.is_empty();
    let refused = |refusal| Failure::Refused { client_id: connect.client_id.into(), refusal };
    admit(connect, &common.shared, &common.limits.load()).map_err(refused)?;
    if common.shared.strain.level() >= Strain::Connections {
        let why = "the broker has no memory left for more connections";
        return Err(refused(Refusal::new(ReasonCode::ServerBusy, why)));
    }
    // [MQTT-3.1.3-6] [MQTT-3.2.2-16]
    let client_id: Box<str> =
        if is_assigned { common.assign_client_id().into() } else { connect.client_id.into() };
    let peer = *stream.peer();
    let shown = certificate(stream, door);
    let credentials = Credentials {
        client_id: &client_id,
        user_name: connect.user_name,
        password: connect.password,
        peer: &peer,
        listener: &door.name,
        allow_anonymous: door.allow_anonymous,
        client_identity: door.client_identity,
        certificate: shown.as_ref().ok().and_then(Option::as_ref),
        proved: None,
    };
    let denied = |denial: Denial| {
        let denial = log_denial(common, &credentials, denial);
        let code = denial.conn_ack_code();
        refused(Refusal { code, why: public_reason(code).into() })
    };
    if shown.is_err() {
        return Err(denied(unreadable_certificate()));
    }
    check_validity(common, credentials.certificate).map_err(denied)?;
    let Some(proved) = prove(common, stream, bytes, connect, credentials).await? else {
        // [MQTT-4.12.0-1]
        let why = "the authentication method is not supported";
        return Err(refused(Refusal::new(ReasonCode::BadAuthenticationMethod, why)));
    };
    let (principal, authentication_data) = proved.map_err(denied)?;
    let guarded = common
        .guard
        .admit(common.clock.now(), &client_id, principal.user.as_deref(), at)
        .map_err(|Turned { code, why }| refused(Refusal { code, why }))?;
    Ok(Admitted { client_id, is_assigned, principal, authentication_data, guarded })
}

/// Asks the back ends who a client is. `None` if they do not know its method; the inner error is their decision, the
/// outer one an accident.
async fn prove(
    common: &Common,
    stream: &mut Stream,
    bytes: &mut Vec<u8>,
    connect: &Connect<'_>,
    credentials: Credentials<'_>,
) -> Result<Option<Result<(Principal, Option<Vec<u8>>), Denial>>, Failure> {
    let Some(method) = connect.properties.authentication_method else {
        let decision = common.authenticator.authenticate(credentials).await;
        return Ok(Some(decision.map(|principal| (principal, None))));
    };
    let Some(mut exchange) = common.authenticator.begin(method, credentials) else { return Ok(None) };
    converse(stream, bytes, connect, method, &mut *exchange).await.map(Some)
}

/// The certificate that the client has shown to us, else that which a proxy vouches for where that counts.
/// The error is one that was verified and cannot be read.
pub(super) fn certificate(stream: &Stream, door: &Door) -> Result<Option<Certificate>, Unreadable> {
    let own = stream.peer_certificates().and_then(<[_]>::first);
    match (own, door.client_identity) {
        (Some(der), _) => Certificate::parse(der).map(Some).ok_or(Unreadable),
        (None, ClientIdentity::CommonName) => Ok(stream.proxy_tls().and_then(Certificate::of_proxy)),
        (None, _) => Ok(None),
    }
}

/// A certificate that the TLS library takes and whose fields cannot be read.
pub(super) struct Unreadable;

/// Whoever shows one is not let in as if there were none.
fn unreadable_certificate() -> Denial {
    let why = "the fields of the client's certificate cannot be read".into();
    Denial { code: ReasonCode::NotAuthorized, why }
}

/// A certificate is checked when it is shown; a session that is resumed later must not outlive it.
fn check_validity(common: &Common, certificate: Option<&Certificate>) -> Result<(), Denial> {
    let now_secs = i64::try_from(common.clock.now().as_millis() / 1000).unwrap_or(i64::MAX);
    match certificate.filter(|certificate| certificate.has_expired(now_secs)) {
        Some(certificate) => {
            let why = format!("the certificate of '{}' has expired", certificate.subject.escape_debug());
            Err(Denial { code: ReasonCode::NotAuthorized, why })
        }
        None => Ok(()),
    }
}

/// Enhanced authentication: AUTH packets to and fro until one side is content. The inner error is a
/// decision, the outer one an accident. `[MQTT-4.12.0-2]`
async fn converse(
    stream: &mut Stream,
    bytes: &mut Vec<u8>,
    connect: &Connect<'_>,
    method: &str,
    exchange: &mut dyn Exchange,
) -> Result<Result<(Principal, Option<Vec<u8>>), Denial>, Failure> {
    let mut step = exchange.step(connect.properties.authentication_data).await;
    loop {
        let data = match step {
            Step::Success(principal, data) => return Ok(Ok((principal, data))),
            Step::Failure(denial) => return Ok(Err(denial)),
            Step::Continue(data) => data,
        };
        // [MQTT-4.12.0-5]
        let properties =
            AuthProperties { method: Some(method), data: Some(&data), ..AuthProperties::default() };
        let packet = Packet::Auth(Auth { reason: ReasonCode::ContinueAuthentication, properties });
        send(stream, &packet, Version::V5, packet_bytes_max(connect)).await;
        let len = read_packet(stream, bytes, Version::V5, AUTH_BYTES_MAX).await?;
        let answer: Vec<u8> = bytes.drain(..len).collect();
        step = match codec::decode(&answer, Version::V5, AUTH_BYTES_MAX) {
            Ok(Decoded::Packet(Packet::Auth(auth), _))
                if auth.reason == ReasonCode::ContinueAuthentication
                    && auth.properties.method == Some(method) =>
            {
                exchange.step(auth.properties.data).await
            }
            // [MQTT-3.1.2-30]
            Ok(Decoded::Packet(Packet::Disconnect(_), _)) => return Err(Failure::GaveUp),
            _ => {
                let why = "not an AUTH packet of the method in CONNECT".into();
                return Ok(Err(Denial { code: ReasonCode::ProtocolError, why }));
            }
        };
    }
}

/// Reads until a whole packet is at the start of the buffer. Returns its length.
async fn read_packet(
    stream: &mut Stream,
    bytes: &mut Vec<u8>,
    version: Version,
    packet_bytes_max: u32,
) -> Result<usize, Failure> {
    loop {
        match codec::decode(bytes, version, packet_bytes_max) {
            Ok(Decoded::Packet(_, len)) => return Ok(len),
            Ok(Decoded::Incomplete(_)) => {}
            Err(error) => return Err(Failure::Malformed(error)),
        }
        bytes.reserve(READ_BYTES);
        match stream.read_buf(bytes).await {
            Ok(0) => return Err(Failure::Io(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => {}
            Err(error) => return Err(Failure::Io(error)),
        }
    }
}

/// The answer to a CONNECT that is refused; empty if there is none that the version has or the client
/// takes. The caller closes the connection. `[MQTT-3.2.2-7]` `[MQTT-3.1.1/3.2.2-5]`
pub(crate) fn refusal(connect: &Connect<'_>, refusal: &Refusal) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(packet) = refusal.conn_ack(connect.version) {
        codec::encode_within(&packet, connect.version, packet_bytes_max(connect), &mut bytes);
    }
    bytes
}

/// The largest packet in bytes that a client takes.
fn packet_bytes_max(connect: &Connect<'_>) -> u32 {
    connect.properties.packet_bytes_max.map_or(PACKET_BYTES_LIMIT, NonZeroU32::get)
}

/// Sends a packet before there is a session, unless it is too large for the client. `[MQTT-3.1.2-24]` The
/// connection is closed next anyway if that fails.
async fn send(stream: &mut Stream, packet: &Packet<'_>, version: Version, packet_bytes_max: u32) {
    let mut bytes = Vec::new();
    codec::encode_within(packet, version, packet_bytes_max, &mut bytes);
    let _: io::Result<()> = super::connection::send(stream, &bytes).await;
}

/// The CONNACK for bytes that are no CONNECT, in the version that the client will understand; `None` where
/// the standard has none.
fn malformed_conn_ack(error: &DecodeError) -> Option<(Packet<'static>, Version)> {
    let version = error.connack_form().or(error.version)?;
    let code = match (version.is_v5(), error.reason_code()) {
        (true, code) => ConnAckReturn::V5(code),
        // [MQTT-3.1.1/3.1.2-2]
        (false, ReasonCode::UnsupportedProtocolVersion) => ConnAckReturn::V3(1),
        // [MQTT-3.1.1/3.1.4-1] closed without CONNACK.
        (false, _) => return None,
    };
    let properties = ConnAckProperties::default();
    Some((Packet::ConnAck(Box::new(ConnAck { session_present: false, code, properties })), version))
}

/// What a client is told: enough to mend its settings, nothing about which of them exist.
fn public_reason(code: ReasonCode) -> &'static str {
    match code {
        ReasonCode::BadUserNameOrPassword => "bad user name or password",
        ReasonCode::NotAuthorized => "not authorized",
        ReasonCode::ServerBusy => "the server is busy",
        ReasonCode::ConnectionRateExceeded => "too many failed attempts, wait a while",
        _ => "authentication failed",
    }
}

/// Writes who is denied and why, but never what was shown.
fn log_denial(common: &Common, credentials: &Credentials<'_>, denial: Denial) -> Denial {
    let Credentials { client_id, user_name, peer, listener, .. } = credentials;
    // A token in place of the user name is a secret.
    let user = user_name.map(|name| match Token::recognize(name.as_bytes()) {
        Some(_) => "(a token)".into(),
        None => name.chars().take(LOGGED_CHARS_MAX).collect::<String>(),
    });
    let Denial { code, why } = &denial;
    // Who waits may come as often as it likes: a line for each would fill the log.
    if *code == ReasonCode::ConnectionRateExceeded {
        tracing::debug!(target: "dunlin::auth", client = client_id, ?user, %peer, listener, %code, "denied: {why}");
    } else {
        common.audit.write(|| {
            Record::new(common.clock.now(), "not_authenticated")
                .with("client", *client_id)
                .with_some("user", user.as_deref())
                .with("peer", peer.to_string())
                .with("listener", *listener)
                .with("why", why.as_str())
        });
        tracing::info!(target: "dunlin::auth", client = client_id, ?user, %peer, listener, %code, "denied: {why}");
    }
    denial
}
