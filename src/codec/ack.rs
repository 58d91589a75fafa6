//! PUBACK, PUBREC, PUBREL and PUBCOMP: one shape.

use super::property::PropertySet;
use super::reason::ReasonPlace;
use super::wire::Reader;
use super::{DecodeErrorKind, PacketId, ReasonCode, UserProperties, Version};

/// One of the four packets that answer a PUBLISH.
#[derive(Clone, Debug, PartialEq)]
pub struct Ack<'a> {
    /// The identifier of the PUBLISH. `[MQTT-2.2.1-5]`
    pub packet_id: PacketId,
    /// Success before v5.
    pub reason: ReasonCode,
    /// Properties; empty before v5.
    pub properties: AckProperties<'a>,
}

/// Properties of the acknowledgements, also of SUBACK and UNSUBACK.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AckProperties<'a> {
    /// Why, for people.
    pub reason_string: Option<&'a str>,
    /// User properties in order.
    pub user_properties: UserProperties<'a>,
}

impl<'a> Ack<'a> {
    /// An acknowledgement that has nothing more to say.
    pub fn success(packet_id: PacketId) -> Self {
        Ack { packet_id, reason: ReasonCode::Success, properties: AckProperties::default() }
    }

    pub(super) fn decode(
        body: &'a [u8],
        version: Version,
        place: ReasonPlace,
    ) -> Result<Self, DecodeErrorKind> {
        let mut reader = Reader::new(body);
        let mut ack = Ack::success(reader.packet_id()?);
        // In v5 a success may leave out the reason code, and any may leave out an empty property block.
        if version.is_v5() && !reader.is_empty() {
            ack.reason = reader.reason(place)?;
            if !reader.is_empty() {
                ack.properties = AckProperties::read(&mut reader)?;
            }
        }
        reader.finish()?;
        Ok(ack)
    }

    pub(super) fn encode(&self, version: Version, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.packet_id.get().to_be_bytes());
        let properties = self.properties != AckProperties::default();
        if version.is_v5() && (properties || self.reason != ReasonCode::Success) {
            out.push(self.reason as u8);
            if properties {
                self.properties.write(out);
            }
        }
    }
}
