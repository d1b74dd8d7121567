//! Whether requests can be served, and if not, for want of what.

use crate::keys::KeyStatus;
use crate::server::{Shared, Stage};
use crate::store::Standing;
use std::fmt;
use std::sync::Arc;

/// The parts of readiness. Configuration and listeners are there whenever anyone can ask.
#[derive(Debug)]
pub struct Readiness {
    draining: bool,
    issuers: Vec<(Arc<str>, KeyStatus)>,
    revocations: Standing,
}

// === impl Readiness ===

impl Readiness {
    /// The present readiness. Once an issuer's keys have been loaded, its outage changes nothing; nor
    /// does that of the shared store once the revocations have been.
    pub fn of(shared: &Shared) -> Self {
        let snapshot = shared.snapshot.load();
        let now = snapshot.clock.now();
        Self {
            draining: shared.drain.stage() != Stage::Serving,
            issuers: snapshot
                .issuers
                .iter()
                .map(|issuer| (Arc::clone(&issuer.rules.name), issuer.status(now)))
                .collect(),
            revocations: snapshot.tokens.store().standing(),
        }
    }

    /// Whether to send requests here.
    pub fn is_ready(&self) -> bool {
        !self.draining && self.has_keys() && !self.revocations.is_awaited()
    }

    fn has_keys(&self) -> bool {
        let mut issuers = self.issuers.iter();
        issuers.all(|(_, keys)| *keys != KeyStatus::Missing)
    }

    /// In one line.
    pub fn summary(&self) -> &'static str {
        match (self.is_ready(), self.draining) {
            (true, _) => "ready\n",
            (false, true) => "not ready: draining\n",
            (false, false) if self.has_keys() => {
                "not ready: revocations have not been loaded from the shared store\n"
            }
            (false, false) => "not ready: keys of an issuer have not been loaded\n",
        }
    }
}

impl fmt::Display for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.summary())?;
        writeln!(f, "  [+] configuration loaded")?;
        writeln!(f, "  [+] listeners bound")?;
        let mark = |fine: bool| if fine { '+' } else { '-' };
        for (name, keys) in &self.issuers {
            match keys {
                KeyStatus::Missing => writeln!(f, "  [-] issuer {name}: no keys yet")?,
                KeyStatus::NotNeeded => writeln!(
                    f,
                    "  [+] issuer {name}: asked about each token, no keys needed"
                )?,
                KeyStatus::Loaded { keys, age } => {
                    writeln!(f, "  [+] issuer {name}: {keys} keys, fetched {age}s ago")?
                }
            }
        }
        if self.revocations.shared {
            let state = match self.revocations {
                Standing { in_sync: true, .. } => "revocations are shared with other gateways",
                Standing { loaded: true, .. } => "away: revocations are not shared",
                _ => "away: revocations have not been loaded",
            };
            let mark = mark(!self.revocations.is_awaited());
            writeln!(f, "  [{mark}] shared store: {state}")?;
        }
        writeln!(f, "  [{}] not draining", mark(!self.draining))
    }
}
