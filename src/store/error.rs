//! What goes wrong with a store, by what can be done about it.

use std::{fmt, io};

/// Why a store does not open.
#[derive(Debug)]
pub enum OpenError {
    /// A newer release wrote it.
    Newer {
        /// The number of its format.
        found: u64,
        /// The highest number that this release knows.
        known: u64,
    },
    /// It is not what was written.
    Damaged(String),
    /// Another process has it open.
    InUse,
    /// The system does not let us.
    Io(io::Error),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Newer { found, known } => write!(
                f,
                "the store has format {found}, written by a newer release: this one knows formats up to {known}"
            ),
            OpenError::Damaged(what) => write!(f, "the store is damaged: {what}"),
            OpenError::InUse => f.write_str("the store is open in another process"),
            OpenError::Io(error) => write!(f, "the store cannot be read: {error}"),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            OpenError::Io(error) => Some(error),
            OpenError::Newer { .. } | OpenError::Damaged(_) | OpenError::InUse => None,
        }
    }
}

impl From<redb::Error> for OpenError {
    fn from(error: redb::Error) -> OpenError {
        match error {
            redb::Error::DatabaseAlreadyOpen => OpenError::InUse,
            redb::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
                OpenError::Damaged(error.to_string())
            }
            redb::Error::Io(error) => OpenError::Io(error),
            other => OpenError::Damaged(other.to_string()),
        }
    }
}

/// Why a commit failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// There is no room. It is tried again.
    Full,
    /// The store is of no use any more.
    Failed,
}

/// Whether an error says that there is no room. All others mean that nobody knows what the disk has.
pub(super) fn is_full(error: &redb::Error) -> bool {
    let redb::Error::Io(error) = error else { return false };
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}
