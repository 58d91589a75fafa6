//! Random operations against what must always hold.
//!
//! A few publishers and subscribers that know the standard do anything at any time: connections fail, the
//! store takes its time, messages between shards are late, acknowledgements come in any order, queues are
//! parked in the store, and the broker crashes and starts again. Whatever happens:
//! - a QoS 1 or 2 message that was acknowledged reaches every durable subscriber that was subscribed, or is
//!   counted as dropped where the policy for full queues is to drop,
//! - a QoS 2 message reaches each at most once,
//! - messages of one publisher, topic and QoS come in order,
//! - a packet identifier means one message until that is settled, also across connections,
//! - the accounts agree at the end: see [`World::assert_accounting`], and the harness's own checks.
//!
//! A failure prints the seed: `DUNLIN_SEED=n cargo test --test spec model`. `DUNLIN_SEEDS=n` runs that many.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use dunlin::{
    broker::DropReason,
    codec::{PacketKind, QoS, ReasonCode, Version},
    limits::{Durability, Overflow, Parking},
};

use crate::world::{Client, Got, GotMessage, Setup, World};

const SEEDS: u64 = 300;
const STEPS: usize = 150;
const TOPICS: [&str; 2] = ["t/0", "t/1"];
const FILTERS: [&str; 3] = ["t/#", "t/0", "+/1"];
const SHARED_FILTER: &str = "$share/group/t/#";
const ALL_QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
/// Times that what is refused or withheld at the end is tried again, each time with less in the queues.
const FINISH_ROUNDS: usize = 20;
/// Unacknowledged messages of one publisher.
const INFLIGHT_MAX: usize = 8;

/// Splitmix64: the same numbers from the same seed, everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }
}

/// Prints how to repeat a run that fails.
struct Repeat(u64);

impl Drop for Repeat {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("repeat with: DUNLIN_SEED={} cargo test --test spec model", self.0);
        }
    }
}

/// How subscribers subscribe.
#[derive(Clone, Copy, PartialEq)]
enum Mode {
    /// Each for itself, and they change their mind.
    Direct,
    /// All in one group, from the beginning to the end; all sessions last.
    Shared,
}

/// What the broker may do when its queues are full.
#[derive(Clone, Copy)]
struct Rules {
    session: Overflow,
    all: Overflow,
    /// Whether queues ever get full.
    is_tight: bool,
}

impl Rules {
    fn new(random: &mut Random) -> Rules {
        let policies = [Overflow::Reject, Overflow::DropOldest, Overflow::DropNewest, Overflow::Backpressure];
        Rules { session: random.pick(&policies), all: random.pick(&policies), is_tight: random.one_in(2) }
    }

    fn has(&self, policies: &[Overflow]) -> bool {
        self.is_tight && (policies.contains(&self.session) || policies.contains(&self.all))
    }

    /// Whether a publisher may be refused.
    fn refuse(&self) -> bool {
        self.has(&[Overflow::Reject])
    }

    /// Whether a message that was acknowledged may be dropped.
    fn drop(&self) -> bool {
        self.has(&[Overflow::DropOldest, Overflow::DropNewest])
    }

    /// Whether a session that ends with its connection may be closed for its queue.
    fn close(&self) -> bool {
        self.is_tight && self.session == Overflow::Reject
    }
}

/// One message, named by its payload: publisher, number, QoS.
type Name = String;

struct Publisher {
    setup: Setup,
    client: Option<Client>,
    sent: u64,
    next_id: u16,
    inflight: Vec<Inflight>,
}

struct Inflight {
    id: u16,
    topic: &'static str,
    name: Name,
    qos: QoS,
    retain: bool,
    is_received: bool,
    /// The subscribers that must get it once it is acknowledged, with their epoch.
    owed: Vec<(usize, u64)>,
}

struct Subscriber {
    setup: Setup,
    client: Option<Client>,
    /// Subscriptions that SUBACK has confirmed.
    active: BTreeMap<&'static str, QoS>,
    awaited: BTreeMap<u16, (&'static str, QoS)>,
    /// Counts what ends the claim to messages: unsubscribing, and a new session.
    epoch: u64,
    /// Acknowledgements that it has not sent yet.
    due: Vec<(PacketKind, u16)>,
    /// What each packet identifier means.
    live: BTreeMap<u16, Name>,
    unreleased: BTreeSet<u16>,
    seen: BTreeSet<Name>,
    newest: BTreeMap<(String, String, QoS), u64>,
    required: BTreeSet<Name>,
    /// QoS 1 messages that their publisher has sent again: they may come after later ones.
    repeated: BTreeSet<Name>,
}

struct Run {
    world: World,
    random: Random,
    mode: Mode,
    /// Whether the broker may crash. It takes a store that gives back what was parked there, clients that were
    /// promised that nothing is lost, and counters of drops that go on.
    crashes: bool,
    rules: Rules,
    publishers: Vec<Publisher>,
    subscribers: Vec<Subscriber>,
    /// What must reach some member of the group.
    group_required: BTreeSet<Name>,
}

fn is_durable(setup: &Setup) -> bool {
    !setup.clean
}

impl Subscriber {
    fn new(setup: Setup) -> Subscriber {
        Subscriber {
            setup,
            client: None,
            active: BTreeMap::new(),
            awaited: BTreeMap::new(),
            epoch: 0,
            due: Vec::new(),
            live: BTreeMap::new(),
            unreleased: BTreeSet::new(),
            seen: BTreeSet::new(),
            newest: BTreeMap::new(),
            required: BTreeSet::new(),
            repeated: BTreeSet::new(),
        }
    }

    /// A new session: nothing of the one before counts.
    fn forget(&mut self) {
        let repeated = std::mem::take(&mut self.repeated);
        *self = Subscriber { epoch: self.epoch + 1, repeated, ..Subscriber::new(self.setup.clone()) };
    }

    fn is_owed(&self, topic: &str) -> bool {
        if !TOPICS.contains(&topic) {
            return false;
        }
        let matches = |filter: &str| match filter {
            "t/#" | SHARED_FILTER => true,
            "t/0" => topic == "t/0",
            _ => topic == "t/1",
        };
        is_durable(&self.setup)
            && self.active.iter().any(|(filter, qos)| *qos > QoS::AtMostOnce && matches(filter))
    }

    fn on_message(&mut self, message: &GotMessage, mode: Mode) {
        if let Some(id) = message.id {
            let kind = if message.qos == QoS::ExactlyOnce { PacketKind::PubRec } else { PacketKind::PubAck };
            self.due.push((kind, id));
            let before = self.live.insert(id, message.payload.clone());
            assert!(
                before.as_ref().is_none_or(|before| *before == message.payload),
                "packet identifier {id} of {before:?} is used for {}",
                message.payload
            );
            if message.qos == QoS::ExactlyOnce && !self.unreleased.insert(id) {
                return;
            }
        }
        let parts: Vec<&str> = message.payload.split(':').collect();
        let [publisher, number, published] = parts[..] else { panic!("foreign message {message:?}") };
        let is_new = self.seen.insert(message.payload.clone());
        if published == "2" && message.qos == QoS::ExactlyOnce {
            assert!(is_new, "{} was delivered twice", message.payload);
        }
        if mode == Mode::Shared || !is_new || self.repeated.contains(&message.payload) {
            return;
        }
        let number: u64 = number.parse().expect("the second part is a number");
        let stream = (format!("{publisher}:{published}"), message.topic.clone(), message.qos);
        let newest = self.newest.insert(stream, number);
        assert!(newest.is_none_or(|newest| newest < number), "{} came after {newest:?}", message.payload);
    }

    /// Takes in all packets that have come.
    fn poll(&mut self, mode: Mode, rules: Rules) {
        let Some(client) = self.client.clone() else { return };
        let may_close = rules.close() && !is_durable(&self.setup);
        for got in client.recv_all() {
            match got {
                Got::Publish(message) => self.on_message(&message, mode),
                Got::Ack { kind: PacketKind::PubRel, id, code: 0, .. } => {
                    self.unreleased.remove(&id);
                    self.live.remove(&id);
                    self.due.push((PacketKind::PubComp, id));
                }
                Got::SubAck { id, codes } => {
                    let (filter, qos) = self.awaited.remove(&id).expect("SUBACK for a SUBSCRIBE");
                    assert_eq!(codes, [qos as u8]);
                    self.active.insert(filter, qos);
                }
                Got::ConnAck { code: 0, .. } | Got::UnsubAck { .. } => {}
                Got::Disconnect { code, .. } if may_close && code == ReasonCode::QuotaExceeded as u8 => {}
                other => panic!("a subscriber got {other:?}"),
            }
        }
        if client.is_closed() {
            assert!(may_close, "the broker closed a connection");
            self.drop_link();
        }
    }

    fn acknowledge(&mut self, at: usize) {
        let Some(client) = &self.client else { return };
        let (kind, id) = self.due.remove(at);
        if kind == PacketKind::PubAck {
            self.live.remove(&id);
        }
        client.ack(kind, id);
    }

    fn drop_link(&mut self) {
        let Some(client) = self.client.take() else { return };
        client.drop_link();
        self.due.clear();
        self.awaited.clear();
        if !is_durable(&self.setup) {
            self.forget();
        }
    }
}

impl Run {
    fn new(seed: u64) -> Run {
        let mut random = Random(seed);
        let shards = 1 + random.below(3);
        let mode = random.pick(&[Mode::Direct, Mode::Direct, Mode::Shared]);
        let rules = Rules::new(&mut random);
        let (session_max, all_max) = (2 + random.below(6), 3 + random.below(12));
        let is_parking = !random.one_in(4);
        let parking = Parking {
            messages_max: 1 + random.below(4),
            bytes_max: 20 + random.below(100),
            spare_bytes_max: random.pick(&[0, 100]),
            index_bytes_max: random.pick(&[0, 0, 60, 1000]),
            run_messages_max: 1 + random.below(3),
        };
        let crashes = is_parking && !rules.drop() && !random.one_in(3);
        let world = World::with(shards, |shared| {
            shared.parking = is_parking.then_some(parking);
            let limits = &mut shared.limits;
            limits.outbox_bytes_max = 2000;
            limits.session_queue_overflow = rules.session;
            limits.queues_overflow = rules.all;
            if rules.is_tight {
                limits.session_queue_messages_max = session_max;
                limits.queues_messages_max = all_max;
            }
        });
        let setup = |random: &mut Random, name: &str| {
            let id = world.id_on(random.below(shards), name);
            let version = random.pick(&[Version::V311, Version::V5]);
            let setup = match mode == Mode::Direct && random.one_in(3) {
                true => Setup::new(version, &id),
                false => Setup::durable(version, &id).expiry(u32::MAX),
            };
            let maximum = random.pick(&[1, 3, 100]);
            let interval = Durability::Interval(Duration::from_millis(100));
            let durability = match crashes {
                true => Durability::Commit,
                false => random.pick(&[Durability::Commit, Durability::Commit, interval, Durability::None]),
            };
            setup.receive_maximum(maximum).aliases(random.below(3) as u16).durability(durability).manual()
        };
        let subscribers =
            (0..3).map(|number| Subscriber::new(setup(&mut random, &format!("s{number}-")))).collect();
        let publishers = (0..2).map(|number| Publisher {
            setup: setup(&mut random, &format!("p{number}-")),
            client: None,
            sent: 0,
            next_id: 1,
            inflight: Vec::new(),
        });
        let publishers = publishers.collect();
        let group_required = BTreeSet::new();
        Run { world, random, mode, crashes, rules, publishers, subscribers, group_required }
    }

    fn poll(&mut self) {
        for subscriber in &mut self.subscribers {
            subscriber.poll(self.mode, self.rules);
        }
        for number in 0..self.publishers.len() {
            self.poll_publisher(number);
        }
    }

    fn poll_publisher(&mut self, number: usize) {
        let publisher = &mut self.publishers[number];
        let Some(client) = publisher.client.clone() else { return };
        for got in client.recv_all() {
            let Got::Ack { kind, id, code, .. } = got else {
                assert!(matches!(got, Got::ConnAck { code: 0, .. }), "a publisher got {got:?}");
                continue;
            };
            // A PUBREL that is repeated may find its identifier released.
            let is_refused = self.rules.refuse() && code == ReasonCode::QuotaExceeded as u8;
            let is_known = code < 0x80 || is_refused || (kind == PacketKind::PubComp && code == 0x92);
            assert!(is_known, "{kind} with {code:02x}");
            let publisher = &mut self.publishers[number];
            let Some(at) = publisher.inflight.iter().position(|inflight| inflight.id == id) else {
                continue;
            };
            match kind {
                // Nobody got it, and it is not sent again.
                PacketKind::PubAck | PacketKind::PubRec if is_refused => {
                    publisher.inflight.remove(at);
                }
                PacketKind::PubAck => {
                    let inflight = publisher.inflight.remove(at);
                    self.accepted(&inflight.name, &inflight.owed);
                }
                PacketKind::PubRec => {
                    let inflight = &mut publisher.inflight[at];
                    inflight.is_received = true;
                    let (name, owed) = (inflight.name.clone(), inflight.owed.clone());
                    self.accepted(&name, &owed);
                    // Later, sometimes: see `release`.
                    if !self.random.one_in(3) {
                        client.ack(PacketKind::PubRel, id);
                    }
                }
                PacketKind::PubComp => drop(publisher.inflight.remove(at)),
                other => panic!("a publisher got {other}"),
            }
        }
        assert!(!client.is_closed(), "the broker closed a connection");
    }

    /// A message was acknowledged to its publisher.
    fn accepted(&mut self, name: &Name, owed: &[(usize, u64)]) {
        if self.mode == Mode::Shared {
            if !owed.is_empty() {
                self.group_required.insert(name.clone());
            }
            return;
        }
        for (number, epoch) in owed {
            let subscriber = &mut self.subscribers[*number];
            if subscriber.epoch == *epoch {
                subscriber.required.insert(name.clone());
            }
        }
    }

    fn publish(&mut self, number: usize) {
        // Now and then one that nobody gets, and that the store has to have at the end.
        let retain = self.random.one_in(10);
        let topic = if retain { "retained" } else { self.random.pick(&TOPICS) };
        let qos = self.random.pick(&ALL_QOS);
        let owed = self.subscribers.iter().enumerate().filter(|(_, subscriber)| subscriber.is_owed(topic));
        let owed = owed.map(|(number, subscriber)| (number, subscriber.epoch)).collect();
        let publisher = &mut self.publishers[number];
        let Some(client) = publisher.client.clone() else { return };
        if publisher.inflight.len() >= INFLIGHT_MAX {
            return;
        }
        publisher.sent += 1;
        let name = format!("{number}:{}:{}", publisher.sent, qos as u8);
        let id = publisher.next_id;
        if qos > QoS::AtMostOnce {
            publisher.next_id += 1;
            let inflight = Inflight { id, topic, name: name.clone(), qos, retain, is_received: false, owed };
            publisher.inflight.push(inflight);
        }
        client.publish_as(id, topic, &name, qos, |publish| publish.retain = retain);
    }

    /// Connects a publisher, and goes on where its last connection stopped.
    fn connect_publisher(&mut self, number: usize) {
        let publisher = &mut self.publishers[number];
        if !is_durable(&publisher.setup) {
            publisher.inflight.clear();
        }
        // While it is connected this takes the connection over.
        let client = self.world.send_connect(publisher.setup.clone());
        publisher.client = Some(client.clone());
        for inflight in &publisher.inflight {
            // One of QoS 2 that was refused without a word comes after what was published later.
            if inflight.qos == QoS::AtLeastOnce || (self.rules.refuse() && !inflight.is_received) {
                for subscriber in &mut self.subscribers {
                    subscriber.repeated.insert(inflight.name.clone());
                }
            }
            if inflight.is_received {
                client.ack(PacketKind::PubRel, inflight.id);
            } else {
                client.publish_as(inflight.id, inflight.topic, &inflight.name, inflight.qos, |publish| {
                    publish.dup = true;
                    publish.retain = inflight.retain;
                });
            }
        }
    }

    /// Sends the PUBRELs that are due.
    fn release(&mut self, number: usize) {
        let publisher = &self.publishers[number];
        let Some(client) = &publisher.client else { return };
        for inflight in publisher.inflight.iter().filter(|inflight| inflight.is_received) {
            client.ack(PacketKind::PubRel, inflight.id);
        }
    }

    fn connect_subscriber(&mut self, number: usize) {
        // A direct subscriber whose session lasts sometimes wants a new one.
        let wants_new = self.mode == Mode::Direct && self.random.one_in(8);
        let subscriber = &mut self.subscribers[number];
        let mut setup = subscriber.setup.clone();
        if wants_new || !is_durable(&setup) {
            subscriber.forget();
            setup.clean = true;
            if setup.version == Version::V311 && is_durable(&subscriber.setup) {
                // In MQTT 3.1.1 a new session that lasts takes two connections.
                self.world.send_connect(setup).drop_link();
                setup = subscriber.setup.clone();
            }
        }
        subscriber.due.clear();
        subscriber.awaited.clear();
        subscriber.client = Some(self.world.send_connect(setup));
    }

    fn subscribe(&mut self, number: usize) {
        let qos = self.random.pick(&ALL_QOS);
        let filter = self.random.pick(&FILTERS);
        let subscriber = &mut self.subscribers[number];
        // One at a time, so that it is clear which one is in force.
        let Some(client) = subscriber.client.as_ref().filter(|_| subscriber.awaited.is_empty()) else {
            return;
        };
        let (filter, qos) = match self.mode {
            Mode::Direct => (filter, qos),
            Mode::Shared => (SHARED_FILTER, QoS::ExactlyOnce),
        };
        if self.mode == Mode::Direct {
            // A lower QoS ends the claim of the one before.
            subscriber.active.remove(filter);
            subscriber.epoch += 1;
        }
        let id = client
            .send_subscribe(&[(filter, dunlin::codec::SubscriptionOptions { qos, ..Default::default() })], 0);
        subscriber.awaited.insert(id, (filter, qos));
    }

    fn unsubscribe(&mut self, number: usize) {
        let filter = self.random.pick(&FILTERS);
        let subscriber = &mut self.subscribers[number];
        let Some(client) = &subscriber.client else { return };
        if self.mode == Mode::Direct && subscriber.awaited.is_empty() {
            subscriber.active.remove(filter);
            subscriber.epoch += 1;
            client.send_unsubscribe(&[filter]);
        }
    }

    fn step(&mut self) {
        let publisher = self.random.below(self.publishers.len());
        let subscriber = self.random.below(self.subscribers.len());
        match self.random.below(101) {
            0..=39 => self.publish(publisher),
            40..=43 => self.connect_publisher(publisher),
            44..=45 => {
                if let Some(client) = self.publishers[publisher].client.take() {
                    client.drop_link();
                }
            }
            46..=48 => self.release(publisher),
            49..=54 => self.connect_subscriber(subscriber),
            55..=57 => self.subscribers[subscriber].drop_link(),
            58..=61 => self.subscribe(subscriber),
            62 => self.unsubscribe(subscriber),
            63..=87 => {
                let due = self.subscribers[subscriber].due.len();
                if due > 0 {
                    let at = if self.random.one_in(4) { self.random.below(due) } else { 0 };
                    self.subscribers[subscriber].acknowledge(at);
                }
            }
            88..=90 => self.world.hold_commits(),
            91..=93 => drop(self.world.commit_one(0)),
            94..=95 => self.world.release_commits(),
            96 => self.world.hold_forwards(),
            97..=98 => self.world.release_forwards(),
            99 if self.crashes => self.crash(),
            _ => self.world.advance_secs(30),
        }
        self.poll();
    }

    /// The broker crashes and starts again.
    fn crash(&mut self) {
        let downtime = self.random.below(60_000) as u64;
        self.world.crash(Duration::from_millis(downtime));
        for publisher in &mut self.publishers {
            publisher.client = None;
        }
        for subscriber in &mut self.subscribers {
            subscriber.client = None;
            subscriber.due.clear();
            subscriber.awaited.clear();
            if is_durable(&subscriber.setup) {
                // A message of QoS 1 may be delivered before it is in the store: then its identifier is free.
                subscriber.live.retain(|id, _| subscriber.unreleased.contains(id));
            } else {
                subscriber.forget();
            }
        }
    }

    /// Lets everything come to an end: all connect, and answer all that is due.
    fn finish(&mut self) {
        self.world.release_commits();
        self.world.release_forwards();
        self.poll();
        for number in 0..self.publishers.len() {
            self.connect_publisher(number);
        }
        for subscriber in self.subscribers.iter_mut().filter(|subscriber| is_durable(&subscriber.setup)) {
            subscriber.due.clear();
            subscriber.awaited.clear();
            subscriber.client = Some(self.world.send_connect(subscriber.setup.clone()));
        }
        self.poll();
        for _ in 0..FINISH_ROUNDS {
            (0..self.publishers.len()).for_each(|number| self.release(number));
            self.poll();
            while let Some(busy) = self.subscribers.iter().position(|subscriber| !subscriber.due.is_empty()) {
                self.subscribers[busy].acknowledge(0);
                self.poll();
            }
            // What was withheld is let go now.
            self.world.advance(Duration::from_millis(25));
            self.poll();
            if self.rules.refuse() {
                // What was refused without a word is sent again.
                (0..self.publishers.len()).for_each(|number| self.connect_publisher(number));
                self.poll();
            }
        }
    }

    /// Messages that were acknowledged and did not arrive may be those that are counted as dropped.
    fn check_lost(&self, who: &str, lost: &[&Name]) {
        let may_lose = if self.rules.drop() { self.world.drops(DropReason::QueueFull) } else { 0 };
        assert!(lost.len() as u64 <= may_lose, "{who} lost {lost:?}, {may_lose} were dropped");
    }

    fn check(&self) {
        for (number, publisher) in self.publishers.iter().enumerate() {
            let left: Vec<&Name> = publisher.inflight.iter().map(|inflight| &inflight.name).collect();
            assert!(left.is_empty(), "publisher {number} waits for acknowledgements of {left:?}");
        }
        for (number, subscriber) in self.subscribers.iter().enumerate() {
            let lost: Vec<&Name> = subscriber.required.difference(&subscriber.seen).collect();
            self.check_lost(&format!("subscriber {number}"), &lost);
        }
        let seen: BTreeSet<&Name> = self.subscribers.iter().flat_map(|subscriber| &subscriber.seen).collect();
        let lost: Vec<&Name> = self.group_required.iter().filter(|name| !seen.contains(name)).collect();
        self.check_lost("the group", &lost);
        if !self.rules.drop() {
            assert_eq!(self.world.drops(DropReason::QueueFull), 0, "drops that nobody asked for");
        }
        if self.mode == Mode::Shared {
            let all = self.subscribers.iter().flat_map(|subscriber| &subscriber.seen);
            let mut once = BTreeSet::new();
            for name in all.filter(|name| name.ends_with(":2")) {
                assert!(once.insert(name), "{name} was delivered to two members");
            }
        }
        self.world.assert_accounting();
        assert_eq!(self.world.queued_messages(), 0);
    }
}

fn run(seed: u64) {
    let _repeat = Repeat(seed);
    let mut run = Run::new(seed);
    if run.mode == Mode::Shared {
        for number in 0..run.subscribers.len() {
            run.connect_subscriber(number);
            run.subscribe(number);
        }
        run.poll();
    }
    for _ in 0..STEPS {
        run.step();
    }
    run.finish();
    run.check();
    // All sessions end, and leave nothing behind.
    let ids = run.subscribers.iter().map(|subscriber| &subscriber.setup);
    for setup in ids.chain(run.publishers.iter().map(|publisher| &publisher.setup)) {
        run.world.connect(Setup::new(setup.version, &setup.id)).disconnect();
    }
    run.world.assert_accounting();
    assert_eq!(run.world.shared().router.subscriptions(), 0);
}

#[test]
fn whatever_happens_nothing_acknowledged_is_lost_doubled_or_out_of_order() {
    match number("DUNLIN_SEED") {
        Some(seed) => run(seed),
        None => (0..number("DUNLIN_SEEDS").unwrap_or(SEEDS)).for_each(run),
    }
}

/// A number from the environment.
fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|error| panic!("{variable} is no number: {error}")))
}
