//! `dunlin check`: is a configuration right, and what does it come to?

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use super::{Settings, print};

#[derive(Debug, Args)]
#[command(after_help = "Prints every key with the value that `dunlin serve` would use with the same file, \
                        environment and flags. What is wrong goes to standard error, all of it, and the exit \
                        code is 2.")]
pub(super) struct Arguments {
    /// The file; without it, the one that `dunlin serve` would read
    file: Option<PathBuf>,
    /// The file, as for `dunlin serve`
    #[arg(short, long, value_name = "FILE", conflicts_with = "file")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

pub(super) fn main(arguments: Arguments) -> ExitCode {
    match arguments.settings.load(arguments.file.or(arguments.config)) {
        Ok(loaded) => {
            let file = loaded.file.map_or_else(|| "no file".into(), |file| format!("{}", file.display()));
            print(format!("# Effective configuration ({file})\n{}", loaded.config.to_toml()))
        }
        Err(code) => code,
    }
}
