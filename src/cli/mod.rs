//! The command line: what is said there, and one file per command.
//!
//! Exit codes of all commands: 0 success, 1 failure while running, 2 wrong usage or configuration. Results go
//! to standard output, everything else to standard error.

mod acl;
mod backup;
mod ban;
mod bench;
mod certs;
mod check;
mod client;
mod completions;
mod doctor;
mod format;
mod health;
mod man;
mod passwd;
mod place;
mod publish;
mod reload;
mod serve;
mod store;
mod subscribe;
mod systemd;
mod watch;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, Loaded, Overrides, Sources, Surroundings};

/// A failure while running: the address is in use, the peer refuses.
const FAILURE: u8 = 1;
/// Wrong usage or configuration; clap uses the same.
const USAGE: u8 = 2;

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "dunlin",
    version,
    about = "An MQTT 3.1, 3.1.1 and 5 broker",
    long_about = "An MQTT 3.1, 3.1.1 and 5 broker.\n\nWithout a command it serves: on 127.0.0.1 and ::1, \
                  port 1883, for the clients of this machine.",
    after_long_help = EXAMPLES,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    max_term_width = 100
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: serve::Arguments,
}

const EXAMPLES: &str = "\
Examples:
  dunlin                                       Serve the clients of this machine
  dunlin --listen 0.0.0.0:1883 --allow-anonymous
                                               Serve everybody who reaches this machine
  dunlin -c dunlin.toml --set limits.packet_bytes_max='1 MiB'
                                               Serve as a file says, but for one key
  dunlin check dunlin.toml                     Check a file, print the effective configuration
  dunlin doctor dunlin.toml                    Look for what is wrong with this machine
  dunlin certs certs                           Make certificates for development
  dunlin passwd passwords add anna             Add a user for --password-file
  dunlin sub -t 'sensors/#' -v                 Print messages with their topics
  dunlin pub -t sensors/1 -m 21.5 -q 1         Publish a message
  dunlin bench latency --rate 10000            Measure latency under load
  dunlin acl explain --acl acl.toml --user ann --publish sensors/1
                                               Say which access rule decides
  dunlin backup /backup/dunlin.redb            Copy what is stored, while the broker runs

Configuration: flags over DUNLIN__SECTION__KEY variables over the file over defaults.
Exit codes: 0 success, 1 failure while running, 2 wrong usage or configuration.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the broker (the default)
    Serve(serve::Arguments),
    /// Check a configuration and print what results, as TOML
    Check(check::Arguments),
    /// Look for what is wrong with this machine and configuration, and say what to do
    Doctor(doctor::Arguments),
    /// Make a certificate authority, a server and a client certificate for development
    Certs(certs::Arguments),
    /// Add, change and check users of a password file
    Passwd(passwd::Arguments),
    /// Publish messages
    Pub(publish::Arguments),
    /// Subscribe to topics and print what arrives
    Sub(subscribe::Arguments),
    /// Put load on a broker and measure what it does
    Bench(bench::Arguments),
    /// Keep clients, users and addresses out
    Ban(ban::Arguments),
    /// Make the running broker read its configuration again
    Reload(reload::Arguments),
    /// Copy the store to a file, while the broker runs or while it does not
    Backup(backup::BackupArguments),
    /// Make a backup the store
    Restore(backup::RestoreArguments),
    /// Check, describe or compact the store on disk
    Store(store::Arguments),
    /// Try, test and check access rules
    Acl(acl::Arguments),
    /// Ask a broker over HTTP whether it is ready
    Health(health::Arguments),
    /// Print a completion script for a shell
    Completions(completions::Arguments),
    /// Write manual pages
    #[command(hide = true)]
    Man(man::Arguments),
}

/// Flags over the configuration; they have the same meaning wherever they stand.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Configuration")]
struct Settings {
    /// Listen on this TCP address and port instead of the configured listeners; repeatable
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Vec<String>,
    /// Keep durable data in this directory
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Decide what clients may do by the rules in this file
    #[arg(long, value_name = "FILE")]
    acl_file: Option<PathBuf>,
    /// Ask this file who clients are; `dunlin passwd` writes it. The same as a back end named "passwords"
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Let clients connect without authentication, on all listeners
    #[arg(long)]
    allow_anonymous: bool,
    /// Log this level and above: off, error, warn, info, debug, trace, or `info,dunlin::net=debug`
    #[arg(long, value_name = "LEVEL")]
    log: Option<String>,
    /// Shape of log lines: auto, pretty or json
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Set any key of the configuration, such as limits.packet_bytes_max='1 MiB'; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl Settings {
    /// Loads the configuration; what is wrong with it goes to standard error.
    fn load(self, file: Option<PathBuf>) -> Result<Loaded, ExitCode> {
        Settings::load_from(&self.sources(file))
    }

    /// Where the configuration is read from.
    fn sources(self, file: Option<PathBuf>) -> Sources {
        let overrides = Overrides {
            listen: self.listen,
            data_dir: self.data_dir,
            acl_file: self.acl_file,
            password_file: self.password_file,
            allow_anonymous: self.allow_anonymous,
            log_filter: self.log,
            log_format: self.log_format,
            set: self.set,
        };
        Sources { file, surroundings: Surroundings::of_process(), overrides }
    }

    fn load_from(sources: &Sources) -> Result<Loaded, ExitCode> {
        Config::load(sources).map_err(|errors| {
            for problem in errors.problems() {
                complain(problem);
            }
            USAGE.into()
        })
    }
}

/// Runs the command that the arguments of the process name.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command.unwrap_or(Command::Serve(cli.serve)) {
        Command::Serve(arguments) => serve::main(arguments),
        Command::Check(arguments) => check::main(arguments),
        Command::Doctor(arguments) => doctor::main(arguments),
        Command::Certs(arguments) => certs::main(&arguments),
        Command::Passwd(arguments) => passwd::main(arguments),
        Command::Pub(arguments) => publish::main(arguments),
        Command::Sub(arguments) => subscribe::main(arguments),
        Command::Bench(arguments) => bench::main(arguments),
        Command::Ban(arguments) => ban::main(arguments),
        Command::Reload(arguments) => reload::main(arguments),
        Command::Backup(arguments) => backup::main(arguments),
        Command::Restore(arguments) => backup::restore_main(arguments),
        Command::Store(arguments) => store::main(arguments),
        Command::Acl(arguments) => acl::main(arguments),
        Command::Health(arguments) => health::main(&arguments),
        Command::Completions(arguments) => completions::main(&arguments),
        Command::Man(arguments) => man::main(&arguments),
    }
}

/// Writes one line to standard error. Nobody is left to tell if that fails.
fn complain(message: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "error: {message}");
}

/// Writes a result to standard output. A reader that went away, as `head` does, is no failure.
fn print(text: impl AsRef<[u8]>) -> ExitCode {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_ref()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            complain(format_args!("standard output: {error}"));
            FAILURE.into()
        }
        _ => ExitCode::SUCCESS,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
