//! The codec against its table of packets, against the standard's own tables, against other codecs and
//! against bytes and packets that nobody wrote.

#[path = "../vectors/mod.rs"]
mod vectors;

mod table;
