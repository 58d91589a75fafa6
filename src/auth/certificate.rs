//! Certificates of clients: what they say, and whom they name.
//!
//! That a certificate is genuine, in its time and not revoked was checked when the connection came in. What is
//! decided here is only whether it names one user and no other: a certificate that could be read as two names is
//! refused, and not read as one of them.

use std::fmt::Write;

use aws_lc_rs::digest;
use x509_parser::{
    certificate::X509Certificate,
    der_parser::asn1_rs::{Any, Tag, ToDer},
    extensions::GeneralName,
    parse_x509_certificate,
    x509::{AttributeTypeAndValue, X509Name},
};

use crate::{
    acl::{Details, Principal},
    codec::ReasonCode,
    config::ClientIdentity,
    net::ProxyTls,
};

use super::Denial;

/// What stands for text that is not to be read, such as one that is no UTF-8. It names nobody.
const UNREADABLE: &str = "\u{fffd}";

/// What a client's certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The subject as of RFC 4514, the innermost part first: `CN=meter-7,O=Example`.
    pub subject: String,
    /// The common names of the subject; one mostly.
    pub common_names: Vec<String>,
    /// The alternative names that can be a client's identity, in their order.
    pub alternative_names: Vec<AlternativeName>,
    /// The serial number in lower-case hexadecimal digits; empty where only a proxy has seen the certificate.
    pub serial: String,
    /// SHA-256 of the whole certificate; `None` where only a proxy has seen it.
    pub fingerprint: Option<[u8; 32]>,
    /// The last second in which it is valid, since 1970; `None` where only a proxy has seen it.
    pub not_after_secs: Option<i64>,
}

/// One alternative name of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AlternativeName {
    /// A host name.
    Dns(String),
    /// A mail address.
    Email(String),
    /// A URI.
    Uri(String),
}

impl Certificate {
    /// Reads a certificate. `None` if it is none, which the TLS library would have refused.
    #[must_use]
    pub fn parse(der: &[u8]) -> Option<Self> {
        let (rest, certificate) = parse_x509_certificate(der).ok()?;
        if !rest.is_empty() {
            return None;
        }
        let subject = certificate.subject();
        let fingerprint = digest::digest(&digest::SHA256, der).as_ref().try_into().ok();
        Some(Self {
            subject: rfc4514(subject),
            common_names: subject.iter_common_name().map(|name| text(name.attr_value())).collect(),
            alternative_names: alternative_names(&certificate),
            serial: hex(certificate.raw_serial()),
            fingerprint,
            not_after_secs: Some(certificate.validity().not_after.timestamp()),
        })
    }

    /// The certificate that a proxy has found good. `None` if it has not, or there was none.
    #[must_use]
    pub fn of_proxy(tls: &ProxyTls) -> Option<Self> {
        tls.is_verified.then(|| Self {
            subject: tls
                .common_name
                .as_ref()
                .map_or_else(String::new, |name| format!("CN={}", escaped(name))),
            common_names: tls.common_name.iter().cloned().collect(),
            alternative_names: Vec::new(),
            serial: String::new(),
            fingerprint: None,
            not_after_secs: None,
        })
    }

    /// Whether it is past its time. A client that resumes a TLS session is not asked for its certificate again.
    #[must_use]
    pub fn has_expired(&self, now_secs: i64) -> bool {
        self.not_after_secs.is_some_and(|not_after| not_after < now_secs)
    }

    /// What access rules may use of it: `cert:cn`, `cert:subject`, `cert:serial`, `cert:fingerprint`, and the first
    /// `cert:san_dns`, `cert:san_email` and `cert:san_uri`. What is not unambiguous text is left out.
    #[must_use]
    pub fn details(&self) -> Details {
        let common_name = match self.common_names.as_slice() {
            [name] => Some(name.as_str()),
            _ => None,
        };
        let first = |of: fn(&AlternativeName) -> Option<&str>| self.alternative_names.iter().find_map(of);
        let fingerprint = self.fingerprint.map(|bytes| hex(&bytes)).unwrap_or_default();
        let values = [
            ("cert:cn", common_name),
            ("cert:subject", Some(self.subject.as_str())),
            ("cert:serial", Some(self.serial.as_str())),
            ("cert:fingerprint", Some(fingerprint.as_str())),
            ("cert:san_dns", first(AlternativeName::dns)),
            ("cert:san_email", first(AlternativeName::email)),
            ("cert:san_uri", first(AlternativeName::uri)),
        ];
        let clear = values.into_iter().filter_map(|(key, value)| {
            let value = value.filter(|value| fault_of(value).is_none())?;
            Some((key.into(), value.into()))
        });
        Details { attributes: clear.collect(), ..Details::default() }
    }

    /// The user that it names by `identity`; `None` if that names none. The error says why it names nobody, or more
    /// than one.
    fn name(&self, identity: ClientIdentity) -> Result<Option<&str>, String> {
        let names =
            |of: fn(&AlternativeName) -> Option<&str>| self.alternative_names.iter().filter_map(of).collect();
        let found: Vec<&str> = match identity {
            ClientIdentity::None => return Ok(None),
            ClientIdentity::CommonName => self.common_names.iter().map(String::as_str).collect(),
            ClientIdentity::SanDns => names(AlternativeName::dns),
            ClientIdentity::SanEmail => names(AlternativeName::email),
            ClientIdentity::SanUri => names(AlternativeName::uri),
            ClientIdentity::Subject => vec![&self.subject],
        };
        match found.as_slice() {
            [] => Err("it has none".into()),
            [name] => fault_of(name).map_or(Ok(Some(*name)), |fault| Err(fault.into())),
            [_, _, ..] => Err(format!("it has {}, of which any could be meant", found.len())),
        }
    }
}

impl AlternativeName {
    fn dns(&self) -> Option<&str> {
        match self {
            Self::Dns(name) => Some(name),
            Self::Email(_) | Self::Uri(_) => None,
        }
    }

    fn email(&self) -> Option<&str> {
        match self {
            Self::Email(name) => Some(name),
            Self::Dns(_) | Self::Uri(_) => None,
        }
    }

    fn uri(&self) -> Option<&str> {
        match self {
            Self::Uri(name) => Some(name),
            Self::Dns(_) | Self::Email(_) => None,
        }
    }
}

/// Who a client is by its certificate: `None` if it has none or certificates name nobody on its listener, so that
/// others decide.
///
/// # Errors
/// [`Denial`] if the certificate does not name exactly one user, or the client says that it is another.
pub fn principal(
    identity: ClientIdentity,
    certificate: Option<&Certificate>,
    user_name: Option<&str>,
) -> Result<Option<Principal>, Denial> {
    let Some(certificate) = certificate else { return Ok(None) };
    let denial = |why| Denial { code: ReasonCode::NotAuthorized, why };
    let subject = printable(&certificate.subject);
    let name = certificate.name(identity).map_err(|why| {
        denial(format!(
            "the certificate of '{subject}' names no user by client_identity = \"{}\": {why}",
            identity.name()
        ))
    })?;
    let Some(name) = name else { return Ok(None) };
    match user_name.filter(|user_name| *user_name != name) {
        Some(other) => Err(denial(format!(
            "the certificate names user '{name}' and CONNECT '{}'; send the same user name, or none",
            printable(other)
        ))),
        None => Ok(Some(Principal { user: Some(name.into()), details: Some(certificate.details().into()) })),
    }
}

/// What makes a text unfit to be a name, if anything does.
fn fault_of(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        Some("it is empty")
    } else if name.contains('\0') {
        Some("it contains a null character, where others would read only what is before")
    } else if name.contains(UNREADABLE) {
        Some("it is not text that can be read")
    } else if name.chars().any(char::is_control) {
        Some("it contains a control character")
    } else {
        None
    }
}

/// A text that cannot break the line of a log.
fn printable(text: &str) -> String {
    let escape = |c: char| if c.is_control() { c.escape_default().collect() } else { c.to_string() };
    text.chars().map(escape).collect()
}

fn alternative_names(certificate: &X509Certificate<'_>) -> Vec<AlternativeName> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    let names = extension.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(AlternativeName::Dns((*name).into())),
        GeneralName::RFC822Name(name) => Some(AlternativeName::Email((*name).into())),
        GeneralName::URI(name) => Some(AlternativeName::Uri((*name).into())),
        // The tags of the same three: they count, so that nobody is who they are in part.
        GeneralName::Invalid(Tag(1), _) => Some(AlternativeName::Email(UNREADABLE.into())),
        GeneralName::Invalid(Tag(2), _) => Some(AlternativeName::Dns(UNREADABLE.into())),
        GeneralName::Invalid(Tag(6), _) => Some(AlternativeName::Uri(UNREADABLE.into())),
        _ => None,
    });
    names.collect()
}

/// The text of an attribute.
fn text(value: &Any<'_>) -> String {
    let utf8 = || std::str::from_utf8(value.data).map(ToOwned::to_owned).ok();
    let text = match value.tag() {
        Tag::Utf8String => utf8(),
        Tag::PrintableString | Tag::NumericString | Tag::Ia5String | Tag::VisibleString => {
            utf8().filter(|text| text.is_ascii())
        }
        Tag::BmpString if value.data.len().is_multiple_of(2) => {
            let units: Vec<u16> =
                value.data.chunks_exact(2).map(|unit| u16::from_be_bytes([unit[0], unit[1]])).collect();
            String::from_utf16(&units).ok()
        }
        _ => None,
    };
    text.unwrap_or_else(|| UNREADABLE.into())
}

/// A distinguished name as text that reads back as the same name only: a value cannot pose as an attribute.
fn rfc4514(name: &X509Name<'_>) -> String {
    let mut parts: Vec<String> =
        name.iter_rdn().map(|part| part.iter().map(attribute).collect::<Vec<_>>().join("+")).collect();
    parts.reverse();
    parts.join(",")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let oid = attribute.attr_type().to_id_string();
    let short = match oid.as_str() {
        "2.5.4.3" => "CN",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "STREET",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        // Not in the RFC's table, but what OpenSSL prints.
        "1.2.840.113549.1.9.1" => "emailAddress",
        _ => {
            let der = attribute.attr_value().to_der_vec().unwrap_or_default();
            return format!("{oid}=#{}", hex(&der));
        }
    };
    format!("{short}={}", escaped(&text(attribute.attr_value())))
}

/// RFC 4514, 2.4.
fn escaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let last = value.chars().count().saturating_sub(1);
    for (index, c) in value.chars().enumerate() {
        let is_special = matches!(c, '"' | '+' | ',' | ';' | '<' | '>' | '\\')
            || (index == 0 && matches!(c, ' ' | '#'))
            || (index == last && c == ' ');
        if is_special {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
