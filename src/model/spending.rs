//! What model calls cost: the durable ledger of reservations and settlements, as a part of the state.
//!
//! A reservation counts as spent from the moment it is durable. Settling it puts the real cost in its place; a crash in
//! between leaves it spent, so a restart never refills anything.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{DecisionId, Event, Money};

/// Spending of one UTC day.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct ModelSpending {
    /// Number of the newest reservation.
    pub calls: u64,
    /// Day number of the figures below.
    pub day: i64,
    /// USD by provider.
    pub by_provider: BTreeMap<String, Money>,
    /// USD of everything that was no decision.
    pub opinions: Money,
    /// USD by decision, with the day of its newest call: a decision may span midnight.
    pub by_decision: BTreeMap<DecisionId, (i64, Money)>,
    /// Reservations that are not settled.
    pub open: BTreeMap<u64, OpenReservation>,
    /// Limits whose reaching was told today.
    pub told: BTreeSet<String>,
    /// By provider: the most USD that one call of today cost above what was held for it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub over: BTreeMap<String, Money>,
}

/// One reservation that is not settled.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct OpenReservation {
    /// Who is called.
    pub provider: String,
    /// For which decision; absent for opinions.
    pub decision: Option<DecisionId>,
    /// USD held.
    pub amount: Money,
}

/// What is told when spending passes `budget.warn_usd`.
pub const TOLD_WARNING: &str = "warn";

impl ModelSpending {
    /// USD of the whole day, reservations included.
    pub fn total(&self) -> Money {
        self.by_provider.values().copied().sum()
    }

    /// USD held by calls that are not settled.
    pub fn reserved(&self) -> Money {
        self.open.values().map(|open| open.amount).sum()
    }

    /// The ledger as it stands on `day`: a later day begins empty.
    #[must_use]
    pub fn on(&self, day: i64) -> ModelSpending {
        let mut spending = self.clone();
        spending.roll(day);
        spending
    }

    fn roll(&mut self, day: i64) {
        if day > self.day {
            self.day = day;
            self.by_provider.clear();
            self.opinions = Money::ZERO;
            self.by_decision.retain(|_, (last, _)| *last >= day - 1);
            self.open.clear();
            self.told.clear();
            self.over.clear();
        }
    }

    fn add(&mut self, provider: &str, decision: Option<DecisionId>, amount: Money) {
        *self.by_provider.entry(provider.to_owned()).or_default() += amount;
        match decision {
            Some(decision) => {
                let spent = self.by_decision.entry(decision).or_default();
                *spent = (self.day, spent.1 + amount);
            }
            None => self.opinions += amount,
        }
    }

    pub(super) fn fold(&mut self, event: &Event) {
        match event {
            Event::BudgetReserved { call, day, provider, decision, amount, warned, .. } => {
                self.roll(*day);
                self.calls = self.calls.max(*call);
                self.add(provider, *decision, *amount);
                let held = OpenReservation { provider: provider.clone(), decision: *decision, amount: *amount };
                self.open.insert(*call, held);
                if *warned {
                    self.told.insert(TOLD_WARNING.to_owned());
                }
            }
            // A call that ends on another day than it began was paid on the day it began.
            Event::BudgetSettled { call, cost, over, .. } => {
                if let Some(held) = self.open.remove(call) {
                    self.add(&held.provider, held.decision, *cost - held.amount);
                    if *over > Money::ZERO {
                        let most = self.over.entry(held.provider).or_default();
                        *most = (*most).max(*over);
                    }
                }
            }
            Event::BudgetExhausted { day, limit, .. } => {
                self.roll(*day);
                self.told.insert(limit.clone());
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usd(cents: i64) -> Money {
        Money::new(cents, 2)
    }

    fn reserved(call: u64, day: i64, decision: Option<DecisionId>, cents: i64) -> Event {
        let (provider, model) = ("p".to_owned(), "m".to_owned());
        Event::BudgetReserved { call, day, provider, model, decision, amount: usd(cents), warned: false }
    }

    fn settled(call: u64, cents: i64) -> Event {
        settled_over(call, cents, 0)
    }

    fn settled_over(call: u64, cents: i64, over: i64) -> Event {
        let (cost, over) = (usd(cents), usd(over));
        Event::BudgetSettled { call, cost, input_tokens: None, output_tokens: None, failure: None, over }
    }

    #[test]
    fn what_a_call_cost_above_its_reservation_is_remembered_for_the_day() {
        let mut ledger = ModelSpending::default();
        for (call, cents, over) in [(1, 35, 5), (2, 32, 2), (3, 10, 0)] {
            ledger.fold(&reserved(call, 5, None, 30));
            ledger.fold(&settled_over(call, cents, over));
        }
        assert_eq!((ledger.total(), ledger.over.get("p").copied()), (usd(77), Some(usd(5))), "the truth, and the most");
        assert!(ledger.on(6).over.is_empty());
    }

    #[test]
    fn a_reservation_is_spent_until_it_is_settled() {
        let mut ledger = ModelSpending::default();
        ledger.fold(&reserved(1, 5, None, 30));
        assert_eq!((ledger.total(), ledger.opinions, ledger.reserved()), (usd(30), usd(30), usd(30)));
        ledger.fold(&settled(1, 12));
        assert_eq!((ledger.total(), ledger.opinions, ledger.reserved()), (usd(12), usd(12), usd(0)));
        ledger.fold(&settled(1, 99));
        assert_eq!(ledger.total(), usd(12), "settled once");
    }

    #[test]
    fn a_new_day_begins_empty_and_a_late_settlement_changes_nothing() {
        let mut ledger = ModelSpending::default();
        let decision = DecisionId::default();
        ledger.fold(&reserved(1, 5, Some(decision), 30));
        ledger.fold(&reserved(2, 6, Some(decision), 10));
        assert_eq!(ledger.total(), usd(10));
        assert_eq!(ledger.by_decision.get(&decision), Some(&(6, usd(40))), "its own limit spans midnight");
        ledger.fold(&settled(1, 1));
        assert_eq!(ledger.total(), usd(10));
        assert!(ledger.on(8).by_decision.is_empty());
    }
}
