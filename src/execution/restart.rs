//! The downtime of the process: back-filled prices of symbols with something at stake, worked off by
//! `restart_fill_policy` before anything else. It decides nothing about prices; [`super::gap`] does.
//!
//! Nothing is remembered here that a crash could lose: the instant the gap began at is kept by the store until all of
//! it is worked off, and what was committed meanwhile is in the state, with how far the replay has got
//! ([`Event::GapReplayed`]).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{
    Violation,
    gap::{self, GapStep},
    intent, paper,
    venue::Venue,
    work::{self, Desk, Work},
};
use crate::{
    model::{CoordinatorState, Event, PriceDone, PriceTick, State, Symbol, TradeState, Ts},
    settings::RestartFillPolicy,
};

/// What is left of the downtime.
#[derive(Clone, Debug)]
pub struct Gap {
    from: Ts,
    over: bool,
    /// Prices of symbols that are not planned yet, oldest first.
    candles: BTreeMap<Symbol, Vec<PriceTick>>,
    steps: VecDeque<GapStep>,
}

impl Gap {
    /// Nothing to do: a new store, or time that stood still.
    pub fn none() -> Gap {
        Gap { from: Ts(i64::MAX), over: true, candles: BTreeMap::new(), steps: VecDeque::new() }
    }

    /// A gap that began at `from`; only symbols with open positions or resting orders in `state` are of interest.
    pub fn since(from: Ts, state: &State) -> Gap {
        let resting = |state: TradeState| matches!(state, TradeState::Acked | TradeState::Partial);
        let held = state.positions.values().map(|position| position.symbol);
        let ordered = state.trades.values().filter(|trade| resting(trade.state)).map(|trade| trade.body.symbol);
        let at_stake: BTreeSet<Symbol> = held.chain(ordered).collect();
        let candles = at_stake.into_iter().map(|symbol| (symbol, Vec::new())).collect();
        Gap { from, over: false, candles, ..Gap::none() }
    }

    /// Takes a price of the feed's history; what was worked on before the gap or does not matter is left out.
    pub fn take(&mut self, tick: PriceTick) {
        if tick.at > self.from
            && let Some(candles) = self.candles.get_mut(&tick.symbol)
        {
            candles.push(tick);
        }
    }

    /// Nothing is left.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// The next batch for the downtime. Nothing also when a crossed stop waits for a first new price to be judged by.
    ///
    /// # Errors
    /// The state contradicts itself: a broken invariant.
    pub fn next(&mut self, state: &State, venue: &mut dyn Venue, desk: &Desk<'_>) -> Result<Option<Work>, Violation> {
        if state.coordinator.state == CoordinatorState::Halted && !self.candles.is_empty() {
            // A halt outlives the process, and no entry fills while it lasts.
            let events = intent::cancel_entries(state, None, "halted");
            if !events.is_empty() {
                return Ok(Some(Work { events, corr: "restart".into(), cause: "halted".into() }));
            }
        }
        self.plan(state, desk);
        while let Some(step) = self.steps.front().cloned() {
            if let Some(work) = self.carry_out(step, state, venue, desk)? {
                return Ok(Some(work));
            }
        }
        self.over = self.candles.is_empty();
        Ok(None)
    }

    /// Turns the prices of every symbol that can be judged now into steps.
    fn plan(&mut self, state: &State, desk: &Desk<'_>) {
        let policy = desk.settings.execution.paper.restart_fill_policy;
        let max_age_ms = work::price_max_age_ms(desk);
        let mut planned = Vec::new();
        self.candles.retain(|symbol, candles| {
            let Some(last) = candles.last() else { return false };
            let newest = desk.board.ticks.get(symbol);
            let fresh = newest.filter(|tick| tick.at >= last.at && paper::is_fresh(tick, desk.now, max_age_ms));
            let steps = gap::steps(state, *symbol, candles, fresh.unwrap_or(last), policy);
            let exits = steps.iter().any(|step| matches!(step, GapStep::Exit(_)));
            if exits && (fresh.is_none() || work::settle_desk(desk, *symbol).is_none()) {
                return true;
            }
            planned.extend(steps);
            false
        });
        if policy == RestartFillPolicy::Replay {
            // Symbols share one account, so their candles are worked on in the order they closed.
            planned.sort_by_key(|step| match step {
                GapStep::Replay { tick, .. } => tick.at,
                _ => Ts::default(),
            });
        }
        self.steps.extend(planned);
    }

    fn carry_out(
        &mut self,
        step: GapStep,
        state: &State,
        venue: &mut dyn Venue,
        desk: &Desk<'_>,
    ) -> Result<Option<Work>, Violation> {
        match step {
            GapStep::Exit(call) => {
                self.steps.pop_front();
                let open = state.positions.get(&call.position).filter(|position| position.exiting.is_none());
                let Some(settle) = open.and_then(|held| work::settle_desk(desk, held.symbol)) else { return Ok(None) };
                work::exit_now(state, &call, venue, desk, &settle).map(Some)
            }
            GapStep::Commit(event) => {
                self.steps.pop_front();
                let work = Work { events: vec![event], corr: "restart".into(), cause: "restart".into() };
                Ok(Some(work))
            }
            GapStep::Replay { tick, evidence } => {
                let (symbol, at) = (tick.symbol, tick.at);
                let mut done = match state.meta.replayed.get(&symbol) {
                    // A later candle changed something before the crash: what a stop moved to then proves nothing now.
                    Some(replayed) if at < replayed.at => {
                        self.steps.pop_front();
                        return Ok(None);
                    }
                    Some(replayed) if at == replayed.at => replayed.done.clone(),
                    _ => PriceDone::default(),
                };
                let then = Desk { now: at, ..*desk };
                let Some(mut work) = work::at_price(state, &tick, &mut done, venue, &then)? else {
                    self.steps.pop_front();
                    return Ok(None);
                };
                work.events.push(Event::GapReplayed { symbol, at, done });
                Ok(Some(with_evidence(work, &evidence)))
            }
        }
    }
}

/// Fills that carry no evidence of their own carry this one.
fn with_evidence(mut work: Work, proof: &str) -> Work {
    for event in &mut work.events {
        if let Event::TradeFill { evidence, .. } = event {
            evidence.get_or_insert_with(|| proof.to_owned());
        }
    }
    work
}

#[cfg(test)]
#[path = "restart_tests.rs"]
mod tests;
