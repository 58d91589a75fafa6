//! `dunlin store`: what is in the store on disk, and is it sound?

use std::{fmt::Write, path::Path, process::ExitCode};

use clap::{Args, Subcommand};
use serde::Serialize;

use super::{
    FAILURE,
    place::{Found, Place, fail, megabytes},
    print,
};
use crate::store::{
    DataDirectory, Layout, open_closed,
    salvage::{Findings, examine, number_of},
};

#[derive(Debug, Args)]
#[command(after_help = "\
All three need the data directory for themselves: stop the broker first.

Examples:
  dunlin store check                           Is every page and record sound?
  dunlin store stat --json                     What is in it?
  dunlin store compact --data-dir /var/lib/dunlin
                                               Give unused space back to the system")]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Read every page and record, and say what is wrong; nothing is changed
    #[command(
        after_help = "Exit code 1 if something is wrong. The broker does the same at its start: it keeps a \
                            damaged store in `quarantine` and goes on with what can be read of it."
    )]
    Check(Plain),
    /// Print the size, and the rows and bytes of each table; nothing is changed
    Stat(Stat),
    /// Give space back that the store does not use any more
    #[command(
        after_help = "The broker uses such space again by itself. This is for a file that was once much \
                            larger than it need be."
    )]
    Compact(Plain),
}

#[derive(Debug, Args)]
struct Plain {
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Args)]
struct Stat {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

pub(super) fn main(arguments: Arguments) -> ExitCode {
    let done = match arguments.command {
        Command::Check(plain) => with_store(plain.place, |_, directory| check(directory)),
        Command::Stat(stat) => with_store(stat.place, |_, directory| print_stat(directory, stat.json)),
        Command::Compact(plain) => with_store(plain.place, compact),
    };
    done.unwrap_or_else(|code| code)
}

/// Takes the data directory, and sees that there is a store in it.
fn with_store(
    place: Place,
    work: impl FnOnce(&Found, &DataDirectory) -> Result<ExitCode, ExitCode>,
) -> Result<ExitCode, ExitCode> {
    let found = place.find()?;
    let directory = found.take()?;
    if !directory.database().exists() {
        return Err(fail(format_args!("there is no store in {}", directory.path().display())));
    }
    work(&found, &directory)
}

fn findings(path: &Path) -> Result<Findings, ExitCode> {
    examine(path, &Layout).map_err(|error| fail(format_args!("{}: {error}", path.display())))
}

fn check(directory: &DataDirectory) -> Result<ExitCode, ExitCode> {
    let path = directory.database();
    let findings = findings(&path)?;
    let rows: u64 = findings.tables.iter().map(|table| table.rows).sum();
    let problems = findings.problems();
    if problems.is_empty() {
        let size = megabytes(findings.file_bytes);
        return Ok(print(format!("{}: {rows} rows, {size}, nothing is wrong\n", path.display())));
    }
    let mut text = format!("{}: damaged; {rows} rows can be read\n", path.display());
    for problem in problems {
        let _ = writeln!(text, "- {problem}");
    }
    print(text);
    Ok(FAILURE.into())
}

/// What is in a store, as it is printed.
#[derive(Serialize)]
struct Statistics<'a> {
    file: &'a str,
    schema: Option<u64>,
    file_bytes: u64,
    tables: Vec<TableStatistics>,
}

#[derive(Serialize)]
struct TableStatistics {
    name: &'static str,
    rows: u64,
    bytes: u64,
}

fn print_stat(directory: &DataDirectory, json: bool) -> Result<ExitCode, ExitCode> {
    let path = directory.database();
    let findings = findings(&path)?;
    let (table, key) = Layout::SCHEMA;
    let schema = number_of(&path, table, key);
    let statistics = Statistics {
        file: &path.to_string_lossy(),
        schema: schema.map_err(|error| fail(format_args!("{}: {error}", path.display())))?,
        file_bytes: findings.file_bytes,
        tables: findings
            .tables
            .iter()
            .map(|table| TableStatistics { name: table.name, rows: table.rows, bytes: table.bytes })
            .collect(),
    };
    if json {
        let text = serde_json::to_string(&statistics).map_err(fail)?;
        return Ok(print(text + "\n"));
    }
    let schema = statistics.schema.map_or_else(|| "unknown".into(), |schema| schema.to_string());
    let mut text = format!(
        "file    {}\nsize    {}\nschema  {schema}\n\n{:<10} {:>12} {:>16}\n",
        statistics.file,
        megabytes(statistics.file_bytes),
        "table",
        "rows",
        "bytes"
    );
    for table in &statistics.tables {
        let _ = writeln!(text, "{:<10} {:>12} {:>16}", table.name, table.rows, table.bytes);
    }
    Ok(print(text))
}

fn compact(found: &Found, directory: &DataDirectory) -> Result<ExitCode, ExitCode> {
    let path = directory.database();
    let told = |error: &dyn std::fmt::Display| fail(format_args!("{}: {error}", path.display()));
    let size = || path.metadata().map(|metadata| metadata.len()).map_err(|error| told(&error));
    let before = size()?;
    let mut database = open_closed(directory, found.cache_bytes).map_err(|error| told(&error))?;
    database.compact().map_err(|error| told(&error))?;
    database.close().map_err(|error| told(&error))?;
    let after = size()?;
    Ok(print(format!("{}: {} before, {} now\n", path.display(), megabytes(before), megabytes(after))))
}
