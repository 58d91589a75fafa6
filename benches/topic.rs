//! What the indexes of topics cost, and how that grows: `cargo bench --bench topic`.
//!
//! Half of the filters are exact, half have wildcards of three shapes. A *hot* topic is the same again, a *cold* one
//! is one of many in an order that no cache foresees. The broker asks the index only for topics that it has not routed
//! since the last change of any subscription: `publish_hot` and `publish_cold` are a whole PUBLISH of QoS 0 that
//! nobody, or one filter, matches, with the route cache and without.

mod bed;

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    hint::black_box,
    rc::Rc,
    sync::Arc,
};

use divan::{Bencher, counter::ItemsCount};
use dunlin::{
    codec::{QoS, SubscriptionOptions},
    session::{SessionHandle, Subscription},
    topic::{FilterTree, RetainedTree, TopicFilter, TopicLimits, TopicName},
};

use bed::{Bed, Keeps};

fn main() {
    divan::main();
}

const SIZES: [usize; 3] = [1000, 100_000, 1_000_000];

/// Look-ups of one round.
const ROUND: usize = 64;

/// Cold topics: with their filters they are far more than a cache holds.
const COLD_TOPICS: usize = 262_144;

const SEED: u64 = 7;

/// Pseudo-random numbers (splitmix64): the same in every run.
fn scramble(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9E37_79B9_7F4A_7C15).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ mixed >> 31
}

/// The filter with this number. A hundred lines a plant, ten sensors a line.
fn filter(number: usize) -> TopicFilter {
    let (plant, line, sensor) = (number / 1000, number / 10 % 100, number % 10);
    let text = match number % 6 {
        1 => format!("plant/{plant}/line/{line}/+/{sensor}"),
        3 => format!("plant/{plant}/+/{line}/sensor/{sensor}"),
        5 => format!("plant/{plant}/line/{line}/sensor/{sensor}/#"),
        _ => format!("plant/{plant}/line/{line}/sensor/{sensor}"),
    };
    TopicFilter::parse(&text, &TopicLimits::default()).expect("it is a valid filter")
}

/// The topic that the filter with this number matches.
fn topic(number: usize) -> String {
    let (plant, line, sensor) = (number / 1000, number / 10 % 100, number % 10);
    format!("plant/{plant}/line/{line}/sensor/{sensor}")
}

fn cold_topics(filters: usize) -> Vec<String> {
    (0..COLD_TOPICS as u64).map(|number| topic(scramble(number) as usize % filters)).collect()
}

/// What has been built before, by its size: it takes longer than to measure it.
fn kept<T>(
    known: &RefCell<BTreeMap<usize, Rc<RefCell<T>>>>,
    size: usize,
    build: impl FnOnce(usize) -> T,
) -> Rc<RefCell<T>> {
    known.borrow_mut().entry(size).or_insert_with(|| Rc::new(RefCell::new(build(size)))).clone()
}

thread_local! {
    static FILTERS: RefCell<BTreeMap<usize, Rc<RefCell<FilterTree<usize>>>>> = RefCell::default();
    static RETAINED: RefCell<BTreeMap<usize, Rc<RefCell<RetainedTree<usize>>>>> = RefCell::default();
    static BEDS: RefCell<BTreeMap<usize, Rc<RefCell<Bed>>>> = RefCell::default();
}

fn filters(size: usize) -> Rc<RefCell<FilterTree<usize>>> {
    FILTERS.with(|known| {
        kept(known, size, |size| {
            let mut tree = FilterTree::new(SEED);
            for number in 0..size {
                tree.get_or_insert_with(&filter(number), || number);
            }
            tree
        })
    })
}

fn retained(size: usize) -> Rc<RefCell<RetainedTree<usize>>> {
    RETAINED.with(|known| {
        kept(known, size, |size| {
            let mut tree = RetainedTree::new();
            for number in 0..size {
                tree.insert(&name(&topic(number)), number);
            }
            tree
        })
    })
}

fn name(text: &str) -> TopicName {
    TopicName::parse(text, &TopicLimits::default()).expect("it is a valid name")
}

#[divan::bench(args = SIZES)]
fn match_hot(bencher: Bencher<'_, '_>, size: usize) {
    let (tree, topic) = (filters(size), topic(size / 2));
    let tree = tree.borrow();
    bencher.counter(ItemsCount::new(ROUND)).bench_local(|| {
        for _ in 0..ROUND {
            tree.for_each_match(black_box(&topic), |value| {
                black_box(value);
            });
        }
    });
}

#[divan::bench(args = SIZES)]
fn match_cold(bencher: Bencher<'_, '_>, size: usize) {
    let (tree, topics) = (filters(size), cold_topics(size));
    let tree = tree.borrow();
    let mut next = topics.iter().cycle();
    bencher.counter(ItemsCount::new(ROUND)).bench_local(|| {
        for topic in next.by_ref().take(ROUND) {
            tree.for_each_match(topic, |value| {
                black_box(value);
            });
        }
    });
}

/// Filters that are new to a tree of this size, and leave it again unmeasured.
#[divan::bench(args = SIZES)]
fn insert(bencher: Bencher<'_, '_>, size: usize) {
    let tree = filters(size);
    let mut next = size..;
    let mut passing = VecDeque::new();
    bencher
        .counter(ItemsCount::new(ROUND))
        .with_inputs(|| {
            passing.drain(..).for_each(|filter| {
                tree.borrow_mut().remove(&filter);
            });
            let fresh: Vec<TopicFilter> = next.by_ref().take(ROUND).map(filter).collect();
            passing.extend(fresh.iter().cloned());
            fresh
        })
        .bench_local_refs(|fresh| {
            let mut tree = tree.borrow_mut();
            for filter in fresh.iter() {
                black_box(tree.get_or_insert_with(filter, || 0));
            }
        });
    passing.drain(..).for_each(|filter| {
        tree.borrow_mut().remove(&filter);
    });
}

/// Filters from all over a tree of this size, which come back unmeasured.
#[divan::bench(args = SIZES)]
fn remove(bencher: Bencher<'_, '_>, size: usize) {
    let tree = filters(size);
    let mut next = (0_u64..).map(|number| filter(scramble(number) as usize % size));
    let mut away = VecDeque::new();
    bencher
        .counter(ItemsCount::new(ROUND))
        .with_inputs(|| {
            away.drain(..).for_each(|filter| {
                tree.borrow_mut().get_or_insert_with(&filter, || 0);
            });
            let chosen: Vec<TopicFilter> = next.by_ref().take(ROUND).collect();
            away.extend(chosen.iter().cloned());
            chosen
        })
        .bench_local_refs(|chosen| {
            let mut tree = tree.borrow_mut();
            for filter in chosen.iter() {
                black_box(tree.remove(filter));
            }
        });
    away.drain(..).for_each(|filter| {
        tree.borrow_mut().get_or_insert_with(&filter, || 0);
    });
}

/// Topics that are new to a tree of this size, and leave it again unmeasured.
#[divan::bench(args = SIZES)]
fn retained_insert(bencher: Bencher<'_, '_>, size: usize) {
    let tree = retained(size);
    let mut next = (0_u64..).map(|number| name(&format!("{}/new", topic(scramble(number) as usize % size))));
    let mut passing = VecDeque::new();
    bencher
        .counter(ItemsCount::new(ROUND))
        .with_inputs(|| {
            passing.drain(..).for_each(|name: TopicName| {
                tree.borrow_mut().remove(name.as_str());
            });
            let fresh: Vec<TopicName> = next.by_ref().take(ROUND).collect();
            passing.extend(fresh.iter().cloned());
            fresh
        })
        .bench_local_refs(|fresh| {
            let mut tree = tree.borrow_mut();
            for name in fresh.iter() {
                black_box(tree.insert(name, 0));
            }
        });
    passing.drain(..).for_each(|name| {
        tree.borrow_mut().remove(name.as_str());
    });
}

#[divan::bench(args = SIZES)]
fn retained_read_exact(bencher: Bencher<'_, '_>, size: usize) {
    let (tree, topics) = (retained(size), cold_topics(size));
    let tree = tree.borrow();
    let mut next = topics.iter().cycle();
    bencher.counter(ItemsCount::new(ROUND)).bench_local(|| {
        for topic in next.by_ref().take(ROUND) {
            assert!(black_box(tree.get(topic)).is_some());
        }
    });
}

/// One sensor of each line of one plant: a hundred of its thousand topics. The figure is per topic found.
#[divan::bench(args = SIZES)]
fn retained_read_wildcard(bencher: Bencher<'_, '_>, size: usize) {
    const FOUND: usize = 100;
    let tree = retained(size);
    let tree = tree.borrow();
    let mut next = (0_u64..).map(|number| {
        let text = format!("plant/{}/line/+/sensor/4", scramble(number) as usize % size / 1000);
        TopicFilter::parse(&text, &TopicLimits::default()).expect("it is a valid filter")
    });
    bencher
        .counter(ItemsCount::new(FOUND))
        .with_inputs(|| next.next().expect("it does not end"))
        .bench_local_refs(|filter| {
            let mut found = 0;
            tree.for_each_match(filter, |topic, value| {
                black_box((topic, value));
                found += 1;
            });
            assert_eq!(found, FOUND);
        });
}

/// A broker whose filters are those of one session that is away, so that no delivery is measured.
fn bed(size: usize) -> Rc<RefCell<Bed>> {
    BEDS.with(|known| {
        kept(known, size, |size| {
            let bed = Bed::new(|_| {});
            let away = Arc::new(SessionHandle::new(1, 0, 1, "away".into()));
            let options = SubscriptionOptions { qos: QoS::AtLeastOnce, ..SubscriptionOptions::default() };
            let subscription = Subscription { options, id: None };
            let filters: Vec<TopicFilter> = (0..size).map(filter).collect();
            let all = filters.iter().map(|filter| (filter, &away, subscription));
            bed.shard.shared().router.subscribe_all(all);
            bed
        })
    })
}

/// Whole PUBLISH packets of QoS 0, which another shard would deliver.
#[divan::bench(args = SIZES)]
fn publish_hot(bencher: Bencher<'_, '_>, size: usize) {
    publish(bencher, size, &[topic(size / 2)]);
}

#[divan::bench(args = SIZES)]
fn publish_cold(bencher: Bencher<'_, '_>, size: usize) {
    publish(bencher, size, &cold_topics(size));
}

fn publish(bencher: Bencher<'_, '_>, size: usize, topics: &[String]) {
    let bed = bed(size);
    let mut bed = bed.borrow_mut();
    let publisher = bed.connect("publisher", Keeps::Nothing, 1024);
    let mut next = topics.iter().cycle();
    bencher.counter(ItemsCount::new(ROUND)).bench_local(|| {
        for topic in next.by_ref().take(ROUND) {
            bed.publish(publisher, topic, QoS::AtMostOnce, 0);
        }
        bed.settle();
    });
}
