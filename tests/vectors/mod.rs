//! The table of good and bad packets: one row is one rule of the standard, with the bytes that keep or
//! break it. Tests of decoding and encoding, of the broker's answers and the fuzz corpus all start here.
//!
//! Bytes are written in a notation (see [`bytes`]) that counts lengths by itself unless a row is about a
//! wrong one.

#![allow(dead_code, reason = "each test program uses its own part of the table")]

mod ack;
mod connack;
mod connect;
mod connect_bad;
mod control;
mod frame;
mod publish;
mod publish_bad;
mod subscribe;
mod subscribe_bad;

use dunlin::codec::{DecodeErrorKind, Packet, Version};

pub(crate) const ALL: &[Version] = &[Version::V31, Version::V311, Version::V5];
/// MQTT 3.1 and 3.1.1.
pub(crate) const V3: &[Version] = &[Version::V31, Version::V311];
pub(crate) const V31: &[Version] = &[Version::V31];
pub(crate) const V311: &[Version] = &[Version::V311];
pub(crate) const V5: &[Version] = &[Version::V5];
pub(crate) const SINCE_V311: &[Version] = &[Version::V311, Version::V5];

/// One packet and what is to be thought of it.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// The versions of the connection that the packet arrives on.
    pub(crate) versions: &'static [Version],
    pub(crate) bytes: Vec<u8>,
    pub(crate) expect: Expect,
}

pub(crate) enum Expect {
    /// Decodes to this packet, which encodes to these bytes.
    Packet(Packet<'static>, Vec<u8>),
    /// Is refused for this reason, with this reason code.
    Error(DecodeErrorKind, u8),
}

/// All rows.
pub(crate) fn rows() -> Vec<Row> {
    let families = [
        frame::rows(),
        connect::rows(),
        connect_bad::rows(),
        connack::rows(),
        publish::rows(),
        publish_bad::rows(),
        ack::rows(),
        subscribe::rows(),
        subscribe_bad::rows(),
        control::rows(),
    ];
    families.into_iter().flatten().collect()
}

/// A packet in the form in which we write it ourselves.
fn good(name: &'static str, versions: &'static [Version], notation: &str, packet: Packet<'static>) -> Row {
    let bytes = bytes(notation);
    Row { name, versions, bytes: bytes.clone(), expect: Expect::Packet(packet, bytes) }
}

/// A legal packet that we would write as `canonical`.
fn legal(
    name: &'static str,
    versions: &'static [Version],
    notation: &str,
    packet: Packet<'static>,
    canonical: &str,
) -> Row {
    Row { name, versions, bytes: bytes(notation), expect: Expect::Packet(packet, bytes(canonical)) }
}

fn bad(
    name: &'static str,
    versions: &'static [Version],
    notation: &str,
    kind: DecodeErrorKind,
    reason_code: u8,
) -> Row {
    Row { name, versions, bytes: bytes(notation), expect: Expect::Error(kind, reason_code) }
}

/// The bytes that a notation stands for:
///
/// - `3C` is a byte, `3C*20` is that byte twenty times; blanks mean nothing;
/// - `'text'` is its UTF-8;
/// - `( … )` puts the length in two bytes before what is inside;
/// - `[ … ]` puts the length as a variable byte integer before what is inside.
pub(crate) fn bytes(notation: &str) -> Vec<u8> {
    let mut rest = notation;
    let bytes = sequence(&mut rest);
    assert!(rest.is_empty(), "stray bracket in {notation:?} before {rest:?}");
    bytes
}

/// Reads up to a closing bracket or the end.
fn sequence(rest: &mut &str) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(next) = rest.chars().next() {
        match next {
            ' ' | '\n' => *rest = &rest[1..],
            '\'' => {
                let (text, after) = rest[1..].split_once('\'').expect("a closing quote");
                out.extend_from_slice(text.as_bytes());
                *rest = after;
            }
            '(' => {
                let inside = group(rest, ')');
                out.extend_from_slice(&u16::try_from(inside.len()).unwrap().to_be_bytes());
                out.extend(inside);
            }
            '[' => {
                let inside = group(rest, ']');
                out.extend(variable_byte_integer(inside.len()));
                out.extend(inside);
            }
            ')' | ']' => return out,
            _ => {
                let byte = u8::from_str_radix(&rest[..2], 16).unwrap_or_else(|_| panic!("no byte: {rest:?}"));
                *rest = &rest[2..];
                out.extend(std::iter::repeat_n(byte, repetitions(rest)));
            }
        }
    }
    out
}

fn group(rest: &mut &str, closing: char) -> Vec<u8> {
    *rest = &rest[1..];
    let inside = sequence(rest);
    *rest = rest.strip_prefix(closing).expect("a closing bracket");
    inside
}

fn repetitions(rest: &mut &str) -> usize {
    let Some(after) = rest.strip_prefix('*') else { return 1 };
    let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
    *rest = &after[digits..];
    after[..digits].parse().expect("a number after *")
}

fn variable_byte_integer(mut value: usize) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let byte = (value % 128) as u8;
        value /= 128;
        if value == 0 {
            out.push(byte);
            return out;
        }
        out.push(byte | 0x80);
    }
}
