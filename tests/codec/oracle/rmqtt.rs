//! rmqtt-codec 0.3.

use std::num::{NonZeroU16, NonZeroU32};

use dunlin::codec::{
    Ack, AckProperties, Auth, AuthProperties, ConnAck, ConnAckProperties, ConnAckReturn, Connect,
    ConnectProperties, Disconnect, DisconnectProperties, Packet, PayloadFormat, PublishProperties, QoS,
    ReasonCode, SubAck, Subscribe, SubscribeFilters, SubscribeProperties, SubscriptionIds,
    SubscriptionOptions, UnsubAck, Unsubscribe, UnsubscribeFilters, UserProperties, Version, Will,
    WillProperties,
};
use rmqtt_codec::{v3, v5};
use tokio_util::codec::Decoder;

use super::{packet_id, publish, qos, reason, retain_handling, user_properties};

pub(super) fn check(packet: &Packet<'_>, version: Version, bytes: &[u8]) {
    if cannot_read(packet) {
        return;
    }
    let mut stream = bytes.into();
    if version.is_v5() {
        let (theirs, _) = v5::Codec::new(0, 0).decode(&mut stream).unwrap().unwrap();
        assert_eq!(from_v5(&theirs), without_defaults(packet));
    } else {
        let (theirs, _) = v3::Codec::new(0).decode(&mut stream).unwrap().unwrap();
        assert_eq!(&from_v3(&theirs), packet);
    }
    assert!(stream.is_empty());
}

/// What is valid and rmqtt-codec refuses or garbles.
fn cannot_read(packet: &Packet<'_>) -> bool {
    match packet {
        Packet::Connect(connect) => {
            let expires_at_once = |will: &Will<'_>| will.properties.message_expiry_secs == Some(0);
            // Before v5 the server has to refuse an empty client identifier without clean session, but that
            // is not the codec's to do; in v5 there is nothing to refuse.
            let refused = connect.client_id.is_empty() && !connect.clean_start;
            refused || connect.will.as_ref().is_some_and(expires_at_once)
        }
        Packet::Publish(publish) => publish.properties.message_expiry_secs == Some(0),
        _ => false,
    }
}

/// The packet as it is after absent properties have got the values that they stand for, which is how
/// rmqtt-codec keeps many of them: both forms are written as absent.
fn without_defaults<'a>(packet: &Packet<'a>) -> Packet<'a> {
    let mut packet = packet.clone();
    match &mut packet {
        Packet::Connect(connect) => {
            let properties = &mut connect.properties;
            properties.session_expiry_secs.take_if(|secs| *secs == 0);
            properties.topic_alias_maximum.take_if(|maximum| *maximum == 0);
            properties.request_problem_information.take_if(|wanted| *wanted);
            properties.request_response_information.take_if(|wanted| !*wanted);
        }
        Packet::ConnAck(connack) => {
            let properties = &mut connack.properties;
            properties.receive_maximum.take_if(|maximum| maximum.get() == u16::MAX);
            properties.topic_alias_maximum.take_if(|maximum| *maximum == 0);
            properties.retain_available.take_if(|available| *available);
            properties.wildcard_subscription_available.take_if(|available| *available);
            properties.subscription_ids_available.take_if(|available| *available);
            properties.shared_subscription_available.take_if(|available| *available);
        }
        Packet::Publish(publish) => {
            publish.properties.payload_format.take_if(|format| *format == PayloadFormat::Bytes);
        }
        _ => {}
    }
    packet
}

fn pairs(list: &v5::UserProperties) -> UserProperties<'_> {
    user_properties(list.iter().map(|(name, value)| (&**name, &**value)))
}

fn from_v3(theirs: &v3::Packet) -> Packet<'_> {
    let success = |packet_id: &NonZeroU16| Ack::success(*packet_id);
    match theirs {
        v3::Packet::Connect(connect) => Packet::Connect(Box::new(Connect {
            version: if connect.protocol.level() == 3 { Version::V31 } else { Version::V311 },
            clean_start: connect.clean_session,
            keep_alive_secs: connect.keep_alive,
            client_id: &connect.client_id,
            will: connect.last_will.as_ref().map(|will| Will {
                qos: qos(will.qos.value()),
                retain: will.retain,
                topic: &will.topic,
                payload: &will.message,
                properties: WillProperties::default(),
            }),
            user_name: connect.username.as_deref(),
            password: connect.password.as_deref(),
            properties: ConnectProperties::default(),
        })),
        v3::Packet::ConnectAck(connack) => Packet::ConnAck(Box::new(ConnAck {
            session_present: connack.session_present,
            code: ConnAckReturn::V3(connack.return_code.into()),
            properties: ConnAckProperties::default(),
        })),
        v3::Packet::Publish(p) => {
            let packet_id = p.packet_id.map_or(0, NonZeroU16::get);
            let flags = (p.dup, p.qos.value(), p.retain);
            publish(flags, &p.topic, packet_id, PublishProperties::default(), &p.payload)
        }
        v3::Packet::PublishAck { packet_id } => Packet::PubAck(success(packet_id)),
        v3::Packet::PublishReceived { packet_id } => Packet::PubRec(success(packet_id)),
        v3::Packet::PublishRelease { packet_id } => Packet::PubRel(success(packet_id)),
        v3::Packet::PublishComplete { packet_id } => Packet::PubComp(success(packet_id)),
        v3::Packet::Subscribe { packet_id, topic_filters } => {
            let options = |requested: u8| SubscriptionOptions { qos: qos(requested), ..Default::default() };
            let filters = topic_filters.iter().map(|(filter, qos)| (&**filter, options(qos.value())));
            Packet::Subscribe(Subscribe {
                packet_id: *packet_id,
                properties: SubscribeProperties::default(),
                filters: SubscribeFilters::from_list(filters.collect::<Vec<_>>().leak()),
            })
        }
        v3::Packet::SubscribeAck { packet_id, status } => {
            let code = |code: &v3::SubscribeReturnCode| match code {
                v3::SubscribeReturnCode::Success(qos) => qos.value(),
                v3::SubscribeReturnCode::Failure => 0x80,
            };
            let codes = status.iter().map(code).collect::<Vec<_>>().leak();
            Packet::SubAck(SubAck { packet_id: *packet_id, properties: AckProperties::default(), codes })
        }
        v3::Packet::Unsubscribe { packet_id, topic_filters } => {
            let filters = topic_filters.iter().map(|filter| &**filter).collect::<Vec<_>>().leak();
            Packet::Unsubscribe(Unsubscribe {
                packet_id: *packet_id,
                user_properties: UserProperties::default(),
                filters: UnsubscribeFilters::from_list(filters),
            })
        }
        v3::Packet::UnsubscribeAck { packet_id } => Packet::UnsubAck(UnsubAck {
            packet_id: *packet_id,
            properties: AckProperties::default(),
            codes: &[],
        }),
        v3::Packet::PingRequest => Packet::PingReq,
        v3::Packet::PingResponse => Packet::PingResp,
        v3::Packet::Disconnect => Packet::Disconnect(Disconnect::new(ReasonCode::Success)),
    }
}

/// The acknowledgements have the same properties in four types.
macro_rules! ack_properties {
    ($ack:expr) => {
        AckProperties {
            reason_string: $ack.reason_string.as_deref(),
            user_properties: pairs(&$ack.properties),
        }
    };
}

macro_rules! ack {
    ($kind:ident, $ack:expr) => {
        Packet::$kind(Ack {
            packet_id: $ack.packet_id,
            reason: reason($ack.reason_code.into()),
            properties: ack_properties!($ack),
        })
    };
}

fn from_v5(theirs: &v5::Packet) -> Packet<'_> {
    match theirs {
        v5::Packet::Connect(connect) => from_connect(connect),
        v5::Packet::ConnectAck(connack) => from_connack(connack),
        v5::Packet::Publish(p) => {
            let packet_id = p.packet_id.map_or(0, NonZeroU16::get);
            let properties = p.properties.as_ref().map(from_publish_properties).unwrap_or_default();
            publish((p.dup, p.qos.value(), p.retain), &p.topic, packet_id, properties, &p.payload)
        }
        v5::Packet::PublishAck(ack) => ack!(PubAck, ack),
        v5::Packet::PublishReceived(ack) => ack!(PubRec, ack),
        v5::Packet::PublishRelease(ack) => ack!(PubRel, ack),
        v5::Packet::PublishComplete(ack) => ack!(PubComp, ack),
        v5::Packet::Subscribe(subscribe) => from_subscribe(subscribe),
        v5::Packet::SubscribeAck(suback) => Packet::SubAck(SubAck {
            packet_id: suback.packet_id,
            properties: ack_properties!(suback),
            codes: suback.status.iter().map(|&code| code.into()).collect::<Vec<u8>>().leak(),
        }),
        v5::Packet::Unsubscribe(unsubscribe) => {
            let filters = unsubscribe.topic_filters.iter().map(|filter| &**filter).collect::<Vec<_>>().leak();
            Packet::Unsubscribe(Unsubscribe {
                packet_id: packet_id(unsubscribe.packet_id.get()),
                user_properties: pairs(&unsubscribe.user_properties),
                filters: UnsubscribeFilters::from_list(filters),
            })
        }
        v5::Packet::UnsubscribeAck(unsuback) => Packet::UnsubAck(UnsubAck {
            packet_id: unsuback.packet_id,
            properties: ack_properties!(unsuback),
            codes: unsuback.status.iter().map(|&code| code.into()).collect::<Vec<u8>>().leak(),
        }),
        v5::Packet::PingRequest => Packet::PingReq,
        v5::Packet::PingResponse => Packet::PingResp,
        v5::Packet::Disconnect(disconnect) => Packet::Disconnect(Disconnect {
            reason: reason(disconnect.reason_code.into()),
            properties: DisconnectProperties {
                session_expiry_secs: disconnect.session_expiry_interval_secs,
                reason_string: disconnect.reason_string.as_deref(),
                server_reference: disconnect.server_reference.as_deref(),
                user_properties: pairs(&disconnect.user_properties),
            },
        }),
        v5::Packet::Auth(auth) => Packet::Auth(Auth {
            reason: reason(auth.reason_code.into()),
            properties: AuthProperties {
                method: auth.auth_method.as_deref(),
                data: auth.auth_data.as_deref(),
                reason_string: auth.reason_string.as_deref(),
                user_properties: pairs(&auth.user_properties),
            },
        }),
    }
}

fn from_connect(connect: &v5::Connect) -> Packet<'_> {
    Packet::Connect(Box::new(Connect {
        version: Version::V5,
        clean_start: connect.clean_start,
        keep_alive_secs: connect.keep_alive,
        client_id: &connect.client_id,
        will: connect.last_will.as_ref().map(|will| Will {
            qos: qos(will.qos.value()),
            retain: will.retain,
            topic: &will.topic,
            payload: &will.message,
            properties: WillProperties {
                delay_secs: will.will_delay_interval_sec,
                payload_format: will.is_utf8_payload.map(|utf8| super::payload_format(u8::from(utf8))),
                message_expiry_secs: will.message_expiry_interval.map(NonZeroU32::get),
                content_type: will.content_type.as_deref(),
                response_topic: will.response_topic.as_deref(),
                correlation_data: will.correlation_data.as_deref(),
                user_properties: pairs(&will.user_properties),
            },
        }),
        user_name: connect.username.as_deref(),
        password: connect.password.as_deref(),
        properties: ConnectProperties {
            session_expiry_secs: Some(connect.session_expiry_interval_secs).filter(|&secs| secs != 0),
            receive_maximum: connect.receive_max,
            packet_bytes_max: connect.max_packet_size,
            topic_alias_maximum: Some(connect.topic_alias_max).filter(|&maximum| maximum != 0),
            request_response_information: connect.request_response_info.then_some(true),
            request_problem_information: (!connect.request_problem_info).then_some(false),
            authentication_method: connect.auth_method.as_deref(),
            authentication_data: connect.auth_data.as_deref(),
            user_properties: pairs(&connect.user_properties),
        },
    }))
}

fn from_connack(connack: &v5::ConnectAck) -> Packet<'_> {
    let unavailable = |available: bool| (!available).then_some(false);
    Packet::ConnAck(Box::new(ConnAck {
        session_present: connack.session_present,
        code: ConnAckReturn::V5(reason(connack.reason_code.into())),
        properties: ConnAckProperties {
            session_expiry_secs: connack.session_expiry_interval_secs,
            receive_maximum: Some(connack.receive_max).filter(|maximum| maximum.get() != u16::MAX),
            maximum_qos: Some(qos(connack.max_qos.value())).filter(|&maximum| maximum != QoS::ExactlyOnce),
            retain_available: unavailable(connack.retain_available),
            packet_bytes_max: connack.max_packet_size.and_then(NonZeroU32::new),
            assigned_client_id: connack.assigned_client_id.as_deref(),
            topic_alias_maximum: Some(connack.topic_alias_max).filter(|&maximum| maximum != 0),
            reason_string: connack.reason_string.as_deref(),
            wildcard_subscription_available: unavailable(connack.wildcard_subscription_available),
            subscription_ids_available: unavailable(connack.subscription_identifiers_available),
            shared_subscription_available: unavailable(connack.shared_subscription_available),
            server_keep_alive_secs: connack.server_keepalive_sec,
            response_information: connack.response_info.as_deref(),
            server_reference: connack.server_reference.as_deref(),
            authentication_method: connack.auth_method.as_deref(),
            authentication_data: connack.auth_data.as_deref(),
            user_properties: pairs(&connack.user_properties),
        },
    }))
}

fn from_publish_properties(properties: &v5::PublishProperties) -> PublishProperties<'_> {
    PublishProperties {
        payload_format: properties.is_utf8_payload.then_some(PayloadFormat::Utf8),
        message_expiry_secs: properties.message_expiry_interval.map(NonZeroU32::get),
        topic_alias: properties.topic_alias,
        response_topic: properties.response_topic.as_deref(),
        correlation_data: properties.correlation_data.as_deref(),
        content_type: properties.content_type.as_deref(),
        subscription_ids: SubscriptionIds::from_list(&properties.subscription_ids),
        user_properties: pairs(&properties.user_properties),
    }
}

fn from_subscribe(subscribe: &v5::Subscribe) -> Packet<'_> {
    let options = |options: &v5::SubscriptionOptions| SubscriptionOptions {
        qos: qos(options.qos.value()),
        no_local: options.no_local,
        retain_as_published: options.retain_as_published,
        retain_handling: retain_handling(options.retain_handling.into()),
    };
    let filters = subscribe.topic_filters.iter().map(|(filter, theirs)| (&**filter, options(theirs)));
    Packet::Subscribe(Subscribe {
        packet_id: subscribe.packet_id,
        properties: SubscribeProperties {
            subscription_id: subscribe.id,
            user_properties: pairs(&subscribe.user_properties),
        },
        filters: SubscribeFilters::from_list(filters.collect::<Vec<_>>().leak()),
    })
}
