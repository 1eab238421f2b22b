//! Market state of one symbol at one instant. By type, a snapshot holds nothing later than its data time.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Candle, Price, Symbol, Timeframe, Ts};

/// Indicator values at the last closed candle of one frame. Absent before warm-up, never zero in its place.
#[derive(Clone, Default, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Indicators {
    /// Exponential means over 9, 21, 50 and 200 closes, seeded with the simple mean.
    pub ema9: Option<f64>,
    /// See `ema9`.
    pub ema21: Option<f64>,
    /// See `ema9`.
    pub ema50: Option<f64>,
    /// See `ema9`.
    pub ema200: Option<f64>,
    /// Arithmetic means over 20, 50 and 200 closes.
    pub sma20: Option<f64>,
    /// See `sma20`.
    pub sma50: Option<f64>,
    /// See `sma20`.
    pub sma200: Option<f64>,
    /// Relative strength index over 14, Wilder smoothing, 0..100.
    pub rsi14: Option<f64>,
    /// EMA12 − EMA26.
    pub macd_line: Option<f64>,
    /// EMA9 of the line.
    pub macd_signal: Option<f64>,
    /// Line − signal.
    pub macd_histogram: Option<f64>,
    /// The histogram one candle earlier.
    pub macd_histogram_previous: Option<f64>,
    /// Average true range over 10, 14 and 20 candles, Wilder smoothing.
    pub atr10: Option<f64>,
    /// See `atr10`.
    pub atr14: Option<f64>,
    /// See `atr10`.
    pub atr20: Option<f64>,
    /// Mean of the 50 ATR14 values before this candle.
    pub atr14_mean50_before: Option<f64>,
    /// Mean of the last 20 ATR14 values, this candle included.
    pub atr14_mean20: Option<f64>,
    /// Average directional index over 14, 0..100.
    pub adx14: Option<f64>,
    /// Bollinger bands over 20 closes, 2 population deviations.
    pub bollinger_upper: Option<f64>,
    /// See `bollinger_upper`.
    pub bollinger_middle: Option<f64>,
    /// See `bollinger_upper`.
    pub bollinger_lower: Option<f64>,
    /// (upper − lower) / middle.
    pub bollinger_width: Option<f64>,
    /// (close − lower) / (upper − lower); 0.5 when the band has no width.
    pub bollinger_position: Option<f64>,
    /// Keltner channel EMA20 ± 2·ATR10.
    pub keltner_upper: Option<f64>,
    /// See `keltner_upper`.
    pub keltner_lower: Option<f64>,
    /// Bollinger band inside EMA20 ± 1.5·ATR20 on both sides.
    pub squeeze: Option<bool>,
    /// For how many consecutive candles `squeeze` has been true, this one included.
    pub squeeze_candles: u32,
    /// Choppiness over 14, 0..100.
    pub choppiness14: Option<f64>,
    /// Supertrend(10, 3) line.
    pub supertrend_line: Option<f64>,
    /// True while the supertrend side is up.
    pub supertrend_up: Option<bool>,
    /// Stochastic RSI 14/14/3/3, 0..100.
    pub stoch_rsi_k: Option<f64>,
    /// See `stoch_rsi_k`.
    pub stoch_rsi_d: Option<f64>,
    /// Rate of change over 10 candles, percent.
    pub roc10: Option<f64>,
    /// On-balance volume since the first candle seen.
    pub obv: Option<f64>,
    /// Volume-weighted mean typical price since 00:00 UTC.
    pub vwap: Option<f64>,
    /// Mean volume of 20 candles.
    pub volume_sma20: Option<f64>,
    /// Volume / `volume_sma20`.
    pub volume_ratio: Option<f64>,
    /// Highest high and lowest low of the 20 candles before this one.
    pub donchian_high: Option<f64>,
    /// See `donchian_high`.
    pub donchian_low: Option<f64>,
    /// The highest Donchian-20 level that one of the last 3 closes broke upwards and the last close still exceeds.
    pub breakout_up_level: Option<f64>,
    /// The lowest Donchian-20 level that one of the last 3 closes broke downwards and the last close still undercuts.
    pub breakout_down_level: Option<f64>,
    /// Highest high and lowest low of the last 20 and 50 candles, this one included.
    pub high20: Option<f64>,
    /// See `high20`.
    pub low20: Option<f64>,
    /// See `high20`.
    pub high50: Option<f64>,
    /// See `high20`.
    pub low50: Option<f64>,
}

/// One timeframe as seen in a snapshot: the last closed candle and the indicators at it. Shared, never changed.
#[derive(Clone, PartialEq, Debug)]
pub struct FrameView {
    /// Which frame.
    pub frame: Timeframe,
    /// The last closed candle.
    pub last: Candle,
    /// Closed candles seen so far (for warm-up checks).
    pub closed_candles: u64,
    /// Indicator values at `last`.
    pub indicators: Indicators,
    /// The last closed candles, oldest first and `last` included; empty unless the market was told to keep them,
    /// because only prompts of models show them.
    pub tail: Vec<Candle>,
}

/// Why a snapshot cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quality {
    /// Fit for every use.
    Good,
    /// No price yet, or the price is older than the limit.
    PriceStale,
    /// The primary frame is missing, or its last closed candle is older than 1.5 frame lengths.
    PrimaryStale,
}

/// Depth and spread of the book when a feed gives them.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Book {
    /// Depth of the bid side, USD.
    pub bid_depth_usd: f64,
    /// Depth of the ask side, USD.
    pub ask_depth_usd: f64,
    /// (bid − ask)/(bid + ask), −1..1.
    pub imbalance: f64,
    /// Best ask − best bid, in basis points of the mid.
    pub spread_bps: f64,
}

/// Values a snapshot is built from; checked by [`Snapshot::new`].
#[derive(Clone, Debug)]
pub struct SnapshotParts {
    /// Which symbol.
    pub symbol: Symbol,
    /// Data time: when the read started.
    pub as_of: Ts,
    /// Freshest trade or mid.
    pub price: Option<Price>,
    /// When that price was true.
    pub price_at: Ts,
    /// Number of the price within its feed; with the feed's name it makes the price id.
    pub price_id: u64,
    /// The frame voters and regimes use.
    pub primary: Timeframe,
    /// Views by [`Timeframe::index`]; absent frames are below the base timeframe or not closed once yet.
    pub frames: [Option<Arc<FrameView>>; 6],
    /// Price change over 24 h, percent, when known.
    pub change_24h_pct: Option<f64>,
    /// Base volume over 24 h, when known.
    pub volume_24h: Option<f64>,
    /// (bull − bear)/total by EMA9 against EMA21 over frames with ≥ 21 candles, −1..1.
    pub alignment: Option<f64>,
    /// Book values when the feed gives them.
    pub book: Option<Book>,
    /// Fit for use or why not.
    pub quality: Quality,
    /// Frames that are stale or have a gap inside the look-back.
    pub flagged_frames: Vec<Timeframe>,
}

/// An immutable market state. Nothing in it is later than [`SnapshotParts::as_of`].
#[derive(Clone, Debug)]
pub struct Snapshot(SnapshotParts);

/// A snapshot was asked to hold data from after its own time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{symbol}: {what} of {at} is later than the snapshot's data time {as_of}")]
pub struct LookAhead {
    symbol: Symbol,
    what: &'static str,
    at: Ts,
    as_of: Ts,
}

impl Snapshot {
    /// Builds the snapshot.
    ///
    /// # Errors
    /// [`LookAhead`] when the price or any frame's last candle closed after `as_of`.
    pub fn new(parts: SnapshotParts) -> Result<Snapshot, LookAhead> {
        let late = |what, at| LookAhead { symbol: parts.symbol, what, at, as_of: parts.as_of };
        if parts.price.is_some() && parts.price_at > parts.as_of {
            return Err(late("the price", parts.price_at));
        }
        for view in parts.frames.iter().flatten() {
            let closed = view.last.close_time(view.frame);
            if closed > parts.as_of {
                return Err(late("a candle", closed));
            }
        }
        Ok(Snapshot(parts))
    }

    /// The primary frame's view.
    pub fn primary_view(&self) -> Option<&FrameView> {
        self.0.frames[self.0.primary.index()].as_deref()
    }

    /// The view of `frame`.
    pub fn view(&self, frame: Timeframe) -> Option<&FrameView> {
        self.0.frames[frame.index()].as_deref()
    }

    /// Age of the price at `now`, milliseconds.
    pub fn price_age_ms(&self, now: Ts) -> i64 {
        now.since_ms(self.0.price_at)
    }
}

impl std::ops::Deref for Snapshot {
    type Target = SnapshotParts;
    fn deref(&self) -> &SnapshotParts {
        &self.0
    }
}

/// One accepted price, as the market hands it to execution and risk.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct PriceTick {
    /// Which symbol.
    pub symbol: Symbol,
    /// Last price, quote units.
    pub price: Price,
    /// When it was true.
    pub at: Ts,
    /// Number within the feed; part of the price id in fills.
    pub price_id: u64,
    /// The closed base candle this price ends, when the feed delivers candles: extremes reached since its start.
    pub range: Option<PriceRange>,
}

/// Extremes of the candle a price closes.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct PriceRange {
    /// Start of the candle.
    pub from: Ts,
    /// First price.
    pub open: Price,
    /// Highest price.
    pub high: Price,
    /// Lowest price.
    pub low: Price,
}
