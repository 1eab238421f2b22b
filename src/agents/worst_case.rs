//! What a run of each agent may cost at worst at its models: the longest prompt it sends and the longest answer it takes.

use super::{
    answers,
    prompts::{self, TOKENS_MANY},
};
use crate::{
    llm::{budget, rations::WorstCases},
    model::TaskName,
    settings::Settings,
};

/// The worst cases of all agents that ask models; nothing is computed when nobody does.
pub fn of(settings: &Settings) -> WorstCases {
    WorstCases::new(settings, |task, model| {
        let (format, tokens) = match task {
            // Its prompt is known but for the name of the asset.
            TaskName::SentimentAnalysis => {
                let format = answers::sentiment::format();
                let data = serde_json::json!({ "asset": "ASSETNAME", "source": "social media" });
                let tokens = prompts::render(prompts::SENTIMENT_ANALYSIS, &format, &data).estimated_tokens();
                (format, tokens)
            }
            TaskName::TechnicalAnalysis => (answers::technical::format(), TOKENS_MANY),
            TaskName::RegimeDetection => (answers::regime::format(), TOKENS_MANY),
            TaskName::PortfolioRebalance => (answers::portfolio::format(), TOKENS_MANY),
            TaskName::TradingDecision => (answers::vote::format(), TOKENS_MANY),
        };
        budget::usage_of(model, tokens, &format)
    })
}
