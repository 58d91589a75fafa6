//! What a client says in CONNECT.

use std::{
    num::{NonZeroU16, NonZeroU32},
    sync::Arc,
};

use dunlin::{
    allowance::Allowance,
    codec::{self, Connect, ConnectProperties, Packet, QoS, UserProperties, Version, Will, WillProperties},
    limits::Durability,
};

/// A CONNECT to be.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) version: Version,
    pub(crate) id: String,
    pub(crate) clean: bool,
    pub(crate) keep_alive_secs: u16,
    pub(crate) expiry_secs: Option<u32>,
    pub(crate) receive_maximum: Option<u16>,
    pub(crate) packet_bytes_max: Option<u32>,
    pub(crate) alias_maximum: Option<u16>,
    pub(crate) problem_information: Option<bool>,
    pub(crate) response_information: Option<bool>,
    pub(crate) authentication_method: Option<&'static str>,
    pub(crate) user: Option<&'static str>,
    pub(crate) will: Option<WillSetup>,
    /// What the listener promises that it connects to.
    pub(crate) durability: Durability,
    pub(crate) allowances: Vec<Arc<Allowance>>,
    /// Whether it answers PUBLISH, PUBREC and PUBREL by itself, and does not show the last two.
    pub(crate) answers: bool,
}

/// A will to be.
#[derive(Clone, Debug)]
pub(crate) struct WillSetup {
    pub(crate) topic: &'static str,
    pub(crate) payload: &'static str,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) delay_secs: Option<u32>,
    pub(crate) message_expiry_secs: Option<u32>,
    pub(crate) user_properties: Vec<(&'static str, &'static str)>,
}

impl Setup {
    /// A client of this version whose session ends with its connection.
    pub(crate) fn new(version: Version, id: &str) -> Setup {
        Setup {
            version,
            id: id.into(),
            clean: true,
            keep_alive_secs: 0,
            expiry_secs: None,
            receive_maximum: None,
            packet_bytes_max: None,
            alias_maximum: None,
            problem_information: None,
            response_information: None,
            authentication_method: None,
            user: None,
            will: None,
            durability: Durability::Commit,
            allowances: Vec::new(),
            answers: true,
        }
    }

    /// The test answers PUBLISH, PUBREC and PUBREL itself.
    pub(crate) fn manual(self) -> Setup {
        Setup { answers: false, ..self }
    }

    /// The same of MQTT 5.
    pub(crate) fn v5(id: &str) -> Setup {
        Setup::new(Version::V5, id)
    }

    /// A client of this version that goes on with its session, which outlives its connection.
    pub(crate) fn durable(version: Version, id: &str) -> Setup {
        let expiry_secs = version.is_v5().then_some(3600);
        Setup { clean: false, expiry_secs, ..Setup::new(version, id) }
    }

    /// Goes on with the session that there is.
    pub(crate) fn resuming(self) -> Setup {
        Setup { clean: false, ..self }
    }

    /// With this Session Expiry Interval.
    pub(crate) fn expiry(self, secs: u32) -> Setup {
        Setup { expiry_secs: Some(secs), ..self }
    }

    /// With this Receive Maximum.
    pub(crate) fn receive_maximum(self, maximum: u16) -> Setup {
        Setup { receive_maximum: Some(maximum), ..self }
    }

    /// With this Maximum Packet Size.
    pub(crate) fn packet_max(self, bytes: u32) -> Setup {
        Setup { packet_bytes_max: Some(bytes), ..self }
    }

    /// With this Topic Alias Maximum.
    pub(crate) fn aliases(self, maximum: u16) -> Setup {
        Setup { alias_maximum: Some(maximum), ..self }
    }

    /// With this Keep Alive.
    pub(crate) fn keep_alive(self, secs: u16) -> Setup {
        Setup { keep_alive_secs: secs, ..self }
    }

    /// By a listener that promises this.
    pub(crate) fn allowance(mut self, allowance: &Arc<Allowance>) -> Setup {
        self.allowances.push(allowance.clone());
        self
    }

    pub(crate) fn durability(self, durability: Durability) -> Setup {
        Setup { durability, ..self }
    }

    /// With this will.
    pub(crate) fn will(self, will: WillSetup) -> Setup {
        Setup { will: Some(will), ..self }
    }

    /// Takes over from a CONNECT what the broker has to heed: its bytes may have been written by other means.
    pub(super) fn note(&mut self, connect: &Connect<'_>) {
        let properties = &connect.properties;
        self.version = connect.version;
        self.receive_maximum = properties.receive_maximum.map(NonZeroU16::get);
        self.packet_bytes_max = properties.packet_bytes_max.map(NonZeroU32::get);
        self.alias_maximum = properties.topic_alias_maximum;
        self.problem_information = properties.request_problem_information;
    }

    /// The packet as bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let properties = ConnectProperties {
            session_expiry_secs: self.expiry_secs,
            receive_maximum: self.receive_maximum.and_then(NonZeroU16::new),
            packet_bytes_max: self.packet_bytes_max.and_then(NonZeroU32::new),
            topic_alias_maximum: self.alias_maximum,
            request_problem_information: self.problem_information,
            request_response_information: self.response_information,
            authentication_method: self.authentication_method,
            ..ConnectProperties::default()
        };
        let will = self.will.as_ref().map(|will| Will {
            qos: will.qos,
            retain: will.retain,
            topic: will.topic,
            payload: will.payload.as_bytes(),
            properties: WillProperties {
                delay_secs: will.delay_secs,
                message_expiry_secs: will.message_expiry_secs,
                user_properties: UserProperties::from_list(&will.user_properties),
                ..WillProperties::default()
            },
        });
        let connect = Connect {
            version: self.version,
            clean_start: self.clean,
            keep_alive_secs: self.keep_alive_secs,
            client_id: &self.id,
            will,
            user_name: self.user,
            password: None,
            properties,
        };
        let mut bytes = Vec::new();
        codec::encode(&Packet::Connect(Box::new(connect)), self.version, &mut bytes);
        bytes
    }
}

impl WillSetup {
    /// A will of QoS 0, not retained and without delay.
    pub(crate) fn new(topic: &'static str, payload: &'static str) -> WillSetup {
        WillSetup {
            topic,
            payload,
            qos: QoS::AtMostOnce,
            retain: false,
            delay_secs: None,
            message_expiry_secs: None,
            user_properties: Vec::new(),
        }
    }

    /// With this QoS.
    pub(crate) fn qos(self, qos: QoS) -> WillSetup {
        WillSetup { qos, ..self }
    }

    /// With this Will Delay Interval.
    pub(crate) fn delay(self, secs: u32) -> WillSetup {
        WillSetup { delay_secs: Some(secs), ..self }
    }
}
