//! A feed that goes wrong: it freezes and then leaves a gap or catches up in a burst, repeats items, delivers old
//! candles late and prices that cannot be, once or for as long as half an hour without contradiction. It keeps the one promise of a feed: what it delivers is never early.

use std::collections::VecDeque;

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::{
    market::{Feed, FeedError, FeedIssues, FeedItem, FeedKind},
    model::{Candle, Symbol, Timeframe, Ts, time::MINUTE_MS},
};

/// The real feed behind the faults.
pub struct FaultyFeed<F> {
    inner: F,
    rng: ChaCha8Rng,
    ready: VecDeque<FeedItem>,
    /// Held back until the instant, in order of it.
    late: Vec<FeedItem>,
    /// Frozen until then; what comes meanwhile is lost, or kept for a burst.
    frozen: Option<(Ts, bool)>,
    /// Until then every price of the symbol is so many times the real one: a lie that agrees with itself.
    lie: Option<(Symbol, f64, Ts)>,
}

impl<F: Feed> FaultyFeed<F> {
    /// Faults drawn from `rng`.
    pub fn new(inner: F, rng: ChaCha8Rng) -> FaultyFeed<F> {
        FaultyFeed { inner, rng, ready: VecDeque::new(), late: Vec::new(), frozen: None, lie: None }
    }

    fn fill(&mut self) {
        while self.ready.is_empty() {
            let Some(Ok(item)) = self.inner.next() else { return };
            self.release(item.available_at);
            self.take(item);
        }
    }

    fn release(&mut self, until: Ts) {
        while self.late.first().is_some_and(|item| item.available_at <= until) {
            self.ready.push_back(self.late.remove(0));
        }
    }

    fn delay(&mut self, item: FeedItem, until: Ts) {
        let item = FeedItem { available_at: until.max(item.available_at), ..item };
        let place = self.late.partition_point(|other| other.available_at <= item.available_at);
        self.late.insert(place, item);
    }

    fn take(&mut self, mut item: FeedItem) {
        if let Some((symbol, factor, until)) = self.lie {
            if item.symbol == symbol && item.available_at < until {
                item.kind = times(item.kind, factor);
            } else if item.available_at >= until {
                self.lie = None;
            }
        }
        if let Some((until, lost)) = self.frozen {
            if item.available_at < until {
                if !lost {
                    self.delay(item, until);
                }
                return;
            }
            self.frozen = None;
        }
        let at = item.available_at;
        match self.rng.random_range(0..4_000) {
            0 | 1 => {
                let minutes = [1, 3, 20, 180][self.rng.random_range(0..4)];
                self.frozen = Some((at.plus_ms(minutes * MINUTE_MS), self.rng.random_bool(0.5)));
            }
            2..12 => self.ready.extend([item, item]),
            12..20 => {
                let delay = self.rng.random_range(1..10 * MINUTE_MS);
                self.delay(item, at.plus_ms(delay));
            }
            20..26 => {
                let kind = absurd(item.kind, &mut self.rng);
                self.ready.push_back(FeedItem { kind, ..item });
            }
            26..30 => {}
            30 => {
                let factor = [1_000.0, 0.001, 100_000.0, 2.0, 0.5][self.rng.random_range(0..5)];
                let minutes = [1, 2, 3, 5, 30][self.rng.random_range(0..5)];
                self.lie = Some((item.symbol, factor, at.plus_ms(minutes * MINUTE_MS)));
            }
            _ => self.ready.push_back(item),
        }
    }
}

fn scaled(candle: Candle, factor: f64) -> Candle {
    let [open, high, low, close] = [candle.open, candle.high, candle.low, candle.close].map(|price| price * factor);
    Candle { open, high, low, close, ..candle }
}

fn times(kind: FeedKind, factor: f64) -> FeedKind {
    match kind {
        FeedKind::Price(price) => FeedKind::Price(price * factor),
        FeedKind::Candle(candle) => FeedKind::Candle(scaled(candle, factor)),
        other => other,
    }
}

fn absurd(kind: FeedKind, rng: &mut ChaCha8Rng) -> FeedKind {
    let wrong = |value: f64, rng: &mut ChaCha8Rng| match rng.random_range(0..7) {
        0 => f64::NAN,
        1 => f64::INFINITY,
        2 => 0.0,
        3 => -value,
        4 => value * 1_000.0,
        5 => value / 1_000.0,
        _ => 1e300,
    };
    match kind {
        FeedKind::Price(price) => FeedKind::Price(wrong(price, rng)),
        FeedKind::Candle(candle) => FeedKind::Candle(match rng.random_range(0..4) {
            0 => Candle { close: wrong(candle.close, rng), ..candle },
            1 => Candle { high: candle.low, low: candle.high, ..candle },
            2 => Candle { volume: wrong(candle.volume, rng), ..candle },
            _ => scaled(candle, [0.5, 0.8, 1.25, 2.0][rng.random_range(0..4)]),
        }),
        FeedKind::Book(mut book) => {
            book.spread_bps = wrong(book.spread_bps, rng);
            book.bid_depth_usd = wrong(book.bid_depth_usd, rng);
            FeedKind::Book(book)
        }
        // Only a live venue has them.
        FeedKind::Longer(..) | FeedKind::Settled(_) | FeedKind::Mid(_) | FeedKind::NoBook => kind,
    }
}

impl<F: Feed> Feed for FaultyFeed<F> {
    fn base(&self) -> Timeframe {
        self.inner.base()
    }

    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn history(&mut self, until: Ts, sink: &mut dyn FnMut(FeedItem)) -> Result<(), FeedError> {
        self.inner.history(until, sink)
    }

    fn next(&mut self) -> Option<Result<FeedItem, FeedError>> {
        self.fill();
        self.ready.pop_front().map(Ok)
    }

    fn peek_at(&mut self) -> Option<Ts> {
        self.fill();
        self.ready.front().map(|item| item.available_at)
    }

    fn issues(&self) -> FeedIssues {
        self.inner.issues()
    }
}
