//! SUBSCRIBE, SUBACK, UNSUBSCRIBE and UNSUBACK as they must not be.

use dunlin::codec::{DecodeErrorKind as E, PropertyId as P};

use super::{ALL, Row, V3, V5, bad};

pub(super) fn rows() -> Vec<Row> {
    let mut rows = subscribe();
    rows.extend(unsubscribe());
    rows.extend(answers());
    rows
}

#[rustfmt::skip]
fn subscribe() -> Vec<Row> {
    let id = E::Truncated("packet identifier");
    vec![
        bad("SUBSCRIBE without a body", ALL, "82 00", id, 0x81),
        bad("SUBSCRIBE with half a packet identifier", ALL, "82 01 00", id, 0x81),
        bad("SUBSCRIBE with packet identifier 0", V3, "82[ 0000 ('a') 00 ]", E::PacketIdZero, 0x82),
        bad("SUBSCRIBE of v5 with packet identifier 0", V5, "82[ 0000 [] ('a') 00 ]", E::PacketIdZero, 0x82),
        // [MQTT-3.8.3-2]
        bad("SUBSCRIBE without a filter", V3, "82 02 0001", E::NoFilters, 0x82),
        bad("SUBSCRIBE of v5 without a filter", V5, "82[ 0001 [] ]", E::NoFilters, 0x82),
        bad("SUBSCRIBE of v5 without a property length", V5, "82 02 0001", E::Truncated("property length"), 0x81),
        bad("SUBSCRIBE with a filter but no QoS", V3, "82[ 0001 ('a') ]", E::Truncated("requested QoS"), 0x81),
        bad("SUBSCRIBE of v5 with a filter but no options", V5, "82[ 0001 [] ('a') ]", E::Truncated("subscription options"), 0x81),
        bad("SUBSCRIBE whose second filter has no options", V5, "82[ 0001 [] ('a') 00 ('b') ]", E::Truncated("subscription options"), 0x81),
        bad("SUBSCRIBE with a filter longer than the packet", V3, "82[ 0001 00 03 'a' 00 ]", E::Truncated("topic filter"), 0x81),
        bad("SUBSCRIBE with half a length behind a filter", V3, "82[ 0001 ('a') 00 00 ]", E::Truncated("topic filter"), 0x81),
        // [MQTT-4.7.3-1]
        bad("SUBSCRIBE with an empty filter", V3, "82[ 0001 () 00 ]", E::FilterEmpty, 0x81),
        bad("SUBSCRIBE of v5 with an empty second filter", V5, "82[ 0001 [] ('a') 00 () 00 ]", E::FilterEmpty, 0x81),
        // [MQTT-3.8.3-1]
        bad("SUBSCRIBE with a filter that is not UTF-8", V3, "82[ 0001 (FF) 00 ]", E::Utf8("topic filter"), 0x81),
        bad("SUBSCRIBE with a filter with a surrogate", V5, "82[ 0001 [] ('a' EDA080) 00 ]", E::Utf8("topic filter"), 0x81),
        bad("SUBSCRIBE with a null character", V5, "82[ 0001 [] ('a' 00) 00 ]", E::NulCharacter("topic filter"), 0x81),
        // [MQTT-3.1.1/3.8.3-4]
        bad("requested QoS 3", V3, "82[ 0001 ('a') 03 ]", E::SubscriptionQoS, 0x82),
        bad("no local before v5", V3, "82[ 0001 ('a') 04 ]", E::SubscriptionOptionsReserved, 0x81),
        bad("retain handling before v5", V3, "82[ 0001 ('a') 11 ]", E::SubscriptionOptionsReserved, 0x81),
        bad("reserved bit of the requested QoS", V3, "82[ 0001 ('a') 80 ]", E::SubscriptionOptionsReserved, 0x81),
        bad("QoS 3 in subscription options", V5, "82[ 0001 [] ('a') 03 ]", E::SubscriptionQoS, 0x82),
        bad("retain handling 3", V5, "82[ 0001 [] ('a') 30 ]", E::RetainHandling, 0x82),
        // [MQTT-3.8.3-5]
        bad("reserved bit 6 of subscription options", V5, "82[ 0001 [] ('a') 40 ]", E::SubscriptionOptionsReserved, 0x81),
        bad("reserved bit 7 of subscription options", V5, "82[ 0001 [] ('a') 80 ]", E::SubscriptionOptionsReserved, 0x81),
        bad("reserved bit of the second filter's options", V5, "82[ 0001 [] ('a') 00 ('b') C1 ]", E::SubscriptionOptionsReserved, 0x81),
        // [MQTT-3.8.3-4]
        bad("no local on a shared subscription", V5, "82[ 0001 [] ('$share/g/a') 04 ]", E::NoLocalOnShared, 0x82),
        bad("no local on a second, shared subscription", V5, "82[ 0001 [] ('a') 04 ('$share/g/a') 05 ]", E::NoLocalOnShared, 0x82),
        bad("subscription identifier 0 in SUBSCRIBE", V5, "82[ 0001 [0B 00] ('a') 00 ]", E::PropertyZero(P::SubscriptionIdentifier), 0x82),
        bad("two subscription identifiers in SUBSCRIBE", V5, "82[ 0001 [0B 01 0B 02] ('a') 00 ]", E::PropertyRepeated(P::SubscriptionIdentifier), 0x82),
        bad("subscription identifier past its limit", V5, "82[ 0001 [0B 8080808001] ('a') 00 ]", E::VariableByteInteger("subscription identifier"), 0x81),
        bad("subscription identifier cut off", V5, "82[ 0001 [0B FF] ('a') 00 ]", E::Truncated("subscription identifier"), 0x81),
        bad("properties of SUBSCRIBE longer than the packet", V5, "82[ 0001 7F ('a') 00 ]", E::Truncated("properties"), 0x81),
        bad("reason string in SUBSCRIBE", V5, "82[ 0001 [1F('a')] ('a') 00 ]", E::PropertyNotAllowed(P::ReasonString), 0x81),
        bad("topic alias in SUBSCRIBE", V5, "82[ 0001 [23 0001] ('a') 00 ]", E::PropertyNotAllowed(P::TopicAlias), 0x81),
    ]
}

#[rustfmt::skip]
fn unsubscribe() -> Vec<Row> {
    let id = E::Truncated("packet identifier");
    vec![
        bad("UNSUBSCRIBE without a body", ALL, "A2 00", id, 0x81),
        bad("UNSUBSCRIBE with packet identifier 0", V3, "A2[ 0000 ('a') ]", E::PacketIdZero, 0x82),
        bad("UNSUBSCRIBE of v5 with packet identifier 0", V5, "A2[ 0000 [] ('a') ]", E::PacketIdZero, 0x82),
        // [MQTT-3.10.3-2]
        bad("UNSUBSCRIBE without a filter", V3, "A2 02 0001", E::NoFilters, 0x82),
        bad("UNSUBSCRIBE of v5 without a filter", V5, "A2[ 0001 [] ]", E::NoFilters, 0x82),
        bad("UNSUBSCRIBE of v5 without a property length", V5, "A2 02 0001", E::Truncated("property length"), 0x81),
        bad("UNSUBSCRIBE with an empty filter", V3, "A2[ 0001 () ]", E::FilterEmpty, 0x81),
        // [MQTT-3.10.3-1]
        bad("UNSUBSCRIBE with a filter that is not UTF-8", V5, "A2[ 0001 [] (C080) ]", E::Utf8("topic filter"), 0x81),
        bad("UNSUBSCRIBE with a null character", V3, "A2[ 0001 (00) ]", E::NulCharacter("topic filter"), 0x81),
        bad("UNSUBSCRIBE with options behind the filter", V3, "A2[ 0001 ('a') 00 ]", E::Truncated("topic filter"), 0x81),
        bad("subscription identifier in UNSUBSCRIBE", V5, "A2[ 0001 [0B 01] ('a') ]", E::PropertyNotAllowed(P::SubscriptionIdentifier), 0x81),
    ]
}

#[rustfmt::skip]
fn answers() -> Vec<Row> {
    let id = E::Truncated("packet identifier");
    vec![
        bad("SUBACK without a body", ALL, "90 00", id, 0x81),
        bad("SUBACK with packet identifier 0", ALL, "90 03 0000 00", E::PacketIdZero, 0x82),
        bad("SUBACK without codes", V3, "90 02 0001", E::NoCodes, 0x82),
        bad("SUBACK of v5 without codes", V5, "90[ 0001 [] ]", E::NoCodes, 0x82),
        bad("SUBACK of v5 without a property length", V5, "90 02 0001", E::Truncated("property length"), 0x81),
        bad("SUBACK with a code of v5 before v5", V3, "90[ 0001 00 87 ]", E::Code(0x87), 0x82),
        bad("SUBACK with QoS 3", V3, "90[ 0001 03 ]", E::Code(3), 0x82),
        // [MQTT-3.9.3-2]
        bad("SUBACK of v5 with a code of UNSUBACK", V5, "90[ 0001 [] 00 11 ]", E::Code(0x11), 0x82),
        bad("SUBACK with a subscription identifier", V5, "90[ 0001 [0B 01] 00 ]", E::PropertyNotAllowed(P::SubscriptionIdentifier), 0x81),
        bad("UNSUBACK without a body", ALL, "B0 00", id, 0x81),
        bad("UNSUBACK with packet identifier 0", ALL, "B0 02 0000", E::PacketIdZero, 0x82),
        bad("UNSUBACK before v5 with codes", V3, "B0 03 0001 00", E::TrailingBytes, 0x81),
        bad("UNSUBACK of v5 without a property length", V5, "B0 02 0001", E::Truncated("property length"), 0x81),
        bad("UNSUBACK of v5 without codes", V5, "B0[ 0001 [] ]", E::NoCodes, 0x82),
        // [MQTT-3.11.3-2]
        bad("UNSUBACK with a granted QoS", V5, "B0[ 0001 [] 01 ]", E::Code(1), 0x82),
        bad("UNSUBACK with two reason strings", V5, "B0[ 0001 [1F() 1F()] 00 ]", E::PropertyRepeated(P::ReasonString), 0x82),
    ]
}
