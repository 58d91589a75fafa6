//! A service that is asked, by HTTP, who clients are.
//!
//! Its answers are remembered for a while; questions are remembered by a keyed hash alone, so that no password
//! stays in memory. A service that fails again and again is left alone for a while.

mod breaker;
mod cache;
mod message;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aws_lc_rs::hmac;
use hyper::HeaderMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tracing::{debug, info, warn};

use crate::{
    codec::ReasonCode,
    config::auth::webhook::{Header, HeaderValue, Unavailable, Webhook as Settings},
};

use super::{
    Backend, BoxFuture, Credentials, Denial, Verdict,
    background::Background,
    clock::Clock,
    http::{self, AnswerLimits, Service},
    secret,
};
use breaker::{Breaker, Change, Leave};
use cache::{Cache, Found, Key, Lifetime};
use message::Answer;

/// The largest answer in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// What a request may take beyond the time for its answer: its turn in the queue.
const TURN_MAX: Duration = Duration::from_secs(5);

/// Lets in whom a service vouches for.
#[derive(Clone)]
pub struct Webhook {
    shared: Arc<Shared>,
    background: Background,
}

struct Shared {
    settings: Settings,
    service: Service,
    clock: Arc<dyn Clock>,
    /// Questions are hashed with this, which nobody outside of this process knows.
    hash: hmac::Key,
    /// Requests at a time.
    requests: Arc<Semaphore>,
    state: Mutex<State>,
}

struct State {
    cache: Cache<Answer>,
    breaker: Breaker,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NoAnswer {
    /// We have too much to ask.
    Busy,
    /// The service does not answer as it should.
    Failed,
    /// It is left alone for a while.
    LeftAlone,
}

impl Webhook {
    /// Prepares to ask; no request is made.
    ///
    /// # Errors
    /// What is wrong with a header, a secret or the file of authorities.
    pub fn open(
        settings: &Settings,
        background: &Background,
        clock: Arc<dyn Clock>,
    ) -> Result<Webhook, String> {
        let headers = headers(&settings.headers)?;
        let limits = AnswerLimits { timeout: settings.timeout, bytes_max: ANSWER_BYTES_MAX };
        let service = Service::new(settings.url.clone(), settings.ca_file.as_deref(), headers, limits)
            .map_err(|error| error.to_string())?;
        let hash = hmac::Key::generate(hmac::HMAC_SHA256, &aws_lc_rs::rand::SystemRandom::new())
            .map_err(|_| "the system gives no random numbers".to_owned())?;
        let request_max = settings.timeout + TURN_MAX;
        let state = State {
            cache: Cache::new(settings.cache_entries_max),
            breaker: Breaker::new(settings.breaker_failures, settings.breaker_open, request_max),
        };
        let shared = Shared {
            settings: settings.clone(),
            service,
            clock,
            hash,
            requests: Arc::new(Semaphore::new(settings.requests_max)),
            state: Mutex::new(state),
        };
        Ok(Webhook { shared: Arc::new(shared), background: background.clone() })
    }

    async fn decide(&self, credentials: Credentials<'_>) -> Verdict {
        let shared = &self.shared;
        let key = shared.key(&credentials);
        let remembered = {
            let now = shared.clock.instant();
            shared.state().cache.find(&key, now)
        };
        let stale = match remembered {
            Found::Fresh(answer) => return verdict(answer),
            Found::Stale(answer) => Some(answer),
            Found::Nothing => None,
        };
        match (self.ask(key, &credentials).await, stale) {
            (Ok(answer), _) | (Err(_), Some(answer)) => verdict(answer),
            (Err(why), None) => shared.without_answer(why),
        }
    }

    /// Asks on the background thread, where the answer is also remembered if nobody waits for it any more.
    async fn ask(&self, key: Key, credentials: &Credentials<'_>) -> Result<Answer, NoAnswer> {
        let shared = self.shared.clone();
        let turn = shared.requests.clone().try_acquire_owned().map_err(|_| NoAnswer::Busy)?;
        let leave = {
            let now = shared.clock.instant();
            shared.state().breaker.ask(now).ok_or(NoAnswer::LeftAlone)?
        };
        let question = message::question(credentials);
        let user = credentials.user_name.map(Box::from);
        let (answer, answered) = oneshot::channel();
        let asking = Asking { shared, leave: Some(leave), _turn: turn };
        let job = async move {
            // Nobody may be waiting any more.
            let _: Result<(), _> = answer.send(asking.run(key, question, user).await);
        };
        self.background.run(job).map_err(|_| NoAnswer::Busy)?;
        answered.await.unwrap_or(Err(NoAnswer::Failed))
    }
}

/// One request. If it is dropped before it is made, the breaker hears of it.
struct Asking {
    shared: Arc<Shared>,
    leave: Option<Leave>,
    _turn: OwnedSemaphorePermit,
}

impl Asking {
    async fn run(mut self, key: Key, question: Vec<u8>, user: Option<Box<str>>) -> Result<Answer, NoAnswer> {
        let shared = self.shared.clone();
        let posted = shared.service.post(question).await.map_err(|error| error.to_string());
        let answer = posted.and_then(|json| {
            message::answer(&json, user.as_deref(), shared.clock.unix_secs()).map_err(|bad| bad.to_string())
        });
        if let Some(leave) = self.leave.take() {
            shared.settle(&leave, key, &answer);
        }
        answer.map_err(|_| NoAnswer::Failed)
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if let Some(leave) = self.leave.take() {
            let now = self.shared.clock.instant();
            self.shared.state().breaker.gave_up(&leave, now);
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What tells one question from another. Each field with its length, so that no two questions are the
    /// same text. The port is left out: it is another one with each connection.
    fn key(&self, credentials: &Credentials<'_>) -> Key {
        let mut hash = hmac::Context::with_key(&self.hash);
        let address = credentials.peer.ip().map(|ip| ip.to_string());
        let fields = [
            Some(credentials.client_id.as_bytes()),
            credentials.user_name.map(str::as_bytes),
            credentials.password,
            address.as_deref().map(str::as_bytes),
            Some(credentials.listener.as_bytes()),
            credentials.certificate.map(|certificate| certificate.subject.as_bytes()),
            credentials
                .certificate
                .and_then(|certificate| certificate.fingerprint.as_ref().map(|print| &print[..])),
        ];
        for field in fields {
            // None is not the same as empty.
            let length = field.map_or(u64::MAX, |bytes| bytes.len() as u64);
            hash.update(&length.to_be_bytes());
            hash.update(field.unwrap_or_default());
        }
        let mut key = Key::default();
        key.copy_from_slice(hash.sign().as_ref());
        key
    }

    /// Remembers an answer, and tells the breaker what came of a request.
    fn settle(&self, leave: &Leave, key: Key, answer: &Result<Answer, String>) {
        let now = self.clock.instant();
        let change = match answer {
            Ok(answer) => {
                let (fresh, ends_after) = match answer {
                    Answer::Allow { expires_in_secs, .. } => (self.settings.cache_allow, *expires_in_secs),
                    Answer::Deny | Answer::Pass => (self.settings.cache_deny, None),
                };
                let ends_after = ends_after.map(Duration::from_secs);
                let lifetime = Lifetime::new(now, fresh, self.settings.stale_max, ends_after);
                let mut state = self.state();
                state.cache.remember(key, answer.clone(), lifetime, now);
                state.breaker.succeeded(leave)
            }
            Err(_) => self.state().breaker.failed(leave, now),
        };
        self.log(change, answer.as_ref().err());
    }

    fn log(&self, change: Change, why: Option<&String>) {
        let url = self.service.url();
        let why = why.map_or("", |why| why);
        match change {
            Change::None if why.is_empty() => {}
            Change::None => debug!(target: "dunlin::auth", %url, "webhook has failed: {why}"),
            Change::FirstFailure => warn!(target: "dunlin::auth", %url, "webhook has failed: {why}"),
            Change::Opened => {
                let secs = self.settings.breaker_open.as_secs();
                warn!(target: "dunlin::auth", %url, secs, "webhook fails and is left alone for a while: {why}");
            }
            Change::Closed => info!(target: "dunlin::auth", %url, "webhook answers again"),
        }
    }

    fn without_answer(&self, why: NoAnswer) -> Verdict {
        let (code, why) = match (why, self.settings.unavailable) {
            (NoAnswer::Busy, _) => (ReasonCode::ServerBusy, "too many requests to the webhook are under way"),
            (NoAnswer::Failed | NoAnswer::LeftAlone, Unavailable::Pass) => return Verdict::Passed,
            (NoAnswer::Failed, Unavailable::Deny) => {
                (ReasonCode::ServerUnavailable, "the webhook gives no answer")
            }
            (NoAnswer::LeftAlone, Unavailable::Deny) => {
                (ReasonCode::ServerUnavailable, "the webhook fails and is left alone for a while")
            }
        };
        Verdict::Refused(Denial { code, why: why.into() })
    }
}

fn verdict(answer: Answer) -> Verdict {
    match answer {
        Answer::Allow { principal, .. } => Verdict::Accepted(principal),
        Answer::Pass => Verdict::Passed,
        Answer::Deny => {
            let why = "the webhook says deny".into();
            Verdict::Refused(Denial { code: ReasonCode::BadUserNameOrPassword, why })
        }
    }
}

/// Headers with their values, from wherever they are.
fn headers(settings: &[Header]) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for Header { name, value } in settings {
        let of_header = |why: String| format!("headers.{name}: {why}");
        let secret = match value {
            HeaderValue::Text(_) => None,
            HeaderValue::File(file) => Some(secret::from_file(file).map_err(of_header)?),
            HeaderValue::Variable(variable) => Some(secret::from_variable(variable).map_err(of_header)?),
        };
        let text = match (value, &secret) {
            (HeaderValue::Text(text), _) => text.as_str(),
            (_, Some(secret)) => secret.expose(),
            (HeaderValue::File(_) | HeaderValue::Variable(_), None) => "",
        };
        let (name, value) = http::header(name, text).map_err(|why| of_header(why.into()))?;
        headers.append(name, value);
    }
    Ok(headers)
}

impl Backend for Webhook {
    fn check<'a>(&'a self, credentials: Credentials<'a>) -> BoxFuture<'a, Verdict> {
        Box::pin(self.decide(credentials))
    }
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook").field("settings", &self.shared.settings).finish_non_exhaustive()
    }
}
