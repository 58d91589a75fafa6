//! libFuzzer runs `fuzz/bodies/round_trip.rs`.

#![no_main]

#[path = "../bodies/round_trip.rs"]
mod round_trip;

libfuzzer_sys::fuzz_target!(|input: &[u8]| round_trip::run(input));
