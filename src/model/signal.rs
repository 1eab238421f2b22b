//! Votes and the signal they make.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Money, OutputHead, Price, RunId, Score};

/// What a voter or a signal asks for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Action {
    /// Enter long (spot).
    Buy,
    /// Exit a long (spot), enter short (margin).
    Sell,
    /// Do nothing: an opinion, unlike abstaining.
    Hold,
    /// Close a long position.
    CloseLong,
    /// Close a short position.
    CloseShort,
}

impl Action {
    /// The name as written in votes and journal.
    pub const fn name(self) -> &'static str {
        match self {
            Action::Buy => "BUY",
            Action::Sell => "SELL",
            Action::Hold => "HOLD",
            Action::CloseLong => "CLOSE_LONG",
            Action::CloseShort => "CLOSE_SHORT",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Entry, stop and target of one vote or signal, quote units.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Levels {
    /// Wanted entry.
    pub entry: Price,
    /// Protective stop on the losing side.
    pub stop: Price,
    /// Target on the winning side.
    pub target: Price,
}

/// A valid vote.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Vote {
    /// What for.
    pub action: Action,
    /// 0..1
    pub confidence: Score,
    /// Present for BUY and SELL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub levels: Option<Levels>,
    /// Percent of equity, 0..100.
    pub position_size_pct: Score100,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reasoning: String,
}

/// Percent with four decimals, stored like a [`Score`] (ten-thousandths of a percent point).
pub type Score100 = Score;

/// What one voter answered.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ballot {
    /// A valid vote.
    Vote(Vote),
    /// No opinion, with the reason.
    Abstain(String),
    /// The voter failed, with the cause; also a late or incoherent answer.
    Failed(String),
}

/// A voter's name with its answer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct NamedBallot {
    /// As configured.
    pub voter: std::sync::Arc<str>,
    /// The answer.
    pub ballot: Ballot,
    /// How the model behind it was asked; absent for rules and for a model that was not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<Box<ModelCall>>,
}

/// One question to a chain of models, as the record of a decision keeps it. Why there is no vote says the ballot.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ModelCall {
    /// `provider/model` that answered, else the last one asked; absent when none was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Template of the prompt, `name@version`.
    pub template: String,
    /// SHA-256 of the rendered prompt, hex.
    pub prompt_sha256: String,
    /// Cost of all attempts as far as it was known, USD.
    pub cost_usd: Money,
    /// From the question to its end, milliseconds of logical time.
    pub latency_ms: i64,
    /// Attempts in vain, in order, each as `provider/model: kind`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<String>,
    /// No call was made: no budget, an open breaker, no rate, not recorded.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unasked: bool,
}

/// How clear a vote was.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VoteClass {
    /// Everyone asked agrees.
    Unanimous,
    /// At least 5/6 of those asked.
    StrongMajority,
    /// At least 2/3 of those asked.
    Majority,
    /// More than half of the valid votes only.
    Split,
    /// Fewer valid votes than the quorum: HOLD.
    InsufficientQuorum,
    /// No action has more than half of the valid votes: HOLD.
    NoMajority,
    /// The winners' median levels do not fit together: HOLD.
    Incoherent,
}

/// Output of `trading_decision`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Signal {
    /// Common part; `head.confidence` is the vote's confidence before any consensus multiplier.
    #[serde(flatten)]
    pub head: OutputHead,
    /// What is asked for.
    pub action: Action,
    /// Present for BUY and SELL.
    pub levels: Option<Levels>,
    /// Percent of equity, 0..100.
    pub position_size_pct: Score100,
    /// At least 1.
    pub leverage: u32,
    /// How many voters were asked.
    pub voters_asked: u32,
    /// How many gave a valid vote.
    pub voters_valid: u32,
    /// How clear it was.
    pub vote_class: VoteClass,
    /// Every voter's answer, in configured order.
    pub ballots: Vec<NamedBallot>,
    /// Snapshot price at the decision: what votes are marked against.
    pub price: Price,
    /// Run of the TA output used.
    pub ta_run: Option<RunId>,
    /// Run of the regime output used.
    pub regime_run: Option<RunId>,
    /// Run of the sentiment output used.
    pub sentiment_run: Option<RunId>,
}

impl Signal {
    /// Whether a model was asked for a vote: its thinking took time in which the market went on.
    pub fn asked_models(&self) -> bool {
        self.ballots.iter().any(|named| named.model.is_some())
    }
}
