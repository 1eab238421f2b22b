//! From a venue's answer to the events of one commit: fill, position, streak, cooldown, siblings and SETTLED together.
//!
//! FILLED is never alone on disk (C4). A definite failure waits 5, 10, 20 s and ends after the configured attempts.

use super::{
    Violation, ledger, manual,
    paper::{self, VenueFill},
    positions,
    venue::{Venue, VenueAnswer},
};
use crate::{
    model::{AMOUNT_MAX, Event, Money, OrderType, PriceTick, Side, State, TimeInForce, Trade, TradeState, Ts},
    risk::{RiskRules, cooldown},
    settings::ExecutionSettings,
};

/// How long the venue has to answer, milliseconds.
pub const VENUE_DEADLINE_MS: i64 = 10_000;

/// What settling needs to know besides the state.
#[derive(Clone, Copy)]
pub struct Desk<'a> {
    /// Attempts and waits.
    pub execution: &'a ExecutionSettings,
    /// Streaks, cooldowns and order errors.
    pub rules: &'a RiskRules,
    /// One quote unit of the trade's symbol in the account currency.
    pub quote_rate: Money,
    /// The instant of the step.
    pub now: Ts,
}

/// SUBMITTING with the next attempt's number, durable before the venue is asked.
pub fn submitting(trade: &Trade, now: Ts) -> Event {
    Event::TradeSubmitting {
        trade_key: trade.key,
        attempt: trade.attempt + 1,
        deadline: now.plus_ms(VENUE_DEADLINE_MS),
        reference: None,
    }
}

/// Intent, submission and the answer as one commit. Only for the paper venue, where nothing leaves the process; used
/// for triggered exits, whose price is the evidence that triggered them.
///
/// # Errors
/// See [`answer`].
pub fn at_once(
    state: &State,
    trade: Trade,
    venue: &mut dyn Venue,
    price: Option<&PriceTick>,
    evidence: Option<&str>,
    desk: &Desk<'_>,
) -> Result<Vec<Event>, Violation> {
    let mut events = vec![Event::TradeIntent { trade: Box::new(trade.clone()) }, submitting(&trade, desk.now)];
    let submitted = Trade { state: TradeState::Submitting, attempt: trade.attempt + 1, ..trade };
    let mut given = venue.execute(&submitted, price, desk.now);
    if let VenueAnswer::Filled(fill) = &mut given {
        fill.evidence = evidence.map(str::to_owned);
    }
    let answered = answer(state, &submitted, given, desk);
    events.extend(answered.or_else(|violation| manual::hand_over(&submitted, violation))?);
    Ok(events)
}

/// The events of a venue's answer to `trade` (SUBMITTING, or resting). Empty when nothing changed.
///
/// # Errors
/// A fill the account or the positions contradict.
pub fn answer(state: &State, trade: &Trade, answer: VenueAnswer, desk: &Desk<'_>) -> Result<Vec<Event>, Violation> {
    let trade_key = trade.key;
    let events = match answer {
        VenueAnswer::Filled(fill) => return filled(state, trade, fill, desk),
        VenueAnswer::TooEarly { .. } => Vec::new(),
        VenueAnswer::Resting { .. } if matches!(trade.state, TradeState::Acked | TradeState::Partial) => Vec::new(),
        VenueAnswer::Resting { expires_at } => {
            let mut events = vec![Event::TradeAcked { trade_key, expires_at }];
            events.extend(cooldown::on_order_success(&state.risk));
            events
        }
        VenueAnswer::Cancelled { reason } => vec![Event::TradeCancelled { trade_key, reason }],
        // An order that filled in part cannot be refused any more; what is left of it is dropped.
        VenueAnswer::Rejected { reason } if trade.state == TradeState::Partial => {
            vec![Event::TradeCancelled { trade_key, reason }]
        }
        VenueAnswer::Rejected { reason } => vec![Event::TradeRejected { trade_key, reason }],
        VenueAnswer::NotExecuted { reason } => not_executed(state, trade, reason, desk),
        VenueAnswer::Unknown { reason } => {
            let why = reason.clone();
            let mut events = vec![Event::TradeUnknown { trade_key, reason }];
            events.extend(cooldown::on_order_error(&state.risk, desk.rules, &why, desk.now));
            events
        }
    };
    Ok(events)
}

/// The events of one fill.
///
/// # Errors
/// A fill the account or the positions contradict.
pub(super) fn filled(state: &State, trade: &Trade, fill: VenueFill, desk: &Desk<'_>) -> Result<Vec<Event>, Violation> {
    let trade_key = trade.key;
    if fill.quantity > trade.remaining() {
        return Err(Violation(format!("a fill of {} exceeds the remaining {}", fill.quantity, trade.remaining())));
    }
    let locked = trade.lock.map_or(Money::ZERO, |lock| lock.amount);
    let spent = match trade.body.side {
        Side::Buy => fill.value + fill.fee,
        Side::Sell => fill.quantity,
    };
    // A fill somewhere else is a fact; whether the account wants to pay it is no longer a question.
    let stated = trade.state == TradeState::Manual;
    let fact = trade.remote.is_some() || stated;
    let beyond = ledger::beyond_lock(state, trade);
    if spent > locked && spent - locked > beyond {
        let reason = format!("{}: {spent} needed, {locked} locked", paper::INSUFFICIENT_FUNDS);
        if fact {
            let what = format!("a fill of {} at {} cannot be paid", fill.quantity, fill.price);
            return Err(Violation(format!("{what}: {reason}, {beyond} to spend beside it")));
        }
        return answer(state, trade, VenueAnswer::Rejected { reason }, desk);
    }
    let booked = positions::book(state, trade, &fill, desk.quote_rate, desk.now)?;
    let money = ledger::FillMoney {
        symbol: trade.body.symbol,
        side: trade.body.side,
        quantity: fill.quantity,
        value: fill.value,
        fee: fill.fee,
        cost: booked.cost,
        locked,
    };
    let postings = ledger::postings(&money);
    if let Some((asset, account, sum)) = state.account.overflow(&postings) {
        let reason = format!("{}: {account:?} of {asset} would be {sum} of {AMOUNT_MAX}", paper::AMOUNT_TOO_LARGE);
        if fact || trade.body.position.is_some() {
            return Err(Violation(format!("a fill of {} at {} cannot be booked: {reason}", fill.quantity, fill.price)));
        }
        return answer(state, trade, VenueAnswer::Rejected { reason }, desk);
    }
    if let Some((asset, left)) = state.account.overdrawn(&postings).filter(|_| fact) {
        let what = format!("a fill of {} at {} with a fee of {}", fill.quantity, fill.price, fill.fee);
        return Err(Violation(format!("{what} would leave {left} {asset}")));
    }
    let complete = fill.quantity == trade.remaining();
    let mut events = Vec::with_capacity(6);
    let limit = matches!(trade.body.order_type, OrderType::Limit { .. });
    if !complete && !stated && limit && trade.body.time_in_force == TimeInForce::Gtc && trade.acked_at.is_none() {
        // The remainder rests from now on; a fill raises the rank, so the rest is announced before it.
        events.push(Event::TradeAcked { trade_key, expires_at: Some(paper::expiry(trade, desk.execution)) });
    }
    events.push(Event::TradeFill {
        trade_key,
        fill_id: format!("{trade_key}:{}", trade.fills),
        symbol: trade.body.symbol,
        side: trade.body.side,
        quantity: fill.quantity,
        price: fill.price,
        value: fill.value,
        fee: fill.fee,
        liquidity: fill.liquidity,
        price_id: fill.price_id,
        evidence: fill.evidence,
        venue_fill: fill.venue_fill,
        postings,
    });
    events.extend(booked.event);
    if complete {
        events.push(Event::TradeSettled { trade_key });
    } else if trade.body.time_in_force == TimeInForce::Ioc && !fact {
        events.push(Event::TradeCancelled { trade_key, reason: "the rest did not fill at once (IOC)".into() });
    }
    if let Some(closed) = &booked.closed {
        events.extend(positions::siblings(state, closed.id, trade_key));
        events.extend(cooldown::on_close(&state.risk, desk.rules, closed.net_usd, desk.now));
    }
    events.extend(cooldown::on_order_success(&state.risk));
    Ok(events)
}

/// NOT_EXECUTED with the instant of the next attempt, or REJECTED(attempts_exhausted) after the last one.
fn not_executed(state: &State, trade: &Trade, reason: String, desk: &Desk<'_>) -> Vec<Event> {
    let why = reason.clone();
    let trade_key = trade.key;
    let mut events = if trade.attempt >= desk.execution.max_attempts_definite {
        let attempts = trade.attempt;
        vec![
            Event::TradeNotExecuted { trade_key, reason: reason.clone(), retry_at: None },
            Event::TradeRejected {
                trade_key,
                reason: format!("attempts_exhausted: {attempts} attempts, last: {reason}"),
            },
        ]
    } else {
        let waits = &desk.execution.retry_waits_seconds;
        let index = (trade.attempt.max(1) - 1) as usize;
        let wait = waits.get(index).or(waits.last()).copied().unwrap_or_default();
        let retry_at = Some(desk.now.plus_ms(i64::from(wait) * 1_000));
        vec![Event::TradeNotExecuted { trade_key, reason, retry_at }]
    };
    events.extend(cooldown::on_order_error(&state.risk, desk.rules, &why, desk.now));
    events
}

/// The end of a resting order whose time is over.
pub fn expired(trade: &Trade, now: Ts) -> Option<Event> {
    let resting = matches!(trade.state, TradeState::Acked | TradeState::Partial)
        && matches!(trade.body.order_type, OrderType::Limit { .. });
    (resting && paper::is_expired(trade, now)).then(|| Event::TradeExpired {
        trade_key: trade.key,
        reason: format!("not filled within its time ({} of {} filled)", trade.filled, trade.body.quantity),
    })
}

#[cfg(test)]
#[path = "settle_tests.rs"]
mod tests;
