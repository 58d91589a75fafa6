//! What the running broker knows of itself beyond its counters: what happened lately, how long messages take, and
//! what becomes of those that are followed. All of it is bounded, and none of it is on the way of a message.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::oneshot;

use crate::{
    acl::Authorize,
    broker::{Event, Outputs, Sample, Step},
    histogram::Histogram,
    time::Timestamp,
};

use super::log;

/// Events that are remembered.
const EVENTS_MAX: usize = 1024;

/// Steps of followed messages that are remembered.
const STEPS_MAX: usize = 16 * 1024;

/// Messages whose time is taken at once. It is a power of two.
const SAMPLES_MAX: usize = 1024;

/// Bytes of a text that is remembered.
const TEXT_BYTES_MAX: usize = 1024;

/// What happened to a client, in words.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Happening {
    pub(crate) at: Timestamp,
    /// A word for what kind of thing it is.
    pub(crate) kind: &'static str,
    /// The client, if it has said who it is.
    pub(crate) client_id: Option<Box<str>>,
    pub(crate) text: String,
}

/// The last things of a kind, numbered from 1.
#[derive(Debug)]
pub(crate) struct Recent<T> {
    items: VecDeque<T>,
    items_max: usize,
    /// How many there ever were.
    last: u64,
}

impl<T> Recent<T> {
    fn new(items_max: usize) -> Recent<T> {
        Recent { items: VecDeque::new(), items_max, last: 0 }
    }

    fn push(&mut self, item: T) {
        if self.items.len() == self.items_max {
            self.items.pop_front();
        }
        self.items.push_back(item);
        self.last += 1;
    }

    /// The number of the last one; 0 if there was none.
    #[cfg_attr(not(test), expect(dead_code, reason = "administration is to read it"))]
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// Those with a higher number, with their numbers, the oldest first.
    #[cfg_attr(not(test), expect(dead_code, reason = "administration is to read it"))]
    pub(crate) fn after(&self, number: u64) -> impl DoubleEndedIterator<Item = (u64, &T)> {
        let first = self.last - self.items.len() as u64 + 1;
        let skipped = (number + 1).saturating_sub(first).min(self.items.len() as u64);
        self.items.iter().enumerate().skip(skipped as usize).map(move |(at, item)| (first + at as u64, item))
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Insight {
    /// Microseconds from the turn in which a message was read to the end of the one in which it was written for a
    /// subscriber, of a few messages.
    pub(crate) publish_latency_us: Histogram,
    /// When each of them was accepted, in microseconds since the start.
    accepted_us: [AtomicU64; SAMPLES_MAX],
    events: Mutex<Recent<Happening>>,
    steps: Mutex<Recent<(Timestamp, Step)>>,
    tickets: Mutex<HashMap<u64, oneshot::Sender<()>>>,
    last_ticket: AtomicU64,
    /// Connections that were let in after authentication, and that were not, by reason.
    pub(crate) refusals: Mutex<HashMap<&'static str, u64>>,
}

impl Default for Insight {
    fn default() -> Self {
        Insight {
            publish_latency_us: Histogram::default(),
            accepted_us: [const { AtomicU64::new(0) }; SAMPLES_MAX],
            events: Mutex::new(Recent::new(EVENTS_MAX)),
            steps: Mutex::new(Recent::new(STEPS_MAX)),
            tickets: Mutex::default(),
            last_ticket: AtomicU64::new(0),
            refusals: Mutex::default(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Insight {
    /// Takes out what a turn tells of messages. `began_us` and `ended_us` are microseconds since the start.
    pub(crate) fn take(
        &self,
        now: Timestamp,
        began_us: u64,
        ended_us: impl Fn() -> u64,
        outputs: &mut Outputs,
    ) {
        for sample in outputs.samples.drain(..) {
            match sample {
                Sample::Accepted(mark) => {
                    self.accepted_us[mark.number() as usize % SAMPLES_MAX].store(began_us, Ordering::Relaxed);
                }
                Sample::Sent(mark) => {
                    let at = self.accepted_us[mark.number() as usize % SAMPLES_MAX].load(Ordering::Relaxed);
                    self.publish_latency_us.record(ended_us().saturating_sub(at));
                }
            }
        }
        if !outputs.steps.is_empty() {
            let mut steps = lock(&self.steps);
            outputs.steps.drain(..).for_each(|step| steps.push((now, step)));
        }
        for ticket in outputs.kept.drain(..) {
            if let Some(waiting) = lock(&self.tickets).remove(&ticket) {
                // Who does not wait any more need not know.
                let _ = waiting.send(());
            }
        }
    }

    /// Remembers an event of the core.
    pub(crate) fn tell(&self, now: Timestamp, event: &Event, rules: &dyn Authorize) {
        let (kind, client_id, text) = log::words(event, rules);
        self.tell_of(now, kind, Some(client_id), text);
    }

    /// Remembers something else.
    pub(crate) fn tell_of(
        &self,
        at: Timestamp,
        kind: &'static str,
        client_id: Option<&str>,
        mut text: String,
    ) {
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        let client_id = client_id.map(|id| id[..id.floor_char_boundary(TEXT_BYTES_MAX)].into());
        lock(&self.events).push(Happening { at, kind, client_id, text });
    }

    /// What happened lately.
    #[expect(dead_code, reason = "administration is to read it")]
    pub(crate) fn events(&self) -> MutexGuard<'_, Recent<Happening>> {
        lock(&self.events)
    }

    /// What became of messages that were followed.
    #[expect(dead_code, reason = "administration is to read it")]
    pub(crate) fn steps(&self) -> MutexGuard<'_, Recent<(Timestamp, Step)>> {
        lock(&self.steps)
    }

    /// A number to wait by, and what to wait for.
    #[expect(dead_code, reason = "administration is to read it")]
    pub(crate) fn ticket(&self) -> (u64, oneshot::Receiver<()>) {
        let ticket = self.last_ticket.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        lock(&self.tickets).insert(ticket, sender);
        (ticket, receiver)
    }

    /// Nothing is waited for any more.
    #[expect(dead_code, reason = "administration is to read it")]
    pub(crate) fn give_up(&self, ticket: u64) {
        lock(&self.tickets).remove(&ticket);
    }

    /// Counts a connection that was refused.
    pub(crate) fn refused(&self, why: &'static str) {
        *lock(&self.refusals).entry(why).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_kept_with_their_numbers() {
        let mut recent = Recent::new(3);
        assert_eq!((recent.last(), recent.after(0).count()), (0, 0));
        (1..=5).for_each(|number| recent.push(number));
        let all: Vec<_> = recent.after(0).collect();
        assert_eq!(all, [(3, &3), (4, &4), (5, &5)]);
        assert_eq!(recent.after(4).collect::<Vec<_>>(), [(5, &5)]);
        assert_eq!(recent.after(5).count() + recent.after(99).count(), 0);
    }
}
