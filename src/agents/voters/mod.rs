//! The six rules voters of the trading decision (domain §6.1): one snapshot and one regime to one ballot.
//!
//! A rules voter is a fixed strategy over the primary frame's last closed candle. It never guesses: an indicator it
//! needs and does not have makes it abstain, also when its rule could have been answered without.

pub mod levels;
pub mod strategies;

use crate::{
    model::{Action, Ballot, Indicators, Price, Score, SymbolRules, Vote},
    settings::{RegimeSettings, RulesSettings, Strategy},
};

use super::{
    contract::Refusal,
    vote::{self, INCOHERENT},
};
use levels::{StopLimits, levels};
use strategies::Opinion;

/// What every rules voter looks at.
#[derive(Clone, Copy, Debug)]
pub struct VoterInputs<'a> {
    /// Snapshot price: the entry of every vote.
    pub price: Price,
    /// Close of the primary frame's last closed candle.
    pub close: f64,
    /// Indicators at that candle.
    pub indicators: &'a Indicators,
    /// Parameters of the regime in force (`unknown` when no fresh one exists).
    pub regime: &'a RegimeSettings,
    /// How near and how far a stop may be.
    pub limits: StopLimits,
    /// Rounding of prices.
    pub rules: &'a SymbolRules,
    /// Size and ADX limits of the rules voters.
    pub settings: &'a RulesSettings,
}

/// Asks one strategy. The ballot is already checked for coherence.
pub fn ask(strategy: Strategy, inputs: &VoterInputs) -> Ballot {
    match strategies::opinion(strategy, inputs) {
        Ok(Some(opinion)) => enter(&opinion, inputs),
        Ok(None) => Ballot::Vote(hold()),
        Err(Refusal::Abstain(reason) | Refusal::NoVotes(reason, _)) => Ballot::Abstain(reason.into_owned()),
        Err(Refusal::Failed(cause)) => Ballot::Failed(cause.message),
    }
}

/// "Do nothing", said by a voter that has all it needs and sees no reason to act.
fn hold() -> Vote {
    Vote {
        action: Action::Hold,
        confidence: Score(5_000),
        levels: None,
        position_size_pct: Score::ZERO,
        reasoning: String::new(),
    }
}

fn enter(opinion: &Opinion, inputs: &VoterInputs) -> Ballot {
    let Some(levels) = levels(opinion.action, opinion.width, inputs) else {
        return Ballot::Failed(INCOHERENT.to_owned());
    };
    let vote = Vote {
        action: opinion.action,
        confidence: Score::from_f64((0.50 + 0.25 * opinion.strength + opinion.bonus).clamp(0.50, 0.90)),
        levels: Some(levels),
        position_size_pct: Score::from_f64(inputs.settings.size_pct * (0.5 + 0.5 * opinion.strength)),
        reasoning: opinion.why.to_owned(),
    };
    vote::checked(Ballot::Vote(vote))
}

#[cfg(test)]
#[path = "voters_tests.rs"]
mod tests;
