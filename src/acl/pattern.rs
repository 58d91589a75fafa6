//! The topics of a rule: topic filters with placeholders.

use std::fmt;

use super::{Details, Principal};
use crate::topic::{TopicFilter, TopicLimits};

/// A topic filter, levels of which may depend on the client.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    text: Box<str>,
    levels: Box<[Level]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Literal(Box<str>),
    /// It has placeholders.
    Template(Template),
    /// `+`.
    Plus,
    /// `#`.
    Hash,
    /// All topics, also those that begin with `$`. It is the only level then.
    Everything,
}

/// A level with placeholders; two pieces of text never follow each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template(Box<[Piece]>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Text(Box<str>),
    /// `%u`.
    User,
    /// `%c`.
    ClientId,
    /// `%{name}`.
    Attribute(Box<str>),
}

/// How `%` is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// `%u`, `%c`, `%{name}` and `%%`; anything else is a mistake.
    Own,
    /// Of a `pattern` of mosquitto: `%u` and `%c`; other percent signs are text.
    Mosquitto,
    /// Of a `topic` of mosquitto: there are no placeholders.
    Plain,
}

/// What placeholders stand for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Values<'a> {
    pub(super) user: Option<&'a str>,
    pub(super) client_id: &'a str,
    pub(super) details: Option<&'a Details>,
}

/// How sure it is that a pattern with placeholders matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Certainty {
    /// It does.
    Known,
    /// A placeholder has no usable value and was taken for `+`: this counts for denials alone. Otherwise a
    /// client could get out of a denial by the client identifier that it chooses.
    Assumed,
}

impl<'a> Values<'a> {
    pub(super) fn of(principal: &'a Principal, client_id: &'a str) -> Self {
        Self { user: principal.user.as_deref(), client_id, details: principal.details.as_deref() }
    }

    /// The value, if there is any.
    fn of_piece<'p: 'a>(&self, piece: &'p Piece) -> Option<&'a str> {
        match piece {
            Piece::Text(text) => Some(text),
            Piece::User => self.user,
            Piece::ClientId => Some(self.client_id),
            Piece::Attribute(name) => self.details?.attributes.get(name).map(|value| &**value),
        }
    }
}

impl Template {
    /// Whether it is this level, of a topic or a filter. What has an unusable value is no level.
    pub(super) fn matches(&self, level: &str, values: &Values<'_>) -> bool {
        let mut rest = level;
        for piece in &self.0 {
            let value = values.of_piece(piece).filter(|value| !value.is_empty());
            let Some(after) = value.and_then(|value| rest.strip_prefix(value)) else { return false };
            rest = after;
        }
        // A value that is a wildcard is unusable. No level has the other characters that a value may not have.
        rest.is_empty() && level != "+" && level != "#"
    }

    /// The placeholder without a usable value, if there is one.
    pub(super) fn unusable(&self, values: &Values<'_>) -> Option<&Piece> {
        let is_unusable = |piece: &&Piece| match values.of_piece(piece) {
            _ if matches!(piece, Piece::Text(_)) => false,
            Some(value) => value.is_empty() || value.bytes().any(|b| matches!(b, b'/' | b'+' | b'#' | 0)),
            None => true,
        };
        self.0.iter().find(is_unusable)
    }

    /// Whether it may match a level that begins with `$`. Like a wildcard, a value in the first level does not open
    /// what is reserved: a client could call itself `$SYS`.
    pub(super) fn reaches_reserved(&self) -> bool {
        matches!(self.0.first(), Some(Piece::Text(text)) if text.starts_with('$'))
    }
}

impl Pattern {
    pub(super) fn parse(text: &str, dialect: Dialect) -> Result<Self, String> {
        if text.starts_with("$share/") {
            return Err(format!(
                "{text:?} is shared; write what follows `$share/name/`, as rules are asked about that"
            ));
        }
        TopicFilter::parse(text, &TopicLimits::default()).map_err(|error| error.to_string())?;
        let mut levels =
            text.split('/').map(|level| parse_level(level, dialect)).collect::<Result<Vec<_>, _>>();
        if let Ok(levels) = &mut levels
            && let [Level::Plus, Level::Hash] = levels[..]
        {
            // They match the same topics, which `covers` could not tell level by level.
            levels.remove(0);
        }
        let levels = levels.map_err(|why| format!("{text:?}: {why}"))?;
        Ok(Self { text: text.into(), levels: levels.into() })
    }

    pub(super) fn everything() -> Self {
        Self { text: "every topic".into(), levels: [Level::Everything].into() }
    }

    pub(super) fn levels(&self) -> &[Level] {
        &self.levels
    }

    /// Whether it matches a topic name, or covers a topic filter: level by level, with the rules in view. The
    /// index is tested against it.
    pub(super) fn matches(&self, topic: &str, values: &Values<'_>) -> Option<Certainty> {
        if let [Level::Everything] = self.levels[..] {
            return Some(Certainty::Known);
        }
        // [MQTT-4.7.2-1] wildcards in the first level do not match a name that begins with $.
        if topic.starts_with('$') && !self.reaches_reserved() {
            return None;
        }
        let mut certainty = Certainty::Known;
        let mut topic_levels = topic.split('/');
        for level in &self.levels {
            if *level == Level::Hash {
                return Some(certainty);
            }
            // Of what is asked for, only what `#` in the rule has already taken may have a `#`.
            let found = topic_levels.next().filter(|found| *found != "#")?;
            let is_match = match level {
                Level::Literal(text) => **text == *found,
                Level::Plus => true,
                Level::Template(template) if template.matches(found, values) => true,
                Level::Template(template) => {
                    certainty = Certainty::Assumed;
                    template.unusable(values).is_some()
                }
                Level::Hash | Level::Everything => false,
            };
            if !is_match {
                return None;
            }
        }
        topic_levels.next().is_none().then_some(certainty)
    }

    /// The placeholder that keeps this pattern from matching anything for certain.
    pub(super) fn unusable(&self, values: &Values<'_>) -> Option<&Piece> {
        self.levels.iter().find_map(|level| match level {
            Level::Template(template) => template.unusable(values),
            Level::Literal(_) | Level::Plus | Level::Hash | Level::Everything => None,
        })
    }

    pub(super) fn has_placeholder(&self) -> bool {
        self.levels.iter().any(|level| matches!(level, Level::Template(_)))
    }

    /// Whether it matches all that the other one matches, for every client for whom all placeholders have values.
    pub(super) fn covers(&self, other: &Pattern) -> bool {
        if let [Level::Everything] = self.levels[..] {
            return true;
        }
        if other.levels[..] == [Level::Everything] || (other.is_reserved() && !self.reaches_reserved()) {
            return false;
        }
        let mut others = other.levels.iter();
        for level in &self.levels {
            let is_covered = match (level, others.next()) {
                (Level::Hash, _) => return true,
                (Level::Plus, Some(other)) => *other != Level::Hash,
                (level, Some(other)) => level == other,
                (_, None) => false,
            };
            if !is_covered {
                return false;
            }
        }
        others.next().is_none()
    }

    /// Whether all that it matches is below this first level.
    pub(super) fn is_below(&self, first: &str) -> bool {
        matches!(self.levels.first(), Some(Level::Literal(text)) if **text == *first)
    }

    fn reaches_reserved(&self) -> bool {
        match self.levels.first() {
            Some(Level::Literal(_) | Level::Everything) => true,
            Some(Level::Template(template)) => template.reaches_reserved(),
            Some(Level::Plus | Level::Hash) | None => false,
        }
    }

    fn is_reserved(&self) -> bool {
        self.reaches_reserved() && self.text.starts_with('$')
    }
}

fn parse_level(level: &str, dialect: Dialect) -> Result<Level, String> {
    match level {
        "+" => return Ok(Level::Plus),
        "#" => return Ok(Level::Hash),
        _ => {}
    }
    let mut pieces = Vec::new();
    let mut text = String::new();
    let mut rest = level;
    while let Some((before, after)) = rest.split_once('%').filter(|_| dialect != Dialect::Plain) {
        text.push_str(before);
        let (piece, after) = parse_placeholder(after, dialect)?;
        match piece {
            Piece::Text(percent) => text.push_str(&percent),
            Piece::User | Piece::ClientId | Piece::Attribute(_) => {
                if !text.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut text).into()));
                }
                pieces.push(piece);
            }
        }
        rest = after;
    }
    text.push_str(rest);
    if pieces.is_empty() {
        return Ok(Level::Literal(text.into()));
    }
    if !text.is_empty() {
        pieces.push(Piece::Text(text.into()));
    }
    Ok(Level::Template(Template(pieces.into())))
}

/// Reads what follows a percent sign; returns the text behind it.
fn parse_placeholder(text: &str, dialect: Dialect) -> Result<(Piece, &str), String> {
    if let Some(rest) = text.strip_prefix('u') {
        return Ok((Piece::User, rest));
    }
    if let Some(rest) = text.strip_prefix('c') {
        return Ok((Piece::ClientId, rest));
    }
    if dialect == Dialect::Mosquitto {
        return Ok((Piece::Text("%".into()), text));
    }
    if let Some(rest) = text.strip_prefix('%') {
        return Ok((Piece::Text("%".into()), rest));
    }
    match text.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
        Some((name, rest)) if !name.is_empty() => Ok((Piece::Attribute(name.into()), rest)),
        Some(_) => Err("`%{}` has no name between its braces, such as `%{cert:cn}`".into()),
        None if text.starts_with('{') => Err("a `%{` is not closed by a `}` in the same level".into()),
        None => Err("a `%` is followed by neither u, c, {name} nor %; write `%%` for a percent sign".into()),
    }
}

impl fmt::Display for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Piece::Text(text) => f.write_str(text),
            Piece::User => f.write_str("%u"),
            Piece::ClientId => f.write_str("%c"),
            Piece::Attribute(name) => write!(f, "%{{{name}}}"),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.levels[..] {
            [Level::Everything] => f.write_str(&self.text),
            _ => write!(f, "{:?}", self.text),
        }
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
