//! What the claims of a token say: whether it counts now and here, and who its bearer is.
//!
//! Pure: the time is an argument, and whoever calls has checked the signature.

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde_json::Value;

use crate::{
    acl::{Details, Principal},
    config::auth::jwt::{Jwt, TokenExpiry},
};

use super::rules;

/// The longest user name, group or attribute in bytes.
const TEXT_BYTES_MAX: usize = 4096;

/// Groups that a token may list.
const GROUPS_MAX: usize = 256;

/// Why the claims of a token do not let a client in.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClaimError {
    /// The claim is not there.
    Missing(String),
    /// The claim is not of this kind.
    NotA(&'static str, String),
    /// `exp` is over by this many seconds.
    Expired(u64),
    /// `nbf` is this many seconds ahead.
    NotYetValid(u64),
    /// `iat` is this many seconds ahead.
    IssuedInTheFuture(u64),
    /// `iss` is not in the list.
    ForeignIssuer,
    /// `aud` names nobody in the list.
    ForeignAudience,
    /// The claim names another client than the one that connects.
    OtherClient(String),
    /// The token has access rules that cannot be obeyed.
    Rules(String),
}

/// The claim with this name. Dots lead into objects, unless a claim has the whole text as its name.
fn find<'a>(claims: &'a Value, name: &str) -> Option<&'a Value> {
    claims.get(name).or_else(|| {
        name.contains('.').then(|| name.split('.').try_fold(claims, |value, part| value.get(part)))?
    })
}

/// The same, without the null that some issuers write for what they do not know.
fn find_known<'a>(claims: &'a Value, name: &str) -> Option<&'a Value> {
    find(claims, name).filter(|value| !value.is_null())
}

/// Whether a list of the configuration knows the issuer.
pub(super) fn is_foreign(claims: &Value, settings: &Jwt) -> bool {
    let issuer = claims.get("iss").and_then(Value::as_str);
    !settings.issuers.is_empty() && !settings.issuers.iter().any(|known| issuer == Some(known))
}

/// Takes the claims of a token whose signature holds.
///
/// # Errors
/// Why its bearer is not let in.
pub fn principal(
    claims: &Value,
    settings: &Jwt,
    client_id: &str,
    now_secs: u64,
) -> Result<Principal, ClaimError> {
    let expires_at_secs = check_times(claims, settings, now_secs)?;
    if is_foreign(claims, settings) {
        return Err(ClaimError::ForeignIssuer);
    }
    check_audience(claims, &settings.audiences)?;
    if let Some(name) = &settings.client_id_claim
        && required_text(claims, name)? != client_id
    {
        return Err(ClaimError::OtherClient(name.clone()));
    }
    let user = required_text(claims, &settings.user_claim)?;
    let mut attributes = BTreeMap::new();
    for name in &settings.attribute_claims {
        if let Some(value) = find_known(claims, name) {
            attributes.insert(format!("jwt:{name}").into(), attribute(value, name)?);
        }
    }
    let mut details =
        Details { groups: groups(claims, settings)?, attributes, expires_at_secs, policy: None };
    // Also null: it does not say which rules it means.
    if let Some(claim) = find(claims, &settings.acl_claim) {
        rules::add(claim, &mut details).map_err(ClaimError::Rules)?;
    }
    Ok(Principal { user: Some(user.into()), details: Some(Arc::new(details)) })
}

/// Checks `exp`, `nbf` and `iat`. Returns when the token is over, leeway included: the connection would
/// otherwise end as soon as a client connects with what is left of the leeway.
fn check_times(claims: &Value, settings: &Jwt, now_secs: u64) -> Result<Option<u64>, ClaimError> {
    let leeway = settings.leeway_secs;
    let expires = time(claims, "exp")?;
    match expires {
        None if settings.expiry == TokenExpiry::Required => return Err(ClaimError::Missing("exp".into())),
        // RFC 7519, 4.1.4: not "on or after" that time.
        Some(at) if now_secs >= at.saturating_add(leeway) => return Err(ClaimError::Expired(now_secs - at)),
        None | Some(_) => {}
    }
    match time(claims, "nbf")? {
        Some(at) if at > now_secs.saturating_add(leeway) => {
            return Err(ClaimError::NotYetValid(at - now_secs));
        }
        None | Some(_) => {}
    }
    match time(claims, "iat")? {
        Some(at) if at > now_secs.saturating_add(leeway) => Err(ClaimError::IssuedInTheFuture(at - now_secs)),
        None | Some(_) => Ok(expires.map(|at| at.saturating_add(leeway))),
    }
}

/// A NumericDate: seconds since 1970, of which fractions are dropped.
fn time(claims: &Value, name: &str) -> Result<Option<u64>, ClaimError> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let whole = value.as_u64().or_else(|| {
        let secs = value.as_f64().filter(|secs| (0.0..u64::MAX as f64).contains(secs))?;
        Some(secs as u64)
    });
    whole.map(Some).ok_or_else(|| ClaimError::NotA("time", name.into()))
}

/// RFC 7519, 4.1.3: who is not named in `aud` has to refuse the token, and who is configured has to be named.
fn check_audience(claims: &Value, expected: &[String]) -> Result<(), ClaimError> {
    let Some(value) = claims.get("aud") else {
        return if expected.is_empty() { Ok(()) } else { Err(ClaimError::Missing("aud".into())) };
    };
    let is_for_us = |value: &Value| value.as_str().is_some_and(|name| expected.iter().any(|e| e == name));
    let is_named = match value {
        Value::Array(names) => names.iter().any(is_for_us),
        other => is_for_us(other),
    };
    if is_named { Ok(()) } else { Err(ClaimError::ForeignAudience) }
}

/// A text that can be a user name: not empty, not huge, without the characters that MQTT forbids in texts.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= TEXT_BYTES_MAX && !text.chars().any(char::is_control)
}

fn required_text<'a>(claims: &'a Value, name: &str) -> Result<&'a str, ClaimError> {
    let value = find_known(claims, name).ok_or_else(|| ClaimError::Missing(name.into()))?;
    value.as_str().filter(|text| is_name(text)).ok_or_else(|| ClaimError::NotA("name", name.into()))
}

fn groups(claims: &Value, settings: &Jwt) -> Result<Vec<Arc<str>>, ClaimError> {
    let Some(name) = &settings.groups_claim else { return Ok(Vec::new()) };
    let refuse = || ClaimError::NotA("list of names", name.clone());
    let as_group = |value: &Value| value.as_str().filter(|text| is_name(text)).map(Arc::from);
    match find_known(claims, name) {
        None => Ok(Vec::new()),
        Some(Value::Array(list)) if list.len() <= GROUPS_MAX => {
            list.iter().map(|value| as_group(value).ok_or_else(refuse)).collect()
        }
        Some(value) => Ok(vec![as_group(value).ok_or_else(refuse)?]),
    }
}

/// The value of a claim as access rules use it.
fn attribute(value: &Value, name: &str) -> Result<Box<str>, ClaimError> {
    let refuse = || ClaimError::NotA("text, number or truth value", name.into());
    match value {
        Value::String(text) if is_name(text) => Ok(text.as_str().into()),
        Value::Number(number) => Ok(number.to_string().into()),
        Value::Bool(value) => Ok(value.to_string().into()),
        Value::String(_) | Value::Null | Value::Array(_) | Value::Object(_) => Err(refuse()),
    }
}

impl std::error::Error for ClaimError {}

impl fmt::Display for ClaimError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClaimError::Missing(name) => write!(f, "it has no claim \"{name}\""),
            ClaimError::NotA(kind, name) => write!(f, "its claim \"{name}\" is no {kind}"),
            ClaimError::Expired(secs) => write!(f, "it has expired {secs} s ago"),
            ClaimError::NotYetValid(secs) => write!(f, "it is not valid for another {secs} s"),
            ClaimError::IssuedInTheFuture(secs) => {
                write!(f, "it was issued {secs} s in the future; compare the clocks")
            }
            ClaimError::ForeignIssuer => f.write_str("its issuer is not one of `issuers`"),
            ClaimError::ForeignAudience => f.write_str("its audience is not one of `audiences`"),
            ClaimError::OtherClient(name) => {
                write!(f, "its claim \"{name}\" is not the client identifier")
            }
            ClaimError::Rules(why) => write!(f, "its access rules cannot be obeyed: {why}"),
        }
    }
}
