//! Password files: users, the hashes of their passwords, and their keys for SCRAM.
//!
//! A user that does not exist costs the same check as one that does, and is refused in the same way.

mod checks;
pub(crate) mod edit;
pub mod file;
pub mod hash;
pub(crate) mod rewrite;
mod successes;

use std::{path::Path, sync::Arc};

use tracing::warn;

use super::{
    Backend, BoxFuture, Credentials, Denial, Exchange, Verdict,
    scram::{self, Known, ScramExchange, ScramKeys},
};
use crate::{acl::Principal, codec::ReasonCode};

use checks::Outcome;
pub(super) use checks::PasswordChecks;
use file::{FileError, User, Users};

/// The back end of one password file, as it was when it was read.
pub(super) struct PasswordFile {
    name: String,
    users: Arc<Users>,
    checks: Arc<PasswordChecks>,
}

impl PasswordFile {
    /// Reads the file.
    pub(super) fn open(
        name: &str,
        path: &Path,
        checks: Arc<PasswordChecks>,
    ) -> Result<PasswordFile, FileError> {
        warn_of_readers(path);
        Ok(PasswordFile { name: name.into(), users: Arc::new(Users::load(path)?), checks })
    }

    async fn decide(&self, name: &str, password: &[u8]) -> Verdict {
        let known = self.users.find(name);
        if let Some(user) = known
            && self.checks.is_known(name, user, password)
        {
            return Verdict::Accepted(Principal::named(name));
        }
        let Some(user) = known.or_else(|| self.stand_in(name)).cloned() else { return Verdict::Passed };
        let denial = |code, why: &str| {
            Verdict::Refused(Denial { code, why: format!("{why} (auth.backends.{})", self.name) })
        };
        match (self.checks.check(user.clone(), password).await, known) {
            (Outcome::Busy, _) => denial(ReasonCode::ServerBusy, "too many passwords wait to be checked"),
            (Outcome::Failed, _) => {
                denial(ReasonCode::ServerUnavailable, "the password could not be checked")
            }
            (Outcome::Right | Outcome::Wrong, None) => Verdict::Passed,
            (Outcome::Wrong, Some(_)) => denial(ReasonCode::BadUserNameOrPassword, "wrong password"),
            (Outcome::Right, Some(_)) => {
                self.checks.remember(name, &user, password);
                Verdict::Accepted(Principal::named(name))
            }
        }
    }

    /// Whose hash is checked for a user that does not exist: for the same name the same each time, so that
    /// over many names the cost is spread as it is for users that exist.
    fn stand_in(&self, name: &str) -> Option<&Arc<User>> {
        self.users.any(number(&self.checks.keyed("stand-in", name)))
    }
}

impl Backend for PasswordFile {
    fn users(&self) -> Vec<(Box<str>, [u8; 32])> {
        self.users.digests()
    }

    fn check<'a>(&'a self, credentials: Credentials<'a>) -> BoxFuture<'a, Verdict> {
        match (credentials.user_name, credentials.password) {
            (Some(name), Some(password)) => Box::pin(self.decide(name, password)),
            (Some(_), None) | (None, Some(_)) | (None, None) => Box::pin(std::future::ready(Verdict::Passed)),
        }
    }

    fn begin(&self, method: &str, credentials: Credentials<'_>) -> Option<Box<dyn Exchange>> {
        if method != scram::METHOD || self.users.with_keys().is_empty() {
            return None;
        }
        let known = Arc::new(KnownUsers { users: self.users.clone(), checks: self.checks.clone() });
        Some(Box::new(ScramExchange::new(known, scram::random_nonce()?, credentials.user_name)))
    }
}

/// Hashes are for guessing at: says so if everybody on this machine may read them.
fn warn_of_readers(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(path).map_or(0, |metadata| metadata.permissions().mode());
    if mode & 0o004 != 0 {
        warn!(file = %path.display(), "every user of this machine can read the password file; `chmod o-r` forbids it");
    }
}

/// The keys of the users of a file.
struct KnownUsers {
    users: Arc<Users>,
    checks: Arc<PasswordChecks>,
}

impl Known for KnownUsers {
    fn keys(&self, name: &str) -> ScramKeys {
        // Made for known users, too: it takes its time.
        let seed = match self.users.salt_secret() {
            Some(secret) => scram::seed(secret, name),
            None => self.checks.keyed("salt", name),
        };
        let with_keys = self.users.with_keys();
        let like = &with_keys[number(&seed) as usize % with_keys.len()];
        let nobody = ScramKeys::of_nobody(&seed, like);
        self.users.find(name).and_then(|user| user.scram_keys().cloned()).unwrap_or(nobody)
    }
}

fn number(digest: &[u8; 32]) -> u64 {
    digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::auth::PasswordChecks as Settings;

    /// Where nothing can be checked, an unknown user is refused like a known one: it needs a check, too.
    #[tokio::test]
    async fn a_user_that_does_not_exist_costs_a_check() {
        let hash = hash::PasswordHash::Sha512 { salt: vec![1; 8], hash: vec![0; 64] };
        let users = Arc::new(Users::parse(&format!("otto:{hash}")).unwrap());
        let checks = Settings { queue_checks_max: 0, ..Settings::default() };
        let checks = Arc::new(PasswordChecks::new(checks).unwrap());
        let backend = PasswordFile { name: "local".into(), users, checks };
        for name in ["otto", "nobody"] {
            match backend.decide(name, b"x").await {
                Verdict::Refused(denial) => assert_eq!(denial.code, ReasonCode::ServerBusy, "{name}"),
                other => panic!("{name}: {other:?}"),
            }
        }
    }
}
