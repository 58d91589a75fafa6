//! The tables of the store, for those who copy, check and rescue it.

use redb::Database;

use super::{
    salvage::Schema,
    shape::{KeyShape, Shape, ValueShape},
};

/// The tables of the store.
#[derive(Clone, Copy, Debug, Default)]
pub struct Layout;

const TABLES: &[(&str, Shape)] = &[
    ("meta", Shape { key: KeyShape::Text, value: ValueShape::Number }),
    ("log", Shape::of(KeyShape::Number)),
    ("session", Shape::of(KeyShape::Number)),
    ("sub", Shape::of(KeyShape::Bytes)),
    ("cursor", Shape::of(KeyShape::Number)),
    ("retained", Shape::of(KeyShape::Bytes)),
];

impl Layout {
    /// The table that holds the number of the format, and its key there.
    pub const SCHEMA: (&'static str, &'static str) = ("meta", "schema");
}

impl Schema for Layout {
    fn tables(&self) -> &'static [(&'static str, Shape)] {
        TABLES
    }

    /// Records are not looked into: a row is taken as it is.
    fn is_valid(&self, _: &str, _: &[u8], _: &[u8]) -> bool {
        true
    }

    fn is_log(&self, table: &str) -> bool {
        table == "log"
    }

    fn mend(&self, _: &Database) -> Result<(), redb::Error> {
        Ok(())
    }
}
