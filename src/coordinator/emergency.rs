//! Emergency actions (domain §11.7, F15): what a breach starts, and what is still to do about it. Pure planning.
//!
//! An instance is (breach, period, action) and starts once (D28). Reductions store the target quantity per position
//! at the trigger; a step trades current − target, so a repetition after a crash cannot overshoot (durability C7).
//! Results are reported per position as they happened, not as intended (D27). It trades nothing itself.

use std::collections::BTreeMap;

use crate::{
    model::{
        BreakerKind, Decimal, Emergency, EmergencyAction, EmergencyKey, Event, Latch, Position, PositionId,
        PositionSide, Qty, Side, State, Symbol, SymbolRules, TradeKey, TradeKind, Ts,
    },
    settings::EmergencySettings,
};

use super::states;

/// Name under which an operator's `close_all` runs.
pub const CLOSE_ALL: &str = "operator:close_all";

/// One thing to do now.
#[derive(Clone, PartialEq, Debug)]
pub enum EmergencyOrder {
    /// Cancel resting entries before anything is closed.
    CancelResting {
        /// For which instance.
        emergency: EmergencyKey,
        /// Entry trades that are not terminal.
        trades: Vec<TradeKey>,
    },
    /// Reduce one position at market.
    Reduce(ReduceOrder),
    /// Every target is reached: record these.
    Finish {
        /// Which instance.
        emergency: EmergencyKey,
        /// `EmergencyDone`, and the pause that follows a reduction.
        events: Vec<Event>,
    },
}

/// A market order of kind `emergency`.
#[derive(Clone, PartialEq, Debug)]
pub struct ReduceOrder {
    /// For which instance.
    pub emergency: EmergencyKey,
    /// Which position.
    pub position: PositionId,
    /// Its symbol.
    pub symbol: Symbol,
    /// Opposite of the position.
    pub side: Side,
    /// current − target, floored to the symbol's step.
    pub quantity: Qty,
    /// Plan id of the trade key.
    pub plan: String,
    /// Leg of the trade key: the position, and from the second attempt its number.
    pub leg: String,
}

/// The instance key of a tripped breaker.
pub fn key_of(latch: &Latch, action: EmergencyAction) -> EmergencyKey {
    EmergencyKey { breach: latch.breaker.name().to_owned(), period: latch.period.clone(), action }
}

/// Events that start the action of a tripped breaker; empty when this instance exists already.
///
/// They follow `BreakerTripped` in a commit of their own; in between entries are refused because the breaker is latched,
/// and a boot in between starts the action. For a halt, HALTED precedes everything else (C7).
pub fn start(
    state: &State,
    latch: &Latch,
    action: EmergencyAction,
    symbols: &BTreeMap<Symbol, SymbolRules>,
    settings: &EmergencySettings,
    now: Ts,
) -> Vec<Event> {
    let key = key_of(latch, action);
    if state.emergencies.contains_key(&key.to_string()) {
        return Vec::new();
    }
    let breach = settings.breach.get(&latch.breaker);
    let reason = states::breaker_reason(latch.breaker.name());
    let mut events = Vec::new();
    let targets = match action {
        EmergencyAction::Cooldown => return events,
        EmergencyAction::PauseTrading => {
            events.extend(states::pause(&state.coordinator, &reason));
            BTreeMap::new()
        }
        EmergencyAction::ReducePositions => {
            let gone = breach.map_or(Decimal::ONE_HUNDRED, |breach| breach.reduction_pct);
            let kept = (Decimal::ONE_HUNDRED - gone).clamp(Decimal::ZERO, Decimal::ONE_HUNDRED);
            targets(state, symbols, kept / Decimal::ONE_HUNDRED)
        }
        EmergencyAction::HaltAll => {
            events.push(states::halt(&state.coordinator, &reason, "risk", now));
            let close = breach.is_some_and(|breach| breach.close_positions);
            if close { targets(state, symbols, Decimal::ZERO) } else { BTreeMap::new() }
        }
    };
    events.push(started(key.clone(), targets, now));
    if action == EmergencyAction::PauseTrading {
        events.push(Event::EmergencyDone { key, results: BTreeMap::new() });
    }
    events
}

/// `key`, or with the first number from 2 on under which it is not used.
pub fn numbered(key: &str, is_used: impl Fn(&str) -> bool) -> String {
    let (mut name, mut number) = (key.to_owned(), 1u32);
    while is_used(&name) {
        number += 1;
        name = format!("{key}#{number}");
    }
    name
}

/// Starts closing every position for the operator. A key under which it is still under way starts nothing; one whose
/// command is forgotten is another command.
pub fn start_close_all(
    state: &State,
    symbols: &BTreeMap<Symbol, SymbolRules>,
    command_key: &str,
    now: Ts,
) -> Vec<Event> {
    let instance = |period: &str| EmergencyKey {
        breach: CLOSE_ALL.to_owned(),
        period: period.to_owned(),
        action: EmergencyAction::ReducePositions,
    };
    let held = |period: &str| state.emergencies.get(&instance(period).to_string());
    let key = instance(&numbered(command_key, |period| held(period).is_some_and(|held| held.done)));
    if state.emergencies.contains_key(&key.to_string()) {
        return Vec::new();
    }
    vec![started(key, targets(state, symbols, Decimal::ZERO), now)]
}

fn started(key: EmergencyKey, targets: BTreeMap<PositionId, Qty>, now: Ts) -> Event {
    let emergency = Emergency { key, started_at: now, targets, attempts: BTreeMap::new(), retry_at: None, done: false };
    Event::EmergencyStarted { emergency }
}

/// What every position is to come to: what can be traded of the part that goes is taken away, so that the target is
/// reached to the last unit.
fn targets(state: &State, symbols: &BTreeMap<Symbol, SymbolRules>, kept: Decimal) -> BTreeMap<PositionId, Qty> {
    let target = |held: &Position| {
        let excess = held.quantity - held.quantity * kept;
        let tradable = tradable(symbols, held.symbol, excess).unwrap_or_default();
        (held.quantity - tradable).normalize()
    };
    state.positions.values().map(|held| (held.id, target(held))).collect()
}

/// The part of a quantity that a venue takes: whole steps, and not below the minimum.
fn tradable(symbols: &BTreeMap<Symbol, SymbolRules>, symbol: Symbol, quantity: Qty) -> Option<Qty> {
    let quantity = match symbols.get(&symbol) {
        Some(rules) => Some(rules.floor_quantity(quantity)).filter(|quantity| *quantity >= rules.min_quantity),
        None => Some(quantity),
    };
    quantity.filter(|quantity| *quantity > Qty::ZERO)
}

/// What is to be done now about every emergency under way. Called on each tick, after each step and at boot; in every
/// coordinator state and at every degradation level.
pub fn next_steps(
    state: &State,
    symbols: &BTreeMap<Symbol, SymbolRules>,
    settings: &EmergencySettings,
    now: Ts,
) -> Vec<EmergencyOrder> {
    let mut orders = Vec::new();
    // A position is worked on by one emergency at a time; the next tick sees what is left.
    let mut taken: Vec<PositionId> = Vec::new();
    for emergency in state.emergencies.values().filter(|emergency| !emergency.done) {
        let resting = resting_entries(state);
        if emergency.key.action == EmergencyAction::HaltAll && !resting.is_empty() {
            orders.push(EmergencyOrder::CancelResting { emergency: emergency.key.clone(), trades: resting });
            continue;
        }
        let mut reached = true;
        for (id, target) in &emergency.targets {
            let Some(order) = open_step(state, symbols, emergency, *id, *target) else { continue };
            reached = false;
            let busy = state.positions.get(id).is_some_and(|position| position.exiting.is_some());
            let tried = emergency.attempts.get(id).copied().unwrap_or_default() > 0;
            let waits = tried && emergency.retry_at.is_some_and(|at| now < at);
            if !busy && !waits && !taken.contains(id) {
                taken.push(*id);
                orders.push(EmergencyOrder::Reduce(order));
            }
        }
        if reached {
            let events = finish(state, emergency, settings);
            orders.push(EmergencyOrder::Finish { emergency: emergency.key.clone(), events });
        }
    }
    orders
}

fn resting_entries(state: &State) -> Vec<TradeKey> {
    let entries = state.trades.values().filter(|trade| trade.is_entry() && !trade.state.is_terminal());
    entries.map(|trade| trade.key).collect()
}

/// The order that brings a position to its target; absent when it is there, or when less than the symbol's minimum
/// is left, which no venue would take.
fn open_step(
    state: &State,
    symbols: &BTreeMap<Symbol, SymbolRules>,
    emergency: &Emergency,
    id: PositionId,
    target: Qty,
) -> Option<ReduceOrder> {
    let position = state.positions.get(&id)?;
    let quantity = tradable(symbols, position.symbol, position.quantity - target)?;
    let side = match position.side {
        PositionSide::Long => Side::Sell,
        PositionSide::Short => Side::Buy,
    };
    let plan = emergency.key.to_string();
    let leg = free_leg(state, emergency, &plan, id, position.symbol, side);
    Some(ReduceOrder {
        emergency: emergency.key.clone(),
        position: id,
        symbol: position.symbol,
        side,
        quantity,
        plan,
        leg,
    })
}

/// The first leg from the attempts made on whose key no terminal trade used: a crash between a failed trade and its
/// record must not meet its own old key.
fn free_leg(state: &State, emergency: &Emergency, plan: &str, id: PositionId, symbol: Symbol, side: Side) -> String {
    let mut attempt = emergency.attempts.get(&id).copied().unwrap_or_default();
    loop {
        let leg = if attempt == 0 { id.to_string() } else { format!("{id}:{attempt}") };
        let key = TradeKey::derive(state.meta.store, TradeKind::Emergency, plan, &leg, symbol, side);
        match state.trade_index.get(&key) {
            Some(stub) if stub.state.is_terminal() => attempt += 1,
            _ => return leg,
        }
    }
}

fn finish(state: &State, emergency: &Emergency, settings: &EmergencySettings) -> Vec<Event> {
    let result = |id: &PositionId| match state.positions.get(id) {
        None => "closed".to_owned(),
        Some(position) => format!("{} left", position.quantity.normalize()),
    };
    let results = emergency.targets.keys().map(|id| (id.to_string(), result(id))).collect();
    let mut events = vec![Event::EmergencyDone { key: emergency.key.clone(), results }];
    if emergency.key.action == EmergencyAction::ReducePositions
        && let Some(kind) = BreakerKind::ALL.into_iter().find(|kind| kind.name() == emergency.key.breach)
        && settings.breach.get(&kind).is_some_and(|breach| breach.then_pause)
    {
        events.extend(states::pause(&state.coordinator, &states::breaker_reason(kind.name())));
    }
    events
}

/// The record of one attempt. A failure is tried again after 5 s doubled to 60 s (settings), without end; a success
/// leaves the wait of the other positions as it is.
///
/// `failed` is the reason of a failure; `done` what was done otherwise.
pub fn record_step(
    state: &State,
    key: &EmergencyKey,
    position: PositionId,
    outcome: Result<&str, &str>,
    settings: &EmergencySettings,
    now: Ts,
) -> Event {
    let held = state.emergencies.get(&key.to_string());
    let attempts = held.and_then(|held| held.attempts.get(&position)).copied().unwrap_or_default();
    let (result, retry_at) = match outcome {
        Ok(done) => (format!("{done} (attempt {})", attempts + 1), held.and_then(|held| held.retry_at)),
        Err(failed) => {
            let wait = backoff_ms(attempts, settings);
            (format!("failed: {failed} (attempt {})", attempts + 1), Some(now.plus_ms(wait)))
        }
    };
    Event::EmergencyStep { key: key.clone(), position, result, retry_at }
}

/// Wait after a failed attempt: base · 2^earlier attempts, at most the cap, milliseconds.
pub fn backoff_ms(earlier: u32, settings: &EmergencySettings) -> i64 {
    let retry = &settings.close_retry_seconds;
    let factor = 1i64 << earlier.min(20);
    (i64::from(retry.base) * factor).min(i64::from(retry.cap)) * 1000
}

#[cfg(test)]
#[path = "emergency_tests.rs"]
mod tests;
