//! When a leg of a rebalance plan is executed: the lateness table (scheduling B3) as a pure function.
//!
//! The legs of a batch are due together and move together; the spacing is kept between batches. A leg is claimed by
//! PLANNED → INTENT and never removed.

use std::collections::BTreeMap;

use crate::{
    model::{CoordinatorState, Decimal, DegradationLevel, Event, Leg, Plan, PlanState, Side, TradeKey, TradeState, Ts},
    settings::{LatePolicy, LegSettings},
};

/// Name of the alert about a late leg that waits for the operator (`legs.late_policy = "ask_operator"`).
pub const ASKS_OPERATOR: &str = "leg_asks_operator";

/// Whether legs may be executed now; without it they stay PLANNED.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gate {
    /// RUNNING at level NORMAL.
    Open,
    /// Deferred, with the reason.
    Closed(&'static str),
}

/// The gate of legs from coordinator state and level.
pub fn gate(state: CoordinatorState, level: DegradationLevel) -> Gate {
    match (state, level) {
        (CoordinatorState::Paused, _) => Gate::Closed("paused"),
        (CoordinatorState::Halted, _) => Gate::Closed("halted"),
        (CoordinatorState::Running, DegradationLevel::Normal) => Gate::Open,
        (CoordinatorState::Running, _) => Gate::Closed("degraded"),
    }
}

/// What is to be done about a plan now.
#[derive(Clone, PartialEq, Debug)]
#[expect(clippy::large_enum_variant, reason = "one answer at a time, never a collection of them")]
pub enum LegAction {
    /// Nothing before this instant (absent: something is under way or the plan has ended).
    Nothing(Option<Ts>),
    /// Legs are due but deferred by the gate.
    Deferred(&'static str),
    /// The previous batch was executed too recently.
    Wait(Ts),
    /// Make these legs' trades: all sells of the batch, or its buys once the sells are terminal.
    Execute(Vec<TradeKey>),
    /// Every leg is terminal: commit `leg_orders::completion`.
    Complete,
    /// Commit this event: respread, late legs dropped, superseded or expired.
    Commit(Event),
    /// The plan is frozen until the operator cancels legs; alert once.
    AskOperator(TradeKey),
}

/// Largest lateness that executes without moving anything: the setting, or 10 % of the spacing if larger.
pub fn max_lateness_ms(plan: &Plan, settings: &LegSettings) -> i64 {
    (i64::from(settings.max_lateness_seconds) * 1_000).max(plan.spacing_ms / 10)
}

/// Smallest distance between two executed batches, milliseconds.
pub fn min_spacing_ms(plan: &Plan, settings: &LegSettings) -> i64 {
    let spacing = Decimal::from(plan.spacing_ms).checked_mul(settings.min_spacing_ratio);
    spacing.and_then(|ms| i64::try_from(ms.ceil()).ok()).unwrap_or(plan.spacing_ms)
}

/// Judges one plan.
pub fn step(plan: &Plan, now: Ts, settings: &LegSettings, gate: Gate) -> LegAction {
    if plan.state != PlanState::Active {
        return LegAction::Nothing(None);
    }
    let Some(first) = first_pending(plan) else {
        if plan.legs.iter().all(|leg| leg.state.is_terminal()) {
            return LegAction::Complete;
        }
        return LegAction::Nothing(None);
    };
    if first.due_at > now {
        return LegAction::Nothing(Some(first.due_at));
    }
    if let Gate::Closed(reason) = gate {
        return LegAction::Deferred(reason);
    }
    let late = now.since_ms(first.due_at);
    if late > max_lateness_ms(plan, settings) {
        return late_action(plan, first, late, now, settings);
    }
    match spacing_until(plan, first.batch, settings) {
        Some(until) if until > now => LegAction::Wait(until),
        _ => execute(plan, first.batch),
    }
}

fn first_pending(plan: &Plan) -> Option<&Leg> {
    let pending = plan.legs.iter().filter(|leg| leg.state == TradeState::Planned);
    pending.min_by_key(|leg| (leg.due_at, leg.batch))
}

fn batch(plan: &Plan, batch: u32) -> impl Iterator<Item = &Leg> {
    plan.legs.iter().filter(move |leg| leg.batch == batch)
}

/// When the spacing since the previous batch has passed. A batch that is under way keeps no distance from itself.
fn spacing_until(plan: &Plan, number: u32, settings: &LegSettings) -> Option<Ts> {
    let under_way = batch(plan, number).any(|leg| {
        !matches!(leg.state, TradeState::Planned | TradeState::Cancelled | TradeState::Superseded | TradeState::Expired)
    });
    let previous = plan.last_executed_at.filter(|_| !under_way)?;
    Some(previous.plus_ms(min_spacing_ms(plan, settings)))
}

fn execute(plan: &Plan, number: u32) -> LegAction {
    let pending = |side| {
        let legs = batch(plan, number).filter(move |leg| leg.side == side && leg.state == TradeState::Planned);
        legs.map(|leg| leg.key).collect::<Vec<_>>()
    };
    let sells = pending(Side::Sell);
    if !sells.is_empty() {
        return LegAction::Execute(sells);
    }
    if batch(plan, number).any(|leg| leg.side == Side::Sell && !leg.state.is_terminal()) {
        return LegAction::Nothing(None);
    }
    LegAction::Execute(pending(Side::Buy))
}

/// The last three rows of the table, and the two other policies.
fn late_action(plan: &Plan, first: &Leg, late: i64, now: Ts, settings: &LegSettings) -> LegAction {
    let end = plan.legs.iter().map(|leg| leg.due_at).max().unwrap_or(first.due_at);
    if now > end.plus_ms(plan.spacing_ms) {
        return LegAction::Commit(Event::PlanExpired { plan: plan.id });
    }
    match settings.late_policy {
        LatePolicy::AskOperator => LegAction::AskOperator(first.key),
        LatePolicy::Skip => {
            let late_legs = batch(plan, first.batch).filter(|leg| leg.state == TradeState::Planned);
            let legs = late_legs.map(|leg| leg.key).collect();
            let reason = format!("late by {} s, policy skip", late / 1_000);
            LegAction::Commit(Event::LegsCancelled { plan: plan.id, legs, reason })
        }
        LatePolicy::Respread if late > plan.spacing_ms => {
            let reason = format!("a leg is late by {} s, more than the spacing", late / 1_000);
            LegAction::Commit(Event::PlanSuperseded { plan: plan.id, reason })
        }
        LatePolicy::Respread => {
            LegAction::Commit(Event::LegsRespread { plan: plan.id, due: respread(plan, now, settings) })
        }
    }
}

/// New due instants: the first pending batch at max(now, previous executed + 50 %), each later one at least 50 % after
/// the one before and never earlier than it was. Only legs that move are named.
pub fn respread(plan: &Plan, now: Ts, settings: &LegSettings) -> BTreeMap<TradeKey, Ts> {
    let distance = min_spacing_ms(plan, settings);
    let mut earliest = plan.last_executed_at.map_or(now, |at| now.max(at.plus_ms(distance)));
    let mut batches: BTreeMap<(Ts, u32), Vec<TradeKey>> = BTreeMap::new();
    for leg in plan.legs.iter().filter(|leg| leg.state == TradeState::Planned) {
        batches.entry((leg.due_at, leg.batch)).or_default().push(leg.key);
    }
    let mut moved = BTreeMap::new();
    for ((due, _), legs) in batches {
        let new_due = due.max(earliest);
        if new_due != due {
            moved.extend(legs.into_iter().map(|key| (key, new_due)));
        }
        earliest = new_due.plus_ms(distance);
    }
    moved
}

/// The cancel of pending legs by the operator, and the end of the plan when nothing is left of it.
///
/// # Errors
/// A leg that is not pending, named.
pub fn cancel(plan: &Plan, legs: &[TradeKey], reason: &str) -> Result<Vec<Event>, String> {
    for key in legs {
        if !plan.legs.iter().any(|leg| leg.key == *key && leg.state == TradeState::Planned) {
            return Err(format!("leg {} is not pending in plan {}", key.short(), plan.id));
        }
    }
    let mut events = vec![Event::LegsCancelled { plan: plan.id, legs: legs.to_vec(), reason: reason.to_owned() }];
    let terminal = |leg: &Leg| leg.state.is_terminal() || legs.contains(&leg.key);
    let untouched = |leg: &Leg| leg.state == TradeState::Cancelled || legs.contains(&leg.key);
    if plan.legs.iter().all(terminal) && !plan.legs.iter().all(untouched) {
        events.push(Event::PlanCompleted { plan: plan.id });
    }
    Ok(events)
}

#[cfg(test)]
#[path = "legs_tests.rs"]
pub(super) mod tests;
