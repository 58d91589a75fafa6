//! A disk that fills up, and gets room again because what was on it is delivered.

use std::time::Instant;

use dunlin::codec::{Delivery, PacketId, PacketKind, QoS, ReasonCode, Version};

use super::{
    broker::{Broker, PATIENCE, can_mount},
    client::{Connection, Got, Who},
};

const DISK_MIB: u32 = 48;
const PAYLOAD_BYTES: usize = 10_000;

fn open(broker: &Broker, id: &str) -> Connection {
    let who = Who { id: id.into(), version: Version::V5, socket: broker.socket() };
    Connection::open(&who, None).ok().unwrap().0
}

/// Reads until something comes.
fn next(connection: &mut Connection) -> Vec<Got> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let got = connection.read().ok().unwrap();
        if !got.is_empty() {
            return got;
        }
        assert!(Instant::now() < deadline, "nothing comes");
    }
}

/// Publishes a message and waits for what the broker says.
fn publish(connection: &mut Connection, topic: &str, number: usize) -> ReasonCode {
    let mut payload = number.to_string();
    payload.extend(std::iter::repeat_n('.', PAYLOAD_BYTES));
    connection.publish(PacketId::MIN, topic, payload.as_bytes()).ok().unwrap();
    match next(connection).first() {
        Some(Got::Ack { kind: PacketKind::PubAck, reason, .. }) => *reason,
        _ => panic!("something else than PUBACK"),
    }
}

/// Takes in messages and acknowledges them, until this one has come.
fn drain(connection: &mut Connection, last: &str) -> Vec<String> {
    let mut received: Vec<String> = Vec::new();
    while received.last().is_none_or(|number| number != last) {
        for got in next(connection) {
            let Got::Publish { payload, delivery: Delivery::AtLeastOnce(id), .. } = got else { continue };
            received.push(payload.trim_end_matches('.').into());
            connection.ack(PacketKind::PubAck, id).ok().unwrap();
        }
    }
    received
}

#[test]
fn a_full_disk_refuses_what_it_cannot_keep_and_recovers_by_itself() {
    if !can_mount() {
        eprintln!("not tested: this machine mounts no file system for a test");
        return;
    }
    let mut broker = Broker::new("full", "log.filter = \"warn\"").on_disk_of(DISK_MIB);
    broker.start();
    let mut away = open(&broker, "away");
    away.subscribe("kept", QoS::AtLeastOnce).ok().unwrap();
    assert!(matches!(next(&mut away)[..], [Got::SubAck]));
    away.disconnect().ok().unwrap();
    let mut publisher = open(&broker, "publisher");
    let mut kept = Vec::new();
    for number in 0.. {
        match publish(&mut publisher, "kept", number) {
            ReasonCode::Success => kept.push(number.to_string()),
            ReasonCode::QuotaExceeded => break,
            other => panic!("{other:?}"),
        }
    }
    let bytes = kept.len() * PAYLOAD_BYTES;
    assert!(bytes > DISK_MIB as usize * 1024 * 1024 / 4, "the disk was full at {bytes} bytes");
    // What needs no disk goes on.
    assert_eq!(publish(&mut publisher, "nobody", 0), ReasonCode::NoMatchingSubscribers);
    // All that was acknowledged is delivered, and makes room.
    let mut away = open(&broker, "away");
    let last = kept.last().unwrap().clone();
    assert_eq!(drain(&mut away, &last), kept);
    let deadline = Instant::now() + PATIENCE;
    while publish(&mut publisher, "kept", usize::MAX) != ReasonCode::Success {
        assert!(Instant::now() < deadline, "the broker does not recover");
        std::thread::yield_now();
    }
    assert_eq!(drain(&mut away, &usize::MAX.to_string()), [usize::MAX.to_string()]);
    assert_eq!(broker.stop().code(), Some(0));
}
