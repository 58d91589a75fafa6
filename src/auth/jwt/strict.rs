//! JSON objects in which nothing is said twice.
//!
//! Readers differ in which of two equal names they take. A token that means one thing to its issuer and
//! another to us is refused instead.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};

/// Reads an object. The error names no value.
pub(super) fn object(json: &[u8]) -> Result<Value, String> {
    // The library's own message may quote from the text.
    let value: Strict = serde_json::from_slice(json).map_err(|error| describe(&error))?;
    if value.0.is_object() { Ok(value.0) } else { Err("it is no JSON object".into()) }
}

fn describe(error: &serde_json::Error) -> String {
    match error.classify() {
        serde_json::error::Category::Data => "a name occurs twice in an object".into(),
        _ => format!("no JSON at column {} of line {}", error.column(), error.line()),
    }
}

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Strict, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Strict)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Strict(value)) = list.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Value, A::Error> {
        let mut values = Map::new();
        while let Some(name) = object.next_key::<String>()? {
            let Strict(value) = object.next_value()?;
            if values.insert(name, value).is_some() {
                return Err(A::Error::custom("a name occurs twice"));
            }
        }
        Ok(Value::Object(values))
    }
}

#[cfg(test)]
mod tests {
    use super::object;

    #[test]
    fn what_is_said_twice_is_refused_at_any_depth() {
        for json in [r#"{"a":1,"a":1}"#, r#"{"a":[{"b":1,"b":2}]}"#, r#"{"a":1,"\u0061":2}"#] {
            assert_eq!(object(json.as_bytes()), Err("a name occurs twice in an object".into()), "{json}");
        }
    }

    #[test]
    fn other_objects_are_what_the_library_reads() {
        for json in ["{}", r#"{"a":[1,-2,2.5,1e3,null,true,"x\n",{}],"b":{"a":18446744073709551615}}"#] {
            let expected: serde_json::Value = serde_json::from_str(json).unwrap();
            assert_eq!(object(json.as_bytes()), Ok(expected));
        }
        for json in ["[]", "1", "", "{", "{}x", "\"{}\""] {
            assert!(object(json.as_bytes()).is_err(), "{json}");
        }
    }
}
