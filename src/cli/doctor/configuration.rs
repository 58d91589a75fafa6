//! The files of the configuration: which was read, and who may read and change them.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use crate::config::{Config, Transport, auth::Backend, auth::jwt::JwtKeys};

use super::Report;

const CHECK: &str = "configuration";

pub(super) fn look(report: &mut Report, file: Option<&Path>, config: &Config) {
    match file {
        Some(file) => {
            report.ok(CHECK, format!("{} is right", file.display()));
            look_at_writers(report, file);
        }
        None => report.ok(CHECK, "no file, the defaults apply"),
    }
    for file in secrets(config) {
        look_at_readers(report, file);
        look_at_writers(report, file);
    }
}

/// Files that nobody else may read.
fn secrets(config: &Config) -> Vec<&Path> {
    let keys = config.listeners.iter().filter_map(|listener| match &listener.transport {
        Transport::Tls(tls) | Transport::SecureWebSocket(_, tls) => Some(tls),
        Transport::Plain | Transport::WebSocket(_) => None,
    });
    let keys = keys.flat_map(|tls| {
        std::iter::once(tls.key.as_path()).chain(tls.certificates.iter().map(|files| files.key.as_path()))
    });
    let others = config.auth.backends.values().filter_map(|backend| match backend {
        Backend::PasswordFile(settings) => Some(settings.file.as_path()),
        Backend::Jwt(settings) => match &settings.keys {
            JwtKeys::SecretFile(file, _) | JwtKeys::KeySetFile(file) => Some(file.as_path()),
            JwtKeys::SecretVariable(..) | JwtKeys::PublicKeyFile(_) | JwtKeys::KeySetUrl(_) => None,
        },
        Backend::Webhook(_) => None,
    });
    let mut files: Vec<&Path> = keys.chain(others).collect();
    files.sort_unstable();
    files.dedup();
    files
}

fn look_at_readers(report: &mut Report, file: &Path) {
    let shown = file.display();
    match fs::metadata(file) {
        Ok(data) if data.mode() & 0o004 != 0 => report.warn(
            "secrets",
            format!("{shown} can be read by every user of this machine (mode {:o})", data.mode() & 0o777),
            format!("chmod 640 {shown}, with the group of the broker's user"),
        ),
        Ok(data) => report.ok("secrets", format!("{shown} has mode {:o}", data.mode() & 0o777)),
        Err(error) => report.problem(
            "secrets",
            format!("{shown} cannot be looked at: {error}"),
            "name the right file, or let the broker's user read it",
        ),
    }
}

fn look_at_writers(report: &mut Report, file: &Path) {
    let Ok(data) = fs::metadata(file) else { return };
    if data.mode() & 0o002 != 0 {
        let shown = file.display();
        report.problem(
            CHECK,
            format!("{shown} can be changed by every user of this machine (mode {:o})", data.mode() & 0o777),
            format!("chmod o-w {shown}, after a look at what is in it"),
        );
    }
}
