//! Thousands of clients that connect at once.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use dunlin::{
    QoS,
    codec::{self, ConnAckReturn, Decoded, PACKET_BYTES_LIMIT, Packet, ReasonCode, Version},
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{Broker, MIB, PATIENCE, Peer, account, connect, peer::encoded, within};

const STORM: usize = 5000;

/// Pairs of clients that exchange messages meanwhile.
const PAIRS: usize = 8;

/// Descriptors for everything but the storm.
const DESCRIPTORS_KEPT: usize = 200;

/// Time after which a client gives an attempt up, and tries again: the system drops what is beyond its queue.
const ATTEMPT: Duration = Duration::from_secs(5);

/// What may be left of the memory that the storm took: rooms of tables that have grown.
const GROWTH_BYTES_MAX: usize = 12 * MIB;

/// Time between two looks at what nothing tells of.
const LOOK: Duration = Duration::from_millis(20);

/// As many clients as there may be files, which are the broker's too; both processes have the same limit.
fn storm_size() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let allowed = if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    let allowed = allowed.map_or(usize::MAX, |files| files as usize);
    STORM.min(allowed.saturating_sub(DESCRIPTORS_KEPT))
}

/// Two clients that exchange messages.
struct Pair {
    topic: String,
    publisher: Peer<UnixStream>,
    subscriber: Peer<UnixStream>,
}

impl Pair {
    async fn new(broker: &Broker, number: usize) -> Pair {
        let topic = format!("pair/{number}");
        let publisher = broker.client(&connect(&format!("publisher-{number}"))).await;
        let mut subscriber = broker.client(&connect(&format!("subscriber-{number}"))).await;
        subscriber.subscribe(&topic, QoS::AtLeastOnce).await;
        Pair { topic, publisher, subscriber }
    }
}

/// One attempt to connect. Whatever goes wrong, the client may come again.
async fn attempt(address: SocketAddr, client_id: &str) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    let packet = Packet::Connect(Box::new(connect(client_id)));
    stream.write_all(&encoded(&packet, Version::V5)).await?;
    let mut received = Vec::new();
    loop {
        if stream.read_buf(&mut received).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match codec::decode(&received, Version::V5, PACKET_BYTES_LIMIT).unwrap() {
            Decoded::Packet(Packet::ConnAck(ack), _) => {
                assert_eq!(ack.code, ConnAckReturn::V5(ReasonCode::Success), "{client_id}");
                return Ok(stream);
            }
            Decoded::Packet(other, _) => panic!("{other:?} where CONNACK was expected"),
            Decoded::Incomplete(_) => {}
        }
    }
}

/// Comes again until it is connected.
async fn come(address: SocketAddr, number: usize) -> Peer<TcpStream> {
    let client_id = format!("storm-{number}");
    loop {
        if let Ok(Ok(stream)) = timeout(ATTEMPT, attempt(address, &client_id)).await {
            return Peer::new(stream, Version::V5);
        }
    }
}

/// Exchanges messages until it is told to end. Any that is lost, and a connection that is, fails the test.
async fn converse(mut pair: Pair, is_over: Arc<AtomicBool>) -> (Pair, u32) {
    let Pair { topic, publisher, subscriber } = &mut pair;
    let mut exchanged: u32 = 0;
    while !is_over.load(Ordering::Relaxed) {
        let payload = exchanged.to_be_bytes();
        publisher.publish_acknowledged(topic, &payload).await;
        subscriber.take_message(topic, &payload).await;
        exchanged += 1;
    }
    publisher.ping().await;
    subscriber.ping().await;
    (pair, exchanged)
}

/// All come, are heard, and go.
async fn storm(address: SocketAddr, size: usize) {
    let mut coming = JoinSet::new();
    for number in 0..size {
        coming.spawn(come(address, number));
    }
    let mut peers = within(coming.join_all()).await;
    assert_eq!(peers.len(), size);
    for peer in &mut peers {
        peer.send(&Packet::PingReq).await;
    }
    for peer in &mut peers {
        peer.expect(&Packet::PingResp).await;
    }
}

/// Waits until this is so. What is left after a storm shows in the system's figures alone.
async fn until(what: &str, mut is_so: impl FnMut() -> Result<(), String>) {
    let mut last = String::new();
    let wait = async {
        while let Err(found) = is_so() {
            last = found;
            sleep(LOOK).await;
        }
    };
    let is_so = timeout(PATIENCE, wait).await.is_ok();
    assert!(is_so, "{what}: {last}");
}

#[tokio::test]
async fn a_connect_storm_passes_and_leaves_nothing() {
    let size = storm_size();
    // So few that nearly all of the storm have to wait for others.
    let broker = Broker::start(&["limits.handshakes_max=64"]);
    let mut pairs = Vec::new();
    for number in 0..PAIRS {
        pairs.push(Pair::new(&broker, number).await);
    }
    let (descriptors, resident) = (broker.descriptors(), broker.resident_bytes());
    let is_over = Arc::new(AtomicBool::new(false));
    let mut conversations = JoinSet::new();
    for pair in pairs {
        conversations.spawn(converse(pair, is_over.clone()));
    }
    storm(broker.address, size).await;
    is_over.store(true, Ordering::Relaxed);
    let conversations = within(conversations.join_all()).await;
    for (pair, exchanged) in &conversations {
        assert!(*exchanged > 1, "{} of {}", exchanged, pair.topic);
    }
    let clients = 2 * PAIRS as u64;
    // With who reads this.
    account::settled(&broker, |account| account.value("clients/connected") == clients + 1).await;
    until("descriptors", || match broker.descriptors() {
        now if now <= descriptors => Ok(()),
        now => Err(format!("{now} after {descriptors}")),
    })
    .await;
    until("memory", || match broker.resident_bytes().saturating_sub(resident) {
        grown if grown < GROWTH_BYTES_MAX => Ok(()),
        grown => Err(format!("{} MiB more", grown / MIB)),
    })
    .await;
}
