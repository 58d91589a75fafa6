//! The data directory and its files: who may use it, how a database comes to be, the reserve, damage.
#![expect(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

#[path = "store_files/backup.rs"]
mod backup;
#[path = "store_files/directory.rs"]
mod directory;
#[path = "store_files/medium.rs"]
mod medium;
#[path = "store_files/salvage.rs"]
mod salvage;

use std::{
    fs,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicUsize, Ordering},
};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

/// A table of the kind that the store has.
const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");

/// A directory of one test, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Scratch {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("dunlin-files-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Scratch(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Writes a row in a transaction of its own.
fn insert(database: &Database, key: u64, value: &[u8]) {
    let transaction = database.begin_write().unwrap();
    transaction.open_table(LOG).unwrap().insert(key, value).unwrap();
    transaction.commit().unwrap();
}

/// All rows of a database; none without the table.
fn rows(database: &Database) -> Vec<(u64, Vec<u8>)> {
    let transaction = database.begin_read().unwrap();
    let Ok(table) = transaction.open_table(LOG) else { return Vec::new() };
    let row = |row: Result<_, redb::StorageError>| {
        let (key, value): (redb::AccessGuard<'_, u64>, redb::AccessGuard<'_, &[u8]>) = row.unwrap();
        (key.value(), value.value().to_vec())
    };
    table.iter().unwrap().map(row).collect()
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
