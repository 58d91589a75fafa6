//! Packets and bytes that nobody wrote.

use std::num::{NonZeroU16, NonZeroU32};

use dunlin::codec::{
    Ack, AckProperties, Auth, AuthProperties, ConnAck, ConnAckProperties, ConnAckReturn, Connect,
    ConnectProperties, Decoded, Delivery, Disconnect, DisconnectProperties, PACKET_BYTES_LIMIT, Packet,
    PacketId, PayloadFormat, Publish, PublishHead, PublishProperties, QoS, ReasonCode, RetainHandling,
    SubAck, Subscribe, SubscribeFilters, SubscribeProperties, SubscriptionIds, SubscriptionOptions, UnsubAck,
    Unsubscribe, UnsubscribeFilters, UserProperties, Version, Will, WillProperties, decode, decode_forwarded,
    encode,
};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

use crate::vectors;

// Packets borrow, and what they borrow from is picked from these pools, which live as long as the program:
// values of the lengths at which their length fields, and those of what holds them, change width.

const LONG: &str = match str::from_utf8(&[b'x'; 65_535]) {
    Ok(text) => text,
    Err(_) => unreachable!(),
};

fn text() -> impl Strategy<Value = &'static str> {
    select(vec!["", "a", "+/#", "\u{FEFF}bom", "größe/😀", &LONG[..100], &LONG[..127], &LONG[..300], LONG])
}

fn topic() -> impl Strategy<Value = &'static str> {
    select(vec!["a", "/", "$SYS/x", "a//b", "größe/😀", &LONG[..120], &LONG[..128], LONG])
}

fn filter() -> impl Strategy<Value = &'static str> {
    select(vec!["#", "+", "a/b/#", "$share/g/a", "not/#/valid", "größe/😀", &LONG[..127], LONG])
}

fn data() -> impl Strategy<Value = &'static [u8]> {
    select(vec![&b""[..], b"\0", b"\x26\x00\x01k", b"\xFF\xC0\x80", &LONG.as_bytes()[..128], LONG.as_bytes()])
}

fn payload() -> impl Strategy<Value = &'static [u8]> {
    select(vec![
        &b""[..],
        b"\0",
        b"\xFF",
        &LONG.as_bytes()[..124],
        &LONG.as_bytes()[..16_380],
        LONG.as_bytes(),
    ])
}

fn user_properties() -> impl Strategy<Value = UserProperties<'static>> {
    const POOL: &[(&str, &str)] = &[
        ("k", "v"),
        ("", ""),
        ("k", "w"),
        ("größe", "\u{FEFF}"),
        ("long", LONG),
        ("k", "v"),
        ("z", "a"),
        ("#", "+"),
    ];
    (0..=POOL.len(), 0..=POOL.len()).prop_map(|(a, b)| UserProperties::from_list(&POOL[a.min(b)..a.max(b)]))
}

fn subscription_ids() -> impl Strategy<Value = SubscriptionIds<'static>> {
    const fn id(value: u32) -> NonZeroU32 {
        NonZeroU32::new(value).unwrap()
    }
    const POOL: &[NonZeroU32] = &[
        id(1),
        id(127),
        id(128),
        id(16_383),
        id(16_384),
        id(2_097_151),
        id(2_097_152),
        id(268_435_455),
        id(1),
    ];
    (0..=POOL.len(), 0..=POOL.len()).prop_map(|(a, b)| SubscriptionIds::from_list(&POOL[a.min(b)..a.max(b)]))
}

fn qos() -> impl Strategy<Value = QoS> {
    select(vec![QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce])
}

fn packet_id() -> impl Strategy<Value = PacketId> {
    any::<NonZeroU16>()
}

fn payload_format() -> impl Strategy<Value = PayloadFormat> {
    select(vec![PayloadFormat::Bytes, PayloadFormat::Utf8])
}

/// One of these numbers as a reason code.
fn reason(numbers: &'static [u8]) -> impl Strategy<Value = ReasonCode> {
    select(numbers).prop_map(|number| ReasonCode::from_u8(number).unwrap())
}

prop_compose! {
    fn connect_properties()(
        session_expiry_secs in of(any::<u32>()),
        receive_maximum in of(any::<NonZeroU16>()),
        packet_bytes_max in of(any::<NonZeroU32>()),
        topic_alias_maximum in of(any::<u16>()),
        request_response_information in of(any::<bool>()),
        request_problem_information in of(any::<bool>()),
        authentication in of((text(), of(data()))),
        user_properties in user_properties(),
    ) -> ConnectProperties<'static> {
        ConnectProperties {
            session_expiry_secs, receive_maximum, packet_bytes_max, topic_alias_maximum,
            request_response_information, request_problem_information, user_properties,
            authentication_method: authentication.map(|(method, _)| method),
            authentication_data: authentication.and_then(|(_, data)| data),
        }
    }
}

prop_compose! {
    fn will_properties()(
        delay_secs in of(any::<u32>()),
        payload_format in of(payload_format()),
        message_expiry_secs in of(any::<u32>()),
        content_type in of(text()),
        response_topic in of(topic()),
        correlation_data in of(data()),
        user_properties in user_properties(),
    ) -> WillProperties<'static> {
        WillProperties {
            delay_secs, payload_format, message_expiry_secs, content_type, response_topic,
            correlation_data, user_properties,
        }
    }
}

prop_compose! {
    fn will(version: Version)(
        qos in qos(),
        retain in any::<bool>(),
        topic in topic(),
        payload in data(),
        properties in will_properties(),
    ) -> Will<'static> {
        let properties = if version.is_v5() { properties } else { WillProperties::default() };
        Will { qos, retain, topic, payload, properties }
    }
}

prop_compose! {
    fn connect(version: Version)(
        clean_start in any::<bool>(),
        keep_alive_secs in any::<u16>(),
        client_id in text(),
        will in of(will(version)),
        user_name in of(text()),
        password in of(data()),
        properties in connect_properties(),
    ) -> Packet<'static> {
        let password = password.filter(|_| version.is_v5() || user_name.is_some());
        let properties = if version.is_v5() { properties } else { ConnectProperties::default() };
        Packet::Connect(Box::new(Connect {
            version, clean_start, keep_alive_secs, client_id, will, user_name, password, properties,
        }))
    }
}

prop_compose! {
    fn connack_properties()(
        numbers in (of(any::<u32>()), of(any::<NonZeroU16>()), of(any::<NonZeroU32>()), of(any::<u16>()), of(any::<u16>())),
        maximum_qos in of(select(vec![QoS::AtMostOnce, QoS::AtLeastOnce])),
        available in (of(any::<bool>()), of(any::<bool>()), of(any::<bool>()), of(any::<bool>())),
        texts in (of(text()), of(text()), of(text()), of(text()), of(text())),
        authentication_data in of(data()),
        user_properties in user_properties(),
    ) -> ConnAckProperties<'static> {
        let (session_expiry_secs, receive_maximum, packet_bytes_max, topic_alias_maximum, server_keep_alive_secs) = numbers;
        let (assigned_client_id, reason_string, response_information, server_reference, authentication_method) = texts;
        ConnAckProperties {
            session_expiry_secs, receive_maximum, maximum_qos, packet_bytes_max, assigned_client_id,
            topic_alias_maximum, reason_string, server_keep_alive_secs, response_information,
            server_reference, authentication_method, authentication_data, user_properties,
            retain_available: available.0,
            wildcard_subscription_available: available.1,
            subscription_ids_available: available.2,
            shared_subscription_available: available.3,
        }
    }
}

prop_compose! {
    fn connack(version: Version)(
        session_present in any::<bool>(),
        number in 0..=5u8,
        reason in reason(&[0x00, 0x80, 0x84, 0x8A, 0x8C, 0x95, 0x9F]),
        properties in connack_properties(),
    ) -> Packet<'static> {
        let (code, properties) = match version.is_v5() {
            true => (ConnAckReturn::V5(reason), properties),
            false => (ConnAckReturn::V3(number), ConnAckProperties::default()),
        };
        let session_present = session_present && code.number() == 0;
        Packet::ConnAck(Box::new(ConnAck { session_present, code, properties }))
    }
}

prop_compose! {
    fn publish_properties()(
        payload_format in of(payload_format()),
        message_expiry_secs in of(any::<u32>()),
        topic_alias in of(any::<NonZeroU16>()),
        response_topic in of(topic()),
        correlation_data in of(data()),
        content_type in of(text()),
        subscription_ids in subscription_ids(),
        user_properties in user_properties(),
    ) -> PublishProperties<'static> {
        PublishProperties {
            payload_format, message_expiry_secs, topic_alias, response_topic, correlation_data,
            content_type, subscription_ids, user_properties,
        }
    }
}

prop_compose! {
    fn publish(version: Version)(
        dup in any::<bool>(),
        qos in qos(),
        packet_id in packet_id(),
        retain in any::<bool>(),
        topic in topic(),
        alias_alone in any::<bool>(),
        properties in publish_properties(),
        payload in payload(),
    ) -> Publish<'static> {
        let properties = if version.is_v5() { properties } else { PublishProperties::default() };
        Publish {
            dup: dup && qos != QoS::AtMostOnce,
            delivery: match qos {
                QoS::AtMostOnce => Delivery::AtMostOnce,
                QoS::AtLeastOnce => Delivery::AtLeastOnce(packet_id),
                QoS::ExactlyOnce => Delivery::ExactlyOnce(packet_id),
            },
            retain,
            topic: if alias_alone && properties.topic_alias.is_some() { "" } else { topic },
            properties,
            payload,
        }
    }
}

prop_compose! {
    fn ack_properties(version: Version)(
        reason_string in of(text()),
        user_properties in user_properties(),
    ) -> AckProperties<'static> {
        match version.is_v5() {
            true => AckProperties { reason_string, user_properties },
            false => AckProperties::default(),
        }
    }
}

prop_compose! {
    fn ack(version: Version, numbers: &'static [u8])(
        packet_id in packet_id(),
        reason in reason(numbers),
        properties in ack_properties(version),
    ) -> Ack<'static> {
        Ack { packet_id, reason: if version.is_v5() { reason } else { ReasonCode::Success }, properties }
    }
}

prop_compose! {
    fn options(version: Version)(
        qos in qos(),
        no_local in any::<bool>(),
        retain_as_published in any::<bool>(),
        retain_handling in select(vec![RetainHandling::Send, RetainHandling::SendIfNew, RetainHandling::DoNotSend]),
    ) -> SubscriptionOptions {
        match version.is_v5() {
            true => SubscriptionOptions { qos, no_local, retain_as_published, retain_handling },
            false => SubscriptionOptions { qos, ..SubscriptionOptions::default() },
        }
    }
}

/// Lists of filters are short and leaked: nothing else has filters that live as long as the packet.
fn subscribe(version: Version) -> impl Strategy<Value = Packet<'static>> {
    let filters = vec((filter(), options(version)), 1..5);
    let subscription_id = of((1..=268_435_455u32).prop_map(|id| NonZeroU32::new(id).unwrap()));
    (packet_id(), subscription_id, user_properties(), filters).prop_map(
        move |(packet_id, subscription_id, user_properties, mut filters)| {
            for (filter, options) in &mut filters {
                options.no_local &= !filter.starts_with("$share/");
            }
            let properties = match version.is_v5() {
                true => SubscribeProperties { subscription_id, user_properties },
                false => SubscribeProperties::default(),
            };
            Packet::Subscribe(Subscribe {
                packet_id,
                properties,
                filters: SubscribeFilters::from_list(filters.leak()),
            })
        },
    )
}

fn unsubscribe(version: Version) -> impl Strategy<Value = Packet<'static>> {
    (packet_id(), user_properties(), vec(filter(), 1..5)).prop_map(
        move |(packet_id, user_properties, filters)| {
            let user_properties = if version.is_v5() { user_properties } else { UserProperties::default() };
            Packet::Unsubscribe(Unsubscribe {
                packet_id,
                user_properties,
                filters: UnsubscribeFilters::from_list(filters.leak()),
            })
        },
    )
}

fn suback(version: Version) -> impl Strategy<Value = Packet<'static>> {
    let codes: &[&[u8]] = match version.is_v5() {
        true => &[&[0], &[0x87, 0x01], &[0x00, 0x01, 0x02, 0x80, 0xA2], &[0x97; 130]],
        false => &[&[0], &[0x80, 0x01], &[0x00, 0x01, 0x02, 0x80], &[0x80; 130]],
    };
    (packet_id(), ack_properties(version), select(codes))
        .prop_map(|(packet_id, properties, codes)| Packet::SubAck(SubAck { packet_id, properties, codes }))
}

fn unsuback(version: Version) -> impl Strategy<Value = Packet<'static>> {
    let codes: &[&[u8]] = if version.is_v5() { &[&[0], &[0x11, 0x00, 0x87], &[0; 130]] } else { &[&[]] };
    (packet_id(), ack_properties(version), select(codes)).prop_map(|(packet_id, properties, codes)| {
        Packet::UnsubAck(UnsubAck { packet_id, properties, codes })
    })
}

prop_compose! {
    fn disconnect(version: Version)(
        reason in reason(&[0x00, 0x04, 0x81, 0x8B, 0x8E, 0x9D, 0xA2]),
        session_expiry_secs in of(any::<u32>()),
        reason_string in of(text()),
        server_reference in of(text()),
        user_properties in user_properties(),
    ) -> Packet<'static> {
        Packet::Disconnect(match version.is_v5() {
            true => Disconnect {
                reason,
                properties: DisconnectProperties { session_expiry_secs, reason_string, server_reference, user_properties },
            },
            false => Disconnect::new(ReasonCode::Success),
        })
    }
}

prop_compose! {
    fn auth()(
        reason in reason(&[0x00, 0x18, 0x19]),
        method in text(),
        data in of(data()),
        reason_string in of(text()),
        user_properties in user_properties(),
    ) -> Packet<'static> {
        Packet::Auth(Auth { reason, properties: AuthProperties { method: Some(method), data, reason_string, user_properties } })
    }
}

fn version() -> impl Strategy<Value = Version> {
    select(vec![Version::V31, Version::V311, Version::V5])
}

fn packet(version: Version) -> BoxedStrategy<Packet<'static>> {
    let pub_ack = || ack(version, &[0x00, 0x10, 0x80, 0x87, 0x99]);
    let pub_rel = || ack(version, &[0x00, 0x92]);
    let of_any_version = prop_oneof![
        connect(version),
        connack(version),
        publish(version).prop_map(Packet::Publish),
        pub_ack().prop_map(Packet::PubAck),
        pub_ack().prop_map(Packet::PubRec),
        pub_rel().prop_map(Packet::PubRel),
        pub_rel().prop_map(Packet::PubComp),
        subscribe(version),
        suback(version),
        unsubscribe(version),
        unsuback(version),
        Just(Packet::PingReq),
        Just(Packet::PingResp),
        disconnect(version),
    ];
    if version.is_v5() {
        prop_oneof![14 => of_any_version, 1 => auth()].boxed()
    } else {
        of_any_version.boxed()
    }
}

pub(crate) fn versioned_packet() -> impl Strategy<Value = (Version, Packet<'static>)> {
    version().prop_flat_map(|version| (Just(version), packet(version)))
}

pub(crate) fn encoded(packet: &Packet<'_>, version: Version) -> Vec<u8> {
    let mut out = Vec::new();
    encode(packet, version, &mut out);
    out
}

/// Whatever the bytes are, they are a packet that can be written and read again, incomplete, or refused.
fn check_any_bytes(bytes: &[u8], version: Version) {
    match decode(bytes, version, PACKET_BYTES_LIMIT) {
        Ok(Decoded::Packet(packet, length)) => {
            assert!(length <= bytes.len());
            let version = if let Packet::Connect(connect) = &packet { connect.version } else { version };
            let again = encoded(&packet, version);
            assert_eq!(decode(&again, version, PACKET_BYTES_LIMIT), Ok(Decoded::Packet(packet, again.len())));
        }
        Ok(Decoded::Incomplete(Some(length))) => assert!(length > bytes.len()),
        Ok(Decoded::Incomplete(None)) => assert!(bytes.len() < 5),
        Err(error) => {
            let _ = (error.to_string(), error.reason_code(), error.connack_form());
        }
    }
}

proptest! {
    #[test]
    fn every_packet_survives_the_wire((version, packet) in versioned_packet()) {
        let bytes = encoded(&packet, version);
        prop_assert_eq!(decode(&bytes, version, PACKET_BYTES_LIMIT), Ok(Decoded::Packet(packet, bytes.len())));
    }

    #[test]
    fn every_delivery_reads_as_the_publish_that_it_stands_for(
        (version, publish) in version().prop_flat_map(|version| (Just(version), publish(version))),
    ) {
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
        let mut bytes = Vec::new();
        head.write(version, &mut bytes);
        bytes.extend_from_slice(publish.payload);
        prop_assert_eq!(head.frame_len(version), bytes.len());
        prop_assert_eq!(
            decode(&bytes, version, PACKET_BYTES_LIMIT),
            Ok(Decoded::Packet(Packet::Publish(publish), bytes.len()))
        );
    }

    /// What is not the packet's own version's is not written: the head of a delivery ignores it.
    #[test]
    fn deliveries_before_v5_have_no_properties(publish in publish(Version::V5)) {
        let topic = if publish.topic.is_empty() { "t" } else { publish.topic };
        let head = PublishHead {
            dup: true,
            retain: publish.retain,
            delivery: publish.delivery,
            topic,
            forwarded: &[0x01, 0x01],
            message_expiry_secs: Some(1),
            topic_alias: NonZeroU16::new(1),
            subscription_ids: &[NonZeroU32::MIN],
            payload_len: publish.payload.len(),
        };
        let mut bytes = Vec::new();
        head.write(Version::V311, &mut bytes);
        bytes.extend_from_slice(publish.payload);
        let dup = publish.delivery.qos() != QoS::AtMostOnce;
        let expected = Publish { dup, topic, properties: PublishProperties::default(), ..publish };
        prop_assert_eq!(
            decode(&bytes, Version::V311, PACKET_BYTES_LIMIT),
            Ok(Decoded::Packet(Packet::Publish(expected), bytes.len()))
        );
    }

    /// A will is forwarded as the publish that it becomes.
    #[test]
    fn properties_of_a_will_are_forwarded_as_those_of_a_publish(will in will_properties()) {
        let mut raw = Vec::new();
        will.write_forwarded(&mut raw);
        let expected = PublishProperties {
            payload_format: will.payload_format,
            content_type: will.content_type,
            response_topic: will.response_topic,
            correlation_data: will.correlation_data,
            user_properties: will.user_properties,
            ..PublishProperties::default()
        };
        prop_assert_eq!(decode_forwarded(&raw), Ok(expected));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..64), version in version()) {
        check_any_bytes(&bytes, version);
    }

    /// Any body behind a right fixed header, which random bytes seldom have.
    #[test]
    fn any_body_is_read_or_refused(first in any::<u8>(), body in vec(any::<u8>(), 0..120), version in version()) {
        let mut bytes = vec![first, body.len() as u8];
        bytes.extend(body);
        check_any_bytes(&bytes, version);
    }

    /// The bytes of the table, with some changed, put in or taken out and the length corrected or not.
    #[test]
    fn any_mutation_of_a_packet_is_read_or_refused(
        row in any::<prop::sample::Index>(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>(), 0..3), 1..4),
        correct_length in any::<bool>(),
        version in version(),
    ) {
        thread_local! {
            static SMALL: Vec<Vec<u8>> =
                vectors::rows().into_iter().map(|row| row.bytes).filter(|bytes| bytes.len() < 120).collect();
        }
        let mut bytes = SMALL.with(|rows| rows[row.index(rows.len())].clone());
        for (at, value, change) in changes {
            let at = at.index(bytes.len().max(1));
            match change {
                0 if at < bytes.len() => bytes[at] = value,
                1 if at < bytes.len() => drop(bytes.remove(at)),
                _ => bytes.insert(at, value),
            }
        }
        if correct_length && bytes.len() >= 2 {
            bytes[1] = (bytes.len() - 2) as u8;
        }
        check_any_bytes(&bytes, version);
    }
}
