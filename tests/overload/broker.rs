//! The program on a data directory of its own, and what the system says of it.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, ChildStderr, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
};

use dunlin::codec::{Connect, Version};
use tokio::net::UnixStream;

use crate::{MIB, Peer, within};

/// A running broker, killed at the end of the test.
pub(crate) struct Broker {
    child: Child,
    directory: PathBuf,
    /// Where it listens for TCP. On its Unix socket the system buffers the same little for every connection.
    pub(crate) address: SocketAddr,
    /// Nobody reads on, but the broker must be able to write.
    _log: BufReader<ChildStderr>,
}

impl Broker {
    /// Starts the program with settings such as `limits.outbox_bytes_max="64 KiB"`, and `$SYS` once a second.
    pub(crate) fn start(settings: &[&str]) -> Broker {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("overload-{}-{number}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let listeners = format!(
            "listeners=[{{ kind = \"unix\", path = {:?} }}, {{ address = \"127.0.0.1:0\" }}]",
            directory.join("socket")
        );
        let mut command = Command::new(env!("CARGO_BIN_EXE_dunlin"));
        command.arg("--data-dir").arg(directory.join("data")).args(["--set", &listeners]);
        // Lines about clients would fill the pipe.
        let filter = "log.filter=\"error,dunlin::server=info,dunlin::listener=error\"";
        for setting in [filter, "sys.interval_secs=1", "shards=2"].iter().chain(settings) {
            command.args(["--set", setting]);
        }
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        let address = loop {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "the broker ended before it listened");
            let listening = line.split_once("listening on ").and_then(|(_, rest)| rest.split(' ').next());
            if let Some(address) = listening.and_then(|text| text.trim().parse().ok()) {
                break address;
            }
        };
        Broker { child, directory, address, _log: log }
    }

    /// A connection over the Unix socket that has said nothing.
    pub(crate) async fn open(&self) -> Peer<UnixStream> {
        let stream = within(UnixStream::connect(self.directory.join("socket"))).await.unwrap();
        Peer::new(stream, Version::V5)
    }

    /// A connected client.
    pub(crate) async fn client(&self, connect: &Connect<'_>) -> Peer<UnixStream> {
        let mut peer = self.open().await;
        peer.connect(connect).await;
        peer
    }

    /// Memory that the process holds, in bytes.
    pub(crate) fn resident_bytes(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
    }

    /// Files and sockets that the process has open.
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// Memory has not grown by more than this since it was `before`.
    #[track_caller]
    pub(crate) fn assert_grown_less(&self, before: usize, bytes_max: usize) {
        let grown = self.resident_bytes().saturating_sub(before);
        assert!(grown < bytes_max, "{} MiB more, at most {} MiB", grown / MIB, bytes_max / MIB);
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}
