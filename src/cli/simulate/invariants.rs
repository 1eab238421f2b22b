//! What must hold after every record besides what the oracle of the store judges, computed from the events alone and
//! never through `apply`: who may trade, plans with their legs, runs, and the coordinator's state.
//!
//! Pure: the same records give the same verdict. A violation names the first record that shows it.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use crate::model::{
    CoordinatorState, Event, Money, Plan, PlanState, Qty, Record, RunId, RunKey, State, Trade, TradeKey, TradeKind,
    TradeState,
};

/// A living order as the events tell it.
#[derive(Clone, Debug)]
struct Order {
    /// Reduces a position: allowed in every state of the coordinator.
    reduces: bool,
    /// Of a leg: its plan.
    plan: Option<Uuid>,
    quantity: Qty,
    filled: Qty,
}

/// A plan as the events tell it.
#[derive(Clone, Debug)]
struct KnownPlan {
    legs: BTreeMap<TradeKey, (Money, TradeState)>,
    sum: Money,
    active: bool,
}

/// The running check.
#[derive(Clone, Debug, Default)]
pub struct Invariants {
    orders: BTreeMap<TradeKey, Order>,
    plans: BTreeMap<Uuid, KnownPlan>,
    runs: BTreeMap<RunKey, RunId>,
    used_runs: BTreeSet<RunId>,
    state: CoordinatorState,
    reasons: BTreeSet<String>,
}

impl Invariants {
    /// Takes the next record in.
    ///
    /// # Errors
    /// What does not hold after it.
    pub fn observe(&mut self, record: &Record) -> Result<(), String> {
        match &record.event {
            Event::TradeIntent { trade } => self.intent(trade)?,
            Event::TradeFill { trade_key, quantity, .. } => self.fill(*trade_key, *quantity),
            Event::TradeSubmitting { trade_key, .. } => {
                let reduces = self.orders.get(trade_key).is_some_and(|order| order.reduces);
                if self.state != CoordinatorState::Running && !reduces {
                    return Err(format!("order {} leaves while {}", trade_key.short(), self.state.name()));
                }
                self.turn(*trade_key, TradeState::Submitting);
            }
            Event::TradeAcked { trade_key, .. } => self.turn(*trade_key, TradeState::Acked),
            Event::TradeSettled { trade_key } => self.turn(*trade_key, TradeState::Settled),
            Event::TradeRejected { trade_key, .. } => self.turn(*trade_key, TradeState::Rejected),
            Event::TradeRefused { trade_key, .. } => self.turn(*trade_key, TradeState::Refused),
            Event::TradeExpired { trade_key, .. } => self.turn(*trade_key, TradeState::Expired),
            Event::TradeNotExecuted { trade_key, .. } => self.turn(*trade_key, TradeState::NotExecuted),
            Event::TradeUnknown { trade_key, .. } => self.turn(*trade_key, TradeState::Unknown),
            Event::TradeCancelled { trade_key, .. } => self.turn(*trade_key, TradeState::Cancelled),
            Event::TradeManual { trade_key, .. } => self.turn(*trade_key, TradeState::Manual),
            Event::PlanCreated { plan } => self.plan(plan)?,
            Event::LegsCancelled { plan, legs, .. } => self.cancel(plan, legs)?,
            Event::LegsRespread { plan, .. } => drop(self.active(plan)?),
            Event::PlanCompleted { plan } => self.end_plan(plan, None)?,
            Event::PlanSuperseded { plan, .. } => self.end_plan(plan, Some(TradeState::Superseded))?,
            Event::PlanExpired { plan } => self.end_plan(plan, Some(TradeState::Expired))?,
            Event::RunClaimed { marker } => {
                if let Some(other) = self.runs.insert(marker.key, marker.run_id) {
                    return Err(format!("run {} of {} begins while {other} runs", marker.run_id, marker.key));
                }
                if !self.used_runs.insert(marker.run_id) {
                    return Err(format!("run id {} was used already", marker.run_id));
                }
            }
            Event::RunFinished { key, run_id, .. } => {
                let held = self.runs.remove(key);
                if held != Some(*run_id) {
                    return Err(format!("run {run_id} of {key} ends, but {held:?} was running"));
                }
            }
            Event::InFlightRecovered { runs } => {
                for run in runs {
                    self.runs.remove(&run.marker.key);
                }
            }
            Event::StateChanged { from, to, .. } => {
                if *from != self.state {
                    return Err(format!("the state changes from {} while {}", from.name(), self.state.name()));
                }
                self.state = *to;
            }
            Event::PauseReasonAdded { reason } => drop(self.reasons.insert(reason.clone())),
            Event::PauseReasonRemoved { reason } => drop(self.reasons.remove(reason)),
            _ => {}
        }
        Ok(())
    }

    fn intent(&mut self, trade: &Trade) -> Result<(), String> {
        let key = trade.key;
        let mut plan = None;
        if trade.kind == TradeKind::Rebalance {
            let mut active = self.plans.iter_mut().filter(|(_, plan)| plan.active);
            match active.find_map(|(id, plan)| Some((*id, plan.legs.get_mut(&key)?))) {
                Some((id, (_, state))) if *state == TradeState::Planned => {
                    *state = TradeState::Intent;
                    plan = Some(id);
                }
                Some((_, (_, state))) => return Err(format!("leg {} is executed while {state:?}", key.short())),
                None => return Err(format!("leg {} belongs to no active plan", key.short())),
            }
        }
        let body = &trade.body;
        let order = Order { reduces: body.position.is_some(), plan, quantity: body.quantity, filled: Qty::ZERO };
        self.orders.insert(key, order);
        Ok(())
    }

    /// Moves a trade on; whether it may is the oracle's question.
    fn turn(&mut self, key: TradeKey, to: TradeState) {
        let plan = self.orders.get(&key).and_then(|order| order.plan);
        if let Some(leg) = plan.and_then(|id| self.plans.get_mut(&id)?.legs.get_mut(&key)) {
            leg.1 = to;
        }
        if to.is_terminal() {
            self.orders.remove(&key);
        }
    }

    fn fill(&mut self, key: TradeKey, quantity: Qty) {
        let Some(order) = self.orders.get_mut(&key) else { return };
        order.filled += quantity;
        let to = if order.filled == order.quantity { TradeState::Filled } else { TradeState::Partial };
        let leg = order.plan.and_then(|id| self.plans.get(&id)?.legs.get(&key));
        if leg.is_some_and(|leg| leg.1 != TradeState::Manual) {
            self.turn(key, to);
        }
    }

    fn plan(&mut self, plan: &Plan) -> Result<(), String> {
        if let Some((other, _)) = self.plans.iter().find(|(_, plan)| plan.active) {
            return Err(format!("plan {} begins while plan {other} is active", plan.id));
        }
        let legs = plan.legs.iter().map(|leg| (leg.key, (leg.amount, leg.state))).collect();
        let sum = plan.legs.iter().map(|leg| leg.amount).sum();
        self.plans.insert(plan.id, KnownPlan { legs, sum, active: true });
        Ok(())
    }

    fn active(&mut self, id: &Uuid) -> Result<&mut KnownPlan, String> {
        self.plans.get_mut(id).filter(|plan| plan.active).ok_or_else(|| format!("plan {id} is not active"))
    }

    fn cancel(&mut self, id: &Uuid, legs: &[TradeKey]) -> Result<(), String> {
        let plan = self.active(id)?;
        for key in legs {
            plan.legs.get_mut(key).into_iter().for_each(|leg| leg.1 = TradeState::Cancelled);
        }
        plan.active = plan.legs.values().any(|leg| leg.1 != TradeState::Cancelled);
        Ok(())
    }

    /// Pending legs get `rest`; absent when none may pend.
    fn end_plan(&mut self, id: &Uuid, rest: Option<TradeState>) -> Result<(), String> {
        let plan = self.active(id)?;
        plan.active = false;
        if let Some(rest) = rest {
            plan.legs.values_mut().filter(|leg| leg.1 == TradeState::Planned).for_each(|leg| leg.1 = rest);
        }
        Ok(())
    }

    /// What holds between batches only.
    ///
    /// # Errors
    /// What does not.
    pub fn after_batch(&self) -> Result<(), String> {
        let running = self.state == CoordinatorState::Running;
        if self.state != CoordinatorState::Halted && running != self.reasons.is_empty() {
            return Err(format!("{} with the pause reasons {:?}", self.state.name(), self.reasons));
        }
        Ok(())
    }

    /// Compares what the events told with the state the program made of them.
    ///
    /// # Errors
    /// The first difference.
    pub fn compare(&self, state: &State) -> Result<(), String> {
        for plan in state.plans.values() {
            let own = self.plans.get(&plan.id).ok_or_else(|| format!("plan {} was never made", plan.id))?;
            let sum: Money = plan.legs.iter().map(|leg| leg.amount).sum();
            let legs = plan.legs.iter().all(|leg| own.legs.get(&leg.key) == Some(&(leg.amount, leg.state)));
            if sum != own.sum || plan.legs.len() != own.legs.len() || !legs {
                return Err(format!("plan {}: its legs differ from what was planned and done: {own:?}", plan.id));
            }
            if own.active != (plan.state == PlanState::Active) {
                return Err(format!("plan {} is {:?}", plan.id, plan.state));
            }
        }
        if !state.coordinator.in_flight.iter().map(|(key, marker)| (*key, marker.run_id)).eq(self.runs.clone()) {
            return Err(format!("runs differ: {:?}, the state says {:?}", self.runs, state.coordinator.in_flight));
        }
        if (state.coordinator.state, &state.coordinator.pause_reasons) != (self.state, &self.reasons) {
            return Err(format!("the state says {}, the events {}", state.coordinator.state.name(), self.state.name()));
        }
        crate::execution::ledger::check_conservation(state).map_err(|violation| violation.to_string())
    }
}
