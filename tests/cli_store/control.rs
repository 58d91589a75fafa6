//! The control socket: who may speak, what is understood, and a backup of a broker that runs.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::Path,
    sync::{Arc, Barrier, mpsc},
    thread::{self, JoinHandle},
};

use dunlin::{
    control::{ControlSocket, Plan, Steer},
    store::{BackedUp, DataDirectory, Existing, Progress, backup, control_socket},
};
use redb::Database;
use tokio::{runtime, sync::oneshot};

use crate::{Scratch, build, messages};

/// What the broker does with its open database.
struct Broker {
    database: Database,
    /// Two backups that meet in the middle of the first.
    meeting: Option<Arc<Barrier>>,
}

impl Steer for Broker {
    fn backup(
        &self,
        to: &Path,
        existing: Existing,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<BackedUp, String> {
        if let Some(meeting) = &self.meeting {
            meeting.wait();
            meeting.wait();
        }
        backup(&self.database, to, existing, progress).map_err(|error| error.to_string())
    }

    fn plan(&self, _: &str) -> Result<Plan, String> {
        Err("not asked here".into())
    }

    fn reload(&self) -> Result<Plan, String> {
        Err("not asked here".into())
    }
}

/// A data directory that a broker uses, with its control socket served until the end.
struct Running {
    _directory: DataDirectory,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    fn start(data: &Path, rows: u64, meeting: Option<Arc<Barrier>>) -> Running {
        let directory = DataDirectory::open(data).unwrap();
        let database = build(&directory.database(), rows);
        let broker = Arc::new(Broker { database, meeting });
        let (stop, stopped) = oneshot::channel::<()>();
        let (bound, is_bound) = mpsc::channel();
        let data = data.to_owned();
        let serve = move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let socket = ControlSocket::bind(&data).unwrap();
                bound.send(()).unwrap();
                tokio::select! {
                    () = socket.serve(broker) => {}
                    _ = stopped => {}
                }
            });
        };
        let thread = thread::Builder::new().spawn(serve).unwrap();
        is_bound.recv().unwrap();
        Running { _directory: directory, stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.stop.take().unwrap().send(());
        self.thread.take().unwrap().join().unwrap();
    }
}

/// Sends bytes and returns all lines that come back.
fn say(data: &Path, bytes: &[u8]) -> Vec<String> {
    let mut stream = UnixStream::connect(control_socket(data)).unwrap();
    stream.write_all(bytes).unwrap();
    let _ = stream.shutdown(std::net::Shutdown::Write);
    BufReader::new(stream).lines().map_while(Result::ok).collect()
}

#[test]
fn a_running_broker_makes_its_own_backup() {
    let scratch = Scratch::new();
    let _running = Running::start(&scratch.data(), 300, None);
    let ran = scratch.run(&["backup", "copy.redb"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
    assert!(ran.stdout.contains("copy.redb: 601 rows"), "relative to where the command runs: {ran:?}");
    assert_eq!(messages(&scratch.path("copy.redb")).len(), 300);

    let ran = scratch.run(&["backup", "copy.redb"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("exists; --force replaces it"), "{ran:?}");
    assert_eq!(scratch.run(&["backup", "--force", "copy.redb"]).code, Some(0));
}

#[test]
fn the_socket_is_for_the_user_of_the_broker() {
    let scratch = Scratch::new();
    let running = Running::start(&scratch.data(), 1, None);
    let socket = control_socket(&scratch.data());
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    drop(running);
    assert!(!socket.exists(), "it goes with the broker");
}

#[test]
fn a_socket_that_a_killed_broker_has_left_is_in_nobodys_way() {
    let scratch = Scratch::new();
    drop(std::os::unix::net::UnixListener::bind(control_socket(&scratch.data())).unwrap());
    assert!(control_socket(&scratch.data()).exists());
    let ran = scratch.run(&["store", "check"]);
    assert!(ran.stderr.contains("there is no store"), "{ran:?}");
    let _running = Running::start(&scratch.data(), 3, None);
    assert_eq!(scratch.run(&["backup", "copy.redb"]).code, Some(0));
}

/// The path of a Unix socket has at most 107 bytes, that of a data directory may have more.
#[test]
fn a_long_path_is_no_obstacle() {
    let scratch = Scratch::new();
    let long = scratch.path(&"long".repeat(40));
    fs::create_dir(&long).unwrap();
    let _running = Running::start(&long, 3, None);
    let ran = scratch.run(&["backup", "copy.redb", "-c", "d.toml"]);
    assert_eq!(ran.code, Some(2), "no such configuration: {ran:?}");
    fs::remove_dir(scratch.data()).unwrap();
    std::os::unix::fs::symlink(&long, scratch.data()).unwrap();
    let ran = scratch.run(&["backup", "copy.redb"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let lines = {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_dunlin"))
            .args(["backup", "--force", "copy.redb", "--data-dir"])
            .arg(&long)
            .current_dir(&scratch.0)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
    };
    assert!(lines.contains("copy.redb: 7 rows"), "{lines}");
}

#[test]
fn what_is_not_understood_is_refused_in_words() {
    let scratch = Scratch::new();
    let _running = Running::start(&scratch.data(), 1, None);
    let long = [b"{\"version\":1,".as_slice(), &vec![b' '; 1_100_000]].concat();
    for (request, why) in [
        (
            &b"{\"version\":1,\"request\":\"fly\"}\n"[..],
            "unknown variant `fly`, expected one of `backup`, `plan`, `reload`",
        ),
        (b"{\"version\":9,\"request\":\"backup\"}\n", "version 9"),
        (b"hello\n", "not understood"),
        (b"{\"version\":1", "not a line"),
        (&long, "not a line"),
        (
            b"{\"version\":1,\"request\":\"backup\",\"path\":\"copy\",\"replace\":false}\n",
            "not an absolute path",
        ),
    ] {
        let replies = say(&scratch.data(), request);
        assert_eq!(replies.len(), 1, "{replies:?}");
        assert!(replies[0].contains("\"reply\":\"failed\"") && replies[0].contains(why), "{replies:?}");
    }
}

#[test]
fn one_backup_at_a_time() {
    let scratch = Scratch::new();
    let meeting = Arc::new(Barrier::new(2));
    let _running = Running::start(&scratch.data(), 1, Some(meeting.clone()));
    let mut first = UnixStream::connect(control_socket(&scratch.data())).unwrap();
    let path = scratch.path("first");
    let request = format!("{{\"version\":1,\"request\":\"backup\",\"path\":{path:?},\"replace\":false}}\n");
    first.write_all(request.as_bytes()).unwrap();
    meeting.wait();
    let ran = scratch.run(&["backup", "second"]);
    assert!(ran.code == Some(1) && ran.stderr.contains("another backup"), "{ran:?}");
    meeting.wait();
    let replies: Vec<String> = BufReader::new(first).lines().map(Result::unwrap).collect();
    assert!(replies.last().unwrap().contains("\"reply\":\"done\""), "{replies:?}");
}

#[test]
fn connections_that_say_nothing_do_not_keep_others_out_for_ever() {
    let scratch = Scratch::new();
    let _running = Running::start(&scratch.data(), 1, None);
    let silent: Vec<UnixStream> =
        (0..20).map(|_| UnixStream::connect(control_socket(&scratch.data())).unwrap()).collect();
    drop(silent);
    assert_eq!(scratch.run(&["backup", "copy.redb"]).code, Some(0));
}
