//! SUBSCRIBE, SUBACK, UNSUBSCRIBE and UNSUBACK as they should be.

use std::num::{NonZeroU16, NonZeroU32};

use dunlin::codec::{
    AckProperties, Packet, PacketId, QoS, RetainHandling, SubAck, Subscribe, SubscribeFilters,
    SubscribeProperties, SubscriptionOptions, UnsubAck, Unsubscribe, UnsubscribeFilters, UserProperties,
};

use super::{Row, V3, V5, V31, good, legal};

const ID: PacketId = NonZeroU16::new(10).unwrap();

const fn options(qos: QoS) -> SubscriptionOptions {
    SubscriptionOptions {
        qos,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Send,
    }
}

const QOS0: SubscriptionOptions = options(QoS::AtMostOnce);
const QOS1: SubscriptionOptions = options(QoS::AtLeastOnce);
const QOS2: SubscriptionOptions = options(QoS::ExactlyOnce);
const NO_LOCAL: SubscriptionOptions = SubscriptionOptions { no_local: true, ..QOS0 };
const AS_PUBLISHED: SubscriptionOptions = SubscriptionOptions { retain_as_published: true, ..QOS0 };
const IF_NEW: SubscriptionOptions =
    SubscriptionOptions { retain_handling: RetainHandling::SendIfNew, ..QOS0 };
const NEVER: SubscriptionOptions = SubscriptionOptions { retain_handling: RetainHandling::DoNotSend, ..QOS0 };
const EVERYTHING: SubscriptionOptions = SubscriptionOptions {
    qos: QoS::ExactlyOnce,
    no_local: true,
    retain_as_published: true,
    retain_handling: RetainHandling::DoNotSend,
};

fn subscribe(filters: &'static [(&'static str, SubscriptionOptions)]) -> Subscribe<'static> {
    Subscribe {
        packet_id: ID,
        properties: SubscribeProperties::default(),
        filters: SubscribeFilters::from_list(filters),
    }
}

fn unsubscribe(filters: &'static [&'static str]) -> Unsubscribe<'static> {
    Unsubscribe {
        packet_id: ID,
        user_properties: UserProperties::default(),
        filters: UnsubscribeFilters::from_list(filters),
    }
}

fn suback(codes: &'static [u8]) -> Packet<'static> {
    Packet::SubAck(SubAck { packet_id: ID, properties: AckProperties::default(), codes })
}

fn unsuback(codes: &'static [u8]) -> Packet<'static> {
    Packet::UnsubAck(UnsubAck { packet_id: ID, properties: AckProperties::default(), codes })
}

pub(super) fn rows() -> Vec<Row> {
    let mut rows = subscribes();
    rows.extend(unsubscribes());
    rows.extend(answers());
    rows
}

#[rustfmt::skip]
fn subscribes() -> Vec<Row> {
    let s = |subscribe| Packet::Subscribe(subscribe);
    let properties = |properties| Packet::Subscribe(Subscribe { properties, ..subscribe(&[("a", QOS0)]) });
    vec![
        good("SUBSCRIBE at QoS 0", V3, "82[ 000A ('a/b') 00 ]", s(subscribe(&[("a/b", QOS0)]))),
        good("SUBSCRIBE at QoS 1", V3, "82[ 000A ('a/+') 01 ]", s(subscribe(&[("a/+", QOS1)]))),
        good("SUBSCRIBE at QoS 2", V3, "82[ 000A ('#') 02 ]", s(subscribe(&[("#", QOS2)]))),
        good("SUBSCRIBE with several filters", V3, "82[ 000A ('a') 00 ('b') 02 ('a') 01 ]", s(subscribe(&[("a", QOS0), ("b", QOS2), ("a", QOS1)]))),
        // Whether wildcards stand where they may is judged where filters are parsed.
        good("SUBSCRIBE with a filter that is judged later", V3, "82[ 000A ('a#/+b') 00 ]", s(subscribe(&[("a#/+b", QOS0)]))),
        good("SUBSCRIBE with a filter outside ASCII", V3, "82[ 000A ('größe/😀') 00 ]", s(subscribe(&[("größe/😀", QOS0)]))),
        legal("SUBSCRIBE of MQTT 3.1 with DUP", V31, "8A[ 000A ('a') 00 ]", s(subscribe(&[("a", QOS0)])), "82[ 000A ('a') 00 ]"),
        good("SUBSCRIBE of v5", V5, "82[ 000A [] ('a/b') 00 ]", s(subscribe(&[("a/b", QOS0)]))),
        good("SUBSCRIBE with no local", V5, "82[ 000A [] ('a') 04 ]", s(subscribe(&[("a", NO_LOCAL)]))),
        good("SUBSCRIBE with retain as published", V5, "82[ 000A [] ('a') 08 ]", s(subscribe(&[("a", AS_PUBLISHED)]))),
        good("SUBSCRIBE with retain handling 1", V5, "82[ 000A [] ('a') 10 ]", s(subscribe(&[("a", IF_NEW)]))),
        good("SUBSCRIBE with retain handling 2", V5, "82[ 000A [] ('a') 20 ]", s(subscribe(&[("a", NEVER)]))),
        good("SUBSCRIBE with all options", V5, "82[ 000A [] ('a') 2E ('b') 01 ]", s(subscribe(&[("a", EVERYTHING), ("b", QOS1)]))),
        good("SUBSCRIBE to a shared subscription", V5, "82[ 000A [] ('$share/g/a') 22 ]",
            s(subscribe(&[("$share/g/a", SubscriptionOptions { retain_handling: RetainHandling::DoNotSend, ..QOS2 })]))),
        // [MQTT-3.8.3-4] is about `$share/` alone.
        good("SUBSCRIBE with no local on what is not shared", V5, "82[ 000A [] ('$shared/a') 04 ('share/a') 04 ('$share') 04 ]",
            s(subscribe(&[("$shared/a", NO_LOCAL), ("share/a", NO_LOCAL), ("$share", NO_LOCAL)]))),
        good("SUBSCRIBE with subscription identifier 1", V5, "82[ 000A [0B 01] ('a') 00 ]",
            properties(SubscribeProperties { subscription_id: NonZeroU32::new(1), ..SubscribeProperties::default() })),
        good("SUBSCRIBE with subscription identifier 16,384", V5, "82[ 000A [0B 808001] ('a') 00 ]",
            properties(SubscribeProperties { subscription_id: NonZeroU32::new(16_384), ..SubscribeProperties::default() })),
        good("SUBSCRIBE with the largest subscription identifier", V5, "82[ 000A [0B FFFFFF7F] ('a') 00 ]",
            properties(SubscribeProperties { subscription_id: NonZeroU32::new(268_435_455), ..SubscribeProperties::default() })),
        legal("SUBSCRIBE with user properties around the identifier", V5, "82[ 000A [26('k')('v') 0B 02 26('k')('w')] ('a') 00 ]",
            properties(SubscribeProperties { subscription_id: NonZeroU32::new(2), user_properties: UserProperties::from_list(&[("k", "v"), ("k", "w")]) }),
            "82[ 000A [0B 02 26('k')('v') 26('k')('w')] ('a') 00 ]"),
    ]
}

#[rustfmt::skip]
fn unsubscribes() -> Vec<Row> {
    let u = |unsubscribe| Packet::Unsubscribe(unsubscribe);
    vec![
        good("UNSUBSCRIBE", V3, "A2[ 000A ('a/b') ]", u(unsubscribe(&["a/b"]))),
        good("UNSUBSCRIBE with several filters", V3, "A2[ 000A ('a') ('#') ('a') ]", u(unsubscribe(&["a", "#", "a"]))),
        legal("UNSUBSCRIBE of MQTT 3.1 with DUP", V31, "AA[ 000A ('a') ]", u(unsubscribe(&["a"])), "A2[ 000A ('a') ]"),
        good("UNSUBSCRIBE of v5", V5, "A2[ 000A [] ('a/b') ]", u(unsubscribe(&["a/b"]))),
        good("UNSUBSCRIBE with user properties", V5, "A2[ 000A [26('k')('v') 26()()] ('a') ('$share/g/a') ]",
            u(Unsubscribe { user_properties: UserProperties::from_list(&[("k", "v"), ("", "")]), ..unsubscribe(&["a", "$share/g/a"]) })),
    ]
}

#[rustfmt::skip]
fn answers() -> Vec<Row> {
    let properties = AckProperties { reason_string: Some("why"), user_properties: UserProperties::from_list(&[("k", "v")]) };
    vec![
        good("SUBACK", V3, "90[ 000A 00 ]", suback(&[0])),
        good("SUBACK with all codes of v3", V3, "90[ 000A 00 01 02 80 ]", suback(&[0, 1, 2, 0x80])),
        good("SUBACK of v5", V5, "90[ 000A [] 00 ]", suback(&[0])),
        // [MQTT-3.9.3-2]
        good("SUBACK with all codes of v5", V5, "90[ 000A [] 00 01 02 80 83 87 8F 91 97 9E A1 A2 ]",
            suback(&[0, 1, 2, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2])),
        good("SUBACK with properties", V5, "90[ 000A [1F('why') 26('k')('v')] 87 ]",
            Packet::SubAck(SubAck { packet_id: ID, properties: properties.clone(), codes: &[0x87] })),
        good("UNSUBACK", V3, "B0 02 000A", unsuback(&[])),
        good("UNSUBACK of v5", V5, "B0[ 000A [] 00 11 ]", unsuback(&[0, 0x11])),
        // [MQTT-3.11.3-2]
        good("UNSUBACK with all codes of v5", V5, "B0[ 000A [] 00 11 80 83 87 8F 91 ]", unsuback(&[0, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91])),
        good("UNSUBACK with properties", V5, "B0[ 000A [1F('why') 26('k')('v')] 87 ]",
            Packet::UnsubAck(UnsubAck { packet_id: ID, properties, codes: &[0x87] })),
    ]
}
