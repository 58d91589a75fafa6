//! Power losses, at any operation of the disk, also while the store opens.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use dunlin::{
    store::{Committed, Committer, DiskOptions, Medium, Recovered},
    time::Timestamp,
};

use crate::{
    driver::{Driver, SHARDS},
    medium::{Disk, Fault},
    model::{Model, Told},
};

/// Small, so that a start spills queues.
const OPTIONS: DiskOptions = DiskOptions { cache_bytes: 1 << 20, index_bytes_max: 40, run_messages_max: 2 };

pub(crate) fn open(disk: &Disk) -> Result<(Committer, Recovered), String> {
    let medium: Arc<dyn Medium> = Arc::new(disk.clone());
    Committer::open(medium, OPTIONS, Timestamp::from_millis(0)).map_err(|error| error.to_string())
}

/// One store through some power losses. An error says what it lost or made up.
pub(crate) fn life(seed: u64, losses: usize, syncs_lie: bool) -> Result<(), String> {
    let mut driver = Driver::new(seed);
    let disk = Disk::default();
    // What the store has promised, and what it was told.
    let mut promised = Model::default();
    let mut told = Model::default();
    for _ in 0..=losses {
        let (committer, recovered) = survive_opening(&disk, &mut driver)?;
        // The last group is a transaction: it is there, or it is not.
        let adopted = match promised.check(&recovered, &committer) {
            Ok(adopted) => adopted,
            Err(what) => told
                .check(&recovered, &committer)
                .map_err(|other| format!("{what}; and with the last group: {other}"))?,
        };
        driver.resume(adopted.clone(), recovered.next);
        disk.state().syncs_lie = syncs_lie;
        let reach = 1 + driver.rng.below(300);
        disk.arm(reach, Fault::PowerLoss);
        (promised, told) = run(committer, &mut driver, adopted, &disk)?;
        if !disk.is_dead() {
            disk.disarm();
        }
        // Where the process alone ended, the system still has what it wrote.
        if driver.rng.one_in(4) {
            disk.revive();
        } else {
            disk.restart(&mut driver.rng);
        }
    }
    Ok(())
}

fn survive_opening(disk: &Disk, driver: &mut Driver) -> Result<(Committer, Recovered), String> {
    while driver.rng.one_in(2) {
        let reach = 1 + driver.rng.below(60);
        disk.arm(reach, Fault::PowerLoss);
        let opened = open(disk);
        disk.disarm();
        match opened {
            Ok(opened) if !disk.is_dead() => return Ok(opened),
            Ok(opened) => drop(opened),
            Err(_) if disk.is_dead() => {}
            Err(error) => return Err(error),
        }
        disk.restart(&mut driver.rng);
    }
    open(disk)
}

#[expect(clippy::disallowed_methods, reason = "a point to count from; nothing is measured")]
pub(crate) fn start() -> Instant {
    Instant::now()
}

/// Runs until the power fails, or for long enough. Returns what was promised, and that with the last group.
fn run(
    mut committer: Committer,
    driver: &mut Driver,
    model: Model,
    disk: &Disk,
) -> Result<(Model, Model), String> {
    let shards = Arc::new(Told::default());
    let attached: Arc<dyn Committed> = shards.clone();
    committer.attach(&attached);
    let mut promised = model;
    let mut now = start();
    for _ in 0..60 {
        let group = driver.group();
        committer.stage(group);
        if committer.commit(now).is_err() {
            return Ok((promised, driver.model.clone()));
        }
        promised = driver.model.clone();
        for shard in 0..SHARDS {
            if shards.newest(shard) != driver.commit(shard) {
                return Err(format!("shard {shard} was not told of its commit"));
            }
        }
        now += Duration::from_millis(driver.rng.below(3000));
        if driver.rng.one_in(2) && committer.maintain(now).is_err() {
            break;
        }
    }
    // Whether it succeeds or not, nothing is lost.
    if driver.rng.one_in(3) && committer.close(now).is_ok() {
        promised.forget_settled();
    } else {
        // What the database would write when it is dropped is not written either.
        disk.kill();
    }
    Ok((promised.clone(), promised))
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn what_was_promised_survives_any_power_loss() {
    let first = setting("DUNLIN_SEED").unwrap_or(1);
    let rounds = setting("DUNLIN_ROUNDS").unwrap_or(300);
    for seed in first..first + rounds {
        if let Err(what) = life(seed, 6, false) {
            panic!("DUNLIN_SEED={seed} DUNLIN_ROUNDS=1: {what}");
        }
    }
}

// The check itself is checked: a disk that lies about syncs loses what was promised, and that must be seen.
#[test]
fn a_disk_that_lies_is_caught() {
    let caught = (1..=20).filter(|seed| life(*seed, 6, true).is_err()).count();
    assert!(caught >= 15, "only {caught} of 20 were caught");
}
