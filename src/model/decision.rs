//! The life of one signal, and the findings made on the way.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ModelCall, Money, RunId, Score, Symbol, TaskName, TradeKey, Ts, symbol::serde_as_text};

/// A decision carries the id of the run whose signal started it. Text form `D1-42`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct DecisionId(pub RunId);

impl fmt::Display for DecisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "D{}", self.0)
    }
}

impl FromStr for DecisionId {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let run = text.strip_prefix('D').ok_or_else(|| format!("`{text}` is no decision id; it looks like D1-42"))?;
        run.parse().map(DecisionId)
    }
}

serde_as_text!(DecisionId);

/// What a signal means for this account.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Route {
    /// Can increase a trading position.
    Entry,
    /// Can only decrease one.
    Exit,
    /// No position to act on.
    Nothing,
}

/// Stand of one opinion towards the signal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stance {
    /// On the signal's side.
    Agrees,
    /// On the other side.
    Opposes,
    /// Neither.
    Neutral,
}

/// One opinion that was looked at for the consensus.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct OpinionVote {
    /// Whose.
    pub agent: TaskName,
    /// How it stands; absent when it did not count.
    pub stance: Option<Stance>,
    /// now − as_of, milliseconds; absent when there is no opinion.
    pub age_ms: Option<i64>,
    /// Its confidence.
    pub confidence: Option<Score>,
    /// Why it did not count: `stale`, `degraded`, `missing`, `abstained`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out: Option<std::borrow::Cow<'static, str>>,
}

/// The agent consensus of one entry signal (domain §8).
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Consensus {
    /// Every eligible opinion.
    pub votes: Vec<OpinionVote>,
    /// Enabled opinion agents not switched off by degradation.
    pub eligible: u32,
    /// Opinions that counted.
    pub voters: u32,
    /// Opinions that agree.
    pub agree: u32,
    /// Multiplier before turnout scaling.
    pub multiplier_raw: f64,
    /// Multiplier applied.
    pub multiplier: f64,
    /// The signal's confidence.
    pub confidence_before: Score,
    /// min(1, before × multiplier).
    pub confidence_after: Score,
}

/// Kinds of conflicts (domain §9).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConflictKind {
    /// TA and sentiment on opposite sides with like confidence.
    TaSentimentConflict,
    /// The regime is choppy.
    RegimeConflict,
    /// Risk would cut the size by more than the limit.
    RiskOverride,
    /// A leg of the same base asset is due on the other side.
    RebalanceConflict,
}

impl ConflictKind {
    /// The name as written in settings and events.
    pub const fn name(self) -> &'static str {
        match self {
            ConflictKind::TaSentimentConflict => "ta_sentiment_conflict",
            ConflictKind::RegimeConflict => "regime_conflict",
            ConflictKind::RiskOverride => "risk_override",
            ConflictKind::RebalanceConflict => "rebalance_conflict",
        }
    }
}

/// One conflict with its facts in words.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Conflict {
    /// Which kind.
    pub kind: ConflictKind,
    /// Key facts, for people and prompts.
    pub facts: String,
}

/// What to do about a conflict; ordered from the boldest to the most cautious.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResolutionAction {
    /// Go on as asked.
    Proceed,
    /// Go on with lower risk.
    Modify,
    /// End; the next slot decides anew.
    Wait,
    /// End.
    Abort,
}

/// A settled conflict.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Resolution {
    /// What is done.
    pub action: ResolutionAction,
    /// `fallback`, or the model that answered.
    pub by: String,
    /// Errors of every provider tried, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
    /// The resolver's confidence, when a model answered.
    pub confidence: Option<Score>,
    /// Bounds already applied; present only for `modify`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modifications: Option<Modifications>,
    /// How the models were asked; absent when none was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<Box<ModelCall>>,
}

/// What `modify` may change; each can only lower risk.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Modifications {
    /// New leverage, ≤ the original.
    pub leverage: Option<u32>,
    /// 0..<100
    pub size_reduction_pct: Option<Score>,
    /// −2..2
    pub entry_adjustment_pct: Option<Score>,
}

/// How a decision ended.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "end", content = "detail")]
pub enum DecisionEnd {
    /// The signal says HOLD.
    Hold,
    /// A gate closed it, with the reason.
    Suppressed(String),
    /// No position to act on, with the reason.
    NothingToDo(String),
    /// A conflict says wait.
    Waited(String),
    /// A conflict says abort.
    Aborted(String),
    /// The sized order is below the symbol's minimum.
    BelowMinimum,
    /// Risk refused.
    Refused(super::RiskRefusal),
    /// The signal grew older than the limit.
    Expired,
    /// A trade was made from it; its state tells the rest.
    Traded(TradeKey),
    /// The program stopped in between.
    Interrupted,
}

impl DecisionEnd {
    /// The name reports and counters use.
    pub fn name(&self) -> &'static str {
        match self {
            DecisionEnd::Hold => "hold",
            DecisionEnd::Suppressed(_) => "suppressed",
            DecisionEnd::NothingToDo(_) => "nothing_to_do",
            DecisionEnd::Waited(_) => "waited",
            DecisionEnd::Aborted(_) => "aborted",
            DecisionEnd::BelowMinimum => "below_minimum",
            DecisionEnd::Refused(_) => "refused",
            DecisionEnd::Expired => "expired",
            DecisionEnd::Traded(_) => "traded",
            DecisionEnd::Interrupted => "interrupted",
        }
    }
}

/// A decision that has not ended.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct OpenDecision {
    /// Identity.
    pub id: DecisionId,
    /// Which symbol.
    pub symbol: Symbol,
    /// When the signal was received.
    pub received_at: Ts,
}

/// A size asked for and what it is made of (domain §11.1).
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Sizing {
    /// Percent of equity the signal asks for.
    pub position_size_pct: Score,
    /// Equity of the account view.
    pub equity: Money,
    /// Regime factor.
    pub regime_factor: Money,
    /// 1.0 NORMAL, 0.5 REDUCED.
    pub degradation_factor: Money,
    /// Notional asked for.
    pub notional: Money,
}
