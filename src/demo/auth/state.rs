//! What the simulated issuer remembers. One lock around everything: nothing here is on a hot path.

use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::assertion::Assertions;
use super::directory::{Directory, Person};
use super::events::EventLog;
use super::fault::{Endpoint, Faults};
use super::keys::KeyRing;
use super::options::{AuthOptions, Client};
use super::quota::{Meter, RateLimit};
use super::seen::Seen;

/// Logins and codes are good this long.
const SHORT_LIFE: Duration = Duration::from_secs(600);

/// How `expires_in` is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExpiresIn {
    /// `86400`, as RFC 6749 §5.1 has it.
    #[default]
    Integer,
    /// `"86400"`, as one of the documents types it.
    String,
}

/// The issuer behind its listener; outlives a stop.
pub(super) struct Issuer {
    pub(super) options: AuthOptions,
    /// The exact `iss`, with the slash.
    pub(super) url: String,
    state: Mutex<State>,
}

/// Everything that changes.
pub(super) struct State {
    pub(super) keys: KeyRing,
    pub(super) seen: Seen,
    /// What opaque tokens stand for; those that are not active are gone.
    pub(super) opaque: HashMap<String, Value>,
    pub(super) faults: Faults,
    pub(super) expires_in: ExpiresIn,
    pub(super) jwks_document: Option<Value>,
    pub(super) jwks_cache_control: String,
    pub(super) grants: Grants,
    pub(super) assertions: Assertions,
    pub(super) directory: Directory,
    pub(super) events: EventLog,
    pub(super) meter: Meter,
}

/// What a user lets a client do.
#[derive(Clone)]
pub(super) struct Grant {
    pub(super) client: String,
    pub(super) user: String,
    pub(super) scope: Vec<String>,
    pub(super) audience: String,
    pub(super) nonce: Option<String>,
}

/// An authorization request that waits for its user.
#[derive(Clone)]
pub(super) struct Login {
    pub(super) client: String,
    pub(super) redirect_uri: String,
    pub(super) state: Option<String>,
    /// PKCE, S256.
    pub(super) challenge: Option<String>,
    pub(super) scope: Vec<String>,
    pub(super) audience: String,
    pub(super) nonce: Option<String>,
}

/// What an authorization code stands for.
#[derive(Clone)]
pub(super) struct Code {
    pub(super) grant: Grant,
    pub(super) redirect_uri: String,
    pub(super) challenge: Option<String>,
}

/// Logins under way, codes, refresh tokens and their families.
#[derive(Default)]
pub(super) struct Grants {
    logins: HashMap<String, (Instant, Login)>,
    codes: HashMap<String, IssuedCode>,
    refresh_tokens: HashMap<String, RefreshToken>,
    /// All refresh tokens that descend from one login; gone when revoked or misused.
    families: HashMap<u64, Grant>,
    last_family: u64,
}

struct IssuedCode {
    since: Instant,
    code: Code,
    used: bool,
    family: Option<u64>,
}

struct RefreshToken {
    family: u64,
    /// Exchanged for a newer one: its next use is theft.
    spent: bool,
}

// === impl Issuer ===

impl Issuer {
    pub(super) fn new(options: AuthOptions, url: String, keys: KeyRing) -> Self {
        let mut meter = Meter::default();
        for endpoint in [
            Endpoint::Token,
            Endpoint::Users,
            Endpoint::User,
            Endpoint::UpdateUser,
        ] {
            meter.limit(endpoint, Some(RateLimit::PLENTY));
        }
        let state = Mutex::new(State {
            keys,
            seen: Seen::default(),
            opaque: HashMap::new(),
            faults: Faults::default(),
            expires_in: ExpiresIn::default(),
            jwks_document: None,
            jwks_cache_control: options.jwks_cache_control.clone(),
            grants: Grants::default(),
            assertions: Assertions::default(),
            directory: Directory::new(&options.users, options.directory_size),
            events: EventLog::new(options.event_connection_life),
            meter,
        });
        Self {
            options,
            url,
            state,
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn client(&self, id: &str) -> Option<&Client> {
        self.options.clients.iter().find(|client| client.id == id)
    }

    /// The account with this id, as it is now.
    pub(super) fn person(&self, id: &str) -> Option<Person> {
        self.state().directory.get(id).cloned()
    }

    pub(super) fn lifetime(&self) -> u64 {
        self.options.token_lifetime.as_secs()
    }
}

// === impl Grants ===

impl Grants {
    /// Remembers an authorization request; returns its handle for the login form.
    pub(super) fn begin(&mut self, login: Login) -> io::Result<String> {
        self.logins
            .retain(|_, (since, _)| since.elapsed() < SHORT_LIFE);
        let handle = super::random_text(32)?;
        self.logins.insert(handle.clone(), (Instant::now(), login));
        Ok(handle)
    }

    /// The request behind a login form.
    pub(super) fn login(&self, handle: &str) -> Option<&Login> {
        self.logins
            .get(handle)
            .filter(|(since, _)| since.elapsed() < SHORT_LIFE)
            .map(|(_, login)| login)
    }

    /// The user has decided: the form is of no more use.
    pub(super) fn end(&mut self, handle: &str) {
        self.logins.remove(handle);
    }

    /// A code for the client to redeem.
    pub(super) fn issue(&mut self, code: Code) -> io::Result<String> {
        self.codes
            .retain(|_, issued| issued.since.elapsed() < SHORT_LIFE);
        // A code that can be told from other texts is found where it should not be.
        let text = format!("code.{}", super::random_text(32)?);
        self.codes.insert(
            text.clone(),
            IssuedCode {
                since: Instant::now(),
                code,
                used: false,
                family: None,
            },
        );
        Ok(text)
    }

    /// Takes a code, once: its second use ends what came of the first (RFC 6749 §4.1.2).
    pub(super) fn redeem(&mut self, text: &str, client: &str) -> Option<Code> {
        let issued = self.codes.get_mut(text)?;
        if issued.since.elapsed() >= SHORT_LIFE || issued.code.grant.client != client {
            return None;
        }
        if issued.used {
            let family = issued.family;
            family.map(|family| self.families.remove(&family));
            return None;
        }
        issued.used = true;
        Some(issued.code.clone())
    }

    /// The first refresh token of a new family, which hangs on `code` if there was one.
    pub(super) fn found(&mut self, grant: Grant, code: Option<&str>) -> io::Result<String> {
        self.last_family += 1;
        self.families.insert(self.last_family, grant);
        if let Some(issued) = code.and_then(|code| self.codes.get_mut(code)) {
            issued.family = Some(self.last_family);
        }
        self.member(self.last_family)
    }

    fn member(&mut self, family: u64) -> io::Result<String> {
        let token = format!("v1.{}", super::random_text(48)?);
        self.refresh_tokens.insert(
            token.clone(),
            RefreshToken {
                family,
                spent: false,
            },
        );
        Ok(token)
    }

    /// The grant of a good refresh token, and the token to go on with if it is a new one.
    pub(super) fn refresh(
        &mut self,
        token: &str,
        client: &str,
        rotate: bool,
    ) -> io::Result<Option<(Grant, Option<String>)>> {
        let Some(known) = self.refresh_tokens.get_mut(token) else {
            return Ok(None);
        };
        let family = known.family;
        let Some(grant) = self
            .families
            .get(&family)
            .filter(|grant| grant.client == client)
            .cloned()
        else {
            return Ok(None);
        };
        if known.spent {
            self.families.remove(&family);
            return Ok(None);
        }
        if !rotate {
            return Ok(Some((grant, None)));
        }
        known.spent = true;
        Ok(Some((grant, Some(self.member(family)?))))
    }

    /// Ends the family of a refresh token; false if the token is another client's. An unknown token is no mistake.
    pub(super) fn revoke(&mut self, token: &str, client: &str) -> bool {
        let Some(family) = self.refresh_tokens.get(token).map(|known| known.family) else {
            return true;
        };
        match self.families.get(&family) {
            Some(grant) if grant.client != client => false,
            _ => {
                self.families.remove(&family);
                true
            }
        }
    }
}
