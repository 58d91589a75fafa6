//! Sockets, TLS and WebSocket against real clients, in one process.

#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]
#![expect(clippy::disallowed_methods, reason = "tests have tasks and threads of their own")]

mod certificates;
mod hand_off;
mod listener;
mod tls;
mod websocket;

use std::{future::Future, net::SocketAddr, time::Duration};

use dunlin::{
    config::{Address, Durability, Listener, Transport},
    net::{Acceptor, BoundListener, LocalAddress, PreparedTransport, Stream, UpgradeError, upgrade},
};
use tokio::net::TcpStream;

/// Largest packet that the servers of these tests accept.
const PACKET_BYTES_MAX: u32 = 100_000;

/// What `future` gives, or a failure if it hangs.
async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("does not hang")
}

fn listener(address: Address, transport: Transport) -> Listener {
    Listener {
        name: "test".to_owned(),
        address,
        transport,
        allow_anonymous: true,
        auth: Vec::new(),
        durability: Durability::Commit,
        connections_max: 10,
    }
}

fn tcp(address: &str) -> Address {
    Address::Tcp(address.parse().unwrap())
}

fn port_of(listener: &BoundListener) -> SocketAddr {
    match listener.local_address() {
        LocalAddress::Tcp(address) => *address,
        LocalAddress::Unix(path) => panic!("a TCP listener listens on {}", path.display()),
    }
}

/// A listener on a free port, in the runtime of the test.
struct Server {
    acceptor: Acceptor,
    address: SocketAddr,
    transport: PreparedTransport,
}

impl Server {
    fn start(transport: Transport) -> Self {
        let prepared = PreparedTransport::prepare(&transport).unwrap();
        let bound = BoundListener::bind(&listener(tcp("127.0.0.1:0"), transport)).unwrap();
        Self { acceptor: bound.acceptor().unwrap(), address: port_of(&bound), transport: prepared }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn accept(&self) -> Result<Stream, UpgradeError> {
        let (socket, _) = self.acceptor.accept().await.unwrap();
        upgrade(socket, &self.transport, PACKET_BYTES_MAX).await
    }
}
