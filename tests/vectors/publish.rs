//! PUBLISH as it should be.

use std::num::{NonZeroU16, NonZeroU32};

use dunlin::codec::{
    Delivery, Packet, PayloadFormat, Publish, PublishProperties, SubscriptionIds, UserProperties,
};

use super::{Row, V3, V5, good, legal};

const ID_1: NonZeroU32 = NonZeroU32::new(1).unwrap();
const ID_127: NonZeroU32 = NonZeroU32::new(127).unwrap();
const ID_128: NonZeroU32 = NonZeroU32::new(128).unwrap();
const ID_MAX: NonZeroU32 = NonZeroU32::new(268_435_455).unwrap();

fn publish(topic: &'static str, payload: &'static [u8]) -> Publish<'static> {
    Publish {
        dup: false,
        delivery: Delivery::AtMostOnce,
        retain: false,
        topic,
        properties: PublishProperties::default(),
        payload,
    }
}

fn at_least_once(packet_id: u16) -> Delivery {
    Delivery::AtLeastOnce(NonZeroU16::new(packet_id).unwrap())
}

fn exactly_once(packet_id: u16) -> Delivery {
    Delivery::ExactlyOnce(NonZeroU16::new(packet_id).unwrap())
}

fn with(properties: PublishProperties<'static>) -> Packet<'static> {
    Packet::Publish(Publish { properties, ..publish("t", b"p") })
}

pub(super) fn rows() -> Vec<Row> {
    let mut rows = heads();
    rows.extend(properties());
    rows.extend(lists());
    rows
}

#[rustfmt::skip]
fn heads() -> Vec<Row> {
    let p = |publish| Packet::Publish(publish);
    vec![
        good("PUBLISH at QoS 0", V3, "30[ ('a/b') 'hi' ]", p(publish("a/b", b"hi"))),
        good("PUBLISH at QoS 1", V3, "32[ ('a/b') 000A 'hi' ]", p(Publish { delivery: at_least_once(10), ..publish("a/b", b"hi") })),
        good("PUBLISH at QoS 2", V3, "34[ ('a/b') FFFF 'hi' ]", p(Publish { delivery: exactly_once(65_535), ..publish("a/b", b"hi") })),
        good("PUBLISH with RETAIN", V3, "31[ ('a/b') 'hi' ]", p(Publish { retain: true, ..publish("a/b", b"hi") })),
        good("PUBLISH at QoS 1 with DUP", V3, "3A[ ('a/b') 0001 'hi' ]", p(Publish { dup: true, delivery: at_least_once(1), ..publish("a/b", b"hi") })),
        good("PUBLISH at QoS 2 with DUP and RETAIN", V3, "3D[ ('a/b') 0001 'hi' ]", p(Publish { dup: true, retain: true, delivery: exactly_once(1), ..publish("a/b", b"hi") })),
        good("PUBLISH without a payload", V3, "30[ ('a/b') ]", p(publish("a/b", b""))),
        good("PUBLISH at QoS 1 without a payload", V3, "33[ ('a/b') 0001 ]", p(Publish { retain: true, delivery: at_least_once(1), ..publish("a/b", b"") })),
        good("PUBLISH with a binary payload", V3, "30[ ('a') 00FF80C0 ]", p(publish("a", b"\x00\xFF\x80\xC0"))),
        good("topic name of one separator", V3, "30[ ('/') ]", p(publish("/", b""))),
        good("topic name with empty levels", V3, "30[ ('//a//') ]", p(publish("//a//", b""))),
        good("topic name with a blank", V3, "30[ ('a b') ]", p(publish("a b", b""))),
        good("topic name that begins with $", V3, "30[ ('$SYS/x') ]", p(publish("$SYS/x", b""))),
        good("topic name outside ASCII", V3, "30[ ('größe/温度/😀') 'x' ]", p(publish("größe/温度/😀", b"x"))),
        good("topic name with the last code point", V3, "30[ (F48FBFBF) ]", p(publish("\u{10FFFF}", b""))),
        // Non-characters and control characters are discouraged, not forbidden.
        good("topic name with a control character", V3, "30[ ('a' 01) ]", p(publish("a\u{1}", b""))),
        good("topic name with a non-character", V3, "30[ (EFBFBF) ]", p(publish("\u{FFFF}", b""))),
        // [MQTT-1.5.4-3]
        good("topic name with a byte order mark", V3, "30[ (EFBBBF 'a') ]", p(publish("\u{FEFF}a", b""))),
        good("PUBLISH of v5 at QoS 0", V5, "30[ ('a/b') [] 'hi' ]", p(publish("a/b", b"hi"))),
        good("PUBLISH of v5 at QoS 1", V5, "32[ ('a/b') 000A [] 'hi' ]", p(Publish { delivery: at_least_once(10), ..publish("a/b", b"hi") })),
        good("PUBLISH of v5 at QoS 2", V5, "34[ ('a/b') 000A [] 'hi' ]", p(Publish { delivery: exactly_once(10), ..publish("a/b", b"hi") })),
        good("PUBLISH of v5 without a payload", V5, "31[ ('a/b') [] ]", p(Publish { retain: true, ..publish("a/b", b"") })),
        // What would be a property length in v5 is payload before it.
        good("PUBLISH before v5 whose payload begins with 0", V3, "30[ ('a') 00 'x' ]", p(publish("a", b"\0x"))),
    ]
}

#[rustfmt::skip]
fn properties() -> Vec<Row> {
    let none = PublishProperties::default();
    vec![
        good("payload format: bytes", V5, "30[ ('t') [01 00] 'p' ]", with(PublishProperties { payload_format: Some(PayloadFormat::Bytes), ..none.clone() })),
        good("payload format: UTF-8", V5, "30[ ('t') [01 01] 'p' ]", with(PublishProperties { payload_format: Some(PayloadFormat::Utf8), ..none.clone() })),
        good("message expiry", V5, "30[ ('t') [02 0000003C] 'p' ]", with(PublishProperties { message_expiry_secs: Some(60), ..none.clone() })),
        good("message expiry 0", V5, "30[ ('t') [02 00000000] 'p' ]", with(PublishProperties { message_expiry_secs: Some(0), ..none.clone() })),
        good("topic alias with a topic name", V5, "30[ ('t') [23 0001] 'p' ]", with(PublishProperties { topic_alias: NonZeroU16::new(1), ..none.clone() })),
        good("topic alias instead of a topic name", V5, "30[ () [23 FFFF] 'p' ]", Packet::Publish(Publish {
            properties: PublishProperties { topic_alias: NonZeroU16::new(65_535), ..none.clone() }, ..publish("", b"p")
        })),
        good("response topic", V5, "30[ ('t') [08('re/ply')] 'p' ]", with(PublishProperties { response_topic: Some("re/ply"), ..none.clone() })),
        good("correlation data", V5, "30[ ('t') [09(00FF)] 'p' ]", with(PublishProperties { correlation_data: Some(b"\x00\xFF"), ..none.clone() })),
        good("correlation data that is empty", V5, "30[ ('t') [09()] 'p' ]", with(PublishProperties { correlation_data: Some(b""), ..none.clone() })),
        good("content type", V5, "30[ ('t') [03('application/json')] 'p' ]", with(PublishProperties { content_type: Some("application/json"), ..none.clone() })),
        good("content type that is empty", V5, "30[ ('t') [03()] 'p' ]", with(PublishProperties { content_type: Some(""), ..none.clone() })),
        good("all properties of PUBLISH", V5,
            "33[ ('t') 0007 [01 01 02 00000001 23 0002 0B 01 03('c') 08('r') 09('d') 26('k')('v')] 'p' ]",
            Packet::Publish(Publish {
                retain: true,
                delivery: at_least_once(7),
                properties: PublishProperties {
                    payload_format: Some(PayloadFormat::Utf8),
                    message_expiry_secs: Some(1),
                    topic_alias: NonZeroU16::new(2),
                    response_topic: Some("r"),
                    correlation_data: Some(b"d"),
                    content_type: Some("c"),
                    subscription_ids: SubscriptionIds::from_list(&[ID_1]),
                    user_properties: UserProperties::from_list(&[("k", "v")]),
                },
                ..publish("t", b"p")
            })),
        good("properties of more than 127 bytes before a payload", V5, "30[ ('t') [09(00*200)] 'p' ]", with(PublishProperties { correlation_data: Some(&[0; 200]), ..none.clone() })),
        good("properties of more than 16,383 bytes", V5, "30[ ('t') [09(00*20000)] 'p' ]", with(PublishProperties { correlation_data: Some(&[0; 20_000]), ..none })),
    ]
}

#[rustfmt::skip]
fn lists() -> Vec<Row> {
    let none = PublishProperties::default();
    vec![
        good("subscription identifier 127", V5, "30[ ('t') [0B 7F] 'p' ]", with(PublishProperties { subscription_ids: SubscriptionIds::from_list(&[ID_127]), ..none.clone() })),
        good("the largest subscription identifier", V5, "30[ ('t') [0B FFFFFF7F] 'p' ]", with(PublishProperties { subscription_ids: SubscriptionIds::from_list(&[ID_MAX]), ..none.clone() })),
        good("several subscription identifiers", V5, "30[ ('t') [0B 01 0B 8001 0B 01 0B 7F] 'p' ]",
            with(PublishProperties { subscription_ids: SubscriptionIds::from_list(&[ID_1, ID_128, ID_1, ID_127]), ..none.clone() })),
        legal("lists that are interleaved", V5, "30[ ('t') [26('a')('1') 0B 01 26('a')('2') 01 00 0B 8001 26('')('')] 'p' ]",
            with(PublishProperties {
                payload_format: Some(PayloadFormat::Bytes),
                subscription_ids: SubscriptionIds::from_list(&[ID_1, ID_128]),
                user_properties: UserProperties::from_list(&[("a", "1"), ("a", "2"), ("", "")]),
                ..none.clone()
            }),
            "30[ ('t') [01 00 0B 01 0B 8001 26('a')('1') 26('a')('2') 26('')('')] 'p' ]"),
        // [MQTT-3.3.2-18]
        good("user properties in order, names repeated", V5, "30[ ('t') [26('z')('1') 26('a')('2') 26('z')('1')] 'p' ]",
            with(PublishProperties { user_properties: UserProperties::from_list(&[("z", "1"), ("a", "2"), ("z", "1")]), ..none })),
    ]
}
