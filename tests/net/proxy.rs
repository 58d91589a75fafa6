//! The PROXY protocol: what is a header, what only looks like one, and whom it is taken from.

use std::net::SocketAddr;

use dunlin::{
    config::{Address, Listener, Proxies, ProxyProtocol, Transport},
    net::{
        BoundListener, Introduction, Peer, PreparedTransport, ProxyError, ProxyTls, Socket, UpgradeError,
        introduce, parse_proxy_header,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, duplex},
    net::TcpStream,
};

use crate::{listener, port_of, tcp, within};

const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;

/// A header of version 2.
fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [V2, &[command, family], &length, rest].concat()
}

/// 203.0.113.9:4711 to 192.0.2.1:8883, and what follows.
fn v2_ipv4(tlvs: &[u8]) -> Vec<u8> {
    let addresses = [203, 0, 113, 9, 192, 0, 2, 1, 0x12, 0x67, 0x22, 0xb3];
    v2(PROXY, 0x11, &[&addresses, tlvs].concat())
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[kind], &u16::try_from(value.len()).unwrap().to_be_bytes()[..], value].concat()
}

/// TLS 1.3 with a certificate, whose verification gave `verify`.
fn ssl(client: u8, verify: u32, parts: &[Vec<u8>]) -> Vec<u8> {
    tlv(0x20, &[&[client][..], &verify.to_be_bytes(), &parts.concat()].concat())
}

/// The same with a checksum.
fn summed(mut header: Vec<u8>) -> Vec<u8> {
    let at = header.len();
    header.extend(tlv(3, &[0; 4]));
    let length = u16::try_from(header.len() - 16).unwrap().to_be_bytes();
    header[14..16].copy_from_slice(&length);
    let mut sum = u32::MAX;
    for byte in &header {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = if sum & 1 == 1 { sum >> 1 ^ 0x82f6_3b78 } else { sum >> 1 };
        }
    }
    header[at + 3..].copy_from_slice(&(!sum).to_be_bytes());
    header
}

enum Expected {
    /// The client's address, or none.
    From(Option<&'static str>),
    /// A part of the error.
    Refused(&'static str),
}
use Expected::{From, Refused};

const V6: &[u8] = &[
    0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 1, 0x12, 0x67, 0x22, 0xb3,
];

fn table() -> Vec<(Vec<u8>, Expected)> {
    let text = |line: &str| line.as_bytes().to_vec();
    let client = "203.0.113.9:4711";
    let long_v6 = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let longest = format!("PROXY UNKNOWN {long_v6} {long_v6} 65535 65535\r\n");
    assert_eq!(longest.len(), 107);
    vec![
        // Version 1.
        (text("PROXY TCP4 203.0.113.9 192.0.2.1 4711 8883\r\n"), From(Some(client))),
        (text("PROXY TCP6 2001:db8::7 2001:db8::1 4711 8883\r\n"), From(Some("[2001:db8::7]:4711"))),
        (text("PROXY TCP6 ::ffff:203.0.113.9 ::1 4711 8883\r\n"), From(Some(client))),
        (text("PROXY UNKNOWN\r\n"), From(None)),
        (text("PROXY UNKNOWN of whatever kind\r\n"), From(None)),
        (text(&longest), From(None)),
        (text(&longest.replace("\r\n", "0\r\n")), Refused("longer than 107 bytes")),
        (text(&"PROXY TCP4 ".repeat(20)), Refused("longer than 107 bytes")),
        (text("PROXY UNKNOWNS\r\n"), Refused("malformed")),
        (text("PROXY TCP4 203.0.113.9 192.0.2.1 4711\r\n"), Refused("malformed")),
        (text("PROXY TCP4 203.0.113.9 192.0.2.1 4711 8883 1\r\n"), Refused("malformed")),
        (text("PROXY TCP4  203.0.113.9 192.0.2.1 4711 8883\r\n"), Refused("malformed")),
        (text("PROXY TCP4 203.0.113.9 192.0.2.1 +4711 8883\r\n"), Refused("malformed")),
        (text("PROXY TCP4 203.0.113.9 192.0.2.1 4711 65536\r\n"), Refused("malformed")),
        (text("PROXY TCP4 203.0.113.9 192.0.2.1 4711 \r\n"), Refused("malformed")),
        (text("PROXY TCP4 2001:db8::7 2001:db8::1 4711 8883\r\n"), Refused("malformed")),
        (text("PROXY TCP6 203.0.113.9 192.0.2.1 4711 8883\r\n"), Refused("malformed")),
        (text("PROXY TCP4 203.0.113.9 192.0.2.1 4711 8883\r\r\n"), Refused("malformed")),
        (text("PROXY TCP5 203.0.113.9 192.0.2.1 4711 8883\r\n"), Refused("malformed")),
        (text("PROXY \r\n"), Refused("malformed")),
        (text("PROXY\tTCP4 203.0.113.9 192.0.2.1 4711 8883\r\n"), Refused("no PROXY header")),
        (text("proxy TCP4 203.0.113.9 192.0.2.1 4711 8883\r\n"), Refused("no PROXY header")),
        // Version 2.
        (v2_ipv4(&[]), From(Some(client))),
        (v2(PROXY, 0x21, V6), From(Some("[2001:db8::7]:4711"))),
        (v2(LOCAL, 0, &[]), From(None)),
        (v2(LOCAL, 0x11, &[203, 0, 113, 9, 192, 0, 2, 1, 0x12, 0x67, 0x22, 0xb3]), From(None)),
        (v2(PROXY, 0, &[]), From(None)),
        // The addresses of Unix sockets are the proxy's business.
        (v2(PROXY, 0x31, &[b'/'; 216]), From(None)),
        (v2(PROXY, 0x31, &[b'/'; 215]), Refused("malformed")),
        (v2_ipv4(&tlv(4, &[0; 4081])), From(Some(client))),
        (v2_ipv4(&tlv(4, &[0; 4082])), Refused("longer than 4112 bytes")),
        (v2(PROXY, 0x11, &[1; 11]), Refused("malformed")),
        (v2(PROXY, 0x21, &V6[1..]), Refused("malformed")),
        (v2(PROXY, 0x12, &[1; 12]), Refused("a datagram")),
        (v2(0x22, 0x11, &[1; 12]), Refused("malformed")),
        (v2(0x11, 0x11, &[1; 12]), Refused("malformed")),
        (v2(PROXY, 0x41, &[1; 12]), Refused("malformed")),
        (v2_ipv4(&[1]), Refused("TLV is cut short")),
        (v2_ipv4(&[1, 0, 9, 0]), Refused("TLV is cut short")),
        (v2_ipv4(&tlv(0xee, b"custom")), From(Some(client))),
        (summed(v2_ipv4(&tlv(2, b"host"))), From(Some(client))),
        (v2_ipv4(&tlv(3, &[0; 4])), Refused("checksum is wrong")),
        (v2_ipv4(&tlv(3, &[0; 3])), Refused("not of its type")),
        (v2_ipv4(&tlv(3, &[0; 5])), Refused("not of its type")),
        (v2_ipv4(&tlv(2, &[0xff])), Refused("not of its type")),
        (v2_ipv4(&[ssl(7, 0, &[]), ssl(7, 0, &[])].concat()), Refused("TLS twice")),
        (v2_ipv4(&ssl(7, 0, &[tlv(0x22, b"a"), tlv(0x22, b"b")])), Refused("two common names")),
        (v2_ipv4(&ssl(7, 0, &[tlv(0x22, &[0xff])])), Refused("not UTF-8")),
        (v2_ipv4(&tlv(0x20, &[7, 0, 0, 0])), Refused("not of its type")),
        // Other protocols.
        (b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00".to_vec(), Refused("no PROXY header")),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), Refused("no PROXY header")),
        (b"\x16\x03\x01\x00\xa5\x01".to_vec(), Refused("no PROXY header")),
    ]
}

fn prepared(trusted: &[&str]) -> PreparedTransport {
    PreparedTransport::of(&proxied(trusted)).unwrap()
}

fn proxied(trusted: &[&str]) -> Listener {
    let trusted = trusted.iter().map(|network| network.parse().unwrap()).collect();
    let proxies = Proxies { protocol: ProxyProtocol::Required, trusted };
    Listener { proxies, ..listener(tcp("127.0.0.1:0"), Transport::Plain) }
}

/// What the header says is the same wherever it is cut, and what comes behind it stays to be read.
#[tokio::test]
async fn a_header_is_taken_or_refused_wherever_it_is_cut() {
    let transport = prepared(&[]);
    for (header, expected) in table() {
        let shown = String::from_utf8_lossy(&header).into_owned();
        // A second header is what the client has sent, and nobody's word.
        let behind = [&b"PROXY TCP4 198.51.100.1 192.0.2.1 1 2\r\n"[..], &[0xc0; 700]].concat();
        let sent = [header.as_slice(), &behind].concat();
        let step = if header.len() > 300 { 97 } else { 1 };
        for cut in (0..=header.len().min(sent.len())).step_by(step) {
            let (ours, mut theirs) = duplex(16 << 10);
            let talk = async {
                theirs.write_all(&sent[..cut]).await?;
                // The other side reads what there is.
                tokio::task::yield_now().await;
                theirs.write_all(&sent[cut..]).await?;
                theirs.shutdown().await
            };
            let (introduced, _) =
                within(async { tokio::join!(introduce(Socket::memory(ours), &transport), talk) }).await;
            match (&expected, introduced) {
                (From(source), Ok(mut socket)) => {
                    let peer = source.map_or(Peer::Memory, |source| Peer::Tcp(source.parse().unwrap()));
                    assert_eq!(*socket.peer(), peer, "{shown} cut at {cut}");
                    let mut rest = Vec::new();
                    within(socket.read_to_end(&mut rest)).await.unwrap();
                    assert!(rest == behind, "{shown} cut at {cut}: what is behind the header is lost");
                }
                (Refused(part), Err(error)) => {
                    assert!(error.to_string().contains(part), "{shown} cut at {cut}: {error}");
                }
                (_, introduced) => panic!("{shown} cut at {cut}: {introduced:?}"),
            }
        }
    }
}

#[test]
fn no_part_of_a_header_is_one() {
    for (header, expected) in table() {
        for length in 0..header.len() {
            match (parse_proxy_header(&header[..length]), &expected) {
                (Ok(None), _) | (Err(_), Refused(_)) => {}
                (found, _) => panic!("{found:?} of {:?}", String::from_utf8_lossy(&header[..length])),
            }
        }
    }
}

#[test]
fn what_the_proxy_knows_of_tls_is_taken_over() {
    let parts = [tlv(0x21, b"TLSv1.3"), tlv(0x22, "mètre".as_bytes())];
    for (client, verify, is_verified) in [
        (7, 0, true),
        (3, 0, true),
        (5, 0, true),
        // Verification failed; no certificate; no TLS.
        (7, 18, false),
        (1, 0, false),
        (6, 0, false),
        (0, 0, false),
    ] {
        let header = v2_ipv4(&ssl(client, verify, &parts));
        let (introduction, _) = parse_proxy_header(&header).unwrap().unwrap();
        let expected =
            ProxyTls { version: Some("TLSv1.3".into()), common_name: Some("mètre".into()), is_verified };
        assert_eq!(introduction.tls, Some(expected), "{client} {verify}");
    }
    let plain = Introduction { source: Some("203.0.113.9:4711".parse().unwrap()), tls: None };
    assert_eq!(parse_proxy_header(&v2_ipv4(&[])).unwrap().unwrap().0, plain);
}

#[tokio::test]
async fn only_trusted_proxies_are_believed() {
    for (trusted, is_trusted) in [(&["127.0.0.0/8"][..], true), (&["10.0.0.0/8", "::1"], false)] {
        let listener = proxied(trusted);
        let transport = PreparedTransport::of(&listener).unwrap();
        let bound = BoundListener::bind(&listener).unwrap();
        let acceptor = bound.acceptor().unwrap();
        let mut proxy = TcpStream::connect(port_of(&bound)).await.unwrap();
        let (socket, seen) = within(acceptor.accept()).await.unwrap();
        assert_eq!(seen, Peer::Tcp(proxy.local_addr().unwrap()));
        // Who is not trusted is refused before it has said anything.
        if is_trusted {
            proxy.write_all(&v2_ipv4(&[])).await.unwrap();
        }
        match within(introduce(socket, &transport)).await {
            Ok(socket) if is_trusted => {
                assert_eq!(*socket.peer(), Peer::Tcp("203.0.113.9:4711".parse::<SocketAddr>().unwrap()));
            }
            Err(UpgradeError::Proxy(ProxyError::Untrusted)) if !is_trusted => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_unix_socket_is_trusted_by_its_path() {
    let directory = crate::certificates::Directory::new();
    let path = directory.path("s");
    let listener = Listener { address: Address::Unix(path.clone()), ..proxied(&[]) };
    let bound = BoundListener::bind(&listener).unwrap();
    let acceptor = bound.acceptor().unwrap();
    let mut proxy = tokio::net::UnixStream::connect(&path).await.unwrap();
    proxy.write_all(&v2_ipv4(&[])).await.unwrap();
    let (socket, _) = within(acceptor.accept()).await.unwrap();
    let socket = within(introduce(socket, &PreparedTransport::of(&listener).unwrap())).await.unwrap();
    assert_eq!(socket.peer().ip(), Some("203.0.113.9".parse().unwrap()));
}
