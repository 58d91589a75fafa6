//! Why TLS could not be set up, in words that name the file and say what to do.

use std::{
    error, fmt, io,
    path::{Path, PathBuf},
};

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
    /// A revocation list is none that we understand.
    BadRevocationList {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// A certificate for certain host names has none that a client could ask for.
    NoHostName {
        /// The file.
        file: PathBuf,
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
    /// At least one list of revoked certificates.
    RevocationList,
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
            Self::BadRevocationList { file, cause } => {
                write!(f, "{} holds a revocation list that cannot be used: {cause}", file.display())
            }
            Self::NoHostName { file } => write!(
                f,
                "the certificate in {} has no DNS name among its alternative names, so that no client would get it; \
                 make it the listener's main certificate, or leave it out",
                file.display()
            ),
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
        PemWanted::RevocationList => ("revocation list", "client_crl", "openssl crl -inform DER"),
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
            | Self::BadClientAuthorities { .. }
            | Self::BadRevocationList { .. }
            | Self::NoHostName { .. } => None,
        }
    }
}
