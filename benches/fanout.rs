//! What a delivery costs, from PUBLISH to the bytes for the socket: `cargo bench --bench fanout`.
//!
//! One publisher and many subscribers of one topic on a shard that is stepped in memory. With QoS 1 the
//! acknowledgements of the subscribers are in it. Subscribers read after each message, or after some of them.
//!
//! `benches/instructions` counts its instructions.

mod bed;

use std::{env, process::ExitCode};

use divan::{Bencher, counter::ItemsCount};
use dunlin::{codec::QoS, session::LinkId};

use bed::{Bed, Keeps};

fn main() -> ExitCode {
    match env::var("DUNLIN_FANOUT") {
        Ok(text) => match text.split(' ').map(str::parse).collect::<Result<Vec<u64>, _>>().as_deref() {
            Ok([0, subscribers, messages]) => publish_so_many(QoS::AtMostOnce, *subscribers, *messages),
            Ok([1, subscribers, messages]) => publish_so_many(QoS::AtLeastOnce, *subscribers, *messages),
            Ok(_) | Err(_) => {
                eprintln!("DUNLIN_FANOUT is QoS, subscribers and messages, not {text:?}");
                return ExitCode::FAILURE;
            }
        },
        Err(_) => divan::main(),
    }
    ExitCode::SUCCESS
}

const SUBSCRIBERS: [usize; 4] = [1, 10, 100, 1000];
const TOPIC: &str = "plant/7/line/3/temperature";

/// Messages that subscribers read together where they do not read each.
const BURST: usize = 32;

struct Fan {
    bed: Bed,
    publisher: LinkId,
    subscribers: Vec<LinkId>,
    qos: QoS,
    published: u64,
}

impl Fan {
    fn new(subscribers: usize, qos: QoS) -> Fan {
        let mut bed = Bed::new(|_| {});
        let publisher = bed.connect("publisher", Keeps::Nothing, 1024);
        let subscribers = (0..subscribers).map(|number| {
            let link = bed.connect(&format!("subscriber-{number}"), Keeps::Nothing, 1024);
            bed.subscribe(link, &[TOPIC.to_owned()], qos);
            link
        });
        let subscribers = subscribers.collect();
        Fan { bed, publisher, subscribers, qos, published: 0 }
    }

    /// Publishes so many messages; then all subscribers read, and acknowledge.
    fn turn(&mut self, messages: usize) {
        let first = self.published;
        for _ in 0..messages {
            self.bed.publish(self.publisher, TOPIC, self.qos, self.published);
            self.published += 1;
        }
        self.bed.settle();
        if self.qos == QoS::AtLeastOnce {
            for link in &self.subscribers {
                (first..self.published).for_each(|number| self.bed.acknowledge(*link, number));
            }
            self.bed.settle();
        }
    }

    /// Nothing was lost on the way, or the figures mean nothing.
    fn check(&self) {
        let sent = self.bed.shard.counters().publishes_sent[self.qos as usize].value();
        assert_eq!(sent, self.published * self.subscribers.len() as u64);
    }
}

fn fan_out(bencher: Bencher<'_, '_>, subscribers: usize, qos: QoS, messages: usize) {
    let mut fan = Fan::new(subscribers, qos);
    bencher.counter(ItemsCount::new(subscribers * messages)).bench_local(|| fan.turn(messages));
    fan.check();
}

/// For counting instructions: the same work however fast the machine is.
fn publish_so_many(qos: QoS, subscribers: u64, messages: u64) {
    let mut fan = Fan::new(subscribers as usize, qos);
    (0..messages).for_each(|_| fan.turn(1));
    fan.check();
}

#[divan::bench(args = SUBSCRIBERS)]
fn qos_0(bencher: Bencher<'_, '_>, subscribers: usize) {
    fan_out(bencher, subscribers, QoS::AtMostOnce, 1);
}

#[divan::bench(args = SUBSCRIBERS)]
fn qos_0_read_in_bursts(bencher: Bencher<'_, '_>, subscribers: usize) {
    fan_out(bencher, subscribers, QoS::AtMostOnce, BURST);
}

#[divan::bench(args = SUBSCRIBERS)]
fn qos_1(bencher: Bencher<'_, '_>, subscribers: usize) {
    fan_out(bencher, subscribers, QoS::AtLeastOnce, 1);
}

#[divan::bench(args = SUBSCRIBERS)]
fn qos_1_read_in_bursts(bencher: Bencher<'_, '_>, subscribers: usize) {
    fan_out(bencher, subscribers, QoS::AtLeastOnce, BURST);
}
