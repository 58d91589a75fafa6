//! A service that answers well, badly and not at all.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use serde_json::{Value, json};

use crate::{
    acl::Principal,
    auth::{
        Backend, Credentials, Verdict,
        background::Background,
        clock::test::TestClock,
        test_server::{Reply, TestServer, run},
    },
    codec::ReasonCode,
    config::auth::webhook::{Header, HeaderValue, Unavailable, Webhook as Settings},
    net::Peer,
};

use super::Webhook;

const NOW_SECS: u64 = 1_700_000_000;

struct Harness {
    server: TestServer,
    clock: Arc<TestClock>,
    webhook: Webhook,
}

impl Harness {
    fn start(reply: Reply, change: impl FnOnce(&mut Settings)) -> Harness {
        let server = TestServer::start(reply);
        let mut settings = Settings { timeout: Duration::from_millis(300), ..Settings::new(server.url()) };
        change(&mut settings);
        let clock = Arc::new(TestClock::at(NOW_SECS));
        let webhook = Webhook::open(&settings, &Background::start().unwrap(), clock.clone()).unwrap();
        Harness { server, clock, webhook }
    }

    fn check(&self, user: &str, password: &[u8]) -> Verdict {
        let peer = Peer::Tcp(SocketAddr::from(([192, 0, 2, 7], 50_000)));
        run(self.webhook.check(Credentials {
            client_id: "sensor-1",
            user_name: Some(user),
            password: Some(password),
            peer: &peer,
            listener: "devices",
            allow_anonymous: false,
            client_identity: crate::config::ClientIdentity::None,
            certificate: None,
            proved: None,
        }))
    }

    fn code(&self, user: &str) -> Option<ReasonCode> {
        match self.check(user, b"hunter2") {
            Verdict::Refused(denial) => Some(denial.code),
            Verdict::Accepted(_) => None,
            Verdict::Passed => panic!("passed"),
        }
    }

    fn asked(&self) -> usize {
        self.server.asked().len()
    }

    fn pass(&self, secs: u64) {
        self.clock.pass(Duration::from_secs(secs));
    }
}

fn answer(body: &Value) -> Reply {
    Reply::Body(200, body.to_string())
}

fn allow() -> Reply {
    answer(&json!({"result": "allow"}))
}

fn deny() -> Reply {
    answer(&json!({"result": "deny"}))
}

#[test]
fn the_service_is_told_of_the_client_and_tells_who_it_is() {
    let full = json!({
        "result": "allow", "user": "bob", "groups": ["a", "b"], "attributes": {"tenant": "acme"},
        "expires_in_secs": 60,
    });
    let harness = Harness::start(answer(&full), |settings| {
        let value = HeaderValue::Text("Bearer sesame".into());
        settings.headers = vec![Header { name: "Authorization".into(), value }];
    });
    let Verdict::Accepted(principal) = harness.check("alice", b"hunter2") else { panic!() };
    assert_eq!(principal.user.as_deref(), Some("bob"));
    let details = principal.details.unwrap();
    assert_eq!(details.groups.iter().map(|group| &**group).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(details.attributes.get("webhook:tenant").map(|value| &**value), Some("acme"));
    assert_eq!(details.expires_at_secs, Some(NOW_SECS + 60));
    let asked = &harness.server.asked()[0];
    assert!(asked.head.starts_with("POST /path HTTP/1.1\r\n"), "{}", asked.head);
    assert!(asked.head.to_lowercase().contains("authorization: bearer sesame\r\n"), "{}", asked.head);
    let expected = json!({
        "client_id": "sensor-1", "user_name": "alice", "password": "hunter2", "address": "192.0.2.7",
        "port": 50_000, "listener": "devices", "certificate": null,
    });
    assert_eq!(serde_json::from_str::<Value>(&asked.body).unwrap(), expected);
    harness.check("alice", &[0xFF, 0]);
    let asked: Value = serde_json::from_str(&harness.server.asked()[1].body).unwrap();
    assert_eq!((&asked["password"], &asked["password_base64"]), (&Value::Null, &json!("/wA=")));
    let shown = format!("{:?}", harness.webhook);
    assert!(!shown.contains("sesame"), "{shown}");
}

#[test]
fn each_result_is_a_verdict() {
    let verdict_of = |body: Value| Harness::start(answer(&body), |_| {}).check("alice", b"x");
    assert_eq!(verdict_of(json!({"result": "allow"})), Verdict::Accepted(Principal::named("alice")));
    assert_eq!(verdict_of(json!({"result": "pass"})), Verdict::Passed);
    let Verdict::Refused(denial) = verdict_of(json!({"result": "deny"})) else { panic!() };
    assert_eq!(denial.code, ReasonCode::BadUserNameOrPassword);
}

#[test]
fn whatever_is_no_answer_is_unavailable() {
    let replies = [
        Reply::Close,
        Reply::Silence,
        Reply::Endless,
        Reply::Garbage,
        Reply::Redirect("/path".into()),
        Reply::Redirect("http://127.0.0.2:1/".into()),
        Reply::Body(400, "{\"result\":\"allow\"}".into()),
        Reply::Body(201, "{\"result\":\"allow\"}".into()),
        Reply::Body(500, String::new()),
        Reply::Body(200, String::new()),
        Reply::Body(200, "allow".into()),
        Reply::Body(200, "{\"result\":\"allow\"} x".into()),
        Reply::Body(200, " ".repeat(70_000)),
        answer(&json!({})),
        answer(&json!({"result": "Allow"})),
        answer(&json!({"result": true})),
        answer(&json!({"result": "allow", "superuser": true})),
        answer(&json!({"result": "allow", "user": ""})),
        answer(&json!({"result": "allow", "user": "a\u{0}"})),
        answer(&json!({"result": "allow", "groups": "a"})),
        answer(&json!({"result": "allow", "groups": [""]})),
        answer(&json!({"result": "allow", "attributes": {"a": 1}})),
        answer(&json!({"result": "allow", "expires_in_secs": -1})),
    ];
    for reply in replies {
        let harness = Harness::start(reply.clone(), |_| {});
        assert_eq!(harness.code("alice"), Some(ReasonCode::ServerUnavailable), "{reply:?}");
        let harness = Harness::start(reply.clone(), |settings| settings.unavailable = Unavailable::Pass);
        assert_eq!(harness.check("alice", b"x"), Verdict::Passed, "{reply:?}");
        // It was not remembered.
        harness.server.reply(allow());
        assert!(matches!(harness.check("alice", b"x"), Verdict::Accepted(_)), "{reply:?}");
    }
}

#[test]
fn answers_are_remembered_for_exactly_who_asked() {
    let harness = Harness::start(allow(), |_| {});
    assert_eq!(harness.code("alice"), None);
    harness.server.reply(deny());
    assert_eq!((harness.code("alice"), harness.asked()), (None, 1));
    assert!(matches!(harness.check("alice", b"hunter3"), Verdict::Refused(_)));
    assert!(matches!(harness.check("alicehunter2", b""), Verdict::Refused(_)));
    assert_eq!((harness.code("bob").is_some(), harness.asked()), (true, 4));
    // For a minute if it was allowed, for 5 s if it was not.
    harness.pass(59);
    assert_eq!((harness.code("alice"), harness.asked()), (None, 4));
    harness.server.reply(allow());
    assert_eq!((harness.code("bob"), harness.asked()), (None, 5));
    harness.pass(1);
    harness.server.reply(deny());
    assert_eq!((harness.code("alice").is_some(), harness.asked()), (true, 6));
}

#[test]
fn what_is_remembered_ends_with_what_the_service_has_said() {
    let short = answer(&json!({"result": "allow", "expires_in_secs": 10}));
    let harness = Harness::start(short, |settings| settings.stale_max = Duration::from_secs(600));
    assert_eq!(harness.code("alice"), None);
    harness.server.reply(Reply::Close);
    harness.pass(9);
    assert_eq!(harness.code("alice"), None);
    harness.pass(1);
    assert_eq!(harness.code("alice"), Some(ReasonCode::ServerUnavailable));
}

#[test]
fn while_the_service_is_down_older_answers_count_for_a_bounded_time() {
    let harness = Harness::start(allow(), |settings| settings.stale_max = Duration::from_secs(600));
    assert_eq!(harness.code("alice"), None);
    harness.server.reply(deny());
    assert_eq!(harness.code("mallory"), Some(ReasonCode::BadUserNameOrPassword));
    harness.server.reply(Reply::Close);
    harness.pass(600);
    assert_eq!(harness.code("alice"), None);
    assert_eq!(harness.code("mallory"), Some(ReasonCode::BadUserNameOrPassword));
    assert_eq!(harness.code("bob"), Some(ReasonCode::ServerUnavailable));
    harness.pass(60);
    assert_eq!(harness.code("alice"), Some(ReasonCode::ServerUnavailable));
}

#[test]
fn a_service_that_fails_is_left_alone_and_found_again() {
    let harness = Harness::start(Reply::Body(500, String::new()), |settings| {
        settings.breaker_failures = 3;
        settings.breaker_open = Duration::from_secs(10);
    });
    for _ in 0..6 {
        assert_eq!(harness.code("alice"), Some(ReasonCode::ServerUnavailable));
    }
    assert_eq!(harness.asked(), 3);
    // One probe finds it down still, the next one finds it up.
    harness.pass(10);
    harness.code("alice");
    harness.code("alice");
    assert_eq!(harness.asked(), 4);
    harness.server.reply(allow());
    harness.pass(10);
    for user in ["a", "b", "c", "d"] {
        assert_eq!(harness.code(user), None);
    }
    // Flapping: no three in a row.
    for user in ["e", "f", "g"] {
        harness.server.reply(Reply::Close);
        harness.code(user);
        harness.code(user);
        harness.server.reply(allow());
        assert_eq!(harness.code(user), None);
    }
}

#[test]
fn more_clients_than_requests_are_told_that_the_server_is_busy() {
    let harness = Harness::start(Reply::Silence, |settings| settings.requests_max = 1);
    let peer = Peer::Memory;
    let credentials = |client_id| Credentials {
        client_id,
        user_name: None,
        password: None,
        peer: &peer,
        listener: "devices",
        allow_anonymous: false,
        client_identity: crate::config::ClientIdentity::None,
        certificate: None,
        proved: None,
    };
    let (first, second) = run(async {
        tokio::join!(harness.webhook.check(credentials("a")), harness.webhook.check(credentials("b")))
    });
    let code = |verdict| match verdict {
        Verdict::Refused(denial) => denial.code,
        other => panic!("{other:?}"),
    };
    assert_eq!(code(second), ReasonCode::ServerBusy);
    assert_eq!(code(first), ReasonCode::ServerUnavailable);
}

#[test]
fn a_header_that_cannot_be_sent_is_refused_without_its_value() {
    let settings = Settings {
        headers: vec![Header { name: "x-key".into(), value: HeaderValue::Text("hunter2\n".into()) }],
        ..Settings::new(TestServer::json(&json!({})).url())
    };
    let clock = Arc::new(TestClock::at(NOW_SECS));
    let why = Webhook::open(&settings, &Background::start().unwrap(), clock).unwrap_err();
    assert!(why.contains("headers.x-key") && !why.contains("hunter2"), "{why}");
}
