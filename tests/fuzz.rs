//! The bodies of the fuzz targets on the stable toolchain: the inputs that the fuzzer starts from, those that
//! `fuzz/corpus` keeps, and some mutations of them. `docs/testing.md` tells of the fuzzing itself.
//!
//! A failure prints how to repeat it. `DUNLIN_ROUNDS=n` makes so many mutations for each target, from the seed
//! `DUNLIN_SEED` on.

#![allow(clippy::unwrap_used, reason = "a test may panic; its helpers are part of it")]

mod vectors;
mod world;

#[path = "../fuzz/bodies/acl.rs"]
mod acl;
#[path = "../fuzz/bodies/decode.rs"]
mod decode;
#[path = "../fuzz/bodies/proxy.rs"]
mod proxy;
#[path = "../fuzz/bodies/records.rs"]
mod records;
#[path = "../fuzz/bodies/round_trip.rs"]
mod round_trip;
#[path = "../fuzz/bodies/session.rs"]
mod session;
#[path = "../fuzz/bodies/tokens.rs"]
mod tokens;
#[path = "../fuzz/bodies/topics.rs"]
mod topics;
#[path = "../fuzz/bodies/websocket.rs"]
mod websocket;

#[path = "fuzz/mutate.rs"]
mod mutate;
#[path = "fuzz/seeds.rs"]
mod seeds;

use std::{
    fs,
    path::{Path, PathBuf},
};

use mutate::Random;

/// One target.
struct Target {
    name: &'static str,
    run: fn(&[u8]),
    /// Mutations of a usual test run: each target takes a second or two of them.
    rounds: u64,
}

const ACL: Target = Target { name: "acl", run: acl::run, rounds: 2_000 };
const DECODE: Target = Target { name: "decode", run: decode::run, rounds: 100_000 };
const ROUND_TRIP: Target = Target { name: "round_trip", run: round_trip::run, rounds: 40_000 };
const TOPICS: Target = Target { name: "topics", run: topics::run, rounds: 4_000 };
const SESSION: Target = Target { name: "session", run: session::run, rounds: 1_500 };
const WEBSOCKET: Target = Target { name: "websocket", run: websocket::run, rounds: 4_000 };
const PROXY: Target = Target { name: "proxy", run: proxy::run, rounds: 40_000 };
const RECORDS: Target = Target { name: "records", run: records::run, rounds: 40_000 };
const TOKENS: Target = Target { name: "tokens", run: tokens::run, rounds: 40_000 };

#[test]
fn access_rules_are_refused_or_decide_as_a_search_of_all_does() {
    check(&ACL);
}

#[test]
fn any_bytes_are_decoded_or_refused() {
    check(&DECODE);
}

#[test]
fn what_was_decoded_is_encoded_and_reads_the_same() {
    check(&ROUND_TRIP);
}

#[test]
fn indexes_of_topics_find_what_a_search_of_all_finds() {
    check(&TOPICS);
}

#[test]
fn a_broker_keeps_its_rules_whatever_its_clients_do() {
    check(&SESSION);
}

#[test]
fn a_websocket_gives_back_what_was_sent_however_it_is_cut() {
    check(&WEBSOCKET);
}

#[test]
fn a_proxy_header_says_the_same_however_it_is_cut() {
    check(&PROXY);
}

#[test]
fn stored_bytes_are_read_or_refused() {
    check(&RECORDS);
}

#[test]
fn claims_make_a_whole_principal_or_none() {
    check(&TOKENS);
}

/// Not a test: gives the fuzzer what to start from.
#[test]
#[ignore = "writes fuzz/work"]
fn write_fuzz_seeds() {
    for (target, inputs) in seeds::all() {
        let directory = fuzz().join("work").join(target);
        fs::create_dir_all(&directory).expect("the directory can be made");
        for (name, input) in inputs {
            fs::write(directory.join(name), input).expect("the directory can be written");
        }
    }
}

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// What a target starts from, and what is kept of what the fuzzer found, by name.
fn inputs(target: &str) -> Vec<(String, Vec<u8>)> {
    let mut inputs = seeds::of(target);
    let kept = fs::read_dir(fuzz().join("corpus").join(target)).expect("each target has a corpus");
    let kept = kept.map(|entry| entry.expect("a readable entry").path());
    let first = inputs.len();
    inputs.extend(kept.map(|path| (path.display().to_string(), fs::read(&path).expect("a readable file"))));
    // So that a seed means the same everywhere.
    inputs[first..].sort();
    inputs
}

/// Says which input it was that failed.
struct Repeat<'a> {
    what: String,
    input: &'a [u8],
}

impl Drop for Repeat<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let hex: String = self.input.iter().map(|byte| format!("{byte:02x}")).collect();
            eprintln!("{}\ninput: {hex}", self.what);
        }
    }
}

/// Runs a target with what is kept for it, and with mutations of that.
fn check(target: &Target) {
    let name = target.name;
    let (names, inputs): (Vec<String>, Vec<Vec<u8>>) = inputs(name).into_iter().unzip();
    for (of, input) in names.iter().zip(&inputs) {
        let _repeat = Repeat { what: format!("failed with {of} ({name})"), input };
        (target.run)(input);
    }
    let first = number("DUNLIN_SEED").unwrap_or(0);
    for seed in first..first + number("DUNLIN_ROUNDS").unwrap_or(target.rounds) {
        let input = mutate::of(&inputs, &mut Random::new(seed));
        let what = format!("repeat with: DUNLIN_SEED={seed} DUNLIN_ROUNDS=1 cargo test --test fuzz ({name})");
        let _repeat = Repeat { what, input: &input };
        (target.run)(&input);
    }
}

/// A number from the environment.
fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|error| panic!("{variable} is no number: {error}")))
}
