//! Access rules where they meet sessions: deliveries, live changes, and proofs that end.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use dunlin::{
    acl::{Action, Authorize, Decision, Details, Principal, RuleId},
    broker::{Cause, DropReason, Event},
    codec::{QoS, ReasonCode, Version},
};

use crate::world::{Got, Setup, WillSetup, World, all};

const ALL_QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

/// What may not be done, as pairs of a word and a topic; rules are numbered as they stand here.
#[derive(Default)]
struct Forbidden(Mutex<Vec<(&'static str, &'static str)>>);

impl Forbidden {
    fn set(&self, rules: &[(&'static str, &'static str)]) {
        *self.0.lock().expect("no test panics with it") = rules.to_vec();
    }
}

/// The same, as the broker asks them.
struct Rules(Arc<Forbidden>);

impl Authorize for Rules {
    fn decide(&self, _: &Principal, _: &str, action: Action, topic: &str) -> Decision {
        let word = match action {
            Action::Publish { .. } => "publish",
            Action::Subscribe { .. } => "subscribe",
            Action::Receive => "receive",
        };
        let rules = self.0.0.lock().expect("no test panics with it");
        let rule = rules.iter().position(|rule| *rule == (word, topic));
        let lowered = rules.contains(&("lower", topic)).then_some(Decision::AllowedUpTo(QoS::AtMostOnce));
        rule.map_or(lowered.unwrap_or(Decision::Allowed), |rule| Decision::Denied(RuleId(rule as u32)))
    }

    fn limits_receiving(&self, _: &Principal, _: &str) -> bool {
        self.0.0.lock().expect("no test panics with it").iter().any(|(word, _)| *word == "receive")
    }
}

fn world_with(rules: &[(&'static str, &'static str)]) -> (World, Arc<Forbidden>) {
    let forbidden = Arc::new(Forbidden::default());
    forbidden.set(rules);
    let world = World::with(2, |shared| shared.authorize = Arc::new(Rules(forbidden.clone())));
    (world, forbidden)
}

fn denials(world: &World) -> Vec<(String, u32)> {
    let denied = world.events().into_iter().filter_map(|event| match event {
        Event::Denied { topic, rule, .. } => Some((topic.to_string(), rule.0)),
        _ => None,
    });
    denied.collect()
}

#[test]
fn what_a_client_may_not_receive_is_dropped_counted_and_told_once() {
    all(|version| {
        for qos in ALL_QOS {
            let (world, _) = world_with(&[("receive", "a/secret")]);
            let subscriber = world.connect(Setup::new(version, "s"));
            subscriber.subscribe("a/#", qos);
            let publisher = world.connect(Setup::new(version, "p"));
            for payload in ["1", "2"] {
                publisher.publish("a/secret", payload, qos);
                publisher.publish("a/open", payload, qos);
            }
            assert_eq!(subscriber.recv_payloads(), ["1", "2"]);
            assert_eq!(world.drops(DropReason::MayNotReceive), 2);
            assert_eq!(denials(&world), [("a/secret".into(), 0)]);
            world.assert_accounting();
        }
    });
}

#[test]
fn a_retained_message_that_a_client_may_not_receive_stays_away() {
    all(|version| {
        let (world, _) = world_with(&[("receive", "a/secret")]);
        let publisher = world.connect(Setup::new(version, "p"));
        publisher.retain("a/secret", "x", QoS::AtLeastOnce);
        publisher.retain("a/open", "y", QoS::AtLeastOnce);
        let subscriber = world.connect(Setup::new(version, "s"));
        subscriber.subscribe("a/#", QoS::AtLeastOnce);
        assert_eq!(subscriber.recv_payloads(), ["y"]);
        world.assert_accounting();
    });
}

#[test]
fn a_new_rule_holds_for_what_waits_in_a_queue() {
    all(|version| {
        let (world, forbidden) = world_with(&[]);
        let subscriber = world.connect(Setup::durable(version, "s"));
        subscriber.subscribe("a/#", QoS::ExactlyOnce);
        subscriber.disconnect_with(ReasonCode::Success, None);
        let publisher = world.connect(Setup::new(version, "p"));
        publisher.publish("a/secret", "x", QoS::ExactlyOnce);
        publisher.publish("a/open", "y", QoS::ExactlyOnce);
        forbidden.set(&[("receive", "a/secret")]);
        world.step(|shard, now, out| shard.rules_changed(now, out));
        let subscriber = world.connect(Setup::durable(version, "s").resuming());
        assert_eq!(subscriber.recv_payloads(), ["y"]);
        world.assert_accounting();
    });
}

#[test]
fn a_subscription_that_is_not_allowed_any_more_ends_and_does_not_come_back() {
    all(|version| {
        let (world, forbidden) = world_with(&[]);
        let subscriber = world.connect(Setup::durable(version, "s"));
        subscriber.subscribe("a", QoS::AtLeastOnce);
        subscriber.subscribe("b", QoS::AtLeastOnce);
        subscriber.subscribe("c", QoS::AtLeastOnce);
        forbidden.set(&[("subscribe", "a"), ("lower", "c")]);
        world.step(|shard, now, out| shard.rules_changed(now, out));
        assert_eq!(denials(&world), [("a".into(), 0)]);
        world.crash(Duration::ZERO);
        forbidden.set(&[]);
        let subscriber = world.connect(Setup::durable(version, "s").resuming());
        let publisher = world.connect(Setup::new(version, "p"));
        for topic in ["a", "b", "c"] {
            publisher.publish(topic, topic, QoS::AtLeastOnce);
        }
        let messages = subscriber.recv_messages();
        let got: Vec<_> =
            messages.iter().map(|message| (message.topic.as_str(), message.id.is_some())).collect();
        assert_eq!(got, [("b", true), ("c", false)], "c was lowered to QoS 0");
        world.assert_accounting();
    });
}

#[test]
fn a_resumed_session_keeps_no_subscription_that_its_client_may_not_have_now() {
    all(|version| {
        let (world, forbidden) = world_with(&[]);
        let subscriber = world.connect(Setup::durable(version, "s"));
        subscriber.subscribe("a", QoS::AtLeastOnce);
        subscriber.disconnect_with(ReasonCode::Success, None);
        forbidden.set(&[("subscribe", "a")]);
        let subscriber = world.connect(Setup::durable(version, "s").resuming());
        let publisher = world.connect(Setup::new(version, "p"));
        publisher.publish("a", "x", QoS::AtLeastOnce);
        subscriber.expect_nothing();
        world.assert_accounting();
    });
}

#[test]
fn a_will_that_is_not_allowed_any_more_is_not_published() {
    all(|version| {
        let (world, forbidden) = world_with(&[]);
        let watcher = world.connect(Setup::new(version, "w"));
        watcher.subscribe("will", QoS::AtLeastOnce);
        let client = world.connect(Setup::new(version, "c").will(WillSetup::new("will", "gone")));
        forbidden.set(&[("publish", "will")]);
        world.step(|shard, now, out| shard.rules_changed(now, out));
        client.drop_link();
        watcher.expect_nothing();
        world.assert_accounting();
    });
}

#[test]
fn a_connection_ends_with_the_proof_of_who_the_client_is() {
    let (world, _) = world_with(&[]);
    let client = world.connect(Setup::new(Version::V5, "c"));
    let ends_in = |secs: u64| {
        world.step(move |shard, now, out| {
            let expires_at_secs = Some(now.as_millis() / 1000 + secs);
            let details = Details { expires_at_secs, ..Details::default() };
            let principal = Principal { user: Some("u".into()), details: Some(Arc::new(details)) };
            if let Some(id) = shard.link_of_client("c") {
                shard.set_principal(now, id, principal, out);
            }
        });
    };
    ends_in(30);
    // Authenticated anew: the first proof counts no more.
    ends_in(300);
    world.advance_secs(100);
    assert!(!client.is_closed());
    world.advance_secs(201);
    client.expect_closed(ReasonCode::MaximumConnectTime);
    let is_told = |event: &Event| matches!(event, Event::Disconnected { cause: Cause::ProofEnded, .. });
    assert!(world.events().iter().any(is_told));
}

fn of(user: Option<&'static str>, setup: Setup) -> Setup {
    Setup { user, ..setup }
}

#[test]
fn a_session_is_for_the_user_alone_who_had_it_first() {
    all(|version| {
        let world = World::with(2, |_| ());
        let durable = |user| of(user, Setup::durable(version, "shared").resuming());
        let refused = |user| {
            for setup in [durable(user), of(user, Setup::new(version, "shared"))] {
                let code = if version.is_v5() { ReasonCode::NotAuthorized as u8 } else { 5 };
                match world.send_connect(setup).recv() {
                    Some(Got::ConnAck { session_present: false, code: found, .. }) if found == code => {}
                    other => panic!("{version:?} {user:?}: {other:?}"),
                }
            }
        };
        let ann = world.connect(durable(Some("ann")));
        ann.subscribe("for/ann", QoS::AtLeastOnce);
        refused(Some("bob"));
        refused(None);
        ann.expect_nothing();
        ann.drop_link();
        world.crash(Duration::ZERO);
        let publisher = world.connect(Setup::new(version, "publisher"));
        publisher.publish("for/ann", "x", QoS::AtLeastOnce);
        refused(Some("bob"));
        let ann = world.connect(durable(Some("ann")));
        ann.expect_publish("for/ann", "x");
        // It ends with its owner, and is anybody's then.
        ann.drop_link();
        let ann = world.connect(of(Some("ann"), Setup::new(version, "shared")));
        ann.disconnect();
        world.connect(of(Some("bob"), Setup::new(version, "shared")));
    });
}

#[test]
fn a_session_of_nobody_is_for_anybody_and_then_for_them() {
    let world = World::with(1, |_| ());
    let durable = |user| of(user, Setup::durable(Version::V5, "shared").resuming());
    world.connect(durable(None)).drop_link();
    assert!(world.connect_and(durable(Some("ann"))).1);
    assert!(matches!(world.send_connect(durable(None)).recv(), Some(Got::ConnAck { code: 0x87, .. })));
}

#[test]
fn sessions_are_for_anybody_where_they_are_not_bound() {
    let world = World::with(1, |shared| shared.bind_sessions = false);
    let durable = |user| of(user, Setup::durable(Version::V5, "shared").resuming());
    world.connect(durable(Some("ann"))).drop_link();
    assert!(world.connect_and(durable(Some("bob"))).1);
}

#[test]
fn who_becomes_somebody_else_keeps_the_connection_and_not_the_session() {
    let world = World::with(1, |_| ());
    let durable = |user| of(user, Setup::durable(Version::V5, "shared").resuming());
    let client = world.connect(durable(Some("ann")));
    client.become_user("bob");
    client.ping();
    assert_eq!(client.recv(), Some(Got::PingResp));
    client.drop_link();
    assert!(matches!(world.send_connect(durable(Some("bob"))).recv(), Some(Got::ConnAck { code: 0x87, .. })));
    assert!(world.connect_and(durable(Some("ann"))).1);
}
