//! Where the gateway is stricter than the oracle, and why.

/// Tokens that the gateway refuses and the oracle accepts.
pub struct Allowed {
    /// The gateway's reason.
    pub reason: &'static str,
    /// Any of these mutators brings it about.
    pub mutators: &'static [&'static str],
    why: &'static str,
}

/// All of them. A disagreement that is not here fails the test, and so does a row that nothing needs.
pub const ALLOWED: [Allowed; 10] = [
    Allowed {
        reason: "critical_header",
        mutators: &["crit", "b64"],
        why: "An empty or null `crit` is forbidden (RFC 7515 §4.1.11), and `b64` changes what is \
              signed (RFC 7797 §6). The oracle minds only a `crit` that names something.",
    },
    Allowed {
        reason: "bound_token",
        mutators: &["cnf"],
        why: "A token bound to a key is no plain bearer token (RFC 9449 §7.1, RFC 8705 §3). The \
              oracle does not look at `cnf`.",
    },
    Allowed {
        reason: "wrong_type",
        mutators: &["typ value"],
        why: "The oracle compares `typ` in Unicode upper case, where a dotless i is an I; media \
              types are ASCII.",
    },
    Allowed {
        reason: "missing_claim",
        mutators: &["exp absent", "claim removed", "claim name in another case"],
        why: "`exp` is required (RFC 9068 §2.2). To the oracle a token without it is good for ever.",
    },
    Allowed {
        reason: "missing_claim",
        mutators: &["exp value", "nbf value", "iat value", "claim retyped"],
        why: "Times are whole seconds from 0 to 2^63 - 1. The oracle cuts fractions and exponents, \
              and takes what is larger.",
    },
    Allowed {
        reason: "missing_claim",
        mutators: &["sub value", "jti value"],
        why: "`sub` and `jti` are strings (RFC 7519 §4.1.2, §4.1.7), and what is mapped to headers \
              has to fit into 8 KiB. The oracle takes null for absent, and sends no headers.",
    },
    Allowed {
        reason: "malformed_token",
        mutators: &["claim repeated", "header member repeated"],
        why: "No member may be there twice (RFC 7515 §4, RFC 7519 §4). The oracle minds it only of \
              members that it knows.",
    },
    Allowed {
        reason: "malformed_token",
        mutators: &["claim unknown", "header member unknown"],
        why: "The same one level down, and numbers that are out of range or lone surrogates in \
              members that the oracle skips.",
    },
    Allowed {
        reason: "malformed_token",
        mutators: &["JSON bad text", "JSON number", "JSON deep"],
        why: "All of the JSON has to be JSON: UTF-8, whole escapes, numbers in range, 128 levels at \
              most. The oracle skips members of the header that it does not know, unread.",
    },
    Allowed {
        reason: "malformed_token",
        mutators: &["kid value", "header member retyped"],
        why: "`kid` is a string (RFC 7515 §4.1.4). The oracle takes null for absent.",
    },
];

impl Allowed {
    pub fn covers(&self, reason: &str, mutator: &str) -> bool {
        self.reason == reason && self.mutators.contains(&mutator)
    }
}

/// The mutator that explains why the gateway refuses alone.
pub fn class(reason: &str, mutators: &[&'static str]) -> Option<&'static str> {
    let mut mutators = mutators.iter().copied();
    mutators.find(|mutator| ALLOWED.iter().any(|row| row.covers(reason, mutator)))
}

/// The sentence of a class.
pub fn why(reason: &str, mutator: &str) -> &'static str {
    let row = ALLOWED.iter().find(|row| row.covers(reason, mutator));
    row.map_or("", |row| row.why)
}
