//! PEM files: what is wanted of them, or what they hold instead.

use std::{fs, path::Path};

use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer,
    PrivateSec1KeyDer,
    pem::{PemObject, SectionKind},
};

use super::error::{PemFound, PemWanted, TlsError};

/// A PEM file, read and not yet understood.
pub(super) struct Pem<'a> {
    file: &'a Path,
    text: Vec<u8>,
}

impl<'a> Pem<'a> {
    pub(super) fn read(file: &'a Path) -> Result<Self, TlsError> {
        match fs::read(file) {
            Ok(text) => Ok(Self { file, text }),
            Err(cause) => Err(TlsError::Unreadable { file: file.to_path_buf(), cause }),
        }
    }

    /// All certificates, in the order of the file; at least one.
    pub(super) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(&self.text)
            .collect::<Result<_, _>>()
            .map_err(|cause| self.malformed(&cause))?;
        if certificates.is_empty() { Err(self.missing(PemWanted::Certificate)) } else { Ok(certificates) }
    }

    /// All revocation lists; at least one.
    pub(super) fn revocation_lists(&self) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
        let lists: Vec<_> = CertificateRevocationListDer::pem_slice_iter(&self.text)
            .collect::<Result<_, _>>()
            .map_err(|cause| self.malformed(&cause))?;
        if lists.is_empty() { Err(self.missing(PemWanted::RevocationList)) } else { Ok(lists) }
    }

    /// The first private key.
    pub(super) fn private_key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
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
