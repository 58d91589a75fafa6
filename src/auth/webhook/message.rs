//! What is asked and what is answered, as JSON.

use std::{collections::BTreeMap, fmt, sync::Arc};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};

use crate::{
    acl::{Details, Principal},
    auth::{Certificate, Credentials},
};

/// The longest text of an answer in bytes.
const TEXT_BYTES_MAX: usize = 4096;

/// Groups that an answer may list.
const GROUPS_MAX: usize = 256;

/// Attributes that an answer may have.
const ATTRIBUTES_MAX: usize = 64;

#[derive(Serialize)]
struct Question<'a> {
    client_id: &'a str,
    user_name: Option<&'a str>,
    /// The password, if it is text.
    password: Option<&'a str>,
    /// The password, if it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    password_base64: Option<String>,
    /// The IP address; none for other sockets.
    address: Option<String>,
    port: Option<u16>,
    listener: &'a str,
    /// What the client's certificate says, if it has shown one.
    certificate: Option<Shown<'a>>,
}

#[derive(Serialize)]
struct Shown<'a> {
    subject: &'a str,
    common_names: &'a [String],
    serial: &'a str,
    /// SHA-256 of the certificate in hexadecimal digits.
    fingerprint: Option<String>,
}

impl<'a> Shown<'a> {
    fn of(certificate: &'a Certificate) -> Shown<'a> {
        let hex = |bytes: [u8; 32]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Shown {
            subject: &certificate.subject,
            common_names: &certificate.common_names,
            serial: &certificate.serial,
            fingerprint: certificate.fingerprint.map(hex),
        }
    }
}

/// What the service says of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Allow {
        principal: Principal,
        /// Seconds from the answer on.
        expires_in_secs: Option<u64>,
    },
    Deny,
    Pass,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAnswer {
    result: RawResult,
    user: Option<String>,
    #[serde(default)]
    groups: Vec<String>,
    #[serde(default)]
    attributes: BTreeMap<String, String>,
    expires_in_secs: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum RawResult {
    Allow,
    Deny,
    Pass,
}

/// The answer is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BadAnswer {
    /// It cannot be read at this line and column.
    Json { line: usize, column: usize, is_data: bool },
    /// This part is empty, too long or too many.
    Text(&'static str),
}

/// The question as it is sent.
pub(super) fn question(credentials: &Credentials<'_>) -> Vec<u8> {
    let password = credentials.password.map(std::str::from_utf8);
    let address = match credentials.peer {
        crate::net::Peer::Tcp(address) => Some(*address),
        crate::net::Peer::Unix { .. } | crate::net::Peer::Memory => None,
    };
    let question = Question {
        client_id: credentials.client_id,
        user_name: credentials.user_name,
        password: password.and_then(Result::ok),
        password_base64: match password {
            Some(Err(_)) => credentials.password.map(|bytes| BASE64_STANDARD.encode(bytes)),
            None | Some(Ok(_)) => None,
        },
        address: address.map(|address| address.ip().to_string()),
        port: address.map(|address| address.port()),
        listener: credentials.listener,
        certificate: credentials.certificate.map(Shown::of),
    };
    // Texts, numbers and truth values: nothing in it can fail.
    serde_json::to_vec(&question).unwrap_or_default()
}

/// Reads an answer. What the broker does not understand it does not obey by halves: an unknown name is an
/// error.
pub(super) fn answer(
    json: &[u8],
    credentials_user: Option<&str>,
    now_secs: u64,
) -> Result<Answer, BadAnswer> {
    let raw: RawAnswer = serde_json::from_slice(json).map_err(|error| BadAnswer::Json {
        line: error.line(),
        column: error.column(),
        is_data: error.is_data(),
    })?;
    match raw.result {
        RawResult::Deny => return Ok(Answer::Deny),
        RawResult::Pass => return Ok(Answer::Pass),
        RawResult::Allow => {}
    }
    let user = raw.user.as_deref().or(credentials_user);
    if raw.user.as_deref().is_some_and(|user| !is_name(user)) {
        return Err(BadAnswer::Text("user"));
    }
    if raw.groups.len() > GROUPS_MAX || !raw.groups.iter().all(|group| is_name(group)) {
        return Err(BadAnswer::Text("groups"));
    }
    let is_attribute = |(name, value): (&String, &String)| is_name(name) && is_name(value);
    if raw.attributes.len() > ATTRIBUTES_MAX || !raw.attributes.iter().all(is_attribute) {
        return Err(BadAnswer::Text("attributes"));
    }
    let attributes = raw.attributes.iter();
    let details = Details {
        groups: raw.groups.iter().map(|group| Arc::from(group.as_str())).collect(),
        attributes: attributes
            .map(|(name, value)| (format!("webhook:{name}").into(), value.as_str().into()))
            .collect(),
        expires_at_secs: raw.expires_in_secs.map(|secs| now_secs.saturating_add(secs)),
        policy: None,
    };
    let details = (details != Details::default()).then(|| Arc::new(details));
    let principal = Principal { user: user.map(Arc::from), details };
    Ok(Answer::Allow { principal, expires_in_secs: raw.expires_in_secs })
}

/// Not empty, not huge, without the characters that MQTT forbids in texts.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= TEXT_BYTES_MAX && !text.chars().any(char::is_control)
}

impl fmt::Display for BadAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadAnswer::Json { line, column, is_data: true } => write!(
                f,
                "its answer has a name or value that is not understood, at line {line}, column {column}"
            ),
            BadAnswer::Json { line, column, is_data: false } => {
                write!(f, "its answer is no JSON, at line {line}, column {column}")
            }
            BadAnswer::Text(name) => write!(f, "in its answer \"{name}\" is empty, too long or too many"),
        }
    }
}
