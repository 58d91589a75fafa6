//! What rules mean.

use serde_json::json;

use super::*;

pub(super) const PUBLISH: Action = Action::Publish { qos: QoS::AtMostOnce, retain: false };
pub(super) const SUBSCRIBE: Action = Action::Subscribe { qos: QoS::ExactlyOnce };

pub(super) fn policy(text: &str) -> Policy {
    Policy::parse("acl.toml", text, Format::Toml).unwrap_or_else(|errors| panic!("{errors}"))
}

fn mosquitto(text: &str) -> Policy {
    Policy::parse("acl", text, Format::Mosquitto).unwrap_or_else(|errors| panic!("{errors}"))
}

fn problems(text: &str) -> Vec<String> {
    Policy::parse("acl.toml", text, Format::Toml).expect_err("it is refused").problems().to_vec()
}

/// A user by name, or nobody for an empty one.
pub(super) fn user(name: &str) -> Principal {
    if name.is_empty() { Principal::default() } else { Principal::named(name) }
}

pub(super) fn with(name: &str, details: Details) -> Principal {
    Principal { details: Some(Arc::new(details)), ..user(name) }
}

pub(super) fn publish(qos: u8, retain: bool) -> Action {
    Action::Publish { qos: QoS::from_u8(qos).expect("0 to 2"), retain }
}

fn allows(
    policy: &dyn Authorize,
    principal: &Principal,
    client_id: &str,
    action: Action,
    topic: &str,
) -> bool {
    !matches!(policy.decide(principal, client_id, action, topic), Decision::Denied(_))
}

#[test]
fn the_first_rule_that_matches_decides_and_the_rest_is_denied() {
    let policy = policy(
        r##"
        [[rules]]
        deny = ["publish"]
        topics = ["a/b"]

        [roles.writer]
        users = ["ann"]
        rules = [{ allow = ["publish"], topics = ["a/#"] }]

        [[rules]]
        allow = ["all"]
        users = ["bob"]
        topics = ["#"]
        "##,
    );
    let table = [
        ("ann", "a/b", false, "acl.toml:2: deny publish to \"a/b\" for everybody"),
        ("ann", "a/c", true, ""),
        ("bob", "a/b", false, "acl.toml:2: deny publish to \"a/b\" for everybody"),
        ("bob", "x", true, ""),
        ("eve", "a/c", false, "no rule allows it"),
        ("", "a/c", false, "no rule allows it"),
    ];
    for (name, topic, is_allowed, why) in table {
        match policy.decide(&user(name), "c", PUBLISH, topic) {
            Decision::Denied(rule) => {
                assert_eq!((is_allowed, &*policy.describe(rule)), (false, why), "{name} {topic}")
            }
            Decision::Allowed => assert!(is_allowed, "{name} {topic}"),
            Decision::AllowedUpTo(_) => panic!("a publish has no grant"),
        }
    }
}

#[test]
fn a_rule_is_for_users_groups_or_anonymous_clients_and_clients_narrow_it() {
    let policy = policy(
        r##"
        groups.ops = ["ann"]
        rules = [
            { allow = "publish", topics = "users", users = ["ann", "bob"] },
            { allow = "publish", topics = "group", groups = "ops" },
            { allow = "publish", topics = "anonymous", anonymous = true },
            { allow = "publish", topics = "either", users = "bob", groups = "ops" },
            { allow = "publish", topics = "clients", clients = ["dev-*", "one"] },
            { allow = "publish", topics = "narrowed", users = "ann", clients = "dev-*-x" },
            { allow = "publish", topics = "everybody" },
        ]
        roles.r = { groups = "ops", clients = "dev-*", rules = [{ allow = "publish", topics = "role" }] }
        "##,
    );
    let member = with("eve", Details { groups: vec!["ops".into()], ..Details::default() });
    let table = [
        (user("ann"), "c", "users group either everybody"),
        (user("ann"), "dev-1", "users group either clients role everybody"),
        (user("ann"), "dev-1-x", "users group either clients narrowed role everybody"),
        (user("bob"), "dev-x", "users either clients everybody"),
        (user(""), "one", "anonymous clients everybody"),
        (user("eve"), "dev", "everybody"),
        (member, "dev-", "group either clients role everybody"),
    ];
    for (principal, client_id, allowed) in table {
        for topic in ["users", "group", "anonymous", "either", "clients", "narrowed", "role", "everybody"] {
            let is_allowed = allowed.split(' ').any(|word| word == topic);
            assert_eq!(
                allows(&policy, &principal, client_id, PUBLISH, topic),
                is_allowed,
                "{principal:?} {client_id} {topic}"
            );
        }
    }
}

#[test]
fn limits_decide_which_publishes_a_rule_is_about() {
    let policy = policy(
        r##"
        rules = [
            { deny = "publish", topics = "#", retain = true },
            { allow = "publish", topics = "low", qos_max = 1 },
            { deny = "publish", topics = "high", qos_max = 1 },
            { allow = "publish", topics = "high" },
        ]
        "##,
    );
    let table = [
        ("low", 0, false, true),
        ("low", 1, false, true),
        ("low", 2, false, false),
        ("low", 0, true, false),
        ("high", 1, false, false),
        ("high", 2, false, true),
    ];
    for (topic, qos, retain, is_allowed) in table {
        assert_eq!(
            allows(&policy, &user(""), "c", publish(qos, retain), topic),
            is_allowed,
            "{topic} {qos} {retain}"
        );
    }
}

#[test]
fn a_subscription_is_allowed_if_a_filter_covers_it_up_to_the_qos_of_the_rule() {
    let policy = policy(
        r##"
        rules = [
            { deny = "subscribe", topics = "a/secret/#" },
            { allow = "subscribe", topics = "a/#", qos_max = 1 },
            { allow = "subscribe", topics = ["b/+/c", "$SYS/#"] },
        ]
        "##,
    );
    let table = [
        ("a/#", Some(1)),
        ("a", Some(1)),
        ("a/+/x", Some(1)),
        ("a/secret/x", None),
        ("a/secret/#", None),
        ("a/+/#", Some(1)),
        ("+/x", None),
        ("#", None),
        ("b/+/c", Some(2)),
        ("b/x/c", Some(2)),
        ("b/#", None),
        ("b/+/+", None),
        ("$SYS/#", Some(2)),
    ];
    for (filter, granted) in table {
        let decision = match policy.decide(&user(""), "c", SUBSCRIBE, filter) {
            Decision::Allowed => Some(2),
            Decision::AllowedUpTo(qos) => Some(qos as u8),
            Decision::Denied(_) => None,
        };
        assert_eq!(decision, granted, "{filter}");
    }
    let low = Action::Subscribe { qos: QoS::AtMostOnce };
    assert_eq!(policy.decide(&user(""), "c", low, "a/#"), Decision::Allowed);
}

#[test]
fn what_may_not_be_subscribed_to_is_not_received_through_a_wider_filter() {
    let policy = policy(
        r##"
        rules = [
            { deny = "subscribe", topics = "secret/#", anonymous = true },
            { deny = "receive", topics = "quiet" },
            { allow = "all", topics = "#" },
        ]
        "##,
    );
    let anonymous = user("");
    assert!(allows(&policy, &anonymous, "c", SUBSCRIBE, "#"));
    assert!(!allows(&policy, &anonymous, "c", SUBSCRIBE, "secret/#"));
    for (topic, is_received) in
        [("secret", false), ("secret/x", false), ("quiet", false), ("x", true), ("$SYS/x", true)]
    {
        assert_eq!(allows(&policy, &anonymous, "c", Action::Receive, topic), is_received, "{topic}");
    }
    assert!(allows(&policy, &user("ann"), "c", Action::Receive, "secret/x"));
    assert!(allows(&policy, &anonymous, "c", SUBSCRIBE, "quiet"));
    assert!(allows(&policy, &anonymous, "c", PUBLISH, "secret/x"));
}

#[test]
fn deliveries_are_asked_about_only_where_a_rule_may_deny_them() {
    let policy = policy(
        r##"
        rules = [
            { deny = "publish", topics = "#", users = "ann" },
            { deny = "subscribe", topics = "x", users = "bob" },
            { deny = "all", topics = "x", clients = "dev-*" },
            { allow = "all", topics = "#" },
        ]
        "##,
    );
    let denying = with("ann", Details { policy: Some(Arc::new(claim())), ..Details::default() });
    assert!(!policy.limits_receiving(&user("ann"), "c"));
    assert!(policy.limits_receiving(&user("bob"), "c"));
    assert!(policy.limits_receiving(&user("ann"), "dev-1"));
    assert!(policy.limits_receiving(&denying, "c"));
    assert!(Open.limits_receiving(&denying, "c") && !Open.limits_receiving(&user("ann"), "c"));
}

/// [MQTT-4.7.2-1]
#[test]
fn wildcards_and_placeholders_do_not_reach_what_is_reserved() {
    let policy = policy(r##"rules = [{ allow = "all", topics = ["#", "+/x", "%c/x", "%c/#"] }]"##);
    for client_id in ["c", "$SYS", "$x"] {
        for action in [PUBLISH, SUBSCRIBE] {
            assert!(!allows(&policy, &user(""), client_id, action, "$SYS/x"), "{client_id} {action:?}");
            assert!(!allows(&policy, &user(""), client_id, action, "$x/x"), "{client_id} {action:?}");
        }
    }
    assert!(allows(&policy, &user(""), "c", SUBSCRIBE, "c/$x"));
    // A denial that stands for `+` stands for no more than that.
    let denying =
        self::policy(r##"rules = [{ deny = "all", topics = "a%c" }, { allow = "all", topics = "$x" }]"##);
    assert!(allows(&denying, &user(""), "c/d", SUBSCRIBE, "$x"));
}

#[test]
fn nobody_publishes_what_is_the_brokers_own_whatever_rules_say() {
    let policy = policy(r##"rules = [{ allow = "all", topics = ["#", "$SYS/#"] }]"##);
    for topic in ["$SYS", "$SYS/x", "$share/g/x"] {
        assert!(!allows(&policy, &user("ann"), "c", PUBLISH, topic), "{topic}");
        assert!(!allows(&Open, &user("ann"), "c", PUBLISH, topic), "{topic}");
    }
    assert!(
        allows(&policy, &user("ann"), "c", SUBSCRIBE, "$SYS/#")
            && allows(&Open, &user(""), "c", SUBSCRIBE, "$SYS/#")
    );
}

#[test]
fn placeholders_stand_for_values_of_the_client() {
    let policy = policy(
        r##"rules = [{ allow = "all", topics = ["u/%u", "c/dev-%c-x/#", "%{jwt:tenant}/%u.%c", "100%%/+"] }]"##,
    );
    let attributes = [("jwt:tenant".into(), "acme".into())].into();
    let ann = with("ann", Details { attributes, ..Details::default() });
    let table = [
        ("u/ann", true),
        ("u/bob", false),
        ("u/+", false),
        ("c/dev-c1-x", true),
        ("c/dev-c1-x/#", true),
        ("c/dev-c1-y", false),
        ("c/dev--x", false),
        ("acme/ann.c1", true),
        ("acme/ann.c2", false),
        ("100%/+", true),
        ("100%%/x", false),
    ];
    for (topic, is_allowed) in table {
        assert_eq!(allows(&policy, &ann, "c1", SUBSCRIBE, topic), is_allowed, "{topic}");
    }
    assert!(!allows(&policy, &user("ann"), "c1", SUBSCRIBE, "acme/ann.c1"), "no tenant is known");
}

/// A client cannot get out of a denial, nor into what is allowed, by what it calls itself.
#[test]
fn a_value_that_is_no_part_of_a_topic_allows_nothing_and_denies_all() {
    let allowing = policy(r##"rules = [{ allow = "all", topics = ["a/%c/x", "b/%c"] }]"##);
    let denying = policy(
        r##"rules = [{ deny = "all", topics = ["a/%c/x", "b/-%{no}"] }, { allow = "all", topics = "#" }]"##,
    );
    for client_id in ["", "+", "#", "c/x", "c+", "x#y", "c\0"] {
        for topic in ["a//x", "a/c/x", "a/+/x", "b/c/x", "b/"] {
            assert!(!allows(&allowing, &user(""), client_id, SUBSCRIBE, topic), "{client_id:?} {topic}");
        }
        for (topic, is_allowed) in
            [("a/c/x", false), ("a/+/x", false), ("a/c/y", true), ("b/q", false), ("a/#", true)]
        {
            assert_eq!(
                allows(&denying, &user(""), client_id, SUBSCRIBE, topic),
                is_allowed,
                "{client_id:?} {topic}"
            );
        }
    }
    assert!(
        allows(&denying, &user(""), "d", PUBLISH, "a/c/x")
            && !allows(&denying, &user(""), "c", PUBLISH, "a/c/x")
    );
}

fn claim() -> Policy {
    let rules = json!([
        { "deny": ["all"], "topics": ["own/%c/closed"] },
        { "allow": "all", "topics": ["own/%c/#"] }
    ]);
    Policy::from_claim(&rules).unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn rules_that_a_client_brings_decide_before_those_of_the_broker() {
    let file =
        policy(r##"rules = [{ deny = "all", topics = "own/#" }, { allow = "all", topics = "free/#" }]"##);
    let ann = with("ann", Details { policy: Some(Arc::new(claim())), ..Details::default() });
    let rules = Rules::new(Some(file.into()));
    let denied = |policy: &dyn Authorize, topic: &str| match policy.decide(&ann, "c", PUBLISH, topic) {
        Decision::Denied(rule) => policy.describe(rule),
        Decision::Allowed | Decision::AllowedUpTo(_) => "-".into(),
    };
    assert_eq!(denied(&rules, "own/c/x"), "-");
    assert_eq!(denied(&rules, "own/c/closed"), "rule 1 of the client's token");
    assert_eq!(
        denied(&rules, "own/d"),
        "acl.toml:1: deny publish to, subscribe to, receive \"own/#\" for everybody"
    );
    assert_eq!(denied(&rules, "free/x"), "-");
    // Without rules of the broker they are all there is.
    assert_eq!(denied(&Open, "own/c/x"), "-");
    assert_eq!(denied(&Open, "own/c/closed"), "rule 1 of the client's token");
    assert_eq!(denied(&Open, "free/x"), "no rule allows it");
    rules.replace(Some(policy("").into()));
    assert_eq!(denied(&rules, "free/x"), "no rule allows it");
}

#[test]
fn a_claim_is_a_list_of_rules_without_subjects() {
    let table = [
        (
            json!({}),
            "claim `acl`: is not a list of rules such as {\"allow\": [\"publish\"], \"topics\": [\"a/#\"]}",
        ),
        (
            json!([{ "allow": ["publish"], "topics": ["a"] }, { "allow": ["publish"] }]),
            "claim `acl`: rule 2: a rule without `topics`",
        ),
        (
            json!([{ "allow": ["publish"], "topics": ["a"], "users": ["x"] }]),
            "claim `acl`: rule 1: `users` does not belong here: it is known whom this rule is about",
        ),
        (json!([5]), "claim `acl`: rule 1: a rule is a number, not a table"),
    ];
    for (claim, message) in table {
        assert_eq!(Policy::from_claim(&claim).expect_err("it is refused").to_string(), message);
    }
    let long = json!(vec![json!({ "allow": "all", "topics": "a" }); 257]);
    assert!(Policy::from_claim(&long).is_err());
    assert_eq!(claim(), claim());
    assert_ne!(claim(), Policy::from_claim(&json!([])).expect("it is a list"));
}

#[test]
fn all_that_is_wrong_with_a_file_is_told_with_its_place() {
    let text = r##"
rule = []
[groups]
ops = "ann*"
[roles.empty]
users = ["x"]
[[rules]]
allow = ["publsh"]
topics = ["a/#/b", "$share/g/x", "%x"]
[[rules]]
topics = ["a"]
[[rules]]
allow = ["publish"]
deny = ["publish"]
topics = []
users = []
anonymous = false
[[rules]]
deny = ["all"]
topics = ["a"]
qos_max = 3
retain = true
"##;
    insta::assert_snapshot!(problems(text).join("\n"), @r##"
    acl.toml:2:1: unknown key `rule` (allowed: groups, roles, rules)
    acl.toml:4:7: "ann*" is taken as it is: users and groups have no patterns; use a group
    acl.toml:5:8: role "empty" has no `rules`
    acl.toml:8:10: "publsh" is no action; there are publish, subscribe, receive and all
    acl.toml:9:11: in topic filter "a/#/b" the '#' at byte 2 is not the last character
    acl.toml:9:20: "$share/g/x" is shared; write what follows `$share/name/`, as rules are asked about that
    acl.toml:9:34: "%x": a `%` is followed by neither u, c, {name} nor %; write `%%` for a percent sign
    acl.toml:10:1: a rule has `allow` or `deny`, a list of actions; this one has neither
    acl.toml:12:1: a rule has `allow` or `deny`; this one has both: write two rules
    acl.toml:15:10: `topics` is an empty list, which could mean all or nothing: leave the key or the rule out
    acl.toml:16:9: `users` is an empty list, which could mean all or nothing: leave the key or the rule out
    acl.toml:17:13: `anonymous` is true, or is left out
    acl.toml:21:11: `qos_max` is 0, 1 or 2
    acl.toml:22:1: a denial with limits is for publishing alone: write deny = ["publish"], and another rule
    "##);
    let syntax = problems("rules = [{ allow = \"publish\" }\n");
    assert!(syntax[0].starts_with("acl.toml:1:"), "{syntax:?}");
}

/// Publishing and subscribing as mosquitto 2.0.11 decides with this file, receiving as its manual says.
#[test]
fn a_file_of_mosquitto_means_what_it_means_there() {
    let policy = mosquitto(
        "# comment\n\
         topic read pub/#\n\
         topic deny pub/secret\n\
         \n\
         user ann\n\
         topic readwrite a/#\n\
         topic deny a/secret/#\n\
         topic write w/x\n\
         topic 100%c\n\
         pattern read pat/%c/x\n\
         pattern readwrite own/%u/#\n\
         pattern deny own/%u/no\n",
    );
    for name in ["ann", "", "bob"] {
        for filter in ["a/#", "#", "a/secret/#", "nowhere", "$SYS/broker/version", "own/ann/no", "pub/secret"]
        {
            assert!(allows(&policy, &user(name), "c1", SUBSCRIBE, filter), "{name} subscribes to {filter}");
        }
        assert!(policy.limits_receiving(&user(name), "c1"));
    }
    // Who publishes, who receives.
    let table = [
        ("a/x", "ann", "ann"),
        ("a/secret/x", "", ""),
        ("w/x", "ann", ""),
        ("100%c", "ann", "ann"),
        ("pub/a", "", "anonymous"),
        ("pub/secret", "", ""),
        ("own/ann/yes", "ann", "ann"),
        ("own/ann/no", "", ""),
        ("pat/c2/x", "", "ann anonymous bob"),
        ("pat/c1/x", "", ""),
        ("$SYS/broker/version", "", ""),
        ("nowhere", "", ""),
    ];
    for (topic, publishers, receivers) in table {
        for (name, word) in [("ann", "ann"), ("", "anonymous"), ("bob", "bob")] {
            let has = |words: &str| words.split(' ').any(|known| known == word);
            assert_eq!(
                allows(&policy, &user(name), "c2", PUBLISH, topic),
                has(publishers),
                "{word} publishes {topic}"
            );
            assert_eq!(
                allows(&policy, &user(name), "c2", Action::Receive, topic),
                has(receivers),
                "{word} receives {topic}"
            );
        }
    }
}

#[test]
fn a_bad_file_of_mosquitto_is_refused_with_its_lines() {
    let text = "topic\ntopics read a\ntopic reed a\nuser \npattern deny a/#/b\ntopic read a b\n";
    let errors = Policy::parse("acl", text, Format::Mosquitto).expect_err("it is refused");
    insta::assert_snapshot!(errors.to_string(), @r##"
    acl:1: a topic is missing
    acl:2: "topics" begins no rule; lines begin with topic, user or pattern
    acl:3: "reed" is no access; there are read, write, readwrite and deny
    acl:4: `user` without a name
    acl:5: in topic filter "a/#/b" the '#' at byte 2 is not the last character
    "##);
}

#[test]
fn the_format_is_told_by_the_name_or_the_first_line() {
    let table = [
        ("a.toml", "user ann\n", Format::Toml),
        ("a", "# x\n\nuser ann\n", Format::Mosquitto),
        ("a.acl", "  topic\tread a\n", Format::Mosquitto),
        ("a", "pattern a/%c\n", Format::Mosquitto),
        ("a", "[[rules]]\n", Format::Toml),
        ("a", "topic = 1\n", Format::Toml),
        ("a", "", Format::Toml),
    ];
    for (name, text, format) in table {
        assert_eq!(Format::detect(name, text), format, "{name} {text:?}");
    }
}

#[test]
fn an_explanation_names_the_rule_or_those_that_came_near() {
    let policy = policy(
        r##"
        [roles.sensor]
        groups = ["sensors"]
        rules = [{ allow = ["publish"], topics = ["sensors/%c/#"], qos_max = 1 }]
        [[rules]]
        allow = ["subscribe"]
        topics = ["sensors/#"]
        "##,
    );
    let sensor = with("s", Details { groups: vec!["sensors".into()], ..Details::default() });
    let cases = [
        policy.explain(&sensor, "c1", publish(1, false), "sensors/c1/x"),
        policy.explain(&sensor, "c1", publish(2, false), "sensors/c1/x"),
        policy.explain(&sensor, "c/1", publish(1, false), "sensors/c1/x"),
        policy.explain(&user("ann"), "c1", publish(1, false), "sensors/c1/x"),
        policy.explain(&sensor, "c1", SUBSCRIBE, "#"),
        policy.explain(&sensor, "c1", Action::Receive, "x"),
        policy.explain(&sensor, "c1", publish(0, false), "$SYS/x"),
    ];
    let told: Vec<String> = cases.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(told.join("\n\n"), @r##"
    allowed: acl.toml:4: allow publish to "sensors/%c/#" up to QoS 1 for role sensor

    denied: no rule allows it
      not by acl.toml:4: allow publish to "sensors/%c/#" up to QoS 1 for role sensor
        as it is for a lower QoS, or another RETAIN
      not by acl.toml:5: allow subscribe to "sensors/#" for everybody
        as it is not about publishing

    denied: no rule allows it
      not by acl.toml:4: allow publish to "sensors/%c/#" up to QoS 1 for role sensor
        as %c has no value for this client that can be a part of a topic
      not by acl.toml:5: allow subscribe to "sensors/#" for everybody
        as it is not about publishing

    denied: no rule allows it
      not by acl.toml:5: allow subscribe to "sensors/#" for everybody
        as it is not about publishing
      not by acl.toml:4: allow publish to "sensors/%c/#" up to QoS 1 for role sensor
        as user ann with the client identifier "c1" is not meant

    denied: no rule allows it
      not by acl.toml:5: allow subscribe to "sensors/#" for everybody
        as it does not cover "#"

    allowed: no rule speaks of it: what was subscribed to is received

    denied: nobody publishes to $SYS/… and $share/…, whatever rules say
    "##);
}

#[test]
fn rules_that_never_decide_and_roles_of_nobody_are_found() {
    let policy = policy(
        r##"
        groups.ops = ["ann"]
        roles.lonely = { rules = [{ allow = "all", topics = "a" }] }
        rules = [
            { allow = "all", topics = "a/#", groups = "ops" },
            { deny = "publish", topics = "a/b", users = "ann" },
            { deny = "publish", topics = "a/%c", users = "ann" },
            { deny = "publish", topics = "a/b", users = "bob" },
            { allow = "publish", topics = "q/+", qos_max = 1, clients = "d*" },
            { allow = "publish", topics = "q/%c", qos_max = 1, clients = "d1*" },
            { allow = "publish", topics = "q/x", clients = "d1" },
            { allow = "publish", topics = "$SYS/#" },
            { allow = "publish", topics = "z", groups = "osp" },
        ]
        "##,
    );
    let told: Vec<String> = policy.lints().iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(told.join("\n"), @r##"
    acl.toml:3: role lonely is given to nobody: it needs `users`, `groups`, `clients` or `anonymous`
    acl.toml:6: never decides, for all that it is about acl.toml:5: allow publish to, subscribe to, receive "a/#" for group ops decides before
    acl.toml:10: never decides, for all that it is about acl.toml:9: allow publish to "q/+" up to QoS 1 for client d* decides before
    acl.toml:12: nobody can publish to "$SYS/#", whatever rules say
    acl.toml:13: group osp is not in [groups]: write `osp = []` there if it is back ends and tokens that put clients into it
    "##);
}
