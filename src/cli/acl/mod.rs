//! `dunlin acl`: what would the access rules decide, and are they right?

mod cases;

use std::{fmt::Write, path::PathBuf, process::ExitCode, sync::Arc};

use clap::{Args, Subcommand};

use super::{FAILURE, USAGE, complain, print};
use crate::{
    acl::{Action, Decision, Details, Policy, Principal},
    codec::QoS,
    config::{Acl, Config, Overrides, Sources, Surroundings},
    topic::{TopicFilter, TopicLimits, check_name},
};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dunlin acl check acl.toml                    Is anything wrong or odd?
  dunlin acl explain --acl acl.toml --user ann --publish sensors/1 --qos 1
                                               Which rule decides?
  dunlin acl explain --user ann --group ops --subscribe 'sensors/#'
                                               The same, with the rules of the configuration
  dunlin acl test acl-tests.toml               Do the rules decide as a file of tests expects?")]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say what is decided, and by which rule
    #[command(after_help = "Exit code 0 if it is allowed, 1 if it is denied.")]
    Explain(Explain),
    /// Compare decisions with those that test files expect
    #[command(after_help = "\
A test file names the rules, relative to itself, and what is expected of them:

  acl = \"acl.toml\"

  [[tests]]
  user = \"ann\"                  # without it, an anonymous client
  client = \"c1\"
  groups = [\"ops\"]
  attributes = { \"jwt:tenant\" = \"acme\" }
  publish = [\"sensors/1\"]       # and subscribe, receive: lists of topics
  qos = 1
  retain = false
  expect = \"allow\"              # or \"deny\", for each of the topics

Exit code 1 if anything is decided otherwise.")]
    Test(Test),
    /// Print what is wrong with a file, and what is odd
    #[command(after_help = "\
Exit code 2 if the broker would refuse the file, 1 if something in it looks like a mistake: a rule that can
never decide, a role that nobody has.")]
    Check(Check),
}

#[derive(Debug, Args)]
struct Explain {
    /// The file of rules; without it, acl.file of the configuration
    #[arg(long, value_name = "FILE")]
    acl: Option<PathBuf>,
    /// The configuration, as for `dunlin serve`
    #[arg(short, long, value_name = "FILE", conflicts_with = "acl")]
    config: Option<PathBuf>,
    /// The client identifier
    #[arg(long, value_name = "ID", default_value = "")]
    client: String,
    /// The user name; without it, the client is anonymous
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// A group that the user is in, besides those of the file; repeatable
    #[arg(long, value_name = "NAME")]
    group: Vec<String>,
    /// The value of a placeholder %{NAME}; repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_attribute)]
    attribute: Vec<(String, String)>,
    #[command(flatten)]
    asked: Asked,
    /// Quality of service
    #[arg(long, value_name = "QOS", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    qos: u8,
    /// Publish with RETAIN
    #[arg(long, requires = "publish")]
    retain: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Asked {
    /// May it publish to this topic?
    #[arg(long, value_name = "TOPIC")]
    publish: Option<String>,
    /// May it subscribe to this filter?
    #[arg(long, value_name = "FILTER")]
    subscribe: Option<String>,
    /// May it receive this topic, by a subscription that it has?
    #[arg(long, value_name = "TOPIC")]
    receive: Option<String>,
}

#[derive(Debug, Args)]
struct Test {
    /// Test files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

#[derive(Debug, Args)]
struct Check {
    /// The file of rules
    file: PathBuf,
}

pub(super) fn main(arguments: Arguments) -> ExitCode {
    let done = match arguments.command {
        Command::Explain(explain) => explain.run(),
        Command::Test(test) => cases::run(&test.files),
        Command::Check(check) => check_file(check.file),
    };
    done.unwrap_or_else(|code| code)
}

fn parse_attribute(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("it is written NAME=VALUE")?;
    Ok((name.into(), value.into()))
}

/// Reads rules; what is wrong with them goes to standard error.
fn load(acl: &Acl, name: &str) -> Result<Policy, ExitCode> {
    acl.load_as(name).map_err(|errors| {
        errors.problems().iter().for_each(complain);
        ExitCode::from(USAGE)
    })
}

impl Explain {
    fn run(self) -> Result<ExitCode, ExitCode> {
        let acl = match self.acl {
            Some(file) => Acl { file, format: None },
            None => of_configuration(self.config)?,
        };
        let policy = load(&acl, &acl.file.display().to_string())?;
        let details = Details {
            groups: self.group.iter().map(|group| group.as_str().into()).collect(),
            attributes: self.attribute.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
            ..Details::default()
        };
        let principal = Principal { user: self.user.map(Into::into), details: Some(Arc::new(details)) };
        let qos = QoS::from_u8(self.qos).unwrap_or_default();
        let (action, topic) = self.asked.into_action(qos, self.retain);
        let topic = checked_topic(action, &topic).map_err(|message| {
            complain(message);
            ExitCode::from(USAGE)
        })?;
        let explanation = policy.explain(&principal, &self.client, action, &topic);
        let printed = print(format!("{explanation}\n"));
        match explanation.decision {
            Decision::Allowed | Decision::AllowedUpTo(_) => Ok(printed),
            Decision::Denied(_) => Ok(FAILURE.into()),
        }
    }
}

impl Asked {
    fn into_action(self, qos: QoS, retain: bool) -> (Action, String) {
        match (self.publish, self.subscribe, self.receive) {
            (Some(topic), _, _) => (Action::Publish { qos, retain }, topic),
            (None, Some(filter), _) => (Action::Subscribe { qos }, filter),
            (None, None, topic) => (Action::Receive, topic.unwrap_or_default()),
        }
    }
}

/// Rules are asked about valid topics alone, and about the pattern of a shared subscription.
fn checked_topic(action: Action, text: &str) -> Result<String, String> {
    let limits = TopicLimits::default();
    match action {
        Action::Subscribe { .. } => match TopicFilter::parse(text, &limits) {
            Ok(filter) => Ok(filter.pattern().into()),
            Err(error) => Err(error.to_string()),
        },
        Action::Publish { .. } | Action::Receive => match check_name(text, &limits) {
            Ok(()) => Ok(text.into()),
            Err(error) => Err(error.to_string()),
        },
    }
}

/// The file of rules that the configuration names.
fn of_configuration(file: Option<PathBuf>) -> Result<Acl, ExitCode> {
    let sources = Sources { file, surroundings: Surroundings::of_process(), overrides: Overrides::default() };
    let loaded = Config::load(&sources).map_err(|errors| {
        errors.problems().iter().for_each(complain);
        ExitCode::from(USAGE)
    })?;
    loaded.config.acl.ok_or_else(|| {
        complain("the configuration names no access rules; set acl.file, or name a file with --acl");
        USAGE.into()
    })
}

fn check_file(file: PathBuf) -> Result<ExitCode, ExitCode> {
    let name = file.display().to_string();
    let policy = load(&Acl { file, format: None }, &name)?;
    let lints = policy.lints();
    let mut text = String::new();
    for lint in &lints {
        let _ = writeln!(text, "{lint}");
    }
    let rules = policy.len();
    if lints.is_empty() {
        return Ok(print(format!("{name}: {rules} rules, nothing is wrong\n")));
    }
    print(text);
    Ok(FAILURE.into())
}
