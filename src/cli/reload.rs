//! `dunlin reload`: makes a running broker read its configuration again.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use super::{Settings, check};

#[derive(Debug, Args)]
#[command(
    after_help = "The broker reads its own configuration, with the environment and the flags that it was \
                        started with; what is given here only says which data directory it uses. What is wrong \
                        with it is told, and nothing changes then."
)]
pub(super) struct Arguments {
    /// The configuration, as for `dunlin serve`
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

pub(super) fn main(arguments: Arguments) -> ExitCode {
    match arguments.settings.load(arguments.config) {
        Ok(loaded) => check::reload(&loaded.config),
        Err(code) => code,
    }
}
