//! Outputs of the opinion agents.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ModelCall, Price, Regime, RunId, Score, SlotId, Symbol, TaskName, Timeframe, Ts};

/// The part every agent output has.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct OutputHead {
    /// Which agent.
    pub agent: TaskName,
    /// Which symbol.
    pub symbol: Symbol,
    /// Which execution.
    pub run_id: RunId,
    /// Which slot.
    pub slot: SlotId,
    /// Time of the market data, not the time the run finished.
    pub as_of: Ts,
    /// When the agent answered.
    pub produced_at: Ts,
    /// 0..1
    pub confidence: Score,
    /// At most 500 characters.
    pub reasoning: String,
    /// From start to answer, logical milliseconds.
    pub latency_ms: i64,
    /// `rules`, or the model's name.
    pub path: std::borrow::Cow<'static, str>,
    /// Fallback path after a failure; such an output never votes.
    pub degraded: bool,
    /// Short remarks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// How models were asked; empty on the rules path.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<ModelCall>,
}

/// Long, short or neither.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Bias {
    /// Prices are expected to rise.
    Long,
    /// Prices are expected to fall.
    Short,
    /// No view.
    Neutral,
}

/// RSI zone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RsiSignal {
    /// Below 30.
    Oversold,
    /// 30..=70
    Neutral,
    /// Above 70.
    Overbought,
}

/// MACD state; a cross is a sign change of the histogram on the last closed candle.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MacdSignal {
    /// Histogram changed from ≤ 0 to > 0.
    BullishCross,
    /// Histogram changed from ≥ 0 to < 0.
    BearishCross,
    /// Histogram > 0.
    Bullish,
    /// Histogram < 0.
    Bearish,
    /// Histogram is 0.
    Neutral,
}

/// Where the price stands between its levels.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LevelPosition {
    /// Within half an ATR of a support.
    NearSupport,
    /// Neither.
    MidRange,
    /// Within half an ATR of a resistance.
    NearResistance,
}

/// Output of `technical_analysis`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TaOutput {
    /// Common part.
    #[serde(flatten)]
    pub head: OutputHead,
    /// View.
    pub bias: Bias,
    /// 0..1
    pub trend_strength: Score,
    /// −1..1
    pub momentum_score: Score,
    /// RSI zone.
    pub rsi_signal: RsiSignal,
    /// MACD state.
    pub macd_signal: MacdSignal,
    /// At most 5 prices below.
    pub support_levels: Vec<Price>,
    /// At most 5 prices above.
    pub resistance_levels: Vec<Price>,
    /// Place between them.
    pub current_position: LevelPosition,
    /// Frames whose EMA9 is on the bias side of EMA21.
    pub timeframe_alignment: Vec<Timeframe>,
    /// What speaks loudest.
    pub primary_signal: std::borrow::Cow<'static, str>,
}

/// Volatility class by ATR14/price.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Volatility {
    /// < 1 %
    Low,
    /// < 3 %
    Normal,
    /// < 5 %
    High,
    /// ≥ 5 %
    Extreme,
}

/// Volume class by volume ÷ SMA20.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VolumeProfile {
    /// < 0.8
    Decreasing,
    /// Between.
    Stable,
    /// > 1.2
    Increasing,
    /// > 3
    Spike,
}

/// Output of `regime_detection`. It carries the whole per-symbol memory of the hysteresis, so that the last
/// accepted output is all a fresh agent needs.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RegimeOutput {
    /// Common part.
    #[serde(flatten)]
    pub head: OutputHead,
    /// The regime in force: the old one while a switch is pending.
    pub regime: Regime,
    /// What this run detected.
    pub detected_regime: Regime,
    /// Volatility class.
    pub volatility: Volatility,
    /// 0..1
    pub trend_strength: Score,
    /// Volume class.
    pub volume_profile: VolumeProfile,
    /// 0..100, when known.
    pub choppiness: Option<f64>,
    /// 0..100
    pub adx: f64,
    /// Since when `regime` is in force.
    pub regime_started: Ts,
    /// How often `regime` was confirmed (one per run).
    pub periods_in_regime: u32,
    /// The candidate of a pending switch.
    pub pending_regime: Option<Regime>,
    /// How often in a row it was detected.
    pub pending_count: u32,
    /// Confidence stored with the regime in force.
    pub stored_confidence: Score,
}

/// Mood of news and social media.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SentimentBias {
    /// Score ≥ 0.6
    VeryBullish,
    /// ≥ 0.2
    Bullish,
    /// ≥ −0.2
    Neutral,
    /// ≥ −0.6
    Bearish,
    /// Below.
    VeryBearish,
}

/// Output of `sentiment_analysis`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct SentimentOutput {
    /// Common part.
    #[serde(flatten)]
    pub head: OutputHead,
    /// View.
    pub bias: SentimentBias,
    /// −1..1, when the provider answered.
    pub social_score: Option<Score>,
    /// −1..1, when the provider answered.
    pub news_score: Option<Score>,
    /// −1..1
    pub overall_score: Score,
    /// At most 3 events, the weightiest first, and 2 narratives in the providers' words: text from outside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub news: Vec<String>,
}
