//! A connection of the PROXY protocol: any bytes in any pieces are refused, or give the same introduction as in one
//! piece and lose nothing of what is behind the header.
//!
//! The first byte of the input is the size of the pieces.

use std::{
    future::Future,
    pin::pin,
    task::{Context, Poll, Waker},
};

use dunlin::{
    config::{Address, ClientIdentity, Config, Listener, Proxies, ProxyProtocol, Transport},
    net::{PreparedTransport, Socket, introduce, parse_proxy_header},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

/// More than the longest header.
const INPUT_BYTES_MAX: usize = 8000;

/// The longest header that is taken.
const HEADER_BYTES_MAX: usize = 4112;

/// Checks one input.
pub(crate) fn run(input: &[u8]) {
    let [piece, bytes @ ..] = input else { return };
    if bytes.len() > INPUT_BYTES_MAX {
        return;
    }
    let whole = parse_proxy_header(bytes);
    if let Ok(Some((introduction, length))) = &whole {
        assert!((15..=HEADER_BYTES_MAX).contains(length) && *length <= bytes.len(), "{length}");
        // Nothing behind the header changes what it says, and no part of it is a header.
        let exact = parse_proxy_header(&bytes[..*length]);
        assert!(matches!(&exact, Ok(Some((again, _))) if again == introduction), "{exact:?}");
        assert!(matches!(parse_proxy_header(&bytes[..length - 1]), Ok(None)));
    }
    if let Ok(None) = &whole {
        assert!(bytes.len() < HEADER_BYTES_MAX, "it is waited for more than can come");
    }
    let (peer, rest) = converse(bytes, 1 + usize::from(*piece));
    match whole {
        Ok(Some((introduction, length))) => {
            let source = introduction.source.map(|source| source.ip());
            assert_eq!(peer, Some(source));
            assert_eq!(rest, &bytes[length..]);
        }
        Ok(None) | Err(_) => assert_eq!(peer, None),
    }
}

/// Sends the bytes in pieces. The address of the peer if there was a header, and what is read behind it.
fn converse(bytes: &[u8], piece: usize) -> (Option<Option<std::net::IpAddr>>, Vec<u8>) {
    let proxies = Proxies { protocol: ProxyProtocol::Required, trusted: Vec::new() };
    let listener = Listener {
        name: String::new(),
        address: Address::Unix("unused".into()),
        transport: Transport::Plain,
        allow_anonymous: true,
        client_identity: ClientIdentity::None,
        proxies,
        auth: Vec::new(),
        durability: Config::default().durability,
        connections_max: 1,
    };
    let transport = PreparedTransport::of(&listener).expect("there are no files to read");
    let (ours, mut theirs) = duplex(INPUT_BYTES_MAX + 1);
    let mut introduced = pin!(introduce(Socket::memory(ours), &transport));
    let mut socket = None;
    for chunk in bytes.chunks(piece) {
        // The pipe has room for all, and a header that is refused closes it.
        let _ = ready(pin!(theirs.write_all(chunk)));
        if socket.is_none() {
            match introduced.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(Ok(introduced)) => socket = Some(introduced),
                Poll::Ready(Err(_)) => return (None, Vec::new()),
                Poll::Pending => {}
            }
        }
    }
    let Some(mut socket) = socket else { return (None, Vec::new()) };
    drop(theirs);
    let mut rest = Vec::new();
    ready(pin!(socket.read_to_end(&mut rest))).expect("nobody waits").expect("the pipe is read");
    (Some(socket.peer().ip()), rest)
}

fn ready<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}
