//! JSON Web Tokens as proof of who a client is.
//!
//! A token is looked at in this order, and each step can only refuse: its shape, its size, its algorithm
//! (which the configuration decides, never the token), its signature, its claims. What is not shaped like a
//! token is left to other back ends. No part of a token is logged but its issuer, its subject and the name
//! of its key.

pub mod claims;
mod freshness;
pub mod keys;
mod remote;
mod rules;
mod strict;
#[cfg(test)]
mod tests;
pub mod token;

use std::{fmt, fs, sync::Arc};

use base64::{Engine, prelude::BASE64_STANDARD, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::Value;

use crate::{
    acl::Principal,
    codec::ReasonCode,
    config::auth::jwt::{Algorithm, ForeignIssuer, Jwt as Settings, JwtKeys, SecretEncoding, TokenPlace},
};

use super::{
    Backend, BoxFuture, Credentials, Denial, Exchange, Step, Verdict, background::Background, clock::Clock,
    secret,
};
use claims::ClaimError;
use freshness::Need;
use keys::{KeyError, KeySet, Origin, Verification};
use remote::RemoteKeys;
use token::{Header, Malformed, Token};

/// The method of enhanced authentication.
const METHOD: &str = "JWT";

/// Lets in whoever shows a token.
#[derive(Clone, Debug)]
pub struct Jwt {
    checks: Arc<Checks>,
}

/// How tokens are checked.
struct Checks {
    settings: Settings,
    keys: Keys,
    clock: Arc<dyn Clock>,
}

#[derive(Debug)]
enum Keys {
    Fixed(KeySet),
    Fetched(RemoteKeys),
}

/// Why a token does not let its bearer in.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Refusal {
    /// This many bytes.
    TooLong(usize),
    Malformed(Malformed),
    Algorithm(String),
    Signature,
    UnknownKey,
    Claims(ClaimError),
    /// Nothing is known of the token: its keys cannot be had.
    KeysUnavailable,
}

impl Jwt {
    /// Reads keys, or begins to fetch them.
    ///
    /// # Errors
    /// What is wrong with the keys, with the name of the file or variable.
    pub fn open(settings: &Settings, background: &Background, clock: Arc<dyn Clock>) -> Result<Jwt, String> {
        let keys = match &settings.keys {
            JwtKeys::KeySetUrl(url) => {
                let keys = RemoteKeys::start(url, background.clone(), clock.clone());
                Keys::Fetched(keys.map_err(|error| error.to_string())?)
            }
            JwtKeys::SecretFile(file, encoding) => {
                let text = secret::from_file(file)?;
                fixed(secret_key(text.as_bytes(), *encoding), &file.display())?
            }
            JwtKeys::SecretVariable(name, encoding) => {
                let text = secret::from_variable(name)?;
                fixed(secret_key(text.as_bytes(), *encoding), &format_args!("environment variable {name}"))?
            }
            JwtKeys::PublicKeyFile(file) => fixed(KeySet::public_key(&read(file)?), &file.display())?,
            JwtKeys::KeySetFile(file) => fixed(KeySet::of_json(&read(file)?, Origin::File), &file.display())?,
        };
        if let Keys::Fixed(keys) = &keys
            && let Some(algorithm) = settings.algorithms.iter().find(|algorithm| !keys.serve(**algorithm))
        {
            let name = algorithm.name();
            return Err(format!("algorithms: there is no key that {name} can be checked by; leave it out"));
        }
        Ok(Jwt { checks: Arc::new(Checks { settings: settings.clone(), keys, clock }) })
    }
}

fn read(file: &std::path::Path) -> Result<Vec<u8>, String> {
    fs::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()))
}

fn fixed(keys: Result<KeySet, KeyError>, place: &dyn fmt::Display) -> Result<Keys, String> {
    keys.map(Keys::Fixed).map_err(|error| format!("{place}: {error}"))
}

fn secret_key(text: &[u8], encoding: SecretEncoding) -> Result<KeySet, KeyError> {
    match encoding {
        SecretEncoding::Text => KeySet::secret(text),
        SecretEncoding::Base64 => {
            let stripped = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
            let secret = BASE64_STANDARD.decode(text).or_else(|_| BASE64_URL_SAFE_NO_PAD.decode(stripped));
            KeySet::secret(&secret.map_err(|_| KeyError::NotBase64)?)
        }
    }
}

impl Checks {
    /// The token that a client shows in CONNECT.
    fn find<'a>(&self, credentials: &Credentials<'a>) -> Option<Token<'a>> {
        self.settings.token_places.iter().find_map(|place| {
            let text = match place {
                TokenPlace::Password => credentials.password?,
                TokenPlace::UserName => credentials.user_name?.as_bytes(),
                TokenPlace::AuthenticationData => return None,
            };
            Token::recognize(text)
        })
    }

    async fn decide(&self, token: Token<'_>, client_id: &str) -> Verdict {
        let header = token.header();
        let result = match &header {
            Ok(header) => self.check(token, header, client_id).await,
            Err(malformed) => Err(Refusal::Malformed(malformed.clone())),
        };
        let refusal = match result {
            Ok(principal) => return Verdict::Accepted(principal),
            Err(refusal) => refusal,
        };
        let is_passed = refusal == Refusal::Claims(ClaimError::ForeignIssuer)
            && self.settings.foreign_issuer == ForeignIssuer::Pass;
        if is_passed {
            return Verdict::Passed;
        }
        let key_id = header.ok().and_then(|header| header.key_id);
        let code = match refusal {
            Refusal::KeysUnavailable => ReasonCode::ServerUnavailable,
            _ => ReasonCode::BadUserNameOrPassword,
        };
        Verdict::Refused(Denial { code, why: explain(&refusal, token, key_id.as_deref()) })
    }

    async fn check(&self, token: Token<'_>, header: &Header, client_id: &str) -> Result<Principal, Refusal> {
        if token.len() > self.settings.token_bytes_max {
            return Err(Refusal::TooLong(token.len()));
        }
        let algorithm = header.algorithm.parse().ok();
        let allowed = algorithm.filter(|algorithm| self.settings.algorithms.contains(algorithm));
        let algorithm: Algorithm = allowed.ok_or_else(|| Refusal::Algorithm(header.algorithm.clone()))?;
        let claims = token.claims().map_err(Refusal::Malformed)?;
        // Before the signature: the keys of another issuer are elsewhere, and nothing is granted here.
        if claims::is_foreign(&claims, &self.settings) {
            return Err(Refusal::Claims(ClaimError::ForeignIssuer));
        }
        match self.verify(token, algorithm, header.key_id.as_deref()).await? {
            Verification::Holds => {}
            Verification::Broken => return Err(Refusal::Signature),
            Verification::UnknownKey => return Err(Refusal::UnknownKey),
        }
        claims::principal(&claims, &self.settings, client_id, self.clock.unix_secs()).map_err(Refusal::Claims)
    }

    async fn verify(
        &self,
        token: Token<'_>,
        algorithm: Algorithm,
        key_id: Option<&str>,
    ) -> Result<Verification, Refusal> {
        let verify = |keys: &KeySet| keys.verify(token.signed, token.signature, algorithm, key_id);
        let remote = match &self.keys {
            Keys::Fixed(keys) => return Ok(verify(keys)),
            Keys::Fetched(remote) => remote,
        };
        let keys = remote.get(Need::Good).await.map_err(|_| Refusal::KeysUnavailable)?;
        match verify(&keys) {
            Verification::UnknownKey => {}
            verification => return Ok(verification),
        }
        let newer = remote.get(Need::Newer(&keys)).await.map_err(|_| Refusal::KeysUnavailable)?;
        Ok(verify(&newer))
    }
}

/// For the log: what is wrong, with what the token says of itself, which may be invented.
fn explain(refusal: &Refusal, token: Token<'_>, key_id: Option<&str>) -> String {
    let claims = token.claims().unwrap_or_default();
    let claim = |name: &str| claims.get(name).and_then(Value::as_str);
    let (issuer, subject) = (Shown(claim("iss")), Shown(claim("sub")));
    format!("token refused: {refusal} (iss {issuer}, sub {subject}, kid {})", Shown(key_id))
}

/// A text of a stranger, for the log: short, and without control characters.
struct Shown<'a>(Option<&'a str>);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const CHARS_MAX: usize = 64;
        let Some(text) = self.0 else { return f.write_str("none") };
        let cut = text.char_indices().nth(CHARS_MAX).map(|(at, _)| at);
        let more = if cut.is_some() { "…" } else { "" };
        write!(f, "\"{}{more}\"", text[..cut.unwrap_or(text.len())].escape_debug())
    }
}

impl Backend for Jwt {
    fn check<'a>(&'a self, credentials: Credentials<'a>) -> BoxFuture<'a, Verdict> {
        match self.checks.find(&credentials) {
            Some(token) => Box::pin(self.checks.decide(token, credentials.client_id)),
            None => Box::pin(std::future::ready(Verdict::Passed)),
        }
    }

    fn begin(&self, method: &str, credentials: Credentials<'_>) -> Option<Box<dyn Exchange>> {
        let is_ours =
            method == METHOD && self.checks.settings.token_places.contains(&TokenPlace::AuthenticationData);
        is_ours.then(|| -> Box<dyn Exchange> {
            Box::new(TokenExchange { checks: self.checks.clone(), client_id: credentials.client_id.into() })
        })
    }
}

/// The whole conversation of the method `JWT`: the client sends a token, and has an answer.
struct TokenExchange {
    checks: Arc<Checks>,
    client_id: Box<str>,
}

impl Exchange for TokenExchange {
    fn step<'a>(&'a mut self, data: Option<&'a [u8]>) -> BoxFuture<'a, Step> {
        Box::pin(async move {
            let failure =
                |why: &str| Step::Failure(Denial { code: ReasonCode::NotAuthorized, why: why.into() });
            let Some(token) = data.and_then(Token::recognize) else {
                return failure("the authentication data is no token");
            };
            match self.checks.decide(token, &self.client_id).await {
                Verdict::Accepted(principal) => Step::Success(principal, None),
                Verdict::Refused(denial) => Step::Failure(denial),
                Verdict::Passed => failure("the token is of another issuer"),
            }
        })
    }
}

impl fmt::Debug for Checks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checks")
            .field("settings", &self.settings)
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::TooLong(bytes) => write!(f, "it has {bytes} bytes, more than token_bytes_max"),
            Refusal::Malformed(malformed) => malformed.fmt(f),
            Refusal::Algorithm(name) => {
                write!(f, "its algorithm {} is not one of `algorithms`", Shown(Some(name)))
            }
            Refusal::Signature => f.write_str("its signature is not by the key that it names"),
            Refusal::UnknownKey => f.write_str("it is signed by no key that is known"),
            Refusal::Claims(error) => error.fmt(f),
            Refusal::KeysUnavailable => f.write_str("its keys cannot be fetched"),
        }
    }
}
