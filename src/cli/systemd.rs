//! What the service manager is told, where one has started us: the protocol of `sd_notify(3)`, which is a line of
//! text to a socket, and its watchdog.
//!
//! Without `NOTIFY_SOCKET` nothing is said. What cannot be said is logged and otherwise ignored: a broker that works
//! is worth more than one that is told of.

use std::{
    env, future,
    io::{self, ErrorKind},
    os::unix::net::{SocketAddr, UnixDatagram},
    process,
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};
use tokio::time::{MissedTickBehavior, interval};
use tracing::warn;

/// How long a service manager may take to read what it is told.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// A service manager, if there is one.
pub(super) struct ServiceManager {
    socket: Option<UnixDatagram>,
    /// So often it wants to hear that we are alive.
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// Finds who has started the process.
    pub(super) fn of_environment() -> ServiceManager {
        let socket = env::var("NOTIFY_SOCKET").ok().filter(|address| !address.is_empty());
        let socket = socket.and_then(|address| match connect(&address) {
            Ok(socket) => Some(socket),
            Err(error) => {
                warn!(address, "NOTIFY_SOCKET: the service manager cannot be told: {error}");
                None
            }
        });
        let number = |name| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|micros| is_ours && *micros > 0);
        ServiceManager { socket, watchdog: watchdog.map(Duration::from_micros) }
    }

    /// The broker serves: it has started, or has finished to read its configuration again.
    pub(super) fn ready(&self, status: &str) {
        self.tell(&["READY=1", &self::status(status)]);
    }

    /// The configuration is read again, until [`ready`](Self::ready) is said.
    pub(super) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        // Whole microseconds, by which systemd sees that this is not about an earlier reload.
        let micros = format!("MONOTONIC_USEC={}", now.tv_sec * 1_000_000 + now.tv_nsec / 1_000);
        self.tell(&["RELOADING=1", &micros, &status("reading the configuration")]);
    }

    /// The broker stops.
    pub(super) fn stopping(&self, status: &str) {
        self.tell(&["STOPPING=1", &self::status(status)]);
    }

    /// What the broker does, for people.
    pub(super) fn status(&self, text: &str) {
        self.tell(&[&status(text)]);
    }

    /// Says twice in the interval of the watchdog that the broker is alive, as long as it is. It does not end.
    pub(super) async fn keep_watchdog(&self, is_alive: impl AsyncFn() -> bool) {
        let Some(watchdog) = self.watchdog else { return future::pending().await };
        let mut beats = interval(watchdog / 2);
        // What was missed while the machine slept is of no use.
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            beats.tick().await;
            if is_alive().await {
                self.tell(&["WATCHDOG=1"]);
            }
        }
    }

    fn tell(&self, lines: &[&str]) {
        let Some(socket) = &self.socket else { return };
        if let Err(error) = socket.send(lines.join("\n").as_bytes()) {
            warn!("the service manager was not told {}: {error}", lines.first().unwrap_or(&""));
        }
    }
}

/// A line of the protocol.
fn status(text: &str) -> String {
    format!("STATUS={}", text.replace(['\n', '\r'], " "))
}

fn connect(address: &str) -> io::Result<UnixDatagram> {
    let to = match (address.strip_prefix('@'), address.starts_with('/')) {
        #[cfg(target_os = "linux")]
        (Some(name), _) => <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name)?,
        (None, true) => SocketAddr::from_pathname(address)?,
        // systemd in a virtual machine tells its host by vsock; a broker is not told so.
        (_, false) => return Err(io::Error::new(ErrorKind::Unsupported, "neither a path nor @abstract")),
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(SEND_TIMEOUT))?;
    socket.connect_addr(&to)?;
    Ok(socket)
}
