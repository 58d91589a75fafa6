//! Limits of connections and handshakes.

use std::{net::SocketAddr, time::Duration};

use dunlin::{
    codec::{Packet, Version},
    config::Transport,
};
use tokio::net::TcpStream;

use crate::{Peer, Server, config, connect, listener, peer::encoded, within};

/// Tries to connect. `None` if the broker closes the connection instead.
async fn try_connect(address: SocketAddr, client_id: &str) -> Option<Peer<TcpStream>> {
    let mut stream = within(TcpStream::connect(address)).await.unwrap();
    let connect = encoded(&Packet::Connect(Box::new(connect(Version::V5, client_id))), Version::V5);
    let result = within(async {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        stream.write_all(&connect).await?;
        let mut head = [0; 2];
        stream.read_exact(&mut head).await?;
        let mut body = vec![0; usize::from(head[1])];
        stream.read_exact(&mut body).await?;
        std::io::Result::Ok((head, body[1]))
    })
    .await;
    match result {
        Ok((head, code)) => {
            assert_eq!((head[0], code), (0x20, 0));
            Some(Peer::new(stream, Version::V5))
        }
        Err(_) => None,
    }
}

/// Tries again and again: the place of a client that has left is free once the broker has seen it leave.
async fn connect_in_the_end(address: SocketAddr, client_id: &str) -> Peer<TcpStream> {
    within(async {
        loop {
            if let Some(peer) = try_connect(address, client_id).await {
                return peer;
            }
        }
    })
    .await
}

#[tokio::test]
async fn connections_beyond_the_limit_of_the_broker_are_closed() {
    let mut config = config();
    config.limits.connections_max = 3;
    config.listeners.push(listener("other", Transport::Plain));
    let server = Server::with(config).await;
    let mut peers = Vec::new();
    for (index, client_id) in ["a", "b", "c"].into_iter().enumerate() {
        peers.push(try_connect(server.address_of(index % 2), client_id).await.unwrap());
    }
    assert!(try_connect(server.address_of(0), "d").await.is_none());
    assert!(try_connect(server.address_of(1), "d").await.is_none());
    for peer in &mut peers {
        peer.ping().await;
    }
    peers.pop();
    connect_in_the_end(server.address_of(1), "d").await;
}

#[tokio::test]
async fn connections_beyond_the_limit_of_a_listener_are_closed() {
    let mut config = config();
    config.listeners[0].connections_max = 2;
    config.listeners.push(listener("other", Transport::Plain));
    let server = Server::with(config).await;
    let first = try_connect(server.address_of(0), "a").await.unwrap();
    let _second = try_connect(server.address_of(0), "b").await.unwrap();
    for _ in 0..3 {
        assert!(try_connect(server.address_of(0), "c").await.is_none());
    }
    let _elsewhere = try_connect(server.address_of(1), "c").await.unwrap();
    drop(first);
    connect_in_the_end(server.address_of(0), "d").await;
}

/// Whoever connects and is silent takes up a handshake, but not for longer than the time limit.
#[tokio::test]
async fn silent_connections_do_not_lock_others_out() {
    let mut config = config();
    config.limits.handshakes_max = 5;
    config.limits.connect_timeout = Duration::from_millis(300);
    let server = Server::with(config).await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(server.open(Version::V5).await);
    }
    server.client(Version::V5, "patient").await.ping().await;
    for peer in &mut silent {
        peer.expect_gone().await;
    }
}

/// A listener that nobody connects to does not keep a handshake from one that is asked for.
#[tokio::test]
async fn every_listener_is_served_with_the_smallest_limit_of_handshakes() {
    let mut config = config();
    config.limits.handshakes_max = 1;
    for name in ["second", "third", "fourth"] {
        config.listeners.push(listener(name, Transport::Plain));
    }
    let server = Server::with(config).await;
    for (round, index) in [3, 3, 0, 2, 0, 1, 1, 3].into_iter().enumerate() {
        try_connect(server.address_of(index), &format!("{round}")).await.unwrap().ping().await;
    }
}
