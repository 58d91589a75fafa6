//! WebSocket: the server's side of its handshake, and its messages as one byte stream.
//!
//! MQTT takes the payloads of binary messages as a stream, wherever they begin and end [MQTT-6.0.0-2]. All
//! buffers are bounded: one message towards us, one frame towards the peer.

use std::{
    error, fmt, io,
    io::IoSlice,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_util::{Sink, Stream as _};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Bytes, Error as WsError, Message,
        error::{CapacityError, ProtocolError},
        handshake::{
            machine::TryParse,
            server::{Request, create_response, write_response},
        },
        http::{HeaderMap, HeaderValue, StatusCode, header},
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};

use crate::config::{self, Proxies};

use super::{
    forwarded,
    socket::{Opening, Peer},
    stream::{Channel, UpgradeError},
};

/// Largest head of an HTTP request. Browsers send cookies along, so it is larger than MQTT would need.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// Largest payload of a frame that we send: enough to make its header and system call cheap, little enough to
/// be kept by every connection.
const FRAME_BYTES_MAX: usize = 16 * 1024;

/// Room for the header of such a frame and for control frames, while the peer does not read.
const FRAME_OVERHEAD_BYTES_MAX: usize = 1024;

/// What a message may hold beyond the largest packet, since clients gather packets in messages.
const MESSAGE_EXTRA_BYTES_MAX: usize = 64 * 1024;

/// Read buffer of a connection. It stays for life, so it is small; large frames get theirs while they come in.
const READ_BUFFER_BYTES: usize = 4 * 1024;

/// Messages without payload for us that one poll skips before other connections get their turn.
const SKIPPED_MESSAGES_MAX: usize = 64;

/// Sub-protocols that we speak, the preferred first. The second is what clients offered before MQTT 3.1.1.
const SUBPROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];

/// A WebSocket as a byte stream.
#[derive(Debug)]
pub(super) struct WebSocket {
    frames: WebSocketStream<Channel>,
    /// What is not yet read of the last binary message.
    incoming: Bytes,
    /// Nothing more will be read: the peer has left, or broken the rules.
    ended: bool,
    /// A close frame has been sent, or could not be.
    closed: bool,
}

impl WebSocket {
    pub(super) fn channel(&self) -> &Channel {
        self.frames.get_ref()
    }

    pub(super) fn channel_mut(&mut self) -> &mut Channel {
        self.frames.get_mut()
    }

    /// Queues a close frame, once. It leaves with the next flush.
    fn close(&mut self, code: CloseCode, reason: &'static str) {
        if !self.closed {
            self.closed = true;
            let frame = CloseFrame { code, reason: reason.into() };
            // Failure means that the peer has closed already, or does not read what we send.
            let _ = Pin::new(&mut self.frames).start_send(Message::Close(Some(frame)));
        }
    }

    /// Ends reading and makes of an error what the owner of the stream is told: nothing, if the peer just left.
    fn end(&mut self, error: WsError) -> io::Result<()> {
        self.ended = true;
        match error {
            WsError::ConnectionClosed
            | WsError::AlreadyClosed
            | WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Ok(()),
            WsError::Io(error) => Err(error),
            WsError::Utf8(_) => Err(self.refuse_text()),
            WsError::Capacity(CapacityError::MessageTooLong { size, max_size }) => {
                self.close(CloseCode::Size, "message too long");
                Err(violation(&format!("message of {size} bytes, {max_size} are allowed")))
            }
            error => {
                self.close(CloseCode::Protocol, "protocol error");
                Err(violation(&error.to_string()))
            }
        }
    }

    /// [MQTT-6.0.0-1] any other data frame than a binary one closes the connection.
    fn refuse_text(&mut self) -> io::Error {
        self.ended = true;
        self.close(CloseCode::Unsupported, "MQTT needs binary frames");
        violation("text frame, MQTT needs binary ones")
    }

    /// Sends up to [`FRAME_BYTES_MAX`] of `bufs` as one frame.
    fn poll_send(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut frames = Pin::new(&mut self.frames);
        // Pending while the frame before is not out, so there is one at most.
        ready!(frames.as_mut().poll_ready(cx)).map_err(send_error)?;
        let payload = gather(bufs);
        let length = payload.len();
        if length == 0 {
            return Poll::Ready(Ok(0));
        }
        match frames.as_mut().start_send(Message::Binary(payload)) {
            // Answers to pings that the peer does not read have taken the room.
            Err(WsError::WriteBufferFull(message)) => {
                ready!(frames.as_mut().poll_flush(cx)).map_err(send_error)?;
                frames.start_send(*message).map_err(send_error)?;
            }
            result => result.map_err(send_error)?,
        }
        Poll::Ready(Ok(length))
    }
}

impl AsyncRead for WebSocket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        for _ in 0..SKIPPED_MESSAGES_MAX {
            if !this.incoming.is_empty() {
                let length = this.incoming.len().min(buf.remaining());
                buf.put_slice(&this.incoming.split_to(length));
                return Poll::Ready(Ok(()));
            }
            if this.ended {
                return Poll::Ready(Ok(()));
            }
            match ready!(Pin::new(&mut this.frames).poll_next(cx)) {
                Some(Ok(Message::Binary(payload))) => this.incoming = payload,
                Some(Ok(Message::Text(_))) => return Poll::Ready(Err(this.refuse_text())),
                // Pings and close frames are answered by the next poll of the frames.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_))) => {}
                Some(Err(error)) => return Poll::Ready(this.end(error)),
                None => this.ended = true,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl AsyncWrite for WebSocket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_send(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_send(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().frames).poll_flush(cx).map_err(send_error)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // Flushed first, so that the close frame has room.
        if !this.closed && ready!(Pin::new(&mut this.frames).poll_flush(cx)).is_ok() {
            this.close(CloseCode::Normal, "");
        }
        // A peer that takes no goodbye gets none; what matters is that the layers below are shut down.
        let _ = ready!(Pin::new(&mut this.frames).poll_flush(cx));
        Pin::new(this.frames.get_mut()).poll_shutdown(cx)
    }
}

/// The first [`FRAME_BYTES_MAX`] bytes of `bufs` in one piece.
fn gather(bufs: &[IoSlice<'_>]) -> Bytes {
    let length = bufs.iter().map(|buf| buf.len()).sum::<usize>().min(FRAME_BYTES_MAX);
    let mut payload = Vec::with_capacity(length);
    for buf in bufs {
        let room = length - payload.len();
        payload.extend_from_slice(&buf[..buf.len().min(room)]);
    }
    Bytes::from(payload)
}

fn violation(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("WebSocket: {text}"))
}

/// What became of a frame that could not be sent.
fn send_error(error: WsError) -> io::Error {
    match error {
        WsError::Io(error) => error,
        error => io::Error::new(io::ErrorKind::BrokenPipe, format!("WebSocket: {error}")),
    }
}

/// Answers the client's HTTP request, which must be as the listener wants it and offer a sub-protocol that we speak.
/// From a proxy that is believed, it says who the client is.
pub(super) async fn accept(
    mut channel: Channel,
    settings: &config::WebSocket,
    proxies: &Proxies,
    packet_bytes_max: u32,
) -> Result<WebSocket, UpgradeError> {
    let (head, tail) = match read_head(&mut channel).await {
        Ok(split) => split,
        Err(HeadError::Refused(refusal)) => return Err(refuse(channel, refusal).await),
        Err(HeadError::NotHttp(opening)) => return Err(UpgradeError::NotHttp(opening)),
        Err(HeadError::Io(error)) => return Err(UpgradeError::Io(error)),
    };
    let answered = parse(&head).and_then(|request| {
        if let Some(ip) = channel.socket().peer().ip() {
            let client = forwarded::client(ip, request.headers(), proxies);
            if client != ip {
                channel.socket_mut().set_peer(Peer::Tcp((client, 0).into()));
            }
        }
        answer(&request, settings)
    });
    match answered {
        Ok(response) => send(&mut channel, &response).await.map_err(UpgradeError::Io)?,
        Err(refusal) => return Err(refuse(channel, refusal).await),
    }
    let config = Some(frame_limits(packet_bytes_max));
    let frames = WebSocketStream::from_partially_read(channel, tail, Role::Server, config).await;
    Ok(WebSocket { frames, incoming: Bytes::new(), ended: false, closed: false })
}

fn frame_limits(packet_bytes_max: u32) -> WebSocketConfig {
    let message_bytes_max =
        usize::try_from(packet_bytes_max).unwrap_or(usize::MAX).saturating_add(MESSAGE_EXTRA_BYTES_MAX);
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        // Frames go out at once: what writes to the stream has gathered already.
        .write_buffer_size(0)
        .max_write_buffer_size(FRAME_BYTES_MAX + FRAME_OVERHEAD_BYTES_MAX)
        .max_message_size(Some(message_bytes_max))
        .max_frame_size(Some(message_bytes_max))
}

async fn send(channel: &mut Channel, bytes: &[u8]) -> io::Result<()> {
    channel.write_all(bytes).await?;
    channel.flush().await
}

/// Sends a refusal and makes it the error; whether the client has got it changes nothing.
async fn refuse(mut channel: Channel, refusal: HandshakeRefusal) -> UpgradeError {
    if send(&mut channel, &refusal.to_response()).await.is_ok() {
        let _ = channel.shutdown().await;
    }
    UpgradeError::Refused(refusal)
}

/// Why there is no head of an HTTP request.
enum HeadError {
    Refused(HandshakeRefusal),
    NotHttp(Opening),
    Io(io::Error),
}

/// Reads the head of the request, and whatever the client has already sent behind it.
async fn read_head(channel: &mut Channel) -> Result<(Vec<u8>, Vec<u8>), HeadError> {
    const END: &[u8] = b"\r\n\r\n";
    let mut head = Vec::with_capacity(1024);
    loop {
        // The end may have come in two parts.
        let searched = head.len().saturating_sub(END.len() - 1);
        if channel.read_buf(&mut head).await.map_err(HeadError::Io)? == 0 {
            let text = "client left before it was done";
            return Err(HeadError::Io(io::Error::new(io::ErrorKind::UnexpectedEof, text)));
        }
        match Opening::of(head[0]) {
            Opening::Http => {}
            opening @ (Opening::Mqtt | Opening::Tls | Opening::Unknown) => {
                return Err(HeadError::NotHttp(opening));
            }
        }
        if let Some(at) = head[searched..].windows(END.len()).position(|window| window == END) {
            let tail = head.split_off(searched + at + END.len());
            return Ok((head, tail));
        }
        if head.len() > HEAD_BYTES_MAX {
            return Err(HeadError::Refused(HandshakeRefusal::new(
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                format!("The head of the request is larger than {HEAD_BYTES_MAX} bytes."),
            )));
        }
    }
}

fn parse(head: &[u8]) -> Result<Request, HandshakeRefusal> {
    match Request::try_parse(head) {
        Ok(Some((_, request))) => Ok(request),
        Ok(None) => Err(HandshakeRefusal::bad_request("The request is incomplete.".to_owned())),
        Err(WsError::Protocol(ProtocolError::WrongHttpMethod)) => {
            let text = "A WebSocket begins with GET.".to_owned();
            let refusal = HandshakeRefusal::new(StatusCode::METHOD_NOT_ALLOWED, text);
            Err(refusal.with_headers("Connection: close\r\nAllow: GET\r\n"))
        }
        Err(error) => Err(HandshakeRefusal::bad_request(format!("The request is malformed: {error}."))),
    }
}

/// The response to a request, or why it is refused.
fn answer(request: &Request, settings: &config::WebSocket) -> Result<Vec<u8>, HandshakeRefusal> {
    if request.uri().path() != settings.path {
        let text = format!("There is nothing here. MQTT over WebSocket is at {}", settings.path);
        return Err(HandshakeRefusal::new(StatusCode::NOT_FOUND, text));
    }
    if let Some(allowed) = &settings.allowed_origins {
        check_origin(request.headers(), allowed)?;
    }
    let mut response = create_response(request).map_err(|error| no_upgrade(&error))?;
    let subprotocol = choose_subprotocol(request.headers())?;
    // [MQTT-6.0.0-4] the sub-protocol is named in the response.
    response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(subprotocol));
    let mut bytes = Vec::with_capacity(256);
    match write_response(&mut bytes, &response) {
        Ok(()) => Ok(bytes),
        Err(error) => Err(HandshakeRefusal::bad_request(format!("The request is malformed: {error}."))),
    }
}

/// Browsers let any page connect to any place and say by the header Origin which page it is. RFC 6455, 4.2.2: a
/// server that does not want that answers with 403.
fn check_origin(headers: &HeaderMap, allowed: &[String]) -> Result<(), HandshakeRefusal> {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let origin = origins.next().and_then(|origin| origin.to_str().ok());
    let is_allowed = |origin: &str| allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin));
    if origins.next().is_none() && origin.is_some_and(is_allowed) {
        return Ok(());
    }
    let text = "The Origin of the request is none of those that may connect here.".to_owned();
    Err(HandshakeRefusal::new(StatusCode::FORBIDDEN, text))
}

/// The refusal of a request that does not ask for WebSocket, or not properly.
fn no_upgrade(error: &WsError) -> HandshakeRefusal {
    match error {
        WsError::Protocol(
            ProtocolError::MissingConnectionUpgradeHeader | ProtocolError::MissingUpgradeWebSocketHeader,
        ) => {
            let text =
                "This is an MQTT broker. Connect with an MQTT client that speaks WebSocket.".to_owned();
            HandshakeRefusal::new(StatusCode::UPGRADE_REQUIRED, text)
                .with_headers("Connection: Upgrade, close\r\nUpgrade: websocket\r\n")
        }
        WsError::Protocol(ProtocolError::MissingSecWebSocketVersionHeader) => {
            let text = "The WebSocket version must be 13.".to_owned();
            HandshakeRefusal::new(StatusCode::UPGRADE_REQUIRED, text).with_headers(
                "Connection: Upgrade, close\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
            )
        }
        error => HandshakeRefusal::bad_request(format!("The WebSocket request is malformed: {error}.")),
    }
}

/// The sub-protocol that we like best among those that the client offers.
fn choose_subprotocol(headers: &HeaderMap) -> Result<&'static str, HandshakeRefusal> {
    let offered: Vec<&str> = headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    // [MQTT-6.0.0-3] the client offers the sub-protocol.
    SUBPROTOCOLS.into_iter().find(|ours| offered.contains(ours)).ok_or_else(|| {
        let fault = if offered.is_empty() { "The client offers no" } else { "The client does not offer our" };
        HandshakeRefusal::bad_request(format!(
            "{fault} sub-protocol. MQTT needs the header Sec-WebSocket-Protocol: mqtt"
        ))
    })
}

/// The HTTP error that a client got which did not ask properly for MQTT over WebSocket.
#[derive(Debug)]
pub struct HandshakeRefusal {
    status: StatusCode,
    text: String,
    /// Lines of the head that are particular to it, each with its end.
    headers: &'static str,
}

impl HandshakeRefusal {
    fn new(status: StatusCode, text: String) -> Self {
        Self { status, text, headers: "Connection: close\r\n" }
    }

    fn bad_request(text: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text)
    }

    fn with_headers(mut self, headers: &'static str) -> Self {
        self.headers = headers;
        self
    }

    /// The status of the response.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status.as_u16()
    }

    fn to_response(&self) -> Vec<u8> {
        let Self { status, text, headers } = self;
        let length = text.len() + 1;
        format!(
            "HTTP/1.1 {status}\r\n{headers}Content-Type: text/plain; charset=utf-8\r\n\
             X-Content-Type-Options: nosniff\r\nContent-Length: {length}\r\n\r\n{text}\n"
        )
        .into_bytes()
    }
}

impl fmt::Display for HandshakeRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "answered with {}: {}", self.status, self.text)
    }
}

impl error::Error for HandshakeRefusal {}
