//! Bonterra Auth, simulated: an Auth0 tenant with its keys, clients, accounts and token rules.
//!
//! Start one with [`BonterraAuth::start`]; the demo's clients and accounts are in [`AuthOptions::default`]. A test may mint
//! any token ([`BonterraAuth::mint_with`]), rotate keys, make endpoints fail ([`BonterraAuth::set_fault`]), and look at
//! what arrived ([`BonterraAuth::counts`], [`BonterraAuth::requests_by`], [`BonterraAuth::last_request`]).

mod algorithm;
mod answer;
mod assertion;
mod claims;
mod client;
mod directory;
mod documents;
mod events;
mod fault;
mod introspect;
mod keys;
mod login;
mod management;
mod options;
mod quota;
mod search;
mod seen;
mod state;
#[cfg(test)]
mod tests;
mod token;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use tokio::net::TcpListener;

use super::host::Host;
use keys::KeyRing;
use state::Issuer;

pub use algorithm::Algorithm;
pub use assertion::ClientKey;
pub use fault::{Endpoint, Fault};
pub use keys::KeyChoice;
pub use options::{
    AUDIENCE, AuthOptions, BACKEND_CLIENT, BACKEND_SECRET, Client, MACHINE_CLIENT, MACHINE_SECRET,
    MANAGEMENT_CLIENT, MANAGEMENT_SECRET, REDIRECT_URI, User, WEB_CLIENT,
};
pub use quota::{ClientQuota, RateLimit};
pub use seen::{Counts, RecordedRequest};
pub use state::ExpiresIn;

/// A running simulated Bonterra Auth. Dropping it closes the listener and all connections.
pub struct BonterraAuth {
    host: Host,
    issuer: Arc<Issuer>,
}

/// Life cycle.
impl BonterraAuth {
    /// Listens and serves on the current runtime. The first one in a process may take a second to make RSA keys.
    ///
    /// # Errors
    /// If the address cannot be bound, or keys cannot be made.
    pub async fn start(options: AuthOptions) -> io::Result<Self> {
        let listener = TcpListener::bind(options.listen).await?;
        let url = format!("http://{}/", listener.local_addr()?);
        let (slot, algorithm, all) = (options.key_slot, options.key_type, options.all_algorithms);
        let keys = tokio::task::spawn_blocking(move || KeyRing::new(slot, algorithm, all))
            .await
            .map_err(io::Error::other)??;
        let issuer = Arc::new(Issuer::new(options, url, keys));
        let host = Host::serve(listener, Arc::clone(&issuer))?;
        Ok(Self { host, issuer })
    }

    /// Closes the listener and every connection at once, as a server does that dies; keys, grants and counters stay.
    /// Harmless when stopped already.
    pub async fn stop(&self) {
        self.host.stop().await;
    }

    /// Comes back on the same port with the same keys and state. Harmless while running.
    ///
    /// # Errors
    /// If the port was taken by somebody else meanwhile.
    pub async fn restart(&self) -> io::Result<()> {
        self.host.restart(Arc::clone(&self.issuer)).await
    }

    /// The exact `iss` of its tokens, with the slash at the end: `http://127.0.0.1:9001/`.
    pub fn issuer(&self) -> &str {
        &self.issuer.url
    }

    /// The address it listens on.
    pub fn addr(&self) -> SocketAddr {
        self.host.addr()
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> u64 {
        self.host.accepted()
    }
}

/// Tokens of any kind. All of these panic if the process has no random numbers left to make a key with, never otherwise.
impl BonterraAuth {
    /// The claims of a good access token for the first client, valid from now; for tests to change.
    pub fn claims(&self) -> Value {
        match self.issuer.options.clients.first() {
            Some(client) => self.issuer.machine_claims(
                client,
                &self.issuer.options.audience,
                &client.scope.join(" "),
            ),
            None => Value::Object(serde_json::Map::new()),
        }
    }

    /// A good access token.
    pub fn token(&self) -> String {
        self.mint(&self.claims())
    }

    /// Signs any claims with the current key, under the header that the issuer writes.
    pub fn mint(&self, claims: &Value) -> String {
        self.mint_with(&Value::Null, claims, &KeyChoice::Current)
    }

    /// Signs any claims with any key. The header is `alg`, `typ` and `kid` of that key, changed by the fields of `header`;
    /// a field that is `null` there is left out. What the header says of `alg` does not change how it is signed.
    pub fn mint_with(&self, header: &Value, claims: &Value, key: &KeyChoice) -> String {
        let signer = self.issuer.state().keys.signer(key);
        let token = signer.and_then(|signer| signer.token(header, claims));
        token.expect("keys and signatures need random numbers, and the system gave none")
    }

    /// Signs any two texts as header and payload, be they JSON or not: for duplicate members, white space and garbage.
    pub fn mint_raw(&self, header: &str, payload: &str, key: &KeyChoice) -> String {
        let signer = self.issuer.state().keys.signer(key);
        let token = signer.and_then(|signer| signer.sign_raw(header, payload));
        token.expect("keys and signatures need random numbers, and the system gave none")
    }

    /// An opaque token, good from now on, that stands for any members of an introspection reply but `active`.
    pub fn mint_opaque(&self, claims: &Value) -> String {
        let token = random_text(32).map(|text| format!("opaque.{text}"));
        let token = token.expect("the system gave no random numbers");
        let mut state = self.issuer.state();
        state.opaque.insert(token.clone(), claims.clone());
        token
    }

    /// Makes an opaque token inactive for good.
    pub fn revoke_opaque(&self, token: &str) {
        self.issuer.state().opaque.remove(token);
    }

    /// The id of the key that signs now.
    pub fn current_kid(&self) -> String {
        self.issuer.state().keys.current().kid().to_owned()
    }

    /// The next key becomes the current one, which stays published; a new next key appears. Making that one may take a
    /// tenth of a second.
    pub fn rotate(&self) {
        let rotated = self.issuer.state().keys.rotate();
        rotated.expect("keys need random numbers, and the system gave none");
    }

    /// Takes the keys before the current one out of the JWKS.
    pub fn withdraw_previous(&self) {
        self.issuer.state().keys.withdraw_previous();
    }
}

/// Misbehaviour, and a look inside.
impl BonterraAuth {
    /// Requests received so far.
    pub fn counts(&self) -> Counts {
        self.issuer.state().seen.counts
    }

    /// Requests to an endpoint that said they came from this client, proven or not.
    pub fn requests_by(&self, endpoint: Endpoint, client: &str) -> u64 {
        self.issuer.state().seen.of(endpoint, client)
    }

    /// The last request to an endpoint as it arrived.
    pub fn last_request(&self, endpoint: Endpoint) -> Option<RecordedRequest> {
        self.issuer.state().seen.last(endpoint)
    }

    /// The last token request as it arrived.
    pub fn last_token_request(&self) -> Option<RecordedRequest> {
        self.last_request(Endpoint::Token)
    }

    /// The last question about a token as it arrived.
    pub fn last_introspection(&self) -> Option<RecordedRequest> {
        self.last_request(Endpoint::Introspect)
    }

    /// Makes an endpoint fail from now on; `None` heals it.
    pub fn set_fault(&self, endpoint: Endpoint, fault: Option<Fault>) {
        self.issuer.state().faults.set(endpoint, fault, None);
    }

    /// Makes the next `times` requests to an endpoint fail, and those after them not.
    pub fn set_fault_for(&self, endpoint: Endpoint, fault: Fault, times: u64) {
        let faults = &mut self.issuer.state().faults;
        faults.set(endpoint, Some(fault), Some(times));
    }

    /// How many requests an endpoint takes from now on; `None` takes all and tells nothing of it. At first the token
    /// endpoint and those of users have [`RateLimit::PLENTY`].
    pub fn set_rate_limit(&self, endpoint: Endpoint, limit: Option<RateLimit>) {
        self.issuer.state().meter.limit(endpoint, limit);
    }

    /// How many machine tokens a client gets from now on; `None` is without limit, as at first.
    pub fn set_client_quota(&self, client: &str, quota: Option<ClientQuota>) {
        self.issuer.state().meter.quota(client, quota);
    }

    /// How `expires_in` is written from now on.
    pub fn set_expires_in_style(&self, style: ExpiresIn) {
        self.issuer.state().expires_in = style;
    }

    /// The key set as served now.
    pub fn jwks(&self) -> Value {
        self.issuer.state().key_set()
    }

    /// Serves this in place of the key set; `None` serves the real one again.
    pub fn set_jwks_document(&self, document: Option<Value>) {
        self.issuer.state().jwks_document = document;
    }

    /// `Cache-Control` of the JWKS from now on; an empty one is not sent.
    pub fn set_jwks_cache_control(&self, value: &str) {
        value.clone_into(&mut self.issuer.state().jwks_cache_control);
    }
}

/// Users and events.
impl BonterraAuth {
    /// The `aud` of tokens for the Management API: `http://127.0.0.1:9001/api/v2/`.
    pub fn management_audience(&self) -> String {
        self.issuer.management_audience()
    }

    /// A good token for the Management API with these scopes, separated by blanks.
    pub fn management_token(&self, scopes: &str) -> String {
        let mut claims = self.claims();
        claims["azp"] = MANAGEMENT_CLIENT.into();
        claims["sub"] = format!("{MANAGEMENT_CLIENT}@clients").into();
        claims["aud"] = self.management_audience().into();
        claims["scope"] = scopes.into();
        self.mint(&claims)
    }

    /// A user as the Management API tells it now.
    pub fn user(&self, id: &str) -> Option<Value> {
        self.issuer.person(id).map(|person| person.profile())
    }

    /// Tells everybody who listens that something happened to `object`; returns the offset of that event.
    pub fn emit_event(&self, kind: &str, object: &Value) -> String {
        self.issuer.state().events.emit(kind, object)
    }

    /// Forgets all events, so that every offset given so far has expired.
    pub fn expire_events(&self) {
        self.issuer.state().events.expire();
    }

    /// How long connections for events last that begin from now on.
    pub fn set_event_connection_life(&self, life: Duration) {
        self.issuer.state().events.set_life(life);
    }

    /// Ends all connections for events, as happens to them every few minutes; what they were due is sent before.
    pub fn end_event_connections(&self) {
        self.issuer.state().events.end_connections();
    }
}

impl fmt::Debug for BonterraAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BonterraAuth")
            .field("issuer", &self.issuer.url)
            .finish_non_exhaustive()
    }
}

/// `bytes` random bytes as URL-safe text.
fn random_text(bytes: usize) -> io::Result<String> {
    let mut random = vec![0; bytes];
    aws_lc_rs::rand::fill(&mut random)
        .map_err(|_| io::Error::other("the system gave no random numbers"))?;
    Ok(URL_SAFE_NO_PAD.encode(random))
}
