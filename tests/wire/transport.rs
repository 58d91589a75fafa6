//! WebSocket, TLS and Unix sockets, through the whole broker.

use dunlin::{
    Broker, Config, QoS,
    acl::Principal,
    auth::{Authenticate, BoxFuture, Credentials, Denial},
    codec::{Delivery, Packet, ReasonCode, Version},
    config::{Address, ClientCertificate, Transport, WebSocket},
};
use futures_util::{SinkExt, StreamExt};
use rcgen::ExtendedKeyUsagePurpose;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest, protocol::frame::coding::CloseCode},
};

use crate::{
    BOTH, Peer, Server,
    certificates::{Directory, Identity, Site},
    config, connect, listener,
    peer::encoded,
    publish, within,
};

fn config_with(transport: Transport) -> Config {
    Config { listeners: vec![listener("tested", transport)], ..config() }
}

fn websocket() -> WebSocket {
    WebSocket::default()
}

async fn upgrade<S: AsyncRead + AsyncWrite + Unpin>(stream: S) -> WebSocketStream<S> {
    let mut request = "ws://localhost/mqtt".into_client_request().unwrap();
    request.headers_mut().insert("Sec-WebSocket-Protocol", "mqtt".parse().unwrap());
    let (client, response) = within(client_async(request, stream)).await.unwrap();
    // [MQTT-6.0.0-4]
    assert_eq!(response.headers()["Sec-WebSocket-Protocol"], "mqtt");
    client
}

async fn websocket_client(server: &Server) -> WebSocketStream<TcpStream> {
    upgrade(within(TcpStream::connect(server.address())).await.unwrap()).await
}

async fn send<S: AsyncRead + AsyncWrite + Unpin>(client: &mut WebSocketStream<S>, bytes: &[u8]) {
    within(client.send(Message::Binary(bytes.to_vec().into()))).await.unwrap();
}

/// The payloads of binary messages until there are this many bytes of them.
async fn take<S: AsyncRead + AsyncWrite + Unpin>(client: &mut WebSocketStream<S>, count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < count {
        match within(client.next()).await.unwrap().unwrap() {
            Message::Binary(payload) => bytes.extend_from_slice(&payload),
            Message::Pong(_) => {}
            other => panic!("{other:?} after {bytes:?}"),
        }
    }
    bytes
}

fn connect_bytes(version: Version, client_id: &str) -> Vec<u8> {
    encoded(&Packet::Connect(Box::new(connect(version, client_id))), version)
}

const CONNACK: [u8; 4] = [0x20, 2, 0, 0];
const PINGREQ: [u8; 2] = [0xc0, 0];
const PINGRESP: [u8; 2] = [0xd0, 0];

/// [MQTT-6.0.0-2] Packets and messages have nothing to do with each other.
#[tokio::test]
async fn packets_are_split_over_messages_and_gathered_in_them() {
    let server = Server::with(config_with(Transport::WebSocket(websocket()))).await;
    for client_id in crate::ids_on_both_shards("web").take(8) {
        let mut client = websocket_client(&server).await;
        for byte in connect_bytes(Version::V311, &client_id) {
            send(&mut client, &[byte]).await;
        }
        assert_eq!(take(&mut client, 4).await, CONNACK);
        send(&mut client, &PINGREQ.repeat(3)).await;
        assert_eq!(take(&mut client, 6).await, PINGRESP.repeat(3));
        // The end of one packet and the beginning of the next.
        send(&mut client, &[0xc0]).await;
        send(&mut client, &[]).await;
        send(&mut client, &[0, 0xc0]).await;
        within(client.send(Message::Ping(b"are you there"[..].into()))).await.unwrap();
        assert_eq!(take(&mut client, 2).await, PINGRESP);
        send(&mut client, &[0]).await;
        assert_eq!(take(&mut client, 2).await, PINGRESP);
    }
    // CONNECT and what comes behind it in one message.
    let mut client = websocket_client(&server).await;
    send(&mut client, &[connect_bytes(Version::V311, "eager"), PINGREQ.to_vec()].concat()).await;
    assert_eq!(take(&mut client, 6).await, [&CONNACK[..], &PINGRESP].concat());
}

#[tokio::test]
async fn a_ping_is_answered_with_its_payload() {
    let server = Server::with(config_with(Transport::WebSocket(websocket()))).await;
    let mut client = websocket_client(&server).await;
    send(&mut client, &connect_bytes(Version::V311, "pinging")).await;
    assert_eq!(take(&mut client, 4).await, CONNACK);
    within(client.send(Message::Ping(b"payload"[..].into()))).await.unwrap();
    match within(client.next()).await.unwrap().unwrap() {
        Message::Pong(payload) => assert_eq!(&payload[..], b"payload"),
        other => panic!("{other:?}"),
    }
}

/// [MQTT-6.0.0-1]
#[tokio::test]
async fn a_text_message_closes_the_connection() {
    let server = Server::with(config_with(Transport::WebSocket(websocket()))).await;
    for is_connected in [false, true] {
        let mut client = websocket_client(&server).await;
        if is_connected {
            send(&mut client, &connect_bytes(Version::V311, "text")).await;
            assert_eq!(take(&mut client, 4).await, CONNACK);
        }
        within(client.send(Message::Text("MQTT?".into()))).await.unwrap();
        match within(client.next()).await.unwrap().unwrap() {
            Message::Close(Some(frame)) => assert_eq!(frame.code, CloseCode::Unsupported),
            other => panic!("{other:?} (connected: {is_connected})"),
        }
    }
}

/// The reason in DISCONNECT comes before the close frame.
#[tokio::test]
async fn the_reason_arrives_before_the_websocket_closes() {
    let server = Server::with(config_with(Transport::WebSocket(websocket()))).await;
    let mut client = websocket_client(&server).await;
    send(&mut client, &connect_bytes(Version::V5, "faulty")).await;
    let mut received = Vec::new();
    send(&mut client, &[0, 0]).await;
    let close = loop {
        match within(client.next()).await.unwrap().unwrap() {
            Message::Binary(payload) => received.extend_from_slice(&payload),
            Message::Close(frame) => break frame,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(close.map(|frame| frame.code), Some(CloseCode::Normal));
    let disconnect = received.split_off(usize::from(received[1]) + 2);
    assert_eq!((disconnect[0], disconnect[2]), (0xe0, ReasonCode::MalformedPacket as u8));
}

/// A client that closes its WebSocket gets its close frame answered, as browsers want it.
#[tokio::test]
async fn a_close_frame_is_answered() {
    let server = Server::with(config_with(Transport::WebSocket(websocket()))).await;
    for is_connected in [false, true] {
        let mut client = websocket_client(&server).await;
        if is_connected {
            send(&mut client, &connect_bytes(Version::V311, "closing")).await;
            assert_eq!(take(&mut client, 4).await, CONNACK);
        }
        within(client.send(Message::Close(None))).await.unwrap();
        let answer = within(client.next()).await;
        assert!(matches!(answer, Some(Ok(Message::Close(_)))), "{answer:?} (connected: {is_connected})");
        assert!(within(client.next()).await.is_none(), "the connection ends in good order");
    }
}

/// The address of an HTTP client gets an answer that it understands.
#[tokio::test]
async fn an_http_request_is_answered_in_http() {
    let server = Server::with(config_with(Transport::WebSocket(websocket()))).await;
    let mut peer = server.open(Version::V5).await;
    peer.send_bytes(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(peer.take_bytes(12).await, b"HTTP/1.1 404");
}

/// Lets in who has a certificate, and tells by the user name who has.
struct ByCertificate;

impl Authenticate for ByCertificate {
    fn authenticate<'a>(&'a self, credentials: Credentials<'a>) -> BoxFuture<'a, Result<Principal, Denial>> {
        let decision = if credentials.certificate.is_some() || credentials.user_name.is_none() {
            Ok(Principal {
                user: credentials.certificate.is_some().then(|| "certified".into()),
                details: None,
            })
        } else {
            Err(Denial { code: ReasonCode::NotAuthorized, why: "no certificate".into() })
        };
        Box::pin(std::future::ready(decision))
    }
}

async fn tls_client(
    server: &Server,
    site: &Site,
    identity: Option<&Identity>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let client = crate::certificates::TestClient { identity, ..site.trusting_client() };
    let stream = within(TcpStream::connect(server.address())).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    within(TlsConnector::from(client.config()).connect(name, stream)).await
}

/// A conversation that moves more than any buffer between holds, both ways.
async fn converse<S: AsyncRead + AsyncWrite + Unpin>(mut peer: Peer<S>, client_id: &str) {
    peer.connect(&connect(peer.version, client_id)).await;
    peer.subscribe(client_id, QoS::ExactlyOnce).await;
    let payload: Vec<u8> = (0..300_000_u32).map(|number| number as u8).collect();
    peer.send(&publish(client_id, &payload, Delivery::AtLeastOnce(crate::id(9)))).await;
    peer.send(&Packet::PingReq).await;
    let mut is_acknowledged = false;
    let mut is_pinged = false;
    let mut received = None;
    while !(is_acknowledged && is_pinged && received.is_some()) {
        peer.next(|packet| match packet {
            Packet::PubAck(_) => is_acknowledged = true,
            Packet::PingResp => is_pinged = true,
            Packet::Publish(publish) => {
                assert!(publish.payload == payload, "the payload arrives as it was sent");
                received = publish.delivery.packet_id();
            }
            other => panic!("{other:?}"),
        })
        .await;
    }
    peer.send(&Packet::PubAck(crate::success(received.unwrap()))).await;
    peer.ping().await;
    peer.send_bytes(&[0, 0]).await;
    peer.expect_closed(ReasonCode::MalformedPacket).await;
}

// [MQTT-4.2-1]
#[tokio::test]
async fn tls_carries_a_whole_conversation() {
    let site = Site::new();
    let server = Server::with(config_with(Transport::Tls(site.tls.clone()))).await;
    for client_id in crate::ids_on_both_shards("secure").take(8) {
        for version in BOTH {
            let stream = tls_client(&server, &site, None).await.unwrap();
            converse(Peer::new(stream, version), &client_id).await;
        }
    }
}

#[tokio::test]
async fn a_websocket_inside_tls_works_alike() {
    let site = Site::new();
    let transport = Transport::SecureWebSocket(websocket(), site.tls.clone());
    let server = Server::with(config_with(transport)).await;
    let mut client = upgrade(tls_client(&server, &site, None).await.unwrap()).await;
    send(&mut client, &connect_bytes(Version::V311, "secure web")).await;
    assert_eq!(take(&mut client, 4).await, CONNACK);
    let filters = [("t", crate::at_most(QoS::AtMostOnce))];
    send(&mut client, &encoded(&crate::subscribe(crate::id(1), &filters), Version::V311)).await;
    assert_eq!(take(&mut client, 5).await, [0x90, 3, 0, 1, 0]);
    let mut large = encoded(&publish("t", &[7; 300_000], Delivery::AtMostOnce), Version::V311);
    large.extend(PINGREQ);
    send(&mut client, &large).await;
    // It comes back as it went, but for PINGRESP.
    let received = take(&mut client, large.len()).await;
    assert!(received.starts_with(&large[..large.len() - 2]));
    assert!(received.ends_with(&PINGRESP));
}

/// Where certificates are required, who has none does not even come to CONNECT.
#[tokio::test]
async fn client_certificates_decide_who_comes_in() {
    let mut site = Site::new();
    let certified = site.authority.issue(ExtendedKeyUsagePurpose::ClientAuth);
    let foreign = Site::new().authority.issue(ExtendedKeyUsagePurpose::ClientAuth);
    site.tls.client_ca = vec![site.directory.write("ca.pem", &site.authority.pem)];
    for (client_certificate, is_required) in
        [(ClientCertificate::Optional, false), (ClientCertificate::Required, true)]
    {
        site.tls.client_certificate = client_certificate;
        let config = config_with(Transport::Tls(site.tls.clone()));
        let server = Server::build(Broker::builder().config(config).authenticator(ByCertificate)).await;
        let mut peer = Peer::new(tls_client(&server, &site, Some(&certified)).await.unwrap(), Version::V5);
        let named = dunlin::codec::Connect { user_name: Some("me"), ..connect(Version::V5, "certified") };
        peer.connect(&named).await;
        peer.ping().await;
        // TLS 1.3 clients are done before the server has judged them, so the refusal may show later.
        let refused = |result: std::io::Result<TlsStream<TcpStream>>| async {
            if let Ok(stream) = result {
                Peer::new(stream, Version::V5).expect_gone().await;
            }
        };
        refused(tls_client(&server, &site, Some(&foreign)).await).await;
        if is_required {
            refused(tls_client(&server, &site, None).await).await;
        } else {
            let mut peer = Peer::new(tls_client(&server, &site, None).await.unwrap(), Version::V5);
            peer.connect(&connect(Version::V5, "anonymous")).await;
            let mut peer = Peer::new(tls_client(&server, &site, None).await.unwrap(), Version::V5);
            peer.send(&Packet::Connect(Box::new(named.clone()))).await;
            assert_eq!(peer.conn_ack().await, (false, 0x87));
        }
    }
}

// [MQTT-4.2-1]
#[tokio::test]
async fn a_unix_socket_carries_a_whole_conversation() {
    let directory = Directory::new();
    let path = directory.path("mqtt.sock");
    let mut config = config();
    config.listeners[0].address = Address::Unix(path.clone());
    let server = Server::with(config).await;
    for client_id in crate::ids_on_both_shards("local").take(8) {
        for version in BOTH {
            let stream = within(UnixStream::connect(&path)).await.unwrap();
            converse(Peer::new(stream, version), &client_id).await;
        }
    }
    server.stop().await;
    assert!(!path.exists(), "the socket's file is removed");
}
