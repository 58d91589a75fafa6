//! The running broker: threads, listeners, and how they start and stop.
//!
//! Each shard is a thread with a single-threaded runtime. All threads accept on all listeners; a connection
//! that has authenticated moves once, to the shard that its client identifier hashes to, and from then on
//! it and its session live on one thread.

mod alarm;
mod cell;
mod certificates;
mod client;
mod connection;
mod handshake;
mod insight;
mod listen;
mod log;
mod mailbox;
mod pace;
mod pulse;
mod reauthentication;
mod reload;
mod start_error;
mod storage;
mod strain;

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    rc::Rc,
    sync::{Arc, atomic::AtomicUsize},
    thread::JoinHandle,
    time::Duration,
};

use arc_swap::ArcSwap;
use foldhash::fast::FixedState;
use rustls::crypto::SecureRandom;
use std::hash::BuildHasher;
use tokio::{
    runtime,
    sync::{Semaphore, oneshot},
    task::LocalSet,
    time::{Instant, MissedTickBehavior, timeout_at},
};
use tracing::{info, warn};

pub use client::{Client, ClientError, Delivered, Publication};

use crate::{
    acl::{Authorize, Rules},
    audit::Audit,
    auth::{Authenticate, Authenticator, ByListener, Chain},
    broker::{Shard, Shared, sys},
    config::{Acl, Address, ClientIdentity, Config, Listener, Loaded, Persistence, Proxies, Transport},
    control::Plan,
    guard::{Bans, Guard},
    limits::{Durability, Limits},
    net::{
        BindError, BindErrorKind, BoundListener, Clock, LocalAddress, PassedSockets, PreparedTransport,
        Socket, TlsError, Validity,
    },
    store::{Committed, LocalStore, Store},
};

use alarm::Alarm;
use cell::ShardCell;
use insight::Insight;
use listen::Door;
use mailbox::{Mail, Mailboxes};
use reload::Running;
use storage::{Failure, Observer, Storage};

pub use reload::Reloading;
pub use start_error::StartError;
pub use storage::StoreError;

/// What all threads of a broker share.
pub(crate) struct Common {
    shared: Arc<Shared>,
    clock: Clock,
    store: Arc<dyn Store>,
    /// The same, if it is in a data directory.
    local: Option<Arc<LocalStore>>,
    authenticator: Authenticator,
    mailboxes: Arc<Mailboxes>,
    /// The same, as the store sees them.
    commits: Arc<dyn Committed>,
    /// Permits for connections that are not past CONNECT.
    handshakes: Arc<Semaphore>,
    /// Connections, those included.
    connections: AtomicUsize,
    /// Limits as they are now.
    limits: ArcSwap<Limits>,
    guard: Guard,
    audit: Audit,
    insight: Insight,
    running: Running,
    /// The listener of clients in this process.
    local_door: Arc<Door>,
    random: &'static dyn SecureRandom,
    sys_interval: Duration,
}

impl Common {
    fn packet_bytes_max(&self) -> u32 {
        self.limits.load().packet_bytes_max
    }

    /// The shard of a client identifier.
    fn home(&self, client_id: &str) -> usize {
        let hash = FixedState::with_seed(self.shared.seed).hash_one(client_id);
        (hash % self.mailboxes.len() as u64) as usize
    }

    /// An identifier that no other client has: 120 random bits. `[MQTT-3.2.2-16]`
    fn assign_client_id(&self) -> String {
        const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
        let mut bytes = [0; 24];
        if self.random.fill(&mut bytes).is_err() {
            warn!("the system gives no random numbers");
        }
        let letters = bytes.iter().map(|byte| char::from(LETTERS[usize::from(byte % 32)]));
        "dunlin-".chars().chain(letters).collect()
    }
}

/// A broker that runs in this process, on threads of its own.
///
/// It is started and stopped from inside a tokio runtime, of whatever kind, that has its timers enabled.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let broker = dunlin::Broker::builder().listen("127.0.0.1:0".parse()?).start().await?;
/// let mut client = broker.client("inside").await?;
/// client.subscribe("sensors/#", dunlin::QoS::AtLeastOnce).await?;
/// client.publish("sensors/1", b"21.5", dunlin::QoS::AtLeastOnce).await?;
/// let message = client.receive().await?;
/// assert_eq!(message.payload, b"21.5");
/// broker.stop().await;
/// # Ok(())
/// # }
/// ```
pub struct Broker {
    common: Arc<Common>,
    addresses: Vec<(String, LocalAddress)>,
    /// Those of the configuration.
    rules: Option<Arc<Rules>>,
    /// The back ends of the configuration, if they are asked.
    chain: Option<Arc<Chain>>,
    threads: Vec<ShardThread>,
    /// Set when the store fails.
    failure: Arc<Failure>,
    /// Held while the broker runs: the file of a Unix socket is removed with it.
    doors: Doors,
    stop_timeout: Duration,
}

struct ShardThread {
    handle: JoinHandle<()>,
    ended: oneshot::Receiver<()>,
}

/// What a broker is made of. See [`Broker::builder`].
pub struct Builder {
    config: Config,
    /// That of an embedder, instead of the one that the configuration says.
    authenticator: Option<Authenticator>,
    authorize: Option<Arc<dyn Authorize>>,
    reloading: Option<Reloading>,
    origins: BTreeMap<String, String>,
    passed: PassedSockets,
}

impl Builder {
    /// Uses this configuration.
    #[must_use]
    pub fn config(mut self, config: Config) -> Builder {
        self.config = config;
        self
    }

    /// Uses this configuration, and knows where each value was written.
    #[must_use]
    pub fn loaded(mut self, loaded: Loaded) -> Builder {
        self.origins = loaded.origins;
        self.config(loaded.config)
    }

    /// Listens on this TCP address, and on no other than those given so. Anonymous clients may connect,
    /// unless the configuration has back ends that know others.
    #[must_use]
    pub fn listen(mut self, address: std::net::SocketAddr) -> Builder {
        let is_first = self.config.listeners == Config::default().listeners;
        if is_first {
            self.config.listeners.clear();
        }
        self.config.listeners.push(Listener {
            name: address.to_string(),
            address: Address::Tcp(address),
            transport: Transport::Plain,
            allow_anonymous: self.config.auth.chain.is_empty(),
            client_identity: ClientIdentity::None,
            proxies: Proxies::default(),
            auth: self.config.auth.chain.clone(),
            durability: self.config.durability,
            connections_max: self.config.limits.connections_max,
        });
        self
    }

    /// Keeps sessions, their messages and retained messages in this directory, so that they survive the process:
    /// what is acknowledged is on disk. One broker at a time can use it.
    #[must_use]
    pub fn data_dir(mut self, path: impl Into<PathBuf>) -> Builder {
        self.config.data_dir = path.into();
        self.config.persistence = Persistence::Disk;
        self
    }

    /// Listens nowhere: only clients in this process can connect.
    #[must_use]
    pub fn no_listeners(mut self) -> Builder {
        self.config.listeners.clear();
        self
    }

    /// Decides who clients are, instead of the back ends of the configuration. Without either, each listener
    /// decides by its `allow_anonymous`.
    #[must_use]
    pub fn authenticator(mut self, authenticator: impl Authenticate) -> Builder {
        self.authenticator = Some(Arc::new(authenticator));
        self
    }

    /// Decides what clients may do, whatever the configuration says. By default the rules of `acl.file` decide;
    /// where there are none, clients may do all but publish to `$SYS`.
    #[must_use]
    pub fn authorizer(mut self, authorizer: impl Authorize + 'static) -> Builder {
        self.authorize = Some(Arc::new(authorizer));
        self
    }

    /// How the configuration is read again: see [`Broker::reload`].
    #[must_use]
    pub fn reloading(mut self, reloading: Reloading) -> Builder {
        self.reloading = Some(reloading);
        self
    }

    /// Listens on these sockets, which a service manager has opened, where they belong to a listener.
    #[must_use]
    pub fn sockets(mut self, passed: PassedSockets) -> Builder {
        self.passed = passed;
        self
    }

    /// Starts the broker: when this returns, its listeners listen.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub async fn start(self) -> Result<Broker, StartError> {
        let Builder { config, origins, authenticator, authorize, reloading, passed } = self;
        let (authenticator, chain) = choose_authenticator(authenticator, &config)?;
        let doors = open_doors(&config, passed)?;
        let rules = choose_rules(authorize.as_ref(), &config)?;
        let authorize = authorize.or_else(|| rules.clone().map(|rules| rules as Arc<dyn Authorize>));
        let clock = Clock::start();
        let storage = Storage::open(&config, clock.now()).await.map_err(StartError::Store)?;
        let random = rustls::crypto::aws_lc_rs::default_provider().secure_random;
        let mut shared = Shared::new(config.limits.clone(), config.shards, random_seed(random)?);
        shared.check_payload_format = config.check_payload_format;
        shared.bind_sessions = config.auth.bind_sessions;
        storage.prepare(&mut shared);
        if let Some(authorize) = authorize {
            shared.authorize = authorize;
        }
        let (guard, audit) = (open_guard(&config)?, Audit::open(&config.audit).map_err(StartError::Audit)?);
        let shared = Arc::new(shared);
        let mailboxes = Arc::new(Mailboxes::new(config.shards));
        let failure = Arc::new(Failure::default());
        let common = Arc::new(Common {
            handshakes: Arc::new(Semaphore::new(shared.limits.handshakes_max)),
            limits: ArcSwap::from_pointee(shared.limits.clone()),
            guard,
            audit,
            insight: Insight::default(),
            running: Running::new(config.clone(), origins, reloading, rules.clone(), chain.clone()),
            commits: Arc::new(Observer::new(mailboxes.clone(), shared.clone(), failure.clone())),
            shared,
            clock,
            store: storage.store.clone(),
            local: storage.local.clone(),
            authenticator,
            mailboxes,
            connections: AtomicUsize::new(0),
            local_door: Arc::new(Door::local(&config)),
            random,
            sys_interval: config.sys_interval,
        });
        let addresses =
            doors.iter().map(|(door, bound)| (door.name.clone(), bound.local_address().clone())).collect();
        let mut broker = Broker {
            common,
            addresses,
            rules,
            threads: Vec::new(),
            chain,
            failure,
            doors: Arc::new(doors),
            stop_timeout: config.stop_timeout,
        };
        let shards = storage.shards(&broker.common);
        if let Err(error) = broker.start_shards(shards).await {
            broker.stop().await;
            return Err(error.into());
        }
        broker.tell(config.durability);
        Ok(broker)
    }
}

impl Broker {
    /// A broker to be configured and started: by default it listens on 127.0.0.1:1883 and `[::1]:1883`, and
    /// keeps what it knows in memory. See [`Builder::data_dir`].
    #[must_use]
    pub fn builder() -> Builder {
        let config = Config { persistence: Persistence::Memory, ..Config::default() };
        Builder {
            config,
            authenticator: None,
            authorize: None,
            reloading: None,
            origins: BTreeMap::new(),
            passed: PassedSockets::default(),
        }
    }

    /// Names and addresses of the listeners, with the ports that they got.
    #[must_use]
    pub fn addresses(&self) -> &[(String, LocalAddress)] {
        &self.addresses
    }

    /// The access rules, unless the program has its own: [`Rules::replace`] changes them while clients are connected.
    #[must_use]
    pub fn rules(&self) -> Option<&Arc<Rules>> {
        self.rules.as_ref()
    }

    /// Reads the certificates, keys, authorities and revocation lists of all listeners again, for connections from
    /// now on. They are looked at every few seconds anyway; this is for who does not want to wait. A listener whose
    /// files cannot be used keeps what it has, and is in what is returned, with the reason. The caller waits for the
    /// disk.
    pub fn reload_certificates(&self) -> Vec<(String, TlsError)> {
        let refused = |door: &Arc<Door>| Some((door.name.clone(), certificates::reload(door).err()?));
        self.doors.iter().filter_map(|(door, _)| refused(door)).collect()
    }

    /// Until when the certificates and revocation lists of the listeners are good, each with its listener's name.
    #[must_use]
    pub fn certificates(&self) -> Vec<(String, Validity)> {
        let of = |door: &Arc<Door>| door.transport.tls().map(|tls| tls.validities()).unwrap_or_default();
        let named = |door: &Arc<Door>| {
            of(door).into_iter().map(|validity| (door.name.clone(), validity)).collect::<Vec<_>>()
        };
        self.doors.iter().flat_map(|(door, _)| named(door)).collect()
    }

    /// The back ends of the configuration, to be replaced while the broker runs. `None` if it has none, or an
    /// [`authenticator`](Builder::authenticator) was given.
    #[must_use]
    pub fn chain(&self) -> Option<&Arc<Chain>> {
        self.chain.as_ref()
    }

    /// Connects a client in this process, without a socket. To the broker it is a client like any other: it
    /// is counted among the connections, the authenticator is asked about it (its peer is
    /// [`Peer::Memory`](crate::net::Peer::Memory)), and it takes over from another client with its
    /// identifier. With an empty one it gets an identifier of its own.
    ///
    /// # Errors
    /// [`ClientError`] if the broker refuses it.
    pub async fn client(&self, client_id: &str) -> Result<Client, ClientError> {
        let (inside, outside) = tokio::io::duplex(client::PIPE_BYTES);
        let home = self.common.home(client_id);
        self.common.mailboxes[home].post([Mail::Local(Socket::memory(inside))]);
        Client::connect(outside, client_id).await
    }

    /// Stops: no more connections, DISCONNECT 0x8B to v5 clients, and time for what is still to be sent.
    /// Returns when all threads have ended, within the time that the configuration gives.
    ///
    /// A broker that is dropped instead stops likewise, but nobody waits for it.
    pub async fn stop(mut self) {
        self.tell_to_stop();
        let deadline = Instant::now() + self.stop_timeout + STOP_GRACE;
        for thread in std::mem::take(&mut self.threads) {
            if timeout_at(deadline, thread.ended).await.is_err() {
                warn!("a shard did not stop in time");
            } else if thread.handle.join().is_err() {
                warn!("a shard ended by a panic");
            }
        }
        let common = self.common.clone();
        let close = tokio::task::spawn_blocking(move || common.store.close(common.clock.now()));
        if close.await.is_err() {
            warn!("the store ended by a panic");
        }
    }

    /// Reads the configuration again, by what [`Builder::reloading`] was given, and takes over what can change while
    /// the broker runs. What came of it is in the log too.
    ///
    /// # Errors
    /// What is wrong with it; nothing has changed then.
    pub async fn reload(&self) -> Result<Plan, String> {
        let common = self.common.clone();
        for (listener, error) in self.reload_certificates() {
            warn!(listener, "the certificates were not replaced: {error}");
        }
        tokio::task::spawn_blocking(move || common.reload()).await.map_err(|error| error.to_string())?
    }

    /// Waits until the store has failed: nothing is accepted any more, and the broker is to be stopped. Returns
    /// why. It does not return while all is well.
    pub async fn failed(&self) -> String {
        self.failure.wait().await
    }
}

impl Broker {
    /// Says where it listens and what it promises.
    fn tell(&self, durability: Durability) {
        let is_lasting = self.common.shared.is_lasting;
        let told = |durability: Durability| if is_lasting { durability } else { Durability::None };
        for ((name, address), (door, _)) in self.addresses.iter().zip(self.doors.iter()) {
            info!(listener = name, durability = %told(door.durability), "listening on {address}");
        }
        info!(
            version = env!("CARGO_PKG_VERSION"),
            shards = self.threads.len(),
            durability = %match is_lasting {
                true => durability.to_string(),
                false => "none: sessions and messages are kept in memory".to_owned(),
            },
            "ready"
        );
    }

    /// Starts the threads and waits until they listen.
    async fn start_shards(&mut self, shards: Vec<Shard>) -> io::Result<()> {
        let mut ready = Vec::with_capacity(shards.len());
        for (index, shard) in shards.into_iter().enumerate() {
            let (tell, is_ready) = oneshot::channel();
            let (common, doors) = (self.common.clone(), self.doors.clone());
            self.threads.push(spawn_shard(index as u16, shard, common, doors, self.stop_timeout, tell)?);
            ready.push(is_ready);
        }
        for is_ready in ready {
            is_ready.await.map_err(|_| io::Error::other("a shard did not start"))??;
        }
        Ok(())
    }

    fn tell_to_stop(&mut self) {
        // Closed here and, when they hear of it, by the shards: from then on connections are refused.
        self.doors = Arc::default();
        self.common.handshakes.close();
        for mailbox in self.common.mailboxes.iter() {
            mailbox.post([Mail::Stop]);
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if !self.threads.is_empty() {
            self.tell_to_stop();
        }
    }
}

/// Time that a shard has beyond its own limit to end its thread.
const STOP_GRACE: Duration = Duration::from_secs(1);

fn random_seed(random: &dyn SecureRandom) -> io::Result<u64> {
    let mut seed = [0; 8];
    random.fill(&mut seed).map_err(|_| io::Error::other("no random numbers"))?;
    Ok(u64::from_ne_bytes(seed))
}

/// The access rules of the configuration, unless the program has its own.
fn choose_rules(
    authorize: Option<&Arc<dyn Authorize>>,
    config: &Config,
) -> Result<Option<Arc<Rules>>, StartError> {
    let policy = config.acl.as_ref().map(Acl::load).transpose().map_err(StartError::Acl)?;
    Ok(authorize.is_none().then(|| Arc::new(Rules::new(policy.map(Arc::new)))))
}

/// Who is kept out, and what each may take.
fn open_guard(config: &Config) -> Result<Guard, StartError> {
    let guard = Guard::default();
    guard.set_limits(config.guard.clone());
    guard.set_bans(Bans::of(Bans::read(&config.bans_file).map_err(StartError::Bans)?));
    Ok(guard)
}

/// The embedder's authenticator, else the back ends of the configuration, else the listeners decide alone.
fn choose_authenticator(
    given: Option<Authenticator>,
    config: &Config,
) -> Result<(Authenticator, Option<Arc<Chain>>), StartError> {
    match given {
        Some(authenticator) => Ok((authenticator, None)),
        None if config.auth.backends.is_empty() => Ok((Arc::new(ByListener), None)),
        None => {
            let chain = Arc::new(Chain::open(config).map_err(StartError::Auth)?);
            Ok((chain.clone(), Some(chain)))
        }
    }
}

/// Opens the listeners. One on an address that this machine does not have, as `[::1]` where there is no
/// IPv6, is left out with a warning if another is open.
fn open_doors(config: &Config, passed: PassedSockets) -> Result<Vec<(Arc<Door>, BoundListener)>, StartError> {
    let prepare = |listener: &Listener| {
        PreparedTransport::of(listener)
            .map_err(|error| StartError::Tls { listener: listener.name.clone(), error })
    };
    // All certificates before any address: what is wrong with a file is told also while another broker runs.
    let transports = config.listeners.iter().map(prepare).collect::<Result<Vec<_>, _>>()?;
    let passed = passed.assign(&config.listeners).map_err(StartError::Passed)?;
    let mut doors = Vec::with_capacity(transports.len());
    let mut left_out = None;
    for ((listener, transport), passed) in config.listeners.iter().zip(transports).zip(passed) {
        let bound = match passed {
            Some(socket) => Ok(BoundListener::adopt(listener, socket)?),
            None => BoundListener::bind(listener),
        };
        match bound {
            Ok(bound) => doors.push((Arc::new(Door::new(listener, transport)), bound)),
            Err(error) if is_unavailable(&error) => {
                warn!("{error}");
                left_out = Some(error);
            }
            Err(error) => return Err(StartError::Bind(error)),
        }
    }
    match left_out {
        Some(error) if doors.is_empty() => Err(StartError::Bind(error)),
        Some(_) | None => Ok(doors),
    }
}

fn is_unavailable(error: &BindError) -> bool {
    matches!(error.kind(), BindErrorKind::AddressNotAvailable | BindErrorKind::Unsupported)
}

type Doors = Arc<Vec<(Arc<Door>, BoundListener)>>;

fn spawn_shard(
    index: u16,
    shard: Shard,
    common: Arc<Common>,
    doors: Doors,
    stop_timeout: Duration,
    ready: oneshot::Sender<io::Result<()>>,
) -> io::Result<ShardThread> {
    let (tell, ended) = oneshot::channel();
    let run = move || {
        let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                let _: Result<(), _> = ready.send(Err(error));
                return;
            }
        };
        let tasks = LocalSet::new();
        tasks.block_on(&runtime, run_shard(index, shard, common, doors, stop_timeout, ready));
        drop(tasks);
        let _: Result<(), _> = tell.send(());
    };
    let handle = std::thread::Builder::new().name(format!("shard-{index}")).spawn(run)?;
    Ok(ShardThread { handle, ended })
}

/// The main task of a shard: mail and timers, until the broker stops and all connections are gone.
#[expect(clippy::disallowed_methods, reason = "the shell has tasks")]
async fn run_shard(
    index: u16,
    shard: Shard,
    common: Arc<Common>,
    doors: Doors,
    stop_timeout: Duration,
    ready: oneshot::Sender<io::Result<()>>,
) {
    let cell = ShardCell::new(index, common, shard);
    // What the start has made of sessions goes to the store now: on a quiet shard it would wait for the first
    // client, and a second crash would forget since when the others are gone.
    cell.turn(|shard, now, out| shard.timeout(now, out));
    let mut acceptors = Vec::new();
    for (door, listener) in doors.iter() {
        match listener.acceptor() {
            Ok(acceptor) => {
                acceptors.push(tokio::task::spawn_local(listen::accept(
                    cell.clone(),
                    door.clone(),
                    acceptor,
                )));
            }
            Err(error) => {
                let _: Result<(), _> = ready.send(Err(error));
                return;
            }
        }
    }
    if index == 0 {
        if let Some(store) = &cell.common.local {
            storage::serve_control(&cell.common, store);
        }
        tokio::task::spawn_local(storage::keep_alive(cell.clone()));
        tokio::task::spawn_local(strain::watch(cell.clone()));
    }
    tokio::task::spawn_local({
        let pace = cell.pace.clone();
        async move { pace.run().await }
    });
    if index == 0 {
        let doors = doors.iter().map(|(door, _)| door.clone()).collect();
        tokio::task::spawn_local(certificates::watch(cell.clone(), doors));
    }
    if index == 0 && !cell.common.sys_interval.is_zero() {
        tokio::task::spawn_local(publish_sys(cell.clone()));
    }
    let _: Result<(), _> = ready.send(Ok(()));
    serve_mail(&cell).await;
    for acceptor in acceptors {
        acceptor.abort();
    }
    let drained = async {
        while cell.connections.get() > 0 {
            tokio::select! {
                () = cell.emptied.notified() => {}
                () = cell.common.mailboxes[usize::from(index)].wait() => cell.read_mail(),
            }
        }
    };
    if timeout_at(Instant::now() + stop_timeout, drained).await.is_err() {
        let left = cell.connections.get();
        info!(left, "connections did not take what was for them in time");
    }
}

/// Reads mail and sees to timers until the broker stops.
async fn serve_mail(cell: &Rc<ShardCell>) {
    let mailbox = &cell.common.mailboxes[usize::from(cell.index)];
    let mut alarm = Alarm::new();
    while !cell.is_stopping.get() {
        alarm.set(cell.timeout(), cell.clock());
        tokio::select! {
            biased;
            () = mailbox.wait() => cell.read_mail(),
            () = cell.rearm.notified() => {}
            () = alarm.rings() => {}
        }
    }
}

/// Tells of the broker under `$SYS`, again and again.
async fn publish_sys(cell: Rc<ShardCell>) {
    let mut interval = tokio::time::interval(cell.common.sys_interval);
    // A machine that has slept need not make up for what it has missed.
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !cell.is_stopping.get() {
        interval.tick().await;
        let messages = sys::messages(&cell.common.shared, cell.clock().uptime().as_secs());
        cell.turn(|shard, now, out| {
            messages.into_iter().for_each(|message| shard.publish(now, message, out));
        });
    }
}
