//! References to messages of long queues, which a broker that runs keeps here rather than in memory.
//!
//! They say nothing that the log does not say: a restart begins with none. `docs/storage.md` has the rows.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use redb::{Database, ReadTransaction, ReadableDatabase, Table, TableError, WriteTransaction};

use crate::{
    codec::QoS,
    session::{Parked, RecordId, SpilledRun, StoredMessage, StoredPresence, StoredSession},
};

use super::{
    DiskOptions,
    health::Slot,
    image::Cursor,
    ledger::Ledger,
    plan::Plan,
    tables::SPILLED,
    wire::{Malformed, Reader, VERSION},
};

const RUN: u8 = 20;
const REFERENCE_BYTES: usize = 10;

/// Session and number of the first message of a run.
pub(super) type RunKey = (u64, u64);

/// Rows of a transaction: what is put, and what is removed.
pub(super) type Rows = BTreeMap<RunKey, Option<Vec<u8>>>;

/// Runs of ended sessions that are read for one transaction.
const ENDED_RUNS_MAX: usize = 64;

/// The row of a run, whose numbers follow each other.
pub(super) fn encode(messages: &[StoredMessage]) -> Vec<u8> {
    let mut row = Vec::with_capacity(2 + messages.len() * REFERENCE_BYTES);
    row.extend([VERSION, RUN]);
    for message in messages {
        row.extend(&message.record.get().to_le_bytes()[..6]);
        let is_qos_2 = u32::from(message.qos == QoS::ExactlyOnce);
        row.extend((message.size_bytes << 1 | is_qos_2).to_le_bytes());
    }
    row
}

pub(super) fn decode(first: u64, row: &[u8]) -> Result<Vec<StoredMessage>, Malformed> {
    let mut reader = Reader::new(row);
    reader.expect_kind(RUN)?;
    let mut messages = Vec::with_capacity(row.len() / REFERENCE_BYTES);
    let count = (row.len() - 2) / REFERENCE_BYTES;
    let end = first.checked_add(count as u64).ok_or(Malformed("its numbers are too high"))?;
    for number in first..end {
        let record = u64::from(reader.u32()?) | u64::from(reader.u16()?) << 32;
        let size = reader.u32()?;
        let qos = if size & 1 == 1 { QoS::ExactlyOnce } else { QoS::AtLeastOnce };
        messages.push(StoredMessage { number, record: RecordId::new(record), size_bytes: size >> 1, qos });
    }
    reader.end()?;
    Ok(messages)
}

pub(super) fn key((session, first): RunKey) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&session.to_be_bytes());
    key[8..].copy_from_slice(&first.to_be_bytes());
    key
}

/// The messages of a run; `None` if it is not there.
///
/// # Errors
/// What redb says, or that the row cannot be read: what is in it is in memory nowhere, so the broker cannot go
/// on as if it were not there.
pub(super) fn read(
    transaction: &ReadTransaction,
    session: u64,
    first: u64,
) -> Result<Option<Vec<StoredMessage>>, redb::Error> {
    let table = match transaction.open_table(SPILLED) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let Some(row) = table.get(key((session, first)).as_slice())? else { return Ok(None) };
    let malformed = |malformed: Malformed| {
        redb::Error::Corrupted(format!("message {first} of session {session} in a queue: {}", malformed.0))
    };
    decode(first, row.value()).map(Some).map_err(malformed)
}

/// Writes what a transaction puts and removes.
pub(super) fn write(transaction: &WriteTransaction, rows: &Rows) -> Result<(), redb::Error> {
    let mut table = transaction.open_table(SPILLED)?;
    for (run, row) in rows {
        match row {
            Some(row) => table.insert(key(*run).as_slice(), row.as_slice())?,
            None => table.remove(key(*run).as_slice())?,
        };
    }
    Ok(())
}

fn insert(
    table: &mut Table<'_, &[u8], &[u8]>,
    session: u64,
    messages: &[StoredMessage],
) -> Result<(), redb::Error> {
    if let Some(StoredMessage { number, .. }) = messages.first() {
        table.insert(key((session, *number)).as_slice(), encode(messages).as_slice())?;
    }
    Ok(())
}

/// Spills what is found when a database is opened, like the shards later.
#[derive(Debug, Default)]
pub(super) struct Spiller {
    index_bytes_max: usize,
    run_messages_max: usize,
    /// Whether the disk has room for rows.
    has_room: bool,
    index_bytes: Arc<AtomicUsize>,
    /// With fewer bytes there is nothing to spill.
    due_bytes: usize,
    /// Runs that were read back.
    read: Rows,
}

impl Spiller {
    pub(super) fn new(options: DiskOptions, has_room: bool) -> Spiller {
        let DiskOptions { index_bytes_max, run_messages_max, .. } = options;
        Spiller {
            index_bytes_max,
            run_messages_max,
            has_room,
            due_bytes: index_bytes_max,
            ..Spiller::default()
        }
    }

    pub(super) fn run_messages_max(&self) -> usize {
        self.run_messages_max
    }

    /// Removes what another broker left. Where there is no room, it stays: nobody reads it before it is
    /// written anew.
    pub(super) fn clear(&self, database: &Database) -> Result<(), redb::Error> {
        match database.begin_read()?.open_table(SPILLED) {
            Ok(_) if self.has_room => {}
            Ok(_) | Err(TableError::TableDoesNotExist(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let transaction = database.begin_write()?;
        transaction.delete_table(SPILLED)?;
        transaction.commit()?;
        Ok(())
    }

    /// An empty queue that is counted.
    pub(super) fn queue(&self) -> Parked {
        let mut queue = Parked::default();
        queue.count_in(&self.index_bytes);
        queue
    }

    pub(super) fn is_due(&self) -> bool {
        self.has_room && self.index_bytes.load(Ordering::Relaxed) > self.due_bytes
    }

    /// Spills all that can be, of all sessions.
    pub(super) fn spill<'a>(
        &mut self,
        database: &Database,
        queues: impl Iterator<Item = (u64, &'a mut Parked)>,
    ) -> Result<(), redb::Error> {
        let transaction = database.begin_write()?;
        {
            let mut table = transaction.open_table(SPILLED)?;
            for (session, queue) in queues {
                let mut written = Ok(());
                queue.spill(
                    self.run_messages_max,
                    |_| false,
                    |messages| {
                        if written.is_ok() {
                            written = insert(&mut table, session, &messages);
                        }
                    },
                );
                written?;
            }
        }
        transaction.commit()?;
        // What is left cannot be spilled: it would be looked at in vain again and again.
        let left = self.index_bytes.load(Ordering::Relaxed);
        self.due_bytes = self.index_bytes_max.max(left + self.index_bytes_max / 4);
        Ok(())
    }

    /// The messages of a run.
    pub(super) fn messages(
        &mut self,
        database: &Database,
        session: u64,
        run: Result<Vec<StoredMessage>, SpilledRun>,
    ) -> Result<Vec<StoredMessage>, redb::Error> {
        let first = match run {
            Ok(messages) => return Ok(messages),
            Err(run) => run.first,
        };
        self.read.insert((session, first), None);
        let messages = read(&database.begin_read()?, session, first)?;
        messages.ok_or_else(|| redb::Error::Corrupted("a run of a queue is not there".to_owned()))
    }

    /// The queue of a session without what is settled, of which `release` is told. What may have been sent is in
    /// memory.
    pub(super) fn settled(
        &mut self,
        database: &Database,
        stored: &mut StoredSession,
        base: u64,
        cursor: &Cursor,
        mut release: impl FnMut(StoredMessage),
    ) -> Result<Parked, redb::Error> {
        let is_settled =
            |number: u64| number < base || cursor.owned.contains(&number) || cursor.done.contains(&number);
        let is_touched = |first: u64, end: u64| {
            let has_any = |numbers: &BTreeSet<u64>| numbers.range(first..end).next().is_some();
            first < base || has_any(&cursor.owned) || has_any(&cursor.done)
        };
        let queue = std::mem::take(&mut stored.messages);
        let is_whole = !queue.ranges().any(|(first, end)| is_touched(first, end));
        if is_whole && queue.spilled().next().is_none() {
            return Ok(queue);
        }
        let mut left = self.queue();
        for run in queue.into_runs() {
            if let Err(run) = run
                && !is_touched(run.first, run.first + u64::from(run.count))
                && !may_be_sent(stored.presence, run.first, left.len())
            {
                left.push_spilled(run);
                continue;
            }
            for message in self.messages(database, stored.id, run)? {
                if is_settled(message.number) {
                    release(message);
                } else {
                    left.insert(message, self.run_messages_max);
                }
            }
        }
        Ok(left)
    }

    /// Removes what was read back.
    pub(super) fn remove_read(&mut self, database: &Database) -> Result<(), redb::Error> {
        let rows = std::mem::take(&mut self.read);
        if rows.is_empty() || !self.has_room {
            return Ok(());
        }
        let transaction = database.begin_write()?;
        write(&transaction, &rows)?;
        transaction.commit()?;
        Ok(())
    }
}

/// Whether messages from this number on may have been sent, with so many before.
fn may_be_sent(presence: StoredPresence, number: u64, before: usize) -> bool {
    match presence {
        StoredPresence::Connected { receive_maximum } => before < usize::from(receive_maximum),
        StoredPresence::Detached { sent_below, .. } => number < sent_below,
    }
}

/// Runs of sessions that have ended: what is in them must be read once more, for only they say which messages
/// are not needed any more.
#[derive(Debug, Default)]
pub(super) struct EndedRuns(VecDeque<RunKey>);

impl EndedRuns {
    pub(super) fn push(&mut self, session: u64, first: u64) {
        self.0.push_back((session, first));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Releases the messages of some runs and removes these. A database that is closed has its turn later.
    pub(super) fn release(&mut self, database: &Slot, ledger: &mut Ledger, plan: &mut Plan) {
        for _ in 0..ENDED_RUNS_MAX {
            let Some(run) = self.0.front().copied() else { return };
            let messages = match plan.spilled.get(&run) {
                Some(Some(row)) => decode(run.1, row).ok(),
                Some(None) => None,
                None => match database.with(|database| read(&database.begin_read()?, run.0, run.1)) {
                    None | Some(Err(redb::Error::PreviousIo | redb::Error::DatabaseClosed)) => return,
                    Some(Ok(messages)) => messages,
                    Some(Err(error)) => {
                        tracing::warn!(
                            "messages of a session that has ended stay until the next start: {error}"
                        );
                        None
                    }
                },
            };
            for message in messages.into_iter().flatten() {
                ledger.release(message.record.get());
            }
            plan.spilled.insert(run, None);
            self.0.pop_front();
        }
    }
}
