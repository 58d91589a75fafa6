//! TLS for the client commands.
//!
//! rumqttc's own TLS links a second, outdated webpki and an unmaintained PEM reader. So rumqttc speaks to a
//! Unix socket in a private directory, and a tunnel carries its bytes over TLS with the rustls that the
//! broker uses.

use std::{
    cell::RefCell,
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpStream, UnixListener, UnixStream},
};
use tokio_rustls::TlsConnector;

use super::{bracketed, explain_io, read};

/// Where systems keep the authorities that they trust.
const SYSTEM_AUTHORITIES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

#[derive(Debug, Args)]
#[command(next_help_heading = "TLS")]
pub(in crate::cli) struct Security {
    /// Use TLS and trust the authorities of the system
    #[arg(long, visible_alias = "tls-use-os-certs", conflicts_with = "unix")]
    tls: bool,
    /// Use TLS and trust the authorities in this PEM file
    #[arg(long, value_name = "FILE", conflicts_with = "unix")]
    cafile: Option<PathBuf>,
    /// PEM file: the certificate of this client and its chain
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// PEM file: the private key of this client
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Accept a certificate of the broker that is for another name; it must still be signed by the authority
    #[arg(long)]
    insecure: bool,
}

/// A local socket whose connections continue over TLS.
pub(super) struct Tunnel {
    directory: PathBuf,
    listener: UnixListener,
    connector: TlsConnector,
    address: String,
    name: ServerName<'static>,
    /// Why the last connection failed; all that rumqttc sees is that it ended.
    error: RefCell<Option<String>>,
}

impl Security {
    pub(in crate::cli) fn wanted(&self) -> bool {
        self.tls || self.cafile.is_some() || self.cert.is_some()
    }

    /// Refuses options that mean nothing without TLS.
    pub(in crate::cli) fn check_unused(&self) -> Result<(), String> {
        if self.insecure { Err("--insecure has no effect without --cafile or --tls".into()) } else { Ok(()) }
    }

    /// The tunnel, if TLS is wanted.
    pub(super) fn tunnel(&self, host: &str, port: u16) -> Result<Option<Tunnel>, String> {
        if !self.wanted() {
            return self.check_unused().map(|()| None);
        }
        let name = server_name(host)?;
        let connector = TlsConnector::from(Arc::new(self.config()?));
        let directory = private_directory().map_err(|error| format!("temporary directory: {error}"))?;
        let listener =
            UnixListener::bind(socket(&directory)).map_err(|error| format!("local socket: {error}"))?;
        let address = format!("{}:{port}", bracketed(host));
        Ok(Some(Tunnel { directory, listener, connector, address, name, error: RefCell::default() }))
    }

    /// What the options ask for; the authorities of the system without `--cafile`.
    pub(in crate::cli) fn config(&self) -> Result<ClientConfig, String> {
        let roots = Arc::new(self.authorities()?);
        let builder = if self.insecure {
            let strict = WebPkiServerVerifier::builder(roots).build().map_err(|error| error.to_string())?;
            let any_name = Arc::new(AnyName(strict));
            ClientConfig::builder().dangerous().with_custom_certificate_verifier(any_name)
        } else {
            ClientConfig::builder().with_root_certificates(roots)
        };
        let (Some(certificate), Some(key)) = (&self.cert, &self.key) else {
            return Ok(builder.with_no_client_auth());
        };
        let chain = certificates("--cert", certificate)?;
        let key_path = key;
        let key = PrivateKeyDer::from_pem_slice(&read("--key", key)?)
            .map_err(|error| format!("--key {}: {error}", key_path.display()))?;
        builder.with_client_auth_cert(chain, key).map_err(|error| format!("--cert, --key: {error}"))
    }

    fn authorities(&self) -> Result<RootCertStore, String> {
        let system = || SYSTEM_AUTHORITIES.iter().map(PathBuf::from).find(|path| path.exists());
        let path = self
            .cafile
            .clone()
            .or_else(system)
            .ok_or("this system has no list of authorities, use --cafile")?;
        let mut roots = RootCertStore::empty();
        let (added, _) = roots.add_parsable_certificates(certificates("--cafile", &path)?);
        if added == 0 {
            return Err(format!("--cafile {}: no certificate of an authority in it", path.display()));
        }
        Ok(roots)
    }
}

/// The name that the broker's certificate must have.
pub(in crate::cli) fn server_name(host: &str) -> Result<ServerName<'static>, String> {
    let bare = host.trim_matches(['[', ']']).to_owned();
    ServerName::try_from(bare).map_err(|_| format!("{host} is no host name and no address"))
}

fn certificates(option: &str, path: &PathBuf) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = read(option, path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => {
            Err(format!("{option} {}: no certificate in it", path.display()))
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(format!("{option} {}: {error}", path.display())),
    }
}

impl Tunnel {
    /// The path for rumqttc.
    pub(super) fn socket(&self) -> PathBuf {
        socket(&self.directory)
    }

    /// Why the last connection failed, once.
    pub(super) fn take_error(&self) -> Option<String> {
        self.error.take()
    }

    /// Carries one connection after the other, for ever; without tunnel does nothing, for ever.
    pub(super) async fn run(tunnel: Option<&Self>) {
        let Some(tunnel) = tunnel else { return std::future::pending().await };
        while let Ok((local, _)) = tunnel.listener.accept().await {
            if let Err(error) = tunnel.carry(local).await {
                tunnel.error.replace(Some(error));
            }
        }
    }

    async fn carry(&self, mut local: UnixStream) -> Result<(), String> {
        let socket = TcpStream::connect(&self.address).await.map_err(|error| explain_io(&error))?;
        socket.set_nodelay(true).map_err(|error| explain_io(&error))?;
        let connected = self.connector.connect(self.name.clone(), socket).await;
        let mut stream = connected.map_err(|error| format!("TLS: {}", explain_io(&error)))?;
        match copy_bidirectional(&mut local, &mut stream).await {
            // A peer that closes without close_notify has closed all the same.
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
                Err(format!("TLS: {}", explain_io(&error)))
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn socket(directory: &Path) -> PathBuf {
    directory.join("tls")
}

/// A new directory that only this user may enter. That it must not exist keeps others from preparing it.
fn private_directory() -> io::Result<PathBuf> {
    let mut tries = 0;
    loop {
        let path = std::env::temp_dir().join(format!("dunlin-{}-{tries}", std::process::id()));
        match fs::DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && tries < 100 => tries += 1,
            result => return result.map(|()| path),
        }
    }
}

/// Verifies all but the name.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        use CertificateError::{NotValidForName, NotValidForNameContext};
        // The name is what the verifier checks last, so that this error says that all else is right.
        match self.0.verify_server_cert(end_entity, intermediates, name, ocsp, now) {
            Err(rustls::Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. })) => {
                Ok(ServerCertVerified::assertion())
            }
            result => result,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
