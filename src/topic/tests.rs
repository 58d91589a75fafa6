//! The examples of the standard, and properties against `TopicFilter::matches` and naive indexes.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use proptest::prelude::*;

use super::*;

const LIMITS: TopicLimits = TopicLimits { bytes_max: 65_535, levels_max: 65_535 };

fn filter(text: &str) -> TopicFilter {
    TopicFilter::parse(text, &LIMITS).unwrap()
}

fn name(text: &str) -> TopicName {
    TopicName::parse(text, &LIMITS).unwrap()
}

/// Whether a filter matches a topic according to all three: the rule and both indexes.
fn matches(pattern: &str, topic: &str) -> bool {
    let filter = filter(pattern);
    let by_rule = filter.matches(topic);

    let mut filters = FilterTree::new(1);
    filters.get_or_insert_with(&filter, || ());
    let mut hits = 0;
    filters.for_each_match(topic, |()| hits += 1);
    assert_eq!(hits, usize::from(by_rule), "filter tree: {pattern:?} and {topic:?}");

    let mut retained = RetainedTree::new();
    retained.insert(&name(topic), ());
    let mut hits = 0;
    retained.for_each_match(&filter, |_, ()| hits += 1);
    assert_eq!(hits, usize::from(by_rule), "retained tree: {pattern:?} and {topic:?}");
    by_rule
}

// [MQTT-4.7.1-1] and its examples.
#[test]
fn hash_matches_the_parent_and_all_levels_below() {
    for topic in ["sport/tennis/player1", "sport/tennis/player1/ranking", "sport/tennis/player1/score/x"] {
        assert!(matches("sport/tennis/player1/#", topic));
    }
    assert!(!matches("sport/tennis/player1/#", "sport/tennis/player10"));
    assert!(matches("sport/#", "sport"));
    assert!(matches("#", "sport/tennis"));
    assert!(matches("#", "/"));
}

// [MQTT-4.7.1-2] and its examples.
#[test]
fn plus_matches_exactly_one_level_even_an_empty_one() {
    assert!(matches("sport/tennis/+", "sport/tennis/player1"));
    assert!(!matches("sport/tennis/+", "sport/tennis/player1/ranking"));
    assert!(!matches("sport/+", "sport"));
    assert!(matches("sport/+", "sport/"));
    assert!(matches("+/+", "/finance"));
    assert!(matches("/+", "/finance"));
    assert!(!matches("+", "/finance"));
    assert!(matches("+/tennis/#", "sport/tennis"));
    assert!(matches("sport/+/player1", "sport//player1"));
}

// [MQTT-4.7.2-1] and its examples.
#[test]
fn wildcards_in_the_first_level_do_not_match_reserved_names() {
    assert!(!matches("#", "$SYS/monitor"));
    assert!(!matches("+/monitor/Clients", "$SYS/monitor/Clients"));
    assert!(!matches("+", "$SYS"));
    assert!(matches("$SYS/#", "$SYS/monitor"));
    assert!(matches("$SYS/#", "$SYS"));
    assert!(matches("$SYS/monitor/+", "$SYS/monitor/Clients"));
    assert!(matches("+/$SYS", "a/$SYS"));
    assert!(matches("a/#", "a/$SYS"));
}

// [MQTT-4.7.3-4]
#[test]
fn levels_are_compared_as_they_are() {
    assert!(!matches("ACCOUNTS", "Accounts"));
    assert!(!matches("/finance", "finance"));
    assert!(!matches("a/", "a"));
    assert!(!matches("\u{e9}", "e\u{301}"));
    assert!(matches("Accounts payable", "Accounts payable"));
}

// [MQTT-4.8.2-1], [MQTT-4.8.2-2]
#[test]
fn shared_filters_have_a_share_name_and_a_pattern() {
    let shared = filter("$share/consumer1//finance/+");
    assert_eq!(shared.share_name(), Some("consumer1"));
    assert_eq!(shared.pattern(), "/finance/+");
    assert_eq!(shared.as_str(), "$share/consumer1//finance/+");
    assert!(shared.has_wildcards());
    assert!(shared.matches("/finance/x"));
    assert!(filter("$share/g/$SYS/#").matches("$SYS/x"));
    assert!(!filter("$share/g/#").matches("$SYS/x"));
    for ordinary in ["$share", "$shared/g/x", "$Share/g/x", "a/$share/g"] {
        assert_eq!(filter(ordinary).share_name(), None, "{ordinary:?}");
        assert_eq!(filter(ordinary).pattern(), ordinary);
    }
}

#[test]
fn errors_say_what_is_wrong_and_where() {
    let limits = TopicLimits { bytes_max: 100, levels_max: 3 };
    let of_filter = |text: &str| TopicFilter::parse(text, &limits).unwrap_err().to_string();
    let of_name = |text: &str| TopicName::parse(text, &limits).unwrap_err().to_string();
    insta::assert_snapshot!(
        [
            of_name(""),
            of_name("a/+/b"),
            of_name("a/b\n\0"),
            of_name("a/b/c/d"),
            of_name(&"é".repeat(51)),
            of_filter(""),
            of_filter("sport/tennis#"),
            of_filter("sport/#/ranking"),
            of_filter("sport+"),
            of_filter("++"),
            of_filter("\0"),
            of_filter("$share/"),
            of_filter("$share//a"),
            of_filter("$share/g+/a"),
            of_filter("$share/g"),
            of_filter("$share/g/"),
            of_filter("$share/g/a/#/b"),
            of_filter("$share/g/a/b/c/d"),
        ]
        .join("\n"),
        @r#"
        a topic needs at least one character
        topic name "a/+/b" has the wildcard '+' at byte 2
        topic "a/b\n\0" has a U+0000 at byte 4
        topic "a/b/c/d" has 4 levels, more than the limit of 3
        topic "ééééééééééééééééééééééééééééééééééééééééééééééééééé" has 102 bytes, more than the limit of 100
        a topic needs at least one character
        in topic filter "sport/tennis#" the '#' at byte 12 does not fill a level alone
        in topic filter "sport/#/ranking" the '#' at byte 6 is not the last character
        in topic filter "sport+" the '+' at byte 5 does not fill a level alone
        in topic filter "++" the '+' at byte 0 does not fill a level alone
        topic "\0" has a U+0000 at byte 0
        topic filter "$share/" has no share name after "$share/"
        topic filter "$share//a" has no share name after "$share/"
        in topic filter "$share/g+/a" the share name has the wildcard '+' at byte 8
        topic filter "$share/g" has no filter after the share name
        topic filter "$share/g/" has no filter after the share name
        in topic filter "$share/g/a/#/b" the '#' at byte 11 is not the last character
        topic "$share/g/a/b/c/d" has 4 levels, more than the limit of 3
        "#,
    );
}

#[test]
fn limits_are_inclusive_and_leave_the_share_name_out_of_the_levels() {
    let limits = TopicLimits { bytes_max: 14, levels_max: 3 };
    assert!(check_name("a/b/c", &limits).is_ok());
    assert!(TopicFilter::parse("$share/g/a/b/c", &limits).is_ok());
    assert!(TopicFilter::parse("$share/g/a/b/cc", &limits).is_err());
    assert!(check_name("a/b/c/", &limits).is_err());
    // [MQTT-4.7.3-3]
    let boundless = TopicLimits { bytes_max: usize::MAX, levels_max: usize::MAX };
    assert!(check_name(&"a".repeat(65_535), &boundless).is_ok());
    assert!(check_name(&"a".repeat(65_536), &boundless).is_err());
    assert!(TopicFilter::parse(&"a".repeat(65_536), &boundless).is_err());
}

#[test]
fn patterns_of_one_text_share_a_value_whatever_their_group() {
    let mut tree = FilterTree::new(1);
    for (filter_text, value) in [("$share/g/a/b", 1), ("a/b", 2), ("$share/g/a/+", 3), ("a/+", 4)] {
        tree.get_or_insert_with(&filter(filter_text), || value);
    }
    assert_eq!(tree.len(), 2);
    assert_eq!((tree.get("a/b"), tree.get("a/+")), (Some(&1), Some(&3)));
    assert_eq!(tree.remove(&filter("$share/other/a/b")), Some(1));
    assert_eq!(tree.remove(&filter("a/b")), None);
}

#[test]
fn a_pattern_costs_two_nodes_at_most_whatever_its_levels() {
    let mut tree = FilterTree::new(1);
    for (count, first) in (1..=100).enumerate() {
        let pattern = "/".repeat(first) + "a" + &"/".repeat(200 - first) + "+";
        tree.get_or_insert_with(&filter(&pattern), || ());
        assert!(tree.nodes() <= 2 * (count + 1), "{} nodes for {} patterns", tree.nodes(), count + 1);
    }
}

#[test]
fn the_deepest_topics_need_no_deep_stack() {
    let deep = "/".repeat(65_534);
    let deep_filters = [format!("{deep}+"), format!("{deep}#"), "+/".repeat(32_767) + "#", "#".into()];
    let mut filters = FilterTree::new(1);
    for text in &deep_filters {
        filters.get_or_insert_with(&filter(text), || text.clone());
    }
    let mut hits = 0;
    filters.for_each_match(&deep, |_| hits += 1);
    assert_eq!(hits, 4);

    let mut retained = RetainedTree::new();
    retained.insert(&name(&deep), ());
    for text in &deep_filters {
        let mut hits = 0;
        retained.for_each_match(&filter(text), |_, ()| hits += 1);
        assert_eq!(hits, 1);
        assert!(filters.remove(&filter(text)).is_some());
    }
    assert!(filters.is_empty());
}

#[test]
fn retained_topics_are_visited_in_order_of_their_text() {
    let mut tree = RetainedTree::new();
    for topic in ["b/x", "a/x", "a-b/x", "a", "a-b", "a0/x", "/x", "$a/x", "a/x/y"] {
        tree.insert(&name(topic), ());
    }
    let mut visited = Vec::new();
    tree.for_each_match(&filter("+/x"), |topic, ()| visited.push(topic.to_owned()));
    assert_eq!(visited, ["/x", "a-b/x", "a/x", "a0/x", "b/x"]);
}

#[test]
fn a_wildcard_look_up_passes_over_wide_subtrees() {
    let mut tree = RetainedTree::new();
    for wide in ["a", "a/b", "b-", "c/x/y"] {
        for number in 0..500 {
            tree.insert(&name(&format!("{wide}/{number}")), ());
        }
    }
    for topic in ["a/x", "b/x", "c/x", "a/b/x"] {
        tree.insert(&name(topic), ());
    }
    let mut visited = Vec::new();
    tree.for_each_match(&filter("+/x"), |topic, ()| visited.push(topic.to_owned()));
    assert_eq!(visited, ["a/x", "b/x", "c/x"]);
    let mut visited = Vec::new();
    tree.for_each_match(&filter("+/+/x/#"), |topic, ()| visited.push(topic.to_owned()));
    assert_eq!(visited, ["a/b/x"]);
}

/// Levels that coincide often, and characters on both sides of `/` in the order of bytes.
fn level() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["", "a", "a", "b", "a-", "a0", "$", "$a", "é"])
}

fn topic() -> impl Strategy<Value = TopicName> {
    prop::collection::vec(level(), 1..5)
        .prop_map(|levels| levels.join("/"))
        .prop_filter("a name has a character", |text| !text.is_empty())
        .prop_map(|text| name(&text))
}

fn any_filter() -> impl Strategy<Value = TopicFilter> {
    let level = prop_oneof![2 => level(), 1 => Just("+")];
    (prop::collection::vec(level, 0..5), any::<bool>(), prop::sample::select(vec!["", "$share/g/"]))
        .prop_map(|(mut levels, hash, share)| {
            levels.extend(hash.then_some("#"));
            (share, levels.join("/"))
        })
        .prop_filter("a pattern has a character", |(_, pattern)| !pattern.is_empty())
        // A leading `$share` comes from the prefix alone: no level is `$share`.
        .prop_map(|(share, pattern)| filter(&format!("{share}{pattern}")))
}

/// What a filter is, written from §4.7 and §4.8.2 without regard to how the parser works.
fn is_filter(text: &str) -> bool {
    let levels: Vec<&str> = text.split('/').collect();
    let pattern = match levels.as_slice() {
        ["$share", name, pattern @ ..] => {
            if name.is_empty() || name.contains(['+', '#']) || pattern.concat().len() + pattern.len() <= 1 {
                return false;
            }
            pattern
        }
        all => all,
    };
    let is_literal = |level: &str| !level.contains(['+', '#']);
    let (last, before) = pattern.split_last().unwrap();
    !text.is_empty()
        && !text.contains('\0')
        && before.iter().all(|level| *level == "+" || is_literal(level))
        && (matches!(*last, "+" | "#") || is_literal(last))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn the_parsers_accept_what_the_grammar_has(text in "(\\$share/?)?[a+#/$\0é]{0,6}") {
        prop_assert_eq!(TopicFilter::parse(&text, &LIMITS).is_ok(), is_filter(&text));
        let is_name = !text.is_empty() && !text.contains(['+', '#', '\0']);
        prop_assert_eq!(TopicName::parse(&text, &LIMITS).is_ok(), is_name);
        if let Ok(filter) = TopicFilter::parse(&text, &LIMITS) {
            prop_assert_eq!(filter.as_str(), text.as_str());
            prop_assert_eq!(filter.has_wildcards(), text.contains(['+', '#']));
            let whole = match filter.share_name() {
                Some(share) => format!("$share/{share}/{}", filter.pattern()),
                None => filter.pattern().to_owned(),
            };
            prop_assert_eq!(whole, text);
        }
    }

    #[test]
    fn the_filter_tree_finds_what_matches(
        steps in prop::collection::vec((any_filter(), prop::bool::weighted(0.35)), 1..60),
        topics in prop::collection::vec(topic(), 1..8),
        seeds in any::<[u64; 2]>(),
    ) {
        let mut trees = seeds.map(FilterTree::new);
        let mut model: BTreeMap<String, (TopicFilter, usize)> = BTreeMap::new();
        for (number, (filter, remove)) in steps.iter().enumerate() {
            let key = filter.pattern().to_owned();
            if *remove {
                let expected = model.remove(&key).map(|(_, value)| value);
                for tree in &mut trees {
                    prop_assert_eq!(tree.remove(filter), expected);
                }
            } else {
                let expected = model.entry(key).or_insert((filter.clone(), number)).1;
                for tree in &mut trees {
                    prop_assert_eq!(*tree.get_or_insert_with(filter, || number), expected);
                }
            }
            for topic in &topics {
                let mut orders = [const { Vec::new() }; 2];
                for (tree, found) in trees.iter().zip(&mut orders) {
                    tree.for_each_match(topic.as_str(), |value| found.push(*value));
                }
                prop_assert_eq!(&orders[0], &orders[1], "the order depends on the seed");
                let [mut found, _] = orders;
                found.sort_unstable();
                let mut expected: Vec<usize> = model
                    .values()
                    .filter(|(filter, _)| filter.matches(topic.as_str()))
                    .map(|(_, value)| *value)
                    .collect();
                expected.sort_unstable();
                prop_assert_eq!(found, expected, "for {}", topic);
            }
        }
        let [mut tree, _] = trees;
        prop_assert_eq!(tree.len(), model.len());
        let mut anew = FilterTree::new(seeds[0]);
        for (filter, value) in model.values().rev() {
            anew.get_or_insert_with(filter, || *value);
        }
        for topic in &topics {
            let mut orders = [const { Vec::new() }; 2];
            for (tree, found) in [&tree, &anew].into_iter().zip(&mut orders) {
                tree.for_each_match(topic.as_str(), |value| found.push(*value));
            }
            prop_assert_eq!(&orders[0], &orders[1], "the order depends on what came when");
        }
        for (filter, value) in model.values() {
            prop_assert_eq!(tree.get(filter.pattern()), Some(value));
            prop_assert_eq!(tree.get_mut(filter.pattern()).copied(), Some(*value));
            prop_assert_eq!(tree.remove(filter), Some(*value));
            prop_assert_eq!(tree.get(filter.pattern()), None);
        }
        prop_assert!(tree.is_empty());
        prop_assert_eq!(tree.nodes(), 0);
    }

    #[test]
    fn the_retained_tree_finds_what_matches(
        steps in prop::collection::vec((topic(), prop::bool::weighted(0.3)), 1..80),
        filters in prop::collection::vec(any_filter(), 1..12),
    ) {
        let mut tree = RetainedTree::new();
        let mut model: BTreeMap<String, usize> = BTreeMap::new();
        for (number, (topic, remove)) in steps.iter().enumerate() {
            let text = topic.as_str();
            if *remove {
                prop_assert_eq!(tree.remove(text), model.remove(text));
            } else {
                prop_assert_eq!(tree.insert(topic, number), model.insert(text.to_owned(), number));
            }
            prop_assert_eq!(tree.get(text), model.get(text));
        }
        let check = |tree: &RetainedTree<usize>, model: &BTreeMap<String, usize>| {
            prop_assert_eq!(tree.len(), model.len());
            for filter in &filters {
                let mut found = Vec::new();
                tree.for_each_match(filter, |topic, value| found.push((topic.to_owned(), *value)));
                let expected: Vec<(String, usize)> = model
                    .iter()
                    .filter(|(topic, _)| filter.matches(topic))
                    .map(|(topic, value)| (topic.clone(), *value))
                    .collect();
                prop_assert_eq!(&found, &expected, "for {}", filter);
                // A few topics at a time come to the same, and each step gets on.
                for topics_max in 1..4 {
                    let (mut found, mut from, mut steps) = (Vec::new(), Some(String::new()), 0);
                    while let Some(start) = from {
                        let push = |topic: &str, value: &usize| {
                            found.push((topic.to_owned(), *value));
                            // Some break off after each that is found.
                            if topics_max == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                        };
                        from = tree.for_each_match_from(filter, &start, topics_max, push);
                        prop_assert!(from.as_ref().is_none_or(|next| *next > start), "stuck at {:?}", start);
                        steps += 1;
                    }
                    prop_assert_eq!(&found, &expected, "{} at a time for {}", topics_max, filter);
                    prop_assert!(steps <= tree.len() + 1);
                }
            }
            Ok(())
        };
        check(&tree, &model)?;
    }
}
