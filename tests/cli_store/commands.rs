//! `dunlin backup`, `restore` and `store` on a data directory that no broker uses.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
};

use dunlin::store::DataDirectory;

use crate::{Scratch, build, messages, names};

#[test]
fn a_backup_restores_to_the_same_store() {
    let scratch = Scratch::new();
    drop(build(&scratch.store(), 300));
    let ran = scratch.run(&["backup", "copy.redb"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
    assert!(ran.stdout.contains("copy.redb: 601 rows"), "{ran:?}");
    assert_eq!(fs::metadata(scratch.path("copy.redb")).unwrap().permissions().mode() & 0o777, 0o600);

    let expected = messages(&scratch.store());
    fs::remove_dir_all(scratch.data()).unwrap();
    let ran = scratch.run(&["restore", "copy.redb"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "a data directory is made: {ran:?}");
    assert_eq!(messages(&scratch.store()), expected);
    assert_eq!(expected.len(), 300);
}

#[test]
fn a_file_is_not_replaced_unless_that_is_said() {
    let scratch = Scratch::new();
    drop(build(&scratch.store(), 3));
    fs::write(scratch.path("copy.redb"), "precious").unwrap();
    let ran = scratch.run(&["backup", "copy.redb"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("exists; --force replaces it"), "{ran:?}");
    assert_eq!(fs::read(scratch.path("copy.redb")).unwrap(), b"precious");
    assert_eq!(scratch.run(&["backup", "--force", "copy.redb"]).code, Some(0));
    assert_eq!(messages(&scratch.path("copy.redb")).len(), 3);
    assert_eq!(names(&scratch.0), ["copy.redb", "data"], "nothing is left over");
}

#[test]
fn a_backup_that_cannot_be_written_says_where() {
    let scratch = Scratch::new();
    drop(build(&scratch.store(), 3));
    let ran = scratch.run(&["backup", "nowhere/copy.redb"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("nowhere/copy.redb: No such file or directory"), "{ran:?}");
}

#[test]
fn a_backup_takes_the_place_of_no_file_of_the_store() {
    let scratch = Scratch::new();
    drop(build(&scratch.store(), 3));
    for file in ["data/dunlin.redb", "data/lock", "data/../data/new.redb"] {
        let ran = scratch.run(&["backup", "--force", file]);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(ran.stderr.contains("in the data directory itself"), "{ran:?}");
    }
    assert_eq!(names(&scratch.data()), ["dunlin.redb", "lock"]);
}

#[test]
fn a_store_is_replaced_only_if_that_is_said_and_is_kept() {
    let scratch = Scratch::new();
    drop(build(&scratch.path("copy.redb"), 5));
    drop(build(&scratch.store(), 7));
    let ran = scratch.run(&["restore", "copy.redb"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("--force"), "{ran:?}");
    assert_eq!(messages(&scratch.store()).len(), 7);

    let ran = scratch.run(&["restore", "--force", "copy.redb"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(messages(&scratch.store()).len(), 5);
    let kept = names(&scratch.data()).into_iter().find(|name| name.starts_with("replaced-")).unwrap();
    assert!(ran.stdout.contains(&kept), "{ran:?}");
    assert_eq!(messages(&scratch.data().join(kept)).len(), 7);
}

// The administrator restores, and the broker runs as a user of its own.
#[test]
fn what_is_restored_belongs_to_the_owner_of_the_data_directory() {
    const SOMEBODY: u32 = 65_534;
    let scratch = Scratch::new();
    drop(build(&scratch.path("copy.redb"), 5));
    if chown(scratch.data(), Some(SOMEBODY), Some(SOMEBODY)).is_err() {
        eprintln!("not tested: this user cannot give files away");
        return;
    }
    assert_eq!(scratch.run(&["restore", "copy.redb"]).code, Some(0));
    for name in names(&scratch.data()) {
        let metadata = fs::metadata(scratch.data().join(&name)).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (SOMEBODY, SOMEBODY), "{name}");
    }
}

#[test]
fn what_is_no_backup_changes_nothing() {
    let scratch = Scratch::new();
    drop(build(&scratch.store(), 7));
    drop(build(&scratch.path("copy.redb"), 300));
    let mut bytes = fs::read(scratch.path("copy.redb")).unwrap();
    let at = bytes.windows(11).position(|window| window == b"message 299").unwrap();
    bytes[at] = b'M';
    fs::write(scratch.path("altered.redb"), &bytes).unwrap();
    fs::write(scratch.path("half.redb"), &bytes[..bytes.len() / 2]).unwrap();
    fs::write(scratch.path("text"), "this is no database").unwrap();
    let before = names(&scratch.data());
    for file in ["altered.redb", "half.redb", "text", "missing", "data"] {
        let ran = scratch.run(&["restore", "--force", file]);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(ran.stderr.starts_with(&format!("error: {file}: ")), "{ran:?}");
        assert_eq!(messages(&scratch.store()).len(), 7);
    }
    let after: Vec<String> = names(&scratch.data()).into_iter().filter(|name| name != "lock").collect();
    assert_eq!(after, before);
}

#[test]
fn nobody_works_on_a_store_that_is_in_use() {
    let scratch = Scratch::new();
    drop(build(&scratch.store(), 7));
    drop(build(&scratch.path("copy.redb"), 5));
    let broker = DataDirectory::open(&scratch.data()).unwrap();
    for arguments in [
        &["restore", "--force", "copy.redb"][..],
        &["store", "check"],
        &["store", "stat"],
        &["store", "compact"],
    ] {
        let ran = scratch.run(arguments);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{ran:?}");
        assert!(ran.stderr.contains(&format!("in use by process {}", std::process::id())), "{ran:?}");
    }
    drop(broker);
    assert_eq!(scratch.run(&["store", "check"]).code, Some(0));
}

#[test]
fn without_a_store_there_is_nothing_to_do() {
    let scratch = Scratch::new();
    for arguments in
        [&["store", "check"][..], &["store", "stat"], &["store", "compact"], &["backup", "copy.redb"]]
    {
        let ran = scratch.run(arguments);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(!scratch.store().exists() && !scratch.path("copy.redb").exists(), "none is made");
    }
    fs::remove_dir_all(scratch.data()).unwrap();
    let ran = scratch.run(&["store", "check"]);
    assert!(ran.stderr.contains("does not exist") && ran.stderr.contains("--data-dir"), "{ran:?}");
}

#[test]
fn a_check_tells_the_sound_from_the_damaged_and_changes_nothing() {
    let scratch = Scratch::new();
    drop(build(&scratch.store(), 300));
    let ran = scratch.run(&["store", "check"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
    assert!(ran.stdout.contains("601 rows") && ran.stdout.contains("nothing is wrong"), "{ran:?}");

    let mut bytes = fs::read(scratch.store()).unwrap();
    let at = bytes.windows(11).position(|window| window == b"message 299").unwrap();
    bytes[at] = b'M';
    fs::write(scratch.store(), &bytes).unwrap();
    let ran = scratch.run(&["store", "check"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stdout.contains("1 pages with a wrong checksum"), "{ran:?}");
    assert_eq!(fs::read(scratch.store()).unwrap(), bytes);
    let ran = scratch.run(&["backup", "copy.redb"]);
    assert_eq!(ran.code, Some(1), "a damaged store is not passed on as a backup: {ran:?}");
    assert!(ran.stderr.contains("dunlin store check"), "{ran:?}");
}

#[test]
fn statistics_are_for_people_and_for_programs() {
    let scratch = Scratch::new();
    drop(build(&scratch.store(), 300));
    let ran = scratch.run(&["store", "stat"]);
    let line = ran.stdout.lines().find(|line| line.starts_with("log")).unwrap();
    assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["log", "300", "9192"], "{ran:?}");
    let ran = scratch.run(&["store", "stat", "--json"]);
    let value: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(value["schema"], 1);
    assert_eq!(value["file_bytes"], fs::metadata(scratch.store()).unwrap().len());
    let log = value["tables"].as_array().unwrap().iter().find(|table| table["name"] == "log").unwrap();
    assert_eq!((&log["rows"], &log["bytes"]), (&300.into(), &9192.into()));
}

#[test]
fn compacting_keeps_all_and_gives_space_back() {
    let scratch = Scratch::new();
    let database = build(&scratch.store(), 30_000);
    let transaction = database.begin_write().unwrap();
    transaction.open_table(crate::LOG).unwrap().retain(|key, _| key >> 16 <= 100).unwrap();
    transaction.delete_table(crate::SUB).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let before = fs::metadata(scratch.store()).unwrap().len();
    let ran = scratch.run(&["store", "compact"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(fs::metadata(scratch.store()).unwrap().len() < before, "{ran:?}");
    assert_eq!(messages(&scratch.store()).len(), 100);
}
