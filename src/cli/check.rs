//! `dunlin check`: is a configuration right, and what does it come to?

use std::{fmt::Write as _, path::PathBuf, process::ExitCode};

use clap::Args;

use super::{FAILURE, Settings, complain, print};
use crate::{
    Config,
    control::{Client, Plan, Request},
};

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
    /// Ask the running broker what a reload with this configuration would change, and whom it would cut off
    #[arg(long)]
    plan: bool,
    #[command(flatten)]
    settings: Settings,
}

pub(super) fn main(arguments: Arguments) -> ExitCode {
    match arguments.settings.load(arguments.file.or(arguments.config)) {
        Ok(loaded) if arguments.plan => plan(&loaded.config),
        Ok(loaded) => {
            let file = loaded.file.map_or_else(|| "no file".into(), |file| format!("{}", file.display()));
            print(format!("# Effective configuration ({file})\n{}", loaded.config.to_toml()))
        }
        Err(code) => code,
    }
}

fn plan(config: &Config) -> ExitCode {
    let request = Request::Plan { config: config.to_toml() };
    match ask(config, &request) {
        Ok(plan) => print(text(&plan, "would change")),
        Err(code) => code,
    }
}

/// `dunlin reload`
pub(super) fn reload(config: &Config) -> ExitCode {
    match ask(config, &Request::Reload) {
        Ok(plan) => print(text(&plan, "changed")),
        Err(code) => code,
    }
}

fn ask(config: &Config, request: &Request) -> Result<Plan, ExitCode> {
    let fail = |error: String| {
        complain(error);
        ExitCode::from(FAILURE)
    };
    let directory = config.data_dir.display();
    match Client::connect(&config.data_dir) {
        Ok(Some(client)) => client.plan(request).map_err(|error| fail(error.to_string())),
        Ok(None) => Err(fail(format!("no broker uses the data directory {directory}"))),
        Err(error) => Err(fail(format!("the broker of {directory} cannot be reached: {error}"))),
    }
}

fn text(plan: &Plan, verb: &str) -> String {
    let mut text = String::new();
    let mut section = |title: String, lines: Vec<String>| {
        if !lines.is_empty() {
            let _ = writeln!(text, "{title}:");
            lines.iter().for_each(|line| {
                let _ = writeln!(text, "  {line}");
            });
        }
    };
    section(format!("{verb} at once"), plan.live.clone());
    section(format!("{verb} at the next start"), plan.restart.clone());
    let cut = plan.cut.iter().map(|(client, why)| format!("{client}: {why}")).collect();
    section("clients that lose their connection".into(), cut);
    let lost = plan.unsubscribed.iter().map(|(client, filter)| format!("{client}: {filter}")).collect();
    section("clients that lose a subscription".into(), lost);
    if text.is_empty() { "nothing changes\n".into() } else { text }
}
