//! Which stored objects an event changes: a pure function, so that a commit costs what it touches, not what exists.
//!
//! Asked with the state *before* the event, because an ended trade still names its position there. A test compares the
//! embedded store with the state after every random event.

use std::collections::BTreeSet;

use uuid::Uuid;

use crate::model::{DecisionId, Event, NamedBallot, PlanState, PositionId, State, TradeKey};

/// One object of the embedded store. Whether it exists afterwards is read from the state.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ObjectKey {
    /// Coordinator view.
    Coordinator,
    /// Balances.
    Account,
    /// Risk's durable part.
    Risk,
    /// Totals.
    Totals,
    /// What model calls cost.
    Models,
    /// An open position.
    Position(PositionId),
    /// A trade that is not terminal.
    Trade(TradeKey),
    /// What is remembered of a trade key.
    Stub(TradeKey),
    /// A plan.
    Plan(Uuid),
    /// An open decision.
    Decision(DecisionId),
    /// An emergency action.
    Emergency(String),
    /// A command key.
    Command(String),
    /// Votes waiting for their mark.
    Pending(DecisionId),
    /// A voter's record.
    Tally(String),
}

/// Collections from which an event may also drop old objects.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Swept {
    /// Ended plans.
    Plans,
    /// Finished emergency actions.
    Emergencies,
    /// Command keys past their memory.
    Commands,
    /// Votes too old to be marked.
    Pending,
}

/// Objects changed since the last commit.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Touched {
    /// Changed, added or removed.
    pub keys: BTreeSet<ObjectKey>,
    /// Collections that may have lost objects beyond `keys`.
    pub swept: BTreeSet<Swept>,
}

impl Touched {
    /// Adds what `event` changes in `before`.
    pub fn add(&mut self, event: &Event, before: &State) {
        match event {
            Event::StoreCreated { .. }
            | Event::Booted { .. }
            | Event::StoreAdopted { .. }
            | Event::RecoveryDone { .. }
            | Event::CleanStop {}
            | Event::ClockJump { .. }
            | Event::NoncesReserved { .. }
            | Event::GapReplayed { .. }
            | Event::Noted { .. } => {}
            Event::StateChanged { .. }
            | Event::PauseReasonAdded { .. }
            | Event::PauseReasonRemoved { .. }
            | Event::DegradationChanged { .. }
            | Event::Quarantined { .. }
            | Event::QuarantineEnded { .. }
            | Event::TaskSwitched { .. }
            | Event::RunClaimed { .. }
            | Event::InFlightRecovered { .. } => self.key(ObjectKey::Coordinator),
            Event::RunFinished { ballots, .. } => {
                self.key(ObjectKey::Coordinator);
                self.tallies(ballots);
            }
            Event::CommandReceived { key, .. } => {
                self.key(ObjectKey::Command(key.clone()));
                self.swept.insert(Swept::Commands);
            }
            Event::CommandDone { key, .. } | Event::CommandRefused { key, .. } => {
                self.key(ObjectKey::Command(key.clone()));
            }
            Event::TradeIntent { trade } => {
                self.trade(trade.key, before);
                self.key(ObjectKey::Account);
                self.key(ObjectKey::Totals);
                self.position(trade.body.position);
            }
            Event::TradeSubmitting { trade_key: key, .. }
            | Event::TradeAcked { trade_key: key, .. }
            | Event::TradeNotExecuted { trade_key: key, .. }
            | Event::TradeManual { trade_key: key, .. }
            | Event::TradeResolved { trade_key: key, .. }
            | Event::TradeCancelRequested { trade_key: key, .. }
            | Event::TradeUnknown { trade_key: key, .. } => self.trade(*key, before),
            Event::TradeSettled { trade_key: key }
            | Event::TradeRejected { trade_key: key, .. }
            | Event::TradeRefused { trade_key: key, .. }
            | Event::TradeExpired { trade_key: key, .. }
            | Event::TradeCancelled { trade_key: key, .. } => self.trade_end(*key, before),
            // A fill of a part leaves the trade open, so nothing after it brings its stub and its leg.
            Event::TradeFill { trade_key, .. } => {
                self.trade(*trade_key, before);
                self.key(ObjectKey::Account);
                self.key(ObjectKey::Totals);
            }
            Event::PlanCreated { plan } => {
                plan.legs.iter().for_each(|leg| self.key(ObjectKey::Stub(leg.key)));
                self.key(ObjectKey::Plan(plan.id));
            }
            Event::LegsRespread { plan, .. }
            | Event::PlanCompleted { plan }
            | Event::PlanSuperseded { plan, .. }
            | Event::PlanExpired { plan }
            | Event::LegsCancelled { plan, .. } => self.plan(*plan, before),
            Event::Deposit { .. } => self.key(ObjectKey::Account),
            Event::PositionOpened { position } => {
                self.key(ObjectKey::Account);
                self.key(ObjectKey::Position(position.id));
            }
            Event::PositionChanged { position } => self.key(ObjectKey::Position(position.id)),
            Event::StopMoved { position, .. } => self.key(ObjectKey::Position(*position)),
            Event::PositionClosed { closed } => {
                self.key(ObjectKey::Position(closed.id));
                self.key(ObjectKey::Totals);
            }
            Event::PeriodRolled { .. }
            | Event::PeakChanged { .. }
            | Event::BreakerTripped { .. }
            | Event::BreakerRearmed { .. }
            | Event::CooldownSet { .. }
            | Event::StreakChanged { .. }
            | Event::OrderErrorsChanged { .. } => self.key(ObjectKey::Risk),
            Event::BudgetReserved { .. } | Event::BudgetSettled { .. } | Event::BudgetExhausted { .. } => {
                self.key(ObjectKey::Models);
            }
            Event::EmergencyStarted { emergency } => self.key(ObjectKey::Emergency(emergency.key.to_string())),
            Event::EmergencyStep { key, .. } => self.key(ObjectKey::Emergency(key.to_string())),
            Event::EmergencyDone { key, .. } => {
                self.key(ObjectKey::Emergency(key.to_string()));
                self.swept.insert(Swept::Emergencies);
            }
            Event::SignalReceived { .. }
            | Event::DecisionClassified { .. }
            | Event::ConsensusComputed { .. }
            | Event::ConflictsFound { .. }
            | Event::ResolutionDone { .. }
            | Event::Sized { .. }
            | Event::RiskApproved { .. }
            | Event::RiskRefused { .. }
            | Event::DecisionEnded { .. }
            | Event::VotesMarked { .. } => self.decision(event),
        }
    }

    fn key(&mut self, key: ObjectKey) {
        self.keys.insert(key);
    }

    fn tallies(&mut self, ballots: &[NamedBallot]) {
        ballots.iter().for_each(|named| self.key(ObjectKey::Tally(named.voter.to_string())));
    }

    fn decision(&mut self, event: &Event) {
        match event {
            Event::SignalReceived { decision, signal, .. } => {
                self.key(ObjectKey::Totals);
                self.key(ObjectKey::Decision(*decision));
                self.key(ObjectKey::Pending(*decision));
                self.tallies(&signal.ballots);
                self.swept.insert(Swept::Pending);
            }
            Event::RiskApproved { .. } => self.key(ObjectKey::Risk),
            Event::DecisionEnded { decision, .. } => {
                self.key(ObjectKey::Totals);
                self.key(ObjectKey::Decision(*decision));
            }
            Event::VotesMarked { decision, marks } => {
                self.key(ObjectKey::Pending(*decision));
                marks.iter().for_each(|mark| self.key(ObjectKey::Tally(mark.voter.clone())));
            }
            _ => {}
        }
    }

    /// A trade, its stub and the leg that mirrors it.
    fn trade(&mut self, key: TradeKey, before: &State) {
        self.key(ObjectKey::Trade(key));
        self.key(ObjectKey::Stub(key));
        // At most one plan is active and few ended ones are kept, so this does not grow.
        let active = before.plans.values().filter(|plan| plan.state == PlanState::Active);
        for plan in active.filter(|plan| plan.legs.iter().any(|leg| leg.key == key)) {
            self.keys.insert(ObjectKey::Plan(plan.id));
        }
    }

    /// A terminal trade also returns its lock, its reservation and its hold on the position.
    fn trade_end(&mut self, key: TradeKey, before: &State) {
        self.trade(key, before);
        self.key(ObjectKey::Risk);
        self.key(ObjectKey::Account);
        self.position(before.trades.get(&key).and_then(|trade| trade.body.position));
    }

    fn position(&mut self, id: Option<PositionId>) {
        if let Some(id) = id {
            self.key(ObjectKey::Position(id));
        }
    }

    fn plan(&mut self, id: Uuid, before: &State) {
        self.key(ObjectKey::Plan(id));
        self.swept.insert(Swept::Plans);
        for leg in before.plans.get(&id).iter().flat_map(|plan| &plan.legs) {
            self.keys.insert(ObjectKey::Stub(leg.key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Liquidity, Side};

    #[test]
    fn k21_a_fill_of_a_part_brings_the_stub_that_mirrors_it() {
        let trade_key = TradeKey([7; 32]);
        let fill = Event::TradeFill {
            trade_key,
            fill_id: String::new(),
            symbol: "BTC/USDT".parse().unwrap(),
            side: Side::Buy,
            quantity: Default::default(),
            price: Default::default(),
            value: Default::default(),
            fee: Default::default(),
            liquidity: Liquidity::Taker,
            price_id: "simulated:1".to_owned(),
            evidence: None,
            venue_fill: None,
            postings: Vec::new(),
        };
        let mut touched = Touched::default();
        touched.add(&fill, &State::default());
        assert!(touched.keys.contains(&ObjectKey::Stub(trade_key)), "{:?}", touched.keys);
    }
}
