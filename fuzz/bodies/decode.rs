//! A stream of bytes, cut at will, is decoded as a connection does it: never a panic, never more taken than
//! is there, and a packet is the same whether what follows it has arrived or not.
//!
//! The first byte of the input picks the version, the second the size limit.

use dunlin::codec::{Decoded, Version, decode};

/// Checks one input.
pub(crate) fn run(input: &[u8]) {
    let [version, limit, stream @ ..] = input else { return };
    let version = [Version::V31, Version::V311, Version::V5][usize::from(version % 3)];
    let packet_bytes_max = if limit & 1 == 0 { u32::MAX } else { u32::from(*limit) };
    let mut rest = stream;
    while !rest.is_empty() {
        match decode(rest, version, packet_bytes_max) {
            Ok(Decoded::Packet(packet, length)) => {
                assert!(length <= packet_bytes_max as usize);
                let alone = decode(&rest[..length], version, packet_bytes_max);
                assert_eq!(alone, Ok(Decoded::Packet(packet, length)));
                let cut = decode(&rest[..length - 1], version, packet_bytes_max);
                assert!(matches!(cut, Ok(Decoded::Incomplete(_))), "{cut:?}");
                rest = &rest[length..];
            }
            Ok(Decoded::Incomplete(total)) => {
                assert!(total.is_none_or(|total| total > rest.len()));
                return;
            }
            Err(error) => {
                // All that is ever asked of an error.
                let _ = (error.to_string(), error.reason_code(), error.connack_form());
                return;
            }
        }
    }
}
