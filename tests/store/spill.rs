//! References of long queues that are handed over to the store.

use std::sync::Arc;

use dunlin::{
    broker::{Op, Unspill},
    codec::QoS,
    session::{Fetch, Found, SessionHandle, StoredMessage, StoredPresence, Wanted},
    store::{Committer, DiskOptions, Existing, Medium, Recovered, backup},
    time::Timestamp,
};

use redb::{ReadableDatabase, ReadableTableMetadata, TableDefinition};

use crate::{
    driver::message,
    medium::Disk,
    model::all_messages,
    rules::{Bench, append, put, settle, target},
};

const SPILLED: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("sessq");
const CACHE_BYTES: usize = 1 << 20;

/// Queues so many messages for each of these sessions, one record each; returns the references.
fn fill(bench: &mut Bench, sessions: &[&Arc<SessionHandle>], count: u64) -> Vec<StoredMessage> {
    let mut messages = Vec::new();
    for number in 0..count {
        let text = message("t", b"x", QoS::AtLeastOnce);
        let size_bytes = text.size_bytes() as u32;
        let record = bench.next_record();
        messages.push(StoredMessage { number, record, size_bytes, qos: QoS::AtLeastOnce });
        let targets = sessions.iter().map(|session| target(session, number, QoS::AtLeastOnce));
        bench.commit(vec![append(text, targets.collect())]);
    }
    messages
}

fn spill(session: &Arc<SessionHandle>, messages: &[StoredMessage]) -> Op {
    Op::Spill { session: session.clone(), messages: messages.to_vec() }
}

fn unspill(session: &Arc<SessionHandle>, first: u64, cause: Unspill) -> Op {
    Op::Unspill { session: session.clone(), first, cause }
}

fn run(bench: &Bench, session: &Arc<SessionHandle>, first: u64) -> Vec<StoredMessage> {
    let fetch = Fetch { slot: 1, session: session.id, ticket: 2, wanted: Wanted::Run(first) };
    match bench.committer.fetch(&fetch).unwrap().found {
        Found::Run(found, messages) if found == first => messages,
        other => panic!("{other:?} instead of a run"),
    }
}

fn spilled_rows(disk: &Disk) -> u64 {
    let database = disk.open(CACHE_BYTES).unwrap();
    let transaction = database.begin_read().unwrap();
    transaction.open_table(SPILLED).map_or(0, |table| table.len().unwrap())
}

#[test]
fn a_run_is_read_back_until_it_is_given_up() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    let messages = fill(&mut bench, &[&session], 9);
    bench.commit(vec![spill(&session, &messages[3..6]), spill(&session, &messages[6..8])]);
    assert_eq!(run(&bench, &session, 3), messages[3..6]);
    assert_eq!(run(&bench, &session, 6), messages[6..8]);
    assert_eq!(run(&bench, &session, 4), []);
    bench.commit(vec![unspill(&session, 3, Unspill::Read), spill(&session, &messages[1..2])]);
    assert_eq!(run(&bench, &session, 3), []);
    // What comes and goes in one transaction leaves nothing.
    bench.commit(vec![spill(&session, &messages[3..6]), unspill(&session, 3, Unspill::Read)]);
    assert_eq!(run(&bench, &session, 3), []);
    let (bench, recovered) = bench.restart();
    assert_eq!(run(&bench, &session, 6), [], "another broker has left it");
    assert!(recovered.sessions[0].messages.iter().eq(messages));
}

#[test]
fn an_ended_session_needs_none_of_what_was_spilled() {
    let mut bench = Bench::new();
    let (session, other) = (bench.session("a"), bench.session("b"));
    let messages = fill(&mut bench, &[&session], 300);
    for messages in messages[2..].chunks(2) {
        bench.commit(vec![spill(&session, messages)]);
    }
    let kept = message("t", b"kept", QoS::AtLeastOnce);
    bench.commit(vec![append(kept, vec![target(&other, 0, QoS::AtLeastOnce)])]);
    let records = messages[..2].iter().map(|message| message.record).collect();
    let mut ops = vec![Op::EndSession { session: session.clone(), records }];
    ops.extend((2..300).step_by(2).map(|first| unspill(&session, first, Unspill::Ended)));
    bench.commit(ops);
    bench.pass(30);
    let (rows, bench) = bench.log_rows();
    assert_eq!(rows, 1, "the message that another session needs is left");
    assert_eq!(spilled_rows(&bench.into_disk()), 0);
}

#[test]
fn what_is_spilled_and_ended_in_one_transaction_is_not_written() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    let text = message("t", b"x", QoS::AtLeastOnce);
    let (record, size_bytes) = (bench.next_record(), text.size_bytes() as u32);
    let messages = [StoredMessage { number: 0, record, size_bytes, qos: QoS::AtLeastOnce }];
    bench.commit(vec![
        append(text, vec![target(&session, 0, QoS::AtLeastOnce)]),
        spill(&session, &messages),
        Op::EndSession { session: session.clone(), records: Vec::new() },
        unspill(&session, 0, Unspill::Ended),
    ]);
    bench.pass(30);
    assert_eq!(bench.log_rows().0, 0);
}

#[test]
fn a_backup_is_without_what_is_spilled() {
    let mut bench = Bench::new();
    let session = bench.session("a");
    let messages = fill(&mut bench, &[&session], 3);
    bench.commit(vec![spill(&session, &messages)]);
    let disk = bench.into_disk();
    assert_eq!(spilled_rows(&disk), 1);
    let path = std::env::temp_dir().join(format!("dunlin-spill-{}.redb", std::process::id()));
    let made = backup(&disk.open(CACHE_BYTES).unwrap(), &path, Existing::Replace, |_| {}).unwrap();
    let database = redb::Database::open(&path).unwrap();
    assert!(database.begin_read().unwrap().open_table(SPILLED).is_err());
    drop(database);
    std::fs::remove_file(&path).unwrap();
    // Two in `meta`, a session, three messages.
    assert_eq!(made.rows, 2 + 1 + 3);
}

fn open(disk: &Disk) -> (Committer, Recovered) {
    let medium: Arc<dyn Medium> = Arc::new(disk.clone());
    let options = DiskOptions { cache_bytes: CACHE_BYTES, index_bytes_max: 1000, run_messages_max: 10 };
    Committer::open(medium, options, Timestamp::default()).unwrap()
}

#[test]
fn a_start_spills_what_is_beyond_the_limit_and_cannot_have_been_sent() {
    for (presence, sent) in
        [(StoredPresence::Connected { receive_maximum: 25 }, 25), (detached(42), 42), (detached(0), 0)]
    {
        let mut bench = Bench::new();
        let (session, other) = (bench.session("a"), bench.session("b"));
        let mut op = put(&session);
        if let Op::PutSession { presence: stored, .. } = &mut op {
            *stored = presence;
        }
        bench.commit(vec![op]);
        let mut messages = fill(&mut bench, &[&session, &other], 500);
        // In the middle of runs that are spilled by then, and a whole one.
        for number in [0, 120, 233].into_iter().chain(300..310) {
            let record = messages.iter().find(|message| message.number == number).unwrap().record;
            bench.commit(vec![settle(&session, number, record.get(), 0)]);
            messages.retain(|message| message.number != number);
        }
        // The other needs all of them, so that the cursor alone tells which are settled.
        bench.pass(10);
        let disk = bench.into_disk();
        let (committer, recovered) = open(&disk);
        let stored = &recovered.sessions[0];
        assert_eq!(stored.messages.len(), messages.len());
        assert_eq!(all_messages(stored, &committer).unwrap(), messages);
        let here: Vec<u64> = stored.messages.iter().map(|message| message.number).collect();
        assert!(messages.iter().take(sent.min(25)).all(|message| here.contains(&message.number)));
        assert!(stored.messages.index_bytes() <= 1500, "{} bytes", stored.messages.index_bytes());
        let runs = stored.messages.spilled().count() as u64;
        assert!(runs > 20, "{runs} runs are spilled");
        drop(committer);
        let others = recovered.sessions[1].messages.spilled().count() as u64;
        assert_eq!(spilled_rows(&disk), runs + others, "what was read back is gone");
    }
}

fn detached(sent_below: u64) -> StoredPresence {
    StoredPresence::Detached { since: Timestamp::default(), sent_below, perhaps_sent_below: 0 }
}
