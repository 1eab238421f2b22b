//! What the link to the venue shows of itself: written by its task, read for `status` and for the clock rule.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use crate::model::{Symbol, Ts};

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
}

/// The link.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LinkView {
    /// A connection stands.
    pub connected: bool,
    /// Connections after the first one.
    pub reconnects: u64,
    /// Connections lost or not opened.
    pub losses: u64,
    /// Venue minus wall, milliseconds, and when it was measured.
    pub offset: Option<(i64, Ts)>,
    /// Every symbol.
    pub symbols: BTreeMap<Symbol, SymbolLink>,
}

impl LinkView {
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

    /// Changes it. The closure must not come back here.
    pub fn change(&self, with: impl FnOnce(&mut LinkView)) {
        with(&mut self.0.borrow_mut());
    }
}
