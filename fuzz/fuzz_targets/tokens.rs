//! libFuzzer runs `fuzz/bodies/tokens.rs`.

#![no_main]

#[path = "../bodies/tokens.rs"]
mod tokens;

libfuzzer_sys::fuzz_target!(|input: &[u8]| tokens::run(input));
