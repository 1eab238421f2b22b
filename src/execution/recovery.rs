//! What a boot does with every trade it finds (durability C5, paper rows). Pure and re-entrant: after the steps were
//! carried out, asking again gives only what still waits.

use super::paper;
use crate::{
    model::{Event, OrderType, State, Trade, TradeKey, TradeState, Ts},
    settings::ExecutionSettings,
};

/// One thing to do for one trade, in order of the keys.
#[derive(Clone, PartialEq, Debug)]
pub enum RecoveryStep {
    /// Commit this event: the trade is too old, or settles.
    Commit(Event),
    /// INTENT: check risk and freshness again, then submit.
    Recheck(TradeKey),
    /// SUBMITTING or UNKNOWN at the paper venue: nothing left the process, execute again at a fresh price.
    Execute(TradeKey),
    /// NOT_EXECUTED: submit again at this instant if the state allows it.
    Retry(TradeKey, Ts),
    /// The order rests again.
    Rest(TradeKey),
    /// Only an operator leaves MANUAL.
    Operator(TradeKey),
}

/// The steps of a boot. `max_age_ms` is the oldest usable decision (120 s).
pub fn steps(state: &State, execution: &ExecutionSettings, max_age_ms: i64, now: Ts) -> Vec<RecoveryStep> {
    state.trades.values().filter_map(|trade| step(trade, execution, max_age_ms, now)).collect()
}

fn step(trade: &Trade, execution: &ExecutionSettings, max_age_ms: i64, now: Ts) -> Option<RecoveryStep> {
    let key = trade.key;
    let too_old = now.since_ms(trade.created_at) > max_age_ms;
    let limit = matches!(trade.body.order_type, OrderType::Limit { .. });
    Some(match trade.state {
        TradeState::Intent if too_old => expire(trade, max_age_ms, now),
        TradeState::Intent => RecoveryStep::Recheck(key),
        TradeState::Submitting | TradeState::Unknown => RecoveryStep::Execute(key),
        TradeState::NotExecuted if trade.attempt >= execution.max_attempts_definite => {
            let reason = format!("attempts_exhausted: {} attempts", trade.attempt);
            RecoveryStep::Commit(Event::TradeRejected { trade_key: key, reason })
        }
        TradeState::NotExecuted if too_old => expire(trade, max_age_ms, now),
        TradeState::NotExecuted => RecoveryStep::Retry(key, trade.retry_at.unwrap_or(now).max(now)),
        TradeState::Acked | TradeState::Partial if limit && paper::is_expired(trade, now) => {
            let reason = format!("its time ended while the program was down, {} filled", trade.filled);
            RecoveryStep::Commit(Event::TradeExpired { trade_key: key, reason })
        }
        TradeState::Acked => RecoveryStep::Rest(key),
        TradeState::Partial if limit => RecoveryStep::Rest(key),
        // The rest of a market order is filled at the next price.
        TradeState::Partial => RecoveryStep::Execute(key),
        TradeState::Filled => RecoveryStep::Commit(Event::TradeSettled { trade_key: key }),
        TradeState::Manual => RecoveryStep::Operator(key),
        // A PLANNED leg lives in its plan, where lateness decides; terminal trades are not in the state.
        _ => return None,
    })
}

fn expire(trade: &Trade, max_age_ms: i64, now: Ts) -> RecoveryStep {
    let (age, limit) = (now.since_ms(trade.created_at) / 1_000, max_age_ms / 1_000);
    let reason = format!("the decision is {age} s old, the limit is {limit} s");
    RecoveryStep::Commit(Event::TradeExpired { trade_key: trade.key, reason })
}

#[cfg(test)]
#[path = "recovery_tests.rs"]
mod tests;
