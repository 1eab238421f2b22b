//! The simulated market: one seed and one genesis give one market, whenever and in whatever steps it is looked at. It
//! needs no disk and no network. Pairs such as XRP/BTC follow from the two pairs they are made of.

use std::collections::BTreeMap;

use super::{
    Feed, FeedError, FeedIssues, FeedItem, FeedKind,
    simulated_chain::{Chain, Hour, MINUTES, SECONDS},
};
use crate::{
    model::{
        Book, Candle, Symbol, Timeframe, Ts,
        time::{HOUR_MS, MINUTE_MS, SECOND_MS},
    },
    settings::SimulatedSettings,
};

/// The chain begins this many hours before the first start, so that there is history to warm up with.
const HOURS_BEFORE_ORIGIN: i64 = 24 * 90;
/// Deviation of an ordinary hour.
const DEVIATION_BTC: f64 = 0.006;
const DEVIATION_OTHER: f64 = 0.009;
/// Traded and offered value of an ordinary minute, in quote units of the chain's pair.
const MINUTE_TURNOVER: f64 = 400_000.0;
const BOOK_DEPTH: f64 = 1_500_000.0;
/// Share of a pair's turnover that its derived pair has.
const DERIVED_TURNOVER: f64 = 0.05;

/// Where the prices of a symbol come from: one chain, or one chain divided by another.
#[derive(Clone, Copy, Debug)]
enum Origin {
    Chain(usize),
    Ratio(usize, usize),
}

/// The seeded market.
#[derive(Clone, Debug)]
pub struct SimulatedFeed {
    symbols: Vec<(Symbol, Origin)>,
    chains: Vec<Chain>,
    /// Factor from a chain's relative price to quote units.
    scales: Vec<f64>,
    hours: Vec<Hour>,
    step: usize,
    /// Start of the minute that is produced next.
    minute: Ts,
    /// Items up to here were given or are not wanted.
    after: Ts,
    items: Vec<FeedItem>,
    position: usize,
    /// Prices of the minute per chain.
    prices: Vec<[f64; SECONDS + 1]>,
}

impl SimulatedFeed {
    /// Whether a symbol has a first price, or is a ratio of two that have one.
    pub fn knows(symbol: &Symbol, start_prices: &BTreeMap<Symbol, f64>) -> bool {
        start_prices.contains_key(symbol) || ratio_of(symbol, start_prices).is_some()
    }

    /// The market of `seed` whose prices at `origin` (the store's first start) are the configured ones. History begins
    /// `history_ms` before `start` (the instant of this start), at most 90 days before `origin`.
    ///
    /// # Errors
    /// [`FeedError::NoStartPrice`] when a symbol has no start price and is no ratio of two that have one.
    pub fn new(
        settings: &SimulatedSettings,
        symbols: &[Symbol],
        seed: u64,
        origin: Ts,
        start: Ts,
        history_ms: i64,
    ) -> Result<SimulatedFeed, FeedError> {
        let prices = &settings.start_prices;
        // A chain nobody asked for would be computed at every start, and it decides nothing: chains are independent.
        let wanted = |source: &Symbol| {
            let of = |symbol: &Symbol| ratio_of(symbol, prices).map_or([*symbol; 2], |(above, below)| [above, below]);
            symbols.iter().any(|symbol| of(symbol).contains(source))
        };
        let chosen = prices.keys().filter(|source| ratio_of(source, prices).is_none() && wanted(source));
        let sources: Vec<Symbol> = chosen.copied().collect();
        let index = |symbol: &Symbol| sources.iter().position(|source| source == symbol);
        let mut origins = Vec::with_capacity(symbols.len());
        for symbol in symbols {
            let ratio = ratio_of(symbol, prices).and_then(|(a, b)| Some(Origin::Ratio(index(&a)?, index(&b)?)));
            let origin = ratio.or_else(|| index(symbol).map(Origin::Chain));
            origins.push((*symbol, origin.ok_or(FeedError::NoStartPrice { symbol: *symbol })?));
        }
        let origin_hour = origin.0.div_euclid(HOUR_MS);
        let genesis_hour = origin_hour - HOURS_BEFORE_ORIGIN;
        let first = start.plus_ms(-history_ms).floor_to(MINUTE_MS).max(Ts(genesis_hour * HOUR_MS));
        let (mut chains, mut scales) = (Vec::new(), Vec::new());
        for source in &sources {
            let deviation = if source.base.as_str() == "BTC" { DEVIATION_BTC } else { DEVIATION_OTHER };
            let first_hour = first.0.div_euclid(HOUR_MS);
            let mut chain = Chain::new(seed, *source, deviation, genesis_hour);
            chain.skip_to(first_hour.min(origin_hour));
            let mut anchor = chain.clone();
            anchor.skip_to(origin_hour);
            let relative = price_within(&anchor.step_hour(), origin);
            scales.push(prices.get(source).map_or(1.0, |price| price / relative));
            chain.skip_to(first_hour);
            chains.push(chain);
        }
        let hours = chains.iter_mut().map(Chain::step_hour).collect();
        Ok(SimulatedFeed {
            symbols: origins,
            prices: vec![[0.0; SECONDS + 1]; chains.len()],
            chains,
            scales,
            hours,
            step: settings.step_seconds.clamp(1, 60) as usize,
            minute: first,
            after: first,
            items: Vec::new(),
            position: 0,
        })
    }

    /// Computes the next minute of every chain and moves on; returns its start and how many prices it has.
    fn step_minute(&mut self) -> (Ts, usize, usize) {
        let open_time = self.minute;
        let minute = (open_time.0.rem_euclid(HOUR_MS) / MINUTE_MS) as usize;
        // The hours at hand belong to the chains' previous step; a new hour begins with its first minute.
        if self.chains.first().is_some_and(|chain| open_time.0.div_euclid(HOUR_MS) >= chain.hour) {
            self.hours = self.chains.iter_mut().map(Chain::step_hour).collect();
        }
        let mut count = 0;
        for ((hour, scale), prices) in self.hours.iter().zip(&self.scales).zip(&mut self.prices) {
            count = hour.prices(minute, self.step, prices);
            prices.iter_mut().take(count).for_each(|price| *price *= scale);
        }
        self.minute = open_time.plus_ms(MINUTE_MS);
        (open_time, minute, count)
    }

    fn price(&self, origin: Origin, sample: usize) -> f64 {
        // Chains are numbered by their position, samples lie below `SECONDS` + 1.
        match origin {
            Origin::Chain(chain) => self.prices[chain][sample],
            Origin::Ratio(above, below) => self.prices[above][sample] / self.prices[below][sample],
        }
    }

    fn candle(&self, origin: Origin, open_time: Ts, minute: usize, count: usize) -> Candle {
        let open = self.price(origin, 0);
        let (mut high, mut low, mut close) = (open, open, open);
        for sample in 1..count {
            close = self.price(origin, sample);
            high = high.max(close);
            low = low.min(close);
        }
        let turnover = match origin {
            Origin::Chain(chain) => self.activity(chain, minute),
            Origin::Ratio(above, _) => DERIVED_TURNOVER * self.activity(above, minute),
        };
        // A derived pair's quantity is measured by its base pair's price, in the same units as that pair's turnover.
        let unit = match origin {
            Origin::Chain(_) => close,
            Origin::Ratio(above, _) => self.price(Origin::Chain(above), count - 1),
        };
        Candle { open_time, open, high, low, close, volume: MINUTE_TURNOVER * turnover / unit }
    }

    fn activity(&self, chain: usize, minute: usize) -> f64 {
        self.hours.get(chain).and_then(|hour| hour.activity.get(minute)).copied().unwrap_or(1.0)
    }

    fn book(&self, origin: Origin, candle: &Candle, minute: usize) -> Book {
        let (chain, thin) = match origin {
            Origin::Chain(chain) => (chain, 1.0),
            Origin::Ratio(above, _) => (above, 3.0),
        };
        let deviation = self.hours.get(chain).map_or(DEVIATION_BTC, Hour::deviation);
        let depth = BOOK_DEPTH / thin / (0.5 + self.activity(chain, minute));
        let moved = (candle.close / candle.open - 1.0) / (deviation + f64::MIN_POSITIVE);
        let imbalance = (2.0 * moved).clamp(-0.9, 0.9);
        Book {
            bid_depth_usd: depth * (1.0 + imbalance) / 2.0,
            ask_depth_usd: depth * (1.0 - imbalance) / 2.0,
            imbalance,
            spread_bps: thin * (1.0 + 200.0 * deviation),
        }
    }

    /// Fills `items` with the next minute's deliveries after `self.after`.
    fn fill(&mut self) {
        self.items.clear();
        self.position = 0;
        let (open_time, minute, count) = self.step_minute();
        let mut items = std::mem::take(&mut self.items);
        for sample in 1..count.saturating_sub(1) {
            let available_at = open_time.plus_ms((sample * self.step) as i64 * SECOND_MS);
            for (symbol, origin) in &self.symbols {
                let kind = FeedKind::Price(self.price(*origin, sample));
                items.push(FeedItem { symbol: *symbol, available_at, kind });
            }
        }
        let available_at = open_time.plus_ms(MINUTE_MS);
        for (symbol, origin) in &self.symbols {
            let candle = self.candle(*origin, open_time, minute, count);
            let book = self.book(*origin, &candle, minute);
            items.push(FeedItem { symbol: *symbol, available_at, kind: FeedKind::Book(book) });
            items.push(FeedItem { symbol: *symbol, available_at, kind: FeedKind::Candle(candle) });
        }
        self.items = items;
    }

    fn skip_given(&mut self) {
        loop {
            while self.items.get(self.position).is_some_and(|item| item.available_at <= self.after) {
                self.position += 1;
            }
            if self.position < self.items.len() || self.symbols.is_empty() {
                return;
            }
            self.fill();
        }
    }
}

impl Feed for SimulatedFeed {
    fn base(&self) -> Timeframe {
        Timeframe::M1
    }

    fn name(&self) -> &'static str {
        "simulated"
    }

    /// Candles only: prices inside minutes and books are of no use once they are past.
    fn history(&mut self, until: Ts, sink: &mut dyn FnMut(FeedItem)) -> Result<(), FeedError> {
        while self.minute.plus_ms(MINUTE_MS) <= until {
            let (open_time, minute, count) = self.step_minute();
            let available_at = open_time.plus_ms(MINUTE_MS);
            for (symbol, origin) in &self.symbols {
                let candle = self.candle(*origin, open_time, minute, count);
                sink(FeedItem { symbol: *symbol, available_at, kind: FeedKind::Candle(candle) });
            }
        }
        self.after = self.after.max(until);
        Ok(())
    }

    fn next(&mut self) -> Option<Result<FeedItem, FeedError>> {
        self.skip_given();
        let item = self.items.get(self.position).copied()?;
        self.position += 1;
        Some(Ok(item))
    }

    fn peek_at(&mut self) -> Option<Ts> {
        self.skip_given();
        self.items.get(self.position).map(|item| item.available_at)
    }

    fn issues(&self) -> FeedIssues {
        FeedIssues::default()
    }
}

/// The two priced pairs with a common quote whose ratio `symbol` is.
fn ratio_of(symbol: &Symbol, prices: &BTreeMap<Symbol, f64>) -> Option<(Symbol, Symbol)> {
    prices.keys().filter(|above| above.base == symbol.base && above.quote != symbol.quote).find_map(|above| {
        let below = Symbol { base: symbol.quote, quote: above.quote };
        prices.contains_key(&below).then_some((*above, below))
    })
}

/// The chain's price at the whole second at or before `at`, which lies in `hour`.
fn price_within(hour: &Hour, at: Ts) -> f64 {
    let second = (at.0.rem_euclid(HOUR_MS) / SECOND_MS) as usize;
    let mut prices = [0.0; SECONDS + 1];
    hour.prices((second / SECONDS).min(MINUTES - 1), 1, &mut prices);
    prices[second % SECONDS]
}

#[cfg(test)]
#[path = "simulated_tests.rs"]
mod tests;
