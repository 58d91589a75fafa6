//! Password files, and what checking passwords may cost.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    super::{check::Checker, raw::integer, unit::Integer},
    required_path,
};

/// A back end of kind `password_file`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PasswordFile {
    /// Users and the hashes of their passwords, one user a line.
    pub file: PathBuf,
}

/// What checking passwords may cost, over all password files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PasswordChecks {
    /// Threads that check, which is how many passwords are checked at a time.
    pub threads_max: usize,
    /// Checks that wait for a thread; who comes on top is told that the server is busy.
    pub queue_checks_max: usize,
    /// Successes that are remembered; 0 remembers none.
    pub cache_entries_max: usize,
    /// How long a success is remembered.
    pub cache_time: Duration,
}

impl Default for PasswordChecks {
    fn default() -> Self {
        Self {
            threads_max: 2,
            queue_checks_max: 1024,
            cache_entries_max: 10_000,
            cache_time: Duration::from_secs(300),
        }
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawPasswordFile {
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<PathBuf>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawPasswordChecks {
    threads_max: Integer,
    queue_checks_max: Integer,
    cache_entries_max: Integer,
    cache_secs: Integer,
}

impl Checker<'_> {
    pub(super) fn password_file(&mut self, key: &str, raw: RawPasswordFile) -> Option<PasswordFile> {
        let what = "the file with users and hashes that `dunlin passwd` writes";
        let file = required_path(self, &format!("{key}.file"), raw.file, what)?;
        Some(PasswordFile { file })
    }

    pub(super) fn password_checks(&mut self, raw: &RawPasswordChecks) -> PasswordChecks {
        let key = |name: &str| format!("auth.passwords.{name}");
        PasswordChecks {
            threads_max: self.number(&key("threads_max"), raw.threads_max, 1..=64),
            queue_checks_max: self.number(&key("queue_checks_max"), raw.queue_checks_max, 1..=65_536),
            cache_entries_max: self.number(&key("cache_entries_max"), raw.cache_entries_max, 0..=1_000_000),
            cache_time: self.seconds(&key("cache_secs"), raw.cache_secs, 1..=86_400),
        }
    }
}

impl Default for RawPasswordChecks {
    fn default() -> Self {
        Self::from(&PasswordChecks::default())
    }
}

impl From<&PasswordFile> for RawPasswordFile {
    fn from(backend: &PasswordFile) -> Self {
        Self { file: Some(backend.file.clone()) }
    }
}

impl From<&PasswordChecks> for RawPasswordChecks {
    fn from(checks: &PasswordChecks) -> Self {
        Self {
            threads_max: integer(checks.threads_max),
            queue_checks_max: integer(checks.queue_checks_max),
            cache_entries_max: integer(checks.cache_entries_max),
            cache_secs: integer(checks.cache_time.as_secs()),
        }
    }
}
