//! TLS of a listener: from PEM files to a configuration of rustls, or to a message that helps.

use std::{
    error, fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    InconsistentKeys, RootCertStore, ServerConfig, SupportedProtocolVersion,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{
        CertificateDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer,
        pem::{PemObject, SectionKind},
    },
    server::{NoClientAuth, NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::CertifiedKey,
};

use crate::config::{ClientCertificate, Tls, TlsVersion};

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
    // Passed everywhere, so that no other part of the process can change what we use.
    let provider = Arc::new(aws_lc_rs::default_provider());
    let identity = certified_key(tls, &provider)?;
    let verifier = client_verifier(tls, &provider)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(protocol_versions(tls.version_min))
        .map_err(TlsError::Library)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(identity)));
    config.alpn_protocols = vec![protocol.id().to_vec()];
    // Resumption without state of ours. One ticket is enough for a client with one connection.
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(TlsError::Library)?;
    config.send_tls13_tickets = 1;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}

fn protocol_versions(version_min: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static FROM_13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];
    static FROM_12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];
    match version_min {
        TlsVersion::V12 => FROM_12,
        TlsVersion::V13 => FROM_13,
    }
}

/// The certificate chain with its key, known to belong together.
fn certified_key(tls: &Tls, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let chain = Pem::read(&tls.certificate)?.certificates()?;
    let key = Pem::read(&tls.key)?.private_key()?;
    let signer = provider
        .key_provider
        .load_private_key(key)
        .map_err(|cause| TlsError::BadKey { file: tls.key.clone(), cause })?;
    let identity = CertifiedKey::new(chain, signer);
    match identity.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(identity),
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err(TlsError::KeyMismatch { certificate: tls.certificate.clone(), key: tls.key.clone() })
        }
        Err(cause) => Err(TlsError::BadCertificate { file: tls.certificate.clone(), cause }),
    }
}

/// What decides on the certificates of clients.
fn client_verifier(
    tls: &Tls,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    if tls.client_certificate == ClientCertificate::None {
        return Ok(Arc::new(NoClientAuth));
    }
    let file = tls.client_ca.as_ref().ok_or(TlsError::NoClientAuthority)?;
    let mut roots = RootCertStore::empty();
    for certificate in Pem::read(file)?.certificates()? {
        roots.add(certificate).map_err(|cause| TlsError::BadCertificate { file: file.clone(), cause })?;
    }
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    if tls.client_certificate == ClientCertificate::Optional {
        builder = builder.allow_unauthenticated();
    }
    builder
        .build()
        .map_err(|cause| TlsError::BadClientAuthorities { file: file.clone(), cause: cause.to_string() })
}

/// A PEM file, read and not yet understood.
struct Pem<'a> {
    file: &'a Path,
    text: Vec<u8>,
}

impl<'a> Pem<'a> {
    fn read(file: &'a Path) -> Result<Self, TlsError> {
        match fs::read(file) {
            Ok(text) => Ok(Self { file, text }),
            Err(cause) => Err(TlsError::Unreadable { file: file.to_path_buf(), cause }),
        }
    }

    /// All certificates, in the order of the file; at least one.
    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(&self.text)
            .collect::<Result<_, _>>()
            .map_err(|cause| self.malformed(&cause))?;
        if certificates.is_empty() { Err(self.missing(PemWanted::Certificate)) } else { Ok(certificates) }
    }

    /// The first private key.
    fn private_key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        // PKCS#8 encrypts under a label of its own; the older forms say so in a header, which is no base64.
        if self.has_line(b"-----BEGIN ENCRYPTED PRIVATE KEY-----") || self.has_line(b"Proc-Type: 4,ENCRYPTED")
        {
            return Err(TlsError::EncryptedKey { file: self.file.to_path_buf() });
        }
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(&self.text) {
            let (kind, der) = section.map_err(|cause| self.malformed(&cause))?;
            match kind {
                SectionKind::PrivateKey => return Ok(PrivatePkcs8KeyDer::from(der).into()),
                SectionKind::RsaPrivateKey => return Ok(PrivatePkcs1KeyDer::from(der).into()),
                SectionKind::EcPrivateKey => return Ok(PrivateSec1KeyDer::from(der).into()),
                _ => {}
            }
        }
        Err(self.missing(PemWanted::PrivateKey))
    }

    fn has_line(&self, start: &[u8]) -> bool {
        self.text.split(|byte| *byte == b'\n').any(|line| line.starts_with(start))
    }

    /// What the file has in place of what was looked for.
    fn found(&self) -> PemFound {
        let labels: Vec<String> = self
            .text
            .split(|byte| *byte == b'\n')
            .filter_map(|line| line.strip_prefix(b"-----BEGIN "))
            .map(|rest| String::from_utf8_lossy(rest).trim_end().trim_end_matches('-').to_owned())
            .collect();
        if self.text.is_empty() {
            PemFound::Nothing
        } else if !labels.is_empty() {
            PemFound::Sections(labels)
        } else if self.text.starts_with(&[0x30]) {
            PemFound::Der
        } else {
            PemFound::Other
        }
    }

    fn missing(&self, wanted: PemWanted) -> TlsError {
        TlsError::Missing { file: self.file.to_path_buf(), wanted, found: self.found() }
    }

    fn malformed(&self, cause: &rustls::pki_types::pem::Error) -> TlsError {
        TlsError::Malformed { file: self.file.to_path_buf(), cause: cause.to_string() }
    }
}

/// Why TLS could not be set up.
#[derive(Debug)]
#[non_exhaustive]
pub enum TlsError {
    /// The file cannot be read.
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// The file is PEM, but broken.
    Malformed {
        /// The file.
        file: PathBuf,
        /// Where it breaks.
        cause: String,
    },
    /// The file has no section of the kind that it is configured for.
    Missing {
        /// The file.
        file: PathBuf,
        /// What it should hold.
        wanted: PemWanted,
        /// What it holds.
        found: PemFound,
    },
    /// The key is protected by a passphrase, which a server has nobody to ask for.
    EncryptedKey {
        /// The file.
        file: PathBuf,
    },
    /// The certificate is none that we understand.
    BadCertificate {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        cause: rustls::Error,
    },
    /// The key is none that we understand.
    BadKey {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        cause: rustls::Error,
    },
    /// The key belongs to another certificate than the first of the chain.
    KeyMismatch {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
    /// Clients shall present certificates, but no file says who may sign them.
    NoClientAuthority,
    /// The authorities of client certificates are unusable.
    BadClientAuthorities {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// The TLS library refuses for a reason that has nothing to do with the files.
    Library(rustls::Error),
}

/// What a PEM file should hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PemWanted {
    /// At least one certificate.
    Certificate,
    /// A private key.
    PrivateKey,
}

/// What a file holds that does not hold what it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PemFound {
    /// It is empty.
    Nothing,
    /// PEM sections with these labels.
    Sections(Vec<String>),
    /// It begins like DER, the binary form.
    Der,
    /// Something that is no PEM.
    Other,
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { file, cause } => write!(f, "cannot read {}: {cause}", file.display()),
            Self::Malformed { file, cause } => write!(
                f,
                "{} is broken PEM ({cause}); it may have been cut short or edited, fetch it anew",
                file.display()
            ),
            Self::Missing { file, wanted, found } => explain_missing(f, file, *wanted, found),
            Self::EncryptedKey { file } => write!(
                f,
                "the key in {0} is encrypted; decrypt it with: openssl pkey -in {0} -out FILE",
                file.display()
            ),
            Self::BadCertificate { file, cause } => {
                write!(f, "{} holds a certificate that cannot be used: {cause}", file.display())
            }
            Self::BadKey { file, cause } => {
                write!(f, "{} holds a key that cannot be used: {cause}", file.display())
            }
            Self::KeyMismatch { certificate, key } => write!(
                f,
                "the key in {} does not belong to the first certificate in {}; \
                 the server's own certificate comes first, then its chain",
                key.display(),
                certificate.display()
            ),
            Self::NoClientAuthority => f.write_str(
                "client certificates are asked for, but no client_ca names the authorities that sign them",
            ),
            Self::BadClientAuthorities { file, cause } => {
                write!(f, "{} cannot be used to check client certificates: {cause}", file.display())
            }
            Self::Library(cause) => write!(f, "TLS cannot be set up: {cause}"),
        }
    }
}

fn explain_missing(
    f: &mut fmt::Formatter<'_>,
    file: &Path,
    wanted: PemWanted,
    found: &PemFound,
) -> fmt::Result {
    let (what, setting, convert) = match wanted {
        PemWanted::Certificate => ("certificate", "certificate", "openssl x509 -inform DER"),
        PemWanted::PrivateKey => ("private key", "key", "openssl pkey -inform DER"),
    };
    let file = file.display();
    write!(f, "{file} has no {what}: ")?;
    match found {
        PemFound::Nothing => write!(f, "it is empty"),
        PemFound::Sections(labels) => {
            write!(f, "it holds {}; check which file is configured as {setting}", Labels(labels))
        }
        PemFound::Der => write!(f, "it looks like DER; convert it with: {convert} -in {file} -out FILE"),
        PemFound::Other => write!(f, "it is not PEM (no line starts with \"-----BEGIN\")"),
    }
}

/// The first few labels of PEM sections, for a message.
struct Labels<'a>(&'a [String]);

impl fmt::Display for Labels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN_MAX: usize = 3;
        f.write_str(&self.0[..self.0.len().min(SHOWN_MAX)].join(", "))?;
        match self.0.len().saturating_sub(SHOWN_MAX) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

impl error::Error for TlsError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Unreadable { cause, .. } => Some(cause),
            Self::BadCertificate { cause, .. } | Self::BadKey { cause, .. } | Self::Library(cause) => {
                Some(cause)
            }
            Self::Malformed { .. }
            | Self::Missing { .. }
            | Self::EncryptedKey { .. }
            | Self::KeyMismatch { .. }
            | Self::NoClientAuthority
            | Self::BadClientAuthorities { .. } => None,
        }
    }
}
