//! Rules as TOML and JSON have them, in one shape.

use std::borrow::Cow;

use serde_json::Value as Json;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// A value and where it stands.
#[derive(Debug)]
pub(super) struct Item<'a> {
    /// In TOML a byte of the text, in JSON the number of the rule.
    pub(super) at: usize,
    pub(super) value: Value<'a>,
}

#[derive(Debug)]
pub(super) enum Value<'a> {
    Text(Cow<'a, str>),
    Integer(i64),
    Boolean(bool),
    List(Vec<Item<'a>>),
    Table(Table<'a>),
    /// What no key takes.
    Other,
}

/// Entries in the order of their keys, or of the text; each with the place of its key.
pub(super) type Table<'a> = Vec<(Cow<'a, str>, usize, Item<'a>)>;

impl<'a> Item<'a> {
    pub(super) fn of_toml(value: Spanned<DeValue<'a>>) -> Self {
        let at = value.span().start;
        let value = match value.into_inner() {
            DeValue::String(text) => Value::Text(text),
            DeValue::Integer(integer) => {
                i64::from_str_radix(integer.as_str(), integer.radix()).map_or(Value::Other, Value::Integer)
            }
            DeValue::Boolean(boolean) => Value::Boolean(boolean),
            DeValue::Array(array) => Value::List(array.into_iter().map(Item::of_toml).collect()),
            DeValue::Table(table) => Value::Table(of_toml_table(table)),
            DeValue::Float(_) | DeValue::Datetime(_) => Value::Other,
        };
        Self { at, value }
    }

    pub(super) fn of_json(value: &'a Json, at: usize) -> Self {
        let value = match value {
            Json::String(text) => Value::Text(text.into()),
            Json::Number(number) => number.as_i64().map_or(Value::Other, Value::Integer),
            Json::Bool(boolean) => Value::Boolean(*boolean),
            Json::Array(list) => Value::List(list.iter().map(|item| Item::of_json(item, at)).collect()),
            Json::Object(table) => {
                let entries = table.iter();
                Value::Table(entries.map(|(key, value)| (key.into(), at, Item::of_json(value, at))).collect())
            }
            Json::Null => Value::Other,
        };
        Self { at, value }
    }

    /// What it is, in words.
    pub(super) fn kind(&self) -> &'static str {
        match self.value {
            Value::Text(_) => "text",
            Value::Integer(_) => "a number",
            Value::Boolean(_) => "true or false",
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
            Value::Other => "something else",
        }
    }
}

pub(super) fn of_toml_table(table: DeTable<'_>) -> Table<'_> {
    let entries = table.into_iter();
    entries
        .map(|(key, value)| (key.span().start, key.into_inner(), value))
        .map(|(at, key, value)| (key, at, Item::of_toml(value)))
        .collect()
}
