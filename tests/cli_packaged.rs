//! What packages and containers ask of the program: its manual pages, its completions, its health.
#![expect(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    path::PathBuf,
    process::{Command, Output},
    thread,
};

fn dunlin(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dunlin")).args(arguments).env_clear().output().unwrap()
}

fn directory(name: &str) -> PathBuf {
    let directory = std::env::temp_dir().join(format!("dunlin-packaged-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    directory
}

/// The commands that `--help` lists, below the given ones.
fn commands(of: &[&str]) -> Vec<String> {
    let help = String::from_utf8(dunlin(&[of, &["--help"]].concat()).stdout).unwrap();
    let listed = help.split("Commands:\n").nth(1).unwrap_or("").split("\n\n").next().unwrap_or("");
    let names = listed.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_command_has_a_manual_page_that_renders() {
    let directory = directory("man");
    assert!(dunlin(&["man", directory.to_str().unwrap()]).status.success());
    let mut wanted = vec!["dunlin.1".to_owned()];
    for command in commands(&[]) {
        wanted.extend(commands(&[&command]).iter().map(|part| format!("dunlin-{command}-{part}.1")));
        wanted.push(format!("dunlin-{command}.1"));
    }
    wanted.sort();
    let mut made: Vec<String> = fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    made.sort();
    assert!(made.len() > 30, "{made:?}");
    assert_eq!(made, wanted);
    for name in &made {
        let file = directory.join(name);
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(&format!(".TH {}", name.trim_end_matches(".1"))), "{text}");
        // Where there is no man, the test has shown enough.
        if let Ok(shown) =
            Command::new("man").args(["--warnings", "-l"]).arg(&file).env("MANPAGER", "cat").output()
        {
            let complaints = String::from_utf8_lossy(&shown.stderr).into_owned();
            assert!(shown.status.success() && complaints.is_empty(), "{name}: {complaints}");
        }
    }
    fs::remove_dir_all(directory).unwrap();
    let nowhere = dunlin(&["man", "/nowhere"]);
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("/nowhere/dunlin.1"));
}

/// Answers one request so, and returns what was asked.
fn serve_once(answer: &'static str) -> (String, thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/readyz", listener.local_addr().unwrap());
    #[expect(clippy::disallowed_methods, reason = "a server on a thread of its own")]
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 1024];
        let length = stream.read(&mut request).unwrap();
        stream.write_all(answer.as_bytes()).unwrap();
        String::from_utf8_lossy(&request[..length]).into_owned()
    });
    (url, server)
}

#[test]
fn health_is_what_the_broker_answers() {
    let (url, server) = serve_once("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    let ran = dunlin(&["health", "--url", &url]);
    assert_eq!(
        (ran.status.code(), String::from_utf8(ran.stdout).unwrap()),
        (Some(0), format!("{url}: ok\n"))
    );
    assert!(server.join().unwrap().starts_with("GET /readyz HTTP/1.1\r\n"));

    let (url, server) = serve_once("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n");
    let ran = dunlin(&["health", "--url", &url]);
    let said = String::from_utf8(ran.stderr).unwrap();
    assert_eq!(ran.status.code(), Some(1), "{said}");
    assert!(said.contains("503"), "{said}");
    server.join().unwrap();

    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", nobody.local_addr().unwrap());
    // It is there, but does not answer.
    let ran = dunlin(&["health", "--url", &url, "--timeout", "1"]);
    assert!(String::from_utf8_lossy(&ran.stderr).contains("has not answered within 1s"), "{ran:?}");
    drop(nobody);
    let ran = dunlin(&["health", "--url", &url]);
    assert_eq!(ran.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&ran.stderr).contains("cannot be reached"), "{ran:?}");
    assert_eq!(dunlin(&["health", "--url", "broker"]).status.code(), Some(2));
}
