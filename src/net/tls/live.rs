//! TLS of an open listener, whose files are read again when they change.

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use arc_swap::ArcSwap;
use rustls::ServerConfig;

use crate::config::Tls;

use super::{ApplicationProtocol, Loaded, TlsError, Validity, load};

/// TLS of an open listener.
///
/// Connections take the configuration that is there when they come in, without waiting for anybody; those that are
/// open keep what they have. Files that cannot be used change nothing.
#[derive(Debug)]
pub struct LiveTls {
    protocol: ApplicationProtocol,
    config: ArcSwap<ServerConfig>,
    state: Mutex<State>,
}

/// What only who reloads looks at.
#[derive(Debug)]
struct State {
    settings: Tls,
    validities: Vec<Validity>,
    /// The files as they were before they were last read, whether with success or not.
    read: Vec<Stamp>,
    /// The files at the last look, if they have changed since they were read.
    changed: Option<Vec<Stamp>>,
}

/// By what a file is known to have changed: what it is on the disk, how long, and since when.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    path: PathBuf,
    /// `None` of a file that is not there or not to be seen.
    identity: Option<(u64, u64, Option<SystemTime>)>,
}

/// What a look at the files has come to.
#[derive(Debug)]
pub enum Reload {
    /// They are as before, or still being written.
    Unchanged,
    /// They have changed, and new connections get what is in them.
    Reloaded,
    /// They have changed and cannot be used: everything stays as it was. It is said once of each change.
    Refused(TlsError),
}

impl LiveTls {
    /// Reads the files.
    ///
    /// # Errors
    /// As of [`server_config`](super::server_config).
    pub fn open(settings: &Tls, protocol: ApplicationProtocol) -> Result<Self, TlsError> {
        let read = stamps(settings);
        let Loaded { config, validities } = load(settings, protocol)?;
        let state = State { settings: settings.clone(), validities, read, changed: None };
        Ok(Self { protocol, config: ArcSwap::new(config), state: Mutex::new(state) })
    }

    /// The configuration for the next connection.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.config.load_full()
    }

    /// Reads the files now, whether they have changed or not.
    ///
    /// # Errors
    /// As of [`server_config`](super::server_config); then everything stays as it was.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.replace(&mut self.state(), None)
    }

    /// Takes other settings and reads their files.
    ///
    /// # Errors
    /// As of [`server_config`](super::server_config); then everything stays as it was.
    pub fn reload_as(&self, settings: &Tls) -> Result<(), TlsError> {
        self.replace(&mut self.state(), Some(settings))
    }

    /// Reads the files if they have changed since they were last read. To be called again and again: a change is
    /// taken up by the second look that finds the same, since certificate and key are rarely written in one step.
    pub fn reload_if_changed(&self) -> Reload {
        let mut state = self.state();
        let now = stamps(&state.settings);
        if now == state.read {
            state.changed = None;
            return Reload::Unchanged;
        }
        if state.changed.as_ref() != Some(&now) {
            state.changed = Some(now);
            return Reload::Unchanged;
        }
        match self.replace(&mut state, None) {
            Ok(()) => Reload::Reloaded,
            Err(error) => Reload::Refused(error),
        }
    }

    /// Until when what is in the files is good.
    pub fn validities(&self) -> Vec<Validity> {
        self.state().validities.clone()
    }

    fn replace(&self, state: &mut State, settings: Option<&Tls>) -> Result<(), TlsError> {
        let settings = settings.unwrap_or(&state.settings).clone();
        // Taken before the files are read: what is written meanwhile is a change.
        let read = stamps(&settings);
        state.changed = None;
        match load(&settings, self.protocol) {
            Ok(Loaded { config, validities }) => {
                self.config.store(config);
                *state = State { settings, validities, read, changed: None };
                Ok(())
            }
            Err(error) => {
                if settings == state.settings {
                    state.read = read;
                }
                Err(error)
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whoever panicked under the lock did so with whole values in place.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stamps(settings: &Tls) -> Vec<Stamp> {
    let of = |path: &PathBuf| {
        let metadata = fs::metadata(path).ok();
        let identity = metadata.map(|file| (inode(&file), file.len(), file.modified().ok()));
        Stamp { path: path.clone(), identity }
    };
    settings.files().map(of).collect()
}

#[cfg(unix)]
fn inode(file: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(file)
}

#[cfg(not(unix))]
fn inode(_: &fs::Metadata) -> u64 {
    0
}
