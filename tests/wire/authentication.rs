//! Authentication through back ends of an embedder: by CONNECT, and by AUTH packets.

use std::sync::{Arc, atomic::AtomicUsize, atomic::Ordering};

use dunlin::{
    Broker, QoS,
    acl::{Action, Authorize, Decision, Principal, RuleId},
    auth::{Authenticate, BoxFuture, Credentials, Denial, Exchange, Step},
    codec::{Auth, AuthProperties, Connect, ConnectProperties, Delivery, Packet, ReasonCode, Version},
};
use tokio::{io::AsyncWriteExt, net::TcpStream, sync::Semaphore};

use crate::{BOTH, Peer, Server, config, connect, id, peer::encoded, publish, within};

/// Knows one password, and a method `toy` that asks as often as the client says and wants the last answer
/// to be `open`. A client that calls itself `slow` waits until the test lets it go on.
#[derive(Clone)]
pub(crate) struct Toy {
    gate: Arc<Semaphore>,
    asked: Arc<AtomicUsize>,
    /// Clients that wait at the gate, now and at most.
    waiting: Arc<AtomicUsize>,
    waiting_most: Arc<AtomicUsize>,
}

impl Toy {
    pub(crate) fn new() -> Toy {
        Toy {
            gate: Arc::new(Semaphore::new(0)),
            asked: Arc::default(),
            waiting: Arc::default(),
            waiting_most: Arc::default(),
        }
    }

    pub(crate) async fn serve(&self) -> Server {
        let builder = Broker::builder().config(config()).authenticator(self.clone()).authorizer(ByName);
        Server::build(builder).await
    }
}

/// Only who is called `trusted` publishes to `secret`.
struct ByName;

impl Authorize for ByName {
    fn decide(&self, principal: &Principal, _: &str, action: Action, topic: &str) -> Decision {
        match (action, topic) {
            (Action::Publish { .. }, "secret") if principal.user.as_deref() != Some("trusted") => {
                Decision::Denied(RuleId::DEFAULT)
            }
            (Action::Publish { .. } | Action::Subscribe { .. } | Action::Receive, _) => Decision::Allowed,
        }
    }
}

fn named(user: &str) -> Principal {
    Principal::named(user)
}

fn denial(code: ReasonCode) -> Denial {
    Denial { code, why: "the test says so".into() }
}

impl Authenticate for Toy {
    fn authenticate<'a>(&'a self, credentials: Credentials<'a>) -> BoxFuture<'a, Result<Principal, Denial>> {
        Box::pin(async move {
            self.asked.fetch_add(1, Ordering::Relaxed);
            if credentials.client_id == "slow" {
                let waiting = self.waiting.fetch_add(1, Ordering::Relaxed) + 1;
                self.waiting_most.fetch_max(waiting, Ordering::Relaxed);
                self.gate.acquire().await.expect("the gate is never closed").forget();
                self.waiting.fetch_sub(1, Ordering::Relaxed);
            }
            match (credentials.user_name, credentials.password) {
                (Some(user), Some(b"right")) => Ok(named(user)),
                (Some("banned"), _) => Err(denial(ReasonCode::Banned)),
                (Some(_), _) => Err(denial(ReasonCode::BadUserNameOrPassword)),
                (None, _) => Err(denial(ReasonCode::NotAuthorized)),
            }
        })
    }

    fn begin(&self, method: &str, _: Credentials<'_>) -> Option<Box<dyn Exchange>> {
        (method == "toy").then(|| Box::new(ToyExchange { rounds: None }) as Box<dyn Exchange>)
    }
}

struct ToyExchange {
    rounds: Option<u8>,
}

impl Exchange for ToyExchange {
    fn step<'a>(&'a mut self, data: Option<&'a [u8]>) -> BoxFuture<'a, Step> {
        let step = match (self.rounds, data) {
            (None, Some([rounds @ 1..=9])) => {
                self.rounds = Some(*rounds);
                Step::Continue(vec![*rounds])
            }
            (Some(rounds @ 2..), Some(_)) => {
                self.rounds = Some(rounds - 1);
                Step::Continue(vec![rounds - 1])
            }
            (None | Some(_), Some(b"open")) => Step::Success(named("trusted"), Some(b"welcome".to_vec())),
            (None | Some(_), Some(b"meagre")) => Step::Success(named("meagre"), None),
            (None | Some(_), Some(b"mistyped")) => Step::Failure(denial(ReasonCode::BadUserNameOrPassword)),
            // No packet that refuses has this code.
            (None | Some(_), Some(b"confused")) => Step::Failure(denial(ReasonCode::Success)),
            (None | Some(_), _) => Step::Failure(denial(ReasonCode::NotAuthorized)),
        };
        Box::pin(std::future::ready(step))
    }
}

pub(crate) fn with_method<'a>(client_id: &'a str, method: &'a str, data: Option<&'a [u8]>) -> Packet<'a> {
    let properties = ConnectProperties {
        authentication_method: Some(method),
        authentication_data: data,
        ..ConnectProperties::default()
    };
    Packet::Connect(Box::new(Connect { properties, ..connect(Version::V5, client_id) }))
}

pub(crate) fn auth<'a>(reason: ReasonCode, method: &'a str, data: Option<&'a [u8]>) -> Packet<'a> {
    let properties = AuthProperties { method: Some(method), data, ..AuthProperties::default() };
    Packet::Auth(Auth { reason, properties })
}

const CONTINUE: ReasonCode = ReasonCode::ContinueAuthentication;
const AGAIN: ReasonCode = ReasonCode::ReAuthenticate;

/// Expects a CONNACK that accepts, and repeats the method with this data. [MQTT-4.12.0-5]
async fn expect_accepted(peer: &mut Peer<TcpStream>, data: Option<&[u8]>) {
    peer.next(|packet| match packet {
        Packet::ConnAck(ack) => {
            assert_eq!(ack.code, dunlin::codec::ConnAckReturn::V5(ReasonCode::Success));
            assert_eq!(ack.properties.authentication_method, Some("toy"));
            assert_eq!(ack.properties.authentication_data, data);
        }
        other => panic!("{other:?}"),
    })
    .await;
}

#[tokio::test]
async fn a_password_is_judged_by_the_back_end() {
    let server = Toy::new().serve().await;
    let table: [(Option<&str>, &[u8], u8, u8); 4] = [
        (Some("somebody"), b"right", 0, 0),
        (Some("somebody"), b"wrong", 4, 0x86),
        (Some("banned"), b"wrong", 5, 0x8a),
        (None, b"", 5, 0x87),
    ];
    for (user_name, password, v3, v5) in table {
        for (version, code) in BOTH.into_iter().zip([v3, v5]) {
            let mut peer = server.open(version).await;
            let password = user_name.map(|_| password);
            let connect = Connect { user_name, password, ..connect(version, "guest") };
            peer.send(&Packet::Connect(Box::new(connect))).await;
            assert_eq!(peer.conn_ack().await, (false, code), "{user_name:?}");
            if code != 0 {
                peer.expect_end().await;
            }
        }
    }
}

fn by_password(client_id: &str) -> Connect<'_> {
    Connect { user_name: Some("somebody"), password: Some(b"right"), ..connect(Version::V5, client_id) }
}

/// A back end may wait for a network: nobody waits with the client that it is asked about, not even
/// clients of the same shard.
#[tokio::test]
async fn a_back_end_that_takes_long_delays_nobody_else() {
    let toy = Toy::new();
    let server = toy.serve().await;
    let mut slow = Vec::new();
    for _ in 0..8 {
        let mut peer = server.open(Version::V5).await;
        let mut bytes = encoded(&Packet::Connect(Box::new(by_password("slow"))), Version::V5);
        bytes.extend(encoded(&Packet::PingReq, Version::V5));
        peer.send_bytes(&bytes).await;
        slow.push(peer);
    }
    for client_id in crate::ids_on_both_shards("quick") {
        let mut quick = server.open(Version::V5).await;
        quick.connect(&by_password(&client_id)).await;
        quick.ping().await;
    }
    toy.gate.add_permits(1);
    // One of the eight is let in, whichever was asked about first.
    let mut waiting: Vec<_> = slow.iter_mut().map(|peer| Box::pin(peer.conn_ack())).collect();
    let first = std::future::poll_fn(|cx| {
        let ready = waiting.iter_mut().position(|answer| answer.as_mut().poll(cx).is_ready());
        ready.map_or(std::task::Poll::Pending, std::task::Poll::Ready)
    });
    let first = within(first).await;
    drop(waiting);
    slow[first].expect(&Packet::PingResp).await;
    assert!(toy.asked.load(Ordering::Relaxed) > 32);
}

/// No more clients are asked about at a time than there may be handshakes; the others wait their turn.
#[tokio::test]
async fn handshakes_are_limited() {
    const HANDSHAKES_MAX: usize = 3;
    let toy = Toy::new();
    let mut config = config();
    config.limits.handshakes_max = HANDSHAKES_MAX;
    config.limits.connect_timeout = crate::PATIENCE * 2;
    let server = Server::build(Broker::builder().config(config).authenticator(toy.clone())).await;
    let mut witness = server.open(Version::V5).await;
    witness.connect(&by_password("witness")).await;
    let mut slow = Vec::new();
    for _ in 0..4 * HANDSHAKES_MAX {
        let mut peer = server.open(Version::V5).await;
        peer.send(&Packet::Connect(Box::new(by_password("slow")))).await;
        slow.push(peer);
    }
    while toy.waiting.load(Ordering::Relaxed) < HANDSHAKES_MAX {
        witness.ping().await;
    }
    // Time for more, if the limit did not hold.
    for _ in 0..100 {
        witness.ping().await;
    }
    toy.gate.add_permits(slow.len());
    for peer in &mut slow {
        assert_eq!(peer.conn_ack().await, (false, 0));
    }
    assert_eq!(toy.waiting_most.load(Ordering::Relaxed), HANDSHAKES_MAX);
}

/// [MQTT-3.15.2-1] [MQTT-4.12.0-2] [MQTT-4.12.0-5] AUTH to and fro, then CONNACK with what the back end says last.
#[tokio::test]
async fn enhanced_authentication_takes_as_many_rounds_as_it_needs() {
    let server = Toy::new().serve().await;
    for client_id in crate::ids_on_both_shards("toy").take(8) {
        let mut at_once = server.open(Version::V5).await;
        at_once.send(&with_method(&client_id, "toy", Some(b"open"))).await;
        expect_accepted(&mut at_once, Some(b"welcome")).await;
        let mut without_data = server.open(Version::V5).await;
        // Another user: the first client's session is not for it.
        let other_id = format!("{client_id}-meagre");
        without_data.send(&with_method(&other_id, "toy", Some(b"meagre"))).await;
        expect_accepted(&mut without_data, None).await;
        let mut peer = server.open(Version::V5).await;
        peer.send(&with_method(&client_id, "toy", Some(&[3]))).await;
        peer.expect(&auth(CONTINUE, "toy", Some(&[3]))).await;
        peer.send(&auth(CONTINUE, "toy", Some(b"a"))).await;
        peer.expect(&auth(CONTINUE, "toy", Some(&[2]))).await;
        peer.send(&auth(CONTINUE, "toy", Some(b"b"))).await;
        peer.expect(&auth(CONTINUE, "toy", Some(&[1]))).await;
        // What comes behind the last AUTH is for the session.
        let mut bytes = encoded(&auth(CONTINUE, "toy", Some(b"open")), Version::V5);
        bytes.extend(encoded(&Packet::PingReq, Version::V5));
        peer.send_bytes(&bytes).await;
        expect_accepted(&mut peer, Some(b"welcome")).await;
        peer.expect(&Packet::PingResp).await;
    }
}

/// [MQTT-3.1.2-30] Before CONNACK a client may send DISCONNECT: that is not refused, it is the end.
#[tokio::test]
async fn a_client_may_disconnect_while_it_authenticates() {
    let server = Toy::new().serve().await;
    let mut peer = server.open(Version::V5).await;
    peer.send(&with_method("x", "toy", Some(&[1]))).await;
    peer.expect(&auth(CONTINUE, "toy", Some(&[1]))).await;
    peer.send_bytes(&[0xE0, 0]).await;
    peer.expect_end().await;
}

#[tokio::test]
async fn enhanced_authentication_that_fails_is_told_in_connack() {
    let server = Toy::new().serve().await;
    // [MQTT-4.12.0-1]
    let mut unsupported = server.open(Version::V5).await;
    unsupported.send(&with_method("x", "SCRAM-SHA-1", None)).await;
    assert_eq!(unsupported.conn_ack().await, (false, 0x8c));
    unsupported.expect_end().await;
    // [MQTT-4.12.0-4]
    let mut refused = server.open(Version::V5).await;
    refused.send(&with_method("x", "toy", Some(b"let me in"))).await;
    assert_eq!(refused.conn_ack().await, (false, 0x87));
    refused.expect_end().await;
    for (data, code) in [(&b"mistyped"[..], 0x86), (b"confused", 0x87)] {
        let mut peer = server.open(Version::V5).await;
        peer.send(&with_method("x", "toy", Some(data))).await;
        assert_eq!(peer.conn_ack().await, (false, code));
        peer.expect_end().await;
    }
    let answers = [
        auth(CONTINUE, "toy", Some(b"wrong")),
        // [MQTT-4.12.0-3] [MQTT-4.12.0-5] [MQTT-3.1.2-30]
        auth(CONTINUE, "yot", Some(b"open")),
        auth(AGAIN, "toy", Some(b"open")),
        auth(ReasonCode::Success, "toy", Some(b"open")),
        Packet::PingReq,
        publish("t", b"x", Delivery::AtMostOnce),
    ];
    for (index, answer) in answers.iter().enumerate() {
        let mut peer = server.open(Version::V5).await;
        peer.send(&with_method("x", "toy", Some(&[1]))).await;
        peer.expect(&auth(CONTINUE, "toy", Some(&[1]))).await;
        peer.send(answer).await;
        let code = if index == 0 { 0x87 } else { 0x82 };
        assert_eq!(peer.conn_ack().await, (false, code), "{answer:?}");
        peer.expect_end().await;
    }
}

/// [MQTT-4.12.1-1] A client that authenticates anew is from then on whom it has shown itself to be.
#[tokio::test]
async fn a_client_may_authenticate_again() {
    let server = Toy::new().serve().await;
    let mut witness = server.open(Version::V5).await;
    witness.send(&with_method("witness", "toy", Some(b"open"))).await;
    expect_accepted(&mut witness, Some(b"welcome")).await;
    witness.subscribe("#", QoS::AtMostOnce).await;
    let mut peer = server.open(Version::V5).await;
    peer.send(&with_method("changing", "toy", Some(b"meagre"))).await;
    expect_accepted(&mut peer, None).await;
    let secret = publish("secret", b"x", Delivery::AtLeastOnce(id(1)));
    let reason = |packet: &Packet<'_>| match packet {
        Packet::PubAck(ack) => ack.reason,
        other => panic!("{other:?}"),
    };
    peer.send(&secret).await;
    assert_eq!(peer.next(reason).await, ReasonCode::NotAuthorized);
    for round in 0..3 {
        peer.send(&auth(AGAIN, "toy", Some(&[1]))).await;
        peer.expect(&auth(CONTINUE, "toy", Some(&[1]))).await;
        // The old principal holds until the new one is proved.
        if round == 0 {
            peer.send(&secret).await;
            assert_eq!(peer.next(reason).await, ReasonCode::NotAuthorized);
        }
        let mut bytes = encoded(&auth(CONTINUE, "toy", Some(b"open")), Version::V5);
        bytes.extend(encoded(&secret, Version::V5));
        peer.send_bytes(&bytes).await;
        peer.expect(&auth(ReasonCode::Success, "toy", Some(b"welcome"))).await;
        assert_eq!(peer.next(reason).await, ReasonCode::Success);
        witness.expect_message("secret", b"x").await;
    }
}

/// [MQTT-4.12.1-2] Failure ends the connection, and so does AUTH where it has no place.
#[tokio::test]
async fn a_client_that_fails_to_authenticate_again_is_disconnected() {
    let server = Toy::new().serve().await;
    let cases = [
        (vec![auth(AGAIN, "toy", Some(b"wrong"))], ReasonCode::NotAuthorized),
        // [MQTT-3.14.2-1] CONNACK has a code for a bad password, DISCONNECT has not.
        (vec![auth(AGAIN, "toy", Some(b"mistyped"))], ReasonCode::NotAuthorized),
        (vec![auth(AGAIN, "other", Some(b"open"))], ReasonCode::ProtocolError),
        (vec![auth(CONTINUE, "toy", Some(b"open"))], ReasonCode::ProtocolError),
        (vec![auth(ReasonCode::Success, "toy", Some(b"open"))], ReasonCode::ProtocolError),
        (vec![auth(AGAIN, "toy", Some(&[2])), auth(AGAIN, "toy", Some(&[2]))], ReasonCode::ProtocolError),
    ];
    for (packets, reason) in cases {
        let mut peer = server.open(Version::V5).await;
        peer.send(&with_method("x", "toy", Some(b"open"))).await;
        expect_accepted(&mut peer, Some(b"welcome")).await;
        for (index, packet) in packets.iter().enumerate() {
            if index > 0 {
                peer.expect(&auth(CONTINUE, "toy", Some(&[2]))).await;
            }
            peer.send(packet).await;
        }
        peer.expect_disconnect(reason).await;
    }
    // A method was not named in CONNECT, so there is none to go on with.
    let mut peer = server.open(Version::V5).await;
    peer.connect(&by_password("plain")).await;
    peer.send(&auth(AGAIN, "toy", Some(b"open"))).await;
    peer.expect_disconnect(ReasonCode::ProtocolError).await;
    // AUTH without a method is no packet at all.
    let mut peer = server.open(Version::V5).await;
    peer.send(&with_method("x", "toy", Some(b"open"))).await;
    expect_accepted(&mut peer, Some(b"welcome")).await;
    peer.stream.write_all(&[0xf0, 2, 0x19, 0]).await.unwrap();
    peer.expect_disconnect(ReasonCode::ProtocolError).await;
}
