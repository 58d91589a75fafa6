//! The types of tables, as far as copying them needs to know.
//!
//! redb opens a table only by its types, and what copies a database has none: [`Shape`] names those that the
//! store uses, and [`with_types`] turns one back into types.

use redb::{ReadTransaction, ReadableTable, Table, TableDefinition, TableError, Value, WriteTransaction};

use super::guard::guarded;

/// The types of the keys and values of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Of its keys.
    pub key: KeyShape,
    /// Of its values.
    pub value: ValueShape,
}

/// The type of the keys of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyShape {
    /// `&str`
    Text,
    /// `u64`
    Number,
    /// `(u64, u32)`
    Numbers,
    /// `(u64, &[u8])`
    NumberBytes,
    /// `&[u8]`
    Bytes,
}

/// The type of the values of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueShape {
    /// `&[u8]`
    Bytes,
    /// `u64`
    Number,
}

/// Runs an expression with the types of a shape.
macro_rules! with_types {
    ($shape:expr, $key:ident, $value:ident => $body:expr) => {{
        use $crate::store::shape::{KeyShape, ValueShape};
        macro_rules! with_value {
            ($K:ty) => {
                match $shape.value {
                    ValueShape::Bytes => {
                        type $key = $K;
                        type $value = &'static [u8];
                        $body
                    }
                    ValueShape::Number => {
                        type $key = $K;
                        type $value = u64;
                        $body
                    }
                }
            };
        }
        match $shape.key {
            KeyShape::Text => with_value!(&'static str),
            KeyShape::Number => with_value!(u64),
            KeyShape::Numbers => with_value!((u64, u32)),
            KeyShape::NumberBytes => with_value!((u64, &'static [u8])),
            KeyShape::Bytes => with_value!(&'static [u8]),
        }
    }};
}
pub(super) use with_types;

const KEYS: [KeyShape; 5] =
    [KeyShape::Text, KeyShape::Number, KeyShape::Numbers, KeyShape::NumberBytes, KeyShape::Bytes];
const VALUES: [ValueShape; 2] = [ValueShape::Bytes, ValueShape::Number];

impl Shape {
    /// Keys of this type, and values that are bytes.
    #[must_use]
    pub const fn of(key: KeyShape) -> Shape {
        Shape { key, value: ValueShape::Bytes }
    }

    /// The shape of a table of a database; `None` if it is none of ours.
    pub(super) fn of_table(transaction: &ReadTransaction, name: &str) -> Result<Option<Shape>, TableError> {
        for key in KEYS {
            for value in VALUES {
                let shape = Shape { key, value };
                let opened = with_types!(shape, K, V => {
                    transaction.open_table(TableDefinition::<'_, K, V>::new(name)).map(|_| ())
                });
                match opened {
                    Ok(()) => return Ok(Some(shape)),
                    Err(TableError::TableTypeMismatch { .. } | TableError::TypeDefinitionChanged { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(None)
    }

    /// Bytes of every key, if they all have as many.
    pub(super) fn key_bytes(self) -> Option<usize> {
        with_types!(self, K, V => { let _ = V::fixed_width(); K::fixed_width() })
    }

    /// Bytes of every value, if they all have as many.
    pub(super) fn value_bytes(self) -> Option<usize> {
        with_types!(self, K, V => { let _ = K::fixed_width(); V::fixed_width() })
    }
}

/// What became of a row that was to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Put {
    /// It is written.
    Written,
    /// There is a row of this key already, which stays.
    Present,
    /// The key is none of this table.
    Refused,
}

/// A table that takes rows as bytes.
pub(super) trait Sink {
    /// Writes a row unless there is one of its key.
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<Put, redb::StorageError>;
}

struct Typed<'t, K: redb::Key + 'static, V: Value + 'static> {
    table: Table<'t, K, V>,
    /// The highest key so far. What is above it needs no look-up, and most rows come in order.
    last: Option<Vec<u8>>,
}

impl<K: redb::Key + 'static, V: Value + 'static> Sink for Typed<'_, K, V> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<Put, redb::StorageError> {
        let fits = |bytes: &[u8], width: Option<usize>| width.is_none_or(|width| bytes.len() == width);
        if !fits(key, K::fixed_width()) || !fits(value, V::fixed_width()) {
            return Ok(Put::Refused);
        }
        // Bytes that are no key make redb's types panic; those that are one come back as they were.
        if !guarded(|| K::as_bytes(&K::from_bytes(key)).as_ref() == key).unwrap_or(false) {
            return Ok(Put::Refused);
        }
        let is_above = self.last.as_ref().is_some_and(|last| K::compare(last, key).is_lt());
        if !is_above && self.table.get(K::from_bytes(key))?.is_some() {
            return Ok(Put::Present);
        }
        self.table.insert(K::from_bytes(key), V::from_bytes(value))?;
        if is_above || self.last.is_none() {
            let last = self.last.get_or_insert_default();
            last.clear();
            last.extend_from_slice(key);
        }
        Ok(Put::Written)
    }
}

/// A key as redb keeps it.
fn bytes_of<K: redb::Key>(key: &K::SelfType<'_>) -> Vec<u8> {
    AsRef::<[u8]>::as_ref(&K::as_bytes(key)).to_vec()
}

/// Opens a table of a shape, making it if need be, and hands it over.
pub(super) fn with_sink<T>(
    transaction: &WriteTransaction,
    name: &str,
    shape: Shape,
    work: impl FnOnce(&mut dyn Sink) -> Result<T, redb::Error>,
) -> Result<T, redb::Error> {
    with_types!(shape, K, V => {
        let table = transaction.open_table(TableDefinition::<'_, K, V>::new(name))?;
        let last = table.last()?.map(|(key, _)| bytes_of::<K>(&key.value()));
        work(&mut Typed { table, last })
    })
}
