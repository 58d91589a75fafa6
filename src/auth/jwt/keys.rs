//! Keys that signatures are checked by: from a secret, a PEM file or a JSON Web Key Set.
//!
//! A key knows which algorithms it is for. The algorithm of a token has to be one that the configuration
//! allows and one that the key is for, so that a public key is never taken for a secret.

use std::fmt;

use jsonwebtoken::{
    DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse},
};
use serde_json::Value;

use crate::config::auth::jwt::Algorithm;

/// Keys in one set. More are refused: an issuer has two or three.
const KEYS_MAX: usize = 64;

/// Keys that are tried for a token that does not name its own. Each costs a verification.
const TRIED_KEYS_MAX: usize = 4;

/// The shortest secret in bytes. RFC 7518, 3.2: as long as the hash at least; the shortest hash has 32.
const SECRET_BYTES_MIN: usize = 32;

/// The longest name of a key in bytes.
const KEY_ID_BYTES_MAX: usize = 1024;

/// One key.
#[derive(Clone)]
struct Key {
    id: Option<Box<str>>,
    purpose: Purpose,
    key: DecodingKey,
}

/// Which algorithms a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Family(Family),
    /// The key itself says so.
    Only(Algorithm),
}

/// Algorithms that share a kind of key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Secret,
    Rsa,
    P256,
    P384,
    Ed25519,
}

/// Keys, one of which may have signed a token.
#[derive(Clone, Default)]
pub struct KeySet {
    keys: Vec<Key>,
}

/// Where a key set comes from, which decides what may be in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A file of this machine.
    File,
    /// The network, where whoever sees the set would have its secrets too.
    Network,
}

/// What a set says to a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verification {
    /// It is by one of the keys.
    Holds,
    /// It is not by the key that the token names.
    Broken,
    /// The key that the token names is not there, or none fits.
    UnknownKey,
}

/// Why there are no keys.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyError {
    /// The secret is too short: this many bytes.
    ShortSecret(usize),
    /// The secret should be in base64 and is not.
    NotBase64,
    /// No PEM with a public key of a kind that tokens are signed by.
    NotPublicKey,
    /// A private key, which does not belong on this machine.
    PrivateKey,
    /// No key set.
    NotKeySet(&'static str),
    /// A set without a key that can be used, with what is wrong with the first that cannot.
    NoUsableKey(Option<&'static str>),
    /// This many keys.
    TooMany(usize),
}

impl Algorithm {
    fn family(self) -> Family {
        match self {
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => Family::Secret,
            Algorithm::RS256
            | Algorithm::RS384
            | Algorithm::RS512
            | Algorithm::PS256
            | Algorithm::PS384
            | Algorithm::PS512 => Family::Rsa,
            Algorithm::ES256 => Family::P256,
            Algorithm::ES384 => Family::P384,
            Algorithm::EdDSA => Family::Ed25519,
        }
    }

    fn of_library(self) -> jsonwebtoken::Algorithm {
        match self {
            Algorithm::HS256 => jsonwebtoken::Algorithm::HS256,
            Algorithm::HS384 => jsonwebtoken::Algorithm::HS384,
            Algorithm::HS512 => jsonwebtoken::Algorithm::HS512,
            Algorithm::RS256 => jsonwebtoken::Algorithm::RS256,
            Algorithm::RS384 => jsonwebtoken::Algorithm::RS384,
            Algorithm::RS512 => jsonwebtoken::Algorithm::RS512,
            Algorithm::PS256 => jsonwebtoken::Algorithm::PS256,
            Algorithm::PS384 => jsonwebtoken::Algorithm::PS384,
            Algorithm::PS512 => jsonwebtoken::Algorithm::PS512,
            Algorithm::ES256 => jsonwebtoken::Algorithm::ES256,
            Algorithm::ES384 => jsonwebtoken::Algorithm::ES384,
            Algorithm::EdDSA => jsonwebtoken::Algorithm::EdDSA,
        }
    }
}

impl Key {
    fn is_for(&self, algorithm: Algorithm) -> bool {
        match self.purpose {
            Purpose::Family(family) => family == algorithm.family(),
            Purpose::Only(only) => only == algorithm,
        }
    }

    fn verifies(&self, signed: &str, signature: &str, algorithm: Algorithm) -> bool {
        let verified =
            jsonwebtoken::crypto::verify(signature, signed.as_bytes(), &self.key, algorithm.of_library());
        verified == Ok(true)
    }
}

impl KeySet {
    /// A secret that the issuer has too.
    ///
    /// # Errors
    /// [`KeyError::ShortSecret`].
    pub fn secret(secret: &[u8]) -> Result<KeySet, KeyError> {
        if secret.len() < SECRET_BYTES_MIN {
            return Err(KeyError::ShortSecret(secret.len()));
        }
        let purpose = Purpose::Family(Family::Secret);
        Ok(KeySet { keys: vec![Key { id: None, purpose, key: DecodingKey::from_secret(secret) }] })
    }

    /// The public key of the issuer, as PEM.
    ///
    /// # Errors
    /// It is none, or a private one.
    pub fn public_key(pem: &[u8]) -> Result<KeySet, KeyError> {
        if pem.windows(PRIVATE.len()).any(|window| window == PRIVATE) {
            return Err(KeyError::PrivateKey);
        }
        let (family, key) = rsa(pem).or_else(|| ec(pem)).or_else(|| ed(pem)).ok_or(KeyError::NotPublicKey)?;
        Ok(KeySet { keys: vec![Key { id: None, purpose: Purpose::Family(family), key }] })
    }

    /// A JSON Web Key Set, RFC 7517. Keys that are for something else are left out.
    ///
    /// # Errors
    /// It is none, or none of its keys can be used.
    pub fn of_json(json: &[u8], origin: Origin) -> Result<KeySet, KeyError> {
        let set: Value = serde_json::from_slice(json).map_err(|_| KeyError::NotKeySet("it is no JSON"))?;
        let listed = set.get("keys").and_then(Value::as_array);
        let listed = listed.ok_or(KeyError::NotKeySet("it has no list \"keys\""))?;
        if listed.len() > KEYS_MAX {
            return Err(KeyError::TooMany(listed.len()));
        }
        let mut keys = Vec::new();
        let mut unusable = None;
        for value in listed {
            match key(value, origin) {
                Ok(key) => keys.push(key),
                Err(why) => unusable = unusable.or(Some(why)),
            }
        }
        if keys.is_empty() { Err(KeyError::NoUsableKey(unusable)) } else { Ok(KeySet { keys }) }
    }

    /// Checks a signature. A key that stands alone without a name is taken whatever name the token has for it.
    pub(super) fn verify(
        &self,
        signed: &str,
        signature: &str,
        algorithm: Algorithm,
        key_id: Option<&str>,
    ) -> Verification {
        let named = |key: &&Key| match (key_id, key.id.as_deref()) {
            (Some(wanted), Some(id)) => wanted == id,
            (Some(_), None) => self.keys.len() == 1,
            (None, _) => true,
        };
        let mut verification = Verification::UnknownKey;
        let fitting = self.keys.iter().filter(|key| key.is_for(algorithm)).filter(named);
        for key in fitting.take(TRIED_KEYS_MAX) {
            if key.verifies(signed, signature, algorithm) {
                return Verification::Holds;
            }
            // Without a name it may be by a key that is not in the set yet.
            if key_id.is_some() {
                verification = Verification::Broken;
            }
        }
        verification
    }

    /// Whether one of the keys is for this algorithm.
    pub(super) fn serve(&self, algorithm: Algorithm) -> bool {
        self.keys.iter().any(|key| key.is_for(algorithm))
    }

    /// How many keys there are.
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }
}

const PRIVATE: &[u8] = b"PRIVATE KEY-----";

fn rsa(pem: &[u8]) -> Option<(Family, DecodingKey)> {
    Some((Family::Rsa, DecodingKey::from_rsa_pem(pem).ok()?))
}

fn ec(pem: &[u8]) -> Option<(Family, DecodingKey)> {
    let key = DecodingKey::from_ec_pem(pem).ok()?;
    // An uncompressed point: one byte and two coordinates.
    let family = match key.try_get_as_bytes().ok()?.len() {
        65 => Family::P256,
        97 => Family::P384,
        _ => return None,
    };
    Some((family, key))
}

fn ed(pem: &[u8]) -> Option<(Family, DecodingKey)> {
    Some((Family::Ed25519, DecodingKey::from_ed_pem(pem).ok()?))
}

/// One key of a set, or why it is not used.
fn key(value: &Value, origin: Origin) -> Result<Key, &'static str> {
    let jwk: Jwk = serde_json::from_value(value.clone()).map_err(|_| "it is not as RFC 7517 has it")?;
    let family = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Family::Rsa,
        AlgorithmParameters::EllipticCurve(parameters) => match parameters.curve {
            EllipticCurve::P256 => Family::P256,
            EllipticCurve::P384 => Family::P384,
            _ => return Err("its curve is not supported"),
        },
        AlgorithmParameters::OctetKeyPair(parameters) => match parameters.curve {
            EllipticCurve::Ed25519 => Family::Ed25519,
            _ => return Err("its curve is not supported"),
        },
        AlgorithmParameters::OctetKey(_) => match origin {
            Origin::File => Family::Secret,
            Origin::Network => return Err("it is a secret, which nobody may publish"),
        },
        _ => return Err("its kind is not supported"),
    };
    if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
        return Err("it is not for signatures");
    }
    let operations = jwk.common.key_operations.as_ref();
    if operations.is_some_and(|operations| !operations.contains(&KeyOperations::Verify)) {
        return Err("it is not for verifying signatures");
    }
    let purpose = match value.get("alg") {
        None => Purpose::Family(family),
        Some(name) => {
            let algorithm = name.as_str().and_then(|name| name.parse::<Algorithm>().ok());
            match algorithm.filter(|algorithm| algorithm.family() == family) {
                Some(algorithm) => Purpose::Only(algorithm),
                None => return Err("its \"alg\" is not supported, or not for a key of its kind"),
            }
        }
    };
    let id = jwk.common.key_id.as_deref();
    if id.is_some_and(|id| id.len() > KEY_ID_BYTES_MAX) {
        return Err("its \"kid\" is too long");
    }
    let key = DecodingKey::from_jwk(&jwk).map_err(|_| "its numbers are not in base64url")?;
    if family == Family::Secret && key.try_get_as_bytes().is_ok_and(|secret| secret.len() < SECRET_BYTES_MIN)
    {
        return Err("its secret is too short");
    }
    Ok(Key { id: id.map(Box::from), purpose, key })
}

/// Without the keys, which may be secrets.
impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeySet({} keys)", self.keys.len())
    }
}

impl std::error::Error for KeyError {}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyError::ShortSecret(bytes) => write!(
                f,
                "the secret has {bytes} bytes and needs {SECRET_BYTES_MIN}; make one with: openssl rand -base64 48"
            ),
            KeyError::NotBase64 => {
                f.write_str("the secret is not in base64; mend it, or set secret_encoding = \"text\"")
            }
            KeyError::NotPublicKey => {
                f.write_str("it is no PEM public key for RSA, ECDSA with P-256 or P-384, or Ed25519")
            }
            KeyError::PrivateKey => f.write_str(
                "it holds a private key, which only the issuer should have; \
                 take its public half with: openssl pkey -pubout",
            ),
            KeyError::NotKeySet(why) => write!(f, "it is no JSON Web Key Set: {why}"),
            KeyError::NoUsableKey(None) => f.write_str("the key set is empty"),
            KeyError::NoUsableKey(Some(why)) => {
                write!(f, "no key of the set can be used; of the first: {why}")
            }
            KeyError::TooMany(keys) => write!(f, "the key set has {keys} keys; at most {KEYS_MAX}"),
        }
    }
}
