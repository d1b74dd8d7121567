//! What is wrong and what to do, in words for the client's developer.

use super::OAuthError;
use std::borrow::Cow;

impl OAuthError {
    /// What the client's developer reads: what is wrong and what to do. Only characters that
    /// RFC 6749 §5.2 allows (no quotes, no backslash), and never a value that was sent.
    #[must_use]
    pub fn description(self) -> Cow<'static, str> {
        let fixed = match self {
            Self::MethodNotAllowed => "use POST",
            Self::NotGet => "use GET",
            Self::BadQuery => {
                "the query is not valid: check percent-encoding, UTF-8 and that every parameter has a name"
            }
            Self::BadRedirectUri => "redirect_uri has to be an absolute URI without a fragment",
            Self::UnsupportedResponseType => {
                "this response_type is not enabled here; the authorization code flow has response_type=code"
            }
            Self::NoBearerToken => "send the access token in the header Authorization: Bearer",
            Self::SeveralTokens => "send the access token in one place only",
            Self::RevokedToken => "the access token has been revoked",
            Self::ForeignToken => "the token was issued to another client, or by somebody else",
            Self::UnsupportedTokenType => {
                "only access tokens can be revoked here: the authorization server has no revocation endpoint that is known here"
            }
            Self::NotKept => {
                "the revocation could not be kept; the token may still be good, try again"
            }
            Self::NotJudged => "the token cannot be judged at the moment, try again",
            Self::NoSuchEndpoint => {
                "the authorization server has no such endpoint that is known here"
            }
            Self::BodyTooLarge => "the body is larger than this endpoint accepts",
            Self::BodyTooSlow => "the body was not complete in time",
            Self::BodyBroken => "the body broke off",
            Self::UnsupportedMediaType => {
                "send application/x-www-form-urlencoded or application/json, in UTF-8 and not compressed"
            }
            Self::BadForm => {
                "the body is no valid form: check percent-encoding, UTF-8 and that every parameter has a name"
            }
            Self::BadJson { line, column } => {
                return format!("the body is no JSON object: line {line}, column {column}").into();
            }
            Self::NotAString(Some(name)) => return format!("{name} has to be a string").into(),
            Self::NotAString(None) => "every member has to be a string",
            Self::Repeated(Some(name)) => return format!("{name} occurs more than once").into(),
            Self::Repeated(None) => "a parameter occurs more than once",
            Self::TooManyParameters => "there are too many parameters",
            Self::MissingParameter(name) => return format!("{name} is missing or empty").into(),
            Self::MissingRequired(name) => {
                return format!("Missing required parameter: {name}").into();
            }
            Self::UnsupportedGrant => "this grant_type is not enabled here",
            Self::SeveralClientAuthentications => {
                "authenticate in one way only: Authorization header, client_secret or client_assertion"
            }
            Self::OtherClientId => "client_id differs from the one in the Authorization header",
            Self::BadBasic => {
                "the Authorization header is no Basic credential: base64 of client_id:client_secret is expected"
            }
            Self::UnsupportedAuthorization => {
                "of the Authorization schemes, only Basic is accepted here"
            }
            Self::NoClientAuthentication => {
                "this grant needs client authentication: Authorization header, client_secret or client_assertion"
            }
            Self::UnknownClient => {
                "only clients that are known here may ask: authenticate with Basic, or with client_id and client_secret in the body"
            }
            Self::InvalidGrant => "the refresh token is unknown, used already or somebody else's",
            Self::InvalidToken => "the access token is unknown, expired or revoked",
            Self::StoreUnavailable => {
                "what tokens are kept in does not answer; this request has changed nothing that is known, try again"
            }
            Self::StoreFull => "there are more tokens than can be kept; try again later",
            Self::RefreshFailed => {
                "another request with this refresh token has failed a moment ago; nothing was sent for this one, try again"
            }
            Self::IssuerUnknown => {
                "the authorization server has not been reached yet; nothing was sent to it, try again"
            }
            Self::TooManyOpen => {
                "too many requests wait for the authorization server; nothing was sent to it, try again"
            }
            Self::IssuerUnreachable => {
                "the authorization server cannot be reached; nothing was sent to it, try again"
            }
            Self::IssuerTimeout => {
                "the authorization server did not answer in time; the request may have taken effect"
            }
            Self::IssuerCut => {
                "the answer of the authorization server was lost; the request may have taken effect"
            }
            Self::IssuerReplyTooLarge => "the answer of the authorization server is too large",
            Self::IssuerReplyUnusable => {
                "the answer of the authorization server is not what was asked for"
            }
        };
        fixed.into()
    }
}
