//! Holds closed candles of a symbol back until those before them were fetched, so that they are handed on in order. Pure.

use std::collections::BTreeMap;

use super::rest::ROWS_MAX;
use crate::model::{Candle, Symbol, Timeframe, Ts};

/// Candles kept back per symbol; the oldest go first, and become part of what is missing.
const HELD_MAX: usize = 2_000;

/// What a fetch was started with; an answer to an older one is not used.
pub type Round = u64;

/// What is handed on when a fetch has ended.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filled {
    /// In order, without doubles.
    pub candles: Vec<Candle>,
    /// Candles that nobody can give: from the first missing start to the first known one.
    pub gap: Option<(Ts, Ts)>,
}

/// What an answer to the question for candles since `from` lacks: one that is full and begins later than asked says that the
/// venue has no older ones; a shorter one has all there is.
pub fn gap_before(from: Option<Ts>, rows: &[Candle]) -> Option<(Ts, Ts)> {
    let full = rows.len() + 1 >= ROWS_MAX;
    let first = rows.first().map(|row| row.open_time);
    from.zip(first).filter(|(from, first)| full && first > from)
}

/// How many candles a gap is long.
pub fn missing_in(frame: Timeframe, gap: (Ts, Ts)) -> u64 {
    (gap.1.since_ms(gap.0) / frame.ms()).unsigned_abs()
}

/// What is told of a gap that stays.
pub fn gap_words(frame: Timeframe, gap: (Ts, Ts)) -> String {
    let missing = missing_in(frame, gap);
    format!("{missing} candles from {} to {} are missing; the venue does not give them", gap.0, gap.1)
}

#[derive(Debug, Clone, Default)]
struct Hold {
    from: Option<Ts>,
    round: Round,
    candles: BTreeMap<Ts, Candle>,
}

/// Every symbol that waits for a fetch.
#[derive(Debug, Clone, Default)]
pub struct Backfill {
    holds: BTreeMap<Symbol, Hold>,
    rounds: Round,
}

impl Backfill {
    /// A connection stands: what comes from now on waits for what may be missing since `from`. A symbol that waits
    /// already keeps its earlier start, and the answer to its earlier question is not used.
    pub fn begin(&mut self, symbol: Symbol, from: Option<Ts>) -> Round {
        self.rounds += 1;
        let hold = self.holds.entry(symbol).or_insert_with(|| Hold { from, ..Hold::default() });
        hold.round = self.rounds;
        self.rounds
    }

    /// Where the fetch of a symbol that waits begins, and its number.
    pub fn wanted(&self, symbol: Symbol) -> Option<(Option<Ts>, Round)> {
        self.holds.get(&symbol).map(|hold| (hold.from, hold.round))
    }

    /// A closed candle; handed back when nothing has to be waited for.
    pub fn candle(&mut self, symbol: Symbol, candle: Candle) -> Option<Candle> {
        let Some(hold) = self.holds.get_mut(&symbol) else { return Some(candle) };
        hold.candles.insert(candle.open_time, candle);
        if hold.candles.len() > HELD_MAX {
            hold.candles.pop_first();
        }
        None
    }

    /// The venue's closed candles, oldest first; nothing when the answer belongs to an older question.
    pub fn filled(&mut self, symbol: Symbol, round: Round, rows: &[Candle]) -> Option<Filled> {
        let hold = self.take(symbol, round)?;
        let gap = gap_before(hold.from, rows);
        let mut all = hold.candles;
        for row in rows.iter().filter(|row| hold.from.is_none_or(|from| row.open_time >= from)) {
            // The venue's final word on a candle.
            all.insert(row.open_time, *row);
        }
        Some(Filled { candles: all.into_values().collect(), gap })
    }

    /// The fetch was given up: what was held goes on, and what is before it is missing.
    pub fn given_up(&mut self, symbol: Symbol, round: Round) -> Option<Filled> {
        let hold = self.take(symbol, round)?;
        let first = hold.candles.keys().next().copied();
        let gap = hold.from.zip(first).filter(|(from, first)| first > from);
        Some(Filled { candles: hold.candles.into_values().collect(), gap })
    }

    fn take(&mut self, symbol: Symbol, round: Round) -> Option<Hold> {
        if self.holds.get(&symbol)?.round != round {
            return None;
        }
        self.holds.remove(&symbol)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbol() -> Symbol {
        "BTC/USD".parse().unwrap()
    }

    fn candle(minute: i64, close: f64) -> Candle {
        Candle { open_time: Ts(minute * 60_000), open: 1.0, high: 9.0, low: 0.5, close, volume: 1.0 }
    }

    fn minutes(filled: &Filled) -> Vec<i64> {
        filled.candles.iter().map(|candle| candle.open_time.0 / 60_000).collect()
    }

    #[test]
    fn candles_wait_for_the_fetch_and_go_on_in_order() {
        let mut fill = Backfill::default();
        assert!(fill.candle(symbol(), candle(1, 1.0)).is_some(), "nothing to wait for");
        let round = fill.begin(symbol(), Some(Ts(2 * 60_000)));
        assert_eq!(fill.candle(symbol(), candle(5, 5.0)), None);
        assert_eq!(fill.candle(symbol(), candle(4, 4.0)), None);
        let filled = fill.filled(symbol(), round, &[candle(1, 1.0), candle(2, 2.0), candle(4, 4.5)]).unwrap();
        assert_eq!((minutes(&filled), filled.gap), (vec![2, 4, 5], None), "minute 3 was silent, minute 1 is known");
        assert_eq!(filled.candles[1].close, 4.5);
        assert!(fill.candle(symbol(), candle(6, 6.0)).is_some());
    }

    #[test]
    fn an_answer_from_before_a_second_loss_is_not_used_and_the_start_stays() {
        let mut fill = Backfill::default();
        let first = fill.begin(symbol(), Some(Ts(60_000)));
        fill.candle(symbol(), candle(3, 3.0));
        let second = fill.begin(symbol(), Some(Ts(4 * 60_000)));
        assert_eq!(fill.filled(symbol(), first, &[candle(1, 1.0)]), None);
        assert_eq!(fill.wanted(symbol()), Some((Some(Ts(60_000)), second)));
        let filled = fill.filled(symbol(), second, &[candle(1, 1.0), candle(2, 1.0), candle(3, 1.0)]).unwrap();
        assert_eq!(minutes(&filled), [1, 2, 3]);
    }

    #[test]
    fn what_is_older_than_the_venue_gives_is_a_gap() {
        let mut fill = Backfill::default();
        let rows: Vec<Candle> = (100..819).map(|minute| candle(minute, 1.0)).collect();
        let round = fill.begin(symbol(), Some(Ts(40 * 60_000)));
        let gap = fill.filled(symbol(), round, &rows).unwrap().gap.unwrap();
        assert_eq!((gap, missing_in(Timeframe::M1, gap)), ((Ts(40 * 60_000), Ts(100 * 60_000)), 60));
        let round = fill.begin(symbol(), Some(Ts(40 * 60_000)));
        assert_eq!(fill.filled(symbol(), round, &rows[..718]).unwrap().gap, None, "not full: all there is");
    }

    #[test]
    fn a_fetch_that_is_given_up_frees_what_was_held() {
        let mut fill = Backfill::default();
        let round = fill.begin(symbol(), Some(Ts(60_000)));
        fill.candle(symbol(), candle(3, 3.0));
        let filled = fill.given_up(symbol(), round).unwrap();
        assert_eq!((minutes(&filled), filled.gap), (vec![3], Some((Ts(60_000), Ts(180_000)))));
    }
}
