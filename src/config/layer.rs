//! Layers: a file, environment variables and settings of the command line, each turned into a source of the
//! `config` crate whose values know where they were written.

use std::path::{Path, PathBuf};

use ::config::{ConfigError, Map, Source, Value, ValueKind};
use serde::Deserialize;
use toml::{
    Spanned,
    de::{DeArray, DeTable, DeValue, Deserializer},
};

use super::{
    error::ConfigErrors,
    raw::RawConfig,
    strict::{Document, explain},
};

/// Keys whose values are paths. A path is relative to the file that it is written in, or else to the working
/// directory, and is made absolute before layers are merged and that is forgotten.
const PATHS: [&str; 17] = [
    "acl.file",
    // `*` stands for any name.
    "auth.backends.*.file",
    "auth.backends.*.ca_file",
    "auth.backends.*.jwks_file",
    "auth.backends.*.public_key_file",
    "auth.backends.*.secret_file",
    "auth.backends.*.secret_headers.*.file",
    "data_dir",
    "guard.bans_file",
    "audit.file",
    "listeners.path",
    "listeners.tls.certificate",
    "listeners.tls.key",
    "listeners.tls.certificates.certificate",
    "listeners.tls.certificates.key",
    "listeners.tls.client_ca",
    "listeners.tls.client_crl",
];

/// Whether the value of a key (without the indices of arrays) is a path.
fn is_path(key: &str) -> bool {
    PATHS.iter().any(|pattern| {
        let (mut names, mut key) = (pattern.split('.'), key.split('.'));
        loop {
            match (names.next(), key.next()) {
                (None, None) => return true,
                (Some(name), Some(written)) if name == "*" || name == written => {}
                (Some(_) | None, _) => return false,
            }
        }
    })
}

/// Values by the path of their key, as `config` merges them.
#[derive(Clone, Debug)]
pub(super) struct Layer(Map<String, Value>);

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.0.clone())
    }
}

impl Layer {
    /// The layer of a TOML text; what is wrong with it goes to `errors` and is left out.
    pub(super) fn of_document(document: &Document<'_>, base: &Path, errors: &mut ConfigErrors) -> Self {
        let table = document.parse(errors).map(Spanned::into_inner).unwrap_or_default();
        let reader = Reader { base, place: &|offset| document.place(offset) };
        Self(reader.table("", &table))
    }

    /// The layer of one key, such as `limits.packet_bytes_max` or `listeners.0.address`, and of a value that
    /// is TOML or else a plain string.
    pub(super) fn of_setting(
        place: &str,
        key: &str,
        text: &str,
        base: &Path,
        errors: &mut ConfigErrors,
    ) -> Option<Self> {
        let Some(path) = KeyPath::parse(key) else {
            errors.of_place(place, format!("`{key}` is not a key; keys look like `limits.packet_bytes_max`"));
            return None;
        };
        let string = Spanned::new(0..text.len(), DeValue::String(text.into()));
        let value = match DeValue::parse(text) {
            Ok(value) => match path.accepts(&value) {
                Ok(()) => value,
                // `data_dir = 5` is meant as text where text is expected.
                Err(message) => match path.accepts(&string) {
                    Ok(()) => string,
                    Err(_) => {
                        errors.of_key(place, &path.to_string(), message);
                        return None;
                    }
                },
            },
            Err(syntax) => match path.accepts(&string) {
                Ok(()) => string,
                Err(message) => {
                    // What opens a table or array was meant as TOML.
                    let toml = text.starts_with(['[', '{']);
                    let message = if toml { syntax.message().to_owned() } else { message };
                    errors.of_key(place, &path.to_string(), message);
                    return None;
                }
            },
        };
        let reader = Reader { base, place: &|_| place.into() };
        let pattern = path.names().collect::<Vec<_>>().join(".");
        Some(Self(Map::from([(path.to_string(), reader.value(&pattern, &value))])))
    }
}

/// A dotted key; an index follows the name of an array.
struct KeyPath(Vec<Segment>);

enum Segment {
    Name(String),
    Index(usize),
}

impl KeyPath {
    fn parse(key: &str) -> Option<Self> {
        let dotted = key.replace('[', ".").replace(']', "");
        let mut segments = Vec::new();
        for part in dotted.split('.') {
            segments.push(match part.parse() {
                Ok(index) => Segment::Index(index),
                Err(_) if part.is_empty() || !part.chars().all(|c| c == '_' || c.is_ascii_alphanumeric()) => {
                    return None;
                }
                Err(_) => Segment::Name(part.into()),
            });
        }
        matches!(segments.first(), Some(Segment::Name(_))).then_some(Self(segments))
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|segment| match segment {
            Segment::Name(name) => Some(name.as_str()),
            Segment::Index(_) => None,
        })
    }

    /// Whether the schema has this key with a value of this type; if not, why.
    fn accepts(&self, value: &Spanned<DeValue<'_>>) -> Result<(), String> {
        let mut nested = value.clone();
        for segment in self.0.iter().rev() {
            let inner = match segment {
                Segment::Name(name) => {
                    let mut table = DeTable::new();
                    table.insert(Spanned::new(0..0, name.into()), nested);
                    DeValue::Table(table)
                }
                Segment::Index(_) => DeValue::Array(DeArray::from_iter([nested])),
            };
            nested = Spanned::new(0..0, inner);
        }
        let DeValue::Table(table) = nested.into_inner() else { return Err("not a key".into()) };
        match RawConfig::deserialize(Deserializer::from(Spanned::new(0..0, table))) {
            Ok(_) => Ok(()),
            Err(error) => Err(explain(error.message())),
        }
    }
}

impl std::fmt::Display for KeyPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (position, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Name(name) if position == 0 => f.write_str(name)?,
                Segment::Name(name) => write!(f, ".{name}")?,
                Segment::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// Turns parsed TOML into values of the `config` crate.
struct Reader<'a> {
    base: &'a Path,
    /// What to call the place of a byte of the text.
    place: &'a dyn Fn(usize) -> String,
}

impl Reader<'_> {
    fn table(&self, pattern: &str, table: &DeTable<'_>) -> Map<String, Value> {
        let entries = table.iter().map(|(key, value)| {
            let pattern = if pattern.is_empty() { key.to_string() } else { format!("{pattern}.{key}") };
            (key.to_string(), self.value(&pattern, value))
        });
        entries.collect()
    }

    /// `pattern` is the key path without the indices of arrays.
    fn value(&self, pattern: &str, value: &Spanned<DeValue<'_>>) -> Value {
        let origin = (self.place)(value.span().start);
        let kind = match value.get_ref() {
            DeValue::String(text) if is_path(pattern) => ValueKind::String(self.absolute(text)),
            DeValue::String(text) => ValueKind::String(text.to_string()),
            // The strict pass lets only integers through that fit.
            DeValue::Integer(integer) => {
                i64::from_str_radix(integer.as_str(), integer.radix()).map_or(ValueKind::Nil, ValueKind::I64)
            }
            DeValue::Float(float) => float.as_str().parse().map_or(ValueKind::Nil, ValueKind::Float),
            DeValue::Boolean(boolean) => ValueKind::Boolean(*boolean),
            DeValue::Datetime(datetime) => ValueKind::String(datetime.to_string()),
            DeValue::Array(array) => {
                ValueKind::Array(array.iter().map(|value| self.value(pattern, value)).collect())
            }
            DeValue::Table(table) => ValueKind::Table(self.table(pattern, table)),
        };
        Value::new(Some(&origin), kind)
    }

    fn absolute(&self, path: &str) -> String {
        let joined: PathBuf = self.base.join(path);
        std::path::absolute(&joined).unwrap_or(joined).to_string_lossy().into_owned()
    }
}
