//! One connected socket, whichever family it is of, that can move between tokio runtimes.
//!
//! A connection is accepted on any thread and then lives on the thread of its session. The socket leaves its
//! reactor with [`Socket::detach`] and enters that of the next thread with [`Socket::attach`], while it stays
//! in its place inside a TLS or WebSocket stream, whose state so moves along untouched.

use std::{
    fmt, io,
    io::IoSlice,
    mem,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf},
    net::TcpStream,
};

use super::proxy::ProxyTls;

/// A connected socket: TCP, Unix, or a pipe in memory.
#[derive(Debug)]
pub struct Socket {
    link: Link,
    peer: Peer,
    /// What a proxy says of its own TLS with the client.
    proxy_tls: Option<Box<ProxyTls>>,
    /// Bytes that were read and are not what was looked for: they are read again before any other.
    unread: Option<Box<[u8]>>,
    /// Kept because TLS and WebSocket consume what they cannot make sense of, and the error that they
    /// then give does not tell what the peer meant.
    first_byte: Option<u8>,
}

/// The socket proper, in a reactor or out of it.
#[derive(Debug)]
enum Link {
    Tcp(TcpStream),
    DetachedTcp(std::net::TcpStream),
    #[cfg(unix)]
    Unix(tokio::net::UnixStream),
    #[cfg(unix)]
    DetachedUnix(std::os::unix::net::UnixStream),
    Memory(DuplexStream),
    /// What a move between reactors leaves behind when it fails.
    Lost,
}

impl Socket {
    /// Takes a connected TCP stream and turns off Nagle's algorithm, since writes are gathered by us.
    ///
    /// # Errors
    /// When the option cannot be set or the peer's address is unknown, which both mean that the peer is
    /// gone already.
    pub fn tcp(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let peer = Peer::Tcp(canonical(stream.peer_addr()?));
        Ok(Self::new(Link::Tcp(stream), peer))
    }

    /// Takes a connected Unix stream.
    #[cfg(unix)]
    #[must_use]
    pub fn unix(stream: tokio::net::UnixStream) -> Self {
        let peer = match stream.peer_cred() {
            Ok(credentials) => Peer::Unix { uid: Some(credentials.uid()), pid: credentials.pid() },
            Err(_) => Peer::Unix { uid: None, pid: None },
        };
        Self::new(Link::Unix(stream), peer)
    }

    /// Takes one end of a pipe in memory, for clients in the same process.
    #[must_use]
    pub fn memory(pipe: DuplexStream) -> Self {
        Self::new(Link::Memory(pipe), Peer::Memory)
    }

    fn new(link: Link, peer: Peer) -> Self {
        Self { link, peer, proxy_tls: None, unread: None, first_byte: None }
    }

    /// Who is at the other end; behind a proxy that is believed, who is at the other end of that.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    pub(super) fn set_peer(&mut self, peer: Peer) {
        self.peer = peer;
    }

    /// What the proxy says of its TLS with the client.
    #[must_use]
    pub fn proxy_tls(&self) -> Option<&ProxyTls> {
        self.proxy_tls.as_deref()
    }

    pub(super) fn set_proxy_tls(&mut self, tls: Option<ProxyTls>) {
        self.proxy_tls = tls.map(Box::new);
    }

    /// Gives bytes back, to be read again. All that was read before counts as never read.
    pub(super) fn unread(&mut self, bytes: &[u8]) {
        self.unread = (!bytes.is_empty()).then(|| bytes.into());
        self.first_byte = None;
    }

    /// Takes as much of what was given back as there is room for.
    fn read_unread(&mut self, bytes: &[u8], buf: &mut ReadBuf<'_>) {
        let (now, later) = bytes.split_at(bytes.len().min(buf.remaining()));
        buf.put_slice(now);
        self.unread = (!later.is_empty()).then(|| later.into());
    }

    /// What the first byte that came from the peer looks like; `None` before there was one.
    #[must_use]
    pub fn opening(&self) -> Option<Opening> {
        self.first_byte.map(Opening::of)
    }

    /// Leaves the reactor of this runtime. Until [`Socket::attach`] all I/O is an error of the kind
    /// `NotConnected`. Without effect on a pipe in memory, which has no reactor, and on a detached socket.
    ///
    /// Whoever waits on the socket is not woken by it any more, so only its owner may call this.
    ///
    /// # Errors
    /// When the system refuses; the socket is closed then.
    pub fn detach(&mut self) -> io::Result<()> {
        self.link = match mem::replace(&mut self.link, Link::Lost) {
            Link::Tcp(stream) => Link::DetachedTcp(stream.into_std()?),
            #[cfg(unix)]
            Link::Unix(stream) => Link::DetachedUnix(stream.into_std()?),
            other => other,
        };
        Ok(())
    }

    /// Enters the reactor of the current runtime. Without effect on a pipe in memory and on a socket that is
    /// in a reactor.
    ///
    /// # Errors
    /// When the system refuses, or an earlier move has failed; the socket is closed then.
    ///
    /// # Panics
    /// When called outside a tokio runtime with I/O enabled.
    pub fn attach(&mut self) -> io::Result<()> {
        self.link = match mem::replace(&mut self.link, Link::Lost) {
            Link::DetachedTcp(stream) => Link::Tcp(TcpStream::from_std(stream)?),
            #[cfg(unix)]
            Link::DetachedUnix(stream) => Link::Unix(tokio::net::UnixStream::from_std(stream)?),
            Link::Lost => return Err(io::Error::from(io::ErrorKind::NotConnected)),
            other => other,
        };
        Ok(())
    }
}

/// Runs one poll function of the stream inside a link; a link without one answers with an error.
macro_rules! poll_link {
    ($link:expr, $stream:ident => $poll:expr) => {
        match $link {
            Link::Tcp($stream) => $poll,
            #[cfg(unix)]
            Link::Unix($stream) => $poll,
            Link::Memory($stream) => $poll,
            #[cfg(unix)]
            Link::DetachedUnix(_) => Poll::Ready(Err(not_attached())),
            Link::DetachedTcp(_) | Link::Lost => Poll::Ready(Err(not_attached())),
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let start = buf.filled().len();
        let result = match this.unread.take() {
            Some(bytes) => {
                this.read_unread(&bytes, buf);
                Poll::Ready(Ok(()))
            }
            None => poll_link!(&mut this.link, stream => Pin::new(stream).poll_read(cx, buf)),
        };
        if this.first_byte.is_none() {
            this.first_byte = buf.filled().get(start).copied();
        }
        result
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        poll_link!(&mut self.get_mut().link, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        poll_link!(&mut self.get_mut().link, stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        poll_link!(&mut self.get_mut().link, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        poll_link!(&mut self.get_mut().link, stream => Pin::new(stream).poll_shutdown(cx))
    }
}

/// Who is at the other end of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// An address; one of IPv4 that came in through an IPv6 socket is shown as IPv4. The port is 0 where a proxy
    /// tells only the IP address.
    Tcp(SocketAddr),
    /// A process on this machine, as far as the system tells which.
    Unix {
        /// The user that the process runs as.
        uid: Option<u32>,
        /// The process.
        pid: Option<i32>,
    },
    /// A client in this process.
    Memory,
}

impl Peer {
    /// The IP address, where there is one.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(address) => Some(address.ip()),
            Self::Unix { .. } | Self::Memory => None,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix { uid: Some(uid), pid: Some(pid) } => write!(f, "unix:uid={uid},pid={pid}"),
            Self::Unix { uid: Some(uid), pid: None } => write!(f, "unix:uid={uid}"),
            Self::Unix { uid: None, .. } => f.write_str("unix"),
            Self::Memory => f.write_str("memory"),
        }
    }
}

/// What the first byte of a connection says about the protocol that the peer speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// The head of a CONNECT packet.
    Mqtt,
    /// The head of a TLS handshake record.
    Tls,
    /// A capital letter, as in `GET`.
    Http,
    /// Anything else.
    Unknown,
}

impl Opening {
    pub(super) fn of(first_byte: u8) -> Self {
        match first_byte {
            0x10 => Self::Mqtt,
            0x16 => Self::Tls,
            b'A'..=b'Z' => Self::Http,
            _ => Self::Unknown,
        }
    }
}

/// The same address without the disguise that IPv4 wears on a dual-stack socket.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::new(IpAddr::V4(ip), address.port()),
        // The scope of a link-local address is part of it, so the whole is kept.
        IpAddr::V6(_) => address,
    }
}

fn not_attached() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the socket is in no runtime")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv4_through_a_dual_stack_socket_is_shown_as_ipv4() {
        let mapped = "[::ffff:192.0.2.7]:1883".parse().unwrap();
        assert_eq!(Peer::Tcp(canonical(mapped)).to_string(), "192.0.2.7:1883");
        let scoped = SocketAddr::V6("[fe80::1%3]:1883".parse().unwrap());
        assert_eq!(canonical(scoped), scoped);
    }

    #[test]
    fn peers_on_this_machine_say_who_they_are() {
        assert_eq!(Peer::Unix { uid: Some(1000), pid: Some(42) }.to_string(), "unix:uid=1000,pid=42");
        assert_eq!(Peer::Unix { uid: Some(1000), pid: None }.to_string(), "unix:uid=1000");
        assert_eq!(Peer::Unix { uid: None, pid: None }.to_string(), "unix");
        assert_eq!(Peer::Memory.to_string(), "memory");
    }
}
