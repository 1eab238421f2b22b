//! Prices as the scenario sets them: one every five seconds, a candle every minute.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, VecDeque},
    rc::Rc,
};

use triplegain::{
    market::{Feed, FeedError, FeedIssues, FeedItem, FeedKind},
    model::*,
};

use super::sym;

const STEP_MS: i64 = 5_000;

/// What the feed will say from now on.
#[derive(Clone)]
pub struct Tape(Rc<RefCell<Inner>>);

struct Inner {
    prices: BTreeMap<Symbol, f64>,
    silent: BTreeSet<Symbol>,
    /// Extremes asked for in the next whole candle, which then is all that is heard of its minute.
    spikes: BTreeMap<Symbol, (f64, f64)>,
    /// Prices as a function of time, until one is set by hand.
    path: Option<fn(Symbol, Ts) -> f64>,
}

impl Default for Tape {
    fn default() -> Tape {
        let prices = [("BTC/USDT", 45_000.0), ("XRP/USDT", 0.60), ("XRP/BTC", 0.000_013_33)];
        let prices = prices.into_iter().map(|(symbol, price)| (sym(symbol), price)).collect();
        let inner = Inner { prices, silent: BTreeSet::new(), spikes: BTreeMap::new(), path: None };
        Tape(Rc::new(RefCell::new(inner)))
    }
}

impl Tape {
    pub fn set(&self, symbol: Symbol, price: f64) {
        self.0.borrow_mut().prices.insert(symbol, price);
    }

    pub fn follow(&self, path: fn(Symbol, Ts) -> f64) {
        self.0.borrow_mut().path = Some(path);
    }

    /// The next candle of `symbol` reaches these extremes and closes at its price.
    pub fn spike(&self, symbol: Symbol, low: f64, high: f64) {
        self.0.borrow_mut().spikes.insert(symbol, (low, high));
    }

    pub fn silence(&self, symbol: Symbol) {
        self.0.borrow_mut().silent.insert(symbol);
    }

    pub fn speak(&self, symbol: Symbol) {
        self.0.borrow_mut().silent.remove(&symbol);
    }

    fn price(&self, symbol: Symbol, at: Ts) -> f64 {
        let inner = self.0.borrow();
        inner.path.map_or_else(|| inner.prices[&symbol], |path| path(symbol, at))
    }
}

pub struct Scripted {
    tape: Tape,
    symbols: Vec<Symbol>,
    begin: Ts,
    next_at: Ts,
    ready: VecDeque<FeedItem>,
    last: BTreeMap<Symbol, f64>,
    /// Symbols whose spike belongs to the minute under way.
    armed: BTreeSet<Symbol>,
}

impl Scripted {
    pub fn new(tape: Tape, symbols: &[Symbol], start: Ts, history_hours: i64) -> Scripted {
        let begin = start.plus_ms(-history_hours * 3_600_000).floor_to(60_000);
        let next_at = start.floor_to(STEP_MS).plus_ms(STEP_MS);
        Scripted {
            tape,
            symbols: symbols.to_vec(),
            begin,
            next_at,
            ready: VecDeque::new(),
            last: BTreeMap::new(),
            armed: BTreeSet::new(),
        }
    }

    fn candle(&mut self, symbol: Symbol, close_at: Ts) -> FeedItem {
        let close = self.tape.price(symbol, close_at);
        let open = self.last.insert(symbol, close).unwrap_or(close);
        let mut inner = self.tape.0.borrow_mut();
        let spike = if self.armed.remove(&symbol) { inner.spikes.remove(&symbol) } else { None };
        if inner.spikes.contains_key(&symbol) {
            self.armed.insert(symbol);
        }
        drop(inner);
        let (low, high) = spike.unwrap_or((close, close));
        let (low, high) = (low.min(open).min(close), high.max(open).max(close));
        let candle = Candle { open_time: close_at.plus_ms(-60_000), open, high, low, close, volume: 10.0 };
        FeedItem { symbol, available_at: close_at, kind: FeedKind::Candle(candle) }
    }

    fn fill(&mut self) {
        while self.ready.is_empty() {
            let at = self.next_at;
            self.next_at = at.plus_ms(STEP_MS);
            for symbol in self.symbols.clone() {
                let inside = at.floor_to(60_000) != at && self.armed.contains(&symbol);
                if inside || self.tape.0.borrow().silent.contains(&symbol) {
                    continue;
                }
                let item = if at.floor_to(60_000) == at {
                    self.candle(symbol, at)
                } else {
                    let price = self.tape.price(symbol, at);
                    FeedItem { symbol, available_at: at, kind: FeedKind::Price(price) }
                };
                self.ready.push_back(item);
            }
            if self.ready.is_empty() {
                // Everyone is silent: the instant itself is worth waiting for.
                return;
            }
        }
    }
}

impl Feed for Scripted {
    fn base(&self) -> Timeframe {
        Timeframe::M1
    }

    fn name(&self) -> &'static str {
        "scripted"
    }

    fn history(&mut self, until: Ts, sink: &mut dyn FnMut(FeedItem)) -> Result<(), FeedError> {
        let mut at = self.begin.plus_ms(60_000);
        while at <= until {
            for symbol in self.symbols.clone() {
                let item = self.candle(symbol, at);
                sink(item);
            }
            at = at.plus_ms(60_000);
        }
        let last = until.floor_to(STEP_MS);
        for symbol in self.symbols.clone().into_iter().filter(|_| last.floor_to(60_000) != last) {
            sink(FeedItem { symbol, available_at: last, kind: FeedKind::Price(self.tape.price(symbol, last)) });
        }
        Ok(())
    }

    fn next(&mut self) -> Option<Result<FeedItem, FeedError>> {
        self.fill();
        self.ready.pop_front().map(Ok)
    }

    fn peek_at(&mut self) -> Option<Ts> {
        // Prices are made when their instant has come, so that what a scenario sets holds from the next price on.
        Some(self.ready.front().map_or(self.next_at, |item| item.available_at))
    }

    fn issues(&self) -> FeedIssues {
        FeedIssues::default()
    }
}
