//! Packets that nobody would send, thrown at a broker that others use.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use dunlin::{
    QoS,
    codec::{Delivery, Packet, ReasonCode, Version},
    config::{Address, Transport},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use crate::{
    BOTH, Peer, Server,
    certificates::Directory,
    config, connect, id, listener,
    peer::encoded,
    publish, success,
    vectors::{self, Expect, Row},
};

/// Packets that are thrown, in all.
const PACKETS: usize = 100_000;

/// Tasks that throw them.
const THROWERS: u64 = 4;

/// Packets on one connection at most; the broker hears them up to the first bad one.
const PACKETS_PER_CONNECTION: usize = 8;

/// SplitMix64: a seed is all that is needed to see a failure again.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..1 + random.below(3) {
        let at = random.below(bytes.len());
        match random.below(7) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            1 if !bytes.is_empty() => bytes[at] = random.next() as u8,
            2 => bytes.insert(at, random.next() as u8),
            3 if !bytes.is_empty() => drop(bytes.remove(at)),
            4 => bytes.truncate(at),
            5 => {
                let piece = bytes[at..].to_vec();
                bytes.extend(piece);
            }
            // The fixed header's length, mostly wrong then.
            _ if bytes.len() > 1 => bytes[1] = bytes[1].wrapping_add(1 + random.below(3) as u8),
            _ => bytes.push(random.next() as u8),
        }
    }
}

/// Throws a share of the packets, from a seed.
async fn throw(path: std::path::PathBuf, seed: u64) {
    let corpus: Vec<Vec<u8>> =
        vectors::rows().into_iter().map(|row| row.bytes).filter(|bytes| bytes.len() < 2000).collect();
    let mut random = Random(seed);
    let mut thrown = 0;
    while thrown < PACKETS / THROWERS as usize {
        let version = [Version::V31, Version::V311, Version::V5][random.below(3)];
        let client_id = format!("mutant-{}", random.below(50));
        let mut bytes = encoded(&Packet::Connect(Box::new(connect(version, &client_id))), version);
        if random.below(8) == 0 {
            mutate(&mut bytes, &mut random);
        }
        for _ in 0..1 + random.below(PACKETS_PER_CONNECTION) {
            let mut packet = corpus[random.below(corpus.len())].clone();
            mutate(&mut packet, &mut random);
            bytes.extend(packet);
            thrown += 1;
        }
        let talk = async {
            let mut stream = UnixStream::connect(&path).await?;
            stream.write_all(&bytes).await?;
            stream.shutdown().await?;
            // The broker ends the connection: at the first bad packet, or because we have ended ours.
            stream.read_to_end(&mut Vec::new()).await
        };
        let ended = tokio::time::timeout(crate::PATIENCE, talk).await;
        // A reset is an end too: the broker does not read what comes behind a bad packet for ever.
        assert!(ended.is_ok(), "seed {seed}: the broker neither answers nor closes after {bytes:02x?}");
    }
}

/// Two clients that send each other numbers for as long as they are told to. Returns how many went round.
async fn exchange(server: Arc<Server>, is_over: Arc<AtomicBool>) -> u32 {
    let mut left = server.client(Version::V5, "left").await;
    let mut right = server.client(Version::V311, "right").await;
    left.subscribe("undisturbed/left", QoS::ExactlyOnce).await;
    right.subscribe("undisturbed/right", QoS::AtLeastOnce).await;
    let mut number = 0_u32;
    while !is_over.load(Ordering::Relaxed) {
        let payload = number.to_be_bytes();
        left.publish_acknowledged("undisturbed/right", &payload).await;
        right.take_message("undisturbed/right", &payload).await;
        right.send(&publish("undisturbed/left", &payload, Delivery::ExactlyOnce(id(2)))).await;
        right.expect(&Packet::PubRec(success(id(2)))).await;
        left.take_message("undisturbed/left", &payload).await;
        right.send(&Packet::PubRel(success(id(2)))).await;
        right.expect(&Packet::PubComp(success(id(2)))).await;
        number += 1;
    }
    left.ping().await;
    right.ping().await;
    number
}

/// Counts panics of the broker's threads: a panic ends one connection only, which no client could tell
/// from a refusal.
fn count_panics_of_shards() -> Arc<AtomicUsize> {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if std::thread::current().name().is_some_and(|name| name.starts_with("shard-")) {
            counted.fetch_add(1, Ordering::Relaxed);
        }
        before(info);
    }));
    count
}

#[tokio::test]
async fn mutated_packets_disturb_nobody() {
    let panics = count_panics_of_shards();
    let directory = Directory::new();
    let path = directory.path("mqtt.sock");
    let mut config = config();
    config.limits.session_expiry_secs_max = 1;
    config.limits.session_queue_messages_max = 1000;
    config.listeners.push(listener("mutants", Transport::Plain));
    config.listeners[1].address = Address::Unix(path.clone());
    config.stop_timeout = Duration::from_secs(1);
    let server = Arc::new(Server::with(config).await);
    let is_over = Arc::new(AtomicBool::new(false));
    let exchanged = tokio::spawn(exchange(server.clone(), is_over.clone()));
    let throwers: Vec<_> = (0..THROWERS).map(|seed| tokio::spawn(throw(path.clone(), seed))).collect();
    for thrower in throwers {
        thrower.await.unwrap();
    }
    is_over.store(true, Ordering::Relaxed);
    let rounds = crate::within(exchanged).await.unwrap();
    assert!(rounds > 10, "{rounds} rounds");
    assert_eq!(panics.load(Ordering::Relaxed), 0);
}

/// Every bad packet of the table closes the connection, with the reason that the table gives.
#[tokio::test]
async fn every_bad_packet_is_answered_with_its_reason() {
    let server = Server::start().await;
    let is_connect = |row: &Row| row.bytes.first().is_some_and(|first| first >> 4 == 1);
    let mut count = 0;
    for row in vectors::rows().iter().filter(|row| !is_connect(row)) {
        let Expect::Error(kind, code) = &row.expect else { continue };
        for version in BOTH.into_iter().filter(|version| row.versions.contains(version)) {
            let stream = crate::within(tokio::net::TcpStream::connect(server.address())).await.unwrap();
            let mut peer = Peer::new(stream, version);
            peer.connect(&connect(version, "table")).await;
            peer.send_bytes(&row.bytes).await;
            // What only a server sends is out of place, whatever is wrong with it.
            let is_from_server = row.bytes.first().is_some_and(|first| matches!(first >> 4, 2 | 9 | 11 | 13));
            let code = if is_from_server { ReasonCode::ProtocolError as u8 } else { *code };
            let ended = tokio::spawn(async move {
                match ReasonCode::from_u8(code) {
                    Some(code) => peer.expect_closed(code).await,
                    None => panic!("{code} is no reason code"),
                }
            });
            assert!(ended.await.is_ok(), "{} ({kind:?}) in {version:?}", row.name);
            count += 1;
        }
    }
    assert!(count > 100, "{count} packets");
}
