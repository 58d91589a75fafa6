//! The table of normative statements is complete, and what it says is so.
//!
//! A row of `coverage.tsv` names a test, and that test cites the statement: in the comment above it or
//! inside it. Statements of MQTT 3.1.1 are cited as `[MQTT-3.1.1/2.3.1-1]`.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

const VERSIONS: [(&str, &str); 2] =
    [("v5", include_str!("normative-v5.tsv")), ("v311", include_str!("normative-v311.tsv"))];
const COVERAGE: &str = include_str!("coverage.tsv");

type Statement<'a> = (&'a str, &'a str);

/// Rows of a table, without comments.
fn rows(table: &str) -> impl Iterator<Item = Vec<&str>> {
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

fn coverage() -> BTreeMap<Statement<'static>, &'static str> {
    let mut coverage = BTreeMap::new();
    for row in rows(COVERAGE) {
        let [version, id, how] = row[..] else { panic!("a row has three columns: {row:?}") };
        assert!(coverage.insert((version, id), how).is_none(), "{version} {id} stands twice");
    }
    coverage
}

/// The statements that bind a server.
fn statements() -> BTreeSet<Statement<'static>> {
    let mut statements = BTreeSet::new();
    for (version, table) in VERSIONS {
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
fn every_row_names_a_test_that_cites_it_or_gives_a_reason() {
    let coverage = coverage();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut wrong = Vec::new();
    for (statement, how) in &coverage {
        if let Some(reason) = how.strip_prefix("exception: ") {
            assert!(reason.split(' ').count() >= 5, "{statement:?}: '{reason}' is no reason");
            continue;
        }
        if let Some(other) = how.strip_prefix("as v5: ") {
            assert!(coverage.contains_key(&("v5", other)), "{statement:?} is as {other}, which has no row");
            continue;
        }
        let Some((file, name)) = how.split_once(':') else { panic!("{statement:?}: '{how}' is no test") };
        let Ok(source) = std::fs::read_to_string(root.join(file)) else {
            wrong.push(format!("{statement:?}: there is no {file}"));
            continue;
        };
        let citation = citation(*statement);
        match function(&source, name) {
            None => wrong.push(format!("{statement:?}: there is no {name} in {file}")),
            Some(lines) => {
                let is_test = lines.iter().any(|line| line.contains("test")) || lines[0].starts_with("    ");
                if !is_test || !lines.iter().any(|line| line.contains(&citation)) {
                    wrong.push(format!("{statement:?}: {name} in {file} does not cite it"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_tests_cite_exists() {
    let mut known = BTreeSet::new();
    for (version, table) in VERSIONS {
        known.extend(rows(table).map(|row| citation((version, row[0]))));
    }
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/spec");
    for entry in std::fs::read_dir(directory).expect("the directory of this file can be read") {
        let path = entry.expect("its entries can be read").path();
        let Ok(source) = std::fs::read_to_string(&path) else { continue };
        if path.ends_with("coverage.rs") || path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        for (at, _) in source.match_indices("[MQTT-") {
            let cited = source[at..].split_inclusive(']').next().unwrap_or_default();
            assert!(known.contains(cited), "{} cites {cited}, which is no statement", path.display());
        }
    }
}
