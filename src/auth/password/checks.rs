//! Threads on which passwords are checked, since a check takes long and much memory by design.
//!
//! Invariants: no more checks at a time than threads, no more that wait than the queue holds, and none on the
//! thread that asks.
#![expect(clippy::disallowed_methods, reason = "successes are remembered for a time")]

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Instant,
};

use aws_lc_rs::{
    hmac,
    rand::{SecureRandom, SystemRandom},
};
use tokio::sync::oneshot;
use tracing::error;

use super::{
    file::User,
    successes::{Proof, Successes},
};
use crate::config::auth::PasswordChecks as Settings;

/// Checks passwords for all password files.
pub(in crate::auth) struct PasswordChecks {
    shared: Arc<Shared>,
    successes: Mutex<Successes>,
    /// Only this process can tell which password a remembered success stands for.
    key: hmac::Key,
}

/// What a check came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Right,
    Wrong,
    /// Too many wait already.
    Busy,
    /// The check has not come to an end.
    Failed,
}

struct Shared {
    settings: Settings,
    queue: Mutex<Queue>,
    /// There is something in the queue, or it is closed.
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Check>,
    /// Threads that there are.
    threads: usize,
    /// Those that wait for work.
    idle: usize,
    is_closed: bool,
}

struct Check {
    user: Arc<User>,
    password: Vec<u8>,
    tell: oneshot::Sender<bool>,
}

impl PasswordChecks {
    /// Threads start when there is work for them.
    pub(in crate::auth) fn new(settings: Settings) -> Result<PasswordChecks, &'static str> {
        let mut secret = [0; 32];
        SystemRandom::new().fill(&mut secret).map_err(|_| "the system gives no random numbers")?;
        let successes = Successes::new(settings.cache_entries_max, settings.cache_time);
        let shared = Shared { settings, queue: Mutex::default(), changed: Condvar::new() };
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        Ok(PasswordChecks { shared: Arc::new(shared), successes: Mutex::new(successes), key })
    }

    /// Whether this is the password of the user, as far as that is known from a short while ago.
    pub(super) fn is_known(&self, name: &str, user: &User, password: &[u8]) -> bool {
        lock(&self.successes).has(Instant::now(), &self.proof(name, user, password))
    }

    /// Remembers that this is the password of the user.
    pub(super) fn remember(&self, name: &str, user: &User, password: &[u8]) {
        lock(&self.successes).insert(Instant::now(), self.proof(name, user, password));
    }

    /// Checks a password on another thread.
    pub(super) async fn check(&self, user: Arc<User>, password: &[u8]) -> Outcome {
        let (tell, told) = oneshot::channel();
        if !self.shared.submit(Check { user, password: password.to_vec(), tell }) {
            return Outcome::Busy;
        }
        match told.await {
            Ok(true) => Outcome::Right,
            Ok(false) => Outcome::Wrong,
            Err(_) => Outcome::Failed,
        }
    }

    /// Bytes that only this process can make of these, for one purpose.
    pub(super) fn keyed(&self, purpose: &str, text: &str) -> Proof {
        let mut context = hmac::Context::with_key(&self.key);
        for part in [purpose, text] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        proof_of(&context.sign())
    }

    fn proof(&self, name: &str, user: &User, password: &[u8]) -> Proof {
        let mut context = hmac::Context::with_key(&self.key);
        for part in [b"success".as_slice(), name.as_bytes(), &user.line_digest, password] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        proof_of(&context.sign())
    }
}

impl Drop for PasswordChecks {
    fn drop(&mut self) {
        lock(&self.shared.queue).is_closed = true;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    /// False if the queue is full.
    fn submit(self: &Arc<Self>, check: Check) -> bool {
        let mut queue = lock(&self.queue);
        if queue.waiting.len() >= self.settings.queue_checks_max {
            return false;
        }
        queue.waiting.push_back(check);
        if queue.waiting.len() > queue.idle && queue.threads < self.settings.threads_max {
            let shared = self.clone();
            let name = format!("password-{}", queue.threads);
            match thread::Builder::new().name(name).spawn(move || shared.work()) {
                Ok(_) => queue.threads += 1,
                // Without any thread the check is dropped, which its client hears of.
                Err(error) if queue.threads == 0 => {
                    error!("no thread for checking passwords: {error}");
                    queue.waiting.clear();
                }
                Err(error) => error!("no more threads for checking passwords: {error}"),
            }
        }
        drop(queue);
        self.changed.notify_one();
        true
    }

    /// Checks one password after the other until the queue is closed.
    fn work(&self) {
        loop {
            let mut queue = lock(&self.queue);
            let check = loop {
                match queue.waiting.pop_front() {
                    // Clients that have gone need no answer.
                    Some(check) if check.tell.is_closed() => {}
                    Some(check) => break check,
                    None if queue.is_closed => return,
                    None => {
                        queue.idle += 1;
                        queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
                        queue.idle -= 1;
                    }
                }
            };
            drop(queue);
            let is_right = check.user.matches(&check.password);
            let _: Result<(), _> = check.tell.send(is_right);
        }
    }
}

/// A thread that panicked has left nothing half done behind.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn proof_of(tag: &hmac::Tag) -> Proof {
    let mut proof = Proof::default();
    proof.copy_from_slice(&tag.as_ref()[..32]);
    proof
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::password::{file::Users, hash::PasswordHash};

    fn settings() -> Settings {
        Settings { threads_max: 2, queue_checks_max: 3, ..Settings::default() }
    }

    fn user() -> Arc<User> {
        let hash = PasswordHash::Sha512 { salt: vec![1; 8], hash: vec![0; 64] };
        Users::parse(&format!("u:{hash}")).unwrap().find("u").unwrap().clone()
    }

    /// The queue holds what it may and no more, whoever waits.
    #[test]
    fn a_full_queue_refuses() {
        // No thread is allowed, so that everything waits.
        let settings = Settings { threads_max: 0, ..settings() };
        let checks = PasswordChecks::new(settings).unwrap();
        let submit = || {
            let (tell, told) = oneshot::channel();
            (checks.shared.submit(Check { user: user(), password: Vec::new(), tell }), told)
        };
        let answers: Vec<_> = (0..5).map(|_| submit()).collect();
        assert_eq!(answers.iter().filter(|(is_taken, _)| *is_taken).count(), 3);
    }

    #[tokio::test]
    async fn checks_end_and_threads_are_few() {
        let checks = PasswordChecks::new(settings()).unwrap();
        for _ in 0..8 {
            assert_eq!(checks.check(user(), b"wrong").await, Outcome::Wrong);
        }
        assert!(lock(&checks.shared.queue).threads <= 2);
        let user = user();
        checks.remember("u", &user, b"right");
        assert!(checks.is_known("u", &user, b"right"));
        assert!(!checks.is_known("u", &user, b"wrong") && !checks.is_known("v", &user, b"right"));
        assert!(!checks.is_known("ur", &user, b"ight"));
    }
}
