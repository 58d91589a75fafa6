//! libFuzzer runs `fuzz/bodies/records.rs`.

#![no_main]

#[path = "../bodies/records.rs"]
mod records;

libfuzzer_sys::fuzz_target!(|input: &[u8]| records::run(input));
