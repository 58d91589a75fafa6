//! What one transaction writes. It is made once and may be written again: after a failed commit nobody knows
//! whether it was applied, and to apply it twice is to apply it once.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use redb::{ReadableTable, Table};

use crate::{message::Message, session::StoredSubscription, topic::TopicFilter};

use super::{
    image::{self, Cursor},
    spill,
    tables::{self, CURSOR, LOG, META, PART_BYTES_MAX, RETAINED, SESSION, SUBSCRIPTION},
};

/// The changes of one transaction.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Records for the log, in any order.
    pub(super) puts: Puts,
    /// Records of the log that nobody needs.
    pub(super) dead: Vec<u64>,
    /// Rows that take the place of some of these.
    pub(super) folds: Vec<Fold>,
    /// References that are spilled, or read back.
    pub(super) spilled: spill::Rows,
    /// What is said of the database itself.
    pub(super) marks: Vec<(&'static str, u64)>,
    /// What is told when it is committed: the newest batch of each shard.
    pub(super) commits: Vec<(u16, u64)>,
    /// Whether redb saves what it needs to open quickly after a crash.
    pub(super) quick_repair: bool,
}

/// Encoded records.
#[derive(Debug, Default)]
pub(super) struct Puts {
    bytes: Vec<u8>,
    places: Vec<Place>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    record: u64,
    from: usize,
    to: usize,
}

/// One row of a table that the log is folded into, or several of one session.
#[derive(Debug)]
pub(super) enum Fold {
    /// A session and all that it had is gone.
    Ended { session: u64 },
    /// What has changed of a session.
    Session {
        session: u64,
        /// The fields of its row.
        fields: Option<Vec<u8>>,
        subscriptions: BTreeMap<TopicFilter, Option<StoredSubscription>>,
        cursor: Option<Cursor>,
    },
    /// The retained message of a topic, or that it has none.
    Retained { topic: Arc<str>, record: u64, message: Option<Arc<Message>> },
}

impl Puts {
    pub(super) fn put(&mut self, record: u64, encode: impl FnOnce(&mut Vec<u8>)) {
        let from = self.bytes.len();
        encode(&mut self.bytes);
        self.places.push(Place { record, from, to: self.bytes.len() });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Empties it, to be filled again, unless it has become large.
    pub(super) fn into_empty(mut self) -> Puts {
        const KEPT_BYTES_MAX: usize = 2 << 20;
        if self.bytes.capacity() > KEPT_BYTES_MAX {
            return Puts::default();
        }
        self.bytes.clear();
        self.places.clear();
        self
    }

    /// Rows of the log in the order of their keys: a long record is several.
    fn rows(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.places.iter().flat_map(|place| {
            let bytes = &self.bytes[place.from..place.to];
            bytes
                .chunks(PART_BYTES_MAX)
                .enumerate()
                .map(|(part, bytes)| (tables::log_key(place.record, part as u64), bytes))
        })
    }
}

impl Plan {
    /// Whether there is nothing that would have to be written.
    pub(super) fn is_empty(&self) -> bool {
        self.puts.is_empty()
            && self.dead.is_empty()
            && self.folds.is_empty()
            && self.spilled.is_empty()
            && self.marks.is_empty()
    }

    /// Brings records and deletions into the order of the log. Batches of several shards are nearly in order.
    pub(super) fn sort(&mut self) {
        self.puts.places.sort_by_key(|place| place.record);
        self.dead.sort_unstable();
    }

    /// Writes it all in one transaction.
    pub(super) fn write(&self, database: &redb::Database) -> Result<(), redb::Error> {
        let mut transaction = database.begin_write()?;
        transaction.set_quick_repair(self.quick_repair);
        if !self.puts.is_empty() || !self.dead.is_empty() {
            let mut log = transaction.open_table(LOG)?;
            delete(&mut log, &self.dead)?;
            append(&mut log, &self.puts)?;
        }
        if !self.folds.is_empty() {
            self.write_folds(&transaction)?;
        }
        if !self.spilled.is_empty() {
            spill::write(&transaction, &self.spilled)?;
        }
        if !self.marks.is_empty() {
            let mut meta = transaction.open_table(META)?;
            for (name, value) in &self.marks {
                meta.insert(name, value)?;
            }
        }
        transaction.commit()?;
        Ok(())
    }

    fn write_folds(&self, transaction: &redb::WriteTransaction) -> Result<(), redb::Error> {
        let mut tables = Images {
            sessions: transaction.open_table(SESSION)?,
            subscriptions: transaction.open_table(SUBSCRIPTION)?,
            cursors: transaction.open_table(CURSOR)?,
            retained: transaction.open_table(RETAINED)?,
            row: Vec::new(),
        };
        for fold in &self.folds {
            match fold {
                Fold::Ended { session } => tables.end(*session)?,
                Fold::Session { session, fields, subscriptions, cursor } => {
                    tables.put(*session, fields.as_deref(), subscriptions, cursor.as_ref())?;
                }
                Fold::Retained { topic, record, message } => {
                    tables.retain(topic, *record, message.as_deref())?;
                }
            }
        }
        Ok(())
    }
}

/// Deletes records. Those that lie close together are deleted in one go.
fn delete(log: &mut Table<'_, u64, &[u8]>, dead: &[u64]) -> Result<(), redb::Error> {
    for cluster in dead.chunk_by(|a, b| b - a <= tables::CLUSTER_GAP_RECORDS_MAX) {
        let (Some(first), Some(last)) = (cluster.first(), cluster.last()) else { continue };
        let mut left = cluster;
        log.retain_in(tables::log_keys(*first, *last), |key, _| {
            let record = tables::record_of(key);
            while left.first().is_some_and(|dead| *dead < record) {
                left = &left[1..];
            }
            left.first() != Some(&record)
        })?;
    }
    Ok(())
}

/// Appends records. Few come late, behind others of a later number, and only they cost a search each.
fn append(log: &mut Table<'_, u64, &[u8]>, puts: &Puts) -> Result<(), redb::Error> {
    let last = log.last()?.map(|(key, _)| key.value());
    let mut rows = puts.rows().peekable();
    while let Some((key, bytes)) = rows.next_if(|(key, _)| last.is_some_and(|last| *key <= last)) {
        log.insert(key, bytes)?;
    }
    if rows.peek().is_none() {
        return Ok(());
    }
    let mut end = log.upper_bound_mut(Bound::<u64>::Unbounded)?;
    for (key, bytes) in rows {
        end.insert_before(key, bytes)?;
    }
    end.close()?;
    Ok(())
}

struct Images<'txn> {
    sessions: Table<'txn, u64, &'static [u8]>,
    subscriptions: Table<'txn, &'static [u8], &'static [u8]>,
    cursors: Table<'txn, u64, &'static [u8]>,
    retained: Table<'txn, &'static [u8], &'static [u8]>,
    row: Vec<u8>,
}

impl Images<'_> {
    fn end(&mut self, session: u64) -> Result<(), redb::Error> {
        self.sessions.remove(session)?;
        self.cursors.remove(session)?;
        let (from, to) = (session.to_be_bytes(), (session + 1).to_be_bytes());
        self.subscriptions.retain_in(from.as_slice()..to.as_slice(), |_, _| false)?;
        Ok(())
    }

    fn put(
        &mut self,
        session: u64,
        fields: Option<&[u8]>,
        subscriptions: &BTreeMap<TopicFilter, Option<StoredSubscription>>,
        cursor: Option<&Cursor>,
    ) -> Result<(), redb::Error> {
        if let Some(fields) = fields {
            self.row.clear();
            image::session(&mut self.row, fields);
            self.sessions.insert(session, self.row.as_slice())?;
        }
        for (filter, subscription) in subscriptions {
            let key = image::subscription_key(session, filter.as_str());
            match subscription {
                Some(subscription) => {
                    self.row.clear();
                    image::subscription(&mut self.row, subscription);
                    self.subscriptions.insert(key.as_slice(), self.row.as_slice())?;
                }
                None => {
                    self.subscriptions.remove(key.as_slice())?;
                }
            }
        }
        // What was settled for a session that has ended makes no cursor.
        if let Some(cursor) = cursor
            && self.sessions.get(session)?.is_some()
        {
            self.put_cursor(session, cursor)?;
        }
        Ok(())
    }

    fn put_cursor(&mut self, session: u64, cursor: &Cursor) -> Result<(), redb::Error> {
        let old = self.cursors.get(session)?.and_then(|row| Cursor::decode_marks(row.value()).ok());
        let (base, upto) = old.unwrap_or((0, 0));
        let mut cursor = cursor.clone();
        cursor.base = cursor.base.max(base);
        cursor.upto = cursor.upto.max(upto);
        self.row.clear();
        cursor.encode(&mut self.row);
        self.cursors.insert(session, self.row.as_slice())?;
        Ok(())
    }

    /// An older record may be folded after a newer one: it changes nothing.
    fn retain(&mut self, topic: &str, record: u64, message: Option<&Message>) -> Result<(), redb::Error> {
        let key = topic.as_bytes();
        let old = self.retained.get(key)?.and_then(|row| image::decode_retained_record(row.value()).ok());
        if old.is_some_and(|old| old > record) {
            return Ok(());
        }
        match message {
            Some(message) => {
                self.row.clear();
                image::retained(&mut self.row, record, message);
                self.retained.insert(key, self.row.as_slice())?;
            }
            None => {
                self.retained.remove(key)?;
            }
        }
        Ok(())
    }
}
