//! Confidence and scores in fixed point with four decimals, so that 0.70 − 0.50 is exactly 0.20.

use std::{fmt, ops};

use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Ten-thousandths. Confidence lies in 0..=10 000, signed scores in −10 000..=10 000.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Score(pub i32);

impl Score {
    /// 0.0000
    pub const ZERO: Score = Score(0);
    /// 1.0000
    pub const ONE: Score = Score(10_000);

    /// Rounds half-even to four decimals; values that are not finite become 0.
    pub fn from_f64(value: f64) -> Score {
        if !value.is_finite() {
            return Score::ZERO;
        }
        // Remove binary noise below 1e-9 first, so that 0.12345 (a tie in decimal) is treated as the tie it is.
        let scaled = (value * 1e4 * 1e5).round() / 1e5;
        Score(scaled.round_ties_even().clamp(f64::from(i32::MIN), f64::from(i32::MAX)) as i32)
    }

    /// The value as a binary fraction, for formulas that end in [`Score::from_f64`].
    pub fn as_f64(self) -> f64 {
        f64::from(self.0) / 1e4
    }

    /// The exact decimal value.
    pub fn as_decimal(self) -> Decimal {
        Decimal::new(i64::from(self.0), 4)
    }

    /// Limits the value to `low..=high`.
    #[must_use]
    pub fn clamp_to(self, low: Score, high: Score) -> Score {
        Score(self.0.clamp(low.0, high.0))
    }

    /// Limits the value to 0..=1.
    #[must_use]
    pub fn unit(self) -> Score {
        self.clamp_to(Score::ZERO, Score::ONE)
    }
}

impl ops::Add for Score {
    type Output = Score;
    fn add(self, other: Score) -> Score {
        Score(self.0.saturating_add(other.0))
    }
}

impl ops::Sub for Score {
    type Output = Score;
    fn sub(self, other: Score) -> Score {
        Score(self.0.saturating_sub(other.0))
    }
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.4}", self.as_f64())
    }
}

impl fmt::Debug for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Score {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_f64(self.as_f64())
    }
}

impl<'de> Deserialize<'de> for Score {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        f64::deserialize(d).map(Score::from_f64)
    }
}

impl schemars::JsonSchema for Score {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Score".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "number"})
    }
}

#[cfg(test)]
mod tests {
    use super::Score;

    #[test]
    fn differences_of_scores_are_exact() {
        assert_eq!(Score::from_f64(0.70) - Score::from_f64(0.50), Score::from_f64(0.20));
    }

    #[test]
    fn rounding_is_half_even() {
        assert_eq!(Score::from_f64(0.12345), Score(1234));
        assert_eq!(Score::from_f64(0.12355), Score(1236));
        assert_eq!(Score::from_f64(f64::NAN), Score::ZERO);
    }
}
