//! The head of a PUBLISH on its way to a subscriber: all but the payload, which deliveries share.

use std::num::{NonZeroU16, NonZeroU32};

use super::property::PropertyId;
use super::publish::flags;
use super::wire::{variable_byte_integer_len, write_string, write_variable_byte_integer};
use super::{Delivery, PacketKind, Version};

/// A PUBLISH without its payload, for the hot path: properties that are forwarded unchanged are copied as
/// bytes, those that differ per delivery have fields.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PublishHead<'a> {
    /// DUP; not written at QoS 0.
    pub dup: bool,
    /// RETAIN.
    pub retain: bool,
    /// QoS and packet identifier.
    pub delivery: Delivery,
    /// The topic name; empty if a topic alias stands for it.
    pub topic: &'a str,
    /// What [`write_forwarded`](super::PublishProperties::write_forwarded) wrote; ignored before v5.
    pub forwarded: &'a [u8],
    /// Message Expiry Interval in seconds that is left; ignored before v5.
    pub message_expiry_secs: Option<u32>,
    /// Topic Alias; ignored before v5.
    pub topic_alias: Option<NonZeroU16>,
    /// Subscription Identifiers in order; ignored before v5.
    pub subscription_ids: &'a [NonZeroU32],
    /// The length of the payload in bytes.
    pub payload_len: usize,
}

impl PublishHead<'_> {
    /// The size in bytes of the whole packet: fixed header, head and payload.
    #[inline]
    pub fn frame_len(&self, version: Version) -> usize {
        let remaining = self.remaining_length(version);
        1 + variable_byte_integer_len(remaining) + remaining
    }

    /// Appends everything up to the payload.
    ///
    /// # Panics
    /// If [`frame_len`](Self::frame_len) is more than [`PACKET_BYTES_LIMIT`](super::PACKET_BYTES_LIMIT)
    /// or the topic name has more than 65,535 bytes.
    #[inline]
    pub fn write(&self, version: Version, out: &mut Vec<u8>) {
        out.push(PacketKind::Publish.first_byte() | flags(self.dup, self.delivery.qos(), self.retain));
        write_variable_byte_integer(self.remaining_length(version), out);
        write_string(self.topic, out);
        if let Some(packet_id) = self.delivery.packet_id() {
            out.extend_from_slice(&packet_id.get().to_be_bytes());
        }
        if version.is_v5() {
            self.write_properties(out);
        }
    }

    fn remaining_length(&self, version: Version) -> usize {
        let packet_id_len = if self.delivery.packet_id().is_some() { 2 } else { 0 };
        let properties_len = if version.is_v5() {
            let length = self.properties_len();
            variable_byte_integer_len(length) + length
        } else {
            0
        };
        2 + self.topic.len() + packet_id_len + properties_len + self.payload_len
    }

    fn properties_len(&self) -> usize {
        let expiry = if self.message_expiry_secs.is_some() { 5 } else { 0 };
        let alias = if self.topic_alias.is_some() { 3 } else { 0 };
        let ids: usize =
            self.subscription_ids.iter().map(|id| 1 + variable_byte_integer_len(id.get() as usize)).sum();
        expiry + alias + ids + self.forwarded.len()
    }

    fn write_properties(&self, out: &mut Vec<u8>) {
        write_variable_byte_integer(self.properties_len(), out);
        if let Some(secs) = self.message_expiry_secs {
            out.push(PropertyId::MessageExpiry as u8);
            out.extend_from_slice(&secs.to_be_bytes());
        }
        if let Some(alias) = self.topic_alias {
            out.push(PropertyId::TopicAlias as u8);
            out.extend_from_slice(&alias.get().to_be_bytes());
        }
        for id in self.subscription_ids {
            out.push(PropertyId::SubscriptionIdentifier as u8);
            write_variable_byte_integer(id.get() as usize, out);
        }
        out.extend_from_slice(self.forwarded);
    }
}
