//! W3C Trace Context: which trace an exchange belongs to, and what the upstream is told of it.
//!
//! Level 1 of the recommendation, with the one flag that level 2 adds passed on as it came.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use serde::{Serialize, Serializer};
use std::fmt;
use std::num::{NonZeroU64, NonZeroU128};

/// Carries the trace, the calling span and the flags.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Carries what tracing systems tell each other besides. Means nothing without a [`TRACEPARENT`].
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// `00-`, 32 digits, `-`, 16 digits, `-`, 2 digits.
const LENGTH: usize = 55;

/// The caller may have recorded the trace.
const SAMPLED: u8 = 1;

/// Flags that have a meaning: [`SAMPLED`], and level 2's "the id was drawn at random", which a
/// participant passes on unchanged.
const KNOWN_FLAGS: u8 = SAMPLED | 2;

/// The bits of a trace id that are random in any trace that says so; sampling looks at these.
const RANDOM_BITS: u32 = 56;

/// The id of a trace. Never zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(NonZeroU128);

/// The id of a span. Never zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId(NonZeroU64);

/// What a `traceparent` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace.
    pub trace: TraceId,
    /// The span of whoever sends it.
    pub span: SpanId,
    /// The flags that are known here.
    flags: u8,
}

/// The place of one exchange in its trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    /// What the upstream is told: its span is the gateway's call to it.
    pub context: TraceContext,
    /// The span that the exchange belongs beneath, if a trusted proxy has named one.
    pub parent: Option<SpanId>,
}

// === impl Trace ===

impl Trace {
    /// Goes on with the trace that a trusted proxy names, its decision to record included; begins a
    /// new one otherwise, of which `sample`, 0 to 1, says how many are recorded.
    pub fn of(headers: &HeaderMap, trusted: bool, sample: f64) -> Self {
        let parent = trusted.then(|| TraceContext::from_headers(headers));
        match parent.flatten() {
            Some(parent) => Self {
                context: TraceContext {
                    span: SpanId::random(),
                    ..parent
                },
                parent: Some(parent.span),
            },
            None => {
                let trace = TraceId::random();
                Self {
                    context: TraceContext {
                        trace,
                        span: SpanId::random(),
                        // Unless somebody records it, W3C has it that a new trace says 0 here.
                        flags: u8::from(trace.is_among(sample)),
                    },
                    parent: None,
                }
            }
        }
    }

    /// Tells the upstream. What others say of the trace besides goes on only with the trace itself.
    pub fn tell(&self, headers: &mut HeaderMap) {
        headers.insert(TRACEPARENT, self.context.header());
        if self.parent.is_none() {
            headers.remove(TRACESTATE);
        }
    }

    /// Whether spans of this exchange are recorded.
    pub fn is_sampled(&self) -> bool {
        self.context.flags & SAMPLED != 0
    }
}

// === impl TraceContext ===

impl TraceContext {
    /// The one `traceparent` among these fields, if it is valid. Several are none.
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => Self::parse(value.as_bytes()),
            _ => None,
        }
    }

    /// Reads a `traceparent` (W3C Trace Context §3.2.2). Of a version that is not known yet it takes
    /// the four fields that every version begins with (§3.2.4).
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (head, rest) = text.split_at_checked(LENGTH)?;
        let [a, b, b'-', fields @ ..] = head else {
            return None;
        };
        let version = hex(&[*a, *b])?;
        let ends = match version {
            0 => rest.is_empty(),
            0xff => false,
            _ => matches!(rest, [] | [b'-', ..]),
        };
        let (trace, fields) = fields.split_at_checked(32)?;
        let (span, flags) = fields.split_at_checked(17)?;
        let ([b'-', span @ ..], [b'-', flags @ ..]) = (span, flags) else {
            return None;
        };
        Some(Self {
            trace: TraceId(NonZeroU128::new(hex(trace)?)?),
            span: SpanId(NonZeroU64::new(u64::try_from(hex(span)?).ok()?)?),
            flags: u8::try_from(hex(flags)?).ok()? & KNOWN_FLAGS,
        })
        .filter(|_| ends)
    }

    /// The header's value, in version 00.
    pub fn header(&self) -> HeaderValue {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        write_hex(&mut text[3..35], &self.trace.bytes());
        write_hex(&mut text[36..52], &self.span.bytes());
        write_hex(&mut text[53..], &[self.flags]);
        // Digits and hyphens are always a header value.
        HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static(""))
    }
}

// === impl TraceId ===

impl TraceId {
    /// A new id. Ids name traces and guard nothing, so the fast generator will do, which every thread
    /// has for itself: two traces get the same id no sooner than chance has it.
    fn random() -> Self {
        Self(NonZeroU128::new(fastrand::u128(..)).unwrap_or(NonZeroU128::MIN))
    }

    /// Whether a trace is among this share, 0 to 1, of all. The id decides, as in OpenTelemetry: who
    /// records the same share picks the same traces.
    fn is_among(self, share: f64) -> bool {
        let all = 1_u64 << RANDOM_BITS;
        let drawn = self.low() & (all - 1);
        drawn >= ((1.0 - share) * all as f64) as u64
    }

    fn low(self) -> u64 {
        let [.., a, b, c, d, e, f, g, h] = self.bytes();
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }

    /// The id as it is sent in binary.
    pub fn bytes(self) -> [u8; 16] {
        self.0.get().to_be_bytes()
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for TraceId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // In every access record: without the detour through the formatter.
        let mut text = [0; 32];
        write_hex(&mut text, &self.bytes());
        serializer.serialize_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

// === impl SpanId ===

impl SpanId {
    /// A new id, see [`TraceId`].
    pub fn random() -> Self {
        Self(NonZeroU64::new(fastrand::u64(..)).unwrap_or(NonZeroU64::MIN))
    }

    /// The id as it is sent in binary.
    pub fn bytes(self) -> [u8; 8] {
        self.0.get().to_be_bytes()
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The number that lower-case digits, 32 at most, spell. Upper case is not valid.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

/// The two digits of each byte.
const DIGITS: [[u8; 2]; 256] = {
    let (sixteen, mut digits, mut byte) = (b"0123456789abcdef", [[0; 2]; 256], 0);
    while byte < digits.len() {
        digits[byte] = [sixteen[byte >> 4], sixteen[byte & 0xf]];
        byte += 1;
    }
    digits
};

/// Fills `text` with two digits for each byte.
fn write_hex(text: &mut [u8], bytes: &[u8]) {
    for (places, byte) in text.as_chunks_mut().0.iter_mut().zip(bytes) {
        *places = DIGITS[usize::from(*byte)];
    }
}

#[cfg(test)]
#[path = "trace_tests.rs"]
mod tests;
