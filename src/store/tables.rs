//! The tables of the database. `docs/storage.md` describes them.

use std::ops::RangeInclusive;

use redb::TableDefinition;

/// The number of the format that this release writes. It opens all lower ones.
pub const SCHEMA: u64 = 1;

/// What is said of the database itself, by name.
pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// Record and part → bytes.
pub(super) const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
/// Session → its fields.
pub(super) const SESSION: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("session");
/// Session and filter → options.
pub(super) const SUBSCRIPTION: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("sub");
/// Session → how far it has come.
pub(super) const CURSOR: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("cursor");
/// Topic → retained message.
pub(super) const RETAINED: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("retained");
/// Session and first number → references of a run of messages. Nothing in it outlives the broker that wrote it.
pub(super) const SPILLED: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("sessq");

/// In `META`: the number of the format.
pub(super) const META_SCHEMA: &str = "schema";
/// In `META`: all records and sessions had lower numbers when the log was last folded.
pub(super) const META_NEXT: &str = "next";
/// In `META`: no record of the log below this one says what is retained.
pub(super) const META_FLOOR: &str = "floor";
/// In `META`: 1 if the broker ended in order, and all of the log was folded that can be.
pub(super) const META_CLEAN: &str = "clean";

/// Bytes of one row of the log at most: with its key it fits a page of 64 KiB.
pub(super) const PART_BYTES_MAX: usize = 65_536 - 64;

const PART_BITS: u32 = 16;

/// Dead records this close to each other are deleted in one go, over what lives between them.
pub(super) const CLUSTER_GAP_RECORDS_MAX: u64 = 64;

/// The key of one part of a record.
pub(super) fn log_key(record: u64, part: u64) -> u64 {
    record << PART_BITS | part
}

/// All keys of some records.
pub(super) fn log_keys(first: u64, last: u64) -> RangeInclusive<u64> {
    log_key(first, 0)..=log_key(last, (1 << PART_BITS) - 1)
}

/// The record of a key.
pub(super) fn record_of(key: u64) -> u64 {
    key >> PART_BITS
}

/// The part of a key.
pub(super) fn part_of(key: u64) -> u64 {
    key & ((1 << PART_BITS) - 1)
}
