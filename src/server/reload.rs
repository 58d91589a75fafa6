//! A new configuration while the broker runs: what can change at once does, the rest at the next start, and one
//! that has a fault changes nothing.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

use tracing::{info, warn};

use crate::{
    acl::{Policy, Rules},
    audit::Record,
    auth::Chain,
    broker::{Outputs, Shard},
    config::{Auth, Change, Config, Effect, Loaded, changes},
    control::Plan,
    guard::Bans,
    limits::Limits,
    time::Timestamp,
};

use super::{Common, mailbox::Mail};

/// How a program reads its configuration again.
pub struct Reloading {
    /// Reads it.
    pub load: Box<dyn Fn() -> Result<Loaded, String> + Send + Sync>,
    /// Takes a new `log.filter`.
    pub set_log_filter: Box<dyn Fn(&str) + Send + Sync>,
}

/// What a broker runs with now, and where to read what it is to run with.
pub(crate) struct Running {
    /// Its live keys are those of now, the others those of the start.
    config: Mutex<Config>,
    /// Where its values were written, as far as that is known.
    origins: Mutex<BTreeMap<String, String>>,
    /// Of this, what is asked often.
    memory_bytes_max: AtomicUsize,
    reloading: Option<Reloading>,
    /// The access rules, if they come from the configuration.
    rules: Option<Arc<Rules>>,
    /// The back ends that know who clients are, likewise.
    chain: Option<Arc<Chain>>,
}

/// All that a configuration names, read and found right.
struct Prepared {
    bans: Arc<Bans>,
    policy: Option<Arc<Policy>>,
    /// What it is to replace, unless the program has rules of its own.
    rules: Option<Arc<Rules>>,
}

impl Prepared {
    /// Subscriptions of the clients of a shard that would not be allowed.
    fn unallowed(&self, shard: &Shard) -> Named {
        if self.rules.is_none() {
            return Named::new();
        }
        shard.unallowed(&Rules::new(self.policy.clone()))
    }
}

/// Clients, with what is said of each.
type Named = Vec<(String, String)>;

/// How long a shard may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

impl Running {
    pub(super) fn new(
        config: Config,
        origins: BTreeMap<String, String>,
        reloading: Option<Reloading>,
        rules: Option<Arc<Rules>>,
        chain: Option<Arc<Chain>>,
    ) -> Running {
        let memory_bytes_max = AtomicUsize::new(config.memory_bytes_max);
        let (config, origins) = (Mutex::new(config), Mutex::new(origins));
        Running { config, origins, memory_bytes_max, reloading, rules, chain }
    }

    /// The budget of memory in bytes; zero is none.
    pub(super) fn memory_bytes_max(&self) -> usize {
        self.memory_bytes_max.load(Ordering::Relaxed)
    }

    /// Where the values were written, by their keys.
    pub(crate) fn lock_origins(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.origins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The configuration as it is now.
    pub(crate) fn config(&self) -> MutexGuard<'_, Config> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What differs. Without back ends at the start, those of a new configuration are asked after the next one.
    fn changes(&self, running: &Config, config: &Config) -> Vec<Change> {
        let mut changes = changes(running, config);
        let is_asked = |key: &str| key.starts_with("auth.") || key.ends_with("].auth");
        for change in changes.iter_mut().filter(|change| self.chain.is_none() && is_asked(&change.key)) {
            change.effect = Effect::Restart;
        }
        changes
    }

    /// Reads all that a configuration names.
    fn prepare(&self, config: &Config) -> Result<Prepared, String> {
        let bans = Bans::read(&config.bans_file).map_err(|error| error.to_string())?;
        let policy = config.acl.as_ref().map(|acl| acl.load().map(Arc::new)).transpose();
        let policy = policy.map_err(|errors| errors.to_string())?;
        Ok(Prepared { bans: Arc::new(Bans::of(bans)), policy, rules: self.rules.clone() })
    }
}

impl Common {
    /// Asks every shard. Never to be called on the thread of one, which would wait for itself.
    pub(super) fn ask<T: Send + 'static>(
        &self,
        ask: impl Fn(&mut Shard, Timestamp, &mut Outputs) -> T + Send + Sync + 'static,
    ) -> Vec<T> {
        let ask = Arc::new(ask);
        let (sender, answers) = mpsc::sync_channel(self.mailboxes.len());
        for mailbox in self.mailboxes.iter() {
            let (ask, sender) = (ask.clone(), sender.clone());
            mailbox.post([Mail::Step(Box::new(move |shard, now, out| {
                // Nobody waits any more if it fails.
                let _ = sender.try_send(ask(shard, now, out));
            }))]);
        }
        drop(sender);
        let mut all = Vec::new();
        while let Ok(answer) = answers.recv_timeout(ANSWER_TIMEOUT) {
            all.push(answer);
        }
        all
    }

    /// What a configuration would change.
    ///
    /// # Errors
    /// What is wrong with what it names.
    pub(super) fn plan(&self, config: &Config) -> Result<Plan, String> {
        let prepared = self.running.prepare(config)?;
        let plan = Plan::of(&self.running.changes(&self.running.config(), config));
        let answers =
            self.ask(move |shard, now, _| (banned(shard, now, &prepared.bans), prepared.unallowed(shard)));
        Ok(plan.with(answers))
    }

    /// Reads the configuration again and takes over what can change.
    ///
    /// # Errors
    /// What is wrong with it; nothing has changed then.
    pub(super) fn reload(&self) -> Result<Plan, String> {
        let Some(Reloading { load, .. }) = &self.running.reloading else {
            return Err("this broker has no configuration to read again".into());
        };
        let result = load().and_then(|loaded| {
            let plan = self.take_over(&loaded.config)?;
            *self.running.lock_origins() = loaded.origins;
            Ok(plan)
        });
        let now = self.clock.now();
        match &result {
            Ok(plan) => {
                self.audit.write(|| {
                    let record = Record::new(now, "reloaded").with("live", plan.live.clone());
                    record.with("restart", plan.restart.clone())
                });
                plan.live.iter().for_each(|change| info!(target: "dunlin::reload", "changed: {change}"));
                for change in &plan.restart {
                    warn!(target: "dunlin::reload", "changes at the next start: {change}");
                }
                info!(target: "dunlin::reload", "configuration reloaded");
            }
            Err(error) => {
                self.audit.write(|| Record::new(now, "reload_refused").with("why", error.as_str()));
                warn!(target: "dunlin::reload", "the configuration was not reloaded, nothing has changed: {error}");
            }
        }
        result
    }

    fn take_over(&self, config: &Config) -> Result<Plan, String> {
        // All that can fail comes first.
        let prepared = self.running.prepare(config)?;
        let gone = match &self.running.chain {
            Some(chain) => {
                let before = chain.users();
                chain.replace(config).map_err(|error| error.to_string())?;
                Gone::of(&before, &chain.users())
            }
            None => Gone::default(),
        };
        let mut running = self.running.config();
        let plan = Plan::of(&self.running.changes(&running, config));
        let limits = Arc::new(live_limits(&running.limits, &config.limits));
        self.limits.store(limits.clone());
        self.guard.set_limits(config.guard.clone());
        self.guard.set_bans(Bans::clone(&prepared.bans));
        if let Some(reloading) = self.running.reloading.as_ref().filter(|_| running.log != config.log) {
            (reloading.set_log_filter)(&config.log.filter);
        }
        if let Some(rules) = &self.running.rules {
            rules.replace(prepared.policy.clone());
        }
        running.acl.clone_from(&config.acl);
        if self.running.chain.is_some() {
            let passwords = running.auth.passwords.clone();
            running.auth = Auth { passwords, ..config.auth.clone() };
            for listener in &mut running.listeners {
                let new = config.listeners.iter().find(|new| new.name == listener.name);
                listener.auth = new.map_or_else(Vec::new, |new| new.auth.clone());
            }
        }
        running.limits = Limits::clone(&limits);
        running.guard = config.guard.clone();
        running.memory_bytes_max = config.memory_bytes_max;
        self.running.memory_bytes_max.store(config.memory_bytes_max, Ordering::Relaxed);
        running.bans_file.clone_from(&config.bans_file);
        running.log.filter.clone_from(&config.log.filter);
        drop(running);
        let answers = self.ask(move |shard, now, out| {
            shard.set_limits(limits.clone());
            let cut = [banned(shard, now, &prepared.bans), gone.clients(shard)].concat();
            let lost = prepared.unallowed(shard);
            for (client_id, why) in &cut {
                let why = why.as_str().into();
                shard.kick(now, client_id, crate::broker::Cause::Kicked { why }, out);
            }
            shard.rules_changed(now, out);
            (cut, lost)
        });
        Ok(plan.with(answers))
    }
}

impl Plan {
    fn of(changes: &[Change]) -> Plan {
        let told = |effect| {
            changes.iter().filter(move |change| change.effect == effect).map(ToString::to_string).collect()
        };
        Plan { live: told(Effect::Live), restart: told(Effect::Restart), ..Plan::default() }
    }

    /// With what the shards say: who is cut off, and who loses a subscription.
    fn with(mut self, answers: Vec<(Named, Named)>) -> Plan {
        for (cut, lost) in answers {
            self.cut.extend(cut);
            self.unsubscribed.extend(lost);
        }
        self.cut.sort();
        self.unsubscribed.sort();
        self
    }
}

/// Users that a list does not have any more, or whose password is another.
#[derive(Default)]
struct Gone(HashSet<Box<str>>);

impl Gone {
    fn of(before: &Users, after: &Users) -> Gone {
        Gone(before.difference(after).map(|(user, _)| user.clone()).collect())
    }

    /// Their connected clients.
    fn clients(&self, shard: &Shard) -> Named {
        let mut found = Vec::new();
        if !self.0.is_empty() {
            shard.clients(|client_id, principal, _| {
                if let Some(user) = principal.user.as_deref().filter(|user| self.0.contains(*user)) {
                    found.push((
                        client_id.to_owned(),
                        format!("user '{user}' is gone or has another password"),
                    ));
                }
                false
            });
        }
        found
    }
}

/// User names, each with a digest that changes with the password.
type Users = HashSet<(Box<str>, [u8; 32])>;

/// The limits of a new configuration, but for those that are of the start.
fn live_limits(running: &Limits, new: &Limits) -> Limits {
    Limits { handshakes_max: running.handshakes_max, ..new.clone() }
}

/// Connected clients that are banned.
fn banned(shard: &Shard, now: Timestamp, bans: &Bans) -> Named {
    let mut found = Vec::new();
    shard.clients(|client_id, principal, peer| {
        let address = peer.parse::<std::net::SocketAddr>().ok().map(|peer| peer.ip());
        let by_name = bans.of_client(now, client_id, principal.user.as_deref());
        let ban = by_name.or_else(|| bans.of_address(now, address?));
        if let Some(ban) = ban {
            found.push((client_id.to_owned(), format!("{} is banned", ban.banned)));
        }
        false
    });
    found
}
