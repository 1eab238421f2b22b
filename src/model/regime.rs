//! Market regimes: the one list of names.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What kind of market it is. Parameters per regime are settings (`regimes.NAME`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Regime {
    /// Trend up.
    TrendingBull,
    /// Trend down.
    TrendingBear,
    /// Sideways.
    Ranging,
    /// Wide swings, upward bias.
    VolatileBull,
    /// Wide swings, downward bias.
    VolatileBear,
    /// Directionless noise.
    Choppy,
    /// Compressed range.
    BreakoutPotential,
    /// No fresh detection; never votes.
    Unknown,
}

impl Regime {
    /// All names, in the order of the specification's table.
    pub const ALL: [Regime; 8] = [
        Regime::TrendingBull,
        Regime::TrendingBear,
        Regime::Ranging,
        Regime::VolatileBull,
        Regime::VolatileBear,
        Regime::Choppy,
        Regime::BreakoutPotential,
        Regime::Unknown,
    ];

    /// The name as written in settings and journal.
    pub const fn name(self) -> &'static str {
        match self {
            Regime::TrendingBull => "trending_bull",
            Regime::TrendingBear => "trending_bear",
            Regime::Ranging => "ranging",
            Regime::VolatileBull => "volatile_bull",
            Regime::VolatileBear => "volatile_bear",
            Regime::Choppy => "choppy",
            Regime::BreakoutPotential => "breakout_potential",
            Regime::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Regime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
