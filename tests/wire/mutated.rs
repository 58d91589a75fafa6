//! Packets that nobody would send, thrown at a broker that others use.

use std::{
    collections::BTreeMap,
    io,
    num::NonZeroU16,
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use dunlin::{
    QoS,
    broker::Shared,
    codec::{self, Decoded, Delivery, PACKET_BYTES_LIMIT, Packet, ReasonCode, Version, Will, WillProperties},
    limits::Limits,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use crate::{
    BOTH, PATIENCE, Peer, Server, connect, id,
    peer::encoded,
    program::Program,
    publish, success,
    vectors::{self, Expect, Row},
    verdict::Verdict,
    within,
};

/// Packets that the broker hears, in all: one behind the first bad one of a connection is not counted.
const PACKETS: usize = 100_000;

/// Tasks that throw them.
const THROWERS: u64 = 12;

/// Packets on one connection at most; the broker hears them up to the first bad one.
const PACKETS_PER_CONNECTION: usize = 16;

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

/// Packets to mutate: all that are named in the table, and of these what a client may send at any time.
struct Corpus {
    all: Vec<Vec<u8>>,
    at_any_time: BTreeMap<Version, Vec<Vec<u8>>>,
}

impl Corpus {
    fn new() -> Corpus {
        let rows: Vec<Row> = vectors::rows().into_iter().filter(|row| row.bytes.len() < 2000).collect();
        let mut at_any_time = BTreeMap::<Version, Vec<Vec<u8>>>::new();
        for row in &rows {
            for version in row.versions.iter().filter(|version| is_for_any_time(&row.bytes, **version)) {
                at_any_time.entry(*version).or_default().push(row.bytes.clone());
            }
        }
        Corpus { all: rows.into_iter().map(|row| row.bytes).collect(), at_any_time }
    }

    /// A mutated packet. Most are such that the broker goes on to hear what is behind them.
    fn pick(&self, version: Version, random: &mut Random) -> Vec<u8> {
        let is_any = random.below(5) == 0;
        let packets = if is_any { &self.all } else { &self.at_any_time[&version] };
        loop {
            let mut packet = packets[random.below(packets.len())].clone();
            mutate(&mut packet, random);
            if is_any || is_for_any_time(&packet, version) {
                return packet;
            }
        }
    }
}

/// Whether these bytes are one packet that a client may send though the connection is to go on.
fn is_for_any_time(bytes: &[u8], version: Version) -> bool {
    match codec::decode(bytes, version, PACKET_BYTES_LIMIT) {
        Ok(Decoded::Packet(packet, length)) => {
            let is_client_s = matches!(
                packet,
                Packet::Publish(_)
                    | Packet::PubRec(_)
                    | Packet::PubRel(_)
                    | Packet::Subscribe(_)
                    | Packet::Unsubscribe(_)
                    | Packet::PingReq
            );
            is_client_s && length == bytes.len()
        }
        Ok(Decoded::Incomplete(_)) | Err(_) => false,
    }
}

/// A CONNECT with some of what one may have. Those of one thrower are not those of another, also after a few
/// mutations: a client identifier that is connected twice would be a reason to close of its own.
fn first_packet(version: Version, client_id: &str, random: &mut Random) -> Vec<u8> {
    let mut packet = connect(version, client_id);
    packet.clean_start = random.below(2) == 0;
    packet.keep_alive_secs = random.below(2) as u16 * 600;
    if random.below(3) == 0 {
        let properties = WillProperties::default();
        packet.will =
            Some(Will { qos: QoS::AtLeastOnce, retain: false, topic: "will", payload: b"gone", properties });
    }
    if random.below(3) == 0 {
        (packet.user_name, packet.password) = (Some("user"), Some(&b"password"[..]));
    }
    if version.is_v5() && random.below(2) == 0 {
        packet.properties.session_expiry_secs = Some(1);
        packet.properties.receive_maximum = NonZeroU16::new(10);
        packet.properties.topic_alias_maximum = Some(5);
    }
    encoded(&Packet::Connect(Box::new(packet)), version)
}

/// Sends bytes, and returns all that comes back until the connection is over. Where it is not for the broker to
/// close, the client does, once it has all answers that are due.
async fn converse(path: &Path, bytes: &[u8], verdict: &Verdict) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(path).await?;
    let mut received = Vec::new();
    // It fails if the broker closes before it has read all.
    let _: io::Result<()> = stream.write_all(bytes).await;
    if !verdict.is_ended_by_broker() {
        while verdict.is_more_due(&received) && stream.read_buf(&mut received).await? > 0 {}
        let _: io::Result<()> = stream.shutdown().await;
    }
    match stream.read_to_end(&mut received).await {
        // A reset is an end too: the broker does not read what comes behind a bad packet for ever.
        Err(error) if error.kind() != io::ErrorKind::ConnectionReset => Err(error),
        Ok(_) | Err(_) => Ok(received),
    }
}

/// Throws so many packets that the broker hears, from a seed.
async fn throw(path: PathBuf, packets: usize, seed: u64) {
    let corpus = Corpus::new();
    let shared = Shared::new(Limits::default(), 1, 0);
    let mut random = Random(seed);
    let name = char::from(b'a' + seed as u8).to_string().repeat(8);
    let mut heard = 0;
    while heard < packets {
        let version = [Version::V31, Version::V311, Version::V5, Version::V5][random.below(4)];
        let client_id = format!("{name}-{}", random.below(50));
        let mut bytes = first_packet(version, &client_id, &mut random);
        let is_mutated = random.below(8) == 0;
        if is_mutated {
            mutate(&mut bytes, &mut random);
        }
        for _ in 0..1 + random.below(PACKETS_PER_CONNECTION) {
            bytes.extend(corpus.pick(version, &mut random));
        }
        let verdict = Verdict::of(&bytes, &shared);
        heard += verdict.packets - usize::from(!is_mutated);
        let Ok(received) = tokio::time::timeout(PATIENCE, converse(&path, &bytes, &verdict)).await else {
            panic!("seed {seed}: the broker does not answer, or does not close, after {bytes:02x?}");
        };
        let checked = verdict.check(&received.unwrap());
        assert!(checked.is_ok(), "seed {seed}: {}: {bytes:02x?}", checked.unwrap_err());
    }
}

/// Throws a share of the packets, from seeds of its own.
async fn throw_all(path: &Path, packets: usize, seeds: Range<u64>) {
    let share = packets.div_ceil((seeds.end - seeds.start) as usize);
    let throwers: Vec<_> = seeds.map(|seed| tokio::spawn(throw(path.into(), share, seed))).collect();
    for thrower in throwers {
        thrower.await.unwrap();
    }
}

/// Two clients that send each other numbers for as long as they are told to. Returns how many went round.
async fn exchange(path: PathBuf, is_over: Arc<AtomicBool>) -> u32 {
    let client = async |version, client_id: &str| {
        let mut peer = Peer::new(within(UnixStream::connect(&path)).await.unwrap(), version);
        peer.connect(&connect(version, client_id)).await;
        peer
    };
    let mut left = client(Version::V5, "left").await;
    let mut right = client(Version::V311, "right").await;
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

/// The program, with its store on disk, hears packets that are wrong in all ways. Each is answered as it should
/// be; meanwhile two clients exchange messages, none is lost or comes twice, and memory stays what it was.
#[tokio::test]
async fn mutated_packets_disturb_nobody() {
    const GROWTH_BYTES_MAX: usize = 16 * 1024 * 1024;
    let (program, path) = Program::on_unix(&["--set", "limits.session_expiry_secs_max=1"]);
    let is_over = Arc::new(AtomicBool::new(false));
    let exchanged = tokio::spawn(exchange(path.clone(), is_over.clone()));
    // The first ones fill what is kept for use again.
    let first = PACKETS / 4;
    throw_all(&path, first, 0..THROWERS).await;
    let before = program.resident_bytes();
    throw_all(&path, PACKETS - first, THROWERS..2 * THROWERS).await;
    let grown = program.resident_bytes().saturating_sub(before);
    is_over.store(true, Ordering::Relaxed);
    let rounds = within(exchanged).await.unwrap();
    assert!(rounds > 0, "nothing was exchanged");
    assert!(grown < GROWTH_BYTES_MAX, "{grown} bytes more");
    // A panic would have ended it.
    program.signal("-TERM");
    let (status, log) = program.wait().await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!log.contains("panic"), "{log}");
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
