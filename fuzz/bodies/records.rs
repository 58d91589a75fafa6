//! What the store reads: records, rows and pages of any bytes are read or refused. What was read is written in
//! one way, which reads the same again.
//!
//! The first byte of the input picks what the rest is.

use std::{fs::OpenOptions, io::Write, path::PathBuf};

use dunlin::store::{
    Layout, StoredAs, page_items, rewritten,
    salvage::{self, Schema},
};

/// Bytes of a page of a database.
const PAGE_BYTES: usize = 4096;

/// Checks one input.
pub(crate) fn run(input: &[u8]) {
    let Some((what, rest)) = input.split_first() else { return };
    match what % 10 {
        0 => rewrite(StoredAs::Record, rest),
        1 => rewrite(StoredAs::Session, rest),
        2 => rewrite(StoredAs::Subscription, rest),
        3 => rewrite(StoredAs::SubscriptionKey, rest),
        4 => rewrite(StoredAs::Cursor, rest),
        5 => rewrite(StoredAs::Retained, rest),
        6 => {
            let Some((first, rest)) = rest.split_first_chunk() else { return };
            rewrite(StoredAs::Run(u64::from_le_bytes(*first)), rest);
        }
        7 => {
            let Some((widths, page)) = rest.split_first() else { return };
            for (key, value) in [(None, None), (Some(8), None), (None, Some(8)), (Some(0), Some(0))] {
                assert!(page_items(page, key, value) <= page.len().max(usize::from(u16::MAX)));
            }
            let (key, value) = (usize::from(widths >> 4), usize::from(widths & 15));
            assert!(page_items(page, Some(key), Some(value)) <= usize::from(u16::MAX) + 1);
        }
        8 => row(rest),
        _ => database(rest),
    }
}

fn rewrite(stored: StoredAs, bytes: &[u8]) {
    let Some(once) = rewritten(stored, bytes) else { return };
    assert!(once.len() <= bytes.len(), "{stored:?}: {} bytes become {}", bytes.len(), once.len());
    assert_eq!(rewritten(stored, &once).as_ref(), Some(&once), "{stored:?}: {bytes:02x?}");
}

/// A row as a salvage finds it: whatever it takes for one can be read.
fn row(bytes: &[u8]) {
    let Some((key, value)) = bytes.split_at_checked(8) else { return };
    let is_valid = |table| Layout.is_valid(table, key, value);
    for (table, stored) in [
        ("session", StoredAs::Session),
        ("cursor", StoredAs::Cursor),
        ("sub", StoredAs::Subscription),
        ("retained", StoredAs::Retained),
    ] {
        assert!(!is_valid(table) || rewritten(stored, value).is_some(), "{table}: {value:02x?}");
    }
    if is_valid("log") && key[..2] == [0, 0] {
        assert!(rewritten(StoredAs::Record, value).is_some(), "{value:02x?}");
    }
}

/// A database of a few pages: the start of the file, and pages of which each has up to 255 bytes of the input.
fn database(bytes: &[u8]) {
    let mut file = Vec::new();
    let mut rest = bytes;
    while let Some((length, tail)) = rest.split_first().filter(|_| file.len() < 8 * PAGE_BYTES) {
        let length = if file.is_empty() { START_BYTES } else { usize::from(*length) };
        let (page, tail) = tail.split_at(tail.len().min(length));
        rest = tail;
        file.extend(page);
        file.resize(file.len().next_multiple_of(PAGE_BYTES), 0);
    }
    let path = scratch();
    let written = OpenOptions::new().write(true).create(true).truncate(true).open(&path);
    written.and_then(|mut to| to.write_all(&file)).expect("the directory for temporary files has room");
    let findings = salvage::examine(&path, &Layout).expect("the file can be opened");
    // All that is ever asked of it.
    let _ = (findings.rows_lost(), findings.problems());
    let _ = salvage::check_pages(&path, |percent| assert!(percent <= 100)).expect("the file can be read");
    let _ = salvage::number_of(&path, Layout::SCHEMA.0, Layout::SCHEMA.1).expect("the file can be read");
    std::fs::remove_file(&path).expect("it was made above");
}

/// Bytes at the start of a file that mean something.
const START_BYTES: usize = 320;

/// A file for this process and thread.
fn scratch() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    let directory = if memory.is_dir() { memory } else { std::env::temp_dir() };
    let thread = format!("{:?}", std::thread::current().id());
    let thread: String = thread.chars().filter(char::is_ascii_digit).collect();
    directory.join(format!("dunlin-fuzz-{}-{thread}.redb", std::process::id()))
}
