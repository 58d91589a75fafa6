//! Addresses of HTTP services.

use std::{fmt, net::IpAddr, str::FromStr};

use hyper::Uri;

/// Whether a URL may be `http`, which anybody on the way can read and change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlainHttp {
    /// Only to this machine.
    Loopback,
    /// To any host, because the operator says so.
    Anywhere,
}

/// The URL of a service: `https`, or `http` where that is allowed.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpUrl {
    text: String,
    uri: Uri,
}

impl HttpUrl {
    /// Reads a URL.
    ///
    /// # Errors
    /// What is wrong and what to write instead.
    pub fn parse(text: &str, plain_http: PlainHttp) -> Result<HttpUrl, String> {
        // Not quoted from the library's error: the text may hold a password.
        let uri = Uri::from_str(text).map_err(|_| "is no URL; write https://host/path".to_owned())?;
        let host = uri.host().filter(|host| !host.is_empty());
        let Some(host) = host else {
            return Err("names no host; write https://host/path".into());
        };
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(
                "holds a user name or password; leave them out, and give the service a secret header".into(),
            );
        }
        match (uri.scheme_str(), plain_http) {
            (Some("https"), _) | (Some("http"), PlainHttp::Anywhere) => {}
            (Some("http"), PlainHttp::Loopback) if is_loopback(host) => {}
            (Some("http"), PlainHttp::Loopback) => {
                return Err("is http, which others on the network can read and change; use https, or set \
                            allow_plain_http = true if nobody can"
                    .into());
            }
            (_, _) => return Err("is neither https nor http".into()),
        }
        Ok(HttpUrl { text: text.into(), uri })
    }

    /// As it was written, with its query.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The URL in parts.
    #[must_use]
    pub fn uri(&self) -> &Uri {
        &self.uri
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || address.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// For logs: without the query, which may hold a secret.
impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.uri.scheme_str().unwrap_or_default();
        let authority = self.uri.authority().map_or("", |authority| authority.as_str());
        write!(f, "{scheme}://{authority}{}", self.uri.path())
    }
}

impl fmt::Debug for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::{HttpUrl, PlainHttp};

    #[test]
    fn plain_http_is_for_this_machine_unless_allowed() {
        let cases = [
            ("https://auth.example/keys", true, true),
            ("http://127.0.0.1:8080/keys", true, true),
            ("http://[::1]:8080/keys", true, true),
            ("http://localhost/keys", true, true),
            ("http://auth.example/keys", false, true),
            ("http://127.0.0.1.example/keys", false, true),
            ("http://10.0.0.1/keys", false, true),
            ("https://me:secret@auth.example/keys", false, false),
            ("http://localhost@auth.example/keys", false, false),
            ("file:///etc/passwd", false, false),
            ("/keys", false, false),
            ("auth.example", false, false),
            ("", false, false),
        ];
        for (text, by_default, if_allowed) in cases {
            assert_eq!(HttpUrl::parse(text, PlainHttp::Loopback).is_ok(), by_default, "{text}");
            assert_eq!(HttpUrl::parse(text, PlainHttp::Anywhere).is_ok(), if_allowed, "{text}");
        }
    }

    #[test]
    fn what_is_shown_has_no_query_and_no_password() {
        let url = HttpUrl::parse("https://auth.example/keys?token=hunter2", PlainHttp::Loopback).unwrap();
        assert_eq!(format!("{url} {url:?}"), "https://auth.example/keys https://auth.example/keys");
        let error = HttpUrl::parse("https://me:hunter2@auth.example", PlainHttp::Loopback).unwrap_err();
        assert!(!error.contains("hunter2"), "{error}");
    }
}
