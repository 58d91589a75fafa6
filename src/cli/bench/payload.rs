//! What a message carries: who sent it, its number, when it was due and when it was sent; and the check of it.

use std::sync::Arc;

use super::schedule::Random;
use crate::codec::{
    Delivery, PACKET_BYTES_LIMIT, PacketId, Publish, PublishProperties, QoS, Version, encode,
};

/// What a message tells of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// The number of its publisher.
    pub(super) publisher: u32,
    /// Its number among those of its publisher, from 0.
    pub(super) sequence: u64,
    /// When it was due, in nanoseconds of the run's clock.
    pub(super) due_ns: u64,
    /// How long after that it was sent; what does not fit is the largest number.
    pub(super) delay_us: u32,
}

impl Stamp {
    /// The size of a stamp with the number of its run before it.
    pub(super) const BYTES: usize = 28;

    fn write(&self, run: u32, out: &mut [u8; Self::BYTES]) {
        out[0..4].copy_from_slice(&run.to_be_bytes());
        out[4..8].copy_from_slice(&self.publisher.to_be_bytes());
        out[8..16].copy_from_slice(&self.sequence.to_be_bytes());
        out[16..24].copy_from_slice(&self.due_ns.to_be_bytes());
        out[24..28].copy_from_slice(&self.delay_us.to_be_bytes());
    }

    fn read(bytes: &[u8; Self::BYTES]) -> (u32, Self) {
        let word = |at: usize| [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        let double = |at: usize| {
            u64::from(u32::from_be_bytes(word(at))) << 32 | u64::from(u32::from_be_bytes(word(at + 4)))
        };
        let stamp = Self {
            publisher: u32::from_be_bytes(word(4)),
            sequence: double(8),
            due_ns: double(16),
            delay_us: u32::from_be_bytes(word(24)),
        };
        (u32::from_be_bytes(word(0)), stamp)
    }
}

/// The content of all messages of a run: a stamp where there is room for one, and bytes that repeat from the seed.
#[derive(Clone, Debug)]
pub(super) struct Content {
    run: u32,
    /// A payload whose stamp is still to be written.
    payload: Arc<[u8]>,
}

/// What an arriving payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A message of this run.
    Ours(Stamp),
    /// A message of somebody else, as may be retained or sent to the same topic.
    Foreign,
    /// A message of this run that is not as it was sent.
    Altered,
}

impl Content {
    pub(super) fn new(run: u32, bytes: usize, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let payload = (0..bytes).map(|_| random.next_u64() as u8).collect();
        Self { run, payload }
    }

    /// The size of a payload in bytes.
    pub(super) fn len(&self) -> usize {
        self.payload.len()
    }

    /// Reads and checks a payload.
    pub(super) fn check(&self, payload: &[u8]) -> Found {
        let Some((stamp, rest)) = payload.split_first_chunk() else { return Found::Foreign };
        let (run, stamp) = Stamp::read(stamp);
        if run != self.run {
            return Found::Foreign;
        }
        match self.payload.get(Stamp::BYTES..) {
            Some(sent) if sent == rest => Found::Ours(stamp),
            _ => Found::Altered,
        }
    }
}

/// How messages are published.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    pub(super) qos: QoS,
    pub(super) retain: bool,
}

/// The PUBLISH of a publisher, encoded once: what changes from message to message is written over.
#[derive(Debug)]
pub(super) struct Frame {
    bytes: Vec<u8>,
    packet_id_at: Option<usize>,
    /// Where the stamp goes, if the payload has room for one.
    stamp_at: Option<usize>,
    run: u32,
}

impl Frame {
    /// `None` if the format cannot express a packet of that size.
    pub(super) fn new(topic: &str, content: &Content, manner: Manner, version: Version) -> Option<Self> {
        let Manner { qos, retain } = manner;
        let payload = &*content.payload;
        let delivery = match qos {
            QoS::AtMostOnce => Delivery::AtMostOnce,
            QoS::AtLeastOnce => Delivery::AtLeastOnce(PacketId::MIN),
            QoS::ExactlyOnce => Delivery::ExactlyOnce(PacketId::MIN),
        };
        // The most that can stand before the payload: fixed header, topic, identifier, length of no properties.
        if 5 + 2 + topic.len() + 2 + 1 + payload.len() > PACKET_BYTES_LIMIT as usize {
            return None;
        }
        let properties = PublishProperties::default();
        let publish = Publish { dup: false, delivery, retain, topic, properties, payload };
        let mut bytes = Vec::new();
        encode(&crate::codec::Packet::Publish(publish), version, &mut bytes);
        let payload_at = bytes.len() - payload.len();
        // The identifier is the last thing before the payload but for the length of no properties.
        let properties_bytes = if version.is_v5() { 1 } else { 0 };
        let packet_id_at = delivery.packet_id().map(|_| payload_at - properties_bytes - 2);
        let stamp_at = (payload.len() >= Stamp::BYTES).then_some(payload_at);
        Some(Self { bytes, packet_id_at, stamp_at, run: content.run })
    }

    /// Appends the packet of one message.
    pub(super) fn write(&mut self, packet_id: Option<PacketId>, stamp: &Stamp, out: &mut Vec<u8>) {
        let identifier = self.packet_id_at.and_then(|at| self.bytes.get_mut(at..at + 2));
        if let (Some(identifier), Some(packet_id)) = (identifier, packet_id) {
            identifier.copy_from_slice(&packet_id.get().to_be_bytes());
        }
        let place = self.stamp_at.and_then(|at| self.bytes.get_mut(at..)).and_then(<[u8]>::first_chunk_mut);
        if let Some(place) = place {
            stamp.write(self.run, place);
        }
        out.extend_from_slice(&self.bytes);
    }

    /// The size of the packet.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec::{Decoded, Packet, decode};

    fn qos() -> impl Strategy<Value = QoS> {
        prop_oneof![Just(QoS::AtMostOnce), Just(QoS::AtLeastOnce), Just(QoS::ExactlyOnce)]
    }

    fn version() -> impl Strategy<Value = Version> {
        prop_oneof![Just(Version::V311), Just(Version::V5)]
    }

    proptest! {
        /// What is written over a frame is what a receiver decodes, whatever the lengths before it.
        #[test]
        fn a_frame_decodes_to_its_stamp(
            qos in qos(),
            version in version(),
            topic in "[a-z/]{1,300}",
            size in Stamp::BYTES..400,
            (publisher, sequence, due_ns, delay_us) in any::<(u32, u64, u64, u32)>(),
            packet_id in any::<PacketId>(),
        ) {
            let content = Content::new(9, size, 1);
            let mut frame = Frame::new(&topic, &content, Manner { qos, retain: true }, version).unwrap();
            let stamp = Stamp { publisher, sequence, due_ns, delay_us };
            let mut out = Vec::new();
            frame.write(Some(packet_id), &stamp, &mut out);
            prop_assert_eq!(out.len(), frame.len());
            let decoded = decode(&out, version, PACKET_BYTES_LIMIT).unwrap();
            let Decoded::Packet(Packet::Publish(publish), length) = decoded else { panic!("{decoded:?}") };
            prop_assert_eq!((length, publish.topic, publish.retain), (out.len(), topic.as_str(), true));
            prop_assert_eq!(publish.delivery.qos(), qos);
            if qos != QoS::AtMostOnce {
                prop_assert_eq!(publish.delivery.packet_id(), Some(packet_id));
            }
            prop_assert_eq!(content.check(publish.payload), Found::Ours(stamp));
        }
    }

    #[test]
    fn what_is_not_as_it_was_sent_is_told() {
        let content = Content::new(9, 40, 1);
        let manner = Manner { qos: QoS::AtMostOnce, retain: false };
        let mut frame = Frame::new("t", &content, manner, Version::V5).unwrap();
        let stamp = Stamp { publisher: 1, sequence: 2, due_ns: 3, delay_us: 4 };
        let mut out = Vec::new();
        frame.write(None, &stamp, &mut out);
        let payload = out.split_off(out.len() - 40);
        assert_eq!(content.check(&payload), Found::Ours(stamp));
        assert_eq!(content.check(&payload[..39]), Found::Altered);
        let mut flipped = payload.clone();
        flipped[39] ^= 1;
        assert_eq!(content.check(&flipped), Found::Altered);
        assert_eq!(Content::new(8, 40, 1).check(&payload), Found::Foreign);
        assert_eq!(content.check(b"hello"), Found::Foreign);
    }

    #[test]
    fn small_payloads_go_without_a_stamp() {
        let content = Content::new(9, 5, 1);
        let manner = Manner { qos: QoS::AtLeastOnce, retain: false };
        let mut frame = Frame::new("t", &content, manner, Version::V311).unwrap();
        let stamp = Stamp { publisher: 1, sequence: 2, due_ns: 3, delay_us: 4 };
        let mut out = Vec::new();
        frame.write(PacketId::new(0x0102), &stamp, &mut out);
        assert_eq!(out[..7], [0x32, 10, 0, 1, b't', 1, 2]);
        assert_eq!(out[7..], *content.payload);
    }
}
