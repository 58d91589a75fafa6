//! A shard that is stepped in memory, and as little around it as can be: what is measured is the broker.
//!
//! Nothing here waits. What the shard gives to the store is committed at once, and what it wants from there is
//! answered from a list by record, so that the store costs the same however much is in it. Outboxes are emptied
//! without a look at their bytes: packet identifiers follow from the order of messages.

#![allow(dead_code, reason = "each bench uses its part of it")]

mod record;

use std::{io::IoSlice, num::NonZeroU16, sync::Arc};

use dunlin::{
    acl::Principal,
    broker::{Admission, Cause, Outputs, Shard, Shared},
    codec::{
        Ack, Connect, ConnectProperties, Delivery, Packet, PacketId, Publish, PublishProperties, QoS,
        RetainHandling, Subscribe, SubscribeFilters, SubscribeProperties, SubscriptionOptions, Version,
    },
    limits::{Durability, Limits},
    session::LinkId,
    time::Timestamp,
};

use record::Records;

/// As the program has it: the allocator is a good part of what a message costs.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Payload of the messages, in bytes.
pub(crate) const PAYLOAD: [u8; 64] = [7; 64];

/// Segments of an outbox that are written at a time, as to a socket.
const SEGMENTS: usize = 16;

/// A broker of one shard with its clients.
pub(crate) struct Bed {
    pub(crate) shard: Shard,
    out: Outputs,
    now: Timestamp,
    records: Records,
}

/// Whether a session outlives its connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keeps {
    /// It ends with it.
    Nothing,
    /// It goes on.
    Session,
}

impl Bed {
    /// A broker whose shared state is changed before it starts. Its limits do not stand in the way.
    pub(crate) fn new(change: impl FnOnce(&mut Shared)) -> Bed {
        let limits = Limits {
            sessions_max: usize::MAX,
            session_subscriptions_max: usize::MAX,
            retained_messages_max: usize::MAX,
            retained_bytes_max: usize::MAX,
            session_queue_messages_max: usize::MAX,
            ..Limits::default()
        };
        let now = Timestamp::from_millis(1_700_000_000_000);
        let mut shared = Shared::new(limits, 1, 7);
        change(&mut shared);
        let shard = Shard::new(0, Arc::new(shared), now);
        Bed { shard, out: Outputs::default(), now, records: Records::default() }
    }

    /// Connects an MQTT 5 client that takes so many unacknowledged messages.
    pub(crate) fn connect(&mut self, client_id: &str, keeps: Keeps, receive_maximum: u16) -> LinkId {
        let connect = Connect {
            version: Version::V5,
            clean_start: keeps == Keeps::Nothing,
            keep_alive_secs: 60,
            client_id,
            will: None,
            user_name: None,
            password: None,
            properties: ConnectProperties {
                session_expiry_secs: (keeps == Keeps::Session).then_some(u32::MAX),
                receive_maximum: NonZeroU16::new(receive_maximum),
                ..ConnectProperties::default()
            },
        };
        let admission = Admission {
            connect: &connect,
            assigned_client_id: None,
            principal: Principal::default(),
            peer: "bench".into(),
            is_local: false,
            durability: Durability::Commit,
            allowances: Vec::new(),
            authentication_data: None,
        };
        let link = self.shard.connect(self.now, &admission, &mut self.out);
        let link = link.unwrap_or_else(|refusal| panic!("{client_id} is refused: {}", refusal.why));
        self.settle();
        link
    }

    /// Ends a connection without DISCONNECT.
    pub(crate) fn drop_link(&mut self, link: LinkId) {
        self.shard.closed(self.now, link, Cause::Eof, &mut self.out);
        self.settle();
    }

    /// Subscribes to all of these with the same QoS, without the messages that are retained.
    pub(crate) fn subscribe(&mut self, link: LinkId, filters: &[String], qos: QoS) {
        let retain_handling = RetainHandling::DoNotSend;
        let options = SubscriptionOptions { qos, retain_handling, ..SubscriptionOptions::default() };
        for some in filters.chunks(1000) {
            let list: Vec<(&str, SubscriptionOptions)> =
                some.iter().map(|filter| (filter.as_str(), options)).collect();
            self.packet(
                link,
                &Packet::Subscribe(Subscribe {
                    packet_id: PacketId::MIN,
                    properties: SubscribeProperties::default(),
                    filters: SubscribeFilters::from_list(&list),
                }),
            );
            self.settle();
        }
    }

    /// Hands a packet of a client to the shard.
    pub(crate) fn packet(&mut self, link: LinkId, packet: &Packet<'_>) {
        self.shard.packet(self.now, link, packet, &mut self.out);
    }

    /// Publishes with a packet identifier that depends on `count`.
    pub(crate) fn publish(&mut self, link: LinkId, topic: &str, qos: QoS, count: u64) {
        self.packet(link, &publish(topic, qos, count));
    }

    /// Acknowledges the message with this number, counted from 0 in its session.
    pub(crate) fn acknowledge(&mut self, link: LinkId, number: u64) {
        self.packet(link, &Packet::PubAck(Ack::success(packet_id(number))));
    }

    /// Does what the shell does at the end of a turn, until nothing is left to do: the store commits and reads,
    /// sockets take all that there is.
    pub(crate) fn settle(&mut self) {
        loop {
            self.step_store();
            if self.out.touched.is_empty() {
                self.out.events.clear();
                // Nobody is behind them: sessions of other shards are names in the router.
                self.out.forwards.clear();
                self.out.forwarded = 0;
                return;
            }
            let mut touched = std::mem::take(&mut self.out.touched);
            for link in touched.drain(..) {
                self.drain(link);
            }
            if self.out.touched.is_empty() {
                self.out.touched = touched;
            }
        }
    }

    fn step_store(&mut self) {
        loop {
            let batch = self.shard.take_batch();
            let fetches = std::mem::take(&mut self.out.fetches);
            if batch.is_none() && fetches.is_empty() {
                return;
            }
            if let Some(batch) = batch {
                batch.entries.into_iter().for_each(|entry| self.records.apply(entry));
                self.shard.committed(self.now, batch.commit, &mut self.out);
            }
            for fetch in fetches {
                let fetched = self.records.fetch(fetch);
                self.shard.fetched(self.now, fetched, &mut self.out);
            }
        }
    }

    fn drain(&mut self, link: LinkId) {
        let Some(outbox) = self.shard.outbox(link) else { return };
        let mut is_drained = false;
        while outbox.ready() > 0 {
            let mut slices = [IoSlice::new(&[]); SEGMENTS];
            let filled = outbox.chunks(&mut slices);
            let taken = slices[..filled].iter().map(|slice| slice.len()).sum();
            outbox.advance(taken);
            is_drained = true;
        }
        if is_drained {
            self.shard.drained(self.now, link, &mut self.out);
        }
    }

    /// QoS 1 PUBLISH sent so far, to all clients.
    pub(crate) fn sent(&self) -> u64 {
        self.shard.counters().publishes_sent[QoS::AtLeastOnce as usize].value()
    }
}

/// A PUBLISH with a packet identifier that depends on `count`.
pub(crate) fn publish(topic: &str, qos: QoS, count: u64) -> Packet<'_> {
    let delivery = match qos {
        QoS::AtMostOnce => Delivery::AtMostOnce,
        QoS::AtLeastOnce => Delivery::AtLeastOnce(packet_id(count)),
        QoS::ExactlyOnce => Delivery::ExactlyOnce(packet_id(count)),
    };
    let properties = PublishProperties::default();
    Packet::Publish(Publish { dup: false, delivery, retain: false, topic, properties, payload: &PAYLOAD })
}

/// The packet identifier of the message with this number in its session.
pub(crate) fn packet_id(number: u64) -> PacketId {
    PacketId::MIN.saturating_add((number % 65_535) as u16)
}
