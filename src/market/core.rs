//! The market of all symbols: candles and prices in; price ticks, closed frames, gaps, health and snapshots out. It never
//! reads a clock or a file, and never makes up a price.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    aggregate::{ClosedFrame, Gap, Reject},
    feed::{FeedItem, FeedKind},
    jump::Withheld,
    symbol_market::{self, SymbolMarket},
};
use crate::{
    model::{Book, Candle, PriceTick, Snapshot, Symbol, Timeframe, Ts},
    settings::{MarketSettings, Settings},
};

/// What became of a candle or price. The slices live until the next call.
#[derive(Debug)]
pub struct CandleOutcome<'a> {
    /// The price it brought, when it is the freshest.
    pub tick: Option<PriceTick>,
    /// Candles that closed, the base candle included, in the order they closed.
    pub closed: &'a [ClosedFrame],
    /// Candles found missing before it.
    pub gaps: &'a [Gap],
    /// Why it was not taken; everything else is empty then.
    pub rejected: Option<Reject>,
}

/// What was ignored or missing since the start, per symbol.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct FeedCounts {
    /// Candles and prices taken.
    pub accepted: u64,
    /// Holes in the base frame.
    pub gaps: u64,
    /// Base candles missing in them.
    pub missing_candles: u64,
    /// Candles and prices older than what was known.
    pub late: u64,
    /// Candles delivered twice.
    pub duplicates: u64,
    /// Candles and prices with impossible values.
    pub defects: u64,
    /// Candles and prices withheld because they are too far from the last accepted price.
    pub withheld: u64,
    /// Frames whose indicators started over after a long gap.
    pub resets: u64,
    /// Snapshots refused because they would have held data later than their own time.
    pub look_aheads: u64,
}

/// Health of the feed of one symbol.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct FeedStatus {
    /// Which symbol.
    pub symbol: Symbol,
    /// When the freshest price was true; absent before the first one.
    pub price_at: Option<Ts>,
    /// Age of that price, milliseconds.
    pub age_ms: Option<i64>,
    /// Data advances: the age is at most the silence limit, plus one candle for feeds that deliver only candles.
    pub healthy: bool,
    /// The newest value was withheld: the price shown is the last accepted one.
    pub in_doubt: bool,
    /// What was ignored or missing.
    pub counts: FeedCounts,
    /// Why the last defective value was refused.
    pub last_defect: Option<&'static str>,
    /// Distance of the best prices, basis points; absent without a book that is young enough.
    pub spread_bps: Option<f64>,
}

/// Closed candles a frame's view carries when a model may be asked: the most a prompt shows.
const TAIL: usize = 10;

/// Settings of the market that are the same for all symbols.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    pub(super) primary: Timeframe,
    pub(super) price_max_age_ms: i64,
    pub(super) silence_ms: i64,
    /// How many times higher or lower than the last accepted price a price may be.
    pub(super) jump_factor: f64,
    pub(super) lookback: [u64; 6],
    pub(super) frame_max_age_ms: [i64; 6],
    /// Closed candles a frame's view carries.
    pub(super) tail: usize,
}

/// The market of all configured symbols.
#[derive(Clone, Debug)]
pub struct Market {
    base: Timeframe,
    limits: Limits,
    symbols: BTreeMap<Symbol, SymbolMarket>,
    closed: Vec<ClosedFrame>,
    gaps: Vec<Gap>,
    unknown_symbols: u64,
}

/// Settings the market cannot work with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MarketError {
    /// `[market.symbol."X"]` is absent.
    #[error("symbol {0} has no decimals and minimum; add `[market.symbol.\"{0}\"]`")]
    NoRules(Symbol),
    /// The feed's candles are longer than the primary frame.
    #[error(
        "the feed delivers {base} candles, longer than the primary frame {primary}; use shorter candles or a longer `market.primary_timeframe`"
    )]
    BaseAbovePrimary {
        /// Frame of the feed.
        base: Timeframe,
        /// `market.primary_timeframe`
        primary: Timeframe,
    },
}

impl Market {
    /// An empty market for the configured symbols; `base` is the frame of the candles the feed delivers.
    ///
    /// # Errors
    /// [`MarketError`] when a symbol has no rules or the base frame is longer than the primary one.
    pub fn new(settings: &Settings, base: Timeframe) -> Result<Market, MarketError> {
        let mut market = Market::for_symbols(&settings.market, &settings.symbols, base)?;
        if !settings.chains.is_empty() {
            market.limits.tail = TAIL;
        }
        Ok(market)
    }

    /// As [`Market::new`], from the two parts of the settings it reads.
    ///
    /// # Errors
    /// As [`Market::new`].
    pub fn for_symbols(market: &MarketSettings, symbols: &[Symbol], base: Timeframe) -> Result<Market, MarketError> {
        let primary = market.primary_timeframe;
        if base > primary {
            return Err(MarketError::BaseAbovePrimary { base, primary });
        }
        let lookback = Timeframe::ALL.map(|frame| market.lookback.get(&frame).map_or(0, |n| u64::from(*n)));
        let frame_max_age_ms = Timeframe::ALL.map(|frame| (frame.ms() as f64 * market.frame_max_age_factor) as i64);
        let limits = Limits {
            primary,
            price_max_age_ms: i64::from(market.price_max_age_seconds) * 1000,
            silence_ms: i64::from(market.silence_seconds) * 1000,
            jump_factor: 1.0 + market.max_jump_pct / 100.0,
            lookback,
            frame_max_age_ms,
            tail: 0,
        };
        let symbols = symbols.iter().map(|symbol| {
            let rules = market.symbol.get(symbol).ok_or(MarketError::NoRules(*symbol))?;
            Ok((*symbol, SymbolMarket::new(*symbol, *rules, base)))
        });
        Ok(Market {
            base,
            limits,
            symbols: symbols.collect::<Result<_, MarketError>>()?,
            closed: Vec::with_capacity(16),
            gaps: Vec::with_capacity(8),
            unknown_symbols: 0,
        })
    }

    /// Frame of the candles the feed delivers.
    pub fn base(&self) -> Timeframe {
        self.base
    }

    /// How much history before "now" fills every look-back, milliseconds.
    pub fn history_ms(market: &MarketSettings, base: Timeframe) -> i64 {
        let spans = market.lookback.iter().filter(|(frame, _)| **frame >= base);
        spans.map(|(frame, candles)| frame.ms() * (i64::from(*candles) + 1)).max().unwrap_or(0)
    }

    /// More candles of `frame` than these missing in a row make its indicators start over.
    pub fn reset_after(market: &MarketSettings, frame: Timeframe) -> u64 {
        symbol_market::reset_after(market.lookback.get(&frame).map_or(0, |n| u64::from(*n)))
    }

    /// Takes a closed base candle.
    pub fn on_candle(&mut self, symbol: Symbol, candle: Candle) -> CandleOutcome<'_> {
        self.closed.clear();
        self.gaps.clear();
        let taken = match self.symbols.get_mut(&symbol) {
            Some(market) => market.on_candle(&candle, &self.limits, &mut self.closed, &mut self.gaps),
            None => {
                self.unknown_symbols += 1;
                Err(Reject::UnknownSymbol)
            }
        };
        let (tick, rejected) = taken.map_or_else(|reject| (None, Some(reject)), |tick| (tick, None));
        CandleOutcome { tick, closed: &self.closed, gaps: &self.gaps, rejected }
    }

    /// Takes a price between candles, from feeds that deliver them. Candles are never built from prices: they carry no
    /// volume, so such a feed delivers its candles as well.
    ///
    /// # Errors
    /// [`Reject`] when the symbol is unknown, the price impossible, too far from the last or older than the freshest one.
    pub fn on_price(&mut self, symbol: Symbol, price: f64, at: Ts) -> Result<PriceTick, Reject> {
        match self.symbols.get_mut(&symbol) {
            Some(market) => market.on_price(price, at, &self.limits),
            None => {
                self.unknown_symbols += 1;
                Err(Reject::UnknownSymbol)
            }
        }
    }

    /// Takes one delivery of a feed; answers the price it brought. What is refused is counted.
    pub fn take(&mut self, item: FeedItem) -> Option<PriceTick> {
        match item.kind {
            FeedKind::Candle(candle) => {
                // Whatever becomes of it: it has arrived.
                let end = candle.close_time(self.base);
                let tick = self.on_candle(item.symbol, candle).tick;
                self.symbols.get_mut(&item.symbol).into_iter().for_each(|market| market.settle(end));
                tick
            }
            FeedKind::Settled(end) => {
                if let Some(market) = self.symbols.get_mut(&item.symbol) {
                    market.settle(end);
                    self.closed.clear();
                    market.advance(end.plus_ms(1), &self.limits, &mut self.closed);
                }
                None
            }
            FeedKind::Longer(frame, candle) => {
                if let Some(market) = self.symbols.get_mut(&item.symbol) {
                    market.on_longer(frame, candle, &self.limits);
                }
                None
            }
            FeedKind::Price(price) => self.on_price(item.symbol, price, item.available_at).ok(),
            FeedKind::Mid(price) => {
                self.symbols.get_mut(&item.symbol)?.on_mid(price, item.available_at, &self.limits).ok()
            }
            FeedKind::Book(book) => {
                self.on_book(item.symbol, book, item.available_at);
                None
            }
            FeedKind::NoBook => {
                self.symbols.get_mut(&item.symbol).into_iter().for_each(SymbolMarket::no_book);
                None
            }
        }
    }

    /// Takes book values; they stand beside the price in later snapshots until they are older than a price may be. Values
    /// that are not finite are ignored.
    pub fn on_book(&mut self, symbol: Symbol, book: Book, at: Ts) {
        let values = [book.bid_depth_usd, book.ask_depth_usd, book.imbalance, book.spread_bps];
        if let Some(market) = self.symbols.get_mut(&symbol)
            && values.iter().all(|v| v.is_finite())
        {
            market.on_book(book, at);
        }
    }

    /// Builds the frames of a symbol anew from its whole history, `items` in order, because some of it came late. What is
    /// known of its newest price, its book and its counts stays; no price comes of it.
    pub fn rebuild(&mut self, symbol: Symbol, items: &[FeedItem]) {
        let Some(market) = self.symbols.get_mut(&symbol) else { return };
        let fresh = market.empty();
        let before = std::mem::replace(market, fresh);
        for item in items.iter().filter(|item| item.symbol == symbol) {
            self.take(*item);
        }
        if let Some(market) = self.symbols.get_mut(&symbol) {
            market.carry_on(before);
        }
    }

    /// Closes higher candles whose end time has passed without another candle, for all symbols in symbol order. Call it
    /// after everything available up to `now` was taken.
    pub fn advance(&mut self, now: Ts) -> &[ClosedFrame] {
        self.closed.clear();
        for market in self.symbols.values_mut() {
            market.advance(now, &self.limits, &mut self.closed);
        }
        &self.closed
    }

    /// The market state of `symbol` at `now`, or nothing when the symbol is unknown or has data from after `now`.
    pub fn snapshot(&mut self, symbol: Symbol, now: Ts) -> Option<Arc<Snapshot>> {
        self.symbols.get_mut(&symbol)?.snapshot(now, &self.limits)
    }

    /// A live symbol whose data advance, and whose candle that ended last by `now` has not arrived, nor word that there is
    /// none: the end of that candle.
    pub fn unsettled(&self, symbol: Symbol, now: Ts) -> Option<Ts> {
        let market = self.symbols.get(&symbol)?;
        let end = now.floor_to(self.base.ms());
        let advances = market.healthy_until(&self.limits).is_some_and(|until| now <= until);
        (advances && market.settled() < end).then_some(end)
    }

    /// The freshest accepted price of `symbol`.
    pub fn last_tick(&self, symbol: Symbol) -> Option<PriceTick> {
        self.symbols.get(&symbol)?.last_tick()
    }

    /// Candles and prices of all symbols withheld since the start because they are too far from the last accepted price,
    /// and the newest of them.
    pub fn withheld(&self) -> (u64, Option<Withheld>) {
        let (mut count, mut newest) = (0, None::<Withheld>);
        for market in self.symbols.values() {
            let (some, last) = market.withheld();
            count += some;
            newest = newest.filter(|known| last.is_none_or(|last| last.at <= known.at)).or(last);
        }
        (count, newest)
    }

    /// Health of every symbol's feed, in symbol order.
    pub fn feed_status(&self, now: Ts) -> Vec<FeedStatus> {
        self.symbols.values().map(|market| market.status(now, &self.limits)).collect()
    }

    /// Until when every symbol's data count as advancing if nothing else arrives; `None` when they do not at `now`, or
    /// there are no symbols.
    pub fn healthy_until(&self, now: Ts) -> Option<Ts> {
        // A symbol without any data is `None`, which is less than every instant.
        let first = self.symbols.values().map(|market| market.healthy_until(&self.limits)).min().flatten();
        first.filter(|until| now <= *until)
    }

    /// Whether the data of any symbol advance.
    pub fn any_healthy(&self, now: Ts) -> bool {
        self.symbols.values().any(|market| market.healthy_until(&self.limits).is_some_and(|until| now <= until))
    }

    /// Candles and prices of symbols that are not configured.
    pub fn unknown_symbols(&self) -> u64 {
        self.unknown_symbols
    }
}

#[cfg(test)]
#[path = "core_tests.rs"]
pub(super) mod tests;
