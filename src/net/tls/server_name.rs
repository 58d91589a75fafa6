//! Which certificate a client gets: that of the host name that it asks for (SNI), else the listener's main one.

use std::{collections::BTreeMap, sync::Arc};

use rustls::{
    SignatureScheme,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use x509_parser::{extensions::GeneralName, parse_x509_certificate};

/// The certificates of a listener by the host names that they are for.
#[derive(Debug)]
pub(super) struct ByServerName {
    /// For clients that name no host, or one that no certificate is for.
    main: Arc<CertifiedKey>,
    /// By names in lower case. There may be several of one name, with keys of different kinds.
    exact: BTreeMap<Box<str>, Vec<Arc<CertifiedKey>>>,
    /// By what follows the `*.` of their names.
    wildcard: BTreeMap<Box<str>, Vec<Arc<CertifiedKey>>>,
}

/// A certificate is for no host name at all.
pub(super) struct NoName;

impl ByServerName {
    pub(super) fn new(main: CertifiedKey) -> Self {
        let main = Arc::new(main);
        let mut names = Self { main: Arc::clone(&main), exact: BTreeMap::new(), wildcard: BTreeMap::new() };
        // Without names of its own it serves all the same.
        let _ = names.insert(&main);
        names
    }

    pub(super) fn add(&mut self, identity: CertifiedKey) -> Result<(), NoName> {
        self.insert(&Arc::new(identity))
    }

    fn insert(&mut self, identity: &Arc<CertifiedKey>) -> Result<(), NoName> {
        let names = identity.end_entity_cert().map(|der| host_names(der)).unwrap_or_default();
        for name in &names {
            let (map, name) = match name.strip_prefix("*.") {
                Some(domain) => (&mut self.wildcard, domain),
                None => (&mut self.exact, name.as_str()),
            };
            map.entry(name.into()).or_default().push(Arc::clone(identity));
        }
        if names.is_empty() { Err(NoName) } else { Ok(()) }
    }

    /// The certificate for a host name, with a key that the client can check if there is one.
    fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> &Arc<CertifiedKey> {
        let name = name.map(|name| name.trim_end_matches('.').to_ascii_lowercase());
        let found = name.as_deref().and_then(|name| {
            // A wildcard stands for one label.
            self.exact.get(name).or_else(|| self.wildcard.get(name.split_once('.')?.1))
        });
        let Some(named) = found else { return &self.main };
        let fitting = named.iter().find(|identity| identity.key.choose_scheme(schemes).is_some());
        fitting.or(named.first()).unwrap_or(&self.main)
    }
}

impl ResolvesServerCert for ByServerName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(self.choose(hello.server_name(), hello.signature_schemes())))
    }
}

/// The DNS names among a certificate's alternative names, in lower case. Its common name counts as none: clients do
/// not look at it either.
fn host_names(der: &[u8]) -> Vec<String> {
    let Ok((_, certificate)) = parse_x509_certificate(der) else { return Vec::new() };
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    let names = extension.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.trim_end_matches('.').to_ascii_lowercase()),
        _ => None,
    });
    names.filter(|name| !name.is_empty()).collect()
}
