//! How a database comes to be, and the reserve.

use std::{fs, os::unix::fs::MetadataExt, path::Path, sync::Arc};

use dunlin::store::{DataDirectory, FileMedium, Medium};
use redb::{DatabaseError, StorageError};

use crate::{Scratch, insert, names, rows};

const CACHE: usize = 1 << 20;

fn medium(path: &Path) -> FileMedium {
    FileMedium::new(Arc::new(DataDirectory::open(path).unwrap()))
}

#[test]
fn a_database_is_made_once_and_found_again() {
    let scratch = Scratch::new();
    let path = scratch.path("data");
    let first = medium(&path);
    let database = first.open(CACHE).unwrap();
    insert(&database, 1, b"one");
    drop(database);
    assert_eq!(
        rows(&first.open(CACHE).unwrap()),
        [(1, b"one".to_vec())],
        "opened again, as after a full disk"
    );
    drop(first);
    assert_eq!(rows(&medium(&path).open(CACHE).unwrap()), [(1, b"one".to_vec())]);
    assert_eq!(names(&path), ["dunlin.redb", "lock", "reserve"]);
    assert_eq!(fs::metadata(path.join("dunlin.redb")).unwrap().mode() & 0o777, 0o600);
}

/// A crash while redb makes a database leaves a file that redb cannot open.
#[test]
fn what_a_crash_left_of_the_making_is_replaced() {
    let scratch = Scratch::new();
    let path = scratch.path("data");
    let medium = medium(&path);
    for rubbish in [&b""[..], b"redb\x1a\x0a", &[0; 9000]] {
        fs::write(path.join("dunlin.redb.new"), rubbish).unwrap();
        assert_eq!(rows(&medium.open(CACHE).unwrap()), []);
        assert!(!path.join("dunlin.redb.new").exists());
        fs::remove_file(path.join("dunlin.redb")).unwrap();
    }
}

/// redb takes an empty file for a new database. What was cut to nothing must be told, not forgotten.
#[test]
fn a_database_cut_to_nothing_is_damaged_and_not_new() {
    let scratch = Scratch::new();
    let path = scratch.path("data");
    let medium = medium(&path);
    fs::write(path.join("dunlin.redb"), "").unwrap();
    let error = medium.open(CACHE).unwrap_err();
    assert!(
        matches!(&error, DatabaseError::Storage(StorageError::Corrupted(_) | StorageError::Io(_))),
        "{error:?}"
    );
}

#[test]
fn two_databases_are_not_opened_at_once() {
    let scratch = Scratch::new();
    let medium = medium(&scratch.path("data"));
    let _open = medium.open(CACHE).unwrap();
    assert!(matches!(medium.open(CACHE), Err(DatabaseError::DatabaseAlreadyOpen)));
}

#[test]
fn the_reserve_is_there_and_takes_real_space() {
    let scratch = Scratch::new();
    let path = scratch.path("data");
    let medium = medium(&path);
    let reserve = fs::metadata(path.join("reserve")).unwrap();
    assert!(reserve.len() > 0 && reserve.blocks() * 512 >= reserve.len(), "{reserve:?}");
    assert!(reserve.len() <= 64 << 20);
    assert!(medium.has_room());

    medium.release_reserve().unwrap();
    assert!(!path.join("reserve").exists());
    medium.release_reserve().unwrap();

    medium.make_reserve().unwrap();
    assert_eq!(fs::metadata(path.join("reserve")).unwrap().len(), reserve.len());
    assert!(medium.has_room());
}

/// A hole, or half of it after a crash, would be no reserve.
#[test]
fn a_reserve_that_is_none_is_made_again() {
    let scratch = Scratch::new();
    let path = scratch.path("data");
    let whole = {
        drop(medium(&path));
        fs::metadata(path.join("reserve")).unwrap().len()
    };
    let file = fs::File::create(path.join("reserve")).unwrap();
    file.set_len(whole).unwrap();
    assert!(file.metadata().unwrap().blocks() * 512 < whole, "the file system knows no holes");
    drop(medium(&path));
    assert!(fs::metadata(path.join("reserve")).unwrap().blocks() * 512 >= whole);
    fs::write(path.join("reserve"), "half").unwrap();
    drop(medium(&path));
    assert_eq!(fs::metadata(path.join("reserve")).unwrap().len(), whole);
}
