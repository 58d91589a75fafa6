//! What decides on the certificates of clients.

use std::{path::Path, sync::Arc};

use rustls::{
    RootCertStore,
    crypto::CryptoProvider,
    pki_types::CertificateRevocationListDer,
    server::{NoClientAuth, VerifierBuilderError, WebPkiClientVerifier, danger::ClientCertVerifier},
};

use crate::config::{ClientCertificate, Doubt, Tls};

use super::{Validity, error::TlsError, pem::Pem};

pub(super) fn of_clients(
    tls: &Tls,
    provider: &Arc<CryptoProvider>,
    validities: &mut Vec<Validity>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    if tls.client_certificate == ClientCertificate::None {
        return Ok(Arc::new(NoClientAuth));
    }
    let first = tls.client_ca.first().ok_or(TlsError::NoClientAuthority)?;
    let roots = Arc::new(authorities(tls, validities)?);
    let builder = || WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(provider));
    let mut lists = Vec::new();
    for file in &tls.client_crl {
        let of_file = Pem::read(file)?.revocation_lists()?;
        // Each file on its own, so that the message can name it.
        builder().with_crls(of_file.iter().cloned()).build().map_err(|cause| bad_list(file, &cause))?;
        validities.extend(of_file.iter().filter_map(|list| Validity::of_revocation_list(file, list)));
        lists.extend(of_file);
    }
    let verifier = with_revocation(tls, builder(), lists);
    let verifier = match tls.client_certificate {
        ClientCertificate::Optional => verifier.allow_unauthenticated(),
        ClientCertificate::None | ClientCertificate::Required => verifier,
    };
    verifier
        .build()
        .map_err(|cause| TlsError::BadClientAuthorities { file: first.clone(), cause: cause.to_string() })
}

/// Every certificate between the client's and the authority is looked up, not only the client's.
fn with_revocation(
    tls: &Tls,
    builder: rustls::server::ClientCertVerifierBuilder,
    lists: Vec<CertificateRevocationListDer<'static>>,
) -> rustls::server::ClientCertVerifierBuilder {
    let mut builder = builder.with_crls(lists);
    if tls.revocation_unknown == Doubt::Allow {
        builder = builder.allow_unknown_revocation_status();
    }
    if tls.revocation_expired == Doubt::Deny {
        builder = builder.enforce_revocation_expiration();
    }
    builder
}

fn authorities(tls: &Tls, validities: &mut Vec<Validity>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for file in &tls.client_ca {
        for certificate in Pem::read(file)?.certificates()? {
            validities.extend(Validity::of_authority(file, &certificate));
            roots.add(certificate).map_err(|cause| TlsError::BadCertificate { file: file.clone(), cause })?;
        }
    }
    Ok(roots)
}

fn bad_list(file: &Path, cause: &VerifierBuilderError) -> TlsError {
    TlsError::BadRevocationList { file: file.to_path_buf(), cause: cause.to_string() }
}
