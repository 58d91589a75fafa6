//! The side of the commands.

use std::{
    fmt,
    io::{self, BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::Path,
};

use super::Plan;
use super::{Reply, Request, path::SocketPath};
use crate::store::control_socket;

/// A connection to the broker that uses a data directory.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
}

/// Why a request was not fulfilled.
#[derive(Debug)]
pub enum RequestError {
    /// The broker says why.
    Refused(String),
    /// The connection has failed.
    Io(io::Error),
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(message) => f.write_str(message),
            Self::Io(error) => write!(f, "the connection to the broker has failed: {error}"),
        }
    }
}

impl std::error::Error for RequestError {}

impl From<io::Error> for RequestError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Client {
    /// Connects to the broker that uses this data directory; `None` if none does.
    ///
    /// # Errors
    /// What the system says.
    pub fn connect(data_dir: &Path) -> io::Result<Option<Client>> {
        let path = match SocketPath::new(&control_socket(data_dir)) {
            Ok(path) => path,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        match UnixStream::connect(path.as_path()) {
            Ok(stream) => Ok(Some(Client { stream })),
            // A socket that a broker has left which was killed.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Sends a request whose answer is what a reload changes.
    ///
    /// # Errors
    /// Why it was not fulfilled.
    pub fn plan(mut self, request: &Request) -> Result<Plan, RequestError> {
        self.stream.write_all(&request.to_line())?;
        let mut line = String::new();
        BufReader::new(self.stream).read_line(&mut line)?;
        match serde_json::from_str(&line).map_err(|error| io::Error::other(error.to_string()))? {
            Reply::Planned { plan } => Ok(plan),
            Reply::Failed { message } => Err(RequestError::Refused(message)),
            Reply::Progress { .. } | Reply::Done { .. } => {
                Err(io::Error::other("the answer is to something else").into())
            }
        }
    }

    /// Sends a request and waits for its end, which comes with rows and bytes.
    ///
    /// # Errors
    /// Why it was not fulfilled.
    pub fn request(
        mut self,
        request: &Request,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<(u64, u64), RequestError> {
        self.stream.write_all(&request.to_line())?;
        for line in BufReader::new(self.stream).lines() {
            let reply = serde_json::from_str(&line?).map_err(|error| io::Error::other(error.to_string()))?;
            match reply {
                Reply::Progress { rows, rows_total } => progress(rows, rows_total),
                Reply::Done { rows, bytes } => return Ok((rows, bytes)),
                Reply::Planned { .. } => {
                    return Err(io::Error::other("the answer is to something else").into());
                }
                Reply::Failed { message } => return Err(RequestError::Refused(message)),
            }
        }
        Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())
    }
}
