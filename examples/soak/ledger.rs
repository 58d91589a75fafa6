//! The accounts: what was published, what came of it, and what must not be.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
};

use dunlin::{
    codec::{QoS, Version},
    topic::{TopicFilter, TopicLimits},
};

/// Failures that are printed; more are only counted.
const FAILURES_SHOWN: u64 = 30;

/// Topics that keep a retained message.
pub(crate) const RETAINED_TOPICS: usize = 200;

/// What part of the run it is.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub(crate) enum Phase {
    /// Those who must get everything subscribe.
    Starting,
    Running,
    /// Publishers get their last acknowledgements; nothing new is sent.
    Ending,
    /// Subscribers get what they have not got yet.
    Draining,
}

/// A topic, all of whose messages are numbered by one publisher.
pub(crate) struct Flow {
    pub(crate) topic: String,
    pub(crate) qos: QoS,
    pub(crate) version: Version,
    /// The number of the next message.
    pub(crate) next: Cell<u64>,
}

/// What is known of a topic with a retained message.
#[derive(Clone, Copy, Default)]
pub(crate) struct Retained {
    /// Of its last change, zero before the first.
    pub(crate) number: u64,
    pub(crate) is_set: bool,
    /// A change is not acknowledged yet.
    pub(crate) is_changing: bool,
}

/// Counted since the start.
#[derive(Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) published: u64,
    pub(crate) delivered: u64,
    pub(crate) again: u64,
    /// QoS 0 messages that a subscriber did not get.
    pub(crate) gaps: u64,
    pub(crate) connects: u64,
    pub(crate) takeovers: u64,
    pub(crate) subscribes: u64,
    pub(crate) wills: u64,
    pub(crate) audits: u64,
    pub(crate) expired: u64,
}

/// What all clients of the run share.
pub(crate) struct Ledger {
    pub(crate) port: u16,
    pub(crate) phase: Cell<Phase>,
    pub(crate) flows: Vec<Flow>,
    pub(crate) retained: RefCell<Vec<Retained>>,
    /// Clients other than subscribers that have not come to their end.
    pub(crate) busy: Cell<usize>,
    /// Subscribers that have not got all that they must.
    pub(crate) subscribers: Cell<usize>,
    /// Those who are not subscribed yet and have to be, before anything is published.
    pub(crate) awaited: Cell<usize>,
    /// Sessions that outlive their connections, to be ended at last.
    pub(crate) durable: RefCell<BTreeSet<String>>,
    wills_due: RefCell<BTreeSet<u64>>,
    wills: Cell<u64>,
    counts: Cell<Counts>,
    failures: Cell<u64>,
    random: Cell<u64>,
}

impl Ledger {
    pub(crate) fn new(port: u16, flows: Vec<Flow>, seed: u64) -> Ledger {
        Ledger {
            port,
            phase: Cell::new(Phase::Starting),
            flows,
            retained: RefCell::new(vec![Retained::default(); RETAINED_TOPICS]),
            busy: Cell::new(0),
            subscribers: Cell::new(0),
            awaited: Cell::new(0),
            durable: RefCell::default(),
            wills_due: RefCell::default(),
            wills: Cell::new(0),
            counts: Cell::default(),
            failures: Cell::new(0),
            random: Cell::new(seed),
        }
    }

    /// Something is not as it must be.
    pub(crate) fn fail(&self, what: impl std::fmt::Display) {
        self.failures.set(self.failures.get() + 1);
        if self.failures.get() <= FAILURES_SHOWN {
            eprintln!("FAILED: {what}");
        }
    }

    pub(crate) fn failures(&self) -> u64 {
        self.failures.get()
    }

    pub(crate) fn count(&self, change: impl FnOnce(&mut Counts)) {
        let mut counts = self.counts.get();
        change(&mut counts);
        self.counts.set(counts);
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts.get()
    }

    /// A pseudo-random number below the bound.
    pub(crate) fn below(&self, bound: u64) -> u64 {
        let next =
            self.random.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.random.set(next);
        (next >> 33) % bound
    }

    /// The number of a new will.
    pub(crate) fn next_will(&self) -> u64 {
        self.wills.set(self.wills.get() + 1);
        self.wills.get()
    }

    /// From now on this will has to come, once.
    pub(crate) fn expect_will(&self, number: u64) {
        self.wills_due.borrow_mut().insert(number);
    }

    pub(crate) fn take_will(&self, number: u64) {
        self.count(|counts| counts.wills += 1);
        if !self.wills_due.borrow_mut().remove(&number) {
            self.fail(format_args!("will {number} came that was not due, or came twice"));
        }
    }

    pub(crate) fn wills_due(&self) -> usize {
        self.wills_due.borrow().len()
    }

    /// The flow of a topic.
    pub(crate) fn flow_of(&self, topic: &str) -> Option<usize> {
        self.flows.iter().position(|flow| flow.topic == topic)
    }
}

/// The number that a payload begins with.
pub(crate) fn number_of(payload: &[u8]) -> Option<u64> {
    let end = payload.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(payload.len());
    std::str::from_utf8(&payload[..end]).ok()?.parse().ok()
}

/// A payload with this number, of a size that depends on it: mostly small, some so large that they are shared.
pub(crate) fn payload_of(number: u64) -> Vec<u8> {
    let size = match number {
        _ if number.is_multiple_of(97) => 8192,
        _ if number.is_multiple_of(11) => 1024,
        _ => 24,
    };
    let mut payload = number.to_string().into_bytes();
    payload.resize(size, b' ');
    payload
}

/// From which message on a subscriber has to get all of a flow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Since {
    First,
    /// From that on which comes first.
    Any,
}

/// What one session has got of each flow.
pub(crate) struct Tracker {
    filter: TopicFilter,
    qos: QoS,
    expected: Vec<Option<u64>>,
    /// Of each flow, messages below this number may have been for a subscription that the session had before.
    leftovers: Vec<u64>,
}

impl Tracker {
    pub(crate) fn new(ledger: &Ledger, filter: &str, qos: QoS, since: Since) -> Tracker {
        let filter = TopicFilter::parse(filter, &TopicLimits::default()).expect("filters here are right");
        let first = |flow: &Flow| (since == Since::First && filter.matches(&flow.topic)).then_some(0);
        let expected = ledger.flows.iter().map(first).collect();
        Tracker { filter, qos, expected, leftovers: vec![0; ledger.flows.len()] }
    }

    /// The session has had another subscription, which UNSUBACK has just ended. What was accepted before may still
    /// come, however late: a QoS 2 message waits for a commit before it is delivered.
    pub(crate) fn allow_leftovers(&mut self, ledger: &Ledger, before: &TopicFilter) {
        for (number, flow) in self.leftovers.iter_mut().zip(&ledger.flows) {
            if before.matches(&flow.topic) {
                *number = flow.next.get();
            }
        }
    }

    pub(crate) fn filter(&self) -> &TopicFilter {
        &self.filter
    }

    /// A session begins anew.
    pub(crate) fn forget(&mut self) {
        self.expected.fill(None);
    }

    /// A message of a flow has come; a repetition of a QoS 2 delivery is none.
    pub(crate) fn take(&mut self, ledger: &Ledger, id: &str, flow: usize, number: u64) {
        let sent = &ledger.flows[flow];
        if number < self.leftovers[flow] {
            return;
        }
        if !self.filter.matches(&sent.topic) {
            ledger.fail(format_args!("{id} got {} without a subscription", sent.topic));
        }
        if number >= sent.next.get() {
            ledger.fail(format_args!("{id} got {} of {}, which was not sent", number, sent.topic));
        }
        ledger.count(|counts| counts.delivered += 1);
        let expected = self.expected[flow].unwrap_or(number);
        let qos = self.qos.min(sent.qos);
        let what =
            || format!("{id} got {number} of {}, QoS {}, where {expected} was due", sent.topic, qos as u8);
        if number < expected {
            match (sent.qos, qos) {
                // A publisher or the broker may repeat what was not acknowledged before a connection failed.
                (QoS::AtLeastOnce, _) | (_, QoS::AtLeastOnce) => ledger.count(|counts| counts.again += 1),
                (QoS::AtMostOnce | QoS::ExactlyOnce, _) => ledger.fail(what()),
            }
            return;
        }
        if number > expected {
            match qos {
                QoS::AtMostOnce => ledger.count(|counts| counts.gaps += number - expected),
                QoS::AtLeastOnce | QoS::ExactlyOnce => ledger.fail(what()),
            }
        }
        self.expected[flow] = Some(number + 1);
    }

    /// Flows of which not everything has come, if it must.
    pub(crate) fn missing(&self, ledger: &Ledger) -> Vec<String> {
        let flows = ledger.flows.iter().zip(&self.expected);
        flows
            .filter_map(|(flow, expected)| Some((flow, (*expected)?)))
            .filter(|(flow, expected)| {
                self.qos.min(flow.qos) > QoS::AtMostOnce && *expected != flow.next.get()
            })
            .map(|(flow, expected)| format!("{} from {expected} to {}", flow.topic, flow.next.get()))
            .collect()
    }
}

/// What all members of a shared subscription have got.
#[derive(Default)]
pub(crate) struct Group {
    flows: Vec<Got>,
}

/// Of one flow: all below `next`, and these.
#[derive(Clone, Default)]
struct Got {
    next: u64,
    ahead: BTreeSet<u64>,
}

impl Group {
    pub(crate) fn new(ledger: &Ledger) -> Group {
        Group { flows: vec![Got::default(); ledger.flows.len()] }
    }

    pub(crate) fn take(&mut self, ledger: &Ledger, flow: usize, number: u64) {
        ledger.count(|counts| counts.delivered += 1);
        let got = &mut self.flows[flow];
        if number < got.next || !got.ahead.insert(number) {
            match ledger.flows[flow].qos {
                QoS::AtMostOnce | QoS::AtLeastOnce => ledger.count(|counts| counts.again += 1),
                QoS::ExactlyOnce => ledger.fail(format_args!("a group got {number} of flow {flow} twice")),
            }
        }
        while got.ahead.remove(&got.next) {
            got.next += 1;
        }
    }

    /// Flows of which not everything has come.
    pub(crate) fn missing(&self, ledger: &Ledger) -> Vec<String> {
        let flows = ledger.flows.iter().zip(&self.flows);
        flows
            .filter(|(flow, got)| flow.qos > QoS::AtMostOnce && got.next != flow.next.get())
            .map(|(flow, got)| format!("{} from {}, {} of it came", flow.topic, got.next, got.ahead.len()))
            .collect()
    }
}
