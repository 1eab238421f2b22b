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

/// Estimate above which less is shown, tokens.
pub const TOKENS_MANY: u32 = 3_000;
/// The same in bytes. Text is mostly ASCII; where it is not, a character may be several tokens.
pub const BYTES_MANY: u32 = TOKENS_MANY * 7 / 2;

/// How much of what could be told is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    /// Newest candles of each frame.
    pub candles: usize,
    /// Pieces of news, conflicts or legs: whatever comes as a list of unknown length.
    pub entries: usize,
    /// Characters of each text from outside.
    pub text: usize,
}

/// From everything to the least: fewer candles first, then shorter texts, then fewer entries, then none.
pub const ROOMS: [Room; 6] = [
    Room { candles: 10, entries: 60, text: data::UNTRUSTED_MAX },
    Room { candles: 5, entries: 60, text: data::UNTRUSTED_MAX },
    Room { candles: 1, entries: 60, text: data::UNTRUSTED_MAX },
    Room { candles: 1, entries: 10, text: 200 },
    Room { candles: 1, entries: 4, text: 60 },
    Room { candles: 1, entries: 0, text: 20 },
];

/// As [`render`], with as much as stays within [`TOKENS_MANY`] and [`BYTES_MANY`]; with the least there is otherwise.
pub fn render_within(template: Template, format: &AnswerFormat, data: impl Fn(Room) -> Value) -> Prompt {
    let fits = |prompt: &Prompt| prompt.estimated_tokens() <= TOKENS_MANY && prompt.bytes() <= BYTES_MANY;
    let [first, others @ ..] = ROOMS;
    let mut prompt = render(template, format, &data(first));
    for room in others {
        if fits(&prompt) {
            break;
        }
        prompt = render(template, format, &data(room));
    }
    prompt
}

#[cfg(test)]
#[path = "prompts_tests.rs"]
mod tests;
