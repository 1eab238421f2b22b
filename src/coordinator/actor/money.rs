//! The money of the day as the coordinator sees it: whose models it pays no more, and what `status` shows of it.

use super::{
    Coordinator,
    schedule::Gates,
    status::{BudgetStatus, OpinionStatus},
};
use crate::{
    llm::budget,
    model::{
        Clock, Event, OutputHead, RunKey, SkipReason, TaskName, TaskSet,
        spending::{ModelSpending, TOLD_WARNING},
    },
};

impl Coordinator {
    /// State, level and money as the scheduler's gates see them.
    pub(super) fn gates(&self) -> Gates {
        let state = self.view.read();
        let unpaid = match self.worst_cases.is_empty() {
            true => TaskSet::default(),
            false => self.worst_cases.unpaid(&state.models, self.clock.now().day(), &self.settings),
        };
        Gates { state: state.coordinator.state, level: self.degradation.global(), unpaid }
    }

    /// A slot ended without a run.
    pub(super) fn skipped(&mut self, key: RunKey, reason: SkipReason) {
        self.last_skip.insert(key, reason);
        if reason == SkipReason::Budget {
            self.say_unpaid(key.task);
        }
    }

    /// Once a day: runs of the task are skipped because its models cannot be paid.
    fn say_unpaid(&mut self, task: TaskName) {
        let day = self.clock.now().day();
        if self.told_unpaid.insert(task, day) == Some(day) {
            return;
        }
        let ledger = self.view.read().models.on(day);
        if ledger.told.contains(task.name()) {
            return;
        }
        if let Some(refused) = self.worst_cases.refusal(task, &ledger, &self.settings) {
            let (limit, spent, of) = (task.name().to_owned(), refused.spent, refused.of);
            self.record("coordinator", vec![Event::BudgetExhausted { day, limit, spent, of }]);
        }
    }

    /// The ledger of today; none when nobody can be asked.
    pub(super) fn budget_status(&self, ledger: &ModelSpending) -> Option<BudgetStatus> {
        if self.settings.chains.is_empty() {
            return None;
        }
        let (today, money) = (ledger.on(self.clock.now().day()), &self.settings.budget);
        let unpaid = self.worst_cases.unpaid(&today, today.day, &self.settings);
        Some(BudgetStatus {
            spent_usd: today.total().normalize(),
            reserved_usd: today.reserved().normalize(),
            limit_usd: money.daily_usd,
            opinions_spent_usd: today.opinions.normalize(),
            opinions_limit_usd: budget::of_opinions(money),
            warned: today.told.contains(TOLD_WARNING),
            exhausted: today.told.iter().filter(|limit| *limit != TOLD_WARNING).cloned().collect(),
            unpaid: TaskName::ALL.into_iter().filter(|task| unpaid.contains(*task)).collect(),
        })
    }

    /// How the newest accepted opinion of a key came about; none for tasks that give none.
    pub(super) fn opinion_status(&self, key: RunKey) -> Option<OpinionStatus> {
        let (known, symbol) = (&self.opinions, &key.symbol);
        let head: &OutputHead = match key.task {
            TaskName::TechnicalAnalysis => &known.ta.get(symbol)?.head,
            TaskName::RegimeDetection => &known.regime.get(symbol)?.head,
            TaskName::SentimentAnalysis => &known.sentiment.get(symbol)?.head,
            TaskName::TradingDecision | TaskName::PortfolioRebalance => return None,
        };
        let (path, warnings) = (head.path.to_string(), head.warnings.clone());
        Some(OpinionStatus { path, degraded: head.degraded, warnings })
    }
}
