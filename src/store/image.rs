//! Rows of the tables that the log is folded into. `docs/storage.md` has them byte by byte.

use std::{collections::BTreeSet, num::NonZeroU32, sync::Arc};

use crate::{
    codec::{PacketId, RetainHandling, SubscriptionOptions},
    message::Message,
    session::{StoredPresence, StoredSubscription, StoredWill, Subscription},
    time::Timestamp,
};

use super::{
    record::{self, StoredBody},
    wire::{self, Malformed, Reader},
};

const SESSION: u8 = 16;
const SUBSCRIPTION: u8 = 17;
const CURSOR: u8 = 18;
const RETAINED: u8 = 19;

/// All of a session but its subscriptions and messages.
#[derive(Debug)]
pub(super) struct SessionImage<'a> {
    pub(super) expiry_secs: u32,
    pub(super) presence: StoredPresence,
    pub(super) client_id: &'a str,
    /// The user whose session it is.
    pub(super) owner: Option<&'a str>,
    pub(super) will: Option<Arc<StoredWill>>,
}

const IS_DETACHED: u8 = 1;
const HAS_WILL: u8 = 1 << 1;
const WILL_EXPIRES: u8 = 1 << 2;
/// Some of its messages may have been sent before a crash.
const PERHAPS_SENT: u8 = 1 << 3;
const HAS_OWNER: u8 = 1 << 4;

impl<'a> SessionImage<'a> {
    /// Reads it to the end of the record.
    pub(super) fn read(mut reader: Reader<'a>) -> Result<SessionImage<'a>, Malformed> {
        let flags = reader.flags(IS_DETACHED | HAS_WILL | WILL_EXPIRES | PERHAPS_SENT | HAS_OWNER)?;
        let expiry_secs = reader.u32()?;
        let presence = if flags & IS_DETACHED != 0 {
            let since = Timestamp::from_millis(reader.u64()?);
            let sent_below = reader.u64()?;
            let perhaps_sent_below = if flags & PERHAPS_SENT != 0 { reader.u64()? } else { 0 };
            StoredPresence::Detached { since, sent_below, perhaps_sent_below }
        } else {
            StoredPresence::Connected { receive_maximum: reader.u16()? }
        };
        let client_id = reader.text()?;
        let owner = if flags & HAS_OWNER != 0 { Some(reader.text()?) } else { None };
        let will = if flags & HAS_WILL != 0 {
            let delay_secs = reader.u32()?;
            let message_expiry_secs = if flags & WILL_EXPIRES != 0 { Some(reader.u32()?) } else { None };
            let body = StoredBody::read(reader)?;
            let message = body.to_message(body.topic.into());
            Some(Arc::new(StoredWill { message, delay_secs, message_expiry_secs }))
        } else {
            reader.end()?;
            None
        };
        Ok(SessionImage { expiry_secs, presence, client_id, owner, will })
    }
}

/// The fields of a session, as both its record and its row have them.
pub(super) fn session_fields(
    out: &mut Vec<u8>,
    client_id: &str,
    owner: Option<&str>,
    expiry_secs: u32,
    presence: StoredPresence,
    will: Option<&StoredWill>,
) {
    let mut flags = match presence {
        StoredPresence::Connected { .. } => 0,
        StoredPresence::Detached { perhaps_sent_below: 0, .. } => IS_DETACHED,
        StoredPresence::Detached { .. } => IS_DETACHED | PERHAPS_SENT,
    };
    if let Some(will) = will {
        flags |= HAS_WILL | if will.message_expiry_secs.is_some() { WILL_EXPIRES } else { 0 };
    }
    if owner.is_some() {
        flags |= HAS_OWNER;
    }
    out.push(flags);
    out.extend_from_slice(&expiry_secs.to_le_bytes());
    match presence {
        StoredPresence::Connected { receive_maximum } => {
            out.extend_from_slice(&receive_maximum.to_le_bytes());
        }
        StoredPresence::Detached { since, sent_below, perhaps_sent_below } => {
            out.extend_from_slice(&since.as_millis().to_le_bytes());
            out.extend_from_slice(&sent_below.to_le_bytes());
            if perhaps_sent_below > 0 {
                out.extend_from_slice(&perhaps_sent_below.to_le_bytes());
            }
        }
    }
    wire::text(out, client_id);
    if let Some(owner) = owner {
        wire::text(out, owner);
    }
    if let Some(will) = will {
        out.extend_from_slice(&will.delay_secs.to_le_bytes());
        if let Some(secs) = will.message_expiry_secs {
            out.extend_from_slice(&secs.to_le_bytes());
        }
        record::body(out, &will.message, will.message.topic());
    }
}

/// The row of a session with these fields.
pub(super) fn session(out: &mut Vec<u8>, fields: &[u8]) {
    wire::head(out, SESSION);
    out.extend_from_slice(fields);
}

pub(super) fn decode_session(row: &[u8]) -> Result<SessionImage<'_>, Malformed> {
    let mut reader = Reader::new(row);
    reader.expect_kind(SESSION)?;
    SessionImage::read(reader)
}

/// The key of a subscription: they lie in the order of their sessions.
pub(super) fn subscription_key(session: u64, filter: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(8 + filter.len());
    key.extend_from_slice(&session.to_be_bytes());
    key.extend_from_slice(filter.as_bytes());
    key
}

/// The session and the filter of a subscription's key.
pub(super) fn decode_subscription_key(key: &[u8]) -> Result<(u64, &str), Malformed> {
    let (session, filter) = key.split_first_chunk::<8>().ok_or(Malformed("its key is too short"))?;
    let filter = std::str::from_utf8(filter).map_err(|_| Malformed("its filter is not UTF-8"))?;
    Ok((u64::from_be_bytes(*session), filter))
}

/// Options and identifier of a subscription, as both its record and its row have them.
pub(super) fn subscription_fields(out: &mut Vec<u8>, stored: &StoredSubscription) {
    let StoredSubscription { subscription, has_replay } = stored;
    let options = &subscription.options;
    out.push(
        options.qos as u8
            | u8::from(options.no_local) << 2
            | u8::from(options.retain_as_published) << 3
            | (options.retain_handling as u8) << 4
            | u8::from(*has_replay) << 6,
    );
    out.extend_from_slice(&subscription.id.map_or(0, NonZeroU32::get).to_le_bytes());
}

pub(super) fn read_subscription(reader: &mut Reader<'_>) -> Result<StoredSubscription, Malformed> {
    let bits = reader.flags(0b111_1111)?;
    let options = SubscriptionOptions {
        qos: Reader::qos(bits)?,
        no_local: bits & 1 << 2 != 0,
        retain_as_published: bits & 1 << 3 != 0,
        retain_handling: match bits >> 4 & 3 {
            0 => RetainHandling::Send,
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::DoNotSend,
            _ => return Err(Malformed("a Retain Handling is 3")),
        },
    };
    let subscription = Subscription { options, id: NonZeroU32::new(reader.u32()?) };
    Ok(StoredSubscription { subscription, has_replay: bits & 1 << 6 != 0 })
}

pub(super) fn subscription(out: &mut Vec<u8>, subscription: &StoredSubscription) {
    wire::head(out, SUBSCRIPTION);
    subscription_fields(out, subscription);
}

pub(super) fn decode_subscription(row: &[u8]) -> Result<StoredSubscription, Malformed> {
    let mut reader = Reader::new(row);
    reader.expect_kind(SUBSCRIPTION)?;
    let subscription = read_subscription(&mut reader)?;
    reader.end()?;
    Ok(subscription)
}

/// How far a session has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    /// All numbers below are settled.
    pub(super) base: u64,
    /// The session's own records up to this one are in here.
    pub(super) upto: u64,
    /// Numbers of messages that the client owns and that await PUBCOMP.
    pub(super) owned: BTreeSet<u64>,
    /// Numbers from the base on that are settled.
    pub(super) done: BTreeSet<u64>,
    /// Packet identifiers of messages from the client that await PUBREL.
    pub(super) unreleased: BTreeSet<PacketId>,
}

impl Cursor {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        wire::head(out, CURSOR);
        out.extend_from_slice(&self.base.to_le_bytes());
        out.extend_from_slice(&self.upto.to_le_bytes());
        for count in [self.owned.len(), self.done.len(), self.unreleased.len()] {
            out.extend_from_slice(&wire::long(count).to_le_bytes());
        }
        for number in self.owned.iter().chain(&self.done) {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for packet_id in &self.unreleased {
            out.extend_from_slice(&packet_id.get().to_le_bytes());
        }
    }

    pub(super) fn decode(row: &[u8]) -> Result<Cursor, Malformed> {
        let mut reader = Reader::new(row);
        reader.expect_kind(CURSOR)?;
        let (base, upto) = (reader.u64()?, reader.u64()?);
        let [owned, done, unreleased] = [reader.count(1)?, reader.count(1)?, reader.count(1)?];
        let owned = (0..owned).map(|_| reader.u64()).collect::<Result<_, _>>()?;
        let done = (0..done).map(|_| reader.u64()).collect::<Result<_, _>>()?;
        let unreleased = (0..unreleased).map(|_| reader.packet_id()).collect::<Result<_, _>>()?;
        reader.end()?;
        Ok(Cursor { base, upto, owned, done, unreleased })
    }

    /// The base and the last record of a row, which are all that an update of it has to know.
    pub(super) fn decode_marks(row: &[u8]) -> Result<(u64, u64), Malformed> {
        let mut reader = Reader::new(row);
        reader.expect_kind(CURSOR)?;
        Ok((reader.u64()?, reader.u64()?))
    }
}

/// The retained message of a topic, which is the key of its row.
pub(super) fn retained(out: &mut Vec<u8>, record: u64, message: &Message) {
    wire::head(out, RETAINED);
    out.extend_from_slice(&record.to_le_bytes());
    record::body(out, message, "");
}

/// The record that a retained message came with, and the message.
pub(super) fn decode_retained(row: &[u8]) -> Result<(u64, StoredBody<'_>), Malformed> {
    let mut reader = Reader::new(row);
    reader.expect_kind(RETAINED)?;
    Ok((reader.u64()?, StoredBody::read(reader)?))
}

/// The record that a retained message came with.
pub(super) fn decode_retained_record(row: &[u8]) -> Result<u64, Malformed> {
    let mut reader = Reader::new(row);
    reader.expect_kind(RETAINED)?;
    reader.u64()
}
