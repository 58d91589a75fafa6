//! libFuzzer runs `fuzz/bodies/websocket.rs`.

#![no_main]

#[path = "../bodies/websocket.rs"]
mod websocket;

libfuzzer_sys::fuzz_target!(|input: &[u8]| websocket::run(input));
