//! Every row of the table, in every way that it can arrive.

use std::collections::HashSet;

use dunlin::codec::{
    DecodeError, DecodeErrorKind, Decoded, PACKET_BYTES_LIMIT, Packet, PublishHead, Version, decode,
    decode_forwarded, encode,
};

use crate::vectors::{self, Expect, Row};

/// Runs `check` for each row and each version that the row is about.
fn each(check: impl Fn(&Row, Version)) {
    for row in vectors::rows() {
        for &version in row.versions {
            // A panic inside names its row by this line; cargo shows it for failed tests only.
            println!("{} ({version:?})", row.name);
            check(&row, version);
        }
    }
}

fn decode_whole(bytes: &[u8], version: Version) -> Result<Decoded<'_>, DecodeError> {
    decode(bytes, version, PACKET_BYTES_LIMIT)
}

#[test]
fn rows_have_names_of_their_own() {
    let rows = vectors::rows();
    let mut names = HashSet::new();
    for row in &rows {
        assert!(names.insert(row.name), "two rows are named {:?}", row.name);
    }
    assert!(rows.len() >= 300, "{} rows", rows.len());
}

#[test]
fn whole_packets_are_read_or_refused_as_the_table_says() {
    each(|row, version| match (decode_whole(&row.bytes, version), &row.expect) {
        (Ok(Decoded::Packet(packet, length)), Expect::Packet(expected, _)) => {
            assert_eq!(&packet, expected);
            assert_eq!(length, row.bytes.len());
        }
        (Err(error), Expect::Error(kind, reason_code)) => {
            assert_eq!(error.kind, *kind);
            assert_eq!(error.reason_code() as u8, *reason_code, "{error}");
        }
        (outcome, Expect::Packet(..)) => panic!("should be read: {outcome:?}"),
        (outcome, Expect::Error(kind, _)) => panic!("should be {kind:?}: {outcome:?}"),
    });
}

#[test]
fn refusals_name_their_packet() {
    each(|row, version| {
        let Err(error) = decode_whole(&row.bytes, version) else { return };
        let reserved = matches!(error.kind, DecodeErrorKind::ReservedPacketType(_));
        assert_eq!(error.packet.map_or(0, |kind| kind as u8), if reserved { 0 } else { row.bytes[0] >> 4 });
        if let Some(packet) = error.packet {
            assert!(error.to_string().starts_with(packet.name()), "{error}");
        }
    });
}

/// Whatever the connection was thought to speak, a broken CONNECT is answered in what it asked for itself.
#[test]
fn refused_connects_are_answered_in_a_version_that_they_understand() {
    let form = |notation: &str, version| {
        let bytes = vectors::bytes(notation);
        let error = decode_whole(&bytes, version).unwrap_err();
        (error.version, error.connack_form())
    };
    for version in [Version::V31, Version::V311, Version::V5] {
        for (protocol, asked) in
            [("('MQIsdp') 03", Version::V31), ("('MQTT') 04", Version::V311), ("('MQTT') 05", Version::V5)]
        {
            let broken = format!("10[ {protocol} 02 003C FF ]");
            assert_eq!(form(&broken, version), (Some(asked), Some(asked)));
        }
        assert_eq!(form("10[ ('MQTT') 06 02 003C [] ('c') ]", version), (None, Some(Version::V5)));
        assert_eq!(form("10[ ('MQTT') 06 02 003C ('c') ]", version), (None, Some(Version::V311)));
        // No client of MQTT, or none that got far enough to say which.
        assert_eq!(form("10[ ('HTTP') 04 02 003C ('c') ]", version), (None, None));
        assert_eq!(form("10[ ('MQTT') ]", version), (None, None));
        // Other packets do not name a version.
        assert_eq!(form("40 00", version), (None, None));
    }
}

/// A packet that has not arrived whole is never taken for one, and waiting for the rest ends.
#[test]
fn prefixes_are_incomplete_or_refused() {
    each(|row, version| {
        for length in prefix_lengths(row.bytes.len()) {
            match (decode_whole(&row.bytes[..length], version), &row.expect) {
                (Ok(Decoded::Incomplete(total)), Expect::Packet(..)) => {
                    let header_complete = row.bytes[1..length.max(1)].iter().any(|byte| byte & 0x80 == 0);
                    assert_eq!(total, header_complete.then_some(row.bytes.len()), "first {length} bytes");
                }
                (Ok(Decoded::Incomplete(_)), Expect::Error(..)) => {}
                (Err(error), Expect::Error(kind, _)) => assert_eq!(error.kind, *kind, "first {length} bytes"),
                (outcome, _) => panic!("first {length} bytes: {outcome:?}"),
            }
        }
    });
}

/// All lengths of small packets; of large ones the first and the last.
fn prefix_lengths(length: usize) -> impl Iterator<Item = usize> {
    (0..length.min(300)).chain(length.saturating_sub(3).max(length.min(300))..length)
}

#[test]
fn what_follows_a_packet_changes_nothing() {
    each(|row, version| {
        for next in [&[0xC0, 0x00][..], &[0x00], &[0xFF; 8]] {
            let mut bytes = row.bytes.clone();
            bytes.extend_from_slice(next);
            match (decode_whole(&bytes, version), decode_whole(&row.bytes, version)) {
                // Nothing but the fixed header was there, whose length goes on into what follows.
                (_, Err(error)) if error.kind == DecodeErrorKind::RemainingLength => {}
                (with_next, alone) => assert_eq!(with_next, alone),
            }
        }
    });
}

#[test]
fn packets_are_written_as_the_table_says() {
    each(|row, version| {
        let Expect::Packet(expected, canonical) = &row.expect else { return };
        let mut out = b"before".to_vec();
        encode(expected, version, &mut out);
        assert_eq!(&out[6..], &canonical[..], "the packet of the table");
        let Ok(Decoded::Packet(decoded, _)) = decode_whole(&row.bytes, version) else { panic!("no packet") };
        out.clear();
        encode(&decoded, version, &mut out);
        assert_eq!(&out, canonical, "the packet that was decoded");
    });
}

/// The size is judged by the fixed header alone.
#[test]
fn packets_over_the_receivers_limit_are_refused_before_their_body_arrives() {
    each(|row, version| {
        let Expect::Packet(..) = row.expect else { return };
        let packet_bytes = row.bytes.len() as u32;
        let whole = decode(&row.bytes, version, packet_bytes);
        assert!(matches!(whole, Ok(Decoded::Packet(..))));
        let packet_bytes_max = packet_bytes - 1;
        let kind = DecodeErrorKind::PacketTooLarge { packet_bytes, packet_bytes_max };
        let header_len = 2 + row.bytes[1..].iter().take_while(|&byte| byte & 0x80 != 0).count();
        for bytes in [&row.bytes[..], &row.bytes[..header_len]] {
            assert_eq!(decode(bytes, version, packet_bytes_max).unwrap_err().kind, kind);
        }
    });
}

/// Deliveries write the head by another way than `encode`.
#[test]
fn publish_heads_read_as_the_packet_that_they_stand_for() {
    each(|row, version| {
        let Expect::Packet(Packet::Publish(publish), _) = &row.expect else { return };
        let mut forwarded = Vec::new();
        publish.properties.write_forwarded(&mut forwarded);
        let subscription_ids: Vec<_> = publish.properties.subscription_ids.iter().collect();
        let head = PublishHead {
            dup: publish.dup,
            retain: publish.retain,
            delivery: publish.delivery,
            topic: publish.topic,
            forwarded: &forwarded,
            message_expiry_secs: publish.properties.message_expiry_secs,
            topic_alias: publish.properties.topic_alias,
            subscription_ids: &subscription_ids,
            payload_len: publish.payload.len(),
        };
        let mut out = Vec::new();
        head.write(version, &mut out);
        out.extend_from_slice(publish.payload);
        assert_eq!(out.len(), head.frame_len(version));
        let length = out.len();
        assert_eq!(
            decode_whole(&out, version),
            Ok(Decoded::Packet(Packet::Publish(publish.clone()), length))
        );
    });
}

#[test]
fn forwarded_properties_are_all_but_those_of_one_hop() {
    each(|row, _| {
        let Expect::Packet(Packet::Publish(publish), _) = &row.expect else { return };
        let mut raw = Vec::new();
        publish.properties.write_forwarded(&mut raw);
        let mut expected = publish.properties.clone();
        expected.message_expiry_secs = None;
        expected.topic_alias = None;
        expected.subscription_ids = Default::default();
        assert_eq!(decode_forwarded(&raw), Ok(expected));
    });
}
