//! A file that an earlier version wrote: it must open for ever.
//!
//! `DUNLIN_WRITE_FIXTURE=1 cargo test --test store fixture` writes it anew, which is right only as long as no
//! release has written this format: from then on a change of the format gets a file of its own beside it.

use std::{
    collections::BTreeMap,
    fs,
    num::NonZeroU32,
    path::{Path, PathBuf},
    sync::Arc,
};

use dunlin::{
    broker::{JournalTarget, Op},
    codec::{PacketId, QoS, RetainHandling, SubscriptionOptions},
    message::{Header, Message},
    session::{
        Fetch, Outgoing, RecordId, SessionHandle, StoredPresence, StoredSession, StoredWill, Subscription,
        Wanted,
    },
    store::{Committer, DiskOptions, Existing, Layout, Medium, Recovered, backup, salvage::examine},
    time::Timestamp,
};

use crate::{
    driver::filter,
    rules::{Bench, settle},
    scale::File,
};

/// Longer than a row of the log, so that it is split.
const LONG_BYTES: usize = 70_000;
/// Between the expiry of what has expired and that of what has not.
const NOW_MILLIS: u64 = 2_000_000;

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/store/fixtures/v1.redb")
}

fn text(topic: &str, payload: &[u8], qos: QoS) -> Message {
    Message::new(topic.into(), payload, Header { qos, retain: false, expires_at: None, publisher: None })
}

/// A message with all that one can have: Payload Format Indicator and a user property are forwarded as they are.
fn full(topic: &str, payload: &[u8]) -> Message {
    let properties = [1, 1, 38, 0, 1, b'k', 0, 2, 0xc3, 0xa9];
    let expires_at = Some(Timestamp::from_millis(5_000_000));
    let header = Header { qos: QoS::ExactlyOnce, retain: true, expires_at, publisher: Some("pub é".into()) };
    Message::from_stored(topic.into(), &properties, payload, header)
}

fn long() -> Message {
    let payload: Vec<u8> = (0..LONG_BYTES).map(|at| (at % 251) as u8).collect();
    full("long/é", &payload)
}

fn will() -> StoredWill {
    StoredWill { message: full("will/a", b"gone"), delay_secs: 30, message_expiry_secs: Some(60) }
}

fn subscription(qos: QoS, is_set: bool, retain_handling: RetainHandling, id: u32) -> Subscription {
    let options = SubscriptionOptions { qos, no_local: is_set, retain_as_published: is_set, retain_handling };
    Subscription { options, id: NonZeroU32::new(id) }
}

/// Subscriptions of the first session, by filter.
fn subscriptions() -> Vec<(&'static str, Subscription)> {
    vec![
        ("$share/group/s/+", subscription(QoS::AtLeastOnce, false, RetainHandling::Send, 268_435_455)),
        ("a/+", subscription(QoS::ExactlyOnce, true, RetainHandling::SendIfNew, 7)),
        ("b/#", subscription(QoS::AtMostOnce, false, RetainHandling::DoNotSend, 0)),
    ]
}

fn target(session: &Arc<SessionHandle>, number: u64, qos: QoS) -> JournalTarget {
    JournalTarget { session: session.id, number, qos, retain: false, subscription_ids: None, share: None }
}

fn append(message: Message, targets: Vec<JournalTarget>) -> Op {
    Op::Append { message: Arc::new(message), retain: false, targets: targets.into(), received: None }
}

fn retain(message: Message) -> Op {
    Op::Append { message: Arc::new(message), retain: true, targets: Vec::new().into(), received: None }
}

fn put_subscription(session: &Arc<SessionHandle>, text: &str, subscription: Subscription) -> Op {
    Op::PutSubscription { session: session.clone(), filter: filter(text), subscription: subscription.into() }
}

/// The messages of both sessions.
fn queue(bench: &mut Bench, sessions: &[Arc<SessionHandle>; 2]) {
    let [folded, fresh] = sessions;
    let all = JournalTarget {
        retain: true,
        subscription_ids: Some(Arc::from([7, 9].map(|id| NonZeroU32::new(id).unwrap()))),
        ..target(folded, 2, QoS::ExactlyOnce)
    };
    let shared = JournalTarget {
        share: Some("$share/group/s/+".into()),
        subscription_ids: NonZeroU32::new(268_435_455).map(|id| Arc::from([id])),
        ..target(folded, 3, QoS::AtLeastOnce)
    };
    bench.commit(vec![append(
        text("a/1", b"one", QoS::AtLeastOnce),
        vec![target(folded, 0, QoS::AtLeastOnce)],
    )]);
    let owned = bench.next_record();
    bench.commit(vec![append(
        text("a/2", b"two", QoS::ExactlyOnce),
        vec![target(folded, 1, QoS::ExactlyOnce), target(fresh, 0, QoS::AtLeastOnce)],
    )]);
    bench.commit(vec![append(long(), vec![all, target(fresh, 1, QoS::AtLeastOnce)])]);
    bench.commit(vec![append(full("s/1", b"shared"), vec![shared])]);
    let settled = bench.next_record();
    bench.commit(vec![append(
        text("a/3", b"", QoS::AtLeastOnce),
        vec![target(folded, 4, QoS::AtLeastOnce), target(fresh, 2, QoS::AtLeastOnce)],
    )]);
    bench.commit(vec![
        Op::Received { session: folded.clone(), number: 1, message: owned },
        settle(folded, 4, settled.get(), 0),
    ]);
}

/// QoS 2 messages from a client: two identifiers are not free yet, one is.
fn receive(bench: &mut Bench, publisher: &Arc<SessionHandle>, to: &JournalTarget, ids: [u16; 2]) {
    for id in ids {
        let packet_id = PacketId::new(id).unwrap();
        let (message, targets) = (Arc::new(text("q", &id.to_be_bytes(), QoS::ExactlyOnce)), vec![to.clone()]);
        let targets = if id == ids[0] { targets } else { Vec::new() };
        let received = Some((publisher.clone(), packet_id));
        bench.commit(vec![Op::Append { message, retain: false, targets: targets.into(), received }]);
    }
    let packet_id = PacketId::new(ids[1]).unwrap();
    bench.commit(vec![Op::Release { session: publisher.clone(), packet_id }]);
}

fn put(
    session: &Arc<SessionHandle>,
    expiry_secs: u32,
    will: Option<StoredWill>,
    presence: StoredPresence,
) -> Op {
    Op::PutSession { session: session.clone(), expiry_secs, will: will.map(Arc::new), presence }
}

fn detached() -> StoredPresence {
    StoredPresence::Detached {
        since: Timestamp::from_millis(1_000_000),
        sent_below: 2,
        perhaps_sent_below: 0,
    }
}

fn connected() -> StoredPresence {
    StoredPresence::Connected { receive_maximum: 20 }
}

fn write(path: &Path) {
    let mut bench = Bench::new();
    let sessions = ["folded é", "fresh"].map(|client_id| bench.session(client_id));
    let ended = bench.session("ended");
    for (text, subscription) in subscriptions() {
        bench.commit(vec![put_subscription(&sessions[0], text, subscription)]);
    }
    bench.commit(vec![put_subscription(
        &sessions[1],
        "old",
        subscription(QoS::AtLeastOnce, false, RetainHandling::Send, 0),
    )]);
    bench.commit(vec![put(&sessions[0], 3600, Some(will()), detached())]);
    queue(&mut bench, &sessions);
    receive(&mut bench, &sessions[0], &target(&sessions[1], 3, QoS::ExactlyOnce), [11, 12]);
    bench.commit(vec![retain(full("r/folded", b"kept"))]);
    bench.commit(vec![retain(text("r/replaced", b"old", QoS::AtMostOnce))]);
    bench.commit(vec![retain(text("r/removed", b"old", QoS::AtMostOnce))]);
    let expired = Header {
        qos: QoS::AtLeastOnce,
        retain: true,
        expires_at: Some(Timestamp::from_millis(1_500_000)),
        publisher: None,
    };
    bench.commit(vec![retain(Message::new("r/expired".into(), b"old", expired))]);
    // All this is folded.
    bench.pass(30);
    // And this is not.
    bench.commit(vec![put(&sessions[1], u32::MAX, None, connected())]);
    let options = subscription(QoS::ExactlyOnce, true, RetainHandling::DoNotSend, 1);
    bench.commit(vec![put_subscription(&sessions[1], "new/#", options)]);
    bench.commit(vec![Op::RemoveSubscription { session: sessions[1].clone(), filter: filter("old") }]);
    bench.commit(vec![Op::EndSession { session: ended, records: Vec::new() }]);
    receive(&mut bench, &sessions[1], &target(&sessions[0], 5, QoS::AtLeastOnce), [65_535, 1]);
    bench.commit(vec![retain(text("r/fresh", b"new", QoS::ExactlyOnce))]);
    bench.commit(vec![retain(text("r/replaced", b"new", QoS::AtLeastOnce))]);
    bench.commit(vec![retain(text("r/removed", b"", QoS::AtMostOnce))]);
    let database = bench.into_disk().open(1 << 20).unwrap();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    backup(&database, path, Existing::Replace, |_| {}).unwrap();
    let mut database = redb::Database::open(path).unwrap();
    while database.compact().unwrap() {}
}

fn open(path: &Path) -> (Committer, Recovered) {
    let medium: Arc<dyn Medium> = Arc::new(File(path.to_path_buf()));
    Committer::open(medium, DiskOptions::default(), Timestamp::from_millis(NOW_MILLIS)).unwrap()
}

/// What a session is sent, by its number.
fn delivered(stored: &StoredSession, committer: &Committer) -> BTreeMap<u64, Outgoing> {
    let wanted = stored.messages.iter().map(|message| (message.number, message.record)).collect();
    let fetch = Fetch { slot: 0, session: stored.id, ticket: 1, wanted: Wanted::Messages(wanted) };
    let found = committer.fetch(&fetch).unwrap().found.into_messages();
    let found = found.into_iter().map(|(number, outgoing)| (number, outgoing.unwrap()));
    found.chain(stored.shared.iter().cloned()).collect()
}

fn assert_outgoing(
    outgoing: &Outgoing,
    message: &Message,
    qos: QoS,
    (retain, ids, share): (bool, &[u32], Option<&str>),
) {
    assert_eq!(*outgoing.message, *message);
    assert_eq!((outgoing.qos, outgoing.retain, outgoing.share.as_deref()), (qos, retain, share));
    let found = outgoing.subscription_ids.iter().flat_map(|ids| ids.iter().map(|id| id.get()));
    assert!(found.eq(ids.iter().copied()));
}

fn assert_folded(stored: &StoredSession, committer: &Committer) {
    assert_eq!((stored.id, &*stored.client_id, stored.expiry_secs), (1, "folded é", 3600));
    assert_eq!(stored.presence, detached());
    let (found, expected) = (stored.will.as_ref().unwrap(), will());
    assert_eq!(found.message, expected.message);
    assert_eq!((found.delay_secs, found.message_expiry_secs), (30, Some(60)));
    let mut found: Vec<_> =
        stored.subscriptions.iter().map(|(filter, stored)| (filter.as_str(), stored.subscription)).collect();
    found.sort_by_key(|(filter, _)| *filter);
    assert_eq!(found, subscriptions());
    assert_eq!((stored.owned.as_slice(), stored.next_number), ([1].as_slice(), 6));
    assert_eq!(stored.unreleased, [PacketId::new(11).unwrap()]);
    let delivered = delivered(stored, committer);
    assert!(delivered.keys().copied().eq([0, 2, 3, 5]), "{:?}", delivered.keys());
    let plain = (false, [].as_slice(), None);
    assert_outgoing(&delivered[&0], &text("a/1", b"one", QoS::AtLeastOnce), QoS::AtLeastOnce, plain);
    assert_outgoing(&delivered[&2], &long(), QoS::ExactlyOnce, (true, &[7, 9], None));
    let shared = (false, [268_435_455].as_slice(), Some("$share/group/s/+"));
    assert_outgoing(&delivered[&3], &full("s/1", b"shared"), QoS::AtLeastOnce, shared);
    assert_outgoing(&delivered[&5], &text("q", &[255, 255], QoS::ExactlyOnce), QoS::AtLeastOnce, plain);
}

fn assert_fresh(stored: &StoredSession, committer: &Committer) {
    assert_eq!((stored.id, &*stored.client_id, stored.expiry_secs), (3, "fresh", u32::MAX));
    assert_eq!(stored.presence, connected());
    assert!(stored.will.is_none() && stored.owned.is_empty());
    let expected = subscription(QoS::ExactlyOnce, true, RetainHandling::DoNotSend, 1);
    assert_eq!(stored.subscriptions, [(filter("new/#"), expected.into())]);
    assert_eq!(stored.unreleased, [PacketId::new(65_535).unwrap()]);
    assert_eq!(stored.next_number, 4);
    let delivered = delivered(stored, committer);
    assert!(delivered.keys().copied().eq([0, 1, 2, 3]), "{:?}", delivered.keys());
    let plain = (false, [].as_slice(), None);
    assert_outgoing(&delivered[&0], &text("a/2", b"two", QoS::ExactlyOnce), QoS::AtLeastOnce, plain);
    assert_outgoing(&delivered[&1], &long(), QoS::AtLeastOnce, plain);
    assert_outgoing(&delivered[&2], &text("a/3", b"", QoS::AtLeastOnce), QoS::AtLeastOnce, plain);
    assert_outgoing(&delivered[&3], &text("q", &[0, 11], QoS::ExactlyOnce), QoS::ExactlyOnce, plain);
}

fn assert_all(recovered: &Recovered, committer: &Committer) {
    let [folded, fresh] = recovered.sessions.as_slice() else { panic!("{:?}", recovered.sessions) };
    assert_folded(folded, committer);
    assert_fresh(fresh, committer);
    let mut retained: Vec<&Message> = recovered.retained.iter().map(|message| &**message).collect();
    retained.sort_by_key(|message| message.topic().clone());
    let expected = [
        full("r/folded", b"kept"),
        text("r/fresh", b"new", QoS::ExactlyOnce),
        text("r/replaced", b"new", QoS::AtLeastOnce),
    ];
    assert!(retained.into_iter().eq(&expected), "{:?}", recovered.retained);
}

#[test]
fn a_file_of_the_first_format_opens() {
    if std::env::var_os("DUNLIN_WRITE_FIXTURE").is_some() {
        write(&path());
    }
    // Nothing is to be written to it.
    let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fixture-{}.redb", std::process::id()));
    fs::copy(path(), &copy).unwrap();
    assert!(fs::metadata(&copy).unwrap().len() < 1 << 20);
    let findings = examine(&copy, &Layout).unwrap();
    assert_eq!(findings.rows_lost(), 0, "{findings:?}");
    assert!(
        findings.tables.iter().all(|table| table.rows > 0),
        "not all is folded, nor nothing: {findings:?}"
    );
    let (committer, recovered) = open(&copy);
    assert_all(&recovered, &committer);
    let next = recovered.next;
    drop(committer);
    // What was read is written, folded, and there again.
    let (mut committer, _) = open(&copy);
    committer.close(crate::power::start()).unwrap();
    let (committer, recovered) = open(&copy);
    assert_all(&recovered, &committer);
    assert!(recovered.next >= next && next > RecordId::new(1));
    drop(committer);
    fs::remove_file(&copy).unwrap();
}
