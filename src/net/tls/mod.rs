//! TLS of a listener: from PEM files to a configuration of rustls, or to a message that helps.

mod error;
mod live;
mod pem;
mod server_name;
mod validity;
mod verifier;

use std::sync::Arc;

use rustls::{
    InconsistentKeys, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion,
    crypto::{CryptoProvider, aws_lc_rs, aws_lc_rs::cipher_suite},
    server::NoServerSessionStorage,
    sign::CertifiedKey,
};

use crate::config::{CertificateFiles, CipherSuite, Tls, TlsVersion};

use pem::Pem;
use server_name::ByServerName;

pub use error::{PemFound, PemWanted, TlsError};
pub use live::{LiveTls, Reload};
pub use validity::{Validity, ValidityKind};

/// What is spoken inside TLS, for the ALPN extension. A client that does not use the extension is welcome; one
/// that offers only other protocols is refused, as RFC 7301 wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApplicationProtocol {
    /// MQTT at once.
    Mqtt,
    /// HTTP/1.1, to become WebSocket.
    Http11,
}

impl ApplicationProtocol {
    fn id(self) -> &'static [u8] {
        match self {
            Self::Mqtt => b"mqtt",
            Self::Http11 => b"http/1.1",
        }
    }
}

/// Reads the files and makes the server's side of TLS out of them.
///
/// # Errors
/// [`TlsError`], which names the file at fault.
pub fn server_config(tls: &Tls, protocol: ApplicationProtocol) -> Result<Arc<ServerConfig>, TlsError> {
    Ok(load(tls, protocol)?.config)
}

/// What the files of a listener come to.
#[derive(Debug)]
struct Loaded {
    config: Arc<ServerConfig>,
    /// Until when what is in them is good.
    validities: Vec<Validity>,
}

fn load(tls: &Tls, protocol: ApplicationProtocol) -> Result<Loaded, TlsError> {
    // Passed everywhere, so that no other part of the process can change what we use.
    let provider = Arc::new(provider(&tls.cipher_suites));
    let mut validities = Vec::new();
    let main = CertificateFiles { certificate: tls.certificate.clone(), key: tls.key.clone() };
    let mut identities = ByServerName::new(certified_key(&main, &provider, &mut validities)?);
    for files in &tls.certificates {
        let identity = certified_key(files, &provider, &mut validities)?;
        identities.add(identity).map_err(|_| TlsError::NoHostName { file: files.certificate.clone() })?;
    }
    let verifier = verifier::of_clients(tls, &provider, &mut validities)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(protocol_versions(tls))
        .map_err(TlsError::Library)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(identities));
    config.ignore_client_order = !tls.cipher_suites.is_empty();
    config.alpn_protocols = vec![protocol.id().to_vec()];
    // Resumption without state of ours. One ticket is enough for a client with one connection. The keys of tickets
    // are new with every configuration: a client that has been revoked since would come back by its old ticket,
    // for which its certificate is not looked at.
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(TlsError::Library)?;
    config.send_tls13_tickets = 1;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Loaded { config: Arc::new(config), validities })
}

fn provider(suites: &[CipherSuite]) -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    if !suites.is_empty() {
        provider.cipher_suites = suites.iter().copied().map(cipher_suite).collect();
    }
    provider
}

fn cipher_suite(suite: CipherSuite) -> SupportedCipherSuite {
    match suite {
        CipherSuite::Aes256 => cipher_suite::TLS13_AES_256_GCM_SHA384,
        CipherSuite::Aes128 => cipher_suite::TLS13_AES_128_GCM_SHA256,
        CipherSuite::ChaCha20 => cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        CipherSuite::EcdsaAes256 => cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        CipherSuite::EcdsaAes128 => cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        CipherSuite::EcdsaChaCha20 => cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        CipherSuite::RsaAes256 => cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        CipherSuite::RsaAes128 => cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        CipherSuite::RsaChaCha20 => cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    }
}

fn protocol_versions(tls: &Tls) -> &'static [&'static SupportedProtocolVersion] {
    static BOTH: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];
    match (tls.version_min, tls.version_max) {
        (TlsVersion::V12, TlsVersion::V13) => BOTH,
        (TlsVersion::V13, _) => &BOTH[..1],
        (TlsVersion::V12, TlsVersion::V12) => &BOTH[1..],
    }
}

/// The certificate chain with its key, known to belong together.
fn certified_key(
    files: &CertificateFiles,
    provider: &CryptoProvider,
    validities: &mut Vec<Validity>,
) -> Result<CertifiedKey, TlsError> {
    let CertificateFiles { certificate, key: private } = files;
    let chain = Pem::read(certificate)?.certificates()?;
    let key = Pem::read(private)?.private_key()?;
    let signer = provider
        .key_provider
        .load_private_key(key)
        .map_err(|cause| TlsError::BadKey { file: private.clone(), cause })?;
    let identity = CertifiedKey::new(chain, signer);
    match identity.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
        Err(rustls::Error::InconsistentKeys(_)) => {
            return Err(TlsError::KeyMismatch { certificate: certificate.clone(), key: private.clone() });
        }
        Err(cause) => return Err(TlsError::BadCertificate { file: certificate.clone(), cause }),
    }
    validities.extend(identity.end_entity_cert().ok().and_then(|der| Validity::of_server(certificate, der)));
    Ok(identity)
}
