//! The broker's process, and what the system says of it.

use std::{
    fs::{self, File},
    io,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep},
};

/// How long the broker may take to start, and to stop.
const PATIENCE: Duration = Duration::from_secs(30);

/// Clock ticks of a second in `/proc`, which Linux says to programs on every machine.
const TICKS_PER_SEC: f64 = 100.0;

/// A running broker on a data directory of its own, which goes with it.
pub(crate) struct Broker {
    child: Child,
    directory: PathBuf,
    pub(crate) port: u16,
}

/// What the system says of the broker at a moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Seconds since the start.
    pub(crate) at_secs: f64,
    pub(crate) rss_bytes: u64,
    pub(crate) files: u64,
    pub(crate) threads: u64,
    pub(crate) store_bytes: u64,
    pub(crate) cpu_secs: f64,
}

impl Broker {
    /// Starts the program and waits until it takes connections.
    pub(crate) async fn start(program: &Path) -> io::Result<Broker> {
        let directory = std::env::temp_dir().join(format!("dunlin-soak-{}", std::process::id()));
        fs::create_dir_all(&directory)?;
        // A port that was free a moment ago.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let log = File::create(directory.join("log"))?;
        let mut command = Command::new(program);
        command.arg("--listen").arg(format!("127.0.0.1:{port}"));
        command.arg("--data-dir").arg(directory.join("data"));
        // Strangers are told of otherwise, thousands of times.
        command.args(["--log", "error"]);
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut broker = Broker { child: command.spawn()?, directory, port };
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            if let Some(status) = broker.child.try_wait()? {
                return Err(io::Error::other(format!("the broker ended: {status}\n{}", broker.log())));
            }
            if Instant::now() > deadline {
                return Err(io::Error::other("the broker does not listen"));
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(broker)
    }

    /// What it has written, which is nothing as long as all is well.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    pub(crate) fn sample(&self, start: Instant) -> io::Result<Sample> {
        let process = PathBuf::from(format!("/proc/{}", self.child.id()));
        let status = fs::read_to_string(process.join("status"))?;
        let field = |name: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        let missing = || io::Error::other("/proc does not tell");
        Ok(Sample {
            at_secs: start.elapsed().as_secs_f64(),
            rss_bytes: field("VmRSS:").ok_or_else(missing)? * 1024,
            files: fs::read_dir(process.join("fd"))?.count() as u64,
            threads: field("Threads:").ok_or_else(missing)?,
            store_bytes: fs::metadata(self.directory.join("data/dunlin.redb"))?.len(),
            cpu_secs: cpu_secs(&process)?,
        })
    }

    /// Asks it to end, and waits for that.
    pub(crate) async fn stop(mut self) -> io::Result<ExitStatus> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                return Err(io::Error::other("the broker does not end"));
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Processor time that a process has taken.
pub(crate) fn cpu_secs(process: &Path) -> io::Result<f64> {
    let stat = fs::read_to_string(process.join("stat"))?;
    // The name before the last parenthesis may have spaces.
    let rest = stat.rsplit(')').next().unwrap_or_default();
    let ticks: f64 =
        rest.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    Ok(ticks / TICKS_PER_SEC)
}
