//! Settings of a service that is asked who clients are.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    super::{check::Checker, raw::integer, unit::Integer},
    jwt::needs_plain_http,
    url::{HttpUrl, PlainHttp},
};

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

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RawUnavailable {
    Deny,
    Pass,
}

/// Where a secret is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSecret {
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    env: Option<String>,
}

/// A back end of kind `webhook`, as it is written.
#[derive(Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawWebhook {
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    allow_plain_http: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca_file: Option<PathBuf>,
    timeout_secs: Integer,
    requests_max: Integer,
    cache_allow_secs: Integer,
    cache_deny_secs: Integer,
    cache_entries_max: Integer,
    stale_secs_max: Integer,
    breaker_failures: Integer,
    breaker_open_secs: Integer,
    unavailable: RawUnavailable,
    headers: BTreeMap<String, String>,
    secret_headers: BTreeMap<String, RawSecret>,
}

impl Checker<'_> {
    pub(super) fn webhook(&mut self, key: &str, raw: RawWebhook) -> Option<Webhook> {
        let of = |name: &str| format!("{key}.{name}");
        let url = match &raw.url {
            Some(url) => self.http_url(&of("url"), url, raw.allow_plain_http),
            None => {
                self.refuse(&of("url"), "is missing; it names the service that is asked");
                None
            }
        };
        let headers = self.headers(key, raw.headers, raw.secret_headers);
        let webhook = Webhook {
            timeout: self.seconds(&of("timeout_secs"), raw.timeout_secs, 1..=60),
            requests_max: self.number(&of("requests_max"), raw.requests_max, 1..=256),
            cache_allow: self.seconds(&of("cache_allow_secs"), raw.cache_allow_secs, 0..=86_400),
            cache_deny: self.seconds(&of("cache_deny_secs"), raw.cache_deny_secs, 0..=86_400),
            cache_entries_max: self.number(&of("cache_entries_max"), raw.cache_entries_max, 0..=1_000_000),
            stale_max: self.seconds(&of("stale_secs_max"), raw.stale_secs_max, 0..=2_592_000),
            breaker_failures: self.number(&of("breaker_failures"), raw.breaker_failures, 1..=1_000_000),
            breaker_open: self.seconds(&of("breaker_open_secs"), raw.breaker_open_secs, 1..=3600),
            unavailable: match raw.unavailable {
                RawUnavailable::Deny => Unavailable::Deny,
                RawUnavailable::Pass => Unavailable::Pass,
            },
            ca_file: raw.ca_file,
            headers,
            ..Webhook::new(url?)
        };
        Some(webhook)
    }

    fn headers(
        &mut self,
        key: &str,
        texts: BTreeMap<String, String>,
        secrets: BTreeMap<String, RawSecret>,
    ) -> Vec<Header> {
        let mut headers = Vec::new();
        for (name, text) in texts {
            if let Err(why) = hyper::header::HeaderValue::from_str(&text) {
                self.refuse(&format!("{key}.headers.{name}"), format!("is no value of a header: {why}"));
            }
            headers.push(Header { name, value: HeaderValue::Text(text) });
        }
        for (name, secret) in secrets {
            match secret {
                RawSecret { file: Some(file), env: None } => {
                    headers.push(Header { name, value: HeaderValue::File(file) });
                }
                RawSecret { file: None, env: Some(variable) } => {
                    headers.push(Header { name, value: HeaderValue::Variable(variable) });
                }
                RawSecret { .. } => {
                    let key = format!("{key}.secret_headers.{name}");
                    self.refuse(&key, "needs either `file` or `env`: where the secret is");
                }
            }
        }
        for Header { name, .. } in &headers {
            if hyper::header::HeaderName::from_bytes(name.as_bytes()).is_err() {
                self.refuse(&format!("{key}.headers"), format!("`{name}` is no name of a header"));
            }
        }
        headers
    }
}

impl Default for RawWebhook {
    fn default() -> Self {
        // What has no default is taken away again.
        let usual = HttpUrl::parse("https://localhost/", PlainHttp::Loopback).map(Webhook::new);
        let usual = usual.as_ref().map(Self::from).expect("the URL is a good one");
        Self { url: None, ..usual }
    }
}

impl From<&Webhook> for RawWebhook {
    fn from(webhook: &Webhook) -> Self {
        let mut headers = BTreeMap::new();
        let mut secret_headers = BTreeMap::new();
        for Header { name, value } in &webhook.headers {
            let secret = match value.clone() {
                HeaderValue::Text(text) => {
                    headers.insert(name.clone(), text);
                    continue;
                }
                HeaderValue::File(file) => RawSecret { file: Some(file), env: None },
                HeaderValue::Variable(variable) => RawSecret { file: None, env: Some(variable) },
            };
            secret_headers.insert(name.clone(), secret);
        }
        Self {
            url: Some(webhook.url.as_str().into()),
            allow_plain_http: needs_plain_http(&webhook.url),
            ca_file: webhook.ca_file.clone(),
            timeout_secs: integer(webhook.timeout.as_secs()),
            requests_max: integer(webhook.requests_max),
            cache_allow_secs: integer(webhook.cache_allow.as_secs()),
            cache_deny_secs: integer(webhook.cache_deny.as_secs()),
            cache_entries_max: integer(webhook.cache_entries_max),
            stale_secs_max: integer(webhook.stale_max.as_secs()),
            breaker_failures: integer(webhook.breaker_failures),
            breaker_open_secs: integer(webhook.breaker_open.as_secs()),
            unavailable: match webhook.unavailable {
                Unavailable::Deny => RawUnavailable::Deny,
                Unavailable::Pass => RawUnavailable::Pass,
            },
            headers,
            secret_headers,
        }
    }
}

/// Without headers and URL, which may hold secrets.
impl fmt::Debug for RawWebhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawWebhook").finish_non_exhaustive()
    }
}
