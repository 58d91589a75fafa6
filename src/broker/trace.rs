//! What becomes of a message, step by step: for who has asked for it, and of a few messages always, to know how long
//! they take.
//!
//! A message that is followed carries a [`Mark`]. While nobody has asked, the path of a message costs one comparison
//! of times where it is accepted, and a look at its mark where it is sent.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;

use crate::{
    codec::QoS,
    message::{Mark, Message},
    session::{Body, Fetched, Found, Outgoing, RecordId},
    time::Timestamp,
    topic::TopicFilter,
};

use super::{DropReason, Outputs, Shard, publish::Fault, router::Route};

/// Time between two messages of a shard that are followed without anybody asking.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);

/// Steps that one turn may tell of; further ones are left out.
const STEPS_MAX: usize = 4096;

/// Messages in the store whose marks are remembered.
const RECORDS_MAX: usize = 4096;

/// Which messages somebody wants followed.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Those to topics that this matches; all if there is none.
    pub filter: Option<TopicFilter>,
    /// Those that this client publishes or gets; of all clients if there is none.
    pub client_id: Option<Arc<str>>,
}

/// What all shards know of who wants messages followed.
#[derive(Debug, Default)]
pub struct Tracing {
    is_on: AtomicBool,
    wanted: ArcSwapOption<Wanted>,
    last: AtomicU32,
    /// Marks of messages that have left memory for the store.
    records: Mutex<BTreeMap<RecordId, Mark>>,
}

/// Something that happened to a message that is followed.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The message.
    pub message: Mark,
    /// What happened.
    pub kind: StepKind,
    /// The publisher or the subscriber, whom it concerns; `None` for all.
    pub client_id: Option<Arc<str>>,
    /// The topic; empty if the message is in the store alone.
    pub topic: Arc<str>,
    /// The QoS that it was published with or is delivered with.
    pub qos: Option<QoS>,
    /// More, in words.
    pub detail: Cow<'static, str>,
}

/// What can happen to a message, in the order in which it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StepKind {
    /// The broker has taken it over.
    Accepted,
    /// The broker has refused it.
    Refused,
    /// Nobody gets it.
    NoMatch,
    /// Somebody gets it.
    Matched,
    /// It waits in the queue of a subscriber.
    Queued,
    /// It was written for a subscriber.
    Sent,
    /// The subscriber has answered PUBREC: the message is its own.
    Received,
    /// The subscriber has acknowledged it.
    Acknowledged,
    /// A subscriber does not get it.
    Dropped,
}

impl StepKind {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            StepKind::Accepted => "accepted",
            StepKind::Refused => "refused",
            StepKind::NoMatch => "no-match",
            StepKind::Matched => "matched",
            StepKind::Queued => "queued",
            StepKind::Sent => "sent",
            StepKind::Received => "received",
            StepKind::Acknowledged => "acknowledged",
            StepKind::Dropped => "dropped",
        }
    }
}

/// A moment of a message whose time is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sample {
    /// It was accepted in this turn.
    Accepted(Mark),
    /// It was written for a subscriber in this turn.
    Sent(Mark),
}

impl Tracing {
    /// Follows these messages from now on, and no others.
    pub fn set(&self, wanted: Option<Wanted>) {
        self.is_on.store(wanted.is_some(), Ordering::Relaxed);
        if wanted.is_none() {
            self.lock_records().clear();
        }
        self.wanted.store(wanted.map(Arc::new));
    }

    fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    fn lock_records(&self) -> std::sync::MutexGuard<'_, BTreeMap<RecordId, Mark>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers the mark of a message that the store has. The oldest ones are forgotten.
    fn remember(&self, record: RecordId, mark: Mark) {
        let mut records = self.lock_records();
        if records.len() >= RECORDS_MAX {
            records.pop_first();
        }
        records.insert(record, mark);
    }

    fn mark_of(&self, record: RecordId) -> Option<Mark> {
        if self.is_on() { self.lock_records().get(&record).copied() } else { None }
    }

    /// A mark that no other message has for a long time.
    fn next(&self, is_sample: bool) -> Mark {
        Mark::new(self.last.fetch_add(1, Ordering::Relaxed), is_sample)
    }
}

impl Wanted {
    fn wants(&self, topic: &str, publisher: Option<&Arc<str>>, route: Option<&Route>) -> bool {
        let is_of_client = |client_id: &Arc<str>| {
            publisher == Some(client_id)
                || route.is_some_and(|route| {
                    let mut targets = route.shards.iter().flat_map(|(_, targets)| targets.iter());
                    // Who of a shared subscription gets it is not known yet.
                    !route.groups.is_empty() || targets.any(|target| target.session.client_id == *client_id)
                })
        };
        self.filter.as_ref().is_none_or(|filter| filter.matches(topic))
            && self.client_id.as_ref().is_none_or(is_of_client)
    }
}

impl Shard {
    /// Decides whether a message is followed.
    pub(super) fn mark(&mut self, now: Timestamp, message: &mut Message, route: &Route) {
        let tracing = &self.shared.tracing;
        let is_wanted = tracing.is_on()
            && tracing
                .wanted
                .load()
                .as_ref()
                .is_some_and(|wanted| wanted.wants(message.topic(), message.publisher(), Some(route)));
        if is_wanted {
            message.set_mark(tracing.next(false));
        } else if now >= self.sample_at {
            self.sample_at = now.plus(SAMPLE_INTERVAL);
            message.set_mark(tracing.next(true));
        }
    }

    /// A message was accepted: says so, and to whom it goes.
    pub(super) fn trace_accepted(
        &self,
        message: &Message,
        route: &Route,
        is_matched: bool,
        out: &mut Outputs,
    ) {
        let Some(mark) = message.mark() else { return };
        out.sample(Sample::Accepted(mark));
        if mark.is_sample() {
            return;
        }
        let retained = if message.retain() { "with RETAIN, " } else { "" };
        let detail = format!("{retained}{} bytes of payload", message.payload().len());
        let step = Step {
            message: mark,
            kind: StepKind::Accepted,
            client_id: message.publisher().cloned(),
            topic: message.topic().clone(),
            qos: Some(message.qos()),
            detail: detail.into(),
        };
        let sessions = route.shards.iter().map(|(_, targets)| targets.len()).sum::<usize>();
        let groups = route.groups.len();
        let (kind, detail) = match is_matched {
            true => {
                (StepKind::Matched, format!("{sessions} sessions and {groups} shared subscriptions").into())
            }
            false => (StepKind::NoMatch, Cow::Borrowed("no subscription matches")),
        };
        let matched = Step { kind, client_id: None, detail, ..step.clone() };
        out.step(step);
        out.step(matched);
    }

    /// A PUBLISH was refused.
    pub(super) fn trace_refused(
        &self,
        publisher: Option<&Arc<str>>,
        topic: &Arc<str>,
        qos: QoS,
        fault: &Fault,
        out: &mut Outputs,
    ) {
        let tracing = &self.shared.tracing;
        if !tracing.is_on() {
            return;
        }
        let wanted = tracing.wanted.load();
        if wanted.as_ref().is_some_and(|wanted| wanted.wants(topic, publisher, None)) {
            out.step(Step {
                message: tracing.next(false),
                kind: StepKind::Refused,
                client_id: publisher.cloned(),
                topic: topic.clone(),
                qos: Some(qos),
                detail: format!("{}: {}", fault.code, fault.why).into(),
            });
        }
    }

    /// The store has this message under that record.
    pub(super) fn trace_stored(&self, message: &Message, record: Option<RecordId>) {
        if let (Some(mark), Some(record)) = (message.mark().filter(|mark| !mark.is_sample()), record) {
            self.shared.tracing.remember(record, mark);
        }
    }

    /// A message was written for a client.
    pub(super) fn trace_sent(
        &self,
        slot: u32,
        outgoing: &Outgoing,
        detail: Cow<'static, str>,
        out: &mut Outputs,
    ) {
        if let Some(mark) = outgoing.message.mark() {
            out.sample(Sample::Sent(mark));
            self.trace(slot, outgoing, StepKind::Sent, detail, out);
        }
    }

    /// Something happened to a message on its way to a session.
    pub(super) fn trace(
        &self,
        slot: u32,
        outgoing: &Outgoing,
        kind: StepKind,
        detail: impl Into<Cow<'static, str>>,
        out: &mut Outputs,
    ) {
        let Some(message) = outgoing.message.mark().filter(|mark| !mark.is_sample()) else { return };
        let client_id = Some(self.sessions[slot as usize].client_id().clone());
        let (topic, qos) = (outgoing.message.topic().clone(), Some(outgoing.qos));
        out.step(Step { message, kind, client_id, topic, qos, detail: detail.into() });
    }

    /// The same for one that may be in the store alone.
    pub(super) fn trace_body(
        &self,
        slot: u32,
        body: &Body,
        kind: StepKind,
        detail: impl Into<Cow<'static, str>>,
        out: &mut Outputs,
    ) {
        match body {
            Body::Here(outgoing) => self.trace(slot, outgoing, kind, detail, out),
            Body::Stored(stored) => {
                let Some(message) = self.shared.tracing.mark_of(stored.record) else { return };
                let client_id = Some(self.sessions[slot as usize].client_id().clone());
                let topic = Arc::default();
                let qos = Some(stored.qos);
                out.step(Step { message, kind, client_id, topic, qos, detail: detail.into() });
            }
        }
    }

    /// A message that is on its way to a session that is not there is dropped.
    pub(super) fn trace_lost(
        &self,
        client_id: &Arc<str>,
        message: &Message,
        reason: DropReason,
        out: &mut Outputs,
    ) {
        if let Some(mark) = message.mark().filter(|mark| !mark.is_sample()) {
            out.step(Step {
                message: mark,
                kind: StepKind::Dropped,
                client_id: Some(client_id.clone()),
                topic: message.topic().clone(),
                qos: None,
                detail: reason.name().into(),
            });
        }
    }

    /// Messages that come back from the store get the marks that they had.
    pub(super) fn mark_fetched(&self, fetched: &mut Fetched) {
        if !self.shared.tracing.is_on() {
            return;
        }
        let Found::Messages(messages) = &mut fetched.found else { return };
        for outgoing in messages.iter_mut().filter_map(|(_, outgoing)| outgoing.as_mut()) {
            let mark = outgoing.record.and_then(|record| self.shared.tracing.mark_of(record));
            if let Some(mark) = mark {
                Arc::make_mut(&mut outgoing.message).set_mark(mark);
            }
        }
    }
}

impl Outputs {
    fn step(&mut self, step: Step) {
        if self.steps.len() < STEPS_MAX {
            self.steps.push(step);
        }
    }

    fn sample(&mut self, sample: Sample) {
        if self.samples.len() < STEPS_MAX {
            self.samples.push(sample);
        }
    }
}
