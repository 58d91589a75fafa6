//! Password files: one user a line, `name:hash`, `name:hash:keys` or `name:keys`.

use std::{
    collections::HashMap,
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::STANDARD};

use super::hash::PasswordHash;
use crate::auth::scram::ScramKeys;

/// Bytes of a file at most: it is kept in memory.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// Bytes of a user name, as in MQTT.
const NAME_BYTES_MAX: usize = 65_535;

/// Begins the comment with the secret from which salts are made for users that do not exist.
const SECRET_MARK: &str = "# dunlin-salt-secret: ";

/// The users of one file.
#[derive(Debug, Default)]
pub struct Users {
    by_name: HashMap<Box<str>, Arc<User>>,
    /// In the order of the lines.
    all: Vec<Arc<User>>,
    /// The keys of SCRAM of those that have such.
    keys: Vec<ScramKeys>,
    salt_secret: Option<SaltSecret>,
}

/// What a file knows of a user.
#[derive(Debug)]
pub struct User {
    hash: Option<PasswordHash>,
    keys: Option<ScramKeys>,
    /// Changes with anything on the line.
    pub(super) line_digest: [u8; 32],
}

/// A secret of the file from which the salts of users are made that do not exist: they stay the same over
/// restarts, as those of users do that exist.
#[derive(Clone)]
pub struct SaltSecret(Vec<u8>);

impl fmt::Debug for SaltSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SaltSecret")
    }
}

/// Why a password file cannot be used.
#[derive(Debug)]
pub struct FileError {
    /// The file.
    pub file: PathBuf,
    /// The line that is wrong, counted from 1.
    pub line: Option<usize>,
    /// What is wrong, without any hash.
    pub why: String,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file.display(), self.why),
            None => write!(f, "{}: {}", self.file.display(), self.why),
        }
    }
}

impl std::error::Error for FileError {}

/// One line that is neither blank nor a comment.
pub(crate) struct Entry<'a> {
    pub(crate) name: &'a str,
    hash: Option<PasswordHash>,
    keys: Option<ScramKeys>,
}

impl<'a> Entry<'a> {
    /// Reads a line. `None` for one that says nothing of a user; an error says what is wrong.
    pub(crate) fn parse(line: &'a str) -> Result<Option<Entry<'a>>, &'static str> {
        let line = line.trim_end_matches('\r');
        if line.trim().is_empty() || line.starts_with('#') {
            return Ok(None);
        }
        let mut fields = line.split(':');
        let name = fields.next().unwrap_or_default();
        check_name(name)?;
        let mut entry = Entry { name, hash: None, keys: None };
        for field in fields {
            if ScramKeys::is_written(field) {
                let keys = ScramKeys::parse(field)?;
                if entry.keys.replace(keys).is_some() {
                    return Err("the line has keys of SCRAM twice");
                }
            } else {
                let hash = PasswordHash::parse(field)?;
                if entry.hash.replace(hash).is_some() {
                    return Err("the line has two password hashes");
                }
            }
        }
        match (&entry.hash, &entry.keys) {
            (None, None) => Err("the line has no hash; it is of the form user:hash"),
            _ => Ok(Some(entry)),
        }
    }
}

impl Entry<'_> {
    /// What is stored of the password, in words.
    pub(crate) fn kinds(&self) -> String {
        let hash = self.hash.as_ref().map(PasswordHash::kind);
        let keys = self.keys.as_ref().map(|_| "scram-sha-256");
        hash.into_iter().chain(keys).collect::<Vec<_>>().join(" ")
    }
}

/// Whether a user may have this name.
pub(crate) fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("the user name is empty");
    }
    if name.len() > NAME_BYTES_MAX {
        return Err("the user name has more than 65535 bytes");
    }
    if name.contains([':', '\n', '\r', '\0']) || name.starts_with('#') {
        return Err("a user name has no colon, begins with no #, and is on one line");
    }
    Ok(())
}

/// The line of a user.
pub(crate) fn line(name: &str, hash: &PasswordHash, keys: Option<&ScramKeys>) -> String {
    match keys {
        Some(keys) => format!("{name}:{hash}:{keys}"),
        None => format!("{name}:{hash}"),
    }
}

/// The comment with a new secret for salts.
pub(crate) fn salt_secret_line(secret: &[u8; 32]) -> String {
    format!("{SECRET_MARK}{}", STANDARD.encode(secret))
}

/// Whether a line is such a comment.
pub(crate) fn is_salt_secret(line: &str) -> bool {
    line.starts_with(SECRET_MARK)
}

/// Reads the text of a file.
pub(crate) fn read(path: &Path) -> Result<String, FileError> {
    let failed = |why: String| FileError { file: path.into(), line: None, why };
    let bytes = read_bytes(path).map_err(|error| failed(format!("cannot be read: {error}")))?;
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
        FileError { file: path.into(), line: Some(line), why: "the line is not UTF-8".into() }
    })
}

fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    if fs::metadata(path)?.len() > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("it is larger than {} MiB", FILE_BYTES_MAX >> 20)));
    }
    fs::read(path)
}

impl Users {
    /// Reads a file.
    ///
    /// # Errors
    /// [`FileError`], with the line that is wrong.
    pub fn load(path: &Path) -> Result<Users, FileError> {
        let text = read(path)?;
        Users::parse(&text).map_err(|(line, why)| FileError { file: path.into(), line: Some(line), why })
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// The number of the first line that is wrong, and what is wrong with it.
    pub fn parse(text: &str) -> Result<Users, (usize, String)> {
        let mut users = Users::default();
        for (index, line) in text.lines().enumerate() {
            let wrong = |why: &str| (index + 1, why.to_owned());
            if let Some(secret) = line.strip_prefix(SECRET_MARK) {
                let secret = STANDARD.decode(secret.trim()).ok().filter(|secret| secret.len() >= 16);
                let secret =
                    secret.ok_or_else(|| wrong("the secret for salts is not base64 of 16 bytes or more"))?;
                users.salt_secret = Some(SaltSecret(secret));
            }
            let Some(Entry { name, hash, keys }) = Entry::parse(line).map_err(wrong)? else { continue };
            let mut line_digest = [0; 32];
            line_digest.copy_from_slice(digest::digest(&digest::SHA256, line.as_bytes()).as_ref());
            users.keys.extend(keys.clone());
            let user = Arc::new(User { hash, keys, line_digest });
            if users.by_name.insert(name.into(), user.clone()).is_some() {
                return Err(wrong(&format!("user {name:?} is on an earlier line, too")));
            }
            users.all.push(user);
        }
        Ok(users)
    }

    /// The user of this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Arc<User>> {
        self.by_name.get(name)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Some user, always the same for the same number.
    pub(super) fn any(&self, number: u64) -> Option<&Arc<User>> {
        let count = self.all.len() as u64;
        (count > 0).then(|| &self.all[(number % count) as usize])
    }

    /// All keys of SCRAM.
    pub(super) fn with_keys(&self) -> &[ScramKeys] {
        &self.keys
    }

    pub(super) fn salt_secret(&self) -> Option<&[u8]> {
        self.salt_secret.as_ref().map(|secret| secret.0.as_slice())
    }
}

impl User {
    /// Whether this is the password.
    #[must_use]
    pub fn matches(&self, password: &[u8]) -> bool {
        match (&self.hash, &self.keys) {
            (Some(hash), _) => hash.matches(password),
            (None, Some(keys)) => keys.match_password(password),
            (None, None) => false,
        }
    }

    /// The keys of SCRAM.
    #[must_use]
    pub fn scram_keys(&self) -> Option<&ScramKeys> {
        self.keys.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str =
        "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";

    #[test]
    fn comments_and_blank_lines_say_nothing() {
        let users = Users::parse(&format!("# users\r\n\n  \nanna:{HASH}\r\n#bert:x\nemil:{HASH}")).unwrap();
        assert_eq!(users.len(), 2);
        assert!(users.find("anna").unwrap().matches(b"password"));
        assert!(users.find("#bert").is_none());
    }

    /// Files of mosquitto may be taken over as they are.
    #[test]
    fn hashes_of_mosquitto_are_known() {
        let users = Users::parse(include_str!("../../../tests/fixtures/mosquitto_passwords")).unwrap();
        for (name, password) in [("anna", "pass word"), ("bert", "grün:$"), ("emil", "secret")] {
            let user = users.find(name).unwrap();
            assert!(user.matches(password.as_bytes()), "{name}");
            assert!(!user.matches(b"wrong") && !user.matches(b""), "{name}");
        }
    }

    #[test]
    fn a_broken_line_is_named_without_what_is_on_it() {
        for (text, line, why) in [
            ("anna\n".to_owned(), 1, "the line has no hash"),
            (format!("# x\n\n:{HASH}"), 3, "the user name is empty"),
            (format!("anna:{HASH}\nbert:topsecret\n"), 2, "does not begin with $"),
            (format!("anna:{HASH}\nanna:{HASH}\n"), 2, "\"anna\" is on an earlier line"),
            (format!("anna:{HASH}:{HASH}\n"), 1, "two password hashes"),
            ("anna:$scram-sha-256$1\n".into(), 1, "SCRAM"),
            ("# dunlin-salt-secret: AA==\n".into(), 1, "the secret for salts"),
        ] {
            let (found_line, found) = Users::parse(&text).unwrap_err();
            assert!(found_line == line && found.contains(why), "{text}: {found_line}: {found}");
            assert!(!found.contains("topsecret") && !found.contains("c29t"), "{found}");
        }
    }
}
