//! A WebSocket as the broker reads it: any bytes in any pieces are refused or give the same stream as in one
//! piece; well-formed frames give back their payloads; and what the broker writes is frames of what was written.
//!
//! The first byte of the input picks what the rest is, the second the size of the pieces.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use dunlin::{
    config::{Transport, WebSocket},
    net::{PreparedTransport, Socket, Stream, UpgradeError, upgrade},
};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};

const REQUEST: &str = "GET /mqtt HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                       Sec-WebSocket-Protocol: mqtt\r\n\r\n";

/// Small, so that a message can be too long.
const PACKET_BYTES_MAX: u32 = 1024;

/// What a message may have beyond that is 64 KiB.
const PIPE_BYTES: usize = 1 << 20;

/// Longer heads are refused or not depending on how much of them comes at a time.
const INPUT_BYTES_MAX: usize = 8000;

const CONTINUATION: u8 = 0;
const BINARY: u8 = 2;
const PING: u8 = 9;
const PONG: u8 = 10;
const IS_FINAL: u8 = 0x80;

/// Checks one input.
pub(crate) fn run(input: &[u8]) {
    let [what, piece, rest @ ..] = input else { return };
    if rest.len() > INPUT_BYTES_MAX {
        return;
    }
    let piece = 1 + usize::from(*piece);
    match what % 3 {
        0 => any_bytes(rest, piece),
        1 => any_bytes(&[REQUEST.as_bytes(), rest].concat(), piece),
        _ => frames(rest, piece),
    }
}

/// How reading ended.
#[derive(Debug, PartialEq)]
enum End {
    /// The stream is open, and waits for more.
    Open,
    Eof,
    Refused(String),
}

/// A connection whose client is this.
struct Pair {
    client: DuplexStream,
    handshake: Pin<Box<dyn Future<Output = Result<Stream, UpgradeError>>>>,
    stream: Option<Stream>,
    /// What the broker read.
    read: Vec<u8>,
    /// What the client read.
    answered: Vec<u8>,
    end: End,
}

impl Pair {
    fn new() -> Pair {
        let (ours, client) = duplex(PIPE_BYTES);
        let handshake = Box::pin(async move {
            let transport = Transport::WebSocket(WebSocket::default());
            let prepared = PreparedTransport::prepare(&transport).expect("there are no files to read");
            upgrade(Socket::memory(ours), &prepared, PACKET_BYTES_MAX).await
        });
        Pair { client, handshake, stream: None, read: Vec::new(), answered: Vec::new(), end: End::Open }
    }

    /// The client sends bytes, and the broker reads what there is.
    fn send(&mut self, bytes: &[u8]) {
        let mut left = bytes;
        while !left.is_empty() && self.end == End::Open {
            match poll(|cx| Pin::new(&mut self.client).poll_write(cx, left)) {
                Poll::Ready(Ok(count)) => left = &left[count..],
                Poll::Ready(Err(_)) => return,
                Poll::Pending => panic!("the pipe has room: its other end is read"),
            }
            self.settle();
        }
    }

    /// The client closes its end.
    fn close(&mut self) {
        let closed = poll(|cx| Pin::new(&mut self.client).poll_shutdown(cx));
        assert!(matches!(closed, Poll::Ready(Ok(()))), "a pipe closes at once");
        self.settle();
    }

    /// The broker reads all that there is, and the client reads what it is answered.
    fn settle(&mut self) {
        if self.stream.is_none() && self.end == End::Open {
            match poll(|cx| self.handshake.as_mut().poll(cx)) {
                Poll::Ready(Ok(stream)) => self.stream = Some(stream),
                Poll::Ready(Err(error)) => self.end = End::Refused(error.to_string()),
                Poll::Pending => {}
            }
        }
        while let Some(stream) = self.stream.as_mut().filter(|_| self.end == End::Open) {
            match read(stream) {
                Poll::Ready(Ok(bytes)) if bytes.is_empty() => self.end = End::Eof,
                Poll::Ready(Ok(bytes)) => self.read.extend(bytes),
                Poll::Ready(Err(error)) => self.end = End::Refused(error.to_string()),
                Poll::Pending => break,
            }
        }
        while let Poll::Ready(Ok(bytes)) = read(&mut self.client) {
            if bytes.is_empty() {
                break;
            }
            self.answered.extend(bytes);
        }
    }

    /// The broker writes bytes in pieces, and the client reads them.
    fn write(&mut self, bytes: &[u8], piece: usize) {
        for chunk in bytes.chunks(piece) {
            let mut left = chunk;
            while !left.is_empty() {
                let stream = self.stream.as_mut().expect("the handshake is done");
                match poll(|cx| Pin::new(&mut *stream).poll_write(cx, left)) {
                    Poll::Ready(Ok(count)) if count > 0 => left = &left[count..],
                    other => panic!("writing to a client that reads: {other:?}"),
                }
                let flushed = poll(|cx| Pin::new(&mut *stream).poll_flush(cx));
                assert!(matches!(flushed, Poll::Ready(Ok(()))), "flushing: {flushed:?}");
                self.settle();
            }
        }
    }
}

/// Whether a poll that is pending asks to be polled again at once.
#[derive(Default)]
struct Again(AtomicBool);

impl Wake for Again {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Polls until nothing is left to do. Nothing here waits for anything but the other end of the pipe.
fn poll<T>(mut f: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
    loop {
        let again = Arc::new(Again::default());
        let result = f(&mut Context::from_waker(&Waker::from(again.clone())));
        if result.is_ready() || !again.0.load(Ordering::Relaxed) {
            return result;
        }
    }
}

/// Reads some bytes; none at the end.
fn read(source: &mut (impl AsyncRead + Unpin)) -> Poll<io::Result<Vec<u8>>> {
    let mut room = [0; 512];
    let mut buf = ReadBuf::new(&mut room);
    let result = poll(|cx| Pin::new(&mut *source).poll_read(cx, &mut buf));
    result.map_ok(|()| buf.filled().to_vec())
}

/// Any bytes, in pieces and in one piece.
fn any_bytes(bytes: &[u8], piece: usize) {
    let converse = |piece: usize| {
        let mut pair = Pair::new();
        bytes.chunks(piece).for_each(|chunk| pair.send(chunk));
        let end = std::mem::replace(&mut pair.end, End::Open);
        if end == End::Open {
            pair.close();
            assert_ne!(pair.end, End::Open, "the client has left");
        }
        (pair.read, end)
    };
    let whole = converse(usize::MAX);
    assert!(whole.0.len() <= bytes.len(), "{} bytes of {}", whole.0.len(), bytes.len());
    assert_eq!(converse(piece), whole, "in pieces of {piece} bytes, and in one");
}

/// Well-formed frames, of which each begins with a byte of flags and one of its length in the input, and an echo.
fn frames(script: &[u8], piece: usize) {
    let (sent, payload, pings) = client_frames(script);
    let mut pair = Pair::new();
    pair.send(REQUEST.as_bytes());
    assert!(pair.stream.is_some(), "the handshake is right: {:?}", pair.end);
    pair.answered.clear();
    sent.chunks(piece).for_each(|chunk| pair.send(chunk));
    assert_eq!(pair.end, End::Open);
    assert_eq!(pair.read, payload, "{} bytes in frames, in pieces of {piece}", payload.len());
    pair.write(&payload, 7 * piece);
    let (echo, pongs) = server_frames(&pair.answered);
    assert_eq!(echo, payload, "what was written, in pieces of {}", 7 * piece);
    // Of pings that come together the last is answered.
    let mut pings = pings.iter();
    assert!(pongs.iter().all(|pong| pings.any(|ping| ping == pong)), "{pongs:?}");
}

/// Frames of a client, what their messages hold in all, and the pings among them.
fn client_frames(mut script: &[u8]) -> (Vec<u8>, Vec<u8>, Vec<Vec<u8>>) {
    let (mut sent, mut payload, mut pings) = (Vec::new(), Vec::new(), Vec::new());
    // Bytes of the message that is not at its end.
    let mut open: Option<usize> = None;
    while let [flags, length, tail @ ..] = script {
        let (bytes, tail) = tail.split_at(tail.len().min(usize::from(*length)));
        script = tail;
        if flags & 1 != 0 {
            let ping = &bytes[..bytes.len().min(125)];
            write_frame(&mut sent, IS_FINAL | PING, ping, *flags);
            pings.push(ping.to_vec());
            continue;
        }
        // Long ones say their length in another way.
        let bytes = bytes.repeat(if flags & 2 == 0 { 1 } else { 40 });
        let opcode = if open.is_some() { CONTINUATION } else { BINARY };
        let length = open.unwrap_or(0) + bytes.len();
        let is_final = flags & 4 == 0 || length > 50_000;
        write_frame(&mut sent, if is_final { IS_FINAL | opcode } else { opcode }, &bytes, *flags);
        payload.extend(bytes);
        open = (!is_final).then_some(length);
    }
    if open.is_some() {
        write_frame(&mut sent, IS_FINAL | CONTINUATION, &[], 0);
    }
    (sent, payload, pings)
}

fn write_frame(out: &mut Vec<u8>, head: u8, payload: &[u8], flags: u8) {
    const IS_MASKED: u8 = 0x80;
    out.push(head);
    match payload.len() {
        length @ 0..126 => out.push(IS_MASKED | length as u8),
        length @ 126..65_536 => {
            out.push(IS_MASKED | 126);
            out.extend((length as u16).to_be_bytes());
        }
        length => {
            out.push(IS_MASKED | 127);
            out.extend((length as u64).to_be_bytes());
        }
    }
    let mask = [flags, !flags, flags.rotate_left(3), 0];
    out.extend(mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

/// What the binary frames of a server hold in all, and its answers to pings.
fn server_frames(mut bytes: &[u8]) -> (Vec<u8>, Vec<Vec<u8>>) {
    let (mut payload, mut pongs) = (Vec::new(), Vec::new());
    while let [head, length, tail @ ..] = bytes {
        let (length, tail) = match length {
            126 => {
                let (length, tail) = tail.split_first_chunk::<2>().expect("the length is whole");
                (usize::from(u16::from_be_bytes(*length)), tail)
            }
            0..126 => (usize::from(*length), tail),
            _ => panic!("a frame is masked or longer than what the broker sends: {length}"),
        };
        let (frame, tail) = tail.split_at(length);
        match *head {
            head if head == IS_FINAL | BINARY => payload.extend(frame),
            head if head == IS_FINAL | PONG => pongs.push(frame.to_vec()),
            head => panic!("a frame of kind {head:02x}"),
        }
        bytes = tail;
    }
    assert!(bytes.is_empty(), "half a frame is left");
    (payload, pongs)
}
