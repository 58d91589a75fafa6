//! Copies of a database that goes on changing.

use std::fs;

use dunlin::store::{BackupError, Existing, Progress, backup};
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
