//! The audit log: what matters for security, one JSON object a line, in a file that is rotated or in the journal of
//! systemd.
//!
//! Records are handed to a thread of their own. If it falls behind, records are lost, counted, and the next one that
//! is written says how many: whoever floods the broker must not stop it by its log.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::{fs::OpenOptionsExt, net::UnixDatagram},
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
};

use serde_json::{Map, Value};

use crate::{config, guard::rfc3339, time::Timestamp};

/// Records that wait to be written.
const RECORDS_MAX: usize = 8192;

/// Where the journal listens.
const JOURNAL: &str = "/run/systemd/journal/socket";

/// Writes records. Without a place to write to, it throws them away.
#[derive(Debug, Default)]
pub struct Audit {
    sender: Option<SyncSender<String>>,
    lost: AtomicU64,
    /// Ends when `sender` does.
    writer: Option<JoinHandle<()>>,
}

/// One record in the making. Fields are named as in logs. No secret ever goes into one.
#[derive(Debug)]
pub struct Record(Map<String, Value>);

/// Where records go.
#[derive(Debug)]
enum Sink {
    File(Rotated),
    Journal(UnixDatagram),
}

/// A file that is kept under another name when it is large.
#[derive(Debug)]
struct Rotated {
    path: PathBuf,
    file: File,
    bytes: u64,
    bytes_max: u64,
    files_max: usize,
}

impl Record {
    /// What happened, and when.
    #[must_use]
    pub fn new(now: Timestamp, event: &str) -> Record {
        let mut fields = Map::new();
        fields.insert("time".into(), rfc3339(now).into());
        fields.insert("event".into(), event.into());
        Record(fields)
    }

    /// One more field.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Record {
        self.0.insert(name.into(), value.into());
        self
    }

    /// One more field, if there is a value.
    #[must_use]
    pub fn with_some(self, name: &str, value: Option<&str>) -> Record {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }
}

impl Audit {
    /// Opens what the configuration names.
    ///
    /// # Errors
    /// What the system says, with the file.
    pub fn open(config: &config::Audit) -> Result<Audit, String> {
        let mut sinks = Vec::new();
        if let Some(path) = &config.file {
            let file = Rotated::open(path, config.file_bytes_max, config.files_max);
            sinks.push(Sink::File(file.map_err(|error| format!("audit.file {}: {error}", path.display()))?));
        }
        if config.journald {
            let socket = UnixDatagram::unbound().and_then(|socket| socket.connect(JOURNAL).map(|()| socket));
            sinks.push(Sink::Journal(socket.map_err(|error| format!("audit.journald: {JOURNAL}: {error}"))?));
        }
        if sinks.is_empty() {
            return Ok(Audit::default());
        }
        let (sender, receiver) = sync_channel(RECORDS_MAX);
        let writer = thread::Builder::new().name("dunlin-audit".into());
        let writer = writer.spawn(move || write_all(&receiver, sinks)).map_err(|error| error.to_string())?;
        Ok(Audit { sender: Some(sender), lost: AtomicU64::new(0), writer: Some(writer) })
    }

    /// Whether anything is written at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.sender.is_some()
    }

    /// Writes a record, if there is where. It never waits.
    pub fn write(&self, record: impl FnOnce() -> Record) {
        let Some(sender) = &self.sender else { return };
        let mut record = record();
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            record = record.with("lost_before", lost);
        }
        if sender.try_send(Value::Object(record.0).to_string()).is_err() {
            self.lost.fetch_add(lost + 1, Ordering::Relaxed);
        }
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        self.sender = None;
        // What waits is written before the process ends.
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

fn write_all(receiver: &Receiver<String>, mut sinks: Vec<Sink>) {
    let mut is_failing = false;
    while let Ok(first) = receiver.recv() {
        let lines: Vec<String> = std::iter::once(first).chain(receiver.try_iter()).collect();
        for sink in &mut sinks {
            let result = match sink {
                Sink::File(file) => file.write(&lines),
                Sink::Journal(socket) => to_journal(socket, &lines),
            };
            match result {
                Ok(()) => is_failing = false,
                Err(error) if !is_failing => {
                    is_failing = true;
                    tracing::error!(target: "dunlin::audit", "the audit log cannot be written: {error}");
                }
                Err(_) => {}
            }
        }
    }
}

/// The journal takes a datagram of fields for each record. JSON has no line break outside of its own.
fn to_journal(socket: &UnixDatagram, lines: &[String]) -> io::Result<()> {
    for line in lines {
        let fields = format!("PRIORITY=5\nSYSLOG_IDENTIFIER=dunlin-audit\nMESSAGE={line}\n");
        socket.send(fields.as_bytes())?;
    }
    Ok(())
}

impl Rotated {
    fn open(path: &Path, bytes_max: u64, files_max: usize) -> io::Result<Rotated> {
        let file = append_to(path)?;
        let bytes = file.metadata()?.len();
        Ok(Rotated { path: path.to_path_buf(), file, bytes, bytes_max, files_max })
    }

    fn write(&mut self, lines: &[String]) -> io::Result<()> {
        for line in lines {
            if self.bytes > 0 && self.bytes + line.len() as u64 >= self.bytes_max {
                self.rotate()?;
            }
            let line = format!("{line}\n");
            self.file.write_all(line.as_bytes())?;
            self.bytes += line.len() as u64;
        }
        Ok(())
    }

    /// FILE becomes FILE.1, FILE.1 becomes FILE.2, and so on; the last one goes.
    fn rotate(&mut self) -> io::Result<()> {
        let numbered = |number: usize| {
            let mut name = self.path.as_os_str().to_owned();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        for number in (1..self.files_max.saturating_sub(1)).rev() {
            ignore_missing(fs::rename(numbered(number), numbered(number + 1)))?;
        }
        if self.files_max > 1 {
            fs::rename(&self.path, numbered(1))?;
        } else {
            fs::remove_file(&self.path)?;
        }
        self.file = append_to(&self.path)?;
        self.bytes = 0;
        Ok(())
    }
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Names of users and addresses are nobody else's business.
fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_rotated_and_the_oldest_go() {
        let directory = tempfile_directory();
        let path = directory.join("audit.jsonl");
        let config = config::Audit { file: Some(path), file_bytes_max: 200, files_max: 3, journald: false };
        let audit = Audit::open(&config).unwrap();
        for number in 0..20 {
            let now = Timestamp::from_millis(1_700_000_000_000);
            audit.write(|| Record::new(now, "test").with("number", number).with("text", "a\n\"b\""));
        }
        drop(audit);
        let mut names: Vec<_> = fs::read_dir(&directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["audit.jsonl", "audit.jsonl.1", "audit.jsonl.2"]);
        let mut numbers = Vec::new();
        for name in names.iter().rev() {
            let text = fs::read_to_string(directory.join(name)).unwrap();
            assert!(text.len() <= 200, "{} bytes", text.len());
            for line in text.lines() {
                let record: Value = serde_json::from_str(line).unwrap();
                numbers.push(record["number"].as_u64().unwrap());
                assert_eq!(record["time"], "2023-11-14T22:13:20Z");
            }
        }
        assert_eq!(numbers.last(), Some(&19));
        assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{numbers:?}");
        fs::remove_dir_all(directory).unwrap();
    }

    fn tempfile_directory() -> PathBuf {
        let path = std::env::temp_dir().join(format!("dunlin-audit-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        path
    }
}
