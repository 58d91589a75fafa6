//! Sockets that a service manager has opened for us (socket activation, `sd_listen_fds(3)`), and whose they are.
//!
//! A socket belongs to the listener whose name it has (`FileDescriptorName=`), else to the one with its address. One
//! that belongs to nobody is an error: clients would connect to it and never be answered.

use std::{
    env, error, fmt, io,
    net::TcpListener,
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    process,
};

use listenfd::ListenFd;
use socket2::SockRef;

use crate::config::{Address, Listener};

use super::LocalAddress;

/// The descriptor of the first socket that is passed.
const FIRST_DESCRIPTOR: usize = 3;

/// A listening socket that was passed to the process.
#[derive(Debug)]
pub struct PassedSocket {
    descriptor: usize,
    /// What the service manager calls it, if it does.
    name: String,
    pub(super) socket: Passed,
    pub(super) address: LocalAddress,
}

/// The socket itself.
#[derive(Debug)]
pub(super) enum Passed {
    /// Of TCP.
    Tcp(TcpListener),
    /// Of a file, which belongs to the service manager.
    Unix(UnixListener),
}

/// All sockets that were passed to the process.
#[derive(Debug, Default)]
pub struct PassedSockets(Vec<PassedSocket>);

impl PassedSockets {
    /// Takes what was passed to this process, as its environment says. What was meant for another process, a parent
    /// for instance, is left alone. What is taken is removed from the environment, so that
    /// this is to be called once, and before there are other threads.
    ///
    /// # Errors
    /// A descriptor is none that clients can connect to.
    pub fn of_environment() -> Result<Self, PassedError> {
        // The library takes a missing LISTEN_PID for ours; here it has to be written.
        if env::var("LISTEN_PID").ok().and_then(|pid| pid.parse().ok()) != Some(process::id()) {
            return Ok(Self::default());
        }
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut passed = ListenFd::from_env();
        let count = passed.len();
        let of_index = |index| take(&mut passed, index, names.next().unwrap_or_default());
        (0..count).map(of_index).collect::<Result<_, _>>().map(Self)
    }

    /// Gives each listener its socket, in the order of the listeners.
    ///
    /// # Errors
    /// A socket that belongs to no listener, or not to the one whose name it has.
    pub fn assign(self, listeners: &[Listener]) -> Result<Vec<Option<PassedSocket>>, PassedError> {
        let mut assigned: Vec<Option<PassedSocket>> = listeners.iter().map(|_| None).collect();
        for socket in self.0 {
            let by_name = listeners.iter().position(|listener| listener.name == socket.name);
            let by_address =
                || listeners.iter().position(|listener| is_at(&listener.address, &socket.address));
            let Some(index) = by_name.or_else(by_address) else {
                return Err(socket.refuse(PassedErrorKind::Unclaimed));
            };
            let name = || listeners[index].name.clone();
            if assigned[index].is_some() {
                return Err(socket.refuse(PassedErrorKind::SecondOf(name())));
            }
            match Fit::of(&listeners[index], &socket.address) {
                Fit::Good => assigned[index] = Some(socket),
                Fit::OtherKind => return Err(socket.refuse(PassedErrorKind::OtherKind(name()))),
                Fit::TooOpen => return Err(socket.refuse(PassedErrorKind::TooOpen(name()))),
            }
        }
        Ok(assigned)
    }
}

fn take(passed: &mut ListenFd, index: usize, name: &str) -> Result<PassedSocket, PassedError> {
    let descriptor = FIRST_DESCRIPTOR + index;
    let name = name.to_owned();
    let refuse = |kind| PassedError { descriptor, name: name.clone(), address: None, kind };
    let io = |error: io::Error| refuse(PassedErrorKind::Io(error));
    let (socket, address) = match passed.take_unix_listener(index) {
        Ok(Some(listener)) => {
            let path = listener.local_addr().map_err(io)?.as_pathname().map(Path::to_path_buf);
            (Passed::Unix(listener), LocalAddress::Unix(path.unwrap_or_else(|| PathBuf::from("(no file)"))))
        }
        // Not one of Unix, then.
        Ok(None) | Err(_) => {
            let listener =
                passed.take_tcp_listener(index).map_err(|_| refuse(PassedErrorKind::NotAStream))?;
            let listener = listener.ok_or_else(|| refuse(PassedErrorKind::NotAStream))?;
            let address = listener.local_addr().map_err(io)?;
            (Passed::Tcp(listener), LocalAddress::Tcp(address))
        }
    };
    let is_listening = match &socket {
        Passed::Tcp(listener) => SockRef::from(listener).is_listener(),
        Passed::Unix(listener) => SockRef::from(listener).is_listener(),
    };
    match is_listening {
        Ok(true) => Ok(PassedSocket { descriptor, name, socket, address }),
        Ok(false) => Err(refuse(PassedErrorKind::NotListening)),
        Err(error) => Err(refuse(PassedErrorKind::Io(error))),
    }
}

fn is_at(configured: &Address, real: &LocalAddress) -> bool {
    match (configured, real) {
        (Address::Tcp(configured), LocalAddress::Tcp(real)) => configured == real,
        (Address::Unix(configured), LocalAddress::Unix(real)) => configured == real,
        (Address::Tcp(_), LocalAddress::Unix(_)) | (Address::Unix(_), LocalAddress::Tcp(_)) => false,
    }
}

/// Whether a socket can be that of a listener.
enum Fit {
    Good,
    OtherKind,
    TooOpen,
}

impl Fit {
    fn of(listener: &Listener, real: &LocalAddress) -> Fit {
        match (&listener.address, real) {
            // What is allowed to the clients of this machine was not allowed to all others.
            (Address::Tcp(configured), LocalAddress::Tcp(real)) => {
                let opens = configured.ip().is_loopback() && !real.ip().is_loopback();
                if opens && listener.allow_anonymous { Fit::TooOpen } else { Fit::Good }
            }
            (Address::Unix(_), LocalAddress::Unix(_)) => Fit::Good,
            (Address::Tcp(_), LocalAddress::Unix(_)) | (Address::Unix(_), LocalAddress::Tcp(_)) => {
                Fit::OtherKind
            }
        }
    }
}

impl PassedSocket {
    fn refuse(&self, kind: PassedErrorKind) -> PassedError {
        let (descriptor, name) = (self.descriptor, self.name.clone());
        PassedError { descriptor, name, address: Some(self.address.clone()), kind }
    }
}

/// Why a socket of the service manager cannot be used.
#[derive(Debug)]
pub struct PassedError {
    descriptor: usize,
    name: String,
    address: Option<LocalAddress>,
    kind: PassedErrorKind,
}

#[derive(Debug)]
enum PassedErrorKind {
    /// Neither TCP nor a Unix socket of streams.
    NotAStream,
    /// A connection, as `Accept=yes` passes it.
    NotListening,
    /// No listener has its name or address.
    Unclaimed,
    /// The listener has one already.
    SecondOf(String),
    /// The listener is of TCP, and the socket is not, or the other way round.
    OtherKind(String),
    /// The listener is for clients of this machine, and the socket is not.
    TooOpen(String),
    /// What else the system says.
    Io(io::Error),
}

impl fmt::Display for PassedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the service manager has passed descriptor {}", self.descriptor)?;
        match &self.address {
            Some(address) => write!(f, " (\"{}\", {address})", self.name)?,
            None => write!(f, " (\"{}\")", self.name)?,
        }
        match &self.kind {
            PassedErrorKind::NotAStream => f.write_str(", which is no socket of TCP or Unix streams"),
            PassedErrorKind::NotListening => {
                f.write_str(", which does not listen; its socket unit needs Accept=no")
            }
            PassedErrorKind::Unclaimed => f.write_str(
                ", which belongs to no listener; give a listener that address, or the socket unit \
                 FileDescriptorName= with the name of a listener",
            ),
            PassedErrorKind::SecondOf(listener) => {
                write!(f, ", the second one for listener \"{listener}\"; each listener has one address")
            }
            PassedErrorKind::OtherKind(listener) => write!(
                f,
                " for listener \"{listener}\", which is of another kind; TCP and Unix sockets do not replace each other"
            ),
            PassedErrorKind::TooOpen(listener) => write!(
                f,
                " for listener \"{listener}\", which is for anonymous clients of this machine alone, while others \
                 reach the socket; give the listener the address of the socket"
            ),
            PassedErrorKind::Io(error) => write!(f, ", which cannot be used: {error}"),
        }
    }
}

impl error::Error for PassedError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    fn listeners() -> Vec<Listener> {
        let text = "[[listeners]]\nname = \"near\"\naddress = \"127.0.0.1:1883\"\n\
                    [[listeners]]\nname = \"file\"\nkind = \"unix\"\npath = \"/run/dunlin/mqtt.sock\"\n";
        Config::from_toml(text).unwrap().listeners
    }

    #[test]
    fn a_listener_of_this_machine_is_not_opened_to_others() {
        let fit = |address: &str| Fit::of(&listeners()[0], &LocalAddress::Tcp(address.parse().unwrap()));
        assert!(matches!(fit("127.0.0.1:7"), Fit::Good));
        assert!(matches!(fit("[::1]:7"), Fit::Good));
        assert!(matches!(fit("[::]:7"), Fit::TooOpen));
        assert!(matches!(fit("0.0.0.0:1883"), Fit::TooOpen));
    }

    #[test]
    fn kinds_do_not_replace_each_other() {
        let fit = Fit::of(&listeners()[1], &LocalAddress::Tcp("127.0.0.1:7".parse().unwrap()));
        assert!(matches!(fit, Fit::OtherKind));
        assert!(is_at(&listeners()[1].address, &LocalAddress::Unix("/run/dunlin/mqtt.sock".into())));
    }
}
