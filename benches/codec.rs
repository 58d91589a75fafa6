//! What decoding and encoding a packet costs: `cargo bench --bench codec`.

use std::{
    hint::black_box,
    num::{NonZeroU16, NonZeroU32},
};

use divan::{
    Bencher,
    counter::{BytesCount, ItemsCount},
};
use dunlin::{
    QoS,
    codec::{
        self, Ack, Connect, ConnectProperties, Decoded, Delivery, PACKET_BYTES_LIMIT, Packet, PacketId,
        PayloadFormat, Publish, PublishProperties, Subscribe, SubscribeFilters, SubscribeProperties,
        SubscriptionOptions, UserProperties, Version, Will, WillProperties,
    },
};

fn main() {
    divan::main();
}

/// Packets of one round: one would cost no more than the clock that measures it.
const ROUND: usize = 64;

const TOPIC: &str = "plant/7/line/3/temperature";
const USER_PROPERTIES: [(&str, &str); 2] = [("unit", "celsius"), ("site", "north")];
const OPTIONS: SubscriptionOptions = SubscriptionOptions {
    qos: QoS::AtLeastOnce,
    no_local: false,
    retain_as_published: false,
    retain_handling: codec::RetainHandling::Send,
};
const FILTERS: [(&str, SubscriptionOptions); 3] =
    [(TOPIC, OPTIONS), ("plant/+/line/+/state", OPTIONS), ("plant/7/#", OPTIONS)];

/// The packets that matter, by name.
const PACKETS: [(&str, Version); 15] = [
    ("publish qos 0 64 B", Version::V311),
    ("publish qos 0 64 B", Version::V5),
    ("publish qos 1 64 B", Version::V311),
    ("publish qos 1 64 B", Version::V5),
    ("publish qos 0 1 KiB", Version::V311),
    ("publish qos 0 1 KiB", Version::V5),
    ("publish qos 1 1 KiB", Version::V311),
    ("publish qos 1 1 KiB", Version::V5),
    ("publish with properties", Version::V5),
    ("puback", Version::V311),
    ("puback", Version::V5),
    ("subscribe 3", Version::V311),
    ("subscribe 3", Version::V5),
    ("connect", Version::V311),
    ("connect", Version::V5),
];

/// One of them, as an argument of a bench.
#[derive(Clone, Copy)]
struct Case(&'static str, Version);

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let version = if self.1.is_v5() { "v5" } else { "v3.1.1" };
        write!(f, "{version} {}", self.0)
    }
}

fn cases() -> impl Iterator<Item = Case> {
    PACKETS.into_iter().map(|(name, version)| Case(name, version))
}

fn packet(Case(name, version): Case) -> Packet<'static> {
    let qos_1 = Delivery::AtLeastOnce(PacketId::MAX);
    match name {
        "publish qos 0 64 B" => publish(Delivery::AtMostOnce, &[7; 64], PublishProperties::default()),
        "publish qos 1 64 B" => publish(qos_1, &[7; 64], PublishProperties::default()),
        "publish qos 0 1 KiB" => publish(Delivery::AtMostOnce, &[7; 1024], PublishProperties::default()),
        "publish qos 1 1 KiB" => publish(qos_1, &[7; 1024], PublishProperties::default()),
        "publish with properties" => publish(qos_1, &[7; 64], publish_properties()),
        "puback" => Packet::PubAck(Ack::success(PacketId::MAX)),
        "subscribe 3" => Packet::Subscribe(Subscribe {
            packet_id: PacketId::MAX,
            properties: SubscribeProperties::default(),
            filters: SubscribeFilters::from_list(&FILTERS),
        }),
        "connect" => connect(version),
        other => panic!("no packet is called {other}"),
    }
}

fn publish(
    delivery: Delivery,
    payload: &'static [u8],
    properties: PublishProperties<'static>,
) -> Packet<'static> {
    Packet::Publish(Publish { dup: false, delivery, retain: false, topic: TOPIC, properties, payload })
}

fn publish_properties() -> PublishProperties<'static> {
    PublishProperties {
        payload_format: Some(PayloadFormat::Utf8),
        message_expiry_secs: Some(3600),
        topic_alias: NonZeroU16::new(3),
        response_topic: Some("replies/17"),
        correlation_data: Some(&[1, 2, 3, 4, 5, 6, 7, 8]),
        content_type: Some("text/plain"),
        user_properties: UserProperties::from_list(&USER_PROPERTIES),
        ..PublishProperties::default()
    }
}

fn connect(version: Version) -> Packet<'static> {
    let properties = match version {
        Version::V31 | Version::V311 => ConnectProperties::default(),
        Version::V5 => ConnectProperties {
            session_expiry_secs: Some(3600),
            receive_maximum: NonZeroU16::new(100),
            packet_bytes_max: NonZeroU32::new(65_536),
            ..ConnectProperties::default()
        },
    };
    let will = Will {
        qos: QoS::AtLeastOnce,
        retain: true,
        topic: "plant/7/line/3/state",
        payload: b"offline",
        properties: WillProperties::default(),
    };
    Packet::Connect(Box::new(Connect {
        version,
        clean_start: true,
        keep_alive_secs: 60,
        client_id: "sensor-0001",
        will: Some(will),
        user_name: Some("sensor"),
        password: Some(b"a password of some length"),
        properties,
    }))
}

fn encoded(case: Case) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec::encode(&packet(case), case.1, &mut bytes);
    bytes
}

#[divan::bench(args = cases())]
fn decode(bencher: Bencher<'_, '_>, case: Case) {
    let buffer = encoded(case).repeat(ROUND);
    bencher.counter(ItemsCount::new(ROUND)).counter(BytesCount::new(buffer.len())).bench_local(|| {
        let mut rest = &black_box(&buffer)[..];
        while let Ok(Decoded::Packet(packet, length)) = codec::decode(rest, case.1, PACKET_BYTES_LIMIT) {
            black_box(packet);
            rest = &rest[length..];
        }
        assert!(rest.is_empty(), "all packets are whole and valid");
    });
}

#[divan::bench(args = cases())]
fn encode(bencher: Bencher<'_, '_>, case: Case) {
    let bytes = encoded(case).len() * ROUND;
    let packet = packet(case);
    let mut buffer = Vec::with_capacity(bytes);
    bencher.counter(ItemsCount::new(ROUND)).counter(BytesCount::new(bytes)).bench_local(|| {
        buffer.clear();
        (0..ROUND).for_each(|_| codec::encode(black_box(&packet), case.1, &mut buffer));
        black_box(&buffer);
    });
}
