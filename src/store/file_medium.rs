//! The database as a file of the data directory, and the reserve beside it.
//!
//! What redb leaves to its user is done here: a database is made under another name first, since a crash while
//! redb makes one leaves a file that it cannot open; after an unclean stop the system forgets what it has cached
//! of the file, since that may differ from what is on the disk; and a reserve of disk space is held, which can be
//! given up when the disk is full so that what was promised can still be written.

#![expect(clippy::disallowed_methods, reason = "it tells how long a repair takes")]

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use redb::{Builder, Database, DatabaseError, StorageError};
use rustix::fs::{Advice, fadvise, statvfs};
use tracing::{info, warn};

use super::{DataDirectory, Medium, guarded, salvage::check_pages};

/// The reserve: enough for the largest commit and for what redb writes beside it.
const RESERVE_BYTES: u64 = 64 << 20;
/// On a small disk the reserve is this part of what is free.
const RESERVE_PART: u64 = 16;
/// A reserve below this is of no use: redb grows its file in larger steps.
const RESERVE_BYTES_MIN: u64 = 1 << 20;
/// The file of the reserve.
const RESERVE: &str = "reserve";
/// Bytes that the reserve is written in.
const RESERVE_CHUNK_BYTES: usize = 64 << 10;
/// Appended to the name of a file that is being made.
const UNFINISHED: &str = ".new";
/// A database is made and filled with this cache.
const CREATION_CACHE_BYTES: usize = 16 << 20;
/// Checks and repairs that take less are not worth a line in the log.
const SILENCE: Duration = Duration::from_secs(1);

/// The database in a data directory.
#[derive(Debug)]
pub struct FileMedium {
    directory: Arc<DataDirectory>,
    /// Whether what the system has cached of the database is what is on the disk.
    cache_is_true: AtomicBool,
    /// Whether the pages of the database were found whole.
    is_checked: AtomicBool,
    reserve: Reserve,
}

/// What is known of the reserve.
#[derive(Debug, Default)]
struct Reserve {
    /// Its bytes; 0 if there is none.
    bytes: AtomicU64,
    /// The bytes that it should have. They never become fewer: what is free when the reserve was just given up
    /// says nothing of the disk.
    wanted: AtomicU64,
    /// Whether the log was told that it is less than usual: on a full disk it is tried again every second.
    is_told: AtomicBool,
}

impl Reserve {
    /// The bytes that it should have, with this many free and this many in it.
    fn wanted(&self, free: u64, there: u64) -> u64 {
        let part = ((free + there) / RESERVE_PART).max(there).clamp(RESERVE_BYTES_MIN, RESERVE_BYTES);
        part.max(self.wanted.fetch_max(part, Ordering::Relaxed))
    }

    /// Whether there is room to go on with this many bytes free. With a reserve as much again must be free, so
    /// that commits on the way are not the ones that find the disk full; without one, enough for both.
    fn has_room(&self, free: u64) -> bool {
        match self.bytes.load(Ordering::Relaxed) {
            0 => free >= 2 * self.wanted.load(Ordering::Relaxed).max(RESERVE_BYTES_MIN),
            bytes => free >= bytes,
        }
    }
}

impl FileMedium {
    /// The database in this data directory. Makes the reserve; without room for it, there is none.
    #[must_use]
    pub fn new(directory: Arc<DataDirectory>) -> FileMedium {
        let medium = FileMedium {
            cache_is_true: AtomicBool::new(directory.was_clean()),
            directory,
            is_checked: AtomicBool::new(false),
            reserve: Reserve::default(),
        };
        if let Err(error) = medium.make_reserve() {
            warn!(
                data_dir = %medium.directory.path().display(),
                "no disk space can be reserved, messages that need the disk will be refused: {error}"
            );
        }
        medium
    }

    fn reserve_file(&self) -> PathBuf {
        self.directory.path().join(RESERVE)
    }

    /// Bytes that this user may still write.
    fn free_bytes(&self) -> io::Result<u64> {
        let stat = statvfs(self.directory.path())?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

impl Medium for FileMedium {
    fn open(&self, cache_bytes: usize) -> Result<Database, DatabaseError> {
        let path = self.directory.database();
        remove_if_there(&unfinished(&path))?;
        let salvaged = self.directory.salvaged();
        if path.try_exists()? {
            // Left by a rescue that has not come to its end; it begins anew.
            remove_if_there(&salvaged)?;
        } else if salvaged.try_exists()? {
            fs::rename(&salvaged, &path)?;
            self.directory.sync()?;
        } else {
            create(&path, |_| Ok(())).map_err(into_database_error)?;
        }
        if !self.cache_is_true.swap(false, Ordering::Relaxed) {
            forget_cached(&path)?;
        }
        // Once: what this process has written since is checked by redb itself, where need be.
        if !self.is_checked.load(Ordering::Relaxed) {
            check(&path)?;
            self.is_checked.store(true, Ordering::Relaxed);
        }
        open(&path, cache_bytes)
    }

    fn has_room(&self) -> bool {
        self.free_bytes().is_ok_and(|free| self.reserve.has_room(free))
    }

    fn release_reserve(&self) -> io::Result<()> {
        self.reserve.bytes.store(0, Ordering::Relaxed);
        remove_if_there(&self.reserve_file())?;
        self.directory.sync()
    }

    fn make_reserve(&self) -> io::Result<()> {
        let path = self.reserve_file();
        let (free, there) = (self.free_bytes()?, allocated_bytes(&path));
        let wanted = self.reserve.wanted(free, there);
        if there >= wanted {
            self.reserve.bytes.store(there, Ordering::Relaxed);
            return Ok(());
        }
        if wanted < RESERVE_BYTES && !self.reserve.is_told.swap(true, Ordering::Relaxed) {
            warn!(reserve_bytes = wanted, "little disk space is free, less than usual is reserved");
        }
        let written = fill(&path, wanted).and_then(|()| self.directory.sync());
        match written {
            Ok(()) => self.reserve.bytes.store(wanted, Ordering::Relaxed),
            Err(_) => self.release_reserve()?,
        }
        written
    }
}

/// Opens the database of a directory that a command has taken. It makes none.
///
/// # Errors
/// What redb says; that it is damaged, too.
pub fn open_closed(directory: &DataDirectory, cache_bytes: usize) -> Result<Database, DatabaseError> {
    let path = directory.database();
    if !directory.was_clean() {
        forget_cached(&path)?;
    }
    check(&path)?;
    open(&path, cache_bytes)
}

/// Checks what redb takes on trust: a page that was altered behind its back would reach clients, or make it panic.
fn check(path: &Path) -> Result<(), DatabaseError> {
    let started = Instant::now();
    let mut told = started;
    let progress = move |percent| {
        if told.elapsed() >= SILENCE {
            told = Instant::now();
            info!(percent, "the database is being checked");
        }
    };
    check_pages(path, progress)?.map_err(StorageError::Corrupted)?;
    let took = started.elapsed();
    if took >= SILENCE {
        info!(seconds = took.as_secs_f32(), "the database is checked");
    }
    Ok(())
}

/// Opens a database that exists. One that is empty is not one: redb would take it for new.
pub(super) fn open(path: &Path, cache_bytes: usize) -> Result<Database, DatabaseError> {
    let started = Instant::now();
    let mut builder = Builder::new();
    builder.set_cache_size(cache_bytes).set_repair_callback(move |repair| {
        if started.elapsed() >= SILENCE {
            let percent = (repair.progress() * 100.0) as u32;
            info!(percent, "the database was not closed, it is being checked");
        }
    });
    // redb may panic over a file that was altered.
    match guarded(|| builder.open(path)) {
        Ok(opened) => opened,
        Err(panicked) => Err(StorageError::Corrupted(panicked.to_string()).into()),
    }
}

/// Whether an error says that the file is damaged, rather than that it cannot be used now.
#[must_use]
pub fn is_damage(error: &DatabaseError) -> bool {
    match error {
        DatabaseError::Storage(StorageError::Corrupted(_)) | DatabaseError::UpgradeRequired(_) => true,
        // So redb says that it is no database, or ends too early.
        DatabaseError::Storage(StorageError::Io(error)) => {
            matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
        }
        _ => false,
    }
}

/// Makes a database: under another name, and under its own only when it is whole and on the disk. An earlier
/// file of that name is replaced, at once and whole.
pub(super) fn create<T>(
    path: &Path,
    fill: impl FnOnce(&Database) -> Result<T, redb::Error>,
) -> Result<T, redb::Error> {
    let unfinished = unfinished(path);
    remove_if_there(&unfinished)?;
    let made = (|| {
        let new = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&unfinished)?;
        let database = Builder::new().set_cache_size(CREATION_CACHE_BYTES).create(&unfinished)?;
        let filled = fill(&database)?;
        database.close()?;
        new.sync_all()?;
        fs::rename(&unfinished, path)?;
        super::directory::sync_directory(path.parent().unwrap_or(Path::new("/")))?;
        Ok(filled)
    })();
    if made.is_err() {
        // What could not be finished is of no use, and may be what has filled the disk.
        let _ = fs::remove_file(&unfinished);
    }
    made
}

/// Lets the system forget what it has cached of a file, so that the file is read from the disk.
///
/// After a write to the disk has failed, Linux keeps the page in memory and calls it clean: a new process would
/// read what it believes to be committed, and the next power loss would take it back. Pages that are not
/// written yet cannot be forgotten, so they are written first.
fn forget_cached(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    file.sync_all()?;
    match fadvise(&file, 0, None, Advice::DontNeed) {
        // A file system without a cache, or without the call, has nothing to forget.
        Err(rustix::io::Errno::NOSYS | rustix::io::Errno::INVAL | rustix::io::Errno::OPNOTSUPP) => Ok(()),
        done => Ok(done?),
    }
}

/// Writes a file of this many bytes for real: with holes or with bytes that a file system can compress it would
/// reserve nothing.
fn fill(path: &Path, bytes: u64) -> io::Result<()> {
    remove_if_there(path)?;
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut chunk = vec![0; RESERVE_CHUNK_BYTES];
    let mut left = bytes;
    while left > 0 {
        for word in chunk.chunks_exact_mut(8) {
            // xorshift64: what matters is only that no compressor finds a pattern.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        let part = left.min(RESERVE_CHUNK_BYTES as u64);
        file.write_all(&chunk[..part as usize])?;
        left -= part;
    }
    file.sync_all()
}

/// Bytes of a file that are really on the disk; 0 if it has holes or is not there.
fn allocated_bytes(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| {
        let whole = metadata.blocks().saturating_mul(512) >= metadata.len();
        if whole { metadata.len() } else { 0 }
    })
}

/// The name under which a file is made.
pub(super) fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(UNFINISHED);
    name.into()
}

pub(super) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The error of an opening; what else redb may say does not come of making an empty database.
fn into_database_error(error: redb::Error) -> DatabaseError {
    match error {
        redb::Error::DatabaseAlreadyOpen => DatabaseError::DatabaseAlreadyOpen,
        redb::Error::Io(error) => error.into(),
        redb::Error::Corrupted(what) => StorageError::Corrupted(what).into(),
        other => io::Error::other(other).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_small_disk_has_a_small_reserve() {
        for (free, there, wanted) in
            [(0, 0, 1), (100, 0, 6), (16 * 64, 0, 64), (1 << 20, 0, 64), (0, 64, 64), (92, 4, 6)]
        {
            assert_eq!(Reserve::default().wanted(free * MIB, there * MIB) / MIB, wanted, "{free} {there}");
        }
    }

    /// Given up, the reserve is what is free on the disk. To take that for room would use it up.
    #[test]
    fn what_the_reserve_has_set_free_is_no_room() {
        let reserve = Reserve::default();
        assert_eq!(reserve.wanted(10_000 * MIB, 0), 64 * MIB);
        reserve.bytes.store(64 * MIB, Ordering::Relaxed);
        assert!(reserve.has_room(64 * MIB));
        assert!(!reserve.has_room(64 * MIB - 1));

        reserve.bytes.store(0, Ordering::Relaxed);
        assert!(!reserve.has_room(64 * MIB), "what was given up");
        assert!(!reserve.has_room(128 * MIB - 1));
        assert!(reserve.has_room(128 * MIB), "enough to make it again and to go on");
        assert_eq!(reserve.wanted(128 * MIB, 0), 64 * MIB, "made again as it was");
        assert!(!Reserve::default().has_room(MIB), "on a disk that was full from the start");
    }
}
