//! The trading decision: asks every enabled voter on the same inputs and turns the vote into a signal (domain §6).
//!
//! Never judges whether the signal may be traded: that is the decision pipeline's and risk's.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    contract::{Answer, NO_VOTES, Refusal, RunContext, usable},
    model_voter::Reply,
    poll::Poll,
    vote::{self, Outcome},
    voters::{self, VoterInputs, levels::StopLimits},
};
use crate::{
    model::{
        Ballot, FailClass, NamedBallot, Position, PositionSide, Regime, RegimeOutput, SentimentOutput, Signal,
        Snapshot, SymbolRules, TaOutput, TaskName, Ts, VoteClass,
    },
    settings::{RegimeSettings, StopSettings, Strategy, TradingDecisionSettings, VoterKind},
};

/// What every voter is shown: accepted, fresh outputs of the same symbol, and the own position in it.
#[derive(Clone, Copy, Debug)]
pub struct DecisionInputs<'a> {
    /// Market state.
    pub snapshot: &'a Snapshot,
    /// Technical opinion, when fresh.
    pub ta: Option<&'a TaOutput>,
    /// Regime, when fresh; without one the parameters of `unknown` apply.
    pub regime: Option<&'a RegimeOutput>,
    /// Mood, when fresh.
    pub sentiment: Option<&'a SentimentOutput>,
    /// The open position in the symbol. Rules voters judge the market alone; it is part of the record.
    pub position: Option<&'a Position>,
}

/// The settings a decision is made by.
#[derive(Clone, Copy, Debug)]
pub struct DecisionRules<'a> {
    /// Voters, quorum and boost.
    pub decision: &'a TradingDecisionSettings,
    /// Parameters by regime.
    pub regimes: &'a BTreeMap<Regime, RegimeSettings>,
    /// Stop limits of risk, which voters keep within.
    pub stop: &'a StopSettings,
    /// Rounding of prices.
    pub symbol: &'a SymbolRules,
}

/// Asks the voters and counts.
///
/// Abstains `data_stale` on an unusable snapshot; without any valid vote there are only the ballots, with the one reason
/// all voters gave (`insufficient_data` before warm-up, A076), else `no_votes` and the reasons. Fails when no voter is
/// enabled, when parameters of the regime are missing, or when an input is of another symbol.
pub fn decide(ctx: &RunContext, inputs: &DecisionInputs, rules: &DecisionRules) -> Answer<Signal> {
    decide_with(ctx, inputs, rules, &[])
}

/// As [`decide`], with the replies of model voters counted after the rules voters: a silent or late one has failed.
pub fn decide_with(
    ctx: &RunContext,
    inputs: &DecisionInputs,
    rules: &DecisionRules,
    models: &[Reply],
) -> Answer<Signal> {
    let answered = models.iter().filter_map(|reply| Some(reply.ballot.as_ref()?.1));
    let now = answered.fold(ctx.now, Ts::max);
    signal(ctx, now, inputs, rules, models).into()
}

/// Whether the inputs are fit to be voted on; if not, [`decide`] says why, and no model needs to be asked.
pub fn is_ready(ctx: &RunContext, inputs: &DecisionInputs) -> bool {
    usable(ctx, inputs.snapshot).is_ok() && same_symbol(ctx, inputs).is_ok()
}

/// `ctx.now` is when the rules voters answered, `now` when the last of all did.
fn signal(
    ctx: &RunContext,
    now: Ts,
    inputs: &DecisionInputs,
    rules: &DecisionRules,
    models: &[Reply],
) -> Result<Signal, Refusal> {
    let (view, price) = usable(ctx, inputs.snapshot)?;
    same_symbol(ctx, inputs)?;
    let regime = inputs.regime.map_or(Regime::Unknown, |output| output.regime);
    let Some(parameters) = rules.regimes.get(&regime) else {
        let message = format!("there are no parameters for the regime {regime}; set regimes.{regime}");
        return Err(Refusal::failed(FailClass::Configuration, message));
    };
    let enabled = rules.decision.voters.iter().filter(|voter| voter.enabled && voter.kind == VoterKind::Rules);
    let enabled: Vec<(&str, Strategy)> = enabled.filter_map(|v| Some((v.name.as_str(), v.strategy?))).collect();
    if enabled.is_empty() && models.is_empty() {
        let message = "no voter is enabled; set agents.trading_decision.voters";
        return Err(Refusal::failed(FailClass::Configuration, message));
    }

    let shown = VoterInputs {
        price,
        close: view.last.close,
        indicators: &view.indicators,
        regime: parameters,
        limits: StopLimits::of(rules.stop, ctx.symbol),
        rules: rules.symbol,
        settings: &rules.decision.rules,
    };
    let timeout_ms = i64::from(rules.decision.poll_timeout_seconds) * 1_000;
    let names = enabled.iter().map(|(name, _)| Arc::from(*name));
    let names = names.chain(models.iter().map(|reply| Arc::clone(&reply.voter)));
    let mut poll = Poll::open(names, ctx.started_at, timeout_ms);
    for (name, strategy) in &enabled {
        poll.record(name, voters::ask(*strategy, &shown), ctx.now);
    }
    for reply in models {
        if let Some((ballot, at)) = &reply.ballot {
            poll.record(&reply.voter, ballot.clone(), *at);
        }
    }
    let mut ballots = poll.close();
    for reply in models {
        if let Some(named) = ballots.iter_mut().find(|named| named.voter == reply.voter) {
            named.model.clone_from(&reply.call);
        }
    }
    let Some(outcome) = vote::decide(&ballots, rules.decision.quorum, &rules.decision.boost) else {
        return Err(Refusal::NoVotes(no_votes(&ballots).into(), ballots));
    };
    Ok(Signal {
        head: RunContext { now, ..ctx.clone() }.head(
            TaskName::TradingDecision,
            outcome.confidence,
            reasoning(&outcome, &ballots, inputs.position),
        ),
        action: outcome.action,
        levels: outcome.levels,
        position_size_pct: outcome.position_size_pct,
        leverage: 1,
        voters_asked: outcome.asked,
        voters_valid: outcome.valid,
        vote_class: outcome.class,
        ballots,
        price,
        ta_run: inputs.ta.map(|output| output.head.run_id),
        regime_run: inputs.regime.map(|output| output.head.run_id),
        sentiment_run: inputs.sentiment.map(|output| output.head.run_id),
    })
}

/// An opinion of another symbol is never shown to a voter (D29).
fn same_symbol(ctx: &RunContext, inputs: &DecisionInputs) -> Result<(), Refusal> {
    let heads = [
        inputs.ta.map(|output| output.head.symbol),
        inputs.regime.map(|output| output.head.symbol),
        inputs.sentiment.map(|output| output.head.symbol),
        inputs.position.map(|position| position.symbol),
    ];
    match heads.into_iter().flatten().find(|symbol| *symbol != ctx.symbol) {
        Some(other) => {
            let message = format!("the decision is on {} but an input is of {other}", ctx.symbol);
            Err(Refusal::failed(FailClass::Validation, message))
        }
        None => Ok(()),
    }
}

/// The one reason everybody gave, or `no_votes` with all reasons in alphabetical order.
fn no_votes(ballots: &[NamedBallot]) -> String {
    let mut reasons: Vec<&str> = ballots
        .iter()
        .filter_map(|named| match &named.ballot {
            Ballot::Vote(_) => None,
            Ballot::Abstain(reason) | Ballot::Failed(reason) => Some(reason.as_str()),
        })
        .collect();
    reasons.sort_unstable();
    reasons.dedup();
    match reasons.as_slice() {
        [only] if ballots.iter().all(|named| matches!(named.ballot, Ballot::Abstain(_))) => (*only).to_owned(),
        _ => format!("{NO_VOTES}: {}", reasons.join(", ")),
    }
}

fn reasoning(outcome: &Outcome, ballots: &[NamedBallot], position: Option<&Position>) -> String {
    let Outcome { action, asked, valid, .. } = outcome;
    let agree =
        ballots.iter().filter(|named| matches!(&named.ballot, Ballot::Vote(vote) if vote.action == *action)).count();
    let how = match outcome.class {
        VoteClass::Unanimous => "unanimous",
        VoteClass::StrongMajority => "strong majority",
        VoteClass::Majority => "majority",
        VoteClass::Split => "split",
        VoteClass::InsufficientQuorum => "fewer valid votes than the quorum",
        VoteClass::NoMajority => "no action has a majority",
        VoteClass::Incoherent => "the winners' levels do not fit together",
    };
    let held = match position.map(|position| position.side) {
        None => "no position",
        Some(PositionSide::Long) => "long",
        Some(PositionSide::Short) => "short",
    };
    format!("{action}: {agree} of {asked} asked, {valid} valid, {how}; {held}")
}

#[cfg(test)]
#[path = "trading_decision_tests.rs"]
mod tests;
