//! The regime detector's answer (domain §4.2). It names a regime; sizes, stops and leverage are never the model's.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{REASONING_MAX, at_most, extract, format_of, ground::Ground, plain, rejected, within};
use crate::{
    llm::question::{AnswerFormat, FailureKind, Rejected},
    model::{Regime, Score},
};

#[derive(Deserialize, JsonSchema, Debug)]
struct RegimeAnswer {
    /// One of the names defined; `unknown` is no answer.
    #[serde(deserialize_with = "extract::word")]
    regime: Regime,
    #[schemars(range(min = 0.0, max = 1.0))]
    confidence: f64,
    /// The chance that each regime comes next.
    #[serde(default)]
    #[schemars(length(max = 7))]
    transitions: Vec<Transition>,
    /// At most 200 characters.
    reasoning: String,
    /// The symbol asked about.
    symbol: Option<String>,
    /// Indicator values relied on, by the names given.
    #[serde(default)]
    indicators: BTreeMap<String, f64>,
}

#[derive(Deserialize, JsonSchema, Debug)]
struct Transition {
    /// Read so that an unknown name is found; nothing is decided by it.
    #[allow(dead_code)]
    #[serde(deserialize_with = "extract::word")]
    regime: Regime,
    #[schemars(range(min = 0.0, max = 1.0))]
    chance: f64,
}

/// A valid answer.
#[derive(Clone, PartialEq, Debug)]
pub struct Detected {
    /// Never `unknown`.
    pub regime: Regime,
    /// 0..1
    pub confidence: Score,
    /// For people.
    pub reasoning: String,
}

/// The form asked for.
pub fn format() -> AnswerFormat {
    format_of::<RegimeAnswer>("regime_detection")
}

/// Reads a detection.
///
/// # Errors
/// Everything that is not one valid and grounded answer, with its kind; also the regime `unknown`.
pub fn parse(text: &str, ground: &Ground) -> Result<Detected, Rejected> {
    let answer: RegimeAnswer = extract::read(text)?;
    if answer.regime == Regime::Unknown {
        return Err(rejected(FailureKind::OutOfRange, "regime `unknown` is no detection"));
    }
    ground.symbol(answer.symbol.as_deref(), &[&answer.reasoning])?;
    ground.indicators(&answer.indicators)?;
    at_most("transitions", answer.transitions.len(), 7)?;
    for transition in &answer.transitions {
        within("transitions.chance", transition.chance, 0.0, 1.0)?;
    }
    let confidence = within("confidence", answer.confidence, 0.0, 1.0)?;
    Ok(Detected { regime: answer.regime, confidence, reasoning: plain(&answer.reasoning, REASONING_MAX) })
}
