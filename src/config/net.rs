//! Addresses: what to listen on, and networks.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;

use super::text::{BadText, text_type};

/// An address to listen on: `"0.0.0.0:8080"`, `"[::]:8080"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenAddr(pub SocketAddr);

/// A network in CIDR notation, refused when bits outside the prefix are set: `10.1.2.3/8` is as likely a slip of
/// the prefix as of the address, and these lists decide whom to trust.
#[derive(Clone, Copy)]
pub(super) struct Cidr(IpNet);

text_type!(
    ListenAddr,
    "address and port",
    r"^([0-9.]+|\[[0-9A-Fa-f:.]+\]):[0-9]+$",
    ["127.0.0.1:8080", "[::]:8080"]
);
text_type!(
    Cidr,
    "network",
    r"^[0-9A-Fa-f:.]+/[0-9]+$",
    ["10.0.0.0/8", "fd00::/8"]
);

// === impl ListenAddr ===

impl ListenAddr {
    /// From its four numbers, for defaults.
    pub const fn v4(octets: [u8; 4], port: u16) -> Self {
        let [a, b, c, d] = octets;
        let ip = std::net::Ipv4Addr::new(a, b, c, d);
        Self(SocketAddr::new(IpAddr::V4(ip), port))
    }
}

impl FromStr for ListenAddr {
    type Err = BadText;

    fn from_str(text: &str) -> Result<Self, BadText> {
        if text.starts_with("unix:") {
            return Err(BadText(format!(
                "{text:?}: unix sockets are not supported by this version"
            )));
        }
        if text.parse::<IpAddr>().is_ok() {
            return Err(BadText(format!("{text:?} has no port")));
        }
        if let Some(port) = text.strip_prefix(':') {
            return Err(BadText(format!(
                "{text:?} has no address: write \"0.0.0.0:{port}\" for all IPv4 or \"[::]:{port}\" for all addresses"
            )));
        }
        text.parse().map(Self).map_err(|_| {
            BadText(format!(
                "{text:?} is not an IP address and a port; names are not looked up"
            ))
        })
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

// === impl Cidr ===

impl FromStr for Cidr {
    type Err = BadText;

    fn from_str(text: &str) -> Result<Self, BadText> {
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Err(BadText(format!(
                "{text:?} is an address, not a network: write \"{}\"",
                IpNet::from(ip)
            )));
        }
        let net: IpNet = text
            .parse()
            .map_err(|_| BadText(format!("{text:?} is not a network in CIDR notation")))?;
        if net.trunc() != net {
            return Err(BadText(format!(
                "{text:?} has address bits outside its prefix: write \"{}\"",
                net.trunc()
            )));
        }
        Ok(Self(net))
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Lists of networks, for `#[serde(with = "cidrs")]`.
pub(super) mod cidrs {
    use super::{Cidr, IpNet};
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
        let nets = Vec::<Cidr>::deserialize(deserializer)?;
        Ok(nets.into_iter().map(|cidr| cidr.0).collect())
    }

    pub fn serialize<S: Serializer>(nets: &[IpNet], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(nets.iter().copied().map(Cidr))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_addresses() {
        for text in ["0.0.0.0:8080", "[::]:8080", "127.0.0.1:0", "[::1]:443"] {
            assert_eq!(text.parse::<ListenAddr>().unwrap().to_string(), text);
        }
        for (text, message) in [
            (":8080", "has no address"),
            ("unix:/run/gateway.sock", "not supported by this version"),
            ("127.0.0.1", "has no port"),
            ("::", "has no port"),
            ("localhost:8080", "names are not looked up"),
            ("127.0.0.1:99999", "is not an IP address and a port"),
            ("", "is not an IP address and a port"),
        ] {
            let error = text.parse::<ListenAddr>().unwrap_err();
            assert!(error.0.contains(message), "{text:?}: {error}");
        }
    }

    #[test]
    fn networks() {
        for text in ["10.0.0.0/8", "fd00::/8", "192.0.2.1/32", "0.0.0.0/0"] {
            assert_eq!(
                text.parse::<Cidr>().map(|c| c.to_string()),
                Ok(text.to_owned())
            );
        }
        for (text, message) in [
            ("10.0.0.1", "write \"10.0.0.1/32\""),
            ("::1", "write \"::1/128\""),
            ("10.1.2.3/8", "write \"10.0.0.0/8\""),
            ("10.0.0.0/33", "not a network"),
            ("office", "not a network"),
        ] {
            let error = text.parse::<Cidr>().map(|c| c.to_string()).unwrap_err();
            assert!(error.0.contains(message), "{text:?}: {error}");
        }
    }
}
