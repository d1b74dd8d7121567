//! Which URLs may be asked for keys or tokens.

use std::fmt;
use std::net::IpAddr;

use http::Uri;

/// Why a URL may not be asked for keys or tokens. `Display` names the rule and the remedy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UrlError {
    /// Relative, or without a host.
    NotAbsolute,
    /// A scheme other than `https` or `http`.
    Scheme,
    /// `http` to a host that is not this machine.
    PlainHttp,
    /// `user:password@` in front of the host.
    UserInfo,
}

/// Whether `uri` may be asked for keys or tokens: HTTPS, or plain HTTP to this very machine.
///
/// # Errors
///
/// The rule that `uri` breaks.
pub fn check_url(uri: &Uri) -> Result<(), UrlError> {
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(UrlError::NotAbsolute);
    };
    if authority.host().is_empty() {
        return Err(UrlError::NotAbsolute);
    }
    if authority.as_str().contains('@') {
        return Err(UrlError::UserInfo);
    }
    match scheme {
        "https" => Ok(()),
        "http" if is_loopback(authority.host()) => Ok(()),
        "http" => Err(UrlError::PlainHttp),
        _ => Err(UrlError::Scheme),
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host);
    host.eq_ignore_ascii_case("localhost")
        || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAbsolute => "not an absolute URL; write https://host/path",
            Self::Scheme => "neither https nor http; write https://host/path",
            Self::PlainHttp => {
                "plain http is accepted only for this machine (127.0.0.0/8, ::1, localhost); use https"
            }
            Self::UserInfo => "holds a user name; remove everything up to the @",
        })
    }
}

impl std::error::Error for UrlError {}
