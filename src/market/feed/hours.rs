//! Hours that reach further back than the candles of a live feed: whether they are wanted, and kept where. REST gives 720
//! candles of a length, half a day of minutes; the frames from one hour on begin with hours until the minutes reach back.

use std::io;

use super::candle_store::CandleStore;
use crate::model::{Symbol, Ts};

/// The hours beside the candles.
#[derive(Clone, Debug)]
pub struct Hours {
    /// Where they are kept.
    pub store: CandleStore,
    /// How far back the primary frame looks, milliseconds.
    pub span_ms: i64,
}

impl Hours {
    /// Whether hours are missing: the candles do not reach back far enough, and the hours do not reach up to them.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn are_missing(&self, candles: &CandleStore, symbol: Symbol, now: Ts) -> io::Result<bool> {
        let oldest = candles.oldest(symbol)?;
        if oldest.is_some_and(|oldest| oldest <= now.plus_ms(-self.span_ms)) {
            return Ok(false);
        }
        let hour_ms = self.store.frame().ms();
        let up_to = oldest.unwrap_or(now).floor_to(hour_ms);
        Ok(self.store.newest(symbol)?.is_none_or(|newest| newest.plus_ms(hour_ms) < up_to))
    }
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
        let (candles, hours) = (open(Timeframe::M1), Hours { store: open(Timeframe::H1), span_ms: 250 * HOUR });
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
}
