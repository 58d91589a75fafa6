//! Listening sockets: bound once, accepted on from any number of threads.

use std::{
    error, fmt, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use socket2::{Domain, Protocol, SockAddr, SockRef, TcpKeepalive, Type};

use crate::config::{Address, Listener};

use super::{
    passed::{Passed, PassedSocket},
    socket::{Peer, Socket},
};

/// Connections that the system may complete before we accept them.
const BACKLOG_CONNECTIONS: i32 = 1024;

/// Silence after which the system asks a TCP peer whether it is there. Keep Alive finds dead peers sooner;
/// this is for clients of MQTT 3 that have turned it off.
const TCP_KEEP_ALIVE_IDLE: Duration = Duration::from_secs(600);

/// Time between such questions.
const TCP_KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(60);

/// A socket that listens. A Unix socket's file is removed when this is dropped.
#[derive(Debug)]
pub struct BoundListener {
    name: String,
    socket: Listening,
    address: LocalAddress,
}

/// The listening socket, outside any runtime.
#[derive(Debug)]
enum Listening {
    Tcp(std::net::TcpListener),
    #[cfg(unix)]
    Unix {
        listener: std::os::unix::net::UnixListener,
        /// Held to be dropped; of a socket that was passed to us, the file is another's.
        _file: Option<SocketFile>,
    },
}

/// Where a listener really listens: as configured, but with the port that the system chose for port 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalAddress {
    /// A TCP address and port.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for LocalAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

impl BoundListener {
    /// Binds and listens as configured.
    ///
    /// A Unix socket's file that nobody answers at, as a crash leaves behind, is replaced.
    ///
    /// # Errors
    /// [`BindError`], which says what stands in the way.
    pub fn bind(listener: &Listener) -> Result<Self, BindError> {
        let bound = match &listener.address {
            Address::Tcp(address) => bind_tcp(*address),
            #[cfg(unix)]
            Address::Unix(path) => bind_unix(path),
            #[cfg(not(unix))]
            Address::Unix(_) => Err(Refusal::from(BindErrorKind::Unsupported)),
        };
        match bound {
            Ok((socket, address)) => Ok(Self { name: listener.name.clone(), socket, address }),
            Err(refusal) => Err(BindError {
                listener: listener.name.clone(),
                address: listener.address.clone(),
                kind: refusal.kind,
                cause: refusal.cause,
            }),
        }
    }

    /// Listens on a socket that was passed to the process, in place of binding one.
    ///
    /// # Errors
    /// When the system refuses its options.
    pub fn adopt(listener: &Listener, passed: PassedSocket) -> io::Result<Self> {
        let socket = match passed.socket {
            Passed::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                SockRef::from(&listener).set_tcp_keepalive(&keep_alive())?;
                Listening::Tcp(listener)
            }
            Passed::Unix(listener) => {
                listener.set_nonblocking(true)?;
                Listening::Unix { listener, _file: None }
            }
        };
        Ok(Self { name: listener.name.clone(), socket, address: passed.address })
    }

    /// The name in the configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens, with port 0 resolved.
    #[must_use]
    pub fn local_address(&self) -> &LocalAddress {
        &self.address
    }

    /// A handle that accepts connections in the current runtime. Several threads may each have one: they share
    /// one queue of connections, and whoever asks first gets the next.
    ///
    /// # Errors
    /// When the system has no descriptor left for it.
    ///
    /// # Panics
    /// When called outside a tokio runtime with I/O enabled.
    pub fn acceptor(&self) -> io::Result<Acceptor> {
        Ok(match &self.socket {
            Listening::Tcp(listener) => {
                Acceptor::Tcp(tokio::net::TcpListener::from_std(listener.try_clone()?)?)
            }
            #[cfg(unix)]
            Listening::Unix { listener, .. } => {
                Acceptor::Unix(tokio::net::UnixListener::from_std(listener.try_clone()?)?)
            }
        })
    }
}

/// Accepts connections of one listener in one runtime.
#[derive(Debug)]
pub enum Acceptor {
    /// Of a TCP address.
    Tcp(tokio::net::TcpListener),
    /// Of a Unix socket.
    #[cfg(unix)]
    Unix(tokio::net::UnixListener),
}

impl Acceptor {
    /// The next connection. Connections whose peer has left already are skipped. Cancellation loses none.
    ///
    /// # Errors
    /// When the listener itself fails. If [`is_resource_exhaustion`] says so of the error, accepting can
    /// succeed later; the caller waits a little, since the connection stays in the queue and asking at once
    /// would only turn in a circle.
    pub async fn accept(&self) -> io::Result<(Socket, Peer)> {
        loop {
            let accepted = match self {
                Self::Tcp(listener) => match listener.accept().await {
                    // The options are refused if the peer has reset the connection in the meantime.
                    Ok((stream, _)) => match Socket::tcp(stream) {
                        Ok(socket) => Ok(socket),
                        Err(_) => continue,
                    },
                    Err(error) => Err(error),
                },
                #[cfg(unix)]
                Self::Unix(listener) => listener.accept().await.map(|(stream, _)| Socket::unix(stream)),
            };
            match accepted {
                Ok(socket) => {
                    let peer = *socket.peer();
                    return Ok((socket, peer));
                }
                Err(error) if concerns_one_connection(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Whether accepting failed because the process or the system has run out of descriptors or memory.
#[must_use]
pub fn is_resource_exhaustion(error: &io::Error) -> bool {
    // ENOMEM, ENFILE, EMFILE, then ENOBUFS, whose number is not the same everywhere.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    const CODES: [i32; 4] = [12, 23, 24, 105];
    #[cfg(all(unix, not(any(target_os = "linux", target_os = "android"))))]
    const CODES: [i32; 4] = [12, 23, 24, 55];
    // WSA_NOT_ENOUGH_MEMORY, WSAEMFILE, WSAENOBUFS.
    #[cfg(not(unix))]
    const CODES: [i32; 3] = [8, 10024, 10055];
    error.raw_os_error().is_some_and(|code| CODES.contains(&code))
}

/// Linux reports through accept what is wrong with the connection that it would have returned.
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
    )
}

fn bind_tcp(address: SocketAddr) -> Result<(Listening, LocalAddress), Refusal> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // On Windows the option lets others take the address away; elsewhere it only skips the wait after a stop.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    // IPV6_V6ONLY stays as the system has it, which makes [::] take IPv4 too on most; for any other address it
    // decides nothing.
    socket.set_tcp_keepalive(&keep_alive())?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(BACKLOG_CONNECTIONS)?;
    let listener = std::net::TcpListener::from(socket);
    let local = LocalAddress::Tcp(listener.local_addr()?);
    Ok((Listening::Tcp(listener), local))
}

/// Of a listening socket; those that it accepts inherit it.
fn keep_alive() -> TcpKeepalive {
    TcpKeepalive::new().with_time(TCP_KEEP_ALIVE_IDLE).with_interval(TCP_KEEP_ALIVE_INTERVAL)
}

#[cfg(unix)]
fn bind_unix(path: &Path) -> Result<(Listening, LocalAddress), Refusal> {
    let address =
        SockAddr::unix(path).map_err(|cause| Refusal { kind: BindErrorKind::BadPath, cause: Some(cause) })?;
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.bind(&address) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            remove_stale(path, &address)?;
            socket.bind(&address)?;
        }
        result => result?,
    }
    let file = Some(SocketFile::of(path)?);
    socket.listen(BACKLOG_CONNECTIONS)?;
    let listener = std::os::unix::net::UnixListener::from(socket);
    Ok((Listening::Unix { listener, _file: file }, LocalAddress::Unix(path.to_path_buf())))
}

/// Removes the socket file at `path` if nobody listens on it.
#[cfg(unix)]
fn remove_stale(path: &Path, address: &SockAddr) -> Result<(), Refusal> {
    use std::os::unix::fs::FileTypeExt;

    if !std::fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(Refusal::from(BindErrorKind::NotASocket));
    }
    let probe = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A listener whose queue is full would make the probe wait for it.
    probe.set_nonblocking(true)?;
    match probe.connect(address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(std::fs::remove_file(path)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(()) | Err(_) => Err(Refusal::from(BindErrorKind::InUse)),
    }
}

/// The file of a Unix socket that we made, removed when dropped.
#[cfg(unix)]
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// Device and inode: if another process has put its own socket there since, it is not ours to remove.
    identity: (u64, u64),
}

#[cfg(unix)]
impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_path_buf(), identity: identity(path)? })
    }
}

#[cfg(unix)]
impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            // What is left behind is found stale by the next start.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(unix)]
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;

    let metadata = std::fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Why a listener could not be bound.
#[derive(Debug)]
pub struct BindError {
    listener: String,
    address: Address,
    kind: BindErrorKind,
    cause: Option<io::Error>,
}

/// What stands in the way of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindErrorKind {
    /// Somebody listens there.
    InUse,
    /// Not without more rights: a port below 1024, a directory of others.
    PermissionDenied,
    /// The machine has no such address.
    AddressNotAvailable,
    /// The directory of the Unix socket does not exist.
    DirectoryMissing,
    /// The path cannot be that of a Unix socket, mostly for its length.
    BadPath,
    /// There is a file at the path, and it is not a socket.
    NotASocket,
    /// This system has no Unix sockets.
    Unsupported,
    /// Anything else.
    Other,
}

impl BindError {
    /// What stands in the way.
    #[must_use]
    pub fn kind(&self) -> BindErrorKind {
        self.kind
    }

    /// The listener's name in the configuration.
    #[must_use]
    pub fn listener(&self) -> &str {
        &self.listener
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "listener \"{}\": ", self.listener)?;
        match &self.address {
            Address::Tcp(address) => self.explain_tcp(f, address),
            Address::Unix(path) => self.explain_unix(f, path),
        }
    }
}

impl BindError {
    fn explain_tcp(&self, f: &mut fmt::Formatter<'_>, address: &SocketAddr) -> fmt::Result {
        match self.kind {
            BindErrorKind::InUse => {
                write!(f, "address {address} is already in use; stop the process that listens there")?;
                if address.is_ipv6() && address.ip().is_unspecified() {
                    write!(
                        f,
                        " ([::] takes the port for IPv4 too, so 0.0.0.0 needs no listener of its own)"
                    )?;
                }
                write!(f, " or choose another with --listen")
            }
            BindErrorKind::PermissionDenied => {
                write!(f, "no permission to listen on {address}")?;
                if address.port() < 1024 {
                    write!(f, "; ports below 1024 need privileges, choose a higher one")?;
                }
                Ok(())
            }
            BindErrorKind::AddressNotAvailable => {
                write!(f, "this machine has no address {}; choose one of its own", address.ip())
            }
            BindErrorKind::DirectoryMissing
            | BindErrorKind::BadPath
            | BindErrorKind::NotASocket
            | BindErrorKind::Unsupported
            | BindErrorKind::Other => self.explain_cause(f, &format_args!("{address}")),
        }
    }

    fn explain_unix(&self, f: &mut fmt::Formatter<'_>, path: &Path) -> fmt::Result {
        let path = path.display();
        match self.kind {
            BindErrorKind::InUse => write!(
                f,
                "Unix socket {path} is already in use by another process; stop it or choose another path"
            ),
            BindErrorKind::PermissionDenied => write!(f, "no permission to create the Unix socket {path}"),
            BindErrorKind::DirectoryMissing => {
                write!(f, "the directory of the Unix socket {path} does not exist; create it")
            }
            BindErrorKind::BadPath => {
                write!(f, "{path} cannot be a Unix socket; its path must be shorter than 108 bytes")
            }
            BindErrorKind::NotASocket => write!(
                f,
                "{path} exists and is not a socket; it was left untouched, choose another path or remove it"
            ),
            BindErrorKind::Unsupported => {
                write!(f, "this system has no Unix sockets, so {path} cannot be one")
            }
            BindErrorKind::AddressNotAvailable | BindErrorKind::Other => {
                self.explain_cause(f, &format_args!("{path}"))
            }
        }
    }

    fn explain_cause(&self, f: &mut fmt::Formatter<'_>, place: &fmt::Arguments<'_>) -> fmt::Result {
        write!(f, "cannot listen on {place}")?;
        match &self.cause {
            Some(cause) => write!(f, ": {cause}"),
            None => Ok(()),
        }
    }
}

impl error::Error for BindError {}

/// What stands in the way, before it is known for which listener.
struct Refusal {
    kind: BindErrorKind,
    cause: Option<io::Error>,
}

impl From<BindErrorKind> for Refusal {
    fn from(kind: BindErrorKind) -> Self {
        Self { kind, cause: None }
    }
}

impl From<io::Error> for Refusal {
    fn from(cause: io::Error) -> Self {
        let kind = match cause.kind() {
            io::ErrorKind::AddrInUse => BindErrorKind::InUse,
            io::ErrorKind::PermissionDenied => BindErrorKind::PermissionDenied,
            io::ErrorKind::AddrNotAvailable => BindErrorKind::AddressNotAvailable,
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => BindErrorKind::DirectoryMissing,
            _ => BindErrorKind::Other,
        };
        Self { kind, cause: Some(cause) }
    }
}
