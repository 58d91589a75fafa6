//! A broker that stops, in process.

use std::{collections::VecDeque, time::Duration};

use dunlin::{
    Broker, Config, QoS, StartError,
    codec::{Packet, ReasonCode, Version},
    config::{Address, Tls, Transport},
    net::BindErrorKind,
};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::{BOTH, Peer, Server, certificates::Directory, config, connect, listener, peer::encoded, within};

/// `config` on the address that a broker had before.
fn at(server: &Server) -> Config {
    let mut config = config();
    config.listeners[0].address = Address::Tcp(server.address());
    config
}

/// [MQTT-4.13.1-1] v5 clients are told why, others are closed; then the address is free for the next broker.
#[tokio::test]
async fn clients_are_told_and_the_address_is_free_at_once() {
    let mut server = Server::start().await;
    for _ in 0..3 {
        let mut peers = Vec::new();
        for client_id in crate::ids_on_both_shards("told") {
            for version in BOTH {
                let client_id = format!("{client_id}-{version:?}");
                peers.push(server.client(version, &client_id).await);
            }
        }
        let silent = server.open(Version::V5).await;
        let next = at(&server);
        let told = tokio::spawn(async move {
            for peer in &mut peers {
                peer.expect_closed(ReasonCode::ServerShuttingDown).await;
            }
        });
        server.stop().await;
        within(told).await.unwrap();
        drop(silent);
        server = Server::with(next).await;
        server.client(Version::V5, "next").await.ping().await;
    }
}

/// What was accepted before the stop is delivered.
#[tokio::test]
async fn what_waits_for_a_client_is_sent_before_the_end() {
    let server = Server::start().await;
    let mut subscriber = server.client(Version::V5, "subscriber").await;
    subscriber.subscribe("last", QoS::AtMostOnce).await;
    let mut publisher = server.client(Version::V5, "publisher").await;
    for _ in 0..10 {
        publisher.publish_acknowledged("last", &[7; 50_000]).await;
    }
    let stopping = tokio::spawn(server.stop());
    for _ in 0..10 {
        subscriber.expect_message("last", &[7; 50_000]).await;
    }
    subscriber.expect_disconnect(ReasonCode::ServerShuttingDown).await;
    drop(publisher);
    within(stopping).await.unwrap();
}

/// Whoever does not read holds up nothing for longer than the time that the configuration gives.
#[tokio::test]
async fn a_client_that_does_not_read_does_not_keep_the_broker() {
    let mut config = config();
    config.stop_timeout = Duration::from_millis(300);
    let server = Server::with(config).await;
    let mut peer = server.open_narrow(Version::V5).await;
    peer.connect(&connect(Version::V5, "deaf")).await;
    peer.subscribe("flood", QoS::AtMostOnce).await;
    let mut publisher = server.client(Version::V5, "publisher").await;
    for _ in 0..100 {
        publisher.publish_acknowledged("flood", &[7; 100_000]).await;
    }
    server.stop().await;
    peer.expect_gone().await;
}

/// A broker that is dropped stops too, though nobody waits for it.
#[tokio::test]
async fn a_broker_that_is_dropped_stops() {
    let server = Server::start().await;
    let mut peer = server.client(Version::V5, "told").await;
    let address = server.address();
    drop(server);
    peer.expect_disconnect(ReasonCode::ServerShuttingDown).await;
    drop(peer);
    let refused = async { while TcpStream::connect(address).await.is_ok() {} };
    within(refused).await;
}

/// Nothing is left running by a start that fails.
#[tokio::test]
async fn a_start_that_fails_says_why_and_leaves_nothing_behind() {
    let server = Server::start().await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut taken = config();
    taken.listeners[0].address = Address::Tcp(free);
    taken.listeners.push(at(&server).listeners.remove(0));
    match Broker::builder().config(taken).start().await {
        Err(StartError::Bind(error)) => {
            assert_eq!(error.kind(), BindErrorKind::InUse);
            let expected = format!("address {} is already in use", server.address());
            assert!(error.to_string().contains(&expected), "{error}");
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("two brokers listen on one address"),
    }
    std::net::TcpListener::bind(free).unwrap();

    let directory = Directory::new();
    let tls = Tls::new(directory.path("missing.pem"), directory.path("missing.key"));
    let mut unreadable = config();
    unreadable.listeners = vec![listener("secure", Transport::Tls(tls))];
    match Broker::builder().config(unreadable).start().await {
        Err(error @ StartError::Tls { .. }) => {
            let text = error.to_string();
            assert!(text.starts_with("listener 'secure': ") && text.contains("missing.pem"), "{text}");
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("a broker without certificate speaks TLS"),
    }
}

/// Connections that come while the broker stops are closed, not left hanging.
#[tokio::test]
async fn connections_during_a_stop_are_closed() {
    let server = Server::start().await;
    let address = server.address();
    let storm = tokio::spawn(async move {
        let mut peers = VecDeque::new();
        let connect = encoded(&Packet::Connect(Box::new(connect(Version::V5, "storm"))), Version::V5);
        while let Ok(mut stream) = TcpStream::connect(address).await {
            // Whether the broker still reads it is not the point.
            let _: std::io::Result<()> = stream.write_all(&connect).await;
            peers.push_back(Peer::new(stream, Version::V5));
            if peers.len() > 500 {
                peers.pop_front();
            }
        }
        for peer in &mut peers {
            peer.expect_gone().await;
        }
    });
    for number in 0..20 {
        server.client(Version::V5, &format!("other-{number}")).await.ping().await;
    }
    server.stop().await;
    within(storm).await.unwrap();
}
