//! PUBACK, PUBREC, PUBREL and PUBCOMP: one shape.

use super::{PacketId, ReasonCode, UserProperties};

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
