//! The states of a connection as a table: what each packet does in each of them.
//!
//! `INSTA_UPDATE=always cargo test --test wire states` writes the snapshot anew.

use dunlin::{
    QoS,
    codec::{
        AckProperties, ConnAck, ConnAckProperties, ConnAckReturn, Connect, Delivery, Disconnect,
        DisconnectProperties, Packet, PacketKind, ReasonCode, SubAck, UnsubAck, Unsubscribe,
        UnsubscribeFilters, UserProperties, Version,
    },
};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::{
    Peer, Server, at_most,
    authentication::{Toy, auth, with_method},
    connect, id,
    peer::encoded,
    publish, subscribe, success,
    table::table,
};

#[derive(Clone, Copy, PartialEq)]
enum State {
    BeforeConnect,
    Authenticating,
    Connected,
    ConnectedByMethod,
    Reauthenticating,
    Refused,
    Disconnected,
}

const STATES: [(&str, State); 7] = [
    ("before CONNECT", State::BeforeConnect),
    ("authenticating: AUTH 0x18 sent", State::Authenticating),
    ("connected", State::Connected),
    ("connected, authenticated by AUTH packets", State::ConnectedByMethod),
    ("authenticating again: AUTH 0x18 sent", State::Reauthenticating),
    ("CONNECT was refused", State::Refused),
    ("DISCONNECT was received", State::Disconnected),
];

/// What a client sends.
type Event = (&'static str, fn(Version) -> Option<Vec<u8>>);

const EVENTS: [Event; 28] = [
    ("CONNECT", |version| Some(encoded(&connect_of(version, "again"), version))),
    ("CONNECT with a method", |version| v5(version, &with_method("again", "toy", Some(&[1])))),
    ("CONNECT, malformed", |version| {
        let mut bytes = encoded(&connect_of(version, "again"), version);
        bytes[9] |= 1;
        Some(bytes)
    }),
    ("CONNACK", |version| {
        let code =
            if version.is_v5() { ConnAckReturn::V5(ReasonCode::Success) } else { ConnAckReturn::V3(0) };
        let properties = ConnAckProperties::default();
        any(version, &Packet::ConnAck(Box::new(ConnAck { session_present: false, code, properties })))
    }),
    ("PUBLISH QoS 0", |version| any(version, &publish("t", b"m", Delivery::AtMostOnce))),
    ("PUBLISH QoS 1", |version| any(version, &publish("t", b"m", Delivery::AtLeastOnce(id(7))))),
    ("PUBLISH QoS 2", |version| any(version, &publish("t", b"m", Delivery::ExactlyOnce(id(7))))),
    ("PUBLISH, malformed", |version| any_bytes(version, &[0x36, 0])),
    ("PUBACK", |version| any(version, &Packet::PubAck(success(id(7))))),
    ("PUBREC", |version| any(version, &Packet::PubRec(success(id(7))))),
    ("PUBREL", |version| any(version, &Packet::PubRel(success(id(7))))),
    ("PUBCOMP", |version| any(version, &Packet::PubComp(success(id(7))))),
    ("SUBSCRIBE", |version| any(version, &subscribe(id(7), &[("t", at_most(QoS::ExactlyOnce))]))),
    ("SUBSCRIBE, no filter at all", |version| any_bytes(version, &subscribe_nothing(version))),
    ("SUBACK", |version| {
        let properties = AckProperties::default();
        any(version, &Packet::SubAck(SubAck { packet_id: id(7), properties, codes: &[0] }))
    }),
    ("UNSUBSCRIBE", |version| {
        let (user_properties, filters) = (UserProperties::default(), UnsubscribeFilters::from_list(&["t"]));
        any(version, &Packet::Unsubscribe(Unsubscribe { packet_id: id(7), user_properties, filters }))
    }),
    ("UNSUBACK", |version| {
        let properties = AckProperties::default();
        any(version, &Packet::UnsubAck(UnsubAck { packet_id: id(7), properties, codes: &[0] }))
    }),
    ("PINGREQ", |version| any(version, &Packet::PingReq)),
    ("PINGRESP", |version| any(version, &Packet::PingResp)),
    ("DISCONNECT 0x00", |version| any(version, &disconnect(ReasonCode::Success))),
    ("DISCONNECT 0x04", |version| v5(version, &disconnect(ReasonCode::DisconnectWithWill))),
    ("AUTH 0x18 that satisfies", |version| v5(version, &auth(CONTINUE, "toy", Some(b"open")))),
    ("AUTH 0x18 that does not", |version| v5(version, &auth(CONTINUE, "toy", Some(b"shut")))),
    ("AUTH 0x18 of another method", |version| v5(version, &auth(CONTINUE, "other", Some(b"open")))),
    ("AUTH 0x19", |version| v5(version, &auth(ReasonCode::ReAuthenticate, "toy", Some(&[1])))),
    ("AUTH 0x19 of another method", |version| {
        v5(version, &auth(ReasonCode::ReAuthenticate, "other", Some(&[1])))
    }),
    ("packet type 0", |version| any_bytes(version, &[0x00, 0])),
    ("packet type 15 before MQTT 5", |version| (!version.is_v5()).then(|| vec![0xF0, 0])),
];

const CONTINUE: ReasonCode = ReasonCode::ContinueAuthentication;

fn any(version: Version, packet: &Packet<'_>) -> Option<Vec<u8>> {
    Some(encoded(packet, version))
}

fn any_bytes(_: Version, bytes: &[u8]) -> Option<Vec<u8>> {
    Some(bytes.to_vec())
}

fn v5(version: Version, packet: &Packet<'_>) -> Option<Vec<u8>> {
    version.is_v5().then(|| encoded(packet, version))
}

fn connect_of(version: Version, client_id: &str) -> Packet<'_> {
    let credentials =
        Connect { user_name: Some("user"), password: Some(b"right"), ..connect(version, client_id) };
    Packet::Connect(Box::new(credentials))
}

fn disconnect(reason: ReasonCode) -> Packet<'static> {
    Packet::Disconnect(Disconnect { reason, properties: DisconnectProperties::default() })
}

fn subscribe_nothing(version: Version) -> Vec<u8> {
    if version.is_v5() { vec![0x82, 3, 0, 7, 0] } else { vec![0x82, 2, 0, 7] }
}

/// A connection in a state. `None` if the version has no such state.
async fn reach(server: &Server, state: State, version: Version, name: &str) -> Option<Peer<TcpStream>> {
    let mut peer = server.open(version).await;
    let is_of_v5 =
        matches!(state, State::Authenticating | State::ConnectedByMethod | State::Reauthenticating);
    if is_of_v5 && !version.is_v5() {
        return None;
    }
    match state {
        State::BeforeConnect => {}
        State::Connected | State::Disconnected => peer.send(&connect_of(version, name)).await,
        State::Refused => peer.send(&Packet::Connect(Box::new(connect(version, name)))).await,
        State::Authenticating => peer.send(&with_method(name, "toy", Some(&[1]))).await,
        State::ConnectedByMethod | State::Reauthenticating => {
            peer.send(&with_method(name, "toy", Some(b"open"))).await;
        }
    }
    match state {
        State::BeforeConnect => {}
        State::Authenticating => peer.next(|packet| assert_eq!(text(packet), "AUTH 0x18")).await,
        State::Refused => assert_ne!(peer.conn_ack().await.1, 0),
        State::Connected | State::Disconnected | State::ConnectedByMethod | State::Reauthenticating => {
            assert_eq!(peer.conn_ack().await.1, 0);
        }
    }
    match state {
        State::Disconnected => peer.send(&disconnect(ReasonCode::Success)).await,
        State::Reauthenticating => {
            peer.send(&auth(ReasonCode::ReAuthenticate, "toy", Some(&[1]))).await;
            peer.next(|packet| assert_eq!(text(packet), "AUTH 0x18")).await;
        }
        State::BeforeConnect
        | State::Authenticating
        | State::Refused
        | State::Connected
        | State::ConnectedByMethod => {}
    }
    Some(peer)
}

/// What the broker answers to some bytes, and whether it then closes the connection.
async fn answer(peer: &mut Peer<TcpStream>, state: State, bytes: &[u8]) -> String {
    let mut bytes = bytes.to_vec();
    let is_connected = matches!(state, State::Connected | State::ConnectedByMethod | State::Reauthenticating);
    if is_connected {
        // Its answer tells that there is none to come before it.
        bytes.extend(encoded(&Packet::PingReq, peer.version));
    }
    // The broker may be gone already: then it is not heard.
    let _: std::io::Result<()> = peer.stream.write_all(&bytes).await;
    let mut answers = Vec::new();
    let is_open = loop {
        let Some((kind, answer)) = peer.next_or_end(|packet| (packet.kind(), text(packet))).await else {
            break false;
        };
        answers.push(answer);
        // Before it is connected, a client gets one answer to each packet.
        let is_last = match kind {
            PacketKind::PingResp => answers.len() > usize::from(bytes[0] == 0xC0),
            PacketKind::ConnAck | PacketKind::Auth => !is_connected && is_positive(&answers[0]),
            _ => false,
        };
        if is_last {
            break true;
        }
    };
    if is_connected && is_open {
        answers.pop();
    }
    let answers = if answers.is_empty() { "nothing".into() } else { answers.join(", ") };
    format!("{answers} → {}", if is_open { "open" } else { "closed" })
}

fn is_positive(answer: &str) -> bool {
    matches!(answer, "CONNACK 0x00" | "AUTH 0x18")
}

/// A packet of the broker, and its reason code if it has one.
fn text(packet: &Packet<'_>) -> String {
    let code = match packet {
        Packet::ConnAck(ack) => Some(ack.code.number()),
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            Some(ack.reason as u8)
        }
        Packet::SubAck(ack) => Some(ack.codes[0]),
        Packet::UnsubAck(ack) => ack.codes.first().copied(),
        Packet::Disconnect(disconnect) => Some(disconnect.reason as u8),
        Packet::Auth(auth) => Some(auth.reason as u8),
        _ => None,
    };
    let code = code.map(|code| format!(" 0x{code:02X}"));
    format!("{}{}", packet.kind(), code.unwrap_or_default())
}

// [MQTT-3.1.0-1] [MQTT-3.1.0-2] [MQTT-3.1.2-30] [MQTT-3.1.4-6] [MQTT-3.2.0-1] [MQTT-3.14.4-1] [MQTT-4.12.0-2]
// [MQTT-4.12.0-4] [MQTT-4.12.1-1] [MQTT-4.12.1-2] [MQTT-4.13.1-1] [MQTT-3.1.1/4.8.0-1]
#[tokio::test]
async fn states_of_a_connection() {
    let server = Toy::new().serve().await;
    let mut cells = Vec::new();
    for (_, state) in STATES {
        for (_, bytes) in EVENTS {
            for version in crate::BOTH {
                let name = format!("state-{}", cells.len());
                let cell = match (reach(&server, state, version, &name).await, bytes(version)) {
                    (Some(mut peer), Some(bytes)) => Some(answer(&mut peer, state, &bytes).await),
                    (None, _) | (_, None) => None,
                };
                cells.push(cell);
            }
        }
    }
    let text =
        table(&STATES.map(|(name, _)| name), &EVENTS.map(|(name, _)| name), |state, event, version| {
            cells[(state * EVENTS.len() + event) * 2 + usize::from(version.is_v5())].clone()
        });
    insta::assert_snapshot!(text);
}
