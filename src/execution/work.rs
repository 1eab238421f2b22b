//! What execution has to do next, derived from the durable state: which trade, position or leg needs something now.
//!
//! The same question after a restart is the recovery. Each answer is one batch of events; it is asked again after that
//! batch is durable. Nothing is remembered here but the price being worked on.

use std::collections::{BTreeMap, VecDeque};

use uuid::Uuid;

use super::{
    Violation,
    gap::Missed,
    intent, leg_orders, legs, manual, paper,
    remote::protocol,
    settle, supervise,
    supervise::{ExitCall, Verdict},
    venue::{Venue, VenueAnswer},
};
use crate::{
    model::{
        CoordinatorState, DegradationLevel, Event, OrderType, PlanState, PriceDone, PriceTick, State, Symbol,
        SymbolRules, Trade, TradeKey, TradeKind, TradeState, Ts,
    },
    risk::{RiskRules, board::Board},
    settings::Settings,
};

/// One batch to commit.
#[derive(Clone, PartialEq, Debug)]
pub struct Work {
    /// In order.
    pub events: Vec<Event>,
    /// Root of the chain: decision, plan or position.
    pub corr: String,
    /// Direct cause.
    pub cause: String,
}

/// What to do now.
#[derive(Clone, PartialEq, Debug)]
pub enum Next {
    /// Commit this, then ask again.
    Commit(Work),
    /// Nothing before this instant, or before something happens.
    Idle(Option<Ts>),
}

/// What the answer depends on besides the state.
pub struct Desk<'a> {
    /// What the program is told.
    pub settings: &'a Settings,
    /// Streaks, cooldowns and order errors.
    pub rules: &'a RiskRules,
    /// Newest prices.
    pub board: &'a Board,
    /// The global degradation level.
    pub level: DegradationLevel,
    /// Now.
    pub now: Ts,
}

/// Prices not worked on yet, and how far the first one has got.
#[derive(Clone, Debug, Default)]
pub struct Ticks {
    waiting: VecDeque<PriceTick>,
    /// What the first price did so far.
    done: PriceDone,
    /// The late leg the operator was told of; told once more after a restart.
    told: Option<TradeKey>,
    missed: Missed,
}

impl Ticks {
    /// Adds a price.
    pub fn push(&mut self, tick: PriceTick) {
        self.waiting.push_back(tick);
    }

    fn next(&mut self) {
        self.waiting.pop_front();
        self.done = PriceDone::default();
    }
}

/// The next batch, or how long there is nothing to do.
///
/// # Errors
/// The state contradicts itself: a broken invariant.
pub fn next(state: &State, ticks: &mut Ticks, venue: &mut dyn Venue, desk: &Desk<'_>) -> Result<Next, Violation> {
    let mut until = Until(None);
    if let Some(talks) = venue.remote() {
        talks.forget_ended(state);
    }
    for trade in state.trades.values() {
        let moved = advance(state, trade, venue, desk, &mut until);
        if let Some(events) = moved.or_else(|violation| manual::hand_over(trade, violation).map(Some))? {
            return Ok(commit(trade, events));
        }
    }
    while let Some(tick) = ticks.waiting.front().copied() {
        let is_fresh = paper::is_fresh(&tick, desk.now, price_max_age_ms(desk));
        if let Some(call) = ticks.missed.look(state, &tick, is_fresh)
            && let Some(settle) = settle_desk(desk, tick.symbol)
        {
            return exit_now(state, &call, venue, desk, &settle).map(Next::Commit);
        }
        if let Some(work) = at_price(state, &tick, &mut ticks.done, venue, desk)? {
            return Ok(Next::Commit(work));
        }
        ticks.next();
    }
    if let Some(work) = plan_work(state, &mut ticks.told, desk, &mut until)? {
        return Ok(Next::Commit(work));
    }
    if let Some(work) = held_too_long(state, venue, desk, &mut until)? {
        return Ok(Next::Commit(work));
    }
    Ok(Next::Idle(until.0))
}

/// The earliest of several instants.
#[derive(Clone, Copy, Debug, Default)]
pub struct Until(Option<Ts>);

impl Until {
    /// Look again at this instant, or before.
    pub fn at(&mut self, at: Ts) {
        self.0 = Some(self.0.map_or(at, |known| known.min(at)));
    }
}

fn commit(trade: &Trade, events: Vec<Event>) -> Next {
    let corr = trade.decision.map_or_else(|| trade.plan.clone(), |decision| decision.to_string());
    Next::Commit(Work { events, corr, cause: trade.key.short() })
}

fn rules(desk: &Desk<'_>, symbol: Symbol) -> Result<SymbolRules, Violation> {
    let known = desk.settings.market.symbol.get(&symbol).copied();
    known.ok_or_else(|| Violation(format!("{symbol} has no rounding rules in market.symbol")))
}

pub(super) fn settle_desk<'a>(desk: &Desk<'a>, symbol: Symbol) -> Option<settle::Desk<'a>> {
    Some(settle::Desk {
        execution: &desk.settings.execution,
        rules: desk.rules,
        quote_rate: desk.board.book.usd(symbol.quote)?.price,
        now: desk.now,
    })
}

/// Moves one living trade on, apart from matching a resting order, which needs a new price.
fn advance(
    state: &State,
    trade: &Trade,
    venue: &mut dyn Venue,
    desk: &Desk<'_>,
    until: &mut Until,
) -> Result<Option<Vec<Event>>, Violation> {
    let trade_key = trade.key;
    match trade.state {
        TradeState::Intent | TradeState::NotExecuted => {
            if let Some(reason) = trade.remote.as_ref().and_then(|remote| remote.cancel.clone()) {
                return Ok(Some(vec![Event::TradeCancelled { trade_key, reason }]));
            }
            match departure(state, trade, desk) {
                Departure::Go => {}
                Departure::Wait => return Ok(None),
                Departure::Never(reason) => return Ok(Some(vec![Event::TradeExpired { trade_key, reason }])),
            }
            if let Some(retry_at) = trade.retry_at.filter(|at| trade.state == TradeState::NotExecuted && *at > desk.now)
            {
                until.at(retry_at);
                return Ok(None);
            }
            Ok(match venue.remote() {
                Some(talks) => protocol::depart(state, trade, talks, desk),
                None => Some(vec![settle::submitting(trade, desk.now)]),
            })
        }
        TradeState::Submitting | TradeState::Unknown | TradeState::Acked | TradeState::Partial
            if venue.remote().is_some() =>
        {
            let Some(talks) = venue.remote() else { return Ok(None) };
            protocol::advance(state, trade, talks, desk, until)
        }
        TradeState::Submitting | TradeState::Unknown => ask_venue(state, trade, venue, desk, until),
        TradeState::Partial if !is_limit(trade) => ask_venue(state, trade, venue, desk, until),
        TradeState::Acked | TradeState::Partial => {
            if trade.is_entry() && state.coordinator.state == CoordinatorState::Halted {
                return Ok(Some(vec![Event::TradeCancelled { trade_key, reason: "halted".into() }]));
            }
            if let Some(event) = settle::expired(trade, desk.now) {
                return Ok(Some(vec![event]));
            }
            if let Some(at) = trade.expires_at {
                until.at(at);
            }
            Ok(None)
        }
        TradeState::Filled => Ok(Some(vec![Event::TradeSettled { trade_key }])),
        TradeState::Manual => {
            let Some(settle) = settle_desk(desk, trade.body.symbol) else { return Ok(None) };
            let events = manual::carry_out(state, trade, &settle);
            Ok((!events.is_empty()).then_some(events))
        }
        _ => Ok(None),
    }
}

const fn is_limit(trade: &Trade) -> bool {
    matches!(trade.body.order_type, OrderType::Limit { .. })
}

/// A paper venue that has not said what became of an order is asked again after this, milliseconds.
const UNKNOWN_AGAIN_MS: i64 = 5_000;

/// Whether an order that has not left yet may leave now.
enum Departure {
    Go,
    /// The gate is closed; a leg is kept until it opens.
    Wait,
    Never(String),
}

/// Invariant 7, and the age limits: a decision's entry is as old as its signal, a leg as late as legs may be.
fn departure(state: &State, trade: &Trade, desk: &Desk<'_>) -> Departure {
    if trade.body.position.is_some() {
        return Departure::Go;
    }
    let age_seconds = desk.now.since_ms(trade.created_at) / 1_000;
    let limit_seconds = match trade.kind {
        TradeKind::Rebalance => desk.settings.legs.max_lateness_seconds,
        _ => desk.settings.decision.max_age_seconds,
    };
    if age_seconds > i64::from(limit_seconds) {
        return Departure::Never(format!("the order is {age_seconds} s old, the limit is {limit_seconds} s"));
    }
    let closed = match state.coordinator.state {
        CoordinatorState::Running if trade.is_entry() && desk.level >= DegradationLevel::Limited => "degraded",
        CoordinatorState::Running => return Departure::Go,
        CoordinatorState::Paused => "paused",
        CoordinatorState::Halted => "halted",
    };
    if trade.is_entry() { Departure::Never(format!("suppressed({closed})")) } else { Departure::Wait }
}

fn ask_venue(
    state: &State,
    trade: &Trade,
    venue: &mut dyn Venue,
    desk: &Desk<'_>,
    until: &mut Until,
) -> Result<Option<Vec<Event>>, Violation> {
    let Some(settle) = settle_desk(desk, trade.body.symbol) else { return Ok(None) };
    let matched_at = paper::match_at(trade, &desk.settings.execution);
    if matched_at > desk.now {
        until.at(matched_at);
        return Ok(None);
    }
    let tick = desk.board.ticks.get(&trade.body.symbol);
    let exit_without_price = trade.body.position.is_some()
        && !tick.is_some_and(|tick| paper::is_fresh(tick, desk.now, price_max_age_ms(desk)));
    if exit_without_price {
        // A protective exit waits for a usable price instead of being refused.
        return Ok(None);
    }
    let answer = venue.execute(trade, tick, desk.now);
    if matches!(answer, VenueAnswer::Unknown { .. }) && trade.state != TradeState::Submitting {
        // Nothing new is known, so nothing is recorded; it is asked again in a moment, not in the same instant.
        until.at(desk.now.plus_ms(UNKNOWN_AGAIN_MS));
        return Ok(None);
    }
    let events = settle::answer(state, trade, answer, &settle)?;
    Ok((!events.is_empty()).then_some(events))
}

pub(super) fn price_max_age_ms(desk: &Desk<'_>) -> i64 {
    i64::from(desk.settings.market.price_max_age_seconds) * 1_000
}

/// Supervision of open positions, then resting orders, then stops of what those fills made. `done` is what earlier
/// commits for this price did; a stop that moved with it is judged from the next price on.
pub(super) fn at_price(
    state: &State,
    tick: &PriceTick,
    done: &mut PriceDone,
    venue: &mut dyn Venue,
    desk: &Desk<'_>,
) -> Result<Option<Work>, Violation> {
    let Some(settle) = settle_desk(desk, tick.symbol) else { return Ok(None) };
    for position in state.positions.values().filter(|position| position.symbol == tick.symbol) {
        let verdict = if done.moved.contains(&position.id) {
            Verdict::Hold
        } else if done.filled.contains(&position.id) {
            let stopped = supervise::same_candle_stop(position, tick, &desk.settings.execution);
            stopped.map_or(Verdict::Hold, Verdict::Exit)
        } else {
            supervise::supervise(position, tick, &desk.settings.execution, price_max_age_ms(desk), desk.now)
        };
        match verdict {
            Verdict::Hold => {}
            Verdict::Move(event) => {
                done.moved.push(position.id);
                return Ok(Some(Work { events: vec![event], corr: position.id.to_string(), cause: "price".into() }));
            }
            Verdict::Exit(call) => return exit_now(state, &call, venue, desk, &settle).map(Some),
        }
    }
    if venue.remote().is_some() {
        // What rests elsewhere is matched there.
        return Ok(None);
    }
    for trade in state.trades.values().filter(|trade| trade.body.symbol == tick.symbol && is_limit(trade)) {
        if !matches!(trade.state, TradeState::Acked | TradeState::Partial) {
            continue;
        }
        let answer = venue.execute(trade, Some(tick), desk.now);
        let answered = settle::answer(state, trade, answer, &settle);
        let events = answered.or_else(|violation| manual::hand_over(trade, violation))?;
        if events.is_empty() {
            continue;
        }
        for event in &events {
            if let Event::PositionOpened { position } | Event::PositionChanged { position } = event {
                done.filled.push(position.id);
            }
        }
        let Next::Commit(work) = commit(trade, events) else { continue };
        return Ok(Some(work));
    }
    Ok(None)
}

/// An exit whose price is the evidence that triggered it: intent, submission and fill are one commit.
pub(super) fn exit_now(
    state: &State,
    call: &ExitCall,
    venue: &mut dyn Venue,
    desk: &Desk<'_>,
    settle: &settle::Desk<'_>,
) -> Result<Work, Violation> {
    let held = state.positions.get(&call.position);
    let position = held.ok_or_else(|| Violation(format!("position {} is not open", call.position)))?;
    let rules = rules(desk, position.symbol)?;
    let purpose = intent::ExitFor::Cause(call.cause);
    let trade = intent::exit(state.meta.store, position, purpose, position.quantity, &rules, desk.now)?;
    if venue.remote().is_some() {
        // What leaves the process leaves after a commit of its own.
        let events = vec![Event::TradeIntent { trade: Box::new(trade) }];
        return Ok(Work { events, corr: position.id.to_string(), cause: format!("{:?}", call.cause).to_lowercase() });
    }
    let events = settle::at_once(state, trade, venue, Some(&call.price), call.evidence.as_deref(), settle)?;
    Ok(Work { events, corr: position.id.to_string(), cause: format!("{:?}", call.cause).to_lowercase() })
}

fn plan_work(
    state: &State,
    told: &mut Option<TradeKey>,
    desk: &Desk<'_>,
    until: &mut Until,
) -> Result<Option<Work>, Violation> {
    let Some(plan) = state.plans.values().find(|plan| plan.state == PlanState::Active) else { return Ok(None) };
    let gate = legs::gate(state.coordinator.state, desk.level);
    let events = match legs::step(plan, desk.now, &desk.settings.legs, gate) {
        legs::LegAction::Nothing(at) => {
            if let Some(at) = at {
                until.at(at);
            }
            return Ok(None);
        }
        legs::LegAction::Wait(at) => {
            until.at(at);
            return Ok(None);
        }
        legs::LegAction::Deferred(_) => return Ok(None),
        legs::LegAction::AskOperator(leg) => {
            // A plan that is not answered expires one spacing after its last leg.
            let end = plan.legs.iter().map(|leg| leg.due_at).max().map(|last| last.plus_ms(plan.spacing_ms + 1));
            end.into_iter().for_each(|at| until.at(at));
            if told.replace(leg) == Some(leg) {
                return Ok(None);
            }
            let facts = [("plan", plan.id.to_string()), ("leg", leg.to_string())];
            let facts = facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            vec![Event::Noted { what: legs::ASKS_OPERATOR.to_owned(), facts }]
        }
        legs::LegAction::Complete => vec![leg_orders::completion(plan)],
        legs::LegAction::Commit(event) => vec![event],
        legs::LegAction::Execute(keys) => leg_events(state, plan, &keys, desk)?,
    };
    let work = Work { events, corr: plan.id.to_string(), cause: "plan".into() };
    Ok((!work.events.is_empty()).then_some(work))
}

fn leg_events(
    state: &State,
    plan: &crate::model::Plan,
    keys: &[TradeKey],
    desk: &Desk<'_>,
) -> Result<Vec<Event>, Violation> {
    let max_age = price_max_age_ms(desk);
    // A leg of a symbol whose prices have stopped waits, as one without a price.
    let fresh =
        |tick: &&PriceTick| paper::is_fresh(tick, desk.now, max_age) && !desk.board.silent.contains(&tick.symbol);
    let prices: BTreeMap<Symbol, PriceTick> =
        desk.board.ticks.values().filter(fresh).map(|tick| (tick.symbol, *tick)).collect();
    let leg_desk = leg_orders::LegDesk {
        execution: &desk.settings.execution,
        rules: &desk.settings.market.symbol,
        prices: &prices,
        now: desk.now,
    };
    let mut events = Vec::new();
    for order in leg_orders::orders(state, plan, keys, &leg_desk)? {
        match order {
            leg_orders::LegOrder::Intent(trade) => events.push(Event::TradeIntent { trade }),
            leg_orders::LegOrder::Refused(refused) => events.extend(refused),
            leg_orders::LegOrder::NoPrice(_) => {}
        }
    }
    Ok(events)
}

/// The time exit, when no price happens to arrive at its instant.
fn held_too_long(
    state: &State,
    venue: &mut dyn Venue,
    desk: &Desk<'_>,
    until: &mut Until,
) -> Result<Option<Work>, Violation> {
    let hours = desk.settings.execution.max_holding_hours;
    if hours == 0 {
        return Ok(None);
    }
    for position in state.positions.values().filter(|position| position.exiting.is_none()) {
        let due = position.opened_at.plus_ms(i64::from(hours) * crate::model::time::HOUR_MS);
        if due > desk.now {
            until.at(due);
            continue;
        }
        let Some(tick) = desk.board.ticks.get(&position.symbol) else { continue };
        let now_tick = PriceTick { range: None, ..*tick };
        let verdict =
            supervise::supervise(position, &now_tick, &desk.settings.execution, price_max_age_ms(desk), desk.now);
        if let (Verdict::Exit(call), Some(settle)) = (verdict, settle_desk(desk, position.symbol)) {
            return exit_now(state, &call, venue, desk, &settle).map(Some);
        }
    }
    Ok(None)
}

/// Whether a batch sends an order that may leave while RUNNING only (invariant 7): any that does not reduce a position.
pub fn needs_running(state: &State, events: &[Event]) -> bool {
    events.iter().any(|event| {
        let Event::TradeSubmitting { trade_key, .. } = event else { return false };
        state.trades.get(trade_key).is_some_and(|trade| trade.body.position.is_none())
    })
}

/// The legs a batch takes to be still planned, with their plan. The coordinator cancels and defers legs too; whoever
/// commits first wins, and the other looks again.
pub fn claimed_legs(state: &State, events: &[Event]) -> Vec<(Uuid, TradeKey)> {
    let planned = |plan: &Uuid| {
        let legs = state.plans.get(plan).into_iter().flat_map(|plan| plan.legs.iter().map(move |leg| (plan.id, leg)));
        legs.filter(|(_, leg)| leg.state == TradeState::Planned).map(|(plan, leg)| (plan, leg.key))
    };
    let mut claimed = Vec::new();
    for event in events {
        match event {
            Event::TradeIntent { trade } if trade.kind == TradeKind::Rebalance => {
                let plan = state.plans.values().find(|plan| plan.legs.iter().any(|leg| leg.key == trade.key));
                claimed.extend(plan.map(|plan| (plan.id, trade.key)));
            }
            Event::LegsRespread { plan, due } => claimed.extend(due.keys().map(|leg| (*plan, *leg))),
            Event::PlanSuperseded { plan, .. } | Event::PlanExpired { plan } => claimed.extend(planned(plan)),
            Event::LegsCancelled { plan, legs, .. } => claimed.extend(legs.iter().map(|leg| (*plan, *leg))),
            _ => {}
        }
    }
    claimed
}

#[cfg(test)]
#[path = "work_tests.rs"]
mod tests;
