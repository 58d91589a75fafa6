//! Which certificate a client gets (SNI), by which suite it speaks, and whether its session is resumed.

use std::sync::Arc;

use dunlin::{
    config::{CertificateFiles, CipherSuite, Transport},
    net::{ApplicationProtocol, TlsError, server_config},
};
use rcgen::{ExtendedKeyUsagePurpose, KeyPair};
use rustls::{ClientConfig, HandshakeKind, crypto::aws_lc_rs, pki_types::ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    Server,
    certificates::{Identity, Site},
    within,
};

/// A site with these further certificates.
fn with(site: &mut Site, identities: &[&Identity]) {
    let files = |(index, identity): (usize, &&Identity)| CertificateFiles {
        certificate: site.directory.write(&format!("{index}.crt"), &identity.pem),
        key: site.directory.write(&format!("{index}.key"), identity.key.serialize_pem()),
    };
    site.tls.certificates = identities.iter().enumerate().map(files).collect();
}

/// The client's side of a connection on which the server has said something.
async fn connect(
    server: &Server,
    config: &Arc<ClientConfig>,
    name: &str,
) -> TlsStream<tokio::net::TcpStream> {
    let client = async {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let connector = TlsConnector::from(Arc::clone(config));
        let mut stream = connector.connect(name, server.connect().await).await.unwrap();
        let mut greeting = [0; 2];
        stream.read_exact(&mut greeting).await.unwrap();
        stream
    };
    let served = async {
        let mut stream = server.accept().await.unwrap();
        stream.write_all(b"hi").await.unwrap();
        stream.flush().await.unwrap();
    };
    within(async { tokio::join!(served, client) }).await.1
}

/// A client that takes any certificate, as it is asked for names that the certificate does not have.
fn unchecked(site: &Site) -> Arc<ClientConfig> {
    let mut config = Arc::unwrap_or_clone(site.trusting_client().config());
    config.dangerous().set_certificate_verifier(Arc::new(anything::Anything));
    Arc::new(config)
}

#[tokio::test]
async fn the_certificate_is_that_of_the_host_name() {
    let mut site = Site::new();
    let key = || KeyPair::generate().unwrap();
    let main = site.authority.server(&["main.example.org"], key());
    crate::certificates::rewrite(&site.tls.certificate, &main.pem);
    crate::certificates::rewrite(&site.tls.key, main.key.serialize_pem());
    let one = site.authority.server(&["one.example.org", "uno.example.org"], key());
    let wild = site.authority.server(&["*.example.org"], key());
    let deep = site.authority.server(&["*.deep.example.org"], key());
    with(&mut site, &[&one, &wild, &deep]);
    let server = Server::start(Transport::Tls(site.tls.clone()));
    for (name, expected) in [
        ("main.example.org", &main),
        ("one.example.org", &one),
        ("ONE.Example.ORG", &one),
        ("uno.example.org", &one),
        ("two.example.org", &wild),
        ("deep.example.org", &wild),
        ("a.deep.example.org", &deep),
        // A wildcard is one label.
        ("a.b.deep.example.org", &main),
        ("example.org", &main),
        ("example.net", &main),
        // No SNI at all.
        ("127.0.0.1", &main),
    ] {
        let client = connect(&server, &unchecked(&site), name).await;
        assert!(client.get_ref().1.peer_certificates().unwrap()[0] == expected.der, "{name}");
    }
}

/// Two certificates of one name: the client gets the one that it can check.
#[tokio::test]
async fn of_two_keys_the_client_gets_the_one_that_it_understands() {
    let mut site = Site::new();
    let ecdsa = site.authority.server(&["a.example.org"], KeyPair::generate().unwrap());
    let rsa_key = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let rsa = site.authority.server(&["a.example.org"], rsa_key);
    with(&mut site, &[&rsa, &ecdsa]);
    let server = Server::start(Transport::Tls(site.tls.clone()));
    let client = connect(&server, &site.trusting_client().config(), "a.example.org").await;
    assert!(client.get_ref().1.peer_certificates().unwrap()[0] == rsa.der, "the first of the file");
    let mut config = Arc::unwrap_or_clone(site.trusting_client().config());
    config.dangerous().set_certificate_verifier(Arc::new(anything::OnlyEcdsa));
    let client = connect(&server, &Arc::new(config), "a.example.org").await;
    assert!(client.get_ref().1.peer_certificates().unwrap()[0] == ecdsa.der);
}

#[test]
fn a_further_certificate_needs_a_host_name() {
    let mut site = Site::new();
    let nameless = site.authority.client(|params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    with(&mut site, &[&nameless]);
    let error = server_config(&site.tls, ApplicationProtocol::Mqtt).unwrap_err();
    assert!(matches!(error, TlsError::NoHostName { .. }), "{error}");
    assert!(error.to_string().contains("0.crt"), "{error}");
}

#[tokio::test]
async fn sessions_are_resumed_in_both_versions() {
    let site = Site::new();
    let server = Server::start(Transport::Tls(site.tls.clone()));
    for version in rustls::ALL_VERSIONS {
        let client = crate::certificates::TestClient { versions: &[version], ..site.trusting_client() };
        let config = client.config();
        for expected in [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Resumed] {
            let client = connect(&server, &config, "localhost").await;
            assert_eq!(client.get_ref().1.handshake_kind(), Some(expected), "{version:?}");
        }
    }
}

#[tokio::test]
async fn only_the_configured_suites_are_spoken_and_their_order_counts() {
    let mut site = Site::new();
    site.tls.cipher_suites = vec![CipherSuite::ChaCha20, CipherSuite::Aes128, CipherSuite::EcdsaChaCha20];
    let server = Server::start(Transport::Tls(site.tls.clone()));
    for (version, expected) in [
        (&rustls::version::TLS13, rustls::CipherSuite::TLS13_CHACHA20_POLY1305_SHA256),
        (&rustls::version::TLS12, rustls::CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ] {
        let client = crate::certificates::TestClient { versions: &[version], ..site.trusting_client() };
        let client = connect(&server, &client.config(), "localhost").await;
        let suite = client.get_ref().1.negotiated_cipher_suite().unwrap().suite();
        assert_eq!(suite, expected);
    }
    assert_ne!(
        aws_lc_rs::DEFAULT_CIPHER_SUITES[0].suite(),
        rustls::CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
    );
}

/// Clients without judgement.
mod anything {
    use rustls::{
        DigitallySignedStruct, Error, SignatureScheme,
        client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        pki_types::{CertificateDer, ServerName, UnixTime},
    };

    macro_rules! verifier {
        ($name:ident, $schemes:expr) => {
            #[derive(Debug)]
            pub(super) struct $name;

            impl ServerCertVerifier for $name {
                fn verify_server_cert(
                    &self,
                    _: &CertificateDer<'_>,
                    _: &[CertificateDer<'_>],
                    _: &ServerName<'_>,
                    _: &[u8],
                    _: UnixTime,
                ) -> Result<ServerCertVerified, Error> {
                    Ok(ServerCertVerified::assertion())
                }

                fn verify_tls12_signature(
                    &self,
                    _: &[u8],
                    _: &CertificateDer<'_>,
                    _: &DigitallySignedStruct,
                ) -> Result<HandshakeSignatureValid, Error> {
                    Ok(HandshakeSignatureValid::assertion())
                }

                fn verify_tls13_signature(
                    &self,
                    _: &[u8],
                    _: &CertificateDer<'_>,
                    _: &DigitallySignedStruct,
                ) -> Result<HandshakeSignatureValid, Error> {
                    Ok(HandshakeSignatureValid::assertion())
                }

                fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
                    $schemes
                }
            }
        };
    }

    verifier!(Anything, vec![SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::RSA_PSS_SHA256]);
    verifier!(OnlyEcdsa, vec![SignatureScheme::ECDSA_NISTP256_SHA256]);
}
