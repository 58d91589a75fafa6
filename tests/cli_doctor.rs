//! `dunlin doctor`, driven as a user drives it, on what is fine and on what is not.
#![expect(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

use std::{
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use serde_json::Value;

/// A directory of its own, with what a test writes to it.
struct Bed {
    directory: PathBuf,
}

/// What the doctor has said.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    findings: Vec<Value>,
}

impl Bed {
    fn new() -> Bed {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("dunlin-doctor-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(directory.join("data")).unwrap();
        fs::set_permissions(directory.join("data"), fs::Permissions::from_mode(0o700)).unwrap();
        Bed { directory }
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.directory.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dunlin"));
        command.args(arguments).current_dir(&self.directory).env_clear().env("HOME", "/nowhere");
        command
    }

    /// Runs it on `d.toml`, with further flags.
    fn doctor(&self, text: &str, flags: &[&str]) -> Said {
        self.write("d.toml", &format!("data_dir = \"data\"\n{text}"));
        let ran = self.command(&[&["doctor", "d.toml", "--json"], flags].concat()).output().unwrap();
        let stderr = String::from_utf8_lossy(&ran.stderr).into_owned();
        let report: Value =
            serde_json::from_slice(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {stderr}"));
        assert_eq!(stderr, "");
        Said { code: ran.status.code(), findings: report["findings"].as_array().unwrap().clone() }
    }

    /// TLS with these certificates, in one file, and this key.
    fn tls(&self, certificates: &[String], key: &KeyPair) -> Said {
        self.write("server.pem", &certificates.concat());
        self.write("server.key", &key.serialize_pem());
        self.doctor(TLS, &[])
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

impl Said {
    /// The levels of what was said with these words.
    fn levels(&self, check: &str, words: &str) -> Vec<&str> {
        let told =
            |finding: &&Value| finding["check"] == check && finding["what"].as_str().unwrap().contains(words);
        self.findings.iter().filter(told).map(|finding| finding["level"].as_str().unwrap()).collect()
    }

    fn assert(&self, check: &str, words: &str, level: &str) {
        assert_eq!(self.levels(check, words), [level], "{check}, {words}: {self:#?}");
        let code = i32::from(self.findings.iter().any(|finding| finding["level"] == "problem"));
        assert_eq!(self.code, Some(code), "{self:#?}");
        for finding in &self.findings {
            // Who is told that something is wrong is told what to do.
            assert_eq!(finding["level"] == "ok", finding["advice"].is_null(), "{finding}");
        }
    }
}

const HERE: &str = "[[listeners]]\nname = \"here\"\naddress = \"127.0.0.1:0\"\n";
const TLS: &str = "[[listeners]]\nname = \"tls\"\nkind = \"tls\"\naddress = \"127.0.0.1:0\"\n[listeners.tls]\n\
                   certificate = \"server.pem\"\nkey = \"server.key\"\n";

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new([]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Of a server, valid in these years.
fn issued(by: &CertifiedIssuer<'static, KeyPair>, years: [i32; 2], names: &[&str]) -> (String, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    [params.not_before, params.not_after] = years.map(|year| date_time_ymd(year, 1, 1));
    (params.signed_by(&key, by).unwrap().pem(), key)
}

#[test]
fn what_is_fine_is_said_and_leaves_nothing_behind() {
    let bed = Bed::new();
    let said = bed.doctor(HERE, &["--set", "limits.connections_max=10"]);
    said.assert("data directory", "with mode 700", "ok");
    said.assert("lock", "no broker", "ok");
    said.assert("listeners", "'here'", "ok");
    said.assert("open files", "needs 266", "ok");
    assert_eq!(said.levels("configuration", "d.toml is right"), ["ok"]);
    assert_eq!(said.levels("disk flush", "flushes").len(), 1);
    assert!(!said.levels("disk space", "free").is_empty() && !said.levels("clock", "").is_empty());
    assert_eq!(fs::read_dir(bed.directory.join("data")).unwrap().count(), 0);
}

#[test]
fn text_for_people_has_the_advice_beside_the_problem() {
    let bed = Bed::new();
    let ran = bed.command(&["doctor", "--data-dir", "none/data"]).output().unwrap();
    let text = String::from_utf8(ran.stdout).unwrap();
    assert_eq!(ran.status.code(), Some(1));
    let mut lines = text.lines().skip_while(|line| !line.starts_with("PROBLEM"));
    assert!(lines.next().unwrap().contains("none does not exist"), "{text}");
    assert!(lines.next().unwrap().contains("-> mount it, or mkdir -p"), "{text}");
    assert!(text.contains("\nproblems: 1, "), "{text}");
}

#[test]
fn a_mistake_in_the_configuration_is_a_problem() {
    let said = Bed::new().doctor("shard = 1\n", &[]);
    said.assert("configuration", "unknown key `shard`", "problem");
    // What does not need it is said nevertheless.
    assert!(!said.levels("clock", "").is_empty());
}

#[test]
fn a_data_directory_that_cannot_be_used_is_a_problem() {
    let bed = Bed::new();
    bed.write("file", "");
    bed.doctor(HERE, &["--data-dir", "file"]).assert("data directory", "is not a directory", "problem");
    // A directory in which even the superuser can write nothing.
    #[cfg(target_os = "linux")]
    bed.doctor(HERE, &["--data-dir", "/proc/self"]).assert("disk", "nothing can be written", "problem");
    bed.doctor(HERE, &["--data-dir", "new"]).assert("data directory", "is made at the first start", "ok");
    assert!(!bed.directory.join("new").exists());
    fs::set_permissions(bed.directory.join("data"), fs::Permissions::from_mode(0o755)).unwrap();
    bed.doctor(HERE, &[]).assert("data directory", "others than its owner", "warning");
    let said = bed.doctor(HERE, &["--set", "persistence=memory"]);
    said.assert("data directory", "keeps nothing", "ok");
    assert!(said.levels("disk flush", "").is_empty());
}

#[test]
fn too_few_open_files_are_a_warning() {
    let said = Bed::new().doctor(HERE, &["--set", "limits.connections_max=16000000"]);
    // Some systems allow a thousand million.
    let levels = said.levels("open files", "needs 16000256");
    assert_eq!(levels.len(), 1, "{said:#?}");
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(u64::MAX);
    assert_eq!(levels[0], if limit < 16_000_256 { "warning" } else { "ok" });
}

#[cfg(target_os = "linux")]
#[test]
fn who_holds_a_port_is_named() {
    let bed = Bed::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let listener = |address: &str| {
        format!("[[listeners]]\nname = \"l\"\naddress = \"{address}\"\nallow_anonymous = true\n")
    };
    let said = bed.doctor(&listener(&address.to_string()), &[]);
    said.assert("listeners", &format!("process {} (", std::process::id()), "problem");
    // On all addresses the port is not free either.
    let said = bed.doctor(&listener(&format!("0.0.0.0:{}", address.port())), &[]);
    said.assert("listeners", &format!("listens on 0.0.0.0:{}", address.port()), "problem");
    drop(taken);
    bed.doctor(&listener(&address.to_string()), &[]).assert("listeners", "is free", "ok");
    bed.doctor(&listener("192.0.2.1:7"), &[]).assert("listeners", "no address 192.0.2.1", "warning");

    let unix = |path: &str| format!("[[listeners]]\nname = \"l\"\nkind = \"unix\"\npath = \"{path}\"\n");
    let path = bed.directory.join("mqtt.sock");
    let socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let said = bed.doctor(&unix(path.to_str().unwrap()), &[]);
    said.assert("listeners", &format!("process {} (", std::process::id()), "problem");
    drop(socket);
    bed.doctor(&unix(path.to_str().unwrap()), &[]).assert("listeners", "is free", "ok");
    bed.doctor(&unix("/nowhere/mqtt.sock"), &[]).assert("listeners", "does not exist", "problem");
}

/// A broker, killed at the end.
struct Broker(Child);

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_running_broker_is_known_as_such() {
    let bed = Bed::new();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let listeners = format!("[[listeners]]\nname = \"l\"\naddress = \"{free}\"\n");
    bed.write("serve.toml", &format!("data_dir = \"data\"\n{listeners}"));
    let mut serve = bed.command(&["serve", "-c", "serve.toml"]);
    let mut broker = Broker(serve.stderr(Stdio::piped()).spawn().unwrap());
    let log = BufReader::new(broker.0.stderr.take().unwrap());
    let mut lines = log.lines();
    assert!(lines.any(|line| line.unwrap().contains("ready")), "it starts");
    let said = bed.doctor(&listeners, &[]);
    said.assert("lock", &format!("process {} (dunlin) uses", broker.0.id()), "ok");
    said.assert("listeners", "the running broker listens", "ok");
    assert_eq!(said.levels("open files", "the running broker may open").len(), 1, "{said:#?}");
}

#[test]
fn certificates_that_clients_refuse_are_a_problem() {
    let bed = Bed::new();
    let authority = authority("A");
    let (good, key) = issued(&authority, [2020, 2100], &["localhost"]);
    let said = bed.tls(&[good.clone(), authority.pem()], &key);
    said.assert("certificates", "is whole", "ok");
    said.assert("certificates", "is good for", "ok");
    bed.tls(std::slice::from_ref(&good), &key).assert("certificates", "clients have to trust \"CN=A\"", "ok");
    let other = self::authority("B");
    bed.tls(&[good.clone(), other.pem()], &key).assert("certificates", "is followed by \"CN=B\"", "problem");
    bed.tls(&[good], &KeyPair::generate().unwrap()).assert("certificates", "listener 'tls'", "problem");
    let (expired, key) = issued(&authority, [2020, 2021], &["localhost"]);
    bed.tls(&[expired], &key).assert("certificates", "has ended", "problem");
    let (early, key) = issued(&authority, [2090, 2100], &["localhost"]);
    bed.tls(&[early], &key).assert("certificates", "is not valid before", "problem");
    let (nameless, key) = issued(&authority, [2020, 2100], &[]);
    bed.tls(&[nameless], &key).assert("certificates", "no alternative names", "warning");
    bed.tls(&["hello".into()], &key).assert("certificates", "listener 'tls'", "problem");
}

#[test]
fn secrets_that_others_may_read_or_change_are_told() {
    let bed = Bed::new();
    let (certificate, key) = issued(&authority("A"), [2020, 2100], &["localhost"]);
    bed.tls(&[certificate], &key).assert("secrets", "server.key has mode 600", "ok");
    let chmod = |mode| {
        fs::set_permissions(bed.directory.join("server.key"), fs::Permissions::from_mode(mode)).unwrap()
    };
    chmod(0o644);
    bed.doctor(TLS, &[]).assert("secrets", "can be read by every user", "warning");
    chmod(0o602);
    bed.doctor(TLS, &[]).assert("configuration", "can be changed by every user", "problem");
}
