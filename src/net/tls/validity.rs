//! Until when certificates and revocation lists of a listener are good.

use std::path::{Path, PathBuf};

use x509_parser::{parse_x509_certificate, parse_x509_crl, x509::X509Name};

/// Until when something in a file is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validity {
    /// What it is.
    pub kind: ValidityKind,
    /// The file.
    pub file: PathBuf,
    /// Whom it names: the subject of a certificate, the issuer of a revocation list.
    pub subject: String,
    /// The end, in seconds since 1970.
    pub not_after_secs: i64,
}

/// What is good for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValidityKind {
    /// A certificate that the listener shows to clients.
    Server,
    /// The certificate of an authority that signs those of clients.
    ClientAuthority,
    /// A list of revoked certificates, whose end is the time of its next update.
    RevocationList,
}

impl ValidityKind {
    /// In words, for logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Server => "the server's certificate",
            Self::ClientAuthority => "the certificate of a client authority",
            Self::RevocationList => "a revocation list",
        }
    }
}

const DAY_SECS: i64 = 86_400;

impl Validity {
    pub(super) fn of_server(file: &Path, der: &[u8]) -> Option<Self> {
        Self::of_certificate(ValidityKind::Server, file, der)
    }

    pub(super) fn of_authority(file: &Path, der: &[u8]) -> Option<Self> {
        Self::of_certificate(ValidityKind::ClientAuthority, file, der)
    }

    /// `None` of a certificate that only rustls understands, which says nothing against it.
    fn of_certificate(kind: ValidityKind, file: &Path, der: &[u8]) -> Option<Self> {
        let (_, certificate) = parse_x509_certificate(der).ok()?;
        let not_after_secs = certificate.validity().not_after.timestamp();
        Some(Self { kind, file: file.to_path_buf(), subject: name(certificate.subject()), not_after_secs })
    }

    /// `None` of a list that does not say when the next one comes.
    pub(super) fn of_revocation_list(file: &Path, der: &[u8]) -> Option<Self> {
        let (_, list) = parse_x509_crl(der).ok()?;
        let not_after_secs = list.next_update()?.timestamp();
        let (kind, subject) = (ValidityKind::RevocationList, name(list.issuer()));
        Some(Self { kind, file: file.to_path_buf(), subject, not_after_secs })
    }

    /// Whole days from `now_secs` to the end; negative behind it.
    #[must_use]
    pub fn days_left(&self, now_secs: i64) -> i64 {
        self.not_after_secs.saturating_sub(now_secs).div_euclid(DAY_SECS)
    }
}

/// A name for people. It may hold anything that its issuer has put there, so that line ends are escaped.
fn name(name: &X509Name<'_>) -> String {
    name.to_string()
        .chars()
        .flat_map(|c| {
            if c.is_control() { c.escape_default().to_string() } else { c.to_string() }
                .chars()
                .collect::<Vec<_>>()
        })
        .collect()
}
