//! The allocator's answer: when to carry out a plan the rules have made. What is traded is never the model's.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{REASONING_MAX, extract, format_of, plain, within};
use crate::{
    llm::question::{AnswerFormat, Rejected},
    model::Score,
};

/// The only choices there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Pace {
    /// All of it now.
    Immediate,
    /// In the configured batches.
    Dca,
    /// Not now; the next slot asks again.
    Defer,
}

/// Fields of no meaning are no harm elsewhere. Here an answer that also names pairs or amounts has answered another
/// question, so that its pace is no choice of one for the rules' plan.
#[derive(Deserialize, JsonSchema, Debug)]
#[serde(deny_unknown_fields)]
struct PortfolioAnswer {
    #[serde(deserialize_with = "extract::word")]
    execution: Pace,
    #[schemars(range(min = 0.0, max = 1.0))]
    confidence: f64,
    /// At most 200 characters.
    reasoning: String,
}

/// A valid answer.
#[derive(Clone, PartialEq, Debug)]
pub struct Strategy {
    /// When.
    pub execution: Pace,
    /// 0..1
    pub confidence: Score,
    /// For people.
    pub reasoning: String,
}

/// The form asked for.
pub fn format() -> AnswerFormat {
    format_of::<PortfolioAnswer>("portfolio_rebalance")
}

/// Reads a choice.
///
/// # Errors
/// Everything that is not one valid answer, with its kind.
pub fn parse(text: &str) -> Result<Strategy, Rejected> {
    let answer: PortfolioAnswer = extract::read(text)?;
    let confidence = within("confidence", answer.confidence, 0.0, 1.0)?;
    Ok(Strategy { execution: answer.execution, confidence, reasoning: plain(&answer.reasoning, REASONING_MAX) })
}
