//! Which packet may have which property (table 2-4 of the standard), and the field that it fills.
//!
//! What is not listed for a packet is refused there; a field that is an `Option` is filled at most once.
//! Properties are written in the order of this table.

use crate::codec::wire::Reader;
use crate::codec::{
    AckProperties, AuthProperties, ConnAckProperties, ConnectProperties, DecodeErrorKind,
    DisconnectProperties, PublishProperties, SubscribeProperties, UserProperties, WillProperties,
};

use super::{Field, PropertyId, PropertySet};

macro_rules! property_table {
    ($( $set:ident { $( $id:ident => $field:ident, )* } )*) => { $(
        impl<'a> PropertySet<'a> for $set<'a> {
            fn read_one(
                &mut self,
                id: PropertyId,
                here: &'a [u8],
                block: &mut Reader<'a>,
            ) -> Result<(), DecodeErrorKind> {
                match id {
                    $( PropertyId::$id => self.$field.read_value(id, here, block), )*
                    _ => Err(DecodeErrorKind::PropertyNotAllowed(id)),
                }
            }

            fn write_all(&self, out: &mut Vec<u8>) {
                $( self.$field.write_value(PropertyId::$id, out); )*
            }
        }
    )* };
}

property_table! {
    ConnectProperties {
        SessionExpiry => session_expiry_secs,
        ReceiveMaximum => receive_maximum,
        MaximumPacketSize => packet_bytes_max,
        TopicAliasMaximum => topic_alias_maximum,
        RequestResponseInformation => request_response_information,
        RequestProblemInformation => request_problem_information,
        AuthenticationMethod => authentication_method,
        AuthenticationData => authentication_data,
        UserProperty => user_properties,
    }

    WillProperties {
        WillDelay => delay_secs,
        PayloadFormat => payload_format,
        MessageExpiry => message_expiry_secs,
        ContentType => content_type,
        ResponseTopic => response_topic,
        CorrelationData => correlation_data,
        UserProperty => user_properties,
    }

    ConnAckProperties {
        SessionExpiry => session_expiry_secs,
        ReceiveMaximum => receive_maximum,
        MaximumQoS => maximum_qos,
        RetainAvailable => retain_available,
        MaximumPacketSize => packet_bytes_max,
        AssignedClientIdentifier => assigned_client_id,
        TopicAliasMaximum => topic_alias_maximum,
        ReasonString => reason_string,
        WildcardSubscriptionAvailable => wildcard_subscription_available,
        SubscriptionIdentifierAvailable => subscription_ids_available,
        SharedSubscriptionAvailable => shared_subscription_available,
        ServerKeepAlive => server_keep_alive_secs,
        ResponseInformation => response_information,
        ServerReference => server_reference,
        AuthenticationMethod => authentication_method,
        AuthenticationData => authentication_data,
        UserProperty => user_properties,
    }

    PublishProperties {
        PayloadFormat => payload_format,
        MessageExpiry => message_expiry_secs,
        TopicAlias => topic_alias,
        SubscriptionIdentifier => subscription_ids,
        ContentType => content_type,
        ResponseTopic => response_topic,
        CorrelationData => correlation_data,
        UserProperty => user_properties,
    }

    SubscribeProperties {
        SubscriptionIdentifier => subscription_id,
        UserProperty => user_properties,
    }

    // PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK and UNSUBACK.
    AckProperties {
        ReasonString => reason_string,
        UserProperty => user_properties,
    }

    DisconnectProperties {
        SessionExpiry => session_expiry_secs,
        ServerReference => server_reference,
        ReasonString => reason_string,
        UserProperty => user_properties,
    }

    AuthProperties {
        AuthenticationMethod => method,
        AuthenticationData => data,
        ReasonString => reason_string,
        UserProperty => user_properties,
    }
}

/// UNSUBSCRIBE, which has user properties and nothing else.
impl<'a> PropertySet<'a> for UserProperties<'a> {
    fn read_one(
        &mut self,
        id: PropertyId,
        here: &'a [u8],
        block: &mut Reader<'a>,
    ) -> Result<(), DecodeErrorKind> {
        match id {
            PropertyId::UserProperty => self.read_value(id, here, block),
            _ => Err(DecodeErrorKind::PropertyNotAllowed(id)),
        }
    }

    fn write_all(&self, out: &mut Vec<u8>) {
        self.write_value(PropertyId::UserProperty, out);
    }
}

impl PublishProperties<'_> {
    /// Appends what is forwarded to subscribers unchanged, without a length: payload format, content type,
    /// response topic, correlation data and user properties in their order.
    pub fn write_forwarded(&self, out: &mut Vec<u8>) {
        self.payload_format.write_value(PropertyId::PayloadFormat, out);
        self.content_type.write_value(PropertyId::ContentType, out);
        self.response_topic.write_value(PropertyId::ResponseTopic, out);
        self.correlation_data.write_value(PropertyId::CorrelationData, out);
        self.user_properties.write_value(PropertyId::UserProperty, out);
    }
}

impl WillProperties<'_> {
    /// As [`PublishProperties::write_forwarded`], for the PUBLISH that the will becomes.
    pub fn write_forwarded(&self, out: &mut Vec<u8>) {
        self.payload_format.write_value(PropertyId::PayloadFormat, out);
        self.content_type.write_value(PropertyId::ContentType, out);
        self.response_topic.write_value(PropertyId::ResponseTopic, out);
        self.correlation_data.write_value(PropertyId::CorrelationData, out);
        self.user_properties.write_value(PropertyId::UserProperty, out);
    }
}
