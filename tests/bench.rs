//! `dunlin bench` against a broker in this process: it sends what it was told to, and its accounts are right.
//!
//! No figure of time is asserted, for this machine may have better things to do.
#![expect(clippy::unwrap_used, reason = "helpers of tests may fail the test")]
#![expect(clippy::disallowed_methods, reason = "a scripted broker has a thread for each connection")]

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use dunlin::{
    Broker, Config, QoS,
    codec::{
        Ack, ConnAck, ConnAckProperties, ConnAckReturn, Decoded, PACKET_BYTES_LIMIT, Packet, ReasonCode,
        SubAck, Version, decode, encode,
    },
    net::LocalAddress,
};
use serde_json::Value;
use tokio::runtime::Runtime;

/// A broker for all to use, in memory.
struct Server {
    runtime: Runtime,
    broker: Broker,
}

impl Server {
    fn start() -> Self {
        Self::with("[[listeners]]\nkind = \"tcp\"\naddress = \"127.0.0.1:0\"\n")
    }

    fn with(listeners: &str) -> Self {
        let runtime = Runtime::new_current();
        let config = Config::from_toml(&format!("persistence = \"memory\"\n{listeners}")).unwrap();
        let broker = runtime.block_on(Broker::builder().config(config).start()).unwrap();
        Self { runtime, broker }
    }

    fn port(&self) -> String {
        let LocalAddress::Tcp(address) = self.broker.addresses()[0].1 else { unreachable!("listens on TCP") };
        address.port().to_string()
    }

    /// Runs the program against this broker.
    fn bench(&self, arguments: &[&str]) -> Ran {
        bench(&self.port(), arguments)
    }
}

trait Current {
    fn new_current() -> Self;
}

impl Current for Runtime {
    fn new_current() -> Self {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }
}

/// What came of a run.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    report: Value,
    stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            report: serde_json::from_slice(&output.stdout).unwrap_or(Value::Null),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ran {
    /// Counts of the report by their path, as `messages/sent`.
    fn counts<const N: usize>(&self, paths: [&str; N]) -> [u64; N] {
        paths.map(|path| {
            let count = self.report.pointer(&format!("/{path}")).and_then(Value::as_u64);
            count.unwrap_or_else(|| panic!("{path}: {self:?}"))
        })
    }

    fn assert_success(&self) {
        assert_eq!((self.code, self.stderr.as_str()), (Some(0), ""), "{self:?}");
        assert_eq!(self.report["problems"], Value::Array(Vec::new()), "{self:?}");
    }
}

fn command(port: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dunlin"));
    command.arg("bench").args(arguments).args(["-h", "127.0.0.1", "-p", port, "--json"]);
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn bench(port: &str, arguments: &[&str]) -> Ran {
    command(port, arguments).output().unwrap().into()
}

const ACCOUNTS: [&str; 6] = [
    "messages/sent",
    "messages/taken",
    "messages/delivery/expected",
    "messages/delivery/delivered",
    "messages/delivery/lost",
    "messages/delivery/duplicates",
];

#[test]
fn pairs_get_what_was_sent_at_every_qos_in_both_versions() {
    let server = Server::start();
    for (qos, version) in [("0", "5"), ("1", "5"), ("2", "5"), ("0", "3.1.1"), ("1", "3.1.1"), ("2", "3.1.1")]
    {
        let arguments =
            ["latency", "--publishers", "4", "--count", "1002", "--size", "40", "-q", qos, "-V", version];
        let ran = server.bench(&arguments);
        ran.assert_success();
        assert_eq!(ran.counts(ACCOUNTS), [1002, 1002, 1002, 1002, 0, 0], "{qos} {version}");
        let [out_of_order, received, bytes, measured] = ran.counts([
            "messages/delivery/out_of_order",
            "messages/received",
            "messages/received_bytes",
            "latency_from_due/count",
        ]);
        assert_eq!((out_of_order, received, bytes, measured), (0, 1002, 40 * 1002, 1002));
        let acknowledgements = ran.report["acknowledgement"]["count"].as_u64();
        assert_eq!(acknowledgements, if qos == "0" { None } else { Some(1002) });
        assert_eq!(ran.report["settings"]["mqtt"], version);
    }
}

#[test]
fn layouts_multiply_what_is_sent() {
    let server = Server::start();
    for (layout, publishers, subscribers, deliveries) in
        [("fan-in", "5", "2", 600), ("fan-out", "2", "7", 2100)]
    {
        let arguments = ["latency", "--layout", layout, "--publishers", publishers, "-s", subscribers];
        let ran = server.bench(&[&arguments[..], &["--count", "300", "-q", "1", "--threads", "3"]].concat());
        ran.assert_success();
        assert_eq!(ran.counts(ACCOUNTS), [300, 300, deliveries, deliveries, 0, 0], "{layout}");
    }
}

/// The schedule alone says how many messages there are, and a seed says when they are.
#[test]
fn an_open_loop_sends_what_its_schedule_says() {
    let server = Server::start();
    let times = ["--duration", "0.4", "--warmup", "0.2", "--rate", "1000"];
    let run = |arguments: &[&str]| {
        let ran = server.bench(&[&["latency", "--publishers", "5"], &times[..], arguments].concat());
        ran.assert_success();
        let [sent, unsent, delivered, measured] = ran.counts([
            "messages/sent",
            "messages/unsent",
            "messages/delivery/delivered",
            "latency_from_send/count",
        ]);
        assert_eq!(sent, delivered);
        assert!(measured < sent, "what is sent in the warm-up is not measured");
        sent + unsent
    };
    assert_eq!(run(&["--arrivals", "constant"]), 600);
    assert_eq!(run(&["--seed", "7", "-q", "1"]), run(&["--seed", "7"]));
}

#[test]
fn connections_are_made_and_held() {
    let server = Server::start();
    for arguments in [&["--at-once", "7"][..], &["--rate", "500"], &["--threads", "3", "-V", "3.1.1"]] {
        let ran = server.bench(&[&["connect", "-n", "60", "--hold", "0.1"], arguments].concat());
        ran.assert_success();
        let paths =
            ["connections/connected", "connections/connack/count", "connections/failed", "connections/ended"];
        assert_eq!(ran.counts(paths), [60, 60, 0, 0]);
    }
}

#[test]
fn pub_retains_and_sub_counts() {
    let server = Server::start();
    let ran = server
        .bench(&["pub", "-n", "5", "-t", "r/%i", "--retain", "--count", "10", "-q", "2", "--size", "3"]);
    ran.assert_success();
    assert_eq!(ran.counts(["messages/sent", "messages/taken", "messages/refused"]), [10, 10, 0]);
    let ran = server.bench(&["sub", "-n", "2", "-t", "r/#", "--duration", "1"]);
    ran.assert_success();
    assert_eq!(ran.counts(["messages/received", "messages/received_bytes"]), [10, 30]);
}

#[test]
fn tls_is_measured_like_anything_else() {
    let directory = std::env::temp_dir().join(format!("dunlin-bench-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let certs = Command::new(env!("CARGO_BIN_EXE_dunlin")).arg("certs").arg(&directory).output().unwrap();
    assert!(certs.status.success(), "{certs:?}");
    let file = |name: &str| directory.join(name).display().to_string();
    let server = Server::with(&format!(
        "[[listeners]]\nkind = \"tls\"\naddress = \"127.0.0.1:0\"\n[listeners.tls]\ncertificate = {:?}\nkey = {:?}\n",
        file("server.pem"),
        file("server.key")
    ));
    let authority = file("ca.pem");
    let arguments = ["latency", "--publishers", "3", "--count", "500", "-q", "1", "--size", "5000"];
    let ran = server.bench(&[&arguments[..], &["--cafile", &authority]].concat());
    ran.assert_success();
    assert_eq!(ran.counts(ACCOUNTS), [500, 500, 500, 500, 0, 0]);
    assert_eq!(ran.report["settings"]["tls"], true);
    // The client's own certificate is no authority.
    let ran = server.bench(&["connect", "-n", "2", "--cafile", &file("client.pem")]);
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr.starts_with("error: 2 of 2 connections failed: TLS: invalid peer certificate"),
        "{ran:?}"
    );
    let _ = fs::remove_dir_all(&directory);
}

#[test]
fn an_interrupt_ends_a_run_with_its_report() {
    let server = Server::start();
    let mut child = command(&server.port(), &["pub", "-q", "1", "--duration", "600"]);
    // Whoever listens knows that the run has begun.
    let mut listener = server.runtime.block_on(server.broker.client("listener")).unwrap();
    server.runtime.block_on(listener.subscribe("bench/#", QoS::AtMostOnce)).unwrap();
    let child = child.spawn().unwrap();
    let first = server.runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(30), listener.receive()).await.expect("does not hang")
    });
    first.unwrap();
    let process = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::INT).unwrap();
    let ran = Ran::from(child.wait_with_output().unwrap());
    ran.assert_success();
    let [sent, taken] = ran.counts(["messages/sent", "messages/taken"]);
    assert!(sent > 0 && sent == taken, "{ran:?}");
}

#[test]
fn a_refusal_has_its_name() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let ran = bench(&free, &["connect", "-n", "3"]);
    let message = "error: 3 of 3 connections failed: Connection refused\n";
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(1), message));

    let port = fake_broker(|mut peer| {
        peer.expect_connect();
        peer.connack(ReasonCode::NotAuthorized);
    });
    let ran = bench(&port, &["latency", "--publishers", "1"]);
    assert_eq!(ran.code, Some(1));
    assert_eq!(ran.stderr, "error: 2 of 2 connections failed: CONNECT refused: Not authorized\n");
}

/// A broker that loses one message, delivers one twice and one too late is found out.
#[test]
fn what_a_broker_does_wrong_is_counted() {
    let (sender, receiver) = mpsc::sync_channel::<Vec<u8>>(8);
    let receiver = std::sync::Mutex::new(receiver);
    let port = fake_broker(move |mut peer| {
        let client_id = peer.expect_connect();
        peer.connack(ReasonCode::Success);
        if client_id.contains('s') {
            peer.expect(|packet| matches!(packet, Packet::Subscribe(_)).then_some(()));
            peer.suback(1);
            let receiver = receiver.lock().unwrap();
            let payloads: Vec<_> = receiver.iter().take(3).collect();
            for number in [1, 0, 0] {
                peer.publish(&payloads[number]);
            }
        } else {
            for _ in 0..3 {
                let (id, payload) = peer.expect(|packet| match packet {
                    Packet::Publish(publish) => {
                        Some((publish.delivery.packet_id().unwrap(), publish.payload.to_vec()))
                    }
                    _ => None,
                });
                peer.write(&Packet::PubAck(Ack::success(id)));
                sender.send(payload).unwrap();
            }
        }
        peer.expect(|packet| matches!(packet, Packet::Disconnect(_)).then_some(()));
    });
    let ran = bench(&port, &["latency", "--publishers", "1", "--count", "3", "-q", "1", "-i", "x"]);
    assert_eq!(ran.code, Some(1));
    assert_eq!(ran.counts(ACCOUNTS), [3, 3, 3, 2, 1, 1]);
    assert_eq!(ran.counts(["messages/delivery/out_of_order"]), [1]);
    assert_eq!(ran.stderr, "error: 1 messages lost\nerror: 1 messages out of order\n");
}

#[test]
fn usage_is_checked_before_connecting() {
    let cases: [&[&str]; 10] = [
        &["latency", "--size", "10"],
        &["latency", "--publishers", "2", "--subscribers", "3"],
        &["latency", "--layout", "fan-in", "-t", "a/x%i"],
        &["latency", "-t", "same"],
        &["pub", "-t", "a/#"],
        &["sub", "-t", "a/#/b"],
        &["pub", "--duration", "-1"],
        &["connect", "--rate", "1", "--at-once", "2"],
        &["connect", "--insecure"],
        &["pub", "-q", "3"],
    ];
    for arguments in cases {
        let ran = bench("1", arguments);
        assert!(ran.code == Some(2) && ran.stderr.starts_with("error: "), "{arguments:?} {ran:?}");
    }
    let program = PathBuf::from(env!("CARGO_BIN_EXE_dunlin"));
    let output = Command::new(program).args(["bench", "connect", "--url", "http://a"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

/// The broker's side of a connection.
struct Peer {
    socket: TcpStream,
    input: Vec<u8>,
}

/// Answers each connection by a script, on a port that it returns.
fn fake_broker(script: impl Fn(Peer) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let script = std::sync::Arc::new(script);
    thread::spawn(move || {
        for socket in listener.incoming() {
            let script = std::sync::Arc::clone(&script);
            let peer = Peer { socket: socket.unwrap(), input: Vec::new() };
            thread::spawn(move || script(peer));
        }
    });
    port
}

impl Peer {
    /// The next packet, which must be what is wanted.
    fn expect<T>(&mut self, wanted: impl Fn(&Packet<'_>) -> Option<T>) -> T {
        loop {
            if let Decoded::Packet(packet, length) =
                decode(&self.input, Version::V5, PACKET_BYTES_LIMIT).unwrap()
            {
                let found = wanted(&packet).unwrap_or_else(|| panic!("unexpected {packet:?}"));
                self.input.drain(..length);
                return found;
            }
            let mut bytes = [0; 4096];
            let count = self.socket.read(&mut bytes).unwrap();
            assert!(count > 0, "the program closed the connection");
            self.input.extend_from_slice(&bytes[..count]);
        }
    }

    /// Returns the client identifier.
    fn expect_connect(&mut self) -> String {
        self.expect(|packet| match packet {
            Packet::Connect(connect) => Some(connect.client_id.to_owned()),
            _ => None,
        })
    }

    fn connack(&mut self, reason: ReasonCode) {
        let properties = ConnAckProperties::default();
        let code = ConnAckReturn::V5(reason);
        self.write(&Packet::ConnAck(Box::new(ConnAck { session_present: false, code, properties })));
    }

    fn suback(&mut self, code: u8) {
        let ack = Ack::success(dunlin::codec::PacketId::MIN);
        self.write(&Packet::SubAck(SubAck {
            packet_id: ack.packet_id,
            properties: ack.properties,
            codes: &[code],
        }));
    }

    /// Delivers a message at QoS 0.
    fn publish(&mut self, payload: &[u8]) {
        self.write(&Packet::Publish(dunlin::codec::Publish {
            dup: false,
            delivery: dunlin::codec::Delivery::AtMostOnce,
            retain: false,
            topic: "bench/0",
            properties: dunlin::codec::PublishProperties::default(),
            payload,
        }));
    }

    fn write(&mut self, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        encode(packet, Version::V5, &mut bytes);
        self.socket.write_all(&bytes).unwrap();
    }
}
