//! Quantities with a unit: durations, sizes, percentages, rates.
//!
//! Bare numbers are refused, so that nobody has to know whether a timeout of `30` meant seconds or milliseconds.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::text::{BadText, text_type};

/// A duration: `"30s"`, `"10m"`, `"1h 30m"`, `"0s"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dur(pub Duration);

/// A number of bytes: `"64KiB"`, `"10MiB"`, `"512B"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(pub u64);

/// A percentage from 0 to 100: `"20%"` is `Percent(20.0)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub struct Percent(pub f64);

/// How often, on average: `"100/s"`, `"30/m"`, `"1000/h"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    /// How many; from 1 to a million.
    count: u32,
    /// In which time.
    per: Per,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Per {
    Second,
    Minute,
    Hour,
}

text_type!(
    Dur,
    "duration",
    r"^([0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h|d) ?)+$",
    ["30s", "10m"]
);
text_type!(
    Size,
    "size",
    r"^[0-9]+(\.[0-9]+)? ?([KMGT]i?)?B$",
    ["64KiB", "10MiB"]
);
text_type!(
    Percent,
    "percentage",
    r"^(100(\.0+)?|[0-9]{1,2}(\.[0-9]+)?)%$",
    ["20%", "100%"]
);

text_type!(Rate, "rate", r"^[0-9]+/[smh]$", ["100/s", "30/m"]);

/// Nothing here is meant to last longer, and clocks cannot count any duration that can be written.
const LONGEST: Duration = Duration::from_secs(3653 * 24 * 3600);

const DUR_UNITS: [&str; 7] = ["ns", "us", "ms", "s", "m", "h", "d"];
const SIZE_UNITS: [&str; 9] = ["B", "KB", "MB", "GB", "TB", "KiB", "MiB", "GiB", "TiB"];

// === impl Dur ===

impl Dur {
    /// No time at all: where a key allows it, "no limit" or "off".
    pub const ZERO: Self = Self(Duration::ZERO);

    /// Whole seconds.
    pub const fn secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }

    /// The duration.
    pub const fn get(self) -> Duration {
        self.0
    }

    /// Whether this is `"0s"`.
    pub const fn is_zero(self) -> bool {
        self.0.is_zero()
    }
}

impl FromStr for Dur {
    type Err = BadText;

    fn from_str(text: &str) -> Result<Self, BadText> {
        let bad = || BadText(format!("{text:?} is not a duration"));
        // Months and years have no fixed length, and `M` is too near to `m`.
        let units = text.split(|c: char| !c.is_ascii_alphabetic());
        if let Some(unit) = units
            .filter(|unit| !unit.is_empty())
            .find(|unit| !DUR_UNITS.contains(unit))
        {
            return Err(BadText(format!(
                "{text:?} is not a duration: `{unit}` is none of the units {}",
                DUR_UNITS.join(", ")
            )));
        }
        if !text.ends_with(|c: char| c.is_ascii_alphabetic()) {
            return Err(BadText(format!("{text:?} is not a duration: no unit")));
        }
        let duration = humantime::parse_duration(text).map_err(|_| bad())?;
        if duration > LONGEST {
            return Err(BadText(format!("{text:?} is longer than ten years")));
        }
        Ok(Self(duration))
    }
}

impl fmt::Display for Dur {
    /// In the largest unit that divides it: `"90s"`, `"24h"`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        let (divisor, unit) = [
            (3_600_000_000_000, "h"),
            (60_000_000_000, "m"),
            (1_000_000_000, "s"),
            (1_000_000, "ms"),
            (1_000, "us"),
        ]
        .into_iter()
        .find(|(divisor, _)| nanos.is_multiple_of(*divisor))
        .unwrap_or((1, "ns"));
        match nanos {
            0 => f.write_str("0s"),
            _ => write!(f, "{}{unit}", nanos / divisor),
        }
    }
}

// === impl Size ===

impl Size {
    /// Multiples of 1024 bytes.
    pub const fn kib(kib: u64) -> Self {
        Self(kib << 10)
    }

    /// Multiples of 1024 KiB.
    pub const fn mib(mib: u64) -> Self {
        Self(mib << 20)
    }

    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// The number of bytes as a length in memory; as much as fits where pointers are short.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for Size {
    type Err = BadText;

    fn from_str(text: &str) -> Result<Self, BadText> {
        let number_ends = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(number_ends);
        let unit = unit.trim_start();
        if number.is_empty() {
            return Err(BadText(format!("{text:?} is not a size")));
        }
        if unit.is_empty() {
            return Err(BadText(format!("{text:?} is not a size: no unit")));
        }
        if !SIZE_UNITS.contains(&unit) {
            return Err(BadText(format!(
                "{text:?} is not a size: `{unit}` is none of the units {}",
                SIZE_UNITS.join(", ")
            )));
        }
        match text.parse::<bytesize::ByteSize>() {
            // The parser stops at the largest number instead of failing.
            Ok(size) if size.0 == u64::MAX => Err(BadText(format!("{text:?} is too large"))),
            Ok(size) => Ok(Self(size.0)),
            Err(_) => Err(BadText(format!("{text:?} is not a size"))),
        }
    }
}

impl fmt::Display for Size {
    /// In the largest binary unit that divides it: `"1536KiB"`, `"1000B"`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (shift, unit) = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")]
            .into_iter()
            .find(|(shift, _)| self.0 != 0 && self.0.is_multiple_of(1 << shift))
            .unwrap_or((0, "B"));
        write!(f, "{}{unit}", self.0 >> shift)
    }
}

// === impl Percent ===

impl Percent {
    /// The percentage as a fraction: 0.2 for `"20%"`.
    pub fn fraction(self) -> f64 {
        self.0 / 100.0
    }
}

impl FromStr for Percent {
    type Err = BadText;

    fn from_str(text: &str) -> Result<Self, BadText> {
        let number = text
            .strip_suffix('%')
            .ok_or_else(|| BadText(format!("{text:?} is not a percentage: no `%`")))?;
        // `f64` reads more than digits: signs, exponents, "inf", "nan".
        let digits = number.chars().all(|c| c.is_ascii_digit() || c == '.');
        match number.parse::<f64>() {
            Ok(percent) if digits && percent <= 100.0 => Ok(Self(percent)),
            Ok(_) => Err(BadText(format!("{text:?} is not between 0% and 100%"))),
            Err(_) => Err(BadText(format!("{text:?} is not a percentage"))),
        }
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

// === impl Rate ===

impl Rate {
    /// The largest number of a rate: finer steps than a microsecond are not counted.
    const MOST: u32 = 1_000_000;

    /// The time from one to the next at this rate; from a microsecond to an hour.
    pub fn period(self) -> Duration {
        self.per.length() / self.count
    }

    /// How many come in a second, in whole numbers.
    pub fn per_second(self) -> u32 {
        let seconds = self.per.length().as_secs();
        u32::try_from(u64::from(self.count) / seconds).unwrap_or(u32::MAX)
    }
}

impl Per {
    const fn length(self) -> Duration {
        Duration::from_secs(match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3600,
        })
    }
}

impl FromStr for Rate {
    type Err = BadText;

    fn from_str(text: &str) -> Result<Self, BadText> {
        let bad = |why: &str| BadText(format!("{text:?} is not a rate: {why}"));
        let (number, unit) = text
            .split_once('/')
            .ok_or_else(|| bad("no `/` before the unit"))?;
        let per = match unit {
            "s" => Per::Second,
            "m" => Per::Minute,
            "h" => Per::Hour,
            _ => return Err(bad("the units are s, m, h")),
        };
        if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
            return Err(bad("a whole number comes before the `/`"));
        }
        match number.parse() {
            Ok(count) if (1..=Self::MOST).contains(&count) => Ok(Self { count, per }),
            _ => Err(bad("the number is from 1 to 1000000")),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.per {
            Per::Second => "s",
            Per::Minute => "m",
            Per::Hour => "h",
        };
        write!(f, "{}/{unit}", self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, millis, shown) in [
            ("30s", 30_000, "30s"),
            ("0s", 0, "0s"),
            ("75s", 75_000, "75s"),
            ("60s", 60_000, "1m"),
            ("24h", 86_400_000, "24h"),
            ("1d", 86_400_000, "24h"),
            ("1h 30m", 5_400_000, "90m"),
            ("250ms", 250, "250ms"),
            ("1.5s", 1_500, "1500ms"),
            ("3653d", 315_619_200_000, "87672h"),
        ] {
            let dur: Dur = text.parse().unwrap();
            assert_eq!(dur.get(), Duration::from_millis(millis), "{text}");
            assert_eq!(dur.to_string(), shown);
            assert_eq!(shown.parse::<Dur>().unwrap(), dur);
        }
        for text in [
            "",
            "30",
            "0",
            "s",
            "-1s",
            "1M",
            "2years",
            "1 fortnight",
            "1h30",
            "99999999999999999999s",
            "3653d 1ns",
            "400000d",
            "1e3s",
        ] {
            assert!(text.parse::<Dur>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes, shown) in [
            ("32KiB", 32 << 10, "32KiB"),
            ("10MiB", 10 << 20, "10MiB"),
            ("1.5MiB", 1_572_864, "1536KiB"),
            ("64 KB", 64_000, "64000B"),
            ("0B", 0, "0B"),
            ("1GiB", 1 << 30, "1GiB"),
        ] {
            let size: Size = text.parse().unwrap();
            assert_eq!(size.bytes(), bytes, "{text}");
            assert_eq!(size.to_string(), shown);
            assert_eq!(shown.parse::<Size>().unwrap(), size);
        }
        for text in [
            "",
            "64",
            "MiB",
            "-1B",
            "1.2.3MiB",
            "1kb",
            "64K",
            "99999999999TiB",
            ".MiB",
        ] {
            assert!(text.parse::<Size>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn percentages() {
        for (text, fraction) in [("20%", 0.2), ("0%", 0.0), ("100%", 1.0), ("0.5%", 0.005)] {
            let percent: Percent = text.parse().unwrap();
            assert!((percent.fraction() - fraction).abs() < 1e-12, "{text}");
            assert_eq!(percent.to_string(), text);
        }
        for text in ["", "%", "20", "101%", "-1%", "nan%", "inf%", "1e1%", "20 %"] {
            assert!(text.parse::<Percent>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn rates() {
        for (text, micros, a_second) in [
            ("100/s", 10_000, 100),
            ("1/s", 1_000_000, 1),
            ("1000000/s", 1, 1_000_000),
            ("30/m", 2_000_000, 0),
            ("120/m", 500_000, 2),
            ("1/h", 3_600_000_000, 0),
        ] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!(rate.period(), Duration::from_micros(micros), "{text}");
            assert_eq!(rate.per_second(), a_second, "{text}");
            assert_eq!(rate.to_string(), text);
        }
        for text in [
            "",
            "100",
            "/s",
            "0/s",
            "1000001/s",
            "1/d",
            "1.5/s",
            "-1/s",
            "1/ s",
            "1 /s",
            "+1/s",
            "100/s ",
        ] {
            assert!(text.parse::<Rate>().is_err(), "{text:?}");
        }
    }
}
