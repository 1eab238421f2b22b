//! When a candle of the live feed is closed: with the first update of a later one, or by time after a grace. Minutes
//! nobody traded in never arrive; they are left out, not invented.

use std::collections::BTreeMap;

use super::wire::OhlcRow;
use crate::model::{Candle, Symbol, Timeframe, Ts};

/// So far ahead of our own clock a candle may begin, milliseconds: clocks differ, and more is no clock.
const CLOCKS_APART_MS: i64 = 60_000;

/// The forming candle of every symbol.
#[derive(Debug, Clone)]
pub struct CandleCloser {
    frame: Timeframe,
    grace_ms: i64,
    forming: BTreeMap<Symbol, Candle>,
    /// Start of the newest candle handed out.
    closed: BTreeMap<Symbol, Ts>,
}

/// What became of rows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Closed {
    /// Candles that are final now, oldest first.
    pub candles: Vec<(Symbol, Candle)>,
    /// Rows for candles that were closed before; they came too late.
    pub late: u64,
    /// Rows of another interval than the one asked for.
    pub foreign: u64,
    /// Rows for candles that cannot have begun.
    pub future: u64,
}

impl CandleCloser {
    /// Nothing known; a candle closes by itself `grace_ms` after its end.
    pub fn new(frame: Timeframe, grace_ms: i64) -> CandleCloser {
        CandleCloser { frame, grace_ms, forming: BTreeMap::new(), closed: BTreeMap::new() }
    }

    /// Candles up to this start are known already, from history or back-fill.
    pub fn known(&mut self, symbol: Symbol, newest: Ts) {
        let closed = self.closed.entry(symbol).or_insert(newest);
        *closed = (*closed).max(newest);
        self.forming.retain(|held, candle| *held != symbol || candle.open_time > newest);
    }

    /// Start of the newest candle of `symbol` handed out.
    pub fn newest(&self, symbol: Symbol) -> Option<Ts> {
        self.closed.get(&symbol).copied()
    }

    /// Whether the row begins later than clocks can differ: one such row would close what is being built, and make every row
    /// after it late.
    pub fn is_future(&self, row: &OhlcRow, now: Ts) -> bool {
        row.candle.open_time > now.plus_ms(CLOCKS_APART_MS)
    }

    /// Takes the rows of one frame in the order they came.
    pub fn take(&mut self, rows: &[OhlcRow], now: Ts) -> Closed {
        let mut out = Closed::default();
        for row in rows {
            if self.is_future(row, now) {
                out.future += 1;
                continue;
            }
            if i64::from(row.minutes) * 60_000 != self.frame.ms() {
                out.foreign += 1;
                continue;
            }
            if self.closed.get(&row.symbol).is_some_and(|newest| row.candle.open_time <= *newest) {
                // A snapshot after a reconnect repeats what is known; only changed values are late.
                out.late += 1;
                continue;
            }
            match self.forming.get(&row.symbol) {
                Some(held) if row.candle.open_time < held.open_time => {
                    out.late += 1;
                    continue;
                }
                Some(held) if row.candle.open_time > held.open_time => {
                    let ended = *held;
                    self.hand_out(row.symbol, ended, &mut out);
                }
                _ => {}
            }
            self.forming.insert(row.symbol, row.candle);
        }
        out
    }

    /// Whether the candle of `symbol` that ended by `end` is held still.
    pub fn holds(&self, symbol: Symbol, end: Ts) -> bool {
        self.forming.get(&symbol).is_some_and(|candle| candle.close_time(self.frame) <= end)
    }

    /// Start of the candle of `symbol` that is held.
    pub fn held(&self, symbol: Symbol) -> Option<Ts> {
        self.forming.get(&symbol).map(|candle| candle.open_time)
    }

    /// What is held of `symbol` is not what the candle became.
    pub fn forget(&mut self, symbol: Symbol) {
        self.forming.remove(&symbol);
    }

    /// The connection is gone, and `heard` is when it was heard last: what had ended by then is whole and is closed. The rest
    /// is forgotten, because nobody knows what it became.
    pub fn cut(&mut self, heard: Ts) -> Closed {
        let whole = self.advance(heard.plus_ms(self.grace_ms));
        self.forming.clear();
        whole
    }

    /// Closes what ended at least a grace before `now`.
    pub fn advance(&mut self, now: Ts) -> Closed {
        let mut out = Closed::default();
        let (frame, grace) = (self.frame, self.grace_ms);
        let ended = |candle: &Candle| candle.close_time(frame).plus_ms(grace) <= now;
        let due: Vec<(Symbol, Candle)> = self
            .forming
            .iter()
            .filter(|(_, candle)| ended(candle))
            .map(|(symbol, candle)| (*symbol, *candle))
            .collect();
        for (symbol, candle) in due {
            self.forming.remove(&symbol);
            self.hand_out(symbol, candle, &mut out);
        }
        out
    }

    /// When [`CandleCloser::advance`] has something to do next.
    pub fn next_close(&self) -> Option<Ts> {
        self.forming.values().map(|candle| candle.close_time(self.frame).plus_ms(self.grace_ms)).min()
    }

    fn hand_out(&mut self, symbol: Symbol, candle: Candle, out: &mut Closed) {
        self.closed.insert(symbol, candle.open_time);
        out.candles.push((symbol, candle));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Later than every candle.
    const NOW: Ts = Ts(1_000 * 60_000);

    fn symbol() -> Symbol {
        "BTC/USD".parse().unwrap()
    }

    fn row(minute: i64, close: f64) -> OhlcRow {
        let open_time = Ts(minute * 60_000);
        OhlcRow {
            symbol: symbol(),
            minutes: 1,
            candle: Candle { open_time, open: 1.0, high: 9.0, low: 0.5, close, volume: 1.0 },
        }
    }

    fn closer() -> CandleCloser {
        CandleCloser::new(Timeframe::M1, 5_000)
    }

    fn starts(closed: &Closed) -> Vec<i64> {
        closed.candles.iter().map(|(_, candle)| candle.open_time.0 / 60_000).collect()
    }

    #[test]
    fn a_candle_closes_with_the_next_one_in_its_last_form() {
        let mut closer = closer();
        assert_eq!(closer.take(&[row(1, 2.0), row(1, 3.0)], NOW), Closed::default());
        let closed = closer.take(&[row(2, 4.0)], NOW);
        assert_eq!(starts(&closed), [1]);
        assert_eq!(closed.candles[0].1.close, 3.0);
    }

    #[test]
    fn a_candle_closes_by_time_after_the_grace_and_a_straggler_is_late() {
        let mut closer = closer();
        closer.take(&[row(1, 2.0)], NOW);
        assert_eq!(closer.next_close(), Some(Ts(125_000)));
        assert_eq!(closer.advance(Ts(124_999)), Closed::default());
        assert_eq!(starts(&closer.advance(Ts(125_000))), [1]);
        assert_eq!(closer.take(&[row(1, 9.0)], NOW).late, 1);
        assert_eq!(closer.newest(symbol()), Some(Ts(60_000)));
    }

    #[test]
    fn a_snapshot_hands_out_all_but_the_forming_candle_and_repeats_nothing() {
        let mut closer = closer();
        // Minute 3 was silent: it never arrives.
        let snapshot = [row(1, 1.0), row(2, 2.0), row(4, 4.0)];
        assert_eq!(starts(&closer.take(&snapshot, NOW)), [1, 2]);
        let again = closer.take(&[row(1, 1.0), row(2, 2.0), row(4, 4.5), row(5, 5.0)], NOW);
        assert_eq!((starts(&again), again.late), (vec![4], 2));
        assert_eq!(again.candles[0].1.close, 4.5);
    }

    #[test]
    fn what_history_brought_is_not_handed_out_again() {
        let mut closer = closer();
        closer.known(symbol(), Ts(2 * 60_000));
        assert_eq!(starts(&closer.take(&[row(1, 1.0), row(2, 2.0), row(3, 3.0), row(4, 4.0)], NOW)), [3]);
    }

    #[test]
    fn what_a_lost_connection_cut_off_is_forgotten_and_what_had_ended_is_not() {
        let mut closer = closer();
        closer.take(&[row(1, 2.0)], NOW);
        assert_eq!(starts(&closer.clone().cut(Ts(120_000))), [1], "heard when it had ended");
        assert_eq!(closer.cut(Ts(119_999)), Closed::default());
        assert_eq!((closer.next_close(), closer.newest(symbol())), (None, None));
    }

    #[test]
    fn rows_of_another_interval_are_counted() {
        let other = OhlcRow { minutes: 5, ..row(5, 1.0) };
        assert_eq!(closer().take(&[other], NOW).foreign, 1);
    }

    #[test]
    fn a_row_from_the_future_is_refused_and_makes_no_later_one_late() {
        let mut closer = closer();
        closer.take(&[row(1, 2.0)], Ts(90_000));
        let far = closer.take(&[row(600, 9.0)], Ts(90_000));
        assert_eq!((far.future, starts(&far)), (1, vec![]), "nor does it close what is held");
        assert_eq!(starts(&closer.take(&[row(2, 3.0)], Ts(120_000))), [1]);
        assert_eq!(starts(&closer.take(&[row(3, 3.0)], Ts(120_000))), [2], "a clock may be ahead by one candle");
        assert_eq!(closer.take(&[row(4, 3.0)], Ts(179_999)).future, 1);
        assert_eq!(closer.take(&[row(4, 3.0)], Ts(180_000)).late, 0);
    }
}
