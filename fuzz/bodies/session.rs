//! A whole broker, stepped in memory, and clients that do anything: bytes of any kind, packets that are right and
//! not, failing and stalling connections, take-overs, late commits, crashes, time.
//!
//! The harness checks what holds for every packet that a client gets: that it is one, that it fits, and that
//! packet identifiers in flight differ and are no more than Receive Maximum. At the end the accounts must agree,
//! and nothing may be left of sessions that are gone. A client that only behaves must have noticed nothing.
//!
//! The first two bytes of the input pick the broker's limits. Then come operations: a byte that says which and by
//! whom, and what each needs.

use std::{collections::VecDeque, time::Duration};

use dunlin::{
    codec::{PacketKind, QoS, ReasonCode, RetainHandling, SubscriptionOptions, Version},
    limits::{Durability, Limits, Overflow, Parking},
};

use crate::world::{Client, Got, Setup, WillSetup, World};

const OPERATIONS_MAX: usize = 400;
const CLIENTS: usize = 4;
const IDS: [&str; CLIENTS] = ["a", "b", "c", "d"];
const WITNESS: &str = "the client that behaves";
const TOPICS: [&str; 8] = ["t", "t/0", "t/1", "r/0", "r/1", "/", "$x/y", "t/0/a/b"];
const FILTERS: [&str; 12] = [
    "t/#",
    "t/0",
    "+/1",
    "#",
    "r/+",
    "$share/g/t/#",
    "$share/g/r/0",
    "$share/h/#",
    "+",
    "$x/#",
    "/+",
    "t/#/bad",
];
const PAYLOADS: [&str; 4] = ["", "x", "a message of some length", "\u{e9}"];

/// What is left of the input. It is followed by zeros.
struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn byte(&mut self) -> u8 {
        let Some((byte, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *byte
    }

    fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::from(self.byte()) % from.len()]
    }
}

/// The broker, and who is at it.
struct Run {
    world: World,
    seats: [Option<Seat>; CLIENTS],
    witness: Client,
    /// Whether a queue is soon full: who does not keep up is disconnected then.
    is_tight: bool,
}

/// A client, and what it owes an answer.
struct Seat {
    client: Client,
    due: VecDeque<(PacketKind, u16)>,
}

/// Checks one input.
pub(crate) fn run(input: &[u8]) {
    let mut script = Script(input);
    let mut run = Run::new(script.byte(), script.byte());
    for _ in 0..OPERATIONS_MAX {
        if script.0.is_empty() {
            break;
        }
        run.step(&mut script);
        run.poll();
    }
    run.finish();
}

impl Run {
    fn new(limits: u8, parking: u8) -> Run {
        let shards = 1 + usize::from(limits & 1);
        let world = World::with(shards, |shared| {
            if limits & 2 != 0 {
                tighten(&mut shared.limits, limits);
            }
            shared.check_payload_format = parking & 1 != 0;
            shared.parking = (parking & 2 != 0).then(|| narrow(parking));
        });
        let witness = witness(&world);
        Run { world, seats: [const { None }; CLIENTS], witness, is_tight: limits & 2 != 0 }
    }

    fn step(&mut self, script: &mut Script<'_>) {
        let operation = script.byte();
        let who = usize::from(operation >> 4) % CLIENTS;
        match operation & 15 {
            0 => self.open(who, script.byte()),
            1 => self.connect(who, script),
            11 => match script.byte() % 4 {
                0 => self.world.hold_commits(),
                1 => drop(self.world.commit_one(0)),
                2 => self.world.commit(),
                _ => self.world.release_commits(),
            },
            12 if operation & 0x40 == 0 => self.world.hold_forwards(),
            12 => self.world.release_forwards(),
            13 => self.world.advance(duration(script.byte())),
            14 if operation & 0x40 == 0 => self.crash(duration(script.byte())),
            14 => self.replace_witness(),
            operation => {
                if let Some(seat) = &mut self.seats[who] {
                    seat.step(operation, script);
                }
            }
        }
    }

    /// A client opens a connection and says nothing yet.
    fn open(&mut self, who: usize, flags: u8) {
        self.leave(who);
        let client = self.world.open();
        let client = if flags & 1 == 0 { client } else { client.manual() };
        self.seats[who] = Some(Seat { client, due: VecDeque::new() });
    }

    /// The connection that a seat had fails, if there is one: there are never more of them than seats.
    fn leave(&mut self, who: usize) {
        if let Some(seat) = self.seats[who].take() {
            seat.client.drop_link();
        }
    }

    fn connect(&mut self, who: usize, script: &mut Script<'_>) {
        let (flags, more) = (script.byte(), script.byte());
        let version = [Version::V5, Version::V311, Version::V5, Version::V31][usize::from(flags & 3)];
        // Mostly its own session, sometimes that of another.
        let id = if flags & 4 == 0 { IDS[who] } else { script.pick(&IDS) };
        let mut setup = Setup::new(version, id);
        setup.clean = flags & 8 != 0;
        setup.answers = flags & 16 == 0;
        setup.keep_alive_secs = if flags & 32 == 0 { 0 } else { 10 };
        setup.durability = if flags & 64 == 0 { Durability::Commit } else { Durability::None };
        if version.is_v5() {
            setup.expiry_secs = [None, Some(5), Some(3600), Some(u32::MAX)][usize::from(more & 3)];
            setup.receive_maximum = [None, Some(1), Some(3), Some(60)][usize::from(more >> 2 & 3)];
            setup.packet_bytes_max = [None, Some(20), Some(60), None][usize::from(more >> 4 & 3)];
            setup.alias_maximum = (more & 64 != 0).then_some(2);
            setup.problem_information = (more & 128 != 0).then_some(false);
        }
        setup.will = (flags & 128 != 0).then(|| will(script));
        self.leave(who);
        self.seats[who] = Some(Seat { client: self.world.send_connect(setup), due: VecDeque::new() });
    }

    fn crash(&mut self, downtime: Duration) {
        self.check_witness();
        self.world.crash(downtime);
        self.seats = [const { None }; CLIENTS];
        self.witness = witness(&self.world);
    }

    fn replace_witness(&mut self) {
        self.check_witness();
        self.witness.drop_link();
        self.witness = witness(&self.world);
    }

    /// Looks at what was received.
    fn poll(&mut self) {
        for seat in self.seats.iter_mut().flatten() {
            seat.poll();
        }
        self.check_witness();
    }

    /// Nothing happens to a client that behaves, unless another takes its name, or it does not read in time.
    fn check_witness(&mut self) {
        let mut codes = Vec::new();
        for got in self.witness.recv_all() {
            if let Got::Disconnect { code, .. } = got {
                codes.push(code);
            }
        }
        if self.witness.is_closed() {
            let is_taken_over = codes == [ReasonCode::SessionTakenOver as u8];
            assert!(is_taken_over || self.is_tight, "it was disconnected with {codes:02x?}");
            self.witness = witness(&self.world);
        }
    }

    /// Everything comes to an end, and nothing is left.
    fn finish(mut self) {
        self.world.release_commits();
        self.world.release_forwards();
        for seat in self.seats.iter().flatten() {
            seat.client.unstall();
        }
        self.poll();
        self.world.assert_accounting();
        self.check_alive();
        for who in 0..CLIENTS {
            self.leave(who);
        }
        self.witness.drop_link();
        for id in self.world.client_ids() {
            self.world.connect(Setup::v5(&id)).disconnect();
        }
        self.world.assert_accounting();
        assert_eq!(self.world.client_ids(), Vec::<String>::new());
        assert_eq!(self.world.shared().router.subscriptions(), 0);
        assert_eq!(self.world.queued_messages(), 0);
    }

    /// The broker still does its work.
    fn check_alive(&mut self) {
        self.witness.ping();
        let received = self.witness.recv_all();
        assert!(received.contains(&Got::PingResp), "a ping is answered, got {received:?}");
    }
}

impl Seat {
    fn step(&mut self, operation: u8, script: &mut Script<'_>) {
        let client = &self.client;
        match operation {
            2 => {
                let length = usize::from(script.byte());
                client.send_bytes(script.bytes(length));
            }
            3 => {
                let (filter, options) = (script.pick(&FILTERS), options(script.byte()));
                let id = script.byte() % 4;
                client.send_subscribe(
                    &[(filter, options)],
                    if client.version().is_v5() { id.into() } else { 0 },
                );
            }
            4 => drop(client.send_unsubscribe(&[script.pick(&FILTERS)])),
            5 => self.publish(script),
            6 => self.answer(usize::from(script.byte())),
            7 => {
                let (kinds, id) = (script.byte(), script.byte());
                let kind = ACKS[usize::from(kinds & 3)];
                let is_refusal = kinds & 4 != 0 && client.version().is_v5();
                let reason = if is_refusal { ReasonCode::QuotaExceeded } else { ReasonCode::Success };
                // What a PUBREL and a PUBCOMP may say is something else.
                let may_refuse = matches!(kind, PacketKind::PubAck | PacketKind::PubRec);
                client.ack_with(
                    kind,
                    id.max(1).into(),
                    if may_refuse { reason } else { ReasonCode::Success },
                );
            }
            8 if script.byte() & 1 == 0 || !client.version().is_v5() => client.disconnect(),
            8 => client.disconnect_with(ReasonCode::DisconnectWithWill, None),
            9 => client.drop_link(),
            10 => match script.byte() {
                0 => client.stall(),
                255 => client.unstall(),
                bytes_max => client.read_some(bytes_max.into()),
            },
            _ => client.ping(),
        }
    }

    fn publish(&self, script: &mut Script<'_>) {
        let (flags, topic, payload) = (script.byte(), script.pick(&TOPICS), script.pick(&PAYLOADS));
        let qos =
            [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce, QoS::ExactlyOnce][usize::from(flags & 3)];
        // A new packet identifier, or one that may be in use.
        let id = match flags >> 5 {
            0..=3 => self.client.next_id(),
            id => id.into(),
        };
        let is_v5 = self.client.version().is_v5();
        self.client.publish_as(id, topic, payload, qos, |publish| {
            publish.retain = flags & 4 != 0;
            publish.dup = flags & 8 != 0 && qos > QoS::AtMostOnce;
            publish.properties.message_expiry_secs = (is_v5 && flags & 16 != 0).then_some(2);
        });
    }

    /// Answers one of the packets that are due, as it should.
    fn answer(&mut self, which: usize) {
        if let Some((kind, id)) = self.due.remove(which % self.due.len().max(1)) {
            self.client.ack(kind, id);
        }
    }

    fn poll(&mut self) {
        for got in self.client.recv_all() {
            let due = match got {
                Got::Publish(message) => match message.qos {
                    QoS::AtMostOnce => None,
                    QoS::AtLeastOnce => Some((PacketKind::PubAck, message.id())),
                    QoS::ExactlyOnce => Some((PacketKind::PubRec, message.id())),
                },
                Got::Ack { kind: PacketKind::PubRec, id, code, .. } if code < 0x80 => {
                    Some((PacketKind::PubRel, id))
                }
                Got::Ack { kind: PacketKind::PubRel, id, .. } => Some((PacketKind::PubComp, id)),
                _ => None,
            };
            self.due.extend(due);
        }
    }
}

const ACKS: [PacketKind; 4] =
    [PacketKind::PubAck, PacketKind::PubRec, PacketKind::PubRel, PacketKind::PubComp];

/// A client that gets everything and answers all of it.
fn witness(world: &World) -> Client {
    let client = world.connect(Setup::v5(WITNESS));
    client.send_subscribe(&[("#", SubscriptionOptions { qos: QoS::ExactlyOnce, ..Default::default() })], 0);
    client
}

/// Limits that are soon reached.
fn tighten(limits: &mut Limits, flags: u8) {
    let policies = [Overflow::Reject, Overflow::DropOldest, Overflow::DropNewest, Overflow::Backpressure];
    limits.session_queue_overflow = policies[usize::from(flags >> 2 & 3)];
    limits.queues_overflow = policies[usize::from(flags >> 4 & 3)];
    limits.session_queue_messages_max = 4;
    limits.queues_messages_max = 20;
    limits.inflight_messages_max = 2;
    limits.receive_maximum = 3;
    limits.retained_messages_max = 2;
    limits.session_subscriptions_max = 3;
    limits.topic_alias_out_maximum = 1;
    limits.outbox_bytes_max = if flags & 64 == 0 { limits.outbox_bytes_max } else { 300 };
}

/// Queues that keep little in memory.
fn narrow(flags: u8) -> Parking {
    Parking {
        messages_max: 2,
        bytes_max: 64,
        spare_bytes_max: if flags & 4 == 0 { 0 } else { 256 },
        index_bytes_max: if flags & 8 == 0 { 0 } else { 1 << 20 },
        run_messages_max: 2,
    }
}

fn options(bits: u8) -> SubscriptionOptions {
    SubscriptionOptions {
        qos: [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce, QoS::ExactlyOnce][usize::from(bits & 3)],
        no_local: bits & 4 != 0,
        retain_as_published: bits & 8 != 0,
        retain_handling: match bits >> 4 & 3 {
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::DoNotSend,
            _ => RetainHandling::Send,
        },
    }
}

fn will(script: &mut Script<'_>) -> WillSetup {
    let (flags, topic, payload) = (script.byte(), script.pick(&TOPICS), script.pick(&PAYLOADS));
    let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce, QoS::AtLeastOnce][usize::from(flags & 3)];
    let will = WillSetup { retain: flags & 4 != 0, ..WillSetup::new(topic, payload).qos(qos) };
    if flags & 8 == 0 { will } else { will.delay(u32::from(flags >> 4)) }
}

/// Up to 40 seconds, or some minutes.
fn duration(byte: u8) -> Duration {
    match byte {
        0..=199 => Duration::from_millis(u64::from(byte).pow(2)),
        200..=255 => Duration::from_secs(60 * u64::from(byte - 199)),
    }
}
