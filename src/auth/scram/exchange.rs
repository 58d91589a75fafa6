//! The conversation: client-first, server-first, client-final, server-final.

use std::sync::Arc;

use aws_lc_rs::{
    constant_time::verify_slices_are_equal,
    rand::{SecureRandom, SystemRandom},
};
use base64::{Engine, engine::general_purpose::STANDARD};

use super::{
    Digest, ScramKeys, mac,
    message::{ClientFinal, ClientFirst},
    prepare, sha256,
};
use crate::{
    acl::Principal,
    auth::{BoxFuture, Denial, Exchange, Step},
    codec::ReasonCode,
};

/// Whose keys are known.
pub(in crate::auth) trait Known: Send + Sync {
    /// The keys of a user. For one that is not known they are keys that no password has, the same each time.
    fn keys(&self, user: &str) -> ScramKeys;
}

/// One client that authenticates.
pub(in crate::auth) struct ScramExchange {
    known: Arc<dyn Known>,
    /// The server's part of the nonce.
    nonce: String,
    /// The user name in CONNECT, which has to be the same if there is one.
    expected: Option<String>,
    state: State,
}

/// How far it is.
enum State {
    /// Nothing was said.
    Start,
    /// Server-first was sent.
    Challenged(Challenge),
    /// It is over.
    Over,
}

struct Challenge {
    user: String,
    keys: ScramKeys,
    header: Vec<u8>,
    /// Both parts.
    nonce: String,
    /// What both sides sign, as far as it was said.
    signed: String,
}

/// The server's part of a nonce: 144 random bits.
pub(in crate::auth) fn random_nonce() -> Option<String> {
    let mut bytes = [0; 18];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(STANDARD.encode(bytes))
}

impl ScramExchange {
    pub(in crate::auth) fn new(
        known: Arc<dyn Known>,
        nonce: String,
        expected: Option<&str>,
    ) -> ScramExchange {
        let expected = expected.map(str::to_owned);
        ScramExchange { known, nonce, expected, state: State::Start }
    }

    fn advance(&mut self, data: Option<&[u8]>) -> Step {
        let data = data.unwrap_or_default();
        match std::mem::replace(&mut self.state, State::Over) {
            // A client may name the method alone and wait to be asked.
            State::Start if data.is_empty() => {
                self.state = State::Start;
                Step::Continue(Vec::new())
            }
            State::Start => match ClientFirst::parse(data) {
                Ok(first) => self.challenge(&first),
                Err(why) => malformed(why),
            },
            State::Challenged(challenge) => match ClientFinal::parse(data) {
                Ok(last) => self.judge(&challenge, &last),
                Err(why) => malformed(why),
            },
            State::Over => malformed("the exchange is over"),
        }
    }

    fn challenge(&mut self, first: &ClientFirst<'_>) -> Step {
        let Some(user) = prepare(&first.user) else {
            return malformed("the user name is forbidden (SASLprep)");
        };
        let keys = self.known.keys(&user);
        let nonce = format!("{}{}", first.nonce, self.nonce);
        let answer = format!("r={nonce},s={},i={}", STANDARD.encode(&keys.salt), keys.iterations);
        let signed = format!("{},{answer}", first.bare);
        let header = first.header.as_bytes().to_vec();
        self.state = State::Challenged(Challenge { user, keys, header, nonce, signed });
        Step::Continue(answer.into_bytes())
    }

    fn judge(&self, challenge: &Challenge, last: &ClientFinal<'_>) -> Step {
        if last.nonce != challenge.nonce || last.header != challenge.header {
            return malformed("the nonce or the header is not that of this exchange");
        }
        let Challenge { user, keys, signed, .. } = challenge;
        let signed = format!("{signed},{}", last.without_proof);
        let signature = mac(&keys.stored, signed.as_bytes());
        let client_key: Digest = std::array::from_fn(|index| last.proof[index] ^ signature[index]);
        // Of a user that is not known there is no client key that fits.
        if verify_slices_are_equal(&sha256(&client_key), &keys.stored).is_err() {
            return refused(format!("user {user:?} has not proved its password by SCRAM, or does not exist"));
        }
        if self.expected.as_ref().is_some_and(|expected| expected != user) {
            return refused(format!("user {user:?} has another user name in CONNECT"));
        }
        let proof = STANDARD.encode(mac(&keys.server, signed.as_bytes()));
        Step::Success(Principal::named(user), Some(format!("v={proof}").into_bytes()))
    }
}

impl Exchange for ScramExchange {
    fn step<'a>(&'a mut self, data: Option<&'a [u8]>) -> BoxFuture<'a, Step> {
        let step = self.advance(data);
        Box::pin(std::future::ready(step))
    }
}

fn malformed(why: &str) -> Step {
    refused(format!("SCRAM: {why}"))
}

fn refused(why: String) -> Step {
    Step::Failure(Denial { code: ReasonCode::NotAuthorized, why })
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    /// Knows the user of the example in RFC 7677.
    struct Example;

    impl Known for Example {
        fn keys(&self, user: &str) -> ScramKeys {
            let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
            let keys = ScramKeys::derive(b"pencil", salt, NonZeroU32::new(4096).unwrap());
            if user == "user" { keys } else { ScramKeys::of_nobody(&[7; 32], &keys) }
        }
    }

    fn exchange(expected: Option<&str>) -> ScramExchange {
        let nonce = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0".to_owned();
        ScramExchange::new(Arc::new(Example), nonce, expected)
    }

    const FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const CHALLENGE: &str = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                             s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                         p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

    fn is_refused(step: &Step) -> bool {
        matches!(step, Step::Failure(denial) if denial.code == ReasonCode::NotAuthorized)
    }

    /// RFC 7677, section 3.
    #[test]
    fn the_example_of_the_rfc_passes() {
        let mut exchange = exchange(Some("user"));
        assert_eq!(exchange.advance(None), Step::Continue(Vec::new()));
        assert_eq!(exchange.advance(Some(FIRST.as_bytes())), Step::Continue(CHALLENGE.into()));
        let proof = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=".to_vec();
        let success = Step::Success(Principal::named("user"), Some(proof));
        assert_eq!(exchange.advance(Some(FINAL.as_bytes())), success);
        assert!(is_refused(&exchange.advance(Some(FINAL.as_bytes()))), "nothing follows");
    }

    #[test]
    fn what_is_not_exactly_that_is_refused() {
        let finals = [
            FINAL.replace("dHzb", "dHzc"),
            FINAL.replace("biws", "eSws"),
            FINAL.replace("k0,", "k1,"),
            FINAL.replace(",p=", ",x=1,p="),
            FINAL.replace(",p=", ",q="),
            FIRST.to_owned(),
            String::new(),
        ];
        for last in finals {
            let mut exchange = exchange(None);
            exchange.advance(Some(FIRST.as_bytes()));
            assert!(is_refused(&exchange.advance(Some(last.as_bytes()))), "{last}");
        }
        let mut other = exchange(Some("other"));
        other.advance(Some(FIRST.as_bytes()));
        assert!(is_refused(&other.advance(Some(FINAL.as_bytes()))));
    }

    /// Who asks for a user that does not exist gets a challenge like any other, and the same one each time.
    #[test]
    fn unknown_users_look_like_known_ones() {
        let challenge =
            |user: &str| match exchange(None).advance(Some(FIRST.replace("user", user).as_bytes())) {
                Step::Continue(data) => String::from_utf8(data).unwrap(),
                other => panic!("{other:?}"),
            };
        let (known, unknown) = (challenge("user"), challenge("nobody"));
        assert_eq!(unknown, challenge("nobody"));
        assert!(known.len() == unknown.len() && known != unknown);
        assert!(unknown.ends_with(",i=4096"));
    }
}
