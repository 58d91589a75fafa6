//! The topic a message is published to.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use super::error::{Excerpt, TopicError};
use super::{BYTES_MAX, TopicLimits, is_reserved};

/// A valid topic name: at least one character, no wildcard, no U+0000, within the limits.
///
/// A clone shares the text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicName(Arc<str>);

impl TopicName {
    /// Checks a text and keeps a copy of it.
    ///
    /// # Errors
    /// As [`check_name`].
    pub fn parse(text: &str, limits: &TopicLimits) -> Result<Self, TopicError> {
        check_name(text, limits)?;
        Ok(Self(text.into()))
    }

    /// The name as it was sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it begins with `$`, which wildcards in the first level do not match [MQTT-4.7.2-1].
    pub fn is_reserved(&self) -> bool {
        is_reserved(&self.0)
    }
}

/// Checks that a text is a valid topic name, without keeping it.
///
/// # Errors
/// Says which rule the text breaks: no character [MQTT-4.7.3-1], a U+0000 [MQTT-4.7.3-2], a
/// wildcard [MQTT-4.7.0-1], or beyond the limits.
pub fn check_name(text: &str, limits: &TopicLimits) -> Result<(), TopicError> {
    check_size(text, limits)?;
    // Counted without an early exit, so that the compiler can take many bytes at once.
    let mut separators = 0;
    let mut forbidden = 0;
    for byte in text.bytes() {
        separators += usize::from(byte == b'/');
        forbidden += usize::from(matches!(byte, 0 | b'+' | b'#'));
    }
    if forbidden > 0 {
        return Err(forbidden_character(text));
    }
    check_levels(text, separators + 1, limits)
}

fn forbidden_character(text: &str) -> TopicError {
    let (at, found) = text
        .char_indices()
        .find(|&(_, c)| matches!(c, '\0' | '+' | '#'))
        .expect("the caller counted at least one such character");
    let text = Excerpt::of(text);
    match found {
        '\0' => TopicError::Nul { text, at },
        wildcard => TopicError::WildcardInName { text, at, wildcard },
    }
}

/// What names and filters have in common: not empty, not too long.
pub(super) fn check_size(text: &str, limits: &TopicLimits) -> Result<(), TopicError> {
    let bytes_max = limits.bytes_max.min(BYTES_MAX);
    match text.len() {
        0 => Err(TopicError::Empty),
        bytes if bytes > bytes_max => Err(TopicError::TooLong { text: Excerpt::of(text), bytes, bytes_max }),
        _ => Ok(()),
    }
}

pub(super) fn check_levels(text: &str, levels: usize, limits: &TopicLimits) -> Result<(), TopicError> {
    let levels_max = limits.levels_max;
    if levels > levels_max {
        return Err(TopicError::TooManyLevels { text: Excerpt::of(text), levels, levels_max });
    }
    Ok(())
}

impl Borrow<str> for TopicName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for TopicName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}
