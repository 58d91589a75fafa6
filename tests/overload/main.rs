//! The program where more comes in than goes out: subscribers that stop reading, publishers that do not, and clients
//! that all come at once.
//!
//! What is checked is what is promised: memory stays within the limits, what is dropped is QoS 0 or what the policy
//! says, it is counted, and who behaves well notices nothing. No test asserts a time: each waits for what it expects,
//! and fails when that has not come within [`PATIENCE`].

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]
#![expect(clippy::disallowed_methods, reason = "tests have tasks and a clock of their own")]

mod account;
mod broker;
mod fan_out;
mod flood;
#[allow(dead_code, reason = "the tests of the wire need more of it")]
#[path = "../wire/peer.rs"]
mod peer;
mod slow;
mod stalled;
mod storm;

use std::{future::Future, num::NonZeroU16, time::Duration};

use dunlin::{
    QoS,
    codec::{
        Ack, Connect, ConnectProperties, Delivery, Packet, PacketId, Publish, PublishProperties, Subscribe,
        SubscribeFilters, SubscribeProperties, SubscriptionOptions, Version,
    },
};

use broker::Broker;
use peer::Peer;

/// Longer than anything takes that does not hang.
const PATIENCE: Duration = Duration::from_secs(60);

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// What `future` gives, or a failure if it hangs.
async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("comes before the test loses patience")
}

fn id(number: u16) -> PacketId {
    NonZeroU16::new(number).unwrap()
}

/// An MQTT 5 client whose session ends with its connection.
fn connect(client_id: &str) -> Connect<'_> {
    Connect {
        version: Version::V5,
        clean_start: true,
        keep_alive_secs: 0,
        client_id,
        will: None,
        user_name: None,
        password: None,
        properties: ConnectProperties::default(),
    }
}

fn publish<'a>(topic: &'a str, payload: &'a [u8], delivery: Delivery) -> Packet<'a> {
    let properties = PublishProperties::default();
    Packet::Publish(Publish { dup: false, delivery, retain: false, topic, properties, payload })
}

fn subscribe<'a>(packet_id: PacketId, filters: &'a [(&'a str, SubscriptionOptions)]) -> Packet<'a> {
    let properties = SubscribeProperties::default();
    Packet::Subscribe(Subscribe { packet_id, properties, filters: SubscribeFilters::from_list(filters) })
}

fn at_most(qos: QoS) -> SubscriptionOptions {
    SubscriptionOptions { qos, ..SubscriptionOptions::default() }
}

fn success(packet_id: PacketId) -> Ack<'static> {
    Ack::success(packet_id)
}
