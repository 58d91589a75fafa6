//! The side of the broker.

use std::{
    fs::{self, Permissions},
    future::pending,
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustix::process::geteuid;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::{Semaphore, mpsc},
    task::{JoinSet, spawn_blocking},
    time::timeout,
};
use tracing::{debug, warn};

use super::Plan;
use super::{Reply, Request, path::SocketPath};
use crate::store::{BackedUp, Existing, Progress, control_socket};

/// Connections at a time; further ones wait in the system's queue.
const CONNECTIONS_MAX: usize = 8;
/// Bytes of a request: a whole configuration, or the longest path there is.
const REQUEST_BYTES_MAX: u64 = 1 << 20;
/// Time that a command may take to say what it wants, or to read a line of what it is told.
const PATIENCE: Duration = Duration::from_secs(10);

/// Time until another connection is accepted after one could not be.
const PAUSE: Duration = Duration::from_millis(100);

/// What commands can make a broker do.
pub trait Steer: Send + Sync + 'static {
    /// Copies the store to a file, and says now and then how far it has come. It may take long, and is called on
    /// a thread where that does no harm; never twice at a time.
    ///
    /// # Errors
    /// Why there is no copy, in words.
    fn backup(
        &self,
        to: &Path,
        existing: Existing,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<BackedUp, String>;

    /// What a reload with this configuration, as TOML, would change. Called on a thread that may wait.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    fn plan(&self, config: &str) -> Result<Plan, String>;

    /// Reads the configuration again. Called likewise.
    ///
    /// # Errors
    /// What is wrong with it, in words; nothing has changed then.
    fn reload(&self) -> Result<Plan, String>;
}

/// A control socket that is bound.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
}

/// What all connections share.
struct Control {
    steer: Arc<dyn Steer>,
    /// Backups write a lot: one at a time.
    backups: Arc<Semaphore>,
}

impl ControlSocket {
    /// Binds the socket in a data directory that this process has taken: a socket that is there was left by a
    /// broker that is gone. It belongs to the runtime that it is bound in.
    ///
    /// # Errors
    /// What the system says.
    pub fn bind(data_dir: &Path) -> io::Result<ControlSocket> {
        let path = control_socket(data_dir);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(SocketPath::new(&path)?.as_path())?;
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        Ok(ControlSocket { listener, path })
    }

    /// Serves until it is dropped.
    pub async fn serve(self, steer: Arc<dyn Steer>) {
        let control = Arc::new(Control { steer, backups: Arc::new(Semaphore::new(1)) });
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        loop {
            let Ok(permit) = permits.clone().acquire_owned().await else { return };
            // Those that have ended are let go.
            while connections.try_join_next().is_some() {}
            match self.listener.accept().await {
                Ok((stream, _)) if is_trusted(&stream) => {
                    let control = control.clone();
                    connections.spawn(async move {
                        if let Err(error) = control.connection(stream).await {
                            debug!("control connection: {error}");
                        }
                        drop(permit);
                    });
                }
                Ok(_) => warn!("a user who is not that of the broker has tried to control it"),
                Err(error) => {
                    warn!("control socket: {error}");
                    // Out of descriptors, mostly: others will give some back.
                    let _ = timeout(PAUSE, pending::<()>()).await;
                }
            }
        }
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Whether the other side runs as the user of the broker, or as the superuser. The mode of the socket says the
/// same, but not every system heeds it.
fn is_trusted(stream: &UnixStream) -> bool {
    stream.peer_cred().is_ok_and(|peer| peer.uid() == 0 || peer.uid() == geteuid().as_raw())
}

impl Control {
    async fn connection(&self, stream: UnixStream) -> io::Result<()> {
        let (reader, mut writer) = stream.into_split();
        let mut line = Vec::new();
        let mut reader = BufReader::new(reader).take(REQUEST_BYTES_MAX);
        timeout(PATIENCE, reader.read_until(b'\n', &mut line)).await??;
        let request = if line.ends_with(b"\n") {
            Request::parse(&line)
        } else {
            Err(format!("the request is not a line of at most {REQUEST_BYTES_MAX} bytes"))
        };
        let (replies, mut queue) = mpsc::channel(1);
        let answer = async {
            let last = match request {
                Ok(request) => self.answer(request, replies).await,
                Err(message) => {
                    drop(replies);
                    Reply::Failed { message }
                }
            };
            Ok::<Reply, io::Error>(last)
        };
        let tell = async {
            while let Some(reply) = queue.recv().await {
                send(&mut writer, &reply).await?;
            }
            Ok(writer)
        };
        let (last, mut writer) = tokio::try_join!(answer, tell)?;
        send(&mut writer, &last).await?;
        writer.shutdown().await
    }

    /// Does what is wanted. Returns the last reply; those on the way go to `replies`, which is dropped before.
    async fn answer(&self, request: Request, replies: mpsc::Sender<Reply>) -> Reply {
        let done = match request {
            Request::Backup { path, replace } => self.backup(path, replace, replies).await,
            Request::Plan { config } => self.blocking(move |steer| steer.plan(&config)).await,
            Request::Reload => self.blocking(|steer| steer.reload()).await,
        };
        done.unwrap_or_else(|message| Reply::Failed { message })
    }

    async fn blocking(
        &self,
        work: impl FnOnce(&dyn Steer) -> Result<Plan, String> + Send + 'static,
    ) -> Result<Reply, String> {
        let steer = self.steer.clone();
        let plan = spawn_blocking(move || work(&*steer)).await.map_err(|error| error.to_string())??;
        Ok(Reply::Planned { plan })
    }

    async fn backup(
        &self,
        path: PathBuf,
        replace: bool,
        replies: mpsc::Sender<Reply>,
    ) -> Result<Reply, String> {
        if !path.is_absolute() {
            return Err(format!("{} is not an absolute path", path.display()));
        }
        let Ok(permit) = self.backups.clone().try_acquire_owned() else {
            return Err("another backup is being made".into());
        };
        let steer = self.steer.clone();
        let existing = if replace { Existing::Replace } else { Existing::Keep };
        let work = spawn_blocking(move || {
            let done = steer.backup(&path, existing, &mut |progress| {
                // Who reads slowly is told less often.
                let Progress { rows, rows_total } = progress;
                let _ = replies.try_send(Reply::Progress { rows, rows_total });
            });
            drop(permit);
            done
        });
        let BackedUp { rows, bytes } = work.await.map_err(|error| error.to_string())??;
        Ok(Reply::Done { rows, bytes })
    }
}

async fn send(writer: &mut (impl AsyncWriteExt + Unpin), reply: &Reply) -> io::Result<()> {
    timeout(PATIENCE, writer.write_all(&reply.to_line())).await?
}
