//! Paths of sockets, which the system limits to 107 bytes.

use std::{
    fs::File,
    io,
    os::{fd::AsRawFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
};

/// `sockaddr_un` has room for this many, and a zero byte.
const BYTES_MAX: usize = 107;

/// A path by which a socket can be bound or reached. It is good for as long as this value lives.
pub(super) struct SocketPath {
    path: PathBuf,
    _directory: Option<File>,
}

impl SocketPath {
    /// A long path goes by way of its open directory, which has a short name as long as it is open.
    pub(super) fn new(path: &Path) -> io::Result<SocketPath> {
        if path.as_os_str().as_bytes().len() <= BYTES_MAX {
            return Ok(SocketPath { path: path.into(), _directory: None });
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidFilename.into());
        };
        let directory = File::open(parent)?;
        let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
        Ok(SocketPath { path: short, _directory: Some(directory) })
    }

    pub(super) fn as_path(&self) -> &Path {
        &self.path
    }
}
