//! PINGREQ, PINGRESP, DISCONNECT and AUTH.

use dunlin::codec::{
    Auth, AuthProperties, DecodeErrorKind as E, Disconnect, DisconnectProperties, Packet, PropertyId as P,
    ReasonCode as R, UserProperties,
};

use super::{ALL, Row, V3, V5, bad, good, legal};

fn disconnect(reason: R) -> Packet<'static> {
    Packet::Disconnect(Disconnect::new(reason))
}

fn disconnect_with(reason: R, properties: DisconnectProperties<'static>) -> Packet<'static> {
    Packet::Disconnect(Disconnect { reason, properties })
}

fn auth(reason: R, properties: AuthProperties<'static>) -> Packet<'static> {
    Packet::Auth(Auth { reason, properties })
}

pub(super) fn rows() -> Vec<Row> {
    let mut rows = disconnects();
    rows.extend(auths());
    rows.extend(broken());
    rows
}

#[rustfmt::skip]
fn disconnects() -> Vec<Row> {
    let none = DisconnectProperties::default();
    vec![
        good("PINGREQ", ALL, "C0 00", Packet::PingReq),
        good("PINGRESP", ALL, "D0 00", Packet::PingResp),
        good("DISCONNECT", V3, "E0 00", disconnect(R::Success)),
        // The shortest form is what clients send; ours has its property length for clients that expect it.
        legal("normal DISCONNECT of v5 in its shortest form", V5, "E0 00", disconnect(R::Success), "E0 02 00 00"),
        legal("normal DISCONNECT of v5 with a reason code", V5, "E0 01 00", disconnect(R::Success), "E0 02 00 00"),
        good("normal DISCONNECT of v5 in full", V5, "E0 02 00 00", disconnect(R::Success)),
        legal("DISCONNECT with will and without properties", V5, "E0 01 04", disconnect(R::DisconnectWithWill), "E0 02 04 00"),
        good("DISCONNECT with will", V5, "E0 02 04 00", disconnect(R::DisconnectWithWill)),
        good("DISCONNECT after a takeover", V5, "E0 02 8E 00", disconnect(R::SessionTakenOver)),
        good("DISCONNECT with the last reason code", V5, "E0 02 A2 00", disconnect(R::WildcardSubscriptionsNotSupported)),
        good("DISCONNECT with bad authentication method", V5, "E0 02 8C 00", disconnect(R::BadAuthenticationMethod)),
        good("DISCONNECT with session expiry", V5, "E0[ 00 [11 0000003C] ]", disconnect_with(R::Success, DisconnectProperties { session_expiry_secs: Some(60), ..none.clone() })),
        good("DISCONNECT with a reason string", V5, "E0[ 8B [1F('bye')] ]", disconnect_with(R::ServerShuttingDown, DisconnectProperties { reason_string: Some("bye"), ..none.clone() })),
        good("DISCONNECT with another server", V5, "E0[ 9C [1C('other')] ]", disconnect_with(R::UseAnotherServer, DisconnectProperties { server_reference: Some("other"), ..none.clone() })),
        legal("DISCONNECT with all properties", V5, "E0[ 9D [26('k')('v') 1F('why') 1C('o') 11 00000000 26('k')('w')] ]",
            disconnect_with(R::ServerMoved, DisconnectProperties {
                session_expiry_secs: Some(0),
                reason_string: Some("why"),
                server_reference: Some("o"),
                user_properties: UserProperties::from_list(&[("k", "v"), ("k", "w")]),
            }),
            "E0[ 9D [11 00000000 1C('o') 1F('why') 26('k')('v') 26('k')('w')] ]"),
    ]
}

#[rustfmt::skip]
fn auths() -> Vec<Row> {
    let none = AuthProperties::default();
    let method = AuthProperties { method: Some("m"), ..none.clone() };
    vec![
        legal("AUTH of success in its shortest form", V5, "F0 00", auth(R::Success, none.clone()), "F0 02 00 00"),
        legal("AUTH of success with a reason code", V5, "F0 01 00", auth(R::Success, none.clone()), "F0 02 00 00"),
        good("AUTH of success in full", V5, "F0 02 00 00", auth(R::Success, none)),
        good("AUTH of success with a method", V5, "F0[ 00 [15('m')] ]", auth(R::Success, method.clone())),
        good("AUTH that continues", V5, "F0[ 18 [15('m') 16(00FF)] ]", auth(R::ContinueAuthentication, AuthProperties { data: Some(b"\x00\xFF"), ..method.clone() })),
        good("AUTH that authenticates again", V5, "F0[ 19 [15('m')] ]", auth(R::ReAuthenticate, method.clone())),
        legal("AUTH with all properties", V5, "F0[ 18 [26('k')('v') 1F('why') 16() 15('m')] ]",
            auth(R::ContinueAuthentication, AuthProperties {
                data: Some(b""),
                reason_string: Some("why"),
                user_properties: UserProperties::from_list(&[("k", "v")]),
                ..method
            }),
            "F0[ 18 [15('m') 16() 1F('why') 26('k')('v')] ]"),
    ]
}

#[rustfmt::skip]
fn broken() -> Vec<Row> {
    vec![
        bad("PINGREQ with a body", ALL, "C0 01 00", E::TrailingBytes, 0x81),
        bad("PINGRESP with a body", ALL, "D0 02 0000", E::TrailingBytes, 0x81),
        bad("DISCONNECT before v5 with a reason code", V3, "E0 01 00", E::TrailingBytes, 0x81),
        bad("DISCONNECT before v5 with properties", V3, "E0 02 00 00", E::TrailingBytes, 0x81),
        // [MQTT-3.14.2-1]
        bad("DISCONNECT with a granted QoS", V5, "E0 01 01", E::Code(1), 0x82),
        bad("DISCONNECT with the reason code of AUTH", V5, "E0 02 18 00", E::Code(0x18), 0x82),
        bad("DISCONNECT with a reason code of CONNACK", V5, "E0 02 85 00", E::Code(0x85), 0x82),
        bad("DISCONNECT with a reason code that does not exist", V5, "E0 01 FF", E::Code(0xFF), 0x82),
        bad("DISCONNECT with properties longer than the packet", V5, "E0 02 00 05", E::Truncated("properties"), 0x81),
        bad("DISCONNECT with more behind its properties", V5, "E0 03 00 00 00", E::TrailingBytes, 0x81),
        bad("DISCONNECT with two session expiries", V5, "E0[ 00 [11 00000001 11 00000001] ]", E::PropertyRepeated(P::SessionExpiry), 0x82),
        bad("DISCONNECT with two reason strings", V5, "E0[ 00 [1F('a') 1F('a')] ]", E::PropertyRepeated(P::ReasonString), 0x82),
        bad("DISCONNECT with a topic alias maximum", V5, "E0[ 00 [22 0001] ]", E::PropertyNotAllowed(P::TopicAliasMaximum), 0x81),
        bad("DISCONNECT with a server reference that is not UTF-8", V5, "E0[ 9C [1C(80)] ]", E::Utf8("server reference"), 0x81),
        // [MQTT-3.15.2-1]
        bad("AUTH with an error", V5, "F0[ 87 [15('m')] ]", E::Code(0x87), 0x82),
        bad("AUTH with the reason code of DISCONNECT", V5, "F0[ 04 [15('m')] ]", E::Code(4), 0x82),
        // [MQTT-4.12.0-5]
        bad("AUTH that continues without a method", V5, "F0 02 18 00", E::AuthenticationMethodMissing, 0x82),
        bad("AUTH that authenticates again without properties", V5, "F0 01 19", E::AuthenticationMethodMissing, 0x82),
        bad("AUTH with data but no method", V5, "F0[ 18 [16('d')] ]", E::AuthenticationMethodMissing, 0x82),
        bad("AUTH of success with a reason string but no method", V5, "F0[ 00 [1F('d')] ]", E::AuthenticationMethodMissing, 0x82),
        bad("AUTH with two methods", V5, "F0[ 18 [15('m') 15('m')] ]", E::PropertyRepeated(P::AuthenticationMethod), 0x82),
        bad("AUTH with more behind its properties", V5, "F0[ 18 [15('m')] 00 ]", E::TrailingBytes, 0x81),
        bad("AUTH with session expiry", V5, "F0[ 18 [15('m') 11 00000001] ]", E::PropertyNotAllowed(P::SessionExpiry), 0x81),
    ]
}
