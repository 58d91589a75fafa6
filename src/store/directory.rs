//! The data directory: who uses it, since when, and whether the last user left it in order.
//!
//! One process at a time has the lock on the file `lock` in it, for as long as its [`DataDirectory`] lives; the
//! system takes the lock from a process that ends, however it ends. The file says in three lines of fixed length
//! which process that is, when it was last alive, and whether the last broker stopped as it should. The file
//! is never removed, since a lock on a removed file excludes nobody.

use std::{
    fmt,
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, lchown},
    path::{Path, PathBuf},
    process,
    sync::Mutex,
};

use crate::time::Timestamp;

/// The lock file.
const LOCK: &str = "lock";
/// The database.
const DATABASE: &str = "dunlin.redb";
/// What could be saved of a damaged database, before it takes its place.
const SALVAGED: &str = "dunlin.redb.salvaged";
/// Damaged databases.
const QUARANTINE: &str = "quarantine";
/// The control socket of the broker that runs here.
const SOCKET: &str = "control.sock";
/// Bytes of the lock file that are read; it has fewer.
const LOCK_BYTES_MAX: u64 = 4096;

/// A data directory that this process alone uses.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    lock: File,
    /// What the lock file said when it was locked.
    found: Record,
    /// What it says now.
    written: Mutex<Record>,
    user: User,
}

/// Who uses a data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum User {
    /// A broker: unless it says otherwise at its end, it has ended badly.
    Broker,
    /// A command: it leaves the record of the last broker as it was.
    Command,
}

/// What the lock file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record {
    pid: u32,
    alive: Option<Timestamp>,
    state: State,
}

/// How a broker has left the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It has not: it runs, or has ended without a word.
    Open,
    /// By a clean stop.
    Clean,
}

/// Why a data directory cannot be used.
#[derive(Debug)]
pub struct DirectoryError {
    path: PathBuf,
    kind: DirectoryErrorKind,
}

/// What is the matter with a data directory.
#[derive(Debug)]
pub enum DirectoryErrorKind {
    /// Another process uses it; which one, if it has said so.
    InUse(Option<u32>),
    /// The directory that it should be made in does not exist.
    NoParent(PathBuf),
    /// It does not exist, and only a broker would make it.
    Missing,
    /// Something else has its name.
    NotADirectory,
    /// It is on a file system that is read-only.
    ReadOnly,
    /// This user may not write there.
    PermissionDenied,
    /// What else the system says.
    Io(io::Error),
}

impl DataDirectory {
    /// Takes a data directory for a broker, and makes it if its parent exists.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn open(path: &Path) -> Result<DataDirectory, DirectoryError> {
        make(path)
            .and_then(|()| Self::take(path, User::Broker))
            .map_err(|kind| DirectoryError::of(path, kind))
    }

    /// Takes a data directory that exists for a command, which leaves no trace of its own in it.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn open_for_command(path: &Path) -> Result<DataDirectory, DirectoryError> {
        let exists = match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => Ok(()),
            Ok(_) => Err(DirectoryErrorKind::NotADirectory),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(DirectoryErrorKind::Missing),
            Err(error) => Err(error.into()),
        };
        exists.and_then(|()| Self::take(path, User::Command)).map_err(|kind| DirectoryError::of(path, kind))
    }

    fn take(path: &Path, user: User) -> Result<DataDirectory, DirectoryErrorKind> {
        let file = path.join(LOCK);
        let lock =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&file)?;
        if user == User::Command {
            // Without the right to it the file stays as it is.
            let _ = give_to_owner(path, &file);
        }
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(DirectoryErrorKind::InUse(read(&lock)?.map(|record| record.pid)));
            }
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        // Without a record a database may have come from anywhere, in whatever state.
        let unknown = if path.join(DATABASE).exists() { State::Open } else { State::Clean };
        let found = read(&lock)?.unwrap_or(Record { pid: 0, alive: None, state: unknown });
        // Open from now on also for a command: one that is killed half-way has left nothing in order.
        let written = Record { pid: process::id(), state: State::Open, ..found };
        let directory = DataDirectory { path: path.into(), lock, found, written: Mutex::new(written), user };
        directory.write(written)?;
        directory.lock.sync_all()?;
        Ok(directory)
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file of the database.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.path.join(DATABASE)
    }

    /// The file that takes the place of a damaged database.
    pub(super) fn salvaged(&self) -> PathBuf {
        self.path.join(SALVAGED)
    }

    /// The directory for damaged databases; it need not exist.
    #[must_use]
    pub fn quarantine(&self) -> PathBuf {
        self.path.join(QUARANTINE)
    }

    /// Whether the broker that used the directory before has stopped as it should.
    #[must_use]
    pub fn was_clean(&self) -> bool {
        self.found.state == State::Clean
    }

    /// When the broker that used the directory before was last known to be alive.
    #[must_use]
    pub fn last_alive(&self) -> Option<Timestamp> {
        self.found.alive
    }

    /// Notes that the broker is alive. The note survives the process, but not a power loss at once: it is not
    /// worth a flush of the disk every few seconds.
    ///
    /// # Errors
    /// What the system says.
    pub fn touch(&self, now: Timestamp) -> io::Result<()> {
        self.note(now, State::Open)
    }

    /// Notes that the broker has stopped as it should. The lock is given back when this value is dropped.
    ///
    /// # Errors
    /// What the system says.
    pub fn close(&self, now: Timestamp) -> io::Result<()> {
        self.note(now, State::Clean)?;
        self.lock.sync_all()
    }

    fn note(&self, now: Timestamp, state: State) -> io::Result<()> {
        let mut written = self.written.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        *written = Record { alive: Some(now), state, ..*written };
        self.write(*written)
    }

    fn write(&self, record: Record) -> io::Result<()> {
        self.lock.write_all_at(record.to_string().as_bytes(), 0)
    }

    /// Makes what was done to the names of files in the directory survive a power loss.
    ///
    /// # Errors
    /// What the system says.
    pub fn sync(&self) -> io::Result<()> {
        sync_directory(&self.path)
    }
}

/// The path of the control socket in a data directory.
#[must_use]
pub fn control_socket(data_dir: &Path) -> PathBuf {
    data_dir.join(SOCKET)
}

/// Whether a file is, or would be, one of the data directory itself, by whatever path: there it could take the
/// place of a file that a broker uses.
///
/// # Errors
/// What the system says of the directory of the file.
pub fn is_beside_database(data_dir: &Path, file: &Path) -> io::Result<bool> {
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (theirs, ours) = (fs::metadata(parent)?, fs::metadata(data_dir)?);
    Ok((theirs.dev(), theirs.ino()) == (ours.dev(), ours.ino()))
}

/// Gives a new file in the data directory to the owner of the directory: a command of the administrator must not
/// leave files that the broker cannot open.
pub(super) fn give_to_owner(data_dir: &Path, file: &Path) -> io::Result<()> {
    let (owner, now) = (fs::metadata(data_dir)?, fs::symlink_metadata(file)?);
    // The owner could have made a link there, to a file that is not to be given to it.
    let is_ours = now.is_file() && now.nlink() == 1;
    if !is_ours || (owner.uid(), owner.gid()) == (now.uid(), now.gid()) {
        return Ok(());
    }
    lchown(file, Some(owner.uid()), Some(owner.gid()))
}

/// Makes what was done to the names of files in a directory survive a power loss.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

impl Drop for DataDirectory {
    fn drop(&mut self) {
        if self.user == User::Command {
            // If that fails, the next broker is only more careful than it need be.
            let _ =
                self.write(Record { pid: process::id(), ..self.found }).and_then(|()| self.lock.sync_all());
        }
    }
}

/// Makes the directory if there is none. Only the owner may enter: messages are in it.
fn make(path: &Path) -> Result<(), DirectoryErrorKind> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => return Ok(()),
        Ok(_) => return Err(DirectoryErrorKind::NotADirectory),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !parent.exists() {
        make_users_data(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error.into()),
        _ => Ok(sync_directory(parent)?),
    }
}

/// Makes the directory of a user's data, which a new home lacks. No other parent is made: where a disk is not
/// mounted, a broker must not start with an empty store.
fn make_users_data(parent: &Path) -> Result<(), DirectoryErrorKind> {
    let home = parent.ends_with(".local/share").then(|| parent.parent().and_then(Path::parent)).flatten();
    match home {
        Some(home) if home.is_dir() => Ok(DirBuilder::new().mode(0o700).recursive(true).create(parent)?),
        _ => Err(DirectoryErrorKind::NoParent(parent.into())),
    }
}

/// What the lock file says; `None` if it is empty or makes no sense.
fn read(lock: &File) -> io::Result<Option<Record>> {
    let mut bytes = vec![0; lock.metadata()?.len().min(LOCK_BYTES_MAX) as usize];
    let filled = lock.read_at(&mut bytes, 0)?;
    Ok(str::from_utf8(&bytes[..filled]).ok().and_then(Record::parse))
}

impl Record {
    fn parse(text: &str) -> Option<Record> {
        let mut lines = text.lines();
        let pid = lines.next()?.strip_prefix("pid ")?.trim().parse().ok()?;
        let alive: u64 = lines.next()?.strip_prefix("alive ")?.trim().parse().ok()?;
        let alive = (alive > 0).then(|| Timestamp::from_millis(alive));
        let state = match lines.next()?.trim() {
            "clean" => State::Clean,
            _ => State::Open,
        };
        Some(Record { pid, alive, state })
    }
}

impl fmt::Display for Record {
    /// Always of the same length, so that a shorter record leaves nothing of a longer one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Open => "open",
            State::Clean => "clean",
        };
        let alive = self.alive.map_or(0, Timestamp::as_millis);
        writeln!(f, "pid {:<10}\nalive {alive:<20}\n{state:<5}", self.pid)
    }
}

impl DirectoryError {
    fn of(path: &Path, kind: DirectoryErrorKind) -> DirectoryError {
        DirectoryError { path: path.into(), kind }
    }

    /// What is the matter.
    #[must_use]
    pub fn kind(&self) -> &DirectoryErrorKind {
        &self.kind
    }
}

impl From<io::Error> for DirectoryErrorKind {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::PermissionDenied => Self::PermissionDenied,
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly,
            io::ErrorKind::NotADirectory => Self::NotADirectory,
            _ => Self::Io(error),
        }
    }
}

impl fmt::Display for DirectoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const INSTEAD: &str = "name another with --data-dir, or keep nothing with persistence = \"memory\"";
        let path = self.path.display();
        match &self.kind {
            DirectoryErrorKind::InUse(Some(pid)) => {
                write!(
                    f,
                    "data directory {path} is in use by process {pid}; stop it, or name another with --data-dir"
                )
            }
            DirectoryErrorKind::InUse(None) => {
                write!(
                    f,
                    "data directory {path} is in use by another process; stop it, or name another with --data-dir"
                )
            }
            DirectoryErrorKind::NoParent(parent) => {
                write!(
                    f,
                    "data directory {path} cannot be made: {} does not exist; make it (or mount it), {INSTEAD}",
                    parent.display()
                )
            }
            DirectoryErrorKind::Missing => {
                write!(f, "data directory {path} does not exist; name the right one with --data-dir")
            }
            DirectoryErrorKind::NotADirectory => {
                write!(f, "data directory {path} is not a directory; {INSTEAD}")
            }
            DirectoryErrorKind::ReadOnly => {
                write!(f, "data directory {path} is on a read-only file system; {INSTEAD}")
            }
            DirectoryErrorKind::PermissionDenied => {
                write!(f, "data directory {path} cannot be written by this user; change its owner, {INSTEAD}")
            }
            DirectoryErrorKind::Io(error) => {
                write!(f, "data directory {path} cannot be used: {error}; {INSTEAD}")
            }
        }
    }
}

impl std::error::Error for DirectoryError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.kind {
            DirectoryErrorKind::Io(error) => Some(error),
            _ => None,
        }
    }
}
