//! `dunlin doctor`: what of this machine and this configuration is going to hurt, before it does.
//!
//! Each part looks at one thing and changes nothing that lasts; it can be run beside a broker. What it finds it says
//! in words that name the value, and where it is not fine, what to do.

mod certificates;
mod configuration;
mod directory;
mod disk;
mod machine;
mod ports;
mod processes;

use std::{fmt::Write as _, path::PathBuf, process::ExitCode};

use clap::Args;
use serde::Serialize;

use super::{FAILURE, Settings, complain, print};
use crate::config::Config;

#[derive(Debug, Args)]
#[command(
    after_help = "Looks at the machine, the data directory, certificates and ports. It changes nothing, and may \
                        run beside a broker; as root it sees more. Exit code 0 if nothing is a problem, else 1."
)]
pub(super) struct Arguments {
    /// The file; without it, the one that `dunlin serve` would read
    file: Option<PathBuf>,
    /// The file, as for `dunlin serve`
    #[arg(short, long, value_name = "FILE", conflicts_with = "file")]
    config: Option<PathBuf>,
    /// Print an object of JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: Settings,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    /// As it should be.
    Ok,
    /// The broker works, but not as well or as long as it could.
    Warning,
    /// The broker does not start or does not keep its promises.
    Problem,
}

/// What one look has found.
#[derive(Debug, Serialize)]
struct Finding {
    /// What was looked at.
    check: &'static str,
    level: Level,
    /// What is the case.
    what: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

/// All that was found.
#[derive(Debug, Default, Serialize)]
struct Report {
    findings: Vec<Finding>,
}

impl Report {
    fn ok(&mut self, check: &'static str, what: impl Into<String>) {
        self.findings.push(Finding { check, level: Level::Ok, what: what.into(), advice: None });
    }

    fn warn(&mut self, check: &'static str, what: impl Into<String>, advice: impl Into<String>) {
        let (level, advice) = (Level::Warning, Some(advice.into()));
        self.findings.push(Finding { check, level, what: what.into(), advice });
    }

    fn problem(&mut self, check: &'static str, what: impl Into<String>, advice: impl Into<String>) {
        let (level, advice) = (Level::Problem, Some(advice.into()));
        self.findings.push(Finding { check, level, what: what.into(), advice });
    }

    fn count(&self, level: Level) -> usize {
        self.findings.iter().filter(|finding| finding.level == level).count()
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for finding in &self.findings {
            let level = match finding.level {
                Level::Ok => "ok",
                Level::Warning => "warning",
                Level::Problem => "PROBLEM",
            };
            let _ = writeln!(text, "{level:<8} {:<15} {}", finding.check, finding.what);
            if let Some(advice) = &finding.advice {
                let _ = writeln!(text, "{:24} -> {advice}", "");
            }
        }
        let (problems, warnings) = (self.count(Level::Problem), self.count(Level::Warning));
        let _ = writeln!(text, "\nproblems: {problems}, warnings: {warnings}");
        text
    }
}

pub(super) fn main(arguments: Arguments) -> ExitCode {
    let sources = arguments.settings.sources(arguments.file.or(arguments.config));
    let clocks = machine::Clocks::now();
    let mut report = Report::default();
    match Config::load(&sources) {
        Ok(loaded) => {
            configuration::look(&mut report, loaded.file.as_deref(), &loaded.config);
            of_configuration(&mut report, &loaded.config);
        }
        Err(errors) => {
            let advice = "mend it; `dunlin check` says no more than this, and is quicker";
            errors
                .problems()
                .iter()
                .for_each(|error| report.problem("configuration", error.to_string(), advice));
        }
    }
    machine::look(&mut report, &clocks);
    let text = match arguments.json {
        false => report.text(),
        true => match serde_json::to_string_pretty(&report) {
            Ok(text) => text + "\n",
            Err(error) => {
                complain(error);
                return FAILURE.into();
            }
        },
    };
    match (print(text), report.count(Level::Problem)) {
        (code, 0) => code,
        (_, _) => FAILURE.into(),
    }
}

/// What there is to see once it is known what is wanted.
fn of_configuration(report: &mut Report, config: &Config) {
    let broker = directory::look(report, config);
    disk::look(report, config);
    certificates::look(report, config);
    ports::look(report, config, broker);
    machine::look_at_limits(report, config, broker);
}
