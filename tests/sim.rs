//! The deterministic simulator: see `sim/mod.rs`.
//!
//! `DUNLIN_SEED` runs one seed, `DUNLIN_SEEDS` so many; `cargo run --release --example sim -- --seeds 100000` runs
//! long.

#![allow(clippy::unwrap_used, reason = "what is not there fails the test")]

#[path = "sim/mod.rs"]
mod sim;

use std::sync::atomic::{AtomicU64, Ordering};

use sim::{Features, Plan, report, run};

/// Seeds of a run of the tests.
const SEEDS: u64 = 2000;

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|error| panic!("{variable} is no number: {error}")))
}

/// Seeds that a mutation has to be caught in.
#[cfg(feature = "mutations")]
const MUTATION_SEEDS: u64 = 30_000;

/// Where the search begins: two faults are so rare that CI cannot search from the start. Whoever changes the simulator
/// has to find such seeds anew.
#[cfg(feature = "mutations")]
fn first_seed(mutation: dunlin::mutation::Mutation) -> u64 {
    use dunlin::mutation::Mutation;
    match mutation {
        Mutation::PassedForgotten => 23_400,
        Mutation::StartNotStored => 19_890,
        _ => 0,
    }
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
            let next = AtomicU64::new(0);
            let threads = std::thread::available_parallelism().map_or(1, usize::from);
            std::thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(|| {
                        while let seed = next.fetch_add(1, Ordering::Relaxed)
                            && seed < seeds
                        {
                            check(Plan { off, ..Plan::of(seed) });
                        }
                    });
                }
            });
        }
    }
}

/// A check that sees nothing is worth nothing: each deliberate fault has to be seen. The last ones are those that
/// the simulator has found, made again.
#[cfg(feature = "mutations")]
#[test]
fn every_mutation_is_caught() {
    use dunlin::mutation::{Mutation, inject};
    // A mutated broker may panic.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let mut missed = Vec::new();
    println!("| mutation | seeds | caught by |\n|---|---|---|");
    for mutation in Mutation::ALL {
        inject(Some(mutation));
        // An assertion in the broker is no check.
        let caught = (first_seed(mutation)..MUTATION_SEEDS).find_map(|seed| {
            let violation = run(Plan::of(seed)).filter(|violation| violation.check != "panic")?;
            Some((seed + 1, violation))
        });
        match caught {
            Some((seeds, violation)) => println!("| {mutation:?} | {seeds} | `{}` |", violation.check),
            None => missed.push(mutation),
        }
    }
    inject(None);
    std::panic::set_hook(hook);
    assert!(missed.is_empty(), "{missed:?} are not caught by {MUTATION_SEEDS} seeds");
}
