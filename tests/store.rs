//! The store on disk: what it keeps when the power fails, the disk is full or broken, or nothing goes wrong.
//!
//! Crash tests take their seed from `DUNLIN_SEED`, and the number of rounds from `DUNLIN_ROUNDS`; a failure
//! prints the seed.

#![allow(clippy::unwrap_used, reason = "what is not there fails the test")]

#[path = "store/driver.rs"]
mod driver;
#[path = "store/faults.rs"]
mod faults;
#[path = "store/fixture.rs"]
mod fixture;
#[path = "store/medium.rs"]
mod medium;
#[path = "store/model.rs"]
mod model;
#[path = "store/power.rs"]
mod power;
#[path = "store/rng.rs"]
mod rng;
#[path = "store/rules.rs"]
mod rules;
#[path = "store/scale.rs"]
mod scale;
#[path = "store/spill.rs"]
mod spill;
