//! TLS: versions, client certificates, ALPN, and what is said about bad files.

use std::{path::PathBuf, sync::Arc};

use dunlin::{
    config::{ClientCertificate, TlsVersion, Transport},
    net::{ApplicationProtocol, TlsError, TransportKind, UpgradeError, server_config},
};
use rcgen::{ExtendedKeyUsagePurpose, KeyPair};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    Server,
    certificates::{AUTHORITY, Authority, Identity, Site, TestClient, pem, rewrite},
    within,
};

/// Connects as `client` does, says `ping`, and expects `pong` from the server.
pub(crate) async fn handshake(
    server: &Server,
    client: &TestClient<'_>,
) -> (Result<dunlin::net::Stream, UpgradeError>, Option<TlsStream<tokio::net::TcpStream>>) {
    let connector = TlsConnector::from(client.config());
    let client = async {
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = connector.connect(name, server.connect().await).await.ok()?;
        stream.write_all(b"ping").await.ok()?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await.ok()?;
        assert_eq!(&answer, b"pong");
        Some(stream)
    };
    let served = async {
        let mut stream = server.accept().await?;
        let mut question = [0; 4];
        stream.read_exact(&mut question).await.unwrap();
        assert_eq!(&question, b"ping");
        stream.write_all(b"pong").await.unwrap();
        stream.flush().await.unwrap();
        Ok(stream)
    };
    within(async { tokio::join!(served, client) }).await
}

#[tokio::test]
async fn both_versions_are_spoken_and_the_oldest_can_be_set() {
    use rustls::version::{TLS12, TLS13};

    for (version_min, version, expected) in [
        (TlsVersion::V12, &TLS12, true),
        (TlsVersion::V12, &TLS13, true),
        (TlsVersion::V13, &TLS12, false),
        (TlsVersion::V13, &TLS13, true),
    ] {
        let mut site = Site::new();
        site.tls.version_min = version_min;
        let server = Server::start(Transport::Tls(site.tls.clone()));
        let (served, client) =
            handshake(&server, &TestClient { versions: &[version], ..site.trusting_client() }).await;
        assert_eq!(served.is_ok(), expected, "{version_min:?} against {version:?}: {:?}", served.err());
        assert_eq!(client.is_some(), expected);
        if let Some(client) = client {
            assert_eq!(client.get_ref().1.protocol_version(), Some(version.version));
            let stream = served.unwrap();
            assert_eq!(stream.transport(), TransportKind::Tls);
            assert_eq!(stream.peer_certificates(), None);
        }
    }
}

#[tokio::test]
async fn client_certificates_are_asked_for_as_configured() {
    use ClientCertificate::{None as NotAsked, Optional, Required};

    let mut site = Site::new();
    site.tls.client_ca = vec![site.directory.write("ca.crt", &site.authority.pem)];
    let trusted = site.authority.issue(ExtendedKeyUsagePurpose::ClientAuth);
    let stranger = Authority::new("stranger").issue(ExtendedKeyUsagePurpose::ClientAuth);
    let namesake = Authority::new(AUTHORITY).issue(ExtendedKeyUsagePurpose::ClientAuth);
    let wrong_purpose = site.authority.issue(ExtendedKeyUsagePurpose::ServerAuth);

    /// What the server makes of a client: its certificate seen or not, or a refusal that says why.
    enum Outcome {
        Anonymous,
        Identified,
        Refused(&'static str),
    }
    use Outcome::{Anonymous, Identified, Refused};

    let table: [(ClientCertificate, Option<&Identity>, Outcome); 10] = [
        (NotAsked, None, Anonymous),
        (NotAsked, Some(&trusted), Anonymous),
        (Optional, None, Anonymous),
        (Optional, Some(&trusted), Identified),
        (Optional, Some(&stranger), Refused("signed by none of the listener's client_ca")),
        (Required, None, Refused("client presented no certificate, which this listener requires")),
        (Required, Some(&trusted), Identified),
        (Required, Some(&stranger), Refused("signed by none of the listener's client_ca")),
        (Required, Some(&namesake), Refused("signed by none of the listener's client_ca")),
        (Required, Some(&wrong_purpose), Refused("invalid peer certificate")),
    ];
    for (row, (asked, identity, outcome)) in table.into_iter().enumerate() {
        site.tls.client_certificate = asked;
        for version in rustls::ALL_VERSIONS {
            let server = Server::start(Transport::Tls(site.tls.clone()));
            let client = TestClient { identity, versions: &[version], ..site.trusting_client() };
            let (served, _client) = handshake(&server, &client).await;
            match (&outcome, served) {
                (Anonymous, Ok(stream)) => assert_eq!(stream.peer_certificates(), None, "row {row}"),
                (Identified, Ok(stream)) => {
                    assert_eq!(stream.peer_certificates().unwrap()[0], trusted.der, "row {row}");
                }
                (Refused(reason), Err(error)) => {
                    assert!(error.to_string().contains(reason), "row {row}: {error}");
                }
                (_, served) => panic!("row {row}: {served:?}"),
            }
        }
    }
}

#[tokio::test]
async fn reloading_serves_the_new_certificate_or_keeps_the_old_one() {
    let mut site = Site::new();
    let server = Server::start(Transport::Tls(site.tls.clone()));
    let client = site.trusting_client().config();
    let serves = async |identity: &Identity| {
        // The same configuration, so that the client presents the tickets that it got before.
        let connector = TlsConnector::from(Arc::clone(&client));
        let name = ServerName::try_from("localhost").unwrap();
        let connect = async { connector.connect(name, server.connect().await).await.unwrap() };
        let (served, client) = within(async { tokio::join!(server.accept(), connect) }).await;
        served.unwrap();
        assert_eq!(client.get_ref().1.peer_certificates().unwrap()[0], identity.der);
    };
    let (first, second) = (
        site.authority.issue(ExtendedKeyUsagePurpose::ServerAuth),
        site.authority.issue(ExtendedKeyUsagePurpose::ServerAuth),
    );
    for identity in [&first, &second] {
        rewrite(&site.tls.certificate, &identity.pem);
        rewrite(&site.tls.key, identity.key.serialize_pem());
        server.transport.tls().unwrap().reload().unwrap();
        serves(identity).await;
    }
    site.tls.key = site.directory.path("absent.key");
    server.transport.tls().unwrap().reload_as(&site.tls).unwrap_err();
    serves(&second).await;
}

#[tokio::test]
async fn alpn_is_answered_ignored_or_refused() {
    let site = Site::new();
    let server = Server::start(Transport::Tls(site.tls.clone()));
    for (offered, expected) in [
        (&[] as &[&[u8]], Some(None)),
        (&[b"mqtt"], Some(Some(b"mqtt" as &[u8]))),
        (&[b"h2", b"mqtt"], Some(Some(b"mqtt"))),
        (&[b"h2"], None),
    ] {
        let (_served, client) =
            handshake(&server, &TestClient { alpn: offered, ..site.trusting_client() }).await;
        let chosen = client.map(|client| client.get_ref().1.alpn_protocol().map(<[u8]>::to_vec));
        assert_eq!(chosen, expected.map(|id| id.map(<[u8]>::to_vec)), "{offered:?}");
    }
}

#[tokio::test]
async fn a_wrong_protocol_on_a_tls_port_is_named() {
    let site = Site::new();
    let server = Server::start(Transport::Tls(site.tls.clone()));
    for (sent, message) in [
        (&b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00"[..], "client spoke plain MQTT to a TLS port"),
        (b"GET / HTTP/1.1\r\n\r\n", "client spoke plain HTTP to a TLS port"),
        (b"", "client left before it was done"),
    ] {
        let client = async {
            let mut stream = server.connect().await;
            stream.write_all(sent).await.unwrap();
            stream.shutdown().await.unwrap();
            stream
        };
        let (served, _client) = within(async { tokio::join!(server.accept(), client) }).await;
        let text = served.unwrap_err().to_string();
        assert_eq!(text, format!("TLS handshake: {message}"));
    }
}

#[tokio::test]
async fn a_client_without_trust_in_the_server_is_told_of() {
    let (site, elsewhere) = (Site::new(), Site::new());
    let server = Server::start(Transport::Tls(site.tls.clone()));
    let (served, client) = handshake(&server, &elsewhere.trusting_client()).await;
    assert!(client.is_none());
    let text = served.unwrap_err().to_string();
    assert!(text.starts_with("TLS handshake: client does not trust the server's certificate"), "{text}");
}

#[tokio::test]
async fn leaving_without_close_notify_is_end_of_file() {
    let site = Site::new();
    let server = Server::start(Transport::Tls(site.tls.clone()));
    let (served, client) = handshake(&server, &site.trusting_client()).await;
    let (mut raw, _session) = client.unwrap().into_inner();
    raw.shutdown().await.unwrap();
    assert_eq!(within(served.unwrap().read(&mut [0; 8])).await.unwrap(), 0);
}

#[tokio::test]
async fn shutdown_says_close_notify() {
    let site = Site::new();
    let server = Server::start(Transport::Tls(site.tls.clone()));
    let (served, client) = handshake(&server, &site.trusting_client()).await;
    within(served.unwrap().shutdown()).await.unwrap();
    // The client's TLS makes a missing close_notify an error.
    assert_eq!(within(client.unwrap().read(&mut [0; 8])).await.unwrap(), 0);
}

/// The three forms that private keys come in. The older two are cut out of PKCS#8 by hand.
#[tokio::test]
async fn keys_of_all_three_forms_serve() {
    let rsa = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    // 26 bytes: the sequence's head, version, algorithm, and the octet string's head.
    let pkcs1 = pem("RSA PRIVATE KEY", &rsa.serialize_der()[26..]);
    let ec = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let sec1 = pem("EC PRIVATE KEY", &sec1_of_p256(&ec));
    let pkcs8 = KeyPair::generate().unwrap();
    let pkcs8_pem = pkcs8.serialize_pem();
    for (key, written) in [(rsa, pkcs1), (ec, sec1), (pkcs8, pkcs8_pem)] {
        let site = Site::new();
        let identity = site.authority.issue_for(key, ExtendedKeyUsagePurpose::ServerAuth);
        rewrite(&site.tls.certificate, identity.pem);
        rewrite(&site.tls.key, &written);
        let server = Server::start(Transport::Tls(site.tls.clone()));
        let (served, client) = handshake(&server, &site.trusting_client()).await;
        assert!(served.is_ok() && client.is_some(), "{}", &written[..30]);
    }
}

fn sec1_of_p256(key: &KeyPair) -> Vec<u8> {
    const SECRET_HEAD: &[u8] = &[0x02, 0x01, 0x01, 0x04, 0x20];
    const CURVE: &[u8] = &[0xa0, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    let pkcs8 = key.serialize_der();
    let at = pkcs8.windows(SECRET_HEAD.len()).position(|window| window == SECRET_HEAD).unwrap();
    let secret = &pkcs8[at..at + SECRET_HEAD.len() + 32];
    let public = [&[0xa1, 0x44, 0x03, 0x42, 0x00][..], key.public_key_raw()].concat();
    let body = [secret, CURVE, &public].concat();
    [&[0x30, u8::try_from(body.len()).unwrap()][..], &body].concat()
}

#[test]
fn a_chain_is_sent_whole_and_in_order() {
    let site = Site::new();
    let certificate = std::fs::read_to_string(&site.tls.certificate).unwrap();
    rewrite(&site.tls.certificate, format!("{certificate}\n{}", site.authority.pem));
    server_config(&site.tls, ApplicationProtocol::Mqtt).unwrap();
    // The other way round the key belongs to the second certificate.
    rewrite(&site.tls.certificate, format!("{}\n{certificate}", site.authority.pem));
    let error = server_config(&site.tls, ApplicationProtocol::Mqtt).unwrap_err();
    assert!(matches!(error, TlsError::KeyMismatch { .. }), "{error}");
}

/// One bad file: which setting it replaces, what it holds, and what the message must say.
struct Fault {
    spoil: fn(&mut Site) -> PathBuf,
    message: &'static str,
}

const FAULTS: &[Fault] = &[
    Fault {
        spoil: |site| {
            site.tls.certificate = site.directory.path("absent.crt");
            site.tls.certificate.clone()
        },
        message: "cannot read",
    },
    Fault { spoil: |site| spoil_certificate(site, ""), message: "has no certificate: it is empty" },
    Fault {
        spoil: |site| {
            let key = site.authority.issue(ExtendedKeyUsagePurpose::ServerAuth).key.serialize_pem();
            spoil_certificate(site, &key)
        },
        message: "has no certificate: it holds PRIVATE KEY; check which file is configured as certificate",
    },
    Fault {
        spoil: |site| spoil_certificate(site, "hello"),
        message: "has no certificate: it is not PEM (no line starts with \"-----BEGIN\")",
    },
    Fault {
        spoil: |site| {
            rewrite(&site.tls.certificate, &site.authority.der);
            site.tls.certificate.clone()
        },
        message: "it looks like DER; convert it with: openssl x509 -inform DER",
    },
    Fault {
        spoil: |site| {
            let whole = site.authority.pem.clone();
            spoil_certificate(site, &whole[..whole.len() / 2])
        },
        message: "is broken PEM",
    },
    Fault {
        spoil: |site| spoil_certificate(site, &pem("CERTIFICATE", b"not a certificate")),
        message: "holds a certificate that cannot be used",
    },
    Fault {
        spoil: |site| {
            site.tls.key = site.directory.path("absent.key");
            site.tls.key.clone()
        },
        message: "cannot read",
    },
    Fault {
        spoil: |site| {
            let certificate = site.authority.pem.clone();
            spoil_key(site, &certificate)
        },
        message: "has no private key: it holds CERTIFICATE; check which file is configured as key",
    },
    Fault {
        spoil: |site| spoil_key(site, &pem("ENCRYPTED PRIVATE KEY", b"secret")),
        message: "is encrypted; decrypt it with: openssl pkey",
    },
    Fault {
        spoil: |site| {
            spoil_key(
                site,
                "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END RSA PRIVATE KEY-----\n",
            )
        },
        message: "is encrypted; decrypt it with: openssl pkey",
    },
    Fault {
        spoil: |site| spoil_key(site, &pem("PRIVATE KEY", b"not a key")),
        message: "holds a key that cannot be used",
    },
    Fault {
        spoil: |site| {
            let other = site.authority.issue(ExtendedKeyUsagePurpose::ServerAuth).key.serialize_pem();
            spoil_key(site, &other)
        },
        message: "does not belong to the first certificate",
    },
    Fault {
        spoil: |site| {
            let path = site.directory.write("ca.crt", pem("PUBLIC KEY", b"not a certificate"));
            site.tls.client_certificate = ClientCertificate::Required;
            site.tls.client_ca = vec![path.clone()];
            path
        },
        message: "has no certificate: it holds PUBLIC KEY",
    },
];

#[test]
fn bad_files_are_named_with_what_was_found_and_what_to_do() {
    for (row, fault) in FAULTS.iter().enumerate() {
        let mut site = Site::new();
        let file = (fault.spoil)(&mut site);
        let text = server_config(&site.tls, ApplicationProtocol::Mqtt).unwrap_err().to_string();
        assert!(text.contains(fault.message), "row {row}: {text}");
        assert!(text.contains(file.to_str().unwrap()), "row {row} does not name its file: {text}");
    }
}

#[test]
fn asking_for_client_certificates_needs_an_authority() {
    let mut site = Site::new();
    site.tls.client_certificate = ClientCertificate::Optional;
    let error = server_config(&site.tls, ApplicationProtocol::Mqtt).unwrap_err();
    assert!(matches!(error, TlsError::NoClientAuthority), "{error}");
}

fn spoil_certificate(site: &mut Site, content: &str) -> PathBuf {
    rewrite(&site.tls.certificate, content);
    site.tls.certificate.clone()
}

fn spoil_key(site: &mut Site, content: &str) -> PathBuf {
    rewrite(&site.tls.key, content);
    site.tls.key.clone()
}
