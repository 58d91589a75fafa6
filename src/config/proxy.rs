//! Proxies in front of a listener: whom to believe what it says of a client, and in which form.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use super::{
    check::Checker,
    raw::{Kind, RawListener},
};

/// The proxies in front of one listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// Whether connections begin with a header of the PROXY protocol.
    pub protocol: ProxyProtocol,
    /// Addresses of proxies that are believed: their PROXY headers, and X-Forwarded-For of WebSocket.
    pub trusted: Vec<Network>,
}

impl Proxies {
    /// Whether this address is that of a proxy which is believed.
    #[must_use]
    pub fn trust(&self, ip: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(ip))
    }
}

/// Whether connections begin with a header of the PROXY protocol, version 1 or 2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxyProtocol {
    /// They do not.
    #[default]
    None,
    /// They do, or are refused.
    Required,
}

/// The addresses that share their first bits: `10.0.0.0/8`, `::1/128`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// Addresses of IPv4.
    V4 {
        /// The first of them.
        first: Ipv4Addr,
        /// The bits that they share, 0 to 32.
        prefix_bits: u8,
    },
    /// Addresses of IPv6.
    V6 {
        /// The first of them.
        first: Ipv6Addr,
        /// The bits that they share, 0 to 128.
        prefix_bits: u8,
    },
}

impl Network {
    /// Whether the address is one of them. An address of IPv4 in the guise of IPv6 counts as IPv4.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self, ip.to_canonical()) {
            (Self::V4 { first, prefix_bits }, IpAddr::V4(ip)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(*prefix_bits)).unwrap_or(0);
                first.to_bits() == ip.to_bits() & mask
            }
            (Self::V6 { first, prefix_bits }, IpAddr::V6(ip)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(*prefix_bits)).unwrap_or(0);
                first.to_bits() == ip.to_bits() & mask
            }
            (Self::V4 { .. }, IpAddr::V6(_)) | (Self::V6 { .. }, IpAddr::V4(_)) => false,
        }
    }
}

/// Why a text is no network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkError(&'static str);

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for NetworkError {}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (ip, bits) = match text.split_once('/') {
            Some((ip, bits)) => (ip, Some(bits)),
            None => (text, None),
        };
        let ip: IpAddr = ip.parse().map_err(|_| NetworkError("is no IP address"))?;
        if ip.to_canonical() != ip {
            return Err(NetworkError("is an IPv4 address in the guise of IPv6: write it as IPv4"));
        }
        let bits_max = if ip.is_ipv4() { 32 } else { 128 };
        let prefix_bits = match bits {
            None => bits_max,
            Some(bits) => {
                let digits = !bits.is_empty() && bits.bytes().all(|byte| byte.is_ascii_digit());
                let number = bits.parse().ok().filter(|number| digits && *number <= bits_max);
                number.ok_or(NetworkError("has no prefix of 0 to 32 bits (IPv6: 0 to 128)"))?
            }
        };
        let network = match ip {
            IpAddr::V4(first) => Self::V4 { first, prefix_bits },
            IpAddr::V6(first) => Self::V6 { first, prefix_bits },
        };
        if !network.contains(ip) {
            return Err(NetworkError(
                "has bits set behind its prefix: write the first address of the network",
            ));
        }
        Ok(network)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4 { first, prefix_bits } => write!(f, "{first}/{prefix_bits}"),
            Self::V6 { first, prefix_bits } => write!(f, "{first}/{prefix_bits}"),
        }
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Checker<'_> {
    /// `key` is that of the listener.
    pub(super) fn proxies(&mut self, key: &str, raw: &RawListener) -> Proxies {
        let protocol = raw.proxy_protocol.unwrap_or_default();
        let mut trusted = Vec::new();
        for (index, text) in raw.trusted_proxies.iter().enumerate() {
            match text.parse::<Network>() {
                Ok(network) => trusted.push(network),
                Err(error) => {
                    let message =
                        format!("\"{text}\" {error}; write \"10.0.0.0/8\", \"192.0.2.7\" or \"::1\"");
                    self.refuse(&format!("{key}.trusted_proxies[{index}]"), message);
                }
            }
        }
        let is_web_socket = matches!(raw.kind, Kind::Ws | Kind::Wss);
        let key = format!("{key}.trusted_proxies");
        match (protocol, raw.kind) {
            (_, Kind::Unix) if !raw.trusted_proxies.is_empty() => self.refuse(
                &key,
                "does not belong to a Unix socket: who may connect there is a matter of its directory's permissions",
            ),
            (ProxyProtocol::Required, Kind::Tcp | Kind::Tls | Kind::Ws | Kind::Wss)
                if raw.trusted_proxies.is_empty() =>
            {
                self.refuse(&key, "is missing: proxy_protocol needs the addresses of the proxies");
            }
            (ProxyProtocol::None, _) if !raw.trusted_proxies.is_empty() && !is_web_socket => self.refuse(
                &key,
                "has no effect: set proxy_protocol to \"required\" (WebSocket listeners take X-Forwarded-For too)",
            ),
            (ProxyProtocol::None | ProxyProtocol::Required, _) => {}
        }
        Proxies { protocol, trusted }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_the_addresses_of_its_prefix() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("10.0.0.0/8", "::ffff:10.1.2.3", "::10.1.2.3"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
            ("0.0.0.0/0", "203.0.113.1", "::1"),
            ("192.0.2.8/29", "192.0.2.15", "192.0.2.16"),
            ("::1/128", "::1", "127.0.0.1"),
            ("2001:db8::/33", "2001:db8:7fff::1", "2001:db8:8000::"),
            ("::/0", "2001:db8::1", "192.0.2.1"),
        ] {
            let parsed: Network = network.parse().unwrap();
            assert!(parsed.contains(inside.parse().unwrap()), "{network} {inside}");
            assert!(!parsed.contains(outside.parse().unwrap()), "{network} {outside}");
            assert_eq!(parsed.to_string().parse(), Ok(parsed), "{network}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in [
            "",
            "10",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "10.0.0.0/8/8",
            "10.0.0.1/8",
            "::1/129",
            "::1/64",
            "::ffff:10.0.0.0/104",
            "a.example",
            "10.0.0.0 /8",
            "10.0.0.0/ 8",
        ] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }
}
