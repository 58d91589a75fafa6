//! `[auth]`: the back ends by their names, the order in which they are asked, and how failures are held off.
//!
//! Each kind of back end has a file here with its keys as written and as checked.

mod backoff;
pub mod jwt;
mod password;
pub mod url;
pub mod webhook;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Deserializer, Serialize, de};

use jwt::{JwtKeys, RawJwt};

pub use backoff::Backoff;
pub use password::{PasswordChecks, PasswordFile};

use super::{check::Checker, raw::RawListener};
use backoff::RawBackoff;

use password::{RawPasswordChecks, RawPasswordFile};
use webhook::RawWebhook;

/// The longest name of a back end in bytes.
const NAME_BYTES_MAX: usize = 64;

/// How the broker learns who clients are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// Back ends in the order in which they are asked, on listeners that do not say otherwise.
    pub chain: Vec<String>,
    /// All back ends by their names.
    pub backends: BTreeMap<String, Backend>,
    /// How long an address waits that fails again and again.
    pub backoff: Backoff,
    /// What checking passwords may cost.
    pub passwords: PasswordChecks,
    /// Whether a session is for the user alone who had it first.
    pub bind_sessions: bool,
}

/// One back end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    /// A file of users and the hashes of their passwords.
    PasswordFile(PasswordFile),
    /// JSON Web Tokens.
    Jwt(Box<jwt::Jwt>),
    /// A service that is asked by HTTP.
    Webhook(Box<webhook::Webhook>),
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            chain: Vec::new(),
            backends: BTreeMap::new(),
            backoff: Backoff::default(),
            passwords: PasswordChecks::default(),
            bind_sessions: true,
        }
    }
}

impl Backend {
    /// The file whose changes are a reason to read it again.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match self {
            Backend::PasswordFile(settings) => Some(&settings.file),
            Backend::Jwt(settings) => match &settings.keys {
                JwtKeys::SecretFile(file, _) | JwtKeys::PublicKeyFile(file) | JwtKeys::KeySetFile(file) => {
                    Some(file)
                }
                JwtKeys::SecretVariable(..) | JwtKeys::KeySetUrl(_) => None,
            },
            Backend::Webhook(_) => None,
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawAuth {
    #[serde(skip_serializing_if = "Option::is_none")]
    chain: Option<Vec<String>>,
    bind_sessions: bool,
    backoff: RawBackoff,
    passwords: RawPasswordChecks,
    backends: BTreeMap<String, RawBackend>,
}

/// The kinds, by what is written after `kind`.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum RawBackend {
    PasswordFile(RawPasswordFile),
    Jwt(Box<RawJwt>),
    Webhook(Box<RawWebhook>),
    /// A layer that changes keys of a back end of another layer need not repeat the kind. What it writes is
    /// checked when the layers are merged; there a back end without a kind is refused.
    #[serde(skip)]
    Partial,
}

/// Values of `kind`, for messages.
const KINDS: &[&str] = &["password_file", "jwt", "webhook"];

impl<'de> Deserialize<'de> for RawBackend {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut keys = toml::Table::deserialize(deserializer)?;
        let Some(kind) = keys.remove("kind") else { return Ok(Self::Partial) };
        let kind = kind.as_str().unwrap_or_default().to_owned();
        let keys = toml::Value::Table(keys);
        match kind.as_str() {
            "password_file" => keys.try_into().map(Self::PasswordFile).map_err(|error| shorten(&error)),
            "jwt" => keys.try_into().map(Self::Jwt).map_err(|error| shorten(&error)),
            "webhook" => keys.try_into().map(Self::Webhook).map_err(|error| shorten(&error)),
            _ => Err(de::Error::unknown_variant(&kind, KINDS)),
        }
    }
}

/// The message of an error of a nested table, without the lines that show where.
fn shorten<E: de::Error>(error: &toml::de::Error) -> E {
    E::custom(error.message())
}

impl Default for RawAuth {
    fn default() -> Self {
        let mut raw = Self::from(&Auth::default());
        raw.chain = None;
        raw
    }
}

impl RawAuth {
    /// Sets the back end that `--password-file` stands for.
    pub(super) const FLAG_BACKEND: &'static str = "passwords";
}

impl Checker<'_> {
    pub(super) fn auth(&mut self, raw: RawAuth) -> Auth {
        let mut backends = BTreeMap::new();
        for (name, raw) in raw.backends {
            let key = format!("auth.backends.{name}");
            self.backend_name(&key, &name);
            // One with a mistake is kept out, but its name may stand in chains all the same.
            if let Some(backend) = self.backend(&key, raw) {
                backends.insert(name, backend);
            }
        }
        let chain = match raw.chain {
            Some(chain) => self.chain("auth.chain", chain, &backends),
            None if backends.len() > 1 => {
                let names = backends.keys().cloned().collect::<Vec<_>>().join(", ");
                let message = format!("must be set, since their order matters: there are {names}");
                let last = backends.keys().next_back().map_or("", String::as_str);
                self.refuse_because_of(&format!("auth.backends.{last}"), "auth.chain", message);
                Vec::new()
            }
            None => backends.keys().cloned().collect(),
        };
        let backoff = self.backoff(&raw.backoff);
        let passwords = self.password_checks(&raw.passwords);
        Auth { chain, backends, backoff, passwords, bind_sessions: raw.bind_sessions }
    }

    fn backend_name(&mut self, key: &str, name: &str) {
        let is_plain = name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_');
        if !is_plain || name.len() > NAME_BYTES_MAX {
            let message = format!(
                "is no name for a back end; it begins with a letter and has letters a to z, digits and _, at \
                 most {NAME_BYTES_MAX}"
            );
            self.refuse(key, message);
        }
    }

    fn backend(&mut self, key: &str, raw: RawBackend) -> Option<Backend> {
        match raw {
            RawBackend::PasswordFile(raw) => self.password_file(key, raw).map(Backend::PasswordFile),
            RawBackend::Jwt(raw) => self.jwt(key, *raw).map(|jwt| Backend::Jwt(Box::new(jwt))),
            RawBackend::Webhook(raw) => {
                self.webhook(key, *raw).map(|webhook| Backend::Webhook(Box::new(webhook)))
            }
            RawBackend::Partial => {
                let kinds = KINDS.join("\", \"");
                self.refuse(&format!("{key}.kind"), format!("is missing; write one of \"{kinds}\""));
                None
            }
        }
    }

    /// Checks the names in a chain.
    fn chain(&mut self, key: &str, chain: Vec<String>, backends: &BTreeMap<String, Backend>) -> Vec<String> {
        for (index, name) in chain.iter().enumerate() {
            // What is wrong with the back end itself is told already.
            let is_known =
                backends.contains_key(name) || self.errors.has_in(&format!("auth.backends.{name}"));
            if !is_known {
                let known = backends.keys().cloned().collect::<Vec<_>>().join(", ");
                let known = if known.is_empty() { "none".to_owned() } else { known };
                self.refuse(key, format!("\"{name}\" is no back end; there are: {known} (auth.backends)"));
            }
            if chain[..index].contains(name) {
                self.refuse(key, format!("\"{name}\" is there twice"));
            }
        }
        chain
    }

    /// The chain of a listener.
    pub(super) fn listener_chain(&mut self, key: &str, raw: &RawListener, auth: &Auth) -> Vec<String> {
        match &raw.auth {
            Some(chain) => self.chain(&format!("{key}.auth"), chain.clone(), &auth.backends),
            None => auth.chain.clone(),
        }
    }

    /// A back end that nobody asks was forgotten in a chain.
    pub(super) fn refuse_unused_backends(&mut self, auth: &Auth, listeners: &[RawListener]) {
        if self.errors.has("auth.chain") {
            return;
        }
        let mut chains: Vec<&[String]> =
            listeners.iter().filter_map(|listener| listener.auth.as_deref()).collect();
        chains.push(&auth.chain);
        for name in auth.backends.keys() {
            if !chains.iter().any(|chain| chain.contains(name)) {
                let message = "is in no chain, so that it would never be asked: add it to auth.chain or to \
                               `auth` of a listener";
                self.refuse(&format!("auth.backends.{name}"), message);
            }
        }
    }
}

impl From<&Auth> for RawAuth {
    fn from(auth: &Auth) -> Self {
        let backends = auth.backends.iter().map(|(name, backend)| (name.clone(), backend.into()));
        Self {
            chain: Some(auth.chain.clone()),
            bind_sessions: auth.bind_sessions,
            backoff: (&auth.backoff).into(),
            passwords: (&auth.passwords).into(),
            backends: backends.collect(),
        }
    }
}

impl From<&Backend> for RawBackend {
    fn from(backend: &Backend) -> Self {
        match backend {
            Backend::PasswordFile(file) => Self::PasswordFile(file.into()),
            Backend::Jwt(jwt) => Self::Jwt(Box::new((&**jwt).into())),
            Backend::Webhook(webhook) => Self::Webhook(Box::new((&**webhook).into())),
        }
    }
}

/// A path that has to be there.
fn required_path(checker: &mut Checker<'_>, key: &str, path: Option<PathBuf>, what: &str) -> Option<PathBuf> {
    if path.is_none() {
        checker.refuse(key, format!("is missing; it names {what}"));
    }
    path
}
