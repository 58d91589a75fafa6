//! The program under a service manager: what it says to `NOTIFY_SOCKET`, when it feeds the watchdog, and which
//! sockets it takes over. The manager is the test.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::{
        fd::OwnedFd,
        linux::net::SocketAddrExt,
        unix::net::{self as unix, UnixDatagram, UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use dunlin::{
    Broker, QoS,
    acl::{Action, Authorize, Decision, Principal},
    config::Persistence,
};

/// How long anything may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// A directory with a socket on which the program reports.
struct Manager {
    directory: PathBuf,
    socket: UnixDatagram,
    address: String,
}

/// How the program reaches the socket.
enum Place {
    File,
    Abstract,
}

impl Manager {
    fn new(place: &Place) -> Manager {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("dunlin-systemd-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(&name);
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join("notify.sock");
        let (socket, address) = match place {
            Place::File => (UnixDatagram::bind(&path).unwrap(), path.to_str().unwrap().to_owned()),
            Place::Abstract => {
                let address = unix::SocketAddr::from_abstract_name(&name).unwrap();
                (UnixDatagram::bind_addr(&address).unwrap(), format!("@{name}"))
            }
        };
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Manager { directory, socket, address }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Starts the program with what it finds as `d.toml`.
    fn start(&self, variables: &[(&str, &str)]) -> Program {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dunlin"));
        self.spawn(&mut command, variables)
    }

    /// Starts it with sockets as descriptors 3 and 4. A shell moves them there, and knows the number that the
    /// program is going to have as a process.
    fn start_with(&self, sockets: Vec<OwnedFd>, names: &str) -> Program {
        let count = sockets.len().to_string();
        let script = "exec 3<&0 4<&1 </dev/null >/dev/null; export LISTEN_PID=$$; exec \"$DUNLIN\" \"$@\"";
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script, "sh"]).env("DUNLIN", env!("CARGO_BIN_EXE_dunlin"));
        let mut sockets = sockets.into_iter();
        command.stdin(sockets.next().map_or_else(Stdio::null, Stdio::from));
        command.stdout(sockets.next().map_or_else(Stdio::null, Stdio::from));
        self.spawn(&mut command, &[("LISTEN_FDS", &count), ("LISTEN_FDNAMES", names)])
    }

    fn spawn(&self, command: &mut Command, variables: &[(&str, &str)]) -> Program {
        let log = fs::File::create(self.path("log")).unwrap();
        let child = command
            .args(["serve", "-c", "d.toml", "--data-dir", "data"])
            .current_dir(&self.directory)
            .env_remove("DUNLIN_CONFIG")
            .env("NOTIFY_SOCKET", &self.address)
            .envs(variables.iter().copied())
            .stderr(log)
            .spawn()
            .unwrap();
        Program { child }
    }

    /// What the program says next, line by line.
    fn hear(&self) -> Vec<String> {
        let mut message = [0; 4096];
        let length = self.socket.recv(&mut message).unwrap_or_else(|error| {
            let log = fs::read_to_string(self.path("log")).unwrap_or_default();
            panic!("nothing was said: {error}; the log is\n{log}")
        });
        String::from_utf8_lossy(&message[..length]).lines().map(str::to_owned).collect()
    }

    /// Hears until something begins with the line.
    fn hear_until(&self, line: &str) -> Vec<String> {
        loop {
            let said = self.hear();
            if said[0] == line {
                return said;
            }
        }
    }

    fn write(&self, text: &str) {
        fs::write(self.path("d.toml"), text).unwrap();
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap()
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// The program, killed at the end of a test that has failed.
struct Program {
    child: Child,
}

impl Program {
    fn signal(&self, signal: &str) {
        assert!(
            Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap().success()
        );
    }

    /// Waits for the end.
    #[expect(clippy::disallowed_methods, reason = "a program that goes on fails the test")]
    fn code(mut self) -> Option<i32> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "the program goes on");
            std::thread::yield_now();
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const ONE_LISTENER: &str = "[[listeners]]\nname = \"mqtt\"\naddress = \"127.0.0.1:0\"\n";

/// Whether somebody answers CONNECT there.
fn is_served(mut stream: impl Read + Write) -> bool {
    stream.write_all(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x0a\x00\x01x").unwrap();
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).is_ok_and(|()| answer == [0x20, 2, 0, 0])
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

fn is_status(line: &str, start: &str) -> bool {
    line.strip_prefix("STATUS=").is_some_and(|status| status.starts_with(start))
}

/// Start, reload and stop are told in the order that `Type=notify-reload` wants.
fn life_is_told(place: &Place) {
    let manager = Manager::new(place);
    manager.write(ONE_LISTENER);
    let program = manager.start(&[]);
    assert!(is_status(&manager.hear()[0], "starting"));
    let ready = manager.hear();
    assert_eq!(ready[0], "READY=1");
    let address = ready[1].strip_prefix("STATUS=serving on ").expect("it says where it listens");
    assert!(is_served(connect(address.parse().unwrap())), "it listens when it says so");

    program.signal("-HUP");
    let reloading = manager.hear();
    assert_eq!(reloading[0], "RELOADING=1");
    let micros = reloading[1].strip_prefix("MONOTONIC_USEC=").unwrap();
    assert!(micros.parse::<u64>().unwrap() > 0);
    assert_eq!(manager.hear(), ready);

    manager.write("shards = \"many\"\n");
    program.signal("-HUP");
    assert_eq!(manager.hear()[0], "RELOADING=1");
    let refused = manager.hear();
    assert_eq!((refused[0].as_str(), refused.len()), ("READY=1", 2), "the old configuration is in force");
    assert!(refused[1].contains("not reloaded") && refused[1].contains("shards"), "{refused:?}");

    // The file has changed, which may be told once more.
    program.signal("-TERM");
    assert_eq!(manager.hear_until("STOPPING=1").len(), 2);
    assert_eq!(program.code(), Some(0));
}

#[test]
fn start_reload_and_stop_are_told() {
    life_is_told(&Place::File);
}

#[test]
fn an_abstract_socket_is_told_likewise() {
    life_is_told(&Place::Abstract);
}

#[test]
fn a_broker_that_does_not_start_is_not_ready() {
    let manager = Manager::new(&Place::File);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    manager.write(&format!("[[listeners]]\naddress = \"{address}\"\n"));
    let program = manager.start(&[]);
    assert!(is_status(&manager.hear()[0], "starting"));
    let said = manager.hear();
    assert!(is_status(&said[0], "not started") && said[0].contains("already in use"), "{said:?}");
    assert_eq!(program.code(), Some(1));
}

#[test]
fn the_watchdog_is_fed_at_half_its_interval_if_it_is_ours() {
    let manager = Manager::new(&Place::File);
    manager.write(ONE_LISTENER);
    let program = manager.start(&[("WATCHDOG_USEC", "200000")]);
    manager.hear_until("READY=1");
    for _ in 0..3 {
        assert_eq!(manager.hear(), ["WATCHDOG=1"]);
    }
    program.signal("-TERM");
    manager.hear_until("STOPPING=1");
    assert_eq!(program.code(), Some(0));

    // That of another process, such as a parent.
    let program = manager.start(&[("WATCHDOG_USEC", "1000"), ("WATCHDOG_PID", "1")]);
    manager.hear_until("READY=1");
    program.signal("-TERM");
    assert_eq!(manager.hear()[0], "STOPPING=1");
    assert_eq!(program.code(), Some(0));
}

/// A policy that holds whoever asks it, for as long as the test wants.
#[derive(Clone, Default)]
struct Hold(Arc<(Mutex<Held>, Condvar)>);

#[derive(Clone, Copy, Default, PartialEq)]
enum Held {
    #[default]
    No,
    Wanted,
    Waiting,
}

impl Hold {
    fn set(&self, held: Held) {
        *self.0.0.lock().unwrap() = held;
        self.0.1.notify_all();
    }

    fn wait(&self) {
        let mut held = self.0.0.lock().unwrap();
        while *held != Held::Waiting {
            held = self.0.1.wait(held).unwrap();
        }
    }
}

impl Authorize for Hold {
    fn decide(&self, _: &Principal, _: &str, _: Action, _: &str) -> Decision {
        let mut held = self.0.0.lock().unwrap();
        if *held == Held::Wanted {
            *held = Held::Waiting;
            self.0.1.notify_all();
        }
        while *held == Held::Waiting {
            held = self.0.1.wait(held).unwrap();
        }
        Decision::Allowed
    }
}

/// What the watchdog asks: a shard that hangs does not answer, and answers when it goes on.
#[test]
fn a_shard_that_hangs_has_no_pulse() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let hold = Hold::default();
        let mut config = dunlin::Config { shards: 2, persistence: Persistence::Memory, ..Default::default() };
        config.listeners.clear();
        let broker = Broker::builder().config(config).authorizer(hold.clone()).start().await.unwrap();
        assert!(tokio::time::timeout(DEADLINE, broker.pulse()).await.unwrap());

        let mut client = broker.client("c").await.unwrap();
        hold.set(Held::Wanted);
        let publish = client.publish("t", b"x", QoS::AtLeastOnce);
        let held = hold.clone();
        let waiting = tokio::task::spawn_blocking(move || held.wait());
        let (published, ()) = tokio::join!(tokio::time::timeout(DEADLINE, publish), async {
            waiting.await.unwrap();
            // The other shard answers; this one cannot.
            let mut pulse = std::pin::pin!(broker.pulse());
            assert!(tokio::time::timeout(Duration::from_millis(200), &mut pulse).await.is_err());
            hold.set(Held::No);
            assert!(tokio::time::timeout(DEADLINE, pulse).await.unwrap());
        });
        published.unwrap().unwrap();
        broker.stop().await;
    });
}

#[test]
fn passed_sockets_go_to_listeners_by_name_or_by_address() {
    let manager = Manager::new(&Place::File);
    let named = TcpListener::bind("127.0.0.1:0").unwrap();
    let placed = TcpListener::bind("127.0.0.1:0").unwrap();
    let addresses = [&named, &placed].map(|listener| listener.local_addr().unwrap());
    // The first has another address than is written, the second another name.
    manager
        .write(&format!("{ONE_LISTENER}[[listeners]]\nname = \"other\"\naddress = \"{}\"\n", addresses[1]));
    // Connections that were made before the broker ran are served.
    let early = addresses.map(connect);
    let program = manager.start_with(vec![named.into(), placed.into()], "mqtt:dunlin.socket");
    let ready = manager.hear_until("READY=1");
    assert_eq!(ready[1], format!("STATUS=serving on {}, {}", addresses[0], addresses[1]));
    assert!(early.into_iter().all(is_served));
    assert!(addresses.map(connect).into_iter().all(is_served));
    program.signal("-TERM");
    assert_eq!(program.code(), Some(0));
}

#[test]
fn the_file_of_a_passed_socket_stays() {
    let manager = Manager::new(&Place::File);
    let path = manager.path("mqtt.sock");
    let socket = UnixListener::bind(&path).unwrap();
    manager.write(&format!("[[listeners]]\nkind = \"unix\"\npath = \"{}\"\n", path.display()));
    let kept = socket.try_clone().unwrap();
    let program = manager.start_with(vec![socket.into()], "dunlin.socket");
    manager.hear_until("READY=1");
    assert!(is_served(UnixStream::connect(&path).unwrap()));
    program.signal("-TERM");
    assert_eq!(program.code(), Some(0));
    // Who has opened it may serve it on: connections wait meanwhile.
    assert!(UnixStream::connect(&path).is_ok());
    drop(kept);
}

#[test]
fn sockets_for_another_process_are_left_alone() {
    let manager = Manager::new(&Place::File);
    manager.write(ONE_LISTENER);
    let program = manager.start(&[("LISTEN_FDS", "1"), ("LISTEN_PID", "1"), ("LISTEN_FDNAMES", "mqtt")]);
    manager.hear_until("READY=1");
    program.signal("-TERM");
    assert_eq!(program.code(), Some(0));
}

/// Starts with a socket that cannot be used. Returns what is said of it.
fn refusal(manager: &Manager, socket: OwnedFd, names: &str) -> String {
    let program = manager.start_with(vec![socket], names);
    assert_eq!(program.code(), Some(1));
    manager.log()
}

#[test]
fn a_passed_socket_without_use_is_named() {
    let manager = Manager::new(&Place::File);
    manager.write(ONE_LISTENER);
    let tcp = || TcpListener::bind("127.0.0.1:0").unwrap();
    let stray = tcp();
    let address = stray.local_addr().unwrap();
    let log = refusal(&manager, stray.into(), "stray");
    assert!(log.contains(&format!("3 (\"stray\", {address}), which belongs to no listener")), "{log}");

    let log = refusal(&manager, UnixListener::bind(manager.path("s")).unwrap().into(), "mqtt");
    assert!(log.contains("for listener \"mqtt\", which is of another kind"), "{log}");

    let log = refusal(&manager, TcpListener::bind("0.0.0.0:0").unwrap().into(), "mqtt");
    assert!(log.contains("for anonymous clients of this machine alone"), "{log}");

    let log = refusal(&manager, UnixDatagram::unbound().unwrap().into(), "mqtt");
    assert!(log.contains("no socket of TCP or Unix streams"), "{log}");

    let listener = tcp();
    let connection = connect(listener.local_addr().unwrap());
    let log = refusal(&manager, connection.into(), "mqtt");
    assert!(log.contains("Accept=no"), "{log}");

    let both = vec![tcp().into(), tcp().into()];
    assert_eq!(manager.start_with(both, "mqtt:mqtt").code(), Some(1));
    assert!(manager.log().contains("the second one for listener \"mqtt\""), "{}", manager.log());
}

/// Nothing is told, and nothing fails, where there is no service manager.
#[test]
#[expect(clippy::disallowed_methods, reason = "the log is looked at until a deadline")]
fn a_manager_that_is_gone_is_no_reason_not_to_serve() {
    let manager = Manager::new(&Place::File);
    manager.write(ONE_LISTENER);
    fs::remove_file(Path::new(&manager.address)).unwrap();
    let program = manager.start(&[]);
    manager.socket.set_nonblocking(true).unwrap();
    let deadline = Instant::now() + DEADLINE;
    while !manager.log().contains("ready") {
        assert!(Instant::now() < deadline, "{}", manager.log());
        std::thread::yield_now();
    }
    assert!(manager.log().contains("cannot be told"), "{}", manager.log());
    assert_eq!(manager.socket.recv(&mut [0; 16]).unwrap_err().kind(), ErrorKind::WouldBlock);
    program.signal("-TERM");
    assert_eq!(program.code(), Some(0));
}
