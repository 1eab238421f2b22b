//! The newest accepted prices, shared on one thread: written by the market's hook alone, read by everyone. Beside them the
//! symbols whose prices have stopped, written by the link to a live venue.

use std::{
    cell::{Ref, RefCell},
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use super::prices::PriceBook;
use crate::model::{Asset, PriceTick, Symbol};

/// Newest ticks and the same prices as a book of values.
#[derive(Clone, Debug)]
pub struct Board {
    /// Newest tick by symbol.
    pub ticks: BTreeMap<Symbol, PriceTick>,
    /// The same prices, for values in the account currency.
    pub book: PriceBook,
    /// Symbols of a live venue without a price for `market.silence_seconds`: nothing is entered in them.
    pub silent: BTreeSet<Symbol>,
}

/// The writing end.
#[derive(Clone)]
pub struct PriceBoard(Rc<RefCell<Board>>);

impl PriceBoard {
    /// An empty board for accounts kept in `account`.
    pub fn new(account: Asset) -> PriceBoard {
        let board = Board { ticks: BTreeMap::new(), book: PriceBook::new(account), silent: BTreeSet::new() };
        PriceBoard(Rc::new(RefCell::new(board)))
    }

    /// Takes a price; one that is not newer than the known one is ignored.
    pub fn set(&self, tick: PriceTick) {
        let mut board = self.0.borrow_mut();
        if board.book.set(tick.symbol, tick.price, tick.at) {
            board.ticks.insert(tick.symbol, tick);
        }
    }

    /// These symbols' prices have stopped, and no others'.
    pub fn set_silent(&self, silent: BTreeSet<Symbol>) {
        self.0.borrow_mut().silent = silent;
    }

    /// The reading end.
    pub fn reader(&self) -> Prices {
        Prices(Rc::clone(&self.0))
    }
}

/// The reading end.
#[derive(Clone)]
pub struct Prices(Rc<RefCell<Board>>);

impl Prices {
    /// All prices; keep the borrow short and never across an await.
    pub fn read(&self) -> Ref<'_, Board> {
        self.0.borrow()
    }

    /// The newest tick of a symbol.
    pub fn tick(&self, symbol: Symbol) -> Option<PriceTick> {
        self.0.borrow().ticks.get(&symbol).copied()
    }
}
