//! What a decision costs, and whether that grows with the rules: `cargo bench --bench acl`.
//!
//! Each shape of rules in three sizes; a decision is asked for in the middle of them, so that half of the rules come
//! before the one that decides. `nothing_matches` is a denial because none does.

use std::hint::black_box;

use divan::{Bencher, counter::ItemsCount};
use dunlin::{
    QoS,
    acl::{Action, Authorize, Decision, Format, Policy, Principal, Rules},
};

fn main() {
    divan::main();
}

const SIZES: [usize; 3] = [10, 1000, 100_000];

/// Decisions of one round.
const ROUND: usize = 64;

const PUBLISH: Action = Action::Publish { qos: QoS::AtLeastOnce, retain: false };

fn policy(rules: usize, rule: impl Fn(usize) -> String) -> Policy {
    let text: String = (0..rules).map(|number| format!("[[rules]]\n{}\n", rule(number))).collect();
    Policy::parse("acl.toml", &text, Format::Toml).expect("the rules are right")
}

fn measure(
    bencher: Bencher<'_, '_>,
    policy: Policy,
    user: &str,
    action: Action,
    topic: &str,
    is_allowed: bool,
) {
    let rules = Rules::new(Some(policy.into()));
    let principal = Principal::named(user);
    let decide = || rules.decide(black_box(&principal), black_box("client-7"), action, black_box(topic));
    assert_eq!(!matches!(decide(), Decision::Denied(_)), is_allowed);
    bencher.counter(ItemsCount::new(ROUND)).bench_local(|| {
        for _ in 0..ROUND {
            black_box(decide());
        }
    });
}

#[divan::bench(args = SIZES)]
fn a_rule_for_each_user(bencher: Bencher<'_, '_>, rules: usize) {
    let policy = policy(rules, |n| {
        format!("allow = ['publish']\nusers = ['u{n}']\ntopics = ['plant/1/sensors/u{n}/#']")
    });
    let half = rules / 2;
    measure(
        bencher,
        policy,
        &format!("u{half}"),
        PUBLISH,
        &format!("plant/1/sensors/u{half}/temperature"),
        true,
    );
}

#[divan::bench(args = SIZES)]
fn all_rules_for_one_user(bencher: Bencher<'_, '_>, rules: usize) {
    let policy = policy(rules, |n| {
        format!("allow = ['all']\nusers = ['ann']\ntopics = ['plant/{n}/+/state', 'plant/{n}/x/#']")
    });
    measure(bencher, policy, "ann", PUBLISH, &format!("plant/{}/line/state", rules / 2), true);
}

#[divan::bench(args = SIZES)]
fn filters_for_everybody(bencher: Bencher<'_, '_>, rules: usize) {
    let policy = policy(rules, |n| {
        format!(
            "deny = ['publish']\ntopics = ['+/{n}/secret/#']\n[[rules]]\nallow = ['all']\ntopics = ['plant/{n}/#']"
        )
    });
    measure(bencher, policy, "ann", PUBLISH, &format!("plant/{}/line/7/state", rules / 2), true);
}

#[divan::bench(args = SIZES)]
fn nothing_matches(bencher: Bencher<'_, '_>, rules: usize) {
    let policy = policy(rules, |n| format!("allow = ['all']\ntopics = ['plant/{n}/+/state', '+/{n}/x/#']"));
    measure(bencher, policy, "ann", PUBLISH, &format!("plant/{}/line/other", rules / 2), false);
}

#[divan::bench(args = SIZES)]
fn placeholders_for_everybody(bencher: Bencher<'_, '_>, rules: usize) {
    let policy = policy(rules, |n| format!("allow = ['all']\ntopics = ['plant/{n}/%u/dev-%c/#']"));
    measure(bencher, policy, "ann", PUBLISH, &format!("plant/{}/ann/dev-client-7/state", rules / 2), true);
}

#[divan::bench(args = SIZES)]
fn rules_for_each_client(bencher: Bencher<'_, '_>, rules: usize) {
    let policy = policy(rules, |n| {
        format!(
            "allow = ['all']\nclients = ['site{n}-*', 'c{n}']\ntopics = ['a/#']\n[[rules]]\nallow = ['all']\nclients = ['client-*']\ntopics = ['b/{n}']"
        )
    });
    measure(bencher, policy, "ann", PUBLISH, &format!("b/{}", rules / 2), true);
}

#[divan::bench(args = SIZES)]
fn a_subscription(bencher: Bencher<'_, '_>, rules: usize) {
    let policy = policy(rules, |n| format!("allow = ['subscribe']\ntopics = ['plant/{n}/#']"));
    let action = Action::Subscribe { qos: QoS::AtLeastOnce };
    measure(bencher, policy, "ann", action, &format!("plant/{}/+/state", rules / 2), true);
}

#[divan::bench(args = SIZES)]
fn a_delivery(bencher: Bencher<'_, '_>, rules: usize) {
    let policy = policy(rules, |n| format!("deny = ['receive']\ntopics = ['plant/{n}/secret/#']"));
    measure(bencher, policy, "ann", Action::Receive, &format!("plant/{}/line/7/state", rules / 2), true);
}
