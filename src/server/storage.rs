//! The store of a running broker: opened before the shards, told to them, closed after them.

use std::{
    fmt,
    path::Path,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use tokio::{
    sync::Notify,
    task::{spawn_blocking, spawn_local},
    time::interval,
};
use tracing::warn;

use crate::{
    broker::{Sequence, Shard, Shared},
    config::{Config, Persistence},
    control::{ControlSocket, Plan, Steer},
    limits::Parking,
    session::{Fetched, StoredSession},
    store::{
        BackedUp, Committed, Condition, DiskOptions, Existing, LocalStore, Memory, Progress, Recovered, Store,
    },
    time::Timestamp,
};

use super::{
    Common,
    cell::ShardCell,
    mailbox::{Mail, Mailboxes},
};

/// How often the store is told that the broker is alive.
const TOUCH_INTERVAL: Duration = Duration::from_secs(10);

/// A store that is open, and what it gives back.
pub(super) struct Storage {
    pub(super) store: Arc<dyn Store>,
    /// The same, if it is in a data directory.
    pub(super) local: Option<Arc<LocalStore>>,
    recovered: Option<Recovered>,
    /// When connections were lost that the last broker did not see the end of.
    lost_at: Timestamp,
    /// See [`Config::store_index_bytes_max`].
    index_bytes_max: usize,
}

/// Why a store cannot be opened.
#[derive(Debug)]
pub struct StoreError(String);

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StoreError {}

impl Storage {
    /// Opens what the configuration names.
    pub(super) async fn open(config: &Config, now: Timestamp) -> Result<Storage, StoreError> {
        match config.persistence {
            Persistence::Memory => {
                let (store, index_bytes_max) = (Arc::new(Memory), config.store_index_bytes_max);
                Ok(Storage { store, local: None, recovered: None, lost_at: now, index_bytes_max })
            }
            Persistence::Disk => {
                let path = config.data_dir.clone();
                let options = DiskOptions {
                    cache_bytes: config.store_cache_bytes_max,
                    index_bytes_max: config.store_index_bytes_max,
                    ..DiskOptions::default()
                };
                // On a thread that may wait for a disk.
                let open = spawn_blocking(move || LocalStore::open(&path, options, now));
                let opened = open.await.map_err(|_| StoreError("opening the store panicked".into()))?;
                let (store, recovered, lost_at) = opened.map_err(|error| StoreError(error.to_string()))?;
                let store = Arc::new(store);
                Ok(Storage {
                    store: store.clone(),
                    local: Some(store),
                    recovered: Some(recovered),
                    lost_at,
                    index_bytes_max: config.store_index_bytes_max,
                })
            }
        }
    }

    /// Tells the shared state what the store can do and what it had, but for sessions.
    pub(super) fn prepare(&self, shared: &mut Shared) {
        // Of a store in memory nothing is left after a crash, whatever a listener is to promise.
        shared.is_lasting = self.recovered.is_some();
        let Some(recovered) = &self.recovered else { return };
        let index_bytes_max = self.index_bytes_max / shared.counters.len().max(1);
        shared.parking = Some(Parking { index_bytes_max, ..Parking::default() });
        shared.sequence = Sequence::starting_at(recovered.next);
    }

    /// Makes the shards, and gives each the sessions that it owns.
    pub(super) fn shards(self, common: &Common) -> Vec<Shard> {
        let now = common.clock.now();
        let indexes = 0..common.mailboxes.len() as u16;
        let mut shards: Vec<Shard> =
            indexes.map(|index| Shard::new(index, common.shared.clone(), now)).collect();
        if let Some(recovered) = self.recovered {
            restore(&mut shards, recovered, &common.shared, self.lost_at, now, |id| common.home(id));
        }
        shards
    }
}

/// Serves the commands that steer a broker through its data directory, as long as the broker runs.
pub(super) fn serve_control(common: &Arc<Common>, store: &Arc<LocalStore>) {
    match ControlSocket::bind(store.directory()) {
        Ok(socket) => start(socket.serve(Arc::new(Control { store: store.clone(), common: common.clone() }))),
        Err(error) => warn!("commands cannot reach this broker, its control socket is not there: {error}"),
    }
}

/// Starts a task that ends with its thread.
#[expect(clippy::disallowed_methods, reason = "the shell has tasks")]
fn start(task: impl Future<Output = ()> + 'static) {
    drop(spawn_local(task));
}

/// What commands can have done.
struct Control {
    store: Arc<LocalStore>,
    common: Arc<Common>,
}

impl Steer for Control {
    fn backup(
        &self,
        to: &Path,
        existing: Existing,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<BackedUp, String> {
        self.store.backup(to, existing, progress).map_err(|error| error.to_string())
    }

    fn plan(&self, config: &str) -> Result<Plan, String> {
        let config = Config::from_toml(config).map_err(|errors| errors.to_string())?;
        self.common.plan(&config)
    }

    fn reload(&self) -> Result<Plan, String> {
        self.common.reload()
    }
}

/// Tells the store again and again that the broker is alive.
pub(super) async fn keep_alive(cell: Rc<ShardCell>) {
    let mut interval = interval(TOUCH_INTERVAL);
    while !cell.is_stopping.get() {
        interval.tick().await;
        let common = cell.common.clone();
        // On a thread that may wait for a disk.
        let touch = spawn_blocking(move || common.store.touch(common.clock.now()));
        if touch.await.is_err() {
            return;
        }
    }
}

/// Passes on what the store has to say.
pub(super) struct Observer {
    mailboxes: Arc<Mailboxes>,
    shared: Arc<Shared>,
    failure: Arc<Failure>,
}

/// Whether the store has failed, and why.
#[derive(Default)]
pub(super) struct Failure {
    reason: Mutex<Option<String>>,
    notify: Notify,
}

impl Failure {
    /// Waits for the store to fail.
    pub(super) async fn wait(&self) -> String {
        loop {
            let notified = self.notify.notified();
            if let Some(reason) = self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone() {
                return reason;
            }
            notified.await;
        }
    }
}

impl Observer {
    pub(super) fn new(mailboxes: Arc<Mailboxes>, shared: Arc<Shared>, failure: Arc<Failure>) -> Observer {
        Observer { mailboxes, shared, failure }
    }
}

impl Committed for Observer {
    fn committed(&self, shard: u16, commit: u64) {
        self.mailboxes[usize::from(shard)].post([Mail::Committed(commit)]);
    }

    fn fetched(&self, shard: u16, fetched: Fetched) {
        self.mailboxes[usize::from(shard)].post([Mail::Fetched(Box::new(fetched))]);
    }

    fn condition(&self, condition: Condition) {
        let is_crowded = condition == Condition::Crowded;
        self.shared.store_crowded.store(is_crowded, Ordering::Relaxed);
        match condition {
            Condition::Ready => {
                self.shared.store_full.store(false, Ordering::Relaxed);
                self.mailboxes.set_store_crowded(false);
            }
            Condition::Full => {
                self.shared.store_full.store(true, Ordering::Relaxed);
                self.mailboxes.set_store_crowded(false);
            }
            Condition::Crowded => self.mailboxes.set_store_crowded(true),
            Condition::Failed(reason) => {
                *self.failure.reason.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
                self.failure.notify.notify_waiters();
                // What waits for a commit is never sent: nobody is told of what was not kept.
                for mailbox in self.mailboxes.iter() {
                    mailbox.post([Mail::Stop]);
                }
            }
        }
    }
}

/// Gives the sessions of the store to the shards that own them, all shards at a time, and retains what was
/// retained. `home` tells the shard of a client.
fn restore(
    shards: &mut [Shard],
    recovered: Recovered,
    shared: &Shared,
    lost_at: Timestamp,
    now: Timestamp,
    home: impl Fn(&str) -> usize,
) {
    let Recovered { sessions, retained, .. } = recovered;
    let filters = sessions.iter().flat_map(|session| &session.subscriptions);
    let (mut exact, mut wildcards) = (0, 0);
    for (filter, _) in filters {
        *(if filter.has_wildcards() { &mut wildcards } else { &mut exact }) += 1;
    }
    shared.router.reserve(exact, wildcards);
    let mut homes: Vec<Vec<StoredSession>> = shards.iter().map(|_| Vec::new()).collect();
    for session in sessions {
        homes[home(&session.client_id)].push(session);
    }
    std::thread::scope(|scope| {
        for (shard, sessions) in shards.iter_mut().zip(homes) {
            scope.spawn(move || shard.restore(sessions, lost_at));
        }
        let topic_limits = shared.topic_limits();
        for message in retained {
            shared.retained.restore(&message, &topic_limits, now);
        }
    });
}
