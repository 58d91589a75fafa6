//! Certificates, keys and the files that they are in.

use std::{
    fs,
    path::{Path, PathBuf},
    process,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use dunlin::config::Tls;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, RevokedCertParams,
};
use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
};
use time::{Duration, OffsetDateTime};

/// The name of every site's authority, which does not make them the same.
pub(crate) const AUTHORITY: &str = "test authority";

/// A directory of one test, removed at its end.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("net-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        // Short, since the path of a Unix socket must be.
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Who signs certificates.
pub(crate) struct Authority {
    pub(crate) pem: String,
    pub(crate) der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { pem: certificate.pem(), der: certificate.der().clone(), issuer: Issuer::new(params, key) }
    }

    /// An authority that this one has signed.
    pub(crate) fn deputy(&self, name: &str, serial: u64) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        params.serial_number = Some(serial.into());
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Self { pem: certificate.pem(), der: certificate.der().clone(), issuer: Issuer::new(params, key) }
    }

    /// A client's certificate, changed before it is signed.
    pub(crate) fn client(&self, change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.distinguished_name = DistinguishedName::new();
        change(&mut params);
        self.sign(&params, KeyPair::generate().unwrap())
    }

    /// A server's certificate for these host names.
    pub(crate) fn server(&self, names: &[&str], key: KeyPair) -> Identity {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(&params, key)
    }

    fn sign(&self, params: &CertificateParams, key: KeyPair) -> Identity {
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity { pem: certificate.pem(), der: certificate.der().clone(), key, chain: Vec::new() }
    }

    /// A list in PEM of what this authority has revoked, whose next update is this far from now.
    pub(crate) fn revoke(&self, serials: &[u64], next_update: Duration) -> String {
        let now = OffsetDateTime::now_utc();
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: (*serial).into(),
            revocation_time: now - Duration::days(1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: now - Duration::days(2),
            next_update: now + next_update,
            crl_number: 1_u64.into(),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }

    pub(crate) fn issue(&self, purpose: ExtendedKeyUsagePurpose) -> Identity {
        self.issue_for(KeyPair::generate().unwrap(), purpose)
    }

    pub(crate) fn issue_for(&self, key: KeyPair, purpose: ExtendedKeyUsagePurpose) -> Identity {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.extended_key_usages = vec![purpose];
        self.sign(&params, key)
    }
}

/// A certificate and its key.
pub(crate) struct Identity {
    pub(crate) pem: String,
    pub(crate) der: CertificateDer<'static>,
    pub(crate) key: KeyPair,
    /// Authorities between it and the one that is trusted.
    pub(crate) chain: Vec<CertificateDer<'static>>,
}

/// A server's files and what clients need to trust them.
pub(crate) struct Site {
    pub(crate) directory: Directory,
    pub(crate) authority: Authority,
    pub(crate) tls: Tls,
}

impl Site {
    pub(crate) fn new() -> Self {
        let directory = Directory::new();
        let authority = Authority::new(AUTHORITY);
        let server = authority.issue(ExtendedKeyUsagePurpose::ServerAuth);
        let certificate = directory.write("server.crt", &server.pem);
        let tls = Tls::new(certificate, directory.write("server.key", server.key.serialize_pem()));
        Self { directory, authority, tls }
    }

    pub(crate) fn trusting_client(&self) -> TestClient<'_> {
        TestClient { site: self, versions: rustls::ALL_VERSIONS, identity: None, alpn: &[] }
    }
}

/// How a client does TLS.
pub(crate) struct TestClient<'a> {
    pub(crate) site: &'a Site,
    pub(crate) versions: &'a [&'static SupportedProtocolVersion],
    pub(crate) identity: Option<&'a Identity>,
    pub(crate) alpn: &'a [&'a [u8]],
}

impl TestClient<'_> {
    pub(crate) fn config(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.site.authority.der.clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(self.versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match self.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let key: PrivateKeyDer<'static> =
                    PrivatePkcs8KeyDer::from(identity.key.serialize_der()).into();
                let own = std::iter::once(&identity.der);
                builder.with_client_auth_cert(own.chain(&identity.chain).cloned().collect(), key).unwrap()
            }
        };
        config.alpn_protocols = self.alpn.iter().map(|id| id.to_vec()).collect();
        Arc::new(config)
    }
}

/// A PEM section around `der`.
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut base64 = String::new();
    for chunk in der.chunks(3) {
        let bits =
            chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for index in 0..4 {
            let digit = ALPHABET[(bits >> (18 - 6 * index) & 63) as usize];
            base64.push(if index <= chunk.len() { char::from(digit) } else { '=' });
        }
        if base64.len() % 65 == 64 {
            base64.push('\n');
        }
    }
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", base64.trim_end())
}

pub(crate) fn rewrite(path: &Path, content: impl AsRef<[u8]>) {
    fs::write(path, content).unwrap();
}
