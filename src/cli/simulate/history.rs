//! The part of the market's history that one process after the other would take in again: most of a simulated year
//! would be spent on it. It is taken in once and kept; only the newest part goes through the start of every process.

use anyhow::Result;

use super::plan::Plan;
use crate::{
    market::{Feed, Market, feed::simulated::SimulatedFeed},
    model::{State, Timeframe, Ts, time::MINUTE_MS},
    settings::Settings,
    store::Opened,
};

/// At least this much is left to the start itself, milliseconds: prices of the board and of the downtime come from it.
const LEFT_MS: i64 = 10 * MINUTE_MS;

/// A feed and the market that has taken in everything the feed has given.
#[derive(Clone)]
struct Taken {
    /// Seed and first instant of the store: one pair, one market.
    of: (u64, Ts),
    until: Ts,
    market: Market,
    feed: SimulatedFeed,
}

/// What is known of the history, from process to process.
#[derive(Default)]
pub struct History(Option<Taken>);

impl History {
    /// Market and feed of a process that starts at `now`; the feed still has the history from the downtime on. Some seeds
    /// keep nothing and take all of it in at every start, as a real process does.
    ///
    /// # Errors
    /// Settings the market cannot work with.
    pub fn begin(
        &mut self,
        plan: &Plan,
        settings: &Settings,
        (state, opened): (&State, &Opened),
        now: Ts,
    ) -> Result<(Market, SimulatedFeed)> {
        let history_ms = Market::history_ms(&settings.market, Timeframe::M1);
        let until = opened.gap_from.unwrap_or(now).min(now).plus_ms(-LEFT_MS);
        let of = (state.meta.seed, state.meta.created_at);
        let keeps = plan.seldom() > 1;
        // Nothing is taken back: the clock went back, or the store was made anew.
        let fits = |taken: &Taken| keeps && taken.of == of && taken.until <= until;
        let mut taken = match self.0.take().filter(fits) {
            Some(taken) if taken.until >= now.plus_ms(-history_ms) => taken,
            _ => {
                let (simulated, symbols) = (&settings.market.simulated, &settings.symbols);
                let feed = SimulatedFeed::new(simulated, symbols, of.0, of.1, now, history_ms)?;
                let market = Market::new(settings, feed.base())?;
                Taken { of, until: Ts::default(), market, feed }
            }
        };
        let Taken { market, feed, .. } = &mut taken;
        feed.history(until, &mut |item| {
            market.take(item);
        })?;
        taken.until = until;
        let process = (taken.market.clone(), taken.feed.clone());
        self.0 = Some(taken);
        Ok(process)
    }
}
