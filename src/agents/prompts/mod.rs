//! Prompts: versioned templates and the data they carry. The same inputs give the same bytes.
//!
//! The system part is ours alone. The user part is one JSON document, so no text in it can end its field; text from
//! outside stands in `untrusted` fields of limited length.

pub mod data;

use serde_json::Value;

use crate::llm::question::{AnswerFormat, Prompt};

/// A template with its version; the version changes with every change of its text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Template {
    /// `name@version`.
    pub name: &'static str,
    text: &'static str,
}

macro_rules! template {
    ($(#[$meta:meta])* $constant:ident, $file:literal, $version:literal) => {
        $(#[$meta])*
        pub const $constant: Template = Template {
            name: concat!($file, "@", $version),
            text: include_str!(concat!("../../../config/prompts/", $file, ".md")),
        };
    };
}

template!(
    /// For a voter.
    TRADING_DECISION, "trading_decision", "1"
);
template!(
    /// For the technical analyst.
    TECHNICAL_ANALYSIS, "technical_analysis", "1"
);
template!(
    /// For the regime detector.
    REGIME_DETECTION, "regime_detection", "1"
);
template!(
    /// For the sentiment reader.
    SENTIMENT_ANALYSIS, "sentiment_analysis", "1"
);
template!(
    /// For the pace of a plan.
    PORTFOLIO_REBALANCE, "portfolio_rebalance", "1"
);
template!(
    /// For the conflict resolver.
    CONFLICT_RESOLUTION, "conflict_resolution", "1"
);

/// Every template.
pub const ALL: [Template; 6] = [
    TRADING_DECISION,
    TECHNICAL_ANALYSIS,
    REGIME_DETECTION,
    SENTIMENT_ANALYSIS,
    PORTFOLIO_REBALANCE,
    CONFLICT_RESOLUTION,
];

/// The prompt of `template` about `data`.
pub fn render(template: Template, format: &AnswerFormat, data: &Value) -> Prompt {
    Prompt {
        template: template.name.to_owned(),
        system: template.text.replace("{schema}", &format.schema.to_string()),
        user: data.to_string(),
    }
}

/// Estimate above which fewer candles are shown, tokens.
pub const TOKENS_MANY: u32 = 3_000;

/// As [`render`], with 10 candles a frame, or 5 when the prompt is estimated at more than 3000 tokens.
pub fn render_within(template: Template, format: &AnswerFormat, data: impl Fn(usize) -> Value) -> Prompt {
    let full = render(template, format, &data(10));
    if full.estimated_tokens() > TOKENS_MANY { render(template, format, &data(5)) } else { full }
}

#[cfg(test)]
#[path = "prompts_tests.rs"]
mod tests;
