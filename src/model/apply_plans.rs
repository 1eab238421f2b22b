//! `apply` for plans and legs. A leg is never removed; it only changes its state with its trade or with its plan.

use super::{state::TradeStub, *};

/// Ended plans kept beside the active one.
pub const ENDED_PLANS_KEPT: usize = 4;

impl State {
    pub(super) fn mirror_leg(&mut self, key: TradeKey, state: TradeState, executed_at: Option<Ts>) {
        for plan in self.plans.values_mut().filter(|plan| plan.state == PlanState::Active) {
            if let Some(leg) = plan.legs.iter_mut().find(|leg| leg.key == key) {
                leg.state = state;
                if executed_at.is_some() {
                    plan.last_executed_at = executed_at;
                }
            }
        }
    }

    pub(super) fn fold_plan(&mut self, event: &Event, at: Ts) -> Result<(), String> {
        match event {
            Event::PlanCreated { plan } => self.create_plan(plan),
            Event::LegsRespread { plan, due } => self.active_plan(plan).and_then(|plan| {
                let pending = |leg: &&mut Leg| leg.state == TradeState::Planned && due.contains_key(&leg.key);
                let mut moved = 0;
                for leg in plan.legs.iter_mut().filter(pending) {
                    leg.due_at = due.get(&leg.key).copied().unwrap_or(leg.due_at);
                    moved += 1;
                }
                if moved == due.len() { Ok(()) } else { Err("a moved leg is not pending in the plan".into()) }
            }),
            Event::LegsCancelled { plan, legs, .. } => self.cancel_legs(plan, legs, at),
            Event::PlanCompleted { plan } => {
                if self.active_plan(plan)?.legs.iter().any(|leg| !leg.state.is_terminal()) {
                    return Err(format!("plan {plan} has a leg that is not terminal"));
                }
                self.end_plan(plan, PlanState::Completed, at)
            }
            Event::PlanSuperseded { plan, .. } => self.end_plan(plan, PlanState::Superseded, at),
            Event::PlanExpired { plan } => self.end_plan(plan, PlanState::Expired, at),
            _ => Ok(()),
        }
    }

    fn create_plan(&mut self, plan: &Plan) -> Result<(), String> {
        if self.plans.values().any(|other| other.state == PlanState::Active) {
            return Err("a plan is active already".into());
        }
        for leg in &plan.legs {
            let stub = TradeStub { body_hash: 0, state: TradeState::Planned };
            if self.trade_index.insert(leg.key, stub).is_some() {
                return Err(format!("leg {} exists already", leg.key.short()));
            }
        }
        self.plans.insert(plan.id, plan.clone());
        Ok(())
    }

    fn active_plan(&mut self, id: &uuid::Uuid) -> Result<&mut Plan, String> {
        let plan = self.plans.get_mut(id).ok_or_else(|| format!("plan {id} is unknown"))?;
        if plan.state == PlanState::Active { Ok(plan) } else { Err(format!("plan {id} ended already")) }
    }

    /// A plan of which nothing was executed and nothing is left counts as cancelled; the others are completed by an
    /// event of their own.
    fn cancel_legs(&mut self, id: &uuid::Uuid, legs: &[TradeKey], at: Ts) -> Result<(), String> {
        let plan = self.active_plan(id)?;
        for key in legs {
            match plan.legs.iter_mut().find(|leg| leg.key == *key) {
                Some(leg) if leg.state == TradeState::Planned => leg.state = TradeState::Cancelled,
                _ => return Err(format!("leg {} is not pending in plan {id}", key.short())),
            }
        }
        let untouched = plan.legs.iter().all(|leg| leg.state == TradeState::Cancelled);
        for key in legs {
            if let Some(stub) = self.trade_index.get_mut(key) {
                stub.state = TradeState::Cancelled;
            }
        }
        if untouched { self.end_plan(id, PlanState::Cancelled, at) } else { Ok(()) }
    }

    fn end_plan(&mut self, id: &uuid::Uuid, ended: PlanState, at: Ts) -> Result<(), String> {
        let leg_state = if ended == PlanState::Expired { TradeState::Expired } else { TradeState::Superseded };
        let plan = self.active_plan(id)?;
        plan.state = ended;
        plan.ended_at = Some(at);
        let mut dropped = Vec::new();
        for leg in plan.legs.iter_mut().filter(|leg| leg.state == TradeState::Planned) {
            leg.state = leg_state;
            dropped.push(leg.key);
        }
        for key in dropped {
            if let Some(stub) = self.trade_index.get_mut(&key) {
                stub.state = leg_state;
            }
        }
        self.forget_old_plans();
        Ok(())
    }

    fn forget_old_plans(&mut self) {
        let mut ended: Vec<(Option<Ts>, uuid::Uuid)> =
            self.plans.values().filter(|p| p.state != PlanState::Active).map(|p| (p.ended_at, p.id)).collect();
        ended.sort();
        for (_, id) in ended.iter().take(ended.len().saturating_sub(ENDED_PLANS_KEPT)) {
            self.plans.remove(id);
        }
    }
}
