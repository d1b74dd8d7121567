//! The endpoints of a surface beside the token endpoint: what they are called and how they are asked.

use std::fmt;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, Response};

use super::errors::OAuthError;
use super::reply::Outcome;

/// An endpoint of a surface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// Sends a browser on to where users log in (RFC 6749 §3.1).
    Authorize,
    /// Says who a user is (OpenID Connect Core §5.3).
    Userinfo,
    /// Ends a token (RFC 7009).
    Revoke,
    /// Says what a token is worth (RFC 7662).
    Introspect,
    /// The issuer's discovery document (OpenID Connect Discovery §4).
    Discovery,
    /// The issuer's keys (RFC 7517 §5).
    Jwks,
}

/// What such an endpoint answers, and what metrics say of it.
///
/// `Debug` shows neither headers nor body.
pub struct Answer {
    /// What the client gets.
    pub response: Response<Bytes>,
    /// How it ended.
    pub outcome: Outcome,
}

/// In place of a grant, in metrics of endpoints that have none.
pub const NO_GRANT: &str = "-";

// === impl Endpoint ===

impl Endpoint {
    /// The name in metrics, logs and `explain`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Authorize => "authorize",
            Self::Userinfo => "userinfo",
            Self::Revoke => "revoke",
            Self::Introspect => "introspect",
            Self::Discovery => "discovery",
            Self::Jwks => "jwks",
        }
    }

    /// The last segment of its path, unless another one is configured.
    #[must_use]
    pub const fn leaf(self) -> &'static str {
        match self {
            Self::Authorize | Self::Userinfo | Self::Revoke | Self::Introspect => self.as_str(),
            Self::Discovery => "openid-configuration",
            Self::Jwks => "jwks.json",
        }
    }

    /// Whether tokens are sent to it in a body, which is never done by `GET`.
    #[must_use]
    pub const fn is_posted(self) -> bool {
        match self {
            Self::Revoke | Self::Introspect => true,
            Self::Authorize | Self::Userinfo | Self::Discovery | Self::Jwks => false,
        }
    }

    /// The methods that it may be asked by.
    #[must_use]
    pub const fn methods(self) -> &'static [&'static str] {
        if self.is_posted() {
            &["POST"]
        } else {
            &["GET", "HEAD"]
        }
    }

    /// Whether it may be asked by this method.
    ///
    /// # Errors
    ///
    /// [`OAuthError::MethodNotAllowed`] or [`OAuthError::NotGet`].
    pub fn check(self, method: &Method) -> Result<(), OAuthError> {
        if self.methods().contains(&method.as_str()) {
            Ok(())
        } else if self.is_posted() {
            Err(OAuthError::MethodNotAllowed)
        } else {
            Err(OAuthError::NotGet)
        }
    }
}

// === impl Answer ===

impl Answer {
    /// A document of the issuer's that anybody may keep for `fresh` seconds.
    #[must_use]
    pub fn document(body: Bytes, fresh: u64) -> Self {
        let mut response = Response::new(body);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // Digits are always a header value.
        if let Ok(value) = HeaderValue::from_str(&format!("public, max-age={fresh}")) {
            headers.insert(CACHE_CONTROL, value);
        }
        Self {
            response,
            outcome: Outcome::Answered,
        }
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("status", &self.response.status())
            .field("outcome", &self.outcome)
            .finish_non_exhaustive()
    }
}
