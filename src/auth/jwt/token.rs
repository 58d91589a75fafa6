//! The outside of a token: three parts in base64url, of which the first says how it is signed.

use std::fmt;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::Value;

use super::strict;

/// A token in parts; nothing is proved yet.
#[derive(Clone, Copy)]
pub struct Token<'a> {
    /// What is signed: header and claims, as they are written.
    pub(super) signed: &'a str,
    header: &'a str,
    claims: &'a str,
    pub(super) signature: &'a str,
}

/// What the header of a token says of its signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) algorithm: String,
    pub(super) key_id: Option<String>,
}

/// Why the parts of a token are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Malformed {
    /// Not in base64url without padding.
    Encoding(Part),
    /// No JSON object, or one that says the same thing twice.
    Json(Part, String),
    /// This field of the header is not of the right type.
    Header(&'static str),
    /// The header says that we have to understand something that we do not.
    Critical,
}

/// A part of a token that is JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Header,
    Claims,
}

impl<'a> Token<'a> {
    /// Takes what looks like a token: three parts with a JSON header that has `alg`. `None` for anything
    /// else, which is a password or whatever and no business of ours.
    #[must_use]
    pub fn recognize(text: &'a [u8]) -> Option<Token<'a>> {
        let text = std::str::from_utf8(text).ok()?;
        let (signed, signature) = text.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        if ![header, claims, signature].into_iter().all(is_base64url) {
            return None;
        }
        // Leniently: a header that says `alg` twice is a bad token, not a password.
        let json = BASE64_URL_SAFE_NO_PAD.decode(header).ok()?;
        let value: Value = serde_json::from_slice(&json).ok()?;
        value.get("alg")?;
        Some(Token { signed, header, claims, signature })
    }

    /// Length in bytes.
    pub(super) fn len(&self) -> usize {
        self.signed.len() + 1 + self.signature.len()
    }

    pub(super) fn header(&self) -> Result<Header, Malformed> {
        let header = decode(self.header, Part::Header)?;
        if header.get("crit").is_some() {
            return Err(Malformed::Critical);
        }
        let algorithm = header.get("alg").and_then(Value::as_str).ok_or(Malformed::Header("alg"))?;
        let key_id = match header.get("kid") {
            None => None,
            Some(Value::String(key_id)) => Some(key_id.clone()),
            Some(_) => return Err(Malformed::Header("kid")),
        };
        Ok(Header { algorithm: algorithm.into(), key_id })
    }

    /// The claims as a JSON object. Whoever asks before the signature is checked trusts nobody.
    pub(super) fn claims(&self) -> Result<Value, Malformed> {
        decode(self.claims, Part::Claims)
    }
}

fn is_base64url(part: &str) -> bool {
    part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

fn decode(part: &str, which: Part) -> Result<Value, Malformed> {
    let json = BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| Malformed::Encoding(which))?;
    strict::object(&json).map_err(|why| Malformed::Json(which, why))
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::Header => "header",
            Part::Claims => "claims",
        })
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Malformed::Encoding(part) => write!(f, "its {part} are not in base64url"),
            Malformed::Json(part, why) => write!(f, "its {part} cannot be read: {why}"),
            Malformed::Header(field) => write!(f, "its header has no text as \"{field}\""),
            Malformed::Critical => f.write_str("its header has \"crit\", which is not supported"),
        }
    }
}

/// Without any part of the token.
impl fmt::Debug for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}
