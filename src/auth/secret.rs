//! Secrets that back ends need, from where the configuration says they are.

use std::{env, fmt, fs, path::Path};

/// The largest file with a secret in bytes.
const SECRET_BYTES_MAX: u64 = 64 << 10;

/// A secret. It is in no log and no Debug output.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The secret itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The secret itself.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// Reads a secret. A newline at the end of the file is not part of it.
///
/// # Errors
/// What is wrong with the file.
pub fn from_file(file: &Path) -> Result<Secret, String> {
    let shown = file.display();
    let unreadable = |error: std::io::Error| format!("cannot read {shown}: {error}");
    if fs::metadata(file).map_err(unreadable)?.len() > SECRET_BYTES_MAX {
        return Err(format!("{shown} is larger than {SECRET_BYTES_MAX} bytes, which no secret is"));
    }
    let mut text = String::from_utf8(fs::read(file).map_err(unreadable)?)
        .map_err(|_| format!("{shown} is no text; write the secret in base64"))?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    if text.is_empty() { Err(format!("{shown} is empty")) } else { Ok(Secret(text)) }
}

/// Takes a secret from the environment.
///
/// # Errors
/// The variable is not set, or is no text.
pub fn from_variable(name: &str) -> Result<Secret, String> {
    match env::var(name) {
        Ok(text) if !text.is_empty() => Ok(Secret(text)),
        Ok(_) | Err(env::VarError::NotPresent) => Err(format!("environment variable {name} is not set")),
        Err(env::VarError::NotUnicode(_)) => Err(format!("environment variable {name} is no text")),
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}
