//! Addresses: what to listen on, and networks.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use ipnet::IpNet;

use super::text::{BadText, text_type};

/// An address to listen on: `"0.0.0.0:8080"`, `"[::]:8080"`, `"unix:/run/gateway.sock"`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddr {
    /// An IP address and a port.
    Tcp(SocketAddr),
    /// A Unix socket, by its absolute path.
    Unix(PathBuf),
}

/// Who may use a file, in octal: `"0660"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileMode(pub u32);

/// What the name of a Unix socket holds at most (`sun_path` of `unix(7)`, less the final zero), and room for the
/// eight bytes of the name under which a socket is prepared, should its own be a single letter.
const MAX_SOCKET_PATH: usize = 107 - 7;

/// A network in CIDR notation, refused when bits outside the prefix are set: `10.1.2.3/8` is as likely a slip of
/// the prefix as of the address, and these lists decide whom to trust.
#[derive(Clone, Copy)]
pub(super) struct Cidr(IpNet);

text_type!(
    ListenAddr,
    "address and port",
    r"^(([0-9.]+|\[[0-9A-Fa-f:.]+\]):[0-9]+|unix:/.+)$",
    ["127.0.0.1:8080", "[::]:8080", "unix:/run/gateway.sock"]
);
text_type!(FileMode, "file mode", r"^0?[0-7]{3}$", ["0660", "0600"]);
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
        Self::Tcp(SocketAddr::new(IpAddr::V4(ip), port))
    }
}

impl FromStr for ListenAddr {
    type Err = BadText;

    fn from_str(text: &str) -> Result<Self, BadText> {
        if let Some(path) = text.strip_prefix("unix:") {
            return socket_path(path).map_err(|why| BadText(format!("{text:?}: {why}")));
        }
        if text.parse::<IpAddr>().is_ok() {
            return Err(BadText(format!("{text:?} has no port")));
        }
        if let Some(port) = text.strip_prefix(':') {
            return Err(BadText(format!(
                "{text:?} has no address: write \"0.0.0.0:{port}\" for all IPv4 or \"[::]:{port}\" for all addresses"
            )));
        }
        text.parse().map(Self::Tcp).map_err(|_| {
            BadText(format!(
                "{text:?} is not an IP address and a port; names are not looked up"
            ))
        })
    }
}

fn socket_path(path: &str) -> Result<ListenAddr, &'static str> {
    if !path.starts_with('/') {
        return Err("the path of a Unix socket begins with a slash");
    }
    if path.ends_with('/') || path.contains('\0') {
        return Err("that is no name for a socket");
    }
    if path.len() > MAX_SOCKET_PATH {
        return Err("the path of a Unix socket has 100 bytes at most");
    }
    Ok(ListenAddr::Unix(path.into()))
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

// === impl FileMode ===

impl FromStr for FileMode {
    type Err = BadText;

    fn from_str(text: &str) -> Result<Self, BadText> {
        let digits = text.strip_prefix('0').filter(|rest| rest.len() == 3);
        let digits = digits.unwrap_or(text);
        let octal = digits.len() == 3 && digits.bytes().all(|digit| matches!(digit, b'0'..=b'7'));
        u32::from_str_radix(digits, 8)
            .ok()
            .filter(|_| octal)
            .map(Self)
            .ok_or_else(|| BadText(format!("{text:?} is not a file mode: write \"0660\"")))
    }
}

impl fmt::Display for FileMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
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
        for text in [
            "0.0.0.0:8080",
            "[::]:8080",
            "127.0.0.1:0",
            "[::1]:443",
            "unix:/run/gateway.sock",
        ] {
            assert_eq!(text.parse::<ListenAddr>().unwrap().to_string(), text);
        }
        for (text, message) in [
            (":8080", "has no address"),
            ("unix:gateway.sock", "begins with a slash"),
            ("unix:", "begins with a slash"),
            ("unix:/run/", "no name for a socket"),
            (&format!("unix:/{}", "x".repeat(100)), "100 bytes at most"),
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
    fn file_modes() {
        for (text, mode) in [("0660", 0o660), ("600", 0o600), ("0777", 0o777)] {
            assert_eq!(text.parse(), Ok(FileMode(mode)), "{text}");
        }
        assert_eq!(FileMode(0o600).to_string(), "0600");
        for text in ["", "66", "0888", "00660", "+660", "rw-rw----", "1777"] {
            assert!(text.parse::<FileMode>().is_err(), "{text}");
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
