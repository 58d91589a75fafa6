//! Access rules as their users meet them: `dunlin acl`, and a broker that has a file of rules.
#![expect(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

use std::{
    fs,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
};

use dunlin::{
    Broker, ClientError, Config, QoS, StartError,
    acl::{Format, Policy},
    codec::ReasonCode,
    config::{Acl, Persistence},
};

const RULES: &str = r##"[groups]
operators = ["ann"]
sensors = []
[roles.sensor]
groups = ["sensors"]
rules = [
    { allow = ["publish"], topics = ["sensors/%c/#"], qos_max = 1 },
]

[[rules]]
deny = ["subscribe"]
topics = ["secret/#"]

[[rules]]
allow = ["all"]
groups = ["operators"]
topics = ["#"]
"##;

/// A directory of its own with files.
struct Files(PathBuf);

impl Files {
    fn new(files: &[(&str, &str)]) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("dunlin-acl-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).unwrap();
        files.iter().for_each(|(name, text)| fs::write(directory.join(name), text).unwrap());
        Self(directory)
    }

    /// Runs the program here: its exit code, standard output and standard error.
    fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dunlin"));
        let output = command.args(arguments).current_dir(&self.0).env_clear().output().unwrap();
        let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        (output.status.code(), stdout, stderr)
    }

    fn config(&self) -> Config {
        let acl = Some(Acl { file: self.0.join("acl.toml"), format: None });
        Config { acl, shards: 1, persistence: Persistence::Memory, ..Config::default() }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn explain_says_which_rule_decides() {
    let files = Files::new(&[("acl.toml", RULES), ("d.toml", "acl.file = \"acl.toml\"\n")]);
    let allowed = "allowed: acl.toml:7: allow publish to \"sensors/%c/#\" up to QoS 1 for role sensor\n";
    let denied = "denied: acl.toml:10: deny subscribe to \"secret/#\" for everybody\n";
    let from_config = format!(
        "allowed: {}: allow publish to, subscribe to, receive \"#\" for group operators\n",
        files.0.join("acl.toml:14").display()
    );
    let table = [
        (
            &[
                "--acl",
                "acl.toml",
                "--client",
                "c1",
                "--group",
                "sensors",
                "--publish",
                "sensors/c1/x",
                "--qos",
                "1",
            ][..],
            0,
            allowed,
        ),
        (&["--acl", "acl.toml", "--user", "ann", "--receive", "secret/x"], 1, denied),
        (&["--acl", "acl.toml", "--user", "ann", "--subscribe", "$share/g/secret/x"], 1, denied),
        (&["-c", "d.toml", "--user", "ann", "--subscribe", "#"], 0, &from_config),
    ];
    for (arguments, code, stdout) in table {
        let ran = files.run(&[&["acl", "explain"], arguments].concat());
        assert_eq!(ran, (Some(code), stdout.to_owned(), String::new()), "{arguments:?}");
    }
    let ran =
        files.run(&["acl", "explain", "--acl", "acl.toml", "--client", "c1", "--publish", "sensors/c1/x"]);
    assert_eq!(ran.0, Some(1));
    assert!(ran.1.contains("not by acl.toml:7") && ran.1.contains("is not meant"), "{ran:?}");
    for arguments in [&["--publish", "a/#"][..], &["--publish", "a", "--receive", "a"], &[]] {
        let ran = files.run(&[&["acl", "explain", "--acl", "acl.toml"], arguments].concat());
        assert_eq!((ran.0, ran.1.as_str()), (Some(2), ""), "{arguments:?}");
    }
    assert!(files.run(&["acl", "explain", "--publish", "a"]).2.contains("set acl.file"));
}

#[test]
fn tests_of_rules_name_what_is_decided_otherwise() {
    let good = "acl = \"acl.toml\"\n[[tests]]\nuser = \"ann\"\npublish = [\"a\", \"b/c\"]\nsubscribe = [\"#\"]\nexpect = \"allow\"\n\
                [[tests]]\nreceive = [\"secret/x\"]\npublish = [\"a\"]\nexpect = \"deny\"\n";
    let bad = "acl = \"acl.toml\"\n[[tests]]\nuser = \"ann\"\nsubscribe = [\n  \"a\",\n  \"secret/x\",\n]\nexpect = \"allow\"\n";
    let files = Files::new(&[
        ("acl.toml", RULES),
        ("good.toml", good),
        ("bad.toml", bad),
        ("odd.toml", "acl = 'x'\nexpct = 1\n"),
    ]);
    assert_eq!(
        files.run(&["acl", "test", "good.toml"]),
        (Some(0), "5 decisions, all as expected\n".into(), String::new())
    );
    let failed = "bad.toml:6: that user ann may subscribe to \"secret/x\" should be allowed, and is denied: acl.toml:10: deny \
                  subscribe to \"secret/#\" for everybody\n7 decisions, 1 not as expected\n";
    assert_eq!(files.run(&["acl", "test", "good.toml", "bad.toml"]), (Some(1), failed.into(), String::new()));
    let ran = files.run(&["acl", "test", "odd.toml"]);
    assert_eq!(ran.0, Some(2));
    assert!(ran.2.starts_with("error: odd.toml:2: unknown field `expct`"), "{ran:?}");
}

#[test]
fn check_tells_errors_from_oddities() {
    let odd = "[[rules]]\nallow = \"all\"\ntopics = \"#\"\n[[rules]]\ndeny = \"all\"\ntopics = \"a\"\n";
    let wrong = "[[rules]]\nallow = \"al\"\ntopics = \"#/a\"\n";
    let files = Files::new(&[
        ("acl.toml", RULES),
        ("odd.toml", odd),
        ("wrong.toml", wrong),
        ("acl", "user ann\ntopic read a/#\n"),
    ]);
    assert_eq!(files.run(&["acl", "check", "acl.toml"]).1, "acl.toml: 3 rules, nothing is wrong\n");
    assert_eq!(files.run(&["acl", "check", "acl"]).0, Some(0));
    let ran = files.run(&["acl", "check", "odd.toml"]);
    assert_eq!(ran.0, Some(1));
    assert!(ran.1.starts_with("odd.toml:4: never decides"), "{ran:?}");
    let ran = files.run(&["acl", "check", "wrong.toml"]);
    assert_eq!((ran.0, ran.2.lines().count()), (Some(2), 2), "{ran:?}");
    assert!(ran.2.starts_with("error: wrong.toml:2:9: \"al\" is no action"), "{ran:?}");
}

#[tokio::test]
async fn a_broker_decides_by_the_file_of_its_configuration() {
    let rules =
        "[[rules]]\nallow = ['publish', 'subscribe']\nanonymous = true\ntopics = ['free/%c']\nqos_max = 1\n";
    let files = Files::new(&[("acl.toml", rules)]);
    let broker = Broker::builder().config(files.config()).no_listeners().start().await.unwrap();
    let mut client = broker.client("c1").await.unwrap();
    assert_eq!(client.subscribe("free/c1", QoS::ExactlyOnce).await.unwrap(), QoS::AtLeastOnce);
    client.publish("free/c1", b"x", QoS::AtLeastOnce).await.unwrap();
    let refused = |error| matches!(error, ClientError::Refused(ReasonCode::NotAuthorized));
    assert!(refused(client.publish("free/c2", b"x", QoS::AtLeastOnce).await.unwrap_err()));
    assert!(refused(client.publish("free/c1", b"x", QoS::ExactlyOnce).await.unwrap_err()));
    assert!(refused(client.subscribe("free/+", QoS::AtMostOnce).await.unwrap_err()));
    // A connected client has the new rules at once.
    let open = Policy::parse("new", "rules = [{ allow = 'all', topics = '#' }]", Format::Toml).unwrap();
    broker.rules().unwrap().replace(Some(std::sync::Arc::new(open)));
    client.publish("free/c2", b"x", QoS::AtLeastOnce).await.unwrap();
    broker.stop().await;
}

#[tokio::test]
async fn a_broker_does_not_start_with_a_bad_file() {
    let files = Files::new(&[("acl.toml", "[[rules]]\nallow = 'al'\ntopics = 'a'\n")]);
    let Err(StartError::Acl(errors)) = Broker::builder().config(files.config()).no_listeners().start().await
    else {
        panic!("it started")
    };
    assert!(errors.to_string().contains("acl.toml:2:9: \"al\" is no action"), "{errors}");
    let ran = files.run(&["--acl-file", "acl.toml", "--listen", "127.0.0.1:0", "--data-dir", "."]);
    assert_eq!(ran.0, Some(1));
    let said = ran.1 + &ran.2;
    assert!(said.contains("acl.toml:2:9: \"al\" is no action"), "{said}");
    assert!(files.run(&["check", "--acl-file", "acl.toml"]).1.contains("[acl]\nfile = "));
}
