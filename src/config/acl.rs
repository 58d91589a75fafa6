//! The file of access rules: where it is, in which format, and reading it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::check::Checker;
use crate::acl::{Format, Policy, PolicyErrors};

/// Bytes of a file of access rules at most; it is read at once.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Access rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl {
    /// The file with the rules.
    pub file: PathBuf,
    /// How it is written; `None` to see that by its name and its first line.
    pub format: Option<Format>,
}

impl Acl {
    /// Reads the file, and calls it `name` in what is said about it.
    ///
    /// # Errors
    /// That it cannot be read, or everything that is wrong with it, each with file and line.
    pub fn load_as(&self, name: &str) -> Result<Policy, PolicyErrors> {
        let text = read(&self.file).map_err(|error| {
            PolicyErrors::one(format!("{name}: the access rules cannot be read: {error}"))
        })?;
        Policy::parse(name, &text, self.format.unwrap_or_else(|| Format::detect(name, &text)))
    }

    /// Reads the file, and calls it by its path.
    ///
    /// # Errors
    /// As [`Acl::load_as`].
    pub fn load(&self) -> Result<Policy, PolicyErrors> {
        self.load_as(&self.file.display().to_string())
    }
}

fn read(path: &Path) -> io::Result<String> {
    if fs::metadata(path)?.len() > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("the file is larger than {} MiB", FILE_BYTES_MAX >> 20)));
    }
    fs::read_to_string(path)
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawAcl {
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<PathBuf>,
    format: RawFormat,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawFormat {
    #[default]
    Auto,
    Toml,
    Mosquitto,
}

impl From<Option<&Acl>> for RawAcl {
    fn from(acl: Option<&Acl>) -> Self {
        let format = match acl.and_then(|acl| acl.format) {
            None => RawFormat::Auto,
            Some(Format::Toml) => RawFormat::Toml,
            Some(Format::Mosquitto) => RawFormat::Mosquitto,
        };
        Self { file: acl.map(|acl| acl.file.clone()), format }
    }
}

impl Checker<'_> {
    pub(super) fn acl(&mut self, raw: RawAcl) -> Option<Acl> {
        let format = match raw.format {
            RawFormat::Auto => None,
            RawFormat::Toml => Some(Format::Toml),
            RawFormat::Mosquitto => Some(Format::Mosquitto),
        };
        if raw.file.is_none() && format.is_some() {
            self.refuse("acl.format", "has no effect: `acl.file` names no file");
        }
        raw.file.map(|file| Acl { file, format })
    }
}
