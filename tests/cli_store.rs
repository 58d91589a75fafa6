//! The commands around the store, driven as a user drives them, and the control socket.
#![expect(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

#[path = "cli_store/commands.rs"]
mod commands;
#[path = "cli_store/control.rs"]
mod control;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
};

use redb::{Builder, Database, ReadableDatabase, ReadableTable, TableDefinition};

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
const SUB: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("sub");

/// A directory of one test with a data directory in it, removed at its end.
struct Scratch(PathBuf);

/// What came of a command.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Scratch {
    fn new() -> Scratch {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("dunlin-store-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(path.join("data")).unwrap();
        Scratch(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn data(&self) -> PathBuf {
        self.path("data")
    }

    fn store(&self) -> PathBuf {
        self.path("data/dunlin.redb")
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        let output = Command::new(env!("CARGO_BIN_EXE_dunlin"))
            .args(arguments)
            .args(["--data-dir", "data"])
            .current_dir(&self.0)
            .env_clear()
            .output()
            .unwrap();
        Ran {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Makes a database with this many records, ends of subscriptions, and a subscription for each.
fn build(path: &Path, rows: u64) -> Database {
    let database = Builder::new().set_cache_size(1 << 20).create(path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(META).unwrap().insert("schema", 1).unwrap();
    for record in 1..=rows {
        let filter = format!("message {record}");
        let session = 5_u64;
        let length = (filter.len() as u16).to_le_bytes();
        let ended = [&[1, 5][..], &session.to_le_bytes(), &length, filter.as_bytes()].concat();
        transaction.open_table(LOG).unwrap().insert(record << 16, ended.as_slice()).unwrap();
        let key = [&session.to_be_bytes()[..], filter.as_bytes()].concat();
        let row = [1, 17, 1, 0, 0, 0, 0];
        transaction.open_table(SUB).unwrap().insert(key.as_slice(), row.as_slice()).unwrap();
    }
    transaction.commit().unwrap();
    database
}

/// The messages of a database.
fn messages(path: &Path) -> Vec<(u64, Vec<u8>)> {
    let database = Builder::new().set_cache_size(1 << 20).open(path).unwrap();
    let log = database.begin_read().unwrap().open_table(LOG).unwrap();
    let rows = log.iter().unwrap();
    rows.map(|row| row.map(|(key, value)| (key.value() >> 16, value.value().to_vec())).unwrap()).collect()
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
