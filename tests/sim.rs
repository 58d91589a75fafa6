//! The deterministic simulator: see `sim/mod.rs`.
//!
//! `DUNLIN_SEED` runs one seed, `DUNLIN_SEEDS` so many; `cargo run --release --example sim -- --seeds 100000` runs
//! long.

#![allow(clippy::unwrap_used, reason = "what is not there fails the test")]

#[path = "sim/mod.rs"]
mod sim;

use sim::{Features, Plan, report, run};

/// Seeds of a run of the tests.
const SEEDS: u64 = 2000;

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|error| panic!("{variable} is no number: {error}")))
}

fn check(plan: Plan) {
    if let Some(violation) = run(plan) {
        panic!("\n{}", report(plan, &violation));
    }
}

#[test]
fn every_invariant_holds_whatever_happens() {
    let off = std::env::var("DUNLIN_SIM_OFF").unwrap_or_default();
    let off = Features::parse(&off).unwrap_or_else(|error| panic!("DUNLIN_SIM_OFF: {error}"));
    match number("DUNLIN_SEED") {
        Some(seed) => check(Plan { acts: number("DUNLIN_SIM_ACTS"), off, ..Plan::of(seed) }),
        None => {
            let seeds = number("DUNLIN_SEEDS").unwrap_or(SEEDS);
            (0..seeds).for_each(|seed| check(Plan { off, ..Plan::of(seed) }));
        }
    }
}
