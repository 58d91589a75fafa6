//! Sockets: listening, accepting, TLS and WebSocket, down to one byte stream that carries MQTT.
//!
//! A connection is a [`Socket`] accepted from a [`BoundListener`], of which a proxy may say whose it is
//! ([`introduce`]), made a [`Stream`] by [`upgrade`]. Nothing
//! in here knows a packet; the one exception is [`Opening`], which guesses a protocol from its first byte to
//! tell people that they connected to the wrong port.

mod clock;
mod forwarded;
mod listener;
mod passed;
mod proxy;
mod socket;
mod stream;
mod tls;
mod websocket;

pub use clock::Clock;
pub use listener::{Acceptor, BindError, BindErrorKind, BoundListener, LocalAddress, is_resource_exhaustion};
pub use passed::{PassedError, PassedSocket, PassedSockets};
pub use proxy::{Introduction, ProxyError, ProxyTls, parse as parse_proxy_header};
pub use socket::{Opening, Peer, Socket};
pub use stream::{PreparedTransport, Stream, TransportKind, UpgradeError, introduce, upgrade};
pub use tls::{
    ApplicationProtocol, LiveTls, PemFound, PemWanted, Reload, TlsError, Validity, ValidityKind,
    server_config,
};
pub use websocket::HandshakeRefusal;
