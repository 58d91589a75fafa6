//! Rules of the house that no compiler checks: what a module may import, what the pure ones may mention, how long
//! a file gets, and that cited statements of the standard exist. `CONTRIBUTING.md` tells the reasons.
//!
//! Each rule is a function from texts to complaints, so that the tests below can show that it objects.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

const FILE_LINES_MAX: usize = 700;

/// Modules of `src/` and the modules of this crate that each may import besides itself. One that is not here
/// (the embedding API, the command line) may import all.
const IMPORTS: &[(&str, &[&str])] = &[
    ("time", &[]),
    ("codec", &[]),
    ("topic", &[]),
    ("limits", &["topic"]),
    ("allowance", &["time"]),
    ("mutation", &[]),
    ("message", &["codec", "topic", "time", "mutation"]),
    ("acl", &["codec", "topic"]),
    ("session", &["message", "codec", "topic", "time", "acl", "allowance", "limits", "mutation"]),
    ("histogram", &[]),
    ("broker", &["session", "message", "acl", "allowance", "codec", "topic", "time", "limits", "mutation"]),
    ("store", &["histogram", "broker", "session", "message", "acl", "codec", "topic", "time", "mutation"]),
    ("control", &["store"]),
    ("guard", &["allowance", "codec", "time"]),
    ("config", &["topic", "limits", "acl", "allowance", "guard"]),
    ("net", &["config", "time"]),
    ("auth", &["acl", "codec", "config", "net"]),
];

/// Modules that get time, randomness and bytes as arguments.
const PURE: &[&str] =
    &["time", "limits", "allowance", "histogram", "codec", "topic", "message", "session", "acl", "broker"];

/// What a pure module never mentions, each with what to do instead.
const IMPURE: &[(&str, &str)] = &[
    ("tokio", "the core is stepped by the shell and never waits: return an output"),
    ("std::fs", "files belong to `store` and `config`: return a journal operation"),
    ("TcpStream", "sockets belong to `net`: take or return bytes"),
    ("TcpListener", "sockets belong to `net`"),
    ("UdpSocket", "sockets belong to `net`"),
    ("UnixStream", "sockets belong to `net`: take or return bytes"),
    ("std::env", "settings come as checked values from `config`"),
    ("std::thread", "threads belong to `server`"),
    ("std::process", "processes belong to `cli`"),
    ("rand", "randomness is an argument"),
    ("getrandom", "randomness is an argument"),
    ("Instant::now", "time is an argument: take `now: Instant`"),
    ("elapsed", "it reads the clock: take `now: Instant` and subtract"),
    ("SystemTime", "time is an argument; wall-clock time belongs to the shell"),
];

/// One Rust file below `src/`.
struct Source {
    /// Its path below `src/`, with `/`.
    path: String,
    text: String,
}

impl Source {
    /// The module of the first level: `codec` for `codec/ack.rs` and for `codec.rs`.
    fn module(&self) -> &str {
        let first = self.path.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }
}

/// The text without comments and without the contents of strings, so that prose may say what code may not.
fn code_only(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            '"' => string_length(rest),
            '\'' => char_length(rest),
            'r' if raw_string_length(rest).is_some() && !code.ends_with(is_word) => {
                raw_string_length(rest).unwrap_or(1)
            }
            _ => 0,
        };
        if skipped == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            // Lines are kept, so that the complaints' numbers are right.
            code.extend(rest[..skipped].chars().filter(|&c| c == '\n'));
            rest = &rest[skipped..];
        }
    }
    code
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Length of the string literal that the text begins with.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Length of the character literal that the text begins with; 0 if it is a lifetime.
fn char_length(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match chars.next() {
        // What follows the backslash may itself be a quote.
        Some((_, '\\')) => text[3..].find('\'').map_or(0, |end| end + 4),
        Some(_) => chars.next().filter(|&(_, c)| c == '\'').map_or(0, |(at, _)| at + 1),
        None => 0,
    }
}

/// Length of the raw string literal that the text begins with.
fn raw_string_length(text: &str) -> Option<usize> {
    let hashes = text[1..].chars().take_while(|&c| c == '#').count();
    let body = text[1 + hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(body.find(&end).map_or(text.len(), |at| 2 + hashes + at + end.len()))
}

/// Places of `word` in the code as a whole word or path, as line numbers.
fn lines_with<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.lines().enumerate().filter(move |(_, line)| contains_word(line, word)).map(|(number, _)| number + 1)
}

fn contains_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

/// The first segments of the paths that the code takes from the root of this crate, nested imports included.
fn crate_imports(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        if !code[..at].ends_with(is_word) {
            collect_heads(&code[at + "crate::".len()..], &mut found);
        }
    }
    found
}

/// The head of a path, or of each path in the braces that the text begins with.
fn collect_heads(text: &str, found: &mut BTreeSet<String>) {
    let Some(list) = text.strip_prefix('{') else {
        found.insert(text.chars().take_while(|&c| is_word(c)).collect());
        return;
    };
    let mut depth = 0;
    let mut at_head = true;
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => return,
            '}' => depth -= 1,
            ',' if depth == 0 => at_head = true,
            c if is_word(c) && at_head => {
                found.insert(list[at..].chars().take_while(|&c| is_word(c)).collect());
                at_head = false;
            }
            _ => {}
        }
    }
}

fn check_length(source: &Source) -> Vec<String> {
    let lines = source.text.lines().count();
    if lines <= FILE_LINES_MAX {
        return Vec::new();
    }
    vec![format!("{}: {lines} lines, at most {FILE_LINES_MAX}: split it by concept", source.path)]
}

fn check_imports(source: &Source, modules: &BTreeSet<String>) -> Vec<String> {
    let module = source.module();
    let Some((_, allowed)) = IMPORTS.iter().find(|(name, _)| *name == module) else {
        return Vec::new();
    };
    let mut complaints: Vec<String> = crate_imports(&code_only(&source.text))
        .into_iter()
        .filter(|import| modules.contains(import) && import != module && !allowed.contains(&import.as_str()))
        .map(|import| {
            format!(
                "{}: `{module}` imports `crate::{import}`; it may import {allowed:?}: move what it needs down, or pass it in",
                source.path
            )
        })
        .collect();
    // A path such as `super::super::net` would go round the table.
    let climbs = if source.path.contains('/') { "super::super::super" } else { "super::super" };
    complaints.extend(
        lines_with(&code_only(&source.text), climbs)
            .map(|line| format!("{}:{line}: `{climbs}` hides an import: write `crate::…`", source.path)),
    );
    complaints
}

fn check_purity(source: &Source) -> Vec<String> {
    if !PURE.contains(&source.module()) {
        return Vec::new();
    }
    let code = code_only(&source.text);
    // `use std::{fs}` is `use std::fs`.
    let code = expand_std_braces(&code);
    IMPURE
        .iter()
        .flat_map(|&(word, instead)| {
            lines_with(&code, word)
                .map(move |line| {
                    format!("{}:{line}: a pure module mentions `{word}`: {instead}", source.path)
                })
                .collect::<Vec<_>>()
        })
        .collect()
}

/// Writes `use std::{fs, net::X}` as `use std::fs` and `use std::net` on its first line; other lines stay.
fn expand_std_braces(code: &str) -> String {
    let mut expanded = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = rest.find("std::{") {
        let (before, list) = rest.split_at(at + "std::".len());
        expanded.push_str(before);
        let mut heads = BTreeSet::new();
        collect_heads(list, &mut heads);
        for head in heads {
            expanded.push_str(" std::");
            expanded.push_str(&head);
        }
        rest = list;
    }
    expanded.push_str(rest);
    expanded
}

/// The identifiers cited as `[MQTT-…]` in a text, without the brackets.
fn cited(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().flat_map(|(number, line)| {
        line.match_indices("[MQTT-").filter_map(move |(at, _)| {
            let id = line[at + 1..].split(']').next()?;
            // A placeholder in prose, such as `[MQTT-x.y.z-n]`, cites nothing.
            id["MQTT-".len()..].starts_with(|c: char| c.is_ascii_digit()).then_some((number + 1, id))
        })
    })
}

fn check_citations(path: &str, text: &str, v5: &BTreeSet<String>, v311: &BTreeSet<String>) -> Vec<String> {
    cited(text)
        .filter(|(_, id)| match id.strip_prefix("MQTT-3.1.1/") {
            Some(number) => !v311.contains(&format!("MQTT-{number}")),
            None => !v5.contains(*id),
        })
        .map(|(line, id)| {
            format!(
                "{path}:{line}: the standard has no statement [{id}]: see tests/spec/normative-v5.tsv, or write [MQTT-3.1.1/…] \
                 for one of tests/spec/normative-v311.tsv"
            )
        })
        .collect()
}

/// The first column of a table of statements.
fn statements(file: &str) -> BTreeSet<String> {
    let path = root().join("tests/spec").join(file);
    let table = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    table
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split('\t').next())
        .map(Into::into)
        .collect()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All files below the directory with one of the extensions, in order.
fn files(directory: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut paths: Vec<PathBuf> =
        entries.map(|entry| entry.expect("a readable directory entry").path()).collect();
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        if path.is_dir() {
            found.extend(files(&path, extensions));
        } else if path.extension().is_some_and(|extension| extensions.iter().any(|e| extension == *e)) {
            found.push(path);
        }
    }
    found
}

fn sources() -> Vec<Source> {
    let src = root().join("src");
    files(&src, &["rs"])
        .into_iter()
        .map(|path| Source {
            path: path.strip_prefix(&src).expect("found below src").to_string_lossy().replace('\\', "/"),
            text: fs::read_to_string(&path).expect("sources are UTF-8"),
        })
        .collect()
}

fn assert_clean(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

fn sample(path: &str, text: &str) -> Source {
    Source { path: path.to_owned(), text: text.to_owned() }
}

#[test]
fn files_are_short() {
    assert_clean(&sources().iter().flat_map(check_length).collect::<Vec<_>>());
}

#[test]
fn modules_import_only_downwards() {
    let sources = sources();
    let modules = sources.iter().map(|source| source.module().to_owned()).collect();
    assert_clean(&sources.iter().flat_map(|source| check_imports(source, &modules)).collect::<Vec<_>>());
}

#[test]
fn pure_modules_know_no_clock_task_socket_file_or_random_source() {
    assert_clean(&sources().iter().flat_map(check_purity).collect::<Vec<_>>());
}

#[test]
fn cited_statements_exist() {
    let (v5, v311) = (statements("normative-v5.tsv"), statements("normative-v311.tsv"));
    assert!(v5.len() > 200 && v311.len() > 100, "the tables of statements are not whole");
    let mut complaints = Vec::new();
    for directory in ["src", "tests"] {
        for path in files(&root().join(directory), &["rs", "py", "mjs"]) {
            if path.ends_with("tests/tidy.rs") {
                continue; // Its samples cite what does not exist.
            }
            let text = fs::read_to_string(&path).expect("sources are UTF-8");
            let shown = path.strip_prefix(root()).unwrap_or(&path).display().to_string();
            complaints.extend(check_citations(&shown, &text, &v5, &v311));
        }
    }
    assert_clean(&complaints);
}

#[test]
fn a_long_file_is_refused() {
    assert!(check_length(&sample("a.rs", &"\n".repeat(FILE_LINES_MAX))).is_empty());
    assert_eq!(check_length(&sample("a.rs", &"\n".repeat(FILE_LINES_MAX + 1))).len(), 1);
}

#[test]
fn an_upward_import_is_refused_however_it_is_written() {
    let modules = ["codec", "topic", "session", "net"].map(String::from).into();
    let refused = [
        ("codec/ack.rs", "use crate::topic::TopicName;"),
        ("topic/mod.rs", "use crate::{\n    codec::{Ack, Publish},\n};"),
        ("session.rs", "fn f() -> crate::net::Socket { todo!() }"),
        ("session/qos.rs", "use crate::{message::Message, net};"),
        ("codec/deep/ack.rs", "use super::super::super::net;"),
    ];
    for (path, text) in refused {
        assert_eq!(check_imports(&sample(path, text), &modules).len(), 1, "{path}: {text}");
    }
    let accepted = [
        ("session/qos.rs", "use crate::{codec::{Ack, net}, topic};\nuse crate::session::Queue;"),
        ("codec/ack.rs", "// use crate::net;\n/* crate::net */ const A: &str = \"crate::net\";"),
        ("codec/ack.rs", "use mycrate::net;"),
        ("cli/mod.rs", "use crate::net;"),
    ];
    for (path, text) in accepted {
        assert_eq!(check_imports(&sample(path, text), &modules), Vec::<String>::new(), "{path}: {text}");
    }
}

#[test]
fn an_impure_core_is_refused() {
    for text in [
        "use tokio::time::Instant;",
        "use std::{collections::HashMap, fs};",
        "use std::{\n    net::{SocketAddr, TcpStream},\n    time::Duration,\n};",
        "let now = Instant::now();",
        "let waited = then.elapsed();",
        "let now = std::time::SystemTime::now();",
        "let c = '\"'; let x = rand::random(); let d = '\"';",
        "fn f<'a>(x: &'a str) { std::thread::yield_now() }",
        "let s = r#\"a \" b\"#; std::env::args();",
    ] {
        assert_eq!(check_purity(&sample("broker/mod.rs", text)).len(), 1, "{text}");
        assert!(check_purity(&sample("net/mod.rs", text)).is_empty(), "{text}");
    }
    for text in [
        "use std::{net::IpAddr, time::{Duration, Instant}};",
        "//! No tokio here, nor std::fs.\nlet operand = brand(\"tokio\");",
        "let a = '\\''; let b = \"std::env \\\" std::env\";",
    ] {
        assert_eq!(check_purity(&sample("broker/mod.rs", text)), Vec::<String>::new(), "{text}");
    }
}

#[test]
fn a_citation_of_nothing_is_refused() {
    let v5 = [String::from("MQTT-3.3.1-5")].into();
    let v311 = [String::from("MQTT-2.3.1-1")].into();
    let text = "// [MQTT-3.3.1-5], [MQTT-3.1.1/2.3.1-1]: `[MQTT-x.y.z-n]`\n// [MQTT-2.3.1-1]\n// [MQTT-3.1.1/3.3.1-5]";
    let complaints = check_citations("a.rs", text, &v5, &v311);
    assert_eq!(complaints.len(), 2, "{complaints:?}");
    assert!(complaints[0].starts_with("a.rs:2:") && complaints[1].starts_with("a.rs:3:"));
}
