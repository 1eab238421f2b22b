//! What must hold after every commit while the program runs (resilience §6): no negative balance, conservation, open
//! orders equal to what the ledger locks, exposure made of what exists, no entry order while not RUNNING. Pure.

use std::fmt;

use crate::{
    execution::ledger,
    model::{CoordinatorState, Event, State},
};

/// Which object contradicts itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Object {
    /// Money; nothing may go on with it.
    Account,
    /// What risk counts with.
    Exposure,
    /// Who may trade.
    Gate,
}

/// A broken invariant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Broken {
    /// Of what.
    pub object: Object,
    /// Both sides of the contradiction.
    pub what: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let object = match self.object {
            Object::Account => "account",
            Object::Exposure => "exposure",
            Object::Gate => "gate",
        };
        write!(f, "{object}: {}", self.what)
    }
}

/// Whether `event` can change what [`check`] looks at.
pub const fn concerns(event: &Event) -> bool {
    matches!(
        event,
        Event::Deposit { .. }
            | Event::RiskApproved { .. }
            | Event::TradeIntent { .. }
            | Event::TradeFill { .. }
            | Event::TradeSettled { .. }
            | Event::TradeRejected { .. }
            | Event::TradeRefused { .. }
            | Event::TradeExpired { .. }
            | Event::TradeNotExecuted { .. }
            | Event::TradeCancelled { .. }
            | Event::PositionOpened { .. }
            | Event::PositionChanged { .. }
            | Event::PositionClosed { .. }
    )
}

/// Checks one durable state.
///
/// # Errors
/// The first contradiction.
pub fn check(state: &State) -> Result<(), Broken> {
    ledger::check_conservation(state).map_err(|found| Broken { object: Object::Account, what: found.0 })?;
    let exposure = |what: String| Err(Broken { object: Object::Exposure, what });
    for key in state.risk.reservations.keys() {
        if !state.trades.contains_key(key) {
            return exposure(format!("exposure is reserved for trade {}, which is no living one", key.short()));
        }
    }
    for (id, position) in &state.positions {
        if position.quantity.is_sign_negative() || position.quantity.is_zero() {
            return exposure(format!("position {id} is open with {} of its base", position.quantity));
        }
    }
    Ok(())
}

/// Follows who may trade through the records in their order, which the newest state may be ahead of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gate(CoordinatorState);

impl Gate {
    /// Begins at this state.
    pub const fn new(state: CoordinatorState) -> Gate {
        Gate(state)
    }

    /// Whether [`Gate::take`] has anything to do with an event.
    pub const fn concerns(event: &Event) -> bool {
        matches!(event, Event::StateChanged { .. } | Event::TradeSubmitting { .. })
    }

    /// Takes one record in.
    ///
    /// # Errors
    /// An order left while the state forbade it. One that reduces a position, by the newest `state`, may always leave.
    pub fn take(&mut self, event: &Event, state: &State) -> Result<(), Broken> {
        match event {
            Event::StateChanged { to, .. } => self.0 = *to,
            Event::TradeSubmitting { trade_key, .. } if self.0 != CoordinatorState::Running => {
                let reduces = state.trades.get(trade_key).is_none_or(|trade| trade.body.position.is_some());
                if !reduces {
                    let what = format!("trade {} was sent while {}", trade_key.short(), self.0.name());
                    return Err(Broken { object: Object::Gate, what });
                }
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "invariants_tests.rs"]
mod tests;
