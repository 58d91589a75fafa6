//! The data directory that a command is about.

use std::{
    io::{self, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::Args;

use super::{FAILURE, USAGE, complain};
use crate::{
    config::{Config, Overrides, Sources, Surroundings},
    net::Clock,
    store::{DataDirectory, Progress},
    time::Timestamp,
};

/// Where the store is.
#[derive(Debug, Args)]
pub(super) struct Place {
    /// The data directory; without it, the one that the configuration names
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The configuration, as for `dunlin serve`
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// What a command needs to know of the configuration.
pub(super) struct Found {
    pub(super) data_dir: PathBuf,
    pub(super) cache_bytes: usize,
}

impl Place {
    /// Reads the configuration; what is wrong with it goes to standard error.
    pub(super) fn find(self) -> Result<Found, ExitCode> {
        let overrides = Overrides { data_dir: self.data_dir, ..Overrides::default() };
        let sources = Sources { file: self.config, surroundings: Surroundings::of_process(), overrides };
        match Config::load(&sources) {
            Ok(loaded) => Ok(Found {
                data_dir: loaded.config.data_dir,
                cache_bytes: loaded.config.store_cache_bytes_max,
            }),
            Err(errors) => {
                errors.problems().iter().for_each(complain);
                Err(USAGE.into())
            }
        }
    }
}

impl Found {
    /// Takes the data directory, so that no broker uses it meanwhile.
    pub(super) fn take(&self) -> Result<DataDirectory, ExitCode> {
        DataDirectory::open_for_command(&self.data_dir).map_err(fail)
    }
}

/// Says why a command has failed.
pub(super) fn fail(error: impl std::fmt::Display) -> ExitCode {
    complain(error);
    FAILURE.into()
}

/// Now.
pub(super) fn now() -> Timestamp {
    Clock::start().now()
}

/// Shows on a terminal how far the work is.
#[derive(Debug, Default)]
pub(super) struct Percent(Option<u64>);

impl Percent {
    pub(super) fn show(&mut self, progress: Progress) {
        let percent = (progress.rows * 100).checked_div(progress.rows_total);
        if percent.is_some() && percent != self.0 && io::stderr().is_terminal() {
            // A number that cannot be shown is not missed.
            let _ = write!(io::stderr(), "\r{} %\r", percent.unwrap_or(100));
        }
        self.0 = percent;
    }
}

/// Bytes for people: `12.3 MB`.
pub(super) fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
