//! What every agent is given and what it may answer. Never runs an agent, never judges an answer.

use std::borrow::Cow;

use crate::model::{
    FailCause, FailClass, FrameView, NamedBallot, OutputHead, Price, Quality, RunId, Score, SlotId, Snapshot, Symbol,
    TaskName, Ts,
};

/// Reason of an abstention: an indicator the rule needs has not warmed up.
pub const INSUFFICIENT_DATA: &str = "insufficient_data";
/// Reason of an abstention: price or primary frame missing or too old.
pub const DATA_STALE: &str = "data_stale";
/// Reason of an abstention: no sentiment provider is configured.
pub const NO_PROVIDER: &str = "no_provider";
/// Reason of an abstention: no voter gave a valid vote.
pub const NO_VOTES: &str = "no_votes";
/// Reason of an abstention: an asset of the portfolio has no fresh price.
pub const PRICE_MISSING: &str = "price_missing";

/// The answer of one run.
#[derive(Clone, PartialEq, Debug)]
pub enum Answer<T> {
    /// An opinion, a signal or a plan.
    Output(Box<T>),
    /// No opinion, with the reason. Distinct from "do nothing", which is an output.
    Abstain(Cow<'static, str>),
    /// As [`Answer::Abstain`], after a poll in which nobody voted: the reason and every ballot of it.
    NoVotes(Cow<'static, str>, Vec<NamedBallot>),
    /// The agent failed.
    Failed(FailCause),
}

impl<T> Answer<T> {
    /// The output, if there is one.
    pub fn output(self) -> Option<Box<T>> {
        match self {
            Answer::Output(output) => Some(output),
            Answer::Abstain(_) | Answer::NoVotes(..) | Answer::Failed(_) => None,
        }
    }
}

/// Identity and times of one run, made by the agent's actor when the run starts.
#[derive(Clone, PartialEq, Debug)]
pub struct RunContext {
    /// Which execution.
    pub run_id: RunId,
    /// Which slot.
    pub slot: SlotId,
    /// Which symbol; [`Symbol::PORTFOLIO`] for the portfolio agent.
    pub symbol: Symbol,
    /// Data time of the snapshot (portfolio: of the account view).
    pub as_of: Ts,
    /// When the run started.
    pub started_at: Ts,
    /// The logical time of the answer.
    pub now: Ts,
    /// The rules stand in for a model that failed (domain §3.3): the output is marked and gets the fallback
    /// confidence. False on the plain rules path.
    pub degraded: bool,
}

impl RunContext {
    /// The common part of this run's output.
    pub(crate) fn head(&self, agent: TaskName, confidence: Score, reasoning: impl Into<String>) -> OutputHead {
        OutputHead {
            agent,
            symbol: self.symbol,
            run_id: self.run_id,
            slot: self.slot.clone(),
            as_of: self.as_of,
            produced_at: self.now,
            confidence,
            reasoning: reasoning.into(),
            latency_ms: self.now.since_ms(self.started_at),
            path: Cow::Borrowed("rules"),
            degraded: self.degraded,
            warnings: Vec::new(),
            models: Vec::new(),
        }
    }
}

/// Why an agent has no output; becomes an [`Answer`] at the agent's border.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Refusal {
    /// See [`Answer::Abstain`].
    Abstain(Cow<'static, str>),
    /// See [`Answer::NoVotes`].
    NoVotes(Cow<'static, str>, Vec<NamedBallot>),
    /// See [`Answer::Failed`].
    Failed(FailCause),
}

impl Refusal {
    /// An abstention with a fixed reason.
    pub(crate) const fn abstain(reason: &'static str) -> Refusal {
        Refusal::Abstain(Cow::Borrowed(reason))
    }

    /// A failure that no retry mends.
    pub(crate) fn failed(class: FailClass, message: impl Into<String>) -> Refusal {
        Refusal::Failed(FailCause { class, message: message.into() })
    }
}

impl<T> From<Result<T, Refusal>> for Answer<T> {
    fn from(result: Result<T, Refusal>) -> Answer<T> {
        match result {
            Ok(output) => Answer::Output(Box::new(output)),
            Err(Refusal::Abstain(reason)) => Answer::Abstain(reason),
            Err(Refusal::NoVotes(reason, ballots)) => Answer::NoVotes(reason, ballots),
            Err(Refusal::Failed(cause)) => Answer::Failed(cause),
        }
    }
}

/// An indicator the rule needs: a value that is absent or not a number makes the agent abstain, never a made-up zero.
pub(crate) fn known(value: Option<f64>) -> Result<f64, Refusal> {
    value.filter(|v| v.is_finite()).ok_or(const { Refusal::abstain(INSUFFICIENT_DATA) })
}

/// Price and primary frame of a snapshot fit for use.
///
/// # Errors
/// Abstains `data_stale` when price or primary frame is missing or old; fails when the snapshot is of another symbol,
/// because an opinion under the wrong name would be used for the wrong symbol (D29).
pub(crate) fn usable<'a>(ctx: &RunContext, snapshot: &'a Snapshot) -> Result<(&'a FrameView, Price), Refusal> {
    if snapshot.symbol != ctx.symbol {
        let message = format!("the run is of {} but the snapshot is of {}", ctx.symbol, snapshot.symbol);
        return Err(Refusal::failed(FailClass::Validation, message));
    }
    match (snapshot.quality, snapshot.primary_view(), snapshot.price) {
        (Quality::Good, Some(view), Some(price)) if price > Price::ZERO => Ok((view, price)),
        _ => Err(Refusal::abstain(DATA_STALE)),
    }
}
