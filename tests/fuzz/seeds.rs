//! What the fuzzer starts from: the table of packets, and for each other target an input of every kind.

use dunlin::codec::Version;

use crate::vectors;

/// Inputs of a target by name.
type Named = Vec<(String, Vec<u8>)>;

pub(crate) fn all() -> [(&'static str, Named); 9] {
    [
        ("acl", numbered(rules())),
        ("decode", packets()),
        ("round_trip", packets()),
        ("topics", numbered(topics())),
        ("session", numbered(sessions())),
        ("websocket", numbered(websockets())),
        ("proxy", numbered(proxies())),
        ("records", numbered(records())),
        ("tokens", numbered(tokens())),
    ]
}

/// Inputs of one target.
pub(crate) fn of(target: &str) -> Named {
    let found = all().into_iter().find(|(name, _)| *name == target);
    found.expect("each target has something to start from").1
}

fn numbered(inputs: Vec<Vec<u8>>) -> Named {
    inputs.into_iter().enumerate().map(|(number, input)| (format!("seed-{number:03}"), input)).collect()
}

/// The table of packets, with the version that each comes in.
fn packets() -> Named {
    let mut inputs = Named::new();
    for (number, row) in vectors::rows().iter().enumerate().filter(|(_, row)| row.bytes.len() < 4096) {
        for version in row.versions {
            let input = [&[*version as u8, 0], row.bytes.as_slice()].concat();
            inputs.push((format!("{number:03}-{version:?}"), input));
        }
    }
    inputs
}

/// Rules in each format.
fn rules() -> Vec<Vec<u8>> {
    let toml = [
        "[[rules]]\ndeny = [\"publish\"]\nretain = true\ntopics = [\"a/%c/#\"]\n[[rules]]\nallow = \"all\"\nusers = \"a\"\ntopics = [\"a/+\", \"#\"]\n",
        "groups.a = [\"b\"]\nroles.r = { groups = \"a\", clients = \"dev-*\", rules = [{ allow = \"publish\", topics = \"%u/%{x}\", qos_max = 1 }] }\n",
        "rules = [{ deny = \"subscribe\", anonymous = true, topics = [\"a/+/b\", \"%c\"] }, { allow = [\"subscribe\", \"receive\"], topics = [\"a/#\", \"$SYS/#\"] }]\n",
        "rules = [{ deny = [\"receive\"], topics = \"dev-%c/+\" }, { allow = \"all\", topics = \"+/#\" }]\n",
    ];
    let mosquitto = [
        "# rules\ntopic read a/#\ntopic deny a/b\n\nuser a\ntopic write a/+\ntopic b\npattern readwrite %c/%u/#\npattern deny a/%c\n",
        "pattern read %c/#\nuser b\ntopic readwrite #\n",
    ];
    let claims = [
        r##"[{"deny": "all", "topics": ["a/%c"]}, {"allow": ["publish", "receive"], "topics": ["a/#"], "qos_max": 1}]"##,
    ];
    let with = |first: u8| move |text: &&str| [&[first], text.as_bytes()].concat();
    toml.iter().map(with(0)).chain(mosquitto.iter().map(with(1))).chain(claims.iter().map(with(2))).collect()
}

/// Claims, a token and a set of keys.
fn tokens() -> Vec<Vec<u8>> {
    let texts = [
        r#"{"sub":"u","c":"client","exp":1700000600,"nbf":1,"iat":1}"#,
        r#"{"sub":"u","c":"client","g":{"r":["x","y"]},"a":true,"b":{"c":1.5}}"#,
        r#"{"sub":"u","c":"client","aud":["z"],"acl":{}}"#,
        r#"{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB","kid":"k","use":"sig"}]}"#,
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1In0.AAAA",
    ];
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// Filters and names, put in, looked up and taken out.
fn topics() -> Vec<Vec<u8>> {
    let texts = [
        "a/b",
        "a/+/b",
        "a/#",
        "#",
        "+",
        "$SYS/x",
        "$SYS/#",
        "a",
        "a/",
        "/",
        "$share/g/a/+",
        "a-b",
        "a/b/c",
        "a0/b",
        "+/b",
        "a/c/d",
    ];
    let operation =
        |operation: u8, text: &str| [&[operation | (text.len() as u8) << 3], text.as_bytes()].concat();
    let all = |operations: &[u8]| {
        let all = operations.iter().flat_map(|number| texts.map(|text| operation(*number, text)));
        [vec![7], all.collect::<Vec<_>>().concat()].concat()
    };
    vec![all(&[0, 4, 7]), all(&[4, 2, 3]), all(&[0, 4, 1, 2, 6, 7]), all(&[4, 6, 4, 3, 2])]
}

/// A header of each kind, in pieces of ten bytes, with something behind it.
fn proxies() -> Vec<Vec<u8>> {
    let v2 = |head: &[u8], rest: &[u8]| [b"\r\n\r\n\0\r\nQUIT\n", head, rest, b"\x10\0"].concat();
    let ipv4 = [203, 0, 113, 9, 192, 0, 2, 1, 18, 103, 34, 179];
    let tls = [
        &ipv4[..],
        &[0x20, 0, 9, 7, 0, 0, 0, 0, 0x22, 0, 1, b'a', 4, 0, 0, 2, 0, 1, b'h', 3, 0, 4, 1, 2, 3, 4],
    ]
    .concat();
    let headers = [
        b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 8883\r\n\x10".to_vec(),
        b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 8883\r\n".to_vec(),
        b"PROXY UNKNOWN a b c d\r\nPROXY ".to_vec(),
        v2(b"\x20\0\0\0", b""),
        v2(b"\x21\x11\0\x0c", &ipv4),
        v2(b"\x21\x21\0\x24", &[7; 36]),
        v2(b"\x21\x31\0\xd8", &[b'/'; 216]),
        v2(&[0x21, 0x11, 0, tls.len() as u8], &tls),
        v2(&[0x21, 0x11, 0, tls.len() as u8 - 7], &tls[..tls.len() - 7]),
    ];
    headers.into_iter().map(|header| [&[9], header.as_slice()].concat()).collect()
}

/// A client that connects, two that talk to each other, and the table of packets sent after a CONNECT.
fn sessions() -> Vec<Vec<u8>> {
    let mut inputs = Vec::new();
    let talk = [
        1, 0, 0, 0x11, 16, 4, 0x13, 0, 2, 0, 5, 2, 0, 1, 5, 1, 0, 2, 5, 6, 1, 1, 0x16, 0, 0x16, 0, 0x1a, 0,
        5, 2, 0, 1, 0x0b, 0, 5, 1, 0, 1, 0x0b, 1, 0x1a, 255, 0x19, 5, 2, 0, 1, 13, 210, 0x11, 16, 4, 0x16, 0,
        0x16, 0, 14, 100, 0x11, 0, 2, 0x18, 0,
    ];
    for limits in [0, 1, 2, 3, 0x43, 0x2f] {
        for parking in [0, 2, 15] {
            inputs.push([&[limits, parking], talk.as_slice()].concat());
        }
    }
    let connects = vectors::rows().into_iter().filter(|row| row.bytes.first() == Some(&0x10));
    for row in connects.filter(|row| row.bytes.len() < 256) {
        inputs.push([&[0, 0, 0, 0, 2, row.bytes.len() as u8], row.bytes.as_slice(), &[5, 1, 0, 1]].concat());
    }
    for row in vectors::rows().into_iter().filter(|row| row.bytes.len() < 256 && row.bytes[..1] != [0x10]) {
        let flags = if row.versions.contains(&Version::V5) { 0 } else { 1 };
        let ops = [0, 0, 1, flags, 1, 3, 3, 2, 1, 2, row.bytes.len() as u8];
        inputs.push([&ops, row.bytes.as_slice(), &[5, 2, 1, 1, 6, 0]].concat());
    }
    inputs
}

/// Requests, frames as they come and frames to be made.
fn websockets() -> Vec<Vec<u8>> {
    let request = "GET /mqtt HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                   Sec-WebSocket-Protocol: chat, mqtt\r\n\r\n";
    let mut inputs = vec![[&[0, 6], request.as_bytes(), &[0x82, 0x81, 0, 0, 0, 0, 1]].concat()];
    let refused =
        ["GET / HTTP/1.1\r\n\r\n", "POST /mqtt HTTP/1.1\r\nHost: a\r\n\r\n", "\x10\x0c", "\x16\x03"];
    inputs.extend(refused.map(|text| [&[0, 3], text.as_bytes()].concat()));
    for frame in [
        &[0x82, 0x82, 1, 2, 3, 4, 5, 6][..],
        &[0x02, 0x81, 0, 0, 0, 0, 9, 0x89, 0x80, 0, 0, 0, 0, 0x80, 0x81, 0, 0, 0, 0, 9],
        &[0x81, 0x81, 0, 0, 0, 0, b'x'],
        &[0x88, 0x82, 0, 0, 0, 0, 3, 0xe8],
        &[0x82, 0xfe, 0, 126, 0, 0, 0, 0],
        &[0x82, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0],
        &[0x82, 0x01, 9],
        &[0xc2, 0x81, 0, 0, 0, 0, 1],
        &[0x80, 0x81, 0, 0, 0, 0, 1],
    ] {
        inputs.push([&[1, 0], frame].concat());
        inputs.push([&[1, 200], frame, frame].concat());
    }
    for piece in [0, 4, 130] {
        let script =
            [4, 3, 1, 2, 3, 1, 2, 9, 9, 0, 2, 4, 5, 2, 8, 1, 2, 3, 4, 5, 6, 7, 8, 6, 1, 7, 1, 0, 0, 1, 7];
        inputs.push([&[2, piece], script.as_slice()].concat());
    }
    inputs
}

/// Records and rows of every kind, byte by byte as `docs/storage.md` has them, and pages.
fn records() -> Vec<Vec<u8>> {
    let golden = include_str!("../../src/store/record/golden.txt");
    let mut inputs: Vec<Vec<u8>> = Vec::new();
    for bytes in golden.split_whitespace().filter_map(hex) {
        let what = match bytes.get(1) {
            Some(1..=7) => 0,
            Some(16) => 1,
            Some(17) => 2,
            Some(18) => 4,
            Some(19) => 5,
            Some(20) => {
                inputs.push([&[6, 9, 0, 0, 0, 0, 0, 0, 0], bytes.as_slice()].concat());
                continue;
            }
            _ => 3,
        };
        inputs.push([&[8, 0, 0, 1, 0, 0, 0, 0, 0], bytes.as_slice()].concat());
        inputs.push([&[what], bytes.as_slice()].concat());
    }
    inputs.push([&[3, 0, 0, 0, 0, 0, 0, 0, 7], "a/+".as_bytes()].concat());
    // A leaf of two rows with keys and values that differ, and a branch of one key.
    let leaf = [1, 0, 2, 0, 21, 0, 0, 0, 22, 0, 0, 0, 23, 0, 0, 0, 24, 0, 0, 0, b'a', b'b', b'x', b'y'];
    inputs.push([&[7, 0x11], leaf.as_slice()].concat());
    let branch = [&[2, 0, 1, 0, 0, 0, 0, 0][..], &[0; 48], &[60, 0, 0, 0, b'k']].concat();
    inputs.push([&[7, 0], branch.as_slice()].concat());
    inputs.push(database(&leaf));
    inputs
}

/// A database whose trees begin in its second page.
fn database(leaf: &[u8]) -> Vec<u8> {
    let mut start = vec![0; 320];
    start[..9].copy_from_slice(b"redb\x1a\x0a\xa9\x0d\x0a");
    start[12..16].copy_from_slice(&4096_u32.to_le_bytes());
    start[20..24].copy_from_slice(&8_u32.to_le_bytes());
    for slot in [64, 192] {
        start[slot] = 3;
        start[slot + 1] = 1;
        start[slot + 2] = 1;
    }
    [&[9, 0], start.as_slice(), &[leaf.len() as u8], leaf].concat()
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()).collect()
}
