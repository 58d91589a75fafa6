//! What the broker tells of itself under `$SYS/broker`.

use std::time::Duration;

use dunlin::{
    QoS,
    codec::{Delivery, Disconnect, Packet, ReasonCode, Version},
};

use crate::{Server, config, connect, publish, within};

/// Waits until a value under `$SYS/broker/` is as wanted, and returns it.
pub(crate) async fn value(server: &Server, name: &str, is_wanted: impl Fn(u64) -> bool) -> u64 {
    let mut client = server.client(Version::V5, &format!("reader of {name}")).await;
    client.subscribe(&format!("$SYS/broker/{name}"), QoS::AtMostOnce).await;
    let wait = async {
        loop {
            let value = client
                .next(|packet| match packet {
                    Packet::Publish(publish) => {
                        std::str::from_utf8(publish.payload).unwrap().parse::<u64>().unwrap()
                    }
                    other => panic!("{other:?}"),
                })
                .await;
            if is_wanted(value) {
                return value;
            }
        }
    };
    within(wait).await
}

fn config_with_sys() -> dunlin::Config {
    let mut config = config();
    config.sys_interval = Duration::from_millis(50);
    config
}

#[tokio::test]
async fn statistics_follow_what_happens() {
    let server = Server::with(config_with_sys()).await;
    let mut subscriber = server.client(Version::V5, "subscriber").await;
    subscriber.subscribe("count/#", QoS::AtLeastOnce).await;
    let mut publisher = server.client(Version::V311, "publisher").await;
    for number in 0..10_u8 {
        let topic = format!("count/{number}");
        publisher.publish_acknowledged(&topic, &[number; 100]).await;
        subscriber.take_message(&topic, &[number; 100]).await;
    }
    subscriber.ping().await;
    // The reader is a client with a subscription itself.
    value(&server, "clients/connected", |value| value == 3).await;
    value(&server, "clients/total", |value| value == 3).await;
    value(&server, "subscriptions/count", |value| value == 2).await;
    value(&server, "publish/messages/received", |value| value == 10).await;
    value(&server, "publish/bytes/received", |value| value == 1000).await;
    value(&server, "publish/messages/sent", |value| value >= 10).await;
    value(&server, "bytes/received", |value| value > 1000).await;
    value(&server, "bytes/sent", |value| value > 1000).await;
    value(&server, "store/messages/count", |value| value == 0).await;
    // In all there may be some: of statistics, for readers that were just leaving.
    value(&server, "publish/messages/dropped/outbox-full", |value| value == 0).await;
    publisher.send(&Packet::Disconnect(Disconnect::new(ReasonCode::Success))).await;
    publisher.expect_end().await;
    value(&server, "clients/connected", |value| value == 2).await;
}

#[tokio::test]
async fn values_are_updated_and_retained() {
    let server = Server::with(config_with_sys()).await;
    let mut client = server.client(Version::V5, "client").await;
    client.subscribe("$SYS/broker/bytes/sent", QoS::AtMostOnce).await;
    let mut last = 0;
    for round in 0..5 {
        let (retain, value) = client
            .next(|packet| match packet {
                Packet::Publish(publish) => {
                    let text = std::str::from_utf8(publish.payload).unwrap();
                    (publish.retain, text.parse::<u64>().unwrap())
                }
                other => panic!("{other:?}"),
            })
            .await;
        // RETAIN only on what was there before the subscription. The first may come of either.
        assert!(!retain || round == 0);
        assert!(value >= last, "{value} after {last}");
        last = value;
    }
    assert!(last > 0);
}

/// `$SYS` is the broker's own: who publishes there is refused.
#[tokio::test]
async fn nobody_else_publishes_under_sys() {
    let server = Server::start().await;
    let mut witness = server.client(Version::V5, "witness").await;
    witness.subscribe("$SYS/#", QoS::AtMostOnce).await;
    let mut peer = server.open(Version::V5).await;
    peer.connect(&connect(Version::V5, "forger")).await;
    peer.send(&publish("$SYS/broker/version", b"forged", Delivery::AtMostOnce)).await;
    peer.send(&publish("$SYS/broker/version", b"forged", Delivery::AtLeastOnce(crate::id(1)))).await;
    let reason = peer
        .next(|packet| match packet {
            Packet::PubAck(ack) => ack.reason,
            other => panic!("{other:?}"),
        })
        .await;
    assert_eq!(reason, ReasonCode::NotAuthorized);
    witness.ping().await;
}
