//! What a client subscribes to.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::error::{Excerpt, TopicError};
use super::name::{check_levels, check_size};
use super::{TopicLimits, is_reserved};

/// What a shared subscription begins with. `$share` without a separator is an ordinary filter.
const SHARE_PREFIX: &str = "$share/";

/// A valid topic filter, shared (`$share/name/pattern`) or not.
///
/// It compares, orders and hashes as its whole text. A clone shares the text.
#[derive(Clone)]
pub struct TopicFilter {
    text: Arc<str>,
    /// Where the pattern begins: 0, or after `$share/name/`.
    pattern_at: u32,
    has_wildcards: bool,
}

impl TopicFilter {
    /// Checks a text and keeps a copy of it.
    ///
    /// # Errors
    /// Says which rule the text breaks and where; the limits count as rules.
    pub fn parse(text: &str, limits: &TopicLimits) -> Result<Self, TopicError> {
        check_size(text, limits)?;
        if let Some(at) = text.bytes().position(|byte| byte == 0) {
            return Err(TopicError::Nul { text: Excerpt::of(text), at });
        }
        let pattern_at = pattern_offset(text)?;
        let has_wildcards = check_pattern(text, pattern_at, limits)?;
        let pattern_at = u32::try_from(pattern_at).expect("the size was checked: 65,535 bytes at most");
        Ok(Self { text: text.into(), pattern_at, has_wildcards })
    }

    /// The whole text as it was sent, with its `$share/name/` if it has one.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The name of the group, if this is the filter of a shared subscription.
    pub fn share_name(&self) -> Option<&str> {
        let separator_at = self.pattern_at.checked_sub(1)?;
        Some(&self.text[SHARE_PREFIX.len()..separator_at as usize])
    }

    /// What topic names are matched against: the text without its `$share/name/`.
    pub fn pattern(&self) -> &str {
        &self.text[self.pattern_at as usize..]
    }

    /// Whether the pattern has a `+` or a `#`.
    pub fn has_wildcards(&self) -> bool {
        self.has_wildcards
    }

    /// Whether the pattern matches a topic name.
    ///
    /// Level by level, with the standard in view: the indexes are tested against it.
    pub fn matches(&self, topic: &str) -> bool {
        // [MQTT-4.7.2-1] a wildcard in the first level does not match a name that begins with $.
        if is_reserved(topic) && self.pattern().starts_with(['+', '#']) {
            return false;
        }
        let mut topic_levels = topic.split('/');
        for pattern_level in self.pattern().split('/') {
            // `#` stands for all levels from here on, and for none: `a/#` matches `a`.
            if pattern_level == "#" {
                return true;
            }
            match topic_levels.next() {
                Some(topic_level) if pattern_level == "+" || pattern_level == topic_level => {}
                Some(_) | None => return false,
            }
        }
        topic_levels.next().is_none()
    }

    /// The pattern as shared text; the filter's own where it is the whole of it.
    pub(super) fn shared_pattern(&self) -> Arc<str> {
        if self.pattern_at == 0 { Arc::clone(&self.text) } else { self.pattern().into() }
    }
}

/// Finds where the pattern begins, which is 0 unless the filter is shared.
fn pattern_offset(text: &str) -> Result<usize, TopicError> {
    let Some(shared) = text.strip_prefix(SHARE_PREFIX) else {
        return Ok(0);
    };
    let (name, pattern) = match shared.split_once('/') {
        Some((name, pattern)) => (name, Some(pattern)),
        None => (shared, None),
    };
    // [MQTT-4.8.2-1] the share name has at least one character.
    if name.is_empty() {
        return Err(TopicError::ShareNameMissing { text: Excerpt::of(text) });
    }
    // [MQTT-4.8.2-2] the share name has no wildcard; a separator and a filter follow it.
    if let Some((at, wildcard)) = name.char_indices().find(|&(_, c)| matches!(c, '+' | '#')) {
        let at = SHARE_PREFIX.len() + at;
        return Err(TopicError::WildcardInShareName { text: Excerpt::of(text), at, wildcard });
    }
    match pattern {
        Some(pattern) if !pattern.is_empty() => Ok(text.len() - pattern.len()),
        Some(_) | None => Err(TopicError::ShareFilterMissing { text: Excerpt::of(text) }),
    }
}

/// Checks the levels of the pattern; returns whether it has wildcards.
fn check_pattern(text: &str, pattern_at: usize, limits: &TopicLimits) -> Result<bool, TopicError> {
    let mut has_wildcards = false;
    let mut levels = 0;
    let mut level_at = pattern_at;
    for level in text[pattern_at..].split('/') {
        if let Some((at_in_level, wildcard)) = level.char_indices().find(|&(_, c)| matches!(c, '+' | '#')) {
            let at = level_at + at_in_level;
            // [MQTT-4.7.1-1], [MQTT-4.7.1-2] a wildcard fills its level alone.
            if level.len() > 1 {
                return Err(TopicError::WildcardNotAlone { text: Excerpt::of(text), at, wildcard });
            }
            // [MQTT-4.7.1-1] `#` is the last character.
            if wildcard == '#' && at + 1 < text.len() {
                return Err(TopicError::HashNotLast { text: Excerpt::of(text), at });
            }
            has_wildcards = true;
        }
        levels += 1;
        level_at += level.len() + 1;
    }
    check_levels(text, levels, limits)?;
    Ok(has_wildcards)
}

impl PartialEq for TopicFilter {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for TopicFilter {}

impl Hash for TopicFilter {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl PartialOrd for TopicFilter {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for TopicFilter {
    fn cmp(&self, other: &Self) -> Ordering {
        self.text.cmp(&other.text)
    }
}

impl fmt::Display for TopicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for TopicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}
