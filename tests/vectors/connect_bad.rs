//! CONNECT as it must not be.

use dunlin::codec::{DecodeErrorKind as E, PropertyId as P, Version};

use super::{ALL, Row, bad};

pub(super) fn rows() -> Vec<Row> {
    let mut rows = protocol();
    rows.extend(flags());
    rows.extend(payload());
    rows.extend(properties());
    rows.extend(will_properties());
    rows
}

#[rustfmt::skip]
fn protocol() -> Vec<Row> {
    let v3 = |level| E::UnsupportedVersion { level, connack: Version::V311 };
    let v5 = |level| E::UnsupportedVersion { level, connack: Version::V5 };
    vec![
        bad("CONNECT without a body", ALL, "10 00", E::Truncated("protocol name"), 0x81),
        bad("CONNECT that ends inside the protocol name", ALL, "10[ 0004 'MQ' ]", E::Truncated("protocol name"), 0x81),
        bad("CONNECT that ends before the level", ALL, "10[ ('MQTT') ]", E::Truncated("protocol level"), 0x81),
        bad("CONNECT that ends before the flags", ALL, "10[ ('MQTT') 04 ]", E::Truncated("connect flags"), 0x81),
        bad("CONNECT that ends inside the keep alive", ALL, "10[ ('MQTT') 04 02 00 ]", E::Truncated("keep alive"), 0x81),
        // [MQTT-3.1.2-1]
        bad("protocol name of something else", ALL, "10[ ('HTTP') 04 02 003C ('c') ]", E::ProtocolName, 0x84),
        bad("protocol name in lower case", ALL, "10[ ('mqtt') 04 02 003C ('c') ]", E::ProtocolName, 0x84),
        bad("protocol name that is empty", ALL, "10[ () 04 02 003C ('c') ]", E::ProtocolName, 0x84),
        bad("protocol name with more behind it", ALL, "10[ ('MQTTX') 04 02 003C ('c') ]", E::ProtocolName, 0x84),
        bad("protocol name that is not UTF-8", ALL, "10[ (FFFFFFFF) 04 02 003C ('c') ]", E::ProtocolName, 0x84),
        // [MQTT-3.1.2-2]
        bad("protocol level 0", ALL, "10[ ('MQTT') 00 02 003C ('c') ]", v3(0), 0x84),
        bad("protocol level 2 in the shape of v5", ALL, "10[ ('MQTT') 02 02 003C [] ('c') ]", v3(2), 0x84),
        bad("protocol level 3 with the name MQTT", ALL, "10[ ('MQTT') 03 02 003C ('c') ]", v3(3), 0x84),
        bad("protocol level 4 with the name MQIsdp", ALL, "10[ ('MQIsdp') 04 02 003C ('c') ]", v3(4), 0x84),
        bad("protocol level 5 with the name MQIsdp", ALL, "10[ ('MQIsdp') 05 02 003C [] ('c') ]", v5(5), 0x84),
        bad("protocol level 6 in the shape of v5", ALL, "10[ ('MQTT') 06 02 003C [] ('c') ]", v5(6), 0x84),
        bad("protocol level 6 in the shape of v5 with properties", ALL, "10[ ('MQTT') 06 06 003C [21 0001] ('c') [] ('w') () ]", v5(6), 0x84),
        bad("protocol level 6 in the shape of v3", ALL, "10[ ('MQTT') 06 02 003C ('c') ]", v3(6), 0x84),
        bad("protocol level 6 in both shapes", ALL, "10[ ('MQTT') 06 02 003C [17 01] (61*532) ]", v3(6), 0x84),
        bad("protocol level 6 in no known shape", ALL, "10[ ('MQTT') 06 02 003C FF ]", v3(6), 0x84),
        bad("protocol level 6 and nothing else", ALL, "10[ ('MQTT') 06 ]", v3(6), 0x84),
        bad("protocol level 255", ALL, "10[ ('MQTT') FF 02 003C [] ('c') ]", v5(255), 0x84),
        bad("bridge of MQTT 3.1", ALL, "10[ ('MQIsdp') 83 02 003C ('c') ]", v3(0x83), 0x84),
        bad("bridge of MQTT 3.1.1", ALL, "10[ ('MQTT') 84 02 003C ('c') ]", v3(0x84), 0x84),
        bad("bridge of v5", ALL, "10[ ('MQTT') 85 02 003C [] ('c') ]", v5(0x85), 0x84),
    ]
}

#[rustfmt::skip]
fn flags() -> Vec<Row> {
    vec![
        // [MQTT-3.1.2-3]
        bad("reserved connect flag of MQTT 3.1.1", ALL, "10[ ('MQTT') 04 01 003C ('c') ]", E::ConnectFlagsReserved, 0x81),
        bad("reserved connect flag of v5", ALL, "10[ ('MQTT') 05 03 003C [] ('c') ]", E::ConnectFlagsReserved, 0x81),
        // [MQTT-3.1.2-12]
        bad("will QoS 3", ALL, "10[ ('MQTT') 04 1E 003C ('c') ('w') ('bye') ]", E::WillQoS, 0x81),
        bad("will QoS 3 in v5", ALL, "10[ ('MQTT') 05 1E 003C [] ('c') [] ('w') ('bye') ]", E::WillQoS, 0x81),
        bad("will QoS 3 without a will", ALL, "10[ ('MQTT') 05 1A 003C [] ('c') ]", E::WillQoS, 0x81),
        // [MQTT-3.1.2-11]
        bad("will QoS 1 without a will", ALL, "10[ ('MQTT') 04 0A 003C ('c') ]", E::WillFlagsWithoutWill, 0x82),
        bad("will QoS 2 without a will in v5", ALL, "10[ ('MQTT') 05 12 003C [] ('c') ]", E::WillFlagsWithoutWill, 0x82),
        // [MQTT-3.1.2-13]
        bad("will retain without a will", ALL, "10[ ('MQTT') 04 22 003C ('c') ]", E::WillFlagsWithoutWill, 0x82),
        bad("will retain without a will in v5", ALL, "10[ ('MQTT') 05 22 003C [] ('c') ]", E::WillFlagsWithoutWill, 0x82),
        // [MQTT-3.1.1/3.1.2-22]
        bad("password without user name in MQTT 3.1.1", ALL, "10[ ('MQTT') 04 42 003C ('c') ('p') ]", E::PasswordWithoutUserName, 0x82),
        bad("password without user name in MQTT 3.1", ALL, "10[ ('MQIsdp') 03 42 003C ('c') ('p') ]", E::PasswordWithoutUserName, 0x82),
    ]
}

#[rustfmt::skip]
fn payload() -> Vec<Row> {
    vec![
        // [MQTT-3.1.3-3]
        bad("CONNECT without a client identifier", ALL, "10[ ('MQTT') 04 02 003C ]", E::Truncated("client identifier"), 0x81),
        bad("CONNECT of v5 without a client identifier", ALL, "10[ ('MQTT') 05 02 003C [] ]", E::Truncated("client identifier"), 0x81),
        bad("client identifier longer than the packet", ALL, "10[ ('MQTT') 04 02 003C 0002 'c' ]", E::Truncated("client identifier"), 0x81),
        // [MQTT-3.1.3-4]
        bad("client identifier with a surrogate", ALL, "10[ ('MQTT') 04 02 003C (EDA080) ]", E::Utf8("client identifier"), 0x81),
        bad("client identifier with a null character", ALL, "10[ ('MQTT') 04 02 003C ('a' 00) ]", E::NulCharacter("client identifier"), 0x81),
        // [MQTT-3.1.2-9]
        bad("flagged will that is missing", ALL, "10[ ('MQTT') 04 06 003C ('c') ]", E::Truncated("will topic"), 0x81),
        bad("flagged will without a payload", ALL, "10[ ('MQTT') 04 06 003C ('c') ('w') ]", E::Truncated("will payload"), 0x81),
        bad("flagged will of v5 that is missing", ALL, "10[ ('MQTT') 05 06 003C [] ('c') ]", E::Truncated("property length"), 0x81),
        // [MQTT-3.1.2-17], [MQTT-3.1.2-19]
        bad("flagged user name that is missing", ALL, "10[ ('MQTT') 04 82 003C ('c') ]", E::Truncated("user name"), 0x81),
        bad("flagged password that is missing", ALL, "10[ ('MQTT') 04 C2 003C ('c') ('u') ]", E::Truncated("password"), 0x81),
        bad("flagged password of v5 that is missing", ALL, "10[ ('MQTT') 05 42 003C [] ('c') ]", E::Truncated("password"), 0x81),
        bad("half a user name in MQTT 3.1", ALL, "10[ ('MQIsdp') 03 82 003C ('c') 00 ]", E::Truncated("user name"), 0x81),
        // [MQTT-3.1.2-16], [MQTT-3.1.2-18]
        bad("user name without its flag", ALL, "10[ ('MQTT') 04 02 003C ('c') ('u') ]", E::TrailingBytes, 0x81),
        bad("password without its flag", ALL, "10[ ('MQTT') 04 82 003C ('c') ('u') ('p') ]", E::TrailingBytes, 0x81),
        bad("one byte after CONNECT's last field", ALL, "10[ ('MQTT') 05 02 003C [] ('c') 00 ]", E::TrailingBytes, 0x81),
        // [MQTT-3.1.3-12]
        bad("user name that is not UTF-8", ALL, "10[ ('MQTT') 04 82 003C ('c') (FF) ]", E::Utf8("user name"), 0x81),
        bad("user name with a null character", ALL, "10[ ('MQTT') 04 82 003C ('c') (00) ]", E::NulCharacter("user name"), 0x81),
        // [MQTT-3.1.3-11]
        bad("will topic that is not UTF-8", ALL, "10[ ('MQTT') 04 06 003C ('c') (C1BF) ('bye') ]", E::Utf8("will topic"), 0x81),
        bad("will topic with a null character", ALL, "10[ ('MQTT') 04 06 003C ('c') ('w' 00) ('bye') ]", E::NulCharacter("will topic"), 0x81),
        // [MQTT-4.7.0-1], [MQTT-4.7.3-1]
        bad("will topic that is empty", ALL, "10[ ('MQTT') 04 06 003C ('c') () ('bye') ]", E::TopicNameEmpty("will topic"), 0x81),
        bad("will topic with #", ALL, "10[ ('MQTT') 04 06 003C ('c') ('w/#') ('bye') ]", E::TopicNameWildcard("will topic"), 0x81),
        bad("will topic of v5 with +", ALL, "10[ ('MQTT') 05 06 003C [] ('c') [] ('+/w') ('bye') ]", E::TopicNameWildcard("will topic"), 0x81),
    ]
}

#[rustfmt::skip]
fn properties() -> Vec<Row> {
    vec![
        bad("CONNECT of v5 without a property length", ALL, "10[ ('MQTT') 05 02 003C ]", E::Truncated("property length"), 0x81),
        bad("properties of CONNECT longer than the packet", ALL, "10[ ('MQTT') 05 02 003C 05 0001 ]", E::Truncated("properties"), 0x81),
        bad("property length not in its shortest form", ALL, "10[ ('MQTT') 05 02 003C 8000 ('c') ]", E::VariableByteInteger("property length"), 0x81),
        bad("property length of five bytes", ALL, "10[ ('MQTT') 05 02 003C 8080808001 ('c') ]", E::VariableByteInteger("property length"), 0x81),
        bad("unknown property 0x00", ALL, "10[ ('MQTT') 05 02 003C [00] ('c') ]", E::PropertyUnknown(0), 0x81),
        bad("unknown property 0x2B", ALL, "10[ ('MQTT') 05 02 003C [2B 00] ('c') ]", E::PropertyUnknown(0x2B), 0x81),
        bad("unknown property of two bytes", ALL, "10[ ('MQTT') 05 02 003C [8001] ('c') ]", E::PropertyUnknown(128), 0x81),
        bad("property identifier not in its shortest form", ALL, "10[ ('MQTT') 05 02 003C [9100 00000001] ('c') ]", E::VariableByteInteger("property identifier"), 0x81),
        bad("property identifier cut off", ALL, "10[ ('MQTT') 05 02 003C [80] ('c') ]", E::Truncated("property identifier"), 0x81),
        bad("property without its value", ALL, "10[ ('MQTT') 05 02 003C [11] ('c') ]", E::Truncated("session expiry interval"), 0x81),
        bad("property whose value runs past the property length", ALL, "10[ ('MQTT') 05 02 003C 03 11 0000 0001 ('c') ]", E::Truncated("session expiry interval"), 0x81),
        bad("session expiry twice", ALL, "10[ ('MQTT') 05 02 003C [11 00000001 11 00000001] ('c') ]", E::PropertyRepeated(P::SessionExpiry), 0x82),
        bad("receive maximum 0", ALL, "10[ ('MQTT') 05 02 003C [21 0000] ('c') ]", E::PropertyZero(P::ReceiveMaximum), 0x82),
        bad("receive maximum twice", ALL, "10[ ('MQTT') 05 02 003C [21 0001 21 0002] ('c') ]", E::PropertyRepeated(P::ReceiveMaximum), 0x82),
        bad("maximum packet size 0", ALL, "10[ ('MQTT') 05 02 003C [27 00000000] ('c') ]", E::PropertyZero(P::MaximumPacketSize), 0x82),
        bad("request response information 2", ALL, "10[ ('MQTT') 05 02 003C [19 02] ('c') ]", E::PropertyValue(P::RequestResponseInformation, 2), 0x82),
        bad("request problem information 255", ALL, "10[ ('MQTT') 05 02 003C [17 FF] ('c') ]", E::PropertyValue(P::RequestProblemInformation, 255), 0x82),
        bad("authentication data without a method", ALL, "10[ ('MQTT') 05 02 003C [16('d')] ('c') ]", E::AuthenticationDataWithoutMethod, 0x82),
        bad("authentication method that is not UTF-8", ALL, "10[ ('MQTT') 05 02 003C [15(80)] ('c') ]", E::Utf8("authentication method"), 0x81),
        // [MQTT-1.5.7-1]
        bad("user property whose name is not UTF-8", ALL, "10[ ('MQTT') 05 02 003C [26(C0)('v')] ('c') ]", E::Utf8("name of a user property"), 0x81),
        bad("user property whose value is not UTF-8", ALL, "10[ ('MQTT') 05 02 003C [26('k')(C0)] ('c') ]", E::Utf8("value of a user property"), 0x81),
        bad("user property with a null character in its value", ALL, "10[ ('MQTT') 05 02 003C [26('k')(00)] ('c') ]", E::NulCharacter("value of a user property"), 0x81),
        bad("user property without a value", ALL, "10[ ('MQTT') 05 02 003C [26('k')] ('c') ]", E::Truncated("value of a user property"), 0x81),
        bad("will delay among the properties of CONNECT", ALL, "10[ ('MQTT') 05 02 003C [18 00000001] ('c') ]", E::PropertyNotAllowed(P::WillDelay), 0x81),
        bad("topic alias in CONNECT", ALL, "10[ ('MQTT') 05 02 003C [23 0001] ('c') ]", E::PropertyNotAllowed(P::TopicAlias), 0x81),
        bad("server keep alive in CONNECT", ALL, "10[ ('MQTT') 05 02 003C [13 0001] ('c') ]", E::PropertyNotAllowed(P::ServerKeepAlive), 0x81),
    ]
}

#[rustfmt::skip]
fn will_properties() -> Vec<Row> {
    vec![
        bad("will delay twice", ALL, "10[ ('MQTT') 05 06 003C [] ('c') [18 00000001 18 00000001] ('w') ('bye') ]", E::PropertyRepeated(P::WillDelay), 0x82),
        bad("payload format 2 of a will", ALL, "10[ ('MQTT') 05 06 003C [] ('c') [01 02] ('w') ('bye') ]", E::PropertyValue(P::PayloadFormat, 2), 0x82),
        bad("session expiry among the properties of the will", ALL, "10[ ('MQTT') 05 06 003C [] ('c') [11 00000001] ('w') ('bye') ]", E::PropertyNotAllowed(P::SessionExpiry), 0x81),
        bad("topic alias of a will", ALL, "10[ ('MQTT') 05 06 003C [] ('c') [23 0001] ('w') ('bye') ]", E::PropertyNotAllowed(P::TopicAlias), 0x81),
        bad("response topic of a will with a wildcard", ALL, "10[ ('MQTT') 05 06 003C [] ('c') [08('r/+')] ('w') ('bye') ]", E::TopicNameWildcard("response topic"), 0x81),
        bad("will properties longer than the packet", ALL, "10[ ('MQTT') 05 06 003C [] ('c') 7F ('w') ('bye') ]", E::Truncated("properties"), 0x81),
    ]
}
