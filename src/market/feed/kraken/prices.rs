//! The freshest price of each symbol: the last trade or, where nobody trades, the middle of a book that fitted its
//! checksum (domain §14.3). Pure.

use std::collections::BTreeMap;

use crate::model::{Symbol, Ts};

/// A book says a price when the newest one is so old, milliseconds: trades come first, and a busy book brings one price a
/// second at most.
pub const MID_AFTER_MS: i64 = 1_000;
/// The middle of a wider book is no price, basis points.
pub const MID_SPREAD_MAX_BPS: f64 = 100.0;

/// Trades and middles of every symbol.
#[derive(Debug, Clone, Default)]
pub struct LastPrices {
    trades: BTreeMap<Symbol, (f64, Ts)>,
    mids: BTreeMap<Symbol, (f64, Ts)>,
}

impl LastPrices {
    /// A trade at the venue's time `at`; when its price is true for us. The two channels are not in step: a trade that comes
    /// just after a middle of the same moment is news all the same, one from long before it is not.
    pub fn trade(&mut self, symbol: Symbol, price: f64, at: Ts) -> Ts {
        let before = self.trades.get(&symbol).map(|(_, at)| *at);
        self.trades.insert(symbol, (price, at));
        let mid = self.mids.get(&symbol).map(|(_, at)| *at);
        match mid.filter(|mid| *mid > at && mid.since_ms(at) <= MID_AFTER_MS) {
            Some(mid) if before.is_none_or(|before| at > before) => mid,
            _ => at,
        }
    }

    /// A proven book at the venue's time `at`; whether its middle is the freshest price.
    pub fn mid(&mut self, symbol: Symbol, mid: f64, spread_bps: f64, at: Ts) -> bool {
        let newest = self.newest(symbol).map(|(_, at)| at);
        let is_price =
            spread_bps <= MID_SPREAD_MAX_BPS && newest.is_none_or(|known| at.since_ms(known) >= MID_AFTER_MS);
        if is_price {
            self.mids.insert(symbol, (mid, at));
        }
        is_price
    }

    /// What one unit of the quote asset is worth in USD; dollar assets count as one, others by their own freshest price.
    pub fn quote_in_usd(&self, symbol: Symbol) -> Option<f64> {
        let is_dollar = |asset: &str| asset == "USD" || asset == "USDT" || asset == "USDC";
        if is_dollar(symbol.quote.as_str()) {
            return Some(1.0);
        }
        let against_dollar = |other: &&Symbol| other.base == symbol.quote && is_dollar(other.quote.as_str());
        let other = self.trades.keys().chain(self.mids.keys()).find(against_dollar)?;
        self.newest(*other).map(|(price, _)| price)
    }

    fn newest(&self, symbol: Symbol) -> Option<(f64, Ts)> {
        let both = [self.trades.get(&symbol), self.mids.get(&symbol)];
        both.into_iter().flatten().max_by_key(|(_, at)| *at).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: Ts = Ts(1_000_000_000);

    fn symbol(name: &str) -> Symbol {
        name.parse().unwrap()
    }

    #[test]
    fn a_book_is_a_price_once_a_second_when_nobody_trades() {
        let (mut last, xrp) = (LastPrices::default(), symbol("XRP/BTC"));
        assert!(last.mid(xrp, 2.0, 5.0, T), "nothing else is known");
        assert!(!last.mid(xrp, 2.0, 5.0, T.plus_ms(999)));
        assert!(last.mid(xrp, 2.0, 5.0, T.plus_ms(1_000)));
        assert_eq!(last.trade(xrp, 3.0, T.plus_ms(2_500)), T.plus_ms(2_500));
        assert!(!last.mid(xrp, 2.0, 5.0, T.plus_ms(3_000)), "the trade is fresher than a second");
        assert!(last.mid(xrp, 2.0, 100.0, T.plus_ms(3_500)));
        assert!(!last.mid(xrp, 2.0, 100.1, T.plus_ms(9_000)), "a book so wide says nothing");
    }

    #[test]
    fn a_trade_just_behind_a_book_is_news_and_an_old_one_is_not() {
        let (mut last, xrp) = (LastPrices::default(), symbol("XRP/BTC"));
        last.trade(xrp, 1.0, T);
        assert!(last.mid(xrp, 2.0, 5.0, T.plus_ms(5_000)));
        assert_eq!(last.trade(xrp, 1.0, T), T, "the same trade again");
        assert_eq!(last.trade(xrp, 3.0, T.plus_ms(4_600)), T.plus_ms(5_000));
        assert_eq!(last.trade(xrp, 3.0, T.plus_ms(4_600)), T.plus_ms(4_600), "told once");
        let mut late = LastPrices::default();
        assert!(late.mid(xrp, 2.0, 5.0, T.plus_ms(5_000)));
        assert_eq!(late.trade(xrp, 3.0, T.plus_ms(3_000)), T.plus_ms(3_000), "it is two seconds older");
    }

    #[test]
    fn a_quote_is_worth_its_freshest_price_in_dollars() {
        let (mut last, btc) = (LastPrices::default(), symbol("BTC/USDT"));
        assert_eq!(last.quote_in_usd(symbol("XRP/BTC")), None);
        assert_eq!(last.quote_in_usd(btc), Some(1.0));
        last.mid(btc, 40_000.0, 1.0, T);
        assert_eq!(last.quote_in_usd(symbol("XRP/BTC")), Some(40_000.0));
        last.trade(btc, 41_000.0, T.plus_ms(1));
        assert_eq!(last.quote_in_usd(symbol("XRP/BTC")), Some(41_000.0));
    }
}
