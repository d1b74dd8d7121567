//! From the head that came to the head that goes upstream. What comes after it, the body, is no
//! matter here.

use crate::contract::QueryRules;
use crate::gateway::Admission;
use crate::headers::{self, Forwarding, trailers};
use crate::oauth::handles;
use crate::rejection::{Reason, Rejection};
use crate::request::Peer;
use crate::snapshot::{Route, Snapshot};
use crate::telemetry::trace::Trace;
use http::header::{
    AUTHORIZATION, CONTENT_LENGTH, HOST, HeaderMap, HeaderValue, TE, TRAILER, TRANSFER_ENCODING,
};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Uri, Version};
use std::borrow::Cow;

/// An admitted request with everything that its head depends on, on its way upstream.
#[derive(Debug)]
pub struct Passage<'a> {
    /// The decision.
    pub admission: &'a Admission,
    /// The configuration that this request sees from start to end.
    pub snapshot: &'a Snapshot,
    /// The other end of the connection.
    pub peer: Peer,
    /// The peer's address as text.
    pub peer_text: &'a HeaderValue,
    /// The client's certificate, if the upstream gets it.
    pub client_cert: Option<&'a HeaderValue>,
    /// The canonical path, where it differs from the one sent.
    pub path: Option<&'a str>,
    /// The id of this exchange.
    pub request_id: &'a HeaderValue,
    /// Its place in its trace.
    pub trace: &'a Trace,
}

// === impl Passage ===

impl Passage<'_> {
    /// Makes a head the one that the upstream gets: method, target in origin form, and all header
    /// fields. Of one that is refused nothing may be used.
    ///
    /// # Errors
    /// [`Reason::BodyTooLarge`] if a body is announced that is over the route's `max_body`,
    /// [`Reason::BadRequest`] if headers or target cannot be passed on as they are meant,
    /// [`Reason::NotAccepted`] if the query is not what the route lets through,
    /// [`Reason::Internal`] if the gateway's own token cannot be signed.
    pub fn rewrite(&self, head: &mut Parts) -> Result<(), Rejection> {
        let route = &self.admission.route;
        if declared_length(head).is_some_and(|length| length > route.max_body) {
            return Err(Reason::BodyTooLarge.into());
        }
        // RequestView has made sure that there is one.
        let host = head
            .headers
            .get(HOST)
            .cloned()
            .unwrap_or(HeaderValue::from_static(""));
        let takes_trailers = trailers::are_wanted(&head.headers);
        let announced = may_have_trailers(head)
            .then(|| {
                let (guard, rules) = (&self.snapshot.guard, &route.request_headers);
                trailers::announced_to_upstream(&head.headers, guard, rules)
            })
            .flatten();
        let own_token = self.own_token()?;
        let forward_token = self.forwards_token(&head.headers);
        headers::max_forwards::count_down(&head.method, &mut head.headers)?;
        headers::towards_upstream(
            &mut head.headers,
            &Forwarding {
                identity: self.admission.identity.as_deref(),
                guard: &self.snapshot.guard,
                rules: &route.request_headers,
                forward_token,
                peer: self.peer,
                peer_text: self.peer_text,
                client_cert: self.client_cert,
                host: &host,
                request_id: self.request_id,
                trace: self.trace,
            },
        )?;
        if let Some(host) = &route.upstream.host {
            head.headers.insert(HOST, host.clone());
        }
        if let Some(own_token) = own_token {
            head.headers.insert(AUTHORIZATION, own_token);
        }
        if takes_trailers {
            head.headers
                .insert(TE, HeaderValue::from_static("trailers"));
        }
        if let Some(announced) = announced {
            head.headers.insert(TRAILER, announced);
        }
        head.uri = Rewriting::of(route).target(&head.uri, self.path)?;
        head.version = Version::HTTP_11;
        Ok(())
    }

    /// What takes the place of the caller's token, if the route says so and there is a caller.
    fn own_token(&self) -> Result<Option<HeaderValue>, Rejection> {
        let route = &self.admission.route;
        match (&route.internal_jwt, &self.admission.identity) {
            (Some(minter), Some(identity)) => minter
                .authorization(identity, self.snapshot.clock.now())
                .map(Some),
            (None, _) if route.forward_token && route.upstream.token.is_none() => {
                let exchanged = self.admission.exchanged.as_ref();
                Ok(exchanged.map(|exchanged| exchanged.authorization().clone()))
            }
            _ => Ok(None),
        }
    }

    /// Whether the upstream gets `Authorization` as it came. Never with a handle in it: what it stands
    /// for goes upstream in its place, or nothing where nobody was identified by it.
    fn forwards_token(&self, headers: &HeaderMap) -> bool {
        let route = &self.admission.route;
        let has_handle = || {
            let mut values = headers.get_all(AUTHORIZATION).iter();
            values.any(|value| handles::is_within(value.as_bytes()))
        };
        route.forward_token
            && route.internal_jwt.is_none()
            && route.upstream.token.is_none()
            && self.admission.exchanged.is_none()
            && (self.snapshot.opaque.is_empty()
                // Who was identified otherwise has shown one token, and no handle.
                || self.admission.identity.is_some()
                || !has_handle())
    }
}

/// Whether the body can be followed by anything: one of HTTP/1.1 with a length cannot.
fn may_have_trailers(head: &Parts) -> bool {
    head.headers.contains_key(TRANSFER_ENCODING)
        || (head.version == Version::HTTP_2 && !head.headers.contains_key(CONTENT_LENGTH))
}

fn declared_length(head: &Parts) -> Option<u64> {
    head.headers
        .get(CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

/// What a route makes of the target.
#[derive(Debug, Default)]
struct Rewriting<'a> {
    strip: &'a str,
    add: &'a str,
    query: Option<&'a QueryRules>,
}

// === impl Rewriting ===

impl<'a> Rewriting<'a> {
    fn of(route: &'a Route) -> Self {
        Self {
            strip: &route.strip_prefix,
            add: &route.add_prefix,
            query: route.query.as_ref(),
        }
    }

    /// The target in origin form: the path that was matched, less one prefix and with another, and
    /// the query as it came or as the route's rules have it.
    fn target(&self, uri: &Uri, canonical: Option<&str>) -> Result<Uri, Rejection> {
        let bad = || Rejection::noted(Reason::BadRequest, "the target cannot be rewritten");
        let path = canonical.unwrap_or(uri.path());
        let stripped = path
            .strip_prefix(self.strip)
            .filter(|rest| rest.is_empty() || rest.starts_with('/'))
            .unwrap_or(path);
        let same_path = stripped.len() == uri.path().len() && canonical.is_none();
        if same_path && self.add.is_empty() && self.query.is_none() {
            let same = uri.path_and_query().cloned().ok_or_else(bad)?;
            return Ok(Uri::from(same));
        }
        let query = match self.query {
            Some(rules) => rules.apply(uri.query())?.map(Cow::Owned),
            None => uri.query().map(Cow::Borrowed),
        };
        let path = match (self.add, stripped) {
            ("", "") => Cow::Borrowed("/"),
            ("", path) => Cow::Borrowed(path),
            (add, path) => Cow::Owned(format!("{add}{path}")),
        };
        let text = match query {
            Some(query) => format!("{path}?{query}"),
            None => path.into_owned(),
        };
        PathAndQuery::try_from(text)
            .map(Uri::from)
            .map_err(|_| bad())
    }
}

#[cfg(test)]
mod tests {
    use super::Rewriting;
    use crate::contract::QueryRules;

    #[test]
    fn targets() {
        let rules = QueryRules {
            set: [("t".into(), "1".into())].into(),
            ..QueryRules::default()
        };
        for (uri, canonical, strip, add, query, expected) in [
            ("/a/b?x=1", None, "", "", None, "/a/b?x=1"),
            ("http://host/a/b?x=1", None, "", "", None, "/a/b?x=1"),
            ("/a/b?x=1", None, "/a", "", None, "/b?x=1"),
            ("/a", None, "/a", "", None, "/"),
            ("/ab/c", None, "/a", "", None, "/ab/c"),
            ("/%61/b?%61", Some("/a/b"), "", "", None, "/a/b?%61"),
            ("/%61/b", Some("/a/b"), "/a", "", None, "/b"),
            ("/a/b?x=1", None, "", "/v2", None, "/v2/a/b?x=1"),
            ("/a/b", None, "/a", "/v2", None, "/v2/b"),
            ("/a", None, "/a", "/v2", None, "/v2"),
            ("/a/", None, "/a", "/v2", None, "/v2/"),
            ("/x%7c", Some("/x%7C"), "", "/v2", None, "/v2/x%7C"),
            ("/a?x=%2B", None, "", "", Some(&rules), "/a?x=%2B&t=1"),
            ("/a", None, "", "/v2", Some(&rules), "/v2/a?t=1"),
        ] {
            let uri = uri.parse().expect("a URI");
            let rewriting = Rewriting { strip, add, query };
            assert_eq!(
                rewriting.target(&uri, canonical).map(|uri| uri.to_string()),
                Ok(expected.to_owned()),
                "{uri}"
            );
        }
    }
}
