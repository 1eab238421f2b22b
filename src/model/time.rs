//! Instants as values. The core takes `now` as an argument and never reads a clock.

use std::fmt;

use chrono::{DateTime, Datelike, SecondsFormat, TimeZone, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A logical instant: milliseconds since 1970-01-01T00:00:00Z. Text form is RFC 3339 with milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ts(pub i64);

/// Milliseconds of one second, minute, hour and day.
pub const SECOND_MS: i64 = 1_000;
/// See [`SECOND_MS`].
pub const MINUTE_MS: i64 = 60_000;
/// See [`SECOND_MS`].
pub const HOUR_MS: i64 = 3_600_000;
/// See [`SECOND_MS`].
pub const DAY_MS: i64 = 86_400_000;

impl Ts {
    /// From whole Unix seconds.
    pub const fn from_secs(seconds: i64) -> Ts {
        Ts(seconds * SECOND_MS)
    }

    /// This instant moved by milliseconds, saturating.
    #[must_use]
    pub const fn plus_ms(self, ms: i64) -> Ts {
        Ts(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this instant; negative when `earlier` is later.
    pub const fn since_ms(self, earlier: Ts) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The start of the interval of `length_ms` this instant lies in, anchored at the epoch.
    #[must_use]
    pub const fn floor_to(self, length_ms: i64) -> Ts {
        Ts(self.0.div_euclid(length_ms) * length_ms)
    }

    /// The UTC calendar form; instants outside chrono's range are clamped to the epoch.
    pub fn utc(self) -> DateTime<Utc> {
        Utc.timestamp_millis_opt(self.0).single().unwrap_or_default()
    }

    /// UTC day number since the epoch: the period id of daily limits.
    pub const fn day(self) -> i64 {
        self.0.div_euclid(DAY_MS)
    }

    /// ISO week as year·100 + week: the period id of weekly limits.
    pub fn iso_week(self) -> i64 {
        let week = self.utc().iso_week();
        i64::from(week.year()) * 100 + i64::from(week.week())
    }

    /// Parses RFC 3339, `YYYY-MM-DD` (midnight UTC) or `YYYY-MM-DDTHH:MM[:SS]` (UTC).
    pub fn parse(text: &str) -> Option<Ts> {
        if let Ok(at) = DateTime::parse_from_rfc3339(text) {
            return Some(Ts(at.timestamp_millis()));
        }
        if let Ok(day) = chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d") {
            return Some(Ts(day.and_hms_opt(0, 0, 0)?.and_utc().timestamp_millis()));
        }
        ["%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M"]
            .iter()
            .find_map(|format| chrono::NaiveDateTime::parse_from_str(text, format).ok())
            .map(|at| Ts(at.and_utc().timestamp_millis()))
    }
}

impl fmt::Display for Ts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.utc().to_rfc3339_opts(SecondsFormat::Millis, true))
    }
}

impl fmt::Debug for Ts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Ts {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Ts {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        Ts::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("`{text}` is no RFC 3339 instant")))
    }
}

/// Where logical time comes from. Only the runtime implements it; the core is handed instants.
pub trait Clock {
    /// The logical instant now.
    fn now(&self) -> Ts;
}
