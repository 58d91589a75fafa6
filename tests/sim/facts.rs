//! What has happened, as far as it can be known from outside: who asked for what, and who was promised what.
//!
//! A client learns of what the broker did only by its answer. So whatever is under way is possible from the moment
//! that it was asked for, and certain from the moment that it was answered; checks that a message arrived ask what
//! was certain, checks that it may arrive ask what was possible.

use dunlin::{
    codec::{QoS, RetainHandling},
    time::Timestamp,
};

use super::event::{Delivered, Event};

/// One message that some client made up.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    /// The client.
    pub(crate) publisher: usize,
    pub(crate) topic: String,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) payload: Vec<u8>,
    pub(crate) expiry_secs: Option<u32>,
    /// Its publisher may not publish it.
    pub(crate) is_denied: bool,
    /// The step at which it was first sent, and when that was.
    pub(crate) sent: Option<(u64, Timestamp)>,
    /// The step at which its publisher heard that it was accepted.
    pub(crate) accepted: Option<(u64, Timestamp)>,
    /// It was refused, and is not sent again.
    pub(crate) is_refused: bool,
    /// It was sent more than once: it may come after what was sent later.
    pub(crate) is_repeated: bool,
}

/// One subscription of one session.
#[derive(Clone, Debug)]
pub(crate) struct Interest {
    pub(crate) filter: String,
    pub(crate) qos: QoS,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    pub(crate) handling: RetainHandling,
    pub(crate) id: Option<u32>,
    /// Counts the sessions of its client.
    pub(crate) epoch: u64,
    /// The steps at which it was possible and certain, at which it was not certain any more, and impossible.
    pub(crate) asked: u64,
    pub(crate) granted: Option<u64>,
    pub(crate) ending: Option<u64>,
    pub(crate) ended: Option<u64>,
}

impl Interest {
    /// Whether it lies in a shared subscription.
    pub(crate) fn is_shared(&self) -> bool {
        self.filter.starts_with("$share/")
    }

    pub(crate) fn matches(&self, topic: &str) -> bool {
        let filter = match self.filter.strip_prefix("$share/") {
            Some(rest) => rest.split_once('/').map_or("", |(_, filter)| filter),
            None => &self.filter,
        };
        matches(filter, topic)
    }

    /// Whether the broker had it from one step to another.
    pub(crate) fn is_certain(&self, from: u64, to: u64) -> bool {
        self.granted.is_some_and(|granted| granted < from) && self.ending.is_none_or(|ending| ending > to)
    }

    /// Whether the broker may have had it when it took this message, or got to know of it later.
    pub(crate) fn is_possible(&self, message: &Message) -> bool {
        let (sent, accepted) = (message.sent.map_or(0, |(step, _)| step), message.accepted);
        // A retained message comes to who subscribes later, and what a member of a shared subscription leaves to one
        // that joins later.
        let is_late = accepted.is_some_and(|(accepted, _)| self.asked > accepted);
        message.retain || (self.ended.is_none_or(|ended| ended > sent) && (!is_late || self.is_shared()))
    }
}

/// What is known of one client.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Its client identifier.
    pub(crate) id: String,
    /// It belongs to the shared subscription.
    pub(crate) is_member: bool,
    pub(crate) interests: Vec<Interest>,
    /// Counts its sessions: what was promised to one is void in the next.
    pub(crate) epoch: u64,
    /// The Session Expiry Interval of its last connection in seconds.
    pub(crate) expiry_secs: u32,
    /// The connection that the broker has of it.
    pub(crate) open: Option<usize>,
    /// Since when it has none, if it had one.
    pub(crate) detached_since: Option<Timestamp>,
    /// Unacknowledged messages that it takes.
    pub(crate) receive_maximum: usize,
}

impl Known {
    /// Whether its session may have come to its end by itself.
    pub(crate) fn may_have_expired(&self, now: Timestamp) -> bool {
        self.detached_since
            .is_some_and(|since| self.expiry_secs != u32::MAX && since.plus_secs(self.expiry_secs) <= now)
    }
}

/// Everything that is known.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub(crate) now: Timestamp,
    /// Counts events.
    pub(crate) step: u64,
    pub(crate) messages: Vec<Message>,
    pub(crate) clients: Vec<Known>,
    /// The session that each connection had, by the count of its client.
    pub(crate) epochs: Vec<u64>,
    /// How often the broker ended without notice.
    pub(crate) crashes: u64,
    /// What was dropped before the last restart, by client: the account does not survive one.
    pub(crate) dropped: Vec<Dropped>,
    /// Whether all that was to happen has happened, and all wait for what is due to them.
    pub(crate) is_over: bool,
}

/// A line of the account of drops.
#[derive(Clone, Debug)]
pub(crate) struct Dropped {
    pub(crate) client_id: String,
    pub(crate) reason: dunlin::broker::DropReason,
    pub(crate) total: u64,
}

impl Facts {
    /// Takes note of an event. Checks hear of it afterwards.
    pub(crate) fn apply(&mut self, event: &Event) {
        self.step += 1;
        let (step, now) = (self.step, self.now);
        match event {
            Event::Connecting { client, clean, .. } => {
                if *clean {
                    self.end(*client, |interest| {
                        interest.ending.get_or_insert(step);
                    });
                }
            }
            Event::Opened { client, wire, present, expiry_secs, .. } => {
                if !present {
                    self.end_session(*client);
                }
                let known = &mut self.clients[*client];
                known.expiry_secs = *expiry_secs;
                known.open = Some(*wire);
                known.detached_since = None;
                self.epochs[*wire] = known.epoch;
            }
            Event::Closed { client, wire, .. } => {
                let known = &mut self.clients[*client];
                if known.open == Some(*wire) {
                    known.open = None;
                    known.detached_since = Some(now);
                    if known.expiry_secs == 0 {
                        self.end_session(*client);
                    }
                }
            }
            Event::Crashed { .. } => {
                self.crashes += 1;
                for client in 0..self.clients.len() {
                    let known = &mut self.clients[client];
                    known.open = None;
                    known.detached_since.get_or_insert(now);
                    if self.clients[client].expiry_secs == 0 {
                        self.end_session(client);
                    }
                }
            }
            Event::Sent { message, is_again } => {
                let message = &mut self.messages[*message];
                message.sent.get_or_insert((step, now));
                message.is_repeated |= is_again;
            }
            Event::Accepted { message } => {
                self.messages[*message].accepted.get_or_insert((step, now));
            }
            Event::Refused { message } => self.messages[*message].is_refused = true,
            Event::Subscribing { .. }
            | Event::Subscribed { .. }
            | Event::Unsubscribing { .. }
            | Event::Unsubscribed { .. } => self.apply_to_interests(event),
            Event::Connected { .. }
            | Event::Lost { .. }
            | Event::Delivered(_)
            | Event::Freed { .. }
            | Event::Started => {}
        }
    }

    /// What becomes of subscriptions.
    fn apply_to_interests(&mut self, event: &Event) {
        let step = self.step;
        match event {
            Event::Subscribing { client, interest } => {
                let mut interest = interest.clone();
                self.end_filter(*client, &interest.filter, |interest| {
                    interest.ending.get_or_insert(step);
                });
                let known = &mut self.clients[*client];
                (interest.asked, interest.epoch) = (step, known.epoch);
                known.interests.push(interest);
            }
            Event::Subscribed { client, filter, is_granted } => self.subscribed(*client, filter, *is_granted),
            Event::Unsubscribing { client, filter } => self.end_filter(*client, filter, |interest| {
                interest.ending.get_or_insert(step);
            }),
            // But for one that was asked for since.
            Event::Unsubscribed { client, filter } => self.end_filter(*client, filter, |interest| {
                if interest.ending.is_some() {
                    interest.ended.get_or_insert(step);
                }
            }),
            _ => {}
        }
    }

    fn subscribed(&mut self, client: usize, filter: &str, is_granted: bool) {
        let step = self.step;
        let interests = &mut self.clients[client].interests;
        let mut same = interests.iter_mut().rev().filter(|interest| interest.filter == filter);
        let Some(newest) = same.next() else { return };
        if is_granted {
            newest.granted = Some(step);
            same.for_each(|interest| {
                interest.ended.get_or_insert(step);
            });
        } else {
            (newest.ending, newest.ended) = (Some(newest.asked), Some(newest.asked));
        }
    }

    fn end(&mut self, client: usize, change: impl FnMut(&mut Interest)) {
        self.clients[client].interests.iter_mut().for_each(change);
    }

    fn end_filter(&mut self, client: usize, filter: &str, change: impl FnMut(&mut Interest)) {
        let interests = self.clients[client].interests.iter_mut();
        interests.filter(|interest| interest.filter == filter).for_each(change);
    }

    fn end_session(&mut self, client: usize) {
        let step = self.step;
        self.clients[client].epoch += 1;
        self.end(client, |interest| {
            interest.ending.get_or_insert(step);
            interest.ended.get_or_insert(step);
        });
    }

    /// The message that a delivery brings, if its payload names one.
    pub(crate) fn message(&self, delivered: &Delivered) -> Option<&Message> {
        delivered.message.map(|message| &self.messages[message])
    }

    /// Deliveries to a client that were reported as dropped for one of these reasons.
    pub(crate) fn dropped(&self, client_id: &str, reasons: &[dunlin::broker::DropReason]) -> u64 {
        let lines = self.dropped.iter();
        lines
            .filter(|line| line.client_id == client_id && reasons.contains(&line.reason))
            .map(|line| line.total)
            .sum()
    }
}

/// Whether a filter matches a topic name: the rule itself, level by level.
pub(crate) fn matches(filter: &str, topic: &str) -> bool {
    let (mut filter, mut topic) = (filter.split('/'), topic.split('/'));
    loop {
        match (filter.next(), topic.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(level), Some(name)) if level == name => {}
            (Some(_), _) | (None, Some(_)) => return false,
        }
    }
}
