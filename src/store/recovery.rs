//! What the store has when it is opened: the tables, and on top of them the log, in the order of its records.
//!
//! Messages are not kept in memory on the way: of each only its place is.

#![expect(clippy::disallowed_methods, reason = "a start that takes long tells how far it is")]

use std::{
    collections::BTreeMap,
    hash::BuildHasher,
    sync::Arc,
    time::{Duration, Instant},
};

use foldhash::fast::FixedState;
use hashbrown::{HashMap, HashSet, HashTable, hash_table};
use redb::{
    Database, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata,
};

use crate::{
    message::Message,
    session::{
        Inserted, Outgoing, RecordId, StoredMessage, StoredPresence, StoredSession, StoredSubscription,
    },
    time::Timestamp,
    topic::{TopicFilter, TopicLimits},
};

use super::{
    DiskOptions, Recovered,
    image::{self, Cursor, SessionImage},
    ledger::Ledger,
    record::{self, Append, Record},
    spill::Spiller,
    tables::{
        self, CURSOR, LOG, META, META_FLOOR, META_NEXT, META_SCHEMA, PART_BYTES_MAX, RETAINED, SCHEMA,
        SESSION, SUBSCRIPTION,
    },
    wire::Malformed,
};

/// What was found in a database.
pub(super) struct Found {
    pub(super) ledger: Ledger,
    pub(super) recovered: Recovered,
    /// Rows of retained messages that have expired, with their records.
    pub(super) expired: Vec<Row>,
}

/// The topic and the record of a row of a retained message.
pub(super) type Row = (Arc<str>, u64);

/// Makes the tables of a new database; returns the number of the format of one that is not new.
pub(super) fn prepare(database: &Database) -> Result<u64, redb::Error> {
    let transaction = database.begin_read()?;
    match transaction.open_table(META) {
        Ok(meta) => {
            if let Some(schema) = meta.get(META_SCHEMA)? {
                return Ok(schema.value());
            }
        }
        Err(redb::TableError::TableDoesNotExist(_)) => {}
        Err(error) => return Err(error.into()),
    }
    drop(transaction);
    let transaction = database.begin_write()?;
    transaction.open_table(LOG)?;
    transaction.open_table(SESSION)?;
    transaction.open_table(SUBSCRIPTION)?;
    transaction.open_table(CURSOR)?;
    transaction.open_table(RETAINED)?;
    transaction.open_table(META)?.insert(META_SCHEMA, SCHEMA)?;
    transaction.commit()?;
    Ok(SCHEMA)
}

/// Reads all that a database has.
pub(super) fn recover(
    database: &Database,
    options: DiskOptions,
    has_room: bool,
    now: Timestamp,
) -> Result<Found, redb::Error> {
    let spiller = Spiller::new(options, has_room);
    spiller.clear(database)?;
    let transaction = database.begin_read()?;
    let mut recovery = Recovery { progress: Progress::new(), spiller, now, ..Recovery::default() };
    let meta = transaction.open_table(META)?;
    recovery.ledger.set_floor(meta.get(META_FLOOR)?.map_or(0, |floor| floor.value()));
    let next = meta.get(META_NEXT)?.map_or(1, |next| next.value());
    recovery.read_sessions(&transaction)?;
    recovery.read_subscriptions(&transaction)?;
    recovery.read_cursors(&transaction)?;
    recovery.read_log(&transaction, database)?;
    let (retained, expired) = recovery.read_retained(&transaction)?;
    recovery.finish(database, retained, expired, next)
}

#[derive(Default)]
struct Recovery {
    ledger: Ledger,
    drafts: Vec<Draft>,
    /// Where each session is in `drafts`.
    places: HashMap<u64, usize, FixedState>,
    /// The place that was asked for last.
    near: usize,
    /// Filters of shared subscriptions: their messages share them.
    shares: HashSet<Arc<str>, FixedState>,
    /// Targets of sessions that are not known yet, and perhaps never will be.
    strays: Vec<(u64, StoredMessage)>,
    spiller: Spiller,
    now: Timestamp,
    malformed: usize,
    progress: Progress,
}

/// A session as far as it was read.
struct Draft {
    stored: StoredSession,
    subscriptions: BTreeMap<TopicFilter, StoredSubscription>,
    base: u64,
    upto: u64,
    has_ended: bool,
}

impl Recovery {
    fn complain(&mut self, what: &str, which: &dyn std::fmt::Display, malformed: Malformed) {
        const TOLD_MAX: usize = 10;
        self.malformed += 1;
        if self.malformed <= TOLD_MAX {
            tracing::warn!("{what} {which} in the store is skipped: {}", malformed.0);
        }
    }

    fn draft(&mut self, session: u64) -> Option<&mut Draft> {
        // Tables are in the order of sessions, and messages come in runs for one: it is the one that was
        // asked for last, or the next, more often than not.
        let near = self.drafts.get(self.near..self.near + 2).unwrap_or_default();
        if let Some(step) = near.iter().position(|draft| draft.stored.id == session) {
            self.near += step;
        } else {
            self.near = *self.places.get(&session)?;
        }
        self.drafts.get_mut(self.near)
    }

    fn read_sessions(&mut self, transaction: &ReadTransaction) -> Result<(), redb::Error> {
        let table = transaction.open_table(SESSION)?;
        self.drafts.reserve(table.len()? as usize);
        self.places.reserve(table.len()? as usize);
        for row in table.iter()? {
            let (key, row) = row?;
            self.progress.step("sessions");
            match image::decode_session(row.value()) {
                Ok(image) => self.put_session(key.value(), image),
                Err(malformed) => self.complain("session", &key.value(), malformed),
            }
        }
        Ok(())
    }

    fn put_session(&mut self, id: u64, image: SessionImage<'_>) {
        self.ledger.next = self.ledger.next.max(id + 1);
        if let Some(draft) = self.draft(id) {
            draft.stored.expiry_secs = image.expiry_secs;
            draft.stored.presence = image.presence;
            draft.stored.will = image.will;
            draft.stored.owner = image.owner.map(Into::into);
            return;
        }
        self.places.insert(id, self.drafts.len());
        let messages = self.spiller.queue();
        self.drafts.push(Draft {
            stored: StoredSession {
                id,
                client_id: image.client_id.into(),
                owner: image.owner.map(Into::into),
                expiry_secs: image.expiry_secs,
                presence: image.presence,
                will: image.will,
                subscriptions: Vec::new(),
                next_number: 0,
                messages,
                shared: Vec::new(),
                owned: Vec::new(),
                unreleased: Vec::new(),
            },
            subscriptions: BTreeMap::new(),
            base: 0,
            upto: 0,
            has_ended: false,
        });
    }

    fn read_subscriptions(&mut self, transaction: &ReadTransaction) -> Result<(), redb::Error> {
        for row in transaction.open_table(SUBSCRIPTION)?.iter()? {
            let (key, row) = row?;
            self.progress.step("subscriptions");
            let read = image::decode_subscription_key(key.value())
                .and_then(|(session, text)| Ok((session, filter(text)?)))
                .and_then(|(session, filter)| {
                    Ok((session, filter, image::decode_subscription(row.value())?))
                });
            match read {
                Ok((session, filter, subscription)) => {
                    if let Some(draft) = self.draft(session) {
                        draft.stored.subscriptions.push((filter, subscription));
                    }
                }
                Err(malformed) => {
                    self.complain("subscription", &String::from_utf8_lossy(key.value()), malformed);
                }
            }
        }
        Ok(())
    }

    fn read_cursors(&mut self, transaction: &ReadTransaction) -> Result<(), redb::Error> {
        for row in transaction.open_table(CURSOR)?.iter()? {
            let (key, row) = row?;
            self.progress.step("cursors");
            let cursor = match Cursor::decode(row.value()) {
                Ok(cursor) => cursor,
                Err(malformed) => {
                    self.complain("cursor", &key.value(), malformed);
                    continue;
                }
            };
            let Some(draft) = self.draft(key.value()) else { continue };
            (draft.base, draft.upto) = (cursor.base, cursor.upto);
            if !(cursor.owned.is_empty() && cursor.done.is_empty() && cursor.unreleased.is_empty()) {
                self.ledger.open_account(key.value(), &cursor);
            }
        }
        Ok(())
    }

    fn read_log(&mut self, transaction: &ReadTransaction, database: &Database) -> Result<(), redb::Error> {
        let log = transaction.open_table(LOG)?;
        let mut joined: Vec<u8> = Vec::new();
        let mut joined_of = 0;
        for row in log.iter()? {
            let (key, row) = row?;
            let (record, bytes) = (tables::record_of(key.value()), row.value());
            self.progress.step("records");
            if self.spiller.is_due() {
                let queues = self.drafts.iter_mut();
                let queues = queues.map(|draft| (draft.stored.id, &mut draft.stored.messages));
                self.spiller.spill(database, queues)?;
            }
            if !joined.is_empty() && joined_of != record {
                self.read_record(joined_of, &joined);
                joined.clear();
            }
            if joined.is_empty() && bytes.len() < PART_BYTES_MAX {
                self.read_record(record, bytes);
                continue;
            }
            joined_of = record;
            joined.extend_from_slice(bytes);
        }
        if !joined.is_empty() {
            self.read_record(joined_of, &joined);
        }
        Ok(())
    }

    fn read_record(&mut self, record: u64, bytes: &[u8]) {
        self.ledger.next = self.ledger.next.max(record + 1);
        if let Err(malformed) = record::decode(bytes).and_then(|read| self.enter(record, read, bytes)) {
            self.complain("record", &record, malformed);
        }
    }

    fn enter(&mut self, record: u64, read: Record<'_>, bytes: &[u8]) -> Result<(), Malformed> {
        match read {
            Record::Append(append) => self.append(record, &append),
            Record::PutSession { session, image } => {
                self.ledger.put_session(record, session, record::session_fields_of(bytes).to_vec());
                self.put_session(session, image);
            }
            Record::EndSession { session } => {
                self.ledger.end_session(record, session);
                if let Some(draft) = self.draft(session) {
                    draft.has_ended = true;
                }
            }
            Record::PutSubscription { session, filter: text, subscription } => {
                let filter = filter(text)?;
                self.ledger.put_subscription(record, session, filter.clone(), Some(subscription));
                if let Some(draft) = self.draft(session) {
                    draft.change_subscriptions().insert(filter, subscription);
                }
            }
            Record::RemoveSubscription { session, filter: text } => {
                let filter = filter(text)?;
                if let Some(draft) = self.draft(session) {
                    draft.change_subscriptions().remove(&filter);
                }
                self.ledger.put_subscription(record, session, filter, None);
            }
            Record::Release { session, packet_id } => self.ledger.depart(record, session, packet_id),
            Record::Received { session, number } => {
                self.ledger.own(record, session, number);
                self.saw_number(session, number);
            }
            Record::Passed { session, number } => {
                self.ledger.pass(record, session, number);
                self.saw_number(session, number);
            }
        }
        Ok(())
    }

    fn saw_number(&mut self, session: u64, number: u64) {
        if let Some(draft) = self.draft(session) {
            draft.stored.next_number = draft.stored.next_number.max(number + 1);
        }
    }

    /// Notes a target, whose session is known.
    fn park(&mut self, session: u64, stored: StoredMessage) {
        let run_max = self.spiller.run_messages_max();
        let inserted = self.draft(session).map(|draft| draft.stored.messages.insert(stored, run_max));
        if inserted == Some(Inserted::Twice) {
            self.ledger.release(stored.record.get());
        }
    }

    /// Notes all targets of a message: which of them are settled is known when the log was read to its end.
    fn append(&mut self, record: u64, append: &Append<'_>) {
        let size_bytes = append.message.size_bytes();
        let received = append.received.filter(|(session, _)| {
            // What the cursor has is not said again by a record that is still there for others.
            self.draft(*session).is_some_and(|draft| draft.upto < record)
        });
        let retain = append.retain && self.ledger.may_retain(record);
        let targets = append.targets.clone();
        let needs = targets.clone().count() + usize::from(retain) + usize::from(received.is_some());
        self.ledger.counts.add_written(record, needs as u32);
        if needs == 0 {
            self.ledger.dead.push(record);
        }
        let id = RecordId::new(record);
        let mut message: Option<Arc<Message>> = None;
        let mut load = || {
            message
                .get_or_insert_with(|| Arc::new(append.message.to_message(append.message.topic.into())))
                .clone()
        };
        for target in targets {
            self.ledger.next = self.ledger.next.max(target.session + 1);
            let stored = StoredMessage { number: target.number, record: id, size_bytes, qos: target.qos };
            let share = target
                .share
                .map(|share| self.shares.get_or_insert_with(share, |share| Arc::from(share)).clone());
            let Some(draft) = self.draft(target.session) else {
                self.strays.push((target.session, stored));
                continue;
            };
            draft.stored.next_number = draft.stored.next_number.max(target.number + 1);
            let Some(share) = share else {
                self.park(target.session, stored);
                continue;
            };
            let outgoing = Outgoing {
                message: load(),
                qos: target.qos,
                retain: target.retain,
                subscription_ids: target.subscription_ids(),
                share: Some(share),
                record: Some(id),
            };
            draft.stored.shared.push((target.number, outgoing));
        }
        if retain {
            self.ledger.retain(record, load());
        }
        if let Some((session, packet_id)) = received {
            self.ledger.arrive(record, session, packet_id);
        }
    }

    /// The retained messages, and rows of those that have expired.
    fn read_retained(
        &mut self,
        transaction: &ReadTransaction,
    ) -> Result<(Vec<Arc<Message>>, Vec<Row>), redb::Error> {
        let table: ReadOnlyTable<&[u8], &[u8]> = transaction.open_table(RETAINED)?;
        let mut retained = Vec::with_capacity(table.len()? as usize);
        let mut expired = Vec::new();
        for row in table.iter()? {
            let (key, row) = row?;
            self.progress.step("retained messages");
            let read = std::str::from_utf8(key.value())
                .map_err(|_| Malformed("its topic is not UTF-8"))
                .and_then(|topic| Ok((topic, image::decode_retained(row.value())?)));
            let (topic, (record, body)) = match read {
                Ok(read) => read,
                Err(malformed) => {
                    self.complain("retained message", &String::from_utf8_lossy(key.value()), malformed);
                    continue;
                }
            };
            self.ledger.next = self.ledger.next.max(record + 1);
            match self.ledger.retained_record(topic) {
                Some(newer) if newer > record => continue,
                Some(_) => self.ledger.forget_retained(topic),
                None => {}
            }
            if body.is_expired(self.now) {
                expired.push((Arc::from(topic), record));
            } else {
                retained.push(Arc::new(body.to_message(topic.into())));
            }
        }
        let fresh = self.ledger.retained();
        let is_there =
            |message: &&Arc<Message>| !message.payload().is_empty() && !message.is_expired(self.now);
        retained.extend(fresh.filter(is_there).cloned());
        Ok((retained, expired))
    }

    fn finish(
        mut self,
        database: &Database,
        retained: Vec<Arc<Message>>,
        expired: Vec<Row>,
        next: u64,
    ) -> Result<Found, redb::Error> {
        for (session, stored) in std::mem::take(&mut self.strays) {
            self.place_stray(session, stored);
        }
        self.end_namesakes();
        let mut sessions = Vec::with_capacity(self.drafts.len());
        for draft in std::mem::take(&mut self.drafts) {
            sessions.extend(self.settle(draft, database)?);
        }
        self.spiller.remove_read(database)?;
        sessions.sort_by_key(|session| session.id);
        self.ledger.end_strangers(&self.places);
        if self.malformed > 0 {
            tracing::error!(skipped = self.malformed, "the store has entries that cannot be read");
        }
        self.progress.end(sessions.len(), retained.len());
        let next = RecordId::new(self.ledger.next.max(next));
        self.ledger.next = next.get();
        Ok(Found { ledger: self.ledger, recovered: Recovered { sessions, retained, next }, expired })
    }

    /// A target whose session came later in the log, or nowhere.
    fn place_stray(&mut self, session: u64, stored: StoredMessage) {
        match self.draft(session) {
            Some(draft) => {
                draft.stored.next_number = draft.stored.next_number.max(stored.number + 1);
                self.park(session, stored);
            }
            None => {
                self.ledger.release(stored.record.get());
            }
        }
    }

    /// Of two sessions of one client the later one is the client's: the end of the other was lost.
    fn end_namesakes(&mut self) {
        let hasher = FixedState::default();
        let hash = |client_id: &str| hasher.hash_one(client_id);
        let mut newest: HashTable<usize> = HashTable::with_capacity(self.drafts.len());
        for at in 0..self.drafts.len() {
            let drafts = &self.drafts;
            let draft = &drafts[at];
            if draft.has_ended {
                continue;
            }
            let is_same = |other: &usize| drafts[*other].stored.client_id == draft.stored.client_id;
            let rehash = |other: &usize| hash(&drafts[*other].stored.client_id);
            let older = match newest.entry(hash(&draft.stored.client_id), is_same, rehash) {
                hash_table::Entry::Vacant(vacant) => {
                    vacant.insert(at);
                    continue;
                }
                hash_table::Entry::Occupied(other) if drafts[*other.get()].stored.id > draft.stored.id => at,
                hash_table::Entry::Occupied(mut other) => std::mem::replace(other.get_mut(), at),
            };
            self.drafts[older].has_ended = true;
            self.ledger.end(self.drafts[older].stored.id);
        }
    }

    /// Takes out what is settled. `None` if the session has ended.
    fn settle(&mut self, draft: Draft, database: &Database) -> Result<Option<StoredSession>, redb::Error> {
        let Draft { mut stored, subscriptions, base, has_ended, .. } = draft;
        if has_ended {
            for record in stored.shared.iter().filter_map(|(_, outgoing)| outgoing.record) {
                self.ledger.release(record.get());
            }
            for run in stored.messages.into_runs() {
                for message in self.spiller.messages(database, stored.id, run)? {
                    self.ledger.release(message.record.get());
                }
            }
            self.places.remove(&stored.id);
            return Ok(None);
        }
        let cursor = self.ledger.cursor(stored.id).unwrap_or_default();
        let base = base.max(cursor.base);
        let is_settled =
            |number: u64| number < base || cursor.owned.contains(&number) || cursor.done.contains(&number);
        let ledger = &mut self.ledger;
        stored.messages = self.spiller.settled(database, &mut stored, base, &cursor, |message| {
            ledger.release(message.record.get());
        })?;
        stored.shared.retain(|(number, outgoing)| {
            let is_settled = is_settled(*number);
            if let Some(record) = outgoing.record.filter(|_| is_settled) {
                ledger.release(record.get());
            }
            !is_settled
        });
        stored.shared.sort_by_key(|(number, _)| *number);
        stored.subscriptions.extend(subscriptions);
        let above = cursor.owned.last().max(cursor.done.last()).map_or(0, |last| last + 1);
        let sent_below = match stored.presence {
            StoredPresence::Connected { .. } => 0,
            StoredPresence::Detached { sent_below, perhaps_sent_below, .. } => {
                sent_below.max(perhaps_sent_below)
            }
        };
        stored.next_number = stored.next_number.max(base).max(above).max(sent_below);
        stored.owned = cursor.owned.into_iter().filter(|number| *number >= base).collect();
        stored.unreleased = cursor.unreleased.into_iter().collect();
        Ok(Some(stored))
    }
}

impl Draft {
    /// The subscriptions as a map, for one whose log has changes of them.
    fn change_subscriptions(&mut self) -> &mut BTreeMap<TopicFilter, StoredSubscription> {
        self.subscriptions.extend(self.stored.subscriptions.drain(..));
        &mut self.subscriptions
    }
}

/// A filter of a client that was accepted once: limits that were lowered since do not end it.
fn filter(text: &str) -> Result<TopicFilter, Malformed> {
    const BOUNDLESS: TopicLimits = TopicLimits { bytes_max: usize::MAX, levels_max: usize::MAX };
    TopicFilter::parse(text, &BOUNDLESS).map_err(|_| Malformed("its filter is not valid"))
}

/// Tells how far the start is, once it has taken a second.
struct Progress {
    began: Instant,
    told: Instant,
    steps: u64,
}

impl Default for Progress {
    fn default() -> Progress {
        Progress::new()
    }
}

impl Progress {
    const EVERY: Duration = Duration::from_secs(1);
    /// Steps between two looks at the clock.
    const STEPS: u64 = 16_384;

    fn new() -> Progress {
        let now = Instant::now();
        Progress { began: now, told: now, steps: 0 }
    }

    fn step(&mut self, what: &str) {
        self.steps += 1;
        if self.steps.is_multiple_of(Progress::STEPS) && self.told.elapsed() >= Progress::EVERY {
            self.told = Instant::now();
            tracing::info!(entries = self.steps, "reading the store: {what}");
        }
    }

    fn end(&self, sessions: usize, retained: usize) {
        if self.began.elapsed() >= Progress::EVERY {
            let millis = self.began.elapsed().as_millis() as u64;
            tracing::info!(entries = self.steps, sessions, retained, millis, "the store is read");
        }
    }
}
