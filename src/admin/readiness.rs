//! Whether requests can be served, and if not, for want of what.

use crate::keys::KeyStatus;
use crate::server::{Shared, Stage};
use std::fmt;
use std::sync::Arc;

/// The parts of readiness. Configuration and listeners are there whenever anyone can ask.
#[derive(Debug)]
pub struct Readiness {
    draining: bool,
    issuers: Vec<(Arc<str>, KeyStatus)>,
}

// === impl Readiness ===

impl Readiness {
    /// The present readiness. Once an issuer's keys have been loaded, its outage changes nothing.
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
        }
    }

    /// Whether to send requests here.
    pub fn is_ready(&self) -> bool {
        !self.draining
            && self
                .issuers
                .iter()
                .all(|(_, keys)| *keys != KeyStatus::Missing)
    }

    /// In one line.
    pub fn summary(&self) -> &'static str {
        match (self.is_ready(), self.draining) {
            (true, _) => "ready\n",
            (false, true) => "not ready: draining\n",
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
        writeln!(f, "  [{}] not draining", mark(!self.draining))
    }
}
