//! Whom a client's certificate names, and whom it only seems to name.

use dunlin::{
    acl::Principal,
    auth::{Certificate, certificate::principal},
    codec::ReasonCode,
    config::ClientIdentity,
    net::ProxyTls,
};
use rcgen::{CertificateParams, DnType, DnValue, SanType};

use crate::certificates::Authority;

/// The same attribute as the common name, which lets a certificate have two.
fn second_common_name() -> DnType {
    DnType::CustomDnType(vec![2, 5, 4, 3])
}

fn named(name: impl Into<DnValue>) -> impl FnOnce(&mut CertificateParams) {
    let name = name.into();
    |params| params.distinguished_name.push(DnType::CommonName, name)
}

fn certificate(change: impl FnOnce(&mut CertificateParams)) -> Certificate {
    Certificate::parse(&Authority::new("ca").client(change).der).expect("it is one")
}

/// The user, or a part of the reason why there is none.
fn user(
    identity: ClientIdentity,
    certificate: &Certificate,
    user_name: Option<&str>,
) -> Result<Option<String>, String> {
    match principal(identity, Some(certificate), user_name) {
        Ok(principal) => {
            Ok(principal.map(|Principal { user, .. }| user.expect("a principal is named").to_string()))
        }
        Err(denial) => {
            assert_eq!(denial.code, ReasonCode::NotAuthorized);
            Err(denial.why)
        }
    }
}

#[test]
fn each_identity_takes_its_part_of_the_certificate() {
    let all = certificate(|params| {
        params.distinguished_name.push(DnType::CommonName, "meter-7");
        params.distinguished_name.push(DnType::OrganizationName, "Example, Inc.");
        params.subject_alt_names = vec![
            SanType::DnsName("meter-7.example.org".try_into().unwrap()),
            SanType::Rfc822Name("meter@example.org".try_into().unwrap()),
            SanType::URI("urn:meter:7".try_into().unwrap()),
        ];
    });
    for (identity, expected) in [
        (ClientIdentity::None, None),
        (ClientIdentity::CommonName, Some("meter-7")),
        (ClientIdentity::SanDns, Some("meter-7.example.org")),
        (ClientIdentity::SanEmail, Some("meter@example.org")),
        (ClientIdentity::SanUri, Some("urn:meter:7")),
        (ClientIdentity::Subject, Some("O=Example\\, Inc.,CN=meter-7")),
    ] {
        assert_eq!(user(identity, &all, None), Ok(expected.map(str::to_owned)), "{identity:?}");
        assert_eq!(user(identity, &all, expected), Ok(expected.map(str::to_owned)), "{identity:?}");
        let other = user(identity, &all, Some("admin"));
        match identity {
            ClientIdentity::None => assert_eq!(other, Ok(None)),
            _ => assert!(other.unwrap_err().contains("and CONNECT 'admin'"), "{identity:?}"),
        }
    }
    assert_eq!(principal(ClientIdentity::CommonName, None, Some("admin")), Ok(None), "others decide");
}

#[test]
fn a_certificate_that_is_not_exactly_one_name_is_refused() {
    use ClientIdentity::{CommonName, SanDns, SanEmail};

    let nobody = certificate(|_| {});
    let two = certificate(|params| {
        named("admin")(params);
        params.distinguished_name.push(second_common_name(), "user");
    });
    let same_twice = certificate(|params| {
        named("admin")(params);
        params.distinguished_name.push(second_common_name(), "admin");
    });
    let two_hosts = certificate(|params| {
        let host = |name: &str| SanType::DnsName(name.try_into().unwrap());
        params.subject_alt_names = vec![host("a.example"), host("b.example")];
    });
    let table: [(ClientIdentity, &Certificate, &str); 9] = [
        (CommonName, &nobody, "it has none"),
        (SanDns, &nobody, "it has none"),
        (SanEmail, &two_hosts, "it has none"),
        (CommonName, &two, "it has 2, of which any could be meant"),
        (CommonName, &same_twice, "it has 2"),
        (SanDns, &two_hosts, "it has 2"),
        (CommonName, &certificate(named("")), "it is empty"),
        (CommonName, &certificate(named("admin\0.example.org")), "null character"),
        (CommonName, &certificate(named("admin\nlevel=info")), "control character"),
    ];
    for (identity, certificate, expected) in table {
        let why = user(identity, certificate, None).unwrap_err();
        assert!(why.contains(expected), "{why} instead of: {expected}");
        assert!(!why.contains(char::is_control), "the line of the log stays one: {why:?}");
    }
}

/// No value can pose as another attribute, or as another name.
#[test]
fn a_subject_reads_back_as_itself_only() {
    let table: [(Vec<(DnType, DnValue)>, &str); 6] = [
        (vec![(DnType::CommonName, "admin,CN=user".into())], "CN=admin\\,CN=user"),
        (vec![(DnType::CommonName, " a+b\\ ".into())], "CN=\\ a\\+b\\\\\\ "),
        (vec![(DnType::CommonName, "#a".into())], "CN=\\#a"),
        (vec![(DnType::OrganizationName, "x".into()), (DnType::CommonName, "é".into())], "CN=é,O=x"),
        (vec![(DnType::CustomDnType(vec![1, 2, 3]), "a".into())], "1.2.3=#0c0161"),
        (vec![(DnType::CommonName, DnValue::BmpString("bü".try_into().unwrap()))], "CN=bü"),
    ];
    for (attributes, expected) in table {
        let certificate = certificate(|params| {
            attributes.into_iter().for_each(|(kind, value)| params.distinguished_name.push(kind, value));
        });
        assert_eq!(certificate.subject, expected);
    }
}

#[test]
fn what_is_no_text_names_nobody() {
    let teletex = certificate(named(DnValue::TeletexString("admin".try_into().unwrap())));
    assert!(
        user(ClientIdentity::CommonName, &teletex, None).unwrap_err().contains("not text that can be read")
    );
    assert!(user(ClientIdentity::Subject, &teletex, None).is_err());
    assert_eq!(teletex.details().attributes.get("cert:cn"), None);
}

#[test]
fn access_rules_get_what_the_certificate_says() {
    let certificate = certificate(|params| {
        named("meter-7")(params);
        params.serial_number = Some(0x0012_34ab_u64.into());
        params.subject_alt_names = vec![SanType::DnsName("a.example".try_into().unwrap())];
    });
    let principal = principal(ClientIdentity::CommonName, Some(&certificate), None).unwrap().unwrap();
    let attributes = &principal.details.as_ref().unwrap().attributes;
    let get = |key: &str| attributes.get(key).map(AsRef::as_ref);
    assert_eq!(get("cert:cn"), Some("meter-7"));
    assert_eq!(get("cert:subject"), Some("CN=meter-7"));
    assert_eq!(get("cert:san_dns"), Some("a.example"));
    assert_eq!(get("cert:san_uri"), None);
    assert!(get("cert:serial").unwrap().ends_with("1234ab"), "{attributes:?}");
    assert_eq!(get("cert:fingerprint").map(str::len), Some(64));
}

#[test]
fn a_proxy_speaks_for_certificates_that_it_has_verified() {
    let tls = |common_name: Option<&str>, is_verified| ProxyTls {
        version: Some("TLSv1.3".into()),
        common_name: common_name.map(Into::into),
        is_verified,
    };
    assert_eq!(Certificate::of_proxy(&tls(Some("meter-7"), false)), None);
    let verified = Certificate::of_proxy(&tls(Some("meter-7"), true)).unwrap();
    assert_eq!(user(ClientIdentity::CommonName, &verified, None), Ok(Some("meter-7".into())));
    let nameless = Certificate::of_proxy(&tls(None, true)).unwrap();
    assert!(user(ClientIdentity::CommonName, &nameless, None).is_err());
    assert!(!verified.has_expired(i64::MAX));
}
