//! What ticker and book of a symbol say about its candles: whether a minute without a candle was one without a trade, and
//! whether the candles stand still while everything else goes on. Pure.

use std::collections::BTreeMap;

use crate::model::{Symbol, Timeframe, Ts};

/// So many candles in a row that did not come although there were trades are a channel that stands still.
pub const FROZEN_AFTER: u32 = 3;
/// Candle and ticker of one trade are heard so far apart at most, milliseconds.
const APART_MS: i64 = 2_000;

/// What is said of a candle that did not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nobody traded: the others were heard, and showed no trade.
    Silent,
    /// Nothing was heard of the symbol at all, so nobody knows.
    Doubtful,
    /// There were trades.
    Lacking {
        /// The candles stand still, as of this one.
        freezes: bool,
    },
}

#[derive(Clone, Debug, Default)]
struct Line {
    /// Last price and volume the ticker showed on this connection.
    shown: Option<(f64, Option<f64>)>,
    /// When the last trade of a candle was heard, by its start; only of candles that were not judged yet.
    trades: BTreeMap<Ts, Ts>,
    /// When ticker or book were heard last.
    heard: Option<Ts>,
    /// When a candle was heard last.
    row: Option<Ts>,
    /// First and last start of the candles that may exist and did not come.
    doubt: Option<(Ts, Ts)>,
    /// Candles that did not come although there were trades, since the last that came.
    lacking: u32,
    frozen: bool,
}

/// Every symbol of a connection.
#[derive(Clone, Debug)]
pub struct Witness {
    frame: Timeframe,
    lines: BTreeMap<Symbol, Line>,
}

impl Witness {
    /// Nothing was heard.
    pub fn new(frame: Timeframe) -> Witness {
        Witness { frame, lines: BTreeMap::new() }
    }

    /// A new connection: its first ticker shows trades of before, and all that has ended is fetched anyway. Candles that stood
    /// still do so until one comes, and what is forming then nobody has seen.
    pub fn reconnected(&mut self, now: Ts) {
        let forming = now.floor_to(self.frame.ms());
        for line in self.lines.values_mut() {
            let doubt = line.frozen.then_some((forming, forming));
            *line = Line { frozen: line.frozen, doubt, ..Line::default() };
        }
    }

    /// A ticker of the venue's time `at`: another price or volume than before is a trade.
    pub fn ticker(&mut self, symbol: Symbol, last: f64, volume: Option<f64>, at: Ts, now: Ts) {
        let start = at.floor_to(self.frame.ms());
        let line = self.lines.entry(symbol).or_default();
        line.heard = Some(now);
        if line.shown.replace((last, volume)).is_some_and(|before| before != (last, volume)) {
            line.trades.insert(start, now);
        }
    }

    /// A change of the book.
    pub fn book(&mut self, symbol: Symbol, now: Ts) {
        self.lines.entry(symbol).or_default().heard = Some(now);
    }

    /// A candle was heard, in whatever form; whether the candles stood still until now.
    pub fn candle(&mut self, symbol: Symbol, now: Ts) -> bool {
        let line = self.lines.entry(symbol).or_default();
        (line.row, line.lacking) = (Some(now), 0);
        std::mem::take(&mut line.frozen)
    }

    /// Whether trades of the candle of that start were heard for longer than its last form can be behind them.
    pub fn suspects(&self, symbol: Symbol, start: Ts) -> bool {
        let Some(line) = self.lines.get(&symbol) else { return false };
        let newer = |traded: &Ts| line.row.is_none_or(|row| traded.since_ms(row) > APART_MS);
        line.trades.get(&start).is_some_and(newer)
    }

    /// The candle of that start is not known as it ended.
    pub fn doubt_about(&mut self, symbol: Symbol, start: Ts) {
        let line = self.lines.entry(symbol).or_default();
        let (first, last) = line.doubt.unwrap_or((start, start));
        line.doubt = Some((first.min(start), last.max(start)));
    }

    /// Judges the candle of that start, which has ended and did not come.
    pub fn judge(&mut self, symbol: Symbol, start: Ts) -> Verdict {
        let line = self.lines.entry(symbol).or_default();
        let traded = line.trades.contains_key(&start);
        line.trades = line.trades.split_off(&start.plus_ms(1));
        if !traded && line.heard.is_some_and(|heard| heard >= start) {
            return Verdict::Silent;
        }
        let verdict = if traded {
            line.lacking = line.lacking.saturating_add(1);
            let freezes = line.lacking >= FROZEN_AFTER && !line.frozen;
            line.frozen |= freezes;
            Verdict::Lacking { freezes }
        } else {
            Verdict::Doubtful
        };
        self.doubt_about(symbol, start);
        verdict
    }

    /// Start of the first candle that may exist and did not come.
    pub fn doubt(&self, symbol: Symbol) -> Option<Ts> {
        self.lines.get(&symbol)?.doubt.map(|(first, _)| first)
    }

    /// The candle of that start came after all.
    pub fn closed(&mut self, symbol: Symbol, start: Ts) {
        let next = start.plus_ms(self.frame.ms());
        if self.doubt(symbol) == Some(start) {
            self.fetched(symbol, start);
        } else if let Some(line) = self.lines.get_mut(&symbol) {
            line.trades = line.trades.split_off(&next);
        }
    }

    /// Everything up to the candle of that start was fetched.
    pub fn fetched(&mut self, symbol: Symbol, newest: Ts) {
        let next = newest.plus_ms(self.frame.ms());
        let line = self.lines.entry(symbol).or_default();
        line.doubt = line.doubt.filter(|(_, last)| *last >= next).map(|(first, last)| (first.max(next), last));
        line.trades = line.trades.split_off(&next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbol() -> Symbol {
        "BTC/USDT".parse().unwrap()
    }

    fn at(seconds: i64) -> Ts {
        Ts::from_secs(seconds)
    }

    fn witness() -> Witness {
        let mut witness = Witness::new(Timeframe::M1);
        witness.ticker(symbol(), 1.0, Some(5.0), at(0), at(0));
        witness
    }

    #[test]
    fn a_minute_is_silent_only_when_the_symbol_was_heard_and_showed_no_trade() {
        let mut witness = witness();
        assert_eq!(witness.judge(symbol(), at(0)), Verdict::Silent, "the first ticker shows what was before");
        assert_eq!(witness.judge(symbol(), at(60)), Verdict::Doubtful, "nothing at all was heard");
        witness.book(symbol(), at(125));
        assert_eq!(witness.judge(symbol(), at(120)), Verdict::Silent);
        witness.ticker(symbol(), 1.0, Some(6.0), at(185), at(186));
        assert_eq!(witness.judge(symbol(), at(180)), Verdict::Lacking { freezes: false }, "its volume is another");
        assert_eq!(witness.doubt(symbol()), Some(at(60)));
        witness.fetched(symbol(), at(120));
        assert_eq!(witness.doubt(symbol()), Some(at(180)));
        witness.closed(symbol(), at(240));
        assert_eq!(witness.doubt(symbol()), Some(at(180)), "a later one is no word of it");
        witness.closed(symbol(), at(180));
        assert_eq!(witness.doubt(symbol()), None);
    }

    #[test]
    fn a_trade_belongs_to_the_minute_of_the_venues_time() {
        let mut witness = witness();
        witness.ticker(symbol(), 2.0, None, at(59), at(60));
        witness.ticker(symbol(), 3.0, None, at(60), at(60));
        assert_eq!(witness.judge(symbol(), at(0)), Verdict::Lacking { freezes: false });
        assert_eq!(witness.judge(symbol(), at(60)), Verdict::Lacking { freezes: false });
        assert_eq!(witness.judge(symbol(), at(60)), Verdict::Silent, "each is judged once");
    }

    #[test]
    fn three_candles_in_a_row_that_lack_are_a_freeze_until_one_comes() {
        let mut witness = witness();
        let minute = |witness: &mut Witness, minute: i64| {
            witness.ticker(symbol(), minute as f64, None, at(minute * 60 + 5), at(minute * 60 + 5));
            witness.judge(symbol(), at(minute * 60))
        };
        let lacks = |freezes| Verdict::Lacking { freezes };
        assert_eq!([1, 2].map(|m| minute(&mut witness, m)), [lacks(false); 2]);
        assert!(!witness.candle(symbol(), at(179)), "it comes again: nothing stood still");
        assert_eq!([3, 4, 5, 6].map(|m| minute(&mut witness, m)), [false, false, true, false].map(lacks));
        witness.reconnected(at(425));
        assert_eq!(witness.doubt(symbol()), Some(at(420)), "what has ended is fetched, what forms nobody has seen");
        assert!(witness.candle(symbol(), at(430)) && !witness.candle(symbol(), at(431)));
    }

    #[test]
    fn a_candle_that_stopped_before_its_last_trades_is_not_whole() {
        let mut witness = witness();
        witness.candle(symbol(), at(20));
        witness.ticker(symbol(), 2.0, None, at(22), at(22));
        assert!(!witness.suspects(symbol(), at(0)), "the two are not in step");
        witness.ticker(symbol(), 3.0, None, at(40), at(40));
        assert!(witness.suspects(symbol(), at(0)));
        witness.candle(symbol(), at(41));
        assert!(!witness.suspects(symbol(), at(0)), "it was late");
    }
}
