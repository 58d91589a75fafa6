//! Where listeners are to listen: whether it is free, or who has it.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    path::Path,
};

use rustix::process::geteuid;

use crate::config::{Address, Config, Listener};

use super::{Report, processes};

const CHECK: &str = "listeners";

/// `broker` is the process that uses the data directory.
pub(super) fn look(report: &mut Report, config: &Config, broker: Option<u32>) {
    for listener in &config.listeners {
        match &listener.address {
            Address::Tcp(address) => look_at_tcp(report, listener, *address, broker),
            Address::Unix(path) => look_at_unix(report, listener, path, broker),
        }
    }
}

fn look_at_tcp(report: &mut Report, listener: &Listener, address: SocketAddr, broker: Option<u32>) {
    let name = &listener.name;
    // Another port of the same address: to take the one itself could hinder a broker that starts.
    if let Err(error) = TcpListener::bind(SocketAddr::new(address.ip(), 0)) {
        return if error.kind() == io::ErrorKind::AddrNotAvailable {
            let what = format!("listener '{name}': this machine has no address {}", address.ip());
            report.warn(
                CHECK,
                what,
                "write one that it has; the broker leaves this listener out, if it has another",
            );
        } else {
            let what = format!("listener '{name}': {} cannot be listened on: {error}", address.ip());
            report.problem(CHECK, what, "see what the system means by it");
        };
    }
    let taken = listening().into_iter().find(|(other, _)| overlaps(*other, address));
    match taken {
        Some((_, inode)) => tell_taken(report, name, &address.to_string(), inode, broker),
        None if needs_privilege(address.port()) => report.warn(
            CHECK,
            format!("listener '{name}': port {} is free, and needs a privilege", address.port()),
            "give the service CAP_NET_BIND_SERVICE, or let systemd open the socket",
        ),
        None => report.ok(CHECK, format!("listener '{name}': {address} is free")),
    }
}

fn look_at_unix(report: &mut Report, listener: &Listener, path: &Path, broker: Option<u32>) {
    let (name, shown) = (&listener.name, path.display());
    if !path.parent().is_some_and(Path::is_dir) {
        return report.problem(
            CHECK,
            format!("listener '{name}': the directory of {shown} does not exist"),
            "make it; with systemd, RuntimeDirectory= does at each start",
        );
    }
    match unix_inode(path) {
        Some(inode) => tell_taken(report, name, &shown.to_string(), inode, broker),
        None => report.ok(CHECK, format!("listener '{name}': {shown} is free")),
    }
}

fn tell_taken(report: &mut Report, name: &str, place: &str, inode: u64, broker: Option<u32>) {
    let holders = processes::socket_holders(inode);
    if broker.is_some_and(|broker| holders.contains(&broker)) {
        return report.ok(CHECK, format!("listener '{name}': the running broker listens on {place}"));
    }
    let who = match holders.first() {
        Some(pid) => processes::named(*pid),
        None => "a process of another user".into(),
    };
    report.problem(
        CHECK,
        format!("listener '{name}': {who} listens on {place}"),
        "stop it or choose another address; as root this sees the processes of all users",
    );
}

/// TCP sockets that listen, with their inodes.
fn listening() -> Vec<(SocketAddr, u64)> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|file| fs::read_to_string(file).unwrap_or_default());
    tables.iter().flat_map(|table| table.lines().skip(1).filter_map(listening_line)).collect()
}

/// `0: 0100007F:075B 00000000:0000 0A … inode`: address and port in hexadecimal, and the state "listen".
fn listening_line(line: &str) -> Option<(SocketAddr, u64)> {
    const LISTEN: &str = "0A";
    let words: Vec<&str> = line.split_whitespace().collect();
    if *words.get(3)? != LISTEN {
        return None;
    }
    let (address, port) = words.get(1)?.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    // Words of 32 bits, in the byte order of the machine.
    let word = |at: usize| u32::from_str_radix(address.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    let ip: IpAddr = if address.len() == 8 {
        Ipv4Addr::from(word(0)?).into()
    } else {
        let mut bytes = [0; 16];
        for (part, at) in bytes.chunks_mut(4).zip([0, 8, 16, 24]) {
            part.copy_from_slice(&word(at)?);
        }
        Ipv6Addr::from(bytes).into()
    };
    Some((SocketAddr::new(ip, port), words.get(9)?.parse().ok()?))
}

/// Whether one socket keeps another from listening.
fn overlaps(one: SocketAddr, other: SocketAddr) -> bool {
    let (one_ip, other_ip) = (one.ip(), other.ip());
    let is_any = |ip: IpAddr| ip == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let same_family = one.is_ipv4() == other.is_ipv4();
    one.port() == other.port()
        && one.port() != 0
        && (one_ip == other_ip
            || (same_family && (one_ip.is_unspecified() || other_ip.is_unspecified()))
            // [::] takes IPv4 too, mostly.
            || is_any(one_ip)
            || is_any(other_ip))
}

fn needs_privilege(port: u16) -> bool {
    let first = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    let first = first.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(1024);
    port != 0 && port < first && !geteuid().is_root()
}

/// The inode of the socket that listens at a path.
fn unix_inode(path: &Path) -> Option<u64> {
    const ACCEPTS: u32 = 1 << 16;
    let table = fs::read_to_string("/proc/net/unix").ok()?;
    // 0000000000000000: 00000002 00000000 00010000 0001 01 1234 /run/x.sock
    table.lines().skip(1).find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let flags = u32::from_str_radix(words.get(3)?, 16).ok()?;
        let is_it = flags & ACCEPTS != 0 && Path::new(words.get(7)?) == path;
        is_it.then(|| words.get(6)?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_system_are_understood() {
        let of = |line: &str| listening_line(line).map(|(address, inode)| (address.to_string(), inode));
        if cfg!(target_endian = "little") {
            let line = "   0: 0100007F:075B 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1";
            assert_eq!(of(line), Some(("127.0.0.1:1883".into(), 4711)));
            let line = "   1: 00000000000000000000000001000000:22B3 00000000000000000000000000000000:0000 0A \
                        00000000:00000000 00:00000000 00000000     0        0 12 1";
            assert_eq!(of(line), Some(("[::1]:8883".into(), 12)));
        }
        let connection =
            "0: 0100007F:075B 0100007F:9999 01 00000000:00000000 00:00000000 00000000 0 0 4711 1";
        assert_eq!((of(connection), of("0: x"), of("0: é:1 0 0A 0 0 0 0 0 1")), (None, None, None));
    }

    #[test]
    fn a_socket_on_all_addresses_takes_the_port_of_each() {
        let overlap = |one: &str, other: &str| overlaps(one.parse().unwrap(), other.parse().unwrap());
        assert!(overlap("0.0.0.0:1", "127.0.0.1:1") && overlap("127.0.0.1:1", "0.0.0.0:1"));
        assert!(overlap("[::]:1", "127.0.0.1:1") && overlap("[::1]:1", "[::]:1"));
        assert!(!overlap("127.0.0.1:1", "127.0.0.2:1") && !overlap("0.0.0.0:1", "[::1]:1"));
        assert!(!overlap("127.0.0.1:1", "127.0.0.1:2") && !overlap("127.0.0.1:0", "127.0.0.1:0"));
    }
}
