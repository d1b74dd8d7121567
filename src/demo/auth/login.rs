//! `GET /authorize`, the login page and `POST /login`.

use http::header::{CONTENT_SECURITY_POLICY, HeaderName, LOCATION, REFERRER_POLICY};
use http::{HeaderValue, Response, StatusCode};
use url::Url;

use super::super::body::Body;
use super::answer::{Params, Received, private, with_type};
use super::options::Client;
use super::state::{Code, Grant, Issuer, Login};

/// What a user reads who could be anybody.
pub(super) const WRONG_PASSWORD: &str = "Wrong email or password.";
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";
const PAGE: &str = include_str!("login.html");

/// An error that the client is told by a redirect (RFC 6749 §4.1.2.1).
struct Failure {
    error: &'static str,
    description: String,
}

impl Issuer {
    /// The authorization endpoint: checks the request and shows the login page.
    pub(super) fn authorize(&self, request: &Received) -> Response<Body> {
        let params = request.query();
        // Nobody may be sent to an address that is not the client's: these two mistakes stay here.
        let Some(client) = params.get("client_id").and_then(|id| self.client(id)) else {
            return message_page("This application is not known here (client_id).");
        };
        let Some(redirect_uri) = params
            .get("redirect_uri")
            .filter(|uri| client.may_redirect_to(uri))
        else {
            return message_page("This application may not be called back there (redirect_uri).");
        };
        match self.requested(client, redirect_uri, &params) {
            Ok(login) => match self.state().grants.begin(login.clone()) {
                Ok(handle) => self.login_page(StatusCode::OK, &login, &handle, ""),
                Err(_) => message_page("The simulated issuer has no random numbers."),
            },
            Err(failure) => failed(redirect_uri, params.get("state"), &failure),
        }
    }

    fn requested(
        &self,
        client: &Client,
        redirect_uri: &str,
        params: &Params,
    ) -> Result<Login, Failure> {
        let fail = |error, description: &str| {
            Err(Failure {
                error,
                description: description.to_owned(),
            })
        };
        match params.get("response_type") {
            Some("code") => {}
            Some(_) => {
                return fail(
                    "unsupported_response_type",
                    "Only response_type=code is served",
                );
            }
            None => {
                return fail(
                    "invalid_request",
                    "Missing required parameter: response_type",
                );
            }
        }
        if !client.allows("authorization_code") {
            return fail(
                "unauthorized_client",
                "Grant type 'authorization_code' not allowed for the client.",
            );
        }
        match (
            params.get("code_challenge"),
            params.get("code_challenge_method"),
        ) {
            (Some(_), Some("S256")) => {}
            (None, None) if !client.is_public() => {}
            (None, None) => {
                return fail(
                    "invalid_request",
                    "Parameter 'code_challenge' is required for public clients",
                );
            }
            _ => {
                return fail(
                    "invalid_request",
                    "PKCE needs code_challenge with code_challenge_method=S256",
                );
            }
        }
        let audience = self.audience(params).map_err(|refusal| Failure {
            error: refusal.error,
            description: refusal.description,
        })?;
        Ok(Login {
            client: client.id.clone(),
            redirect_uri: redirect_uri.to_owned(),
            state: params.get("state").map(str::to_owned),
            challenge: params.get("code_challenge").map(str::to_owned),
            scope: client.user_scope(params.get("scope")),
            audience: audience.to_owned(),
            nonce: params.get("nonce").map(str::to_owned),
        })
    }

    /// The login form: back to the client with a code, or with an error after "cancel".
    pub(super) fn login(&self, request: &Received) -> Response<Body> {
        let expired =
            || message_page("This login has expired. Go back to the application and start again.");
        let Ok(params) = request.params() else {
            return expired();
        };
        let handle = params.get("login").unwrap_or_default();
        let Some(login) = self.state().grants.login(handle).cloned() else {
            return expired();
        };
        if params.get("action") == Some("cancel") {
            self.state().grants.end(handle);
            let failure = Failure {
                error: "access_denied",
                description: "The user cancelled the login".to_owned(),
            };
            return failed(&login.redirect_uri, login.state.as_deref(), &failure);
        }
        let (email, password) = (
            params.get("email").unwrap_or_default(),
            params.get("password").unwrap_or_default(),
        );
        let user = self.state().directory.log_in(email, password);
        let Some(user) = user else {
            return self.login_page(StatusCode::UNAUTHORIZED, &login, handle, WRONG_PASSWORD);
        };
        let Login {
            client,
            redirect_uri,
            state,
            challenge,
            scope,
            audience,
            nonce,
        } = login;
        let grant = Grant {
            client,
            user,
            scope,
            audience,
            nonce,
        };
        let issued = {
            let grants = &mut self.state().grants;
            grants.end(handle);
            grants.issue(Code {
                grant,
                redirect_uri: redirect_uri.clone(),
                challenge,
            })
        };
        match issued {
            Ok(code) => redirect(
                &redirect_uri,
                &[("code", Some(&code)), ("state", state.as_deref())],
            ),
            Err(_) => message_page("The simulated issuer has no random numbers."),
        }
    }

    fn login_page(
        &self,
        status: StatusCode,
        login: &Login,
        handle: &str,
        problem: &str,
    ) -> Response<Body> {
        let (email, password) = self
            .options
            .users
            .first()
            .map_or(("", ""), |user| (&user.email, &user.password));
        let page = PAGE
            .replace("{{client}}", &escape(&login.client))
            .replace("{{scope}}", &escape(&login.scope.join(", ")))
            .replace("{{problem}}", &escape(problem))
            .replace("{{login}}", &escape(handle))
            .replace("{{email}}", &escape(email))
            .replace("{{password}}", &escape(password));
        page_response(status, page)
    }
}

fn failed(redirect_uri: &str, state: Option<&str>, failure: &Failure) -> Response<Body> {
    let description = failure.description.as_str();
    redirect(
        redirect_uri,
        &[
            ("error", Some(failure.error)),
            ("error_description", Some(description)),
            ("state", state),
        ],
    )
}

/// 302 to the client, its own query kept.
fn redirect(redirect_uri: &str, fields: &[(&str, Option<&str>)]) -> Response<Body> {
    let Ok(mut target) = Url::parse(redirect_uri) else {
        return message_page("The redirect URI is no URL.");
    };
    target.query_pairs_mut().extend_pairs(
        fields
            .iter()
            .filter_map(|(name, value)| value.map(|value| (name, value))),
    );
    let Ok(location) = HeaderValue::from_str(target.as_str()) else {
        return message_page("The redirect URI is no URL.");
    };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::FOUND;
    response.headers_mut().insert(LOCATION, location);
    private(response)
}

/// A mistake that is not told to the client.
fn message_page(text: &str) -> Response<Body> {
    let page = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>Bonterra Auth</title><p>{}</p></html>",
        escape(text)
    );
    page_response(StatusCode::BAD_REQUEST, page)
}

fn page_response(status: StatusCode, page: String) -> Response<Body> {
    let mut response = private(with_type(status, "text/html; charset=utf-8", page));
    let set: [(HeaderName, &'static str); 2] = [
        (CONTENT_SECURITY_POLICY, PAGE_POLICY),
        (REFERRER_POLICY, "no-referrer"),
    ];
    for (name, value) in set {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}
