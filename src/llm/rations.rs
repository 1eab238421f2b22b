//! Which model work goes first when a day's money runs short (scheduling §6). Pure; the ledger comes in as a value.
//!
//! Work is ranked by its worth. A question is refused as soon as paying its worst case would leave too little for one
//! run of each kind of work that is worth more; so sentiment stops before the pace of plans, regimes before technical
//! opinions, and all opinions before decisions.

use std::collections::BTreeMap;

use super::{
    budget::{self, Exhausted, Verdict},
    question::Payer,
    wire::Usage,
};
use crate::{
    model::{DecisionId, Money, TaskName, TaskSet, spending::ModelSpending},
    settings::{ModelSettings, Settings},
};

/// All work, least valuable first.
pub const BY_WORTH: [TaskName; 5] = [
    TaskName::SentimentAnalysis,
    TaskName::PortfolioRebalance,
    TaskName::RegimeDetection,
    TaskName::TechnicalAnalysis,
    TaskName::TradingDecision,
];

/// What one run of each task that asks models may cost at worst.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct WorstCases(BTreeMap<TaskName, Vec<Chain>>);

/// One call of each model of a chain.
type Chain = Vec<Call>;

/// One call at its worst.
#[derive(Clone, PartialEq, Debug)]
pub struct Call {
    /// Of the settings.
    pub provider: String,
    /// Of the provider.
    pub model: String,
    /// Tokens.
    pub usage: Usage,
    /// USD.
    pub cost: Money,
}

impl Call {
    /// Of an entry `provider/model` of a chain; none for one that is not configured.
    pub fn of(settings: &Settings, entry: &str, usage: impl Fn(&ModelSettings) -> Usage) -> Option<Call> {
        let (provider, name) = entry.split_once('/')?;
        let model = settings.providers.get(provider)?.models.get(name)?;
        let usage = usage(model);
        let cost = budget::price(model, usage);
        Some(Call { provider: provider.to_owned(), model: name.to_owned(), usage, cost })
    }
}

/// Who pays, and what must be left when he has paid.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Share {
    /// Whose work it is.
    pub task: TaskName,
    /// One decision's worst case, USD.
    pub decisions: Money,
    /// One run of each opinion that is worth more, USD.
    pub opinions: Money,
}

impl WorstCases {
    /// Of the tasks that are enabled and ask models; `usage` is the worst one of a task's call at a model.
    pub fn new(settings: &Settings, usage: impl Fn(TaskName, &ModelSettings) -> Usage) -> WorstCases {
        let priced = |task: TaskName, entry: &str| Call::of(settings, entry, |model| usage(task, model));
        let chain = |task, name: &str| -> Chain {
            let entries = settings.chains.get(name).into_iter().flatten();
            entries.filter_map(|entry| priced(task, entry)).collect()
        };
        let enabled = settings.tasks.iter().filter(|(_, task)| task.enabled).map(|(name, _)| *name);
        let of = |task| settings.chains_of(task).into_iter().map(|name| chain(task, name)).collect();
        let all = enabled.map(|task| (task, of(task)));
        WorstCases(all.filter(|(_, chains): &(TaskName, Vec<Chain>)| !chains.is_empty()).collect())
    }

    /// Nobody asks models.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Every call of every task, in the order of the tasks and their chains.
    pub fn calls(&self) -> impl Iterator<Item = (TaskName, &Call)> {
        self.0.iter().flat_map(|(task, chains)| chains.iter().flatten().map(|call| (*task, call)))
    }

    /// One run of a task, each of its chains at its dearest model, USD.
    fn run(&self, task: TaskName) -> Money {
        let dearest = |chain: &Chain| chain.iter().map(|call| call.cost).max().unwrap_or_default();
        self.0.get(&task).into_iter().flatten().map(dearest).sum()
    }

    /// The share of one task: `per_decision` bounds what a decision can cost.
    pub fn share(&self, task: TaskName, per_decision: Money) -> Share {
        let better = BY_WORTH.into_iter().skip_while(|known| *known != task).skip(1);
        let (mut decisions, mut opinions) = (Money::ZERO, Money::ZERO);
        for other in better {
            match other {
                TaskName::TradingDecision => decisions = self.run(other).min(per_decision),
                _ => opinions += self.run(other),
            }
        }
        Share { task, decisions, opinions }
    }

    /// Why no model of a task can be paid; none while one can, and for tasks that ask nobody. `ledger` stands on the day.
    pub fn refusal(&self, task: TaskName, ledger: &ModelSpending, settings: &Settings) -> Option<Exhausted> {
        let (money, share) = (&settings.budget, self.share(task, settings.budget.per_decision_usd));
        let payer = match task {
            // A decision that has not begun has spent nothing.
            TaskName::TradingDecision => Payer::Decision(DecisionId::default()),
            _ => Payer::Opinion,
        };
        let mut first = None;
        for Call { provider, cost, .. } in self.0.get(&task)?.iter().flatten() {
            let limit = settings.providers.get(provider).and_then(|known| known.daily_usd);
            let amount = budget::held(ledger, provider, *cost);
            match budget::judge(ledger, money, (provider, limit), &payer, &share, amount) {
                Verdict::Refuse(exhausted) => _ = first.get_or_insert(exhausted),
                Verdict::Free | Verdict::Reserve { .. } => return None,
            }
        }
        first
    }

    /// The tasks no model of which can be paid on `day`.
    pub fn unpaid(&self, ledger: &ModelSpending, day: i64, settings: &Settings) -> TaskSet {
        let empty = ModelSpending::default();
        let ledger = if ledger.day < day { &empty } else { ledger };
        self.0.keys().filter(|task| self.refusal(**task, ledger, settings).is_some()).copied().collect()
    }
}

#[cfg(test)]
#[path = "rations_tests.rs"]
pub(super) mod tests;
