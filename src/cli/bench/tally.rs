//! What a thread counts and measures, and how the threads' results become one.

use std::{
    mem,
    sync::atomic::{AtomicU64, Ordering},
};

use hdrhistogram::Histogram;

use super::{account::Stream, fault::Reasons};

/// The longest latency that is told from longer ones.
const LATENCY_NS_MAX: u64 = 3_600_000_000_000;
/// Decimal digits of a latency that are kept.
const DIGITS: u8 = 3;

/// Times in nanoseconds.
#[derive(Clone, Debug)]
pub(super) struct Times(Histogram<u64>);

impl Default for Times {
    fn default() -> Self {
        let times = Histogram::new_with_bounds(1, LATENCY_NS_MAX, DIGITS);
        Self(times.expect("the bounds are constants that the histogram allows"))
    }
}

impl Times {
    #[inline]
    pub(super) fn record(&mut self, ns: u64) {
        self.0.saturating_record(ns);
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all have the same bounds");
    }

    pub(super) fn histogram(&self) -> &Histogram<u64> {
        &self.0
    }
}

/// What the connections of a thread count. One for each thread, so that counting shares nothing.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// What is new since the meter was told.
    pub(super) news: Counts,
    /// From the time that a message was due to its arrival.
    pub(super) from_due: Times,
    /// From the time that a message was sent to its arrival.
    pub(super) from_send: Times,
    /// From the time that a message was due to its last acknowledgement.
    pub(super) acknowledged: Times,
    /// How late messages were sent though nothing but this program kept them.
    pub(super) lag: Times,
    /// From the first SYN to CONNACK.
    pub(super) connected: Times,
    /// When the last connection was made.
    pub(super) last_connect_ns: u64,
    /// Messages that were sent late because the window was full or the socket took no more.
    pub(super) held: u64,
    /// Messages that were due and never sent.
    pub(super) unsent: u64,
    /// Messages that are not of this run.
    pub(super) foreign: u64,
    /// Messages that are not as they were sent.
    pub(super) altered: u64,
    /// Messages that the broker did not take.
    pub(super) refused: Reasons,
    /// Connections that were not made.
    pub(super) failures: Reasons,
    /// Connections that ended too early.
    pub(super) endings: Reasons,
    /// By publisher: messages that the broker took, or of QoS 0 that were sent.
    pub(super) taken: Vec<(u32, u64)>,
    /// By publisher, each subscriber on its own: what arrived.
    pub(super) arrived: Vec<(u32, Arrived)>,
}

/// What a subscriber got of a publisher.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Arrived {
    pub(super) distinct: u64,
    pub(super) duplicates: u64,
    pub(super) out_of_order: u64,
}

impl From<&Stream> for Arrived {
    fn from(stream: &Stream) -> Self {
        let Stream { distinct, duplicates, out_of_order, .. } = *stream;
        Self { distinct, duplicates, out_of_order }
    }
}

impl Tally {
    /// Adds the results of another thread.
    pub(super) fn merge(&mut self, other: Self) {
        self.from_due.merge(&other.from_due);
        self.from_send.merge(&other.from_send);
        self.acknowledged.merge(&other.acknowledged);
        self.lag.merge(&other.lag);
        self.connected.merge(&other.connected);
        self.last_connect_ns = self.last_connect_ns.max(other.last_connect_ns);
        self.held += other.held;
        self.unsent += other.unsent;
        self.foreign += other.foreign;
        self.altered += other.altered;
        self.refused.merge(other.refused);
        self.failures.merge(other.failures);
        self.endings.merge(other.endings);
        self.taken.extend(other.taken);
        self.arrived.extend(other.arrived);
    }

    /// What became of the messages, subscriber by subscriber and publisher by publisher: an extra message of one
    /// does not make up for a lost one of another.
    pub(super) fn fate(&self) -> Fate {
        let size = self.taken.iter().map(|&(publisher, _)| publisher as usize + 1).max().unwrap_or(0);
        let mut taken = vec![0; size];
        for &(publisher, count) in &self.taken {
            taken[publisher as usize] = count;
        }
        let mut fate = Fate::default();
        for &(publisher, arrived) in &self.arrived {
            let expected = taken.get(publisher as usize).copied().unwrap_or(0);
            fate.expected += expected;
            fate.distinct += arrived.distinct;
            fate.lost += expected.saturating_sub(arrived.distinct);
            fate.duplicates += arrived.duplicates;
            fate.out_of_order += arrived.out_of_order;
        }
        fate
    }
}

/// What became of all messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fate {
    /// Deliveries that should have been made: messages that the broker took, times their subscribers.
    pub(super) expected: u64,
    /// Deliveries, each counted once.
    pub(super) distinct: u64,
    pub(super) lost: u64,
    pub(super) duplicates: u64,
    pub(super) out_of_order: u64,
}

/// Makes [`Counts`] and the [`Meter`] that sums them from one list.
macro_rules! counts {
    ($( $(#[$doc:meta])* $name:ident, )*) => {
        /// What the run as a whole must know while it goes on.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub(super) struct Counts {
            $( $(#[$doc])* pub(super) $name: u64, )*
        }

        impl Counts {
            /// What came in addition.
            pub(super) fn since(&self, before: &Self) -> Self {
                Self { $( $name: self.$name.saturating_sub(before.$name), )* }
            }
        }

        /// The counts of one thread, for all to read.
        #[derive(Debug, Default)]
        pub(super) struct Meter {
            $( $name: AtomicU64, )*
            /// When a message was last sent, acknowledged or received.
            active_ns: AtomicU64,
        }

        impl Meter {
            /// Adds what is new. Only the thread of this meter does so.
            pub(super) fn add(&self, news: &mut Counts, now_ns: u64) {
                let news = mem::take(news);
                if news == Counts::default() {
                    return;
                }
                $( self.$name.fetch_add(news.$name, Ordering::Relaxed); )*
                if news.sent + news.settled + news.received > 0 {
                    self.active_ns.store(now_ns, Ordering::Relaxed);
                }
            }

            /// Adds this thread's counts to those of others.
            fn sum_into(&self, sum: &mut Counts) {
                $( sum.$name += self.$name.load(Ordering::Relaxed); )*
            }
        }
    };
}

counts! {
    /// Connections that are ready for the run.
    ready,
    /// Connections that were not made, or ended before they were ready.
    failed,
    /// Connections that ended before they should.
    ended,
    sent,
    /// Messages that the broker took or refused; of QoS 0, that were sent.
    settled,
    /// Those of them that it took.
    taken,
    received,
    received_bytes,
    /// Deliveries of this run's messages, each counted once.
    delivered,
    /// Publishers that have nothing to send and nothing to wait for, connected or not.
    finished,
}

impl Meter {
    /// The counts of all threads.
    pub(super) fn total<'a>(meters: impl Iterator<Item = &'a Meter>) -> Counts {
        let mut sum = Counts::default();
        meters.for_each(|meter| meter.sum_into(&mut sum));
        sum
    }

    /// When a message last moved on this thread.
    pub(super) fn active_ns(&self) -> u64 {
        self.active_ns.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duplicate_does_not_make_up_for_a_loss() {
        let arrived = |distinct, duplicates| Arrived { distinct, duplicates, out_of_order: 0 };
        let mut tally = Tally { taken: vec![(1, 10), (0, 5)], ..Tally::default() };
        let other = Tally { arrived: vec![(0, arrived(6, 0)), (1, arrived(9, 2))], ..Tally::default() };
        tally.merge(other);
        let fate = Fate { expected: 15, distinct: 15, lost: 1, duplicates: 2, out_of_order: 0 };
        assert_eq!(tally.fate(), fate);
    }

    #[test]
    fn meters_add_up() {
        let meters = [Meter::default(), Meter::default()];
        let mut news = Counts { sent: 3, received: 1, ..Counts::default() };
        meters[0].add(&mut news, 7);
        assert_eq!(news, Counts::default());
        meters[0].add(&mut Counts { finished: 1, ..Counts::default() }, 9);
        meters[1].add(&mut Counts { sent: 2, ..Counts::default() }, 8);
        let total = Meter::total(meters.iter());
        assert_eq!((total.sent, total.received, total.finished), (5, 1, 1));
        assert_eq!(meters.map(|meter| meter.active_ns()), [7, 8]);
    }
}
