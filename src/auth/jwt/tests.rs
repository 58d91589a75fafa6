//! Tokens, good and hostile.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{EncodingKey, Header};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, RsaKeySize};
use serde_json::{Value, json};

use crate::{
    acl::Principal,
    auth::{
        Backend, Credentials, Denial, Step, Verdict,
        background::Background,
        clock::test::TestClock,
        test_server::{Reply, TestServer, run},
    },
    codec::ReasonCode,
    config::auth::jwt::{
        Algorithm, ForeignIssuer, Jwt as Settings, JwtKeys, KeySetUrl, TokenExpiry, TokenPlace,
    },
    net::Peer,
};

use super::{
    Checks, Jwt, Keys,
    keys::{KeyError, KeySet, Origin},
    token::Token,
};

const NOW_SECS: u64 = 1_700_001_000;
const SECRET: &[u8] = b"a secret of the tests with enough bytes for all of them, which are 64 of them";

/// RSA keys take a moment to make.
static RSA: LazyLock<KeyPair> =
    LazyLock::new(|| KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap());
static OTHER_RSA: LazyLock<KeyPair> =
    LazyLock::new(|| KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap());

fn settings(algorithms: &[Algorithm]) -> Settings {
    // Which key it is does not matter: the tests give it themselves.
    Settings::new(JwtKeys::SecretVariable("NONE".into(), super::SecretEncoding::Text), algorithms)
}

fn jwt(settings: Settings, keys: KeySet) -> Jwt {
    let clock = Arc::new(TestClock::at(NOW_SECS));
    Jwt { checks: Arc::new(Checks { settings, keys: Keys::Fixed(keys), clock }) }
}

fn credentials<'a>(user_name: Option<&'a str>, password: Option<&'a [u8]>) -> Credentials<'a> {
    Credentials {
        client_id: "sensor-1",
        user_name,
        password,
        peer: &Peer::Memory,
        listener: "test",
        allow_anonymous: false,
        client_identity: crate::config::ClientIdentity::None,
        certificate: None,
        proved: None,
    }
}

fn check(jwt: &Jwt, token: &str) -> Verdict {
    run(jwt.check(credentials(None, Some(token.as_bytes()))))
}

fn refusal(verdict: Verdict) -> Denial {
    match verdict {
        Verdict::Refused(denial) => denial,
        other => panic!("not refused: {other:?}"),
    }
}

fn accepted(verdict: Verdict) -> Principal {
    match verdict {
        Verdict::Accepted(principal) => principal,
        other => panic!("not accepted: {other:?}"),
    }
}

fn claims() -> Value {
    json!({"iss": "https://issuer.test", "sub": "alice", "aud": "mqtt", "exp": NOW_SECS + 600})
}

/// The claims with some of them replaced; null takes one away.
fn claims_with(changes: &Value) -> Value {
    let mut claims = claims();
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => claims.as_object_mut().unwrap().remove(name),
            value => claims.as_object_mut().unwrap().insert(name.clone(), value.clone()),
        };
    }
    claims
}

fn hs256(claims: &Value) -> String {
    jsonwebtoken::encode(&Header::default(), claims, &EncodingKey::from_secret(SECRET)).unwrap()
}

fn rs256(pair: &KeyPair, key_id: Option<&str>, claims: &Value) -> String {
    let mut header = Header::new(jsonwebtoken::Algorithm::RS256);
    header.kid = key_id.map(Into::into);
    jsonwebtoken::encode(
        &header,
        claims,
        &EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes()).unwrap(),
    )
    .unwrap()
}

/// A token with any header and claims at all, signed by the secret.
fn raw(header: &str, claims: &str, secret: &[u8]) -> String {
    let encode = |part: &str| BASE64_URL_SAFE_NO_PAD.encode(part);
    let signed = format!("{}.{}", encode(header), encode(claims));
    let algorithm = jsonwebtoken::Algorithm::HS256;
    let key = EncodingKey::from_secret(secret);
    let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &key, algorithm).unwrap();
    format!("{signed}.{signature}")
}

fn jwk(pair: &KeyPair, key_id: &str) -> Value {
    let key = EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes()).unwrap();
    let jwk = jsonwebtoken::jwk::Jwk::from_encoding_key(&key, jsonwebtoken::Algorithm::RS256).unwrap();
    let mut jwk = serde_json::to_value(jwk).unwrap();
    jwk["kid"] = key_id.into();
    jwk
}

fn full_settings(algorithms: &[Algorithm]) -> Settings {
    Settings {
        issuers: vec!["https://issuer.test".into()],
        audiences: vec!["mqtt".into(), "other".into()],
        ..settings(algorithms)
    }
}

#[test]
fn tokens_of_another_library_hold_by_pem_and_by_key_set() {
    let vectors: Value =
        serde_json::from_str(include_str!("../../../tests/vectors/jwt/tokens.json")).unwrap();
    let mut algorithms = Vec::new();
    for vector in vectors["public"].as_array().unwrap() {
        let algorithm: Algorithm = vector["algorithm"].as_str().unwrap().parse().unwrap();
        algorithms.push(algorithm);
        let token = vector["token"].as_str().unwrap();
        let by_pem = KeySet::public_key(vector["pem"].as_str().unwrap().as_bytes()).unwrap();
        let set = json!({"keys": [vector["jwk"]]}).to_string();
        let by_set = KeySet::of_json(set.as_bytes(), Origin::Network).unwrap();
        for keys in [by_pem, by_set] {
            let jwt = jwt(full_settings(&[algorithm]), keys);
            assert_eq!(accepted(check(&jwt, token)).user.as_deref(), Some("alice"), "{algorithm:?}");
            // One bit of the signature.
            let (signed, signature) = token.rsplit_once('.').unwrap();
            let mut bytes = BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap();
            bytes[10] ^= 1;
            let forged = format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(bytes));
            let why = refusal(check(&jwt, &forged)).why;
            assert!(why.contains("signature") || why.contains("no key"), "{algorithm:?}: {why}");
        }
    }
    for vector in vectors["hmac"].as_array().unwrap() {
        let algorithm: Algorithm = vector["algorithm"].as_str().unwrap().parse().unwrap();
        algorithms.push(algorithm);
        let keys = KeySet::secret(vectors["secret"].as_str().unwrap().as_bytes()).unwrap();
        let jwt = jwt(full_settings(&[algorithm]), keys);
        accepted(check(&jwt, vector["token"].as_str().unwrap()));
    }
    assert_eq!(algorithms.len(), Algorithm::ALL.len());
}

#[test]
fn the_algorithm_is_one_of_the_configuration_and_one_of_the_key() {
    let pem = RSA.public_key_pem();
    let public = KeySet::public_key(pem.as_bytes()).unwrap();
    let all = jwt(settings(&Algorithm::ALL), public.clone());
    // The public key, which everybody has, taken for a secret.
    let confused = raw(r#"{"alg":"HS256"}"#, &claims().to_string(), pem.as_bytes());
    assert!(refusal(check(&all, &confused)).why.contains("no key"));
    let hs_only = jwt(settings(&[Algorithm::HS256]), KeySet::secret(SECRET).unwrap());
    let cases = [
        (raw(r#"{"alg":"none"}"#, &claims().to_string(), SECRET), "algorithm"),
        (raw(r#"{"alg":"None"}"#, &claims().to_string(), SECRET), "algorithm"),
        (raw(r#"{"alg":"hs256"}"#, &claims().to_string(), SECRET), "algorithm"),
        (raw(r#"{"alg":"HS384"}"#, &claims().to_string(), SECRET), "algorithm"),
        (raw(r#"{"alg":null}"#, &claims().to_string(), SECRET), "\"alg\""),
        (rs256(&RSA, None, &claims()), "algorithm"),
    ];
    for (token, why) in cases {
        let denial = refusal(check(&hs_only, &token));
        assert!(denial.why.contains(why), "{}", denial.why);
    }
    // Without a signature, as "none" has it.
    let unsigned = raw(r#"{"alg":"none"}"#, &claims().to_string(), SECRET);
    let unsigned = format!("{}.", unsigned.rsplit_once('.').unwrap().0);
    refusal(check(&all, &unsigned));
    refusal(check(&hs_only, &unsigned));
    // A key that says what it is for is for nothing else.
    let set = json!({"keys": [jwk(&RSA, "one")]}).to_string();
    let set = KeySet::of_json(set.as_bytes(), Origin::Network).unwrap();
    assert!(set.serve(Algorithm::RS256) && !set.serve(Algorithm::PS256) && public.serve(Algorithm::PS256));
}

#[test]
fn hostile_claims_are_refused_with_the_reason() {
    let settings = Settings {
        client_id_claim: Some("device".into()),
        groups_claim: Some("realm.roles".into()),
        attribute_claims: vec!["tenant".into()],
        token_bytes_max: 2000,
        ..full_settings(&[Algorithm::HS256])
    };
    let jwt = jwt(settings, KeySet::secret(SECRET).unwrap());
    let good = json!({"device": "sensor-1"});
    accepted(check(&jwt, &hs256(&claims_with(&good))));
    let cases = [
        (json!({"exp": NOW_SECS - 30}), "expired 30 s ago"),
        (json!({"exp": null}), "no claim \"exp\""),
        (json!({"exp": "tomorrow"}), "no time"),
        (json!({"exp": -1}), "no time"),
        (json!({"nbf": NOW_SECS + 31}), "not valid for another 31 s"),
        (json!({"nbf": []}), "no time"),
        (json!({"iat": NOW_SECS + 31}), "in the future"),
        (json!({"iss": "https://evil.test"}), "issuer"),
        (json!({"iss": null}), "issuer"),
        (json!({"iss": ["https://issuer.test"]}), "issuer"),
        (json!({"aud": "mqttx"}), "audience"),
        (json!({"aud": ["a", "b"]}), "audience"),
        (json!({"aud": null}), "no claim \"aud\""),
        (json!({"sub": null}), "no claim \"sub\""),
        (json!({"sub": ""}), "no name"),
        (json!({"sub": 1}), "no name"),
        (json!({"sub": "a\u{0}b"}), "no name"),
        (json!({"device": "sensor-2"}), "client identifier"),
        (json!({"device": null}), "no claim \"device\""),
        (json!({"realm": {"roles": [1]}}), "no list of names"),
        (json!({"realm": {"roles": {}}}), "no list of names"),
        (json!({"tenant": ["x"]}), "\"tenant\""),
        (json!({"acl": {"publish": ["#"]}}), "access rules"),
        (json!({"long": "x".repeat(3000)}), "token_bytes_max"),
    ];
    for (changes, why) in cases {
        let mut all = good.clone();
        all.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let token = hs256(&claims_with(&all));
        let denial = refusal(check(&jwt, &token));
        assert_eq!(denial.code, ReasonCode::BadUserNameOrPassword);
        assert!(denial.why.contains(why), "{changes}: {}", denial.why);
        assert!(!token.split('.').any(|part| denial.why.contains(part)), "the token is in the log");
    }
}

#[test]
fn malformed_tokens_are_refused_and_passwords_are_left_to_others() {
    let jwt = jwt(settings(&[Algorithm::HS256]), KeySet::secret(SECRET).unwrap());
    let good = hs256(&claims_with(&json!({"aud": null})));
    accepted(check(&jwt, &good));
    let body = r#"{"sub":"alice","exp":99999999999}"#;
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let header = good.split('.').next().unwrap();
    let refused = [
        (good[..good.len() - 2].to_owned(), "signature"),
        (format!("{signed}."), "no key"),
        (format!("{header}..{signature}"), "claims"),
        (format!("{header}.bm8ganNvbg.{signature}"), "claims"),
        (raw(r#"{"alg":"HS256","alg":"HS256"}"#, body, SECRET), "twice"),
        (raw(r#"{"alg":"HS256","crit":["b64"],"b64":false}"#, body, SECRET), "crit"),
        (raw(r#"{"alg":"HS256","kid":7}"#, body, SECRET), "\"kid\""),
        (raw(r#"{"alg":"HS256"}"#, r#"{"sub":"a","sub":"b","exp":99999999999}"#, SECRET), "twice"),
        (raw(r#"{"alg":"HS256"}"#, r#"{"sub":"a","x":{"y":1,"y":1},"exp":99999999999}"#, SECRET), "twice"),
        (raw(r#"{"alg":"HS256"}"#, "[]", SECRET), "object"),
        (raw(r#"{"alg":"HS256"}"#, body, b"another secret"), "no key"),
    ];
    for (token, why) in refused {
        let denial = refusal(check(&jwt, &token));
        let is_told = denial.why.contains(why) || (why == "signature" && denial.why.contains("no key"));
        assert!(is_told, "{why}: {}", denial.why);
    }
    let passed = [
        "",
        "hunter2",
        "..",
        "a.b.c",
        "a.b",
        "eyJhIjoxfQ.e30.",
        &good[1..],
        &good.replace('.', ".."),
        &format!("{good}.x"),
        &format!(" {good}"),
        &good[..header.len()],
    ];
    for password in passed {
        assert_eq!(check(&jwt, password), Verdict::Passed, "{password}");
    }
    assert_eq!(run(jwt.check(credentials(None, Some(&[0xFF, b'.', b'.'])))), Verdict::Passed);
    assert_eq!(run(jwt.check(credentials(Some("alice"), None))), Verdict::Passed);
}

#[test]
fn claims_become_the_principal() {
    let settings = Settings {
        issuers: vec!["https://issuer.test".into()],
        user_claim: "who.name".into(),
        groups_claim: Some("https://test/groups".into()),
        attribute_claims: vec!["tenant".into(), "site.floor".into(), "absent".into()],
        ..settings(&[Algorithm::HS256])
    };
    let jwt = jwt(settings, KeySet::secret(SECRET).unwrap());
    let token = hs256(&claims_with(&json!({
        "aud": null, "who": {"name": "bob"}, "https://test/groups": ["a", "b"], "tenant": "acme",
        "site": {"floor": 3},
    })));
    let principal = accepted(check(&jwt, &token));
    assert_eq!(principal.user.as_deref(), Some("bob"));
    let details = principal.details.unwrap();
    let groups: Vec<&str> = details.groups.iter().map(|group| &**group).collect();
    assert_eq!(groups, ["a", "b"]);
    let attributes: Vec<(&str, &str)> = details.attributes.iter().map(|(k, v)| (&**k, &**v)).collect();
    assert_eq!(attributes, [("jwt:site.floor", "3"), ("jwt:tenant", "acme")]);
    // With the leeway of 30 s: who connects late is not thrown out at once.
    assert_eq!(details.expires_at_secs, Some(NOW_SECS + 630));
}

#[test]
fn a_token_counts_up_to_its_last_second_and_the_leeway() {
    let jwt = jwt(
        Settings { expiry: TokenExpiry::Optional, ..settings(&[Algorithm::HS256]) },
        KeySet::secret(SECRET).unwrap(),
    );
    let accepted_claims = [
        json!({"sub": "a"}),
        json!({"sub": "a", "exp": NOW_SECS - 29}),
        json!({"sub": "a", "exp": NOW_SECS as f64 + 0.5}),
        json!({"sub": "a", "nbf": NOW_SECS + 30, "iat": NOW_SECS + 30}),
        json!({"sub": "a", "exp": u64::MAX}),
    ];
    for claims in accepted_claims {
        accepted(check(&jwt, &hs256(&claims)));
    }
    for claims in [json!({"sub": "a", "exp": NOW_SECS - 30}), json!({"sub": "a", "nbf": u64::MAX})] {
        refusal(check(&jwt, &hs256(&claims)));
    }
    // Who is not configured as an audience is none.
    refusal(check(&jwt, &hs256(&json!({"sub": "a", "aud": "somebody"}))));
}

#[test]
fn a_foreign_issuer_may_be_left_to_the_next_back_end() {
    let settings = Settings { foreign_issuer: ForeignIssuer::Pass, ..full_settings(&[Algorithm::HS256]) };
    let jwt = jwt(settings, KeySet::secret(SECRET).unwrap());
    assert_eq!(check(&jwt, &hs256(&claims_with(&json!({"iss": "other"})))), Verdict::Passed);
    refusal(check(&jwt, &hs256(&claims_with(&json!({"exp": 1})))));
}

#[test]
fn a_token_is_taken_from_where_the_configuration_says() {
    let token = hs256(&claims_with(&json!({"aud": null})));
    let of = |places: &[TokenPlace]| {
        let settings = Settings { token_places: places.to_vec(), ..settings(&[Algorithm::HS256]) };
        jwt(settings, KeySet::secret(SECRET).unwrap())
    };
    let user_name = of(&[TokenPlace::UserName]);
    accepted(run(user_name.check(credentials(Some(&token), None))));
    assert_eq!(run(user_name.check(credentials(None, Some(token.as_bytes())))), Verdict::Passed);
    let either = of(&[TokenPlace::Password, TokenPlace::UserName]);
    accepted(run(either.check(credentials(Some(&token), None))));
    accepted(run(either.check(credentials(Some(&token), Some(b"hunter2")))));
    assert!(either.begin("JWT", credentials(None, None)).is_none());
    let enhanced = of(&[TokenPlace::AuthenticationData]);
    assert_eq!(run(enhanced.check(credentials(Some(&token), Some(token.as_bytes())))), Verdict::Passed);
    assert!(enhanced.begin("SCRAM-SHA-256", credentials(None, None)).is_none());
    let mut exchange = enhanced.begin("JWT", credentials(None, None)).unwrap();
    assert!(matches!(run(exchange.step(None)), Step::Failure(_)));
    assert!(matches!(run(exchange.step(Some(b"hunter2"))), Step::Failure(_)));
    // Again and again, to renew it.
    for _ in 0..2 {
        let Step::Success(principal, None) = run(exchange.step(Some(token.as_bytes()))) else { panic!() };
        assert_eq!(principal.user.as_deref(), Some("alice"));
    }
}

#[test]
fn keys_that_nobody_should_trust_are_refused() {
    assert_eq!(KeySet::secret(b"hunter2").unwrap_err(), KeyError::ShortSecret(7));
    assert_eq!(KeySet::public_key(RSA.serialize_pem().as_bytes()).unwrap_err(), KeyError::PrivateKey);
    assert_eq!(KeySet::public_key(b"hello").unwrap_err(), KeyError::NotPublicKey);
    let secret = json!({"kty": "oct", "k": BASE64_URL_SAFE_NO_PAD.encode(SECRET)});
    let set = |keys: Value| json!({"keys": keys}).to_string();
    let of = |text: String, origin| KeySet::of_json(text.as_bytes(), origin);
    assert!(of(set(json!([secret])), Origin::File).is_ok());
    assert!(matches!(of(set(json!([secret])), Origin::Network), Err(KeyError::NoUsableKey(Some(_)))));
    for useless in [
        json!([]),
        json!([{"kty": "EC", "crv": "P-521", "x": "AA", "y": "AA"}]),
        json!([{"kty": "OKP", "crv": "X25519", "x": "AA"}]),
        json!([{"kty": "RSA", "n": "!", "e": "AQAB"}]),
        json!([{"kty": "oct", "k": "c2hvcnQ"}]),
        json!([{"kty": "RSA", "n": "AQAB", "e": "AQAB", "use": "enc"}]),
        json!([{"kty": "RSA", "n": "AQAB", "e": "AQAB", "key_ops": ["encrypt"]}]),
        json!([{"kty": "RSA", "n": "AQAB", "e": "AQAB", "alg": "HS256"}]),
        json!([1, null, "x"]),
    ] {
        assert!(of(set(useless.clone()), Origin::File).is_err(), "{useless}");
    }
    for text in ["", "[]", "{}", "{\"keys\":1}", "<html>"] {
        assert!(matches!(of(text.into(), Origin::File), Err(KeyError::NotKeySet(_))), "{text}");
    }
    assert_eq!(of(set(vec![jwk(&RSA, "x"); 65].into()), Origin::File).unwrap_err(), KeyError::TooMany(65));
    let ec = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let ec = KeySet::public_key(ec.public_key_pem().as_bytes()).unwrap();
    assert!(ec.serve(Algorithm::ES256) && !ec.serve(Algorithm::ES384));
}

#[test]
fn nothing_shows_secrets_or_tokens() {
    let jwt = jwt(settings(&[Algorithm::HS256]), KeySet::secret(SECRET).unwrap());
    let token = hs256(&claims());
    let shown = format!("{jwt:?} {:?}", Token::recognize(token.as_bytes()));
    assert!(
        !shown.contains("97, 32, 115") && !shown.contains("a secret") && !shown.contains("eyJ"),
        "{shown}"
    );
}

/// Keys at a URL, and the time.
struct Remote {
    server: TestServer,
    clock: Arc<TestClock>,
    jwt: Jwt,
}

impl Remote {
    fn start(reply: Reply) -> Remote {
        let server = TestServer::start(reply);
        let url = KeySetUrl {
            refresh: Duration::from_secs(600),
            stale_max: Duration::from_secs(3600),
            retry: Duration::from_secs(30),
            timeout: Duration::from_millis(300),
            answer_bytes_max: 8192,
            ..KeySetUrl::new(server.url())
        };
        let settings = Settings { keys: JwtKeys::KeySetUrl(url), ..full_settings(&[Algorithm::RS256]) };
        let clock = Arc::new(TestClock::at(NOW_SECS));
        let jwt = Jwt::open(&settings, &Background::start().unwrap(), clock.clone()).unwrap();
        Remote { server, clock, jwt }
    }

    fn check(&self, pair: &KeyPair, key_id: Option<&str>) -> Verdict {
        let claims = claims_with(&json!({"exp": NOW_SECS + 100_000}));
        check(&self.jwt, &rs256(pair, key_id, &claims))
    }

    fn pass(&self, secs: u64) {
        self.clock.pass(Duration::from_secs(secs));
    }

    fn publish(&self, keys: &[Value]) {
        self.server.reply(Reply::Body(200, json!({"keys": keys}).to_string()));
    }

    fn fetches(&self) -> usize {
        self.server.asked().len()
    }
}

fn key_set(keys: &[Value]) -> Reply {
    Reply::Body(200, json!({"keys": keys}).to_string())
}

#[test]
fn keys_rotate_without_a_restart() {
    let remote = Remote::start(key_set(&[jwk(&RSA, "old")]));
    accepted(remote.check(&RSA, Some("old")));
    assert_eq!(remote.fetches(), 1);
    // The issuer takes a new key and still publishes the old one.
    remote.publish(&[jwk(&RSA, "old"), jwk(&OTHER_RSA, "new")]);
    remote.pass(31);
    accepted(remote.check(&OTHER_RSA, Some("new")));
    accepted(remote.check(&RSA, Some("old")));
    assert_eq!(remote.fetches(), 2);
    // It withdraws the old one.
    remote.publish(&[jwk(&OTHER_RSA, "new")]);
    remote.pass(600);
    accepted(remote.check(&OTHER_RSA, Some("new")));
    assert!(refusal(remote.check(&RSA, Some("old"))).why.contains("no key"));
    // The name of a key is all that a token may say of it.
    assert!(refusal(remote.check(&RSA, Some("new"))).why.contains("signature"));
    accepted(remote.check(&OTHER_RSA, None));
}

#[test]
fn unknown_keys_are_looked_for_at_most_once_in_the_retry_time() {
    let remote = Remote::start(key_set(&[jwk(&RSA, "one")]));
    accepted(remote.check(&RSA, Some("one")));
    for key_id in ["../../etc/passwd", "http://evil.test/", "one\0", "' or 1=1", "x"] {
        let denial = refusal(remote.check(&RSA, Some(key_id)));
        assert!(denial.why.contains("no key") && !denial.why.contains('\0'), "{}", denial.why);
    }
    assert_eq!(remote.fetches(), 1);
    remote.pass(30);
    for _ in 0..5 {
        refusal(remote.check(&RSA, Some("two")));
        refusal(remote.check(&OTHER_RSA, None));
    }
    assert_eq!(remote.fetches(), 2);
    accepted(remote.check(&RSA, Some("one")));
}

#[test]
fn without_keys_the_server_is_unavailable_until_they_are_there() {
    let down = [
        Reply::Close,
        Reply::Silence,
        Reply::Endless,
        Reply::Garbage,
        Reply::Body(503, String::new()),
        Reply::Body(200, "<html>".into()),
        Reply::Body(200, " ".repeat(8193)),
        Reply::Redirect("http://127.0.0.2:1/".into()),
        Reply::Redirect("/path".into()),
    ];
    for reply in down {
        let remote = Remote::start(reply.clone());
        let denial = refusal(remote.check(&RSA, Some("one")));
        assert_eq!(denial.code, ReasonCode::ServerUnavailable, "{reply:?}");
        remote.publish(&[jwk(&RSA, "one")]);
        assert_eq!(refusal(remote.check(&RSA, Some("one"))).code, ReasonCode::ServerUnavailable, "{reply:?}");
        remote.pass(30);
        accepted(remote.check(&RSA, Some("one")));
    }
}

#[test]
fn stale_keys_are_used_for_a_bounded_time() {
    let remote = Remote::start(key_set(&[jwk(&RSA, "one")]));
    accepted(remote.check(&RSA, Some("one")));
    remote.server.reply(Reply::Body(500, String::new()));
    for _ in 0..6 {
        remote.pass(600);
        accepted(remote.check(&RSA, Some("one")));
    }
    remote.pass(600);
    assert_eq!(refusal(remote.check(&RSA, Some("one"))).code, ReasonCode::ServerUnavailable);
}
