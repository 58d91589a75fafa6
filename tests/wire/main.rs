//! Raw bytes against the running broker: what a client sees on its socket, packet by packet.
//!
//! Every broker here runs in this process (but those of `program`) on a free port, with two shards and
//! short limits. Nothing waits for a time to pass: a test waits for what it expects, and fails when that
//! has not come within [`PATIENCE`].

#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]
#![expect(clippy::disallowed_methods, reason = "tests have tasks and threads of their own")]

mod authentication;
mod authorization;
#[allow(dead_code, reason = "the tests of the sockets need more of it")]
#[path = "../net/certificates.rs"]
mod certificates;
mod closing;
mod handshake;
mod limits;
mod mutated;
mod passwords;
mod peer;
mod program;
mod sessions;
mod slow;
mod states;
mod statistics;
mod stop;
#[path = "../table/mod.rs"]
mod table;
mod transport;
#[path = "../vectors/mod.rs"]
mod vectors;
mod verdict;

use std::{future::Future, net::SocketAddr, num::NonZeroU16, time::Duration};

use dunlin::{
    Broker, Builder, Config, QoS,
    codec::{
        Ack, Connect, ConnectProperties, Delivery, Packet, PacketId, Publish, PublishProperties, Subscribe,
        SubscribeFilters, SubscribeProperties, SubscriptionOptions, Version,
    },
    config::{Address, Durability, Listener, Persistence, Transport},
    net::LocalAddress,
};
use tokio::net::{TcpSocket, TcpStream};

pub(crate) use peer::Peer;

/// Longer than anything takes that does not hang.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) const BOTH: [Version; 2] = [Version::V311, Version::V5];

/// What `future` gives, or a failure if it hangs.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("comes before the test loses patience")
}

/// A broker of one test, which stops when it is dropped.
pub(crate) struct Server {
    pub(crate) broker: Broker,
}

impl Server {
    pub(crate) async fn start() -> Server {
        Server::with(config()).await
    }

    pub(crate) async fn with(config: Config) -> Server {
        Server::build(Broker::builder().config(config)).await
    }

    pub(crate) async fn build(builder: Builder) -> Server {
        Server { broker: builder.start().await.unwrap() }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address_of(0)
    }

    pub(crate) fn address_of(&self, listener: usize) -> SocketAddr {
        match &self.broker.addresses()[listener].1 {
            LocalAddress::Tcp(address) => *address,
            LocalAddress::Unix(path) => panic!("{} is no TCP address", path.display()),
        }
    }

    /// A connection that has said nothing.
    pub(crate) async fn open(&self, version: Version) -> Peer<TcpStream> {
        let stream = within(TcpStream::connect(self.address())).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Peer::new(stream, version)
    }

    /// A connection whose receiving side holds little, so that not reading from it is felt soon.
    pub(crate) async fn open_narrow(&self, version: Version) -> Peer<TcpStream> {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let stream = within(socket.connect(self.address())).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Peer::new(stream, version)
    }

    /// A connected client with a clean session.
    pub(crate) async fn client(&self, version: Version, client_id: &str) -> Peer<TcpStream> {
        let mut peer = self.open(version).await;
        peer.connect(&connect(version, client_id)).await;
        peer
    }

    pub(crate) async fn stop(self) {
        within(self.broker.stop()).await;
    }
}

pub(crate) fn config() -> Config {
    let mut config = Config {
        shards: 2,
        sys_interval: Duration::ZERO,
        stop_timeout: Duration::from_secs(5),
        listeners: vec![listener("tcp", Transport::Plain)],
        // Files are what `program` and the tests of the store are about.
        persistence: Persistence::Memory,
        ..Config::default()
    };
    config.limits.connect_timeout = Duration::from_secs(5);
    config
}

/// A listener on a free port.
pub(crate) fn listener(name: &str, transport: Transport) -> Listener {
    Listener {
        name: name.to_owned(),
        address: Address::Tcp(SocketAddr::from(([127, 0, 0, 1], 0))),
        transport,
        allow_anonymous: true,
        auth: Vec::new(),
        durability: Durability::Commit,
        connections_max: 100_000,
    }
}

/// Enough client identifiers that some of them are on either of two shards (but for one case in 2^31).
pub(crate) fn ids_on_both_shards(name: &str) -> impl Iterator<Item = String> {
    (0..32).map(move |number| format!("{name}-{number}"))
}

pub(crate) fn id(number: u16) -> PacketId {
    NonZeroU16::new(number).unwrap()
}

pub(crate) fn connect(version: Version, client_id: &str) -> Connect<'_> {
    Connect {
        version,
        clean_start: true,
        keep_alive_secs: 0,
        client_id,
        will: None,
        user_name: None,
        password: None,
        properties: ConnectProperties::default(),
    }
}

pub(crate) fn publish<'a>(topic: &'a str, payload: &'a [u8], delivery: Delivery) -> Packet<'a> {
    let properties = PublishProperties::default();
    Packet::Publish(Publish { dup: false, delivery, retain: false, topic, properties, payload })
}

pub(crate) fn subscribe<'a>(
    packet_id: PacketId,
    filters: &'a [(&'a str, SubscriptionOptions)],
) -> Packet<'a> {
    let properties = SubscribeProperties::default();
    Packet::Subscribe(Subscribe { packet_id, properties, filters: SubscribeFilters::from_list(filters) })
}

pub(crate) fn at_most(qos: QoS) -> SubscriptionOptions {
    SubscriptionOptions { qos, ..SubscriptionOptions::default() }
}

pub(crate) fn success(packet_id: PacketId) -> Ack<'static> {
    Ack::success(packet_id)
}
