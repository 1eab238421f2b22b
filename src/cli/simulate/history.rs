//! The part of the market's history that one process after the other would take in again: most of a simulated year
//! would be spent on it. It is taken in once and kept; only the newest part goes through the start of every process.

use anyhow::Result;

use super::plan::Plan;
use crate::{
    market::{Feed, Market, feed::simulated::SimulatedFeed},
    model::{Timeframe, Ts, time::MINUTE_MS},
    settings::Settings,
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
    /// Market and feed of a process that starts at `now`; the feed still has the history from the downtime (`gap_from`)
    /// on. `of` are the seed and the first instant of its store. Some seeds
    /// keep nothing and take all of it in at every start, as a real process does.
    ///
    /// # Errors
    /// Settings the market cannot work with.
    pub fn begin(
        &mut self,
        plan: &Plan,
        settings: &Settings,
        of: (u64, Ts),
        gap_from: Option<Ts>,
        now: Ts,
    ) -> Result<(Market, SimulatedFeed)> {
        let history_ms = Market::history_ms(&settings.market, Timeframe::M1);
        let until = gap_from.unwrap_or(now).min(now).plus_ms(-LEFT_MS);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::simulate::plan::Faults,
        market::FeedItem,
        model::time::{DAY_MS, HOUR_MS},
        settings::Loaded,
    };

    const BORN: Ts = Ts(1_767_571_200_000);

    fn plan(seed: u64) -> (Plan, Loaded) {
        let plan = Plan { seed, length_ms: DAY_MS, faults: Faults::all(), until: None };
        let loaded = plan.settings().unwrap();
        (plan, loaded)
    }

    /// What the start itself still takes in, and then the next items of the running feed.
    fn rest(feed: &mut SimulatedFeed, now: Ts) -> (Vec<FeedItem>, Vec<FeedItem>) {
        let mut history = Vec::new();
        feed.history(now, &mut |item| history.push(item)).unwrap();
        (history, std::iter::from_fn(|| feed.next()).take(50).map(Result::unwrap).collect())
    }

    #[test]
    fn a_process_after_another_gets_the_downtime_and_the_very_market_of_a_first_one() {
        for seed in [1, 32] {
            let (plan, loaded) = plan(seed);
            let (gap, now) = (BORN.plus_ms(30 * HOUR_MS), BORN.plus_ms(33 * HOUR_MS));
            let mut kept = History::default();
            kept.begin(&plan, &loaded.settings, (seed, BORN), None, BORN.plus_ms(HOUR_MS)).unwrap();
            let (mut market, mut feed) = kept.begin(&plan, &loaded.settings, (seed, BORN), Some(gap), now).unwrap();
            let (history, next) = rest(&mut feed, now);
            assert!(history.first().unwrap().available_at <= gap.plus_ms(MINUTE_MS - LEFT_MS), "seed {seed}");
            assert!(history.first().unwrap().available_at > gap.plus_ms(-LEFT_MS), "seed {seed}: nothing was kept");
            assert!(history.iter().all(|item| market.take(*item).is_some()), "seed {seed}: the market has it already");

            let (_, mut first) = History::default().begin(&plan, &loaded.settings, (seed, BORN), None, now).unwrap();
            assert_eq!(rest(&mut first, now).1, next, "seed {seed}");
        }
    }

    #[test]
    fn nothing_is_kept_when_time_went_back_or_the_store_is_another() {
        let (plan, loaded) = plan(1);
        let later = BORN.plus_ms(5 * DAY_MS);
        for (of, now) in [((1, BORN), BORN.plus_ms(DAY_MS)), ((1, BORN.plus_ms(1)), later), ((2, BORN), later)] {
            let mut kept = History::default();
            kept.begin(&plan, &loaded.settings, (1, BORN), None, later).unwrap();
            let (market, feed) = kept.begin(&plan, &loaded.settings, of, None, now).unwrap();
            let fresh = History::default().begin(&plan, &loaded.settings, of, None, now).unwrap();
            assert_eq!(format!("{market:?} {feed:?}"), format!("{:?} {:?}", fresh.0, fresh.1), "{of:?} at {now}");
        }
    }
}
