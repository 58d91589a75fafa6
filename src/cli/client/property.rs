//! Properties of MQTT 5 on the command line: `-D publish content-type text/plain`.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use rumqttc::v5::mqttbytes::v5::{
    ConnectProperties, LastWillProperties, PublishProperties, SubscribeProperties,
};

/// `-D` with each of its occurrences apart, which clap's derive does not give.
#[derive(Debug, Default)]
pub(in crate::cli) struct PropertyArguments(Vec<Vec<String>>);

/// The packet that a property belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Stage {
    Connect,
    Will,
    Publish,
    Subscribe,
}

/// Properties by packet; `None` where there are none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::cli) struct Properties {
    pub(in crate::cli) connect: Option<ConnectProperties>,
    pub(in crate::cli) will: Option<LastWillProperties>,
    pub(in crate::cli) publish: Option<PublishProperties>,
    pub(in crate::cli) subscribe: Option<SubscribeProperties>,
}

const HELP: &str = "A property of MQTT 5, of the message (pub) or subscription (sub) or of the named packet; \
                    repeatable: content-type, response-topic, correlation-data, message-expiry-interval, \
                    payload-format-indicator, user-property KEY VALUE, …";

const LONG_HELP: &str = "\
A property of MQTT 5; repeatable. PACKET is connect, will, publish or subscribe; without it the property belongs
to the message (pub) or the subscription (sub).
  publish    content-type, response-topic, correlation-data, message-expiry-interval,
             payload-format-indicator, user-property KEY VALUE
  will       the same, and will-delay-interval
  connect    session-expiry-interval, receive-maximum, maximum-packet-size, topic-alias-maximum,
             request-response-information, request-problem-information, user-property KEY VALUE
  subscribe  subscription-identifier, user-property KEY VALUE";

impl Properties {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Takes one `-D`: `[PACKET] NAME VALUE` or `[PACKET] user-property KEY VALUE`.
    fn take(&mut self, words: &[String], default: Stage) -> Result<(), String> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (stage, words) = match words.split_first() {
            Some((&"connect", rest)) => (Stage::Connect, rest),
            Some((&"will", rest)) => (Stage::Will, rest),
            Some((&"publish", rest)) => (Stage::Publish, rest),
            Some((&"subscribe", rest)) => (Stage::Subscribe, rest),
            _ => (default, words.as_slice()),
        };
        let known = match *words {
            ["user-property", key, value] => {
                self.user_properties(stage).push((key.into(), value.into()));
                true
            }
            [name, value] if name != "user-property" => match stage {
                Stage::Connect => self.take_connect(name, value)?,
                Stage::Will => self.take_will(name, value)?,
                Stage::Publish => self.take_publish(name, value)?,
                Stage::Subscribe => self.take_subscribe(name, value)?,
            },
            _ => {
                return Err(
                    "is written NAME VALUE or user-property KEY VALUE, after the packet, if any".into()
                );
            }
        };
        if known { Ok(()) } else { Err(format!("`{}` is no property of this packet, see --help", words[0])) }
    }

    fn user_properties(&mut self, stage: Stage) -> &mut Vec<(String, String)> {
        match stage {
            Stage::Connect => &mut self.connect.get_or_insert_default().user_properties,
            Stage::Will => &mut self.will.get_or_insert_with(no_will_properties).user_properties,
            Stage::Publish => &mut self.publish.get_or_insert_default().user_properties,
            Stage::Subscribe => {
                &mut self.subscribe.get_or_insert_with(no_subscribe_properties).user_properties
            }
        }
    }

    fn take_connect(&mut self, name: &str, value: &str) -> Result<bool, String> {
        let connect = self.connect.get_or_insert_default();
        match name {
            "session-expiry-interval" => connect.session_expiry_interval = Some(number(value)?),
            "receive-maximum" => connect.receive_maximum = Some(number(value)?),
            "maximum-packet-size" => connect.max_packet_size = Some(number(value)?),
            "topic-alias-maximum" => connect.topic_alias_max = Some(number(value)?),
            "request-response-information" => connect.request_response_info = Some(number(value)?),
            "request-problem-information" => connect.request_problem_info = Some(number(value)?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn take_will(&mut self, name: &str, value: &str) -> Result<bool, String> {
        let will = self.will.get_or_insert_with(no_will_properties);
        match name {
            "will-delay-interval" => will.delay_interval = Some(number(value)?),
            "payload-format-indicator" => will.payload_format_indicator = Some(number(value)?),
            "message-expiry-interval" => will.message_expiry_interval = Some(number(value)?),
            "content-type" => will.content_type = Some(value.into()),
            "response-topic" => will.response_topic = Some(value.into()),
            "correlation-data" => will.correlation_data = Some(value.to_owned().into()),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn take_publish(&mut self, name: &str, value: &str) -> Result<bool, String> {
        let publish = self.publish.get_or_insert_default();
        match name {
            "payload-format-indicator" => publish.payload_format_indicator = Some(number(value)?),
            "message-expiry-interval" => publish.message_expiry_interval = Some(number(value)?),
            "content-type" => publish.content_type = Some(value.into()),
            "response-topic" => publish.response_topic = Some(value.into()),
            "correlation-data" => publish.correlation_data = Some(value.to_owned().into()),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn take_subscribe(&mut self, name: &str, value: &str) -> Result<bool, String> {
        match name {
            "subscription-identifier" => {
                self.subscribe.get_or_insert_with(no_subscribe_properties).id = Some(number(value)?)
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// rumqttc has no defaults for these two.
fn no_will_properties() -> LastWillProperties {
    LastWillProperties {
        delay_interval: None,
        payload_format_indicator: None,
        message_expiry_interval: None,
        content_type: None,
        response_topic: None,
        correlation_data: None,
        user_properties: Vec::new(),
    }
}

fn no_subscribe_properties() -> SubscribeProperties {
    SubscribeProperties { id: None, user_properties: Vec::new() }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("`{text}` is no number, or one that is too large"))
}

impl PropertyArguments {
    /// Sorts the properties by packet; those that name none belong to `default`.
    pub(super) fn parse(&self, default: Stage) -> Result<Properties, String> {
        let mut properties = Properties::default();
        for words in &self.0 {
            properties.take(words, default).map_err(|error| format!("-D {}: {error}", words.join(" ")))?;
        }
        Ok(properties)
    }
}

impl Args for PropertyArguments {
    fn augment_args(command: Command) -> Command {
        let property = Arg::new("property")
            .short('D')
            .long("property")
            .num_args(2..=4)
            .value_names(["[PACKET] NAME", "VALUE"])
            .action(ArgAction::Append)
            .help_heading("MQTT 5")
            .help(HELP)
            .long_help(LONG_HELP);
        command.arg(property)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for PropertyArguments {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let occurrences = matches.get_occurrences::<String>("property");
        Ok(Self(occurrences.into_iter().flatten().map(|words| words.cloned().collect()).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(occurrences: &[&str], default: Stage) -> Result<Properties, String> {
        let words = |text: &&str| text.split(' ').map(ToOwned::to_owned).collect();
        PropertyArguments(occurrences.iter().map(words).collect()).parse(default)
    }

    #[test]
    fn properties_go_to_the_named_packet_or_to_the_default_one() {
        let given =
            ["content-type a/b", "will user-property k v", "connect receive-maximum 7", "user-property x y"];
        let properties = parse(&given, Stage::Publish).unwrap();
        let publish = properties.publish.unwrap();
        assert_eq!(publish.content_type.as_deref(), Some("a/b"));
        assert_eq!(publish.user_properties, [("x".to_owned(), "y".to_owned())]);
        assert_eq!(properties.will.unwrap().user_properties, [("k".to_owned(), "v".to_owned())]);
        assert_eq!(properties.connect.unwrap().receive_maximum, Some(7));
        assert_eq!(properties.subscribe, None);
    }

    #[test]
    fn a_wrong_property_is_named() {
        for wrong in
            ["publish session-expiry-interval 1", "message-expiry-interval x", "user-property k", "k"]
        {
            let error = parse(&[wrong], Stage::Publish).unwrap_err();
            assert!(error.starts_with(&format!("-D {wrong}: ")), "{error}");
        }
    }
}
