//! The `dunlin` program, driven as a user drives it.
#![expect(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Command, Output},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use dunlin::config::Config;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};

/// The program in a directory of its own, without settings of the environment.
struct Dunlin {
    directory: PathBuf,
    variables: Vec<(&'static str, &'static str)>,
}

impl Dunlin {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("dunlin-cli-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).unwrap();
        Self { directory, variables: vec![("HOME", "/nowhere")] }
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.directory.join(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.directory.join(name)).unwrap()
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        let output = Command::new(env!("CARGO_BIN_EXE_dunlin"))
            .args(arguments)
            .current_dir(&self.directory)
            .env_clear()
            .envs(self.variables.iter().copied())
            .output()
            .unwrap();
        Ran::from(output)
    }
}

impl Drop for Dunlin {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// What came of a run.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

#[test]
fn check_prints_a_configuration_that_reads_as_itself() {
    let dunlin = Dunlin::new();
    dunlin.write("d.toml", "[limits]\nreceive_maximum = 7\npacket_bytes_max = \"3 MiB\"\n");
    let first = dunlin.run(&["check", "d.toml"]);
    assert_eq!((first.code, first.stderr.as_str()), (Some(0), ""));
    assert!(first.stdout.contains("receive_maximum = 7\n"), "{}", first.stdout);
    let config = Config::from_toml(&first.stdout).unwrap();
    assert_eq!(config.limits.packet_bytes_max, 3 << 20);
    dunlin.write("again.toml", &first.stdout);
    let again = dunlin.run(&["check", "again.toml"]);
    let body = |ran: &Ran| ran.stdout.split_once('\n').unwrap().1.to_owned();
    assert_eq!(body(&again), body(&first));
}

#[test]
fn check_takes_the_environment_and_the_flags_of_serve() {
    let mut dunlin = Dunlin::new();
    dunlin.write("d.toml", "shards = 3\n");
    dunlin.variables.push(("DUNLIN_CONFIG", "d.toml"));
    dunlin.variables.push(("DUNLIN__SYS__INTERVAL_SECS", "7"));
    let ran =
        dunlin.run(&["check", "--listen", "127.0.0.1:5", "--set", "stop.timeout_secs=9", "--data-dir", "x"]);
    let config = Config::from_toml(&ran.stdout).unwrap();
    assert_eq!((config.shards, config.sys_interval.as_secs(), config.stop_timeout.as_secs()), (3, 7, 9));
    assert_eq!(config.listeners.len(), 1);
    assert_eq!(config.data_dir, dunlin.directory.join("x"));
}

#[test]
fn without_file_the_defaults_apply() {
    let ran = Dunlin::new().run(&["check"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let config = Config::from_toml(&ran.stdout).unwrap();
    assert_eq!(config.listeners, Config::default().listeners);
}

/// The same file is refused by `check` and by both spellings of `serve`, with every problem.
#[test]
fn a_bad_file_is_refused_with_file_line_and_key() {
    let dunlin = Dunlin::new();
    dunlin.write(
        "bad.toml",
        "shard = 1\n\n[limits]\nsessions_max = 0\n\n[[listeners]]\naddress = \"0.0.0.0:1883\"\n",
    );
    for arguments in [&["check", "bad.toml"][..], &["serve", "-c", "bad.toml"], &["--config", "bad.toml"]] {
        let ran = dunlin.run(arguments);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""), "{ran:?}");
        let lines: Vec<&str> = ran.stderr.lines().collect();
        assert_eq!(lines.len(), 3, "{ran:?}");
        assert!(
            lines[0].starts_with("error: bad.toml:1:1: shard: unknown key `shard`; did you mean `shards`?")
        );
        assert!(
            lines[1]
                .starts_with("error: bad.toml:4:16: limits.sessions_max: 0 is out of range; allowed: 1 to")
        );
        assert!(
            lines[2].starts_with("error: bad.toml:6:1: listeners[0].allow_anonymous: must be set"),
            "{ran:?}"
        );
    }
}

#[test]
fn bad_flags_and_variables_are_named() {
    let mut dunlin = Dunlin::new();
    dunlin.variables.push(("DUNLIN__LOG__FORMAT", "xml"));
    let ran = dunlin.run(&["--log", "loud", "--set", "nothing=1"]);
    assert_eq!(ran.code, Some(2));
    for part in [
        "environment variable DUNLIN__LOG__FORMAT: log.format:",
        "--log loud: log.filter:",
        "--set nothing=1:",
    ] {
        assert!(ran.stderr.contains(part), "{part}: {ran:?}");
    }
    assert_eq!(dunlin.run(&["check", "missing.toml"]).code, Some(2));
    assert_eq!(dunlin.run(&["--no-such-flag"]).code, Some(2));
}

#[test]
fn help_has_examples_and_every_command() {
    let dunlin = Dunlin::new();
    let ran = dunlin.run(&["--help"]);
    assert_eq!(ran.code, Some(0));
    for part in [
        "Examples:",
        "Exit codes:",
        "serve",
        "check",
        "certs",
        "pub",
        "sub",
        "bench",
        "completions",
        "--set <KEY=VALUE>",
    ] {
        assert!(ran.stdout.contains(part), "{part}: {}", ran.stdout);
    }
    for command in ["serve", "check", "certs", "pub", "sub", "bench", "completions"] {
        let ran = dunlin.run(&[command, "--help"]);
        assert!(ran.code == Some(0) && ran.stdout.contains("Usage: dunlin"), "{ran:?}");
    }
    assert!(dunlin.run(&["--version"]).stdout.starts_with("dunlin 0."));
}

#[test]
fn completions_are_printed_for_each_shell() {
    let dunlin = Dunlin::new();
    for (shell, part) in [("bash", "_dunlin()"), ("zsh", "#compdef dunlin"), ("fish", "complete -c dunlin")] {
        let ran = dunlin.run(&["completions", shell]);
        assert!(ran.code == Some(0) && ran.stdout.contains(part), "{shell}: {ran:?}");
    }
    assert_eq!(dunlin.run(&["completions", "tcsh"]).code, Some(2));
}

/// The files do what they are for: a client that trusts the authority completes a handshake with the server
/// under every promised name, and the server accepts the client's certificate.
#[test]
fn certs_make_a_working_handshake() {
    let dunlin = Dunlin::new();
    let ran = dunlin.run(&["certs", "pki", "--name", "broker.lan", "--name", "192.0.2.7"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    let file = |name: &str| dunlin.directory.join("pki").join(name);
    let chain = |name: &str| vec![CertificateDer::from_pem_file(file(name)).unwrap()];
    let key = |name: &str| PrivateKeyDer::from_pem_file(file(name)).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(chain("ca.pem").remove(0)).unwrap();
    let roots = Arc::new(roots);
    let verifier = rustls::server::WebPkiClientVerifier::builder(Arc::clone(&roots)).build().unwrap();
    let server = rustls::ServerConfig::builder()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain("server.pem"), key("server.key"))
        .unwrap();
    let client = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain("client.pem"), key("client.key"))
        .unwrap();
    let (server, client) = (Arc::new(server), Arc::new(client));
    for name in ["localhost", "127.0.0.1", "::1", "broker.lan", "192.0.2.7"] {
        handshake(&client, &server, name).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    assert!(handshake(&client, &server, "other.lan").is_err());
}

/// Runs a handshake in memory until both sides are done.
fn handshake(
    client: &Arc<rustls::ClientConfig>,
    server: &Arc<rustls::ServerConfig>,
    name: &str,
) -> Result<(), rustls::Error> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = rustls::ClientConnection::new(Arc::clone(client), name)?;
    let mut server = rustls::ServerConnection::new(Arc::clone(server))?;
    while client.is_handshaking() || server.is_handshaking() {
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        server.read_tls(&mut bytes.as_slice()).unwrap();
        server.process_new_packets()?;
        bytes.clear();
        server.write_tls(&mut bytes).unwrap();
        client.read_tls(&mut bytes.as_slice()).unwrap();
        client.process_new_packets()?;
    }
    Ok(())
}

#[test]
fn certs_keep_what_exists_unless_forced() {
    let dunlin = Dunlin::new();
    assert_eq!(dunlin.run(&["certs", "pki"]).code, Some(0));
    let before = dunlin.read("pki/client.pem");
    fs::remove_file(dunlin.directory.join("pki/ca.pem")).unwrap();
    let refused = dunlin.run(&["certs", "pki"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("exists; --force"), "{refused:?}");
    assert_eq!(dunlin.read("pki/client.pem"), before);
    assert!(!dunlin.directory.join("pki/ca.pem").exists());
    assert_eq!(dunlin.run(&["certs", "pki", "--force"]).code, Some(0));
    assert_ne!(dunlin.read("pki/client.pem"), before);
}

#[cfg(unix)]
#[test]
fn keys_are_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let dunlin = Dunlin::new();
    assert_eq!(dunlin.run(&["certs", "pki"]).code, Some(0));
    // A loose mode does not survive an overwrite.
    let key = dunlin.directory.join("pki/server.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(dunlin.run(&["certs", "pki", "--force"]).code, Some(0));
    for name in ["ca.key", "server.key", "client.key"] {
        let mode = fs::metadata(dunlin.directory.join("pki").join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

/// What `certs` prints is a configuration, so that it can be copied.
#[test]
fn certs_print_a_configuration() {
    let dunlin = Dunlin::new();
    let ran = dunlin.run(&["certs", "pki"]);
    dunlin.write("d.toml", &ran.stdout);
    assert_eq!(dunlin.run(&["check", "d.toml"]).code, Some(0), "{ran:?}");
}

/// The broker's side of one connection, by the byte.
struct Peer(TcpStream);

impl Peer {
    /// Reads a packet: its first byte and what follows the remaining length.
    fn read(&mut self) -> (u8, Vec<u8>) {
        let mut first = [0];
        self.0.read_exact(&mut first).unwrap();
        let (mut length, mut shift) = (0, 0);
        loop {
            let mut byte = [0];
            self.0.read_exact(&mut byte).unwrap();
            length |= usize::from(byte[0] & 0x7f) << shift;
            shift += 7;
            if byte[0] & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        (first[0], body)
    }

    /// Reads a packet that must begin with this byte.
    fn expect(&mut self, first: u8) -> Vec<u8> {
        let (found, body) = self.read();
        assert_eq!(found, first, "{found:#04x} {body:?}");
        body
    }

    fn write(&mut self, packet: &[u8]) {
        self.0.write_all(packet).unwrap();
    }
}

/// Runs the program against a broker that follows a script, with arguments for where that is.
fn against(script: impl FnOnce(Peer) + Send, arguments: &[&str]) -> Ran {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let port = address.port().to_string();
    let arguments = [arguments, &["-h", "127.0.0.1", "-p", &port]].concat();
    thread::scope(|scope| {
        scope.spawn(|| script(Peer(listener.accept().unwrap().0)));
        let ran = Dunlin::new().run(&arguments);
        // If the program never came, the script must not wait for it.
        let _ = TcpStream::connect(address);
        ran
    })
}

const CONNECT: u8 = 0x10;
const DISCONNECT: u8 = 0xe0;
const CONNACK_V4: [u8; 4] = [0x20, 2, 0, 0];
const CONNACK_V5: [u8; 5] = [0x20, 3, 0, 0, 0];

/// The packet identifier of a PUBLISH to the topic "t".
fn packet_id(publish: &[u8]) -> [u8; 2] {
    assert_eq!(&publish[..3], [0, 1, b't']);
    [publish[3], publish[4]]
}

#[test]
fn pub_waits_for_the_acknowledgement_of_qos_1() {
    let script = |mut peer: Peer| {
        peer.expect(CONNECT);
        peer.write(&CONNACK_V5);
        let [high, low] = packet_id(&peer.expect(0x33));
        peer.write(&[0x40, 2, high, low]);
        peer.expect(DISCONNECT);
    };
    let ran = against(script, &["pub", "-t", "t", "-m", "hello", "-q", "1", "-r"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
}

#[test]
fn pub_completes_the_handshake_of_qos_2() {
    let script = |mut peer: Peer| {
        peer.expect(CONNECT);
        peer.write(&CONNACK_V4);
        let [high, low] = packet_id(&peer.expect(0x34));
        peer.write(&[0x50, 2, high, low]);
        assert_eq!(peer.expect(0x62), [high, low]);
        peer.write(&[0x70, 2, high, low]);
        peer.expect(DISCONNECT);
    };
    let ran = against(script, &["pub", "-V", "311", "-t", "t", "-m", "hello", "-q", "2"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
}

/// A broker that goes away instead of acknowledging has not taken the message.
#[test]
fn pub_fails_without_the_acknowledgement() {
    let script = |mut peer: Peer| {
        peer.expect(CONNECT);
        peer.write(&CONNACK_V5);
        peer.expect(0x32);
    };
    let ran = against(script, &["pub", "-t", "t", "-m", "hello", "-q", "1"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.ends_with(": the broker closed the connection\n"), "{ran:?}");
}

#[test]
fn a_refused_message_is_a_failure_with_the_reason() {
    for (qos, publish, acknowledgement) in [("1", 0x32, 0x40), ("2", 0x34, 0x50)] {
        let script = |mut peer: Peer| {
            peer.expect(CONNECT);
            peer.write(&CONNACK_V5);
            let [high, low] = packet_id(&peer.expect(publish));
            peer.write(&[acknowledgement, 4, high, low, 0x87, 0]);
            peer.expect(DISCONNECT);
        };
        let ran = against(script, &["pub", "-t", "t", "-m", "hello", "-q", qos]);
        let message = "error: the broker refuses the message: not authorized\n";
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(1), message));
    }
}

#[test]
fn a_refused_connection_is_one_line() {
    let script = |mut peer: Peer| {
        peer.expect(CONNECT);
        peer.write(&[0x20, 3, 0, 0x86, 0]);
    };
    let ran = against(script, &["pub", "-t", "t", "-m", "hello", "-u", "me", "-P", "secret"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.ends_with(": the broker refuses: bad user name password\n"), "{ran:?}");

    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let ran = Dunlin::new().run(&["sub", "-t", "t", "-h", "127.0.0.1", "-p", &free]);
    assert_eq!((ran.code, ran.stderr), (Some(1), format!("error: 127.0.0.1:{free}: Connection refused\n")));
}

/// A message that was not printed stays with the broker, even if it was received with one that was.
#[test]
fn sub_acknowledges_only_what_it_printed() {
    let script = |mut peer: Peer| {
        peer.expect(CONNECT);
        peer.write(&CONNACK_V5);
        let subscribe = peer.expect(0x82);
        peer.write(&[0x90, 4, subscribe[0], subscribe[1], 0, 1]);
        peer.write(&[0x32, 7, 0, 1, b't', 0, 9, 0, b'a', 0x32, 7, 0, 1, b't', 0, 10, 0, b'b']);
        assert_eq!(peer.expect(0x40)[..2], [0, 9]);
        peer.expect(DISCONNECT);
    };
    let ran = against(script, &["sub", "-t", "t", "-q", "1", "-C", "1", "-v"]);
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (Some(0), "t a\n", ""));
}

#[test]
fn sub_prints_a_json_object_a_line() {
    let script = |mut peer: Peer| {
        peer.expect(CONNECT);
        peer.write(&CONNACK_V5);
        let subscribe = peer.expect(0x82);
        peer.write(&[0x90, 4, subscribe[0], subscribe[1], 0, 1]);
        // Content type "x", retained, not text.
        peer.write(&[0x31, 10, 0, 1, b't', 4, 3, 0, 1, b'x', 0xff, 0x00]);
        peer.expect(DISCONNECT);
    };
    let ran = against(script, &["sub", "-t", "t", "-F", "json", "-C", "1"]);
    let mut line: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    line.as_object_mut().unwrap().remove("tst").unwrap();
    let expected = serde_json::json!({
        "topic": "t", "qos": 0, "retain": 1, "payloadlen": 2, "payload_hex": "ff00",
        "properties": { "content-type": "x" },
    });
    assert_eq!(line, expected);
}

#[test]
fn a_refused_subscription_is_a_failure() {
    let script = |mut peer: Peer| {
        peer.expect(CONNECT);
        peer.write(&CONNACK_V5);
        let subscribe = peer.expect(0x82);
        peer.write(&[0x90, 4, subscribe[0], subscribe[1], 0, 0x87]);
        let _ = peer.0.read_to_end(&mut Vec::new());
    };
    let ran = against(script, &["sub", "-t", "t"]);
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr.starts_with("error: the broker refuses the subscription to t: not authorized\n"),
        "{ran:?}"
    );
}

#[test]
fn client_usage_is_checked_before_connecting() {
    let dunlin = Dunlin::new();
    let cases: [&[&str]; 8] = [
        &["pub", "-t", "t"],
        &["pub", "-t", "a/#", "-m", "x"],
        &["pub", "-t", "t", "-m", "x", "-n"],
        &["pub", "-t", "t", "-m", "x", "-V", "311", "-D", "content-type", "x"],
        &["pub", "-t", "t", "-m", "x", "--cafile", "missing.pem"],
        &["pub", "-t", "t", "-f", "missing"],
        &["sub", "-t", "a#"],
        &["sub", "-t", "t", "-F", "%z"],
    ];
    for arguments in cases {
        let ran = dunlin.run(arguments);
        assert!(ran.code == Some(2) && ran.stderr.starts_with("error: "), "{arguments:?} {ran:?}");
    }
}
