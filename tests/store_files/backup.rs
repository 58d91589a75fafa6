//! Copies of a database that goes on changing.

use std::{
    fs,
    os::unix::fs::{MetadataExt, symlink},
};

use dunlin::{
    store::{BackupError, DiskOptions, Existing, LocalStore, Progress, backup},
    time::Timestamp,
};
use redb::{Builder, ReadableDatabase, ReadableTable, TableDefinition};

use crate::{Scratch, insert, names, rows};

#[test]
fn a_backup_has_the_state_of_its_beginning() {
    let scratch = Scratch::new();
    let database = Builder::new().create(scratch.path("database")).unwrap();
    for key in 0..50 {
        insert(&database, key, b"before");
    }
    let expected = rows(&database);
    let mut seen = Vec::new();
    let done = backup(&database, &scratch.path("copy"), Existing::Keep, |progress| {
        seen.push(progress);
        insert(&database, 10, b"meanwhile");
        insert(&database, 1000 + seen.len() as u64, b"meanwhile");
    })
    .unwrap();
    assert_eq!(rows(&Builder::new().open(scratch.path("copy")).unwrap()), expected);
    assert_eq!(done.rows, 50);
    assert_eq!(done.bytes, fs::metadata(scratch.path("copy")).unwrap().len());
    assert_eq!(seen.first(), Some(&Progress { rows: 0, rows_total: 50 }));
    assert_eq!(seen.last(), Some(&Progress { rows: 50, rows_total: 50 }));
}

/// Every type of table that the store may have; what the copy has in it is compared as redb prints it.
#[test]
fn all_types_of_tables_are_copied() {
    let scratch = Scratch::new();
    let path = scratch.path("database");
    let database = Builder::new().create(&path).unwrap();
    macro_rules! tables {
        ($($name:literal: $key:ty => $value:ty = $rows:expr;)*) => {{
            let transaction = database.begin_write().unwrap();
            $({
                let mut table = transaction.open_table(TableDefinition::<'_, $key, $value>::new($name)).unwrap();
                for (key, value) in $rows {
                    table.insert(key, value).unwrap();
                }
            })*
            transaction.commit().unwrap();
            backup(&database, &scratch.path("copy"), Existing::Keep, |_| {}).unwrap();
            let copy = Builder::new().open(scratch.path("copy")).unwrap();
            let (original, copy) = (database.begin_read().unwrap(), copy.begin_read().unwrap());
            $({
                let definition = TableDefinition::<'_, $key, $value>::new($name);
                let printed = |transaction: &redb::ReadTransaction| {
                    let table = transaction.open_table(definition).unwrap();
                    let rows = table.iter().unwrap().map(|row| {
                        let (key, value) = row.unwrap();
                        format!("{:?} {:?}", key.value(), value.value())
                    });
                    rows.collect::<Vec<_>>()
                };
                assert_eq!(printed(&copy), printed(&original), $name);
                assert_eq!(printed(&copy).len(), $rows.len(), $name);
            })*
        }};
    }
    let (a, b, empty) = (b"a".as_slice(), b"bb".as_slice(), b"".as_slice());
    tables! {
        "numbers by name": &str => u64 = [("x", 1), ("", 2)];
        "bytes by name": &str => &[u8] = [("x", a), ("y", empty)];
        "by number": u64 => &[u8] = [(1, a), (u64::MAX, b)];
        "by numbers": (u64, u32) => &[u8] = [((1, 2), a), ((1, u32::MAX), b)];
        "by number and bytes": (u64, &[u8]) => &[u8] = [((1, empty), a), ((1, b), b), ((2, a), empty)];
        "by bytes": &[u8] => &[u8] = [(a, b), (b, a), (empty, empty)];
    }
}

#[test]
fn a_copy_that_fails_leaves_nothing() {
    let scratch = Scratch::new();
    let database = Builder::new().create(scratch.path("database")).unwrap();
    insert(&database, 1, b"one");
    let to = scratch.path("nowhere").join("copy");
    assert!(matches!(backup(&database, &to, Existing::Keep, |_| {}), Err(BackupError::Database(_))));
    fs::write(scratch.path("copy"), "kept").unwrap();
    let kept = backup(&database, &scratch.path("copy"), Existing::Keep, |_| {});
    assert!(matches!(kept, Err(BackupError::Exists(_))));

    let transaction = database.begin_write().unwrap();
    transaction.open_table(TableDefinition::<'_, u8, bool>::new("foreign")).unwrap().insert(1, true).unwrap();
    transaction.commit().unwrap();
    let foreign = backup(&database, &scratch.path("copy"), Existing::Replace, |_| {});
    assert!(matches!(foreign, Err(BackupError::UnknownTable(name)) if name == "foreign"));
    assert_eq!(fs::read(scratch.path("copy")).unwrap(), b"kept");
    assert_eq!(names(&scratch.0), ["copy", "database"]);
    assert_eq!(rows(&database).len(), 1);
}

// A broker that goes on to write a file without a name loses all that it is given.
#[test]
fn a_broker_replaces_no_file_that_it_uses() {
    let scratch = Scratch::new();
    let data = scratch.path("data");
    let now = Timestamp::from_millis(1);
    let (store, _, _) = LocalStore::open(&data, DiskOptions::default(), now).unwrap();
    symlink(&data, scratch.path("other")).unwrap();
    let database = data.join("dunlin.redb");
    let before = fs::metadata(&database).unwrap().ino();
    for directory in ["data", "other"] {
        for name in ["dunlin.redb", "lock", "reserve"] {
            let file = scratch.path(directory).join(name);
            let done = store.backup(&file, Existing::Replace, |_| {});
            assert!(matches!(done, Err(BackupError::InDataDirectory(_))), "{done:?}");
        }
    }
    assert_eq!(fs::metadata(&database).unwrap().ino(), before);
    assert!(store.backup(&scratch.path("copy.redb"), Existing::Keep, |_| {}).is_ok());
}
