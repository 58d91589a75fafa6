//! How `dunlin sub` prints a message.

use rumqttc::v5::mqttbytes::v5::PublishProperties;
use serde::{Serialize, Serializer, ser::SerializeMap};
use time::OffsetDateTime;

use super::client::link::Message;

/// The shape of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// The payload and, if wanted, the topic before it.
    Payload { topic: bool, newline: bool },
    /// One JSON object.
    Json,
    /// A text with fields.
    Template(Vec<Part>),
}

/// A piece of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Text(String),
    Field(Field),
}

/// What a field stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Topic,
    Payload,
    PayloadHex,
    Length,
    QoS,
    Retain,
    PacketId,
    Time,
    UnixTime,
    Json,
}

impl Format {
    /// Reads the value of `-F`: `json`, or a text with the fields of mosquitto_sub.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text == "json" {
            return Ok(Self::Json);
        }
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut letters = text.chars();
        while let Some(letter) = letters.next() {
            let field = match (letter, letters.as_str().chars().next()) {
                ('%', Some('%')) | ('\\', Some('\\' | 'n' | 't')) => {
                    literal.push(match letters.next() {
                        Some('n') => '\n',
                        Some('t') => '\t',
                        Some(other) => other,
                        None => break,
                    });
                    continue;
                }
                ('%', Some(name)) => field(name).ok_or(format!("`%{name}` is no field ({FIELDS})"))?,
                ('%', None) => return Err(format!("a field is missing behind % ({FIELDS})")),
                (other, _) => {
                    literal.push(other);
                    continue;
                }
            };
            letters.next();
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal)));
            }
            parts.push(Part::Field(field));
        }
        literal.push('\n');
        parts.push(Part::Text(literal));
        Ok(Self::Template(parts))
    }

    /// The bytes of a message that arrived at `now`.
    pub(super) fn render(&self, message: &Message, now: OffsetDateTime) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Payload { topic, newline } => {
                if *topic {
                    out.extend_from_slice(message.topic.as_bytes());
                    out.push(b' ');
                }
                out.extend_from_slice(&message.payload);
                out.extend_from_slice(if *newline { b"\n" } else { b"" });
            }
            Self::Json => {
                out = json(message, now);
                out.push(b'\n');
            }
            Self::Template(parts) => {
                for part in parts {
                    match part {
                        Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                        Part::Field(field) => out.extend_from_slice(&field.render(message, now)),
                    }
                }
            }
        }
        out
    }
}

const FIELDS: &str = "%t topic, %p payload, %x payload in hex, %l its length, %q QoS, %r retain, %m packet id, \
                      %I time, %U Unix time, %j JSON, %% a percent sign";

fn field(name: char) -> Option<Field> {
    Some(match name {
        't' => Field::Topic,
        'p' => Field::Payload,
        'x' => Field::PayloadHex,
        'l' => Field::Length,
        'q' => Field::QoS,
        'r' => Field::Retain,
        'm' => Field::PacketId,
        'I' => Field::Time,
        'U' => Field::UnixTime,
        'j' => Field::Json,
        _ => return None,
    })
}

impl Field {
    fn render(self, message: &Message, now: OffsetDateTime) -> Vec<u8> {
        let text = match self {
            Self::Topic => message.topic.clone(),
            Self::Payload => return message.payload.clone(),
            Self::PayloadHex => hex(&message.payload),
            Self::Length => message.payload.len().to_string(),
            Self::QoS => message.qos.to_string(),
            Self::Retain => u8::from(message.retain).to_string(),
            Self::PacketId => message.packet_id.to_string(),
            Self::Time => timestamp(now),
            Self::UnixTime => format!("{}.{:06}", now.unix_timestamp(), now.microsecond()),
            Self::Json => return json(message, now),
        };
        text.into_bytes()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// RFC 3339 in UTC with microseconds.
fn timestamp(at: OffsetDateTime) -> String {
    let (year, month, day) = (at.year(), u8::from(at.month()), at.day());
    let (hour, minute, second, micro) = (at.hour(), at.minute(), at.second(), at.microsecond());
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micro:06}Z")
}

/// The object of mosquitto_sub's `%j`. A payload that is no text is written in hex under another name, as JSON
/// cannot hold it.
#[derive(Serialize)]
struct Line<'a> {
    tst: String,
    topic: &'a str,
    qos: u8,
    retain: u8,
    payloadlen: usize,
    #[serde(skip_serializing_if = "is_zero")]
    mid: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    properties: Option<Properties<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_hex: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Properties<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_format_indicator: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_expiry_interval: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_topic: Option<&'a str>,
    /// In hex: it is binary.
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_data: Option<String>,
    #[serde(skip_serializing_if = "<[usize]>::is_empty")]
    subscription_identifiers: &'a [usize],
    #[serde(skip_serializing_if = "UserProperties::is_empty")]
    user_properties: UserProperties<'a>,
}

/// In order and with repeated keys, as they came.
struct UserProperties<'a>(&'a [(String, String)]);

impl UserProperties<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for UserProperties<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in self.0 {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_zero(value: &u16) -> bool {
    *value == 0
}

fn json(message: &Message, now: OffsetDateTime) -> Vec<u8> {
    let payload = std::str::from_utf8(&message.payload).ok();
    let given = &message.properties;
    let properties = Properties {
        payload_format_indicator: given.payload_format_indicator,
        message_expiry_interval: given.message_expiry_interval,
        content_type: given.content_type.as_deref(),
        response_topic: given.response_topic.as_deref(),
        correlation_data: given.correlation_data.as_deref().map(hex),
        subscription_identifiers: &given.subscription_identifiers,
        user_properties: UserProperties(&given.user_properties),
    };
    let line = Line {
        tst: timestamp(now),
        topic: &message.topic,
        qos: message.qos,
        retain: message.retain.into(),
        payloadlen: message.payload.len(),
        mid: message.packet_id,
        // An alias is the link's affair, so that alone it makes no properties worth printing.
        properties: (PublishProperties { topic_alias: None, ..given.clone() }
            != PublishProperties::default())
        .then_some(properties),
        payload,
        payload_hex: payload.is_none().then(|| hex(&message.payload)),
    };
    serde_json::to_vec(&line).expect("strings, numbers and maps with string keys are JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(payload: &[u8], properties: PublishProperties) -> Message {
        Message::of_parts("a/b", payload, 1, properties)
    }

    fn rendered(format: &str, message: &Message) -> String {
        let at = OffsetDateTime::UNIX_EPOCH + time::Duration::microseconds(1_500_000);
        String::from_utf8(Format::parse(format).unwrap().render(message, at)).unwrap()
    }

    #[test]
    fn json_is_one_line_with_what_is_there() {
        let plain = message(b"say \"hi\"\n", PublishProperties::default());
        assert_eq!(
            rendered("json", &plain),
            r#"{"tst":"1970-01-01T00:00:01.500000Z","topic":"a/b","qos":1,"retain":0,"payloadlen":9,"mid":7,"payload":"say \"hi\"\n"}"#
                .to_owned()
                + "\n"
        );
        let properties = PublishProperties {
            content_type: Some("t".into()),
            correlation_data: Some(vec![0, 255].into()),
            subscription_identifiers: vec![3],
            user_properties: vec![("k".into(), "1".into()), ("k".into(), "2".into())],
            ..PublishProperties::default()
        };
        let binary = rendered("json", &message(&[0xff, 0], properties));
        let part = r#""properties":{"content-type":"t","correlation-data":"00ff","subscription-identifiers":[3],"user-properties":{"k":"1","k":"2"}},"payload_hex":"ff00"}"#;
        assert!(binary.ends_with(&format!("{part}\n")), "{binary}");
    }

    #[test]
    fn templates_have_the_fields_of_mosquitto() {
        let message = message(b"xy", PublishProperties::default());
        assert_eq!(
            rendered("%t %p %q %r %l %m %x 100%% \\t%U", &message),
            "a/b xy 1 0 2 7 7879 100% \t1.500000\n"
        );
        assert_eq!(rendered("%I", &message), "1970-01-01T00:00:01.500000Z\n");
        assert!(Format::parse("%z").is_err() && Format::parse("%").is_err());
    }
}
