//! The header X-Forwarded-For, by which HTTP proxies say for whom they ask.

use std::net::{IpAddr, SocketAddr};

use tokio_tungstenite::tungstenite::http::HeaderMap;

use crate::config::Proxies;

const FORWARDED_FOR: &str = "x-forwarded-for";

/// The client's address: the last one that is not a trusted proxy's, counted from our end.
///
/// Each proxy appends the address that it was asked from. What stands to the left of the first address that is not
/// trusted was written by nobody knows whom, so it is not looked at; nor is anything if `peer` is not trusted.
pub(super) fn client(peer: IpAddr, headers: &HeaderMap, proxies: &Proxies) -> IpAddr {
    let mut client = peer;
    let values: Vec<&str> =
        headers.get_all(FORWARDED_FOR).iter().map(|value| value.to_str().unwrap_or("")).collect();
    // Several headers are one list.
    for entry in values.iter().rev().flat_map(|value| value.rsplit(',')) {
        if !proxies.trust(client) {
            break;
        }
        // A proxy that hides from whom it was asked stands for its clients.
        let Some(ip) = address(entry.trim()) else { break };
        client = ip;
    }
    client
}

/// An IP address, with or without brackets and port.
fn address(text: &str) -> Option<IpAddr> {
    let ip = text.parse().or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()));
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    ip.ok().or_else(bracketed).map(|ip: IpAddr| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ProxyProtocol;

    #[test]
    fn the_client_is_the_last_address_that_is_no_trusted_proxy() {
        let trusted = ["10.0.0.0/8", "::1"].map(|network| network.parse().unwrap()).to_vec();
        let proxies = Proxies { protocol: ProxyProtocol::None, trusted };
        let table: &[(&str, &[&str], &str)] = &[
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", &["203.0.113.9, 10.0.0.2"], "203.0.113.9"),
            // Whoever stands to the left of an untrusted address may have made it up.
            ("10.0.0.1", &["10.9.9.9, 198.51.100.1, 203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", &["127.0.0.1, 203.0.113.9 ,10.0.0.2"], "203.0.113.9"),
            // An untrusted peer says nothing.
            ("192.0.2.1", &["203.0.113.9"], "192.0.2.1"),
            // Several headers are one list, the last is ours.
            ("10.0.0.1", &["198.51.100.1", "203.0.113.9, 10.0.0.2"], "203.0.113.9"),
            ("10.0.0.1", &["198.51.100.1, 203.0.113.9", "10.0.0.2"], "203.0.113.9"),
            // All are trusted: the first is the client.
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("::1", &["2001:db8::7"], "2001:db8::7"),
            ("::1", &["[2001:db8::7]:4711"], "2001:db8::7"),
            ("::1", &["[2001:db8::7]"], "2001:db8::7"),
            ("::1", &["203.0.113.9:80"], "203.0.113.9"),
            ("::1", &["::ffff:203.0.113.9"], "203.0.113.9"),
            // A proxy that does not tell is the client as far as we know.
            ("10.0.0.1", &["203.0.113.9, unknown"], "10.0.0.1"),
            ("10.0.0.1", &["unknown, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &[""], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.9,"], "10.0.0.1"),
            ("10.0.0.1", &["1e3"], "10.0.0.1"),
        ];
        for (peer, values, expected) in table {
            let mut headers = HeaderMap::new();
            for value in *values {
                headers.append(FORWARDED_FOR, value.parse().unwrap());
            }
            let found = client(peer.parse().unwrap(), &headers, &proxies);
            assert_eq!(found, expected.parse::<IpAddr>().unwrap(), "{peer} {values:?}");
        }
    }
}
