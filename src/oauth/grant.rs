//! The grants and the parameters that each of them needs.

use super::errors::OAuthError;
use super::form::Params;

/// A grant that clients may use at the token endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Grant {
    /// A client acting for itself (RFC 6749 §4.4).
    ClientCredentials,
    /// A code from the authorization endpoint (RFC 6749 §4.1.3, RFC 7636 §4.5).
    AuthorizationCode,
    /// A refresh token (RFC 6749 §6).
    RefreshToken,
    /// The name and password of a user (RFC 6749 §4.3), for clients that cannot do better.
    Password,
}

/// The metric label of a request whose grant is none of [`Grant::ALL`].
pub const UNKNOWN_GRANT: &str = "unknown";

impl Grant {
    /// Every grant, for labels that are resolved ahead.
    pub const ALL: [Self; 4] = [
        Self::ClientCredentials,
        Self::AuthorizationCode,
        Self::RefreshToken,
        Self::Password,
    ];

    /// The name in `grant_type`, in the configuration and in labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClientCredentials => "client_credentials",
            Self::AuthorizationCode => "authorization_code",
            Self::RefreshToken => "refresh_token",
            Self::Password => "password",
        }
    }

    /// The grant with this exact name; names are case-sensitive (RFC 6749 §3.2).
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|grant| grant.as_str() == name)
    }

    /// Parameters without which the issuer could only refuse. Others are optional or unknown, and
    /// pass: `audience` because tenants may have a default, `redirect_uri` and `code_verifier`
    /// because only the issuer knows whether the authorization request had their counterparts.
    #[must_use]
    pub const fn required(self) -> &'static [&'static str] {
        match self {
            Self::ClientCredentials => &[],
            Self::AuthorizationCode => &["code"],
            Self::RefreshToken => &["refresh_token"],
            Self::Password => &["username", "password"],
        }
    }

    /// Whether a client without a credential of its own may use it (RFC 6749 §4.4 forbids one).
    #[must_use]
    pub const fn open_to_public_clients(self) -> bool {
        match self {
            Self::ClientCredentials => false,
            Self::AuthorizationCode | Self::RefreshToken | Self::Password => true,
        }
    }
}

impl std::str::FromStr for Grant {
    type Err = UnknownGrant;

    fn from_str(name: &str) -> Result<Self, UnknownGrant> {
        Self::from_name(name).ok_or(UnknownGrant)
    }
}

/// A name that is no grant which the gateway serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownGrant;

impl std::fmt::Display for UnknownGrant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("no grant of this gateway; it has ")?;
        f.write_str(&Grant::ALL.map(Grant::as_str).join(", "))
    }
}

impl std::error::Error for UnknownGrant {}

/// The grant that `params` asks for, if it has one that the gateway knows: for labels.
#[must_use]
pub fn named(params: &Params) -> Option<Grant> {
    Grant::from_name(params.get("grant_type")?.expose())
}

/// The grant that `params` asks for, when it is one of `allowed` and its parameters are there.
///
/// # Errors
///
/// [`OAuthError::MissingParameter`] or [`OAuthError::UnsupportedGrant`].
pub fn find(params: &Params, allowed: &[Grant]) -> Result<Grant, OAuthError> {
    if params.get("grant_type").is_none() {
        return Err(OAuthError::MissingParameter("grant_type"));
    }
    let grant = named(params)
        .filter(|grant| allowed.contains(grant))
        .ok_or(OAuthError::UnsupportedGrant)?;
    match grant
        .required()
        .iter()
        .find(|name| params.get(name).is_none())
    {
        Some(missing) => Err(OAuthError::MissingParameter(missing)),
        None => Ok(grant),
    }
}
