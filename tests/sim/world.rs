//! One run: a broker, its disk, a network and clients on a virtual clock. Nothing in it waits, and everything that
//! is left to chance is drawn from the seed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use dunlin::{
    broker::Event as Happened,
    mutation::{self, Mutation},
    session::{Fetch, LinkId},
    time::Timestamp,
};

use super::{
    broker::{Broker, Mail, Rules},
    check::{self, Check},
    client::{Client, Phase},
    event::{Event, Will},
    facts::{Dropped, Facts},
    features::{Feature, Features},
    keeper::Step,
    link::{Manners, Server, Wire},
    medium::Disk,
    rng::Rng,
    trace::Trace,
};

/// Where the virtual clock starts: any moment will do but zero, which would hide a missing one.
pub(crate) const START_MILLIS: u64 = 1_700_000_000_000;
/// The state of the broker is looked at after so many events.
const LOOK_INTERVAL: u64 = 16;
/// Events of a run at most: a run that needs more does not end.
const EVENTS_MAX: u64 = 200_000;

/// Something that happens at a moment.
pub(crate) enum Wake {
    /// A client does something.
    Act(usize),
    ToBroker(usize),
    ToClient(usize),
    /// The broker writes to a connection.
    Write(usize),
    /// A connection that the broker has given up is closed, whether or not its client has read all.
    Deadline(usize),
    /// A shard reads its mail. With the life of the broker that it is for.
    Mail(u64, usize),
    /// What was committed is told.
    Told(u64, Vec<(u16, u64)>, Vec<(u16, Fetch)>),
    /// The broker starts.
    Start,
    /// Something breaks.
    Fault(Feature),
    /// There is room on the disk again.
    Room,
}

/// Why a run ended early.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    /// The check that found it.
    pub(crate) check: &'static str,
    pub(crate) what: String,
}

/// A run.
pub(crate) struct World {
    pub(crate) now: u64,
    pub(crate) rng: Rng,
    pub(crate) features: Features,
    pub(crate) rules: Rules,
    pub(crate) manners: Manners,
    pub(crate) broker: Option<Broker>,
    pub(crate) disk: Disk,
    pub(crate) clients: Vec<Client>,
    pub(crate) wires: Vec<Wire>,
    pub(crate) facts: Facts,
    pub(crate) wills: BTreeMap<usize, Will>,
    /// Acts that are left before the end begins.
    pub(crate) acts: u64,
    pub(crate) trace: Trace,
    agenda: BTreeMap<(u64, u64), Wake>,
    sequence: u64,
    /// Counts the starts of the broker.
    life: u64,
    lost_at: u64,
    /// Connections to be written to.
    pub(super) touched: VecDeque<usize>,
    /// Connections that have something to say which the broker does not want to hear yet.
    pub(super) blocked: BTreeSet<usize>,
    checks: Vec<Box<dyn Check>>,
    violation: Option<Violation>,
    events: u64,
}

impl World {
    pub(crate) fn new(
        rng: Rng,
        features: Features,
        rules: Rules,
        manners: Manners,
        acts: u64,
        trace: Trace,
    ) -> World {
        let mut world = World {
            now: START_MILLIS,
            rng,
            features,
            checks: check::all(features, &rules),
            rules,
            manners,
            broker: None,
            disk: Disk::default(),
            clients: Vec::new(),
            wires: Vec::new(),
            facts: Facts { now: Timestamp::from_millis(START_MILLIS), ..Facts::default() },
            wills: BTreeMap::new(),
            acts,
            trace,
            agenda: BTreeMap::new(),
            sequence: 0,
            life: 0,
            lost_at: START_MILLIS,
            touched: VecDeque::new(),
            blocked: BTreeSet::new(),
            violation: None,
            events: 0,
        };
        world.start();
        world
    }

    /// Puts something on the agenda.
    pub(crate) fn at(&mut self, at: u64, wake: Wake) {
        self.sequence += 1;
        self.agenda.insert((at.max(self.now), self.sequence), wake);
    }

    /// The run is over: something is wrong.
    pub(crate) fn fail(&mut self, check: &'static str, what: String) {
        self.trace.line(self.now, || format!("VIOLATION of {check}: {what}"));
        self.violation.get_or_insert(Violation { check, what });
    }

    pub(crate) fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// Something happened that checks are to hear of.
    pub(crate) fn emit(&mut self, event: &Event) {
        self.facts.now = Timestamp::from_millis(self.now);
        self.trace.event(self.now, event, &self.facts, &self.clients);
        self.facts.apply(event);
        for at in 0..self.checks.len() {
            if let Err(what) = self.checks[at].event(event, &self.facts) {
                self.fail(self.checks[at].name(), what);
            }
        }
    }

    /// Lets all checks look at the state of the broker.
    pub(crate) fn look(&mut self) {
        let Some(broker) = &self.broker else { return };
        for at in 0..self.checks.len() {
            if let Err(what) = self.checks[at].look(broker, &self.facts) {
                self.fail(self.checks[at].name(), what);
                return;
            }
        }
    }

    /// Lets all checks draw their conclusions.
    pub(crate) fn conclude(&mut self) {
        self.collect_drops();
        for at in 0..self.checks.len() {
            if let Err(what) = self.checks[at].end(&self.facts, &self.clients) {
                self.fail(self.checks[at].name(), what);
            }
        }
    }

    /// Runs up to a moment.
    pub(crate) fn run_until(&mut self, end: u64) {
        while self.violation.is_none() {
            let timeout = self.broker.as_ref().and_then(Broker::next_timeout);
            let store = self.broker.as_ref().and_then(|broker| broker.keeper.as_ref()?.due_at());
            let wake = self.agenda.first_key_value().map(|((at, _), _)| *at);
            let Some(next) = [timeout, store, wake].into_iter().flatten().min().filter(|next| *next <= end)
            else {
                self.now = end.max(self.now);
                return;
            };
            self.now = next.max(self.now);
            if wake == Some(next)
                && let Some((_, wake)) = self.agenda.pop_first()
            {
                self.on_wake(wake);
            } else if store == Some(next) {
                self.step_store();
            } else {
                self.run_timers();
            }
            self.settle();
            self.events += 1;
            if self.events.is_multiple_of(LOOK_INTERVAL) {
                self.look();
            }
            if self.events > EVENTS_MAX {
                self.fail("progress", "the run does not come to an end".into());
            }
        }
    }

    fn on_wake(&mut self, wake: Wake) {
        match wake {
            Wake::Act(client) => self.act(client),
            Wake::ToBroker(wire) => self.arrive_at_broker(wire),
            Wake::ToClient(wire) => self.arrive_at_client(wire),
            Wake::Write(wire) => {
                self.wires[wire].writes = false;
                self.write(wire);
            }
            Wake::Deadline(wire) => self.close_server(wire),
            Wake::Mail(life, shard) if life == self.life => self.read_mail(shard),
            Wake::Told(life, commits, fetches) if life == self.life => self.tell(commits, fetches),
            Wake::Mail(..) | Wake::Told(..) => {}
            Wake::Start => self.start(),
            Wake::Fault(fault) => self.on_fault(fault),
            Wake::Room => {
                self.trace.line(self.now, || "the disk has room again".into());
                self.disk.state().has_no_room = false;
            }
        }
    }

    /// Sees to all that the last step set off.
    fn settle(&mut self) {
        loop {
            while let Some(wire) = self.touched.pop_front() {
                let delay = self.rng.below(self.manners.delay_max.min(3) + 1);
                if delay == 0 {
                    self.write(wire);
                } else if !std::mem::replace(&mut self.wires[wire].writes, true) {
                    self.at(self.now + delay, Wake::Write(wire));
                }
            }
            let ready = self.blocked.iter().copied().find(|wire| self.may_hear(*wire));
            let Some(wire) = ready else { return };
            self.blocked.remove(&wire);
            self.hear(wire);
        }
    }

    pub(super) fn may_hear(&self, wire: usize) -> bool {
        match (&self.broker, &self.wires[wire].server) {
            (Some(broker), Server::Linked { shard, link, .. }) => broker.nodes[*shard].shard.may_read(*link),
            _ => true,
        }
    }

    /// Steps a shard, and takes note of what it has touched and done.
    pub(super) fn turn<T>(
        &mut self,
        shard: usize,
        step: impl FnOnce(&mut dunlin::broker::Shard, Timestamp, &mut dunlin::broker::Outputs) -> T,
    ) -> Option<T> {
        let broker = self.broker.as_mut()?;
        let (result, touched, happened) = broker.turn(self.now, shard, step);
        let crowded = (0..broker.nodes.len()).filter(|shard| !broker.nodes[*shard].mail.is_empty());
        for shard in crowded.collect::<Vec<_>>() {
            self.post(shard);
        }
        for event in happened {
            self.on_happened(event);
        }
        self.touch(shard, &touched);
        Some(result)
    }

    pub(super) fn touch(&mut self, shard: usize, links: &[LinkId]) {
        let Some(broker) = &self.broker else { return };
        let wires = links.iter().filter_map(|link| broker.links.get(&(shard, *link)));
        self.touched.extend(wires.map(|joined| joined.wire));
    }

    pub(super) fn post(&mut self, shard: usize) {
        let at = self.now + self.rng.below(self.manners.delay_max.min(3) + 1);
        self.at(at, Wake::Mail(self.life, shard));
    }

    pub(super) fn on_happened(&mut self, event: Happened) {
        match event {
            Happened::Disconnected { peer, cause, .. } => {
                let Some(wire) = peer.strip_prefix("wire-").and_then(|number| number.parse().ok()) else {
                    return;
                };
                let Wire { client, is_revoked, .. } = self.wires[wire];
                self.trace.line(self.now, || format!("broker: connection {wire} is over: {cause}"));
                self.emit(&Event::Closed { client, wire, is_revoked });
            }
            Happened::QueueUnreadable { client_id, messages } => {
                self.fail("store", format!("{messages} messages of {client_id} cannot be found"));
            }
            Happened::Connected { .. }
            | Happened::SessionEnded { .. }
            | Happened::PublishRefused { .. }
            | Happened::Denied { .. }
            | Happened::SubscriptionRefused { .. }
            | Happened::Dropped { .. } => {
                self.trace.line(self.now, || format!("broker: {event:?}"));
            }
        }
    }

    fn run_timers(&mut self) {
        for shard in 0..self.rules.shards {
            self.turn(shard, |shard, now, out| {
                if shard.next_timeout().is_some_and(|at| at <= now) {
                    shard.timeout(now, out);
                }
            });
        }
    }

    pub(super) fn read_mail(&mut self, shard: usize) {
        while let Some(mail) = self.broker.as_mut().and_then(|broker| broker.nodes[shard].mail.pop_front()) {
            match mail {
                Mail::Forward(forward) => {
                    self.turn(shard, |shard, now, out| shard.forwarded(now, &forward, out))
                }
                Mail::Committed(commit) => {
                    self.turn(shard, |shard, now, out| shard.committed(now, commit, out))
                }
                Mail::Fetched(fetched) => {
                    self.turn(shard, |shard, now, out| shard.fetched(now, fetched, out))
                }
            };
        }
    }
}

/// The disk, and what becomes of the broker with it.
impl World {
    fn step_store(&mut self) {
        let Some(keeper) = self.broker.as_mut().and_then(|broker| broker.keeper.as_mut()) else { return };
        let step = keeper.step(self.now);
        if self.disk.is_dead() {
            self.crash(Feature::PowerLoss);
            return;
        }
        match step {
            Step::Done { commits, fetches } => {
                if let Some(keeper) = self.broker.as_mut().and_then(|broker| broker.keeper.as_mut()) {
                    keeper.is_busy = true;
                }
                let took = self.rng.below(self.manners.delay_max.min(20) + 1);
                self.at(self.now + took, Wake::Told(self.life, commits, fetches));
            }
            Step::Full => self.trace.line(self.now, || "the disk is full".into()),
            Step::Failed => {}
        }
        if self.broker.as_mut().is_some_and(Broker::hear_condition) {
            self.crash(Feature::DiskError);
        }
    }

    fn tell(&mut self, commits: Vec<(u16, u64)>, fetches: Vec<(u16, Fetch)>) {
        let Some(broker) = &mut self.broker else { return };
        let Some(keeper) = &mut broker.keeper else { return };
        keeper.is_busy = false;
        for (shard, commit) in commits {
            broker.nodes[usize::from(shard)].mail.push_back(Mail::Committed(commit));
        }
        for (shard, fetch) in fetches {
            match keeper.read(&fetch) {
                Some(fetched) => broker.nodes[usize::from(shard)].mail.push_back(Mail::Fetched(fetched)),
                None => keeper.fetch(self.now + 50, shard, fetch),
            }
        }
        for shard in 0..self.rules.shards {
            self.post(shard);
        }
    }

    fn on_fault(&mut self, fault: Feature) {
        if self.facts.is_over || self.broker.is_none() {
            return;
        }
        let reach = 1 + self.rng.below(60);
        self.trace.line(self.now, || format!("fault: {fault:?}, {reach} operations ahead"));
        match fault {
            Feature::PowerLoss => self.disk.arm(reach, super::medium::Fault::PowerLoss),
            Feature::DiskError => self.disk.arm(reach, super::medium::Fault::Io),
            Feature::DiskFull => {
                self.disk.arm(reach, super::medium::Fault::NoRoom);
                let lasts = 1000 + self.rng.below(20_000);
                self.at(self.now + lasts, Wake::Room);
            }
            _ => self.crash(Feature::Kill),
        }
    }

    /// The broker ends without notice.
    pub(crate) fn crash(&mut self, cause: Feature) {
        self.look();
        self.collect_drops();
        let Some(broker) = self.broker.take() else { return };
        let unsure_since = broker.keeper.as_ref().and_then(|keeper| keeper.unsure_since());
        let unsure_since = unsure_since.unwrap_or(self.now);
        // Whatever the database would like to write when it is dropped, nobody is there to write it.
        let was_broken = self.disk.state().touched_after_failure;
        self.disk.kill();
        drop(broker);
        // On a full disk the database is opened anew, with all that the system had cached forgotten: an error while
        // it is closed is survived.
        if was_broken > 0 && !self.features.has(Feature::DiskFull) {
            self.fail("store", "a disk that failed was written to again".into());
        }
        match cause {
            Feature::PowerLoss => self.disk.restart(&mut self.rng),
            _ => self.disk.revive(),
        }
        self.life += 1;
        self.lost_at = self.now;
        self.blocked.clear();
        self.touched.clear();
        self.trace.line(self.now, || format!("the broker is gone: {cause:?}"));
        self.emit(&Event::Crashed { unsure_since });
        for wire in 0..self.wires.len() {
            if !matches!(self.wires[wire].server, Server::Closed) {
                self.wires[wire].server = Server::Closed;
                self.cut(wire);
            }
        }
        let within = [10, 1000, 60_000][self.rng.below(3) as usize];
        let downtime = 1 + self.rng.below(within);
        self.at(self.now + downtime, Wake::Start);
    }

    fn start(&mut self) {
        if self.features.has(Feature::PowerLoss) && self.life > 0 && self.rng.one_in(4) && !self.facts.is_over
        {
            let reach = 1 + self.rng.below(60);
            self.disk.arm(reach, super::medium::Fault::PowerLoss);
        }
        let started = Broker::start(&self.rules, &self.disk, self.now, self.lost_at);
        if self.disk.is_dead() {
            self.trace.line(self.now, || "the power fails during the start".into());
            drop(started);
            self.disk.restart(&mut self.rng);
            self.at(self.now + 10, Wake::Start);
            return;
        }
        match started {
            Ok(broker) => {
                self.trace.line(self.now, || "the broker starts".into());
                for found in &broker.found {
                    self.trace.line(self.now, || format!("store: {found}"));
                }
                self.broker = Some(broker);
                self.emit(&Event::Started);
                for shard in 0..self.rules.shards {
                    if !mutation::is_on(Mutation::StartNotStored) {
                        self.turn(shard, |shard, now, out| shard.timeout(now, out));
                    }
                }
            }
            Err(error) => self.fail("store", format!("the broker does not start: {error}")),
        }
    }

    /// Keeps the account of drops of a broker that ends.
    pub(crate) fn collect_drops(&mut self) {
        let Some(broker) = &self.broker else { return };
        let lines = broker.shards().flat_map(|shard| shard.drops().iter());
        let lines = lines.map(|line| Dropped {
            client_id: line.client_id.as_ref().into(),
            reason: line.reason,
            total: line.total,
        });
        self.facts.dropped.extend(lines);
    }

    /// Whether nothing is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.clients.iter().all(|client| {
            !matches!(client.phase, Phase::Connecting { .. })
                && client.outgoing.is_empty()
                && client.awaited.is_empty()
                && client.due.is_empty()
        })
    }
}
