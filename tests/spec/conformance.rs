//! `docs/conformance.md`, which is written from the tables of this directory.

use std::{fmt::Write, fs, path::Path};

use super::coverage::{Shown, VERSIONS, coverage, rows};

const HEAD: &str = "\
# Conformance

Every normative statement of MQTT 5.0 and MQTT 3.1.1 by its number, in words of our own (the specifications alone
decide), and the tests that show that the broker obeys it. A test that shows a statement cites it; other tests may
cite it too. MQTT 3.1 has no numbered statements; where it differs, tests run for it as well.

Written by `DUNLIN_WRITE=1 cargo test --test spec conformance` from `tests/spec/normative-*.tsv` and
`tests/spec/coverage.tsv`: change those. What each state of a session and of a connection makes of each event is in
the tables of `tests/spec/states/snapshots` and `tests/wire/snapshots`.
";

/// One table of statements, and how many there are of each sort.
#[derive(Default)]
struct Part {
    server: String,
    client: String,
    tested: usize,
    excepted: usize,
    of_client: usize,
}

/// Text for a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;")
}

fn part(version: &str, table: &str) -> Part {
    let coverage = coverage();
    let mut part = Part::default();
    for row in rows(table) {
        let [id, binds, paraphrase] = row[..] else { panic!("a row has three columns: {row:?}") };
        let paraphrase = cell(paraphrase);
        let binds = match binds {
            "C" => {
                part.of_client += 1;
                writeln!(part.client, "| {id} | {paraphrase} |").expect("a string grows");
                continue;
            }
            "S" => "server",
            "SC" => "both",
            other => panic!("{id} binds {other}"),
        };
        let shown = match &coverage[&(version, id)] {
            Shown::By(tests) => {
                part.tested += 1;
                let tests = tests.iter().map(|(file, name)| format!("`{file}::{name}`"));
                tests.collect::<Vec<_>>().join(", ")
            }
            Shown::As(other) => {
                part.tested += 1;
                format!("as {other} of MQTT 5.0")
            }
            Shown::Exception(reason) => {
                part.excepted += 1;
                format!("*Exception:* {}", cell(reason))
            }
        };
        writeln!(part.server, "| {id} | {binds} | {paraphrase} | {shown} |").expect("a string grows");
    }
    part
}

fn document() -> String {
    let mut summary = String::from(
        "\n| | statements | bind a server | shown by tests | exceptions | bind a client alone |\n\
         |---|---|---|---|---|---|\n",
    );
    let mut parts = String::new();
    for (version, name, table) in VERSIONS {
        let part = part(version, table);
        let Part { tested, excepted, of_client, .. } = part;
        let bind = tested + excepted;
        let all = bind + of_client;
        writeln!(summary, "| {name} | {all} | {bind} | {tested} | {excepted} | {of_client} |")
            .expect("a string grows");
        write!(
            parts,
            "\n## {name}\n\n### Statements that bind a server\n\n| statement | binds | what it says | shown by |\n\
             |---|---|---|---|\n{}\n### Statements that bind a client alone\n\n| statement | what it says |\n\
             |---|---|\n{}",
            part.server, part.client
        )
        .expect("a string grows");
    }
    format!("{HEAD}{summary}{parts}")
}

#[test]
fn conformance_is_written_from_the_tables() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/conformance.md");
    let document = document();
    if std::env::var_os("DUNLIN_WRITE").is_some() {
        fs::write(&path, &document).expect("the document can be written");
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == document,
        "docs/conformance.md is out of date: DUNLIN_WRITE=1 cargo test --test spec conformance"
    );
}
