//! What a message costs in its session: `cargo bench --bench session`.
//!
//! `Outbound` alone: from the queue into the window, and out of it by the client's acknowledgements. `Outbox` alone:
//! from a message to bytes, and their way to the socket.

use std::{hint::black_box, io::IoSlice, sync::Arc};

use divan::{Bencher, counter::ItemsCount};
use dunlin::{
    QoS,
    codec::{Delivery, PacketId, PublishHead, Version},
    message::{Header, Message},
    session::{Outbound, Outbox, Outgoing},
};

fn main() {
    divan::main();
}

/// Messages of one round.
const ROUND: usize = 64;

/// Messages under way to the client all the time: the first of them is acknowledged when one more is sent.
const WINDOWS: [usize; 3] = [1, 100, 10_000];

const RECEIVE_MAXIMUM: u16 = u16::MAX;

fn message(qos: QoS, payload_bytes: usize) -> Arc<Message> {
    let header = Header { qos, retain: false, expires_at: None, publisher: Some("publisher".into()) };
    Arc::new(Message::new("plant/7/line/3/temperature".into(), &vec![7; payload_bytes], header))
}

fn outgoing(message: &Arc<Message>, qos: QoS) -> Outgoing {
    let message = message.clone();
    Outgoing { message, qos, retain: false, subscription_ids: None, share: None, record: None }
}

/// A session with messages under way.
struct Sender {
    outbound: Outbound,
    message: Arc<Message>,
    qos: QoS,
    next: u64,
    under_way: std::collections::VecDeque<PacketId>,
}

impl Sender {
    fn new(qos: QoS, window: usize) -> Sender {
        let mut sender = Sender {
            outbound: Outbound::default(),
            message: message(qos, 64),
            qos,
            next: 0,
            under_way: Default::default(),
        };
        (1..window).for_each(|_| sender.send());
        sender
    }

    fn send(&mut self) {
        self.outbound.enqueue(self.next, outgoing(&self.message, self.qos));
        self.next += 1;
        assert!(self.outbound.head(RECEIVE_MAXIMUM).is_some(), "the window has room");
        let (id, outgoing) = self.outbound.send().expect("a message is queued");
        black_box(outgoing);
        self.under_way.push_back(id);
    }

    fn settle(&mut self) {
        let id = self.under_way.pop_front().expect("a message is under way");
        match self.qos {
            QoS::AtMostOnce | QoS::AtLeastOnce => {
                black_box(self.outbound.on_pub_ack(id).expect("it awaits PUBACK"));
            }
            QoS::ExactlyOnce => {
                black_box(self.outbound.on_pub_rec(id).expect("it awaits PUBREC"));
                black_box(self.outbound.on_pub_comp(id).expect("it awaits PUBCOMP"));
            }
        }
    }
}

fn outbound(bencher: Bencher<'_, '_>, qos: QoS, window: usize) {
    let mut sender = Sender::new(qos, window);
    bencher.counter(ItemsCount::new(ROUND)).bench_local(|| {
        for _ in 0..ROUND {
            sender.send();
            sender.settle();
        }
    });
}

/// Queued, sent, PUBACK.
#[divan::bench(args = WINDOWS)]
fn outbound_qos_1(bencher: Bencher<'_, '_>, window: usize) {
    outbound(bencher, QoS::AtLeastOnce, window);
}

/// Queued, sent, PUBREC, PUBCOMP.
#[divan::bench(args = WINDOWS)]
fn outbound_qos_2(bencher: Bencher<'_, '_>, window: usize) {
    outbound(bencher, QoS::ExactlyOnce, window);
}

/// What a socket is given at a time.
const SEGMENTS: usize = 16;

/// Payloads from 4 KiB on are shared, not copied.
#[divan::bench(args = [64, 1024, 4096, 65_536])]
fn outbox(bencher: Bencher<'_, '_>, payload_bytes: usize) {
    let message = message(QoS::AtLeastOnce, payload_bytes);
    let head = PublishHead {
        dup: false,
        retain: false,
        delivery: Delivery::AtLeastOnce(PacketId::MAX),
        topic: message.topic(),
        forwarded: message.properties(),
        message_expiry_secs: None,
        topic_alias: None,
        subscription_ids: &[],
        payload_len: payload_bytes,
    };
    let mut outbox = Outbox::default();
    bencher.counter(ItemsCount::new(ROUND)).bench_local(|| {
        (0..ROUND).for_each(|_| outbox.write_publish(black_box(&head), Version::V5, &message));
        while outbox.ready() > 0 {
            let mut slices = [IoSlice::new(&[]); SEGMENTS];
            let filled = outbox.chunks(&mut slices);
            let taken = black_box(&slices[..filled]).iter().map(|slice| slice.len()).sum();
            outbox.advance(taken);
        }
    });
}
