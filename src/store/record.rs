//! Records of the log. `docs/storage.md` has them byte by byte; the tests fix the bytes for ever.

use std::{num::NonZeroU32, sync::Arc};

use crate::{
    broker::JournalTarget,
    codec::{PacketId, QoS},
    message::{Header, Message},
    session::StoredSubscription,
    time::Timestamp,
};

use super::{
    image::{self, SessionImage},
    wire::{self, Malformed, Reader},
};

const APPEND: u8 = 1;
const PUT_SESSION: u8 = 2;
const END_SESSION: u8 = 3;
const PUT_SUBSCRIPTION: u8 = 4;
const REMOVE_SUBSCRIPTION: u8 = 5;
const RELEASE: u8 = 6;
const RECEIVED: u8 = 7;
const PASSED: u8 = 8;

/// One record of the log, as its bytes have it.
#[derive(Debug)]
pub(super) enum Record<'a> {
    Append(Append<'a>),
    PutSession { session: u64, image: SessionImage<'a> },
    EndSession { session: u64 },
    PutSubscription { session: u64, filter: &'a str, subscription: StoredSubscription },
    RemoveSubscription { session: u64, filter: &'a str },
    Release { session: u64, packet_id: PacketId },
    Received { session: u64, number: u64 },
    Passed { session: u64, number: u64 },
}

/// A message with its targets.
#[derive(Debug)]
pub(super) struct Append<'a> {
    pub(super) retain: bool,
    pub(super) received: Option<(u64, PacketId)>,
    pub(super) targets: Targets<'a>,
    pub(super) message: StoredBody<'a>,
}

/// One target of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct StoredTarget<'a> {
    pub(super) session: u64,
    pub(super) number: u64,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    ids: &'a [u8],
    pub(super) share: Option<&'a str>,
}

impl StoredTarget<'_> {
    /// Identifiers of the subscriptions; `None` if there are none.
    pub(super) fn subscription_ids(&self) -> Option<Arc<[NonZeroU32]>> {
        let ids = self.ids.as_chunks::<4>().0;
        let ids: Arc<[NonZeroU32]> =
            ids.iter().filter_map(|id| NonZeroU32::new(u32::from_le_bytes(*id))).collect();
        (!ids.is_empty()).then_some(ids)
    }
}

/// The targets of a message, which were checked when it was decoded.
#[derive(Clone, Debug)]
pub(super) struct Targets<'a> {
    reader: Reader<'a>,
    left: usize,
}

const TARGET_RETAIN: u8 = 1 << 2;
const TARGET_IDS: u8 = 1 << 3;
const TARGET_SHARE: u8 = 1 << 4;
const TARGET_BYTES_MIN: usize = 17;

impl<'a> Targets<'a> {
    fn read(&mut self) -> Result<StoredTarget<'a>, Malformed> {
        let reader = &mut self.reader;
        let (session, number) = (reader.u64()?, reader.u64()?);
        let flags = reader.flags(3 | TARGET_RETAIN | TARGET_IDS | TARGET_SHARE)?;
        let ids = if flags & TARGET_IDS != 0 {
            let count = reader.count(4)?;
            reader.bytes(4 * count)?
        } else {
            &[]
        };
        let share = if flags & TARGET_SHARE != 0 { Some(reader.text()?) } else { None };
        let qos = Reader::qos(flags)?;
        Ok(StoredTarget { session, number, qos, retain: flags & TARGET_RETAIN != 0, ids, share })
    }
}

impl<'a> Iterator for Targets<'a> {
    type Item = StoredTarget<'a>;

    fn next(&mut self) -> Option<StoredTarget<'a>> {
        self.left = self.left.checked_sub(1)?;
        self.read().ok()
    }
}

/// A message, still in the bytes of its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StoredBody<'a> {
    qos: QoS,
    retain: bool,
    expires_at: Option<Timestamp>,
    publisher: Option<&'a str>,
    pub(super) topic: &'a str,
    properties: &'a [u8],
    payload: &'a [u8],
}

const BODY_RETAIN: u8 = 1 << 2;
const BODY_EXPIRES: u8 = 1 << 3;
const BODY_PUBLISHER: u8 = 1 << 4;

impl<'a> StoredBody<'a> {
    /// Reads a message, which is the last thing in its record.
    pub(super) fn read(mut reader: Reader<'a>) -> Result<StoredBody<'a>, Malformed> {
        let flags = reader.flags(3 | BODY_RETAIN | BODY_EXPIRES | BODY_PUBLISHER)?;
        let topic_bytes = reader.u16()?;
        let (properties_bytes, payload_bytes) = (reader.u32()? as usize, reader.u32()? as usize);
        let expires_at =
            if flags & BODY_EXPIRES != 0 { Some(Timestamp::from_millis(reader.u64()?)) } else { None };
        let publisher = if flags & BODY_PUBLISHER != 0 { Some(reader.text()?) } else { None };
        let topic = reader.text_of(topic_bytes)?;
        let (properties, payload) = (reader.bytes(properties_bytes)?, reader.bytes(payload_bytes)?);
        reader.end()?;
        let (qos, retain) = (Reader::qos(flags)?, flags & BODY_RETAIN != 0);
        Ok(StoredBody { qos, retain, expires_at, publisher, topic, properties, payload })
    }

    /// What the message counts against limits, as [`Message::size_bytes`].
    pub(super) fn size_bytes(&self) -> u32 {
        let size = self.topic.len() + self.properties.len() + self.payload.len();
        u32::try_from(size).unwrap_or(u32::MAX)
    }

    pub(super) fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at < now)
    }

    /// The message on this topic, which may be elsewhere than in the record.
    pub(super) fn to_message(self, topic: Arc<str>) -> Message {
        let header = Header {
            qos: self.qos,
            retain: self.retain,
            expires_at: self.expires_at,
            publisher: self.publisher.map(Arc::from),
        };
        Message::from_stored(topic, self.properties, self.payload, header)
    }
}

/// Writes a message on this topic, which is empty where it is known from elsewhere.
pub(super) fn body(out: &mut Vec<u8>, message: &Message, topic: &str) {
    let (properties, payload) = (message.properties(), message.payload());
    let mut flags = message.qos() as u8;
    flags |= if message.retain() { BODY_RETAIN } else { 0 };
    flags |= if message.expires_at().is_some() { BODY_EXPIRES } else { 0 };
    flags |= if message.publisher().is_some() { BODY_PUBLISHER } else { 0 };
    out.push(flags);
    out.extend_from_slice(&wire::short(topic).to_le_bytes());
    out.extend_from_slice(&wire::long(properties.len()).to_le_bytes());
    out.extend_from_slice(&wire::long(payload.len()).to_le_bytes());
    if let Some(at) = message.expires_at() {
        out.extend_from_slice(&at.as_millis().to_le_bytes());
    }
    if let Some(publisher) = message.publisher() {
        wire::text(out, publisher);
    }
    out.extend_from_slice(topic.as_bytes());
    out.extend_from_slice(properties);
    out.extend_from_slice(payload);
}

const APPEND_RETAIN: u8 = 1;
const APPEND_RECEIVED: u8 = 1 << 1;

/// Writes a message with its targets.
pub(super) fn append(
    out: &mut Vec<u8>,
    message: &Message,
    retain: bool,
    targets: &[JournalTarget],
    received: Option<(u64, PacketId)>,
) {
    wire::head(out, APPEND);
    let flags = if retain { APPEND_RETAIN } else { 0 } | if received.is_some() { APPEND_RECEIVED } else { 0 };
    out.push(flags);
    out.extend_from_slice(&wire::long(targets.len()).to_le_bytes());
    if let Some((session, packet_id)) = received {
        out.extend_from_slice(&session.to_le_bytes());
        out.extend_from_slice(&packet_id.get().to_le_bytes());
    }
    for target in targets {
        write_target(out, target);
    }
    body(out, message, message.topic());
}

fn write_target(out: &mut Vec<u8>, target: &JournalTarget) {
    out.extend_from_slice(&target.session.to_le_bytes());
    out.extend_from_slice(&target.number.to_le_bytes());
    let ids = target.subscription_ids.as_deref().unwrap_or_default();
    let mut flags = target.qos as u8;
    flags |= if target.retain { TARGET_RETAIN } else { 0 };
    flags |= if ids.is_empty() { 0 } else { TARGET_IDS };
    flags |= if target.share.is_some() { TARGET_SHARE } else { 0 };
    out.push(flags);
    if !ids.is_empty() {
        out.extend_from_slice(&wire::long(ids.len()).to_le_bytes());
        for id in ids {
            out.extend_from_slice(&id.get().to_le_bytes());
        }
    }
    if let Some(share) = &target.share {
        wire::text(out, share);
    }
}

fn of_session(out: &mut Vec<u8>, kind: u8, session: u64) {
    wire::head(out, kind);
    out.extend_from_slice(&session.to_le_bytes());
}

pub(super) fn put_session(out: &mut Vec<u8>, session: u64, image: &[u8]) {
    of_session(out, PUT_SESSION, session);
    out.extend_from_slice(image);
}

pub(super) fn end_session(out: &mut Vec<u8>, session: u64) {
    of_session(out, END_SESSION, session);
}

pub(super) fn put_subscription(
    out: &mut Vec<u8>,
    session: u64,
    filter: &str,
    subscription: &StoredSubscription,
) {
    of_session(out, PUT_SUBSCRIPTION, session);
    wire::text(out, filter);
    image::subscription_fields(out, subscription);
}

pub(super) fn remove_subscription(out: &mut Vec<u8>, session: u64, filter: &str) {
    of_session(out, REMOVE_SUBSCRIPTION, session);
    wire::text(out, filter);
}

pub(super) fn release(out: &mut Vec<u8>, session: u64, packet_id: PacketId) {
    of_session(out, RELEASE, session);
    out.extend_from_slice(&packet_id.get().to_le_bytes());
}

pub(super) fn received(out: &mut Vec<u8>, session: u64, number: u64) {
    of_session(out, RECEIVED, session);
    out.extend_from_slice(&number.to_le_bytes());
}

pub(super) fn passed(out: &mut Vec<u8>, session: u64, number: u64) {
    of_session(out, PASSED, session);
    out.extend_from_slice(&number.to_le_bytes());
}

/// Reads a record, which must be exactly as long as it says.
pub(super) fn decode(bytes: &[u8]) -> Result<Record<'_>, Malformed> {
    let mut reader = Reader::new(bytes);
    let kind = reader.kind()?;
    if kind == APPEND {
        return decode_append(reader).map(Record::Append);
    }
    let session = reader.u64()?;
    let record = match kind {
        PUT_SESSION => return Ok(Record::PutSession { session, image: SessionImage::read(reader)? }),
        END_SESSION => Record::EndSession { session },
        PUT_SUBSCRIPTION => {
            let filter = reader.text()?;
            Record::PutSubscription { session, filter, subscription: image::read_subscription(&mut reader)? }
        }
        REMOVE_SUBSCRIPTION => Record::RemoveSubscription { session, filter: reader.text()? },
        RELEASE => Record::Release { session, packet_id: reader.packet_id()? },
        RECEIVED => Record::Received { session, number: reader.u64()? },
        PASSED => Record::Passed { session, number: reader.u64()? },
        _ => return Err(Malformed("its kind is unknown")),
    };
    reader.end()?;
    Ok(record)
}

/// The fields of a session in the bytes of its record, as its row has them.
pub(super) fn session_fields_of(record: &[u8]) -> &[u8] {
    const HEAD_BYTES: usize = 2 + 8;
    record.get(HEAD_BYTES..).unwrap_or_default()
}

fn decode_append(mut reader: Reader<'_>) -> Result<Append<'_>, Malformed> {
    let flags = reader.flags(APPEND_RETAIN | APPEND_RECEIVED)?;
    let left = reader.count(TARGET_BYTES_MIN)?;
    let received =
        if flags & APPEND_RECEIVED != 0 { Some((reader.u64()?, reader.packet_id()?)) } else { None };
    let targets = Targets { reader, left };
    // All are read once here, so that who goes through them later meets no surprise.
    let mut checked = targets.clone();
    for _ in 0..left {
        checked.read()?;
    }
    let message = StoredBody::read(checked.reader)?;
    Ok(Append { retain: flags & APPEND_RETAIN != 0, received, targets, message })
}

#[cfg(test)]
mod tests;
