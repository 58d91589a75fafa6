//! Messages out of the log, for sessions that want them.

use std::sync::Arc;

use redb::{Database, ReadOnlyTable, ReadableDatabase};

use crate::{
    message::Message,
    session::{Fetch, Fetched, Found, Outgoing, RecordId, Wanted},
};

use super::{
    record::{self, Append, Record},
    spill,
    tables::{self, LOG},
};

/// Reads what a session wants in one short transaction: as long as it lasts, no page is used again.
pub(super) fn fetch(database: &Database, fetch: &Fetch) -> Result<Fetched, redb::Error> {
    let found = match &fetch.wanted {
        Wanted::Messages(wanted) => Found::Messages(messages(database, fetch.session, wanted)?),
        Wanted::Run(first) => {
            let run = spill::read(&database.begin_read()?, fetch.session, *first)?;
            Found::Run(*first, run.unwrap_or_default())
        }
    };
    Ok(Fetched { slot: fetch.slot, session: fetch.session, ticket: fetch.ticket, found })
}

fn messages(
    database: &Database,
    session: u64,
    wanted: &[(u64, RecordId)],
) -> Result<Vec<(u64, Option<Outgoing>)>, redb::Error> {
    let log = database.begin_read()?.open_table(LOG)?;
    let mut last = None;
    let mut found = Vec::with_capacity(wanted.len());
    for (number, record) in wanted {
        found.push((*number, one(&log, session, *number, *record, &mut last)?));
    }
    Ok(found)
}

/// The message that was read last: messages of one topic share it, and two targets in one record the message.
type Last = Option<(RecordId, Arc<Message>)>;

fn one(
    log: &ReadOnlyTable<u64, &'static [u8]>,
    session: u64,
    number: u64,
    record: RecordId,
    last: &mut Last,
) -> Result<Option<Outgoing>, redb::Error> {
    let key = tables::log_key(record.get(), 0);
    let Some(row) = log.get(key)? else { return Ok(None) };
    let mut joined = Vec::new();
    let mut bytes = row.value();
    if bytes.len() == tables::PART_BYTES_MAX {
        for row in log.range(tables::log_keys(record.get(), record.get()))? {
            joined.extend_from_slice(row?.1.value());
        }
        bytes = &joined;
    }
    match record::decode(bytes) {
        Ok(Record::Append(append)) => Ok(outgoing(&append, session, number, record, last)),
        Ok(_) => Ok(None),
        Err(malformed) => {
            tracing::error!(record = record.get(), "a message in the store cannot be read: {}", malformed.0);
            Ok(None)
        }
    }
}

fn outgoing(
    append: &Append<'_>,
    session: u64,
    number: u64,
    record: RecordId,
    last: &mut Last,
) -> Option<Outgoing> {
    let mut targets = append.targets.clone();
    let target = targets.find(|target| target.session == session && target.number == number)?;
    let message = match last {
        Some((same, message)) if *same == record => message.clone(),
        _ => {
            let topic = last.as_ref().map(|(_, message)| message.topic());
            let topic = topic.filter(|topic| ***topic == *append.message.topic).cloned();
            Arc::new(append.message.to_message(topic.unwrap_or_else(|| append.message.topic.into())))
        }
    };
    *last = Some((record, message.clone()));
    Some(Outgoing {
        message,
        qos: target.qos,
        retain: target.retain,
        subscription_ids: target.subscription_ids(),
        share: target.share.map(Arc::from),
        record: Some(record),
    })
}
