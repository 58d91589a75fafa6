//! WebSocket: its handshake, and its messages as a stream.

use std::io;

use dunlin::{
    config::{Transport, WebSocket},
    net::{PreparedTransport, Socket, Stream, TransportKind, UpgradeError, upgrade},
};
use futures_util::{FutureExt, SinkExt, StreamExt};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{
        Message,
        client::IntoClientRequest,
        protocol::frame::{
            CloseFrame, Frame,
            coding::{CloseCode, Data, OpCode},
        },
    },
};

use crate::{PACKET_BYTES_MAX, within};

/// Enough for any conversation here, so that one side need not wait for the other.
const PIPE_BYTES: usize = 1 << 20;

/// A request that is answered with a WebSocket.
const REQUEST: &str = "GET /mqtt?token=1 HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\n\
                       Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";

/// A client's own view of the WebSocket.
type Client = WebSocketStream<DuplexStream>;

async fn serve(pipe: DuplexStream) -> Result<Stream, UpgradeError> {
    let transport = Transport::WebSocket(WebSocket::default());
    let prepared = PreparedTransport::prepare(&transport).unwrap();
    upgrade(Socket::memory(pipe), &prepared, PACKET_BYTES_MAX).await
}

/// A client that offers `subprotocols`, what it was answered, and the server's stream.
async fn connect(pipe_bytes: usize, subprotocols: &str) -> (Stream, Client, String) {
    let (ours, theirs) = duplex(pipe_bytes);
    let mut request = "ws://localhost/mqtt".into_client_request().unwrap();
    request.headers_mut().insert("Sec-WebSocket-Protocol", subprotocols.parse().unwrap());
    let (stream, client) = within(async { tokio::join!(serve(ours), client_async(request, theirs)) }).await;
    let (client, response) = client.unwrap();
    let chosen = response.headers()["Sec-WebSocket-Protocol"].to_str().unwrap().to_owned();
    (stream.unwrap(), client, chosen)
}

async fn pair() -> (Stream, Client) {
    let (stream, client, _) = connect(PIPE_BYTES, "mqtt").await;
    (stream, client)
}

/// What the client reads up to the close frame, as payload of binary frames.
async fn binary_until_close(client: &mut Client) -> (Vec<Vec<u8>>, Option<CloseFrame>) {
    let mut frames = Vec::new();
    loop {
        match within(client.next()).await.unwrap().unwrap() {
            Message::Binary(payload) => frames.push(payload.to_vec()),
            Message::Close(frame) => return (frames, frame),
            other => panic!("{other:?} is neither data nor the end"),
        }
    }
}

/// [MQTT-6.0.0-4] the server's choice among what the client offers.
#[tokio::test]
async fn the_subprotocol_is_chosen_and_echoed() {
    for (offered, expected) in
        [("mqtt", "mqtt"), ("mqttv3.1", "mqttv3.1"), ("mqttv3.1, mqtt", "mqtt"), ("chat,mqtt", "mqtt")]
    {
        let (stream, _client, chosen) = connect(PIPE_BYTES, offered).await;
        assert_eq!(chosen, expected, "{offered}");
        assert_eq!(stream.transport(), TransportKind::WebSocket);
    }
}

#[tokio::test]
async fn requests_that_are_not_ours_are_answered_with_the_reason() {
    const UPGRADE: &str = "Host: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                           Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let table = [
        (format!("GET /chat HTTP/1.1\r\n{UPGRADE}\r\n"), 404, "MQTT over WebSocket is at /mqtt"),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 404, "MQTT over WebSocket is at /mqtt"),
        ("GET /mqtt HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 426, "This is an MQTT broker."),
        // [MQTT-6.0.0-3] the client must offer the sub-protocol.
        (format!("GET /mqtt HTTP/1.1\r\n{UPGRADE}\r\n"), 400, "The client offers no sub-protocol."),
        (
            format!("GET /mqtt HTTP/1.1\r\n{UPGRADE}Sec-WebSocket-Protocol: chat\r\n\r\n"),
            400,
            "The client does not offer our sub-protocol.",
        ),
        (
            format!("GET /mqtt HTTP/1.1\r\n{}\r\n", UPGRADE.replace(": 13", ": 8")),
            426,
            "The WebSocket version must be 13.",
        ),
        (format!("GET /mqtt HTTP/1.1\r\n{}\r\n", UPGRADE.replace("==", "")), 400, "malformed"),
        ("POST /mqtt HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 405, "A WebSocket begins with GET."),
        ("GET /mqtt HTTP/1.0\r\n\r\n".to_owned(), 400, "malformed"),
        ("GET nonsense\r\n\r\n".to_owned(), 400, "malformed"),
        (format!("GET /{} HTTP/1.1\r\n", "a".repeat(10_000)), 431, "larger than 8192 bytes"),
    ];
    for (request, status, reason) in table {
        let (ours, mut theirs) = duplex(PIPE_BYTES);
        theirs.write_all(request.as_bytes()).await.unwrap();
        match within(serve(ours)).await.unwrap_err() {
            UpgradeError::Refused(refusal) => assert_eq!(refusal.status(), status, "{request}"),
            other => panic!("{request}: {other}"),
        }
        let mut response = String::new();
        within(theirs.read_to_string(&mut response)).await.unwrap();
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {head}");
        assert!(body.contains(reason), "{request}: {body}");
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
    }
}

#[tokio::test]
async fn other_protocols_on_a_websocket_port_are_named() {
    for (sent, message) in [
        (&b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00"[..], "client spoke plain MQTT to a WebSocket port"),
        (b"\x16\x03\x01\x00\xa5\x01", "client spoke TLS to a WebSocket port"),
        (b"", "client left before it was done"),
        (b"GET /mqtt HT", "client left before it was done"),
    ] {
        let (ours, mut theirs) = duplex(PIPE_BYTES);
        theirs.write_all(sent).await.unwrap();
        theirs.shutdown().await.unwrap();
        let error = within(serve(ours)).await.unwrap_err();
        assert_eq!(error.to_string(), format!("WebSocket handshake: {message}"));
    }
}

#[tokio::test]
async fn what_comes_right_behind_the_request_is_not_lost() {
    let (ours, mut theirs) = duplex(PIPE_BYTES);
    // A masked binary frame with a mask of zeros.
    let frame = b"\x82\x82\0\0\0\0\xc0\0";
    theirs.write_all(&[REQUEST.as_bytes(), frame].concat()).await.unwrap();
    let mut stream = within(serve(ours)).await.unwrap();
    let mut received = [0; 2];
    within(stream.read_exact(&mut received)).await.unwrap();
    assert_eq!(&received, b"\xc0\0");
}

#[tokio::test]
async fn a_request_may_come_in_pieces() {
    for pipe_bytes in 1..5 {
        let (ours, mut theirs) = duplex(pipe_bytes);
        let talk = async {
            theirs.write_all(REQUEST.as_bytes()).await.unwrap();
            let mut response = Vec::new();
            while !response.ends_with(b"\r\n\r\n") {
                theirs.read_buf(&mut response).await.unwrap();
            }
            response
        };
        let (stream, response) = within(async { tokio::join!(serve(ours), talk) }).await;
        stream.unwrap();
        assert!(response.starts_with(b"HTTP/1.1 101 "));
    }
}

/// What a client may do between two bytes of MQTT.
#[derive(Clone, Debug)]
enum Step {
    Message(Vec<u8>),
    Fragments(Vec<Vec<u8>>),
    Ping,
    Pong,
}

fn step() -> impl Strategy<Value = Step> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..300);
    prop_oneof![
        4 => bytes().prop_map(Step::Message),
        2 => prop::collection::vec(bytes(), 2..4).prop_map(Step::Fragments),
        1 => Just(Step::Ping),
        1 => Just(Step::Pong),
    ]
}

impl Step {
    fn messages(self) -> Vec<Message> {
        match self {
            Self::Message(payload) => vec![Message::binary(payload)],
            Self::Fragments(parts) => {
                let last = parts.len() - 1;
                let opcode = |index| if index == 0 { Data::Binary } else { Data::Continue };
                parts
                    .into_iter()
                    .enumerate()
                    .map(|(at, part)| {
                        Message::Frame(Frame::message(part, OpCode::Data(opcode(at)), at == last))
                    })
                    .collect()
            }
            Self::Ping => vec![Message::Ping("are you there".into())],
            Self::Pong => vec![Message::Pong("unasked".into())],
        }
    }

    fn payload(&self) -> Vec<u8> {
        match self {
            Self::Message(payload) => payload.clone(),
            Self::Fragments(parts) => parts.concat(),
            Self::Ping | Self::Pong => Vec::new(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// [MQTT-6.0.0-2] packets may span and share frames: the payloads are one stream.
    #[test]
    fn frames_are_a_stream_however_they_are_cut(
        steps in prop::collection::vec(step(), 0..20),
        // An upgrade that comes byte by byte is taken for an attack.
        pipe_bytes in 64..2000_usize,
        read_bytes in 1..400_usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let expected: Vec<u8> = steps.iter().flat_map(Step::payload).collect();
        let received = runtime.block_on(within(async {
            let (mut stream, client, _) = connect(pipe_bytes, "mqtt").await;
            let (mut sink, mut messages) = client.split();
            let send = async {
                for message in steps.into_iter().flat_map(Step::messages) {
                    sink.send(message).await.unwrap();
                }
                sink.close().await.unwrap();
            };
            let receive = async move {
                let mut received = Vec::new();
                let mut buffer = vec![0; read_bytes];
                while let length @ 1.. = stream.read(&mut buffer).await.unwrap() {
                    received.extend_from_slice(&buffer[..length]);
                }
                stream.shutdown().await.unwrap();
                received
            };
            // Takes the pongs out of the pipe.
            let drain = async { while messages.next().await.is_some_and(|message| message.is_ok()) {} };
            let ((), received, ()) = tokio::join!(send, receive, drain);
            received
        }));
        prop_assert_eq!(received, expected);
    }

    /// Each write becomes one binary frame, or several of the greatest length.
    #[test]
    fn a_write_is_a_frame(writes in prop::collection::vec(1..40_000_usize, 0..6)) {
        const FRAME_BYTES_MAX: usize = 16 * 1024;

        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (frames, close) = runtime.block_on(within(async {
            let (mut stream, mut client) = pair().await;
            for (index, length) in writes.iter().enumerate() {
                stream.write_all(&vec![index as u8; *length]).await.unwrap();
            }
            stream.shutdown().await.unwrap();
            binary_until_close(&mut client).await
        }));
        let expected: Vec<Vec<u8>> = writes
            .iter()
            .enumerate()
            .flat_map(|(index, length)| {
                vec![index as u8; *length].chunks(FRAME_BYTES_MAX).map(<[u8]>::to_vec).collect::<Vec<_>>()
            })
            .collect();
        prop_assert_eq!(frames, expected);
        prop_assert_eq!(close.map(|frame| frame.code), Some(CloseCode::Normal));
    }
}

#[tokio::test]
async fn a_vectored_write_is_one_frame() {
    let (mut stream, mut client) = pair().await;
    let parts = [io::IoSlice::new(b"ab"), io::IoSlice::new(b""), io::IoSlice::new(b"cde")];
    assert_eq!(within(stream.write_vectored(&parts)).await.unwrap(), 5);
    assert_eq!(within(client.next()).await.unwrap().unwrap(), Message::binary(b"abcde".to_vec()));
}

/// [MQTT-6.0.0-1] data frames that are not binary close the connection, after what came before them was read.
#[tokio::test]
async fn a_text_frame_closes_the_connection_and_is_named() {
    let invalid_utf8 = Frame::message(vec![0xff, 0xfe], OpCode::Data(Data::Text), true);
    for text in [Message::text("hello"), Message::Frame(invalid_utf8)] {
        let (mut stream, mut client) = pair().await;
        client.send(Message::binary(b"before".to_vec())).await.unwrap();
        client.send(text).await.unwrap();
        client.send(Message::binary(b"behind".to_vec())).await.unwrap();
        let mut received = [0; 6];
        within(stream.read_exact(&mut received)).await.unwrap();
        assert_eq!(&received, b"before");
        let error = within(stream.read(&mut received)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert_eq!(error.to_string(), "WebSocket: text frame, MQTT needs binary ones");
        assert_eq!(within(stream.read(&mut received)).await.unwrap(), 0, "what came behind is not read");
        within(stream.shutdown()).await.unwrap();
        let (frames, close) = binary_until_close(&mut client).await;
        assert!(frames.is_empty());
        assert_eq!(close.unwrap().code, CloseCode::Unsupported);
    }
}

#[tokio::test]
async fn a_message_that_is_too_long_is_refused_before_it_has_come() {
    let (mut stream, mut client) = pair().await;
    // The limit has room for packets that share a message with the largest one.
    let largest = PACKET_BYTES_MAX as usize + 64 * 1024;
    client.send(Message::binary(vec![7; largest])).await.unwrap();
    let mut received = vec![0; largest];
    within(stream.read_exact(&mut received)).await.unwrap();
    // Only the head of the frame: a length of 2^40 and the mask.
    client.get_mut().write_all(b"\x82\xff\0\0\x01\0\0\0\0\0\0\0\0\0").await.unwrap();
    let error = within(stream.read(&mut received)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("WebSocket: message of {} bytes, {largest} are allowed", 1_u64 << 40)
    );
    within(stream.shutdown()).await.unwrap();
    assert_eq!(binary_until_close(&mut client).await.1.unwrap().code, CloseCode::Size);
}

#[tokio::test]
async fn fragments_count_together_towards_the_limit() {
    let (mut stream, mut client) = pair().await;
    let fragment = |opcode| Message::Frame(Frame::message(vec![7; 60_000], OpCode::Data(opcode), false));
    client.send(fragment(Data::Binary)).await.unwrap();
    for _ in 0..2 {
        client.send(fragment(Data::Continue)).await.unwrap();
    }
    let error = within(stream.read(&mut [0; 10])).await.unwrap_err();
    assert!(error.to_string().starts_with("WebSocket: message of 180000 bytes"), "{error}");
}

#[tokio::test]
async fn an_unmasked_frame_is_a_protocol_error() {
    let (mut stream, mut client) = pair().await;
    client.get_mut().write_all(b"\x82\x02\xc0\0").await.unwrap();
    let error = within(stream.read(&mut [0; 10])).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    within(stream.shutdown()).await.unwrap();
    assert_eq!(binary_until_close(&mut client).await.1.unwrap().code, CloseCode::Protocol);
}

#[tokio::test]
async fn a_ping_is_answered_while_reading() {
    let (mut stream, mut client) = pair().await;
    client.send(Message::Ping("who".into())).await.unwrap();
    assert!(stream.read(&mut [0; 10]).now_or_never().is_none(), "a ping is no data");
    assert_eq!(within(client.next()).await.unwrap().unwrap(), Message::Pong("who".into()));
}

#[tokio::test]
async fn a_close_is_answered_and_then_end_of_file() {
    let (mut stream, mut client) = pair().await;
    let frame = CloseFrame { code: CloseCode::Away, reason: "bye".into() };
    client.send(Message::binary(b"last".to_vec())).await.unwrap();
    client.close(Some(frame.clone())).await.unwrap();
    let mut received = Vec::new();
    within(stream.read_to_end(&mut received)).await.unwrap();
    assert_eq!(received, b"last");
    assert_eq!(binary_until_close(&mut client).await, (Vec::new(), Some(frame)));
    assert_eq!(within(stream.write(b"late")).await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    within(stream.shutdown()).await.unwrap();
}

#[tokio::test]
async fn leaving_without_a_close_frame_is_end_of_file() {
    let (mut stream, client) = pair().await;
    drop(client);
    assert_eq!(within(stream.read(&mut [0; 10])).await.unwrap(), 0);
}

#[tokio::test]
async fn a_flood_of_empty_frames_gives_others_their_turn() {
    let (mut stream, mut client) = pair().await;
    for _ in 0..1000 {
        client.feed(Message::binary(Vec::new())).await.unwrap();
    }
    client.send(Message::binary(b"x".to_vec())).await.unwrap();
    // All is there, yet one poll does not go through all of it, even where tokio's own budget would let it.
    assert!(tokio::task::unconstrained(stream.read(&mut [0; 1])).now_or_never().is_none());
    assert_eq!(within(stream.read(&mut [0; 1])).await.unwrap(), 1);
}

#[tokio::test]
async fn a_peer_that_does_not_read_makes_writes_wait_and_loses_nothing() {
    const SMALL_PIPE_BYTES: usize = 500;
    const BUFFERED_BYTES_MAX: usize = 20_000;

    let (mut stream, client, _) = connect(SMALL_PIPE_BYTES, "mqtt").await;
    let (mut sink, mut messages) = client.split();
    let mut sent = Vec::new();
    let mut next = (0_u8..=255).cycle();
    for round in 0..50 {
        // Pings want answers, which must not pile up either.
        if sink.send(Message::Ping(vec![round; 120].into())).now_or_never().is_some() {
            assert!(stream.read(&mut [0; 1]).now_or_never().is_none());
        }
        let chunk: Vec<u8> = next.by_ref().take(1000).collect();
        if let Some(length) = stream.write(&chunk).now_or_never() {
            sent.extend_from_slice(&chunk[..length.unwrap()]);
        }
    }
    assert!(sent.len() < BUFFERED_BYTES_MAX, "{} bytes were taken", sent.len());
    let receive = async {
        let mut received = Vec::new();
        loop {
            match messages.next().await.unwrap().unwrap() {
                Message::Binary(payload) => received.extend_from_slice(&payload),
                Message::Close(_) => return received,
                _ => {}
            }
        }
    };
    let (finished, received) = within(async { tokio::join!(stream.shutdown(), receive) }).await;
    finished.unwrap();
    assert!(received == sent, "what was taken arrives in order");
}

#[tokio::test]
async fn a_write_finds_room_behind_answers_to_a_flood_of_pings() {
    let (mut stream, client, _) = connect(500, "mqtt").await;
    let (mut sink, mut messages) = client.split();
    let flood = async {
        for _ in 0..300 {
            sink.send(Message::Ping(vec![1; 120].into())).await.unwrap();
        }
    };
    let mut nothing = [0; 1];
    within(async {
        tokio::select! {
            () = flood => {}
            read = stream.read(&mut nothing) => panic!("{read:?} is no data"),
        }
    })
    .await;
    let data = vec![7; 16 * 1024];
    assert!(stream.write(&data).now_or_never().is_none(), "there is no room");
    let receive = async {
        loop {
            if let Message::Binary(payload) = messages.next().await.unwrap().unwrap() {
                return payload;
            }
        }
    };
    let send = async {
        stream.write_all(&data).await.unwrap();
        stream.flush().await.unwrap();
    };
    let ((), received) = within(async { tokio::join!(send, receive) }).await;
    assert!(received == data);
}
