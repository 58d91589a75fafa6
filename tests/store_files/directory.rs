//! Who may use the data directory, and what the lock file tells.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process,
};

use dunlin::{
    store::{DataDirectory, DirectoryErrorKind},
    time::Timestamp,
};

use crate::{Scratch, names};

fn refusal(path: &Path) -> (DirectoryErrorKind, String) {
    let error = DataDirectory::open(path).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(path.to_str().unwrap()), "names the path: {text}");
    let kind = match error.kind() {
        DirectoryErrorKind::InUse(pid) => DirectoryErrorKind::InUse(*pid),
        DirectoryErrorKind::NoParent(parent) => DirectoryErrorKind::NoParent(parent.clone()),
        DirectoryErrorKind::NotADirectory => DirectoryErrorKind::NotADirectory,
        other => panic!("{other:?}"),
    };
    (kind, text)
}

#[test]
fn it_is_made_for_its_owner_alone() {
    let scratch = Scratch::new();
    let path = scratch.path("data");
    let directory = DataDirectory::open(&path).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(&path.join("lock"))), (0o700, 0o600));
    assert!(directory.was_clean(), "nobody has left it badly");
    assert_eq!(directory.last_alive(), None);
}

#[test]
fn a_second_user_is_told_who_the_first_is() {
    let scratch = Scratch::new();
    let path = scratch.path("data");
    let first = DataDirectory::open(&path).unwrap();
    let (kind, text) = refusal(&path);
    assert!(matches!(kind, DirectoryErrorKind::InUse(Some(pid)) if pid == process::id()), "{kind:?}");
    assert!(text.contains(&format!("process {}", process::id())), "{text}");
    assert!(DataDirectory::open_for_command(&path).is_err(), "commands are users, too");
    drop(first);
    drop(DataDirectory::open(&path).unwrap());
}

#[test]
fn a_stop_is_remembered_and_so_is_its_lack() {
    let scratch = Scratch::new();
    let path = scratch.path("data");
    let at = Timestamp::from_millis;

    let first = DataDirectory::open(&path).unwrap();
    first.touch(at(1_700_000_000_000)).unwrap();
    first.touch(at(1_700_000_010_000)).unwrap();
    drop(first);
    let second = DataDirectory::open(&path).unwrap();
    assert_eq!((second.was_clean(), second.last_alive()), (false, Some(at(1_700_000_010_000))));
    second.close(at(1_700_000_020_000)).unwrap();
    drop(second);
    let third = DataDirectory::open(&path).unwrap();
    assert_eq!((third.was_clean(), third.last_alive()), (true, Some(at(1_700_000_020_000))));
    drop(third);
    let fourth = DataDirectory::open(&path).unwrap();
    assert_eq!((fourth.was_clean(), fourth.last_alive()), (false, Some(at(1_700_000_020_000))));
}

#[test]
fn a_command_leaves_no_trace() {
    let scratch = Scratch::new();
    let path = scratch.path("data");
    for clean in [false, true] {
        let broker = DataDirectory::open(&path).unwrap();
        broker.touch(Timestamp::from_millis(5)).unwrap();
        if clean {
            broker.close(Timestamp::from_millis(5)).unwrap();
        }
        drop(broker);
        drop(DataDirectory::open_for_command(&path).unwrap());
        let next = DataDirectory::open(&path).unwrap();
        assert_eq!((next.was_clean(), next.last_alive()), (clean, Some(Timestamp::from_millis(5))));
    }
    assert!(DataDirectory::open_for_command(&scratch.path("none")).is_err());
    assert!(!scratch.path("none").exists(), "a command makes no data directory");
}

#[test]
fn a_lock_file_that_makes_no_sense_counts_as_no_stop() {
    let scratch = Scratch::new();
    let path = scratch.path("data");
    for text in
        ["", "clean", "pid x\nalive 5\nclean", "pid 1\nalive -5\nclean\n", "pid 5\nalive 6\n", "\0\0\u{7f}"]
    {
        drop(DataDirectory::open(&path).unwrap());
        fs::write(path.join("dunlin.redb"), "").unwrap();
        fs::write(path.join("lock"), text).unwrap();
        let directory = DataDirectory::open(&path).unwrap();
        assert_eq!((directory.was_clean(), directory.last_alive()), (false, None), "{text:?}");
    }
}

#[test]
fn what_cannot_be_a_data_directory_is_refused_in_words() {
    let scratch = Scratch::new();
    let (kind, text) = refusal(&scratch.path("mnt/disk"));
    assert!(matches!(kind, DirectoryErrorKind::NoParent(parent) if parent == scratch.path("mnt")));
    assert!(text.contains("--data-dir") && text.contains("persistence = \"memory\""), "{text}");
    assert_eq!(names(&scratch.0), Vec::<String>::new(), "nothing is made on the way");

    fs::write(scratch.path("file"), "").unwrap();
    assert!(matches!(refusal(&scratch.path("file")).0, DirectoryErrorKind::NotADirectory));
    assert!(matches!(refusal(&scratch.path("file/data")).0, DirectoryErrorKind::NotADirectory));
    symlink(scratch.path("nowhere"), scratch.path("link")).unwrap();
    assert!(DataDirectory::open(&scratch.path("link")).is_err(), "a link to nowhere");
}

/// Elsewhere parents are not made; but where a user's data goes is said by the platform, and a new home lacks it.
#[test]
fn the_default_of_a_new_home_is_made() {
    let scratch = Scratch::new();
    drop(DataDirectory::open(&scratch.path(".local/share/dunlin")).unwrap());
    assert!(DataDirectory::open(&scratch.path("home/.local/share/dunlin")).is_err(), "there is no such home");
}

/// The superuser may write anywhere, so for it there is nothing to see.
#[test]
fn a_directory_of_others_is_refused() {
    let scratch = Scratch::new();
    let closed = scratch.path("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o500)).unwrap();
    let superuser = fs::write(closed.join("probe"), "").is_ok();
    for path in [closed.clone(), closed.join("data")] {
        match DataDirectory::open(&path) {
            Ok(_) => assert!(superuser),
            Err(error) => assert!(matches!(error.kind(), DirectoryErrorKind::PermissionDenied), "{error}"),
        }
    }
}
