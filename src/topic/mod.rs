//! Topic names, topic filters and the two indexes over them.
//!
//! Text from a peer becomes a [`TopicName`] or a [`TopicFilter`] once, at the edge; what is deeper
//! in the broker takes the parsed types and never checks again. Matching compares the bytes of
//! levels: nothing is normalised, folded or trimmed [MQTT-4.7.3-4].
//!
//! - [`FilterTree`] answers "which filters match this topic" for a publish.
//! - [`RetainedTree`] answers "which topics match this filter" for a subscribe.
//!
//! Both visit their matches in an order that depends on what they hold, never on a hash.

mod error;
mod filter;
mod filter_tree;
mod level_tree;
mod name;
mod retained_tree;
mod table;

pub use error::{Excerpt, TopicError};
pub use filter::TopicFilter;
pub use filter_tree::FilterTree;
pub use name::{TopicName, check_name};
pub use retained_tree::RetainedTree;

/// What a length field can express [MQTT-4.7.3-3]; no limit allows more.
const BYTES_MAX: usize = 65_535;

/// Limits on the names and filters that are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicLimits {
    /// The longest name or filter in bytes, of a shared filter with its `$share/name/`. Above 65,535
    /// it has no effect.
    pub bytes_max: usize,
    /// The most levels of a name, or of a filter without its `$share/name/`.
    pub levels_max: usize,
}

impl Default for TopicLimits {
    /// As long as the standard allows, and 200 levels.
    fn default() -> Self {
        Self { bytes_max: BYTES_MAX, levels_max: 200 }
    }
}

/// A name that begins with `$` is not for wildcards in the first level [MQTT-4.7.2-1].
fn is_reserved(topic: &str) -> bool {
    topic.starts_with('$')
}

/// Splits off the first level; `None` as the rest says that it was the last one.
///
/// An empty rest is a level of its own: `a/` is `a` and an empty level.
fn split_level(text: &str) -> (&str, Option<&str>) {
    match text.bytes().position(|byte| byte == b'/') {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    }
}

#[cfg(test)]
mod tests;
