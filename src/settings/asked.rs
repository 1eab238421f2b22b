//! Who asks whom: the chains and providers of models behind each task.

use std::collections::{BTreeMap, BTreeSet};

use super::{Settings, VoterKind};
use crate::model::TaskName;

impl Settings {
    /// The chains a run of the task asks, by their names, each as often as it is asked; none for a task by rules.
    pub fn chains_of(&self, task: TaskName) -> Vec<&str> {
        let agents = &self.agents;
        let voters = || {
            let models = agents.trading_decision.voters.iter().filter(|v| v.enabled && v.kind == VoterKind::Model);
            models.filter_map(|voter| voter.chain.as_deref()).collect()
        };
        let chains = match task {
            TaskName::TechnicalAnalysis => vec![agents.technical_analysis.chain.as_str()],
            TaskName::RegimeDetection => vec![agents.regime_detection.chain.as_str()],
            TaskName::SentimentAnalysis => {
                vec![agents.sentiment_analysis.social.as_str(), agents.sentiment_analysis.news.as_str()]
            }
            TaskName::PortfolioRebalance => vec![agents.portfolio_rebalance.chain.as_str()],
            TaskName::TradingDecision => voters(),
        };
        chains.into_iter().filter(|chain| !chain.is_empty()).collect()
    }

    /// The providers a run of each task asks first, one per chain; tasks by rules are left out.
    pub fn providers_by_task(&self) -> BTreeMap<TaskName, BTreeSet<String>> {
        let first = |chain: &str| self.chains.get(chain)?.first()?.split_once('/');
        let of = |task| self.chains_of(task).into_iter().filter_map(first).map(|(name, _)| name.to_owned()).collect();
        let all = TaskName::ALL.iter().map(|task| (*task, of(*task)));
        all.filter(|(_, names): &(TaskName, BTreeSet<String>)| !names.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_provider_of_each_chain_is_asked_and_rules_ask_nobody() {
        assert_eq!(Settings::defaults().providers_by_task(), BTreeMap::new());
        let mut settings = Settings::defaults();
        settings.chains = [("slow", vec!["a/m", "b/m"]), ("fast", vec!["b/m"])]
            .map(|(name, entries)| (name.to_owned(), entries.into_iter().map(str::to_owned).collect()))
            .into();
        settings.agents.regime_detection.chain = "slow".to_owned();
        settings.agents.sentiment_analysis.news = "fast".to_owned();
        let mut voter = settings.agents.trading_decision.voters[0].clone();
        (voter.kind, voter.chain) = (VoterKind::Model, Some("fast".to_owned()));
        let asleep = crate::settings::VoterSettings { chain: Some("slow".to_owned()), enabled: false, ..voter.clone() };
        settings.agents.trading_decision.voters.extend([voter, asleep]);
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<String>>();
        let expected = BTreeMap::from([
            (TaskName::RegimeDetection, names(&["a"])),
            (TaskName::SentimentAnalysis, names(&["b"])),
            (TaskName::TradingDecision, names(&["b"])),
        ]);
        assert_eq!(settings.providers_by_task(), expected);
    }
}
