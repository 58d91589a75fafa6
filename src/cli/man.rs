//! `dunlin man`: manual pages, made from the same text as `--help`.

use std::{fs, io, path::PathBuf, process::ExitCode};

use clap::{Args, Command, CommandFactory};
use clap_mangen::Man;

use super::{Cli, FAILURE, complain};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dunlin man /usr/local/share/man/man1
                                Write dunlin.1, dunlin-serve.1 and so on")]
pub(super) struct Arguments {
    /// The directory, which exists
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

pub(super) fn main(arguments: &Arguments) -> ExitCode {
    for (name, page) in pages() {
        let file = arguments.directory.join(name);
        if let Err(error) = page.and_then(|page| fs::write(&file, page)) {
            complain(format_args!("{}: {error}", file.display()));
            return FAILURE.into();
        }
    }
    ExitCode::SUCCESS
}

/// The name of each page, and the page.
fn pages() -> Vec<(String, io::Result<Vec<u8>>)> {
    let mut command = Cli::command().disable_help_subcommand(true);
    // Gives each command its whole name.
    command.build();
    let mut pages = Vec::new();
    collect(&command, &mut pages);
    pages
}

fn collect(command: &Command, pages: &mut Vec<(String, io::Result<Vec<u8>>)>) {
    let source = concat!("dunlin ", env!("CARGO_PKG_VERSION"));
    let page = Man::new(command.clone()).section("1").manual("Dunlin").source(source);
    let mut text = Vec::new();
    let rendered = page.render(&mut text).map(|()| text);
    pages.push((page.get_filename(), rendered));
    command.get_subcommands().filter(|part| !part.is_hide_set()).for_each(|part| collect(part, pages));
}
