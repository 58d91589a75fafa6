#![expect(clippy::disallowed_methods, reason = "what is measured is time")]

//! The disk of the data directory: how long a flush takes, and how much room there is.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process,
    time::{Duration, Instant},
};

use rustix::fs::statvfs;

use crate::{
    cli::place::megabytes,
    config::{Config, Persistence},
};

use super::Report;

/// Flushes that are measured, unless they take too long.
const FLUSHES_MAX: usize = 100;
/// How long they may take together.
const FLUSHES_DURATION_MAX: Duration = Duration::from_secs(2);
/// Bytes between two flushes, as a small transaction has.
const FLUSH_BYTES: usize = 4096;
/// A flush that takes longer is felt by every publisher of QoS 1 and 2.
const FLUSH_SLOW: Duration = Duration::from_millis(20);
/// The broker keeps 64 MiB in reserve, and refuses publishers when less than as much is free.
const FREE_BYTES_MIN: u64 = 64 << 20;
/// Less is not much.
const FREE_BYTES_SMALL: u64 = 1 << 30;
/// Files that are made while a broker runs, with some room.
const INODES_SMALL: u64 = 100;

pub(super) fn look(report: &mut Report, config: &Config) {
    if config.persistence == Persistence::Memory {
        return;
    }
    let path = config.data_dir.as_path();
    // Before the first start, the disk is that of the directory where it is made.
    let Some(existing) = path.ancestors().take(2).find(|path| path.is_dir()) else { return };
    look_at_room(report, existing);
    match flushes(existing) {
        Ok(times) => look_at_flushes(report, &times),
        Err(error) => report.problem(
            "disk",
            format!("nothing can be written in {}: {error}", existing.display()),
            "make it writable for this user, or run this as the user of the broker",
        ),
    }
}

fn look_at_room(report: &mut Report, path: &Path) {
    let room = match statvfs(path) {
        Ok(room) => room,
        Err(error) => {
            let advice = "run this as the user of the broker, or as root";
            return report.warn("disk space", format!("it is not known: {error}"), advice);
        }
    };
    let (free, total) = (room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize);
    let what = format!("{} of {} are free", megabytes(free), megabytes(total));
    if free < FREE_BYTES_MIN {
        report.problem(
            "disk space",
            format!("{what}: messages that need the disk are refused"),
            "make room on the file system; of the data directory delete nothing but quarantine/ and replaced-*.redb",
        );
    } else if free < FREE_BYTES_SMALL || free < total / 20 {
        report.warn("disk space", what, "make room, before messages that need the disk are refused");
    } else {
        report.ok("disk space", what);
    }
    // File systems that make inodes as they need them tell of none.
    if room.f_files > 0 && room.f_favail < INODES_SMALL {
        let what = format!("{} files can still be made", room.f_favail);
        report.problem("disk inodes", what, "delete small files on the file system");
    } else if room.f_files > 0 {
        report.ok("disk inodes", format!("{} files can still be made", room.f_favail));
    }
}

/// The times of some flushes, in order of length; at least one.
fn flushes(directory: &Path) -> io::Result<Vec<Duration>> {
    let mut probe = Probe::create(directory)?;
    let started = Instant::now();
    let mut times = Vec::with_capacity(FLUSHES_MAX);
    while times.is_empty() || (times.len() < FLUSHES_MAX && started.elapsed() < FLUSHES_DURATION_MAX) {
        let before = Instant::now();
        probe.file.write_all(&[0; FLUSH_BYTES])?;
        probe.file.sync_data()?;
        times.push(before.elapsed());
    }
    times.sort_unstable();
    Ok(times)
}

fn look_at_flushes(report: &mut Report, times: &[Duration]) {
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    let (median, slow) = (at(50), at(99));
    let what = format!(
        "of {} flushes of 4 KiB half took {:.2} ms at most, and 99 % {:.2} ms",
        times.len(),
        median.as_secs_f64() * 1e3,
        slow.as_secs_f64() * 1e3
    );
    if slow > FLUSH_SLOW {
        let advice = "every acknowledgement waits for one: use a faster disk, or durability = \"interval\" where \
                      that is enough";
        report.warn("disk flush", what, advice);
    } else {
        report.ok("disk flush", what);
    }
}

/// A file that is gone when it is dropped.
struct Probe {
    path: PathBuf,
    file: File,
}

impl Probe {
    fn create(directory: &Path) -> io::Result<Probe> {
        let path = directory.join(format!(".dunlin-doctor-{}", process::id()));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Probe { path, file })
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        // Of a file system that fails at this moment, the file is the smallest trouble.
        let _ = fs::remove_file(&self.path);
    }
}
