//! `dunlin passwd`: users and their passwords in a password file.

use std::{
    io::{self, BufRead, IsTerminal, Read, Write},
    num::NonZeroU32,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Subcommand};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use super::{FAILURE, complain, print};
use crate::auth::{
    password::{
        edit::Text,
        file::{self, Entry, Users},
        rewrite::{Missing, change, new_line},
    },
    scram::{ITERATIONS_MAX, ITERATIONS_MIN, is_prepared},
};

/// Bytes of a password, as in MQTT.
const PASSWORD_BYTES_MAX: u64 = 65_535;

#[derive(Debug, Args)]
#[command(after_help = "\
The password is asked for on the terminal; with --stdin it is the first line of standard input. It is never an
argument, which others could see. A broker that runs reads the file again when it reloads its configuration.

Examples:
  dunlin passwd passwords add anna
  dunlin passwd passwords add sensor-1 --stdin < secret
  dunlin passwd passwords list
  dunlin serve --password-file passwords")]
pub(super) struct Arguments {
    /// The password file; `add` makes it (mode 0600) if it does not exist
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Add a user
    Add(Set),
    /// Set another password of a user
    Change(Set),
    /// Remove a user
    Delete {
        /// The user name
        user: String,
    },
    /// Print the users and what is stored of their passwords
    List,
    /// Check a password; exit code 1 if it is wrong
    Verify {
        /// The user name
        user: String,
        /// Read the password from standard input
        #[arg(long)]
        stdin: bool,
    },
}

#[derive(Debug, Args)]
struct Set {
    /// The user name
    user: String,
    /// Read the password from standard input
    #[arg(long)]
    stdin: bool,
    /// Do not store keys by which the user can authenticate with SCRAM-SHA-256
    #[arg(long)]
    no_scram: bool,
    /// Rounds of hashing that a client with SCRAM makes, and who tries passwords against a stolen file
    #[arg(long, value_name = "N", default_value_t = 100_000, conflicts_with = "no_scram",
        value_parser = clap::value_parser!(u32).range(i64::from(ITERATIONS_MIN)..=i64::from(ITERATIONS_MAX)))]
    scram_iterations: u32,
}

pub(super) fn main(arguments: Arguments) -> ExitCode {
    let Arguments { file, command } = arguments;
    let done = match command {
        Command::Add(set) => edit(&file, Missing::Make, |text| {
            let line = line(&set, text)?;
            text.add(&set.user, &line).map_err(|error| of_user(&set.user, error))
        }),
        Command::Change(set) => edit(&file, Missing::Refuse, |text| {
            let line = line(&set, text)?;
            text.change(&set.user, &line).map_err(|error| of_user(&set.user, error))
        }),
        Command::Delete { user } => {
            edit(&file, Missing::Refuse, |text| text.delete(&user).map_err(|error| of_user(&user, error)))
        }
        Command::List => list(&file),
        Command::Verify { user, stdin } => verify(&file, &user, Origin::of_flag(stdin)),
    };
    done.unwrap_or_else(|why| {
        complain(format_args!("{}: {why}", file.display()));
        FAILURE.into()
    })
}

/// Where a password comes from.
#[derive(Clone, Copy)]
enum Origin {
    Terminal,
    StandardInput,
}

impl Origin {
    fn of_flag(stdin: bool) -> Origin {
        if stdin { Origin::StandardInput } else { Origin::Terminal }
    }
}

fn of_user(user: &str, error: impl std::fmt::Display) -> String {
    format!("user {user:?}: {error}")
}

/// Changes the file.
fn edit(
    path: &Path,
    missing: Missing,
    edit: impl FnOnce(&mut Text) -> Result<(), String>,
) -> Result<ExitCode, String> {
    change(path, missing, edit)?;
    Ok(ExitCode::SUCCESS)
}

/// Asks for a password and makes the line of a user.
fn line(set: &Set, text: &mut Text) -> Result<String, String> {
    let user = &set.user;
    file::check_name(user)?;
    if !set.no_scram && !is_prepared(user) {
        return Err(of_user(
            user,
            "the name is not in the form that SCRAM compares (SASLprep); --no-scram takes it",
        ));
    }
    let password = new_password(Origin::of_flag(set.stdin))?;
    let iterations = NonZeroU32::new(set.scram_iterations).filter(|_| !set.no_scram);
    new_line(text, user, &password, iterations)
}

fn list(path: &Path) -> Result<ExitCode, String> {
    let text = Text::new(file::read(path).map_err(|error| error.why)?);
    let mut lines = String::new();
    for (number, _, line) in text.users() {
        match Entry::parse(line) {
            Ok(Some(entry)) => lines.push_str(&format!("{} {}\n", entry.name, entry.kinds())),
            Ok(None) => {}
            Err(why) => complain(format_args!("{}:{number}: {why}", path.display())),
        }
    }
    Ok(print(lines))
}

fn verify(path: &Path, user: &str, origin: Origin) -> Result<ExitCode, String> {
    let users = Users::load(path).map_err(|error| match error.line {
        Some(line) => format!("line {line}: {}", error.why),
        None => error.why,
    })?;
    let password = read_password(origin, "Password: ")?;
    match users.find(user) {
        Some(user) if user.matches(password.as_bytes()) => Ok(ExitCode::SUCCESS),
        Some(_) | None => Err("wrong password, or no such user".into()),
    }
}

/// A new password: on a terminal it has to be typed twice.
fn new_password(origin: Origin) -> Result<String, String> {
    let password = read_password(origin, "Password: ")?;
    match origin {
        Origin::Terminal if read_password(origin, "Again: ")? != password => {
            Err("the passwords are not the same".into())
        }
        Origin::Terminal | Origin::StandardInput => Ok(password),
    }
}

fn read_password(origin: Origin, prompt: &str) -> Result<String, String> {
    let stdin = io::stdin();
    let _silence = match origin {
        Origin::StandardInput => None,
        Origin::Terminal if !stdin.is_terminal() => {
            return Err("standard input is no terminal; --stdin reads the password from it".into());
        }
        Origin::Terminal => {
            let silence = Silence::begin().map_err(|error| format!("the terminal: {error}"))?;
            let _ = write!(io::stderr(), "{prompt}");
            Some(silence)
        }
    };
    let mut line = String::new();
    // Two more than a password has, for the end of the line.
    let read = stdin.lock().take(PASSWORD_BYTES_MAX + 2).read_line(&mut line);
    read.map_err(|error| format!("standard input: {error}"))?;
    let password =
        line.strip_suffix('\n').map_or(line.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
    match password.len() as u64 {
        0 => Err("the password is empty".into()),
        1..=PASSWORD_BYTES_MAX => Ok(password.to_owned()),
        _ => Err("the password has more than 65535 bytes".into()),
    }
}

/// Keeps the terminal from showing what is typed.
struct Silence(Termios);

impl Silence {
    fn begin() -> io::Result<Silence> {
        let before = tcgetattr(io::stdin())?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        silent.local_modes.insert(LocalModes::ECHONL);
        tcsetattr(io::stdin(), OptionalActions::Flush, &silent)?;
        Ok(Silence(before))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        // A terminal that has gone shows nothing any more.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}
