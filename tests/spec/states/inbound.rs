//! QoS 1 and 2 from a client: what a packet identifier means, from PUBLISH to the last acknowledgement.

use dunlin::codec::{PacketKind, QoS, ReasonCode, Version};

use crate::world::{Setup, World};

use super::{CLIENT, Clean, Event, Scene, State, When, presence, table_of};

const ID: u16 = 7;

const STATES: &[State] = &[
    ("the identifier is free", |version| Some(scene(version))),
    ("QoS 1, PUBACK waits for the commit", |version| {
        let mut scene = scene(version);
        scene.hold_commits();
        publish(&scene, QoS::AtLeastOnce);
        Some(scene)
    }),
    ("QoS 2, PUBREC waits for the commit", |version| {
        let mut scene = scene(version);
        scene.hold_commits();
        publish(&scene, QoS::ExactlyOnce);
        Some(scene)
    }),
    ("QoS 2, PUBREC sent", |version| {
        let scene = scene(version);
        publish(&scene, QoS::ExactlyOnce);
        Some(scene)
    }),
    ("QoS 2, PUBREC sent, the connection is lost", |version| {
        let scene = scene(version);
        publish(&scene, QoS::ExactlyOnce);
        scene.client.drop_link();
        Some(scene)
    }),
    ("QoS 2, PUBREC sent on an earlier connection", |version| {
        let mut scene = scene(version);
        publish(&scene, QoS::ExactlyOnce);
        scene.client.drop_link();
        scene.connect(Clean::No);
        Some(scene)
    }),
    ("QoS 2, PUBCOMP waits for the commit", |version| {
        let mut scene = scene(version);
        publish(&scene, QoS::ExactlyOnce);
        scene.hold_commits();
        scene.client.ack(PacketKind::PubRel, ID);
        Some(scene)
    }),
];

const EVENTS: &[Event] = &[
    ("PUBLISH QoS 1", When::Connected, |scene| publish(scene, QoS::AtLeastOnce)),
    ("PUBLISH QoS 2", When::Connected, |scene| publish(scene, QoS::ExactlyOnce)),
    ("PUBLISH QoS 2, DUP", When::Connected, |scene| {
        scene.client.publish_as(ID, "t", "m", QoS::ExactlyOnce, |publish| publish.dup = true);
    }),
    ("PUBLISH QoS 2, two other identifiers", When::Connected, |scene| {
        for id in [ID + 1, ID + 2] {
            scene.client.publish_as(id, "t", "m", QoS::ExactlyOnce, |_| {});
        }
    }),
    ("PUBLISH QoS 1, not authorized", When::Connected, |scene| {
        scene.client.publish_as(ID, "$SYS/t", "m", QoS::AtLeastOnce, |_| {});
    }),
    ("PUBLISH QoS 2, not authorized", When::Connected, |scene| {
        scene.client.publish_as(ID, "$SYS/t", "m", QoS::ExactlyOnce, |_| {});
    }),
    ("PUBREL 0x00", When::Connected, |scene| scene.client.ack(PacketKind::PubRel, ID)),
    ("PUBREL 0x92", When::ConnectedV5, |scene| {
        scene.client.ack_with(PacketKind::PubRel, ID, ReasonCode::PacketIdentifierNotFound);
    }),
    ("store commits", When::Uncommitted, |scene| scene.world.commit()),
    ("connection lost", When::Connected, |scene| scene.client.drop_link()),
    ("DISCONNECT 0x00", When::Connected, |scene| scene.client.disconnect()),
    ("CONNECT, Clean Start 0", When::Always, |scene| scene.connect(Clean::No)),
    ("CONNECT, Clean Start 1", When::Always, |scene| scene.connect(Clean::Yes)),
    ("3600 s pass", When::Always, |scene| scene.world.advance_secs(3600)),
    ("broker crashes, starts again", When::Always, |scene| scene.world.crash(std::time::Duration::ZERO)),
];

/// A Receive Maximum of 2, a client with a session of an hour, or that never ends, and another one, whose session lasts, that gets what it publishes.
fn scene(version: Version) -> Scene {
    let world = World::limited(|limits| limits.receive_maximum = 2);
    let watcher = world.connect(Setup::durable(Version::V5, "w"));
    watcher.subscribe("t", QoS::ExactlyOnce);
    Scene { watcher: Some(watcher), ..Scene::new(world, Setup::durable(version, CLIENT).manual()) }
}

fn publish(scene: &Scene, qos: QoS) {
    scene.client.publish_as(ID, "t", "m", qos, |_| {});
}

fn describe(scene: &Scene) -> String {
    let described = scene.world.with_session(CLIENT, |session| {
        let id = match (session.inbound.unreleased().count(), session.inbound.counted()) {
            (0, _) => "free".into(),
            (all, counted) if all == counted => format!("{all} unreleased"),
            (all, counted) => format!("{all} unreleased, {counted} in the quota"),
        };
        format!("{}, {id}", presence(session))
    });
    described.unwrap_or_else(|| "no session".into())
}

// [MQTT-4.3.2-4] [MQTT-4.3.2-5] [MQTT-4.3.3-8] to [MQTT-4.3.3-12], in [MQTT-3.1.1/4.3.2-2] [MQTT-3.1.1/4.3.3-2].
#[test]
fn inbound() {
    insta::assert_snapshot!(table_of(STATES, EVENTS, describe));
}
