//! What holds for any rules: the index finds what trying one after the other finds.

use proptest::prelude::*;
use serde_json::json;

use super::{
    pattern::{Certainty, Dialect, Pattern, Values},
    tests::{PUBLISH, SUBSCRIBE, policy, publish, user, with},
    *,
};

/// Levels of few kinds, so that they meet.
fn filter() -> impl Strategy<Value = String> {
    let level = prop_oneof![
        4 => Just("a"), 3 => Just("b"), 1 => Just(""), 3 => Just("+"), 2 => Just("%c"), 1 => Just("%u"),
        1 => Just("a%c"), 1 => Just("%{x}"), 1 => Just("$x"), 1 => Just("$%c")
    ];
    (prop::collection::vec(level, 1..4), any::<bool>()).prop_map(|(levels, hash)| {
        let text = levels.join("/");
        match hash {
            true if text.is_empty() => "#".into(),
            true => text + "/#",
            false if text.is_empty() => "a".into(),
            false => text,
        }
    })
}

fn topic() -> impl Strategy<Value = String> {
    let level = prop_oneof![Just("a"), Just("b"), Just("aa"), Just(""), Just("$x"), Just("+"), Just("ab")];
    (prop::collection::vec(level, 1..5), 0..4_u8).prop_map(|(levels, hash)| match levels.join("/") {
        text if text.is_empty() => "a".into(),
        text if hash == 0 => text + "/#",
        text => text,
    })
}

fn rule() -> impl Strategy<Value = String> {
    let subjects = prop_oneof![
        3 => Just(""), 2 => Just("users = ['a'], "), 1 => Just("groups = ['g'], "), 1 => Just("anonymous = true, "),
        1 => Just("clients = ['a*', 'b'], "), 1 => Just("clients = ['*a'], "), 1 => Just("users = ['b'], clients = ['a'], "),
        1 => Just("users = ['b'], groups = ['f'], ")
    ];
    let action = prop_oneof![
        Just("deny = ['all'], "),
        Just("deny = ['subscribe'], "),
        Just("deny = ['publish'], qos_max = 1, "),
        Just("allow = ['publish'], retain = false, "),
        Just("allow = ['subscribe'], qos_max = 1, "),
        Just("allow = ['all'], "),
        Just("allow = ['receive'], "),
    ];
    (subjects, action, prop::collection::vec(filter(), 1..3)).prop_map(|(subjects, action, topics)| {
        let topics: Vec<String> = topics.iter().map(|topic| format!("'{topic}'")).collect();
        format!("{{ {subjects}{action}topics = [{}] }},\n", topics.join(", "))
    })
}

fn principals() -> Vec<Principal> {
    let attributes: BTreeMap<Box<str>, Box<str>> = [("x".into(), "a".into())].into();
    let claim = Policy::from_claim(
        &json!([{ "deny": "receive", "topics": "a/%c" }, { "allow": "publish", "topics": "b/#" }]),
    );
    vec![
        user(""),
        user("a"),
        user("b"),
        with("a", Details { groups: vec!["g".into(), "f".into()], attributes, ..Details::default() }),
        with(
            "",
            Details { groups: vec!["g".into()], policy: claim.ok().map(Arc::new), ..Details::default() },
        ),
    ]
}

proptest! {
    #[test]
    fn the_index_finds_what_trying_all_rules_finds(
        rules in prop::collection::vec(rule(), 0..12),
        topics in prop::collection::vec(topic(), 1..12),
        client_id in prop_oneof![Just("a"), Just("b"), Just("aba"), Just(""), Just("+"), Just("a/b"), Just("$x")],
    ) {
        let policy = policy(&format!("groups.f = ['a']\nrules = [\n{}]", rules.concat()));
        for principal in principals() {
            for topic in &topics {
                let is_name = !topic.contains(['+', '#']);
                for action in [SUBSCRIBE, publish(2, true), publish(1, false), Action::Receive] {
                    if !is_name && !matches!(action, Action::Subscribe { .. }) {
                        continue;
                    }
                    let slow = policy.decide_slowly(&principal, client_id, action, topic);
                    prop_assert_eq!(policy.decide(&principal, client_id, action, topic), slow, "{:?} {:?} {}", principal, action, topic);
                    prop_assert_eq!(policy.explain(&principal, client_id, action, topic).decision, slow);
                    if action == Action::Receive && slow != Decision::Allowed {
                        prop_assert!(policy.limits_receiving(&principal, client_id));
                    }
                }
            }
        }
    }

    /// To cover a filter is to match every topic that it matches. A pattern and a filter without values have
    /// nothing else to say, so that names of these few levels are all that need be tried.
    #[test]
    fn a_filter_covers_another_if_it_matches_all_that_the_other_matches(one in filter(), other in filter()) {
        let (one, other) = (one.replace('%', "p"), other.replace('%', "p"));
        let limits = crate::topic::TopicLimits::default();
        let filters = [&one, &other].map(|text| crate::topic::TopicFilter::parse(text, &limits));
        let [Ok(wide), Ok(narrow)] = filters else { return Ok(()) };
        let pattern = Pattern::parse(&one, Dialect::Plain).expect("it is a filter");
        let values = Values { user: None, client_id: "", details: None };
        let levels: Vec<&str> = one.split('/').chain(other.split('/')).chain(["z", "$z"]).filter(|l| *l != "+" && *l != "#").collect();
        let mut names: Vec<String> = levels.iter().map(ToString::to_string).collect();
        let mut last = names.clone();
        for _ in 0..3 {
            last = last.iter().flat_map(|name| levels.iter().map(move |level| format!("{name}/{level}"))).collect();
            names.extend(last.iter().cloned());
        }
        let covers = names.iter().filter(|name| !name.is_empty()).all(|name| !narrow.matches(name) || wide.matches(name));
        prop_assert_eq!(pattern.matches(&other, &values) == Some(Certainty::Known), covers, "{} {}", one, other);
        for name in names.iter().filter(|name| !name.is_empty()).take(200) {
            prop_assert_eq!(pattern.matches(name, &values).is_some(), wide.matches(name), "{} {}", one, name);
        }
    }

    /// What a lint says never decides, does never decide.
    #[test]
    fn a_rule_without_effect_can_be_left_out(
        rules in prop::collection::vec(rule(), 2..8),
        topics in prop::collection::vec(topic(), 1..12),
        client_id in prop_oneof![Just("a"), Just("b"), Just("aba"), Just("a/b")],
    ) {
        let text = |rules: &[String]| format!("groups.f = ['a']\nrules = [\n{}]", rules.concat());
        let whole = policy(&text(&rules));
        let Some(lint) = whole.lints().into_iter().find(|lint| lint.message.starts_with("never")) else { return Ok(()) };
        let line: usize = lint.place.rsplit(':').next().and_then(|line| line.parse().ok()).expect("a place has a line");
        let mut left = rules;
        left.remove(line - 3);
        let left = policy(&text(&left));
        let is_denied = |decision| matches!(decision, Decision::Denied(_));
        for principal in principals() {
            for topic in &topics {
                for action in [SUBSCRIBE, PUBLISH, publish(1, true), publish(2, false), Action::Receive] {
                    let decisions = [&whole, &left].map(|policy| policy.decide(&principal, client_id, action, topic));
                    prop_assert_eq!(is_denied(decisions[0]), is_denied(decisions[1]), "{} {:?} {:?} {}", lint, principal, action, topic);
                }
            }
        }
    }

    #[test]
    fn any_text_is_accepted_or_refused(text in "(topic |user |pattern |read |deny |allow = |\\[\\[rules\\]\\]\n|[a-z%{}+#/*\"'\\[\\]=\n -]){0,40}") {
        for format in [Format::Toml, Format::Mosquitto] {
            if let Ok(policy) = Policy::parse("x", &text, format) {
                let _ = (policy.lints(), policy.explain(&user("a"), "c", PUBLISH, "a/b"));
            }
        }
    }
}
