//! QoS 1 and 2 to a client: a message from its acceptance until it is settled.

use std::time::Duration;

use dunlin::{
    codec::{PacketKind, QoS, ReasonCode, Version},
    limits::Parking,
};

use crate::world::{Setup, World};

use super::{CLIENT, Clean, Event, Scene, State, When, presence, table_of};

const REFUSED: ReasonCode = ReasonCode::UnspecifiedError;
const NOT_FOUND: ReasonCode = ReasonCode::PacketIdentifierNotFound;

const STATES: &[State] = &[
    ("nothing to send", |version| Some(scene(version))),
    ("QoS 2, accepted, waits for the commit", |version| {
        let mut scene = scene(version);
        scene.hold_commits();
        publish(&mut scene, QoS::ExactlyOnce);
        Some(scene)
    }),
    ("QoS 1, queued in memory for want of a store, offline", |version| {
        let mut scene = build(Setup::durable(version, CLIENT), None, 10);
        scene.client.drop_link();
        publish(&mut scene, QoS::AtLeastOnce);
        Some(scene)
    }),
    ("QoS 1, queued in the store, offline", |version| {
        let mut scene = scene(version);
        scene.client.drop_link();
        publish(&mut scene, QoS::AtLeastOnce);
        Some(scene)
    }),
    ("QoS 1, queued behind one that uses up Receive Maximum", |version| {
        let mut scene = narrow(version);
        publish(&mut scene, QoS::AtLeastOnce);
        publish(&mut scene, QoS::AtLeastOnce);
        Some(scene)
    }),
    ("QoS 1, awaits PUBACK", |version| Some(sent(version, QoS::AtLeastOnce))),
    ("QoS 1, awaited PUBACK, offline", |version| {
        let scene = sent(version, QoS::AtLeastOnce);
        scene.client.drop_link();
        Some(scene)
    }),
    ("QoS 2, awaits PUBREC", |version| Some(sent(version, QoS::ExactlyOnce))),
    ("QoS 2, awaited PUBREC, offline", |version| {
        let scene = sent(version, QoS::ExactlyOnce);
        scene.client.drop_link();
        Some(scene)
    }),
    ("QoS 2, PUBREC received, PUBREL waits for the commit", |version| {
        let mut scene = sent(version, QoS::ExactlyOnce);
        scene.hold_commits();
        scene.client.ack(PacketKind::PubRec, 1);
        Some(scene)
    }),
    ("QoS 2, awaits PUBCOMP", |version| {
        let scene = sent(version, QoS::ExactlyOnce);
        scene.client.ack(PacketKind::PubRec, 1);
        Some(scene)
    }),
    ("QoS 2, awaited PUBCOMP, offline", |version| {
        let scene = sent(version, QoS::ExactlyOnce);
        scene.client.ack(PacketKind::PubRec, 1);
        scene.client.drop_link();
        Some(scene)
    }),
    ("QoS 1, to be sent again behind one that uses up Receive Maximum", |version| {
        again(version, QoS::AtLeastOnce)
    }),
    ("QoS 2, to be sent again behind one that uses up Receive Maximum", |version| {
        again(version, QoS::ExactlyOnce)
    }),
];

/// Acknowledgements are of the message that is the state's: the second one where there are two.
const EVENTS: &[Event] = &[
    ("PUBACK 0x00", When::Connected, |scene| ack(scene, PacketKind::PubAck, ReasonCode::Success)),
    ("PUBACK 0x80", When::ConnectedV5, |scene| ack(scene, PacketKind::PubAck, REFUSED)),
    ("PUBREC 0x00", When::Connected, |scene| ack(scene, PacketKind::PubRec, ReasonCode::Success)),
    ("PUBREC 0x80", When::ConnectedV5, |scene| ack(scene, PacketKind::PubRec, REFUSED)),
    ("PUBCOMP 0x00", When::Connected, |scene| ack(scene, PacketKind::PubComp, ReasonCode::Success)),
    ("PUBCOMP 0x92", When::ConnectedV5, |scene| ack(scene, PacketKind::PubComp, NOT_FOUND)),
    ("the one before is settled", When::Behind, settle_first),
    ("UNSUBSCRIBE", When::Connected, |scene| {
        scene.client.send_unsubscribe(&["t"]);
    }),
    ("message expires", When::Always, |scene| scene.world.advance_secs(u64::from(EXPIRY_SECS) + 1)),
    ("store commits", When::Uncommitted, |scene| scene.world.commit()),
    ("connection lost", When::Connected, |scene| scene.client.drop_link()),
    ("DISCONNECT 0x00", When::Connected, |scene| scene.client.disconnect()),
    ("CONNECT, Clean Start 0", When::Always, |scene| scene.connect(Clean::No)),
    ("CONNECT, Clean Start 0, once the message has expired", When::Always, |scene| {
        scene.world.advance_secs(u64::from(EXPIRY_SECS) + 1);
        scene.connect(Clean::No);
    }),
    ("CONNECT, Clean Start 1", When::Always, |scene| scene.connect(Clean::Yes)),
    ("3600 s pass", When::Always, |scene| scene.world.advance_secs(3600)),
    ("broker crashes, starts again, CONNECT, Clean Start 0", When::Stored, |scene| {
        scene.world.crash(Duration::ZERO);
        scene.world.release_commits();
        scene.connect(Clean::No);
    }),
];

/// Message Expiry Interval of all messages.
const EXPIRY_SECS: u32 = 10;

/// A client with a session of an hour, or that never ends, and a subscription.
fn scene(version: Version) -> Scene {
    build(Setup::durable(version, CLIENT), Some(Parking::default()), 10)
}

/// The same with a Receive Maximum of 1; before MQTT 5 it is for the broker to say.
fn narrow(version: Version) -> Scene {
    let receive_maximum = version.is_v5().then_some(1);
    build(Setup { receive_maximum, ..Setup::durable(version, CLIENT) }, Some(Parking::default()), 1)
}

fn build(setup: Setup, parking: Option<Parking>, inflight_messages_max: u16) -> Scene {
    let world = World::with(1, |shared| {
        shared.parking = parking;
        shared.limits.inflight_messages_max = inflight_messages_max;
    });
    let scene = Scene::new(world, setup.manual());
    scene.client.subscribe("t", QoS::ExactlyOnce);
    scene
}

fn publish(scene: &mut Scene, qos: QoS) {
    let publisher = scene.world.connect(Setup::v5("p"));
    publisher.publish_with("t", "m", qos, |publish| {
        publish.properties.message_expiry_secs = Some(EXPIRY_SECS);
    });
    scene.messages.push(qos);
}

/// A message was sent.
fn sent(version: Version, qos: QoS) -> Scene {
    let mut scene = scene(version);
    publish(&mut scene, qos);
    scene
}

/// Two messages were sent on an earlier connection, and one again on this, whose Receive Maximum is 1.
fn again(version: Version, qos: QoS) -> Option<Scene> {
    let mut scene = sent(version, qos);
    publish(&mut scene, qos);
    scene.client.drop_link();
    scene.setup.receive_maximum = Some(1);
    scene.connect(Clean::No);
    version.is_v5().then_some(scene)
}

fn ack(scene: &Scene, kind: PacketKind, reason: ReasonCode) {
    scene.client.ack_with(kind, scene.messages.len().max(1) as u16, reason);
}

fn settle_first(scene: &mut Scene) {
    match scene.messages[0] {
        QoS::AtMostOnce | QoS::AtLeastOnce => scene.client.ack(PacketKind::PubAck, 1),
        QoS::ExactlyOnce => {
            scene.client.ack(PacketKind::PubRec, 1);
            scene.client.ack(PacketKind::PubComp, 1);
        }
    }
}

fn describe(scene: &Scene) -> String {
    let described = scene.world.with_session(CLIENT, |session| {
        let outbound = &session.outbound;
        let (queued, unacknowledged) = (outbound.queued(), outbound.unacknowledged());
        let accepted = session.handle.queued_messages() - queued - unacknowledged;
        let counts = [
            (accepted, "not arrived"),
            (queued, "queued"),
            (unacknowledged, "unacknowledged"),
            (outbound.unreleased(), "unreleased"),
        ];
        let counts = counts.iter().filter(|(count, _)| *count > 0);
        let mut parts: Vec<String> = counts.map(|(count, what)| format!("{count} {what}")).collect();
        if parts.is_empty() {
            parts.push("all settled".into());
        }
        format!("{}, {}", presence(session), parts.join(", "))
    });
    described.unwrap_or_else(|| "no session".into())
}

// [MQTT-4.3.2-1] to [MQTT-4.3.2-3], [MQTT-4.3.3-1] to [MQTT-4.3.3-7], [MQTT-4.4.0-1], [MQTT-4.4.0-2], and in
// [MQTT-3.1.1/4.3.2-1] [MQTT-3.1.1/4.3.3-1] [MQTT-3.1.1/4.4.0-1].
#[test]
fn outbound() {
    insta::assert_snapshot!(table_of(STATES, EVENTS, describe));
}
