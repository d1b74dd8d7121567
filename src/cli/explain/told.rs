//! An explanation in words: the request, a line for each check, and what comes of it.

use super::super::REFUSED;
use super::super::output::{BAD, FAINT, GOOD, STRONG, plain};
use super::mask::Mask;
use super::{Answer, KeysMissing};
use crate::gateway::Admission;
use crate::oauth::Endpoint;
use crate::rejection::{REALM, Reason, Rejection, ReplyContext};
use crate::request::Peer;
use crate::server;
use crate::snapshot::Mount;
use crate::steps::Told;
use http::header::{ALLOW, HOST, RETRY_AFTER, WWW_AUTHENTICATE};
use http::request::Parts;
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// Everything there is to tell of a request.
pub(super) struct Report<'a> {
    pub head: &'a Parts,
    pub peer: Peer,
    pub request_id: String,
    pub steps: Told,
    pub answer: Answer,
    /// Why there are no keys, if that is so.
    pub missing: Option<KeysMissing>,
}

// === impl Report ===

impl Report<'_> {
    /// The exit code: 0 if the request is answered, 3 if it is refused.
    pub(super) fn code(&self) -> u8 {
        match self.answer {
            Answer::Refused(_) => REFUSED,
            Answer::Admitted(..)
            | Answer::Token(_)
            | Answer::Endpoint(..)
            | Answer::Metadata(_)
            | Answer::InternalKeys(_)
            | Answer::Options(_)
            | Answer::Preflight(_) => 0,
        }
    }

    /// The whole of it. Holds no credential and no control character from outside.
    pub(super) fn text(&self) -> String {
        let mask = Mask::of(self.head);
        let mut text = self.request(&mask);
        for step in &self.steps.passed {
            let found = mask.text(&step.found);
            put(
                &mut text,
                &format!("{GOOD}ok{GOOD:#}  {:<11} {found}", step.check),
            );
        }
        match &self.answer {
            Answer::Refused(rejection) => self.refused(&mut text, rejection, &mask),
            Answer::Admitted(admission, head) => self.admitted(&mut text, admission, head, &mask),
            Answer::Token(mount) => self.surface(&mut text, mount),
            Answer::Endpoint(mount, endpoint) => endpoint_of(&mut text, mount, *endpoint),
            Answer::Options(allow) => {
                put(&mut text, "");
                put(
                    &mut text,
                    &format!(
                        "{GOOD}answered{GOOD:#} by the gateway itself, which is the last stop: 204 with Allow: {allow}"
                    ),
                );
            }
            Answer::Preflight(route) => {
                put(&mut text, "");
                put(
                    &mut text,
                    &format!(
                        "{GOOD}answered{GOOD:#} by the gateway itself: 204, pages of this origin may use {} (cors)",
                        route.name
                    ),
                );
            }
            Answer::InternalKeys(document) => {
                put(&mut text, "");
                put(
                    &mut text,
                    &format!(
                        "{GOOD}answered{GOOD:#} by the gateway itself: the public keys of its own tokens (internal_jwt)"
                    ),
                );
                let document = String::from_utf8_lossy(document);
                put(&mut text, &format!("  {}", plain(&document)));
            }
            Answer::Metadata(document) => {
                put(&mut text, "");
                put(
                    &mut text,
                    &format!(
                        "{GOOD}answered{GOOD:#} by the gateway itself: where tokens for this resource come from (RFC 9728)"
                    ),
                );
                put(&mut text, &format!("  {}", plain(&document.to_string())));
            }
        }
        text
    }

    fn request(&self, mask: &Mask) -> String {
        let target = mask.target(&self.head.uri);
        let hosts: Vec<String> = self
            .head
            .headers
            .get_all(HOST)
            .iter()
            .map(|host| mask.value(&HOST, host))
            .collect();
        format!(
            "{STRONG}{} {target}{STRONG:#}  {FAINT}host {}, from {}{FAINT:#}\n\n",
            self.head.method,
            hosts.join(" and "),
            self.peer.address.ip()
        )
    }

    fn refused(&self, text: &mut String, rejection: &Rejection, mask: &Mask) {
        let open = self.steps.open.as_ref();
        let (check, came) = open.map_or(("", ""), |open| (open.check, open.found.as_str()));
        put(
            text,
            &format!("{BAD}no{BAD:#}  {check:<11} {}", mask.text(came)),
        );
        let mut row = |name: &str, value: &str| {
            put(
                text,
                &format!("    {FAINT}{name:<16}{FAINT:#} {}", mask.text(value)),
            );
        };
        // The keys of the last run may have done: then it does not matter that there are no newer ones.
        let blamed = rejection.reason == Reason::KeysUnavailable;
        if let Some(KeysMissing { issuer, error }) = self.missing.as_ref().filter(|_| blamed) {
            row(
                "keys",
                &format!("of [issuer.{issuer}]: {}: {}", error.what, error.why),
            );
        }
        row("reason", rejection.reason.as_str());
        if let Some(note) = &rejection.note {
            row("note in the log", note);
        }
        let metadata = server::metadata_url(self.head, self.peer);
        let reply = rejection.reply(ReplyContext {
            request_id: &self.request_id,
            realm: REALM,
            resource_metadata: metadata.as_deref(),
        });
        row("status", &reply.status().to_string());
        for (shown, name) in [
            ("WWW-Authenticate", WWW_AUTHENTICATE),
            ("Allow", ALLOW),
            ("Retry-After", RETRY_AFTER),
        ] {
            if let Some(value) = reply.headers().get(name) {
                row(shown, &String::from_utf8_lossy(value.as_bytes()));
            }
        }
        let problem = serde_json::from_slice::<serde_json::Value>(reply.body());
        if let Some(detail) = problem
            .ok()
            .as_ref()
            .and_then(|body| body["detail"].as_str())
        {
            row("detail", detail);
        }
        let status = reply.status().as_u16();
        put(text, "");
        put(
            text,
            &format!(
                "{BAD}refused{BAD:#}: {status} {}",
                rejection.reason.as_str()
            ),
        );
    }

    fn admitted(&self, text: &mut String, admission: &Admission, head: &Parts, mask: &Mask) {
        let route = &admission.route;
        let caller = match &admission.identity {
            Some(identity) => {
                let subject = identity.subject().unwrap_or("somebody without sub");
                format!("{subject} of [issuer.{}]", identity.issuer)
            }
            None => "nobody in particular".to_owned(),
        };
        put(text, "");
        put(
            text,
            &format!(
                "{GOOD}admitted{GOOD:#} as {} to upstream {}",
                mask.text(&caller),
                route.upstream.name
            ),
        );
        for server in &route.upstream.servers.origins {
            put(text, &format!("  at {}", server.url()));
        }
        put(text, "");
        put(
            text,
            &format!(
                "{STRONG}{} {}{STRONG:#}  {FAINT}* set by the gateway from the verified token{FAINT:#}",
                head.method,
                mask.target(&head.uri)
            ),
        );
        for (name, value) in &head.headers {
            let set = admission
                .identity
                .as_ref()
                .is_some_and(|identity| identity.headers.iter().any(|(own, _)| own == name));
            let mark = if set { '*' } else { ' ' };
            put(text, &format!("{mark} {name}: {}", mask.value(name, value)));
        }
        let kept: BTreeSet<&str> = head.headers.keys().map(|name| name.as_str()).collect();
        let came = self.head.headers.keys().map(|name| name.as_str());
        let withheld: BTreeSet<&str> = came.filter(|name| !kept.contains(name)).collect();
        if !withheld.is_empty() {
            let names: Vec<&str> = withheld.into_iter().collect();
            put(text, "");
            put(text, &format!("not passed on: {}", names.join(", ")));
        }
    }

    fn surface(&self, text: &mut String, mount: &Mount) {
        let provider = &mount.provider;
        put(text, "");
        put(
            text,
            &format!(
                "{GOOD}answered{GOOD:#} by the token endpoint of [oauth.{}], which asks [issuer.{}] ({})",
                mount.surface.name, provider.issuer.rules.name, provider.issuer.rules.issuer
            ),
        );
        if self.head.method != http::Method::POST {
            put(text, "  tokens are asked for by POST");
        }
        match &provider.source.token {
            Some(endpoint) => put(text, &format!("  at {endpoint}")),
            None => put(text, "  at the token_endpoint of its discovery document"),
        }
    }
}

fn endpoint_of(text: &mut String, mount: &Mount, endpoint: Endpoint) {
    let issuer = &mount.provider.issuer.rules;
    let (surface, endpoint) = (&mount.surface.name, endpoint.as_str());
    put(text, "");
    put(
        text,
        &format!(
            "{GOOD}answered{GOOD:#} by the endpoint {endpoint} of [oauth.{surface}], which speaks for [issuer.{}] ({})",
            issuer.name, issuer.issuer
        ),
    );
}

fn put(text: &mut String, line: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{}", line.trim_end());
}
