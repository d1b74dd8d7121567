//! `query` of `[[route]]`

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the query of a request may be, and what the upstream gets of it. What is not as it has to be is answered 400
/// with the name of the parameter; a parameter that is named here may come once. The query is decoded and written anew, so
/// that the upstream finds in it what was judged. Absent: it passes as it came.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Query {
    /// Parameters that the upstream always gets with this value, whatever came: `{ include_totals = "true" }`.
    pub set: BTreeMap<String, String>,
    /// Parameters that the upstream gets with this value if they did not come: `{ per_page = "25" }`.
    pub default: BTreeMap<String, String>,
    /// Parameters that are whole numbers, written in digits, and from where to where: `{ per_page = { min = 1, max = 100 } }`.
    pub integer: BTreeMap<String, IntegerRange>,
    /// Other parameters that may come; then no further ones may. Absent: any.
    pub allow: Option<Vec<String>>,
}

/// Whole numbers from one to another, both included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct IntegerRange {
    /// The smallest.
    pub min: u64,
    /// The largest. Absent: none.
    pub max: Option<u64>,
}
