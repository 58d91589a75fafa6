//! Clients that are known by their certificates, through the whole broker.

use dunlin::{
    Broker, Config,
    acl::{Action, Authorize, Decision, Principal, RuleId},
    codec::{Connect, Delivery, Packet, Version},
    config::{ClientCertificate, ClientIdentity, Transport},
};
use rcgen::DnType;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    Peer, Server,
    certificates::{Identity, Site, TestClient},
    config, connect, listener, publish, within,
};

/// Everybody publishes to the topic with its user's name, and nowhere else.
pub(crate) struct OwnTopic;

impl Authorize for OwnTopic {
    fn decide(&self, principal: &Principal, _: &str, _: Action, topic: &str) -> Decision {
        let user = principal.user.as_deref().unwrap_or("nobody");
        if topic == user { Decision::Allowed } else { Decision::Denied(RuleId::DEFAULT) }
    }
}

/// Success or 0x87, for a message to this topic.
pub(crate) async fn publishes<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(
    peer: &mut Peer<S>,
    topic: &str,
) -> bool {
    peer.send(&publish(topic, b"x", Delivery::AtLeastOnce(crate::id(1)))).await;
    peer.next(|packet| match packet {
        Packet::PubAck(ack) => !ack.reason.is_error(),
        other => panic!("{other:?}"),
    })
    .await
}

fn site() -> Site {
    let mut site = Site::new();
    site.tls.client_ca = vec![site.directory.write("ca.pem", &site.authority.pem)];
    site.tls.client_certificate = ClientCertificate::Optional;
    site
}

async fn serve(site: &Site, identity: ClientIdentity) -> Server {
    let mut listener = listener("tls", Transport::Tls(site.tls.clone()));
    (listener.client_identity, listener.allow_anonymous) = (identity, false);
    let config = Config { listeners: vec![listener], ..config() };
    Server::build(Broker::builder().config(config).authorizer(OwnTopic)).await
}

async fn open(server: &Server, site: &Site, identity: Option<&Identity>) -> Peer<TlsStream<TcpStream>> {
    let client = TestClient { identity, ..site.trusting_client() };
    let stream = within(TcpStream::connect(server.address())).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = within(TlsConnector::from(client.config()).connect(name, stream)).await.unwrap();
    Peer::new(stream, Version::V5)
}

#[tokio::test]
async fn a_certificate_is_a_user_without_password() {
    let site = site();
    let meter = site.authority.client(|params| params.distinguished_name.push(DnType::CommonName, "meter-7"));
    let server = serve(&site, ClientIdentity::CommonName).await;
    for user_name in [None, Some("meter-7")] {
        let mut peer = open(&server, &site, Some(&meter)).await;
        peer.connect(&Connect { user_name, ..connect(Version::V5, "c") }).await;
        assert!(publishes(&mut peer, "meter-7").await);
        assert!(!publishes(&mut peer, "admin").await);
    }
    // Another user name, and no certificate.
    for (identity, user_name) in [(Some(&meter), Some("admin")), (None, Some("meter-7")), (None, None)] {
        let mut peer = open(&server, &site, identity).await;
        peer.send(&Packet::Connect(Box::new(Connect { user_name, ..connect(Version::V5, "c") }))).await;
        assert_eq!(peer.conn_ack().await, (false, 0x87), "{user_name:?}");
    }
}

#[tokio::test]
async fn without_identity_a_certificate_opens_the_door_and_names_nobody() {
    let site = site();
    let meter = site.authority.client(|params| params.distinguished_name.push(DnType::CommonName, "meter-7"));
    let server = serve(&site, ClientIdentity::None).await;
    let mut peer = open(&server, &site, Some(&meter)).await;
    peer.connect(&Connect { user_name: Some("admin"), ..connect(Version::V5, "c") }).await;
    assert!(publishes(&mut peer, "nobody").await);
    assert!(!publishes(&mut peer, "admin").await);
}

/// The whole way from a file that is written to the client that gets its certificate.
#[tokio::test]
async fn the_broker_reloads_certificates_and_tells_their_end() {
    let site = site();
    let server = serve(&site, ClientIdentity::None).await;
    let meter = site.authority.client(|params| params.distinguished_name.push(DnType::CommonName, "m"));
    let mut connected = open(&server, &site, Some(&meter)).await;
    connected.connect(&connect(Version::V5, "connected")).await;
    let ends = server.broker.certificates();
    assert_eq!(ends.len(), 2, "{ends:?}");
    assert!(ends.iter().all(|(listener, _)| listener == "tls"));

    let new = site.authority.issue(rcgen::ExtendedKeyUsagePurpose::ServerAuth);
    crate::certificates::rewrite(&site.tls.certificate, &new.pem);
    let refused = server.broker.reload_certificates();
    assert!(matches!(&refused[..], [(listener, _)] if listener == "tls"), "{refused:?}");
    crate::certificates::rewrite(&site.tls.key, new.key.serialize_pem());
    assert!(server.broker.reload_certificates().is_empty());
    let peer = open(&server, &site, Some(&meter)).await;
    assert!(peer.stream.get_ref().1.peer_certificates().unwrap()[0] == new.der);
    connected.ping().await;
}
