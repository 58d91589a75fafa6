//! What clients do, and when.

use dunlin::codec::{QoS, ReasonCode, RetainHandling, Version};

use super::{
    broker::{FORBIDDEN, NO_PUBLISHER, NO_SUBSCRIBER, Rules, durability},
    check::{PROBE, leaks},
    client::{Awaited, Client, Phase, Role, Turn, payload_of},
    event::Will,
    facts::{Interest, Known, Message},
    features::{Feature, Features},
    link::Manners,
    rng::Rng,
    trace::Trace,
    world::{Wake, World},
};

const TOPICS: [&str; 3] = ["t/0", "t/1", FORBIDDEN];
const FILTERS: [&str; 8] = ["t/#", "t/0", "+/1", "t/+", "#", FORBIDDEN, "r/#", "r/+"];
const SHARED_FILTER: &str = "$share/group/s/#";
const SHARED_TOPIC: &str = "s/0";
const WILLS_FILTER: &str = "w/#";
const ALL_QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
/// Rounds in which clients come back at the end and get what is due to them.
const FINISH_ROUNDS: usize = 25;
/// The first rounds last so long, in milliseconds.
const FINISH_ROUND_MILLIS: u64 = 2500;

/// A world with its clients, about to begin.
pub(crate) fn begin(seed: u64, acts: Option<u64>, off: Features, trace: Trace) -> World {
    let mut rng = Rng::new(seed);
    let features = Features::of(&mut rng, off);
    let rules = Rules::of(features, &mut rng);
    let manners = Manners {
        delay_max: if features.has(Feature::Delays) { [2, 20, 400][rng.below(3) as usize] } else { 0 },
        fragments: features.has(Feature::Fragments),
        is_narrow: features.has(Feature::Stalls) && rng.one_in(2),
    };
    let acts = acts.unwrap_or(20 + rng.below(180));
    let mut world = World::new(rng, features, rules, manners, acts, trace);
    world.trace.line(world.now, || format!("{} shards, features: {features}", world.rules.shards));
    world.add_clients();
    world
}

impl World {
    fn add_clients(&mut self) {
        let mut observer = Client::new(0, "observer".into(), Version::V5, Role::Observer);
        observer.expiry_secs = u32::MAX;
        self.add(observer);
        for _ in 0..2 + self.rng.below(4) {
            self.add_some(Role::Peer);
        }
        if self.features.has(Feature::Shared) {
            for _ in 0..1 + self.rng.below(3) {
                self.add_some(Role::Member);
            }
        }
        for client in 0..self.clients.len() {
            let at = self.now + self.rng.below(100);
            self.at(at, Wake::Act(client));
        }
        for fault in [Feature::Kill, Feature::PowerLoss, Feature::DiskFull, Feature::DiskError] {
            if self.features.has(fault) {
                self.plan_fault(fault);
            }
        }
    }

    fn plan_fault(&mut self, fault: Feature) {
        let within = [500, 5000, 60_000][self.rng.below(3) as usize];
        let at = self.now + self.rng.below(within);
        self.at(at, Wake::Fault(fault));
    }

    fn add(&mut self, mut client: Client) {
        let said = client.receive_maximum.filter(|_| client.version == Version::V5);
        let receive_maximum = match client.version {
            Version::V5 => said.map_or(usize::from(u16::MAX), |maximum| maximum.get().into()),
            Version::V31 | Version::V311 => self.rules.limits.inflight_messages_max.into(),
        };
        client.may_be_refused =
            self.features.has(Feature::SmallQueues) || self.features.has(Feature::DiskFull);
        client.is_deaf = client.id.contains(NO_SUBSCRIBER);
        let (id, is_member) = (client.id.clone(), client.role == Role::Member);
        self.facts.clients.push(Known { id, is_member, receive_maximum, ..Known::default() });
        self.clients.push(client);
    }

    fn add_some(&mut self, role: Role) {
        let number = self.clients.len();
        let mut name = format!("{role:?}-{number}").to_lowercase();
        if self.features.has(Feature::Denied) {
            name += ["", NO_PUBLISHER, NO_SUBSCRIBER][self.rng.below(3) as usize];
        }
        let version = if self.rng.one_in(3) { Version::V311 } else { Version::V5 };
        let mut client = Client::new(number, name, version, role);
        client.durability = durability(self.features, &mut self.rng);
        client.expiry_secs = match self.rng.below(4) {
            // What a member takes that ends with its connection ends with a crash too, and nobody is told.
            0 if role == Role::Peer => 0,
            1 if self.features.has(Feature::SessionExpiry) => [1, 10, 60][self.rng.below(3) as usize],
            _ => u32::MAX,
        };
        if self.features.has(Feature::SmallWindows) {
            client.receive_maximum = std::num::NonZeroU16::new(1 + self.rng.below(4) as u16);
        }
        if self.features.has(Feature::Aliases) {
            client.alias_maximum = self.rng.below(3) as u16;
        }
        if self.features.has(Feature::PacketMaximum) && self.rng.one_in(2) {
            client.packet_bytes_max = std::num::NonZeroU32::new(150 + self.rng.below(1000) as u32);
        }
        if self.features.has(Feature::KeepAlive) {
            client.keep_alive_secs = [0, 1, 5][self.rng.below(3) as usize];
        }
        client.is_late = self.features.has(Feature::LateAcks) && self.rng.one_in(2);
        self.add(client);
    }

    /// One client does something, and is put on the agenda again.
    pub(crate) fn act(&mut self, client: usize) {
        if self.facts.is_over || self.acts == 0 {
            return;
        }
        self.acts -= 1;
        match self.clients[client].phase {
            Phase::Offline => {
                let clean = self.features.has(Feature::CleanStart) && self.rng.one_in(4);
                self.dial(client, clean);
            }
            Phase::Connecting { wire, .. } => {
                if self.features.has(Feature::Cuts) && self.rng.one_in(8) {
                    self.cut(wire);
                }
            }
            Phase::Online { wire } => self.act_online(client, wire),
        }
        let pause = match self.rng.below(60) {
            0 => self.rng.below(60_000),
            1..=4 => self.rng.below(3000),
            _ => self.rng.below(30),
        };
        self.at(self.now + pause, Wake::Act(client));
    }

    fn dial(&mut self, client: usize, clean: bool) {
        let role = self.clients[client].role;
        let is_transient =
            self.clients[client].version != Version::V5 && self.clients[client].expiry_secs == 0;
        let may_begin_anew =
            role == Role::Peer || (role == Role::Member && self.clients[client].version == Version::V5);
        let clean = (clean && may_begin_anew) || is_transient || self.clients[client].must_clean;
        let Some(wire) = self.open(client) else { return };
        let mut will = None;
        if role == Role::Peer && self.features.has(Feature::Wills) && self.rng.one_in(2) {
            let qos = ALL_QOS[self.rng.below(3) as usize];
            let message = self.compose(client, format!("w/{client}"), qos, false);
            // It comes when it comes.
            self.facts.messages[message].is_repeated = true;
            self.facts.messages[message].expiry_secs = None;
            let is_v5 = self.clients[client].version == Version::V5;
            let delay_secs = if is_v5 { [0, 0, 1, 20][self.rng.below(4) as usize] } else { 0 };
            will = Some(Will { message, delay_secs });
            self.wills.insert(wire, Will { message, delay_secs });
        }
        let mut turn = Turn::default();
        let what = will.map(|will| (&self.facts.messages[will.message], will.delay_secs));
        self.clients[client].connect(wire, clean, what, &mut turn);
        self.carry_out(wire, turn);
    }

    /// Makes a message up.
    fn compose(&mut self, publisher: usize, topic: String, qos: QoS, retain: bool) -> usize {
        let message = self.facts.messages.len();
        let bytes = match self.features.has(Feature::Large) && self.rng.one_in(6) {
            true => self.rng.below(6000) as usize,
            false => 8,
        };
        let is_v5 = self.clients[publisher].version == Version::V5;
        let may_expire = is_v5 && self.features.has(Feature::MessageExpiry) && self.rng.one_in(4);
        let expiry_secs = may_expire.then(|| [1, 5, 3600][self.rng.below(3) as usize]);
        let is_denied = topic == FORBIDDEN && self.clients[publisher].id.contains(NO_PUBLISHER);
        let is_removal = retain && self.rng.one_in(4);
        let payload = if is_removal { Vec::new() } else { payload_of(message, bytes) };
        self.facts.messages.push(Message {
            publisher,
            topic,
            qos,
            retain,
            payload,
            expiry_secs,
            is_denied,
            sent: None,
            accepted: None,
            is_refused: false,
            is_repeated: false,
        });
        message
    }

    fn act_online(&mut self, client: usize, wire: usize) {
        let mut turn = Turn::default();
        let due = self.clients[client].due.len() as u64;
        if due > 0 && !self.rng.one_in(3) {
            let at = if self.rng.one_in(3) { self.rng.below(due) } else { 0 };
            self.clients[client].acknowledge(at as usize, &mut turn);
            self.clients[client].release(&mut turn);
            self.carry_out(wire, turn);
            return;
        }
        let features = self.features;
        let has = |feature| features.has(feature);
        match self.rng.below(100) {
            0..=3 if has(Feature::Cuts) => self.cut(wire),
            4..=5 if has(Feature::HalfOpen) => self.vanish(client),
            6..=9 if has(Feature::Takeover) => {
                let clean = has(Feature::CleanStart) && self.rng.one_in(4);
                self.take_over(client, clean);
            }
            10..=13 => {
                let reason = match self.rng.one_in(3) && self.clients[client].version == Version::V5 {
                    true => ReasonCode::DisconnectWithWill,
                    false => ReasonCode::Success,
                };
                self.clients[client].disconnect(reason, &mut turn);
                turn.closes = true;
                self.carry_out(wire, turn);
            }
            14..=17 => self.hang_up(client),
            18..=21 if has(Feature::Stalls) => self.clients[client].is_stalled = true,
            22..=40 => self.subscribe(client, wire),
            41..=45 if has(Feature::Unsubscribe) => self.unsubscribe(client, wire),
            46..=49 => {
                self.clients[client].release(&mut turn);
                self.clients[client].ping(&mut turn);
                self.carry_out(wire, turn);
            }
            _ => self.publish(client, wire),
        }
        if self.clients[client].is_stalled && self.rng.one_in(4) {
            self.unstall(client);
        }
    }

    /// Connects while the broker has a connection of the client.
    fn take_over(&mut self, client: usize, clean: bool) {
        let Some(event) = self.clients[client].lose() else { return };
        self.emit(&event);
        self.dial(client, clean);
    }

    fn subscribe(&mut self, client: usize, wire: usize) {
        let is_v5 = self.clients[client].version == Version::V5;
        let role = self.clients[client].role;
        let filter = match role {
            Role::Observer => WILLS_FILTER,
            Role::Member => SHARED_FILTER,
            Role::Peer => FILTERS[self.rng.below(FILTERS.len() as u64) as usize],
        };
        // One at a time for a filter, so that it is clear which one is in force.
        let is_awaited = self.clients[client].awaited.values().any(|awaited| match awaited {
            Awaited::Subscribe { filter: other, .. } | Awaited::Unsubscribe { filter: other } => {
                other == filter
            }
        });
        if is_awaited {
            return;
        }
        let is_held = self.facts.clients[client]
            .interests
            .iter()
            .any(|interest| interest.filter == filter && interest.ended.is_none());
        if is_held && role != Role::Peer {
            return;
        }
        let handlings = [RetainHandling::Send, RetainHandling::SendIfNew, RetainHandling::DoNotSend];
        let has_options = is_v5 && role == Role::Peer;
        let interest = Interest {
            filter: filter.into(),
            qos: match role {
                Role::Observer => QoS::ExactlyOnce,
                // At QoS 0 nobody is promised anything.
                Role::Member => ALL_QOS[1 + self.rng.below(2) as usize],
                Role::Peer => ALL_QOS[self.rng.below(3) as usize],
            },
            no_local: has_options && self.rng.one_in(4),
            retain_as_published: has_options && self.rng.one_in(2),
            handling: if has_options { handlings[self.rng.below(3) as usize] } else { RetainHandling::Send },
            id: (has_options && self.rng.one_in(2)).then(|| 1 + self.facts.step as u32),
            epoch: 0,
            asked: 0,
            granted: None,
            ending: None,
            ended: None,
        };
        let mut turn = Turn::default();
        self.clients[client].subscribe(interest, &mut turn);
        self.carry_out(wire, turn);
    }

    fn unsubscribe(&mut self, client: usize, wire: usize) {
        if self.clients[client].role == Role::Observer || !self.clients[client].awaited.is_empty() {
            return;
        }
        let interests = self.facts.clients[client].interests.iter();
        let held: Vec<String> = interests
            .filter(|interest| interest.ended.is_none())
            .map(|interest| interest.filter.clone())
            .collect();
        let Some(filter) = self.rng.pick(&held) else { return };
        let mut turn = Turn::default();
        self.clients[client].unsubscribe(filter, &mut turn);
        self.carry_out(wire, turn);
    }

    fn publish(&mut self, client: usize, wire: usize) {
        if self.clients[client].role != Role::Peer {
            return self.subscribe(client, wire);
        }
        for _ in 0..1 + self.rng.below(4) {
            if self.clients[client].outgoing.len() >= self.clients[client].window {
                return;
            }
            let mut qos = ALL_QOS[self.rng.below(3) as usize];
            let mut retain = false;
            let topic = match self.rng.below(6) {
                0 if self.features.has(Feature::Retained) => {
                    retain = true;
                    // One publisher a topic, and one QoS: there is no doubt which one is the last.
                    qos = ALL_QOS[client % 3];
                    format!("r/{client}")
                }
                1 | 2 if self.features.has(Feature::Shared) => SHARED_TOPIC.to_owned(),
                _ => TOPICS[self.rng.below(3) as usize].to_owned(),
            };
            let message = self.compose(client, topic, qos, retain);
            let mut turn = Turn::default();
            let what = self.facts.messages[message].clone();
            self.clients[client].publish(message, &what, &mut turn);
            self.carry_out(wire, turn);
        }
    }
}

/// The end of a run.
impl World {
    /// Lets everything come to its end: nothing breaks any more, and all come back for what is due to them.
    pub(crate) fn finish(&mut self) {
        self.facts.is_over = true;
        self.disk.state().has_no_room = false;
        self.disk.disarm();
        for client in 0..self.clients.len() {
            self.clients[client].is_late = false;
            self.clients[client].keep_alive_secs = 0;
            self.unstall(client);
        }
        self.run_until(self.now + 70_000);
        for round in 0..FINISH_ROUNDS {
            for client in 0..self.clients.len() {
                self.come_back(client, round);
            }
            // Where a link is slow, and all that was withheld is sent again with each connection, it takes longer.
            self.run_until(self.now + FINISH_ROUND_MILLIS * (1 + round as u64 / 4));
            if self.violation().is_some() || (round > 3 && self.is_idle()) {
                break;
            }
        }
        if self.violation().is_none() && !self.is_idle() {
            let busy = self
                .clients
                .iter()
                .filter(|client| !client.outgoing.is_empty() || !client.awaited.is_empty());
            let busy: Vec<&str> = busy.map(|client| client.id.as_str()).collect();
            self.fail("progress", format!("{busy:?} wait for answers in vain"));
        }
        // What is due later is due now: wills, and the ends of sessions that nobody comes back for.
        self.run_until(self.now + 100_000);
        self.probe();
    }

    /// A client is there, has answered, and has asked again for what was refused without a word.
    fn come_back(&mut self, client: usize, round: usize) {
        let is_waiting = !self.clients[client].outgoing.is_empty();
        match self.clients[client].phase {
            Phase::Online { wire } if is_waiting && round > 2 => {
                self.cut(wire);
            }
            Phase::Online { wire } => {
                let mut turn = Turn::default();
                while !self.clients[client].due.is_empty() {
                    self.clients[client].acknowledge(0, &mut turn);
                }
                self.clients[client].release(&mut turn);
                self.clients[client].ping(&mut turn);
                self.carry_out(wire, turn);
            }
            Phase::Offline => self.dial(client, false),
            Phase::Connecting { .. } => {}
        }
    }

    /// Asks what is retained.
    fn probe(&mut self) {
        let number = self.clients.len();
        let probe = Client::new(number, PROBE.into(), Version::V5, Role::Peer);
        self.add(probe);
        let Some(wire) = self.open(number) else { return };
        let mut turn = Turn::default();
        self.clients[number].connect(wire, true, None, &mut turn);
        let interest = Interest {
            filter: "r/#".into(),
            // It needs no room in queues.
            qos: QoS::AtMostOnce,
            no_local: false,
            retain_as_published: false,
            handling: RetainHandling::Send,
            id: None,
            epoch: 0,
            asked: 0,
            granted: None,
            ending: None,
            ended: None,
        };
        self.carry_out(wire, turn);
        self.run_until(self.now + FINISH_ROUND_MILLIS);
        let mut turn = Turn::default();
        self.clients[number].subscribe(interest, &mut turn);
        self.carry_out(wire, turn);
        self.run_until(self.now + 10 * FINISH_ROUND_MILLIS);
        self.look();
        if self.violation().is_none() {
            self.conclude();
        }
    }

    /// Ends all sessions and looks at what is left of them.
    pub(crate) fn clean_up(&mut self) {
        for client in 0..self.clients.len() {
            self.hang_up(client);
        }
        self.run_until(self.now + FINISH_ROUND_MILLIS);
        for client in 0..self.clients.len() {
            let Some(wire) = self.open(client) else { return };
            let mut turn = Turn::default();
            self.clients[client].expiry_secs = 0;
            self.clients[client].keep_alive_secs = 0;
            self.clients[client].connect(wire, true, None, &mut turn);
            self.clients[client].disconnect(ReasonCode::Success, &mut turn);
            turn.closes = true;
            self.carry_out(wire, turn);
        }
        // Half of a cycle of folding, drops that are told, messages that expire.
        self.run_until(self.now + 90_000);
        let Some(broker) = &self.broker else { return };
        if let Err(what) = leaks::of_broker(broker, &self.facts) {
            self.fail("leaks", what);
        }
        self.look();
        self.close_store();
    }

    fn close_store(&mut self) {
        if self.violation().is_some() {
            return;
        }
        let Some(keeper) = self.broker.take().and_then(|broker| broker.keeper) else { return };
        if let Err(what) = keeper.close(self.now).and_then(|()| leaks::of_disk(&self.disk, self.features)) {
            self.fail("leaks", what);
        }
    }
}
