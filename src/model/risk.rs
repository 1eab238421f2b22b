//! Values of the risk engine: codes, refusals, reservations, breakers, cooldowns.

use std::{collections::BTreeMap, fmt};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Money, PositionId, Qty, Symbol, TradeKey, Ts};

/// Codes of the risk checks (domain §11.3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs)] // the names are the codes of the specification's table
pub enum RiskCode {
    InvalidProposal,
    NoAccountState,
    PriceStale,
    TradingHalted,
    InCooldown,
    RestrictedHours,
    StopLossRequired,
    StopTooTight,
    StopTooWide,
    LowRr,
    ConfidenceTooLow,
    AgentDisagreement,
    SizeReduced,
    SizeReducedLosses,
    VolatilitySpike,
    LeverageReduced,
    BelowMinimum,
    PositionLimit,
    ExposureLimit,
    CorrelatedExposure,
    InsufficientFunds,
    InsufficientMargin,
    SymbolBlocked,
    FeedSilent,
}

impl RiskCode {
    /// `STOP_TOO_WIDE` and so on.
    pub const fn name(self) -> &'static str {
        match self {
            RiskCode::InvalidProposal => "INVALID_PROPOSAL",
            RiskCode::NoAccountState => "NO_ACCOUNT_STATE",
            RiskCode::PriceStale => "PRICE_STALE",
            RiskCode::TradingHalted => "TRADING_HALTED",
            RiskCode::InCooldown => "IN_COOLDOWN",
            RiskCode::RestrictedHours => "RESTRICTED_HOURS",
            RiskCode::StopLossRequired => "STOP_LOSS_REQUIRED",
            RiskCode::StopTooTight => "STOP_TOO_TIGHT",
            RiskCode::StopTooWide => "STOP_TOO_WIDE",
            RiskCode::LowRr => "LOW_RR",
            RiskCode::ConfidenceTooLow => "CONFIDENCE_TOO_LOW",
            RiskCode::AgentDisagreement => "AGENT_DISAGREEMENT",
            RiskCode::SizeReduced => "SIZE_REDUCED",
            RiskCode::SizeReducedLosses => "SIZE_REDUCED_LOSSES",
            RiskCode::VolatilitySpike => "VOLATILITY_SPIKE",
            RiskCode::LeverageReduced => "LEVERAGE_REDUCED",
            RiskCode::BelowMinimum => "BELOW_MINIMUM",
            RiskCode::PositionLimit => "POSITION_LIMIT",
            RiskCode::ExposureLimit => "EXPOSURE_LIMIT",
            RiskCode::CorrelatedExposure => "CORRELATED_EXPOSURE",
            RiskCode::InsufficientFunds => "INSUFFICIENT_FUNDS",
            RiskCode::InsufficientMargin => "INSUFFICIENT_MARGIN",
            RiskCode::SymbolBlocked => "SYMBOL_BLOCKED",
            RiskCode::FeedSilent => "FEED_SILENT",
        }
    }
}

impl fmt::Display for RiskCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A refusal carries code, measured value and limit.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RiskRefusal {
    /// Which check.
    pub code: RiskCode,
    /// What was measured.
    pub measured: String,
    /// What is allowed.
    pub limit: String,
}

/// One thing the engine lowered or remarked; modifications only ever reduce.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RiskNote {
    /// Which check.
    pub code: RiskCode,
    /// Before → after, or measured against the limit.
    pub detail: String,
}

/// Exposure, funds and a position slot held for one trade.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Reservation {
    /// For which trade.
    pub key: TradeKey,
    /// Which symbol.
    pub symbol: Symbol,
    /// Account currency.
    pub notional_usd: Money,
    /// Quote asset of the symbol: notional + fee.
    pub funds: Money,
    /// Spot: 1.
    pub leverage: u32,
}

/// Loss limits that latch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BreakerKind {
    /// Loss since the start of the UTC day.
    DailyLoss,
    /// Loss since the start of the ISO week.
    WeeklyLoss,
    /// Loss from the peak.
    MaxDrawdown,
    /// Losing closes in a row.
    ConsecutiveLosses,
}

impl BreakerKind {
    /// All, in the order they are evaluated.
    pub const ALL: [BreakerKind; 4] =
        [BreakerKind::DailyLoss, BreakerKind::WeeklyLoss, BreakerKind::MaxDrawdown, BreakerKind::ConsecutiveLosses];

    /// The name as written in settings and events.
    pub const fn name(self) -> &'static str {
        match self {
            BreakerKind::DailyLoss => "daily_loss",
            BreakerKind::WeeklyLoss => "weekly_loss",
            BreakerKind::MaxDrawdown => "max_drawdown",
            BreakerKind::ConsecutiveLosses => "consecutive_losses",
        }
    }
}

impl fmt::Display for BreakerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A tripped breaker; each latches separately and a later trip never replaces an earlier one.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Latch {
    /// Which limit.
    pub breaker: BreakerKind,
    /// Day number, ISO week, or the number of the trip for breakers without a period.
    pub period: String,
    /// What was measured, percent or count.
    pub measured: Money,
    /// The limit.
    pub limit: Money,
    /// When.
    pub at: Ts,
}

/// Why entries are refused for a while. The later end always wins.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CooldownCause {
    /// A winning close.
    AfterWin,
    /// A losing close.
    AfterLoss,
    /// At least 3 losses in a row.
    #[serde(rename = "after_3_losses")]
    AfterThreeLosses,
    /// At least 5 losses in a row.
    #[serde(rename = "after_5_losses")]
    AfterFiveLosses,
    /// ATR spike.
    VolatilitySpike,
    /// A fast move.
    UnusualMove,
    /// A rebalance plan.
    Rebalance,
    /// Three order errors in a row.
    OrderErrors,
}

/// What a breach does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EmergencyAction {
    /// Adds the pause reason `breaker:<id>`.
    PauseTrading,
    /// Trades every position down to a stored target.
    ReducePositions,
    /// HALTED, cancel resting entries, close if configured.
    HaltAll,
    /// Cooldown and smaller size only.
    Cooldown,
}

impl EmergencyAction {
    /// The name as written in settings and keys.
    pub const fn name(self) -> &'static str {
        match self {
            EmergencyAction::PauseTrading => "pause_trading",
            EmergencyAction::ReducePositions => "reduce_positions",
            EmergencyAction::HaltAll => "halt_all",
            EmergencyAction::Cooldown => "cooldown",
        }
    }
}

/// Instance of an emergency action: executed once, resumed after a crash, never twice.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct EmergencyKey {
    /// The breach (`max_drawdown`, `operator:<command>`, …).
    pub breach: String,
    /// Period of the breach.
    pub period: String,
    /// What is done.
    pub action: EmergencyAction,
}

impl fmt::Display for EmergencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.breach, self.period, self.action.name())
    }
}

/// An emergency action under way or done.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Emergency {
    /// Identity.
    pub key: EmergencyKey,
    /// When it started.
    pub started_at: Ts,
    /// Target quantity per position, fixed at the trigger; 0 closes it.
    pub targets: BTreeMap<PositionId, Qty>,
    /// Attempts made per position.
    pub attempts: BTreeMap<PositionId, u32>,
    /// Not before this instant is the next attempt made.
    pub retry_at: Option<Ts>,
    /// All targets reached.
    pub done: bool,
}

/// Level of what the program may use (resilience §2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum DegradationLevel {
    /// Everything works.
    #[default]
    Normal,
    /// No sentiment, no new plans, half size.
    Reduced,
    /// No new entries.
    Limited,
    /// Protective actions only.
    Emergency,
}

impl DegradationLevel {
    /// The name as written in events.
    pub const fn name(self) -> &'static str {
        match self {
            DegradationLevel::Normal => "NORMAL",
            DegradationLevel::Reduced => "REDUCED",
            DegradationLevel::Limited => "LIMITED",
            DegradationLevel::Emergency => "EMERGENCY",
        }
    }
}

/// What degradation is measured on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Capability {
    /// Model calls.
    Llm,
    /// Sentiment runs.
    Sentiment,
    /// Price and candle refreshes.
    MarketData,
    /// Venue requests.
    Venue,
}
