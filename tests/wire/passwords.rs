//! Password files and SCRAM, by the configuration: who is let in, who is refused, and who waits.

use std::{
    fs,
    io::{BufRead, BufReader},
    num::NonZeroU32,
    process::{Command, Stdio},
    sync::mpsc,
    task::Poll,
    time::Duration,
};

use aws_lc_rs::{digest, hmac, pbkdf2};
use base64::{Engine, engine::general_purpose::STANDARD};
use dunlin::{
    Config, StartError,
    auth::{password::hash::PasswordHash, scram::ScramKeys},
    codec::{Connect, Packet, ReasonCode, Version},
    config::auth::{Backend, PasswordFile},
};
use tokio::net::TcpStream;

use crate::{
    BOTH, Peer, Server,
    authentication::{auth, with_method},
    certificates::Directory,
    config, connect, ids_on_both_shards,
    peer::encoded,
    within,
};

const CONTINUE: ReasonCode = ReasonCode::ContinueAuthentication;
const AGAIN: ReasonCode = ReasonCode::ReAuthenticate;
const SCRAM: &str = "SCRAM-SHA-256";

/// A password file with these lines, and a configuration that asks it.
struct Setup {
    directory: Directory,
    config: Config,
}

impl Setup {
    fn new(lines: &[String]) -> Setup {
        let directory = Directory::new();
        let mut config = config();
        let file = directory.path("passwords");
        config.auth.chain = vec!["local".into()];
        config.auth.backends = [("local".to_owned(), Backend::PasswordFile(PasswordFile { file }))].into();
        config.listeners[0].auth = vec!["local".into()];
        config.listeners[0].allow_anonymous = false;
        let setup = Setup { directory, config };
        setup.write(lines);
        setup
    }

    fn write(&self, lines: &[String]) {
        fs::write(self.directory.path("passwords"), lines.join("\n")).unwrap();
    }

    async fn start(&self) -> Server {
        Server::with(self.config.clone()).await
    }
}

fn user(name: &str, password: &str) -> String {
    format!("{name}:{}", PasswordHash::create(password.as_bytes()).unwrap())
}

fn user_with_scram(name: &str, password: &str) -> String {
    let keys = ScramKeys::create(password, NonZeroU32::new(4096).unwrap()).unwrap();
    format!("{}:{keys}", user(name, password))
}

fn by<'a>(version: Version, name: &'a str, password: Option<&'a [u8]>) -> Connect<'a> {
    Connect { user_name: Some(name), password, ..connect(version, name) }
}

/// Connects and returns the code in CONNACK, after which a connection that is refused ends.
async fn code(server: &Server, connect: Connect<'_>) -> u8 {
    let mut peer = server.open(connect.version).await;
    peer.send(&Packet::Connect(Box::new(connect))).await;
    let (_, code) = peer.conn_ack().await;
    if code != 0 {
        peer.expect_end().await;
    }
    code
}

/// Wrong passwords, unknown users and missing passwords are refused alike; only who shows nothing may be
/// anonymous, where that is allowed.
#[tokio::test]
async fn passwords_decide_who_is_let_in() {
    let mosquitto = include_str!("../fixtures/mosquitto_passwords").to_owned();
    for allow_anonymous in [false, true] {
        let mut setup = Setup::new(&[user("otto", "right"), mosquitto.clone()]);
        setup.config.listeners[0].allow_anonymous = allow_anonymous;
        setup.config.auth.backoff.failures_max = 0;
        let server = setup.start().await;
        for version in BOTH {
            let refused = if version.is_v5() { 0x86 } else { 4 };
            let cases: [(&str, Option<&[u8]>, u8); 9] = [
                ("otto", Some(b"right"), 0),
                ("otto", Some(b"right"), 0),
                ("anna", Some(b"pass word"), 0),
                ("bert", Some("grün:$".as_bytes()), 0),
                ("emil", Some(b"secret"), 0),
                ("otto", Some(b"wrong"), refused),
                ("emil", Some(b""), refused),
                ("nobody", Some(b"right"), refused),
                ("otto", None, refused),
            ];
            for (name, password, expected) in cases {
                let found = code(&server, by(version, name, password)).await;
                assert_eq!(found, expected, "{name} {version:?}");
            }
            let anonymous = match (allow_anonymous, version.is_v5()) {
                (true, _) => 0,
                (false, true) => 0x87,
                (false, false) => 5,
            };
            assert_eq!(code(&server, connect(version, "anonymous")).await, anonymous);
        }
    }
}

/// From 127.0.0.1 come all of them: after two failures the right password is not even looked at.
#[tokio::test]
async fn an_address_that_fails_too_often_waits() {
    let mut setup = Setup::new(&[user("otto", "right")]);
    let backoff = &mut setup.config.auth.backoff;
    (backoff.failures_max, backoff.wait_min, backoff.wait_max) =
        (2, Duration::from_secs(3600), Duration::from_secs(3600));
    let server = setup.start().await;
    // A success in between forgives.
    for (password, expected) in
        [("wrong", 0x86), ("right", 0), ("wrong", 0x86), ("wrong", 0x86), ("right", 0x9f), ("wrong", 0x9f)]
    {
        let found = code(&server, by(Version::V5, "otto", Some(password.as_bytes()))).await;
        assert_eq!(found, expected, "{password}");
    }
    assert_eq!(code(&server, by(Version::V311, "otto", Some(b"right"))).await, 3);
}

/// A file that has changed counts as soon as it is read again, also for passwords that were right before.
#[tokio::test]
async fn another_file_counts_without_a_restart() {
    let setup = Setup::new(&[user("otto", "old")]);
    let server = setup.start().await;
    assert_eq!(code(&server, by(Version::V5, "otto", Some(b"old"))).await, 0);
    let chain = server.broker.chain().unwrap();
    setup.write(&["otto:nonsense".into()]);
    let error = chain.replace(&setup.config).unwrap_err().to_string();
    assert!(error.starts_with("auth.backends.local: ") && error.contains("passwords:1: "), "{error}");
    assert_eq!(code(&server, by(Version::V5, "otto", Some(b"old"))).await, 0);
    setup.write(&[user("otto", "new")]);
    chain.replace(&setup.config).unwrap();
    assert_eq!(code(&server, by(Version::V5, "otto", Some(b"old"))).await, 0x86);
    assert_eq!(code(&server, by(Version::V5, "otto", Some(b"new"))).await, 0);
}

#[tokio::test]
async fn a_broken_file_is_told_with_its_line_at_the_start() {
    let setup = Setup::new(&["# users".into(), user("otto", "x"), "emil:topsecret".into()]);
    match dunlin::Broker::builder().config(setup.config.clone()).start().await {
        Err(StartError::Auth(error)) => {
            let error = error.to_string();
            assert!(error.contains("passwords:3: ") && !error.contains("topsecret"), "{error}");
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("the broker starts"),
    }
}

/// While passwords are checked that take long, clients that are connected go on.
#[tokio::test]
async fn a_storm_of_passwords_delays_no_client_that_is_connected() {
    let zeros = STANDARD.encode([0; 64]);
    let slow = format!("slow:$7$3000000${}${zeros}", STANDARD.encode([0; 16]));
    let setup = Setup::new(&[user("quick", "right"), slow]);
    let server = setup.start().await;
    let mut connected = Vec::new();
    for client_id in ids_on_both_shards("quick") {
        let mut peer = server.open(Version::V5).await;
        peer.connect(&Connect { client_id: &client_id, ..by(Version::V5, "quick", Some(b"right")) }).await;
        connected.push(peer);
    }
    let mut storm = Vec::new();
    for _ in 0..8 {
        let mut peer = server.open(Version::V5).await;
        let connect = Packet::Connect(Box::new(by(Version::V5, "slow", Some(b"x"))));
        peer.send_bytes(&encoded(&connect, Version::V5)).await;
        storm.push(peer);
    }
    for peer in &mut connected {
        peer.ping().await;
    }
    // Somebody still waits for an answer. Had the shards checked the passwords, nobody would.
    let mut answers: Vec<_> = storm.iter_mut().map(|peer| Box::pin(peer.conn_ack())).collect();
    let waiting = std::future::poll_fn(|cx| {
        Poll::Ready(
            answers
                .iter_mut()
                .filter_map(|answer| answer.as_mut().poll(cx).is_pending().then_some(()))
                .count(),
        )
    })
    .await;
    assert!(waiting > 0, "all passwords were checked before a ping was answered");
}

/// The client's side of SCRAM.
struct Scram {
    password: &'static str,
    bare: String,
    expected: String,
}

impl Scram {
    fn first(user: &str, password: &'static str) -> (Scram, String) {
        let bare = format!("n={user},r=fyko+d2lbbFgONRv9qkxdawL");
        let first = format!("n,,{bare}");
        (Scram { password, bare, expected: String::new() }, first)
    }

    /// The last message, for what the server has said.
    fn last(&mut self, challenge: &[u8]) -> String {
        let challenge = std::str::from_utf8(challenge).unwrap();
        let fields: Vec<&str> = challenge.split(',').map(|field| &field[2..]).collect();
        let (nonce, salt) = (fields[0], STANDARD.decode(fields[1]).unwrap());
        let mut salted = [0; 32];
        let iterations = fields[2].parse().unwrap();
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, &salt, self.password.as_bytes(), &mut salted);
        let mac =
            |key: &[u8], text: &str| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes());
        let client_key = mac(&salted, "Client Key");
        let stored = digest::digest(&digest::SHA256, client_key.as_ref());
        let without_proof = format!("c=biws,r={nonce}");
        let signed = format!("{},{challenge},{without_proof}", self.bare);
        let signature = mac(stored.as_ref(), &signed);
        let proof: Vec<u8> =
            client_key.as_ref().iter().zip(signature.as_ref()).map(|(one, other)| one ^ other).collect();
        self.expected = format!("v={}", STANDARD.encode(mac(mac(&salted, "Server Key").as_ref(), &signed)));
        format!("{without_proof},p={}", STANDARD.encode(proof))
    }
}

/// The data of the next AUTH, which asks to continue.
async fn challenge(peer: &mut Peer<TcpStream>) -> Vec<u8> {
    peer.next(|packet| match packet {
        Packet::Auth(auth) if auth.reason == CONTINUE => auth.properties.data.unwrap().to_vec(),
        other => panic!("{other:?} where AUTH was expected"),
    })
    .await
}

/// Connects by SCRAM. Returns the code in CONNACK.
async fn by_scram(server: &Server, user: &str, password: &'static str) -> (Peer<TcpStream>, u8) {
    let mut peer = server.open(Version::V5).await;
    let (mut scram, first) = Scram::first(user, password);
    peer.send(&with_method(user, SCRAM, Some(first.as_bytes()))).await;
    let last = scram.last(&challenge(&mut peer).await);
    peer.send(&auth(CONTINUE, SCRAM, Some(last.as_bytes()))).await;
    let code = peer
        .next(|packet| match packet {
            Packet::ConnAck(ack) => {
                let is_accepted = ack.code.number() == 0;
                let proof = is_accepted.then_some(scram.expected.as_bytes());
                assert_eq!(ack.properties.authentication_data, proof, "the server proves itself");
                ack.code.number()
            }
            other => panic!("{other:?}"),
        })
        .await;
    (peer, code)
}

#[tokio::test]
async fn scram_proves_both_sides() {
    let setup = Setup::new(&[user_with_scram("otto", "right"), user("plain", "right")]);
    let server = setup.start().await;
    for (name, password, expected) in
        [("otto", "right", 0), ("otto", "wrong", 0x87), ("plain", "right", 0x87), ("nobody", "right", 0x87)]
    {
        let (_, found) = by_scram(&server, name, password).await;
        assert_eq!(found, expected, "{name}");
    }
    // Where no user has keys for it, the method is not there.
    let without = Setup::new(&[user("plain", "right")]).start().await;
    let mut peer = without.open(Version::V5).await;
    peer.send(&with_method("x", SCRAM, None)).await;
    assert_eq!(peer.conn_ack().await, (false, 0x8c));
}

/// [MQTT-4.12.1-1] A connected client may prove anew who it is, and cannot become somebody else.
#[tokio::test]
async fn scram_again_is_for_the_same_user() {
    let setup = Setup::new(&[user_with_scram("otto", "right"), user_with_scram("anna", "right")]);
    let server = setup.start().await;
    for (name, is_same) in [("otto", true), ("anna", false)] {
        let (mut peer, code) = by_scram(&server, "otto", "right").await;
        assert_eq!(code, 0);
        let (mut scram, first) = Scram::first(name, "right");
        peer.send(&auth(AGAIN, SCRAM, Some(first.as_bytes()))).await;
        let last = scram.last(&challenge(&mut peer).await);
        peer.send(&auth(CONTINUE, SCRAM, Some(last.as_bytes()))).await;
        if is_same {
            peer.expect(&auth(ReasonCode::Success, SCRAM, Some(scram.expected.as_bytes()))).await;
            peer.ping().await;
        } else {
            // [MQTT-4.12.1-2]
            peer.expect_disconnect(ReasonCode::NotAuthorized).await;
        }
    }
}

/// Whatever is logged, no password is: neither right nor wrong ones.
#[tokio::test]
async fn no_password_is_ever_logged() {
    let setup = Setup::new(&[user_with_scram("otto", "geheim-richtig")]);
    let file = setup.directory.path("passwords");
    let mut child = Command::new(env!("CARGO_BIN_EXE_dunlin"))
        .args(["--listen", "127.0.0.1:0", "--log", "trace", "--set", "persistence=memory", "--password-file"])
        .arg(&file)
        .env_clear()
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = BufReader::new(child.stderr.take().unwrap());
    let (tell, told) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut all = String::new();
        for line in log.lines().map(|line| line.unwrap()) {
            if let Some((_, rest)) = line.split_once("listening on ") {
                tell.send(rest.split_whitespace().next().unwrap().to_owned()).unwrap();
            }
            all.push_str(&line);
            all.push('\n');
        }
        all
    });
    let address = told.recv().unwrap();
    for (password, expected) in [("geheim-richtig", 0), ("geheim-falsch", 0x86), ("geheim-falsch", 0x86)] {
        let mut peer = Peer::new(within(TcpStream::connect(&address)).await.unwrap(), Version::V5);
        let connect = by(Version::V5, "otto", Some(password.as_bytes()));
        peer.send(&Packet::Connect(Box::new(connect))).await;
        assert_eq!(peer.conn_ack().await.1, expected);
    }
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    let all = within(tokio::task::spawn_blocking(move || reader.join().unwrap())).await.unwrap();
    child.wait().unwrap();
    assert!(all.contains("DEBUG") && all.contains("wrong password"), "{all}");
    assert!(all.contains("user=Some(\"otto\")") && all.contains("peer=127.0.0.1"), "{all}");
    let encoded = STANDARD.encode("geheim");
    for secret in ["geheim", "67656865696d", "103, 101, 104, 101", encoded.as_str(), "$argon2id$", "$scram"] {
        assert!(!all.contains(secret), "{secret} in {all}");
    }
}
