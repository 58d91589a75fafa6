//! `dunlin passwd`, driven as a user drives it, and clients of others against what it writes.
#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use dunlin::{Broker, Config, net::LocalAddress};
use rumqttc::{AsyncClient, ConnectReturnCode, ConnectionError, Event, MqttOptions, Packet};

/// A directory of its own, removed when dropped.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Directory {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("dunlin-passwd-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Directory(path)
    }

    /// Runs `dunlin passwd passwords …` with this standard input.
    fn passwd(&self, arguments: &[&str], input: &str) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_dunlin"))
            .args(["passwd", "passwords"])
            .args(arguments)
            .current_dir(&self.0)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that needs no input may have ended already.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }

    #[track_caller]
    fn succeed(&self, arguments: &[&str], input: &str) -> String {
        let output = self.passwd(arguments, input);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    fn fail(&self, arguments: &[&str], input: &str, why: &str) {
        let output = self.passwd(arguments, input);
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {told}");
        assert!(told.contains(why) && !told.contains("geheim"), "{arguments:?}: {told}");
    }

    fn file(&self) -> PathBuf {
        self.0.join("passwords")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn users_are_added_changed_checked_and_deleted() {
    let directory = Directory::new();
    directory.fail(&["change", "anna", "--stdin"], "geheim\n", "No such file");
    directory.succeed(&["add", "anna", "--stdin"], "geheim\n");
    assert_eq!(fs::metadata(directory.file()).unwrap().permissions().mode() & 0o777, 0o600);
    directory.fail(&["add", "anna", "--stdin"], "geheim", "is on line 2 already");
    directory.succeed(&["add", "bert", "--stdin", "--no-scram"], "geheim zwei\r\nand more");
    assert_eq!(directory.succeed(&["list"], ""), "anna argon2id scram-sha-256\nbert argon2id\n");
    directory.succeed(&["verify", "anna", "--stdin"], "geheim");
    directory.succeed(&["verify", "bert", "--stdin"], "geheim zwei");
    directory.fail(&["verify", "anna", "--stdin"], "geheimer", "wrong password");
    directory.fail(&["verify", "emil", "--stdin"], "geheim", "wrong password");
    directory.succeed(&["change", "anna", "--stdin"], "geheimer");
    directory.succeed(&["verify", "anna", "--stdin"], "geheimer");
    directory.succeed(&["delete", "bert"], "");
    directory.fail(&["delete", "bert"], "", "no such user");
    for (arguments, input, why) in [
        (&["add", "emil", "--stdin"][..], "\n", "the password is empty"),
        (&["add", "e:mil", "--stdin"], "geheim", "no colon"),
        (&["add", "emil", "--stdin"], "geheim\u{7}\n", "SASLprep"),
        (&["add", "emil"], "geheim", "no terminal"),
    ] {
        directory.fail(arguments, input, why);
    }
    let left: Vec<_> = fs::read_dir(&directory.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["passwords"], "no temporary files stay");
}

/// What is not understood stays, and so does who may read the file; a link stays a link.
#[test]
fn a_file_keeps_what_is_not_changed() {
    let directory = Directory::new();
    let real = directory.0.join("real");
    fs::write(&real, "# users\nstrange:line\n").unwrap();
    fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink(&real, directory.file()).unwrap();
    directory.succeed(&["add", "anna", "--stdin", "--no-scram"], "geheim");
    let text = fs::read_to_string(&real).unwrap();
    assert!(text.starts_with("# users\nstrange:line\nanna:$argon2id$v=19$m=19456,t=2,p=1$"), "{text}");
    assert_eq!(fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o640);
    assert!(fs::symlink_metadata(directory.file()).unwrap().is_symlink());
}

/// A client that others wrote, with the right password and with a wrong one.
#[tokio::test]
async fn a_client_of_others_is_let_in_by_what_is_written() {
    let directory = Directory::new();
    directory.succeed(&["add", "anna", "--stdin"], "geheim");
    let text = format!(
        "persistence = \"memory\"\n[auth.backends.local]\nkind = \"password_file\"\nfile = \"{}\"\n\
         [[listeners]]\naddress = \"127.0.0.1:0\"\n",
        directory.file().display()
    );
    let config = Config::from_toml(&text).unwrap();
    let broker = Broker::builder().config(config).start().await.unwrap();
    let LocalAddress::Tcp(address) = broker.addresses()[0].1 else { unreachable!("listens on TCP") };
    for (password, code) in [
        ("geheim", ConnectReturnCode::Success),
        ("falsch", ConnectReturnCode::BadUserNamePassword),
        ("geheim", ConnectReturnCode::Success),
    ] {
        let mut options = MqttOptions::new("client", "127.0.0.1", address.port());
        options.set_credentials("anna", password);
        let (_client, mut events) = AsyncClient::new(options, 1);
        let answer = tokio::time::timeout(Duration::from_secs(30), events.poll()).await.unwrap();
        let found = match answer {
            Ok(Event::Incoming(Packet::ConnAck(ack))) => ack.code,
            Err(ConnectionError::ConnectionRefused(code)) => code,
            other => panic!("{other:?}"),
        };
        assert_eq!(found, code, "{password}");
    }
}
