//! The technical analyst's answer (domain §4.1). Which frames agree with the bias is counted, not asked.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{REASONING_MAX, at_most, extract, format_of, ground::Ground, plain, short, within};
use crate::{
    llm::question::{AnswerFormat, Rejected},
    model::{Bias, LevelPosition, MacdSignal, Price, RsiSignal, Score},
};

/// Most support or resistance levels.
const LEVELS_MAX: usize = 5;

#[derive(Deserialize, JsonSchema, Debug)]
struct TechnicalAnswer {
    #[serde(deserialize_with = "extract::word")]
    bias: Bias,
    #[schemars(range(min = 0.0, max = 1.0))]
    trend_strength: f64,
    #[schemars(range(min = -1.0, max = 1.0))]
    momentum_score: f64,
    #[serde(deserialize_with = "extract::word")]
    rsi_signal: RsiSignal,
    #[serde(deserialize_with = "extract::word")]
    macd_signal: MacdSignal,
    #[schemars(length(max = 5))]
    support_levels: Vec<f64>,
    #[schemars(length(max = 5))]
    resistance_levels: Vec<f64>,
    #[serde(deserialize_with = "extract::word")]
    current_position: LevelPosition,
    #[schemars(length(max = 200))]
    primary_signal: String,
    #[schemars(range(min = 0.0, max = 1.0))]
    confidence: f64,
    /// At most 200 characters.
    reasoning: String,
    /// The symbol asked about.
    symbol: Option<String>,
    /// Indicator values relied on, by the names given.
    #[serde(default)]
    indicators: BTreeMap<String, f64>,
}

/// A valid answer.
#[derive(Clone, PartialEq, Debug)]
#[allow(missing_docs)] // the fields of `TaOutput` by the same names
pub struct Technical {
    pub bias: Bias,
    pub trend_strength: Score,
    pub momentum_score: Score,
    pub rsi_signal: RsiSignal,
    pub macd_signal: MacdSignal,
    pub support_levels: Vec<Price>,
    pub resistance_levels: Vec<Price>,
    pub current_position: LevelPosition,
    pub primary_signal: String,
    pub confidence: Score,
    pub reasoning: String,
}

/// The form asked for.
pub fn format() -> AnswerFormat {
    format_of::<TechnicalAnswer>("technical_analysis")
}

/// Reads an opinion.
///
/// # Errors
/// Everything that is not one valid and grounded answer, with its kind.
pub fn parse(text: &str, ground: &Ground) -> Result<Technical, Rejected> {
    let answer: TechnicalAnswer = extract::read(text)?;
    ground.symbol(answer.symbol.as_deref(), &[&answer.reasoning, &answer.primary_signal])?;
    ground.indicators(&answer.indicators)?;
    let levels = |field: &str, stated: Vec<f64>| -> Result<Vec<Price>, Rejected> {
        at_most(field, stated.len(), LEVELS_MAX)?;
        stated.into_iter().map(|level| ground.price(field, level)).collect()
    };
    Ok(Technical {
        bias: answer.bias,
        trend_strength: within("trend_strength", answer.trend_strength, 0.0, 1.0)?,
        momentum_score: within("momentum_score", answer.momentum_score, -1.0, 1.0)?,
        rsi_signal: answer.rsi_signal,
        macd_signal: answer.macd_signal,
        support_levels: levels("support_levels", answer.support_levels)?,
        resistance_levels: levels("resistance_levels", answer.resistance_levels)?,
        current_position: answer.current_position,
        primary_signal: short("primary_signal", &answer.primary_signal, 200)?,
        confidence: within("confidence", answer.confidence, 0.0, 1.0)?,
        reasoning: plain(&answer.reasoning, REASONING_MAX),
    })
}
