//! What can be wrong with a topic name or a topic filter.

use std::fmt;

/// Why a text is not a topic name or a topic filter that this broker accepts.
///
/// Each is the fault of whoever sent the text. Positions are byte offsets into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicError {
    /// It has no character [MQTT-4.7.3-1].
    Empty,
    /// It is longer than the limit.
    TooLong {
        /// Its beginning.
        text: Excerpt,
        /// Its length.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// It has more levels than the limit.
    TooManyLevels {
        /// Its beginning.
        text: Excerpt,
        /// Its number of levels.
        levels: usize,
        /// The limit.
        levels_max: usize,
    },
    /// It has a U+0000 [MQTT-4.7.3-2].
    Nul {
        /// Its beginning.
        text: Excerpt,
        /// Where the character is.
        at: usize,
    },
    /// It is a name and has a wildcard [MQTT-4.7.0-1].
    WildcardInName {
        /// Its beginning.
        text: Excerpt,
        /// Where the wildcard is.
        at: usize,
        /// `+` or `#`.
        wildcard: char,
    },
    /// A wildcard of a filter shares its level with other characters [MQTT-4.7.1-1], [MQTT-4.7.1-2].
    WildcardNotAlone {
        /// Its beginning.
        text: Excerpt,
        /// Where the wildcard is.
        at: usize,
        /// `+` or `#`.
        wildcard: char,
    },
    /// Levels follow the `#` of a filter [MQTT-4.7.1-1].
    HashNotLast {
        /// Its beginning.
        text: Excerpt,
        /// Where the `#` is.
        at: usize,
    },
    /// `$share/` is not followed by a share name [MQTT-4.8.2-1].
    ShareNameMissing {
        /// Its beginning.
        text: Excerpt,
    },
    /// The share name has a wildcard [MQTT-4.8.2-2].
    WildcardInShareName {
        /// Its beginning.
        text: Excerpt,
        /// Where the wildcard is.
        at: usize,
        /// `+` or `#`.
        wildcard: char,
    },
    /// No filter follows the share name [MQTT-4.8.2-2].
    ShareFilterMissing {
        /// Its beginning.
        text: Excerpt,
    },
}

impl fmt::Display for TopicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "a topic needs at least one character"),
            Self::TooLong { text, bytes, bytes_max } => {
                write!(f, "topic {text} has {bytes} bytes, more than the limit of {bytes_max}")
            }
            Self::TooManyLevels { text, levels, levels_max } => {
                write!(f, "topic {text} has {levels} levels, more than the limit of {levels_max}")
            }
            Self::Nul { text, at } => write!(f, "topic {text} has a U+0000 at byte {at}"),
            Self::WildcardInName { text, at, wildcard } => {
                write!(f, "topic name {text} has the wildcard '{wildcard}' at byte {at}")
            }
            Self::WildcardNotAlone { text, at, wildcard } => {
                write!(f, "in topic filter {text} the '{wildcard}' at byte {at} does not fill a level alone")
            }
            Self::HashNotLast { text, at } => {
                write!(f, "in topic filter {text} the '#' at byte {at} is not the last character")
            }
            Self::ShareNameMissing { text } => {
                write!(f, "topic filter {text} has no share name after \"$share/\"")
            }
            Self::WildcardInShareName { text, at, wildcard } => {
                write!(f, "in topic filter {text} the share name has the wildcard '{wildcard}' at byte {at}")
            }
            Self::ShareFilterMissing { text } => {
                write!(f, "topic filter {text} has no filter after the share name")
            }
        }
    }
}

impl std::error::Error for TopicError {}

/// The beginning of a text, escaped and in quotes: fit for one line of a log, whatever was sent.
#[derive(Clone, PartialEq, Eq)]
pub struct Excerpt(Box<str>);

impl Excerpt {
    const CHARS_MAX: usize = 64;

    pub(super) fn of(text: &str) -> Self {
        let mut quoted = String::from("\"");
        let mut chars = text.chars();
        quoted.extend(chars.by_ref().take(Self::CHARS_MAX).flat_map(char::escape_debug));
        quoted.push_str(if chars.next().is_some() { "…\"" } else { "\"" });
        Self(quoted.into())
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
