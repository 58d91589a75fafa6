//! Settings of tokens as proof of who a client is.

use std::{path::PathBuf, str::FromStr, time::Duration};

use super::url::HttpUrl;

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
