//! The program itself: signals, exit codes, memory.

use std::{
    env, fs,
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
};

use dunlin::{
    QoS,
    codec::{Delivery, Packet, ReasonCode, Version},
};
use tokio::net::TcpStream;

use crate::{BOTH, Peer, certificates::Directory, connect, peer::encoded, publish, within};

/// A running broker, killed at the end of the test if it is still there.
pub(crate) struct Program {
    child: Child,
    log: BufReader<std::process::ChildStderr>,
    _directory: Directory,
}

fn command(directory: &Directory, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dunlin"));
    command.args(["--data-dir"]).arg(directory.path("data")).args(arguments);
    // Two, whatever the machine: what passes from one to the other is tested too.
    command.env_clear().env("DUNLIN__SHARDS", "2").stdin(Stdio::null()).stderr(Stdio::piped());
    command
}

impl Program {
    fn start(arguments: &[&str]) -> (Program, SocketAddr) {
        let directory = Directory::new();
        let command = command(&directory, arguments);
        Program::on_tcp(command, directory)
    }

    fn on_tcp(mut command: Command, directory: Directory) -> (Program, SocketAddr) {
        command.args(["--listen", "127.0.0.1:0"]);
        let (program, address) = Program::spawn(command, directory);
        (program, address.parse().unwrap())
    }

    /// A broker on a Unix socket: connections to it use up no ports.
    pub(crate) fn on_unix(arguments: &[&str]) -> (Program, PathBuf) {
        let directory = Directory::new();
        let path = directory.path("mqtt.sock");
        let listeners = format!("listeners=[{{ kind = \"unix\", path = \"{}\" }}]", path.display());
        let mut command = command(&directory, arguments);
        command.args(["--set", &listeners]);
        (Program::spawn(command, directory).0, path)
    }

    /// Starts the broker and reads its log until it says where it listens.
    fn spawn(mut command: Command, directory: Directory) -> (Program, String) {
        // Nobody reads the log later on: lines about clients would fill the pipe and halt the broker.
        let filter = "log.filter=\"warn,dunlin::server=info,dunlin::cli::serve=info,dunlin::listener=error\"";
        let mut child = command.args(["--set", filter]).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        let address = loop {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "the broker ended before it listened");
            if let Some((_, rest)) = line.split_once("listening on ") {
                break rest.split_whitespace().next().unwrap().to_owned();
            }
        };
        (Program { child, log, _directory: directory }, address)
    }

    pub(crate) fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Waits for the end. Returns it with what was logged meanwhile.
    pub(crate) async fn wait(mut self) -> (ExitStatus, String) {
        let wait = tokio::task::spawn_blocking(move || {
            let mut log = String::new();
            self.log.read_to_string(&mut log).unwrap();
            (self.child.wait().unwrap(), log)
        });
        within(wait).await.unwrap()
    }

    /// Memory that the process holds, in bytes.
    pub(crate) fn resident_bytes(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn client(address: SocketAddr, version: Version, client_id: &str) -> Peer<TcpStream> {
    let mut peer = Peer::new(within(TcpStream::connect(address)).await.unwrap(), version);
    peer.connect(&connect(version, client_id)).await;
    peer
}

/// Fills what is on the way to a client that does not read, and leaves it so.
async fn deaf(address: SocketAddr) -> Peer<TcpStream> {
    let mut deaf = client(address, Version::V5, "deaf").await;
    deaf.subscribe("flood", QoS::AtLeastOnce).await;
    let mut publisher = client(address, Version::V5, "publisher").await;
    for _ in 0..100 {
        publisher.publish_acknowledged("flood", &[7; 200_000]).await;
    }
    deaf
}

#[tokio::test]
async fn sigterm_tells_clients_and_exits_with_0() {
    for signal in ["-TERM", "-INT"] {
        let (program, address) = Program::start(&[]);
        let mut v5 = client(address, Version::V5, "five").await;
        let mut v3 = client(address, Version::V311, "three").await;
        program.signal(signal);
        v5.expect_disconnect(ReasonCode::ServerShuttingDown).await;
        v3.expect_end().await;
        drop((v5, v3));
        let (status, log) = program.wait().await;
        assert_eq!(status.code(), Some(0), "{log}");
        assert!(log.contains("stopped"), "{log}");
    }
}

/// The time that the configuration gives is a limit, whatever clients do.
#[tokio::test]
async fn sigterm_does_not_wait_for_clients_that_do_not_read() {
    let (program, address) = Program::start(&["--set", "stop.timeout_secs=1"]);
    let deaf = deaf(address).await;
    program.signal("-TERM");
    let (status, log) = program.wait().await;
    assert_eq!(status.code(), Some(0), "{log}");
    drop(deaf);
}

#[tokio::test]
async fn a_second_signal_stops_at_once() {
    let (program, address) = Program::start(&["--set", "stop.timeout_secs=3600"]);
    let mut witness = client(address, Version::V5, "witness").await;
    let deaf = deaf(address).await;
    program.signal("-TERM");
    // The first one has been heard.
    witness.expect_disconnect(ReasonCode::ServerShuttingDown).await;
    program.signal("-TERM");
    let (status, log) = program.wait().await;
    assert_eq!(status.code(), Some(1), "{log}");
    drop(deaf);
}

/// Whether a process catches SIGTERM.
fn is_ready_to_stop(child: &Child) -> bool {
    const SIGTERM: u64 = 15;
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
    u64::from_str_radix(caught.trim(), 16).unwrap() & 1 << (SIGTERM - 1) != 0
}

// A start takes as long as the disk does: here it looks for messages in a terabyte of nothing.
#[test]
fn a_signal_ends_a_start_that_takes_long() {
    let directory = Directory::new();
    fs::create_dir(directory.path("data")).unwrap();
    let store = fs::File::create(directory.path("data").join("dunlin.redb")).unwrap();
    store.set_len(1 << 40).unwrap();
    let mut child = command(&directory, &["--listen", "127.0.0.1:0"]).spawn().unwrap();
    while !is_ready_to_stop(&child) {
        std::thread::yield_now();
    }
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    let mut log = String::new();
    child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{log}");
    assert!(log.contains("stopped before the broker had started"), "{log}");
}

fn run(directory: &Directory, arguments: &[&str]) -> (Option<i32>, String) {
    let output = command(directory, arguments).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn an_address_in_use_is_a_failure_that_says_so() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, log) = run(&Directory::new(), &["--listen", &address]);
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains(&format!("address {address} is already in use")), "{log}");
}

#[test]
fn unreadable_certificates_are_a_failure_that_names_the_file() {
    let directory = Directory::new();
    directory.write("empty.pem", "");
    for (file, text) in [("missing.pem", "missing.pem"), ("empty.pem", "empty.pem")] {
        let config = format!(
            "[[listeners]]\nkind = \"tls\"\naddress = \"127.0.0.1:0\"\n\
             tls = {{ certificate = \"{0}\", key = \"{0}\" }}\n",
            directory.path(file).display()
        );
        let config = directory.write("d.toml", config);
        let (code, log) = run(&directory, &["--config", config.to_str().unwrap()]);
        assert_eq!(code, Some(1), "{log}");
        assert!(log.contains(text), "{log}");
    }
}

/// Neither a client that does not read what it subscribes to, nor one that does not read the answers to
/// what it asks, makes the broker hold more than its limits say.
#[tokio::test]
async fn clients_that_do_not_read_do_not_fill_the_memory() {
    const GROWTH_BYTES_MAX: usize = 48 * 1024 * 1024;
    let (program, address) = Program::start(&["--set", "sys.interval_secs=0"]);
    let mut publisher = client(address, Version::V5, "publisher").await;
    publisher.ping().await;
    let before = program.resident_bytes();
    let mut deaf = Vec::new();
    for number in 0..8 {
        let mut peer = client(address, Version::V5, &format!("deaf-{number}")).await;
        peer.subscribe("flood", QoS::AtMostOnce).await;
        deaf.push(peer);
    }
    // 8 × 200 MB.
    for _ in 0..2000 {
        publisher.publish_acknowledged("flood", &[7; 100_000]).await;
    }
    let asking = client(address, Version::V311, "asking").await;
    let pings = encoded(&Packet::PingReq, Version::V311).repeat(32 * 1024);
    let mut sent = 0_usize;
    // As much as the broker reads before it stops to: the witness's answers tell when that is.
    for _ in 0..200 {
        match asking.stream.try_write(&pings) {
            Ok(count) => sent += count,
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
        }
        publisher.ping().await;
    }
    let grown = program.resident_bytes().saturating_sub(before);
    assert!(grown < GROWTH_BYTES_MAX, "{grown} bytes more, after {sent} bytes of PINGREQ");
    publisher.send(&publish("flood", b"x", Delivery::AtMostOnce)).await;
    publisher.ping().await;
}

/// A packet takes memory as its bytes arrive, whatever size it says it has.
#[tokio::test]
async fn announced_packets_take_no_memory() {
    const GROWTH_BYTES_MAX: usize = 24 * 1024 * 1024;
    let (program, address) = Program::start(&[]);
    client(address, Version::V5, "first").await.ping().await;
    let before = program.resident_bytes();
    let mut announcing = Vec::new();
    for number in 0..300 {
        let mut peer = client(address, Version::V5, &format!("announcing-{number}")).await;
        peer.ping().await;
        // 15 MiB each.
        peer.send_bytes(&[0x30, 0x80, 0x80, 0xc0, 0x07, 0, 1, b't', 0]).await;
        announcing.push(peer);
    }
    client(address, Version::V5, "last").await.ping().await;
    let grown = program.resident_bytes().saturating_sub(before);
    assert!(grown < GROWTH_BYTES_MAX, "{grown} bytes more");
}

/// Connections that come and go leave nothing behind.
#[tokio::test]
async fn connections_that_are_over_take_no_memory() {
    const GROWTH_BYTES_MAX: usize = 8 * 1024 * 1024;
    let (program, address) = Program::start(&[]);
    let come_and_go = async |count: usize| {
        for number in 0..count {
            let mut peer = client(address, BOTH[number % 2], &format!("passing-{number}")).await;
            peer.subscribe(&format!("passing/{number}"), QoS::AtLeastOnce).await;
            peer.publish_acknowledged("passing", &[7; 100]).await;
        }
    };
    come_and_go(1000).await;
    let before = program.resident_bytes();
    come_and_go(4000).await;
    let grown = program.resident_bytes().saturating_sub(before);
    assert!(grown < GROWTH_BYTES_MAX, "{grown} bytes more");
}

/// Without file descriptors the broker waits until there are some again.
#[tokio::test]
async fn running_out_of_file_descriptors_is_got_over() {
    let directory = Directory::new();
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -n 60 && exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_dunlin")]);
    limited.arg("--data-dir").arg(directory.path("data"));
    limited.env_clear().env("PATH", env::var_os("PATH").unwrap_or_default());
    limited.stdin(Stdio::null()).stderr(Stdio::piped());
    let (_program, address) = Program::on_tcp(limited, directory);
    let mut connected = Vec::new();
    for number in 0..20 {
        connected.push(client(address, Version::V5, &format!("early-{number}")).await);
    }
    // More than there are descriptors left; the system completes the connections by itself.
    let mut waiting = Vec::new();
    for _ in 0..100 {
        waiting.push(within(TcpStream::connect(address)).await.unwrap());
    }
    for peer in &mut connected {
        peer.ping().await;
    }
    drop(waiting);
    client(address, Version::V5, "late").await.ping().await;
}
