//! The back ends of a configuration, asked one after the other.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;

use super::{
    Authenticate, Backend, BoxFuture, Credentials, Denial, Exchange, Step, Verdict, background::Background,
    by_listener, clock::SystemClock, jwt::Jwt, webhook::Webhook,
};
use crate::{
    acl::Principal,
    codec::ReasonCode,
    config::{self, Config},
};

/// Asks the back ends that the configuration names for a listener, in order, until one decides.
///
/// Who shows a user name or a password and convinces none is refused, also where anonymous clients are let in:
/// a mistyped password is not to become anonymous access in silence.
pub struct Chain {
    links: ArcSwap<Links>,
    /// The thread of back ends that wait for the network, once there is one.
    background: Mutex<Option<Background>>,
}

/// The back ends by listener. Those that are not here ask nobody.
#[derive(Default)]
struct Links {
    listeners: HashMap<String, Vec<Arc<dyn Backend>>>,
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
        let chain = Chain { links: ArcSwap::default(), background: Mutex::default() };
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
            let opened = self.open_backend(name, backend);
            let opened = opened.map_err(|why| OpenError { backend: name.clone(), why })?;
            backends.insert(name.as_str(), opened);
        }
        let chain_of = |names: &[String]| -> Vec<Arc<dyn Backend>> {
            names.iter().filter_map(|name| backends.get(name.as_str()).cloned()).collect()
        };
        let listeners = config.listeners.iter().map(|one| (one.name.clone(), chain_of(&one.auth))).collect();
        self.links.store(Arc::new(Links { listeners }));
        Ok(())
    }

    /// Opens one back end. An error says why it cannot be used, with file and line.
    fn open_backend(&self, name: &str, backend: &config::auth::Backend) -> Result<Arc<dyn Backend>, String> {
        let _ = name;
        match backend {
            config::auth::Backend::PasswordFile(_) => Err("not there yet".into()),
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

    /// The back ends of a listener.
    fn backends(&self, listener: &str) -> Vec<Arc<dyn Backend>> {
        self.links.load().listeners.get(listener).cloned().unwrap_or_default()
    }
}

impl Authenticate for Chain {
    fn authenticate<'a>(&'a self, credentials: Credentials<'a>) -> BoxFuture<'a, Result<Principal, Denial>> {
        let backends = self.backends(credentials.listener);
        let shows_nothing = credentials.user_name.is_none() && credentials.password.is_none();
        if backends.is_empty() || shows_nothing {
            return Box::pin(std::future::ready(by_listener(&credentials)));
        }
        Box::pin(async move {
            for backend in backends {
                match backend.check(credentials).await {
                    Verdict::Accepted(principal) => return Ok(principal),
                    Verdict::Refused(denial) => return Err(denial),
                    Verdict::Passed => {}
                }
            }
            let why = "no back end knows these credentials".into();
            Err(Denial { code: ReasonCode::BadUserNameOrPassword, why })
        })
    }

    fn begin(&self, method: &str, credentials: Credentials<'_>) -> Option<Box<dyn Exchange>> {
        let backends = self.backends(credentials.listener);
        let exchange = backends.iter().find_map(|backend| backend.begin(method, credentials))?;
        Some(Box::new(Watched { exchange, proved: credentials.proved.map(Box::from) }))
    }
}

/// An exchange of a back end that may not make another user of a client that is connected.
struct Watched {
    exchange: Box<dyn Exchange>,
    /// The user that the client is.
    proved: Option<Box<str>>,
}

impl Exchange for Watched {
    fn step<'a>(&'a mut self, data: Option<&'a [u8]>) -> BoxFuture<'a, Step> {
        Box::pin(async move {
            match (self.exchange.step(data).await, &self.proved) {
                (Step::Success(principal, _), Some(proved))
                    if principal.user.as_deref() != Some(&**proved) =>
                {
                    let why = format!("it authenticates again as another user than '{proved}'");
                    Step::Failure(Denial { code: ReasonCode::NotAuthorized, why })
                }
                (step, _) => step,
            }
        })
    }
}
