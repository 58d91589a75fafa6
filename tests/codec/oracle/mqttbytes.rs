//! mqttbytes 0.6.

use std::num::{NonZeroU16, NonZeroU32};

use dunlin::codec::{
    Ack, AckProperties, ConnAck, ConnAckProperties, ConnAckReturn, Connect, ConnectProperties, Disconnect,
    DisconnectProperties, Packet, PublishProperties, ReasonCode, SubAck, Subscribe, SubscribeFilters,
    SubscribeProperties, SubscriptionIds, SubscriptionOptions, UnsubAck, Unsubscribe, UnsubscribeFilters,
    UserProperties, Version, Will, WillProperties,
};
use mqttbytes::{v4, v5};

use super::{packet_id, payload_format, publish, qos, reason, retain_handling, user_properties};

pub(super) fn check(packet: &Packet<'_>, version: Version, bytes: &[u8]) {
    if version == Version::V31 || cannot_read(packet, version) {
        return;
    }
    let mut stream = bytes.into();
    match version {
        Version::V31 => {}
        Version::V311 => {
            let theirs = v4::read(&mut stream, usize::MAX).unwrap();
            assert_eq!(&from_v4(&theirs), packet);
        }
        Version::V5 => {
            let theirs = v5::read(&mut stream, usize::MAX).unwrap();
            assert_eq!(&from_v5(&theirs), packet);
        }
    }
    assert!(stream.is_empty());
}

/// What is valid and mqttbytes refuses or garbles.
fn cannot_read(packet: &Packet<'_>, version: Version) -> bool {
    match packet {
        Packet::Auth(_) => true,
        Packet::Connect(connect) => match (connect.user_name, connect.password) {
            (None, None) => false,
            // It reads absent ones as empty ones, and two empty ones as absent.
            (Some(_), None) | (None, Some(_)) | (Some(""), Some(b"")) => true,
            (Some(_), Some(password)) => str::from_utf8(password).is_err(),
        },
        Packet::ConnAck(connack) => version.is_v5() && connack.properties == ConnAckProperties::default(),
        Packet::Disconnect(disconnect) => {
            version.is_v5() && disconnect.properties == DisconnectProperties::default()
        }
        Packet::Publish(publish) => publish.properties.subscription_ids.iter().count() >= 3,
        _ => false,
    }
}

fn pairs(list: &[(String, String)]) -> UserProperties<'_> {
    user_properties(list.iter().map(|(name, value)| (name.as_str(), value.as_str())))
}

fn success(pkid: u16) -> Ack<'static> {
    Ack::success(packet_id(pkid))
}

fn from_v4(theirs: &v4::Packet) -> Packet<'_> {
    match theirs {
        v4::Packet::Connect(connect) => from_v4_connect(connect),
        v4::Packet::ConnAck(connack) => Packet::ConnAck(Box::new(ConnAck {
            session_present: connack.session_present,
            code: ConnAckReturn::V3(connack.code as u8),
            properties: ConnAckProperties::default(),
        })),
        v4::Packet::Publish(p) => publish(
            (p.dup, p.qos as u8, p.retain),
            &p.topic,
            p.pkid,
            PublishProperties::default(),
            &p.payload,
        ),
        v4::Packet::PubAck(ack) => Packet::PubAck(success(ack.pkid)),
        v4::Packet::PubRec(ack) => Packet::PubRec(success(ack.pkid)),
        v4::Packet::PubRel(ack) => Packet::PubRel(success(ack.pkid)),
        v4::Packet::PubComp(ack) => Packet::PubComp(success(ack.pkid)),
        v4::Packet::Subscribe(subscribe) => Packet::Subscribe(Subscribe {
            packet_id: packet_id(subscribe.pkid),
            properties: SubscribeProperties::default(),
            filters: SubscribeFilters::from_list(
                subscribe
                    .filters
                    .iter()
                    .map(|filter| {
                        let options =
                            SubscriptionOptions { qos: qos(filter.qos as u8), ..Default::default() };
                        (filter.path.as_str(), options)
                    })
                    .collect::<Vec<_>>()
                    .leak(),
            ),
        }),
        v4::Packet::SubAck(suback) => {
            let code = |code: &v4::SubscribeReasonCode| match code {
                v4::SubscribeReasonCode::Success(qos) => *qos as u8,
                v4::SubscribeReasonCode::Failure => 0x80,
            };
            let codes = suback.return_codes.iter().map(code).collect::<Vec<_>>().leak();
            Packet::SubAck(SubAck {
                packet_id: packet_id(suback.pkid),
                properties: AckProperties::default(),
                codes,
            })
        }
        v4::Packet::Unsubscribe(unsubscribe) => Packet::Unsubscribe(Unsubscribe {
            packet_id: packet_id(unsubscribe.pkid),
            user_properties: UserProperties::default(),
            filters: filters(&unsubscribe.topics),
        }),
        v4::Packet::UnsubAck(unsuback) => Packet::UnsubAck(UnsubAck {
            packet_id: packet_id(unsuback.pkid),
            properties: AckProperties::default(),
            codes: &[],
        }),
        v4::Packet::PingReq => Packet::PingReq,
        v4::Packet::PingResp => Packet::PingResp,
        v4::Packet::Disconnect => Packet::Disconnect(Disconnect::new(ReasonCode::Success)),
    }
}

fn from_v4_connect(connect: &v4::Connect) -> Packet<'_> {
    Packet::Connect(Box::new(Connect {
        version: Version::V311,
        clean_start: connect.clean_session,
        keep_alive_secs: connect.keep_alive,
        client_id: &connect.client_id,
        will: connect.last_will.as_ref().map(|will| Will {
            qos: qos(will.qos as u8),
            retain: will.retain,
            topic: &will.topic,
            payload: &will.message,
            properties: WillProperties::default(),
        }),
        user_name: connect.login.as_ref().map(|login| login.username.as_str()),
        password: connect.login.as_ref().map(|login| login.password.as_bytes()),
        properties: ConnectProperties::default(),
    }))
}

fn filters(list: &[String]) -> UnsubscribeFilters<'_> {
    UnsubscribeFilters::from_list(list.iter().map(String::as_str).collect::<Vec<_>>().leak())
}

/// The four acknowledgements, SUBACK and UNSUBACK have the same properties in six types.
macro_rules! ack_properties {
    ($properties:expr) => {
        $properties.as_ref().map_or_else(AckProperties::default, |properties| AckProperties {
            reason_string: properties.reason_string.as_deref(),
            user_properties: pairs(&properties.user_properties),
        })
    };
}

macro_rules! ack {
    ($kind:ident, $ack:expr) => {
        Packet::$kind(Ack {
            packet_id: packet_id($ack.pkid),
            reason: reason($ack.reason as u8),
            properties: ack_properties!($ack.properties),
        })
    };
}

fn from_v5(theirs: &v5::Packet) -> Packet<'_> {
    match theirs {
        v5::Packet::Connect(connect) => from_connect(connect),
        v5::Packet::ConnAck(connack) => Packet::ConnAck(Box::new(ConnAck {
            session_present: connack.session_present,
            code: ConnAckReturn::V5(reason(connack.code as u8)),
            properties: connack.properties.as_ref().map(from_connack_properties).unwrap_or_default(),
        })),
        v5::Packet::Publish(p) => {
            let properties = p.properties.as_ref().map(from_publish_properties).unwrap_or_default();
            publish((p.dup, p.qos as u8, p.retain), &p.topic, p.pkid, properties, &p.payload)
        }
        v5::Packet::PubAck(ack) => ack!(PubAck, ack),
        v5::Packet::PubRec(ack) => ack!(PubRec, ack),
        v5::Packet::PubRel(ack) => ack!(PubRel, ack),
        v5::Packet::PubComp(ack) => ack!(PubComp, ack),
        v5::Packet::Subscribe(subscribe) => from_subscribe(subscribe),
        v5::Packet::SubAck(suback) => Packet::SubAck(SubAck {
            packet_id: packet_id(suback.pkid),
            properties: ack_properties!(suback.properties),
            codes: suback.return_codes.iter().map(|code| *code as u8).collect::<Vec<_>>().leak(),
        }),
        v5::Packet::Unsubscribe(unsubscribe) => Packet::Unsubscribe(Unsubscribe {
            packet_id: packet_id(unsubscribe.pkid),
            user_properties: unsubscribe
                .properties
                .as_ref()
                .map(|properties| pairs(&properties.user_properties))
                .unwrap_or_default(),
            filters: filters(&unsubscribe.filters),
        }),
        v5::Packet::UnsubAck(unsuback) => Packet::UnsubAck(UnsubAck {
            packet_id: packet_id(unsuback.pkid),
            properties: ack_properties!(unsuback.properties),
            codes: unsuback.reasons.iter().map(|code| *code as u8).collect::<Vec<_>>().leak(),
        }),
        v5::Packet::PingReq => Packet::PingReq,
        v5::Packet::PingResp => Packet::PingResp,
        v5::Packet::Disconnect(disconnect) => Packet::Disconnect(Disconnect {
            reason: reason(disconnect.reason_code as u8),
            properties: disconnect.properties.as_ref().map_or_else(
                DisconnectProperties::default,
                |properties| DisconnectProperties {
                    session_expiry_secs: properties.session_expiry_interval,
                    reason_string: properties.reason_string.as_deref(),
                    server_reference: properties.server_reference.as_deref(),
                    user_properties: pairs(&properties.user_properties),
                },
            ),
        }),
    }
}

fn from_connect(connect: &v5::Connect) -> Packet<'_> {
    Packet::Connect(Box::new(Connect {
        version: Version::V5,
        clean_start: connect.clean_session,
        keep_alive_secs: connect.keep_alive,
        client_id: &connect.client_id,
        will: connect.last_will.as_ref().map(|will| Will {
            qos: qos(will.qos as u8),
            retain: will.retain,
            topic: &will.topic,
            payload: &will.message,
            properties: will.properties.as_ref().map_or_else(WillProperties::default, |properties| {
                WillProperties {
                    delay_secs: properties.delay_interval,
                    payload_format: properties.payload_format_indicator.map(payload_format),
                    message_expiry_secs: properties.message_expiry_interval,
                    content_type: properties.content_type.as_deref(),
                    response_topic: properties.response_topic.as_deref(),
                    correlation_data: properties.correlation_data.as_deref(),
                    user_properties: pairs(&properties.user_properties),
                }
            }),
        }),
        user_name: connect.login.as_ref().map(|login| login.username.as_str()),
        password: connect.login.as_ref().map(|login| login.password.as_bytes()),
        properties: connect.properties.as_ref().map_or_else(ConnectProperties::default, |properties| {
            ConnectProperties {
                session_expiry_secs: properties.session_expiry_interval,
                receive_maximum: properties.receive_maximum.and_then(NonZeroU16::new),
                packet_bytes_max: properties.max_packet_size.and_then(NonZeroU32::new),
                topic_alias_maximum: properties.topic_alias_max,
                request_response_information: properties.request_response_info.map(|value| value != 0),
                request_problem_information: properties.request_problem_info.map(|value| value != 0),
                authentication_method: properties.authentication_method.as_deref(),
                authentication_data: properties.authentication_data.as_deref(),
                user_properties: pairs(&properties.user_properties),
            }
        }),
    }))
}

fn from_connack_properties(properties: &v5::ConnAckProperties) -> ConnAckProperties<'_> {
    let flag = |value: Option<u8>| value.map(|value| value != 0);
    ConnAckProperties {
        session_expiry_secs: properties.session_expiry_interval,
        receive_maximum: properties.receive_max.and_then(NonZeroU16::new),
        maximum_qos: properties.max_qos.map(qos),
        retain_available: flag(properties.retain_available),
        packet_bytes_max: properties.max_packet_size.and_then(NonZeroU32::new),
        assigned_client_id: properties.assigned_client_identifier.as_deref(),
        topic_alias_maximum: properties.topic_alias_max,
        reason_string: properties.reason_string.as_deref(),
        wildcard_subscription_available: flag(properties.wildcard_subscription_available),
        subscription_ids_available: flag(properties.subscription_identifiers_available),
        shared_subscription_available: flag(properties.shared_subscription_available),
        server_keep_alive_secs: properties.server_keep_alive,
        response_information: properties.response_information.as_deref(),
        server_reference: properties.server_reference.as_deref(),
        authentication_method: properties.authentication_method.as_deref(),
        authentication_data: properties.authentication_data.as_deref(),
        user_properties: pairs(&properties.user_properties),
    }
}

fn from_publish_properties(properties: &v5::PublishProperties) -> PublishProperties<'_> {
    let id = |&id: &usize| NonZeroU32::new(id as u32).unwrap();
    let subscription_ids = properties.subscription_identifiers.iter().map(id).collect::<Vec<_>>().leak();
    PublishProperties {
        payload_format: properties.payload_format_indicator.map(payload_format),
        message_expiry_secs: properties.message_expiry_interval,
        topic_alias: properties.topic_alias.and_then(NonZeroU16::new),
        response_topic: properties.response_topic.as_deref(),
        correlation_data: properties.correlation_data.as_deref(),
        content_type: properties.content_type.as_deref(),
        subscription_ids: SubscriptionIds::from_list(subscription_ids),
        user_properties: pairs(&properties.user_properties),
    }
}

fn from_subscribe(subscribe: &v5::Subscribe) -> Packet<'_> {
    let filter = |filter: &v5::SubscribeFilter| SubscriptionOptions {
        qos: qos(filter.qos as u8),
        no_local: filter.nolocal,
        retain_as_published: filter.preserve_retain,
        retain_handling: retain_handling(filter.retain_forward_rule.clone() as u8),
    };
    let filters = subscribe.filters.iter().map(|f| (f.path.as_str(), filter(f))).collect::<Vec<_>>().leak();
    Packet::Subscribe(Subscribe {
        packet_id: packet_id(subscribe.pkid),
        properties: subscribe.properties.as_ref().map_or_else(SubscribeProperties::default, |properties| {
            SubscribeProperties {
                subscription_id: properties.id.map(|id| NonZeroU32::new(id as u32).unwrap()),
                user_properties: pairs(&properties.user_properties),
            }
        }),
        filters: SubscribeFilters::from_list(filters),
    })
}
