//! `hash_on`: what of a request keeps it with a server.

use std::fmt;
use std::str::FromStr;

use http::HeaderName;

use super::super::text::{BadText, text_type};

/// What `consistent_hash` goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashOn {
    /// The first value of this header field.
    Header(HeaderName),
    /// The claim of this literal name.
    Claim(String),
    /// The client's address, as trusted proxies tell it.
    ClientIp,
}

text_type!(
    HashOn,
    "hash key",
    r"^(header:.+|claim:.+|client_ip)$",
    ["header:x-tenant", "claim:sub", "client_ip"]
);

// === impl HashOn ===

impl FromStr for HashOn {
    type Err = BadText;

    fn from_str(text: &str) -> Result<Self, BadText> {
        match text.split_once(':') {
            Some(("header", name)) => name
                .parse()
                .map(Self::Header)
                .map_err(|_| BadText(format!("{name:?} is not the name of a header"))),
            Some(("claim", name)) if !name.is_empty() => Ok(Self::Claim(name.to_owned())),
            None if text == "client_ip" => Ok(Self::ClientIp),
            _ => Err(BadText(format!("{text:?} is nothing to go by"))),
        }
    }
}

impl fmt::Display for HashOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Claim(name) => write!(f, "claim:{name}"),
            Self::ClientIp => f.write_str("client_ip"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_gone_by() {
        for (text, shown) in [
            ("header:X-Tenant", "header:x-tenant"),
            ("claim:urn:a.b", "claim:urn:a.b"),
            ("client_ip", "client_ip"),
        ] {
            let read: HashOn = text.parse().unwrap();
            assert_eq!(read.to_string(), shown);
        }
        for text in [
            "",
            "header",
            "header:",
            "header:a b",
            "claim:",
            "client_ip:",
            "sub",
        ] {
            assert!(text.parse::<HashOn>().is_err(), "{text:?}");
        }
    }
}
