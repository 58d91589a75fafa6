//! Valid packets against two other codecs, each with the packets that it is known not to read.
//!
//! Neither is asked about broken packets: both accept much that the standard forbids.

mod mqttbytes;
mod rmqtt;

use dunlin::codec::{
    Delivery, Packet, PacketId, PayloadFormat, PublishProperties, QoS, ReasonCode, RetainHandling,
    UserProperties, Version,
};
use proptest::prelude::*;

use crate::random::{encoded, versioned_packet};
use crate::vectors::{self, Expect};

/// Asks both codecs what they read from a packet as we write it.
fn check(packet: &Packet<'_>, version: Version) {
    let bytes = encoded(packet, version);
    mqttbytes::check(packet, version, &bytes);
    rmqtt::check(packet, version, &bytes);
}

#[test]
fn packets_of_the_table_are_what_others_read() {
    for row in vectors::rows() {
        for &version in row.versions {
            let Expect::Packet(packet, _) = &row.expect else { continue };
            // A CONNECT decides which version its bytes are in.
            let version = if let Packet::Connect(connect) = packet { connect.version } else { version };
            println!("{} ({version:?})", row.name);
            check(packet, version);
        }
    }
}

proptest! {
    #[test]
    fn random_packets_are_what_others_read((version, packet) in versioned_packet()) {
        check(&packet, version);
    }
}

/// Leaks the list: the packet that is put together from another codec's has nowhere to keep it.
fn user_properties<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> UserProperties<'a> {
    UserProperties::from_list(pairs.collect::<Vec<_>>().leak())
}

fn packet_id(number: u16) -> PacketId {
    PacketId::new(number).unwrap()
}

fn reason(number: u8) -> ReasonCode {
    ReasonCode::from_u8(number).unwrap()
}

fn qos(number: u8) -> QoS {
    QoS::from_u8(number).unwrap()
}

fn delivery(qos: u8, packet_id: u16) -> Delivery {
    match qos {
        0 => Delivery::AtMostOnce,
        1 => Delivery::AtLeastOnce(PacketId::new(packet_id).unwrap()),
        2 => Delivery::ExactlyOnce(PacketId::new(packet_id).unwrap()),
        _ => panic!("QoS {qos}"),
    }
}

fn payload_format(number: u8) -> PayloadFormat {
    if number == 0 { PayloadFormat::Bytes } else { PayloadFormat::Utf8 }
}

fn retain_handling(number: u8) -> RetainHandling {
    match number {
        0 => RetainHandling::Send,
        1 => RetainHandling::SendIfNew,
        _ => RetainHandling::DoNotSend,
    }
}

fn publish<'a>(
    flags: (bool, u8, bool),
    topic: &'a str,
    packet_id: u16,
    properties: PublishProperties<'a>,
    payload: &'a [u8],
) -> Packet<'a> {
    let (dup, qos, retain) = flags;
    let delivery = delivery(qos, packet_id);
    Packet::Publish(dunlin::codec::Publish { dup, delivery, retain, topic, properties, payload })
}
