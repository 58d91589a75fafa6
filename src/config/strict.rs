//! The strict pass over one layer: every key must exist and every value must have its type.
//!
//! Merging is left to the `config` crate, whose errors name only a key; this pass runs before it, on the
//! text, so that errors carry line and column. A refused entry is cut out and the pass repeated, which finds
//! all errors of a text instead of the first.

use std::ops::Range;

use serde::Deserialize;
use toml::{
    Spanned,
    de::{DeTable, DeValue, Deserializer},
};

use super::{error::ConfigErrors, raw::RawConfig};

/// Errors reported of one text; the pass is repeated for each, and nobody reads more.
const PROBLEMS_MAX: usize = 50;

/// A TOML text and what to call it in messages.
pub(super) struct Document<'a> {
    pub(super) name: &'a str,
    pub(super) text: &'a str,
}

impl<'a> Document<'a> {
    /// The place of a byte of the text: `dunlin.toml:3:1`.
    pub(super) fn place(&self, offset: usize) -> String {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = before.matches('\n').count() + 1;
        let column = before[line_start..].chars().count() + 1;
        format!("{}:{line}:{column}", self.name)
    }

    /// Parses the text and keeps what passes.
    pub(super) fn parse(&self, errors: &mut ConfigErrors) -> Option<Spanned<DeTable<'a>>> {
        let (mut table, mut syntax) = DeTable::parse_recoverable(self.text);
        syntax.sort_by_key(|error| error.span().map(|span| span.start));
        for error in &syntax {
            let place = error.span().map_or_else(|| self.name.into(), |span| self.place(span.start));
            errors.of_place(&place, error.message());
        }
        if !syntax.is_empty() {
            return None;
        }
        for _ in 0..PROBLEMS_MAX {
            let Err(error) = RawConfig::deserialize(Deserializer::from(table.clone())) else {
                return Some(table);
            };
            let message = explain(error.message());
            let found = error.span().and_then(|span| Some((cut(table.get_mut(), "", &span)?, span)));
            match found {
                Some((key, span)) => errors.of_key(&self.place(span.start), &key, message),
                None => {
                    errors.of_place(self.name, message);
                    return None;
                }
            }
        }
        errors.of_place(self.name, "has more errors, which are not shown");
        None
    }
}

/// Cuts the entry whose key or value has exactly this span out of `table`; returns its key path.
fn cut(table: &mut DeTable<'_>, prefix: &str, span: &Range<usize>) -> Option<String> {
    let join = |key: &str| if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") };
    let hit = table.iter().find(|(key, value)| {
        // An element of an array goes with its array: cut alone, it would rename those behind it.
        let mut elements = value.get_ref().as_array().into_iter().flat_map(|array| array.iter());
        [key.span(), value.span()].contains(span) || elements.any(|element| element.span() == *span)
    });
    if let Some(key) = hit.map(|(key, _)| key.to_string()) {
        table.remove(key.as_str());
        return Some(join(&key));
    }
    table.iter_mut().find_map(|(key, value)| match value.get_mut() {
        DeValue::Table(table) => cut(table, &join(key.get_ref()), span),
        DeValue::Array(array) => array.iter_mut().enumerate().find_map(|(index, value)| {
            let DeValue::Table(table) = value.get_mut() else { return None };
            cut(table, &format!("{}[{index}]", join(key.get_ref())), span)
        }),
        _ => None,
    })
}

/// Says what serde says in the words of a user.
pub(super) fn explain(message: &str) -> String {
    let unknown = message.strip_prefix("unknown field ").map(|rest| ("unknown key", rest));
    let unknown =
        unknown.or_else(|| message.strip_prefix("unknown variant ").map(|rest| ("unknown value", rest)));
    let Some((what, rest)) = unknown else { return message.to_owned() };
    let mut names = rest.split('`').skip(1).step_by(2);
    let Some(written) = names.next() else { return message.to_owned() };
    let allowed: Vec<&str> = names.collect();
    let nearest = allowed.iter().map(|name| (distance(written, name), *name)).min();
    let hint = match nearest {
        Some((edits, name)) if edits <= written.len().min(name.len()) / 3 => {
            format!("; did you mean `{name}`?")
        }
        _ => String::new(),
    };
    format!("{what} `{written}`{hint} (allowed: {})", allowed.join(", "))
}

/// Edits (insert, delete, replace) from one word to the other.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (index, char_from) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (column, char_to) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(char_from != *char_to);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_edits() {
        for (from, to, edits) in
            [("", "", 0), ("", "abc", 3), ("abc", "abc", 0), ("abd", "abc", 1), ("kitten", "sitting", 3)]
        {
            assert_eq!(distance(from, to), edits, "{from} {to}");
            assert_eq!(distance(to, from), edits, "{to} {from}");
        }
    }

    #[test]
    fn an_unknown_name_gets_a_suggestion_only_when_one_is_near() {
        assert_eq!(
            explain("unknown field `adress`, expected one of `address`, `path`"),
            "unknown key `adress`; did you mean `address`? (allowed: address, path)"
        );
        assert_eq!(
            explain("unknown variant `quic`, expected `tcp` or `ws`"),
            "unknown value `quic` (allowed: tcp, ws)"
        );
        assert_eq!(explain("invalid type: string"), "invalid type: string");
    }

    #[test]
    fn a_place_counts_lines_and_characters_from_one() {
        let document = Document { name: "f", text: "a = 1\nü = 2\n" };
        assert_eq!(document.place(0), "f:1:1");
        assert_eq!(document.place(6), "f:2:1");
        assert_eq!(document.place("a = 1\nü".len()), "f:2:2");
    }
}
