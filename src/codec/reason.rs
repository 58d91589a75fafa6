//! Reason codes of MQTT 5.

use std::fmt;

/// Makes the enumeration, its numbers and its names from one table.
macro_rules! reason_codes {
    ($( $(#[$doc:meta])* $code:ident = $number:literal $name:literal, )*) => {
        /// A reason code of MQTT 5. Which packet may carry which is told by the standard's table 2-6.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        #[allow(missing_docs, reason = "the names are the standard's own")]
        pub enum ReasonCode {
            $( $(#[$doc])* $code = $number, )*
        }

        impl ReasonCode {
            /// All reason codes, by number.
            pub const ALL: &[ReasonCode] = &[$( ReasonCode::$code, )*];

            /// The reason code with this number; `None` if the standard has none.
            pub fn from_u8(number: u8) -> Option<ReasonCode> {
                match number {
                    $( $number => Some(ReasonCode::$code), )*
                    _ => None,
                }
            }

            /// The standard's name.
            pub fn name(self) -> &'static str {
                match self {
                    $( ReasonCode::$code => $name, )*
                }
            }
        }
    };
}

reason_codes! {
    /// Also Normal disconnection and Granted QoS 0.
    Success = 0x00 "Success",
    GrantedQoS1 = 0x01 "Granted QoS 1",
    GrantedQoS2 = 0x02 "Granted QoS 2",
    DisconnectWithWill = 0x04 "Disconnect with Will Message",
    NoMatchingSubscribers = 0x10 "No matching subscribers",
    NoSubscriptionExisted = 0x11 "No subscription existed",
    ContinueAuthentication = 0x18 "Continue authentication",
    ReAuthenticate = 0x19 "Re-authenticate",
    UnspecifiedError = 0x80 "Unspecified error",
    MalformedPacket = 0x81 "Malformed Packet",
    ProtocolError = 0x82 "Protocol Error",
    ImplementationSpecificError = 0x83 "Implementation specific error",
    UnsupportedProtocolVersion = 0x84 "Unsupported Protocol Version",
    ClientIdentifierNotValid = 0x85 "Client Identifier not valid",
    BadUserNameOrPassword = 0x86 "Bad User Name or Password",
    NotAuthorized = 0x87 "Not authorized",
    ServerUnavailable = 0x88 "Server unavailable",
    ServerBusy = 0x89 "Server busy",
    Banned = 0x8A "Banned",
    ServerShuttingDown = 0x8B "Server shutting down",
    BadAuthenticationMethod = 0x8C "Bad authentication method",
    KeepAliveTimeout = 0x8D "Keep Alive timeout",
    SessionTakenOver = 0x8E "Session taken over",
    TopicFilterInvalid = 0x8F "Topic Filter invalid",
    TopicNameInvalid = 0x90 "Topic Name invalid",
    PacketIdentifierInUse = 0x91 "Packet Identifier in use",
    PacketIdentifierNotFound = 0x92 "Packet Identifier not found",
    ReceiveMaximumExceeded = 0x93 "Receive Maximum exceeded",
    TopicAliasInvalid = 0x94 "Topic Alias invalid",
    PacketTooLarge = 0x95 "Packet too large",
    MessageRateTooHigh = 0x96 "Message rate too high",
    QuotaExceeded = 0x97 "Quota exceeded",
    AdministrativeAction = 0x98 "Administrative action",
    PayloadFormatInvalid = 0x99 "Payload format invalid",
    RetainNotSupported = 0x9A "Retain not supported",
    QoSNotSupported = 0x9B "QoS not supported",
    UseAnotherServer = 0x9C "Use another server",
    ServerMoved = 0x9D "Server moved",
    SharedSubscriptionsNotSupported = 0x9E "Shared Subscriptions not supported",
    ConnectionRateExceeded = 0x9F "Connection rate exceeded",
    MaximumConnectTime = 0xA0 "Maximum connect time",
    SubscriptionIdentifiersNotSupported = 0xA1 "Subscription Identifiers not supported",
    WildcardSubscriptionsNotSupported = 0xA2 "Wildcard Subscriptions not supported",
}

impl ReasonCode {
    /// True for codes of 0x80 and more.
    pub fn is_error(self) -> bool {
        self as u8 >= 0x80
    }

    /// True for errors that CONNACK may tell. `[MQTT-3.2.2-8]`
    pub fn refuses_connection(self) -> bool {
        self.is_error() && ReasonPlace::ConnAck.reason(self as u8).is_some()
    }

    /// True for errors that DISCONNECT may tell. `[MQTT-3.14.2-1]`
    pub fn ends_connection(self) -> bool {
        self.is_error() && ReasonPlace::Disconnect.reason(self as u8).is_some()
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The packets that carry reason codes, for the question which codes they may carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReasonPlace {
    ConnAck,
    /// PUBACK and PUBREC.
    PubAckOrRec,
    /// PUBREL and PUBCOMP.
    PubRelOrComp,
    SubAck,
    UnsubAck,
    /// Either direction.
    Disconnect,
    Auth,
}

impl ReasonPlace {
    /// The reason code with this number if it may stand here: table 2-6.
    pub(super) fn reason(self, number: u8) -> Option<ReasonCode> {
        let legal = match self {
            // [MQTT-3.2.2-8]
            ReasonPlace::ConnAck => {
                matches!(number, 0x00 | 0x80..=0x8A | 0x8C | 0x90 | 0x95 | 0x97 | 0x99..=0x9D | 0x9F)
            }
            // [MQTT-3.4.2-1], [MQTT-3.5.2-1]
            ReasonPlace::PubAckOrRec => {
                matches!(number, 0x00 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99)
            }
            // [MQTT-3.6.2-1], [MQTT-3.7.2-1]
            ReasonPlace::PubRelOrComp => matches!(number, 0x00 | 0x92),
            // [MQTT-3.9.3-2]
            ReasonPlace::SubAck => {
                matches!(number, 0x00..=0x02 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91 | 0x97 | 0x9E | 0xA1 | 0xA2)
            }
            // [MQTT-3.11.3-2]
            ReasonPlace::UnsubAck => matches!(number, 0x00 | 0x11 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91),
            // [MQTT-3.14.2-1]; 0x8C stands in table 2-6, though not in 3.14.2.1.
            ReasonPlace::Disconnect => matches!(
                number,
                0x00 | 0x04 | 0x80..=0x83 | 0x87 | 0x89 | 0x8B..=0x90 | 0x93..=0xA2
            ),
            // [MQTT-3.15.2-1]
            ReasonPlace::Auth => matches!(number, 0x00 | 0x18 | 0x19),
        };
        if legal { ReasonCode::from_u8(number) } else { None }
    }
}
