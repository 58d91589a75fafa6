//! What differs between two configurations, and when it takes effect.

use std::{collections::BTreeMap, fmt};

use super::Config;

/// When a new value of a key takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// At a reload.
    Live,
    /// At the next start.
    Restart,
}

/// A key whose value differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key: `limits.packet_bytes_max`, `listeners[0].address`.
    pub key: String,
    /// Its value before, as TOML; `None` if it was not there.
    pub before: Option<String>,
    /// Its value now.
    pub after: Option<String>,
    /// When it takes effect.
    pub effect: Effect,
}

/// Keys, and sections with a dot at the end, whose changes take effect at a reload. Of more that fit, the longest
/// decides.
const EFFECTS: [(&str, Effect); 10] = [
    ("limits.", Effect::Live),
    // The permits are handed out at the start.
    ("limits.handshakes_max", Effect::Restart),
    ("guard.", Effect::Live),
    ("auth.", Effect::Live),
    // The threads are made at the start.
    ("auth.passwords.", Effect::Restart),
    ("auth.bind_sessions", Effect::Restart),
    ("listeners.auth", Effect::Live),
    ("acl.", Effect::Live),
    ("log.filter", Effect::Live),
    ("", Effect::Restart),
];

impl Effect {
    /// That of a key. The numbers of listeners do not matter.
    #[must_use]
    pub fn of(key: &str) -> Effect {
        let key = without_indices(key);
        let fits = |pattern: &str| {
            pattern.is_empty() || key == pattern || (pattern.ends_with('.') && key.starts_with(pattern))
        };
        let fitting = EFFECTS.iter().filter(|(pattern, _)| fits(pattern));
        fitting.max_by_key(|(pattern, _)| pattern.len()).map_or(Effect::Restart, |(_, effect)| *effect)
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Effect::Live => "live",
            Effect::Restart => "restart",
        })
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_nothing = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".into());
        write!(
            f,
            "{}: {} -> {} ({})",
            self.key,
            or_nothing(&self.before),
            or_nothing(&self.after),
            self.effect
        )
    }
}

fn without_indices(key: &str) -> String {
    let mut rest = key;
    let mut plain = String::with_capacity(key.len());
    while let Some((before, after)) = rest.split_once('[') {
        plain.push_str(before);
        rest = after.split_once(']').map_or("", |(_, after)| after);
    }
    plain + rest
}

/// The keys whose values differ, in the order of their names.
#[must_use]
pub fn changes(before: &Config, after: &Config) -> Vec<Change> {
    let (mut before, after) = (values(before), values(after));
    let mut changes = Vec::new();
    for (key, value) in after {
        let old = before.remove(&key);
        if old.as_ref() != Some(&value) {
            changes.push(Change { effect: Effect::of(&key), key, before: old, after: Some(value) });
        }
    }
    let gone = before.into_iter();
    changes.extend(gone.map(|(key, value)| Change {
        effect: Effect::of(&key),
        key,
        before: Some(value),
        after: None,
    }));
    changes.sort_by(|one, other| one.key.cmp(&other.key));
    changes
}

/// All values as TOML, by their keys.
fn values(config: &Config) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    if let Ok(table) = toml::from_str::<toml::Table>(&config.to_toml()) {
        collect("", &toml::Value::Table(table), &mut found);
    }
    found
}

fn collect(key: &str, value: &toml::Value, found: &mut BTreeMap<String, String>) {
    match value {
        toml::Value::Table(table) => {
            for (name, value) in table {
                let separator = if key.is_empty() { "" } else { "." };
                collect(&format!("{key}{separator}{name}"), value, found);
            }
        }
        toml::Value::Array(array) if array.iter().any(toml::Value::is_table) => {
            for (index, value) in array.iter().enumerate() {
                collect(&format!("{key}[{index}]"), value, found);
            }
        }
        value => {
            found.insert(key.to_owned(), value.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_told_with_its_effect() {
        let before = Config::default();
        let mut after = before.clone();
        after.limits.packet_bytes_max = 1024;
        after.shards = before.shards + 1;
        after.listeners.remove(1);
        let told: Vec<String> = changes(&before, &after).iter().map(ToString::to_string).collect();
        assert!(
            told.contains(&"limits.packet_bytes_max: \"16 MiB\" -> \"1 KiB\" (live)".to_owned()),
            "{told:?}"
        );
        assert!(
            told.contains(&format!("shards: {} -> {} (restart)", before.shards, after.shards)),
            "{told:?}"
        );
        let is_gone = |line: &&String| {
            line.starts_with("listeners[1].address") && line.ends_with("-> nothing (restart)")
        };
        assert_eq!(told.iter().filter(is_gone).count(), 1, "{told:?}");
        assert_eq!(changes(&before, &before), []);
    }

    #[test]
    fn the_longest_pattern_decides() {
        assert_eq!(Effect::of("limits.handshakes_max"), Effect::Restart);
        assert_eq!(Effect::of("limits.sessions_max"), Effect::Live);
        assert_eq!(Effect::of("listeners[3].address"), Effect::Restart);
        assert_eq!(Effect::of("limitsx"), Effect::Restart);
    }
}
