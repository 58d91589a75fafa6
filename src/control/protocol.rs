//! What is said on the control socket.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Plan;

/// The version of the protocol. It changes when a broker would misunderstand an older command.
pub const VERSION: u32 = 1;

/// What a command wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// Copy the store to a file.
    Backup {
        /// The file, by an absolute path: the broker has a working directory of its own.
        path: PathBuf,
        /// Whether a file of that name may be replaced.
        replace: bool,
    },
    /// Tell what a reload with this configuration would change.
    Plan {
        /// The configuration as TOML, with absolute paths.
        config: String,
    },
    /// Read the configuration again.
    Reload,
}

/// What the broker answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// It is at work.
    Progress {
        /// Rows that are done.
        rows: u64,
        /// Rows that there are.
        rows_total: u64,
    },
    /// It is done: the last line.
    Done {
        /// Rows that were written.
        rows: u64,
        /// Bytes of the file.
        bytes: u64,
    },
    /// What a reload changes, or would change: the last line.
    Planned {
        /// That.
        plan: Plan,
    },
    /// It cannot be done: the last line.
    Failed {
        /// Why.
        message: String,
    },
}

/// A request as it is sent.
#[derive(Serialize)]
struct Sent<'a> {
    version: u32,
    #[serde(flatten)]
    request: &'a Request,
}

/// What every version has.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

impl Request {
    /// The request as a line.
    pub(super) fn to_line(&self) -> Vec<u8> {
        line(&Sent { version: VERSION, request: self })
    }

    /// Reads a line. What is wrong with it is said in words that make sense to who typed the command.
    pub(super) fn parse(line: &[u8]) -> Result<Request, String> {
        let unreadable = |error| format!("the request is not understood: {error}");
        let Versioned { version } = serde_json::from_slice(line).map_err(unreadable)?;
        if version != VERSION {
            return Err(format!(
                "this broker is of another release than the command: it speaks version {VERSION} of the control \
                 protocol, and the request is of version {version}"
            ));
        }
        serde_json::from_slice(line).map_err(unreadable)
    }
}

impl Reply {
    /// The reply as a line.
    pub(super) fn to_line(&self) -> Vec<u8> {
        line(self)
    }
}

fn line(value: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(value).expect("keys are strings, and paths were read from UTF-8");
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_as_it_was_written() {
        let request = Request::Backup { path: "/a \"b\"\n.redb".into(), replace: true };
        let line = request.to_line();
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1, "one line");
        assert_eq!(Request::parse(&line), Ok(request));
    }

    #[test]
    fn what_is_not_understood_is_said_in_words() {
        for (line, why) in [
            (
                r#"{"version":1,"request":"fly"}"#,
                "unknown variant `fly`, expected one of `backup`, `plan`, `reload`",
            ),
            (r#"{"version":2,"request":"backup","path":"/x","replace":false}"#, "version 2"),
            (r#"{"request":"backup"}"#, "missing field `version`"),
            (r#"{"version":1,"request":"backup"}"#, "missing field `path`"),
            ("GET / HTTP/1.1", "expected value"),
            ("", "EOF"),
        ] {
            let error = Request::parse(line.as_bytes()).unwrap_err();
            assert!(error.contains(why), "{line}: {error}");
        }
    }
}
