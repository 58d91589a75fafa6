//! What was decoded can be encoded, and reads the same again; so do its forwarded properties, and what
//! `encode_within` leaves of it.
//!
//! The first byte of the input picks the version, the second the size limit of the answer.

use dunlin::codec::{
    Decoded, PACKET_BYTES_LIMIT, Packet, Publish, PublishHead, SubscriptionIds, Version, decode,
    decode_forwarded, encode, encode_within,
};

/// Checks one input.
pub(crate) fn run(input: &[u8]) {
    let [version, limit, stream @ ..] = input else { return };
    let version = [Version::V31, Version::V311, Version::V5][usize::from(version % 3)];
    let Ok(Decoded::Packet(packet, _)) = decode(stream, version, PACKET_BYTES_LIMIT) else { return };
    // CONNECT is written in its own version.
    let version = if let Packet::Connect(connect) = &packet { connect.version } else { version };

    let mut bytes = Vec::new();
    encode(&packet, version, &mut bytes);
    let again = decode(&bytes, version, PACKET_BYTES_LIMIT);
    assert_eq!(again, Ok(Decoded::Packet(packet.clone(), bytes.len())));
    let mut canonical = Vec::new();
    if let Ok(Decoded::Packet(packet, _)) = again {
        encode(&packet, version, &mut canonical);
    }
    assert_eq!(canonical, bytes, "what we write is canonical");

    let mut within = Vec::new();
    if encode_within(&packet, version, u32::from(*limit), &mut within) {
        assert!(within.len() <= usize::from(*limit));
        let reduced = decode(&within, version, PACKET_BYTES_LIMIT);
        assert!(matches!(reduced, Ok(Decoded::Packet(reduced, _)) if reduced.kind() == packet.kind()));
    } else {
        assert!(within.is_empty());
    }

    if let Packet::Publish(publish) = &packet {
        deliver(publish, version);
    }
}

/// Writes the packet by way of its head.
fn deliver(publish: &Publish<'_>, version: Version) {
    let mut forwarded = Vec::new();
    publish.properties.write_forwarded(&mut forwarded);
    let mut stored = decode_forwarded(&forwarded).expect("what was written can be read");
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
    let mut bytes = Vec::new();
    head.write(version, &mut bytes);
    bytes.extend_from_slice(publish.payload);
    assert_eq!(bytes.len(), head.frame_len(version));
    let read = decode(&bytes, version, PACKET_BYTES_LIMIT);
    assert_eq!(read, Ok(Decoded::Packet(Packet::Publish(publish.clone()), bytes.len())));

    stored.message_expiry_secs = publish.properties.message_expiry_secs;
    stored.topic_alias = publish.properties.topic_alias;
    stored.subscription_ids = SubscriptionIds::from_list(&subscription_ids);
    assert_eq!(stored, publish.properties);
}
