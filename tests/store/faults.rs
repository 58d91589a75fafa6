//! A disk that is full, and one that fails.

use std::{sync::Arc, time::Duration};

use dunlin::{
    store::{Committed, Condition, Disk as Store, DiskOptions, Store as _, Trouble},
    time::Timestamp,
};

use crate::{
    driver::Driver,
    medium::{Disk, Fault},
    model::Told,
    power::{open, start},
};

/// What happens at the operation of this number, in the life of this seed.
struct Scene {
    driver: Driver,
    disk: Disk,
    shards: Arc<Told>,
}

impl Scene {
    fn new(seed: u64) -> (Scene, dunlin::store::Committer) {
        let disk = Disk::default();
        let (committer, recovered) = open(&disk).unwrap();
        let mut driver = Driver::new(seed);
        driver.resume(Default::default(), recovered.next);
        let shards = Arc::new(Told::default());
        let attached: Arc<dyn Committed> = shards.clone();
        committer.attach(&attached);
        (Scene { driver, disk, shards }, committer)
    }

    fn conditions(&self) -> Vec<Condition> {
        self.shards.conditions.lock().unwrap().clone()
    }
}

// Whichever write it is that finds no room: nothing is lost, and the store goes on by itself.
#[test]
fn a_full_disk_loses_nothing_and_passes() {
    let mut met = 0;
    for seed in 1..=150 {
        let (mut scene, mut committer) = Scene::new(seed);
        let mut now = start();
        let reach = 1 + scene.driver.rng.below(120);
        scene.disk.arm(reach, Fault::NoRoom);
        // In some lives even the reserve is not enough for a while.
        let is_hard = scene.driver.rng.one_in(2);
        scene.disk.state().reserve_is_short = is_hard;
        for _ in 0..20 {
            committer.stage(scene.driver.group());
            let mut tries = 0;
            while let Err(trouble) = committer.commit(now) {
                assert_eq!(trouble, Trouble::Full, "seed {seed}");
                assert!(is_hard, "seed {seed}: the reserve was given up in vain");
                now += Duration::from_secs(1);
                tries += 1;
                if tries == 3 {
                    scene.disk.state().reserve_is_short = false;
                }
                assert!(tries < 10, "seed {seed}: it does not recover");
            }
            for shard in 0..2 {
                assert_eq!(scene.shards.newest(shard), scene.driver.commit(shard), "seed {seed}");
            }
            now += Duration::from_millis(400);
            if scene.driver.rng.one_in(2) {
                match committer.maintain(now) {
                    Ok(_) => {}
                    Err(trouble) => {
                        assert_eq!(trouble, Trouble::Full);
                        scene.disk.state().reserve_is_short = false;
                        now += Duration::from_secs(1);
                        committer.maintain(now).unwrap();
                    }
                }
            }
        }
        let is_full = scene.disk.state().has_no_room;
        if is_full {
            met += 1;
            assert_eq!(scene.conditions(), [Condition::Full], "seed {seed}");
            scene.disk.disarm();
            scene.disk.state().has_no_room = false;
            now += Duration::from_secs(2);
            committer.maintain(now).unwrap();
            assert_eq!(scene.conditions(), [Condition::Full, Condition::Ready], "seed {seed}");
            assert!(!scene.disk.state().reserve_spent, "seed {seed}: there is no reserve again");
        }
        drop(committer);
        scene.disk.restart(&mut scene.driver.rng);
        let (committer, recovered) = open(&scene.disk).unwrap();
        scene.driver.model.check(&recovered, &committer).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
    }
    assert!(met > 100, "the disk was full in {met} lives only");
}

// After a write or a sync that fails nobody knows what the disk has.
#[test]
fn a_disk_that_fails_ends_the_store_and_nothing_is_promised_after() {
    let mut met = 0;
    for seed in 1..=150 {
        let (mut scene, mut committer) = Scene::new(seed);
        let mut now = start();
        let reach = 1 + scene.driver.rng.below(150);
        scene.disk.arm(reach, Fault::Io);
        let mut promised = scene.driver.model.clone();
        for _ in 0..30 {
            let group = scene.driver.group();
            let before = [0, 1].map(|shard| scene.shards.newest(shard));
            committer.stage(group);
            let failed = committer.commit(now).is_err();
            let failed = if failed {
                assert_eq!([0, 1].map(|shard| scene.shards.newest(shard)), before, "seed {seed}");
                true
            } else {
                promised = scene.driver.model.clone();
                now += Duration::from_millis(400);
                committer.maintain(now).is_err()
            };
            if failed {
                met += 1;
                let touched = scene.disk.state().touched_after_failure;
                let conditions = scene.conditions();
                assert!(matches!(conditions[..], [Condition::Failed(_)]), "seed {seed}: {conditions:?}");
                assert_eq!(committer.commit(now), Err(Trouble::Failed));
                assert_eq!(committer.maintain(now), Err(Trouble::Failed));
                assert_eq!(committer.close(now), Err(Trouble::Failed));
                assert_eq!(touched, 0, "seed {seed}: the disk was touched again");
                break;
            }
        }
        let told = scene.driver.model.clone();
        drop(committer);
        assert_eq!(scene.disk.state().touched_after_failure, 0, "seed {seed}: the disk was touched again");
        scene.disk.restart(&mut scene.driver.rng);
        let (committer, recovered) = open(&scene.disk).unwrap();
        let checked = promised.check(&recovered, &committer).or_else(|_| told.check(&recovered, &committer));
        checked.unwrap_or_else(|what| panic!("seed {seed}: {what}"));
    }
    assert!(met > 100, "the disk failed in {met} lives only");
}

#[test]
fn a_disk_that_is_nearly_full_is_told_before_it_is() {
    let (mut scene, mut committer) = Scene::new(1);
    let mut now = start();
    scene.disk.state().is_nearly_full = true;
    committer.stage(scene.driver.group());
    committer.commit(now).unwrap();
    assert_eq!(scene.conditions(), [Condition::Full]);
    scene.disk.state().is_nearly_full = false;
    now += Duration::from_secs(2);
    committer.maintain(now).unwrap();
    assert_eq!(scene.conditions(), [Condition::Full, Condition::Ready]);
}

// What is not closed is not to be trusted at the next start.
#[test]
fn a_store_whose_disk_is_full_to_the_end_does_not_say_that_it_is_closed() {
    for is_full in [false, true] {
        let disk = Disk::default();
        let medium = Arc::new(disk.clone());
        let (store, recovered) = Store::open(medium, DiskOptions::default(), Timestamp::default()).unwrap();
        let mut driver = Driver::new(3);
        driver.resume(Default::default(), recovered.next);
        disk.state().reserve_is_short = is_full;
        if is_full {
            disk.arm(0, Fault::NoRoom);
        }
        let shards: Arc<dyn Committed> = Arc::new(Told::default());
        for (shard, batch) in driver.group() {
            store.submit(shard, batch, &shards);
        }
        assert!(!store.is_closed());
        store.close();
        assert_eq!(store.is_closed(), !is_full);
    }
}
