//! PUBLISH as it must not be. Flags stand in `frame.rs`.

use dunlin::codec::{DecodeErrorKind as E, PropertyId as P};

use super::{ALL, Row, V3, V5, bad};

pub(super) fn rows() -> Vec<Row> {
    let mut rows = heads();
    rows.extend(properties());
    rows
}

#[rustfmt::skip]
fn heads() -> Vec<Row> {
    let topic = "topic name";
    vec![
        bad("PUBLISH without a body", ALL, "30 00", E::Truncated(topic), 0x81),
        bad("PUBLISH with half a length", ALL, "30 01 00", E::Truncated(topic), 0x81),
        bad("topic name longer than the packet", ALL, "30[ 0005 'a/b' ]", E::Truncated(topic), 0x81),
        bad("PUBLISH at QoS 1 without a packet identifier", ALL, "32[ ('a') ]", E::Truncated("packet identifier"), 0x81),
        bad("PUBLISH at QoS 2 with half a packet identifier", ALL, "34[ ('a') 00 ]", E::Truncated("packet identifier"), 0x81),
        // [MQTT-2.2.1-3]
        bad("PUBLISH at QoS 1 with packet identifier 0", V3, "32[ ('a') 0000 'hi' ]", E::PacketIdZero, 0x82),
        bad("PUBLISH at QoS 2 with packet identifier 0", V5, "34[ ('a') 0000 [] 'hi' ]", E::PacketIdZero, 0x82),
        // [MQTT-4.7.3-1]
        bad("topic name that is empty", V3, "30[ () 'hi' ]", E::TopicNameEmpty(topic), 0x81),
        bad("neither topic name nor alias", V5, "30[ () [] 'hi' ]", E::TopicMissing, 0x82),
        bad("no topic name nor alias, but other properties", V5, "32[ () 0001 [01 01] 'hi' ]", E::TopicMissing, 0x82),
        // [MQTT-3.3.2-2]
        bad("topic name with #", ALL, "30[ ('a/#') 00 ]", E::TopicNameWildcard(topic), 0x81),
        bad("topic name with +", ALL, "30[ ('a/+/b') 00 ]", E::TopicNameWildcard(topic), 0x81),
        bad("topic name with + inside a level", ALL, "30[ ('a+b') 00 ]", E::TopicNameWildcard(topic), 0x81),
        bad("topic name of # alone", ALL, "30[ ('#') 00 ]", E::TopicNameWildcard(topic), 0x81),
        // [MQTT-1.5.4-2], [MQTT-4.7.3-2]
        bad("topic name with a null character", ALL, "30[ ('a' 00 'b') 00 ]", E::NulCharacter(topic), 0x81),
        bad("topic name with null and wildcard", ALL, "30[ ('#' 00) 00 ]", E::NulCharacter(topic), 0x81),
        // [MQTT-1.5.4-1]
        bad("topic name with the first high surrogate", ALL, "30[ (EDA080) 00 ]", E::Utf8(topic), 0x81),
        bad("topic name with the last low surrogate", ALL, "30[ (EDBFBF) 00 ]", E::Utf8(topic), 0x81),
        bad("topic name with a surrogate pair", ALL, "30[ (EDA081EDB081) 00 ]", E::Utf8(topic), 0x81),
        bad("topic name with an overlong null", ALL, "30[ (C080) 00 ]", E::Utf8(topic), 0x81),
        bad("topic name with an overlong slash", ALL, "30[ (E080AF) 00 ]", E::Utf8(topic), 0x81),
        bad("topic name with a lone continuation byte", ALL, "30[ ('a' 80) 00 ]", E::Utf8(topic), 0x81),
        bad("topic name with a sequence cut off", ALL, "30[ ('a' E282) 00 ]", E::Utf8(topic), 0x81),
        bad("topic name past the last code point", ALL, "30[ (F4908080) 00 ]", E::Utf8(topic), 0x81),
        bad("topic name with a five-byte sequence", ALL, "30[ (F888808080) 00 ]", E::Utf8(topic), 0x81),
        bad("topic name in Latin-1", ALL, "30[ ('gr' F6 'sse') 00 ]", E::Utf8(topic), 0x81),
        bad("topic name not UTF-8 after a long ASCII beginning", ALL, "30[ (61*64 FF) 00 ]", E::Utf8(topic), 0x81),
    ]
}

#[rustfmt::skip]
fn properties() -> Vec<Row> {
    vec![
        bad("PUBLISH of v5 without a property length", V5, "30[ ('t') ]", E::Truncated("property length"), 0x81),
        bad("PUBLISH of v5 at QoS 1 without a property length", V5, "32[ ('t') 0001 ]", E::Truncated("property length"), 0x81),
        bad("properties of PUBLISH longer than the packet", V5, "30[ ('t') 04 0101 'p' ]", E::Truncated("properties"), 0x81),
        bad("property length of PUBLISH not in its shortest form", V5, "30[ ('t') 8200 0101 'p' ]", E::VariableByteInteger("property length"), 0x81),
        bad("property length of PUBLISH that never ends", V5, "30[ ('t') FFFFFFFF ]", E::VariableByteInteger("property length"), 0x81),
        bad("property value that runs into the payload", V5, "30[ ('t') 02 0200 00000000 ]", E::Truncated("message expiry interval"), 0x81),
        bad("string property that runs into the payload", V5, "30[ ('t') 04 03 0005 'a' 'bcde' ]", E::Truncated("content type"), 0x81),
        bad("topic alias 0", V5, "30[ ('t') [23 0000] 'p' ]", E::PropertyZero(P::TopicAlias), 0x94),
        bad("topic alias 0 instead of a topic name", V5, "30[ () [23 0000] 'p' ]", E::PropertyZero(P::TopicAlias), 0x94),
        bad("topic alias twice", V5, "30[ ('t') [23 0001 23 0001] 'p' ]", E::PropertyRepeated(P::TopicAlias), 0x82),
        bad("topic alias of one byte", V5, "30[ ('t') [23 01] 'p' ]", E::Truncated("topic alias"), 0x81),
        bad("payload format 2", V5, "30[ ('t') [01 02] 'p' ]", E::PropertyValue(P::PayloadFormat, 2), 0x82),
        bad("payload format twice", V5, "30[ ('t') [01 01 01 01] 'p' ]", E::PropertyRepeated(P::PayloadFormat), 0x82),
        bad("message expiry twice", V5, "30[ ('t') [02 00000001 02 00000001] 'p' ]", E::PropertyRepeated(P::MessageExpiry), 0x82),
        bad("content type twice", V5, "30[ ('t') [03('a') 03('b')] 'p' ]", E::PropertyRepeated(P::ContentType), 0x82),
        bad("content type that is not UTF-8", V5, "30[ ('t') [03(EDA080)] 'p' ]", E::Utf8("content type"), 0x81),
        bad("response topic twice", V5, "30[ ('t') [08('a') 08('a')] 'p' ]", E::PropertyRepeated(P::ResponseTopic), 0x82),
        // [MQTT-3.3.2-14]
        bad("response topic with #", V5, "30[ ('t') [08('r/#')] 'p' ]", E::TopicNameWildcard("response topic"), 0x81),
        bad("response topic with +", V5, "30[ ('t') [08('+')] 'p' ]", E::TopicNameWildcard("response topic"), 0x81),
        bad("response topic that is empty", V5, "30[ ('t') [08()] 'p' ]", E::TopicNameEmpty("response topic"), 0x81),
        // [MQTT-3.3.2-13]
        bad("response topic that is not UTF-8", V5, "30[ ('t') [08(FE)] 'p' ]", E::Utf8("response topic"), 0x81),
        bad("correlation data twice", V5, "30[ ('t') [09() 09()] 'p' ]", E::PropertyRepeated(P::CorrelationData), 0x82),
        bad("correlation data cut off", V5, "30[ ('t') [09 0004 00] 'p' ]", E::Truncated("correlation data"), 0x81),
        bad("subscription identifier 0", V5, "30[ ('t') [0B 00] 'p' ]", E::PropertyZero(P::SubscriptionIdentifier), 0x82),
        bad("second subscription identifier 0", V5, "30[ ('t') [0B 01 0B 00] 'p' ]", E::PropertyZero(P::SubscriptionIdentifier), 0x82),
        bad("subscription identifier of five bytes", V5, "30[ ('t') [0B FFFFFFFF01] 'p' ]", E::VariableByteInteger("subscription identifier"), 0x81),
        bad("subscription identifier not in its shortest form", V5, "30[ ('t') [0B 8100] 'p' ]", E::VariableByteInteger("subscription identifier"), 0x81),
        bad("session expiry in PUBLISH", V5, "30[ ('t') [11 00000001] 'p' ]", E::PropertyNotAllowed(P::SessionExpiry), 0x81),
        bad("reason string in PUBLISH", V5, "30[ ('t') [1F('a')] 'p' ]", E::PropertyNotAllowed(P::ReasonString), 0x81),
        bad("will delay in PUBLISH", V5, "30[ ('t') [18 00000001] 'p' ]", E::PropertyNotAllowed(P::WillDelay), 0x81),
        bad("unknown property in PUBLISH", V5, "30[ ('t') [7F] 'p' ]", E::PropertyUnknown(0x7F), 0x81),
        bad("user property in PUBLISH with a null character", V5, "30[ ('t') [26(00)('v')] 'p' ]", E::NulCharacter("name of a user property"), 0x81),
        bad("second user property cut off", V5, "30[ ('t') [26('a')('b') 26('a') 00] 'p' ]", E::Truncated("value of a user property"), 0x81),
    ]
}
