//! libFuzzer runs `fuzz/bodies/session.rs`.

#![no_main]

#[path = "../bodies/session.rs"]
mod session;
#[path = "../../tests/world/mod.rs"]
mod world;

libfuzzer_sys::fuzz_target!(|input: &[u8]| session::run(input));
