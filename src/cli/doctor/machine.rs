//! The machine: clocks, memory, limits, and settings of the kernel.

use std::fs;

use rustix::{
    process::{Resource, getrlimit},
    time::{ClockId, Timespec, clock_gettime},
};

use crate::{cli::place::megabytes, config::Config};

use super::Report;

/// 2025-01-01: a clock that is behind this one was never set.
const CLOCK_SECS_MIN: i64 = 1_735_689_600;
/// So far the two clocks may drift apart while we look.
const CLOCK_STEP_MILLIS_MAX: i64 = 100;
/// What the broker asks for of each listener.
const BACKLOG: u64 = 1024;
/// Files that the broker has open besides connections: listeners for each shard, the store, logs.
const OTHER_FILES: u64 = 256;
/// Less memory than this is soon used up by anything.
const AVAILABLE_BYTES_SMALL: u64 = 256 << 20;

/// Both clocks at one moment.
pub(super) struct Clocks {
    wall: Timespec,
    monotonic: Timespec,
}

impl Clocks {
    pub(super) fn now() -> Clocks {
        Clocks { wall: clock_gettime(ClockId::Realtime), monotonic: clock_gettime(ClockId::Monotonic) }
    }

    /// By how much the wall clock was set forward since, in milliseconds.
    fn step_millis(&self, now: &Clocks) -> i64 {
        let millis = |time: &Timespec| time.tv_sec * 1000 + time.tv_nsec / 1_000_000;
        (millis(&now.wall) - millis(&self.wall)) - (millis(&now.monotonic) - millis(&self.monotonic))
    }
}

/// Seconds since 1970.
pub(super) fn wall_clock_secs() -> i64 {
    clock_gettime(ClockId::Realtime).tv_sec
}

pub(super) fn look(report: &mut Report, before: &Clocks) {
    look_at_clock(report, before);
    look_at_kernel(report);
}

fn look_at_clock(report: &mut Report, before: &Clocks) {
    const CHECK: &str = "clock";
    let now = Clocks::now();
    let step = before.step_millis(&now);
    if now.wall.tv_sec < CLOCK_SECS_MIN {
        report.problem(
            CHECK,
            "it was never set: certificates and tokens are not valid yet, and messages expire at the wrong time",
            "set it, and have it set by NTP (systemd-timesyncd, chrony) before the broker starts",
        );
    } else if step.abs() > CLOCK_STEP_MILLIS_MAX {
        report.warn(
            CHECK,
            format!("it has jumped by {step} ms while this looked"),
            "let one program alone set it, which slews (chrony) instead of stepping",
        );
    } else {
        report.ok(CHECK, "it is set, and goes evenly");
    }
}

fn look_at_kernel(report: &mut Report) {
    const CHECK: &str = "kernel";
    let queue = number("/proc/sys/net/core/somaxconn");
    match queue {
        Some(queue) if queue < BACKLOG => report.warn(
            CHECK,
            format!(
                "net.core.somaxconn is {queue}: of many clients that connect at once, some wait for seconds"
            ),
            format!("sysctl -w net.core.somaxconn={BACKLOG}, and write it to /etc/sysctl.d"),
        ),
        Some(queue) => report.ok(CHECK, format!("net.core.somaxconn is {queue}")),
        None => {}
    }
    if let Some(probes) = number("/proc/sys/net/ipv4/tcp_keepalive_probes") {
        // The broker sets the other two of its sockets.
        let minutes = 10 + probes;
        let what = format!("a dead peer without Keep Alive is noticed after {minutes} minutes");
        if probes > 15 {
            report.warn(CHECK, what, "sysctl -w net.ipv4.tcp_keepalive_probes=9");
        } else {
            report.ok(CHECK, what);
        }
    }
    // It refuses what is asked for in advance and never used, as allocators and threads do.
    if number("/proc/sys/vm/overcommit_memory") == Some(2) {
        report.warn(
            CHECK,
            "vm.overcommit_memory is 2: memory may be refused while there is some",
            "sysctl -w vm.overcommit_memory=0",
        );
    }
}

/// Limits of the process against those of the configuration. `broker` is the one that runs.
pub(super) fn look_at_limits(report: &mut Report, config: &Config, broker: Option<u32>) {
    look_at_open_files(report, config, broker);
    look_at_memory(report, config);
    let wanted = config.limits.connections_max as u64;
    if let Some(tracked) = number("/proc/sys/net/netfilter/nf_conntrack_max").filter(|max| *max < wanted) {
        report.warn(
            "kernel",
            format!("the firewall tracks {tracked} connections, limits.connections_max is {wanted}"),
            format!("sysctl -w net.netfilter.nf_conntrack_max={}", wanted * 2),
        );
    }
}

fn look_at_open_files(report: &mut Report, config: &Config, broker: Option<u32>) {
    const CHECK: &str = "open files";
    let wanted = config.limits.connections_max as u64 + OTHER_FILES;
    let (whose, allowed) = match broker.and_then(files_of) {
        Some(allowed) => ("the running broker", allowed),
        // The broker raises the one that holds to the one that it may raise it to.
        None => ("a process started from here", getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX)),
    };
    let what = format!("{whose} may open {allowed}, limits.connections_max needs {wanted}");
    if allowed < wanted {
        let advice = format!(
            "LimitNOFILE={wanted} in the unit, or ulimit -n {wanted}; or lower limits.connections_max"
        );
        report.warn(CHECK, what, advice);
    } else {
        report.ok(CHECK, what);
    }
}

/// The limit of open files of a process.
fn files_of(pid: u32) -> Option<u64> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().nth(1)? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

fn look_at_memory(report: &mut Report, config: &Config) {
    const CHECK: &str = "memory";
    let Some(machine) = memory("MemTotal:") else { return };
    let available = memory("MemAvailable:").unwrap_or(machine);
    let total = container_bytes().map_or(machine, |limit| limit.min(machine));
    let budget = config.memory_bytes_max as u64;
    let what = format!("{} of {} are available", megabytes(available.min(total)), megabytes(total));
    if budget > total {
        let advice = format!("lower guard.memory_bytes_max to at most {} MiB", (total / 4 * 3) >> 20);
        report.warn(
            CHECK,
            format!("{what}, and guard.memory_bytes_max allows {}", megabytes(budget)),
            advice,
        );
    } else if available < AVAILABLE_BYTES_SMALL {
        report.warn(CHECK, what, "stop what else takes it, or give the machine more");
    } else if budget == 0 && total < machine {
        let advice = format!(
            "set guard.memory_bytes_max = \"{} MiB\", so that the broker refuses instead of being killed",
            (total / 4 * 3) >> 20
        );
        report.warn(
            CHECK,
            format!("{what}, which is a limit of this container, and the broker has none"),
            advice,
        );
    } else {
        report.ok(CHECK, what);
    }
}

fn memory(key: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// What the control group of this process may take, where there is one with a limit.
fn container_bytes() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    number(&format!("/sys/fs/cgroup{}/memory.max", path.trim_end_matches('/')))
}

/// The number in a file.
fn number(file: &str) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_what_one_clock_has_made_more_than_the_other() {
        let at = |secs, nanos| Timespec { tv_sec: secs, tv_nsec: nanos };
        let before = Clocks { wall: at(1000, 900_000_000), monotonic: at(5, 0) };
        let even = Clocks { wall: at(1002, 0), monotonic: at(6, 100_000_000) };
        assert_eq!(before.step_millis(&even), 0);
        let back = Clocks { wall: at(1001, 0), monotonic: at(6, 100_000_000) };
        assert_eq!(before.step_millis(&back), -1000);
    }
}
