//! The program on a data directory of its own, started as often as a test wants.

use std::{
    fs::{self, File, Permissions},
    io::Read,
    os::unix::{fs::PermissionsExt, net::UnixStream, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

/// How long anything may take that has to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A directory with a configuration, data and a log, and the broker that may run in it.
pub(crate) struct Broker {
    directory: PathBuf,
    /// Size of the file system that holds its data, if it has one of its own.
    disk_mib: Option<u32>,
    child: Option<Child>,
}

impl Broker {
    /// A directory without data. `settings` are lines of the configuration.
    pub(crate) fn new(name: &str, settings: &str) -> Broker {
        let directory = std::env::temp_dir().join(format!("dunlin-crash-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).unwrap();
        let broker = Broker { directory, disk_mib: None, child: None };
        let listener = format!("[[listeners]]\nkind = \"unix\"\npath = {:?}\n", broker.socket());
        fs::write(broker.directory.join("dunlin.toml"), format!("{settings}\n{listener}")).unwrap();
        broker
    }

    /// The data is on a disk of its own of this size, which is gone with the process.
    pub(crate) fn on_disk_of(mut self, mib: u32) -> Broker {
        self.disk_mib = Some(mib);
        self
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.join("socket")
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// The file of the store.
    pub(crate) fn database(&self) -> PathBuf {
        self.data().join("dunlin.redb")
    }

    /// What was set aside since it was damaged, and the reports of that, by name.
    pub(crate) fn quarantine(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.data().join("quarantine")) else { return Vec::new() };
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }

    fn log(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// A command that starts the broker.
    fn command(&self, program: &Path) -> Command {
        let log = File::options().append(true).create(true).open(self.log()).unwrap();
        let mut command = match self.disk_mib {
            None => Command::new(program),
            Some(mib) => {
                fs::create_dir_all(self.data()).unwrap();
                let mut command = in_own_mounts();
                let script = r#"mount -t tmpfs -o size="$1"m dunlin "$2" && shift 2 && exec "$@""#;
                command.args(["sh", "-c", script, "sh", &mib.to_string()]).arg(self.data()).arg(program);
                command
            }
        };
        command.arg("--config").arg(self.directory.join("dunlin.toml")).arg("--data-dir").arg(self.data());
        command.env_clear().env("DUNLIN__SHARDS", "2").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command
    }

    /// Starts the broker, which is to end at once, and to say why. Returns with what code it did, and its log.
    /// `user` may not write where this user may.
    pub(crate) fn start_in_vain(&mut self, user: Option<u32>) -> (Option<i32>, String) {
        let _ = fs::remove_file(self.log());
        let mut program = PathBuf::from(env!("CARGO_BIN_EXE_dunlin"));
        if user.is_some() {
            // Others may not see the place of the original.
            program = self.directory.join("dunlin");
            fs::copy(env!("CARGO_BIN_EXE_dunlin"), &program).unwrap();
            fs::set_permissions(&self.directory, Permissions::from_mode(0o777)).unwrap();
        }
        let mut command = self.command(&program);
        if let Some(user) = user {
            command.uid(user).gid(user);
        }
        self.child = Some(command.spawn().unwrap());
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                self.child = None;
                return (status.code(), self.log_tail());
            }
            assert!(Instant::now() < deadline, "the broker does not end:\n{}", self.log_tail());
            std::thread::yield_now();
        }
    }

    /// Starts the broker and waits until it takes connections.
    pub(crate) fn start(&mut self) {
        let mut command = self.command(Path::new(env!("CARGO_BIN_EXE_dunlin")));
        self.child = Some(command.spawn().unwrap());
        let deadline = Instant::now() + PATIENCE;
        while UnixStream::connect(self.socket()).is_err() {
            let child = self.child.as_mut().unwrap();
            assert!(child.try_wait().unwrap().is_none(), "the broker ended:\n{}", self.log_tail());
            assert!(Instant::now() < deadline, "the broker does not listen:\n{}", self.log_tail());
            std::thread::yield_now();
        }
    }

    /// Ends it as a power loss would end the process: at once.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Asks it to end, and waits for that.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        let status = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
        assert!(status.success());
        child.wait().unwrap()
    }

    /// The end of its log.
    pub(crate) fn log_tail(&self) -> String {
        let mut log = String::new();
        let _ = File::open(self.log()).and_then(|mut file| file.read_to_string(&mut log));
        let start = log.floor_char_boundary(log.len().saturating_sub(4000));
        log[start..].into()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("log of the broker in {}:\n{}", show(&self.directory), self.log_tail());
        } else {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

/// A command that sees file systems that nobody else sees.
fn in_own_mounts() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "--"]);
    command
}

/// Whether this machine lets us mount file systems that nobody else sees.
pub(crate) fn can_mount() -> bool {
    let mounted = in_own_mounts().args(["mount", "-t", "tmpfs", "dunlin", "/tmp"]).status();
    mounted.is_ok_and(|status| status.success())
}

fn show(path: &Path) -> String {
    path.display().to_string()
}
