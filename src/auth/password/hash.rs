//! Hashes of passwords: how they are written, made and checked.

use std::{fmt, num::NonZeroU32};

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::{
    constant_time::verify_slices_are_equal,
    digest, pbkdf2,
    rand::{SecureRandom, SystemRandom},
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD},
};

/// The hash of a password with its salt and its cost.
#[derive(Clone, PartialEq, Eq)]
pub enum PasswordHash {
    /// `$argon2id$v=19$m=19456,t=2,p=1$salt$hash`, what new passwords get.
    Argon2id {
        /// Memory, passes and lanes.
        params: Params,
        /// The salt.
        salt: Vec<u8>,
        /// The hash.
        hash: Vec<u8>,
    },
    /// `$7$iterations$salt$hash` of mosquitto: PBKDF2 with HMAC-SHA-512.
    Pbkdf2Sha512 {
        /// Its cost.
        iterations: NonZeroU32,
        /// The salt.
        salt: Vec<u8>,
        /// The hash.
        hash: Vec<u8>,
    },
    /// `$6$salt$hash` of mosquitto: SHA-512 of password and salt, which is quick to guess.
    Sha512 {
        /// The salt.
        salt: Vec<u8>,
        /// The hash.
        hash: Vec<u8>,
    },
}

/// Shows the kind alone.
impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())
    }
}

/// Memory that one check may take in KiB: 1 GiB.
const MEMORY_KIB_MAX: u32 = 1 << 20;
const PASSES_MAX: u32 = 1000;
const LANES_MAX: u32 = 64;
const ITERATIONS_MAX: u32 = 10_000_000;
/// Bytes of a salt.
const SALT_BYTES: usize = 16;
const SALT_BYTES_MIN: usize = 8;
const SALT_BYTES_MAX: usize = 256;
/// Bytes of a hash of argon2id.
const HASH_BYTES: usize = 32;
const SHA512_BYTES: usize = 64;

impl PasswordHash {
    /// Makes the hash of a password with the cost that is good for new ones: 19 MiB, two passes.
    ///
    /// # Errors
    /// Why not; the system gives no random numbers or no memory.
    pub fn create(password: &[u8]) -> Result<PasswordHash, &'static str> {
        let mut salt = vec![0; SALT_BYTES];
        SystemRandom::new().fill(&mut salt).map_err(|_| "the system gives no random numbers")?;
        let mut hash = vec![0; HASH_BYTES];
        let params = Params::DEFAULT;
        argon2id(&params, password, &salt, &mut hash).map_err(|_| "the system gives no memory")?;
        Ok(PasswordHash::Argon2id { params, salt, hash })
    }

    /// The kind in words.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            PasswordHash::Argon2id { .. } => "argon2id",
            PasswordHash::Pbkdf2Sha512 { .. } => "pbkdf2-sha512",
            PasswordHash::Sha512 { .. } => "sha512",
        }
    }

    /// Reads a hash.
    ///
    /// # Errors
    /// What is wrong with it, without any of it.
    pub fn parse(text: &str) -> Result<PasswordHash, &'static str> {
        let mut parts = text.split('$');
        if parts.next() != Some("") {
            return Err("the hash does not begin with $; plain passwords are not taken");
        }
        let kind = parts.next().unwrap_or_default();
        let parts: Vec<&str> = parts.collect();
        match (kind, parts.as_slice()) {
            ("argon2id", ["v=19", params, salt, hash]) => parse_argon2id(params, salt, hash),
            ("argon2id", _) => Err("the hash is not of the form $argon2id$v=19$m=…,t=…,p=…$salt$hash"),
            ("7", [iterations, salt, hash]) => {
                let iterations: NonZeroU32 =
                    iterations.parse().map_err(|_| "the iterations of $7$ are no number above 0")?;
                if iterations.get() > ITERATIONS_MAX {
                    return Err("the iterations of $7$ are more than 10000000");
                }
                let (salt, hash) = (parse_salt(&STANDARD, salt)?, parse_sha512(hash)?);
                Ok(PasswordHash::Pbkdf2Sha512 { iterations, salt, hash })
            }
            ("6", [salt, hash]) => {
                Ok(PasswordHash::Sha512 { salt: parse_salt(&STANDARD, salt)?, hash: parse_sha512(hash)? })
            }
            ("7" | "6", _) => {
                Err("the hash is not of the form $7$iterations$salt$hash or $6$salt$hash of mosquitto")
            }
            _ => Err("the kind of hash is unknown; known are $argon2id$, $7$ and $6$"),
        }
    }

    /// Whether this is the password. It takes as long for a wrong one.
    #[must_use]
    pub fn matches(&self, password: &[u8]) -> bool {
        match self {
            PasswordHash::Argon2id { params, salt, hash } => {
                let mut found = vec![0; hash.len()];
                argon2id(params, password, salt, &mut found).is_ok()
                    && verify_slices_are_equal(&found, hash).is_ok()
            }
            PasswordHash::Pbkdf2Sha512 { iterations, salt, hash } => {
                pbkdf2::verify(pbkdf2::PBKDF2_HMAC_SHA512, *iterations, salt, password, hash).is_ok()
            }
            PasswordHash::Sha512 { salt, hash } => {
                let mut context = digest::Context::new(&digest::SHA512);
                context.update(password);
                context.update(salt);
                verify_slices_are_equal(context.finish().as_ref(), hash).is_ok()
            }
        }
    }
}

/// As it is written in a file.
impl fmt::Display for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PasswordHash::Argon2id { params, salt, hash } => {
                let (memory, passes, lanes) = (params.m_cost(), params.t_cost(), params.p_cost());
                let (salt, hash) = (STANDARD_NO_PAD.encode(salt), STANDARD_NO_PAD.encode(hash));
                write!(f, "$argon2id$v=19$m={memory},t={passes},p={lanes}${salt}${hash}")
            }
            PasswordHash::Pbkdf2Sha512 { iterations, salt, hash } => {
                write!(f, "$7${iterations}${}${}", STANDARD.encode(salt), STANDARD.encode(hash))
            }
            PasswordHash::Sha512 { salt, hash } => {
                write!(f, "$6${}${}", STANDARD.encode(salt), STANDARD.encode(hash))
            }
        }
    }
}

fn argon2id(params: &Params, password: &[u8], salt: &[u8], out: &mut [u8]) -> argon2::Result<()> {
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone()).hash_password_into(password, salt, out)
}

fn parse_argon2id(params: &str, salt: &str, hash: &str) -> Result<PasswordHash, &'static str> {
    const FORM: &str = "the cost of $argon2id$ is not of the form m=19456,t=2,p=1";
    const TOO_MUCH: &str =
        "the cost of $argon2id$ is out of range; allowed: m up to 1048576, t to 1000, p to 64";
    let mut numbers = [0; 3];
    let mut parts = params.split(',');
    for (number, name) in numbers.iter_mut().zip(["m=", "t=", "p="]) {
        let text = parts.next().and_then(|part| part.strip_prefix(name)).ok_or(FORM)?;
        *number = text.parse().map_err(|_| FORM)?;
    }
    let [memory, passes, lanes] = numbers;
    if parts.next().is_some() {
        return Err(FORM);
    }
    if memory > MEMORY_KIB_MAX || passes > PASSES_MAX || lanes > LANES_MAX {
        return Err(TOO_MUCH);
    }
    let params = Params::new(memory, passes, lanes, None).map_err(|_| TOO_MUCH)?;
    let salt = parse_salt(&STANDARD_NO_PAD, salt)?;
    let hash = STANDARD_NO_PAD.decode(hash).map_err(|_| "the hash is not base64 without padding")?;
    if !(HASH_BYTES / 2..=SHA512_BYTES).contains(&hash.len()) {
        return Err("the hash has less than 16 or more than 64 bytes");
    }
    Ok(PasswordHash::Argon2id { params, salt, hash })
}

fn parse_salt(engine: &impl Engine, text: &str) -> Result<Vec<u8>, &'static str> {
    let salt = engine.decode(text).map_err(|_| "the salt is not base64")?;
    if !(SALT_BYTES_MIN..=SALT_BYTES_MAX).contains(&salt.len()) {
        return Err("the salt has less than 8 or more than 256 bytes");
    }
    Ok(salt)
}

fn parse_sha512(text: &str) -> Result<Vec<u8>, &'static str> {
    let hash = STANDARD.decode(text).map_err(|_| "the hash is not base64")?;
    if hash.len() != SHA512_BYTES {
        return Err("the hash does not have 64 bytes");
    }
    Ok(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_that_is_made_is_read_back_and_knows_its_password_alone() {
        let hash = PasswordHash::create("grün".as_bytes()).unwrap();
        assert!(hash.matches("grün".as_bytes()));
        assert!(!hash.matches(b"") && !hash.matches("grün ".as_bytes()));
        let read = PasswordHash::parse(&hash.to_string()).unwrap();
        assert!(read == hash);
        assert_eq!(format!("{hash:?}"), "argon2id");
        assert!(PasswordHash::create(b"x").unwrap() != PasswordHash::create(b"x").unwrap());
    }

    /// From the reference implementation: `argon2 -id -t 2 -m 16 -p 1`, salt "somesalt".
    #[test]
    fn argon2id_is_that_of_the_reference() {
        let text = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        let hash = PasswordHash::parse(text).unwrap();
        assert!(hash.matches(b"password") && !hash.matches(b"differentpassword"));
        assert_eq!(hash.to_string(), text);
    }

    #[test]
    fn broken_hashes_are_refused() {
        let long = "A".repeat(64);
        for text in [
            "",
            "secret",
            "$",
            "$1$abc$def",
            "$6$c2FsdHNhbHQ=",
            "$6$c2FsdHNhbHQ=$c2hvcnQ=",
            "$6$c2FsdHNhbHQ=$!",
            "$7$0$c2FsdHNhbHQ=$",
            "$7$99999999999$c2FsdHNhbHQ=$",
            "$7$-1$c2FsdHNhbHQ=$",
            "$argon2i$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
            "$argon2id$v=16$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
            "$argon2id$v=19$m=4294967295,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
            "$argon2id$v=19$m=0,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
            "$argon2id$v=19$t=2,m=65536,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
            "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$",
            &format!("$7$101${long}$$"),
        ] {
            let error = PasswordHash::parse(text).unwrap_err();
            assert!(!error.contains("c29t") && !error.contains("c2Fs"), "{error}");
        }
    }
}
