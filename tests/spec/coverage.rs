//! The table of normative statements is complete, and what it says is so.
//!
//! A row of `coverage.tsv` names tests, and each of them cites the statement: in the comment above it or
//! inside it. Statements of MQTT 3.1.1 are cited as `[MQTT-3.1.1/2.3.1-1]`. That whatever is cited exists is
//! checked by `tests/tidy.rs`.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// The versions with their names and statements.
pub(super) const VERSIONS: [(&str, &str, &str); 2] = [
    ("v5", "MQTT 5.0", include_str!("normative-v5.tsv")),
    ("v311", "MQTT 3.1.1", include_str!("normative-v311.tsv")),
];
const COVERAGE: &str = include_str!("coverage.tsv");

pub(super) type Statement<'a> = (&'a str, &'a str);

/// How a statement is shown.
#[derive(Debug)]
pub(super) enum Shown {
    /// By tests: the file and the function of each.
    By(Vec<(&'static str, &'static str)>),
    /// As that statement of MQTT 5, which says the same.
    As(&'static str),
    /// It is not, for this reason.
    Exception(&'static str),
}

/// Rows of a table, without comments.
pub(super) fn rows(table: &str) -> impl Iterator<Item = Vec<&str>> {
    let is_row = |line: &&str| !line.starts_with('#') && !line.is_empty();
    table.lines().filter(is_row).map(|line| line.split('\t').collect())
}

/// How a statement is cited in a test.
fn citation((version, id): Statement<'_>) -> String {
    match version {
        "v311" => format!("[{}]", id.replace("MQTT-", "MQTT-3.1.1/")),
        _ => format!("[{id}]"),
    }
}

pub(super) fn coverage() -> BTreeMap<Statement<'static>, Shown> {
    let mut coverage = BTreeMap::new();
    for row in rows(COVERAGE) {
        let [version, id, how] = row[..] else { panic!("a row has three columns: {row:?}") };
        let shown = if let Some(reason) = how.strip_prefix("exception: ") {
            Shown::Exception(reason)
        } else if let Some(other) = how.strip_prefix("as v5: ") {
            Shown::As(other)
        } else {
            let test = |test: &'static str| {
                test.split_once(':').unwrap_or_else(|| panic!("{version} {id}: '{test}' is no test"))
            };
            Shown::By(how.split(' ').map(test).collect())
        };
        assert!(coverage.insert((version, id), shown).is_none(), "{version} {id} stands twice");
    }
    coverage
}

/// The statements that bind a server.
fn statements() -> BTreeSet<Statement<'static>> {
    let mut statements = BTreeSet::new();
    for (version, _, table) in VERSIONS {
        for row in rows(table) {
            let [id, binds, _] = row[..] else { panic!("a row has three columns: {row:?}") };
            if binds != "C" {
                statements.insert((version, id));
            }
        }
    }
    statements
}

/// The text of a test function with the comments and attributes above it.
fn function<'a>(source: &'a str, name: &str) -> Option<Vec<&'a str>> {
    let lines: Vec<&str> = source.lines().collect();
    let is_named = |line: &&str| {
        let line = line.trim_start().trim_start_matches("async ");
        line.strip_prefix("fn ")
            .and_then(|rest| rest.strip_prefix(name))
            .is_some_and(|rest| rest.starts_with('('))
    };
    let at = lines.iter().position(is_named)?;
    let indent = lines[at].len() - lines[at].trim_start().len();
    let is_above = |line: &&&str| line.trim_start().starts_with("//") || line.trim_start().starts_with("#[");
    let above = lines[..at].iter().rev().take_while(is_above).count();
    let end = lines[at..].iter().position(|line| line.len() == indent + 1 && line.trim_start() == "}")?;
    Some(lines[at - above..=at + end].to_vec())
}

/// What is wrong with a test that a row names, if anything is.
fn complaint(statement: Statement<'_>, file: &str, name: &str) -> Option<String> {
    let Ok(source) = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)) else {
        return Some(format!("{statement:?}: there is no {file}"));
    };
    let Some(lines) = function(&source, name) else {
        return Some(format!("{statement:?}: there is no {name} in {file}"));
    };
    // Those in a macro of proptest are indented.
    let is_test = lines.iter().any(|line| line.contains("test")) || lines[0].starts_with("    ");
    let cites = lines.iter().any(|line| line.contains(&citation(statement)));
    (!is_test || !cites).then(|| format!("{statement:?}: {name} in {file} does not cite it"))
}

#[test]
fn every_statement_that_binds_a_server_has_a_row_and_no_other() {
    let (statements, coverage) = (statements(), coverage());
    let covered: BTreeSet<_> = coverage.keys().copied().collect();
    let missing: Vec<_> = statements.difference(&covered).collect();
    assert!(missing.is_empty(), "without a row: {missing:?}");
    let foreign: Vec<_> = covered.difference(&statements).collect();
    assert!(foreign.is_empty(), "rows for no statement: {foreign:?}");
}

#[test]
fn every_row_names_tests_that_cite_it_or_gives_a_reason() {
    let coverage = coverage();
    let mut wrong = Vec::new();
    for (statement, shown) in &coverage {
        match shown {
            Shown::By(tests) => {
                wrong.extend(tests.iter().filter_map(|(file, name)| complaint(*statement, file, name)));
            }
            Shown::As(other) => match coverage.get(&("v5", other)) {
                Some(Shown::By(_)) => {}
                found => wrong.push(format!("{statement:?} is as {other}, which is shown by {found:?}")),
            },
            Shown::Exception(reason) if reason.split(' ').count() < 5 => {
                wrong.push(format!("{statement:?}: '{reason}' is no reason"));
            }
            Shown::Exception(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
