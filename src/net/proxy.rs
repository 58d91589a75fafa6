//! The PROXY protocol, versions 1 and 2: a header by which a proxy says for whom it connects.
//!
//! The `proxy-header` crate takes headers apart; what it leaves open is decided here: limits, the exact form of
//! version 1, checksums, and what may be said twice.

use std::{error, fmt, io, net::SocketAddr};

use proxy_header::{ParseConfig, Protocol, ProxyHeader, SslInfo, Tlv};
use tokio::io::AsyncReadExt;

use super::socket::{Peer, Socket};

/// The longest header of version 1 in bytes, its line end included.
const V1_BYTES_MAX: usize = 107;

/// The longest header of version 2 in bytes. It could be 64 KiB, which nobody needs who tells of a client.
const V2_BYTES_MAX: usize = 16 + 4096;

const V1_START: &[u8] = b"PROXY ";
const V2_START: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Where version 2 says how long the rest is, in two bytes.
const V2_LENGTH_AT: usize = 14;

/// Bytes read at a time. A proxy sends its header in one piece.
const READ_BYTES: usize = 512;

/// What a proxy says of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introduction {
    /// The client's address; `None` when the proxy connects on its own account (LOCAL), or does not tell.
    pub source: Option<SocketAddr>,
    /// TLS between client and proxy, if there is any.
    pub tls: Option<ProxyTls>,
}

/// TLS between a client and the proxy, as the proxy says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyTls {
    /// The version, such as `TLSv1.3`.
    pub version: Option<String>,
    /// The common name of the client's certificate.
    pub common_name: Option<String>,
    /// Whether the client has shown a certificate and the proxy has found it good.
    pub is_verified: bool,
}

/// Why a connection is not one of the PROXY protocol, or not one to be believed.
#[derive(Debug)]
#[non_exhaustive]
pub enum ProxyError {
    /// It does not come from a proxy that is trusted.
    Untrusted,
    /// It does not begin with a header.
    NoHeader,
    /// The header is longer than is taken.
    TooLong {
        /// What is taken, in bytes.
        bytes_max: usize,
    },
    /// The header breaks the rules.
    Malformed(&'static str),
    /// The connection ended or failed before the header was complete.
    Io(io::Error),
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Untrusted => f.write_str("the address is in none of the listener's trusted_proxies"),
            Self::NoHeader => f.write_str(
                "no PROXY header, which this listener requires; if the client did not come through the proxy, send \
                 it there, else make the proxy send one (haproxy: send-proxy-v2, nginx: proxy_protocol on)",
            ),
            Self::TooLong { bytes_max } => {
                write!(f, "the PROXY header is longer than {bytes_max} bytes")
            }
            Self::Malformed(why) => write!(f, "the PROXY header is malformed: {why}"),
            Self::Io(cause) => write!(f, "PROXY header: {cause}"),
        }
    }
}

impl error::Error for ProxyError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Io(cause) => Some(cause),
            Self::Untrusted | Self::NoHeader | Self::TooLong { .. } | Self::Malformed(_) => None,
        }
    }
}

/// Reads the header from a fresh socket. What comes behind it stays to be read.
pub(super) async fn read(socket: &mut Socket) -> Result<Introduction, ProxyError> {
    let mut bytes = Vec::with_capacity(READ_BYTES);
    loop {
        if let Some((introduction, length)) = parse(&bytes)? {
            socket.unread(&bytes[length..]);
            return Ok(introduction);
        }
        bytes.reserve(READ_BYTES);
        match socket.read_buf(&mut bytes).await {
            Ok(0) => {
                let text = "the peer left before it was complete";
                return Err(ProxyError::Io(io::Error::new(io::ErrorKind::UnexpectedEof, text)));
            }
            Ok(_) => {}
            Err(error) => return Err(ProxyError::Io(error)),
        }
    }
}

/// The socket as the proxy introduces it.
pub(super) fn introduce(socket: &mut Socket, introduction: Introduction) {
    if let Some(source) = introduction.source {
        socket.set_peer(Peer::Tcp(source));
    }
    socket.set_proxy_tls(introduction.tls);
}

/// The header that the bytes begin with, and its length; `None` while it is not complete. The answer does not
/// depend on how much there is behind the header, nor on the pieces in which it comes.
///
/// # Errors
/// [`ProxyError`] as soon as the bytes cannot become a header.
pub fn parse(bytes: &[u8]) -> Result<Option<(Introduction, usize)>, ProxyError> {
    let (start, header) = match bytes.first() {
        None => return Ok(None),
        Some(b'P') => (V1_START, v1_header as fn(&[u8]) -> Result<Option<&[u8]>, ProxyError>),
        Some(_) => (V2_START, v2_header as fn(&[u8]) -> Result<Option<&[u8]>, ProxyError>),
    };
    let compared = bytes.len().min(start.len());
    if bytes[..compared] != start[..compared] {
        return Err(ProxyError::NoHeader);
    }
    let Some(header) = header(bytes)? else { return Ok(None) };
    let config = ParseConfig { include_tlvs: true, allow_v1: true, allow_v2: true };
    match ProxyHeader::parse(header, config) {
        Ok((parsed, length)) if length == header.len() => Ok(Some((introduction(header, &parsed)?, length))),
        // The header is whole, so that one which needs more contradicts itself.
        Ok(_) | Err(_) => Err(ProxyError::Malformed("its fields are not as its first bytes say")),
    }
}

/// The line of version 1, whose form is checked as far as the crate does not.
fn v1_header(bytes: &[u8]) -> Result<Option<&[u8]>, ProxyError> {
    let within = &bytes[..bytes.len().min(V1_BYTES_MAX)];
    let Some(end) = within.windows(2).position(|pair| pair == b"\r\n") else {
        if within.len() == V1_BYTES_MAX {
            return Err(ProxyError::TooLong { bytes_max: V1_BYTES_MAX });
        }
        return Ok(None);
    };
    let fields: Vec<&[u8]> = within[V1_START.len()..end].split(|byte| *byte == b' ').collect();
    let is_port = |field: &&[u8]| !field.is_empty() && field.iter().all(u8::is_ascii_digit);
    match fields.as_slice() {
        // What follows UNKNOWN is to be ignored.
        [b"UNKNOWN", ..] => {}
        [b"TCP4" | b"TCP6", _, _, ports @ ..] if ports.len() == 2 && ports.iter().all(is_port) => {}
        _ => return Err(ProxyError::Malformed("it is not TCP4 or TCP6, two addresses and two ports")),
    }
    Ok(Some(&within[..end + 2]))
}

/// The bytes of version 2, as many as it says.
fn v2_header(bytes: &[u8]) -> Result<Option<&[u8]>, ProxyError> {
    let Some([high, low]) = bytes.get(V2_LENGTH_AT..V2_LENGTH_AT + 2) else { return Ok(None) };
    let length = V2_LENGTH_AT + 2 + usize::from(u16::from_be_bytes([*high, *low]));
    if length > V2_BYTES_MAX {
        return Err(ProxyError::TooLong { bytes_max: V2_BYTES_MAX });
    }
    Ok(bytes.get(..length))
}

fn introduction(header: &[u8], parsed: &ProxyHeader<'_>) -> Result<Introduction, ProxyError> {
    let address = parsed.proxied_address();
    if address.is_some_and(|address| address.protocol == Protocol::Datagram) {
        return Err(ProxyError::Malformed("it tells of a datagram, and this is a stream"));
    }
    let mut tls = None;
    for tlv in parsed.tlvs() {
        match tlv.map_err(|_| ProxyError::Malformed("a TLV is cut short or not of its type"))? {
            Tlv::Crc32c(sum) if sum != checksum(header)? => {
                return Err(ProxyError::Malformed("its checksum is wrong"));
            }
            Tlv::Ssl(_) if tls.is_some() => return Err(ProxyError::Malformed("it tells of TLS twice")),
            Tlv::Ssl(info) => tls = Some(proxy_tls(&info)?),
            _ => {}
        }
    }
    // The socket of a connection that is the proxy's own is the proxy's.
    let source =
        address.map(|address| SocketAddr::new(address.source.ip().to_canonical(), address.source.port()));
    Ok(Introduction { source, tls })
}

fn proxy_tls(info: &SslInfo<'_>) -> Result<ProxyTls, ProxyError> {
    let mut version = None;
    let mut common_name = None;
    for tlv in info.tlvs() {
        match tlv.map_err(|_| ProxyError::Malformed("a TLV about TLS is cut short or not UTF-8"))? {
            Tlv::SslVersion(text) => version = Some(text.into_owned()),
            Tlv::SslCn(_) if common_name.is_some() => {
                return Err(ProxyError::Malformed("it tells of two common names"));
            }
            Tlv::SslCn(text) => common_name = Some(text.into_owned()),
            _ => {}
        }
    }
    // Zero is also what is sent where there was no certificate to verify.
    let has_certificate = info.client_cert_conn() || info.client_cert_sess();
    let is_verified = info.client_ssl() && has_certificate && info.verify() == 0;
    Ok(ProxyTls { version, common_name, is_verified })
}

/// CRC32c over a header of version 2 in which the checksum itself is zero.
fn checksum(header: &[u8]) -> Result<u32, ProxyError> {
    const CHECKSUM: u8 = 0x03;
    let mut bytes = header.to_vec();
    let addresses = match header.get(V2_LENGTH_AT - 1).map(|family| family >> 4) {
        Some(1) => 12,
        Some(2) => 36,
        Some(3) => 216,
        Some(_) | None => 0,
    };
    let mut at = V2_LENGTH_AT + 2 + addresses;
    let mut found = 0;
    while let Some([kind, high, low]) = bytes.get(at..at + 3) {
        let (kind, length) = (*kind, usize::from(u16::from_be_bytes([*high, *low])));
        let value = at + 3..at + 3 + length;
        at = value.end;
        if let Some(value) = bytes.get_mut(value).filter(|_| kind == CHECKSUM) {
            value.fill(0);
            found += 1;
        }
    }
    if found != 1 {
        return Err(ProxyError::Malformed("it has two checksums"));
    }
    Ok(crc32c(&bytes))
}

fn crc32c(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| sum >> 1 ^ (POLYNOMIAL & 0_u32.wrapping_sub(sum & 1)))
    })
}
