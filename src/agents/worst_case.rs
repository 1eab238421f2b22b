//! What a run of each agent may cost at worst at its models: the longest prompt it sends and the longest answer it takes.

use super::{
    answers,
    prompts::{self, BYTES_MANY},
};
use crate::{
    llm::{
        budget,
        payable::{self, Asked},
        rations::{Call, WorstCases},
    },
    model::TaskName,
    settings::Settings,
};

/// Limits of the budget that are too small for one call, with what to do; empty when nobody asks models.
pub fn warnings(settings: &Settings) -> Vec<String> {
    let cases = of(settings);
    let entries = settings.chains.get(&settings.conflicts.chain).into_iter().flatten();
    let format = answers::resolution::format();
    let conflicts: Vec<Call> = entries
        .filter_map(|entry| Call::of(settings, entry, |model| budget::usage_of(model, BYTES_MANY, &format)))
        .collect();
    let of_tasks = cases.calls().map(|(task, call)| Asked { who: task.name(), task, call });
    let of_conflicts = conflicts.iter().map(|call| Asked { who: "conflicts", task: TaskName::TradingDecision, call });
    payable::warnings(settings, &cases, &of_tasks.chain(of_conflicts).collect::<Vec<_>>())
}

/// The worst cases of all agents that ask models; nothing is computed when nobody does.
pub fn of(settings: &Settings) -> WorstCases {
    WorstCases::new(settings, |task, model| {
        let (format, bytes) = match task {
            // Its prompt is known but for the name of the asset.
            TaskName::SentimentAnalysis => {
                let format = answers::sentiment::format();
                let data = serde_json::json!({ "asset": "ASSETNAME", "source": "social media" });
                let bytes = prompts::render(prompts::SENTIMENT_ANALYSIS, &format, &data).bytes();
                (format, bytes)
            }
            TaskName::TechnicalAnalysis => (answers::technical::format(), BYTES_MANY),
            TaskName::RegimeDetection => (answers::regime::format(), BYTES_MANY),
            TaskName::PortfolioRebalance => (answers::portfolio::format(), BYTES_MANY),
            TaskName::TradingDecision => (answers::vote::format(), BYTES_MANY),
        };
        budget::usage_of(model, bytes, &format)
    })
}
