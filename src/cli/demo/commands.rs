//! What the demo prints to paste: a short tour, then what each document's clients do.

use crate::demo::auth::{
    BACKEND_CLIENT, BACKEND_SECRET, MACHINE_CLIENT, MACHINE_SECRET, MANAGEMENT_CLIENT,
    MANAGEMENT_SECRET, WEB_CLIENT,
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

/// Commands under a heading, each with what is to be said of it.
pub(super) struct Part {
    pub heading: &'static str,
    pub commands: Vec<(&'static str, String)>,
}

/// Where everything is, as `ADDRESS:PORT`.
pub(super) struct Places {
    pub gateway: String,
    pub admin: String,
}

/// A PKCE verifier and its challenge (RFC 7636 §4); in earnest, make a new one for every login.
const VERIFIER: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const CHALLENGE: &str = "ZtNPunH49FD35FWYhT5Tv8I7vRKQJ8uxMaL0_9eHjNA";

const AUDIENCE: &str = "https://api.bonterra.network";
const BEARER: &str = "-H \"Authorization: Bearer $TOKEN\"";

/// Who may introspect: `introspect_clients` of the default file.
const ASKER: &str = "demo-api:demo-api-secret";

/// A user of the simulated Bonterra Auth, as a segment of a path.
const USER: &str = "auth0%7C507f1f77bcf86cd799439011";

/// Takes a member out of a reply, with what everybody has.
fn member(name: &str) -> String {
    format!("sed 's/.*\"{name}\":\"\\([^\"]*\\)\".*/\\1/'")
}

// === impl Places ===

impl Places {
    /// All of it, in the order of a first visit.
    pub fn parts(&self) -> Vec<Part> {
        vec![
            Part {
                heading: "A short tour",
                commands: self.tour(),
            },
            Part {
                heading: "Bonterra API token: /v1/oauth",
                commands: self.api_token(),
            },
            Part {
                heading: "Bonterra Auth: /oauth",
                commands: self.auth(),
            },
            Part {
                heading: "Bonterra Auth: users and events",
                commands: self.users(),
            },
            Part {
                heading: "The API with the internal JWT: /oauth20",
                commands: self.internal_jwt(),
            },
            Part {
                heading: "The API with errors in envelopes: /oauth2/tokens",
                commands: self.envelope(),
            },
        ]
    }

    fn tour(&self) -> Vec<(&'static str, String)> {
        let Self { gateway, admin } = self;
        let token = member("access_token");
        vec![
            (
                "get a token through the gateway",
                format!(
                    "TOKEN=$(curl -s http://{gateway}/oauth/token -d grant_type=client_credentials -d client_id={MACHINE_CLIENT} \\\n  -d client_secret={MACHINE_SECRET} -d audience={AUDIENCE} \\\n  | {token}); echo $TOKEN"
                ),
            ),
            (
                "call an API with it: the echo shows the headers that the API gets",
                format!("curl -s http://{gateway}/grants/1 {BEARER}"),
            ),
            (
                "call without: 401, and the reason",
                format!("curl -si http://{gateway}/grants/1"),
            ),
            (
                "forge an identity: the API still sees the real one",
                format!(
                    "curl -s http://{gateway}/grants/1 {BEARER} -H 'X-Bonterra-Auth-Id: admin' -H 'X_Bonterra_Auth_Id: admin'"
                ),
            ),
            (
                "forge one where no token is needed: the API sees none",
                format!("curl -s http://{gateway}/public/hello -H 'X-Bonterra-Auth-Id: admin'"),
            ),
            (
                "metrics for Prometheus",
                format!("curl -s http://{admin}/metrics | grep ^gateway_"),
            ),
            (
                "what is ready, and why",
                format!("curl -s 'http://{admin}/readyz?verbose'"),
            ),
            (
                "read the file again now",
                format!("curl -s -X POST http://{admin}/-/reload"),
            ),
        ]
    }

    fn api_token(&self) -> Vec<(&'static str, String)> {
        let token = format!("http://{}/v1/oauth/token", self.gateway);
        let json = "-H 'Content-Type: application/json'";
        vec![
            (
                "get a token by JSON",
                format!(
                    "curl -s {token} {json} \\\n  -d '{{\"grant_type\":\"client_credentials\",\"client_id\":\"{MACHINE_CLIENT}\",\"client_secret\":\"{MACHINE_SECRET}\",\"audience\":\"{AUDIENCE}\"}}'"
                ),
            ),
            (
                "the same with the secret in Basic",
                format!(
                    "curl -s {token} -u {MACHINE_CLIENT}:{MACHINE_SECRET} {json} \\\n  -d '{{\"grant_type\":\"client_credentials\",\"audience\":\"{AUDIENCE}\"}}'"
                ),
            ),
            (
                "ask for what is not given: 400 at once, Bonterra Auth is not asked",
                format!("curl -si {token} -d grant_type=magic -d client_id={MACHINE_CLIENT}"),
            ),
        ]
    }

    fn auth(&self) -> Vec<(&'static str, String)> {
        let Self { gateway, .. } = self;
        let oauth = format!("http://{gateway}/oauth");
        let redirect = self.redirect();
        let (access, refresh) = (member("access_token"), member("refresh_token"));
        vec![
            (
                "what there is: Bonterra Auth's own document",
                format!("curl -s http://{gateway}/.well-known/openid-configuration"),
            ),
            (
                "the keys that tokens are signed with",
                format!("curl -s http://{gateway}/.well-known/jwks.json"),
            ),
            (
                "log in as a person: open this in a browser; the echo API then shows the code",
                format!(
                    "{oauth}/authorize?response_type=code&client_id={WEB_CLIENT}&redirect_uri={redirect}&scope=openid%20email%20offline_access&state=1&code_challenge={CHALLENGE}&code_challenge_method=S256"
                ),
            ),
            (
                "and turn the code into tokens",
                format!(
                    "TOKENS=$(curl -s {oauth}/token -d grant_type=authorization_code -d client_id={WEB_CLIENT} -d redirect_uri={redirect} \\\n  -d code_verifier={VERIFIER} -d code=PASTE_THE_CODE); echo $TOKENS"
                ),
            ),
            (
                "who that is",
                format!(
                    "curl -s {oauth}/userinfo -H \"Authorization: Bearer $(echo $TOKENS | {access})\""
                ),
            ),
            (
                "new tokens for the refresh token, which is good for one time",
                format!(
                    "TOKENS=$(curl -s {oauth}/token -d grant_type=refresh_token -d client_id={WEB_CLIENT} \\\n  -d refresh_token=$(echo $TOKENS | {refresh})); echo $TOKENS"
                ),
            ),
            (
                "what a token is worth, for an API that is not behind the gateway",
                format!(
                    "curl -s {oauth}/introspect -u {ASKER} -d token=$(echo $TOKENS | {access})"
                ),
            ),
            (
                "log out: the gateway refuses the token from now on",
                format!(
                    "curl -s {oauth}/revoke -d client_id={WEB_CLIENT} -d token=$(echo $TOKENS | {access})\ncurl -si http://{gateway}/grants/1 -H \"Authorization: Bearer $(echo $TOKENS | {access})\""
                ),
            ),
        ]
    }

    fn users(&self) -> Vec<(&'static str, String)> {
        let Self { gateway, .. } = self;
        let token = member("access_token");
        let bearer = "-H \"Authorization: Bearer $MANAGER\"";
        let json = "-H 'Content-Type: application/json'";
        let user = format!("http://{gateway}/users/{USER}");
        vec![
            (
                "get a token that may see users",
                format!(
                    "MANAGER=$(curl -s http://{gateway}/oauth/token -d grant_type=client_credentials -d client_id={MANAGEMENT_CLIENT} \\\n  -d client_secret={MANAGEMENT_SECRET} | {token}); echo $MANAGER"
                ),
            ),
            (
                "a page of users; the gateway asks with a token of its own",
                format!("curl -s 'http://{gateway}/users?per_page=2' {bearer}"),
            ),
            ("one of them", format!("curl -s {user} {bearer}")),
            (
                "change what nobody may change: 400",
                format!("curl -si -X PATCH {user} {bearer} {json} -d '{{\"blocked\":true}}'"),
            ),
            (
                "change a name, and hear of it: five seconds of events",
                format!(
                    "(sleep 1; curl -s -o /dev/null -X PATCH {user} {bearer} {json} -d '{{\"name\":\"John Q. Doe\"}}') &\ncurl -sN --max-time 5 http://{gateway}/events {bearer}; wait"
                ),
            ),
        ]
    }

    fn internal_jwt(&self) -> Vec<(&'static str, String)> {
        let Self { gateway, .. } = self;
        let redirect = self.redirect();
        let token = member("access_token");
        vec![
            (
                "get a handle; the client by Basic",
                format!(
                    "HANDLE=$(curl -s http://{gateway}/oauth20/token -u {MACHINE_CLIENT}:{MACHINE_SECRET} \\\n  -d grant_type=client_credentials | {token}); echo $HANDLE"
                ),
            ),
            (
                "use it: the API gets the JWT that stays inside",
                format!("curl -s http://{gateway}/grants/1 -H \"Authorization: Bearer $HANDLE\""),
            ),
            (
                "ask for a token in an address: 400, never given",
                format!(
                    "curl -si 'http://{gateway}/oauth20/authorize?response_type=token&client_id={WEB_CLIENT}&redirect_uri={redirect}'"
                ),
            ),
        ]
    }

    fn envelope(&self) -> Vec<(&'static str, String)> {
        let tokens = format!("http://{}/oauth2/tokens", self.gateway);
        let grant = "-d grant_type=client_credentials";
        vec![
            (
                "get a token: its type is in lower case here",
                format!("curl -s {tokens} -u {BACKEND_CLIENT}:{BACKEND_SECRET} {grant}"),
            ),
            (
                "a wrong secret, told in an envelope",
                format!("curl -si {tokens} -u {BACKEND_CLIENT}:wrong {grant}"),
            ),
        ]
    }

    /// Where people come back to after they have logged in, for a query.
    fn redirect(&self) -> String {
        let redirect = format!("http://{}/public/callback", self.gateway);
        utf8_percent_encode(&redirect, NON_ALPHANUMERIC).to_string()
    }
}
