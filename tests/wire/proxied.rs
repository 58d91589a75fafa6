//! Clients behind proxies, through the whole broker.

use std::sync::{Arc, Mutex};

use dunlin::{
    Broker, Config,
    acl::Principal,
    auth::{Authenticate, BoxFuture, ByListener, Credentials, Denial},
    codec::{Packet, Version},
    config::{ClientIdentity, Proxies, ProxyProtocol, Transport, WebSocket},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    Server,
    certified::{OwnTopic, publishes},
    config, connect, listener, within,
};

/// Remembers where clients come from.
#[derive(Clone, Default)]
struct Witness(Arc<Mutex<Vec<String>>>);

impl Authenticate for Witness {
    fn authenticate<'a>(&'a self, credentials: Credentials<'a>) -> BoxFuture<'a, Result<Principal, Denial>> {
        self.0.lock().unwrap().push(credentials.peer.to_string());
        ByListener.authenticate(credentials)
    }
}

impl Witness {
    fn seen(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

fn proxies(protocol: ProxyProtocol, trusted: &str) -> Proxies {
    Proxies { protocol, trusted: vec![trusted.parse().unwrap()] }
}

async fn serve(transport: Transport, proxies: Proxies, identity: ClientIdentity) -> (Server, Witness) {
    let mut listener = listener("proxied", transport);
    (listener.proxies, listener.client_identity) = (proxies, identity);
    listener.allow_anonymous = identity == ClientIdentity::None;
    let witness = Witness::default();
    let builder = Broker::builder().config(Config { listeners: vec![listener], ..config() });
    (Server::build(builder.authenticator(witness.clone()).authorizer(OwnTopic)).await, witness)
}

const V1: &[u8] = b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 1883\r\n";

#[tokio::test]
async fn the_peer_is_the_proxys_client() {
    let trusting = proxies(ProxyProtocol::Required, "127.0.0.1");
    let (server, witness) = serve(Transport::Plain, trusting, ClientIdentity::None).await;
    for client_id in crate::ids_on_both_shards("proxied").take(4) {
        let mut peer = server.open(Version::V5).await;
        peer.send_bytes(V1).await;
        peer.connect(&connect(Version::V5, &client_id)).await;
        peer.ping().await;
        assert_eq!(witness.seen(), ["203.0.113.9:4711"]);
    }
    // Without a header, with two, and with none at all but MQTT in time.
    for sent in [&b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00"[..], &[V1, V1].concat()] {
        let mut peer = server.open(Version::V5).await;
        peer.send_bytes(sent).await;
        peer.expect_gone().await;
    }
    assert!(witness.seen().is_empty());
}

#[tokio::test]
async fn who_is_no_trusted_proxy_is_refused() {
    let strict = proxies(ProxyProtocol::Required, "10.0.0.0/8");
    let (server, witness) = serve(Transport::Plain, strict, ClientIdentity::None).await;
    let mut peer = server.open(Version::V5).await;
    peer.expect_gone().await;
    assert!(witness.seen().is_empty());
}

#[tokio::test]
async fn a_certificate_that_the_proxy_has_verified_names_the_user() {
    let trusting = proxies(ProxyProtocol::Required, "127.0.0.1");
    let (server, _) = serve(Transport::Plain, trusting, ClientIdentity::CommonName).await;
    for (verify, is_let_in) in [(0_u8, true), (18, false)] {
        let ssl = [&[0x20, 0, 15, 7, 0, 0, 0, verify, 0x22, 0, 7][..], b"meter-7"].concat();
        let head = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x1e\xcb\0\x71\x09\xc0\0\x02\x01\x12\x67\x22\xb3";
        let mut peer = server.open(Version::V5).await;
        peer.send_bytes(&[&head[..], &ssl].concat()).await;
        peer.send(&Packet::Connect(Box::new(connect(Version::V5, "c")))).await;
        if is_let_in {
            assert_eq!(peer.conn_ack().await, (false, 0));
            assert!(publishes(&mut peer, "meter-7").await);
        } else {
            assert_eq!(peer.conn_ack().await, (false, 0x87));
        }
    }
}

/// Sends an HTTP request and returns the status.
async fn request(server: &Server, headers: &str) -> (TcpStream, String) {
    let mut stream = within(TcpStream::connect(server.address())).await.unwrap();
    let request = format!(
        "GET /mqtt HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n{headers}\r\n"
    );
    within(stream.write_all(request.as_bytes())).await.unwrap();
    let mut status = [0; 12];
    within(stream.read_exact(&mut status)).await.unwrap();
    (stream, String::from_utf8_lossy(&status[9..]).into_owned())
}

#[tokio::test]
async fn x_forwarded_for_counts_from_trusted_proxies_only() {
    for (trusted, expected) in [("127.0.0.0/8", "203.0.113.9:0"), ("10.0.0.0/8", "127.0.0.1:")] {
        let proxies = proxies(ProxyProtocol::None, trusted);
        let transport = Transport::WebSocket(WebSocket::default());
        let (server, witness) = serve(transport, proxies, ClientIdentity::None).await;
        let (mut stream, status) = request(&server, "X-Forwarded-For: 10.1.1.1, 203.0.113.9\r\n").await;
        assert_eq!(status, "101");
        // A masked frame with a mask of zeros.
        let packet =
            crate::peer::encoded(&Packet::Connect(Box::new(connect(Version::V311, "w"))), Version::V311);
        let head = [0x82, 0x80 | u8::try_from(packet.len()).unwrap(), 0, 0, 0, 0];
        within(stream.write_all(&[&head[..], &packet].concat())).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(&[0x20, 2, 0, 0]) {
            assert!(within(stream.read_buf(&mut answer)).await.unwrap() > 0, "{answer:?}");
        }
        assert!(witness.seen()[0].starts_with(expected));
    }
}

#[tokio::test]
async fn only_listed_origins_may_connect() {
    let allowed_origins = Some(vec!["https://app.example.org".to_owned()]);
    let transport = Transport::WebSocket(WebSocket { allowed_origins, ..WebSocket::default() });
    let (server, _) = serve(transport, Proxies::default(), ClientIdentity::None).await;
    for (headers, expected) in [
        ("Origin: https://app.example.org\r\n", "101"),
        ("Origin: HTTPS://App.Example.org\r\n", "101"),
        ("Origin: https://app.example.org.evil.example\r\n", "403"),
        ("Origin: http://app.example.org\r\n", "403"),
        ("Origin: https://app.example.org:444\r\n", "403"),
        ("Origin: null\r\n", "403"),
        ("Origin: https://evil.example\r\nOrigin: https://app.example.org\r\n", "403"),
        ("", "403"),
    ] {
        assert_eq!(request(&server, headers).await.1, expected, "{headers}");
    }
}
