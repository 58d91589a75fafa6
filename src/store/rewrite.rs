//! A seam for the fuzz target `records`: stored bytes, which only this module can read, read and written again.
//! Nothing of the broker uses it.

use crate::broker::JournalTarget;

use super::{
    image::{self, Cursor, SessionImage},
    record::{self, Append, Record},
    salvage, spill,
};

/// What bytes may be.
#[derive(Clone, Copy, Debug)]
pub enum StoredAs {
    /// A record of the log.
    Record,
    /// The row of a session.
    Session,
    /// The row of a subscription.
    Subscription,
    /// The key of a subscription's row.
    SubscriptionKey,
    /// The row that says how far a session has come.
    Cursor,
    /// The row of a retained message.
    Retained,
    /// The row of a run of references, the first of which has this number.
    Run(u64),
}

/// Reads bytes to the end and writes what they say. `None` if they are nothing that was ever written.
#[must_use]
pub fn rewritten(stored: StoredAs, bytes: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let result = match stored {
        StoredAs::Record => record::decode(bytes).map(|record| write_record(&mut out, &record)),
        StoredAs::Session => image::decode_session(bytes).map(|read| {
            image::session(&mut out, &session_fields(&read));
        }),
        StoredAs::Subscription => {
            image::decode_subscription(bytes).map(|read| image::subscription(&mut out, &read))
        }
        StoredAs::SubscriptionKey => image::decode_subscription_key(bytes).map(|(session, filter)| {
            out = image::subscription_key(session, filter);
        }),
        StoredAs::Cursor => Cursor::decode(bytes).map(|cursor| {
            // An update reads no more than these.
            assert_eq!(Cursor::decode_marks(bytes), Ok((cursor.base, cursor.upto)));
            cursor.encode(&mut out);
        }),
        StoredAs::Retained => image::decode_retained(bytes).map(|(record, body)| {
            assert_eq!(image::decode_retained_record(bytes), Ok(record));
            image::retained(&mut out, record, &body.to_message(body.topic.into()));
        }),
        StoredAs::Run(first) => spill::decode(first, bytes).map(|run| out = spill::encode(&run)),
    };
    result.ok().map(|()| out)
}

/// Reads bytes as a page of a database whose keys and values are as wide as this, or differ. The number of rows
/// or pointers in it.
#[must_use]
pub fn page_items(bytes: &[u8], key_bytes: Option<usize>, value_bytes: Option<usize>) -> usize {
    salvage::page_items(bytes, key_bytes, value_bytes)
}

fn write_record(out: &mut Vec<u8>, record: &Record<'_>) {
    match record {
        Record::Append(append) => write_append(out, append),
        Record::PutSession { session, image } => record::put_session(out, *session, &session_fields(image)),
        Record::EndSession { session } => record::end_session(out, *session),
        Record::PutSubscription { session, filter, subscription } => {
            record::put_subscription(out, *session, filter, subscription);
        }
        Record::RemoveSubscription { session, filter } => record::remove_subscription(out, *session, filter),
        Record::Release { session, packet_id } => record::release(out, *session, *packet_id),
        Record::Received { session, number } => record::received(out, *session, *number),
        Record::Passed { session, number } => record::passed(out, *session, *number),
    }
}

fn write_append(out: &mut Vec<u8>, append: &Append<'_>) {
    let targets = append.targets.clone().map(|target| JournalTarget {
        session: target.session,
        number: target.number,
        qos: target.qos,
        retain: target.retain,
        subscription_ids: target.subscription_ids(),
        share: target.share.map(Into::into),
    });
    let targets: Vec<JournalTarget> = targets.collect();
    let message = append.message.to_message(append.message.topic.into());
    record::append(out, &message, append.retain, &targets, append.received);
}

fn session_fields(image: &SessionImage<'_>) -> Vec<u8> {
    let mut fields = Vec::new();
    let SessionImage { expiry_secs, presence, client_id, owner, will } = image;
    image::session_fields(&mut fields, client_id, *owner, *expiry_secs, *presence, will.as_deref());
    fields
}
