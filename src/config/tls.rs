//! TLS of a listener: what may be written, and what it comes to.

use std::{fmt, path::PathBuf};

use serde::{Deserialize, Deserializer, Serialize, de};

use super::{check::Checker, raw::Kind};

/// TLS of one listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// PEM file: the server's certificate, then its chain.
    pub certificate: PathBuf,
    /// PEM file: the private key of the certificate.
    pub key: PathBuf,
    /// Further certificates, for clients that ask for a host name that is theirs.
    pub certificates: Vec<CertificateFiles>,
    /// PEM files: authorities that sign client certificates.
    pub client_ca: Vec<PathBuf>,
    /// Whether clients present a certificate; anything but `None` needs `client_ca`.
    pub client_certificate: ClientCertificate,
    /// PEM files: what those authorities have revoked. Without any, nothing is taken to be revoked.
    pub client_crl: Vec<PathBuf>,
    /// What becomes of a client whose issuer has no revocation list in `client_crl`.
    pub revocation_unknown: Doubt,
    /// What becomes of a client whose issuer has a revocation list that is past its next update.
    pub revocation_expired: Doubt,
    /// The oldest TLS version that is spoken.
    pub version_min: TlsVersion,
    /// The newest TLS version that is spoken.
    pub version_max: TlsVersion,
    /// The only cipher suites that are used, the preferred first; empty for those that the TLS library has by default.
    pub cipher_suites: Vec<CipherSuite>,
}

impl Tls {
    /// TLS with this certificate and key, which asks clients for no certificate, and defaults for the rest.
    #[must_use]
    pub fn new(certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self {
            certificate: certificate.into(),
            key: key.into(),
            certificates: Vec::new(),
            client_ca: Vec::new(),
            client_certificate: ClientCertificate::None,
            client_crl: Vec::new(),
            revocation_unknown: Doubt::Deny,
            revocation_expired: Doubt::Deny,
            version_min: TlsVersion::V12,
            version_max: TlsVersion::V13,
            cipher_suites: Vec::new(),
        }
    }

    /// All files that the settings name.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let pairs = self.certificates.iter().flat_map(|pair| [&pair.certificate, &pair.key]);
        [&self.certificate, &self.key].into_iter().chain(pairs).chain(&self.client_ca).chain(&self.client_crl)
    }
}

/// A certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// PEM file: the server's certificate, then its chain.
    pub certificate: PathBuf,
    /// PEM file: the private key of the certificate.
    pub key: PathBuf,
}

/// Whether clients present a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificate {
    /// They are not asked.
    #[default]
    None,
    /// They may.
    Optional,
    /// They must.
    Required,
}

/// What becomes of a client of whom it is not known whether its certificate is revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Doubt {
    /// It is let in.
    Allow,
    /// It is not.
    Deny,
}

/// What of its certificate is a client's user name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientIdentity {
    /// Nothing: the certificate opens the door, but names nobody.
    #[default]
    None,
    /// The common name of its subject.
    #[serde(rename = "cn")]
    CommonName,
    /// The host name among its alternative names.
    SanDns,
    /// The mail address among its alternative names.
    SanEmail,
    /// The URI among its alternative names.
    SanUri,
    /// The whole subject, as of RFC 4514: `CN=meter-7,O=Example`.
    Subject,
}

impl ClientIdentity {
    /// The name in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::CommonName => "cn",
            Self::SanDns => "san_dns",
            Self::SanEmail => "san_email",
            Self::SanUri => "san_uri",
            Self::Subject => "subject",
        }
    }
}

/// A TLS version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TlsVersion {
    /// TLS 1.2.
    #[serde(rename = "1.2")]
    V12,
    /// TLS 1.3.
    #[serde(rename = "1.3")]
    V13,
}

impl TlsVersion {
    /// The name in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::V12 => "1.2",
            Self::V13 => "1.3",
        }
    }
}

/// A cipher suite, by the name that IANA gave it. There are none here that are known to be weak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say all that there is to say")]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CipherSuite {
    #[serde(rename = "TLS_AES_256_GCM_SHA384")]
    Aes256,
    #[serde(rename = "TLS_AES_128_GCM_SHA256")]
    Aes128,
    #[serde(rename = "TLS_CHACHA20_POLY1305_SHA256")]
    ChaCha20,
    #[serde(rename = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384")]
    EcdsaAes256,
    #[serde(rename = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256")]
    EcdsaAes128,
    #[serde(rename = "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256")]
    EcdsaChaCha20,
    #[serde(rename = "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384")]
    RsaAes256,
    #[serde(rename = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256")]
    RsaAes128,
    #[serde(rename = "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256")]
    RsaChaCha20,
}

impl CipherSuite {
    /// The version that has this suite.
    #[must_use]
    pub const fn version(self) -> TlsVersion {
        match self {
            Self::Aes256 | Self::Aes128 | Self::ChaCha20 => TlsVersion::V13,
            Self::EcdsaAes256
            | Self::EcdsaAes128
            | Self::EcdsaChaCha20
            | Self::RsaAes256
            | Self::RsaAes128
            | Self::RsaChaCha20 => TlsVersion::V12,
        }
    }
}

/// `[listeners.tls]` as written.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawTls {
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<PathBuf>,
    #[serde(skip_serializing_if = "Paths::is_empty")]
    client_ca: Paths,
    client_certificate: ClientCertificate,
    #[serde(skip_serializing_if = "Paths::is_empty")]
    client_crl: Paths,
    #[serde(skip_serializing_if = "Option::is_none")]
    revocation_unknown: Option<Doubt>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revocation_expired: Option<Doubt>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version_min: Option<TlsVersion>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version_max: Option<TlsVersion>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cipher_suites: Vec<CipherSuite>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    certificates: Vec<RawCertificate>,
}

/// `[[listeners.tls.certificates]]` as written.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawCertificate {
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<PathBuf>,
}

/// One path or a list of them.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub(super) struct Paths(Vec<PathBuf>);

impl Paths {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'de> Deserialize<'de> for Paths {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PathsVisitor)
    }
}

struct PathsVisitor;

impl<'de> de::Visitor<'de> for PathsVisitor {
    type Value = Paths;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a path or a list of paths")
    }

    fn visit_str<E: de::Error>(self, path: &str) -> Result<Paths, E> {
        Ok(Paths(vec![path.into()]))
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Paths, A::Error> {
        let mut paths = Vec::new();
        while let Some(path) = list.next_element()? {
            paths.push(path);
        }
        Ok(Paths(paths))
    }
}

impl From<&Tls> for RawTls {
    fn from(tls: &Tls) -> Self {
        let crl = !tls.client_crl.is_empty();
        let pair = |pair: &CertificateFiles| RawCertificate {
            certificate: Some(pair.certificate.clone()),
            key: Some(pair.key.clone()),
        };
        Self {
            certificate: Some(tls.certificate.clone()),
            key: Some(tls.key.clone()),
            client_ca: Paths(tls.client_ca.clone()),
            client_certificate: tls.client_certificate,
            client_crl: Paths(tls.client_crl.clone()),
            revocation_unknown: crl.then_some(tls.revocation_unknown),
            revocation_expired: crl.then_some(tls.revocation_expired),
            version_min: Some(tls.version_min),
            version_max: Some(tls.version_max),
            cipher_suites: tls.cipher_suites.clone(),
            certificates: tls.certificates.iter().map(pair).collect(),
        }
    }
}

impl Checker<'_> {
    /// `key` is that of the listener.
    pub(super) fn tls(&mut self, key: &str, kind: Kind, raw: Option<&RawTls>) -> Option<Tls> {
        let Some(raw) = raw else {
            let message = format!("a listener of kind \"{}\" needs `certificate` and `key`", kind.name());
            self.refuse(&format!("{key}.tls"), message);
            return None;
        };
        let key = format!("{key}.tls");
        let main = self.pair(&key, raw.certificate.as_ref(), raw.key.as_ref());
        let certificates = raw.certificates.iter().enumerate().filter_map(|(index, pair)| {
            let key = format!("{key}.certificates[{index}]");
            self.pair(&key, pair.certificate.as_ref(), pair.key.as_ref())
        });
        let certificates = certificates.collect();
        self.client_certificates(&key, raw);
        let (version_min, version_max) = self.versions(&key, raw);
        let main = main?;
        Some(Tls {
            certificates,
            client_ca: raw.client_ca.0.clone(),
            client_certificate: raw.client_certificate,
            client_crl: raw.client_crl.0.clone(),
            revocation_unknown: raw.revocation_unknown.unwrap_or(Doubt::Deny),
            revocation_expired: raw.revocation_expired.unwrap_or(Doubt::Deny),
            version_min,
            version_max,
            cipher_suites: raw.cipher_suites.clone(),
            ..Tls::new(main.certificate, main.key)
        })
    }

    fn pair(
        &mut self,
        key: &str,
        certificate: Option<&PathBuf>,
        private: Option<&PathBuf>,
    ) -> Option<CertificateFiles> {
        if certificate.is_none() {
            self.refuse(&format!("{key}.certificate"), "is missing; it names a PEM file with the chain");
        }
        if private.is_none() {
            self.refuse(&format!("{key}.key"), "is missing; it names a PEM file with the private key");
        }
        Some(CertificateFiles { certificate: certificate?.clone(), key: private?.clone() })
    }

    fn client_certificates(&mut self, key: &str, raw: &RawTls) {
        let is_asked = raw.client_certificate != ClientCertificate::None;
        if is_asked && raw.client_ca.is_empty() {
            self.refuse(
                &format!("{key}.client_certificate"),
                "needs `client_ca`, PEM files with the authorities that sign client certificates",
            );
        }
        for (name, paths) in [("client_ca", &raw.client_ca), ("client_crl", &raw.client_crl)] {
            if !is_asked && !paths.is_empty() {
                self.refuse(
                    &format!("{key}.{name}"),
                    "has no effect: set client_certificate to \"optional\" or \"required\"",
                );
            }
        }
        let doubts =
            [("revocation_unknown", raw.revocation_unknown), ("revocation_expired", raw.revocation_expired)];
        for (name, doubt) in doubts {
            if doubt.is_some() && raw.client_crl.is_empty() {
                self.refuse(&format!("{key}.{name}"), "has no effect: client_crl names no revocation lists");
            }
        }
    }

    fn versions(&mut self, key: &str, raw: &RawTls) -> (TlsVersion, TlsVersion) {
        let min = raw.version_min.unwrap_or(TlsVersion::V12);
        let max = raw.version_max.unwrap_or(TlsVersion::V13);
        if min > max {
            let message = format!("\"{}\" is older than version_min = \"{}\"", max.name(), min.name());
            self.refuse(&format!("{key}.version_max"), message);
            return (min, max);
        }
        let has = |version| raw.cipher_suites.iter().any(|suite| suite.version() == version);
        let missing = [min, max].into_iter().find(|version| !has(*version));
        if let Some(version) = missing.filter(|_| !raw.cipher_suites.is_empty()) {
            let message = format!(
                "has no suite of TLS {}, which is spoken: add one, or leave the version out by version_min or \
                 version_max",
                version.name()
            );
            self.refuse(&format!("{key}.cipher_suites"), message);
        }
        (min, max)
    }
}
