//! In which format rules are written.

use serde_json::Value as Json;

use super::{Policy, PolicyErrors, document, mosquitto};

/// A format of rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Ours.
    Toml,
    /// That of mosquitto's `acl_file`.
    Mosquitto,
}

impl Format {
    /// The format of a file: TOML if its name says so, else what its first line looks like.
    #[must_use]
    pub fn detect(name: &str, text: &str) -> Format {
        match name.ends_with(".toml") || !mosquitto::is_mosquitto(text) {
            true => Format::Toml,
            false => Format::Mosquitto,
        }
    }
}

impl Policy {
    /// Reads the text of a file. The name is what errors, [`Explanation`](super::Explanation) and
    /// [`Authorize::describe`](super::Authorize::describe) call it.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(name: &str, text: &str, format: Format) -> Result<Self, PolicyErrors> {
        match format {
            Format::Toml => document::of_toml(name, text),
            Format::Mosquitto => mosquitto::of_mosquitto(name, text),
        }
    }

    /// Reads the `acl` claim of a token: a list of rules as in a file, which do not say whom they are about:
    /// `[{"allow": ["publish"], "topics": ["a/%c/#"]}]`.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn from_claim(claim: &Json) -> Result<Self, PolicyErrors> {
        document::of_claim(claim)
    }
}
