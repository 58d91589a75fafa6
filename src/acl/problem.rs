//! What is wrong with rules.

use std::{error::Error, fmt};

/// Everything that is wrong with a text; never empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyErrors {
    problems: Vec<String>,
}

/// Problems that are told of one text; nobody reads more.
const PROBLEMS_MAX: usize = 50;

impl PolicyErrors {
    /// A single problem, with its place.
    #[must_use]
    pub fn one(problem: String) -> Self {
        Self { problems: vec![problem] }
    }

    /// The problems, each with its place: `acl.toml:3:1: unknown key "topic"; …`.
    #[must_use]
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    pub(super) fn add(&mut self, place: impl fmt::Display, message: impl fmt::Display) {
        match self.problems.len() {
            0..PROBLEMS_MAX => self.problems.push(format!("{place}: {message}")),
            PROBLEMS_MAX => self.problems.push(format!("{place}: and there is more, which is not shown")),
            _ => {}
        }
    }

    /// The value if nothing is wrong, else the problems.
    pub(super) fn or<T>(self, value: T) -> Result<T, Self> {
        if self.problems.is_empty() { Ok(value) } else { Err(self) }
    }
}

impl Error for PolicyErrors {}

impl fmt::Display for PolicyErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problems.join("\n"))
    }
}

/// The line and the column of a byte of a text, both from 1; columns count characters.
pub(super) fn line_and_column(text: &str, offset: usize) -> (u32, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = 1 + before.bytes().filter(|byte| *byte == b'\n').count();
    (u32::try_from(line).unwrap_or(u32::MAX), before[line_start..].chars().count() + 1)
}
