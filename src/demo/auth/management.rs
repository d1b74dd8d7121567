//! The Management API: `GET /api/v2/users`, `GET` and `PATCH /api/v2/users/{id}`.

use http::{Response, StatusCode};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};

use super::super::body::Body;
use super::answer::{Params, Received, with_type};
use super::directory::{Change, Person};
use super::fault::USER_PATH;
use super::search::Search;
use super::state::Issuer;

const UPDATE: &str = "update:users";
const UPDATE_METADATA: &str = "update:users_app_metadata";
const DEFAULT_PER_PAGE: usize = 25;
const MAX_PER_PAGE: usize = 100;
/// Paging ends here, however many users there are.
const MAX_RESULTS: usize = 1000;
const PAGED_TOO_FAR: &str = "You can only page through the first 1000 records. See https://auth0.com/docs/users/search/v3/view-search-results-by-page#limitation";
const MAX_TEXT: usize = 300;
const JSON: &str = "application/json; charset=utf-8";

/// A refusal of the Management API.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    message: String,
    code: Option<&'static str>,
}

/// Which users are asked for.
struct Page {
    number: usize,
    size: usize,
    search: Option<Search>,
    include_totals: bool,
}

// === impl Issuer ===

impl Issuer {
    /// The `aud` of tokens for the Management API.
    pub(super) fn management_audience(&self) -> String {
        format!("{}api/v2/", self.url)
    }

    /// A page of users: a bare array, unless totals are asked for.
    pub(super) fn users(&self, request: &Received) -> Response<Body> {
        answered(self.listed(request))
    }

    fn listed(&self, request: &Received) -> Result<Value, Problem> {
        self.permitted(request, &["read:users"])?;
        let page = Page::of(&request.query())?;
        let profiles: Vec<_> = {
            let state = self.state();
            state
                .directory
                .people()
                .iter()
                .map(Person::profile)
                .collect()
        };
        let found = profiles.into_iter();
        let found = found.filter(|profile| {
            page.search
                .as_ref()
                .is_none_or(|search| search.finds(profile))
        });
        let found: Vec<_> = found.collect();
        let (start, total) = (page.number * page.size, found.len());
        let users: Vec<_> = found.into_iter().skip(start).take(page.size).collect();
        Ok(match page.include_totals {
            false => Value::Array(users),
            true => {
                let length = users.len();
                json!({ "users": users, "start": start, "limit": page.size, "length": length, "total": total })
            }
        })
    }

    /// One user.
    pub(super) fn one_user(&self, request: &Received) -> Response<Body> {
        let found = self.permitted(request, &["read:users"]).and_then(|_| {
            let person = self.person(&user_id(request)?);
            Ok(person.ok_or_else(Problem::no_user)?.profile())
        });
        answered(found)
    }

    /// Changes a user, and tells those who listen for events.
    pub(super) fn update_user(&self, request: &Received) -> Response<Body> {
        answered(self.updated(request))
    }

    fn updated(&self, request: &Received) -> Result<Value, Problem> {
        let scopes = self.permitted(request, &[UPDATE, UPDATE_METADATA])?;
        let id = user_id(request)?;
        let change = Change::read(request.body())?;
        if !change.only_metadata() && !scopes.iter().any(|scope| scope == UPDATE) {
            return Err(Problem::insufficient_scope(&[UPDATE]));
        }
        let mut state = self.state();
        let changed = state.directory.change(&id, change);
        let profile = changed.ok_or_else(Problem::no_user)?.profile();
        state.events.emit("user.updated", &profile);
        Ok(profile)
    }

    /// The scopes of the request's token, if that is good for the Management API and has one of `any`.
    pub(super) fn permitted(
        &self,
        request: &Received,
        any: &[&str],
    ) -> Result<Vec<String>, Problem> {
        let missing = || Problem::unauthorized("Missing authentication");
        let token = request.bearer().ok_or_else(missing)?;
        let invalid = || Problem::unauthorized("Invalid token");
        let claims = self.good(token).ok_or_else(invalid)?;
        let audience = self.management_audience();
        let meant = match claims.get("aud") {
            Some(Value::String(aud)) => *aud == audience,
            Some(Value::Array(all)) => all.iter().any(|aud| *aud == audience),
            _ => false,
        };
        if !meant {
            let aud = claims
                .get("aud")
                .and_then(Value::as_str)
                .unwrap_or_default();
            return Err(Problem::unauthorized(&format!("Bad audience: {aud}")));
        }
        let scope = claims.get("scope").and_then(Value::as_str);
        let scopes: Vec<_> = scope
            .unwrap_or_default()
            .split(' ')
            .map(str::to_owned)
            .collect();
        match scopes.iter().any(|scope| any.contains(&scope.as_str())) {
            true => Ok(scopes),
            false => Err(Problem::insufficient_scope(any)),
        }
    }
}

/// The id in the path, which is percent-encoded once. Every id has the name of its connection before a `|`.
fn user_id(request: &Received) -> Result<String, Problem> {
    let segment = request.path().strip_prefix(USER_PATH).unwrap_or_default();
    let id = percent_decode_str(segment).decode_utf8_lossy().into_owned();
    if !id.contains('|') {
        let message = format!("Object didn't pass validation for format user-id: {id}");
        return Err(Problem::bad_request("invalid_uri", message));
    }
    Ok(id)
}

fn answered(outcome: Result<Value, Problem>) -> Response<Body> {
    match outcome {
        Ok(body) => with_type(StatusCode::OK, JSON, body.to_string()),
        Err(problem) => problem.into_response(),
    }
}

// === impl Page ===

impl Page {
    fn of(query: &Params) -> Result<Self, Problem> {
        let wrong = |error: String| {
            let message = format!("Query validation error: {error}");
            Problem::bad_request("invalid_query_string", message)
        };
        let known = ["per_page", "page", "q", "include_totals", "search_engine"];
        if let Some(name) = query.other_than(&known) {
            return Err(wrong(format!(
                "'Additional properties not allowed: {name}'."
            )));
        }
        let number = |name: &str, default: usize| {
            let text = query.get(name);
            text.map_or(Ok(default), |text| text.parse())
                .map_err(|_| wrong(format!("'Expected type integer' on property {name}.")))
        };
        let (page, size) = (number("page", 0)?, number("per_page", DEFAULT_PER_PAGE)?);
        if !(1..=MAX_PER_PAGE).contains(&size) {
            return Err(wrong(format!(
                "'Value {size} is not between 1 and {MAX_PER_PAGE}' on property per_page."
            )));
        }
        if page >= MAX_RESULTS / size {
            return Err(Problem::bad_request(
                "invalid_paging",
                PAGED_TOO_FAR.to_owned(),
            ));
        }
        let search = match query.get("q").map(Search::parse) {
            None => None,
            Some(Ok(search)) => Some(search),
            Some(Err(_)) => {
                let message = "The search query is none that is understood here".to_owned();
                return Err(Problem::bad_request("invalid_query", message));
            }
        };
        Ok(Self {
            number: page,
            size,
            search,
            include_totals: query.get("include_totals") == Some("true"),
        })
    }
}

// === impl Change ===

impl Change {
    /// Documented fields of their documented types, at least one of them; anything else is refused whole.
    fn read(body: &[u8]) -> Result<Self, Problem> {
        let Ok(Value::Object(fields)) = serde_json::from_slice(body) else {
            let message = "Invalid request payload JSON format".to_owned();
            return Err(Problem {
                status: StatusCode::BAD_REQUEST,
                message,
                code: None,
            });
        };
        if fields.is_empty() {
            return Err(Problem::payload(
                "'Too few properties defined (0), minimum 1'.",
            ));
        }
        let mut change = Self::default();
        for (name, value) in fields {
            match name.as_str() {
                "email" => change.email = Some(email(&name, value)?),
                "name" => change.name = Some(text(&name, value)?),
                "given_name" => change.given_name = Some(text(&name, value)?),
                "family_name" => change.family_name = Some(text(&name, value)?),
                "app_metadata" => change.app_metadata = Some(object(&name, value)?),
                "user_metadata" => change.user_metadata = Some(object(&name, value)?),
                _ => {
                    let error = format!("'Additional properties not allowed: {name}'.");
                    return Err(Problem::payload(&error));
                }
            }
        }
        Ok(change)
    }

    fn only_metadata(&self) -> bool {
        let texts = [&self.email, &self.name, &self.given_name, &self.family_name];
        texts.iter().all(|text| text.is_none())
    }
}

fn text(name: &str, value: Value) -> Result<String, Problem> {
    match value {
        Value::String(text) if (1..=MAX_TEXT).contains(&text.chars().count()) => Ok(text),
        Value::String(_) => Err(Problem::payload(&format!(
            "'String is not between 1 and {MAX_TEXT} characters long' on property {name}."
        ))),
        other => Err(Problem::wrong_type(name, "string", &other)),
    }
}

fn email(name: &str, value: Value) -> Result<String, Problem> {
    let text = text(name, value)?;
    let parts = text.split_once('@');
    match parts.is_some_and(|(user, host)| !user.is_empty() && host.contains('.')) {
        true => Ok(text),
        false => Err(Problem::payload(
            "'Object didn't pass validation for format email' on property email.",
        )),
    }
}

fn object(name: &str, value: Value) -> Result<Map<String, Value>, Problem> {
    match value {
        Value::Object(members) => Ok(members),
        other => Err(Problem::wrong_type(name, "object", &other)),
    }
}

// === impl Problem ===

impl Problem {
    pub(super) fn bad_request(code: &'static str, message: String) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            message,
            code: Some(code),
        }
    }

    /// An offset that events are no longer kept for.
    pub(super) fn gone(message: &str) -> Self {
        let (status, code) = (StatusCode::GONE, Some("offset_expired"));
        Self {
            status,
            message: message.to_owned(),
            code,
        }
    }

    pub(super) fn too_many_requests() -> Self {
        let (status, code) = (StatusCode::TOO_MANY_REQUESTS, Some("too_many_requests"));
        Self {
            status,
            message: "Global limit has been reached".to_owned(),
            code,
        }
    }

    fn payload(error: &str) -> Self {
        Self::bad_request("invalid_body", format!("Payload validation error: {error}"))
    }

    fn wrong_type(name: &str, expected: &str, found: &Value) -> Self {
        let found = match found {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        Self::payload(&format!(
            "'Expected type {expected} but found type {found}' on property {name}."
        ))
    }

    fn unauthorized(message: &str) -> Self {
        Self {
            status: StatusCode::UNAUTHORIZED,
            message: message.to_owned(),
            code: None,
        }
    }

    fn insufficient_scope(any: &[&str]) -> Self {
        let message = format!("Insufficient scope, expected any of: {}", any.join(","));
        Self {
            status: StatusCode::FORBIDDEN,
            message,
            code: Some("insufficient_scope"),
        }
    }

    fn no_user() -> Self {
        let message = "The user does not exist.".to_owned();
        Self {
            status: StatusCode::NOT_FOUND,
            message,
            code: Some("inexistent_user"),
        }
    }

    pub(super) fn into_response(self) -> Response<Body> {
        let mut body = json!({
            "statusCode": self.status.as_u16(),
            "error": self.status.canonical_reason(),
            "message": self.message,
        });
        if let Some(code) = self.code {
            body["errorCode"] = code.into();
        }
        with_type(self.status, JSON, body.to_string())
    }
}
