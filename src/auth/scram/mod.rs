//! SCRAM-SHA-256 (RFC 5802, RFC 7677) without channel binding: both sides prove that they know the password,
//! and neither the wire nor the file has it.

mod exchange;
mod message;

use std::{fmt, num::NonZeroU32};

use aws_lc_rs::{
    constant_time::verify_slices_are_equal,
    digest, hmac, pbkdf2,
    rand::{SecureRandom, SystemRandom},
};
use base64::{Engine, engine::general_purpose::STANDARD};

pub(super) use exchange::{Known, ScramExchange, random_nonce};

/// The authentication method.
pub(super) const METHOD: &str = "SCRAM-SHA-256";

/// The fewest iterations, as RFC 7677 wants them.
pub const ITERATIONS_MIN: u32 = 4096;

/// The most: a client makes them.
pub const ITERATIONS_MAX: u32 = 10_000_000;

/// Bytes of a new salt.
const SALT_BYTES: usize = 16;
const SALT_BYTES_MAX: usize = 256;

/// Begins the keys in a password file.
const MARK: &str = "$scram-sha-256$";

/// A SHA-256, or an HMAC with it.
type Digest = [u8; 32];

/// What a server needs to know of a password: `$scram-sha-256$iterations$salt$stored$server`, base64. Who reads
/// it cannot log in by it, but can try passwords.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramKeys {
    iterations: NonZeroU32,
    salt: Vec<u8>,
    /// SHA-256 of the client's key, by which its proof is checked.
    stored: Digest,
    /// What the server proves itself with.
    server: Digest,
}

/// Shows the cost alone.
impl fmt::Debug for ScramKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ScramKeys({})", self.iterations)
    }
}

impl fmt::Display for ScramKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [salt, stored, server] =
            [&*self.salt, &self.stored, &self.server].map(|bytes| STANDARD.encode(bytes));
        write!(f, "{MARK}{}${salt}${stored}${server}", self.iterations)
    }
}

impl ScramKeys {
    /// Makes the keys of a password with a new salt.
    ///
    /// # Errors
    /// Why not: the password has characters that are forbidden, or the system gives no random numbers.
    pub fn create(password: &str, iterations: NonZeroU32) -> Result<ScramKeys, &'static str> {
        let mut salt = vec![0; SALT_BYTES];
        SystemRandom::new().fill(&mut salt).map_err(|_| "the system gives no random numbers")?;
        let password =
            prepare(password).ok_or("the password has characters that SCRAM forbids (SASLprep)")?;
        Ok(ScramKeys::derive(password.as_bytes(), salt, iterations))
    }

    fn derive(password: &[u8], salt: Vec<u8>, iterations: NonZeroU32) -> ScramKeys {
        let mut salted = Digest::default();
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, &salt, password, &mut salted);
        let stored = sha256(&mac(&salted, b"Client Key"));
        ScramKeys { iterations, salt, stored, server: mac(&salted, b"Server Key") }
    }

    /// Whether a field of a password file is meant as such keys.
    pub(super) fn is_written(field: &str) -> bool {
        field.starts_with(MARK)
    }

    /// Reads keys.
    ///
    /// # Errors
    /// What is wrong with them, without any of them.
    pub fn parse(field: &str) -> Result<ScramKeys, &'static str> {
        const FORM: &str = "keys of SCRAM are not of the form $scram-sha-256$iterations$salt$stored$server";
        let mut parts = field.strip_prefix(MARK).ok_or(FORM)?.split('$');
        let [iterations, salt, stored, server] = std::array::from_fn(|_| parts.next().unwrap_or_default());
        if parts.next().is_some() {
            return Err(FORM);
        }
        let iterations: NonZeroU32 = iterations.parse().map_err(|_| FORM)?;
        if !(ITERATIONS_MIN..=ITERATIONS_MAX).contains(&iterations.get()) {
            return Err("the iterations of SCRAM are out of range; allowed: 4096 to 10000000");
        }
        let salt = STANDARD.decode(salt).map_err(|_| FORM)?;
        if salt.is_empty() || salt.len() > SALT_BYTES_MAX {
            return Err("the salt of SCRAM has no bytes, or more than 256");
        }
        let key = |text: &str| STANDARD.decode(text).ok()?.try_into().ok();
        Ok(ScramKeys { iterations, salt, stored: key(stored).ok_or(FORM)?, server: key(server).ok_or(FORM)? })
    }

    /// Whether this is the password.
    #[must_use]
    pub fn match_password(&self, password: &[u8]) -> bool {
        let Some(password) = std::str::from_utf8(password).ok().and_then(prepare) else { return false };
        let derived = ScramKeys::derive(password.as_bytes(), self.salt.clone(), self.iterations);
        verify_slices_are_equal(&derived.stored, &self.stored).is_ok()
    }

    /// Keys that no password has, for a user that does not exist: what a client sees of them depends on the
    /// seed alone, and looks as if it came from `like`.
    pub(super) fn of_nobody(seed: &[u8; 32], like: &ScramKeys) -> ScramKeys {
        let mut salt = Vec::new();
        for block in 0_u32.. {
            if salt.len() >= like.salt.len() {
                break;
            }
            salt.extend(mac(seed, &block.to_be_bytes()));
        }
        salt.truncate(like.salt.len());
        ScramKeys {
            iterations: like.iterations,
            salt,
            stored: mac(seed, b"stored"),
            server: mac(seed, b"server"),
        }
    }
}

/// Whether a user name is in the form in which they are compared.
pub(crate) fn is_prepared(name: &str) -> bool {
    prepare(name).is_some_and(|prepared| prepared == name)
}

/// The seed for a user that does not exist.
pub(super) fn seed(secret: &[u8], user: &str) -> [u8; 32] {
    mac(secret, user.as_bytes())
}

/// A user name or password in the form in which they are compared; `None` if it has none.
pub(super) fn prepare(text: &str) -> Option<String> {
    stringprep::saslprep(text).ok().map(Into::into)
}

fn mac(key: &[u8], text: &[u8]) -> Digest {
    let mut bytes = Digest::default();
    bytes.copy_from_slice(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text).as_ref());
    bytes
}

fn sha256(text: &[u8]) -> Digest {
    let mut bytes = Digest::default();
    bytes.copy_from_slice(digest::digest(&digest::SHA256, text).as_ref());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_are_made_are_read_back_and_know_their_password_alone() {
        let keys = ScramKeys::create("I\u{ad}X", NonZeroU32::new(ITERATIONS_MIN).unwrap()).unwrap();
        // A soft hyphen is nothing to SASLprep.
        assert!(keys.match_password(b"IX") && !keys.match_password(b"ix") && !keys.match_password(b"\xff"));
        assert!(ScramKeys::parse(&keys.to_string()).unwrap() == keys);
        assert_eq!(format!("{keys:?}"), "ScramKeys(4096)");
    }

    #[test]
    fn nobody_has_the_same_salt_each_time_and_another_than_others() {
        let like = ScramKeys::derive(b"x", vec![0; 40], NonZeroU32::new(5000).unwrap());
        let keys = ScramKeys::of_nobody(&[1; 32], &like);
        assert_eq!((keys.salt.len(), keys.iterations), (40, like.iterations));
        assert!(keys == ScramKeys::of_nobody(&[1; 32], &like) && keys.salt != like.salt);
        assert!(keys.salt != ScramKeys::of_nobody(&[2; 32], &like).salt);
    }

    #[test]
    fn broken_keys_are_refused() {
        let good = ScramKeys::derive(b"x", vec![0; 16], NonZeroU32::new(4096).unwrap()).to_string();
        assert!(ScramKeys::parse(&good).is_ok());
        for text in [
            good.replace("4096", "4095"),
            good.replace("4096", "0"),
            good.replace("4096", "99999999"),
            good.replace("4096", "x"),
            format!("{good}$"),
            good[..good.len() - 4].to_owned(),
            MARK.to_owned(),
        ] {
            assert!(ScramKeys::parse(&text).is_err(), "{text}");
        }
    }
}
