//! Runs the deterministic simulator for long: `cargo run --release --example sim -- --seeds 100000`.
//!
//! It takes all cores, stops at the first seed that breaks an invariant, and prints the line that repeats it with
//! the end of the smallest run that shows it. See `tests/sim/mod.rs`.

#![allow(clippy::unwrap_used, reason = "a lock that is poisoned ends the program")]

#[path = "../tests/sim/mod.rs"]
mod sim;

use std::{
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use clap::Parser;
use sim::{Features, Plan, report, run};

// Half of what a run does is to allocate.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Runs seeds of the simulator.
#[derive(Parser)]
struct Options {
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// How many seeds.
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// Features that are off, divided by commas.
    #[arg(long, default_value = "")]
    off: String,
    /// Failures after which it stops.
    #[arg(long, default_value_t = 1)]
    failures: usize,
    /// Threads; as many as there are cores if not given.
    #[arg(long)]
    threads: Option<usize>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let off = match Features::parse(&options.off) {
        Ok(off) => off,
        Err(error) => {
            eprintln!("--off: {error}");
            return ExitCode::from(2);
        }
    };
    // Panics are findings, and are told as such.
    std::panic::set_hook(Box::new(|_| {}));
    let threads =
        options.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let (next, end) = (AtomicU64::new(options.from), options.from + options.seeds);
    let failures = Mutex::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while *failures.lock().unwrap() < options.failures {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        break;
                    }
                    let plan = Plan { off, ..Plan::of(seed) };
                    if let Some(violation) = run(plan) {
                        *failures.lock().unwrap() += 1;
                        println!("{}\n", report(plan, &violation));
                    }
                    if seed > 0 && seed.is_multiple_of(10_000) {
                        eprintln!("{seed} of {end}");
                    }
                }
            });
        }
    });
    let failures = *failures.lock().unwrap();
    println!(
        "{} seeds from {}, {failures} failed",
        next.load(Ordering::Relaxed).min(end) - options.from,
        options.from
    );
    if failures > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
