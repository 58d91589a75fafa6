//! SUBSCRIBE, SUBACK, UNSUBSCRIBE and UNSUBACK.

use std::fmt;
use std::num::NonZeroU32;

use super::property::PropertySet;
use super::reason::ReasonPlace;
use super::wire::{Reader, write_string};
use super::{AckProperties, DecodeErrorKind, PacketId, QoS, UserProperties, Version};

/// SUBSCRIBE.
#[derive(Clone, Debug, PartialEq)]
pub struct Subscribe<'a> {
    /// Its identifier, repeated by SUBACK.
    pub packet_id: PacketId,
    /// Properties; empty before v5.
    pub properties: SubscribeProperties<'a>,
    /// The filters with their options: at least one. `[MQTT-3.8.3-2]`
    pub filters: SubscribeFilters<'a>,
}

/// Properties of SUBSCRIBE.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SubscribeProperties<'a> {
    /// Subscription Identifier, 1 to 268,435,455.
    pub subscription_id: Option<NonZeroU32>,
    /// User properties in order.
    pub user_properties: UserProperties<'a>,
}

/// Options of one subscription. Before v5 all but `qos` have their defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionOptions {
    /// The highest QoS that the subscriber wants.
    pub qos: QoS,
    /// Not the subscriber's own messages.
    pub no_local: bool,
    /// Forward RETAIN as it was published.
    pub retain_as_published: bool,
    /// When retained messages are sent.
    pub retain_handling: RetainHandling,
}

/// When retained messages are sent for a subscription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum RetainHandling {
    /// On every SUBSCRIBE. `[MQTT-3.3.1-9]`
    #[default]
    Send = 0,
    /// Only if the subscription is new. `[MQTT-3.3.1-10]`
    SendIfNew = 1,
    /// Never. `[MQTT-3.3.1-11]`
    DoNotSend = 2,
}

/// SUBACK.
#[derive(Clone, Debug, PartialEq)]
pub struct SubAck<'a> {
    /// The identifier of the SUBSCRIBE.
    pub packet_id: PacketId,
    /// Properties; empty before v5.
    pub properties: AckProperties<'a>,
    /// One code per filter, in order, as on the wire (v3: 0, 1, 2 or 0x80).
    pub codes: &'a [u8],
}

/// UNSUBSCRIBE.
#[derive(Clone, Debug, PartialEq)]
pub struct Unsubscribe<'a> {
    /// Its identifier, repeated by UNSUBACK.
    pub packet_id: PacketId,
    /// User properties in order; empty before v5.
    pub user_properties: UserProperties<'a>,
    /// The filters: at least one. `[MQTT-3.10.3-2]`
    pub filters: UnsubscribeFilters<'a>,
}

/// UNSUBACK.
#[derive(Clone, Debug, PartialEq)]
pub struct UnsubAck<'a> {
    /// The identifier of the UNSUBSCRIBE.
    pub packet_id: PacketId,
    /// Properties; empty before v5.
    pub properties: AckProperties<'a>,
    /// One code per filter, in order, as on the wire; empty before v5.
    pub codes: &'a [u8],
}

/// Filters and options of a SUBSCRIBE in their order: borrowed from a packet, or a list to be written.
#[derive(Clone, Copy)]
pub struct SubscribeFilters<'a> {
    source: Source<'a, (&'a str, SubscriptionOptions)>,
}

/// Filters of an UNSUBSCRIBE in their order: borrowed from a packet, or a list to be written.
#[derive(Clone, Copy)]
pub struct UnsubscribeFilters<'a> {
    source: Source<'a, &'a str>,
}

#[derive(Clone, Copy)]
enum Source<'a, T> {
    /// The payload, validated, and the number of its entries.
    Payload(&'a [u8], usize),
    List(&'a [T]),
}

impl<'a, T: Copy> Source<'a, T> {
    /// Validates the rest of a packet, entry by entry.
    fn decode(
        reader: &mut Reader<'a>,
        read: impl Fn(&mut Reader<'a>) -> Result<T, DecodeErrorKind>,
    ) -> Result<Self, DecodeErrorKind> {
        let payload = reader.rest();
        let mut count = 0;
        while !reader.is_empty() {
            read(reader)?;
            count += 1;
        }
        if count == 0 { Err(DecodeErrorKind::NoFilters) } else { Ok(Source::Payload(payload, count)) }
    }

    fn len(&self) -> usize {
        match self {
            Source::Payload(_, count) => *count,
            Source::List(list) => list.len(),
        }
    }

    fn iter(
        self,
        read: fn(&mut Reader<'a>) -> Result<T, DecodeErrorKind>,
    ) -> impl Iterator<Item = T> + Clone {
        let (payload, count, list) = match self {
            Source::Payload(payload, count) => (payload, count, &[][..]),
            Source::List(list) => (&[][..], 0, list),
        };
        let mut reader = Reader::new(payload);
        (0..count)
            .map(move |_| {
                read(&mut reader).expect("the payload was read to its end when its packet was decoded")
            })
            .chain(list.iter().copied())
    }
}

impl<'a> SubscribeFilters<'a> {
    /// Filters to be written: at least one, of at most 65,535 bytes each.
    pub fn from_list(list: &'a [(&'a str, SubscriptionOptions)]) -> Self {
        SubscribeFilters { source: Source::List(list) }
    }

    /// The filters in order.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, SubscriptionOptions)> + Clone + use<'a> {
        self.source.iter(read_subscription)
    }

    /// How many there are.
    #[expect(clippy::len_without_is_empty, reason = "a SUBSCRIBE has at least one filter")]
    pub fn len(&self) -> usize {
        self.source.len()
    }
}

impl<'a> UnsubscribeFilters<'a> {
    /// Filters to be written: at least one, of at most 65,535 bytes each.
    pub fn from_list(list: &'a [&'a str]) -> Self {
        UnsubscribeFilters { source: Source::List(list) }
    }

    /// The filters in order.
    pub fn iter(&self) -> impl Iterator<Item = &'a str> + Clone + use<'a> {
        self.source.iter(read_filter)
    }

    /// How many there are.
    #[expect(clippy::len_without_is_empty, reason = "an UNSUBSCRIBE has at least one filter")]
    pub fn len(&self) -> usize {
        self.source.len()
    }
}

impl PartialEq for SubscribeFilters<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl PartialEq for UnsubscribeFilters<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl fmt::Debug for SubscribeFilters<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl fmt::Debug for UnsubscribeFilters<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl SubscriptionOptions {
    fn from_u8(bits: u8) -> Result<Self, DecodeErrorKind> {
        if bits & 0b1100_0000 != 0 {
            return Err(DecodeErrorKind::SubscriptionOptionsReserved);
        }
        Ok(SubscriptionOptions {
            qos: QoS::from_u8(bits & 0b11).ok_or(DecodeErrorKind::SubscriptionQoS)?,
            no_local: bits & 0b100 != 0,
            retain_as_published: bits & 0b1000 != 0,
            retain_handling: match bits >> 4 {
                0 => RetainHandling::Send,
                1 => RetainHandling::SendIfNew,
                2 => RetainHandling::DoNotSend,
                _ => return Err(DecodeErrorKind::RetainHandling),
            },
        })
    }

    fn to_u8(self, version: Version) -> u8 {
        if !version.is_v5() {
            return self.qos as u8;
        }
        self.qos as u8
            | u8::from(self.no_local) << 2
            | u8::from(self.retain_as_published) << 3
            | (self.retain_handling as u8) << 4
    }
}

fn read_filter<'a>(reader: &mut Reader<'a>) -> Result<&'a str, DecodeErrorKind> {
    let filter = reader.string("topic filter")?;
    if filter.is_empty() { Err(DecodeErrorKind::FilterEmpty) } else { Ok(filter) }
}

fn read_subscription<'a>(reader: &mut Reader<'a>) -> Result<(&'a str, SubscriptionOptions), DecodeErrorKind> {
    let filter = read_filter(reader)?;
    let options = SubscriptionOptions::from_u8(reader.u8("subscription options")?)?;
    // [MQTT-3.8.3-4] a group's messages go to one member, whoever sent them.
    if options.no_local && filter.starts_with("$share/") {
        return Err(DecodeErrorKind::NoLocalOnShared);
    }
    Ok((filter, options))
}

/// Before v5 all bits but those of the QoS are reserved. `[MQTT-3.1.1/3.8.3-4]`
fn read_subscription_v3<'a>(
    reader: &mut Reader<'a>,
) -> Result<(&'a str, SubscriptionOptions), DecodeErrorKind> {
    let filter = read_filter(reader)?;
    let bits = reader.u8("requested QoS")?;
    if bits & 0b1111_1100 != 0 {
        return Err(DecodeErrorKind::SubscriptionOptionsReserved);
    }
    Ok((filter, SubscriptionOptions::from_u8(bits)?))
}

impl<'a> Subscribe<'a> {
    pub(super) fn decode(body: &'a [u8], version: Version) -> Result<Self, DecodeErrorKind> {
        let mut reader = Reader::new(body);
        let packet_id = reader.packet_id()?;
        let (properties, read): (_, fn(&mut Reader<'a>) -> _) = match version.is_v5() {
            true => (SubscribeProperties::read(&mut reader)?, read_subscription),
            false => (SubscribeProperties::default(), read_subscription_v3),
        };
        let filters = SubscribeFilters { source: Source::decode(&mut reader, read)? };
        Ok(Subscribe { packet_id, properties, filters })
    }

    pub(super) fn encode(&self, version: Version, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.packet_id.get().to_be_bytes());
        if version.is_v5() {
            self.properties.write(out);
        }
        for (filter, options) in self.filters.iter() {
            write_string(filter, out);
            out.push(options.to_u8(version));
        }
    }
}

impl<'a> Unsubscribe<'a> {
    pub(super) fn decode(body: &'a [u8], version: Version) -> Result<Self, DecodeErrorKind> {
        let mut reader = Reader::new(body);
        let packet_id = reader.packet_id()?;
        let user_properties = match version.is_v5() {
            true => <UserProperties<'a> as PropertySet<'a>>::read(&mut reader)?,
            false => UserProperties::default(),
        };
        let filters = UnsubscribeFilters { source: Source::decode(&mut reader, read_filter)? };
        Ok(Unsubscribe { packet_id, user_properties, filters })
    }

    pub(super) fn encode(&self, version: Version, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.packet_id.get().to_be_bytes());
        if version.is_v5() {
            PropertySet::write(&self.user_properties, out);
        }
        for filter in self.filters.iter() {
            write_string(filter, out);
        }
    }
}

impl<'a> SubAck<'a> {
    pub(super) fn decode(body: &'a [u8], version: Version) -> Result<Self, DecodeErrorKind> {
        let mut reader = Reader::new(body);
        let packet_id = reader.packet_id()?;
        if version.is_v5() {
            let properties = AckProperties::read(&mut reader)?;
            let codes = reader.reasons(ReasonPlace::SubAck)?;
            return Ok(SubAck { packet_id, properties, codes });
        }
        let codes = reader.take_rest();
        // [MQTT-3.1.1/3.9.3-2]
        if let Some(&code) = codes.iter().find(|code| !matches!(code, 0..=2 | 0x80)) {
            return Err(DecodeErrorKind::Code(code));
        }
        if codes.is_empty() {
            return Err(DecodeErrorKind::NoCodes);
        }
        Ok(SubAck { packet_id, properties: AckProperties::default(), codes })
    }

    pub(super) fn encode(&self, version: Version, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.packet_id.get().to_be_bytes());
        if version.is_v5() {
            self.properties.write(out);
        }
        out.extend_from_slice(self.codes);
    }
}

impl<'a> UnsubAck<'a> {
    pub(super) fn decode(body: &'a [u8], version: Version) -> Result<Self, DecodeErrorKind> {
        let mut reader = Reader::new(body);
        let packet_id = reader.packet_id()?;
        if version.is_v5() {
            let properties = AckProperties::read(&mut reader)?;
            let codes = reader.reasons(ReasonPlace::UnsubAck)?;
            return Ok(UnsubAck { packet_id, properties, codes });
        }
        reader.finish()?;
        Ok(UnsubAck { packet_id, properties: AckProperties::default(), codes: &[] })
    }

    pub(super) fn encode(&self, version: Version, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.packet_id.get().to_be_bytes());
        if version.is_v5() {
            self.properties.write(out);
            out.extend_from_slice(self.codes);
        }
    }
}
