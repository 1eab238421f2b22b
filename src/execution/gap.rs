//! What happened while nobody looked: while the program was down, judged from back-filled candles by
//! `restart_fill_policy`, and while it stood still, judged from the prices that had become too old to act on.
//!
//! Pure: candles in, steps out. Every step carries its evidence into the fill it causes.

use super::supervise::{ExitCall, adverse, worse};
use crate::{
    model::{Event, ExitCause, Position, PositionSide, PriceTick, State, Symbol},
    settings::RestartFillPolicy,
};

/// One thing to do for a gap, in order.
#[derive(Clone, PartialEq, Debug)]
pub enum GapStep {
    /// Close a position at a price worse than or equal to its stop.
    Exit(ExitCall),
    /// Commit this event (a cancel).
    Commit(Event),
    /// Treat this back-filled price like a live one at its own instant; fills carry `evidence`.
    Replay {
        /// The closed candle as a price.
        tick: PriceTick,
        /// For the fills it causes.
        evidence: String,
    },
}

/// The steps for one symbol. `candles` are the closed candles of the gap, oldest first, each as a price with its range;
/// `first` is the first new price after the gap.
///
/// * pessimistic: a stop crossed in the gap exits at the worse of stop and first new price; limits and targets are not
///   filled from the gap.
/// * replay: the candles in order; supervision takes the adverse extreme of each first.
/// * cancel: resting entries are cancelled; stops as pessimistic.
pub fn steps(
    state: &State,
    symbol: Symbol,
    candles: &[PriceTick],
    first: &PriceTick,
    policy: RestartFillPolicy,
) -> Vec<GapStep> {
    let own = candles.iter().filter(|tick| tick.symbol == symbol);
    match policy {
        RestartFillPolicy::Replay => own
            .map(|tick| GapStep::Replay {
                tick: *tick,
                evidence: format!("replay of the candle closed at {}", tick.at),
            })
            .collect(),
        RestartFillPolicy::Pessimistic => crossed_stops(state, symbol, candles, first).collect(),
        RestartFillPolicy::Cancel => {
            let cancels = super::intent::cancel_entries(state, Some(symbol), "restart_fill_policy = cancel");
            cancels.into_iter().map(GapStep::Commit).chain(crossed_stops(state, symbol, candles, first)).collect()
        }
    }
}

fn crossed_stops<'a>(
    state: &'a State,
    symbol: Symbol,
    candles: &'a [PriceTick],
    first: &'a PriceTick,
) -> impl Iterator<Item = GapStep> + 'a {
    state
        .positions
        .values()
        .filter(move |position| position.symbol == symbol && position.exiting.is_none())
        .filter_map(|position| crossed_stop(position, candles, first).map(GapStep::Exit))
}

/// The pessimistic exit of one position, or nothing when no candle of the gap crossed its stop.
pub fn crossed_stop(position: &Position, candles: &[PriceTick], first: &PriceTick) -> Option<ExitCall> {
    let stop = position.stop?;
    let crossed = |price| match position.side {
        PositionSide::Long => price <= stop,
        PositionSide::Short => price >= stop,
    };
    let (tick, reached) = candles
        .iter()
        .filter(|tick| tick.symbol == position.symbol && tick.at > position.opened_at)
        .map(|tick| (tick, tick.range.map_or(tick.price, |range| adverse(position.side, &range))))
        .find(|(_, reached)| crossed(*reached))?;
    let price = worse(position.side, stop, first.price);
    let evidence =
        format!("gap: the price of {} reached {reached}, stop {stop}, first new price {}", tick.at, first.price);
    Some(ExitCall {
        position: position.id,
        cause: ExitCause::Stop,
        price: PriceTick { price, range: None, ..*first },
        evidence: Some(evidence),
    })
}

/// Prices that were too old to act on when their turn came: the process stood still, or the feed told them late. A stop
/// they crossed is owed all the same, or standing still would make results better.
#[derive(Clone, Debug, Default)]
pub struct Missed(Vec<PriceTick>);

impl Missed {
    /// Keeps an old price that crossed a stop; at a fresh one the exit owed for those kept, at the worse of stop and fresh
    /// price. Asked again after each exit until there is none.
    pub fn look(&mut self, state: &State, tick: &PriceTick, is_fresh: bool) -> Option<ExitCall> {
        let held = || state.positions.values().filter(|held| held.symbol == tick.symbol && held.exiting.is_none());
        if !is_fresh {
            if held().any(|position| crossed_stop(position, std::slice::from_ref(tick), tick).is_some()) {
                self.0.push(*tick);
            }
            return None;
        }
        if self.0.is_empty() {
            return None;
        }
        let owed = held().find_map(|position| crossed_stop(position, &self.0, tick));
        if owed.is_none() {
            self.0.retain(|missed| missed.symbol != tick.symbol);
        }
        owed
    }
}

#[cfg(test)]
#[path = "gap_tests.rs"]
mod tests;
