//! Settings of tokens as proof of who a client is.

use std::{path::PathBuf, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    super::{
        check::Checker,
        raw::integer,
        unit::{Integer, Size},
    },
    url::{HttpUrl, PlainHttp},
};

/// How JSON Web Tokens are checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jwt {
    /// Where a client may show a token; each place is looked at in this order.
    pub token_places: Vec<TokenPlace>,
    /// What signatures are checked by.
    pub keys: JwtKeys,
    /// The algorithms that are accepted, whatever a token says of itself; at least one.
    pub algorithms: Vec<Algorithm>,
    /// Who may issue tokens; empty for anybody who has the key.
    pub issuers: Vec<String>,
    /// What becomes of a token of somebody else.
    pub foreign_issuer: ForeignIssuer,
    /// For whom tokens are; empty takes only tokens that are for nobody in particular.
    pub audiences: Vec<String>,
    /// Whether a token has to end.
    pub expiry: TokenExpiry,
    /// How far the clocks of the issuer and of this machine may be apart, in seconds.
    pub leeway_secs: u64,
    /// The longest token, in bytes.
    pub token_bytes_max: usize,
    /// The claim that is the user name. Claims in claims are written with dots.
    pub user_claim: String,
    /// A claim that has to be the client identifier.
    pub client_id_claim: Option<String>,
    /// A claim that lists groups of the user.
    pub groups_claim: Option<String>,
    /// Claims whose values access rules may use.
    pub attribute_claims: Vec<String>,
    /// The claim that holds access rules.
    pub acl_claim: String,
}

/// Where a client shows a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenPlace {
    /// The password of CONNECT.
    Password,
    /// The user name of CONNECT.
    UserName,
    /// The authentication data of MQTT 5 with the method `JWT`.
    AuthenticationData,
}

/// What signatures are checked by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JwtKeys {
    /// A secret that the issuer has too, in a file.
    SecretFile(PathBuf, SecretEncoding),
    /// The same, in an environment variable.
    SecretVariable(String, SecretEncoding),
    /// A PEM file with the public key of the issuer.
    PublicKeyFile(PathBuf),
    /// A file with a JSON Web Key Set.
    KeySetFile(PathBuf),
    /// A JSON Web Key Set that is fetched.
    KeySetUrl(KeySetUrl),
}

/// How a secret is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretEncoding {
    /// As it is; a newline at its end is not part of it.
    Text,
    /// In base64, of either alphabet.
    Base64,
}

/// A JSON Web Key Set that is fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySetUrl {
    /// Where it is.
    pub url: HttpUrl,
    /// PEM file of authorities that are trusted besides those of the system.
    pub ca_file: Option<PathBuf>,
    /// How long keys are used before they are fetched again.
    pub refresh: Duration,
    /// How long keys are used beyond that while they cannot be fetched.
    pub stale_max: Duration,
    /// The least time between two attempts, also by tokens with unknown keys.
    pub retry: Duration,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// The largest answer in bytes.
    pub answer_bytes_max: usize,
}

/// What becomes of a token of an issuer that is not in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForeignIssuer {
    /// Its client is refused.
    Refuse,
    /// The next back end is asked.
    Pass,
}

/// Whether a token has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenExpiry {
    /// One without `exp` is refused.
    Required,
    /// One without `exp` is good for ever.
    Optional,
}

/// An algorithm of signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are those of RFC 7518 and RFC 8037")]
pub enum Algorithm {
    HS256,
    HS384,
    HS512,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

impl Algorithm {
    /// All of them. There is no `none`.
    pub const ALL: [Algorithm; 12] = [
        Algorithm::HS256,
        Algorithm::HS384,
        Algorithm::HS512,
        Algorithm::RS256,
        Algorithm::RS384,
        Algorithm::RS512,
        Algorithm::PS256,
        Algorithm::PS384,
        Algorithm::PS512,
        Algorithm::ES256,
        Algorithm::ES384,
        Algorithm::EdDSA,
    ];

    /// The name in a token's header.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::HS256 => "HS256",
            Algorithm::HS384 => "HS384",
            Algorithm::HS512 => "HS512",
            Algorithm::RS256 => "RS256",
            Algorithm::RS384 => "RS384",
            Algorithm::RS512 => "RS512",
            Algorithm::PS256 => "PS256",
            Algorithm::PS384 => "PS384",
            Algorithm::PS512 => "PS512",
            Algorithm::ES256 => "ES256",
            Algorithm::ES384 => "ES384",
            Algorithm::EdDSA => "EdDSA",
        }
    }
}

/// The name is none of [`Algorithm::ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownAlgorithm;

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    fn from_str(name: &str) -> Result<Algorithm, UnknownAlgorithm> {
        Algorithm::ALL.into_iter().find(|algorithm| algorithm.name() == name).ok_or(UnknownAlgorithm)
    }
}

impl Jwt {
    /// Every setting but the keys and the algorithms at its default.
    #[must_use]
    pub fn new(keys: JwtKeys, algorithms: &[Algorithm]) -> Jwt {
        Jwt {
            token_places: vec![TokenPlace::Password, TokenPlace::AuthenticationData],
            keys,
            algorithms: algorithms.to_vec(),
            issuers: Vec::new(),
            foreign_issuer: ForeignIssuer::Refuse,
            audiences: Vec::new(),
            expiry: TokenExpiry::Required,
            leeway_secs: 30,
            token_bytes_max: 8192,
            user_claim: "sub".into(),
            client_id_claim: None,
            groups_claim: None,
            attribute_claims: Vec::new(),
            acl_claim: "acl".into(),
        }
    }
}

impl KeySetUrl {
    /// Every setting but the URL at its default.
    #[must_use]
    pub fn new(url: HttpUrl) -> KeySetUrl {
        KeySetUrl {
            url,
            ca_file: None,
            refresh: Duration::from_secs(600),
            stale_max: Duration::from_secs(86_400),
            retry: Duration::from_secs(30),
            timeout: Duration::from_secs(5),
            answer_bytes_max: 256 << 10,
        }
    }
}

/// Where a client shows a token, as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RawPlace {
    Password,
    UserName,
    AuthenticationData,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RawEncoding {
    Text,
    Base64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RawForeignIssuer {
    Refuse,
    Pass,
}

/// A back end of kind `jwt`, as it is written.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawJwt {
    token_places: Vec<RawPlace>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret_env: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret_encoding: Option<RawEncoding>,
    #[serde(skip_serializing_if = "Option::is_none")]
    public_key_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jwks_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jwks_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    allow_plain_http: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_secs: Option<Integer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stale_secs_max: Option<Integer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_secs: Option<Integer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout_secs: Option<Integer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer_bytes_max: Option<Size>,
    algorithms: Vec<String>,
    issuers: Vec<String>,
    foreign_issuer: RawForeignIssuer,
    audiences: Vec<String>,
    require_expiry: bool,
    leeway_secs: Integer,
    token_bytes_max: Size,
    user_claim: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id_claim: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    groups_claim: Option<String>,
    attribute_claims: Vec<String>,
    acl_claim: String,
}

impl Checker<'_> {
    pub(super) fn jwt(&mut self, key: &str, raw: RawJwt) -> Option<Jwt> {
        let keys = self.jwt_keys(key, &raw);
        let algorithms = self.algorithms(key, &raw);
        self.refuse_keys_without_url(key, &raw);
        if raw.token_places.is_empty() {
            self.refuse(&format!("{key}.token_places"), "is empty; no token would ever be seen");
        }
        let names =
            [("user_claim", Some(&raw.user_claim)), ("client_id_claim", raw.client_id_claim.as_ref())];
        let more = [("groups_claim", raw.groups_claim.as_ref()), ("acl_claim", Some(&raw.acl_claim))];
        for (name, claim) in names.into_iter().chain(more) {
            if claim.is_some_and(String::is_empty) {
                self.refuse(&format!("{key}.{name}"), "is empty; write the name of a claim");
            }
        }
        let leeway_secs = self.number(&format!("{key}.leeway_secs"), raw.leeway_secs, 0..=3600);
        let token_bytes_max =
            self.bytes(&format!("{key}.token_bytes_max"), raw.token_bytes_max, 256..=65_535);
        Some(Jwt {
            token_places: raw.token_places.into_iter().map(TokenPlace::from).collect(),
            keys: keys?,
            algorithms,
            issuers: raw.issuers,
            foreign_issuer: match raw.foreign_issuer {
                RawForeignIssuer::Refuse => ForeignIssuer::Refuse,
                RawForeignIssuer::Pass => ForeignIssuer::Pass,
            },
            audiences: raw.audiences,
            expiry: if raw.require_expiry { TokenExpiry::Required } else { TokenExpiry::Optional },
            leeway_secs,
            token_bytes_max,
            user_claim: raw.user_claim,
            client_id_claim: raw.client_id_claim,
            groups_claim: raw.groups_claim,
            attribute_claims: raw.attribute_claims,
            acl_claim: raw.acl_claim,
        })
    }

    fn algorithms(&mut self, key: &str, raw: &RawJwt) -> Vec<Algorithm> {
        let key = format!("{key}.algorithms");
        let mut algorithms = Vec::new();
        for name in &raw.algorithms {
            match name.parse() {
                Ok(algorithm) => algorithms.push(algorithm),
                Err(UnknownAlgorithm) => {
                    let known = Algorithm::ALL.map(Algorithm::name).join(", ");
                    self.refuse(&key, format!("`{name}` is no algorithm; there are {known}"));
                }
            }
        }
        if raw.algorithms.is_empty() {
            self.refuse(&key, "is missing; write those that the issuer uses, such as [\"RS256\"]");
        }
        algorithms
    }

    fn jwt_keys(&mut self, key: &str, raw: &RawJwt) -> Option<JwtKeys> {
        let encoding = match raw.secret_encoding {
            None | Some(RawEncoding::Text) => SecretEncoding::Text,
            Some(RawEncoding::Base64) => SecretEncoding::Base64,
        };
        if raw.secret_encoding.is_some() && raw.secret_file.is_none() && raw.secret_env.is_none() {
            self.refuse(&format!("{key}.secret_encoding"), "has no effect without secret_file or secret_env");
        }
        let sources = [
            raw.secret_file.clone().map(|file| JwtKeys::SecretFile(file, encoding)),
            raw.secret_env.clone().map(|name| JwtKeys::SecretVariable(name, encoding)),
            raw.public_key_file.clone().map(JwtKeys::PublicKeyFile),
            raw.jwks_file.clone().map(JwtKeys::KeySetFile),
        ];
        let mut found: Vec<JwtKeys> = sources.into_iter().flatten().collect();
        if let Some(url) = &raw.jwks_url {
            found.push(JwtKeys::KeySetUrl(self.key_set_url(key, url, raw)?));
        }
        if found.len() == 1 {
            return found.pop();
        }
        let message = "needs exactly one of secret_file, secret_env, public_key_file, jwks_file, jwks_url";
        self.refuse(key, message);
        None
    }

    fn key_set_url(&mut self, key: &str, url: &str, raw: &RawJwt) -> Option<KeySetUrl> {
        let url = self.http_url(&format!("{key}.jwks_url"), url, raw.allow_plain_http)?;
        let usual = KeySetUrl::new(url);
        let mut seconds = |name: &str, written: Option<Integer>, usual: Duration, range| {
            let written = written.unwrap_or(integer(usual.as_secs()));
            self.seconds(&format!("{key}.{name}"), written, range)
        };
        let refresh = seconds("refresh_secs", raw.refresh_secs, usual.refresh, 10..=86_400);
        let stale_max = seconds("stale_secs_max", raw.stale_secs_max, usual.stale_max, 0..=2_592_000);
        let retry = seconds("retry_secs", raw.retry_secs, usual.retry, 1..=3600);
        let timeout = seconds("timeout_secs", raw.timeout_secs, usual.timeout, 1..=60);
        let answer = raw.answer_bytes_max.unwrap_or(Size(usual.answer_bytes_max as i64));
        let answer_bytes_max = self.bytes(&format!("{key}.answer_bytes_max"), answer, 1024..=16 << 20);
        let ca_file = raw.ca_file.clone();
        Some(KeySetUrl { ca_file, refresh, stale_max, retry, timeout, answer_bytes_max, ..usual })
    }

    /// Keys that say how to fetch mean nothing where nothing is fetched.
    fn refuse_keys_without_url(&mut self, key: &str, raw: &RawJwt) {
        if raw.jwks_url.is_some() {
            return;
        }
        let written = [
            ("allow_plain_http", raw.allow_plain_http.is_some()),
            ("ca_file", raw.ca_file.is_some()),
            ("refresh_secs", raw.refresh_secs.is_some()),
            ("stale_secs_max", raw.stale_secs_max.is_some()),
            ("retry_secs", raw.retry_secs.is_some()),
            ("timeout_secs", raw.timeout_secs.is_some()),
            ("answer_bytes_max", raw.answer_bytes_max.is_some()),
        ];
        for (name, _) in written.into_iter().filter(|(_, is_written)| *is_written) {
            self.refuse(&format!("{key}.{name}"), "has no effect without jwks_url");
        }
    }

    /// A URL, also of other back ends.
    pub(super) fn http_url(
        &mut self,
        key: &str,
        url: &str,
        allow_plain_http: Option<bool>,
    ) -> Option<HttpUrl> {
        let plain_http = match allow_plain_http {
            Some(true) => PlainHttp::Anywhere,
            None | Some(false) => PlainHttp::Loopback,
        };
        HttpUrl::parse(url, plain_http).map_err(|why| self.refuse(key, why)).ok()
    }
}

/// Whether a checked URL was allowed only because that is written.
pub(super) fn needs_plain_http(url: &HttpUrl) -> Option<bool> {
    HttpUrl::parse(url.as_str(), PlainHttp::Loopback).is_err().then_some(true)
}

impl Default for RawJwt {
    fn default() -> Self {
        // What has no default is taken away again.
        let none = JwtKeys::KeySetFile(PathBuf::new());
        Self { jwks_file: None, ..Self::from(&Jwt::new(none, &[])) }
    }
}

impl From<&Jwt> for RawJwt {
    fn from(jwt: &Jwt) -> Self {
        let mut raw = Self {
            token_places: jwt.token_places.iter().map(|place| RawPlace::from(*place)).collect(),
            secret_file: None,
            secret_env: None,
            secret_encoding: None,
            public_key_file: None,
            jwks_file: None,
            jwks_url: None,
            allow_plain_http: None,
            ca_file: None,
            refresh_secs: None,
            stale_secs_max: None,
            retry_secs: None,
            timeout_secs: None,
            answer_bytes_max: None,
            algorithms: jwt.algorithms.iter().map(|algorithm| algorithm.name().into()).collect(),
            issuers: jwt.issuers.clone(),
            foreign_issuer: match jwt.foreign_issuer {
                ForeignIssuer::Refuse => RawForeignIssuer::Refuse,
                ForeignIssuer::Pass => RawForeignIssuer::Pass,
            },
            audiences: jwt.audiences.clone(),
            require_expiry: jwt.expiry == TokenExpiry::Required,
            leeway_secs: integer(jwt.leeway_secs),
            token_bytes_max: Size(jwt.token_bytes_max as i64),
            user_claim: jwt.user_claim.clone(),
            client_id_claim: jwt.client_id_claim.clone(),
            groups_claim: jwt.groups_claim.clone(),
            attribute_claims: jwt.attribute_claims.clone(),
            acl_claim: jwt.acl_claim.clone(),
        };
        raw.set_keys(&jwt.keys);
        raw
    }
}

impl RawJwt {
    fn set_keys(&mut self, keys: &JwtKeys) {
        match keys {
            JwtKeys::SecretFile(file, encoding) => {
                self.secret_file = Some(file.clone());
                self.secret_encoding = Some((*encoding).into());
            }
            JwtKeys::SecretVariable(name, encoding) => {
                self.secret_env = Some(name.clone());
                self.secret_encoding = Some((*encoding).into());
            }
            JwtKeys::PublicKeyFile(file) => self.public_key_file = Some(file.clone()),
            JwtKeys::KeySetFile(file) => self.jwks_file = Some(file.clone()),
            JwtKeys::KeySetUrl(url) => {
                self.jwks_url = Some(url.url.as_str().into());
                self.allow_plain_http = needs_plain_http(&url.url);
                self.ca_file = url.ca_file.clone();
                self.refresh_secs = Some(integer(url.refresh.as_secs()));
                self.stale_secs_max = Some(integer(url.stale_max.as_secs()));
                self.retry_secs = Some(integer(url.retry.as_secs()));
                self.timeout_secs = Some(integer(url.timeout.as_secs()));
                self.answer_bytes_max = Some(Size(url.answer_bytes_max as i64));
            }
        }
    }
}

impl From<RawPlace> for TokenPlace {
    fn from(place: RawPlace) -> Self {
        match place {
            RawPlace::Password => Self::Password,
            RawPlace::UserName => Self::UserName,
            RawPlace::AuthenticationData => Self::AuthenticationData,
        }
    }
}

impl From<TokenPlace> for RawPlace {
    fn from(place: TokenPlace) -> Self {
        match place {
            TokenPlace::Password => Self::Password,
            TokenPlace::UserName => Self::UserName,
            TokenPlace::AuthenticationData => Self::AuthenticationData,
        }
    }
}

impl From<SecretEncoding> for RawEncoding {
    fn from(encoding: SecretEncoding) -> Self {
        match encoding {
            SecretEncoding::Text => Self::Text,
            SecretEncoding::Base64 => Self::Base64,
        }
    }
}
