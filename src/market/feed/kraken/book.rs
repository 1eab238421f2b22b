//! The ten best levels of both sides, kept from snapshots and changes and proved by the venue's checksum after each.

use std::{cmp::Reverse, collections::BTreeMap};

use rust_decimal::{Decimal, prelude::ToPrimitive};

use super::wire::BookFrame;
use crate::model::Book;

/// Levels a side; what the subscription asks for and what the checksum covers.
pub const DEPTH: usize = 10;

/// Why a book cannot be trusted any more; the cure is a new snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BookError {
    /// A change came before the first snapshot.
    #[error("a change of the book came before its snapshot")]
    NoSnapshot,
    /// A price or quantity has more digits than a decimal holds.
    #[error("a price or quantity of the book is out of range")]
    Number,
    /// Digits and checksum disagree: a frame was lost or changed.
    #[error("the checksum of the book is {computed}, the venue says {expected}")]
    Checksum {
        /// Over our levels.
        computed: u32,
        /// The venue's.
        expected: u32,
    },
}

#[derive(Debug, Clone)]
struct Level {
    price: String,
    quantity: String,
    depth: Decimal,
}

/// The book of one symbol.
#[derive(Debug, Clone, Default)]
pub struct OrderBook {
    bids: BTreeMap<Reverse<Decimal>, Level>,
    asks: BTreeMap<Decimal, Level>,
    known: bool,
}

impl OrderBook {
    /// Takes a snapshot or change and proves the result. After an error the book is empty until the next snapshot.
    ///
    /// # Errors
    /// [`BookError`].
    pub fn take(&mut self, frame: &BookFrame) -> Result<(), BookError> {
        self.change(frame).inspect_err(|_| *self = OrderBook::default())
    }

    fn change(&mut self, frame: &BookFrame) -> Result<(), BookError> {
        if frame.snapshot {
            *self = OrderBook { known: true, ..OrderBook::default() };
        } else if !self.known {
            return Err(BookError::NoSnapshot);
        }
        for (price, quantity) in &frame.bids {
            put(&mut self.bids, Reverse, price, quantity)?;
        }
        for (price, quantity) in &frame.asks {
            put(&mut self.asks, |price| price, price, quantity)?;
        }
        let computed = self.checksum();
        if computed != frame.checksum {
            return Err(BookError::Checksum { computed, expected: frame.checksum });
        }
        Ok(())
    }

    /// CRC-32 over the digits of the asks from the best, then the bids from the best: price and quantity without their
    /// point and leading zeros (Kraken, WebSocket v2 book checksum).
    pub fn checksum(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        for level in self.asks.values().chain(self.bids.values()) {
            for number in [&level.price, &level.quantity] {
                let mut leading = true;
                for byte in number.bytes().filter(|byte| *byte != b'.') {
                    leading &= byte == b'0';
                    if !leading {
                        hasher.update(&[byte]);
                    }
                }
            }
        }
        hasher.finalize()
    }

    /// A snapshot was taken, and every change since fitted.
    pub fn is_known(&self) -> bool {
        self.known
    }

    /// The middle between the best prices, quote units, and how far they are apart, basis points; absent while a side is
    /// empty or the sides cross.
    pub fn middle(&self) -> Option<(f64, f64)> {
        let (bid, ask) = (self.bids.keys().next()?.0.to_f64()?, self.asks.keys().next()?.to_f64()?);
        let mid = f64::midpoint(bid, ask);
        (bid > 0.0 && ask > bid).then(|| (mid, (ask - bid) / mid * 10_000.0))
    }

    /// Depth, imbalance and spread; `usd` is what one quote unit is worth. Absent while a side is empty.
    pub fn view(&self, usd: f64) -> Option<Book> {
        let (bid, ask) = (self.bids.keys().next()?.0, self.asks.keys().next()?);
        let depth =
            |levels: &mut dyn Iterator<Item = &Level>| levels.map(|level| level.depth).sum::<Decimal>().to_f64();
        let (bids, asks) = (depth(&mut self.bids.values())?, depth(&mut self.asks.values())?);
        let (bid, ask) = (bid.to_f64()?, ask.to_f64()?);
        let mid = f64::midpoint(bid, ask);
        Some(Book {
            bid_depth_usd: bids * usd,
            ask_depth_usd: asks * usd,
            imbalance: (bids - asks) / (bids + asks),
            spread_bps: (ask - bid) / mid * 10_000.0,
        })
    }
}

/// Sets or removes a level and drops what lies deeper than [`DEPTH`].
fn put<K: Ord>(
    side: &mut BTreeMap<K, Level>,
    key: impl Fn(Decimal) -> K,
    price: &str,
    quantity: &str,
) -> Result<(), BookError> {
    let number = |text: &str| text.parse::<Decimal>().map_err(|_| BookError::Number);
    let (at, size) = (number(price)?, number(quantity)?);
    if size.is_zero() {
        side.remove(&key(at));
        return Ok(());
    }
    let depth = at.checked_mul(size).ok_or(BookError::Number)?;
    side.insert(key(at), Level { price: price.to_owned(), quantity: quantity.to_owned(), depth });
    while side.len() > DEPTH {
        side.pop_last();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(snapshot: bool, bids: &[(&str, &str)], asks: &[(&str, &str)], checksum: u32) -> BookFrame {
        let levels = |side: &[(&str, &str)]| side.iter().map(|(p, q)| ((*p).to_owned(), (*q).to_owned())).collect();
        let symbol = "BTC/USD".parse().unwrap();
        BookFrame { symbol, snapshot, bids: levels(bids), asks: levels(asks), checksum, at: None }
    }

    /// The checksum of these digits, computed apart from the book.
    fn crc(digits: &str) -> u32 {
        crc32fast::hash(digits.as_bytes())
    }

    #[test]
    fn the_checksum_covers_asks_then_bids_without_point_and_leading_zeros() {
        let mut book = OrderBook::default();
        let first = frame(
            true,
            &[("0.0500", "1.50000000")],
            &[("0.0510", "0.20000000")],
            crc("510200000005001 50000000".replace(' ', "").as_str()),
        );
        assert_eq!(book.take(&first), Ok(()));
        let view = book.view(2.0).unwrap();
        assert!((view.bid_depth_usd - 0.15).abs() < 1e-12 && (view.ask_depth_usd - 0.0204).abs() < 1e-12);
        assert!((view.spread_bps - 0.001 / 0.0505 * 10_000.0).abs() < 1e-9);
        let (mid, spread_bps) = book.middle().unwrap();
        assert!((mid - 0.0505).abs() < 1e-12 && (spread_bps - view.spread_bps).abs() < 1e-9);
    }

    #[test]
    fn a_wrong_checksum_empties_the_book_until_the_next_snapshot() {
        let mut book = OrderBook::default();
        assert_eq!(book.take(&frame(false, &[], &[], 0)), Err(BookError::NoSnapshot));
        let wrong = frame(true, &[("1.0", "1.0")], &[("2.0", "1.0")], 7);
        assert!(matches!(book.take(&wrong), Err(BookError::Checksum { expected: 7, .. })));
        assert_eq!((book.view(1.0), book.middle(), book.is_known()), (None, None, false));
        assert_eq!(book.take(&frame(false, &[], &[], 0)), Err(BookError::NoSnapshot));
    }

    #[test]
    fn levels_beyond_the_tenth_are_forgotten_and_zero_removes() {
        let mut book = OrderBook::default();
        for price in 1..=12 {
            put(&mut book.asks, |p| p, &price.to_string(), "1").unwrap();
            put(&mut book.bids, Reverse, &price.to_string(), "1").unwrap();
        }
        assert_eq!(book.asks.keys().next_back(), Some(&Decimal::from(10)));
        assert_eq!(book.bids.keys().next_back(), Some(&Reverse(Decimal::from(3))));
        put(&mut book.asks, |p| p, "1.0", "0.00").unwrap();
        assert_eq!(book.asks.keys().next(), Some(&Decimal::from(2)));
        assert_eq!(put(&mut book.asks, |p| p, &"9".repeat(40), "1"), Err(BookError::Number));
    }
}
