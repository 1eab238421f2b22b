//! The conflict resolver's answer (domain §10). How far it may change an entry is bounded by the coordinator's
//! `resolution`, not here.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{REASONING_MAX, extract, format_of, ground::Ground, plain, rejected, within};
use crate::{
    llm::question::{AnswerFormat, FailureKind, Rejected},
    model::{Modifications, ResolutionAction, Score},
};

#[derive(Deserialize, JsonSchema, Debug)]
struct ResolutionAnswer {
    #[serde(deserialize_with = "extract::word")]
    action: ResolutionAction,
    #[schemars(range(min = 0.0, max = 1.0))]
    confidence: f64,
    /// At most 200 characters.
    reasoning: String,
    /// Required for modify, forbidden otherwise.
    modifications: Option<Changes>,
    /// The symbol asked about.
    symbol: Option<String>,
}

#[derive(Deserialize, JsonSchema, Debug)]
struct Changes {
    #[schemars(range(min = 1, max = 100))]
    leverage: Option<u32>,
    #[schemars(range(min = 0.0, max = 100.0))]
    size_reduction_pct: Option<f64>,
    #[schemars(range(min = -100.0, max = 100.0))]
    entry_adjustment_pct: Option<f64>,
}

/// A valid answer, not bounded yet.
#[derive(Clone, PartialEq, Debug)]
pub struct Settled {
    /// What to do.
    pub action: ResolutionAction,
    /// 0..1
    pub confidence: Score,
    /// Present for modify and for nothing else.
    pub modifications: Option<Modifications>,
    /// For people.
    pub reasoning: String,
}

/// The form asked for.
pub fn format() -> AnswerFormat {
    format_of::<ResolutionAnswer>("conflict_resolution")
}

/// Reads a resolution.
///
/// # Errors
/// Everything that is not one valid answer, with its kind.
pub fn parse(text: &str, ground: &Ground) -> Result<Settled, Rejected> {
    let answer: ResolutionAnswer = extract::read(text)?;
    ground.symbol(answer.symbol.as_deref(), &[&answer.reasoning])?;
    let confidence = within("confidence", answer.confidence, 0.0, 1.0)?;
    if (answer.action == ResolutionAction::Modify) != answer.modifications.is_some() {
        return Err(rejected(FailureKind::Incoherent, "modifications belong to `modify` and to nothing else"));
    }
    let percent = |field, value: Option<f64>, low| value.map(|value| within(field, value, low, 100.0)).transpose();
    let changes = |changes: Changes| -> Result<Modifications, Rejected> {
        if changes.leverage.is_some_and(|leverage| !(1..=100).contains(&leverage)) {
            return Err(rejected(FailureKind::OutOfRange, "leverage must be 1..100"));
        }
        Ok(Modifications {
            leverage: changes.leverage,
            size_reduction_pct: percent("size_reduction_pct", changes.size_reduction_pct, 0.0)?,
            entry_adjustment_pct: percent("entry_adjustment_pct", changes.entry_adjustment_pct, -100.0)?,
        })
    };
    Ok(Settled {
        action: answer.action,
        confidence,
        modifications: answer.modifications.map(changes).transpose()?,
        reasoning: plain(&answer.reasoning, REASONING_MAX),
    })
}
