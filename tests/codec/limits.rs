//! What is left out of a packet that would be too large for its receiver.

use std::num::NonZeroU16;

use dunlin::codec::{
    Ack, AckProperties, Auth, AuthProperties, ConnAck, ConnAckProperties, ConnAckReturn, Decoded, Delivery,
    Disconnect, DisconnectProperties, PACKET_BYTES_LIMIT, Packet, PacketId, Publish, PublishProperties,
    ReasonCode, SubAck, UnsubAck, UserProperties, Version, decode, encode, encode_within,
};

const ID: PacketId = NonZeroU16::new(1).unwrap();

/// Each kind of answer, with or without what it may be sent without.
fn answers<'a>(reason_string: Option<&'a str>, user_properties: UserProperties<'a>) -> Vec<Packet<'a>> {
    let properties = AckProperties { reason_string, user_properties };
    let ack = Ack { packet_id: ID, reason: ReasonCode::Success, properties: properties.clone() };
    vec![
        // [MQTT-3.2.2-19], [MQTT-3.2.2-20]
        Packet::ConnAck(Box::new(ConnAck {
            session_present: false,
            code: ConnAckReturn::V5(ReasonCode::Success),
            properties: ConnAckProperties {
                assigned_client_id: Some("assigned"),
                reason_string,
                user_properties,
                ..ConnAckProperties::default()
            },
        })),
        // [MQTT-3.4.2-2], [MQTT-3.4.2-3] and their like for the other three.
        Packet::PubAck(ack.clone()),
        Packet::PubRec(ack.clone()),
        Packet::PubRel(ack.clone()),
        Packet::PubComp(ack),
        // [MQTT-3.9.2-1], [MQTT-3.9.2-2]
        Packet::SubAck(SubAck { packet_id: ID, properties: properties.clone(), codes: &[0, 1] }),
        // [MQTT-3.11.2-1], [MQTT-3.11.2-2]
        Packet::UnsubAck(UnsubAck { packet_id: ID, properties, codes: &[0, 0] }),
        // [MQTT-3.14.2-3], [MQTT-3.14.2-4]
        Packet::Disconnect(Disconnect {
            reason: ReasonCode::ServerBusy,
            properties: DisconnectProperties {
                server_reference: Some("other"),
                reason_string,
                user_properties,
                ..DisconnectProperties::default()
            },
        }),
        // [MQTT-3.15.2-2], [MQTT-3.15.2-3]
        Packet::Auth(Auth {
            reason: ReasonCode::ContinueAuthentication,
            properties: AuthProperties {
                method: Some("m"),
                data: Some(b"d"),
                reason_string,
                user_properties,
            },
        }),
    ]
}

fn encoded(packet: &Packet<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    encode(packet, Version::V5, &mut out);
    out
}

/// What `encode_within` appends, if anything.
fn within(packet: &Packet<'_>, packet_bytes_max: usize) -> Option<Vec<u8>> {
    let mut out = b"before".to_vec();
    let written = encode_within(packet, Version::V5, packet_bytes_max as u32, &mut out);
    assert_eq!(&out[..6], b"before");
    assert_eq!(written, out.len() > 6, "what does not fit leaves no trace");
    written.then(|| out.split_off(6))
}

#[test]
fn answers_lose_user_properties_first_and_the_reason_string_next() {
    let list = [("name", "value"), ("name", "another")];
    let full = answers(Some("why it is so"), UserProperties::from_list(&list));
    let without_user_properties = answers(Some("why it is so"), UserProperties::default());
    let bare = answers(None, UserProperties::default());
    for ((full, short), bare) in full.iter().zip(&without_user_properties).zip(&bare) {
        let (long, short, bare) = (encoded(full), encoded(short), encoded(bare));
        for packet_bytes_max in 0..=long.len() + 1 {
            let expected = [&long, &short, &bare].into_iter().find(|bytes| bytes.len() <= packet_bytes_max);
            assert_eq!(within(full, packet_bytes_max).as_ref(), expected, "{} bytes", packet_bytes_max);
        }
    }
}

/// [MQTT-3.3.2-17] what a publisher said is forwarded whole or not at all. [MQTT-3.1.2-25]
#[test]
fn publish_loses_nothing() {
    let packet = Packet::Publish(Publish {
        dup: false,
        delivery: Delivery::AtMostOnce,
        retain: false,
        topic: "t",
        properties: PublishProperties {
            user_properties: UserProperties::from_list(&[("k", "v")]),
            ..PublishProperties::default()
        },
        payload: b"payload",
    });
    let whole = encoded(&packet);
    assert_eq!(within(&packet, whole.len()), Some(whole.clone()));
    assert_eq!(within(&packet, whole.len() - 1), None);
}

/// Without this check the length would not fit its four bytes.
#[test]
fn payloads_over_what_the_format_can_express_are_not_written() {
    let payload = vec![0; PACKET_BYTES_LIMIT as usize];
    let publish = |payload| Publish {
        dup: false,
        delivery: Delivery::AtMostOnce,
        retain: false,
        topic: "t",
        properties: PublishProperties::default(),
        payload,
    };
    let mut out = Vec::new();
    let head_len = 5 + 3;
    for (payload_len, fits) in [(0, true), (1, false), (head_len, false)] {
        let payload = &payload[..PACKET_BYTES_LIMIT as usize - head_len + payload_len];
        let packet = Packet::Publish(publish(payload));
        out.clear();
        assert_eq!(encode_within(&packet, Version::V311, u32::MAX, &mut out), fits);
        assert_eq!(out.len(), if fits { PACKET_BYTES_LIMIT as usize } else { 0 });
        if fits {
            let length = out.len();
            assert_eq!(decode(&out, Version::V311, u32::MAX), Ok(Decoded::Packet(packet, length)));
        }
    }
}
