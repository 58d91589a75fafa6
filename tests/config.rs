//! The configuration: its reference file, its layers and what it refuses.
#![expect(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use dunlin::acl::Format;
use dunlin::config::{
    Acl, Address, Audit, Auth, CertificateFiles, CipherSuite, ClientCertificate, ClientIdentity, Config,
    ConfigErrors, Doubt, Durability, Effect, Limits, Listener, Log, LogFormat, Overflow, Overrides,
    Persistence, Proxies, ProxyProtocol, Sources, Surroundings, Tls, TlsVersion, Transport, WebSocket,
    auth::{
        Backend, Backoff, PasswordChecks, PasswordFile,
        jwt::{Algorithm, ForeignIssuer, Jwt, JwtKeys, KeySetUrl, SecretEncoding, TokenExpiry},
        url::{HttpUrl, PlainHttp},
        webhook::{Header, HeaderValue, Unavailable, Webhook},
    },
};
use proptest::prelude::*;

const REFERENCE: &str = include_str!("../config/dunlin.toml");

/// Loads a text as the file `dunlin.toml` of an empty directory, with variables and flags.
fn load(text: &str, variables: &[(&str, &str)], overrides: Overrides) -> Result<Config, ConfigErrors> {
    let directory = Scratch::new();
    let file = directory.0.join("dunlin.toml");
    fs::write(&file, text).unwrap();
    let variables = variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
    let surroundings = Surroundings { variables, directory: "/work-dir".into(), superuser: false };
    Config::load(&Sources { file: Some(file), surroundings, overrides }).map(|loaded| loaded.config)
}

/// The problems of a text, with the directory of the file cut away.
fn problems(text: &str) -> Vec<String> {
    let errors = load(text, &[], Overrides::default()).expect_err("the text is refused");
    errors.to_string().lines().map(|line| line[line.find("dunlin.toml").unwrap()..].to_owned()).collect()
}

fn set(settings: &[&str]) -> Overrides {
    Overrides { set: settings.iter().map(ToString::to_string).collect(), ..Overrides::default() }
}

/// A directory of its own, removed when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        use std::sync::atomic::{AtomicUsize, Ordering};
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("dunlin-config-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_reference_file_is_the_default() {
    assert_eq!(Config::from_toml(REFERENCE).unwrap(), Config::default());
    assert_eq!(Config::from_toml("").unwrap(), Config::default());
}

/// The commented part of the reference is TOML too, and with it every key of the schema appears.
#[test]
fn the_reference_file_has_every_key() {
    let is_key = |word: &str| word.chars().all(|c| c == '_' || c.is_ascii_lowercase());
    let is_toml =
        |line: &str| line.starts_with('[') || line.split_once(" = ").is_some_and(|(key, _)| is_key(key));
    let uncommented: String = REFERENCE
        .lines()
        .map(|line| line.strip_prefix("# ").filter(|rest| is_toml(rest)).unwrap_or(line))
        .flat_map(|line| [line, "\n"])
        .collect();
    let uncommented = uncommented.replace("allow_plain_http = false", "allow_plain_http = true");
    let written: toml::Table = toml::from_str(&uncommented).unwrap();
    let mut of_reference = BTreeSet::new();
    keys("", &toml::Value::Table(written), &mut of_reference);

    let tls = Tls {
        certificates: vec![CertificateFiles { certificate: "/c".into(), key: "/k".into() }],
        client_ca: vec!["/ca".into()],
        client_certificate: ClientCertificate::Required,
        client_crl: vec!["/crl".into()],
        cipher_suites: vec![CipherSuite::Aes128, CipherSuite::EcdsaAes128],
        ..Tls::new("/c", "/k")
    };
    let listener = |name: &str, address, transport| Listener {
        name: name.into(),
        address,
        transport,
        allow_anonymous: true,
        client_identity: ClientIdentity::CommonName,
        proxies: Proxies { protocol: ProxyProtocol::Required, trusted: vec!["::1".parse().unwrap()] },
        auth: vec!["local".into()],
        durability: Durability::Interval(Duration::from_millis(7)),
        connections_max: 1,
    };
    let socket: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let web_socket = WebSocket { path: "/".into(), allowed_origins: Some(vec!["https://a.example".into()]) };
    let mut all = auth(1);
    all.backends.extend(network_backends());
    let full = Config {
        auth: all,
        listeners: vec![
            listener("a", Address::Tcp(socket), Transport::SecureWebSocket(web_socket, tls)),
            listener("b", Address::Unix("/s".into()), Transport::Plain),
        ],
        audit: Audit { file: Some("/audit".into()), ..Audit::default() },
        acl: Some(Acl { file: "/a".into(), format: None }),
        ..Config::default()
    };
    let mut of_schema = BTreeSet::new();
    keys("", &toml::from_str(&full.to_toml()).unwrap(), &mut of_schema);
    let of_keys = ["jwks_file", "public_key_file", "secret_file", "secret_env", "secret_encoding"];
    of_schema.extend(of_keys.map(|key| format!(".auth.backends.tokens.{key}")));
    assert_eq!(of_reference, of_schema);
    // The commented listeners and back ends are valid, too. Of keys for tokens there is one kind.
    let is_other_key = |line: &&str| of_keys.iter().any(|key| line.starts_with(&format!("{key} = ")));
    let valid: Vec<&str> = uncommented.lines().filter(|line| !is_other_key(line)).collect();
    Config::from_toml(&valid.join("\n")).unwrap();
}

/// Back ends called `tokens` and `service`, with all that can be written.
fn network_backends() -> [(String, Backend); 2] {
    let url = |text| HttpUrl::parse(text, PlainHttp::Anywhere).unwrap();
    let keys = KeySetUrl { ca_file: Some("/ca".into()), ..KeySetUrl::new(url("http://issuer.test/keys")) };
    let jwt = Jwt {
        client_id_claim: Some("client_id".into()),
        groups_claim: Some("groups".into()),
        issuers: vec!["me".into()],
        audiences: vec!["you".into()],
        attribute_claims: vec!["tenant".into()],
        foreign_issuer: ForeignIssuer::Pass,
        expiry: TokenExpiry::Optional,
        ..Jwt::new(JwtKeys::KeySetUrl(keys), &Algorithm::ALL)
    };
    let header = |name: &str, value| Header { name: name.into(), value };
    let webhook = Webhook {
        ca_file: Some("/ca".into()),
        unavailable: Unavailable::Pass,
        headers: vec![
            header("broker", HeaderValue::Text("dunlin".into())),
            header("authorization", HeaderValue::File("/secret".into())),
            header("token", HeaderValue::Variable("TOKEN".into())),
        ],
        ..Webhook::new(url("http://auth.test/?a=b"))
    };
    [
        ("tokens".to_owned(), Backend::Jwt(Box::new(jwt))),
        ("service".to_owned(), Backend::Webhook(Box::new(webhook))),
    ]
}

#[test]
fn back_ends_of_the_network_are_written_and_read_back() {
    let mut auth = auth(1);
    let secrets = [
        JwtKeys::SecretFile("/s".into(), SecretEncoding::Text),
        JwtKeys::SecretVariable("S".into(), SecretEncoding::Base64),
        JwtKeys::PublicKeyFile("/k".into()),
        JwtKeys::KeySetFile("/j".into()),
    ];
    let jwts = secrets.into_iter().enumerate().map(|(number, keys)| {
        (format!("jwt_{number}"), Backend::Jwt(Box::new(Jwt::new(keys, &[Algorithm::HS256]))))
    });
    auth.backends.extend(jwts.chain(network_backends()));
    auth.chain = auth.backends.keys().cloned().collect();
    let config = Config { auth, ..Config::default() };
    let read = Config::from_toml(&config.to_toml()).unwrap();
    assert_eq!(read.auth, config.auth);
}

#[test]
fn mistakes_in_back_ends_of_the_network_are_told() {
    let jwt = "[auth.backends.a]\nkind = \"jwt\"\nalgorithms = [\"HS256\"]\n";
    let hook = "[auth.backends.a]\nkind = \"webhook\"\n";
    let cases = [
        (jwt.to_owned(), "auth.backends.a: needs exactly one of secret_file"),
        (format!("{jwt}secret_env = \"S\"\njwks_file = \"j\"\n"), "auth.backends.a: needs exactly one of"),
        (jwt.replace("HS256", "none"), "auth.backends.a.algorithms: `none` is no algorithm"),
        (jwt.replace("[\"HS256\"]", "[]"), "auth.backends.a.algorithms: is missing"),
        (
            format!("{jwt}jwks_url = \"http://issuer.test/\"\n"),
            "auth.backends.a.jwks_url: is http, which others",
        ),
        (format!("{jwt}secret_env = \"S\"\nretry_secs = 5\n"), "auth.backends.a.retry_secs: has no effect"),
        (format!("{jwt}secret_env = \"S\"\nuser_claim = \"\"\n"), "auth.backends.a.user_claim: is empty"),
        (format!("{jwt}secret_env = \"S\"\nleeway_secs = 9999\n"), "auth.backends.a.leeway_secs"),
        (format!("{jwt}secret = \"hunter2\"\n"), "unknown key `secret`"),
        (hook.to_owned(), "auth.backends.a.url: is missing"),
        (format!("{hook}url = \"https://u:hunter2@a.test\"\n"), "auth.backends.a.url: holds a user name"),
        (format!("{hook}url = \"https://a.test\"\nheaders = {{ \"a b\" = \"c\" }}\n"), "`a b` is no name"),
        (
            format!("{hook}url = \"https://a.test\"\nsecret_headers = {{ x = {{}} }}\n"),
            "auth.backends.a.secret_headers.x: needs either",
        ),
    ];
    for (text, expected) in cases {
        let errors = Config::from_toml(&text).unwrap_err().to_string();
        assert!(errors.contains(expected), "{text}\n{errors}");
        assert!(!errors.contains("hunter2"), "{errors}");
    }
}

/// A back end called `local`, and limits made from a number.
fn auth(number: u32) -> Auth {
    let secs = Duration::from_secs(number.into());
    Auth {
        chain: vec!["local".into()],
        backends: [("local".to_owned(), Backend::PasswordFile(PasswordFile { file: "/p".into() }))].into(),
        backoff: Backoff { failures_max: number, wait_max: 2 * secs, wait_min: secs, ..Backoff::default() },
        passwords: PasswordChecks { cache_time: secs, ..PasswordChecks::default() },
        bind_sessions: number.is_multiple_of(2),
    }
}

/// Collects the paths of all keys, without the indices of lists.
fn keys(prefix: &str, value: &toml::Value, found: &mut BTreeSet<String>) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                keys(&format!("{prefix}.{key}"), value, found);
            }
        }
        toml::Value::Array(array) => array.iter().for_each(|value| keys(prefix, value, found)),
        _ => {
            found.insert(prefix.into());
        }
    }
}

#[test]
fn later_layers_win_key_by_key() {
    let text =
        "shards = 2\n[limits]\nsessions_max = 20\nreceive_maximum = 20\npacket_bytes_max = \"2 KiB\"\n";
    let variables =
        [("DUNLIN__LIMITS__RECEIVE_MAXIMUM", "30"), ("DUNLIN__LIMITS__PACKET_BYTES_MAX", "3 KiB")];
    let config = load(text, &variables, set(&["limits.packet_bytes_max=4 KiB"])).unwrap();
    assert_eq!(config.shards, 2);
    let limits =
        Limits { sessions_max: 20, receive_maximum: 30, packet_bytes_max: 4096, ..Limits::default() };
    assert_eq!(config.limits, limits);
}

#[test]
fn every_scalar_key_can_be_set_by_environment_and_by_flag() {
    let mut of_schema = BTreeSet::new();
    keys("", &toml::from_str(&Config::default().to_toml()).unwrap(), &mut of_schema);
    assert!(of_schema.len() > 30);
    let written: toml::Value = toml::from_str(&Config::default().to_toml()).unwrap();
    for key in of_schema.iter().map(|key| &key[1..]).filter(|key| !key.starts_with("listeners")) {
        let value = key.split('.').fold(&written, |value, part| &value[part]);
        let variable = format!("DUNLIN__{}", key.to_uppercase().replace('.', "__"));
        assert!(load("", &[(&variable, &value.to_string())], Overrides::default()).is_ok(), "{variable}");
        assert!(load("", &[], set(&[&format!("{key}={value}")])).is_ok(), "{key}");
        // Not only accepted: an absurd value reaches the check under its name.
        if value.is_integer() {
            let errors = load("", &[(&variable, "-1")], Overrides::default()).unwrap_err().to_string();
            assert!(
                errors.starts_with(&format!("environment variable {variable}: {key}: -1 is out")),
                "{errors}"
            );
            let errors = load("", &[], set(&[&format!("{key}=-1")])).unwrap_err().to_string();
            assert!(errors.starts_with(&format!("--set {key}=-1: {key}: -1 is out")), "{errors}");
        }
    }
}

#[test]
fn listeners_are_set_by_environment_as_a_list_or_by_index() {
    let list = r#"[{ address = "127.0.0.1:1" }, { kind = "unix", path = "s" }]"#;
    let variables = [("DUNLIN__LISTENERS", list), ("DUNLIN__LISTENERS__0__ADDRESS", "127.0.0.2:2")];
    let config = load("", &variables, set(&["listeners[1].path=t"])).unwrap();
    let addresses: Vec<Address> = config.listeners.into_iter().map(|listener| listener.address).collect();
    let expected = [Address::Tcp("127.0.0.2:2".parse().unwrap()), Address::Unix("/work-dir/t".into())];
    assert_eq!(addresses, expected);
}

#[test]
fn listeners_inherit_what_acknowledgements_promise() {
    let text = "durability = \"interval\"\ndurability_interval_ms = 7\n\
                [[listeners]]\naddress = \"127.0.0.1:1\"\n\
                [[listeners]]\naddress = \"127.0.0.1:2\"\ndurability_interval_ms = 8\n\
                [[listeners]]\naddress = \"127.0.0.1:3\"\ndurability = \"none\"\n\
                [[listeners]]\naddress = \"127.0.0.1:4\"\ndurability = \"commit\"\n";
    let config = load(text, &[], Overrides::default()).unwrap();
    let interval = |millis| Durability::Interval(Duration::from_millis(millis));
    let levels: Vec<Durability> = config.listeners.iter().map(|listener| listener.durability).collect();
    assert_eq!(levels, [interval(7), interval(8), Durability::None, Durability::Commit]);
    assert_eq!(config.durability, interval(7));
}

#[test]
fn a_durability_window_without_its_level_is_refused() {
    let text = "[[listeners]]\naddress = \"127.0.0.1:1\"\ndurability_interval_ms = 8\n";
    let expected = "dunlin.toml:3:26: listeners[0].durability_interval_ms: has no effect: \
                    set durability to \"interval\"";
    assert_eq!(problems(text), [expected]);
    let text = "durability_interval_ms = 0\n";
    let expected = "dunlin.toml:1:26: durability_interval_ms: 0 is out of range; allowed: 1 to 60000";
    assert_eq!(problems(text), [expected]);
}

#[test]
fn listen_replaces_the_listeners() {
    let text = "[[listeners]]\nkind = \"ws\"\naddress = \"127.0.0.1:8080\"\n";
    let listen = vec!["127.0.0.1:0".to_owned(), "[::1]:5".to_owned()];
    let config = load(text, &[], Overrides { listen, ..Overrides::default() }).unwrap();
    let names: Vec<&str> = config.listeners.iter().map(|listener| listener.name.as_str()).collect();
    assert_eq!(names, ["tcp:127.0.0.1:0", "tcp:[::1]:5"]);
}

#[test]
fn text_values_need_no_quotes() {
    let config =
        load("", &[("DUNLIN__DATA_DIR", "12")], set(&["log.filter=debug,dunlin::net=trace"])).unwrap();
    assert_eq!(config.data_dir, Path::new("/work-dir/12"));
    assert_eq!(config.log.filter, "debug,dunlin::net=trace");
}

#[test]
fn paths_of_a_file_are_relative_to_the_file() {
    let directory = Scratch::new();
    let text = "data_dir = \"data\"\nacl.file = \"acl.toml\"\n[[listeners]]\nkind = \"tls\"\naddress = \"127.0.0.1:1\"\n\
                [listeners.tls]\ncertificate = \"certs/c.pem\"\nkey = \"/k.pem\"\n";
    fs::write(directory.0.join("d.toml"), text).unwrap();
    let surroundings = Surroundings { directory: directory.0.clone(), ..Surroundings::default() };
    let sources = Sources { file: Some("d.toml".into()), surroundings, ..Sources::default() };
    let config = Config::load(&sources).unwrap().config;
    assert_eq!(config.data_dir, directory.0.join("data"));
    assert_eq!(config.acl, Some(Acl { file: directory.0.join("acl.toml"), format: None }));
    let Transport::Tls(tls) = &config.listeners[0].transport else { panic!("{config:?}") };
    assert_eq!(
        (tls.certificate.clone(), tls.key.clone()),
        (directory.0.join("certs/c.pem"), "/k.pem".into())
    );
}

#[test]
fn the_data_directory_follows_the_platform() {
    let of = |variables: &[(&str, &str)], superuser| {
        let variables = variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
        Surroundings { variables, directory: "/".into(), superuser }.data_dir()
    };
    assert_eq!(of(&[], false), Path::new("/var/lib/dunlin"));
    assert_eq!(of(&[("HOME", "/home/x")], false), Path::new("/home/x/.local/share/dunlin"));
    assert_eq!(of(&[("HOME", "/h"), ("XDG_DATA_HOME", "/x")], false), Path::new("/x/dunlin"));
    assert_eq!(
        of(&[("HOME", "/h"), ("XDG_DATA_HOME", "relative")], false),
        Path::new("/h/.local/share/dunlin")
    );
    assert_eq!(of(&[("HOME", "/root")], true), Path::new("/var/lib/dunlin"));
    assert_eq!(of(&[("STATE_DIRECTORY", "/s:/t")], true), Path::new("/s"));
}

#[test]
fn all_problems_are_reported_with_line_column_and_key() {
    let text = "\
shards = \"many\"
[limits]
conections_max = 5
packet_bytes_max = \"16 XB\"
topic_levels_max = 0

[[listeners]]
kind = \"quic\"
adress = \"127.0.0.1:1\"

[listeners.tls]
certificat = \"x\"

[log]
format = \"json\"
filter = \"inof\"
";
    insta::assert_snapshot!(problems(text).join("\n"));
}

#[test]
fn syntax_errors_have_a_place() {
    let found = problems("shards = 1\nshards = \n[limits\n");
    assert!(found[0].starts_with("dunlin.toml:2:"), "{found:?}");
    assert!(found.iter().any(|problem| problem.starts_with("dunlin.toml:3:")), "{found:?}");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let sources = Sources { file: Some("/nowhere/d.toml".into()), ..Sources::default() };
    let errors = Config::load(&sources).unwrap_err();
    assert_eq!(errors.problems()[0].place, "/nowhere/d.toml");
    assert!(errors.to_string().contains("No such file"), "{errors}");
}

#[test]
fn variables_and_flags_are_named_in_errors() {
    let variables = [("DUNLIN__LIMITS__SESSION_MAX", "1"), ("DUNLIN__SHARDS", "x"), ("DUNLIN__", "1")];
    let mut overrides = set(&["sys.interval_secs=-1", "sys", "a..b=1", "listeners=[{"]);
    overrides.log_format = Some("xml".into());
    overrides.listen = vec!["localhost".into()];
    let errors = load("", &variables, overrides).unwrap_err();
    insta::assert_snapshot!(errors.to_string());
}

/// Each text, and a part of the only problem that it has.
#[test]
fn listeners_that_make_no_sense_are_refused() {
    let tls = "[listeners.tls]\ncertificate = \"c\"\nkey = \"k\"\n";
    let address = "address = \"127.0.0.1:1\"\n";
    let cases = [
        (address.to_owned() + "path = \"s\"\n", "3:8: listeners[0].path: does not belong"),
        (address.to_owned() + tls, "listeners[0].tls: does not belong"),
        (address.to_owned() + "websocket_path = \"/\"\n", "listeners[0].websocket_path: does not belong"),
        ("kind = \"unix\"\n".into(), "listeners[0].path: is missing"),
        ("kind = \"unix\"\npath = \"s\"\naddress = \"127.0.0.1:1\"\n".into(), "address: does not belong"),
        ("kind = \"ws\"\n".into(), "listeners[0].address: is missing"),
        ("address = \"localhost:1\"\n".into(), "2:11: listeners[0].address: \"localhost:1\" is not allowed"),
        ("address = \"0.0.0.0:1\"\n".into(), "listeners[0].allow_anonymous: must be set"),
        ("address = \"[::]:1\"\n".into(), "listeners[0].allow_anonymous: must be set"),
        (address.to_owned() + "allow_anonymous = false\n", "listeners[0].allow_anonymous: is false, but"),
        (address.to_owned() + "kind = \"tls\"\n", "listeners[0].tls: a listener of kind \"tls\" needs"),
        (
            address.to_owned() + "kind = \"wss\"\n[listeners.tls]\nkey = \"k\"\n",
            "tls.certificate: is missing",
        ),
        (
            address.to_owned() + "kind = \"tls\"\n[listeners.tls]\ncertificate = \"k\"\n",
            "tls.key: is missing",
        ),
        (
            address.to_owned() + "kind = \"tls\"\n" + tls + "client_certificate = \"required\"\n",
            "tls.client_certificate: needs `client_ca`",
        ),
        (
            address.to_owned() + "kind = \"tls\"\n" + tls + "client_ca = \"ca\"\n",
            "tls.client_ca: has no effect",
        ),
        (
            address.to_owned() + "kind = \"ws\"\nwebsocket_path = \"mqtt\"\n",
            "websocket_path: \"mqtt\" is not",
        ),
        (address.to_owned() + "connections_max = 0\n", "connections_max: 0 is out of range; allowed: 1 to"),
        (address.to_owned() + "name = \" \"\n", "listeners[0].name: is empty"),
        (format!("{address}[[listeners]]\n{address}"), "listeners[1].address: 127.0.0.1:1 is already taken"),
        (
            format!("{address}[[listeners]]\naddress = \"0.0.0.0:1\"\nallow_anonymous = true\n"),
            "listeners[1].address: 0.0.0.0:1 is already taken by listeners[0]",
        ),
        (
            "kind = \"unix\"\npath = \"s\"\n[[listeners]]\nkind = \"unix\"\npath = \"s\"\n".into(),
            "listeners[1].path: is the path of listeners[0]",
        ),
        (
            format!("name = \"a\"\n{address}[[listeners]]\nname = \"a\"\naddress = \"127.0.0.1:2\"\n"),
            "listeners[1].name: \"a\" is",
        ),
    ];
    assert_refused(&cases);
    let found = problems("listeners = []\n");
    assert!(found[0].starts_with("dunlin.toml:1:13: listeners: is empty"), "{found:?}");
}

/// The same of TLS and of what stands before a listener.
#[test]
fn certificates_and_proxies_that_make_no_sense_are_refused() {
    let tls = "[listeners.tls]\ncertificate = \"c\"\nkey = \"k\"\n";
    let address = "address = \"127.0.0.1:1\"\n";
    let cases = [
        (
            address.to_owned() + "allow_anonymous = true\nproxy_protocol = \"required\"\n",
            "listeners[0].trusted_proxies: is missing",
        ),
        (
            address.to_owned() + "trusted_proxies = [\"10.0.0.0/8\"]\nallow_anonymous = true\n",
            "has no effect",
        ),
        (
            address.to_owned()
                + "proxy_protocol = \"required\"\ntrusted_proxies = [\"10.0.0.1/8\"]\nallow_anonymous = true\n",
            "listeners[0].trusted_proxies[0]: \"10.0.0.1/8\" has bits set behind its prefix",
        ),
        // A proxy on this machine has clients elsewhere.
        (
            address.to_owned() + "proxy_protocol = \"required\"\ntrusted_proxies = [\"127.0.0.1\"]\n",
            "listeners[0].allow_anonymous: must be set",
        ),
        (address.to_owned() + "client_identity = \"cn\"\n", "listeners[0].client_identity: has no effect"),
        (
            address.to_owned()
                + "proxy_protocol = \"required\"\ntrusted_proxies = [\"127.0.0.1\"]\nallow_anonymous = false\n\
                   client_identity = \"subject\"\n",
            "listeners[0].client_identity: of a certificate that the proxy has taken can only be",
        ),
        (address.to_owned() + "allowed_origins = [\"https://a\"]\n", "allowed_origins: does not belong"),
        (
            address.to_owned() + "kind = \"ws\"\nallowed_origins = [\"https://a/\"]\n",
            "allowed_origins: \"https://a/\" is not allowed",
        ),
        (
            address.to_owned() + "kind = \"tls\"\n" + tls + "client_crl = \"crl\"\n",
            "tls.client_crl: has no effect",
        ),
        (
            address.to_owned() + "kind = \"tls\"\n" + tls + "revocation_unknown = \"allow\"\n",
            "tls.revocation_unknown: has no effect",
        ),
        (
            address.to_owned() + "kind = \"tls\"\n" + tls + "version_min = \"1.3\"\nversion_max = \"1.2\"\n",
            "tls.version_max: \"1.2\" is older",
        ),
        (
            address.to_owned() + "kind = \"tls\"\n" + tls + "cipher_suites = [\"TLS_AES_128_GCM_SHA256\"]\n",
            "tls.cipher_suites: has no suite of TLS 1.2",
        ),
        (
            address.to_owned() + "kind = \"tls\"\n" + tls + "[[listeners.tls.certificates]]\nkey = \"k\"\n",
            "tls.certificates[0].certificate: is missing",
        ),
    ];
    assert_refused(&cases);
}

/// Each text of a listener has one problem, of which this is a part.
fn assert_refused(cases: &[(String, &str)]) {
    for (text, part) in cases {
        let text = format!("[[listeners]]\n{text}");
        let found = problems(&text);
        assert!(found.len() == 1 && found[0].contains(part), "{text}\n{found:#?}\n{part}");
    }
}

#[test]
fn who_may_connect_without_proof() {
    let tls = "kind = \"tls\"\n[listeners.tls]\ncertificate = \"c\"\nkey = \"k\"\nclient_ca = \"a\"\n";
    let cases = [
        ("address = \"127.9.9.9:1\"\n".to_owned(), true),
        ("address = \"[::1]:1\"\n".into(), true),
        ("address = \"[::ffff:127.0.0.1]:1\"\n".into(), true),
        ("kind = \"unix\"\npath = \"s\"\n".into(), true),
        ("address = \"0.0.0.0:1\"\nallow_anonymous = true\n".into(), true),
        (format!("address = \"0.0.0.0:1\"\n{tls}client_certificate = \"required\"\n"), false),
        (format!("address = \"127.0.0.1:1\"\n{tls}client_certificate = \"required\"\n"), false),
        (format!("address = \"127.0.0.1:1\"\n{tls}client_certificate = \"optional\"\n"), true),
        (
            format!(
                "address = \"0.0.0.0:1\"\nallow_anonymous = false\n{tls}client_certificate = \"optional\"\n"
            ),
            false,
        ),
    ];
    for (text, allowed) in cases {
        let text = format!("[[listeners]]\n{text}");
        let config = load(&text, &[], Overrides::default()).unwrap();
        assert_eq!(config.listeners[0].allow_anonymous, allowed, "{text}");
    }
    let listen = vec!["0.0.0.0:1883".to_owned()];
    let overrides = Overrides { listen, allow_anonymous: true, ..Overrides::default() };
    assert!(load("", &[], overrides.clone()).unwrap().listeners[0].allow_anonymous);
    let errors = load("", &[], Overrides { allow_anonymous: false, ..overrides }).unwrap_err().to_string();
    assert!(
        errors.starts_with("--listen 0.0.0.0:1883: listeners[0].allow_anonymous: must be set"),
        "{errors}"
    );
}

/// What a default listener may do on a loopback address must not stay when its address changes.
#[test]
fn moving_a_default_listener_does_not_open_it() {
    let errors = load("", &[], set(&["listeners[0].address=0.0.0.0:1883"])).unwrap_err().to_string();
    assert!(errors.contains("listeners[0].allow_anonymous: must be set"), "{errors}");
    assert!(
        load("", &[], set(&["listeners[5].address=127.0.0.1:1"])).unwrap_err().to_string().contains("[2]")
    );
}

fn listeners() -> impl Strategy<Value = Vec<Listener>> {
    let tls = ("[a-z]{1,5}", any::<bool>(), any::<bool>()).prop_map(|(file, required, new)| {
        let pair = CertificateFiles { certificate: "/c".into(), key: format!("/{file}.key").into() };
        Tls {
            certificates: vec![pair; usize::from(new)],
            client_ca: if required { vec!["/ca".into(), "/ca \" é".into()] } else { Vec::new() },
            client_certificate: if required { ClientCertificate::Required } else { ClientCertificate::None },
            client_crl: if required { vec!["/crl".into()] } else { Vec::new() },
            revocation_unknown: if required && new { Doubt::Allow } else { Doubt::Deny },
            version_min: if new { TlsVersion::V13 } else { TlsVersion::V12 },
            cipher_suites: if new { vec![CipherSuite::ChaCha20] } else { Vec::new() },
            ..Tls::new(format!("/{file}"), "/key \" é")
        }
    });
    let web_socket = ("/[a-z]{0,5}", any::<bool>()).prop_map(|(path, any)| WebSocket {
        path,
        allowed_origins: (!any).then(|| vec!["https://a.example:1".into(), "null-app://b".into()]),
    });
    let transport = prop_oneof![
        Just(Transport::Plain),
        tls.clone().prop_map(Transport::Tls),
        web_socket.clone().prop_map(Transport::WebSocket),
        (web_socket, tls).prop_map(|(socket, tls)| Transport::SecureWebSocket(socket, tls)),
    ];
    let address = any::<std::net::Ipv4Addr>();
    let listener = ("[a-z\"é]{1,9}", address, any::<Option<u8>>(), transport, 1..1000_usize, durability());
    prop::collection::vec(listener, 1..5).prop_map(|listeners| {
        let build = |(index, (name, ip, unix, transport, connections_max, durability)): (usize, _)| {
            let port = u16::try_from(index).unwrap() + 1;
            let (address, transport) = match unix {
                Some(_) => (Address::Unix(format!("/{index}").into()), Transport::Plain),
                None => (Address::Tcp((ip, port).into()), transport),
            };
            let proxies = match unix {
                Some(_) => Proxies::default(),
                None => Proxies {
                    protocol: ProxyProtocol::Required,
                    trusted: vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()],
                },
            };
            Listener {
                name: format!("{name}{index}"),
                address,
                transport,
                allow_anonymous: true,
                client_identity: match unix {
                    Some(_) => ClientIdentity::None,
                    None => ClientIdentity::CommonName,
                },
                proxies,
                auth: vec!["local".into()],
                durability,
                connections_max,
            }
        };
        listeners.into_iter().enumerate().map(build).collect()
    })
}

fn overflow() -> impl Strategy<Value = Overflow> {
    prop_oneof![
        Just(Overflow::Reject),
        Just(Overflow::DropOldest),
        Just(Overflow::DropNewest),
        Just(Overflow::Backpressure),
    ]
}

fn durability() -> impl Strategy<Value = Durability> {
    prop_oneof![
        Just(Durability::Commit),
        Just(Durability::None),
        (1..=60_000_u64).prop_map(|millis| Durability::Interval(Duration::from_millis(millis))),
    ]
}

proptest! {
    #[test]
    fn a_written_configuration_reads_as_itself(
        listeners in listeners(),
        durability in durability(),
        overflow in overflow(),
        shards in 1..1000_usize,
        (sys, stop, payload) in (0..1000_u64, 0..1000_u64, any::<bool>()),
        acl in prop_oneof![Just(None), Just(Some(None)), Just(Some(Some(Format::Toml))), Just(Some(Some(Format::Mosquitto)))],
        (persistence, cache) in (prop_oneof![Just(Persistence::Disk), Just(Persistence::Memory)], 20..40_u32),
        (packet, queue, sessions) in (64..1_000_000_u32, 10..40_u32, 1..1_000_000_usize),
        format in prop_oneof![Just(LogFormat::Auto), Just(LogFormat::Pretty), Just(LogFormat::Json)],
    ) {
        let config = Config {
            auth: auth(sessions as u32 % 1000 + 1),
            listeners,
            durability,
            shards,
            data_dir: "/data dir/é".into(),
            persistence,
            store_cache_bytes_max: 1 << cache,
            store_index_bytes_max: 3 << cache,
            sys_interval: Duration::from_secs(sys),
            stop_timeout: Duration::from_secs(stop),
            check_payload_format: payload,
            acl: acl.map(|format| Acl { file: "/rules é".into(), format }),
            log: Log { filter: "warn,dunlin=trace".into(), format },
            limits: Limits {
                packet_bytes_max: packet,
                queues_bytes_max: 1 << queue,
                session_queue_overflow: overflow,
                queues_overflow: overflow,
                sessions_max: sessions,
                ..Limits::default()
            },
            bans_file: "/bans".into(),
            ..Config::default()
        };
        prop_assert_eq!(Config::from_toml(&config.to_toml()).unwrap(), config);
    }

    /// Neither a text nor a setting makes the loader panic.
    #[test]
    fn any_text_is_accepted_or_refused(text in "(\\[\\[?[a-z.]{0,9}\\]?\\]?|[a-z_]{1,9}|[=\n\"'{}0-9-]){0,30}", key in ".{0,20}") {
        let _ = Config::from_toml(&text);
        let _ = load("", &[("DUNLIN__LISTENERS", &text)], set(&[&format!("{key}={text}"), &text]));
    }
}

const LOCAL: &str = "[auth.backends.local]\nkind = \"password_file\"\nfile = \"p\"\n";
const OTHER: &str = "[auth.backends.other]\nkind = \"password_file\"\nfile = \"/q\"\n";

/// With back ends nobody is anonymous unless it is written, and the world may reach the listener.
#[test]
fn listeners_with_back_ends_let_nobody_in_that_proves_nothing() {
    for (text, chain, allowed) in [
        (LOCAL.to_owned(), &["local"][..], false),
        (format!("{LOCAL}[[listeners]]\naddress = \"0.0.0.0:1\"\n"), &["local"], false),
        (
            format!("{LOCAL}[[listeners]]\naddress = \"0.0.0.0:1\"\nallow_anonymous = false\n"),
            &["local"],
            false,
        ),
        (
            format!("{LOCAL}[[listeners]]\naddress = \"0.0.0.0:1\"\nallow_anonymous = true\n"),
            &["local"],
            true,
        ),
        (format!("{LOCAL}[[listeners]]\naddress = \"127.0.0.1:1\"\nauth = []\n"), &[], true),
        (format!("[auth]\nchain = [\"other\", \"local\"]\n{LOCAL}{OTHER}"), &["other", "local"], false),
        (
            format!(
                "[auth]\nchain = []\n{LOCAL}{OTHER}[[listeners]]\naddress = \"0.0.0.0:1\"\nauth = [\"other\"]\n\
                 [[listeners]]\naddress = \"127.0.0.1:2\"\nauth = [\"local\"]\n"
            ),
            &["other"],
            false,
        ),
    ] {
        let config = load(&text, &[], Overrides::default()).unwrap();
        let listener = &config.listeners[0];
        assert_eq!(
            (listener.auth.iter().map(String::as_str).collect::<Vec<_>>(), listener.allow_anonymous),
            (chain.to_vec(), allowed),
            "{text}"
        );
        assert_eq!(Config::from_toml(&config.to_toml()).unwrap(), config, "{text}");
    }
}

#[test]
fn mistakes_in_back_ends_are_told_with_their_keys() {
    for (text, expected) in [
        (
            format!("{LOCAL}{OTHER}"),
            "auth.chain: must be set, since their order matters: there are local, other",
        ),
        (
            format!("[auth]\nchain = [\"lokal\"]\n{LOCAL}"),
            "auth.chain: \"lokal\" is no back end; there are: local",
        ),
        (format!("[auth]\nchain = [\"local\", \"local\"]\n{LOCAL}"), "auth.chain: \"local\" is there twice"),
        (
            format!("{LOCAL}[[listeners]]\naddress = \"127.0.0.1:1\"\nauth = [\"x\"]\n"),
            "listeners[0].auth: \"x\" is no back end",
        ),
        (format!("[auth]\nchain = []\n{LOCAL}"), "auth.backends.local: is in no chain"),
        ("[auth.backends.local]\nfile = \"p\"\n".into(), "auth.backends.local.kind: is missing"),
        ("[auth.backends.local]\nkind = \"password_file\"\n".into(), "auth.backends.local.file: is missing"),
        (
            "[auth.backends.local]\nkind = \"ldap\"\n".into(),
            "auth.backends.local: unknown value `ldap` (allowed: password_file",
        ),
        (
            LOCAL.replace("file =", "files ="),
            "auth.backends.local: unknown key `files`; did you mean `file`?",
        ),
        (LOCAL.replace("local", "Local"), "auth.backends.Local: is no name"),
        (
            "[auth.backoff]\nwait_secs_min = 9\nwait_secs_max = 8\n".into(),
            "auth.backoff.wait_secs_max: is less",
        ),
    ] {
        let problems = problems(&text);
        assert!(problems.len() == 1 && problems[0].contains(expected), "{text}\n{problems:?}");
    }
}

/// Paths are those of the layer that they are written in; a layer may change a single key of a back end.
#[test]
fn layers_change_keys_of_back_ends() {
    let file = |config: &Config, name: &str| config.auth.backends[name].file().unwrap().to_path_buf();
    let config = load(LOCAL, &[], Overrides::default()).unwrap();
    assert!(file(&config, "local").is_absolute() && file(&config, "local").ends_with("p"));
    let variables = [("DUNLIN__AUTH__BACKENDS__LOCAL__FILE", "other")];
    let config = load(LOCAL, &variables, Overrides::default()).unwrap();
    assert_eq!(file(&config, "local"), Path::new("/work-dir/other"));
    let flag = Overrides { password_file: Some("mine".into()), ..Overrides::default() };
    let config = load("", &[], flag).unwrap();
    assert_eq!(file(&config, "passwords"), Path::new("/work-dir/mine"));
    assert_eq!(config.listeners[0].auth, ["passwords"]);
}

/// As the reference says at its beginning: each key takes effect live or at the next start.
#[test]
fn every_key_of_the_reference_says_when_it_takes_effect() {
    let (mut section, mut mark, mut keys) = (String::new(), None, 0);
    for line in REFERENCE.lines() {
        let plain = line.strip_prefix("# ").unwrap_or(line);
        let plain = plain.strip_prefix("# ").unwrap_or(plain);
        let is_name = |text: &str| text.chars().all(|c| c == '_' || c.is_ascii_lowercase());
        if plain.starts_with('[') && plain.ends_with(']') {
            (section, mark) = (plain.trim_matches(['[', ']']).to_owned() + ".", None);
        } else if let Some((key, _)) = plain.split_once(" = ").filter(|(key, _)| is_name(key)) {
            let key = format!("{section}{key}");
            assert_eq!(mark, Some(Effect::of(&key)), "{key}");
            keys += 1;
        } else if plain.trim().is_empty() {
            mark = None;
        } else if plain.contains("(live)") {
            mark = Some(Effect::Live);
        } else if plain.contains("(restart)") {
            mark = Some(Effect::Restart);
        }
    }
    assert!(keys > 100, "{keys} keys");
}
