//! A model voter's answer (domain §6.1).

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{REASONING_MAX, extract, format_of, ground::Ground, plain, rejected, within};
use crate::{
    agents::vote::is_coherent,
    llm::question::{AnswerFormat, FailureKind, Rejected},
    model::{Action, Levels, Score, Vote},
};

/// What a voter must answer.
#[derive(Deserialize, JsonSchema, Debug)]
pub struct VoteAnswer {
    /// What to do now.
    #[serde(deserialize_with = "extract::word")]
    action: Action,
    /// How sure.
    #[schemars(range(min = 0.0, max = 1.0))]
    confidence: f64,
    /// Entry price; required for BUY and SELL.
    entry: Option<f64>,
    /// Stop price on the losing side; required for BUY and SELL.
    stop: Option<f64>,
    /// Target price on the winning side; required for BUY and SELL.
    target: Option<f64>,
    /// Percent of equity; required for BUY and SELL.
    #[schemars(range(min = 1.0, max = 100.0))]
    position_size_pct: Option<f64>,
    /// At most 200 characters.
    reasoning: String,
    /// The symbol asked about.
    symbol: Option<String>,
    /// Indicator values relied on, by the names given.
    #[serde(default)]
    indicators: BTreeMap<String, f64>,
}

/// The form asked for.
pub fn format() -> AnswerFormat {
    format_of::<VoteAnswer>("trading_decision")
}

/// Reads a vote.
///
/// # Errors
/// Everything that is not one valid, grounded and coherent vote, with its kind.
pub fn parse(text: &str, ground: &Ground) -> Result<Vote, Rejected> {
    let answer: VoteAnswer = extract::read(text)?;
    let confidence = within("confidence", answer.confidence, 0.0, 1.0)?;
    ground.symbol(answer.symbol.as_deref(), &[&answer.reasoning])?;
    ground.indicators(&answer.indicators)?;
    let price = |field, stated: Option<f64>| stated.map(|stated| ground.price(field, stated)).transpose();
    let entry = price("entry", answer.entry)?;
    let stop = price("stop", answer.stop)?;
    let target = price("target", answer.target)?;
    let size = answer.position_size_pct;
    let enters = matches!(answer.action, Action::Buy | Action::Sell);
    let (levels, position_size_pct) = if enters {
        let (Some(entry), Some(stop), Some(target)) = (entry, stop, target) else {
            return Err(rejected(FailureKind::Incoherent, "BUY and SELL need entry, stop and target"));
        };
        let Some(size) = size else {
            return Err(rejected(FailureKind::Unparsable, "missing field `position_size_pct`"));
        };
        (Some(Levels { entry, stop, target }), within("position_size_pct", size, 1.0, 100.0)?)
    } else {
        let size = size.map(|size| within("position_size_pct", size, 0.0, 100.0)).transpose()?;
        (None, size.unwrap_or(Score::ZERO))
    };
    if !is_coherent(answer.action, levels.as_ref()) {
        return Err(rejected(FailureKind::Incoherent, "stop and target do not fit the action, or reward:risk < 1.5"));
    }
    let reasoning = plain(&answer.reasoning, REASONING_MAX);
    Ok(Vote { action: answer.action, confidence, levels, position_size_pct, reasoning })
}
