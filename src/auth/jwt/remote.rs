//! Keys of an issuer that publishes them at a URL.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use hyper::HeaderMap;
use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::{
    auth::{
        background::Background,
        clock::Clock,
        http::{AnswerLimits, Service, ServiceError},
    },
    config::auth::jwt::KeySetUrl,
};

use super::{
    freshness::{Freshness, Need, Plan, Terms},
    keys::{KeySet, Origin},
};

/// What an attempt may take beyond the time for its answer: its turn in the queue.
const TURN_MAX: Duration = Duration::from_secs(5);

/// Keys that are fetched, and fetched again when that is due.
#[derive(Clone)]
pub(super) struct RemoteKeys {
    shared: Arc<Shared>,
    background: Background,
}

struct Shared {
    service: Service,
    clock: Arc<dyn Clock>,
    state: Mutex<Freshness<KeySet>>,
    /// How many attempts have ended, for those who wait for one.
    attempts: watch::Sender<u64>,
}

/// There are no keys that may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoKeys;

impl RemoteKeys {
    /// Begins to fetch.
    ///
    /// # Errors
    /// The URL cannot be asked at all. That it does not answer is no error: it may do so later.
    pub(super) fn start(
        settings: &KeySetUrl,
        background: Background,
        clock: Arc<dyn Clock>,
    ) -> Result<RemoteKeys, ServiceError> {
        let limits = AnswerLimits { timeout: settings.timeout, bytes_max: settings.answer_bytes_max };
        let service =
            Service::new(settings.url.clone(), settings.ca_file.as_deref(), HeaderMap::new(), limits)?;
        let terms = Terms {
            refresh: settings.refresh,
            stale_max: settings.stale_max,
            retry: settings.retry,
            attempt_max: settings.timeout + TURN_MAX,
        };
        let state = Mutex::new(Freshness::new(terms));
        let shared = Arc::new(Shared { service, clock, state, attempts: watch::Sender::new(0) });
        let keys = RemoteKeys { shared, background };
        // The first client should not have to wait.
        if let Plan::Fetch = keys.shared.plan(&Need::Good) {
            keys.fetch();
        }
        Ok(keys)
    }

    /// The keys to use, or newer ones than those that did not serve: the same again if there are none.
    pub(super) async fn get(&self, need: Need<'_, KeySet>) -> Result<Arc<KeySet>, NoKeys> {
        loop {
            // Before the plan, so that no end of an attempt is missed.
            let mut attempts = self.shared.attempts.subscribe();
            match self.shared.plan(&need) {
                Plan::Use(keys) => return Ok(keys),
                Plan::UseAndFetch(keys) => {
                    self.fetch();
                    return Ok(keys);
                }
                Plan::Fetch => self.fetch(),
                Plan::Wait => {}
                Plan::Unavailable => return Err(NoKeys),
            }
            // The sender lives as long as we do.
            let _: Result<(), watch::error::RecvError> = attempts.changed().await;
        }
    }

    fn fetch(&self) {
        let shared = self.shared.clone();
        let attempt = async move {
            let fetched = shared.service.get().await.map_err(|error| error.to_string());
            let keys = fetched
                .and_then(|json| KeySet::of_json(&json, Origin::Network).map_err(|error| error.to_string()));
            shared.ended(keys);
        };
        if self.background.run(attempt).is_err() {
            self.shared.ended(Err("too much else is waited for".into()));
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, Freshness<KeySet>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn plan(&self, need: &Need<'_, KeySet>) -> Plan<KeySet> {
        let now: Instant = self.clock.instant();
        self.state().plan(need, now)
    }

    fn ended(&self, keys: Result<KeySet, String>) {
        let url = self.service.url();
        match &keys {
            Ok(keys) => debug!(target: "dunlin::auth", %url, keys = keys.len(), "keys fetched"),
            Err(why) => warn!(target: "dunlin::auth", %url, "keys cannot be fetched: {why}"),
        }
        let is_first = {
            let now = self.clock.instant();
            let is_fetched = keys.is_ok();
            self.state().ended(keys.ok().map(Arc::new), now).is_none() && is_fetched
        };
        if is_first {
            info!(target: "dunlin::auth", %url, "keys of tokens are there");
        }
        self.attempts.send_modify(|attempts| *attempts += 1);
    }
}

impl fmt::Debug for RemoteKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteKeys").field("url", self.shared.service.url()).finish_non_exhaustive()
    }
}
