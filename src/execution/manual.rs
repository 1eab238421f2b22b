//! Trades left to the operator (MANUAL): how a trade gets there when what happened contradicts the account, and how the
//! operator's word is booked. Pure; the trade stays where it is until somebody who can look says what became of it.

use super::{Violation, ledger, paper::VenueFill, settle};
use crate::model::{AMOUNT_MAX, Event, Liquidity, ManualFill, ManualResolution, Money, Qty, State, Trade, TradeState};

/// What contradicts the account is nobody's to repair by itself: the trade waits for the operator, with the damage
/// named, once. Everything else goes on, and so does the next start.
///
/// # Errors
/// The violation itself, when nothing has left for the venue yet: then the program is wrong and not the world.
pub fn hand_over(trade: &Trade, Violation(damage): Violation) -> Result<Vec<Event>, Violation> {
    if !trade.state.may_become(TradeState::Manual) {
        return Err(Violation(damage));
    }
    Ok(vec![Event::TradeManual { trade_key: trade.key, reason: damage }])
}

/// Books what the operator stated and ends the trade; empty when nothing was stated yet.
pub fn carry_out(state: &State, trade: &Trade, desk: &settle::Desk<'_>) -> Vec<Event> {
    let Some(resolution) = &trade.resolution else { return Vec::new() };
    let reason = |Violation(damage)| format!("what the operator stated does not fit: {damage}");
    booked(state, trade, resolution, desk).unwrap_or_else(|violation| {
        // The account changed between the command and now: the trade waits for another word.
        vec![Event::TradeManual { trade_key: trade.key, reason: reason(violation) }]
    })
}

/// What a resolution comes to, for the command that states it and for execution that books it.
///
/// # Errors
/// A fill that is no fill, is larger than what is open, or that the account cannot pay.
pub fn booked(
    state: &State,
    trade: &Trade,
    resolution: &ManualResolution,
    desk: &settle::Desk<'_>,
) -> Result<Vec<Event>, Violation> {
    let trade_key = trade.key;
    let Some(fill) = resolution.fill else {
        let reason = format!("the operator: {resolution}");
        return Ok(vec![Event::TradeExpired { trade_key, reason }]);
    };
    let mut events = settle::filled(state, trade, stated(trade, resolution, fill)?, desk)?;
    if fill.quantity < trade.remaining() {
        let open = trade.remaining() - fill.quantity;
        events
            .push(Event::TradeExpired { trade_key, reason: format!("the operator: {resolution}; {open} are dropped") });
    }
    Ok(events)
}

fn stated(trade: &Trade, resolution: &ManualResolution, fill: ManualFill) -> Result<VenueFill, Violation> {
    if fill.quantity <= Qty::ZERO || fill.price <= Money::ZERO || fill.fee < Money::ZERO {
        return Err(Violation("quantity and price are above zero, a fee is not below it".to_owned()));
    }
    let value = ledger::value_of(fill.quantity, fill.price);
    // Beyond what the books hold, sums of both could not even be represented.
    let sane = |amount: &Money| *amount <= AMOUNT_MAX;
    let value = value.filter(|value| sane(value) && sane(&fill.fee));
    let value = value.ok_or_else(|| {
        Violation(format!("{} at {} with a fee of {} is too large", fill.quantity, fill.price, fill.fee))
    })?;
    let id = format!("operator:{}", resolution.source);
    Ok(VenueFill {
        quantity: fill.quantity,
        price: fill.price,
        value,
        fee: fill.fee,
        liquidity: Liquidity::Taker,
        price_id: id.clone(),
        evidence: Some(resolution.evidence.clone()),
        venue_fill: trade.remote.is_some().then(|| id.as_str().into()),
    })
}

#[cfg(test)]
#[path = "manual_tests.rs"]
mod tests;
