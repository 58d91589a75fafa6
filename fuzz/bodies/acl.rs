//! Texts with access rules, and what is decided by those that are right.
//!
//! The first byte says the format and how topics begin; then comes the text, in which low bytes stand for what rules
//! are made of. What the index decides is compared with what trying one rule after the other decides.

use std::{collections::BTreeMap, sync::Arc};

use dunlin::{
    QoS,
    acl::{Action, Authorize, Decision, Details, Format, Policy, Principal},
};

/// What bytes below its length stand for.
const WORDS: [&str; 9] = ["/", "+", "#", "%c", "%u", "a", "%{x}", "[[rules]]\n", "topics = "];

/// Topics, filters and client identifiers that are asked about.
const TOPICS: [&str; 14] =
    ["a", "a/b", "a/a", "a/a/b", "b", "", "/", "a/", "$SYS/a", "$a", "dev-a/a", "a/+", "a/#", "#"];
const CLIENT_IDS: [&str; 5] = ["a", "dev-a", "", "a/b", "+"];

/// Checks one input.
pub(crate) fn run(input: &[u8]) {
    let Some((first, rest)) = input.split_first() else { return };
    let text = text(rest);
    let format = match first % 3 {
        0 => Format::Toml,
        1 => Format::Mosquitto,
        _ => {
            claim(&text);
            Format::detect("acl", &text)
        }
    };
    match Policy::parse("acl", &text, format) {
        Ok(policy) => check(&policy),
        Err(errors) => assert!(!errors.problems().is_empty()),
    }
}

/// The same for a token, whose rules are asked with and without others.
fn claim(text: &str) {
    let Ok(value) = serde_json::from_str(text) else { return };
    if let Ok(policy) = Policy::from_claim(&value) {
        check(&policy);
    }
}

fn text(bytes: &[u8]) -> String {
    let bytes = bytes.iter().flat_map(|byte| match WORDS.get(usize::from(*byte)) {
        Some(text) => text.as_bytes(),
        None => std::slice::from_ref(byte),
    });
    String::from_utf8_lossy(&bytes.copied().collect::<Vec<_>>()).into_owned()
}

fn principals() -> [Principal; 3] {
    let attributes: BTreeMap<Box<str>, Box<str>> = [("x".into(), "a".into())].into();
    let details = Details { groups: vec!["a".into()], attributes, ..Details::default() };
    let known = Principal { user: Some("a".into()), details: Some(Arc::new(details)) };
    [Principal::default(), Principal::named("b"), known]
}

fn check(policy: &Policy) {
    let names = |topic: &&&str| !topic.is_empty() && !topic.contains(['+', '#']);
    let publishes = [(QoS::AtMostOnce, true), (QoS::ExactlyOnce, false)];
    for principal in principals() {
        for client_id in CLIENT_IDS {
            let agree = |action, topic| agree(policy, &principal, client_id, action, topic);
            for topic in TOPICS.iter().filter(names) {
                for (qos, retain) in publishes {
                    agree(Action::Publish { qos, retain }, topic);
                }
                agree(Action::Receive, topic);
            }
            for filter in TOPICS.iter().filter(|filter| !filter.is_empty()) {
                agree(Action::Subscribe { qos: QoS::ExactlyOnce }, filter);
            }
        }
    }
    let lints = policy.lints();
    assert!(lints.iter().all(|lint| !lint.message.is_empty()));
}

fn agree(policy: &Policy, principal: &Principal, client_id: &str, action: Action, topic: &str) {
    let decision = policy.decide(principal, client_id, action, topic);
    let slowly = policy.decide_slowly(principal, client_id, action, topic);
    assert_eq!(decision, slowly, "{principal:?} {client_id:?} {action:?} {topic:?}");
    assert_eq!(policy.explain(principal, client_id, action, topic).decision, decision);
    if let Decision::Denied(rule) = decision {
        assert!(!policy.describe(rule).is_empty());
        assert!(action != Action::Receive || policy.limits_receiving(principal, client_id));
    }
}
