//! The store of a broker in its data directory.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tracing::warn;

use super::{
    BackedUp, BackupError, CommitStats, Committed, DataDirectory, DirectoryError, Disk, DiskOptions,
    Existing, FileMedium, Layout, OpenError, Progress, Recovered, Store, Submitted,
    directory::is_beside_database, guarded, salvage::rescue,
};
use crate::{broker::Batch, session::Fetch, time::Timestamp};

/// A store with the directory that it is in.
#[derive(Debug)]
pub struct LocalStore {
    disk: Disk,
    directory: Arc<DataDirectory>,
}

/// Why the store in a data directory cannot be opened.
#[derive(Debug)]
pub enum LocalError {
    /// The directory cannot be used.
    Directory(DirectoryError),
    /// The store in it cannot.
    Open {
        /// Its file.
        file: PathBuf,
        /// Why.
        error: OpenError,
    },
}

impl fmt::Display for LocalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LocalError::Directory(error) => error.fmt(f),
            LocalError::Open { file, error } => write!(f, "{}: {error}", file.display()),
        }
    }
}

impl std::error::Error for LocalError {}

/// How much later than it was last told a broker may have ended: the interval in which it is told, and what the
/// system may not have written yet. A session must not end too early for a connection that nobody saw the end
/// of.
const LAST_ALIVE_SLACK: Duration = Duration::from_secs(60);

impl LocalStore {
    /// Opens the store in this directory, or makes it. Returns with it what it has, and when connections were
    /// lost that the last broker did not see the end of.
    ///
    /// # Errors
    /// [`LocalError`].
    pub fn open(
        path: &Path,
        options: DiskOptions,
        now: Timestamp,
    ) -> Result<(LocalStore, Recovered, Timestamp), LocalError> {
        let directory = Arc::new(DataDirectory::open(path).map_err(LocalError::Directory)?);
        let lost_at = directory.last_alive().map_or(now, |alive| alive.plus(LAST_ALIVE_SLACK).min(now));
        // A directory or a device is no damaged database, and nothing is to take its place.
        if fs::metadata(directory.database()).is_ok_and(|found| !found.is_file()) {
            return Err(cannot_open(&directory, OpenError::Io(io::Error::other("it is not a file"))));
        }
        let medium = Arc::new(FileMedium::new(directory.clone()));
        let open = || guarded(|| Disk::open(medium.clone(), options, now));
        let opened = match open() {
            Ok(Err(OpenError::Damaged(why))) => {
                replace(&directory, &why, now)?;
                open()
            }
            Err(panicked) => {
                replace(&directory, &panicked.to_string(), now)?;
                open()
            }
            opened @ Ok(_) => opened,
        };
        let opened = opened.unwrap_or_else(|panicked| Err(OpenError::Damaged(panicked.to_string())));
        let (disk, recovered) = opened.map_err(|error| cannot_open(&directory, error))?;
        Ok((LocalStore { disk, directory }, recovered, lost_at))
    }

    /// Where the store is.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Where its database is.
    pub fn database(&self) -> PathBuf {
        self.directory.database()
    }

    /// How commits do.
    pub fn stats(&self) -> &CommitStats {
        self.disk.stats()
    }

    /// Copies the store to a file while it is in use: see [`Disk::backup`].
    ///
    /// # Errors
    /// Why there is no copy.
    pub fn backup(
        &self,
        to: &Path,
        existing: Existing,
        progress: impl FnMut(Progress),
    ) -> Result<BackedUp, BackupError> {
        if is_beside_database(self.directory(), to)? {
            return Err(BackupError::InDataDirectory(to.into()));
        }
        self.disk.backup(to, existing, progress)
    }
}

fn cannot_open(directory: &DataDirectory, error: OpenError) -> LocalError {
    LocalError::Open { file: directory.database(), error }
}

/// Puts a database with all that can be read in the place of a damaged one.
fn replace(directory: &DataDirectory, why: &str, now: Timestamp) -> Result<(), LocalError> {
    let rescued = rescue(directory, why, now, &Layout);
    let rescue = rescued.map_err(|error| cannot_open(directory, error.into()))?;
    warn!(
        damaged = %rescue.quarantined.display(),
        report = %rescue.report.display(),
        rows_lost = rescue.findings.rows_lost(),
        "the broker starts with what could be read"
    );
    Ok(())
}

impl Store for LocalStore {
    fn submit(&self, shard: u16, batch: Batch, shards: &Arc<dyn Committed>) -> Submitted {
        self.disk.submit(shard, batch, shards)
    }

    fn fetch(&self, shard: u16, fetch: Fetch, shards: &Arc<dyn Committed>) {
        self.disk.fetch(shard, fetch, shards);
    }

    fn touch(&self, now: Timestamp) {
        if let Err(error) = self.directory.touch(now) {
            warn!("the data directory cannot be written: {error}");
        }
    }

    fn close(&self, now: Timestamp) {
        self.disk.close();
        if !self.disk.is_closed() {
            // The next start must not trust what the system has cached of the file.
            return;
        }
        if let Err(error) = self.directory.close(now) {
            warn!("the data directory cannot be written: {error}");
        }
    }
}
