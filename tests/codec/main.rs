//! The codec against its table of packets, against the standard's own tables, against other codecs and
//! against bytes and packets that nobody wrote.

#![allow(clippy::unwrap_used, reason = "a test may panic; its helpers are part of it")]

#[path = "../vectors/mod.rs"]
mod vectors;

mod limits;
mod oracle;
mod random;
mod standard;
mod table;
