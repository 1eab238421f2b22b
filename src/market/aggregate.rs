//! From the candles a feed delivers to all higher frames: anchored at the epoch, gaps declared, nothing invented.
//!
//! A higher candle is built from the base candles that were traded. It closes with the base candle that ends it, with the
//! first base candle after its end, or when time passes its end ([`Aggregator::advance`]), whichever comes first.

use crate::model::{Candle, Symbol, Timeframe, Ts};

/// Share of base intervals a higher candle may lack before it is called partial, in percent. Below it lie the minutes in
/// which nobody traded, which are absent from Kraken's files without anything being wrong.
const MISSING_ALLOWED_PCT: i64 = 10;

/// Candles missing from a symbol's history.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gap {
    /// Which symbol.
    pub symbol: Symbol,
    /// Length of the missing candles.
    pub frame: Timeframe,
    /// Start of the first missing candle.
    pub from: Ts,
    /// End of the last missing candle.
    pub to: Ts,
}

impl Gap {
    /// How many candles are missing, at least 1.
    pub fn candles(&self) -> i64 {
        self.to.since_ms(self.from) / self.frame.ms()
    }
}

/// A candle that has just closed.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ClosedFrame {
    /// Which symbol.
    pub symbol: Symbol,
    /// Which frame.
    pub frame: Timeframe,
    /// The candle; for higher frames built from the base candles traded in it.
    pub candle: Candle,
    /// More than a tenth of its base intervals are missing.
    pub partial: bool,
}

/// Why a candle or price was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reject {
    /// The symbol is not configured.
    UnknownSymbol,
    /// The candle of that start was taken before.
    Duplicate,
    /// A later candle or price was taken before.
    Late,
    /// The values cannot be a candle or price.
    Defect(&'static str),
    /// Too far from the last accepted price, and nothing agrees with it yet.
    Jump,
}

#[derive(Clone, Copy, Debug)]
struct Building {
    candle: Candle,
    base_candles: i64,
}

/// Builds the higher frames of one symbol.
#[derive(Clone, Debug)]
pub struct Aggregator {
    symbol: Symbol,
    base: Timeframe,
    /// Start of the first base candle taken.
    first: Option<Ts>,
    /// Start of the last base candle taken.
    last: Option<Ts>,
    building: [Option<Building>; 6],
    /// Latest end of a candle that was closed.
    closed_until: Ts,
    /// Earliest end of a candle being built.
    next_end: Ts,
}

impl Aggregator {
    /// An aggregator that has seen nothing; `base` is the frame of the candles it will be given.
    pub fn new(symbol: Symbol, base: Timeframe) -> Aggregator {
        Aggregator {
            symbol,
            base,
            first: None,
            last: None,
            building: [None; 6],
            closed_until: Ts(i64::MIN),
            next_end: Ts(i64::MAX),
        }
    }

    /// Whether [`Aggregator::push`] would take the candle.
    ///
    /// # Errors
    /// [`Reject`] when the candle is defective, not aligned, a duplicate or late.
    pub fn check(&self, candle: &Candle) -> Result<(), Reject> {
        if let Some(defect) = candle.defect() {
            return Err(Reject::Defect(defect));
        }
        let open = candle.open_time;
        if open != open.floor_to(self.base.ms()) {
            return Err(Reject::Defect("its start is not on a boundary of its timeframe"));
        }
        match self.last {
            Some(last) if open == last => Err(Reject::Duplicate),
            // Late also means: time has already closed the higher candle this one belongs to.
            Some(last) if open < last || open < self.closed_until => Err(Reject::Late),
            _ => Ok(()),
        }
    }

    /// Takes the next base candle. Frames that close are appended to `closed`: first those that ended before this candle,
    /// then the candle itself, then those it ends, each group shortest first. Missing candles are appended to `gaps`.
    ///
    /// # Errors
    /// As [`Aggregator::check`]; nothing changed then.
    pub fn push(&mut self, candle: &Candle, closed: &mut Vec<ClosedFrame>, gaps: &mut Vec<Gap>) -> Result<(), Reject> {
        self.check(candle)?;
        let open = candle.open_time;
        self.close_ended(open, closed);
        if let Some(last) = self.last {
            self.declare_gaps(last, open, gaps);
        }
        self.last = Some(open);
        let first = *self.first.get_or_insert(open);
        closed.push(ClosedFrame { symbol: self.symbol, frame: self.base, candle: *candle, partial: false });
        let end = candle.close_time(self.base);
        for frame in self.higher() {
            self.add(frame, candle, first);
            if end == end.floor_to(frame.ms()) {
                self.close(frame, closed);
            }
        }
        self.find_next_end();
        Ok(())
    }

    /// Closes every higher candle whose end lies before `now`. Call it after everything known up to `now` was pushed.
    pub fn advance(&mut self, now: Ts, closed: &mut Vec<ClosedFrame>) {
        if now > self.next_end {
            self.close_ended(now.plus_ms(-1), closed);
            self.find_next_end();
        }
    }

    /// Base volume of the candle of `frame` being built; 0 when none is.
    pub fn open_volume(&self, frame: Timeframe) -> f64 {
        self.building[frame.index()].map_or(0.0, |b| b.candle.volume)
    }

    /// The frame of the candles this aggregator is given.
    pub fn base(&self) -> Timeframe {
        self.base
    }

    fn higher(&self) -> impl Iterator<Item = Timeframe> + use<> {
        Timeframe::ALL.into_iter().skip(self.base.index() + 1)
    }

    /// Closes what ended at or before `until`, shortest first.
    fn close_ended(&mut self, until: Ts, closed: &mut Vec<ClosedFrame>) {
        if until < self.next_end {
            return;
        }
        for frame in self.higher() {
            let ended = self.building[frame.index()].is_some_and(|b| b.candle.close_time(frame) <= until);
            if ended {
                self.close(frame, closed);
            }
        }
    }

    fn close(&mut self, frame: Timeframe, closed: &mut Vec<ClosedFrame>) {
        let Some(done) = self.building[frame.index()].take() else { return };
        let expected = frame.ms() / self.base.ms();
        let partial = (expected - done.base_candles) * 100 > expected * MISSING_ALLOWED_PCT;
        self.closed_until = self.closed_until.max(done.candle.close_time(frame));
        closed.push(ClosedFrame { symbol: self.symbol, frame, candle: done.candle, partial });
    }

    fn add(&mut self, frame: Timeframe, base: &Candle, first: Ts) {
        let slot = &mut self.building[frame.index()];
        if let Some(building) = slot {
            let candle = &mut building.candle;
            candle.high = candle.high.max(base.high);
            candle.low = candle.low.min(base.low);
            candle.close = base.close;
            candle.volume += base.volume;
            building.base_candles += 1;
            return;
        }
        let open_time = base.open_time.floor_to(frame.ms());
        // What happened before the first candle is not known: a higher candle that began before it is left out.
        if open_time >= first {
            *slot = Some(Building { candle: Candle { open_time, ..*base }, base_candles: 1 });
        }
    }

    fn declare_gaps(&self, last: Ts, open: Ts, gaps: &mut Vec<Gap>) {
        if open.since_ms(last) == self.base.ms() {
            return;
        }
        for frame in Timeframe::ALL.into_iter().skip(self.base.index()) {
            let from = last.floor_to(frame.ms()).plus_ms(frame.ms());
            let to = open.floor_to(frame.ms());
            if to > from {
                gaps.push(Gap { symbol: self.symbol, frame, from, to });
            }
        }
    }

    fn find_next_end(&mut self) {
        let ends = Timeframe::ALL.into_iter().zip(&self.building);
        let earliest = ends.filter_map(|(frame, b)| b.as_ref().map(|b| b.candle.close_time(frame))).min();
        self.next_end = earliest.unwrap_or(Ts(i64::MAX));
    }
}

#[cfg(test)]
#[path = "aggregate_tests.rs"]
mod tests;
