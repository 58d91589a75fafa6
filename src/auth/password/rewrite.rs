//! Changing a password file: for the command line and for administration by HTTP.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    num::NonZeroU32,
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
    path::Path,
};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};

use super::{edit::Text, file, hash::PasswordHash};
use crate::auth::scram::ScramKeys;

/// What becomes of a file that does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    Make,
    Refuse,
}

/// Changes a file.
pub(crate) fn change(
    path: &Path,
    missing: Missing,
    edit: impl FnOnce(&mut Text) -> Result<(), String>,
) -> Result<(), String> {
    // The file that a link names is changed, not the link.
    let real = match (fs::canonicalize(path), missing) {
        (Ok(real), _) => Some(real),
        (Err(error), Missing::Make) if error.kind() == io::ErrorKind::NotFound => None,
        (Err(error), _) => return Err(error.to_string()),
    };
    let text = match &real {
        Some(real) => file::read(real).map_err(|error| error.why)?,
        None => String::new(),
    };
    let mut text = Text::new(text);
    edit(&mut text)?;
    replace(real.as_deref().unwrap_or(path), text.as_str()).map_err(|error| error.to_string())
}

/// The line of a user with a new password, and with keys for SCRAM if it is said how many rounds they take.
pub(crate) fn new_line(
    text: &mut Text,
    user: &str,
    password: &str,
    scram_iterations: Option<NonZeroU32>,
) -> Result<String, String> {
    let hash = PasswordHash::create(password.as_bytes())?;
    let Some(iterations) = scram_iterations else { return Ok(file::line(user, &hash, None)) };
    let keys = ScramKeys::create(password, iterations)?;
    let mut secret = [0; 32];
    SystemRandom::new().fill(&mut secret).map_err(|_| "the system gives no random numbers")?;
    text.add_salt_secret(&secret);
    Ok(file::line(user, &hash, Some(&keys)))
}

/// Writes a file so that there is the old one or the new one whatever happens. The new one has the mode and the
/// owner of the old one: the broker may be another user than who changes passwords.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let name = path.file_name().ok_or_else(|| io::Error::other("it is no file"))?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut temporary = name.to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = directory.join(temporary);
    let written = write_beside(path, &temporary, text).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // What is wrong is told already.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    File::open(directory)?.sync_all()
}

fn write_beside(path: &Path, temporary: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(temporary)?;
    file.write_all(text.as_bytes())?;
    match fs::metadata(path) {
        Ok(old) => {
            let new = file.metadata()?;
            if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
                fchown(&file, Some(old.uid()), Some(old.gid()))?;
            }
            file.set_permissions(fs::Permissions::from_mode(old.mode() & 0o777))?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    file.sync_all()
}
