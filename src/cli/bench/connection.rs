//! One connection: its socket and its two buffers. Many packets go into one write and come out of one read.

use std::{
    convert::Infallible,
    future::poll_fn,
    net::SocketAddr,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::fault::Fault;
use crate::{
    cli::client::explain_io,
    codec::{
        ConnAck, Connect, ConnectProperties, Decoded, Disconnect, PACKET_BYTES_LIMIT, Packet, QoS,
        ReasonCode, Version, decode, encode,
    },
};

/// What a connection reads at a time at first. Most of many idle connections never need more.
const INPUT_BYTES_MIN: usize = 1024;
/// What a connection reads at a time when much arrives. A larger packet makes room for itself.
const INPUT_BYTES_MAX: usize = 64 * 1024;
/// Nothing is added to an output that has so many bytes: the socket does not take them.
pub(super) const OUTPUT_BYTES_MAX: usize = 64 * 1024;
/// How long TCP, TLS and CONNACK may take together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the broker may take to read all and close after our DISCONNECT.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Where the broker is and what it is told in CONNECT.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) address: Address,
    pub(super) tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    pub(super) version: Version,
    pub(super) keep_alive_secs: u16,
    pub(super) user_name: Option<String>,
    pub(super) password: Option<String>,
}

/// A place to connect to.
#[derive(Clone, Debug)]
pub(super) enum Address {
    /// What the name of the host stands for. Looked up once, not by each connection.
    Tcp(Arc<[SocketAddr]>),
    Unix(PathBuf),
}

/// What CONNACK allows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowed {
    pub(super) receive_maximum: u16,
    pub(super) maximum_qos: QoS,
    pub(super) packet_bytes_max: u32,
    pub(super) retain: Retaining,
    pub(super) keep_alive_secs: u16,
}

/// Whether the broker keeps retained messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retaining {
    Available,
    Unavailable,
}

#[derive(Debug)]
enum Transport {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

/// A connection with what was read and not yet decoded, and what was encoded and not yet written.
#[derive(Debug)]
pub(super) struct Link {
    transport: Transport,
    version: Version,
    /// Initialised to its end; only `read` of it is content.
    input: Vec<u8>,
    read: std::ops::Range<usize>,
    pub(super) output: Vec<u8>,
    written: usize,
    transit: Transit,
}

/// Whether the transport has taken bytes that the socket has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transit {
    Empty,
    Unflushed,
}

impl Target {
    /// Connects and waits for CONNACK.
    pub(super) async fn connect(&self, client_id: &str) -> Result<(Link, Allowed), Fault> {
        timeout(CONNECT_TIMEOUT, self.try_connect(client_id)).await.unwrap_or(Err(Fault::ConnectTimeout))
    }

    async fn try_connect(&self, client_id: &str) -> Result<(Link, Allowed), Fault> {
        let mut link = Link {
            transport: self.transport().await?,
            version: self.version,
            input: vec![0; INPUT_BYTES_MIN],
            read: 0..0,
            output: Vec::new(),
            written: 0,
            transit: Transit::Empty,
        };
        let connect = Connect {
            version: self.version,
            clean_start: true,
            keep_alive_secs: self.keep_alive_secs,
            client_id,
            will: None,
            user_name: self.user_name.as_deref(),
            password: self.password.as_deref().map(str::as_bytes),
            properties: ConnectProperties::default(),
        };
        encode(&Packet::Connect(Box::new(connect)), self.version, &mut link.output);
        let mut answer = None;
        while answer.is_none() {
            poll_fn(|context| {
                // Whether it is all written shows in the answer.
                let _: Poll<()> = link.poll_write(context)?;
                link.poll_read(context)
            })
            .await?;
            link.packets(|packet, _| match (packet, &answer) {
                (Packet::ConnAck(connack), None) => {
                    answer = Some(self.allowed(&connack)?);
                    Ok(())
                }
                // Before CONNACK nothing else may come, and behind it nothing does: nothing was asked for yet.
                (Packet::Disconnect(disconnect), _) => Err(Fault::Disconnected(disconnect.reason)),
                (other, _) => Err(Fault::Unexpected(other.kind())),
            })?;
        }
        answer.map(|allowed| (link, allowed)).ok_or(Fault::Closed)
    }

    async fn transport(&self) -> Result<Transport, Fault> {
        let addresses = match &self.address {
            Address::Tcp(addresses) => addresses,
            Address::Unix(path) => {
                let socket = UnixStream::connect(path).await.map_err(|error| Fault::io(&error))?;
                return Ok(Transport::Unix(socket));
            }
        };
        let socket = TcpStream::connect(&**addresses).await.map_err(|error| Fault::io(&error))?;
        socket.set_nodelay(true).map_err(|error| Fault::io(&error))?;
        let Some((config, name)) = &self.tls else { return Ok(Transport::Tcp(socket)) };
        let connector = TlsConnector::from(Arc::clone(config));
        let stream = connector.connect(name.clone(), socket).await;
        Ok(Transport::Tls(Box::new(stream.map_err(|error| Fault::Tls(explain_io(&error)))?)))
    }

    fn allowed(&self, connack: &ConnAck<'_>) -> Result<Allowed, Fault> {
        if connack.code.number() != 0 {
            return Err(Fault::Refused(connack.code));
        }
        let properties = &connack.properties;
        Ok(Allowed {
            receive_maximum: properties.receive_maximum.map_or(u16::MAX, Into::into),
            maximum_qos: properties.maximum_qos.unwrap_or(QoS::ExactlyOnce),
            packet_bytes_max: properties.packet_bytes_max.map_or(PACKET_BYTES_LIMIT, Into::into),
            retain: match properties.retain_available {
                Some(false) => Retaining::Unavailable,
                Some(true) | None => Retaining::Available,
            },
            keep_alive_secs: properties.server_keep_alive_secs.unwrap_or(self.keep_alive_secs),
        })
    }
}

impl Link {
    /// Reads once; ready when something was read.
    pub(super) fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<Result<usize, Fault>> {
        let mut buffer = ReadBuf::new(&mut self.input[self.read.end..]);
        ready!(self.transport.as_read().poll_read(context, &mut buffer))
            .map_err(|error| Fault::io(&error))?;
        let count = buffer.filled().len();
        if count == 0 {
            return Poll::Ready(Err(Fault::Closed));
        }
        self.read.end += count;
        Poll::Ready(Ok(count))
    }

    /// Whether something is to be written.
    pub(super) fn has_output(&self) -> bool {
        !self.output.is_empty() || self.transit == Transit::Unflushed
    }

    /// Writes what is to be written; ready when all of it is.
    pub(super) fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        while let Some(rest) = self.output.get(self.written..).filter(|rest| !rest.is_empty()) {
            let count = ready!(self.transport.as_write().poll_write(context, rest));
            // TLS takes bytes that the socket does not take yet; a plain socket has no buffer of its own.
            self.transit = Transit::Unflushed;
            match count.map_err(|error| Fault::io(&error))? {
                0 => return Poll::Ready(Err(Fault::Closed)),
                count => self.written += count,
            }
        }
        self.output.clear();
        self.written = 0;
        ready!(self.transport.as_write().poll_flush(context)).map_err(|error| Fault::io(&error))?;
        self.transit = Transit::Empty;
        Poll::Ready(Ok(()))
    }

    /// Hands over each packet that is complete, with the output for answers, and makes room for more.
    pub(super) fn packets(
        &mut self,
        mut take: impl FnMut(Packet<'_>, &mut Vec<u8>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let missing = loop {
            let rest = self.input.get(self.read.clone()).unwrap_or_default();
            match decode(rest, self.version, PACKET_BYTES_LIMIT).map_err(Fault::Malformed)? {
                Decoded::Packet(packet, length) => {
                    self.read.start += length;
                    take(packet, &mut self.output)?;
                }
                Decoded::Incomplete(length) => break length,
            }
        };
        self.make_room(missing.unwrap_or(0));
        Ok(())
    }

    /// Moves the beginning of a packet to the front, and grows if the whole of it or what arrives has no room.
    fn make_room(&mut self, packet_bytes: usize) {
        let was_full = self.read.end == self.input.len();
        if self.read.start > 0 {
            self.input.copy_within(self.read.clone(), 0);
            self.read = 0..self.read.len();
        }
        let mut wanted = self.input.len();
        if was_full && wanted < INPUT_BYTES_MAX {
            wanted *= 2;
        }
        // One byte more, so that there is always something to read into.
        let wanted = wanted.max(packet_bytes + 1);
        if wanted > self.input.len() {
            self.input.resize(wanted, 0);
        }
    }

    /// Says goodbye and waits until the broker has read all of it and closes.
    pub(super) async fn close(mut self) {
        encode(&Packet::Disconnect(Disconnect::new(ReasonCode::Success)), self.version, &mut self.output);
        // It ends with an error, if only that the broker has closed, and then all is said.
        let _ = timeout(CLOSE_TIMEOUT, self.finish()).await;
    }

    async fn finish(&mut self) -> Result<Infallible, Fault> {
        // What still arrives is read, for a socket that is closed over unread bytes loses what it sent.
        poll_fn(|context| {
            while self.poll_read(context)?.is_ready() {
                self.read = 0..0;
            }
            self.poll_write(context)
        })
        .await?;
        let shut = poll_fn(|context| self.transport.as_write().poll_shutdown(context)).await;
        shut.map_err(|error| Fault::io(&error))?;
        loop {
            self.read = 0..0;
            poll_fn(|context| self.poll_read(context)).await?;
        }
    }
}

impl Transport {
    fn as_read(&mut self) -> Pin<&mut (dyn AsyncRead + Unpin)> {
        match self {
            Self::Tcp(stream) => Pin::new(stream),
            Self::Tls(stream) => Pin::new(&mut **stream),
            Self::Unix(stream) => Pin::new(stream),
        }
    }

    fn as_write(&mut self) -> Pin<&mut (dyn AsyncWrite + Unpin)> {
        match self {
            Self::Tcp(stream) => Pin::new(stream),
            Self::Tls(stream) => Pin::new(&mut **stream),
            Self::Unix(stream) => Pin::new(stream),
        }
    }
}
