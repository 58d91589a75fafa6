//! libFuzzer runs `fuzz/bodies/acl.rs`.

#![no_main]

#[path = "../bodies/acl.rs"]
mod acl;

libfuzzer_sys::fuzz_target!(|input: &[u8]| acl::run(input));
