//! The market of one symbol: indicators per frame, the freshest price, quality and snapshots. Only `core` uses it.

use std::{collections::VecDeque, sync::Arc};

use super::{
    aggregate::{Aggregator, ClosedFrame, Gap, Reject},
    core::{FeedCounts, FeedStatus, Limits},
    indicators::IndicatorEngine,
    jump::{JumpGuard, Withheld},
};
use crate::model::{
    Book, Candle, FrameView, Price, PriceRange, PriceTick, Quality, Snapshot, SnapshotParts, Symbol, SymbolRules,
    Timeframe, Ts, time::DAY_MS,
};

/// A gap longer than this share of the look-back (and than [`GAP_CANDLES_MIN`]) makes a frame's indicators start over.
const GAP_RESET_DIVISOR: u64 = 10;
/// Gaps up to this many candles never reset a frame.
const GAP_CANDLES_MIN: u64 = 12;
/// Closed candles before EMA9 and EMA21 may be compared for the alignment score.
const ALIGNMENT_CANDLES: u64 = 21;

/// More candles than these missing in a row make a frame's indicators start over; `lookback` candles are looked at.
pub(super) fn reset_after(lookback: u64) -> u64 {
    (lookback / GAP_RESET_DIVISOR).max(GAP_CANDLES_MIN)
}

#[derive(Clone, Debug)]
struct FrameState {
    engine: IndicatorEngine,
    last: Candle,
    /// [`IndicatorEngine::seen`] when a gap or partial candle was last noticed.
    disturbed_at: Option<u64>,
    /// The newest closed candles, oldest first, at most [`Limits::tail`] of them.
    tail: VecDeque<Candle>,
    /// Built from `engine` when first asked for after a close.
    view: Option<Arc<FrameView>>,
}

/// Closes and volumes of the last 24 hours.
#[derive(Clone, Debug)]
struct Day {
    frame: Timeframe,
    /// (end, close, volume), oldest first.
    candles: VecDeque<(Ts, f64, f64)>,
    /// Volume of `candles`; recomputed with every candle, so that rounding cannot build up.
    volume: f64,
    /// The newest candle older than 24 hours.
    reference: Option<(Ts, f64)>,
}

#[derive(Clone, Debug)]
pub(super) struct SymbolMarket {
    symbol: Symbol,
    rules: SymbolRules,
    aggregator: Aggregator,
    frames: [Option<Box<FrameState>>; 6],
    tick: Option<PriceTick>,
    price: f64,
    /// When the last trade outside a candle was true.
    priced_at: Option<Ts>,
    /// Middles of books came: there are prices between candles.
    has_mids: bool,
    /// With the instant it came.
    book: Option<(Book, Ts)>,
    /// Every base candle that ended by then has arrived.
    settled: Ts,
    /// What prices and base candles may be.
    guard: JumpGuard,
    /// What the candles of longer frames that were fetched may be.
    longer: [JumpGuard; 6],
    withheld: Option<Withheld>,
    day: Day,
    counts: FeedCounts,
    last_defect: Option<&'static str>,
    /// The last snapshot, until data arrives.
    cached: Option<Arc<Snapshot>>,
}

impl SymbolMarket {
    pub(super) fn new(symbol: Symbol, rules: SymbolRules, base: Timeframe) -> SymbolMarket {
        SymbolMarket {
            symbol,
            rules,
            aggregator: Aggregator::new(symbol, base),
            frames: [const { None }; 6],
            tick: None,
            price: 0.0,
            priced_at: None,
            has_mids: false,
            book: None,
            settled: Ts(i64::MIN),
            guard: JumpGuard::default(),
            longer: [JumpGuard::default(); 6],
            withheld: None,
            day: Day { frame: base.max(Timeframe::M15), candles: VecDeque::new(), volume: 0.0, reference: None },
            counts: FeedCounts::default(),
            last_defect: None,
            cached: None,
        }
    }

    pub(super) fn on_candle(
        &mut self,
        candle: &Candle,
        limits: &Limits,
        closed: &mut Vec<ClosedFrame>,
        gaps: &mut Vec<Gap>,
    ) -> Result<Option<PriceTick>, Reject> {
        let range = self.range(candle);
        let checked = self.aggregator.check(candle).and(range);
        let (close, range) = checked.inspect_err(|reject| self.count(*reject))?;
        let end = candle.close_time(self.aggregator.base());
        if !self.guard.believes(&prices_of(candle), candle.close, end, limits.jump_factor) {
            return Err(self.withhold(candle.close, end));
        }
        self.aggregator.push(candle, closed, gaps).inspect_err(|reject| self.count(*reject))?;
        self.cached = None;
        self.counts.accepted += 1;
        // The frames that ended before a gap close before it, so the gap is noticed between the two.
        let before = closed.iter().position(|c| c.frame == self.aggregator.base()).unwrap_or(0);
        let (ended, current) = closed.split_at(before);
        ended.iter().for_each(|frame| self.take_closed(frame, limits));
        gaps.iter().for_each(|gap| self.take_gap(gap, limits));
        current.iter().for_each(|frame| self.take_closed(frame, limits));
        let at = candle.close_time(self.aggregator.base());
        if self.tick.is_some_and(|tick| tick.at > at) {
            return Ok(None);
        }
        // Prices delivered inside the candle have shown its extremes already.
        let seen_inside = self.priced_at.is_some_and(|priced| priced > candle.open_time);
        self.price = candle.close;
        Ok(Some(self.accept(close, at, (!seen_inside).then_some(range))))
    }

    /// Takes a closed candle of a frame longer than the base, from before the base candles began or from a hole between them.
    /// What the frame holds already is never replaced, and no price comes of it.
    pub(super) fn on_longer(&mut self, frame: Timeframe, candle: Candle, limits: &Limits) {
        let known = self.frames[frame.index()].as_ref().is_some_and(|state| state.last.open_time >= candle.open_time);
        let fits = frame > self.aggregator.base() && candle.open_time == candle.open_time.floor_to(frame.ms());
        if known || !fits || candle.defect().is_some() {
            self.count(Reject::Late);
            return;
        }
        self.cached = None;
        let end = candle.close_time(frame);
        if !self.longer[frame.index()].believes(&prices_of(&candle), candle.close, end, limits.jump_factor) {
            self.withhold(candle.close, end);
            if let Some(state) = &mut self.frames[frame.index()] {
                state.disturbed_at = Some(state.engine.seen());
            }
            return;
        }
        self.take_closed(&ClosedFrame { symbol: self.symbol, frame, candle, partial: false }, limits);
    }

    /// The same symbol before anything was known of it.
    pub(super) fn empty(&self) -> SymbolMarket {
        SymbolMarket::new(self.symbol, self.rules, self.aggregator.base())
    }

    /// Goes on where the market of `before` was, with the frames of its own.
    pub(super) fn carry_on(&mut self, before: SymbolMarket) {
        let SymbolMarket { tick, price, priced_at, has_mids, book, guard, withheld, counts, last_defect, .. } = before;
        self.settled = self.settled.max(before.settled);
        (self.tick, self.price, self.priced_at, self.has_mids) = (tick, price, priced_at, has_mids);
        (self.book, self.guard, self.withheld) = (book, guard, withheld);
        (self.counts, self.last_defect, self.cached) = (counts, last_defect, None);
    }

    pub(super) fn on_price(&mut self, price: f64, at: Ts, limits: &Limits) -> Result<PriceTick, Reject> {
        let tick = self.between_candles(price, at, limits)?;
        self.priced_at = Some(at);
        Ok(tick)
    }

    /// The middle of a book. It is a price like any other, but says nothing about what was traded: the extremes of a candle
    /// are not known by it.
    pub(super) fn on_mid(&mut self, price: f64, at: Ts, limits: &Limits) -> Result<PriceTick, Reject> {
        let tick = self.between_candles(price, at, limits)?;
        self.has_mids = true;
        Ok(tick)
    }

    fn between_candles(&mut self, price: f64, at: Ts, limits: &Limits) -> Result<PriceTick, Reject> {
        let taken = match self.rules.price_from_f64(price) {
            None => Err(Reject::Defect("the price is below one step of the symbol or not finite")),
            Some(_) if self.tick.is_some_and(|tick| at < tick.at) => Err(Reject::Late),
            Some(rounded) => Ok(rounded),
        };
        let rounded = taken.inspect_err(|reject| self.count(*reject))?;
        if !self.guard.believes(&[price], price, at, limits.jump_factor) {
            return Err(self.withhold(price, at));
        }
        self.cached = None;
        self.counts.accepted += 1;
        self.price = price;
        Ok(self.accept(rounded, at, None))
    }

    pub(super) fn on_book(&mut self, book: Book, at: Ts) {
        self.book = Some((book, at));
        self.cached = None;
    }

    /// The book is not known any more.
    pub(super) fn no_book(&mut self) {
        self.book = None;
        self.cached = None;
    }

    /// The book, unless it is older than a price may be.
    fn fresh_book(&self, now: Ts, limits: &Limits) -> Option<Book> {
        self.book.filter(|(_, at)| now.since_ms(*at) <= limits.price_max_age_ms).map(|(book, _)| book)
    }

    pub(super) fn advance(&mut self, now: Ts, limits: &Limits, closed: &mut Vec<ClosedFrame>) {
        let known = closed.len();
        self.aggregator.advance(now, closed);
        for frame in closed.iter().skip(known) {
            self.take_closed(frame, limits);
            self.cached = None;
        }
    }

    /// Every base candle that ended by `end` has arrived.
    pub(super) fn settle(&mut self, end: Ts) {
        self.settled = self.settled.max(end);
    }

    pub(super) fn settled(&self) -> Ts {
        self.settled
    }

    pub(super) fn last_tick(&self) -> Option<PriceTick> {
        self.tick
    }

    /// Until when the data count as advancing if nothing else arrives; `None` without any.
    pub(super) fn healthy_until(&self, limits: &Limits) -> Option<Ts> {
        let candle_ms = if self.priced_at.is_some() || self.has_mids { 0 } else { self.aggregator.base().ms() };
        self.tick.map(|tick| tick.at.plus_ms(limits.silence_ms + candle_ms))
    }

    pub(super) fn status(&self, now: Ts, limits: &Limits) -> FeedStatus {
        let age_ms = self.tick.map(|tick| now.since_ms(tick.at));
        FeedStatus {
            symbol: self.symbol,
            price_at: self.tick.map(|tick| tick.at),
            age_ms,
            healthy: self.healthy_until(limits).is_some_and(|until| now <= until),
            in_doubt: self.guard.in_doubt(),
            counts: self.counts,
            last_defect: self.last_defect,
            spread_bps: self.fresh_book(now, limits).map(|book| book.spread_bps),
        }
    }

    pub(super) fn snapshot(&mut self, now: Ts, limits: &Limits) -> Option<Arc<Snapshot>> {
        if let Some(cached) = self.cached.as_ref().filter(|cached| cached.as_of == now) {
            return Some(cached.clone());
        }
        let mut frames = [const { None }; 6];
        let mut flagged_frames = Vec::new();
        let (mut score, mut counted) = (0_i32, 0_i32);
        let mut primary_fresh = false;
        for (i, frame) in Timeframe::ALL.into_iter().enumerate() {
            let Some(state) = &mut self.frames[i] else { continue };
            let stale = now.since_ms(state.last.close_time(frame)) > limits.frame_max_age_ms[i];
            primary_fresh |= frame == limits.primary && !stale;
            let disturbed = state.disturbed_at.is_some_and(|at| state.engine.seen() - at < limits.lookback[i]);
            if stale || disturbed {
                flagged_frames.push(frame);
            }
            let values = state.engine.values();
            if let (Some(fast), Some(slow)) = (values.ema9, values.ema21)
                && state.engine.seen() >= ALIGNMENT_CANDLES
            {
                score += i32::from(fast > slow) - i32::from(fast < slow);
                counted += 1;
            }
            frames[i] = Some(state.view(frame));
        }
        let quality = match self.tick {
            // While the feed claims another level nobody knows which of the two is the price.
            Some(tick) if !self.guard.in_doubt() && now.since_ms(tick.at) <= limits.price_max_age_ms => {
                if primary_fresh { Quality::Good } else { Quality::PrimaryStale }
            }
            _ => Quality::PriceStale,
        };
        let parts = SnapshotParts {
            symbol: self.symbol,
            as_of: now,
            price: self.tick.map(|tick| tick.price),
            price_at: self.tick.map_or(now, |tick| tick.at),
            price_id: self.tick.map_or(0, |tick| tick.price_id),
            primary: limits.primary,
            frames,
            change_24h_pct: self.tick.and_then(|_| self.day.change_pct(self.price, now)),
            volume_24h: self.day.volume(now, self.aggregator.open_volume(self.day.frame)),
            alignment: (counted > 0).then(|| f64::from(score) / f64::from(counted)),
            book: self.fresh_book(now, limits),
            quality,
            flagged_frames,
        };
        match Snapshot::new(parts) {
            Ok(snapshot) => {
                let snapshot = Arc::new(snapshot);
                self.cached = Some(snapshot.clone());
                Some(snapshot)
            }
            Err(_) => {
                self.counts.look_aheads += 1;
                None
            }
        }
    }

    /// The candle's prices rounded to the symbol's steps.
    fn range(&self, candle: &Candle) -> Result<(Price, PriceRange), Reject> {
        let price = |value| self.rules.price_from_f64(value);
        let rounded = price(candle.close).zip(price(candle.open)).zip(price(candle.high).zip(price(candle.low)));
        let ((close, open), (high, low)) = rounded.ok_or(Reject::Defect("a price is below one step of the symbol"))?;
        Ok((close, PriceRange { from: candle.open_time, open, high, low }))
    }

    fn accept(&mut self, price: Price, at: Ts, range: Option<PriceRange>) -> PriceTick {
        let price_id = self.tick.map_or(1, |tick| tick.price_id + 1);
        let tick = PriceTick { symbol: self.symbol, price, at, price_id, range };
        self.tick = Some(tick);
        tick
    }

    fn count(&mut self, reject: Reject) {
        match reject {
            Reject::Duplicate => self.counts.duplicates += 1,
            Reject::Late => self.counts.late += 1,
            Reject::Defect(why) => {
                self.counts.defects += 1;
                self.last_defect = Some(why);
            }
            Reject::Jump => self.counts.withheld += 1,
            Reject::UnknownSymbol => {}
        }
    }

    fn withhold(&mut self, price: f64, at: Ts) -> Reject {
        self.cached = None;
        let accepted = self.tick.map(|tick| tick.price);
        self.withheld = Some(Withheld { symbol: self.symbol, at, price, accepted });
        self.count(Reject::Jump);
        Reject::Jump
    }

    /// How many values were withheld, and the newest.
    pub(super) fn withheld(&self) -> (u64, Option<Withheld>) {
        (self.counts.withheld, self.withheld)
    }

    fn take_closed(&mut self, closed: &ClosedFrame, limits: &Limits) {
        let i = closed.frame.index();
        // Around a hole the whole candle was fetched: what the base candles give of it is a part.
        if self.frames[i].as_ref().is_some_and(|state| state.last.open_time >= closed.candle.open_time) {
            return;
        }
        let state = self.frames[i].get_or_insert_with(|| {
            Box::new(FrameState {
                engine: IndicatorEngine::new(),
                last: closed.candle,
                disturbed_at: None,
                tail: VecDeque::new(),
                view: None,
            })
        });
        state.engine.update(&closed.candle);
        state.last = closed.candle;
        if limits.tail > 0 {
            if state.tail.len() >= limits.tail {
                state.tail.pop_front();
            }
            state.tail.push_back(closed.candle);
        }
        state.view = None;
        if closed.partial {
            state.disturbed_at = Some(state.engine.seen());
        }
        if closed.frame == self.day.frame {
            self.day.push(closed.candle.close_time(closed.frame), &closed.candle);
        }
    }

    fn take_gap(&mut self, gap: &Gap, limits: &Limits) {
        if gap.frame == self.aggregator.base() {
            self.counts.gaps += 1;
            self.counts.missing_candles += gap.candles().unsigned_abs();
        }
        let i = gap.frame.index();
        let Some(state) = &mut self.frames[i] else { return };
        // Longer candles that were fetched lie in the hole already.
        let from = gap.from.max(state.last.close_time(gap.frame));
        if from >= gap.to {
            return;
        }
        if (Gap { from, ..*gap }).candles().unsigned_abs() > reset_after(limits.lookback[i]) {
            self.counts.resets += 1;
            state.engine = IndicatorEngine::new();
            state.tail.clear();
        }
        state.disturbed_at = Some(state.engine.seen());
        state.view = None;
    }
}

fn prices_of(candle: &Candle) -> [f64; 4] {
    [candle.open, candle.high, candle.low, candle.close]
}

impl FrameState {
    fn view(&mut self, frame: Timeframe) -> Arc<FrameView> {
        let build = || {
            Arc::new(FrameView {
                frame,
                last: self.last,
                closed_candles: self.engine.seen(),
                indicators: self.engine.values().clone(),
                tail: self.tail.iter().copied().collect(),
            })
        };
        self.view.get_or_insert_with(build).clone()
    }
}

impl Day {
    fn push(&mut self, end: Ts, candle: &Candle) {
        self.candles.push_back((end, candle.close, candle.volume));
        self.drop_older_than(end.plus_ms(-DAY_MS));
        self.volume = self.candles.iter().map(|(.., volume)| volume).sum();
    }

    fn drop_older_than(&mut self, start: Ts) {
        while let Some((end, close, volume)) = self.candles.front().filter(|(end, ..)| *end <= start).copied() {
            self.reference = Some((end, close));
            self.volume -= volume;
            self.candles.pop_front();
        }
    }

    /// Change against the last close at or before 24 hours ago; absent when that close is more than an hour older still.
    fn change_pct(&mut self, price: f64, now: Ts) -> Option<f64> {
        let start = now.plus_ms(-DAY_MS);
        self.drop_older_than(start);
        let oldest_allowed = start.plus_ms(-Timeframe::H1.ms() - self.frame.ms());
        let (_, close) = self.reference.filter(|(end, _)| *end >= oldest_allowed)?;
        Some((price / close - 1.0) * 100.0)
    }

    /// Volume of the candles that ended within 24 hours and of the one being built; absent before a day is known.
    fn volume(&mut self, now: Ts, open: f64) -> Option<f64> {
        self.drop_older_than(now.plus_ms(-DAY_MS));
        self.reference?;
        Some(self.volume + open)
    }
}
