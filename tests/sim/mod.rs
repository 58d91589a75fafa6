//! The deterministic simulator: the real broker, a disk, a network, clients and a clock in one thread, from one seed.
//!
//! The real `codec`, `session`, `broker::Shard` and store code run here, and redb on a disk in memory that knows
//! what is synced. Everything else is a model that does what the world does: it delays, cuts, merges and splits,
//! fills up, fails and loses power. A seed decides all of it, so whatever goes wrong goes wrong again.
//!
//! | question | file |
//! |---|---|
//! | what may happen in a run | `features` |
//! | what clients do | `script` (decisions), `client` (the protocol) |
//! | what the world does | `world`, `link` (network), `connection` (its two ends), `keeper` (store), `broker` (shards) |
//! | what must be true | `check/`, a file per invariant, over `event` and `facts` |
//! | why a seed fails | `trace`, `shrink` |

#![allow(dead_code, reason = "each crate that has this uses its part of it")]

mod broker;
mod check;
mod client;
mod connection;
mod event;
mod facts;
mod features;
mod keeper;
mod link;
#[path = "../store/medium.rs"]
mod medium;
#[path = "../store/rng.rs"]
mod rng;
mod script;
mod shrink;
mod trace;
mod world;

use std::{
    any::Any,
    cell::RefCell,
    panic::{AssertUnwindSafe, catch_unwind},
};

pub(crate) use features::Features;
pub(crate) use shrink::report;
pub(crate) use world::Violation;

use trace::Trace;

/// What a run is made of.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// What clients do, if not as many as the seed says.
    pub(crate) acts: Option<u64>,
    /// What does not happen, whatever the seed says.
    pub(crate) off: Features,
}

impl Plan {
    pub(crate) fn of(seed: u64) -> Plan {
        Plan { seed, acts: None, off: Features::default() }
    }
}

/// Runs a seed. `None` if all is as it should be.
pub(crate) fn run(plan: Plan) -> Option<Violation> {
    run_traced(plan, Trace::default()).0
}

fn run_traced(plan: Plan, trace: Trace) -> (Option<Violation>, Trace) {
    // It is needed after a panic too.
    let kept = RefCell::new(Trace::default());
    let run = || {
        let mut world = script::begin(plan.seed, plan.acts, plan.off, trace);
        let outcome = catch_unwind(AssertUnwindSafe(|| drive(&mut world)));
        kept.replace(std::mem::take(&mut world.trace));
        let violation = outcome.unwrap_or_else(|panic| Some(panicked(&*panic)));
        // Whatever state it is in, nobody is interested in it any more.
        if violation.is_some() {
            std::mem::forget(world);
        }
        violation
    };
    let violation = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| Some(panicked(&*panic)));
    (violation, kept.into_inner())
}

fn drive(world: &mut world::World) -> Option<Violation> {
    while world.acts > 0 && world.violation().is_none() {
        world.run_until(world.now + 1000);
    }
    if world.violation().is_none() {
        world.finish();
    }
    if world.violation().is_none() {
        world.clean_up();
    }
    world.violation().cloned()
}

fn panicked(panic: &(dyn Any + Send)) -> Violation {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a word");
    Violation { check: "panic", what: text.into() }
}
