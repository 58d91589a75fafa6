//! A session and its will: how they come, stay and go with connections.

use std::time::Duration;

use dunlin::codec::{QoS, ReasonCode, Version};

use crate::world::{Setup, WillSetup, World};

use super::{CLIENT, Clean, Event, Scene, State, When, presence, table_of};

const KEEP_ALIVE_SECS: u16 = 20;
const EXPIRY_SECS: u32 = 60;
const DELAY_SECS: u32 = 10;

const STATES: &[State] = &[
    ("no session", |version| {
        let mut scene = lasting(version, None);
        scene.client.disconnect();
        scene.connect(Clean::Yes);
        scene.setup = Setup { expiry_secs: None, clean: true, ..scene.setup };
        scene.connect(Clean::Yes);
        scene.client.disconnect();
        scene.setup = setup(version);
        Some(scene)
    }),
    ("connected, ends with its connection", |version| Some(scene(Setup::new(version, CLIENT), None))),
    ("connected, ends with its connection, has a will", |version| {
        Some(scene(Setup::new(version, CLIENT), Some(will())))
    }),
    ("connected, ends with its connection, has a will with a delay", |version| {
        version.is_v5().then(|| scene(Setup::new(version, CLIENT), Some(will().delay(DELAY_SECS))))
    }),
    ("connected, lasts", |version| Some(lasting(version, None))),
    ("connected, lasts, has a will", |version| Some(lasting(version, Some(will())))),
    ("connected, lasts, has a will with a delay", |version| {
        version.is_v5().then(|| lasting(version, Some(will().delay(DELAY_SECS))))
    }),
    ("connected, lasts, has a will with a delay beyond its end", |version| {
        version.is_v5().then(|| lasting(version, Some(will().delay(2 * EXPIRY_SECS))))
    }),
    ("offline, lasts", |version| Some(lost(lasting(version, None)))),
    ("offline, lasts, its will is due after the delay", |version| {
        version.is_v5().then(|| lost(lasting(version, Some(will().delay(DELAY_SECS)))))
    }),
    ("offline, lasts, its will is due with its end", |version| {
        version.is_v5().then(|| lost(lasting(version, Some(will().delay(2 * EXPIRY_SECS)))))
    }),
    ("offline, lasts, its will is published", |version| Some(lost(lasting(version, Some(will()))))),
];

const EVENTS: &[Event] = &[
    ("CONNECT, Clean Start 0", When::Always, |scene| scene.connect(Clean::No)),
    ("CONNECT, Clean Start 1", When::Always, |scene| scene.connect(Clean::Yes)),
    ("CONNECT that is refused", When::Always, |scene| {
        let will = Some(WillSetup::new("$SYS/forbidden", ""));
        scene.client = scene.world.send_connect(Setup { will, ..scene.setup.clone() });
    }),
    ("DISCONNECT 0x00", When::Connected, |scene| scene.client.disconnect()),
    ("DISCONNECT 0x04, with will", When::ConnectedV5, |scene| {
        scene.client.disconnect_with(ReasonCode::DisconnectWithWill, None);
    }),
    ("DISCONNECT 0x00, Session Expiry Interval 0", When::ConnectedV5, |scene| {
        scene.client.disconnect_with(ReasonCode::Success, Some(0));
    }),
    ("DISCONNECT 0x04, Session Expiry Interval 5", When::ConnectedV5, |scene| {
        scene.client.disconnect_with(ReasonCode::DisconnectWithWill, Some(5));
    }),
    ("packet that breaks the protocol", When::Connected, |scene| scene.client.send_bytes(&[0xD0, 0])),
    ("connection lost", When::Connected, |scene| scene.client.drop_link()),
    ("10 s pass: the delay", When::Always, |scene| scene.world.advance_secs(10)),
    ("30 s pass: 1.5 times Keep Alive", When::Always, |scene| scene.world.advance_secs(30)),
    ("60 s pass: Session Expiry Interval", When::Always, |scene| scene.world.advance_secs(60)),
    ("broker stops", When::Always, |scene| scene.world.stop()),
    ("broker crashes, starts again", When::Always, |scene| {
        scene.world.crash(Duration::ZERO);
        watch(scene);
    }),
    ("broker crashes, starts again after 60 s", When::Always, |scene| {
        scene.world.crash(Duration::from_secs(60));
        watch(scene);
    }),
];

fn will() -> WillSetup {
    WillSetup::new("will", "will").qos(QoS::AtLeastOnce)
}

/// A client that connects, and another one that gets its will.
fn scene(setup: Setup, will: Option<WillSetup>) -> Scene {
    let world = World::new();
    let setup = Setup { will, ..setup.keep_alive(KEEP_ALIVE_SECS) };
    let mut scene = Scene::new(world, setup);
    // Of a session that lasts: it gets a will, too, that is published while the broker starts.
    let watcher = scene.world.connect(Setup::durable(Version::V5, "w"));
    watcher.subscribe("will", QoS::AtLeastOnce);
    scene.watcher = Some(watcher);
    scene
}

/// The watcher comes back after a crash.
fn watch(scene: &mut Scene) {
    scene.watcher = Some(scene.world.connect(Setup::durable(Version::V5, "w")));
}

/// How a client connects whose session lasts: for a while, or for ever before MQTT 5.
fn setup(version: Version) -> Setup {
    let expiry_secs = version.is_v5().then_some(EXPIRY_SECS);
    Setup { expiry_secs, ..Setup::durable(version, CLIENT).keep_alive(KEEP_ALIVE_SECS) }
}

fn lasting(version: Version, will: Option<WillSetup>) -> Scene {
    scene(setup(version), will)
}

fn lost(scene: Scene) -> Scene {
    scene.client.drop_link();
    scene
}

fn describe(scene: &Scene) -> String {
    let described = scene.world.with_session(CLIENT, |session| {
        let end = match session.expiry_secs {
            0 => "ends with its connection".into(),
            u32::MAX => "lasts for ever".into(),
            secs => format!("lasts {secs} s"),
        };
        let will = if session.will.is_some() { ", has a will" } else { "" };
        format!("{}, {end}{will}", presence(session))
    });
    described.unwrap_or_else(|| "no session".into())
}

// [MQTT-3.1.2-4] to [MQTT-3.1.2-8], [MQTT-3.1.2-10], [MQTT-3.1.2-22], [MQTT-3.1.2-23], [MQTT-3.1.3-9],
// [MQTT-3.1.4-3], [MQTT-3.14.4-3], [MQTT-4.1.0-1], [MQTT-4.1.0-2].
#[test]
fn presence_of_a_session() {
    insta::assert_snapshot!(table_of(STATES, EVENTS, describe));
}
