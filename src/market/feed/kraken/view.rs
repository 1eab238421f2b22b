//! What the link to the venue shows of itself: written by its task, read for `status` and for the clock rule.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use super::{
    backfill::{gap_words, missing_in},
    session::ONLINE,
};
use crate::model::{Symbol, Timeframe, Ts};

/// An offset older than this says nothing any more, milliseconds; it is measured every minute.
const OFFSET_MAX_AGE_MS: i64 = 300_000;

/// One symbol of the link.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SymbolLink {
    /// Every channel was acknowledged on this connection.
    pub subscribed: bool,
    /// The venue's words when it does not serve the symbol.
    pub refused: Option<String>,
    /// When data came last; absent before the first.
    pub last_message_at: Option<Ts>,
    /// Books that did not fit their checksum since the start.
    pub broken_books: u64,
    /// Times its prices stopped while the connection stood.
    pub silences: u64,
    /// Candles nobody could give since the start.
    pub unfilled_candles: u64,
    /// The newest hole of such candles: its first start, and the first one after it.
    pub last_gap: Option<(Ts, Ts)>,
    /// Its prices have stopped while the connection stands.
    pub silent: bool,
    /// Its candles do not come although there are trades.
    pub candles_frozen: bool,
    /// Times they stopped coming.
    pub candle_freezes: u64,
}

/// The link.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkView {
    /// A connection stands.
    pub connected: bool,
    /// Connections after the first one.
    pub reconnects: u64,
    /// Connections lost or not opened.
    pub losses: u64,
    /// Frames heard since the start.
    pub frames: u64,
    /// Those of them that could not be understood.
    pub odd_frames: u64,
    /// Candle rows that came after their candle was closed, and those a new connection repeats.
    pub late_rows: u64,
    /// Candle rows from the future; they are not taken.
    pub future_rows: u64,
    /// Venue minus wall, milliseconds, and when it was measured.
    pub offset: Option<(i64, Ts)>,
    /// State of the venue's engine in its own words.
    pub system: String,
    /// Every symbol.
    pub symbols: BTreeMap<Symbol, SymbolLink>,
}

impl Default for LinkView {
    fn default() -> LinkView {
        LinkView {
            connected: false,
            reconnects: 0,
            losses: 0,
            frames: 0,
            odd_frames: 0,
            late_rows: 0,
            future_rows: 0,
            offset: None,
            system: ONLINE.to_owned(),
            symbols: BTreeMap::new(),
        }
    }
}

/// Why nothing may be entered at the venue, whatever single prices look like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Its engine is not in service; the word is its own.
    Engine(String),
    /// The prices of every symbol it serves have stopped while the connection stood, and are not back.
    Frozen,
}

impl LinkView {
    /// What forbids entries now. One quiet symbol is none of it: it takes no entries by itself.
    pub fn trouble(&self) -> Option<Trouble> {
        if self.system != ONLINE {
            return Some(Trouble::Engine(self.system.clone()));
        }
        let mut served = self.symbols.values().filter(|line| line.refused.is_none()).peekable();
        (served.peek().is_some() && served.all(|line| line.silent)).then_some(Trouble::Frozen)
    }

    /// Data have come since the process began: what the link shows is what the venue says.
    pub fn has_heard(&self) -> bool {
        self.symbols.values().any(|line| line.last_message_at.is_some())
    }

    /// Venue minus wall, milliseconds, while it was measured lately.
    pub fn offset_ms(&self, now: Ts) -> Option<i64> {
        self.offset.filter(|(_, at)| now.since_ms(*at) <= OFFSET_MAX_AGE_MS).map(|(offset, _)| offset)
    }
}

/// The view as its writer and its readers share it; all on one thread.
#[derive(Clone, Debug, Default)]
pub struct Shared(Rc<RefCell<LinkView>>);

impl Shared {
    /// The newest state.
    pub fn read(&self) -> LinkView {
        self.0.borrow().clone()
    }

    /// So many candles of a symbol are missing in a hole and nobody can give them: counted, and logged with the words that
    /// come back.
    pub fn miss(&self, symbol: Symbol, frame: Timeframe, gap: (Ts, Ts)) -> String {
        let text = gap_words(frame, gap);
        tracing::warn!("{symbol}: {text}; `triplegain import kraken-csv` can");
        self.change(|view| {
            let line = view.symbols.entry(symbol).or_default();
            line.unfilled_candles += missing_in(frame, gap);
            line.last_gap = Some(gap);
        });
        text
    }

    /// Changes it. The closure must not come back here.
    pub fn change(&self, with: impl FnOnce(&mut LinkView)) {
        with(&mut self.0.borrow_mut());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(lines: &[(&str, Option<&str>, bool)]) -> LinkView {
        let line = |(name, refused, silent): &(&str, Option<&str>, bool)| {
            let line = SymbolLink { refused: refused.map(str::to_owned), silent: *silent, ..SymbolLink::default() };
            (name.parse::<Symbol>().unwrap(), line)
        };
        LinkView { connected: true, symbols: lines.iter().map(line).collect(), ..LinkView::default() }
    }

    #[test]
    fn one_quiet_symbol_is_no_frozen_feed() {
        assert_eq!(link(&[("BTC/USDT", None, true), ("XRP/USDT", None, false)]).trouble(), None);
        assert_eq!(link(&[("BTC/USDT", None, true), ("XRP/USDT", None, true)]).trouble(), Some(Trouble::Frozen));
    }

    #[test]
    fn a_refused_symbol_does_not_hide_that_the_others_are_frozen() {
        let refused = Some("Currency pair not supported");
        assert_eq!(link(&[("BTC/USDT", None, true), ("XRP/USDT", refused, false)]).trouble(), Some(Trouble::Frozen));
        assert_eq!(link(&[("BTC/USDT", refused, true)]).trouble(), None, "nothing is served: nothing is known");
    }

    #[test]
    fn a_lost_connection_does_not_end_that_it_was_frozen() {
        let down = LinkView { connected: false, ..link(&[("BTC/USDT", None, true)]) };
        assert_eq!(down.trouble(), Some(Trouble::Frozen));
    }

    #[test]
    fn every_state_of_the_engine_but_online_forbids_entries() {
        for system in ["maintenance", "cancel_only", "post_only", "something new"] {
            let link = LinkView { system: system.to_owned(), ..link(&[("BTC/USDT", None, false)]) };
            assert_eq!(link.trouble(), Some(Trouble::Engine(system.to_owned())));
        }
        assert_eq!(LinkView::default().trouble(), None);
    }

    #[test]
    fn holes_are_counted_and_the_newest_is_shown() {
        let (view, btc, minute) = (Shared::default(), "BTC/USDT".parse().unwrap(), |minute: i64| Ts(minute * 60_000));
        let text = view.miss(btc, Timeframe::M1, (minute(5), minute(8)));
        assert!(text.starts_with("3 candles from 1970-01-01T00:05:00"), "{text}");
        view.miss(btc, Timeframe::M1, (minute(20), minute(21)));
        let line = view.read().symbols[&btc].clone();
        assert_eq!((line.unfilled_candles, line.last_gap), (4, Some((minute(20), minute(21)))));
    }
}
