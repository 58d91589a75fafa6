//! Settings of a service that is asked who clients are.

use std::{fmt, path::PathBuf, time::Duration};

use super::url::HttpUrl;

/// How a service is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// Where it is.
    pub url: HttpUrl,
    /// PEM file of authorities that are trusted besides those of the system.
    pub ca_file: Option<PathBuf>,
    /// Headers of every request.
    pub headers: Vec<Header>,
    /// How long one request may take.
    pub timeout: Duration,
    /// Requests at a time; clients beyond are told that the server is busy.
    pub requests_max: usize,
    /// How long `allow` is remembered; zero for not at all.
    pub cache_allow: Duration,
    /// How long `deny` and `pass` are remembered; zero for not at all.
    pub cache_deny: Duration,
    /// Answers that are remembered at a time.
    pub cache_entries_max: usize,
    /// How much longer what is remembered counts while the service is unavailable.
    pub stale_max: Duration,
    /// Failures in a row after which the service is left alone for a while; at least 1.
    pub breaker_failures: u32,
    /// For how long.
    pub breaker_open: Duration,
    /// What becomes of clients while the service is unavailable.
    pub unavailable: Unavailable,
}

/// What becomes of a client if the service cannot be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// It is told that the server is unavailable.
    Deny,
    /// The next back end is asked.
    Pass,
}

/// A header of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: HeaderValue,
}

/// Where the value of a header is.
#[derive(Clone, PartialEq, Eq)]
pub enum HeaderValue {
    /// In the configuration.
    Text(String),
    /// In a file; a newline at its end is not part of it.
    File(PathBuf),
    /// In an environment variable.
    Variable(String),
}

/// Without a value that is written in the configuration: it may be a secret.
impl fmt::Debug for HeaderValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeaderValue::Text(_) => f.write_str("Text(…)"),
            HeaderValue::File(path) => f.debug_tuple("File").field(path).finish(),
            HeaderValue::Variable(name) => f.debug_tuple("Variable").field(name).finish(),
        }
    }
}

impl Webhook {
    /// Every setting but the URL at its default.
    #[must_use]
    pub fn new(url: HttpUrl) -> Webhook {
        Webhook {
            url,
            ca_file: None,
            headers: Vec::new(),
            timeout: Duration::from_secs(5),
            requests_max: 64,
            cache_allow: Duration::from_secs(60),
            cache_deny: Duration::from_secs(5),
            cache_entries_max: 10_000,
            stale_max: Duration::ZERO,
            breaker_failures: 5,
            breaker_open: Duration::from_secs(10),
            unavailable: Unavailable::Deny,
        }
    }
}
