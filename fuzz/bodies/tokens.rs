//! Bytes as a token, as the claims of one and as a set of keys.

use std::sync::LazyLock;

use dunlin::{
    auth::jwt::{
        claims,
        keys::{KeySet, Origin},
        token::Token,
    },
    config::auth::jwt::{Algorithm, Jwt, JwtKeys, TokenExpiry},
};
use serde_json::Value;

const NOW_SECS: u64 = 1_700_000_000;

static SETTINGS: LazyLock<Jwt> = LazyLock::new(|| Jwt {
    expiry: TokenExpiry::Optional,
    client_id_claim: Some("c".into()),
    groups_claim: Some("g.r".into()),
    attribute_claims: vec!["a".into(), "b.c".into()],
    ..Jwt::new(JwtKeys::KeySetFile("none".into()), &Algorithm::ALL)
});

/// Checks one input.
pub(crate) fn run(input: &[u8]) {
    if Token::recognize(input).is_some() {
        assert_eq!(input.iter().filter(|byte| **byte == b'.').count(), 2, "a token has three parts");
    }
    for origin in [Origin::File, Origin::Network] {
        let _ = KeySet::of_json(input, origin);
    }
    let Ok(claims) = serde_json::from_slice::<Value>(input) else { return };
    let Ok(principal) = claims::principal(&claims, &SETTINGS, "client", NOW_SECS) else { return };
    let is_name = |text: &str| !text.is_empty() && !text.contains('\0');
    assert!(principal.user.as_deref().is_some_and(is_name), "a user has a name");
    assert_eq!(claims["c"], "client", "the client is the one that the token is for");
    assert!(
        claims.get("acl").is_none() && claims.get("aud").is_none(),
        "limits that are not known are not lifted"
    );
    let details = principal.details.expect("a token has details");
    assert!(details.groups.iter().all(|group| is_name(group)), "groups have names");
    assert!(details.expires_at_secs.is_none_or(|at| at > NOW_SECS), "the token has not ended");
}
