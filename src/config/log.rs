//! `[log]`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::Percent;

/// What is written to standard output, and how.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// The least important messages to write.
    pub level: LogLevel,
    /// One JSON object a line, or text for people.
    pub format: LogFormat,
    /// Whether to write a record for each request.
    pub access: bool,
    /// The share of successful requests that get a record. Failures and refusals always do.
    pub sample: Percent,
}

/// How important a message is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(
    missing_docs,
    reason = "the names say it, and documented variants make a longer schema"
)]
pub enum LogLevel {
    Trace,
    Debug,
    #[default]
    Info,
    Warn,
    Error,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(
    missing_docs,
    reason = "the names say it, and documented variants make a longer schema"
)]
pub enum LogFormat {
    #[default]
    Json,
    Text,
}

impl LogLevel {
    /// The level as it is written in the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: LogLevel::Info,
            format: LogFormat::Json,
            access: true,
            sample: Percent(100.0),
        }
    }
}
