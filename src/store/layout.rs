//! The tables of the store, for those who copy, check and rescue it.

use redb::{Database, ReadableTable};

use super::{
    image::{self, Cursor},
    record,
    salvage::Schema,
    shape::{KeyShape, Shape, ValueShape},
    tables::{self, LOG, META, META_NEXT, META_SCHEMA, PART_BYTES_MAX, SCHEMA, SESSION},
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

    fn is_valid(&self, table: &str, key: &[u8], value: &[u8]) -> bool {
        match table {
            "log" => is_log_row(key, value),
            "session" => image::decode_session(value).is_ok(),
            "sub" => image::decode_subscription_key(key).is_ok() && image::decode_subscription(value).is_ok(),
            "cursor" => Cursor::decode(value).is_ok(),
            "retained" => std::str::from_utf8(key).is_ok() && image::decode_retained(value).is_ok(),
            _ => true,
        }
    }

    fn is_log(&self, table: &str) -> bool {
        table == "log"
    }

    /// The number of the format may be gone, and with it the next number that is free.
    fn mend(&self, database: &Database) -> Result<(), redb::Error> {
        let transaction = database.begin_write()?;
        {
            let mut meta = transaction.open_table(META)?;
            if meta.get(META_SCHEMA)?.is_none() {
                meta.insert(META_SCHEMA, SCHEMA)?;
            }
            let log =
                transaction.open_table(LOG)?.last()?.map_or(0, |(key, _)| tables::record_of(key.value()));
            let session = transaction.open_table(SESSION)?.last()?.map_or(0, |(key, _)| key.value());
            let known = meta.get(META_NEXT)?.map_or(0, |next| next.value());
            meta.insert(META_NEXT, known.max(log).max(session) + LOST_RECORDS_MAX)?;
        }
        transaction.commit()?;
        Ok(())
    }
}

/// Numbers that may have been given and be lost: they are not given again.
const LOST_RECORDS_MAX: u64 = 1 << 32;

/// Whether this is a row of the log: a whole record, or a part of a long one, which alone says little.
fn is_log_row(key: &[u8], value: &[u8]) -> bool {
    let Ok(key) = key.try_into().map(u64::from_le_bytes) else { return false };
    let is_part = tables::part_of(key) > 0 || value.len() == PART_BYTES_MAX;
    tables::record_of(key) > 0 && value.len() <= PART_BYTES_MAX && (is_part || record::decode(value).is_ok())
}
