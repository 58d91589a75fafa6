//! libFuzzer runs `fuzz/bodies/topics.rs`.

#![no_main]

#[path = "../bodies/topics.rs"]
mod topics;

libfuzzer_sys::fuzz_target!(|input: &[u8]| topics::run(input));
