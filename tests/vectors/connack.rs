//! CONNACK.

use std::num::{NonZeroU16, NonZeroU32};

use dunlin::codec::{
    ConnAck, ConnAckProperties, ConnAckReturn, DecodeErrorKind as E, Packet, PropertyId as P, QoS,
    ReasonCode, UserProperties,
};

use super::{ALL, Row, V3, V5, bad, good, legal};

fn v3(session_present: bool, code: u8) -> Packet<'static> {
    let code = ConnAckReturn::V3(code);
    Packet::ConnAck(Box::new(ConnAck { session_present, code, properties: ConnAckProperties::default() }))
}

fn v5(session_present: bool, reason: ReasonCode) -> Packet<'static> {
    let code = ConnAckReturn::V5(reason);
    Packet::ConnAck(Box::new(ConnAck { session_present, code, properties: ConnAckProperties::default() }))
}

fn with(properties: ConnAckProperties<'static>) -> Packet<'static> {
    let code = ConnAckReturn::V5(ReasonCode::Success);
    Packet::ConnAck(Box::new(ConnAck { session_present: false, code, properties }))
}

pub(super) fn rows() -> Vec<Row> {
    let mut rows = codes();
    rows.extend(properties());
    rows.extend(broken());
    rows
}

#[rustfmt::skip]
fn codes() -> Vec<Row> {
    vec![
        good("CONNACK that accepts", V3, "20 02 00 00", v3(false, 0)),
        good("CONNACK with session present", V3, "20 02 01 00", v3(true, 0)),
        good("CONNACK: unacceptable protocol version", V3, "20 02 00 01", v3(false, 1)),
        good("CONNACK: identifier rejected", V3, "20 02 00 02", v3(false, 2)),
        good("CONNACK: not authorized", V3, "20 02 00 05", v3(false, 5)),
        good("CONNACK of v5 that accepts", V5, "20 03 00 00 00", v5(false, ReasonCode::Success)),
        good("CONNACK of v5 with session present", V5, "20 03 01 00 00", v5(true, ReasonCode::Success)),
        good("CONNACK of v5 that refuses", V5, "20 03 00 87 00", v5(false, ReasonCode::NotAuthorized)),
        good("CONNACK of v5 with the last of its reason codes", V5, "20 03 00 9F 00", v5(false, ReasonCode::ConnectionRateExceeded)),
    ]
}

#[rustfmt::skip]
fn properties() -> Vec<Row> {
    let none = ConnAckProperties::default();
    vec![
        good("CONNACK with session expiry", V5, "20[ 0000 [11 0000003C] ]", with(ConnAckProperties { session_expiry_secs: Some(60), ..none.clone() })),
        good("CONNACK with receive maximum", V5, "20[ 0000 [21 0014] ]", with(ConnAckProperties { receive_maximum: NonZeroU16::new(20), ..none.clone() })),
        good("CONNACK with maximum QoS 0", V5, "20[ 0000 [24 00] ]", with(ConnAckProperties { maximum_qos: Some(QoS::AtMostOnce), ..none.clone() })),
        good("CONNACK with maximum QoS 1", V5, "20[ 0000 [24 01] ]", with(ConnAckProperties { maximum_qos: Some(QoS::AtLeastOnce), ..none.clone() })),
        good("CONNACK without retained messages", V5, "20[ 0000 [25 00] ]", with(ConnAckProperties { retain_available: Some(false), ..none.clone() })),
        good("CONNACK with maximum packet size", V5, "20[ 0000 [27 00100000] ]", with(ConnAckProperties { packet_bytes_max: NonZeroU32::new(1_048_576), ..none.clone() })),
        good("CONNACK with an assigned client identifier", V5, "20[ 0000 [12('auto-1')] ]", with(ConnAckProperties { assigned_client_id: Some("auto-1"), ..none.clone() })),
        good("CONNACK with topic alias maximum", V5, "20[ 0000 [22 FFFF] ]", with(ConnAckProperties { topic_alias_maximum: Some(65_535), ..none.clone() })),
        good("CONNACK with a reason string", V5, "20[ 0000 [1F('why')] ]", with(ConnAckProperties { reason_string: Some("why"), ..none.clone() })),
        good("CONNACK without wildcards, identifiers and groups", V5, "20[ 0000 [28 00 29 00 2A 00] ]", with(ConnAckProperties {
            wildcard_subscription_available: Some(false),
            subscription_ids_available: Some(false),
            shared_subscription_available: Some(false),
            ..none.clone()
        })),
        good("CONNACK with server keep alive", V5, "20[ 0000 [13 001E] ]", with(ConnAckProperties { server_keep_alive_secs: Some(30), ..none.clone() })),
        good("CONNACK with response information", V5, "20[ 0000 [1A('r/c')] ]", with(ConnAckProperties { response_information: Some("r/c"), ..none.clone() })),
        good("CONNACK with another server", V5, "20[ 0000 [1C('other:1883')] ]", with(ConnAckProperties { server_reference: Some("other:1883"), ..none.clone() })),
        good("CONNACK with authentication", V5, "20[ 0000 [15('m') 16(00)] ]", with(ConnAckProperties { authentication_method: Some("m"), authentication_data: Some(b"\0"), ..none.clone() })),
        legal("CONNACK with user properties between the others", V5, "20[ 0000 [26('b')('1') 13 0001 26('a')('2')] ]",
            with(ConnAckProperties { server_keep_alive_secs: Some(1), user_properties: UserProperties::from_list(&[("b", "1"), ("a", "2")]), ..none }),
            "20[ 0000 [13 0001 26('b')('1') 26('a')('2')] ]"),
    ]
}

#[rustfmt::skip]
fn broken() -> Vec<Row> {
    vec![
        bad("CONNACK without a body", ALL, "20 00", E::Truncated("connect acknowledge flags"), 0x81),
        bad("CONNACK without a return code", V3, "20 01 00", E::Truncated("return code"), 0x81),
        bad("CONNACK of v5 without a reason code", V5, "20 01 00", E::Truncated("reason code"), 0x81),
        bad("CONNACK of v5 without a property length", V5, "20 02 00 00", E::Truncated("property length"), 0x81),
        // [MQTT-3.2.2-1]
        bad("CONNACK with reserved flags", ALL, "20 03 02 00 00", E::ConnAckFlagsReserved, 0x81),
        // [MQTT-3.2.2-6], [MQTT-3.1.1/3.2.2-4]
        bad("CONNACK that refuses with session present", V3, "20 02 01 05", E::SessionPresentWithError, 0x82),
        bad("CONNACK of v5 that refuses with session present", V5, "20 03 01 87 00", E::SessionPresentWithError, 0x82),
        bad("CONNACK with return code 6", V3, "20 02 00 06", E::Code(6), 0x82),
        // [MQTT-3.2.2-8]
        bad("CONNACK of v5 with a return code of v3", V5, "20 03 00 05 00", E::Code(5), 0x82),
        bad("CONNACK with the reason code of a takeover", V5, "20 03 00 8E 00", E::Code(0x8E), 0x82),
        bad("CONNACK with more behind it", V3, "20 03 00 00 00", E::TrailingBytes, 0x81),
        bad("CONNACK of v5 with more behind it", V5, "20 04 00 00 00 00", E::TrailingBytes, 0x81),
        bad("maximum QoS 2", V5, "20[ 0000 [24 02] ]", E::PropertyValue(P::MaximumQoS, 2), 0x82),
        bad("retain available 2", V5, "20[ 0000 [25 02] ]", E::PropertyValue(P::RetainAvailable, 2), 0x82),
        bad("shared subscription available 2", V5, "20[ 0000 [2A 02] ]", E::PropertyValue(P::SharedSubscriptionAvailable, 2), 0x82),
        bad("receive maximum 0 in CONNACK", V5, "20[ 0000 [21 0000] ]", E::PropertyZero(P::ReceiveMaximum), 0x82),
        bad("maximum packet size 0 in CONNACK", V5, "20[ 0000 [27 00000000] ]", E::PropertyZero(P::MaximumPacketSize), 0x82),
        bad("assigned client identifier twice", V5, "20[ 0000 [12('a') 12('a')] ]", E::PropertyRepeated(P::AssignedClientIdentifier), 0x82),
        bad("will delay in CONNACK", V5, "20[ 0000 [18 00000001] ]", E::PropertyNotAllowed(P::WillDelay), 0x81),
    ]
}
