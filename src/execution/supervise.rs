//! Supervision of one position at one price: stop, then target, then trailing and break-even, then time.
//!
//! It runs on every accepted price and at least every 5 s, in every state and level; it reads no gate. Evidence of a
//! closed candle counts by whom it helps: an adverse extreme from every candle that overlaps the position's life, a
//! favourable one only from candles that started when the position existed. Order at one price: first supervision of
//! the open positions, then the resting orders, then [`same_candle_stop`] of the positions those fills made.

use super::paper;
use crate::{
    model::{
        Decimal, Event, ExitCause, Money, Position, PositionId, PositionSide, Price, PriceRange, PriceTick, Trailing,
        Ts, time::HOUR_MS,
    },
    settings::{BreakEvenSettings, ExecutionSettings, TrailingSettings},
};

/// An exit to make now, at the price that triggered it.
#[derive(Clone, PartialEq, Debug)]
pub struct ExitCall {
    /// Which position; all of it.
    pub position: PositionId,
    /// Why.
    pub cause: ExitCause,
    /// What the market order is filled from, before slippage.
    pub price: PriceTick,
    /// What proves it, when it is not the current price.
    pub evidence: Option<String>,
}

/// What a price means for a position.
#[derive(Clone, PartialEq, Debug)]
pub enum Verdict {
    /// Nothing.
    Hold,
    /// The stop or the trailing state changed.
    Move(Event),
    /// The position is to be closed.
    Exit(ExitCall),
}

/// Judges one position. A price that is stale, of another symbol or older than the position fires nothing, and neither
/// does any price while an exit is under way.
pub fn supervise(
    position: &Position,
    tick: &PriceTick,
    execution: &ExecutionSettings,
    price_max_age_ms: i64,
    now: Ts,
) -> Verdict {
    let usable = tick.symbol == position.symbol && tick.at >= position.opened_at;
    if !usable || position.exiting.is_some() || !paper::is_fresh(tick, now, price_max_age_ms) {
        return Verdict::Hold;
    }
    if let Some(call) = stop_hit(position, tick, position.opened_at < tick.at, execution) {
        return Verdict::Exit(call);
    }
    if let Some(call) = target_hit(position, tick) {
        return Verdict::Exit(call);
    }
    let held_ms = now.since_ms(position.opened_at);
    if execution.max_holding_hours > 0 && held_ms >= i64::from(execution.max_holding_hours) * HOUR_MS {
        return Verdict::Exit(call(position, ExitCause::Time, tick.price, tick, None));
    }
    moved(position, tick.price, execution).map_or(Verdict::Hold, Verdict::Move)
}

/// A resting order that filled inside a candle opened its position before the candle's end: the candle's adverse
/// extreme counts for it. The way to a stop leads through the limit, so the stop came after the fill.
pub fn same_candle_stop(position: &Position, tick: &PriceTick, execution: &ExecutionSettings) -> Option<ExitCall> {
    if tick.symbol != position.symbol || position.exiting.is_some() {
        return None;
    }
    stop_hit(position, tick, true, execution)
}

fn call(position: &Position, cause: ExitCause, price: Price, tick: &PriceTick, evidence: Option<String>) -> ExitCall {
    ExitCall { position: position.id, cause, price: PriceTick { price, range: None, ..*tick }, evidence }
}

/// At or beyond the level against the holder.
fn at_or_worse(side: PositionSide, price: Price, level: Price) -> bool {
    match side {
        PositionSide::Long => price <= level,
        PositionSide::Short => price >= level,
    }
}

/// The price that is worse for the holder who closes.
pub(super) fn worse(side: PositionSide, a: Price, b: Price) -> Price {
    match side {
        PositionSide::Long => a.min(b),
        PositionSide::Short => a.max(b),
    }
}

/// The adverse extreme of a candle.
pub(super) fn adverse(side: PositionSide, range: &PriceRange) -> Price {
    match side {
        PositionSide::Long => range.low,
        PositionSide::Short => range.high,
    }
}

fn stop_hit(position: &Position, tick: &PriceTick, overlaps: bool, execution: &ExecutionSettings) -> Option<ExitCall> {
    let stop = position.stop?;
    let side = position.side;
    let cause = stop_cause(position, &execution.trailing);
    if let Some(range) = tick.range.filter(|range| overlaps && at_or_worse(side, adverse(side, range), stop)) {
        // The market opened beyond the stop only matters when the position existed at the open.
        let gap = range.from >= position.opened_at;
        let price = if gap { worse(side, stop, range.open) } else { stop };
        let reached = adverse(side, &range);
        let evidence = format!("candle from {} reached {reached}, stop {stop}", range.from);
        return Some(call(position, cause, price, tick, Some(evidence)));
    }
    at_or_worse(side, tick.price, stop).then(|| call(position, cause, tick.price, tick, None))
}

/// A stop that the trailing rule put where it is ends as `trailing`.
fn stop_cause(position: &Position, trailing: &TrailingSettings) -> ExitCause {
    let level = position.trailing.extreme.and_then(|extreme| trailed(position.side, extreme, trailing));
    if position.trailing.active && level.is_some() && level == position.stop {
        ExitCause::Trailing
    } else {
        ExitCause::Stop
    }
}

fn target_hit(position: &Position, tick: &PriceTick) -> Option<ExitCall> {
    let target = position.target?;
    let reached = |price| at_or_worse(opposite(position.side), price, target);
    let favourable = |range: &PriceRange| match position.side {
        PositionSide::Long => range.high,
        PositionSide::Short => range.low,
    };
    let range = tick.range.filter(|range| range.from >= position.opened_at && reached(favourable(range)));
    if let Some(range) = range {
        let evidence = format!("candle from {} reached {}, target {target}", range.from, favourable(&range));
        return Some(call(position, ExitCause::Target, target, tick, Some(evidence)));
    }
    reached(tick.price).then(|| call(position, ExitCause::Target, tick.price, tick, None))
}

fn opposite(side: PositionSide) -> PositionSide {
    match side {
        PositionSide::Long => PositionSide::Short,
        PositionSide::Short => PositionSide::Long,
    }
}

/// Is the gain at `price` at least `percent` of the entry value? Exact: no division.
fn gained(position: &Position, price: Price, percent: Decimal) -> bool {
    let Some(value) = price.checked_mul(position.quantity).and_then(|v| v.checked_mul(Decimal::ONE_HUNDRED)) else {
        return false;
    };
    let scaled = |percent: Decimal| position.cost.checked_mul(Decimal::ONE_HUNDRED + percent);
    match position.side {
        PositionSide::Long => scaled(percent).is_some_and(|level| value >= level),
        PositionSide::Short => scaled(-percent).is_some_and(|level| value <= level),
    }
}

fn trailed(side: PositionSide, extreme: Price, trailing: &TrailingSettings) -> Option<Price> {
    let distance = extreme.checked_mul(trailing.distance_pct)?.checked_div(Decimal::ONE_HUNDRED)?;
    Some(match side {
        PositionSide::Long => extreme - distance,
        PositionSide::Short => extreme + distance,
    })
}

/// The better of the present stop and `level`; a stop never moves against the holder nor beyond the price.
fn tightened(position: &Position, stop: Option<Price>, level: Price, price: Price) -> Option<Price> {
    let beyond = at_or_worse(position.side, price, level);
    match stop {
        _ if beyond => stop,
        Some(stop) => Some(worse(opposite(position.side), stop, level)),
        None => Some(level),
    }
}

/// Trailing and break-even; only the current price counts, never an extreme of a candle.
fn moved(position: &Position, price: Price, execution: &ExecutionSettings) -> Option<Event> {
    let mut stop = position.stop;
    let mut trailing = position.trailing;
    if execution.trailing.enabled {
        (stop, trailing) = trail(position, price, &execution.trailing, stop);
    }
    if execution.break_even.enabled
        && gained(position, price, execution.break_even.activation_pct)
        && let Some(level) = break_even(position, &execution.break_even)
    {
        stop = tightened(position, stop, level, price);
    }
    let changed = stop != position.stop || trailing != position.trailing;
    changed.then_some(Event::StopMoved { position: position.id, stop, trailing })
}

/// Activates at the configured gain; the stop follows from the next new extreme on.
fn trail(
    position: &Position,
    price: Price,
    settings: &TrailingSettings,
    stop: Option<Price>,
) -> (Option<Price>, Trailing) {
    let before = position.trailing;
    if !before.active {
        let active = gained(position, price, settings.activation_pct);
        return (stop, if active { Trailing { active, extreme: Some(price) } } else { before });
    }
    if before.extreme.is_some_and(|extreme| at_or_worse(position.side, price, extreme)) {
        return (stop, before);
    }
    let stop = match trailed(position.side, price, settings) {
        Some(level) => tightened(position, stop, level, price),
        None => stop,
    };
    (stop, Trailing { active: true, extreme: Some(price) })
}

fn break_even(position: &Position, settings: &BreakEvenSettings) -> Option<Money> {
    let buffer = match position.side {
        PositionSide::Long => settings.buffer_pct,
        PositionSide::Short => -settings.buffer_pct,
    };
    let entry = position.cost.checked_div(position.quantity)?;
    let level = entry.checked_mul(Decimal::ONE_HUNDRED + buffer)?.checked_div(Decimal::ONE_HUNDRED)?;
    Some(level.round_dp(12).normalize())
}

#[cfg(test)]
#[path = "supervise_tests.rs"]
mod tests;
