//! Certificates of clients that are not good any more, or not yet.

use std::sync::Arc;

use dunlin::{
    config::{ClientCertificate, Doubt, Transport},
    net::{Reload, TlsError, ValidityKind},
};
use rcgen::CertificateParams;
use rustls::{HandshakeKind, pki_types::ServerName};
use time::{Duration, OffsetDateTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use crate::{
    Server,
    certificates::{Authority, Identity, Site, TestClient, pem, rewrite},
    tls::handshake,
    within,
};

/// A site that asks for certificates of its authority, of whose revocation it knows this.
fn site_with(lists: &[String]) -> Site {
    let mut site = Site::new();
    site.tls.client_certificate = ClientCertificate::Required;
    site.tls.client_ca = vec![site.directory.write("ca.crt", &site.authority.pem)];
    set_lists(&mut site, lists);
    site
}

fn set_lists(site: &mut Site, lists: &[String]) {
    let write = |(index, list): (usize, &String)| site.directory.write(&format!("{index}.crl"), list);
    site.tls.client_crl = lists.iter().enumerate().map(write).collect();
}

fn numbered(authority: &Authority, serial: u64) -> Identity {
    authority.client(|params| params.serial_number = Some(serial.into()))
}

/// What the server says to a client with this certificate: nothing, or why it is refused.
async fn refusal(site: &Site, identity: &Identity) -> Option<String> {
    let server = Server::start(Transport::Tls(site.tls.clone()));
    let client = TestClient { identity: Some(identity), ..site.trusting_client() };
    let (served, _client) = handshake(&server, &client).await;
    served.err().map(|error| error.to_string())
}

async fn assert_refusal(site: &Site, identity: &Identity, expected: Option<&str>) {
    match (refusal(site, identity).await, expected) {
        (None, None) => {}
        (Some(found), Some(expected)) => assert!(found.contains(expected), "{found} instead of: {expected}"),
        (found, expected) => panic!("{found:?} instead of {expected:?}"),
    }
}

const DAY: Duration = Duration::days(1);

#[tokio::test]
async fn a_certificate_counts_only_in_its_time() {
    let site = site_with(&[]);
    let of = |change: fn(&mut CertificateParams)| site.authority.client(change);
    let expired = of(|params| params.not_after = OffsetDateTime::now_utc() - DAY);
    let early = of(|params| params.not_before = OffsetDateTime::now_utc() + DAY);
    assert_refusal(&site, &expired, Some("client certificate has expired")).await;
    assert_refusal(&site, &early, Some("client certificate is not valid yet")).await;
    assert_refusal(&site, &of(|_| {}), None).await;
}

#[tokio::test]
async fn what_the_issuer_has_revoked_is_refused() {
    let mut site = site_with(&[]);
    let (good, revoked) = (numbered(&site.authority, 7), numbered(&site.authority, 8));
    assert_refusal(&site, &revoked, None).await;
    let list = site.authority.revoke(&[8], DAY);
    set_lists(&mut site, &[list]);
    assert_refusal(&site, &good, None).await;
    assert_refusal(&site, &revoked, Some("client certificate is revoked")).await;
}

#[tokio::test]
async fn the_whole_chain_is_looked_up() {
    let mut site = site_with(&[]);
    let deputy = site.authority.deputy("deputy", 21);
    let mut client = numbered(&deputy, 7);
    client.chain = vec![deputy.der.clone()];
    let of_deputy = deputy.revoke(&[], DAY);
    for (revoked, expected) in [(&[] as &[u64], None), (&[21], Some("client certificate is revoked"))] {
        let lists = [site.authority.revoke(revoked, DAY), of_deputy.clone()];
        set_lists(&mut site, &lists);
        assert_refusal(&site, &client, expected).await;
    }
}

#[tokio::test]
async fn doubts_are_decided_as_configured() {
    let mut site = site_with(&[]);
    let client = numbered(&site.authority, 7);
    let of_others = Authority::new("others").revoke(&[], DAY);
    let past = site.authority.revoke(&[], -DAY);
    for (list, unknown, expired, expected) in [
        (&of_others, Doubt::Deny, Doubt::Allow, Some("no list of client_crl is of the issuer")),
        (&of_others, Doubt::Allow, Doubt::Deny, None),
        (&past, Doubt::Allow, Doubt::Deny, Some("is past its next update")),
        (&past, Doubt::Deny, Doubt::Allow, None),
    ] {
        set_lists(&mut site, std::slice::from_ref(list));
        (site.tls.revocation_unknown, site.tls.revocation_expired) = (unknown, expired);
        assert_refusal(&site, &client, expected).await;
    }
}

/// An open connection lives on; a new one is refused, also with the ticket of the session before.
#[tokio::test]
async fn a_revocation_counts_from_the_reload_on_also_for_resumed_sessions() {
    for version in rustls::ALL_VERSIONS {
        let mut site = site_with(&[]);
        let before = site.authority.revoke(&[], DAY);
        set_lists(&mut site, &[before]);
        let identity = numbered(&site.authority, 8);
        let server = Server::start(Transport::Tls(site.tls.clone()));
        let client = TestClient { identity: Some(&identity), versions: &[version], ..site.trusting_client() };
        // One configuration, so that the client keeps its tickets.
        let connector = TlsConnector::from(client.config());
        let connect = async || {
            let client = async {
                let name = ServerName::try_from("localhost").unwrap();
                let mut stream = connector.connect(name, server.connect().await).await.ok()?;
                // The ticket comes with the first bytes.
                let mut greeting = [0; 2];
                stream.read_exact(&mut greeting).await.ok()?;
                Some(stream)
            };
            let served = async {
                let mut stream = server.accept().await?;
                stream.write_all(b"hi").await.unwrap();
                stream.flush().await.unwrap();
                Ok::<_, dunlin::net::UpgradeError>(stream)
            };
            within(async { tokio::join!(served, client) }).await
        };
        let (first, first_client) = connect().await;
        let (mut first, mut first_client) = (first.unwrap(), first_client.unwrap());
        let (second, second_client) = connect().await;
        let kind = second_client.unwrap().get_ref().1.handshake_kind();
        assert_eq!(kind, Some(HandshakeKind::Resumed), "{version:?}");
        assert_eq!(second.unwrap().peer_certificates().unwrap()[0], identity.der, "{version:?}");

        rewrite(&site.tls.client_crl[0], site.authority.revoke(&[8], DAY));
        server.transport.tls().unwrap().reload().unwrap();
        let (third, _client) = connect().await;
        let text = third.unwrap_err().to_string();
        assert!(text.contains("client certificate is revoked"), "{version:?}: {text}");
        let talk = async {
            first_client.write_all(b"x").await.unwrap();
            first.read_u8().await.unwrap()
        };
        assert_eq!(within(talk).await, b'x', "{version:?}");
    }
}

/// A change is taken up by the second look that finds it; what cannot be used is told once.
#[tokio::test]
async fn changed_files_are_read_once_they_are_quiet_and_a_bad_pair_keeps_the_old_one() {
    let site = site_with(&[]);
    let server = Server::start(Transport::Tls(site.tls.clone()));
    let tls = server.transport.tls().unwrap();
    let look = || tls.reload_if_changed();
    let config = || tls.config();
    let first = config();
    assert!(matches!(look(), Reload::Unchanged));

    let new = site.authority.issue(rcgen::ExtendedKeyUsagePurpose::ServerAuth);
    rewrite(&site.tls.certificate, format!("{}\n", new.pem));
    assert!(matches!(look(), Reload::Unchanged), "it may still be written");
    match look() {
        Reload::Refused(error @ TlsError::KeyMismatch { .. }) => {
            assert!(error.to_string().contains(site.tls.key.to_str().unwrap()), "{error}");
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(look(), Reload::Unchanged), "it is told once");
    assert!(Arc::ptr_eq(&first, &config()));

    rewrite(&site.tls.key, format!("{}\n\n", new.key.serialize_pem()));
    assert!(matches!(look(), Reload::Unchanged));
    assert!(matches!(look(), Reload::Reloaded));
    assert!(!Arc::ptr_eq(&first, &config()));
    assert!(matches!(look(), Reload::Unchanged));

    // A file that is replaced by one that is as long, and one that is removed, are changes too.
    std::fs::remove_file(&site.tls.key).unwrap();
    assert!(matches!(look(), Reload::Unchanged));
    assert!(matches!(look(), Reload::Refused(TlsError::Unreadable { .. })));
    assert!(matches!(look(), Reload::Unchanged));
}

#[test]
fn a_bad_list_is_named() {
    for (content, message) in [
        (String::new(), "has no revocation list: it is empty"),
        (pem("X509 CRL", b"no list"), "holds a revocation list that cannot be used"),
        (pem("CERTIFICATE", b"x"), "it holds CERTIFICATE; check which file is configured as client_crl"),
    ] {
        let good = Authority::new("a").revoke(&[], DAY);
        let site = site_with(&[good, content]);
        let error =
            dunlin::net::server_config(&site.tls, dunlin::net::ApplicationProtocol::Mqtt).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(message) && text.contains("1.crl"), "{text}");
    }
}

#[test]
fn the_end_of_what_is_in_the_files_is_told() {
    let mut site = site_with(&[]);
    let list = site.authority.revoke(&[], DAY * 3);
    set_lists(&mut site, &[list]);
    let tls = dunlin::net::LiveTls::open(&site.tls, dunlin::net::ApplicationProtocol::Mqtt).unwrap();
    let validities = tls.validities();
    let kinds: Vec<ValidityKind> = validities.iter().map(|validity| validity.kind).collect();
    assert_eq!(kinds, [ValidityKind::Server, ValidityKind::ClientAuthority, ValidityKind::RevocationList]);
    let now_secs = OffsetDateTime::now_utc().unix_timestamp();
    assert_eq!(validities[2].days_left(now_secs - 60), 3);
    assert_eq!(validities[2].days_left(now_secs + 60 + 4 * 86_400), -2);
    assert!(validities[1].subject.contains("test authority"), "{validities:?}");
}
