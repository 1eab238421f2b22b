//! What a fill does to positions: open, add, reduce, close. A position is known by its symbol and side, so that all
//! fills of an entry, and later entries of the same side, build one position; the opposite side reduces first.

use super::{Violation, ledger, paper::VenueFill};
use crate::model::{
    ClosedPart, ClosedPosition, Event, ExitCause, Money, Position, PositionId, PositionSide, Side, State, Symbol,
    Trade, TradeKey, Trailing, Ts,
};

/// What a fill means for positions and cost.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Booked {
    /// At most one position event.
    pub event: Option<Event>,
    /// Sells: what had been paid for the quantity, quote units.
    pub cost: Money,
    /// The result, when the fill closed a position.
    pub closed: Option<ClosedPosition>,
}

/// The open position of `symbol` on `side`; the oldest when there are several.
pub fn find(state: &State, symbol: Symbol, side: PositionSide) -> Option<&Position> {
    state.positions.values().find(|position| position.symbol == symbol && position.side == side)
}

/// The position a fill of this trade reduces: the one an exit names, or the one an opposite entry meets first.
fn reduced<'a>(state: &'a State, trade: &Trade) -> Result<Option<&'a Position>, Violation> {
    if let Some(id) = trade.body.position {
        let held = state.positions.get(&id);
        return held.map(Some).ok_or_else(|| Violation(format!("position {id} is not open")));
    }
    let opposite = match trade.body.side {
        Side::Buy => PositionSide::Short,
        Side::Sell => PositionSide::Long,
    };
    Ok(if trade.is_entry() { find(state, trade.body.symbol, opposite) } else { None })
}

/// Books one fill. `quote_rate` is one quote unit in the account currency.
///
/// # Errors
/// An exit of a position that is not open or smaller than the fill, and a sale that would open a short on spot.
pub fn book(state: &State, trade: &Trade, fill: &VenueFill, quote_rate: Money, now: Ts) -> Result<Booked, Violation> {
    if let Some(position) = reduced(state, trade)? {
        return reduce(position, trade, fill, quote_rate, now);
    }
    if !trade.is_entry() {
        let cost = match trade.body.side {
            Side::Buy => Money::ZERO,
            Side::Sell => ledger::inventory_cost_out(state, trade.body.symbol, fill.quantity),
        };
        return Ok(Booked { cost, ..Booked::default() });
    }
    if trade.body.side == Side::Sell {
        return Err(Violation(format!("trade {} would open a short on spot", trade.key.short())));
    }
    let position = match find(state, trade.body.symbol, PositionSide::Long) {
        Some(held) => Event::PositionChanged { position: Box::new(added(held, trade, fill)) },
        None => Event::PositionOpened { position: Box::new(opened(state, trade, fill, now)) },
    };
    Ok(Booked { event: Some(position), ..Booked::default() })
}

fn opened(state: &State, trade: &Trade, fill: &VenueFill, now: Ts) -> Position {
    Position {
        id: PositionId(state.account.last_position.0 + 1),
        symbol: trade.body.symbol,
        side: PositionSide::Long,
        quantity: fill.quantity,
        cost: fill.value,
        leverage: trade.body.leverage,
        stop: trade.body.stop,
        target: trade.body.target,
        trailing: Trailing::default(),
        opened_at: now,
        fees: fill.fee,
        realised: Money::ZERO,
        trades: vec![trade.key],
        exit_seq: 0,
        exiting: None,
        past: ClosedPart::default(),
    }
}

/// The newest entry's target holds; of two stops the more protective one, so that adding never loosens the first.
fn added(held: &Position, trade: &Trade, fill: &VenueFill) -> Position {
    let mut position = held.clone();
    position.quantity += fill.quantity;
    position.cost += fill.value;
    position.fees += fill.fee;
    if !position.trades.contains(&trade.key) {
        position.trades.push(trade.key);
        position.stop = position.stop.max(trade.body.stop);
        position.target = trade.body.target.or(position.target);
    }
    position
}

fn reduce(held: &Position, trade: &Trade, fill: &VenueFill, quote_rate: Money, now: Ts) -> Result<Booked, Violation> {
    if fill.quantity > held.quantity {
        return Err(Violation(format!(
            "a fill of {} exceeds position {} of {}",
            fill.quantity, held.id, held.quantity
        )));
    }
    let cost = ledger::cost_out(held.quantity, held.cost, fill.quantity);
    let gross = match held.side {
        PositionSide::Long => fill.value - cost,
        PositionSide::Short => cost - fill.value,
    };
    let mut position = held.clone();
    position.quantity -= fill.quantity;
    position.cost -= cost;
    position.realised += gross;
    position.fees += fill.fee;
    position.past.quantity += fill.quantity;
    position.past.cost += cost;
    if !position.trades.contains(&trade.key) {
        position.trades.push(trade.key);
    }
    if !position.quantity.is_zero() {
        let event = Some(Event::PositionChanged { position: Box::new(position) });
        return Ok(Booked { event, cost, closed: None });
    }
    let closed = result(&position, trade.body.exit_cause.unwrap_or(ExitCause::Signal), quote_rate, now);
    let event = Some(Event::PositionClosed { closed: Box::new(closed.clone()) });
    Ok(Booked { event, cost, closed: Some(closed) })
}

/// The result of a position of which nothing is left.
fn result(position: &Position, cause: ExitCause, quote_rate: Money, now: Ts) -> ClosedPosition {
    let ClosedPart { quantity, cost } = position.past;
    let proceeds = match position.side {
        PositionSide::Long => cost + position.realised,
        PositionSide::Short => cost - position.realised,
    };
    let mean = |value: Money| value.checked_div(quantity).unwrap_or_default();
    let net = position.realised - position.fees;
    ClosedPosition {
        id: position.id,
        symbol: position.symbol,
        side: position.side,
        quantity,
        entry: mean(cost),
        exit: mean(proceeds),
        gross: position.realised,
        fees: position.fees,
        net,
        net_usd: net.checked_mul(quote_rate).unwrap_or_default(),
        opened_at: position.opened_at,
        closed_at: now,
        cause,
    }
}

/// Living orders that lose their purpose with the position: its other exits, and the resting rest of its entries.
pub fn siblings(state: &State, closed: PositionId, by: TradeKey) -> Vec<Event> {
    let built: &[TradeKey] = state.positions.get(&closed).map_or(&[], |position| &position.trades);
    let purpose_gone = |t: &&Trade| t.key != by && (t.body.position == Some(closed) || built.contains(&t.key));
    let cancellable = |t: &&Trade| t.state.may_become(crate::model::TradeState::Cancelled);
    let reason = format!("position {closed} is closed");
    state
        .trades
        .values()
        .filter(purpose_gone)
        .filter(cancellable)
        .filter(|t| t.remote.as_ref().is_none_or(|remote| remote.cancel.is_none()))
        .map(|t| t.cancelled(&reason))
        .collect()
}

#[cfg(test)]
#[path = "positions_tests.rs"]
mod tests;
