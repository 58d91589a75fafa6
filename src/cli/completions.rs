//! `dunlin completions`: a script that lets a shell complete our command line.

use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, print};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dunlin completions bash > ~/.local/share/bash-completion/completions/dunlin
  dunlin completions zsh > \"${fpath[1]}/_dunlin\"
  dunlin completions fish > ~/.config/fish/completions/dunlin.fish")]
pub(super) struct Arguments {
    /// The shell
    shell: Shell,
}

pub(super) fn main(arguments: &Arguments) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "dunlin", &mut script);
    print(script)
}
