//! The store of a broker in its data directory.

use std::{fmt, path::Path, sync::Arc, time::Duration};

use tracing::warn;

use super::{
    Committed, DataDirectory, DirectoryError, Disk, DiskOptions, FileMedium, OpenError, Recovered, Store,
    Submitted,
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
    Open(OpenError),
}

impl fmt::Display for LocalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LocalError::Directory(error) => error.fmt(f),
            LocalError::Open(error) => error.fmt(f),
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
        let medium = Arc::new(FileMedium::new(directory.clone()));
        let (disk, recovered) = Disk::open(medium, options, now).map_err(LocalError::Open)?;
        Ok((LocalStore { disk, directory }, recovered, lost_at))
    }
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
        if let Err(error) = self.directory.close(now) {
            warn!("the data directory cannot be written: {error}");
        }
    }
}
