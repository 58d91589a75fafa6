//! `dunlin acl test`: files that say what rules should decide.

use std::{
    collections::BTreeMap,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use serde::Deserialize;
use toml::Spanned;

use super::{checked_topic, load};
use crate::{
    acl::{Action, Decision, Details, Policy, Principal},
    cli::{FAILURE, USAGE, complain, print},
    codec::QoS,
    config::Acl,
};

/// A test file as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    acl: PathBuf,
    tests: Vec<Case>,
}

/// Decisions for one client.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    user: Option<String>,
    #[serde(default)]
    client: String,
    #[serde(default)]
    groups: Vec<String>,
    #[serde(default)]
    attributes: BTreeMap<String, String>,
    #[serde(default)]
    publish: Vec<Spanned<String>>,
    #[serde(default)]
    subscribe: Vec<Spanned<String>>,
    #[serde(default)]
    receive: Vec<Spanned<String>>,
    #[serde(default)]
    qos: u8,
    #[serde(default)]
    retain: bool,
    expect: Spanned<Expected>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Expected {
    Allow,
    Deny,
}

/// A test file and how to name places in it.
struct Document<'a> {
    name: &'a str,
    text: &'a str,
}

impl Document<'_> {
    fn place(&self, offset: usize) -> String {
        let before = self.text.get(..offset).unwrap_or(self.text);
        format!("{}:{}", self.name, before.matches('\n').count() + 1)
    }
}

/// What came of the tests.
#[derive(Default)]
struct Tally {
    decisions: usize,
    failures: usize,
    text: String,
}

pub(super) fn run(files: &[PathBuf]) -> Result<ExitCode, ExitCode> {
    let mut tally = Tally::default();
    for path in files {
        run_file(path, &mut tally)?;
    }
    let Tally { decisions, failures, mut text } = tally;
    let _ = match failures {
        0 => writeln!(text, "{decisions} decisions, all as expected"),
        _ => writeln!(text, "{decisions} decisions, {failures} not as expected"),
    };
    let printed = print(text);
    Ok(if failures == 0 { printed } else { FAILURE.into() })
}

fn run_file(path: &Path, tally: &mut Tally) -> Result<(), ExitCode> {
    let name = path.display().to_string();
    let fail = |message: String| {
        complain(message);
        ExitCode::from(USAGE)
    };
    let text = fs::read_to_string(path).map_err(|error| fail(format!("{name}: cannot be read: {error}")))?;
    let document = Document { name: &name, text: &text };
    let file: File = toml::from_str(&text).map_err(|error| {
        let place = error.span().map_or_else(|| name.clone(), |span| document.place(span.start));
        fail(format!("{place}: {}", error.message()))
    })?;
    let rules = path.parent().unwrap_or(Path::new("")).join(&file.acl);
    let policy = load(&Acl { file: rules.clone(), format: None }, &rules.display().to_string())?;
    for case in &file.tests {
        case.run(&policy, &document, tally).map_err(&fail)?;
    }
    Ok(())
}

impl Case {
    fn run(&self, policy: &Policy, document: &Document<'_>, tally: &mut Tally) -> Result<(), String> {
        let place = document.place(self.expect.span().start);
        let qos = QoS::from_u8(self.qos).ok_or_else(|| format!("{place}: qos is 0, 1 or 2"))?;
        let actions = [
            (Action::Publish { qos, retain: self.retain }, "publish to", &self.publish),
            (Action::Subscribe { qos }, "subscribe to", &self.subscribe),
            (Action::Receive, "receive", &self.receive),
        ];
        if actions.iter().all(|(_, _, topics)| topics.is_empty()) {
            return Err(format!("{place}: a test without publish, subscribe and receive tests nothing"));
        }
        let principal = self.principal();
        for (action, words, topics) in actions {
            for topic in topics {
                let place = document.place(topic.span().start);
                let name = checked_topic(action, topic.get_ref()).map_err(|why| format!("{place}: {why}"))?;
                let explanation = policy.explain(&principal, &self.client, action, &name);
                tally.decisions += 1;
                if Expected::of(explanation.decision) != *self.expect.get_ref() {
                    tally.failures += 1;
                    let who = self
                        .user
                        .as_deref()
                        .map_or("an anonymous client".into(), |user| format!("user {user}"));
                    let expected = self.expect.get_ref().words();
                    let _ = writeln!(
                        tally.text,
                        "{place}: that {who} may {words} {name:?} should be {expected}, and is {explanation}"
                    );
                }
            }
        }
        Ok(())
    }

    fn principal(&self) -> Principal {
        let attributes = self.attributes.iter();
        let details = Details {
            groups: self.groups.iter().map(|group| group.as_str().into()).collect(),
            attributes: attributes
                .map(|(name, value)| (name.as_str().into(), value.as_str().into()))
                .collect(),
            ..Details::default()
        };
        Principal { user: self.user.as_deref().map(Into::into), details: Some(Arc::new(details)) }
    }
}

impl Expected {
    fn of(decision: Decision) -> Expected {
        match decision {
            Decision::Allowed | Decision::AllowedUpTo(_) => Expected::Allow,
            Decision::Denied(_) => Expected::Deny,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Expected::Allow => "allowed",
            Expected::Deny => "denied",
        }
    }
}
