//! A feed whose items are brought by somebody else: a live venue. Its history is the local candle store; it never ends.

use std::collections::BTreeMap;

use super::{Feed, FeedError, FeedIssues, FeedItem, FeedKind, candle_store::CandleStore};
use crate::{
    market::aggregate::{Aggregator, ClosedFrame},
    model::{Symbol, Timeframe, Ts},
};

/// The feed of a live venue.
pub struct LiveFeed {
    name: &'static str,
    frame: Timeframe,
    store: CandleStore,
    /// Hours from before the candles of `store` began, and from their holes.
    hours: Option<CandleStore>,
    symbols: Vec<Symbol>,
    history_ms: i64,
    /// By the instant an item may be known, then in the order it came.
    waiting: BTreeMap<(Ts, u64), FeedItem>,
    brought: u64,
}

impl LiveFeed {
    /// A feed of `frame` candles; `history_ms` before "now" are read from `store`.
    pub fn new(
        name: &'static str,
        frame: Timeframe,
        store: CandleStore,
        symbols: Vec<Symbol>,
        history_ms: i64,
    ) -> LiveFeed {
        LiveFeed { name, frame, store, hours: None, symbols, history_ms, waiting: BTreeMap::new(), brought: 0 }
    }

    /// With hours that reach further back than the candles, or into their holes: the frames from one hour on take them there.
    #[must_use]
    pub fn with_hours(self, hours: Option<CandleStore>) -> LiveFeed {
        LiveFeed { hours: hours.filter(|hours| hours.frame() > self.frame), ..self }
    }

    /// The longer candles that began before the candles did, and those that their holes lie in; all others are built from the
    /// candles themselves. Of a hole only whole ones are worth more than what the candles around it give.
    fn longer(&self, symbol: Symbol, from: Ts, until: Ts, holes: &Holes) -> Result<Vec<FeedItem>, FeedError> {
        let mut closed = Vec::new();
        let Some(hours) = &self.hours else { return Ok(Vec::new()) };
        let (mut builder, mut gaps) = (Aggregator::new(symbol, hours.frame()), Vec::new());
        hours.read(symbol, from, &mut |hour| {
            // A row that does not fit is left out, as in every history.
            let _ = builder.push(&hour, &mut closed, &mut gaps);
        })?;
        let wanted = |closed: &ClosedFrame| {
            let (open, end) = (closed.candle.open_time, closed.candle.close_time(closed.frame));
            let in_hole = || holes.inside.iter().any(|(from, to)| open < *to && end > *from);
            end <= until && (holes.first.is_none_or(|first| open < first) || (!closed.partial && in_hole()))
        };
        let item = |closed: ClosedFrame| FeedItem {
            symbol,
            available_at: closed.candle.close_time(closed.frame),
            kind: FeedKind::Longer(closed.frame, closed.candle),
        };
        Ok(closed.into_iter().filter(wanted).map(item).collect())
    }

    /// What is missing in the candles that are known until `until`.
    fn holes(&self, candles: &[FeedItem], until: Ts) -> Holes {
        let hour_ms = Timeframe::H1.ms();
        let mut holes = Holes::default();
        let mut known: Option<Ts> = None;
        for item in candles {
            let FeedKind::Candle(candle) = item.kind else { continue };
            holes.first = holes.first.or(Some(candle.open_time));
            let from = known.replace(item.available_at).unwrap_or(candle.open_time);
            holes.inside.extend((candle.open_time.since_ms(from) > hour_ms).then_some((from, candle.open_time)));
        }
        // The newest candles may still be on their way.
        holes.inside.extend(known.filter(|from| until.since_ms(*from) > hour_ms).map(|from| (from, until)));
        holes
    }
}

/// What is missing in the candles of a symbol.
#[derive(Debug, Default)]
struct Holes {
    /// Start of the first candle; absent without any.
    first: Option<Ts>,
    /// Holes longer than an hour: end of the candle before, and start of the one after.
    inside: Vec<(Ts, Ts)>,
}

impl Feed for LiveFeed {
    fn base(&self) -> Timeframe {
        self.frame
    }

    fn name(&self) -> &'static str {
        self.name
    }

    fn history(&mut self, until: Ts, sink: &mut dyn FnMut(FeedItem)) -> Result<(), FeedError> {
        let mut all: Vec<FeedItem> = Vec::new();
        for symbol in &self.symbols {
            all.extend(self.again(*symbol, until)?);
        }
        // Stable: symbols stay in their order within one instant.
        all.sort_by_key(|item| item.available_at);
        all.into_iter().for_each(sink);
        Ok(())
    }

    fn again(&self, symbol: Symbol, until: Ts) -> Result<Vec<FeedItem>, FeedError> {
        let (from, frame) = (until.plus_ms(-self.history_ms), self.frame);
        let mut candles = Vec::new();
        self.store.read(symbol, from, &mut |candle| {
            let available_at = candle.close_time(frame);
            candles.push(FeedItem { symbol, available_at, kind: FeedKind::Candle(candle) });
        })?;
        candles.retain(|item| item.available_at <= until);
        let mut all = self.longer(symbol, from, until, &self.holes(&candles, until))?;
        all.append(&mut candles);
        // Stable: of one instant the longer one that was fetched comes before what the candle would build of a part of it.
        all.sort_by_key(|item| item.available_at);
        Ok(all)
    }

    fn next(&mut self) -> Option<Result<FeedItem, FeedError>> {
        self.waiting.pop_first().map(|(_, item)| Ok(item))
    }

    fn peek_at(&mut self) -> Option<Ts> {
        self.waiting.keys().next().map(|(at, _)| *at)
    }

    fn issues(&self) -> FeedIssues {
        FeedIssues::default()
    }

    fn is_live(&self) -> bool {
        true
    }

    fn bring(&mut self, item: FeedItem) {
        self.brought += 1;
        // A venue whose clock is ahead closes a candle before our clock is there: nothing may be known early.
        let at = match item.kind {
            FeedKind::Candle(candle) => item.available_at.max(candle.close_time(self.frame)),
            _ => item.available_at,
        };
        self.waiting.insert((at, self.brought), FeedItem { available_at: at, ..item });
    }
}

#[cfg(test)]
#[path = "live_tests.rs"]
mod tests;
