//! Texts in which `*` stands for anything: `dev-*`.

use std::fmt;

/// A text in which every `*` stands for any number of characters, also for none.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Glob(Box<str>);

impl Glob {
    pub(super) fn new(text: &str) -> Self {
        Self(text.into())
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// What every text that it matches begins with.
    pub(super) fn prefix(&self) -> &str {
        self.0.split('*').next().unwrap_or_default()
    }

    pub(super) fn has_star(&self) -> bool {
        self.0.contains('*')
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        let Some((prefix, rest)) = self.0.split_once('*') else { return *self.0 == *text };
        let Some(mut text) = text.strip_prefix(prefix) else { return false };
        let (inner, suffix) = rest.rsplit_once('*').unwrap_or(("", rest));
        // The first place is the best one for each part: what is behind it leaves most to the next.
        for part in inner.split('*') {
            let Some(at) = text.find(part) else { return false };
            text = &text[at + part.len()..];
        }
        text.ends_with(suffix)
    }

    /// Whether it surely matches all that the other matches.
    pub(super) fn covers(&self, other: &Glob) -> bool {
        // The star of the other is a character that no part of this one can match but a star.
        self == other || self.matches(&other.0.replace('*', "\0"))
    }
}

impl fmt::Debug for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn naive(glob: &[u8], text: &[u8]) -> bool {
        match (glob, text) {
            ([], []) => true,
            ([b'*', rest @ ..], _) => (0..=text.len()).any(|skipped| naive(rest, &text[skipped..])),
            ([expected, rest @ ..], [found, text @ ..]) => expected == found && naive(rest, text),
            ([], [_, ..]) | ([_, ..], []) => false,
        }
    }

    proptest! {
        #[test]
        fn a_star_stands_for_anything(glob in "[ab*]{0,7}", text in "[ab]{0,9}") {
            prop_assert_eq!(Glob::new(&glob).matches(&text), naive(glob.as_bytes(), text.as_bytes()));
        }

        #[test]
        fn a_glob_covers_nothing_that_it_does_not_match(one in "[ab*]{0,5}", other in "[ab*]{0,5}", text in "[ab]{0,6}") {
            let (one, other) = (Glob::new(&one), Glob::new(&other));
            prop_assert!(!one.covers(&other) || !other.matches(&text) || one.matches(&text));
        }
    }
}
