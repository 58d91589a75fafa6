//! Does a message cost more where there is more of something else? `cargo bench --bench scaling`.
//!
//! A shard is stepped in memory with little and with a hundred times as much of one thing. Both are measured in
//! turns, a thousand messages at a time, and the lower quartile of these samples is printed: what others do on the
//! machine disturbs some samples, what the broker does is in all. A ratio above 1.3 needs a reason.
//!
//! One has: where retained messages are replaced one after the other, the routes of a thousand topics are remembered
//! and those of a hundred thousand are not, and neither are their messages in a cache of the processor.

#![expect(clippy::disallowed_methods, reason = "it measures time")]

mod bed;

use std::time::{Duration, Instant};

use dunlin::{
    codec::{Packet, Publish, QoS},
    limits::Parking,
    session::LinkId,
};

use bed::{Bed, Keeps, publish};

/// Messages of one sample.
const MESSAGES: u64 = 1000;

/// Samples of each of the two.
const SAMPLES: usize = 60;

const SMALL: usize = 1000;
const LARGE: usize = 100_000;

/// The most that a hundred times as much may cost.
const RATIO_MAX: f64 = 1.3;

/// Messages that a publisher sends before the subscriber reads and acknowledges them.
const TURN: u64 = 50;

/// Messages that the subscriber of a long queue takes at a time.
const WINDOW: u16 = 100;

/// What is there more of, and the load to be measured with so many of them.
struct Dimension {
    name: &'static str,
    load: fn(usize) -> Box<dyn Load>,
}

/// Something whose messages are measured.
trait Load {
    /// Runs so many messages through. Returns how long that took, without what had to be made ready.
    fn run(&mut self, messages: u64) -> Duration;
}

const DIMENSIONS: [Dimension; 15] = [
    Dimension { name: "sessions, connected", load: |count| live(Topics::Hot, |bed| connected(bed, count)) },
    Dimension { name: "sessions, offline", load: |count| live(Topics::Hot, |bed| offline(bed, count)) },
    Dimension {
        name: "other filters, exact; hot topic",
        load: |count| live(Topics::Hot, |bed| filters(bed, count, exact)),
    },
    Dimension {
        name: "other filters, exact; cold topics",
        load: |count| live(Topics::Cold, |bed| filters(bed, count, exact)),
    },
    Dimension {
        name: "other filters, #; hot topic",
        load: |count| live(Topics::Hot, |bed| filters(bed, count, hash)),
    },
    Dimension {
        name: "other filters, #; cold topics",
        load: |count| live(Topics::Cold, |bed| filters(bed, count, hash)),
    },
    Dimension {
        name: "other filters, + first; hot topic",
        load: |count| live(Topics::Hot, |bed| filters(bed, count, plus)),
    },
    Dimension {
        name: "other filters, + first; cold topics",
        load: |count| live(Topics::Cold, |bed| filters(bed, count, plus)),
    },
    Dimension { name: "retained, others", load: |count| live(Topics::Hot, |bed| retain(bed, count)) },
    Dimension {
        name: "retained, one replaced again and again",
        load: |count| live(Topics::Retained(count, 0), |bed| retain(bed, count)),
    },
    Dimension {
        name: "retained, replaced one after the other",
        load: |count| live(Topics::Retained(count, STRIDE), |bed| retain(bed, count)),
    },
    Dimension {
        name: "queued for one offline session",
        load: |count| live(Topics::Hot, |bed| queue_for(bed, 1, count)),
    },
    Dimension {
        name: "queued for 1,000 offline sessions",
        load: |count| live(Topics::Hot, |bed| queue_for(bed, 1000, count / 1000)),
    },
    Dimension { name: "queued in the session drained, in memory", load: |count| queue(count, None) },
    Dimension {
        name: "queued in the session drained, in the store",
        load: |count| queue(count, Some(Parking::default())),
    },
];

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    println!("{:<46} {:>12} {:>12} {:>7}", "dimension", "small ns/msg", "large ns/msg", "ratio");
    for dimension in DIMENSIONS {
        if wanted.is_empty() || wanted.iter().any(|word| dimension.name.contains(word)) {
            let (small, large) = measure(&dimension);
            let ratio = large / small;
            let remark = if ratio > RATIO_MAX { " !" } else { "" };
            println!("{:<46} {small:>12.0} {large:>12.0} {ratio:>7.2}{remark}", dimension.name);
        }
    }
}

/// Nanoseconds a message with little of it, and with much.
fn measure(dimension: &Dimension) -> (f64, f64) {
    let mut loads = [(dimension.load)(SMALL), (dimension.load)(LARGE)];
    let mut samples = [Vec::new(), Vec::new()];
    for _ in 0..SAMPLES {
        for (load, samples) in loads.iter_mut().zip(&mut samples) {
            samples.push(load.run(MESSAGES));
        }
    }
    let [small, large] = samples.map(|mut samples| {
        samples.sort();
        samples[SAMPLES / 4].as_nanos() as f64 / MESSAGES as f64
    });
    (small, large)
}

/// Which topics are published to.
#[derive(Clone, Copy)]
enum Topics {
    /// One.
    Hot,
    /// So many that the broker remembers none of them.
    Cold,
    /// Those of so many retained messages, which are replaced, with this distance between two.
    Retained(usize, u64),
}

/// Not the next one, so that it is not found where the last one was.
const STRIDE: u64 = 7919;

const COLD_TOPICS: u64 = 100_000;

impl Topics {
    fn topic(self, number: u64) -> String {
        match self {
            Topics::Hot => "live/topic".to_owned(),
            Topics::Cold => format!("live/topic/{}", number % COLD_TOPICS),
            Topics::Retained(count, stride) => kept_topic(number * stride % count as u64),
        }
    }

    fn filter(self) -> &'static str {
        match self {
            Topics::Hot => "live/topic",
            Topics::Cold => "live/topic/+",
            Topics::Retained(..) => "kept/+/value",
        }
    }
}

fn kept_topic(number: u64) -> String {
    format!("kept/{number}/value")
}

/// One publisher and one subscriber, QoS 1, beside whatever else there is.
struct Live {
    bed: Bed,
    publisher: LinkId,
    subscriber: LinkId,
    topics: Topics,
    published: u64,
}

fn live(topics: Topics, fill: impl FnOnce(&mut Bed)) -> Box<dyn Load> {
    let mut bed = Bed::new(|_| {});
    fill(&mut bed);
    let publisher = bed.connect("publisher", Keeps::Nothing, WINDOW);
    let subscriber = bed.connect("subscriber", Keeps::Nothing, WINDOW);
    bed.subscribe(subscriber, &[topics.filter().to_owned()], QoS::AtLeastOnce);
    let mut live = Live { bed, publisher, subscriber, topics, published: 0 };
    live.run(MESSAGES);
    Box::new(live)
}

impl Load for Live {
    fn run(&mut self, messages: u64) -> Duration {
        let end = self.published + messages;
        let topics: Vec<String> = (self.published..end).map(|number| self.topics.topic(number)).collect();
        let retain = matches!(self.topics, Topics::Retained(..));
        let start = Instant::now();
        for topics in topics.chunks(TURN as usize) {
            let first = self.published;
            for topic in topics {
                match publish(topic, QoS::AtLeastOnce, self.published) {
                    Packet::Publish(publish) => {
                        self.bed.packet(self.publisher, &Packet::Publish(Publish { retain, ..publish }));
                    }
                    other => panic!("{other:?} is no PUBLISH"),
                }
                self.published += 1;
            }
            self.bed.settle();
            (first..self.published).for_each(|number| self.bed.acknowledge(self.subscriber, number));
            self.bed.settle();
        }
        let taken = start.elapsed();
        assert_eq!(self.bed.sent(), self.published, "each message was sent once");
        taken
    }
}

fn connected(bed: &mut Bed, count: usize) {
    for number in 0..count {
        bed.connect(&format!("other-{number}"), Keeps::Nothing, WINDOW);
    }
}

fn offline(bed: &mut Bed, count: usize) {
    for number in 0..count {
        let link = bed.connect(&format!("other-{number}"), Keeps::Session, WINDOW);
        bed.drop_link(link);
    }
}

/// Sessions that have the filters which do not match.
const OTHERS: usize = 100;

fn filters(bed: &mut Bed, count: usize, text: fn(usize) -> String) {
    for other in 0..OTHERS {
        let link = bed.connect(&format!("other-{other}"), Keeps::Nothing, WINDOW);
        let filters: Vec<String> = (0..count / OTHERS).map(|number| text(number * OTHERS + other)).collect();
        bed.subscribe(link, &filters, QoS::AtLeastOnce);
    }
}

fn exact(number: usize) -> String {
    format!("live/other/{number}")
}

fn hash(number: usize) -> String {
    format!("live/other-{number}/#")
}

fn plus(number: usize) -> String {
    format!("+/{number}/+")
}

fn retain(bed: &mut Bed, count: usize) {
    let link = bed.connect("retainer", Keeps::Nothing, WINDOW);
    for number in 0..count as u64 {
        let topic = kept_topic(number);
        match publish(&topic, QoS::AtLeastOnce, number) {
            Packet::Publish(publish) => {
                bed.packet(link, &Packet::Publish(Publish { retain: true, ..publish }))
            }
            other => panic!("{other:?} is no PUBLISH"),
        }
        bed.settle();
    }
}

/// Sessions that are away, each with so many messages.
fn queue_for(bed: &mut Bed, sessions: usize, messages: usize) {
    for number in 0..sessions {
        let link = bed.connect(&format!("away-{number}"), Keeps::Session, WINDOW);
        bed.subscribe(link, &["queue".to_owned()], QoS::AtLeastOnce);
        bed.drop_link(link);
    }
    fill_queues(bed, messages);
}

fn fill_queues(bed: &mut Bed, messages: usize) {
    let link = bed.connect("filler", Keeps::Nothing, WINDOW);
    for number in 0..messages as u64 {
        bed.publish(link, "queue", QoS::AtLeastOnce, number);
        bed.settle();
    }
}

/// A session that comes back to a long queue.
struct Queue {
    bed: Bed,
    length: usize,
    subscriber: Option<LinkId>,
    acknowledged: u64,
    queued: u64,
}

fn queue(length: usize, parking: Option<Parking>) -> Box<dyn Load> {
    let mut bed = Bed::new(|shared| shared.parking = parking);
    queue_for(&mut bed, 1, 0);
    Box::new(Queue { bed, length, subscriber: None, acknowledged: 0, queued: 0 })
}

impl Load for Queue {
    fn run(&mut self, messages: u64) -> Duration {
        if self.acknowledged == self.queued {
            if let Some(link) = self.subscriber.take() {
                self.bed.drop_link(link);
            }
            fill_queues(&mut self.bed, self.length);
            self.queued += self.length as u64;
        }
        let start = Instant::now();
        let link = match self.subscriber {
            Some(link) => link,
            None => *self.subscriber.insert(self.bed.connect("away-0", Keeps::Session, WINDOW)),
        };
        let end = self.acknowledged + messages;
        while self.acknowledged < end {
            let sent = self.bed.sent().min(end);
            assert!(self.acknowledged < sent, "more is sent as long as there is more");
            (self.acknowledged..sent).for_each(|number| self.bed.acknowledge(link, number));
            self.acknowledged = sent;
            self.bed.settle();
        }
        start.elapsed()
    }
}
