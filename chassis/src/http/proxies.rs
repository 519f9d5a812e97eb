//! The clients behind reverse proxies.

use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;
use ipnet::IpNet;

use super::peer::Peer;

/// Where a trusted proxy writes for whom it asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For: client, proxy`
    XForwardedFor,
    /// `Forwarded: for=client, for=proxy` (RFC 7239)
    Forwarded,
}

/// The proxies whose word on the client's address counts.
#[derive(Debug, Clone)]
pub(super) struct Proxies {
    pub(super) trusted: Vec<IpNet>,
    pub(super) header: ForwardedHeader,
}

/// Reads a network such as `10.0.0.0/8`, or one address.
pub(super) fn network(text: &str) -> Result<IpNet, String> {
    let address = text.parse::<IpAddr>().map(IpNet::from);
    address.or_else(|_not_one| text.parse()).map_err(|_neither| format!("`{text}` is no address and no network"))
}

impl Proxies {
    /// The peer of a connection: a proxy's connections count for nobody.
    pub(super) fn peer_of_connection(&self, address: IpAddr) -> Peer {
        if self.trusts(address) { Peer::UNKNOWN } else { Peer::at(address) }
    }

    /// The peer of a request: the last address in the header that is not a trusted proxy's own.
    ///
    /// What stands before that address was written by the client, and may be anything.
    pub(super) fn peer_of_request(&self, address: IpAddr, headers: &HeaderMap) -> Peer {
        if !self.trusts(address) {
            return Peer::at(address);
        }
        let mut nearest = Peer::UNKNOWN;
        for hop in self.hops(headers).rev() {
            // A name, or something that cannot be read: whoever it is, the rest cannot be trusted.
            let Some(address) = hop else { return Peer::UNKNOWN };
            nearest = Peer::at(address);
            if !self.trusts(address) {
                break;
            }
        }
        nearest
    }

    fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.trusted.iter().any(|network| network.contains(&address))
    }

    fn hops(&self, headers: &HeaderMap) -> impl DoubleEndedIterator<Item = Option<IpAddr>> {
        let (name, read): (_, fn(&str) -> Option<IpAddr>) = match self.header {
            ForwardedHeader::XForwardedFor => ("x-forwarded-for", address),
            ForwardedHeader::Forwarded => ("forwarded", forwarded_for),
        };
        let lines = headers.get_all(name).iter().map(|line| line.to_str().unwrap_or("?"));
        lines.flat_map(|line| line.split(',')).map(move |hop| read(hop.trim())).collect::<Vec<_>>().into_iter()
    }
}

/// The address of one element of `Forwarded`: `by=10.0.0.1;for="[2001:db8::1]:4711";proto=https`.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    element.split(';').filter_map(|pair| pair.trim().split_once('=')).find_map(|(name, value)| {
        name.eq_ignore_ascii_case("for").then(|| address(value.trim().trim_matches('"'))).flatten()
    })
}

/// An address with or without a port, an IPv6 one with or without brackets.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|with_port| with_port.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(header: ForwardedHeader, from: &str, lines: &[&str]) -> Peer {
        let trusted = ["10.0.0.0/8", "127.0.0.1", "2001:db8:1::/48"].map(|text| network(text).unwrap()).to_vec();
        let name = if header == ForwardedHeader::Forwarded { "forwarded" } else { "x-forwarded-for" };
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(name, line.parse().unwrap());
        }
        Proxies { trusted, header }.peer_of_request(from.parse().unwrap(), &headers)
    }

    fn at(text: &str) -> Peer {
        Peer::at(text.parse().unwrap())
    }

    #[test]
    fn only_a_trusted_proxy_names_the_client_and_only_the_last_stranger_counts() {
        let x = |from, lines: &[&str]| peer(ForwardedHeader::XForwardedFor, from, lines);
        assert_eq!(x("192.0.2.9", &["198.51.100.1"]), at("192.0.2.9"), "no proxy of ours");
        assert_eq!(x("10.0.0.1", &["198.51.100.1"]), at("198.51.100.1"));
        assert_eq!(x("::ffff:10.0.0.1", &["198.51.100.1:55"]), at("198.51.100.1"));
        assert_eq!(x("10.0.0.1", &["203.0.113.5, 198.51.100.1", "10.2.2.2"]), at("198.51.100.1"), "forged in front");
        assert_eq!(x("10.0.0.1", &["10.1.1.1, 10.2.2.2"]), at("10.1.1.1"), "a client inside");
        assert_eq!(x("127.0.0.1", &["2001:db8:9::1"]), at("2001:db8:9::2"));
        for unreadable in ["unknown", "", "198.51.100.1, _hidden", "é"] {
            let line = [unreadable];
            assert_eq!(x("10.0.0.1", &line), Peer::UNKNOWN, "{unreadable}");
        }
        assert_eq!(x("10.0.0.1", &[]), Peer::UNKNOWN);
    }

    #[test]
    fn the_standard_header_is_read_as_well() {
        let f = |line| peer(ForwardedHeader::Forwarded, "10.0.0.1", &[line]);
        assert_eq!(f("for=198.51.100.1;proto=https"), at("198.51.100.1"));
        assert_eq!(f(r#"for=9.9.9.9, By=10.0.0.1; For="[2001:db8:9::7]:4711""#), at("2001:db8:9::1"));
        assert_eq!(f("proto=https"), Peer::UNKNOWN);
    }

    #[test]
    fn a_network_is_an_address_or_a_prefix() {
        assert!(network("10.0.0.0/8").is_ok() && network("::1").is_ok());
        assert!(network("10.0.0.0/99").is_err() && network("proxy").is_err() && network("").is_err());
    }
}
