//! What keeps a broker from starting.

use std::{fmt, io};

use crate::{
    acl::PolicyErrors,
    auth::OpenError,
    guard::BanFileError,
    net::{BindError, PassedError, TlsError},
};

use super::StoreError;

/// Why a broker does not start.
#[derive(Debug)]
pub enum StartError {
    /// A listener cannot listen.
    Bind(BindError),
    /// A socket of the service manager has no use.
    Passed(PassedError),
    /// The certificates of a listener cannot be used.
    Tls {
        /// The listener.
        listener: String,
        /// Why.
        error: TlsError,
    },
    /// The file of bans cannot be used.
    Bans(BanFileError),
    /// The file of access rules cannot be used.
    Acl(PolicyErrors),
    /// A back end for authentication cannot be used.
    Auth(OpenError),
    /// The audit log cannot be written; why, with the file.
    Audit(String),
    /// The store cannot be opened.
    Store(StoreError),
    /// The system gives no thread, no runtime or no random numbers.
    System(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Bind(error) => error.fmt(f),
            StartError::Passed(error) => error.fmt(f),
            StartError::Tls { listener, error } => write!(f, "listener '{listener}': {error}"),
            StartError::Bans(error) => error.fmt(f),
            StartError::Acl(errors) => errors.fmt(f),
            StartError::Auth(error) => error.fmt(f),
            StartError::Audit(error) => f.write_str(error),
            StartError::Store(error) => error.fmt(f),
            StartError::System(error) => write!(f, "the system refuses what the broker needs: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> Self {
        StartError::System(error)
    }
}
