//! What a test does with a client.

use std::num::{NonZeroU16, NonZeroU32};

use dunlin::{
    acl::Principal,
    broker::Cause,
    codec::{
        self, Ack, AckProperties, Auth, AuthProperties, Delivery, Disconnect, DisconnectProperties, Packet,
        PacketId, PacketKind, Publish, PublishProperties, QoS, ReasonCode, Subscribe, SubscribeFilters,
        SubscribeProperties, SubscriptionOptions, Unsubscribe, UnsubscribeFilters, UserProperties, Version,
    },
};

use super::{Got, GotMessage, World, peer::Peer};

/// One connection of a client. A clone is another handle to the same one.
#[derive(Clone)]
pub(crate) struct Client {
    world: World,
    peer: usize,
}

impl Client {
    pub(super) fn new(world: World, peer: usize) -> Client {
        Client { world, peer }
    }

    fn with_peer<T>(&self, f: impl FnOnce(&mut Peer) -> T) -> T {
        f(&mut self.world.0.borrow_mut().peers[self.peer])
    }

    /// From here on the test answers PUBLISH, PUBREC and PUBREL itself.
    pub(crate) fn manual(self) -> Client {
        self.with_peer(|peer| peer.answers = false);
        self
    }

    /// Whether this is the same connection.
    pub(crate) fn is(&self, other: &Client) -> bool {
        self.peer == other.peer
    }

    /// The version that it speaks.
    pub(crate) fn version(&self) -> Version {
        self.with_peer(|peer| peer.setup.version)
    }

    /// Sends bytes, whatever they are.
    pub(crate) fn send_bytes(&self, bytes: &[u8]) {
        let mut inner = self.world.0.borrow_mut();
        let peer = &mut inner.peers[self.peer];
        if !peer.is_closed {
            peer.input.extend_from_slice(bytes);
        }
        inner.settle();
    }

    /// Sends a packet.
    pub(crate) fn send(&self, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        self.with_peer(|peer| codec::encode(packet, peer.setup.version, &mut bytes));
        self.send_bytes(&bytes);
    }

    /// A packet identifier that it has not used yet.
    pub(crate) fn next_id(&self) -> u16 {
        self.with_peer(|peer| {
            peer.last_id = peer.last_id.checked_add(1).unwrap_or(1);
            peer.last_id
        })
    }

    /// Publishes. Returns the packet identifier, 0 at QoS 0.
    pub(crate) fn publish(&self, topic: &str, payload: &str, qos: QoS) -> u16 {
        self.publish_with(topic, payload, qos, |_| {})
    }

    /// Publishes with RETAIN.
    pub(crate) fn retain(&self, topic: &str, payload: &str, qos: QoS) -> u16 {
        self.publish_with(topic, payload, qos, |publish| publish.retain = true)
    }

    /// Publishes a packet that is changed before it is sent.
    pub(crate) fn publish_with(
        &self,
        topic: &str,
        payload: &str,
        qos: QoS,
        change: impl FnOnce(&mut Publish<'_>),
    ) -> u16 {
        let id = if qos == QoS::AtMostOnce { 0 } else { self.next_id() };
        self.publish_as(id, topic, payload, qos, change);
        id
    }

    /// Publishes with this packet identifier.
    pub(crate) fn publish_as(
        &self,
        id: u16,
        topic: &str,
        payload: &str,
        qos: QoS,
        change: impl FnOnce(&mut Publish<'_>),
    ) {
        let delivery = match qos {
            QoS::AtMostOnce => Delivery::AtMostOnce,
            QoS::AtLeastOnce => Delivery::AtLeastOnce(packet_id(id)),
            QoS::ExactlyOnce => Delivery::ExactlyOnce(packet_id(id)),
        };
        let mut publish = Publish {
            dup: false,
            delivery,
            retain: false,
            topic,
            properties: PublishProperties::default(),
            payload: payload.as_bytes(),
        };
        change(&mut publish);
        self.send(&Packet::Publish(publish));
    }

    /// Subscribes and expects to be granted what it asked for.
    pub(crate) fn subscribe(&self, filter: &str, qos: QoS) {
        self.subscribe_with(filter, SubscriptionOptions { qos, ..SubscriptionOptions::default() }, 0);
    }

    /// As [`Client::subscribe`], with options and, if it is not 0, a Subscription Identifier.
    pub(crate) fn subscribe_with(&self, filter: &str, options: SubscriptionOptions, subscription_id: u32) {
        let id = self.send_subscribe(&[(filter, options)], subscription_id);
        let expected = Got::SubAck { id, codes: vec![options.qos as u8] };
        assert_eq!(self.recv(), Some(expected), "SUBACK for {filter}");
    }

    /// Sends SUBSCRIBE. Returns its packet identifier.
    pub(crate) fn send_subscribe(
        &self,
        filters: &[(&str, SubscriptionOptions)],
        subscription_id: u32,
    ) -> u16 {
        let id = self.next_id();
        self.send(&Packet::Subscribe(Subscribe {
            packet_id: packet_id(id),
            properties: SubscribeProperties {
                subscription_id: NonZeroU32::new(subscription_id),
                user_properties: UserProperties::default(),
            },
            filters: SubscribeFilters::from_list(filters),
        }));
        id
    }

    /// Unsubscribes; the subscription is expected to exist.
    pub(crate) fn unsubscribe(&self, filter: &str) {
        let id = self.send_unsubscribe(&[filter]);
        let codes = if self.version().is_v5() { vec![0] } else { Vec::new() };
        assert_eq!(self.recv(), Some(Got::UnsubAck { id, codes }), "UNSUBACK for {filter}");
    }

    /// Sends UNSUBSCRIBE. Returns its packet identifier.
    pub(crate) fn send_unsubscribe(&self, filters: &[&str]) -> u16 {
        let id = self.next_id();
        self.send(&Packet::Unsubscribe(Unsubscribe {
            packet_id: packet_id(id),
            user_properties: UserProperties::default(),
            filters: UnsubscribeFilters::from_list(filters),
        }));
        id
    }

    /// Sends PUBACK, PUBREC, PUBREL or PUBCOMP.
    pub(crate) fn ack(&self, kind: PacketKind, id: u16) {
        self.ack_with(kind, id, ReasonCode::Success);
    }

    /// As [`Client::ack`], with a reason code.
    pub(crate) fn ack_with(&self, kind: PacketKind, id: u16, reason: ReasonCode) {
        let ack = Ack { packet_id: packet_id(id), reason, properties: AckProperties::default() };
        self.send(&match kind {
            PacketKind::PubAck => Packet::PubAck(ack),
            PacketKind::PubRec => Packet::PubRec(ack),
            PacketKind::PubRel => Packet::PubRel(ack),
            PacketKind::PubComp => Packet::PubComp(ack),
            other => panic!("{other} is no acknowledgement"),
        });
    }

    /// Sends PINGREQ.
    pub(crate) fn ping(&self) {
        self.send(&Packet::PingReq);
    }

    /// Sends a DISCONNECT that says all is well, and closes.
    pub(crate) fn disconnect(&self) {
        self.disconnect_with(ReasonCode::Success, None);
    }

    /// Sends DISCONNECT.
    pub(crate) fn disconnect_with(&self, reason: ReasonCode, session_expiry_secs: Option<u32>) {
        let properties = DisconnectProperties { session_expiry_secs, ..DisconnectProperties::default() };
        self.send(&Packet::Disconnect(Disconnect { reason, properties }));
    }

    /// The broker sends it AUTH with this reason string.
    pub(crate) fn authenticate(&self, reason_string: &str) {
        let mut inner = self.world.0.borrow_mut();
        let inner = &mut *inner;
        let (index, link) = inner.peers[self.peer].link.expect("the client is connected");
        let node = &mut inner.nodes[index];
        let properties = AuthProperties {
            method: Some("m"),
            reason_string: Some(reason_string),
            ..AuthProperties::default()
        };
        let auth = Auth { reason: ReasonCode::ContinueAuthentication, properties };
        node.shard.authenticate(inner.now, link, &auth, &mut node.out);
        inner.settle();
    }

    /// It has authenticated anew, as this user.
    pub(crate) fn become_user(&self, user: &str) {
        let mut inner = self.world.0.borrow_mut();
        let inner = &mut *inner;
        let (index, link) = inner.peers[self.peer].link.expect("the client is connected");
        let node = &mut inner.nodes[index];
        node.shard.set_principal(inner.now, link, Principal::named(user), &mut node.out);
        inner.settle();
    }

    /// The connection fails.
    pub(crate) fn drop_link(&self) {
        let mut inner = self.world.0.borrow_mut();
        let inner = &mut *inner;
        let peer = &mut inner.peers[self.peer];
        peer.is_closed = true;
        peer.input.clear();
        if let Some((index, link)) = peer.link.take() {
            let node = &mut inner.nodes[index];
            node.shard.closed(inner.now, link, Cause::Eof, &mut node.out);
        }
        inner.settle();
    }

    /// Stops reading.
    pub(crate) fn stall(&self) {
        self.with_peer(|peer| peer.is_stalled = true);
    }

    /// Reads again.
    pub(crate) fn unstall(&self) {
        self.with_peer(|peer| peer.is_stalled = false);
        self.read_some(usize::MAX);
        self.world.0.borrow_mut().settle();
    }

    /// Reads up to so many bytes, also while it stalls.
    pub(crate) fn read_some(&self, bytes_max: usize) {
        let mut inner = self.world.0.borrow_mut();
        inner.drain_peer(self.peer, bytes_max);
        inner.settle();
    }

    /// The next packet that it received.
    pub(crate) fn recv(&self) -> Option<Got> {
        self.with_peer(|peer| peer.received.pop_front())
    }

    /// All packets that it received.
    pub(crate) fn recv_all(&self) -> Vec<Got> {
        self.with_peer(|peer| peer.received.drain(..).collect())
    }

    /// The messages among all packets that it received.
    pub(crate) fn recv_messages(&self) -> Vec<GotMessage> {
        let messages = self.recv_all().into_iter().filter_map(|got| match got {
            Got::Publish(message) => Some(message),
            _ => None,
        });
        messages.collect()
    }

    /// The payloads of all messages that it received.
    pub(crate) fn recv_payloads(&self) -> Vec<String> {
        self.recv_messages().into_iter().map(|message| message.payload).collect()
    }

    /// The next packet is this one.
    pub(crate) fn expect(&self, expected: &Got) {
        assert_eq!(self.recv().as_ref(), Some(expected));
    }

    /// The next packet is an acknowledgement that says success.
    pub(crate) fn expect_ack(&self, kind: PacketKind, id: u16) {
        self.expect(&Got::ack(kind, id));
    }

    /// The next packet is an acknowledgement with this reason code, whatever its reason string.
    pub(crate) fn expect_code(&self, kind: PacketKind, id: u16, code: ReasonCode) {
        match self.recv() {
            Some(Got::Ack { kind: found, id: of, code: with, .. })
                if (found, of, with) == (kind, id, code as u8) => {}
            other => panic!("expected {kind} {id} with {code:?}, got {other:?}"),
        }
    }

    /// The next packet is a message with this topic and payload.
    pub(crate) fn expect_publish(&self, topic: &str, payload: &str) -> GotMessage {
        match self.recv() {
            Some(Got::Publish(message)) if message.topic == topic && message.payload == payload => message,
            other => panic!("expected '{payload}' on {topic}, got {other:?}"),
        }
    }

    /// Nothing more was received, and the connection is open.
    pub(crate) fn expect_nothing(&self) {
        assert_eq!(self.recv(), None);
        assert!(!self.is_closed(), "the connection is closed");
    }

    /// The connection is closed; a v5 client was told why by DISCONNECT as its last packet.
    pub(crate) fn expect_closed(&self, code: ReasonCode) {
        if self.version().is_v5() {
            match self.recv() {
                Some(Got::Disconnect { code: found, .. }) if found == code as u8 => {}
                other => panic!("expected DISCONNECT with {code:?}, got {other:?}"),
            }
        }
        self.expect_silently_closed();
    }

    /// The connection is closed, and nothing more was received.
    pub(crate) fn expect_silently_closed(&self) {
        assert_eq!(self.recv(), None);
        assert!(self.is_closed(), "the connection is open");
    }

    /// Whether the broker has closed the connection, or the client has dropped it.
    pub(crate) fn is_closed(&self) -> bool {
        self.with_peer(|peer| peer.is_closed)
    }

    /// Whether the broker has read all that was sent.
    pub(crate) fn is_read(&self) -> bool {
        self.with_peer(|peer| peer.input.is_empty())
    }
}

/// A packet identifier that is not 0.
pub(crate) fn packet_id(id: u16) -> PacketId {
    NonZeroU16::new(id).expect("a packet identifier is not 0")
}
