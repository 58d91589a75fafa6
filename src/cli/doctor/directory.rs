//! The data directory: whether it can be used, who else may enter it, and who uses it now.

use std::{fs, io, os::unix::fs::MetadataExt, path::Path};

use rustix::process::geteuid;

use crate::config::{Config, Persistence};

use super::{Report, processes};

const CHECK: &str = "data directory";
/// The file that a broker holds locked.
const LOCK: &str = "lock";

/// Returns the broker that uses the directory, if one does.
pub(super) fn look(report: &mut Report, config: &Config) -> Option<u32> {
    let path = config.data_dir.as_path();
    if config.persistence == Persistence::Memory {
        report.ok(CHECK, "none is used: persistence = \"memory\" keeps nothing");
        return None;
    }
    match fs::metadata(path) {
        Ok(data) if data.is_dir() => look_at_rights(report, path, &data),
        Ok(_) => report.problem(
            CHECK,
            format!("{} is not a directory", path.display()),
            "name another with --data-dir, or remove the file",
        ),
        Err(error) if error.kind() == io::ErrorKind::NotFound => look_at_parent(report, path),
        Err(error) => report.problem(
            CHECK,
            format!("{} cannot be looked at: {error}", path.display()),
            "run this as the user of the broker, or as root",
        ),
    }
    let holder = processes::lock_holder(&path.join(LOCK));
    match holder {
        Some(pid) => report.ok("lock", format!("{} uses the directory", processes::named(pid))),
        None => report.ok("lock", "no broker uses the directory"),
    }
    holder
}

fn look_at_rights(report: &mut Report, path: &Path, data: &fs::Metadata) {
    let (shown, mode) = (path.display(), data.mode() & 0o777);
    let user = geteuid();
    if mode & 0o077 != 0 {
        report.warn(
            CHECK,
            format!("{shown} has mode {mode:o}: others than its owner may enter it, and messages are in it"),
            format!("chmod 700 {shown}"),
        );
    }
    if !user.is_root() && user.as_raw() != data.uid() {
        report.problem(
            CHECK,
            format!("{shown} belongs to user {}, and this is user {}", data.uid(), user.as_raw()),
            format!(
                "chown it, or run this as the user of the broker: sudo -u '#{}' dunlin doctor",
                data.uid()
            ),
        );
        return;
    }
    // What is true for this user is said by trying; for root it is always true, and says little.
    report.ok(CHECK, format!("{shown} belongs to user {} with mode {mode:o}", data.uid()));
}

fn look_at_parent(report: &mut Report, path: &Path) {
    let shown = path.display();
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // The new home of a user lacks these two, which are made.
    let is_of_home = parent.ends_with(".local/share");
    if parent.is_dir() || is_of_home {
        report.ok(CHECK, format!("{shown} does not exist and is made at the first start"));
    } else {
        report.problem(
            CHECK,
            format!("{shown} cannot be made: {} does not exist", parent.display()),
            format!("mount it, or mkdir -p {}", parent.display()),
        );
    }
}
