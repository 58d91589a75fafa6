//! A backup becomes the database.

use std::{
    fmt,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use super::{
    DataDirectory, Existing,
    directory::give_to_owner,
    file_medium::{remove_if_there, unfinished},
    salvage::{Schema, compact_utc, examine},
};
use crate::time::Timestamp;

/// A backup that is now the database.
#[derive(Debug)]
pub struct Restored {
    /// Its rows.
    pub rows: u64,
    /// Its bytes.
    pub bytes: u64,
    /// Where the database is that was there before.
    pub replaced: Option<PathBuf>,
}

/// Why a backup does not become the database. Everything is as it was.
#[derive(Debug)]
pub enum RestoreError {
    /// There is a database.
    Exists(PathBuf),
    /// The backup is damaged, or is none: what is wrong with it.
    Damaged(Vec<String>),
    /// What the system says.
    Io(io::Error),
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exists(path) => {
                write!(
                    f,
                    "there is a store already, {}; --force replaces it and keeps it aside",
                    path.display()
                )
            }
            Self::Damaged(problems) => write!(f, "it is damaged, or is no backup: {}", problems.join("; ")),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for RestoreError {}

impl From<io::Error> for RestoreError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Makes a backup the database of a data directory. The backup is checked to the last row before anything
/// changes, and it is not written.
///
/// # Errors
/// Why not.
pub fn restore(
    directory: &DataDirectory,
    from: &Path,
    existing: Existing,
    now: Timestamp,
    schema: &dyn Schema,
) -> Result<Restored, RestoreError> {
    let database = directory.database();
    let exists = database.try_exists()?;
    if exists && existing == Existing::Keep {
        return Err(RestoreError::Exists(database));
    }
    let copy = unfinished(&database);
    remove_if_there(&copy)?;
    let copied = copy_and_check(from, &copy, schema);
    let (rows, bytes) = copied.inspect_err(|_| {
        // The next broker would remove it, too.
        let _ = fs::remove_file(&copy);
    })?;
    // Without the right to it the broker may be able to open it all the same.
    let _ = give_to_owner(directory.path(), &copy);
    let replaced = if exists { Some(keep_aside(directory, now)?) } else { None };
    fs::rename(&copy, &database)?;
    directory.sync()?;
    Ok(Restored { rows, bytes, replaced })
}

/// What is checked is the copy: that is what will be opened.
fn copy_and_check(from: &Path, to: &Path, schema: &dyn Schema) -> Result<(u64, u64), RestoreError> {
    let bytes = fs::copy(from, to)?;
    fs::set_permissions(to, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    File::open(to)?.sync_all()?;
    let findings = examine(to, schema)?;
    let problems = findings.problems();
    if problems.is_empty() {
        Ok((findings.tables.iter().map(|table| table.rows).sum(), bytes))
    } else {
        Err(RestoreError::Damaged(problems))
    }
}

/// Gives the database a second name, so that there is one in the directory at every moment.
fn keep_aside(directory: &DataDirectory, now: Timestamp) -> io::Result<PathBuf> {
    let stem = format!("replaced-{}", compact_utc(now));
    let names = (1..).map(|number| match number {
        1 => format!("{stem}.redb"),
        _ => format!("{stem}-{number}.redb"),
    });
    let free = names.map(|name| directory.path().join(name)).find(|path| !path.exists());
    let path = free.expect("there is no end of names");
    match fs::hard_link(directory.database(), &path) {
        Ok(()) => {}
        // A file system without hard links.
        Err(_) => fs::rename(directory.database(), &path)?,
    }
    directory.sync()?;
    Ok(path)
}
