//! `dunlin certs`: a certificate authority, a server and a client certificate for development.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use time::{Duration, OffsetDateTime};

use super::{FAILURE, USAGE, complain, print};

/// Names that every server certificate has.
const LOCAL_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

#[derive(Debug, Args)]
#[command(after_help = "\
Writes ca.pem, server.pem and client.pem with ca.key, server.key and client.key (mode 0600), ECDSA P-256.
They are for development: who has ca.key can impersonate every server and client that trusts ca.pem.

Example:
  dunlin certs certs --name broker.lan --name 192.168.1.5")]
pub(super) struct Arguments {
    /// The directory to write to; made if it does not exist
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// A host name or IP address of the server besides localhost, 127.0.0.1 and ::1; repeatable
    #[arg(long, value_name = "HOST")]
    name: Vec<String>,
    /// Days that the certificates are valid
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u16).range(1..=36_500))]
    days: u16,
    /// Overwrite files that exist
    #[arg(long)]
    force: bool,
}

pub(super) fn main(arguments: &Arguments) -> ExitCode {
    let files = match generate(arguments) {
        Ok(files) => files,
        Err(error) => {
            complain(error);
            return USAGE.into();
        }
    };
    match write(&files, arguments) {
        Ok(()) => print(next_steps(&arguments.directory)),
        Err(error) => {
            complain(error);
            FAILURE.into()
        }
    }
}

/// A file to write.
struct File {
    name: &'static str,
    text: String,
    visibility: Visibility,
}

/// Who may read a file.
enum Visibility {
    Everybody,
    Owner,
}

fn generate(arguments: &Arguments) -> Result<Vec<File>, rcgen::Error> {
    let names = LOCAL_NAMES.iter().map(ToString::to_string).chain(arguments.name.iter().cloned()).collect();
    let mut ca = parameters(vec![], "Dunlin development CA", arguments.days)?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut files = pair(["ca.pem", "ca.key"], ca.self_signed(&ca_key)?.pem(), &ca_key);
    let issuer = Issuer::new(ca, ca_key);

    let server = parameters(names, "localhost", arguments.days)?;
    let client = parameters(vec![], "client", arguments.days)?;
    let leaves = [
        (["server.pem", "server.key"], server, ExtendedKeyUsagePurpose::ServerAuth),
        (["client.pem", "client.key"], client, ExtendedKeyUsagePurpose::ClientAuth),
    ];
    for (names, mut leaf, usage) in leaves {
        leaf.use_authority_key_identifier_extension = true;
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![usage];
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        files.extend(pair(names, leaf.signed_by(&key, &issuer)?.pem(), &key));
    }
    Ok(files)
}

fn parameters(names: Vec<String>, common_name: &str, days: u16) -> Result<CertificateParams, rcgen::Error> {
    let mut parameters = CertificateParams::new(names)?;
    // Clocks of small devices are late; an hour bears with them.
    parameters.not_before = OffsetDateTime::now_utc() - Duration::hours(1);
    parameters.not_after = OffsetDateTime::now_utc() + Duration::days(days.into());
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, common_name);
    Ok(parameters)
}

fn pair([certificate, key]: [&'static str; 2], pem: String, pair: &KeyPair) -> Vec<File> {
    vec![
        File { name: certificate, text: pem, visibility: Visibility::Everybody },
        File { name: key, text: pair.serialize_pem(), visibility: Visibility::Owner },
    ]
}

/// Writes all files or, if one exists and that is not allowed, none.
fn write(files: &[File], arguments: &Arguments) -> Result<(), String> {
    let directory = &arguments.directory;
    fs::create_dir_all(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let existing = files.iter().map(|file| directory.join(file.name)).find(|path| path.exists());
    if let Some(path) = existing.filter(|_| !arguments.force) {
        return Err(format!("{} exists; --force overwrites it and its siblings", path.display()));
    }
    for file in files {
        let path = directory.join(file.name);
        replace(&path, file).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

/// Writes a file anew. An old one is removed first, as it would keep its mode.
fn replace(path: &Path, file: &File) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(
        &mut options,
        match file.visibility {
            Visibility::Everybody => 0o644,
            Visibility::Owner => 0o600,
        },
    );
    options.open(path)?.write_all(file.text.as_bytes())
}

fn next_steps(directory: &Path) -> String {
    let absolute = std::path::absolute(directory).unwrap_or_else(|_| directory.into());
    let path =
        |file: &str| toml::Value::String(absolute.join(file).to_string_lossy().into_owned()).to_string();
    let shell = directory.display();
    format!(
        "\
# Certificates are in {shell}. In the configuration of the broker:

[[listeners]]
kind = \"tls\"
address = \"127.0.0.1:8883\"
[listeners.tls]
certificate = {certificate}
key = {key}
# To let in only clients that have a certificate of this authority:
# client_ca = {ca}
# client_certificate = \"required\"

# A client:
#   dunlin sub --cafile {shell}/ca.pem -p 8883 -t '#' -v
#   mosquitto_sub --cafile {shell}/ca.pem -h localhost -p 8883 -t '#' -v
# With its own certificate: --cert {shell}/client.pem --key {shell}/client.key
",
        certificate = path("server.pem"),
        key = path("server.key"),
        ca = path("ca.pem"),
    )
}
