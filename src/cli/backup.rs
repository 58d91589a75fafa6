//! `dunlin backup` and `dunlin restore`.

use std::{
    path::{self, Path, PathBuf},
    process::ExitCode,
};

use clap::Args;

use super::{
    place::{Found, Percent, Place, fail, megabytes, now},
    print,
};
use crate::{
    control::{Client, Request},
    store::{
        BackupError, DataDirectory, DirectoryErrorKind, Existing, Layout, Progress, backup,
        is_beside_database, is_damage, open_closed, restore,
    },
};

#[derive(Debug, Args)]
#[command(after_help = "\
A broker that runs there writes the file itself, while it goes on: the file has the state of the moment when
the backup began. If none runs, the store is copied directly. FILE has its name only once it is complete.

Examples:
  dunlin backup /backup/dunlin.redb
  dunlin backup --force --data-dir /var/lib/dunlin /backup/latest.redb
  dunlin backup \"/backup/dunlin-$(date +%F).redb\"")]
pub(super) struct BackupArguments {
    /// The file to write
    file: PathBuf,
    /// Replace the file if it exists
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The backup is checked to its last row first; it is copied, and not changed. No broker may be running there.
A store that exists is replaced only with --force, and is kept in the data directory as replaced-TIME.redb.

Examples:
  dunlin restore /backup/dunlin.redb
  dunlin restore --force --data-dir /var/lib/dunlin /backup/latest.redb")]
pub(super) struct RestoreArguments {
    /// The backup
    file: PathBuf,
    /// Replace the store that is there, and keep it aside
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    place: Place,
}

pub(super) fn main(arguments: BackupArguments) -> ExitCode {
    let found = match arguments.place.find() {
        Ok(found) => found,
        Err(code) => return code,
    };
    let file = match path::absolute(&arguments.file) {
        Ok(file) => file,
        Err(error) => return fail(format_args!("{}: {error}", arguments.file.display())),
    };
    let existing = existing(arguments.force);
    let done = match Client::connect(&found.data_dir) {
        Ok(Some(broker)) => ask(broker, &file, existing),
        Ok(None) => copy(&found, &file, existing),
        Err(error) => Err(fail(format_args!("the broker in {}: {error}", found.data_dir.display()))),
    };
    match done {
        Ok((rows, bytes)) => print(format!("{}: {rows} rows, {}\n", file.display(), megabytes(bytes))),
        Err(code) => code,
    }
}

fn existing(force: bool) -> Existing {
    if force { Existing::Replace } else { Existing::Keep }
}

/// The broker makes the backup.
fn ask(broker: Client, file: &Path, existing: Existing) -> Result<(u64, u64), ExitCode> {
    let request = Request::Backup { path: file.into(), replace: existing == Existing::Replace };
    let mut percent = Percent::default();
    broker
        .request(&request, |rows, rows_total| percent.show(Progress { rows, rows_total }))
        .map_err(|error| fail(format_args!("backup to {}: {error}", file.display())))
}

/// No broker runs: the store is closed, and can be copied.
fn copy(found: &Found, file: &Path, existing: Existing) -> Result<(u64, u64), ExitCode> {
    let directory = found.take()?;
    let database = open_closed(&directory, found.cache_bytes).map_err(|error| {
        let path = directory.database();
        if is_damage(&error) {
            return fail(format_args!("{}: {error}; `dunlin store check` tells more", path.display()));
        }
        fail(format_args!("{}: {error}", path.display()))
    })?;
    let mut percent = Percent::default();
    let done = match is_beside_database(directory.path(), file) {
        Ok(true) => Err(BackupError::InDataDirectory(file.into())),
        Ok(false) => backup(&database, file, existing, |progress| percent.show(progress)),
        Err(error) => Err(error.into()),
    };
    let done = done.map_err(|error| fail(format_args!("backup to {}: {error}", file.display())))?;
    Ok((done.rows, done.bytes))
}

pub(super) fn restore_main(arguments: RestoreArguments) -> ExitCode {
    let found = match arguments.place.find() {
        Ok(found) => found,
        Err(code) => return code,
    };
    let directory = match take_or_make(&found) {
        Ok(directory) => directory,
        Err(code) => return code,
    };
    let done = restore(&directory, &arguments.file, existing(arguments.force), now(), &Layout);
    match done {
        Ok(done) => {
            let mut text = format!(
                "{}: {} rows, {}\n",
                directory.database().display(),
                done.rows,
                megabytes(done.bytes)
            );
            if let Some(replaced) = done.replaced {
                text += &format!("The store that was there is {}\n", replaced.display());
            }
            print(text)
        }
        Err(error) => fail(format_args!("{}: {error}", arguments.file.display())),
    }
}

/// A machine that a store moves to has no data directory yet.
fn take_or_make(found: &Found) -> Result<DataDirectory, ExitCode> {
    match DataDirectory::open_for_command(&found.data_dir) {
        Err(error) if matches!(error.kind(), DirectoryErrorKind::Missing) => {
            DataDirectory::open(&found.data_dir).map_err(fail)
        }
        taken => taken.map_err(fail),
    }
}
