//! What clients may not do, and how they are told.

use dunlin::{
    Broker, QoS,
    acl::{Action, Authorize, Decision, Principal, RuleId},
    codec::{Connect, Delivery, Packet, ReasonCode, Version, Will, WillProperties},
};

use crate::{BOTH, Server, at_most, config, connect, id, publish, success};

/// Nobody publishes to `closed/…`, nobody subscribes to it.
struct Closed;

impl Authorize for Closed {
    fn decide(&self, _: &Principal, _: &str, _: Action, topic: &str) -> Decision {
        if topic.starts_with("closed/") { Decision::Denied(RuleId::DEFAULT) } else { Decision::Allowed }
    }
}

async fn server() -> Server {
    Server::build(Broker::builder().config(config()).authorizer(Closed)).await
}

/// v5 is told by the reason code; 3.1.1 cannot be, and gets an acknowledgement that says nothing.
#[tokio::test]
async fn a_publish_that_is_not_allowed_reaches_nobody() {
    let server = server().await;
    let mut witness = server.client(Version::V5, "witness").await;
    witness.subscribe("#", QoS::AtMostOnce).await;
    for version in BOTH {
        let is_refused = |reason| match version {
            Version::V5 => assert_eq!(reason, ReasonCode::NotAuthorized),
            Version::V31 | Version::V311 => assert_eq!(reason, ReasonCode::Success),
        };
        let mut peer = server.client(version, "publisher").await;
        peer.send(&publish("closed/a", b"x", Delivery::AtMostOnce)).await;
        peer.ping().await;
        peer.send(&publish("closed/a", b"x", Delivery::AtLeastOnce(id(7)))).await;
        peer.next(|packet| match packet {
            Packet::PubAck(ack) if ack.packet_id == id(7) => is_refused(ack.reason),
            other => panic!("{other:?}"),
        })
        .await;
        peer.send(&publish("closed/a", b"x", Delivery::ExactlyOnce(id(8)))).await;
        peer.next(|packet| match packet {
            Packet::PubRec(ack) if ack.packet_id == id(8) => is_refused(ack.reason),
            other => panic!("{other:?}"),
        })
        .await;
        if version == Version::V311 {
            peer.send(&Packet::PubRel(success(id(8)))).await;
            peer.expect(&Packet::PubComp(success(id(8)))).await;
        }
        peer.publish_acknowledged("open/a", b"y").await;
        witness.expect_message("open/a", b"y").await;
    }
}

#[tokio::test]
async fn a_subscription_that_is_not_allowed_is_refused() {
    let server = server().await;
    for (version, code) in BOTH.into_iter().zip([0x80, 0x87]) {
        let mut peer = server.client(version, "subscriber").await;
        assert_eq!(peer.subscribe_with("closed/a", at_most(QoS::AtLeastOnce)).await, code);
        assert_eq!(peer.subscribe_with("open/a", at_most(QoS::AtLeastOnce)).await, 1);
        if version == Version::V5 {
            assert_eq!(peer.subscribe_with("$share/g/closed/a", at_most(QoS::AtLeastOnce)).await, code);
        }
    }
}

/// A will that its client may not publish is refused with the whole CONNECT.
#[tokio::test]
async fn a_will_that_is_not_allowed_is_refused_at_connect() {
    let server = server().await;
    for (version, code) in BOTH.into_iter().zip([5, 0x87]) {
        for client_id in crate::ids_on_both_shards("dying").take(6) {
            let properties = WillProperties::default();
            let will =
                Will { qos: QoS::AtMostOnce, retain: false, topic: "closed/will", payload: b"x", properties };
            let mut peer = server.open(version).await;
            let connect = Connect { will: Some(will), ..connect(version, &client_id) };
            peer.send(&Packet::Connect(Box::new(connect))).await;
            assert_eq!(peer.conn_ack().await, (false, code));
            peer.expect_end().await;
        }
    }
}
