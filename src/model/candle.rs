//! Candles and the six timeframes.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{symbol::serde_as_text, time::Ts};

/// The length of a candle.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Timeframe {
    /// 1 minute
    M1,
    /// 5 minutes
    M5,
    /// 15 minutes
    M15,
    /// 1 hour
    H1,
    /// 4 hours
    H4,
    /// 1 day (UTC)
    D1,
}

impl Timeframe {
    /// Shortest first.
    pub const ALL: [Timeframe; 6] =
        [Timeframe::M1, Timeframe::M5, Timeframe::M15, Timeframe::H1, Timeframe::H4, Timeframe::D1];

    /// Length in milliseconds.
    pub const fn ms(self) -> i64 {
        self.minutes() * 60_000
    }

    /// Length in minutes, as Kraken's file names carry it.
    pub const fn minutes(self) -> i64 {
        match self {
            Timeframe::M1 => 1,
            Timeframe::M5 => 5,
            Timeframe::M15 => 15,
            Timeframe::H1 => 60,
            Timeframe::H4 => 240,
            Timeframe::D1 => 1440,
        }
    }

    /// Position in [`Timeframe::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// `1m`, `5m`, `15m`, `1h`, `4h` or `1d`.
    pub const fn name(self) -> &'static str {
        match self {
            Timeframe::M1 => "1m",
            Timeframe::M5 => "5m",
            Timeframe::M15 => "15m",
            Timeframe::H1 => "1h",
            Timeframe::H4 => "4h",
            Timeframe::D1 => "1d",
        }
    }
}

impl FromStr for Timeframe {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Timeframe::ALL
            .into_iter()
            .find(|frame| frame.name() == text)
            .ok_or_else(|| format!("`{text}` is no timeframe; one of 1m, 5m, 15m, 1h, 4h, 1d"))
    }
}

impl fmt::Display for Timeframe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

serde_as_text!(Timeframe);

/// One closed candle. Prices in quote units, volume in base units.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Candle {
    /// Start of the interval; the candle covers `[open_time, open_time + frame)`.
    pub open_time: Ts,
    /// First price.
    pub open: f64,
    /// Highest price.
    pub high: f64,
    /// Lowest price.
    pub low: f64,
    /// Last price.
    pub close: f64,
    /// Traded base quantity.
    pub volume: f64,
}

impl Candle {
    /// The instant this candle of `frame` is closed and may be known.
    pub const fn close_time(&self, frame: Timeframe) -> Ts {
        self.open_time.plus_ms(frame.ms())
    }

    /// Why the values cannot be a candle, or nothing: all finite, prices > 0, volume ≥ 0, low ≤ open, close ≤ high.
    pub fn defect(&self) -> Option<&'static str> {
        let prices = [self.open, self.high, self.low, self.close];
        if prices.iter().any(|p| !p.is_finite()) || !self.volume.is_finite() {
            return Some("a value is not a finite number");
        }
        if prices.iter().any(|p| *p <= 0.0) {
            return Some("a price is not above zero");
        }
        if self.volume < 0.0 {
            return Some("the volume is negative");
        }
        if self.low > self.open.min(self.close) || self.high < self.open.max(self.close) {
            return Some("open or close lies outside low..high");
        }
        None
    }
}
