//! `dunlin ban`: the file of bans, which a running broker reads again when it changes.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Args, Subcommand};

use super::{
    Settings,
    place::{fail, now},
    print,
};
use crate::guard::{Ban, Banned, Bans, network, rfc3339};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
    /// The configuration, as for `dunlin serve`: it names the file
    #[arg(short, long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Ban a client, a user or an address; who is connected is cut off
    Add {
        #[command(flatten)]
        whom: Whom,
        /// For how long: 90s, 15m, 12h, 30d; without it, until it is removed
        #[arg(long = "for", value_name = "TIME", value_parser = duration)]
        span: Option<Duration>,
        /// Why, for people
        #[arg(long, default_value = "")]
        why: String,
    },
    /// Let a client, a user or an address in again
    Remove {
        #[command(flatten)]
        whom: Whom,
    },
    /// Print who is banned
    List,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Whom {
    /// A client identifier
    #[arg(long)]
    client: Option<String>,
    /// A user name
    #[arg(long)]
    user: Option<String>,
    /// An address, or a network such as 10.0.0.0/8
    #[arg(long)]
    address: Option<String>,
}

impl Whom {
    fn banned(self) -> Result<Banned, String> {
        match self {
            Whom { client: Some(client), .. } => Ok(Banned::Client(client.into())),
            Whom { user: Some(user), .. } => Ok(Banned::User(user.into())),
            Whom { address, .. } => network(&address.unwrap_or_default()).map(Banned::Network),
        }
    }
}

pub(super) fn main(arguments: Arguments) -> ExitCode {
    let file = match arguments.settings.load(arguments.config) {
        Ok(loaded) => loaded.config.bans_file,
        Err(code) => return code,
    };
    match run(arguments.action, &file) {
        Ok(text) => print(text),
        Err(error) => fail(error),
    }
}

fn run(action: Action, file: &Path) -> Result<String, String> {
    let now = now();
    let mut bans = Bans::read(file).map_err(|error| error.to_string())?;
    bans.retain(|ban| ban.until.is_none_or(|until| until > now));
    match action {
        Action::List => Ok(bans.iter().map(describe).collect()),
        Action::Add { whom, span, why } => {
            let banned = whom.banned()?;
            bans.retain(|ban| ban.banned != banned);
            bans.push(Ban { banned, until: span.map(|span| now.plus(span)), why: why.into() });
            Bans::save(file, &bans).map_err(|error| error.to_string())?;
            Ok(bans.last().map(describe).unwrap_or_default())
        }
        Action::Remove { whom } => {
            let banned = whom.banned()?;
            let before = bans.len();
            bans.retain(|ban| ban.banned != banned);
            if bans.len() == before {
                return Err(format!("{banned} is not banned in {}", file.display()));
            }
            Bans::save(file, &bans).map_err(|error| error.to_string())?;
            Ok(format!("{banned} is let in again\n"))
        }
    }
}

fn describe(ban: &Ban) -> String {
    let until = ban.until.map_or_else(String::new, |until| format!(" until {}", rfc3339(until)));
    let why = if ban.why.is_empty() { String::new() } else { format!(": {}", ban.why) };
    format!("{}{until}{why}\n", ban.banned)
}

fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no time; write a number and s, m, h or d, such as 15m");
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let secs = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    Ok(Duration::from_secs(number.saturating_mul(secs).min(100 * 365 * 86_400)))
}
