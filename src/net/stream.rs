//! One byte stream that carries MQTT, whatever lies under it, and the handshakes that lead to it.

use std::{
    error, fmt, io,
    io::IoSlice,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use rustls::{ServerConfig, pki_types::CertificateDer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::config::{self, Listener, Proxies, ProxyProtocol, Transport};

use super::{
    proxy::{self, ProxyError, ProxyTls},
    socket::{Opening, Peer, Socket},
    tls::{ApplicationProtocol, LiveTls, TlsError},
    websocket::{self, HandshakeRefusal, WebSocket},
};

/// The bytes of one connection after all handshakes below MQTT.
///
/// - **Flush after the last write.** TLS and WebSocket take bytes that the socket has no room for, and pass them
///   on when written to again or flushed. What they take is bounded; then a write is pending.
/// - **Read until pending.** TLS gives its buffers back when it has nothing left to decrypt.
/// - Shutting down says goodbye on every layer: a close frame, close_notify, then FIN. It does not wait for
///   the peer's answer; who drops the stream at once while the peer still sends may make the system reset the
///   connection, and the peer lose what it has not read.
/// - End of file means that the peer is gone, with or without a goodbye of TLS or WebSocket: MQTT has its own.
#[derive(Debug)]
pub struct Stream {
    layers: Layers,
}

#[derive(Debug)]
enum Layers {
    Direct(Channel),
    WebSocket(Box<WebSocket>),
}

/// A socket with or without TLS: what MQTT or WebSocket runs over.
#[derive(Debug)]
pub(super) enum Channel {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
}

impl Stream {
    /// A stream that is nothing but its socket.
    #[must_use]
    pub fn plain(socket: Socket) -> Self {
        Self { layers: Layers::Direct(Channel::Plain(socket)) }
    }

    /// Takes the socket out of this runtime's reactor, see [`Socket::detach`].
    ///
    /// # Errors
    /// As of [`Socket::detach`].
    pub fn detach(&mut self) -> io::Result<()> {
        self.channel_mut().socket_mut().detach()
    }

    /// Puts the socket into the current runtime's reactor, see [`Socket::attach`].
    ///
    /// # Errors
    /// As of [`Socket::attach`].
    ///
    /// # Panics
    /// As of [`Socket::attach`].
    pub fn attach(&mut self) -> io::Result<()> {
        self.channel_mut().socket_mut().attach()
    }

    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        self.channel().socket().peer()
    }

    /// What the connection looked like at its first byte; `None` before there was one.
    #[must_use]
    pub fn opening(&self) -> Option<Opening> {
        self.channel().socket().opening()
    }

    /// The client's certificate and its chain, verified, if it has presented one.
    #[must_use]
    pub fn peer_certificates(&self) -> Option<&[CertificateDer<'static>]> {
        match self.channel() {
            Channel::Plain(_) => None,
            Channel::Tls(tls) => tls.get_ref().1.peer_certificates(),
        }
    }

    /// What the proxy that the client came through says of its TLS with the client.
    #[must_use]
    pub fn proxy_tls(&self) -> Option<&ProxyTls> {
        self.channel().socket().proxy_tls()
    }

    /// What the stream is made of, for logs.
    #[must_use]
    pub fn transport(&self) -> TransportKind {
        match (&self.layers, self.channel()) {
            (Layers::WebSocket(_), Channel::Tls(_)) => TransportKind::SecureWebSocket,
            (Layers::WebSocket(_), Channel::Plain(_)) => TransportKind::WebSocket,
            (Layers::Direct(_), Channel::Tls(_)) => TransportKind::Tls,
            (Layers::Direct(_), Channel::Plain(socket)) => match socket.peer() {
                Peer::Tcp(_) => TransportKind::Tcp,
                Peer::Unix { .. } => TransportKind::Unix,
                Peer::Memory => TransportKind::Memory,
            },
        }
    }

    fn channel(&self) -> &Channel {
        match &self.layers {
            Layers::Direct(channel) => channel,
            Layers::WebSocket(websocket) => websocket.channel(),
        }
    }

    fn channel_mut(&mut self) -> &mut Channel {
        match &mut self.layers {
            Layers::Direct(channel) => channel,
            Layers::WebSocket(websocket) => websocket.channel_mut(),
        }
    }
}

impl Channel {
    pub(super) fn socket(&self) -> &Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => tls.get_ref().0,
        }
    }

    pub(super) fn socket_mut(&mut self) -> &mut Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => tls.get_mut().0,
        }
    }
}

/// What a stream is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportKind {
    /// TCP alone.
    Tcp,
    /// TLS.
    Tls,
    /// WebSocket without TLS.
    WebSocket,
    /// WebSocket inside TLS.
    SecureWebSocket,
    /// A Unix socket.
    Unix,
    /// A pipe in memory.
    Memory,
}

impl TransportKind {
    /// The name in logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::WebSocket => "ws",
            Self::SecureWebSocket => "wss",
            Self::Unix => "unix",
            Self::Memory => "memory",
        }
    }
}

impl fmt::Display for TransportKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a listener does to a fresh socket, with everything read and checked beforehand.
#[derive(Debug)]
pub struct PreparedTransport {
    tls: Option<LiveTls>,
    websocket: Option<config::WebSocket>,
    proxies: Proxies,
}

impl PreparedTransport {
    /// MQTT at once.
    #[must_use]
    pub fn plain() -> Self {
        Self { tls: None, websocket: None, proxies: Proxies::default() }
    }

    /// Reads the files that the transport needs.
    ///
    /// # Errors
    /// As of [`server_config`](super::server_config).
    pub fn prepare(transport: &Transport) -> Result<Self, TlsError> {
        Self::behind(Proxies::default(), transport)
    }

    /// The same, for a listener with all that stands before it.
    ///
    /// # Errors
    /// As of [`server_config`](super::server_config).
    pub fn of(listener: &Listener) -> Result<Self, TlsError> {
        Self::behind(listener.proxies.clone(), &listener.transport)
    }

    fn behind(proxies: Proxies, transport: &Transport) -> Result<Self, TlsError> {
        let (tls, protocol, websocket) = match transport {
            Transport::Plain => (None, ApplicationProtocol::Mqtt, None),
            Transport::Tls(tls) => (Some(tls), ApplicationProtocol::Mqtt, None),
            Transport::WebSocket(websocket) => (None, ApplicationProtocol::Http11, Some(websocket)),
            Transport::SecureWebSocket(websocket, tls) => {
                (Some(tls), ApplicationProtocol::Http11, Some(websocket))
            }
        };
        let tls = tls.map(|tls| LiveTls::open(tls, protocol)).transpose()?;
        Ok(Self { tls, websocket: websocket.cloned(), proxies })
    }

    /// TLS, if the transport has it: to read its files again, and to ask until when they are good.
    #[must_use]
    pub fn tls(&self) -> Option<&LiveTls> {
        self.tls.as_ref()
    }
}

/// Lets the proxy say for whom it connects, where the listener wants that: from then on the socket's peer is the
/// client. The caller imposes the time limit.
///
/// # Errors
/// [`UpgradeError::Proxy`]; the peer is told nothing.
pub async fn introduce(mut socket: Socket, transport: &PreparedTransport) -> Result<Socket, UpgradeError> {
    match transport.proxies.protocol {
        ProxyProtocol::None => Ok(socket),
        ProxyProtocol::Required => {
            // Who can open a Unix socket has been let there by the permissions of its directory.
            if socket.peer().ip().is_some_and(|ip| !transport.proxies.trust(ip)) {
                return Err(UpgradeError::Proxy(ProxyError::Untrusted));
            }
            let introduction = proxy::read(&mut socket).await.map_err(UpgradeError::Proxy)?;
            proxy::introduce(&mut socket, introduction);
            Ok(socket)
        }
    }
}

/// Does the handshakes that the listener wants, of a socket that has been [introduced](introduce). The caller
/// imposes the time limit.
///
/// `packet_bytes_max` is the largest packet that will be accepted, from which the limit of a WebSocket message
/// follows.
///
/// # Errors
/// [`UpgradeError`], after the peer has been told as far as the protocol allows.
pub async fn upgrade(
    socket: Socket,
    transport: &PreparedTransport,
    packet_bytes_max: u32,
) -> Result<Stream, UpgradeError> {
    let channel = match &transport.tls {
        None => Channel::Plain(socket),
        Some(tls) => Channel::Tls(Box::new(accept_tls(socket, tls.config()).await?)),
    };
    let layers = match &transport.websocket {
        None => Layers::Direct(channel),
        Some(settings) => {
            let accepted = websocket::accept(channel, settings, &transport.proxies, packet_bytes_max);
            Layers::WebSocket(Box::new(accepted.await?))
        }
    };
    Ok(Stream { layers })
}

async fn accept_tls(socket: Socket, config: Arc<ServerConfig>) -> Result<TlsStream<Socket>, UpgradeError> {
    TlsAcceptor::from(config).accept(socket).into_fallible().await.map_err(|(cause, socket)| {
        match socket.opening() {
            Some(opening @ (Opening::Mqtt | Opening::Http)) => UpgradeError::NotTls(opening),
            Some(Opening::Tls | Opening::Unknown) | None => UpgradeError::Tls(cause),
        }
    })
}

/// Why a socket did not become a stream. It is the peer's doing, so a line in a debug log is all it deserves.
#[derive(Debug)]
#[non_exhaustive]
pub enum UpgradeError {
    /// The proxy did not say properly for whom it connects, or is not to be believed.
    Proxy(ProxyError),
    /// TLS failed.
    Tls(io::Error),
    /// The peer speaks another protocol on a port for TLS.
    NotTls(Opening),
    /// The peer speaks another protocol on a port for WebSocket.
    NotHttp(Opening),
    /// The peer's HTTP request was answered with an error.
    Refused(HandshakeRefusal),
    /// The connection broke during the WebSocket handshake.
    Io(io::Error),
}

impl fmt::Display for UpgradeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Proxy(cause) => cause.fmt(f),
            Self::Tls(cause) => write!(f, "TLS handshake: {}", TlsCause(cause)),
            Self::NotTls(opening) => {
                write!(f, "TLS handshake: client spoke {} to a TLS port", Spoken(*opening))
            }
            Self::NotHttp(opening) => {
                write!(f, "WebSocket handshake: client spoke {} to a WebSocket port", Spoken(*opening))
            }
            Self::Refused(refusal) => write!(f, "WebSocket handshake: {refusal}"),
            Self::Io(cause) => write!(f, "WebSocket handshake: {cause}"),
        }
    }
}

impl error::Error for UpgradeError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Proxy(cause) => Some(cause),
            Self::Tls(cause) | Self::Io(cause) => Some(cause),
            Self::NotTls(_) | Self::NotHttp(_) | Self::Refused(_) => None,
        }
    }
}

/// A wrong protocol in words.
struct Spoken(Opening);

impl fmt::Display for Spoken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Opening::Mqtt => "plain MQTT",
            Opening::Tls => "TLS",
            Opening::Http => "plain HTTP",
            Opening::Unknown => "an unknown protocol",
        })
    }
}

/// A failure of TLS in words that say who has to change what.
struct TlsCause<'a>(&'a io::Error);

impl fmt::Display for TlsCause<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use rustls::{AlertDescription, CertificateError, Error};

        let cause = self.0;
        if cause.kind() == io::ErrorKind::UnexpectedEof {
            return f.write_str("client left before it was done");
        }
        match cause.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(Error::NoCertificatesPresented) => {
                f.write_str("client presented no certificate, which this listener requires")
            }
            // A bad signature: an authority of the same name, but with another key.
            Some(Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature,
            )) => f.write_str("client certificate is signed by none of the listener's client_ca"),
            Some(Error::InvalidCertificate(cause)) => CertificateCause(cause).fmt(f),
            Some(Error::AlertReceived(
                alert @ (AlertDescription::UnknownCA
                | AlertDescription::BadCertificate
                | AlertDescription::CertificateUnknown
                | AlertDescription::DecryptError),
            )) => write!(f, "client does not trust the server's certificate (alert {alert:?})"),
            _ => write!(f, "{cause}"),
        }
    }
}

/// What is wrong with a client's certificate, in words that say who has to change what.
struct CertificateCause<'a>(&'a rustls::CertificateError);

impl fmt::Display for CertificateCause<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use rustls::CertificateError;

        match self.0 {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                f.write_str("client certificate has expired")
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                f.write_str("client certificate is not valid yet; check the clocks of client and broker")
            }
            CertificateError::Revoked => f.write_str("client certificate is revoked"),
            CertificateError::UnknownRevocationStatus => f.write_str(
                "no list of client_crl is of the issuer of the client certificate, or of its issuer; add it, or set \
                 revocation_unknown = \"allow\"",
            ),
            CertificateError::ExpiredRevocationList | CertificateError::ExpiredRevocationListContext { .. } => {
                f.write_str(
                    "the client_crl of the issuer of the client certificate is past its next update; fetch it anew",
                )
            }
            cause => write!(f, "invalid peer certificate: {cause}"),
        }
    }
}

/// Runs one poll function of whichever layer is on top.
macro_rules! poll_layer {
    ($stream:expr, $layer:ident => $poll:expr) => {
        match &mut $stream.get_mut().layers {
            Layers::Direct($layer) => $poll,
            Layers::WebSocket($layer) => $poll,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        poll_layer!(self, layer => Pin::new(layer).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        poll_layer!(self, layer => Pin::new(layer).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        poll_layer!(self, layer => Pin::new(layer).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        poll_layer!(self, layer => Pin::new(layer).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        poll_layer!(self, layer => Pin::new(layer).poll_shutdown(cx))
    }
}

/// Runs one poll function of the socket or of TLS over it.
macro_rules! poll_channel {
    ($channel:expr, $io:ident => $poll:expr) => {
        match $channel.get_mut() {
            Channel::Plain($io) => $poll,
            Channel::Tls($io) => $poll,
        }
    };
}

impl AsyncRead for Channel {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Tls(tls) => match ready!(Pin::new(tls).poll_read(cx, buf)) {
                // A missing close_notify guards against truncation, which MQTT's own framing shows.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
                result => Poll::Ready(result),
            },
        }
    }
}

impl AsyncWrite for Channel {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        poll_channel!(self, io => Pin::new(io).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        poll_channel!(self, io => Pin::new(io).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        poll_channel!(self, io => Pin::new(io).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        poll_channel!(self, io => Pin::new(io).poll_shutdown(cx))
    }
}
