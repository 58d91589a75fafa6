use std::collections::BTreeSet;

use proptest::prelude::*;

use crate::{
    codec::{RetainHandling, SubscriptionOptions},
    session::{RecordId, StoredMessage, StoredPresence, StoredWill, Subscription},
    store::{image::Cursor, spill},
};

use super::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn encoded(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut out);
    out
}

fn any_text() -> impl Strategy<Value = Arc<str>> {
    "[a-z/é]{0,12}".prop_map(Arc::from)
}

fn any_qos() -> impl Strategy<Value = QoS> {
    prop_oneof![Just(QoS::AtMostOnce), Just(QoS::AtLeastOnce), Just(QoS::ExactlyOnce)]
}

prop_compose! {
    fn any_message()(
        topic in any_text(),
        properties in prop::collection::vec(any::<u8>(), 0..20),
        payload in prop::collection::vec(any::<u8>(), 0..40),
        qos in any_qos(),
        retain in any::<bool>(),
        expires_at in prop::option::of(any::<u64>().prop_map(Timestamp::from_millis)),
        publisher in prop::option::of(any_text()),
    ) -> Message {
        Message::from_stored(topic, &properties, &payload, Header { qos, retain, expires_at, publisher })
    }
}

prop_compose! {
    fn any_target()(
        id in any::<u64>(),
        number in any::<u64>(),
        qos in any_qos(),
        retain in any::<bool>(),
        ids in prop::collection::vec(any::<NonZeroU32>(), 0..4),
        share in prop::option::of(any_text()),
    ) -> JournalTarget {
        JournalTarget {
            session: id,
            number,
            qos,
            retain,
            subscription_ids: (!ids.is_empty()).then(|| ids.into()),
            share,
        }
    }
}

prop_compose! {
    fn any_subscription()(
        qos in any_qos(),
        no_local in any::<bool>(),
        retain_as_published in any::<bool>(),
        handling in 0u8..3,
        id in any::<u32>(),
        has_replay in any::<bool>(),
    ) -> StoredSubscription {
        let retain_handling = match handling {
            0 => RetainHandling::Send,
            1 => RetainHandling::SendIfNew,
            _ => RetainHandling::DoNotSend,
        };
        let options = SubscriptionOptions { qos, no_local, retain_as_published, retain_handling };
        let subscription = Subscription { options, id: NonZeroU32::new(id) };
        StoredSubscription { subscription, has_replay }
    }
}

fn any_presence() -> impl Strategy<Value = StoredPresence> {
    prop_oneof![
        any::<u16>().prop_map(|receive_maximum| StoredPresence::Connected { receive_maximum }),
        any::<(u64, u64, u64)>().prop_map(|(since, sent_below, perhaps_sent_below)| {
            StoredPresence::Detached { since: Timestamp::from_millis(since), sent_below, perhaps_sent_below }
        }),
    ]
}

fn targets_are(read: Targets<'_>, written: &[JournalTarget]) -> bool {
    let read: Vec<_> = read.collect();
    read.len() == written.len()
        && read.iter().zip(written).all(|(read, written)| {
            (read.session, read.number, read.qos, read.retain)
                == (written.session, written.number, written.qos, written.retain)
                && read.subscription_ids() == written.subscription_ids
                && read.share == written.share.as_deref()
        })
}

/// Every shorter record, and a longer one, is refused.
fn is_exact(bytes: &[u8], is_read: impl Fn(&[u8]) -> bool) -> bool {
    let longer = [bytes, &[0]].concat();
    is_read(bytes) && !is_read(&longer) && !(0..bytes.len()).any(|length| is_read(&bytes[..length]))
}

proptest! {
    #[test]
    fn a_message_comes_back(
        message in any_message(),
        retain in any::<bool>(),
        targets in prop::collection::vec(any_target(), 0..5),
        received in prop::option::of((any::<u64>(), any::<PacketId>())),
    ) {
        let bytes = encoded(|out| append(out, &message, retain, &targets, received));
        let Ok(Record::Append(read)) = decode(&bytes) else { panic!("{:?}", decode(&bytes)) };
        prop_assert_eq!((read.retain, read.received), (retain, received));
        prop_assert!(targets_are(read.targets, &targets));
        prop_assert_eq!(read.message.size_bytes() as usize, message.size_bytes());
        prop_assert_eq!(read.message.to_message(read.message.topic.into()), message);
        prop_assert!(is_exact(&bytes, |bytes| decode(bytes).is_ok()));
    }

    #[test]
    fn a_session_comes_back(
        session in any::<u64>(),
        client_id in any_text(),
        owner in prop::option::of(any_text()),
        expiry_secs in any::<u32>(),
        presence in any_presence(),
        will in prop::option::of((any_message(), any::<u32>(), any::<Option<u32>>())),
    ) {
        let will = will.map(|(message, delay_secs, message_expiry_secs)| StoredWill {
            message, delay_secs, message_expiry_secs,
        });
        let fields =
            encoded(|out| image::session_fields(out, &client_id, owner.as_deref(), expiry_secs, presence, will.as_ref()));
        let bytes = encoded(|out| put_session(out, session, &fields));
        prop_assert_eq!(session_fields_of(&bytes), &fields);
        let row = encoded(|out| image::session(out, &fields));
        let Ok(Record::PutSession { session: id, image: of_record }) = decode(&bytes) else { panic!() };
        prop_assert_eq!(id, session);
        for image in [of_record, image::decode_session(&row).unwrap()] {
            prop_assert_eq!(image.client_id, &*client_id);
            prop_assert_eq!((image.expiry_secs, image.presence), (expiry_secs, presence));
            let parts = |will: &StoredWill| (will.message.clone(), will.delay_secs, will.message_expiry_secs);
            prop_assert_eq!(image.will.as_deref().map(parts), will.as_ref().map(parts));
        }
        prop_assert!(is_exact(&bytes, |bytes| decode(bytes).is_ok()));
        prop_assert!(is_exact(&row, |bytes| image::decode_session(bytes).is_ok()));
    }

    #[test]
    fn a_subscription_comes_back(
        session in any::<u64>(), text in any_text(), subscription in any_subscription()
    ) {
        let bytes = encoded(|out| put_subscription(out, session, &text, &subscription));
        let Ok(Record::PutSubscription { session: id, filter, subscription: read }) = decode(&bytes) else {
            panic!()
        };
        prop_assert_eq!((id, filter, read), (session, &*text, subscription));
        prop_assert!(is_exact(&bytes, |bytes| decode(bytes).is_ok()));
        let row = encoded(|out| image::subscription(out, &subscription));
        prop_assert_eq!(image::decode_subscription(&row), Ok(subscription));
        prop_assert!(is_exact(&row, |bytes| image::decode_subscription(bytes).is_ok()));
        let key = image::subscription_key(session, &text);
        prop_assert_eq!(image::decode_subscription_key(&key), Ok((session, &*text)));
    }

    #[test]
    fn a_cursor_and_a_retained_message_come_back(
        base in any::<u64>(),
        upto in any::<u64>(),
        owned in prop::collection::btree_set(any::<u64>(), 0..4),
        done in prop::collection::btree_set(any::<u64>(), 0..4),
        unreleased in prop::collection::btree_set(any::<PacketId>(), 0..4),
        message in any_message(),
    ) {
        let cursor = Cursor { base, upto, owned, done, unreleased };
        let row = encoded(|out| cursor.encode(out));
        prop_assert_eq!(Cursor::decode_marks(&row), Ok((base, upto)));
        prop_assert_eq!(Cursor::decode(&row), Ok(cursor));
        prop_assert!(is_exact(&row, |bytes| Cursor::decode(bytes).is_ok()));
        let row = encoded(|out| image::retained(out, base, &message));
        let (record, body) = image::decode_retained(&row).unwrap();
        prop_assert_eq!(record, base);
        prop_assert_eq!(body.to_message(message.topic().clone()), message);
        prop_assert!(is_exact(&row, |bytes| image::decode_retained(bytes).is_ok()));
    }

    // Whatever the disk has, it must not end the broker.
    #[test]
    fn no_bytes_make_it_panic(
        kind in 0u8..24, bytes in prop::collection::vec(any::<u8>(), 0..80), count in any::<u32>()
    ) {
        let mut record = vec![wire::VERSION, kind];
        record.extend_from_slice(&bytes);
        let _ = decode(&record);
        let _ = image::decode_session(&record);
        let _ = image::decode_subscription(&record);
        let _ = image::decode_retained(&record);
        let _ = Cursor::decode(&record);
        // A count in it promises what is not there.
        let mut record = vec![wire::VERSION, APPEND, 0];
        record.extend_from_slice(&count.to_le_bytes());
        record.extend_from_slice(&bytes);
        let _ = decode(&record);
    }
}

/// One of each, with all that it can have.
fn samples() -> Vec<(&'static str, Vec<u8>)> {
    let header = Header {
        qos: QoS::ExactlyOnce,
        retain: true,
        expires_at: Some(Timestamp::from_millis(0x0102_0304)),
        publisher: Some("pub".into()),
    };
    let message = Message::from_stored("a/b".into(), &[1, 1], b"hi", header);
    let target = |id, share: Option<&str>| JournalTarget {
        session: id,
        number: 9,
        qos: QoS::AtLeastOnce,
        retain: true,
        subscription_ids: share.map(|_| Arc::from([NonZeroU32::MIN])),
        share: share.map(Arc::from),
    };
    let targets = [target(5, None), target(6, Some("$share/g/a"))];
    let id = PacketId::MIN;
    let options = SubscriptionOptions {
        qos: QoS::ExactlyOnce,
        no_local: true,
        retain_as_published: true,
        retain_handling: RetainHandling::DoNotSend,
    };
    let subscription = Subscription { options, id: NonZeroU32::new(7) }.into();
    let will = StoredWill { message: message.clone(), delay_secs: 3, message_expiry_secs: Some(4) };
    let detached =
        StoredPresence::Detached { since: Timestamp::from_millis(2), sent_below: 8, perhaps_sent_below: 0 };
    let connected = StoredPresence::Connected { receive_maximum: 20 };
    let plain = encoded(|out| image::session_fields(out, "cid", None, 60, connected, None));
    let full = encoded(|out| image::session_fields(out, "cid", None, 60, detached, Some(&will)));
    let owned = encoded(|out| image::session_fields(out, "cid", Some("ann"), 60, connected, None));
    let cursor = Cursor {
        base: 4,
        upto: 11,
        owned: BTreeSet::from([5]),
        done: BTreeSet::from([6]),
        unreleased: BTreeSet::from([id]),
    };
    vec![
        ("append", encoded(|out| append(out, &message, true, &targets, Some((5, id))))),
        ("put session", encoded(|out| put_session(out, 5, &plain))),
        ("end session", encoded(|out| end_session(out, 5))),
        ("put subscription", encoded(|out| put_subscription(out, 5, "a/+", &subscription))),
        ("remove subscription", encoded(|out| remove_subscription(out, 5, "a/+"))),
        ("release", encoded(|out| release(out, 5, id))),
        ("received", encoded(|out| received(out, 5, 9))),
        ("session row", encoded(|out| image::session(out, &full))),
        ("session row of a user", encoded(|out| image::session(out, &owned))),
        ("subscription key", image::subscription_key(5, "a/+")),
        ("subscription row", encoded(|out| image::subscription(out, &subscription))),
        ("cursor row", encoded(|out| cursor.encode(out))),
        ("retained row", encoded(|out| image::retained(out, 12, &message))),
        ("spilled key", spill::key((5, 9)).to_vec()),
        ("spilled row", spill::encode(&run())),
        ("passed", encoded(|out| passed(out, 5, 9))),
    ]
}

fn run() -> [StoredMessage; 2] {
    let message = |number, record, size_bytes, qos| StoredMessage {
        number,
        record: RecordId::new(record),
        size_bytes,
        qos,
    };
    [message(9, 12, 300, QoS::AtLeastOnce), message(10, (1 << 48) - 1, u32::MAX >> 1, QoS::ExactlyOnce)]
}

#[test]
fn a_run_comes_back_as_it_was() {
    let row = spill::encode(&run());
    assert_eq!(spill::decode(9, &row), Ok(run().to_vec()));
    assert!(spill::decode(9, &row[..row.len() - 1]).is_err());
    assert!(spill::decode(9, &[]).is_err());
    assert_eq!(spill::decode(9, &row[..2]), Ok(Vec::new()));
}

// Files that were written once must open for ever: a change of these bytes needs a new version of its record.
#[test]
fn the_bytes_stay_as_they_are() {
    let bytes: Vec<String> =
        samples().iter().map(|(name, bytes)| format!("{name}: {}", hex(bytes))).collect();
    assert_eq!(bytes.join("\n"), include_str!("golden.txt").trim_end());
}
