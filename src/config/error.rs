//! What is wrong with a configuration: every problem at once, each with its place and key.

use std::{collections::BTreeSet, error::Error, fmt};

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where it is written: `dunlin.toml:3:1`, `environment variable DUNLIN__SHARDS`, `--set shards=x`.
    pub place: String,
    /// The key, such as `limits.packet_bytes_max` or `listeners[0].address`; empty when no key is at fault.
    pub key: String,
    /// What is wrong and what is allowed.
    pub message: String,
}

/// Everything that is wrong with a configuration, in the order of the layers; never empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigErrors {
    problems: Vec<Problem>,
    keys: BTreeSet<String>,
}

impl ConfigErrors {
    /// The problems.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Adds a problem of `place` as a whole.
    pub(super) fn of_place(&mut self, place: &str, message: impl Into<String>) {
        self.problems.push(Problem { place: place.into(), key: String::new(), message: message.into() });
    }

    /// Adds a problem of `key`. Only the first of a key is kept: a value that was refused for its type is
    /// dropped from its layer, and the complaint that it is missing would mislead.
    pub(super) fn of_key(&mut self, place: &str, key: &str, message: impl Into<String>) {
        if self.keys.insert(key.into()) {
            self.problems.push(Problem { place: place.into(), key: key.into(), message: message.into() });
        }
    }

    /// Whether this key has a problem.
    pub(super) fn has(&self, key: &str) -> bool {
        self.keys.contains(key)
    }

    /// Whether this key, or one in it, has a problem.
    pub(super) fn has_in(&self, key: &str) -> bool {
        let is_in = |other: &String| {
            other.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        self.keys.iter().any(is_in)
    }

    /// The value if nothing is wrong, else the problems.
    pub(super) fn or<T>(self, value: T) -> Result<T, Self> {
        if self.problems.is_empty() { Ok(value) } else { Err(self) }
    }
}

impl Error for ConfigErrors {}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let newline = if index == 0 { "" } else { "\n" };
            write!(f, "{newline}{problem}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key.as_str() {
            "" => write!(f, "{}: {}", self.place, self.message),
            key => write!(f, "{}: {key}: {}", self.place, self.message),
        }
    }
}
