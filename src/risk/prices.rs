//! The newest price per symbol and what an asset is worth in the account currency. Never invents a price: what is
//! missing stays missing, and the age of a chain is the age of its oldest link.

use crate::model::{Asset, Price, Symbol, Ts};

/// A price with the instant it was true.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PriceAt {
    /// Quote units per base unit.
    pub price: Price,
    /// When it was true.
    pub at: Ts,
}

/// Newest prices in symbol order. Small and sorted, so that a look-up is a few comparisons and no allocation.
#[derive(Clone, PartialEq, Debug)]
pub struct PriceBook {
    account: Asset,
    prices: Vec<(Symbol, PriceAt)>,
}

impl PriceBook {
    /// An empty book for accounts kept in `account`.
    pub const fn new(account: Asset) -> PriceBook {
        PriceBook { account, prices: Vec::new() }
    }

    /// The account currency.
    pub const fn account(&self) -> Asset {
        self.account
    }

    /// Remembers a price; one that is not newer than the known one or not > 0 is ignored and answers `false`.
    pub fn set(&mut self, symbol: Symbol, price: Price, at: Ts) -> bool {
        if price <= Price::ZERO {
            return false;
        }
        match self.prices.binary_search_by(|(known, _)| known.cmp(&symbol)) {
            Ok(found) => {
                let Some((_, known)) = self.prices.get_mut(found) else { return false };
                if known.at > at {
                    return false;
                }
                *known = PriceAt { price, at };
            }
            Err(place) => self.prices.insert(place, (symbol, PriceAt { price, at })),
        }
        true
    }

    /// The newest price of a symbol.
    pub fn get(&self, symbol: Symbol) -> Option<PriceAt> {
        let found = self.prices.binary_search_by(|(known, _)| known.cmp(&symbol)).ok()?;
        self.prices.get(found).map(|(_, price)| *price)
    }

    /// Account currency per one unit of `asset`: 1 for the account currency (with `at` = the far future, because it
    /// never grows old), the direct pair, or one pair in between.
    pub fn usd(&self, asset: Asset) -> Option<PriceAt> {
        if asset == self.account {
            return Some(PriceAt { price: Price::ONE, at: Ts(i64::MAX) });
        }
        if let Some(direct) = self.get(Symbol { base: asset, quote: self.account }) {
            return Some(direct);
        }
        self.prices.iter().filter(|(symbol, _)| symbol.base == asset).find_map(|(symbol, first)| {
            let second = self.get(Symbol { base: symbol.quote, quote: self.account })?;
            Some(PriceAt { price: first.price.checked_mul(second.price)?, at: first.at.min(second.at) })
        })
    }

    /// Account currency per one base unit of `symbol`, priced by the symbol itself.
    pub fn usd_of_base(&self, symbol: Symbol) -> Option<PriceAt> {
        let own = self.get(symbol)?;
        let quote = self.usd(symbol.quote)?;
        Some(PriceAt { price: own.price.checked_mul(quote.price)?, at: own.at.min(quote.at) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::risk::fixtures::{dec, sym, usdt};

    #[test]
    fn values_go_through_one_pair_and_take_the_oldest_age() {
        let mut book = PriceBook::new(usdt());
        assert!(book.set(sym("XRP/BTC"), dec("0.00002"), Ts(50)));
        assert!(book.set(sym("BTC/USDT"), dec("50000"), Ts(40)));
        let xrp = book.usd("XRP".parse().unwrap()).unwrap();
        assert_eq!((xrp.price, xrp.at), (dec("1"), Ts(40)));
        assert_eq!(book.usd("ETH".parse().unwrap()), None);
    }

    #[test]
    fn a102_a_late_or_made_up_price_is_never_taken() {
        let mut book = PriceBook::new(usdt());
        assert!(book.set(sym("BTC/USDT"), dec("50000"), Ts(40)));
        assert!(!book.set(sym("BTC/USDT"), dec("49000"), Ts(39)));
        assert!(!book.set(sym("BTC/USDT"), dec("0"), Ts(99)));
        assert_eq!(book.get(sym("BTC/USDT")).unwrap().price, dec("50000"));
    }
}
