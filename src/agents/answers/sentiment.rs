//! A sentiment provider's answer (domain §4.3). Its events and narratives are text from outside and stay data.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{at_most, extract, format_of, rejected, short, within};
use crate::{
    llm::question::{AnswerFormat, FailureKind, Rejected},
    model::{Asset, Score, SentimentBias},
};

#[derive(Deserialize, JsonSchema, Debug)]
struct SentimentAnswer {
    #[serde(deserialize_with = "extract::word")]
    bias: SentimentBias,
    #[schemars(range(min = -1.0, max = 1.0))]
    score: f64,
    #[schemars(range(min = 0.0, max = 1.0))]
    confidence: f64,
    #[schemars(length(max = 5))]
    events: Vec<EventAnswer>,
    #[schemars(length(max = 3))]
    narratives: Vec<String>,
    /// The asset asked about.
    asset: Option<String>,
}

#[derive(Deserialize, JsonSchema, Debug)]
struct EventAnswer {
    #[schemars(length(max = 200))]
    event: String,
    #[serde(deserialize_with = "extract::word")]
    impact: Impact,
    #[serde(deserialize_with = "extract::word")]
    significance: Significance,
    #[schemars(length(max = 100))]
    source: String,
}

/// Which way an event pushes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Impact {
    Positive,
    Negative,
    Neutral,
}

/// How much an event matters, least first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Significance {
    Low,
    Medium,
    High,
}

/// One event reported.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyEvent {
    /// What happened, untrusted text.
    pub event: String,
    /// Which way it pushes.
    pub impact: Impact,
    /// How much it matters.
    pub significance: Significance,
    /// Who says so, untrusted text.
    pub source: String,
}

/// A valid answer of one provider.
#[derive(Clone, PartialEq, Debug)]
pub struct Mood {
    /// The provider's own word.
    pub bias: SentimentBias,
    /// −1..1
    pub score: Score,
    /// 0..1
    pub confidence: Score,
    /// At most 5.
    pub events: Vec<KeyEvent>,
    /// At most 3, untrusted text.
    pub narratives: Vec<String>,
}

/// The form asked for.
pub fn format() -> AnswerFormat {
    format_of::<SentimentAnswer>("sentiment_analysis")
}

/// Reads a mood of `asset`; its name is compared whole, in small or capital letters.
///
/// # Errors
/// Everything that is not one valid answer about this asset, with its kind.
pub fn parse(text: &str, asset: &Asset) -> Result<Mood, Rejected> {
    let answer: SentimentAnswer = extract::read(text)?;
    if let Some(named) = answer.asset.as_deref().filter(|named| !named.trim().eq_ignore_ascii_case(asset.as_str())) {
        let named: String = named.chars().take(40).collect();
        return Err(rejected(FailureKind::Ungrounded, format!("asked about {asset}, answered on `{named}`")));
    }
    at_most("events", answer.events.len(), 5)?;
    at_most("narratives", answer.narratives.len(), 3)?;
    let event = |event: &EventAnswer| {
        Ok(KeyEvent {
            event: short("events.event", &event.event, 200)?,
            impact: event.impact,
            significance: event.significance,
            source: short("events.source", &event.source, 100)?,
        })
    };
    Ok(Mood {
        bias: answer.bias,
        score: within("score", answer.score, -1.0, 1.0)?,
        confidence: within("confidence", answer.confidence, 0.0, 1.0)?,
        events: answer.events.iter().map(event).collect::<Result<_, Rejected>>()?,
        narratives: answer.narratives.iter().map(|text| short("narratives", text, 200)).collect::<Result<_, _>>()?,
    })
}
