//! A connection that moves to another thread in the middle of a conversation.

use std::{io, pin::Pin};

use dunlin::{
    config::{Transport, WebSocket},
    net::{Peer, Socket, Stream, TransportKind},
};
use futures_util::{SinkExt, StreamExt};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest, http::HeaderValue},
};

use crate::{Server, certificates::Site, within};

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A client, as far as it differs by transport.
enum Client {
    Bytes(Pin<Box<dyn Io>>),
    WebSocket(Box<WebSocketStream<Pin<Box<dyn Io>>>>),
}

impl Client {
    async fn connect(server: &Server, site: &Site, transport: &Transport) -> Self {
        let tcp = server.connect().await;
        match transport {
            Transport::Plain => Self::Bytes(Box::pin(tcp)),
            Transport::Tls(_) => Self::Bytes(secure(site, tcp).await),
            Transport::WebSocket(_) => Self::websocket(Box::pin(tcp)).await,
            Transport::SecureWebSocket(..) => Self::websocket(secure(site, tcp).await).await,
        }
    }

    async fn websocket(io: Pin<Box<dyn Io>>) -> Self {
        let mut request = "ws://localhost/mqtt".into_client_request().unwrap();
        request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static("mqtt"));
        Self::WebSocket(Box::new(client_async(request, io).await.unwrap().0))
    }

    /// Sends `data` and at the same time reads as much.
    async fn exchange(self, data: Vec<u8>) -> Vec<u8> {
        let expected = data.len();
        let mut received = Vec::with_capacity(expected);
        match self {
            Self::Bytes(io) => {
                let (mut reader, mut writer) = tokio::io::split(io);
                let send = async {
                    writer.write_all(&data).await.unwrap();
                    writer.flush().await.unwrap();
                };
                let receive = async {
                    while received.len() < expected {
                        assert_ne!(reader.read_buf(&mut received).await.unwrap(), 0);
                    }
                };
                tokio::join!(send, receive);
            }
            Self::WebSocket(websocket) => {
                let (mut sink, mut messages) = websocket.split();
                let send = async {
                    for chunk in data.chunks(5000) {
                        sink.send(Message::binary(chunk.to_vec())).await.unwrap();
                    }
                };
                let receive = async {
                    while received.len() < expected {
                        received.extend_from_slice(&messages.next().await.unwrap().unwrap().into_data());
                    }
                };
                tokio::join!(send, receive);
            }
        }
        received
    }
}

async fn secure(site: &Site, tcp: TcpStream) -> Pin<Box<dyn Io>> {
    let connector = TlsConnector::from(site.trusting_client().config());
    let name = ServerName::try_from("localhost").unwrap();
    Box::pin(connector.connect(name, tcp).await.unwrap())
}

/// Echoes on a thread of its own until the peer leaves.
fn echo_elsewhere(mut stream: Stream) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(within(async {
            stream.attach().unwrap();
            let mut buffer = [0; 8192];
            // The client drops its end without a goodbye, which may come as an error.
            while let Ok(length @ 1..) = stream.read(&mut buffer).await {
                if stream.write_all(&buffer[..length]).await.is_err() || stream.flush().await.is_err() {
                    break;
                }
            }
        }));
    })
}

#[tokio::test]
async fn a_connection_moves_with_data_in_flight_both_ways() {
    const DATA_BYTES: usize = 3_000_000;
    const MOVED_AFTER_BYTES: usize = 50_000;

    let site = Site::new();
    let websocket = WebSocket::default();
    for (kind, transport) in [
        (TransportKind::Tcp, Transport::Plain),
        (TransportKind::Tls, Transport::Tls(site.tls.clone())),
        (TransportKind::WebSocket, Transport::WebSocket(websocket.clone())),
        (TransportKind::SecureWebSocket, Transport::SecureWebSocket(websocket, site.tls.clone())),
    ] {
        let server = Server::start(transport.clone());
        let (stream, client) =
            within(async { tokio::join!(server.accept(), Client::connect(&server, &site, &transport)) })
                .await;
        let mut stream = stream.unwrap();
        assert_eq!(stream.transport(), kind);
        let data: Vec<u8> =
            (0..DATA_BYTES as u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let client = tokio::spawn(client.exchange(data.clone()));

        let mut echoed = 0;
        let mut buffer = [0; 1000];
        while echoed < MOVED_AFTER_BYTES {
            let length = within(stream.read(&mut buffer)).await.unwrap();
            // Not flushed, so that something may be on its way inside TLS or WebSocket.
            within(stream.write_all(&buffer[..length])).await.unwrap();
            echoed += length;
        }
        stream.detach().unwrap();
        let thread = echo_elsewhere(stream);

        let received = within(client).await.unwrap();
        assert!(received == data, "{transport:?} echoes what was sent");
        thread.join().unwrap();
    }
}

#[tokio::test]
async fn a_detached_socket_refuses_and_can_come_back() {
    let server = Server::start(Transport::Plain);
    let mut client = server.connect().await;
    let mut stream = within(server.accept()).await.unwrap();
    stream.detach().unwrap();
    stream.detach().unwrap();
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap_err().kind(), io::ErrorKind::NotConnected);
    assert_eq!(stream.write(b"x").await.unwrap_err().kind(), io::ErrorKind::NotConnected);
    client.write_all(b"still there").await.unwrap();
    stream.attach().unwrap();
    stream.attach().unwrap();
    let mut received = [0; 11];
    within(stream.read_exact(&mut received)).await.unwrap();
    assert_eq!(&received, b"still there");
}

#[tokio::test]
async fn a_pipe_in_memory_has_no_reactor_to_leave() {
    let (ours, mut theirs) = tokio::io::duplex(64);
    let mut socket = Socket::memory(ours);
    assert_eq!(*socket.peer(), Peer::Memory);
    socket.detach().unwrap();
    theirs.write_all(b"hi").await.unwrap();
    let mut received = [0; 2];
    within(socket.read_exact(&mut received)).await.unwrap();
    assert_eq!(&received, b"hi");
    socket.attach().unwrap();
}

#[cfg(unix)]
#[tokio::test]
async fn a_unix_socket_moves_too() {
    let (ours, mut theirs) = tokio::net::UnixStream::pair().unwrap();
    let mut stream = Stream::plain(Socket::unix(ours));
    theirs.write_all(b"hi").await.unwrap();
    stream.detach().unwrap();
    let thread = echo_elsewhere(stream);
    let mut received = [0; 2];
    within(theirs.read_exact(&mut received)).await.unwrap();
    assert_eq!(&received, b"hi");
    drop(theirs);
    thread.join().unwrap();
}
