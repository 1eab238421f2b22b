//! Hours that reach further back than the candles of a live feed, or lie in their holes: whether they are wanted, and kept
//! where. REST gives 720 candles of a length, half a day of minutes; what is older, before the candles or in a hole between
//! them, the frames from one hour on take from the hours.

use std::collections::BTreeSet;

use super::{FeedError, candle_store::CandleStore};
use crate::model::{Symbol, Ts};

/// The hours beside the candles.
#[derive(Clone, Debug)]
pub struct Hours {
    /// Where they are kept.
    pub store: CandleStore,
    /// How far back the primary frame looks, milliseconds.
    pub span_ms: i64,
    /// More hours than these missing in a row make the frame of hours start over.
    pub reset_after: u64,
}

impl Hours {
    /// Whether hours are missing: the candles do not reach back far enough and the hours do not reach up to them, or there is
    /// a hole within that reach which makes the frame of hours start over and which the hours do not cover.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn are_missing(&self, candles: &CandleStore, symbol: Symbol, now: Ts) -> Result<bool, FeedError> {
        let hour_ms = self.store.frame().ms();
        let from = now.plus_ms(-self.span_ms);
        let oldest = oldest(candles, symbol)?;
        let reach_back = oldest.is_some_and(|oldest| oldest <= from);
        let mut known = BTreeSet::new();
        self.store.read(symbol, from, &mut |hour| known.extend([hour.open_time]))?;
        let up_to = oldest.unwrap_or(now).floor_to(hour_ms);
        if !reach_back && known.range(..up_to).next_back().is_none_or(|newest| newest.plus_ms(hour_ms) < up_to) {
            return Ok(true);
        }
        candles.read(symbol, from, &mut |candle| known.extend([candle.open_time.floor_to(hour_ms)]))?;
        // What reaches back with nothing in between has its hole there.
        known.extend(reach_back.then(|| from.floor_to(hour_ms)));
        known.insert(now.floor_to(hour_ms));
        let missing = |(before, after): (&Ts, &Ts)| (after.since_ms(*before) / hour_ms - 1).unsigned_abs();
        Ok(known.iter().zip(known.iter().skip(1)).map(missing).any(|hours| hours > self.reset_after))
    }
}

fn oldest(candles: &CandleStore, symbol: Symbol) -> Result<Option<Ts>, FeedError> {
    let name = || candles.path(symbol).file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    candles.oldest(symbol).map_err(|source| FeedError::Read { file: name(), line: 0, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Candle, Timeframe};

    const MINUTE: i64 = 60_000;
    const HOUR: i64 = 60 * MINUTE;

    fn rows(from: i64, until: i64, step: i64) -> Vec<Candle> {
        let flat = |at| Candle { open_time: Ts(at), open: 1.0, high: 1.0, low: 1.0, close: 1.0, volume: 0.0 };
        (from..until).step_by(usize::try_from(step).unwrap()).map(flat).collect()
    }

    #[test]
    fn hours_are_missing_until_they_meet_the_candles_or_the_candles_reach_back() {
        let folder = tempfile::tempdir().unwrap();
        let open = |frame| CandleStore::open(folder.path(), frame).unwrap();
        let (candles, hours) =
            (open(Timeframe::M1), Hours { store: open(Timeframe::H1), span_ms: 250 * HOUR, reset_after: 25 });
        let (symbol, now): (Symbol, _) = ("BTC/USDT".parse().unwrap(), Ts(1_000 * HOUR + 20 * MINUTE));
        let missing = || hours.are_missing(&candles, symbol, now).unwrap();
        assert!(missing(), "nothing is there");
        candles.append(symbol, &rows(now.0 - 12 * HOUR, now.0, MINUTE)).unwrap();
        assert!(missing());
        hours.store.append(symbol, &rows(300 * HOUR, 987 * HOUR, HOUR)).unwrap();
        assert!(missing(), "an hour lies between them");
        hours.store.append(symbol, &rows(987 * HOUR, 988 * HOUR, HOUR)).unwrap();
        assert!(!missing());
        let far = open(Timeframe::M5);
        far.append(symbol, &rows(now.0 - 251 * HOUR, now.0, 5 * MINUTE)).unwrap();
        let none = Hours { store: open(Timeframe::H4), ..hours.clone() };
        assert!(!none.are_missing(&far, symbol, now).unwrap(), "the candles are enough");
    }

    /// 300 hours of minutes with a hole of so many hours, then twelve hours up to now.
    fn holed(hole: i64) -> (tempfile::TempDir, CandleStore, Hours, Symbol, Ts) {
        let folder = tempfile::tempdir().unwrap();
        let open = |frame| CandleStore::open(folder.path(), frame).unwrap();
        let hours = Hours { store: open(Timeframe::H1), span_ms: 250 * HOUR, reset_after: 25 };
        let (candles, symbol, now) = (open(Timeframe::M1), "BTC/USDT".parse().unwrap(), Ts(1_000 * HOUR));
        let ends = now.0 - (12 + hole) * HOUR;
        candles.append(symbol, &rows(ends - 300 * HOUR, ends, MINUTE)).unwrap();
        candles.append(symbol, &rows(now.0 - 12 * HOUR, now.0, MINUTE)).unwrap();
        (folder, candles, hours, symbol, now)
    }

    #[test]
    fn a_hole_between_the_candles_that_resets_the_hours_is_wanted_until_the_hours_cover_it() {
        for (hole, wanted) in [(0, false), (25, false), (26, true), (48, true), (248, true), (600, true)] {
            let (_folder, candles, hours, symbol, now) = holed(hole);
            let missing = || hours.are_missing(&candles, symbol, now).unwrap();
            assert_eq!(missing(), wanted, "a hole of {hole} hours");
            hours.store.append(symbol, &rows(now.0 - 719 * HOUR, now.0, HOUR)).unwrap();
            assert!(!missing(), "a hole of {hole} hours, covered");
        }
    }

    #[test]
    fn candles_that_ended_long_ago_want_hours_before_anything_newer_came() {
        let (_folder, candles, hours, symbol, now) = holed(0);
        assert!(!hours.are_missing(&candles, symbol, now.plus_ms(20 * HOUR)).unwrap());
        assert!(hours.are_missing(&candles, symbol, now.plus_ms(40 * HOUR)).unwrap());
    }
}
