//! Who has a file locked or a socket open, as `/proc` tells it. Other systems tell nothing, and neither does Linux of
//! the processes of others, except to root.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

/// The process that has locked a file.
pub(super) fn lock_holder(file: &Path) -> Option<u32> {
    let inode = fs::metadata(file).ok()?.ino();
    let locks = fs::read_to_string("/proc/locks").ok()?;
    // 1: FLOCK  ADVISORY  WRITE 4711 fe:01:1234 0 EOF
    locks.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip_while(|word| *word != "FLOCK").skip(3);
        let pid = words.next()?.parse().ok()?;
        let locked: u64 = words.next()?.rsplit(':').next()?.parse().ok()?;
        (locked == inode).then_some(pid)
    })
}

/// What has a socket open, by the inode of the socket.
pub(super) fn socket_holders(inode: u64) -> Vec<u32> {
    let wanted = format!("socket:[{inode}]");
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| has_open(*pid, &wanted)).collect()
}

fn has_open(pid: u32, wanted: &str) -> bool {
    let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    files.flatten().any(|file| fs::read_link(file.path()).is_ok_and(|to| to.as_os_str() == wanted))
}

/// A process in words.
pub(super) fn named(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    // A process may give itself any name.
    let name: String = name.trim().chars().filter(|c| !c.is_control()).collect();
    if name.is_empty() { format!("process {pid}") } else { format!("process {pid} ({name})") }
}
