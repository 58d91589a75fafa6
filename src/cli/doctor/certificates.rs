//! Certificates of the listeners: whether they can be used, until when, and whether clients are going to believe them.

use std::path::Path;

use rustls::pki_types::{CertificateDer, pem::PemObject};
use x509_parser::{certificate::X509Certificate, parse_x509_certificate};

use crate::{
    config::{Config, Doubt, Listener, Tls, Transport},
    net::{PreparedTransport, Validity, ValidityKind},
};

use super::{Report, machine::wall_clock_secs};

const CHECK: &str = "certificates";
/// Days before the end from which on it is time to renew.
const RENEW_DAYS: i64 = 30;

pub(super) fn look(report: &mut Report, config: &Config) {
    for listener in &config.listeners {
        match &listener.transport {
            Transport::Tls(tls) | Transport::SecureWebSocket(_, tls) => {
                look_at_listener(report, listener, tls)
            }
            Transport::Plain | Transport::WebSocket(_) => {}
        }
    }
}

fn look_at_listener(report: &mut Report, listener: &Listener, tls: &Tls) {
    let name = &listener.name;
    let prepared = match PreparedTransport::of(listener) {
        Ok(prepared) => prepared,
        Err(error) => {
            let advice = "the broker does not start with it; see docs/tls.md";
            return report.problem(CHECK, format!("listener '{name}': {error}"), advice);
        }
    };
    let validities = prepared.tls().map(|live| live.validities()).unwrap_or_default();
    for validity in &validities {
        look_at_end(report, name, validity, tls.revocation_expired);
    }
    let pairs = tls.certificates.iter().map(|files| files.certificate.as_path());
    for file in std::iter::once(tls.certificate.as_path()).chain(pairs) {
        look_at_chain(report, name, file);
    }
}

fn look_at_end(report: &mut Report, listener: &str, validity: &Validity, expired_lists: Doubt) {
    let days = validity.days_left(wall_clock_secs());
    let (kind, file) = (validity.kind.as_str(), validity.file.display());
    let what = |end: String| format!("listener '{listener}': {kind} in {file} ({}) {end}", validity.subject);
    let is_list = validity.kind == ValidityKind::RevocationList;
    if days < 0 {
        let what = what(format!("has ended {} days ago", -days));
        match is_list && expired_lists == Doubt::Allow {
            true => report.warn(CHECK, what, "fetch the new list: revocations since are not known"),
            false => report.problem(CHECK, what, "put a new one in its place; it is in force within seconds"),
        }
    } else if days < RENEW_DAYS && !is_list {
        report.warn(CHECK, what(format!("ends in {days} days")), "renew it; see docs/tls.md");
    } else {
        report.ok(CHECK, what(format!("is good for {days} days")));
    }
}

/// What rustls does not look at, since it is up to clients.
fn look_at_chain(report: &mut Report, listener: &str, file: &Path) {
    // What cannot be read was said before.
    let Ok(iterator) = CertificateDer::pem_file_iter(file) else { return };
    let chain: Vec<CertificateDer<'static>> = iterator.flatten().collect();
    let parsed: Vec<X509Certificate<'_>> =
        chain.iter().filter_map(|der| parse_x509_certificate(der).ok()).map(|(_, parsed)| parsed).collect();
    let Some(first) = parsed.first() else { return };
    let shown = file.display();
    if first.validity().not_before.timestamp() > wall_clock_secs() {
        report.problem(
            CHECK,
            format!(
                "listener '{listener}': the certificate in {shown} is not valid before {}",
                first.validity().not_before
            ),
            "set the clock of this machine, or wait",
        );
    }
    if !matches!(first.subject_alternative_name(), Ok(Some(_))) {
        report.warn(
            CHECK,
            format!("listener '{listener}': the certificate in {shown} has no alternative names"),
            "have one issued with the host name as subjectAltName: most clients refuse it without",
        );
    }
    let broken = parsed.windows(2).find(|pair| pair[0].issuer() != pair[1].subject());
    let last = parsed.last().unwrap_or(first);
    if let Some(pair) = broken {
        report.problem(
            CHECK,
            format!(
                "listener '{listener}': in {shown}, \"{}\" is followed by \"{}\", which is not its issuer",
                pair[0].subject(),
                pair[1].subject()
            ),
            "write each certificate behind the one that it has issued, the server's own first",
        );
    } else if last.issuer() == last.subject() {
        report.ok(CHECK, format!("listener '{listener}': the chain in {shown} is whole"));
    } else {
        let issuer = last.issuer();
        report.ok(
            CHECK,
            format!("listener '{listener}': clients have to trust \"{issuer}\", which has issued {shown}"),
        );
    }
}
