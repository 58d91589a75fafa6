//! Publishers that send as fast as they can, and a subscriber that takes a tenth of it.

use std::cell::Cell;

use dunlin::{
    QoS,
    codec::{Connect, ConnectProperties, Delivery, Packet},
};
use tokio::{net::UnixStream, sync::Notify};

use crate::{
    Broker, KIB, MIB, Peer, account, connect,
    flood::{self, TOPIC},
    id, publish,
};

const PAYLOAD_BYTES: usize = 8 * KIB;

/// 80 MiB of QoS 0, and 32 MiB of QoS 1. A tenth of all and the queue are less than half of either.
const QOS_0: u32 = 10_240;
const QOS_1: u32 = 4096;

/// Messages that are written together.
const BURST: u32 = 64;

/// The limits allow 2 MiB for the session, and 32 MiB may be under way from one thread of the broker to another.
const GROWTH_BYTES_MAX: usize = 48 * MIB;

/// The number of the last message.
const END: u32 = u32::MAX;

/// How many messages were published, and whether that was all.
#[derive(Default)]
struct Progress {
    published: Cell<u32>,
    is_over: Cell<bool>,
    more: Notify,
}

impl Progress {
    fn add(&self, messages: u32) {
        self.published.set(self.published.get() + messages);
        self.more.notify_one();
    }
}

/// Nothing but the socket holds it up.
async fn publish_qos_0(mut publisher: Peer<UnixStream>, progress: &Progress) {
    for first in (0..QOS_0).step_by(BURST as usize) {
        let mut bytes = Vec::new();
        for number in first..first + BURST {
            let payload = flood::payload(number, PAYLOAD_BYTES);
            let packet = publish(TOPIC, &payload, Delivery::AtMostOnce);
            dunlin::codec::encode(&packet, publisher.version, &mut bytes);
        }
        publisher.send_bytes(&bytes).await;
        progress.add(BURST);
    }
    // All has been heard.
    publisher.ping().await;
}

async fn publish_qos_1(publisher: &mut Peer<UnixStream>, progress: &Progress) {
    for first in (0..QOS_1).step_by(BURST as usize) {
        let numbers = first..first + BURST;
        let accepted = flood::publish_window(publisher, numbers, PAYLOAD_BYTES).await;
        assert_eq!(accepted.len(), BURST as usize, "nobody is refused");
        progress.add(BURST);
    }
}

/// What the subscriber got, by QoS.
#[derive(Default)]
struct Got {
    qos_0: Vec<u32>,
    qos_1: Vec<u32>,
}

/// Takes one of ten messages as long as they come, then all that is left.
async fn subscribe_slowly(subscriber: &mut Peer<UnixStream>, progress: &Progress) -> Got {
    let mut got = Got::default();
    let mut taken = 0;
    loop {
        while !progress.is_over.get() && progress.published.get() < 10 * (taken + 1) {
            progress.more.notified().await;
        }
        let message = flood::take(subscriber).await.expect("it has not pinged");
        taken += 1;
        match message.delivery {
            Delivery::AtMostOnce => got.qos_0.push(message.number),
            Delivery::AtLeastOnce(_) if message.number == END => return got,
            Delivery::AtLeastOnce(_) => got.qos_1.push(message.number),
            Delivery::ExactlyOnce(_) => panic!("nobody publishes with QoS 2"),
        }
    }
}

/// Of QoS 0 what the connection cannot take is dropped, of QoS 1 the oldest in the queue, as was asked for. All that
/// is missing is in the account.
#[tokio::test]
async fn a_slow_subscriber_gets_what_fits_and_the_rest_is_counted() {
    let broker = Broker::start(&[
        "limits.outbox_bytes_max=\"64 KiB\"",
        "limits.session_queue_messages_max=200",
        "limits.session_queue_overflow=\"drop_oldest\"",
    ]);
    let properties = ConnectProperties { receive_maximum: Some(id(20)), ..ConnectProperties::default() };
    let mut subscriber = broker.client(&Connect { properties, ..connect("subscriber") }).await;
    subscriber.subscribe(TOPIC, QoS::AtLeastOnce).await;
    let greedy = broker.client(&connect("greedy")).await;
    let mut windowed = broker.client(&connect("windowed")).await;
    let before = broker.resident_bytes();
    let progress = Progress::default();
    let publishing = async {
        tokio::join!(publish_qos_0(greedy, &progress), publish_qos_1(&mut windowed, &progress));
        broker.assert_grown_less(before, GROWTH_BYTES_MAX);
        let end = flood::payload(END, 4);
        windowed.publish_acknowledged(TOPIC, &end).await;
        progress.is_over.set(true);
        progress.more.notify_one();
    };
    let ((), got) = tokio::join!(publishing, subscribe_slowly(&mut subscriber, &progress));
    subscriber.send(&Packet::PingReq).await;
    assert!(flood::take(&mut subscriber).await.is_none(), "nothing comes behind the last message");
    for (numbers, sent) in [(&got.qos_0, QOS_0), (&got.qos_1, QOS_1)] {
        assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
        assert!(numbers.len() < sent as usize / 2, "{} of {sent} have come: it is not slow", numbers.len());
    }
    let lost_0 = u64::from(QOS_0) - got.qos_0.len() as u64;
    let lost_1 = u64::from(QOS_1) - got.qos_1.len() as u64;
    let account = account::settled(&broker, |account| {
        account.dropped("outbox-full") == lost_0 && account.dropped("queue-full") == lost_1
    })
    .await;
    assert_eq!(account.dropped_in_all(), lost_0 + lost_1, "{account:?}");
}
