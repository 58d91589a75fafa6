//! The back ends of a configuration, asked one after the other.
#![expect(clippy::disallowed_methods, reason = "who fails again and again waits for a time")]

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Instant,
};

use arc_swap::ArcSwap;
use tracing::info;

use super::{
    Authenticate, Backend, BoxFuture, Credentials, Denial, Exchange, Step, Verdict,
    background::Background,
    backoff::{Backoff, Source},
    by_listener,
    clock::SystemClock,
    jwt::Jwt,
    password::{PasswordChecks, PasswordFile},
    webhook::Webhook,
};
use crate::{
    acl::Principal,
    codec::ReasonCode,
    config::{self, ClientIdentity, Config},
};

/// Asks the back ends that the configuration names for a listener, in order, until one decides.
///
/// Who shows a user name or a password and convinces none is refused, also where anonymous clients are let in:
/// a mistyped password is not to become anonymous access in silence.
pub struct Chain {
    links: ArcSwap<Links>,
    watch: Arc<Watch>,
    /// Made with the first password file; the settings of the start hold.
    checks: OnceLock<Arc<PasswordChecks>>,
    /// The thread of back ends that wait for the network, once there is one.
    background: Mutex<Option<Background>>,
}

/// The back ends by listener. Those that are not here ask nobody.
#[derive(Default)]
struct Links {
    listeners: HashMap<String, Vec<Arc<dyn Backend>>>,
    all: Vec<Arc<dyn Backend>>,
}

/// A back end cannot be used.
#[derive(Debug)]
pub struct OpenError {
    /// Its name.
    pub backend: String,
    /// Why, with the file and the line if there is one.
    pub why: String,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "auth.backends.{}: {}", self.backend, self.why)
    }
}

impl std::error::Error for OpenError {}

impl Chain {
    /// Opens all back ends of a configuration.
    ///
    /// # Errors
    /// [`OpenError`] of the first back end that cannot be used.
    pub fn open(config: &Config) -> Result<Chain, OpenError> {
        let watch = Arc::new(Watch(Mutex::new(Backoff::new(config.auth.backoff.clone()))));
        let chain =
            Chain { links: ArcSwap::default(), watch, checks: OnceLock::new(), background: Mutex::default() };
        chain.replace(config)?;
        Ok(chain)
    }

    /// Opens the back ends of another configuration, and asks those from now on. Files are read anew. Who is
    /// connected stays so.
    ///
    /// # Errors
    /// [`OpenError`]; the back ends stay as they were then.
    pub fn replace(&self, config: &Config) -> Result<(), OpenError> {
        let mut backends = HashMap::new();
        for (name, backend) in &config.auth.backends {
            let opened = self.open_backend(name, backend, config);
            let opened = opened.map_err(|why| OpenError { backend: name.clone(), why })?;
            backends.insert(name.as_str(), opened);
        }
        let chain_of = |names: &[String]| -> Vec<Arc<dyn Backend>> {
            names.iter().filter_map(|name| backends.get(name.as_str()).cloned()).collect()
        };
        let listeners = config.listeners.iter().map(|one| (one.name.clone(), chain_of(&one.auth))).collect();
        let all = backends.values().cloned().collect();
        self.links.store(Arc::new(Links { listeners, all }));
        self.watch.backoff().set(config.auth.backoff.clone());
        Ok(())
    }

    /// The users that back ends have lists of, each with a digest that changes with what the user has to show.
    pub(crate) fn users(&self) -> HashSet<(Box<str>, [u8; 32])> {
        self.links.load().all.iter().flat_map(|backend| backend.users()).collect()
    }

    /// Opens one back end. An error says why it cannot be used, with file and line.
    fn open_backend(
        &self,
        name: &str,
        backend: &config::auth::Backend,
        config: &Config,
    ) -> Result<Arc<dyn Backend>, String> {
        match backend {
            config::auth::Backend::PasswordFile(settings) => {
                let checks = self.checks(&config.auth.passwords)?;
                let opened = PasswordFile::open(name, &settings.file, checks);
                opened.map(|opened| Arc::new(opened) as Arc<dyn Backend>).map_err(|error| error.to_string())
            }
            config::auth::Backend::Jwt(settings) => {
                Ok(Arc::new(Jwt::open(settings, &self.background()?, Arc::new(SystemClock))?))
            }
            config::auth::Backend::Webhook(settings) => {
                Ok(Arc::new(Webhook::open(settings, &self.background()?, Arc::new(SystemClock))?))
            }
        }
    }

    /// The thread of back ends that wait for the network.
    fn background(&self) -> Result<Background, String> {
        let mut background = self.background.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(background) = &*background {
            return Ok(background.clone());
        }
        let started = Background::start().map_err(|error| format!("the system gives no thread: {error}"))?;
        Ok(background.insert(started).clone())
    }

    fn checks(&self, settings: &config::auth::PasswordChecks) -> Result<Arc<PasswordChecks>, String> {
        if let Some(checks) = self.checks.get() {
            return Ok(checks.clone());
        }
        let checks = Arc::new(PasswordChecks::new(settings.clone())?);
        Ok(self.checks.get_or_init(|| checks).clone())
    }

    /// The back ends of a listener.
    fn backends(&self, listener: &str) -> Vec<Arc<dyn Backend>> {
        self.links.load().listeners.get(listener).cloned().unwrap_or_default()
    }
}

impl Authenticate for Chain {
    fn authenticate<'a>(&'a self, credentials: Credentials<'a>) -> BoxFuture<'a, Result<Principal, Denial>> {
        let backends = self.backends(credentials.listener);
        let shows_nothing = credentials.user_name.is_none() && credentials.password.is_none();
        // A certificate that is the user name is proof enough.
        let has_identity =
            credentials.client_identity != ClientIdentity::None && credentials.certificate.is_some();
        if backends.is_empty() || shows_nothing || has_identity {
            return Box::pin(std::future::ready(by_listener(&credentials)));
        }
        Box::pin(async move {
            let attempt = self.watch.begin(&credentials)?;
            let decision = ask(&backends, credentials).await;
            self.watch.end(&attempt, decision.as_ref().err());
            decision
        })
    }

    fn begin(&self, method: &str, credentials: Credentials<'_>) -> Option<Box<dyn Exchange>> {
        let backends = self.backends(credentials.listener);
        let exchange = backends.iter().find_map(|backend| backend.begin(method, credentials))?;
        let proved = credentials.proved.map(Box::from);
        let attempt = self.watch.begin(&credentials);
        Some(Box::new(Watched { exchange, proved, attempt, watch: self.watch.clone() }))
    }
}

async fn ask(backends: &[Arc<dyn Backend>], credentials: Credentials<'_>) -> Result<Principal, Denial> {
    for backend in backends {
        match backend.check(credentials).await {
            Verdict::Accepted(principal) => return Ok(principal),
            Verdict::Refused(denial) => return Err(denial),
            Verdict::Passed => {}
        }
    }
    let why = "no back end knows these credentials".into();
    Err(Denial { code: ReasonCode::BadUserNameOrPassword, why })
}

/// Sees who fails again and again.
struct Watch(Mutex<Backoff>);

/// An attempt that is judged.
struct Attempt {
    /// `None` if nobody counts.
    source: Option<Source>,
    peer: String,
}

impl Watch {
    /// Lets an attempt be judged, unless its source has to wait.
    fn begin(&self, credentials: &Credentials<'_>) -> Result<Attempt, Denial> {
        let source = Source::of(credentials.peer);
        if let Some(source) = source {
            self.backoff().admit(Instant::now(), source).map_err(|wait| Denial {
                code: ReasonCode::ConnectionRateExceeded,
                why: format!("its address has failed too often and waits {} s", wait.as_secs() + 1),
            })?;
        }
        Ok(Attempt { source, peer: credentials.peer.to_string() })
    }

    fn end(&self, attempt: &Attempt, denial: Option<&Denial>) {
        let Some(source) = attempt.source else { return };
        match denial {
            None => self.backoff().forget(source),
            Some(denial) if is_clients_fault(denial.code) => {
                if let Some(wait) = self.backoff().fail(Instant::now(), source) {
                    let (peer, secs) = (&attempt.peer, wait.as_secs());
                    info!(target: "dunlin::auth", %peer, secs, "too many failures, the address waits");
                }
            }
            Some(_) => {}
        }
    }

    /// A thread that panicked has left nothing half done behind.
    fn backoff(&self) -> MutexGuard<'_, Backoff> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the client has shown something wrong, and not the broker failed to judge it.
fn is_clients_fault(code: ReasonCode) -> bool {
    matches!(
        code,
        ReasonCode::BadUserNameOrPassword | ReasonCode::NotAuthorized | ReasonCode::BadAuthenticationMethod
    )
}

/// An exchange of a back end, counted like a password, that may not make another user of a client that is
/// connected.
struct Watched {
    exchange: Box<dyn Exchange>,
    /// The user that the client is.
    proved: Option<Box<str>>,
    attempt: Result<Attempt, Denial>,
    watch: Arc<Watch>,
}

impl Watched {
    async fn judge(&mut self, data: Option<&[u8]>) -> Step {
        let attempt = match &self.attempt {
            Ok(attempt) => attempt,
            Err(denial) => return Step::Failure(denial.clone()),
        };
        let step = match (self.exchange.step(data).await, &self.proved) {
            (Step::Success(principal, _), Some(proved)) if principal.user.as_deref() != Some(&**proved) => {
                let why = format!("it authenticates again as another user than {proved:?}");
                Step::Failure(Denial { code: ReasonCode::NotAuthorized, why })
            }
            (step, _) => step,
        };
        match &step {
            Step::Continue(_) => {}
            Step::Success(..) => self.watch.end(attempt, None),
            Step::Failure(denial) => self.watch.end(attempt, Some(denial)),
        }
        step
    }
}

impl Exchange for Watched {
    fn step<'a>(&'a mut self, data: Option<&'a [u8]>) -> BoxFuture<'a, Step> {
        Box::pin(self.judge(data))
    }
}
